//! A store in memory that lives in simulated time: what it holds was stored when the simulation says, and what is still
//! to come is not there yet.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Created, Deleted, Entry, Key, Object, ReadRange, Store, StoreError, Upload};

/// The store. Its clock stands still unless it is set.
pub struct TimedStore {
    inner: Arc<MemoryStore>,
    times: Arc<Mutex<BTreeMap<String, i64>>>,
    now_unix_s: AtomicI64,
}

impl TimedStore {
    pub fn new() -> Self {
        Self { inner: Arc::default(), times: Arc::default(), now_unix_s: AtomicI64::new(i64::MAX) }
    }

    /// The same objects, looked at at another time.
    pub fn seen_at(&self, unix_s: i64) -> Self {
        Self { inner: Arc::clone(&self.inner), times: Arc::clone(&self.times), now_unix_s: AtomicI64::new(unix_s) }
    }

    /// A store of its own, empty, that looks at the same time.
    pub fn empty_at(unix_s: i64) -> Arc<Self> {
        let store = Self::new();
        store.set_now(unix_s);
        Arc::new(store)
    }

    /// Takes over what was stored in another one in this time, where it is wanted.
    pub fn take_from(&self, other: &Self, after: i64, until: i64, is_wanted: &dyn Fn(&Key) -> bool) {
        for (time, key, body) in other.stored_in(after, until).into_iter().filter(|(_, key, _)| is_wanted(key)) {
            self.put_at(&key, body, time);
        }
        self.set_now(until);
    }

    pub fn set_now(&self, unix_s: i64) {
        self.now_unix_s.store(unix_s, Ordering::Relaxed);
    }

    pub fn now(&self) -> i64 {
        self.now_unix_s.load(Ordering::Relaxed)
    }

    /// Puts an object there that was stored at this time.
    pub fn put_at(&self, key: &Key, body: Bytes, unix_s: i64) {
        let created = self.inner.create(key, body, &ContentId([0; 16])).unwrap();
        assert_eq!(created, Created::New, "{key} is there already");
        self.times().insert(key.as_str().to_owned(), unix_s);
    }

    /// All objects that were stored in this time, by it.
    pub fn stored_in(&self, after: i64, until: i64) -> Vec<(i64, Key, Bytes)> {
        let wanted: Vec<(i64, Key)> = self
            .times()
            .iter()
            .filter(|(_, time)| (after.saturating_add(1)..=until).contains(*time))
            .map(|(key, time)| (*time, Key::new(key.clone()).unwrap()))
            .collect();
        let mut found: Vec<(i64, Key, Bytes)> =
            wanted.into_iter().map(|(time, key)| (time, key.clone(), self.bytes(&key))).collect();
        found.sort();
        found
    }

    pub fn bytes(&self, key: &Key) -> Bytes {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut self.inner.read(key, ReadRange::All).unwrap().body, &mut bytes).unwrap();
        bytes.into()
    }

    /// The keys of all objects that are there now.
    pub fn keys(&self) -> Vec<String> {
        let now = self.now();
        self.times().iter().filter(|(_, time)| **time <= now).map(|(key, _)| key.clone()).collect()
    }

    fn times(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, i64>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_there(&self, key: &str) -> bool {
        self.times().get(key).is_some_and(|time| *time <= self.now())
    }

    fn created(&self, key: &Key, created: Created) -> Created {
        if created == Created::New {
            self.times().insert(key.as_str().to_owned(), self.now());
        }
        created
    }
}

impl Store for TimedStore {
    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        let created = self.inner.create(key, body, content)?;
        Ok(self.created(key, created))
    }

    fn begin(&self, key: &Key, content: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        Ok(Box::new(TimedUpload { store: self, key: key.clone(), upload: self.inner.begin(key, content)? }))
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        if self.is_there(key.as_str()) {
            return self.inner.read(key, range);
        }
        // The error of a store that never had it.
        let absent = Key::new("not/there/yet").unwrap();
        self.inner.read(&absent, range)
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        let now = self.now();
        self.inner.list(prefix, after, &mut |mut entry| {
            let time = self.times().get(entry.key.as_str()).copied();
            match time.filter(|time| *time <= now) {
                Some(time) => {
                    entry.modified_unix_s = Some(time);
                    visit(entry)
                }
                None => ControlFlow::Continue(()),
            }
        })
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.times().remove(key.as_str());
        self.inner.delete(key)
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        let deleted = self.inner.delete_many(keys)?;
        for (key, _) in keys.iter().zip(&deleted).filter(|(_, outcome)| **outcome == Deleted::Gone) {
            self.times().remove(key.as_str());
        }
        Ok(deleted)
    }

    crate::support::forward::forward!(inner: location, make_durable, leftovers, remove_leftover, hidden, purge, features, can_replace);
}

struct TimedUpload<'a> {
    store: &'a TimedStore,
    key: Key,
    upload: Box<dyn Upload + 'a>,
}

impl Upload for TimedUpload<'_> {
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        self.upload.part(body)
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        let created = self.upload.complete()?;
        Ok(self.store.created(&self.key, created))
    }
}
