//! The objects of a repository as they are stored. No key is needed.

use std::io::Read;

use crate::error::{Error, Kind};
use crate::limits::MAX_SMALL_OBJECT_BYTES;
use crate::store::{ContentId, ErrorKind, Key, ReadRange, Store, StoreError};

pub(super) fn content_id(bytes: &[u8]) -> ContentId {
    ContentId(blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default())
}

/// A small object as it is stored; `None` when it is proven absent.
pub(super) fn read_whole(store: &dyn Store, name: &Key) -> Result<Option<Vec<u8>>, Error> {
    read_at_most(store, name, MAX_SMALL_OBJECT_BYTES)
}

/// As [`read_whole`]; more bytes than that are damage.
pub(super) fn read_at_most(store: &dyn Store, name: &Key, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let object = match store.read(name, ReadRange::All) {
        Err(e) if e.kind == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    object.body.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|e| match StoreError::from_io(e) {
        Ok(error) => Error::from(error),
        Err(error) => Error::new(Kind::Unreachable, format!("read {name} in {}: {error}", store.location())),
    })?;
    if bytes.len() > limit {
        return Err(Error::new(Kind::Damaged, format!("{name} in {} is larger than it can be", store.location())));
    }
    Ok(Some(bytes))
}
