//! Reading packs: ranges of records, each opened by itself.

use std::io::Read;
use std::sync::Arc;

use crate::codec::CodecError;
use crate::codec::pack::{PackKey, Record, RecordKind, contents};
use crate::error::{Error, Kind};
use crate::fifo_cache::FifoCache;
use crate::format::envelope::HEADER_BYTES;
use crate::format::extent::{ExtentTable, PackId, RecordLocation};
use crate::limits::CACHED_PACK_KEYS;
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::object_name::ObjectName;
use crate::repo::raw_objects::store_error;
use crate::repo::repository::Repository;
use crate::store::ReadRange;

/// Reads the packs of one cluster. Threads share one.
pub struct PackReader<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    system_id: SystemId,
    keys: FifoCache<PackId, Arc<PackKey>>,
}

impl<'a> PackReader<'a> {
    /// A reader that knows nothing yet.
    pub fn new(repository: &'a Repository, cluster: &'a ClusterName, system_id: SystemId) -> Self {
        Self { repository, cluster, system_id, keys: FifoCache::new(CACHED_PACK_KEYS) }
    }

    /// Bytes `from` to `until` of a pack's records, as they are stored: with one request, or two for a pack that was
    /// not read before.
    ///
    /// # Errors
    /// Damaged, also when the pack is gone or too short; denied, unreachable.
    pub fn range(&self, pack: PackId, from: u64, until: u64) -> Result<Vec<u8>, Error> {
        let key = self.key(pack)?;
        let len = until.saturating_sub(from);
        let bytes = self.read(pack, key.body_at().saturating_add(from), len)?;
        if bytes.len() as u64 == len {
            Ok(bytes)
        } else {
            Err(self.damaged(pack, &CodecError::Damaged("it is truncated".to_owned())))
        }
    }

    /// Opens a record that was read with [`range`](Self::range), in place, and adds its content to `out`.
    /// `plaintext_bytes` as for [`PackKey::open`].
    ///
    /// # Errors
    /// [`Kind::Damaged`] with the pack's name; unreachable.
    pub fn open(
        &self,
        kind: RecordKind,
        place: &RecordLocation,
        sealed: &mut [u8],
        plaintext_bytes: Option<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let key = self.key(place.pack)?;
        key.open(kind, place.offset, sealed, plaintext_bytes, out).map_err(|e| self.damaged(place.pack, &e))
    }

    /// Reads one table.
    ///
    /// # Errors
    /// As [`range`](Self::range) and [`open`](Self::open).
    pub fn table(&self, place: &RecordLocation) -> Result<ExtentTable, Error> {
        let mut sealed = self.range(place.pack, place.offset.into(), place.end())?;
        let mut plaintext = Vec::new();
        self.open(RecordKind::Table, place, &mut sealed, None, &mut plaintext)?;
        ExtentTable::decode(&plaintext).map_err(|e| self.damaged(place.pack, &CodecError::Damaged(e.to_string())))
    }

    /// The list of contents of a pack, for a check of it without a manifest.
    ///
    /// # Errors
    /// Damaged, also when the pack is gone; denied, unreachable.
    pub fn contents(&self, pack: PackId) -> Result<Vec<Record>, Error> {
        match self.repository.opener().metadata(&self.name(pack))? {
            Some(metadata) => contents(&metadata).map_err(|e| self.damaged(pack, &e)),
            None => Err(self.gone(pack)),
        }
    }

    fn name(&self, pack: PackId) -> ObjectName {
        ObjectName::Pack { cluster: self.cluster.clone(), system_id: self.system_id, pack }
    }

    fn key(&self, pack: PackId) -> Result<Arc<PackKey>, Error> {
        if let Some(key) = self.keys.get(&pack) {
            return Ok(key);
        }
        let header = self.read(pack, 0, HEADER_BYTES as u64)?;
        let damaged = |e: CodecError| self.damaged(pack, &e);
        let key = Arc::new(self.repository.opener().pack_key(&self.name(pack), &header, damaged)?);
        self.keys.insert(pack, Arc::clone(&key));
        Ok(key)
    }

    fn read(&self, pack: PackId, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let range = ReadRange::Bounded { offset, len };
        let object = self.repository.objects().read(&self.name(pack), range)?.ok_or_else(|| self.gone(pack))?;
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
        object.body.take(len).read_to_end(&mut bytes).map_err(store_error)?;
        Ok(bytes)
    }

    fn gone(&self, pack: PackId) -> Error {
        let name = self.name(pack);
        Error::new(Kind::Damaged, format!("{name} in {} is gone, and a backup needs it", self.repository.location()))
            .hint("take this object from another copy of the repository, or restore another backup")
    }

    fn damaged(&self, pack: PackId, error: &CodecError) -> Error {
        let name = self.name(pack);
        let object = format!("{name} in {}", self.repository.location());
        if let CodecError::UnknownKey(_) = error {
            return Error::new(Kind::Denied, format!("{object}: {error}"))
                .hint("if keys were rotated, the key of that time is needed; otherwise the object is damaged");
        }
        Error::new(Kind::Damaged, format!("{object} is damaged: {error}")).hint(
            "take this object from another copy of the repository, or restore another backup; nothing damaged was handed out",
        )
    }
}
