//! The objects of a repository as they are stored: sealed, under their names. No key is needed, and none is known here.
//!
//! Lives here: listing, reading and storing bytes by typed name. May not live here: what the bytes say.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::object_name::ObjectName;
use super::prefix::Prefix;
use crate::error::{Error, Kind};
use crate::store::{ContentId, Created, ErrorKind, Object, ReadRange, Store, StoreError};

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
