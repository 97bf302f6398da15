//! A store in memory: for tests, and as the contract of [`Store`] in the fewest lines.

use crate::limits::MEMORY_LISTED_OBJECTS;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};

use super::features::Features;
use super::{ContentId, Created, Deleted, Entry, ErrorKind, Hidden, Key, Leftover, Object, ReadRange, Store, StoreError, Upload};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Stored>>,
    ignores_conditions: bool,
    denies_deletes: AtomicBool,
}

#[derive(Debug, Clone)]
struct Stored {
    body: Bytes,
    modified_unix_s: i64,
    /// Held against deletion, until then where that is known.
    hold: Option<Option<i64>>,
}

impl MemoryStore {
    /// An empty store that keeps the contract.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that behaves like an S3 service that ignores `If-None-Match`: `create` and `complete` overwrite
    /// and answer [`Created::New`]. It breaks the contract; [`super::claims`] is made for it.
    pub fn without_conditions() -> Self {
        Self { ignores_conditions: true, ..Self::default() }
    }

    /// Makes an object look as if it had been stored earlier, for tests. Says whether there is such an object.
    pub fn backdate(&self, key: &Key, by: Duration) -> bool {
        let by_s = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        match self.objects().get_mut(key.as_str()) {
            Some(object) => {
                object.modified_unix_s = object.modified_unix_s.saturating_sub(by_s);
                true
            }
            None => false,
        }
    }

    /// Holds an object against deletion for good, whatever end is given, for tests. Says whether there is such an
    /// object.
    pub fn hold(&self, key: &Key, until_unix_s: Option<i64>) -> bool {
        self.objects().get_mut(key.as_str()).map(|object| object.hold = Some(until_unix_s)).is_some()
    }

    /// Lets go of an object that was held. Says whether there is such an object.
    pub fn release(&self, key: &Key) -> bool {
        self.objects().get_mut(key.as_str()).map(|object| object.hold = None).is_some()
    }

    /// Behaves from now on as for credentials that cannot delete, or again as for those that can, for tests.
    pub fn deny_deletes(&self, deny: bool) {
        self.denies_deletes.store(deny, Ordering::Relaxed);
    }

    fn remove(&self, key: &Key) -> Deleted {
        let mut objects = self.objects();
        if self.denies_deletes.load(Ordering::Relaxed) {
            return Deleted::Denied("deletion is denied".to_owned());
        }
        if let Some(Stored { hold: Some(until_unix_s), .. }) = objects.get(key.as_str()) {
            return Deleted::Held { until_unix_s: *until_unix_s };
        }
        objects.remove(key.as_str());
        Deleted::Gone
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        // A panic elsewhere cannot leave the map half changed.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: &Key, body: Bytes) -> Created {
        let mut objects = self.objects();
        if !self.ignores_conditions && objects.contains_key(key.as_str()) {
            return Created::Exists;
        }
        objects.insert(key.as_str().to_owned(), Stored { body, modified_unix_s: now_unix_s(), hold: None });
        Created::New
    }

    fn get(&self, action: &str, key: &Key) -> Result<Stored, StoreError> {
        let not_found =
            || StoreError::new(ErrorKind::NotFound, format!("{action} {key}"), self.location(), "there is no such object");
        self.objects().get(key.as_str()).cloned().ok_or_else(not_found)
    }
}

impl Store for MemoryStore {
    fn location(&self) -> &str {
        "memory:"
    }

    fn create(&self, key: &Key, body: Bytes, _: &ContentId) -> Result<Created, StoreError> {
        Ok(self.put(key, body))
    }

    fn begin(&self, key: &Key, _: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        Ok(Box::new(MemoryUpload { store: self, key: key.clone(), body: BytesMut::new(), is_complete: false }))
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        let stored = self.get("read", key)?;
        let size = stored.body.len();
        let begin = usize::try_from(range.offset()).unwrap_or(usize::MAX).min(size);
        let end = match range {
            ReadRange::All | ReadRange::From(_) => size,
            ReadRange::Bounded { len, .. } => begin.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)).min(size),
        };
        let body: Box<dyn Read + Send> = Box::new(stored.body.slice(begin..end).reader());
        Ok(Object { size_bytes: size as u64, body })
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        let mut from = if after < prefix { Bound::Included(prefix.to_owned()) } else { Bound::Excluded(after.to_owned()) };
        loop {
            let page: Vec<(String, u64, i64)> = self
                .objects()
                .range((from, Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .take(MEMORY_LISTED_OBJECTS)
                .map(|(key, object)| (key.clone(), object.body.len() as u64, object.modified_unix_s))
                .collect();
            let Some((last, ..)) = page.last() else { return Ok(()) };
            from = Bound::Excluded(last.clone());
            for (text, size_bytes, modified) in page {
                let Ok(key) = Key::new(text) else { continue };
                if visit(Entry { key, size_bytes, modified_unix_s: Some(modified) }).is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.get("make durable", key).map(|_| ())
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let refused = |kind, detail: String| Err(StoreError::new(kind, format!("delete {key}"), self.location(), detail));
        match self.remove(key) {
            Deleted::Gone => Ok(()),
            Deleted::Held { .. } => refused(ErrorKind::Held, "the object is held".to_owned()),
            Deleted::Denied(detail) => refused(ErrorKind::Denied, detail),
        }
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        Ok(keys.iter().map(|key| self.remove(key)).collect())
    }

    /// There are none: what is being written is nowhere but in its upload.
    fn leftovers(&self, _: Duration) -> Result<Vec<Leftover>, StoreError> {
        Ok(Vec::new())
    }

    fn remove_leftover(&self, _: &Leftover) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn hidden(&self, _: &str, _: &str, _: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError> {
        Ok(())
    }

    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError> {
        Ok(vec![Deleted::Gone; hidden.len()])
    }

    fn features(&self) -> Result<Features, StoreError> {
        Ok(Features::none())
    }

    fn can_replace(&self, _: &Key, _: Bytes) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }
}

struct MemoryUpload<'a> {
    store: &'a MemoryStore,
    key: Key,
    body: BytesMut,
    is_complete: bool,
}

impl Upload for MemoryUpload<'_> {
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        self.body.extend_from_slice(&body);
        Ok(())
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        if std::mem::replace(&mut self.is_complete, true) {
            return Ok(Created::Exists);
        }
        Ok(self.store.put(&self.key, self.body.split().freeze()))
    }
}

fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
