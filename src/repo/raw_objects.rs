//! The objects of a repository as they are stored: sealed, under their names. No key is needed, and none is known here.
//!
//! Lives here: listing, reading and storing bytes by typed name. May not live here: what the bytes say.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::object_name::ObjectName;
use super::prefix::Prefix;
use crate::error::{Error, Kind};
use crate::limits::{DELETED_AT_ONCE, PURGED_AT_ONCE};
use crate::store::{ContentId, Created, Deleted, ErrorKind, Hidden, Key, Object, ReadRange, Store, StoreError};

/// The objects of a repository as they are stored.
#[derive(Clone)]
pub struct RawObjects {
    store: Arc<dyn Store>,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its name.
    pub name: ObjectName,
    /// Its stored size in bytes.
    pub size_bytes: u64,
    /// When it was stored, in Unix seconds by the store's clock, where the store tells.
    pub modified_unix_s: Option<i64>,
}

/// Something in a listing whose name is that of no object of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignObject {
    /// Its name in the store.
    pub name: String,
    /// Its stored size in bytes.
    pub size_bytes: u64,
}

impl RawObjects {
    /// The objects in a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The repository URL, for messages.
    pub fn location(&self) -> &str {
        self.store.location()
    }

    /// The store itself, for what is not about whole objects.
    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Visits the objects whose names have a prefix and sort after `after` (`""` for all), in the order of their names,
    /// until the visitor breaks. What is no name of a repository's object is passed over.
    ///
    /// # Errors
    /// As the store's.
    pub fn list(
        &self,
        prefix: Prefix<'_>,
        after: &str,
        visit: &mut dyn FnMut(ListedObject) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.store.list(&prefix.to_string(), after, &mut |entry| match ObjectName::parse(entry.key.as_str()) {
            Some(name) => visit(ListedObject { name, size_bytes: entry.size_bytes, modified_unix_s: entry.modified_unix_s }),
            None => ControlFlow::Continue(()),
        })?;
        Ok(())
    }

    /// As [`list`](Self::list), and visits too what is no name of a repository's object. Without a prefix all that is
    /// in the store.
    ///
    /// # Errors
    /// As the store's.
    pub fn list_all(
        &self,
        prefix: Option<Prefix<'_>>,
        after: &str,
        visit: &mut dyn FnMut(Result<ListedObject, ForeignObject>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let prefix = prefix.map_or_else(String::new, |prefix| prefix.to_string());
        self.store.list(&prefix, after, &mut |entry| {
            let size_bytes = entry.size_bytes;
            visit(match ObjectName::parse(entry.key.as_str()) {
                Some(name) => Ok(ListedObject { name, size_bytes, modified_unix_s: entry.modified_unix_s }),
                None => Err(ForeignObject { name: entry.key.to_string(), size_bytes }),
            })
        })?;
        Ok(())
    }

    /// Opens an object for reading; `None` when it is proven absent.
    ///
    /// # Errors
    /// As the store's.
    pub fn read(&self, name: &ObjectName, range: ReadRange) -> Result<Option<Object<'_>>, Error> {
        match self.store.read(&name.key()?, range) {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether there is an object of this name.
    ///
    /// # Errors
    /// As the store's.
    pub fn exists(&self, name: &ObjectName) -> Result<bool, Error> {
        Ok(self.size(name)?.is_some())
    }

    /// How long an object is; `None` if it is not there. A read of one byte, so credentials need no other right.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn size(&self, name: &ObjectName) -> Result<Option<u64>, Error> {
        Ok(self.read(name, ReadRange::Bounded { offset: 0, len: 1 })?.map(|object| object.size_bytes))
    }

    /// Opens an object of which the store said that it exists.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] when it says now that it does not; as the store's.
    pub fn read_existing(&self, name: &ObjectName) -> Result<Object<'_>, Error> {
        self.read(name, ReadRange::All)?.ok_or_else(|| {
            Error::new(
                Kind::Unreachable,
                format!("{name} in {}: the store says that it exists and that it does not", self.location()),
            )
            .hint("it may have been deleted at this moment: try again")
        })
    }

    /// A small object; `None` when it is proven absent.
    ///
    /// # Errors
    /// [`Kind::Damaged`] when it has more than `limit` bytes; as the store's.
    pub fn read_at_most(&self, name: &ObjectName, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some(object) = self.read(name, ReadRange::All)? else { return Ok(None) };
        let mut bytes = Vec::new();
        object.body.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|e| match StoreError::from_io(e) {
            Ok(error) => Error::from(error),
            Err(error) => Error::new(Kind::Unreachable, format!("read {name} in {}: {error}", self.location())),
        })?;
        if bytes.len() > limit {
            return Err(Error::new(Kind::Damaged, format!("{name} in {} is larger than it can be", self.location())));
        }
        Ok(Some(bytes))
    }

    /// Stores an object if its name is free.
    ///
    /// # Errors
    /// As the store's.
    pub fn create(&self, name: &ObjectName, bytes: Bytes, content: &ContentId) -> Result<Created, Error> {
        Ok(self.store.create(&name.key()?, bytes, content)?)
    }

    /// Makes an object that somebody else created durable.
    ///
    /// # Errors
    /// As the store's.
    pub fn make_durable(&self, name: &ObjectName) -> Result<(), Error> {
        Ok(self.store.make_durable(&name.key()?)?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// As the store's.
    pub fn delete(&self, name: &ObjectName) -> Result<(), Error> {
        Ok(self.store.delete(&name.key()?)?)
    }

    /// Deletes many objects in any order; the answers are in the order of `names`. What the store holds, or does not
    /// let these credentials delete, is no error. That what was absent before is gone is durable afterwards too.
    ///
    /// # Errors
    /// As the store's. Any of them may be gone then; calling again is safe.
    pub fn delete_many(&self, names: &[ObjectName]) -> Result<Vec<Deleted>, Error> {
        let mut deleted = Vec::with_capacity(names.len());
        // So much at a time, because keys are longer than names.
        for names in names.chunks(DELETED_AT_ONCE) {
            let keys: Vec<Key> = names.iter().map(ObjectName::key).collect::<Result<_, _>>()?;
            deleted.extend(self.store.delete_many(&keys)?);
        }
        Ok(deleted)
    }

    /// Looks for what writers left that were killed, beside objects: temporary files and unfinished uploads of objects
    /// of a repository, where nothing was heard of the writer for so long. Removes it if `confirm` says so.
    ///
    /// The age of an upload is held against the clock of this host: the caller has compared it with the store's.
    ///
    /// # Errors
    /// As the store's.
    pub fn remove_leftovers(&self, older_than: Duration, confirm: bool) -> Result<Leftovers, Error> {
        let mut found = Leftovers::default();
        for leftover in self.store.leftovers(older_than)? {
            // Others may use the bucket too.
            if leftover.key.as_ref().is_some_and(|key| ObjectName::parse(key.as_str()).is_none()) {
                continue;
            }
            if confirm && !self.store.remove_leftover(&leftover)? {
                continue;
            }
            match leftover.key {
                Some(_) => found.uploads += 1,
                None => found.files += 1,
            }
            match leftover.size_bytes {
                Some(bytes) => found.bytes += bytes,
                None => found.unmeasured += 1,
            }
        }
        Ok(found)
    }

    /// Removes, for good, the versions that a store keeps of deleted objects below a prefix, of those that `wants`
    /// says. An object that is there, be it created anew, is not touched.
    ///
    /// # Errors
    /// As the store's. Any of them may be gone then; calling again is safe.
    pub fn purge_versions(&self, prefix: Prefix<'_>, wants: &mut dyn FnMut(&ObjectName) -> bool) -> Result<Purged, Error> {
        let (mut purged, mut batch, mut failure) = (Purged::default(), Vec::new(), None);
        self.store.hidden(&prefix.to_string(), "", &mut |hidden| {
            if ObjectName::parse(hidden.key.as_str()).is_some_and(|name| wants(&name)) {
                batch.push(hidden);
            }
            if batch.len() < PURGED_AT_ONCE {
                return ControlFlow::Continue(());
            }
            match self.purge(&std::mem::take(&mut batch), &mut purged) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        self.purge(&batch, &mut purged)?;
        Ok(purged)
    }

    fn purge(&self, batch: &[Hidden], purged: &mut Purged) -> Result<(), Error> {
        for (hidden, outcome) in batch.iter().zip(self.store.purge(batch)?) {
            match outcome {
                Deleted::Gone => {
                    purged.objects += 1;
                    purged.bytes += hidden.versions.iter().map(|(_, bytes)| bytes).sum::<u64>();
                }
                Deleted::Held { until_unix_s } => {
                    purged.held += 1;
                    purged.held_until_unix_s = purged.held_until_unix_s.max(until_unix_s);
                }
                Deleted::Denied(why) => {
                    purged.denied += 1;
                    purged.denied_because.get_or_insert(why);
                }
            }
        }
        Ok(())
    }
}

/// What killed writers left beside objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Temporary files.
    pub files: u64,
    /// Unfinished uploads.
    pub uploads: u64,
    /// What they take together, in bytes.
    pub bytes: u64,
    /// Of how many the store does not say what they take.
    pub unmeasured: u64,
}

/// What removing versions of deleted objects came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purged {
    /// Objects of which no version is left, or of very many versions some.
    pub objects: u64,
    /// What their versions took, in bytes.
    pub bytes: u64,
    /// Objects of which the store holds a version.
    pub held: u64,
    /// The last moment until which it holds any of them, in Unix seconds, as far as that is known.
    pub held_until_unix_s: Option<i64>,
    /// Objects of which these credentials cannot delete versions.
    pub denied: u64,
    /// What the store said about that first.
    pub denied_because: Option<String>,
}

/// What two writers of a small object that is not sealed agree on: its bytes.
pub(super) fn content_id(bytes: &[u8]) -> ContentId {
    ContentId(blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default())
}

/// The error of reading an object's body.
pub(super) fn store_error(error: io::Error) -> Error {
    match StoreError::from_io(error) {
        Ok(error) => error.into(),
        Err(error) => Error::new(Kind::Unreachable, format!("read or write an object: {error}")),
    }
}
