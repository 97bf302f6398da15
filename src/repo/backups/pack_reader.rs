//! Reading packs: ranges of records, each opened by itself. Where a pack is damaged or gone and a good copy stands
//! beside it, the copy is read from then on.

use std::io::Read;
use std::sync::{Arc, OnceLock};

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
    sources: FifoCache<PackId, Arc<Source>>,
}

/// Where the records of a pack are read.
struct Source {
    /// The pack itself, or a good copy of it.
    name: ObjectName,
    key: PackKey,
    /// What else may have them, in the order in which it is tried; looked up when something fails.
    others: OnceLock<Vec<ObjectName>>,
}

impl<'a> PackReader<'a> {
    /// A reader that knows nothing yet.
    pub fn new(repository: &'a Repository, cluster: &'a ClusterName, system_id: SystemId) -> Self {
        Self { repository, cluster, system_id, sources: FifoCache::new(CACHED_PACK_KEYS) }
    }

    /// Bytes `from` to `until` of a pack's records, as they are stored: with one request, or two for a pack that was
    /// not read before.
    ///
    /// # Errors
    /// Damaged, also when the pack is gone or too short; denied, unreachable.
    pub fn range(&self, pack: PackId, from: u64, until: u64) -> Result<Vec<u8>, Error> {
        let source = self.source(pack)?;
        match self.records(&source, from, until) {
            Ok(bytes) => Ok(bytes),
            Err(Failed::Store(error)) => Err(error),
            Err(Failed::Pack(error)) => self.instead(pack, &source, error, |other| self.records(other, from, until)),
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
        let source = self.source(place.pack)?;
        let Err(error) = source.key.open(kind, place.offset, sealed, plaintext_bytes, out) else { return Ok(()) };
        self.instead(place.pack, &source, Some(error), |other| {
            let mut sealed = self.records(other, place.offset.into(), place.end())?;
            Ok(other.key.open(kind, place.offset, &mut sealed, plaintext_bytes, out)?)
        })
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

    /// Where a pack is read: itself, unless its header shows already that it is damaged, or it is gone.
    fn source(&self, pack: PackId) -> Result<Arc<Source>, Error> {
        if let Some(source) = self.sources.get(&pack) {
            return Ok(source);
        }
        let error = match self.open_source(self.name(pack)) {
            Ok(source) => {
                let source = Arc::new(source);
                self.sources.insert(pack, Arc::clone(&source), 1);
                return Ok(source);
            }
            Err(Failed::Store(error)) => return Err(error),
            Err(Failed::Pack(error)) => error,
        };
        for repair in self.repairs(pack)? {
            match self.open_source(repair) {
                Ok(source) => return Ok(self.read_from(pack, source, error.as_ref())),
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Pack(_)) => {}
            }
        }
        Err(self.failed(pack, error.as_ref()))
    }

    /// What the first of the other places gives that gives anything; the pack is read there from then on. Without one,
    /// the error that was met first.
    fn instead<T>(
        &self,
        pack: PackId,
        source: &Source,
        error: Option<CodecError>,
        mut try_one: impl FnMut(&Source) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let others = match source.others.get() {
            Some(others) => others,
            None => {
                let mut others = self.repairs(pack)?;
                // A copy that is damaged elsewhere than the pack leaves some records to the pack itself.
                others.push(self.name(pack));
                others.retain(|other| *other != source.name);
                source.others.get_or_init(|| others)
            }
        };
        for other in others {
            let tried = self.open_source(other.clone()).and_then(|other| Ok((try_one(&other)?, other)));
            match tried {
                Ok((found, other)) => {
                    self.read_from(pack, other, error.as_ref());
                    return Ok(found);
                }
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Pack(_)) => {}
            }
        }
        Err(self.failed(pack, error.as_ref()))
    }

    /// Remembers where a pack is read from now on, and says so.
    fn read_from(&self, pack: PackId, source: Source, error: Option<&CodecError>) -> Arc<Source> {
        let why = self.failed(pack, error).what;
        tracing::warn!("{why}; {} is read instead", source.name);
        let source = Arc::new(source);
        self.sources.insert(pack, Arc::clone(&source), 1);
        source
    }

    fn repairs(&self, pack: PackId) -> Result<Vec<ObjectName>, Error> {
        match self.repository.objects().repairs(&self.name(pack)) {
            // What may not be asked for helps nobody, and the damage is what there is to say.
            Err(error) if error.kind == Kind::Denied => Ok(Vec::new()),
            repairs => repairs,
        }
    }

    fn open_source(&self, name: ObjectName) -> Result<Source, Failed> {
        let header = self.read(&name, 0, HEADER_BYTES as u64)?.ok_or(Failed::Pack(None))?;
        let key = self.repository.opener().pack_key(&name, &header)??;
        Ok(Source { name, key, others: OnceLock::new() })
    }

    /// Bytes `from` to `until` of the records.
    fn records(&self, source: &Source, from: u64, until: u64) -> Result<Vec<u8>, Failed> {
        let len = until.saturating_sub(from);
        let bytes = self.read(&source.name, source.key.body_at().saturating_add(from), len)?.ok_or(Failed::Pack(None))?;
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(CodecError::Damaged("it is truncated".to_owned()).into()) }
    }

    /// A part of an object; `None` when there is no such object.
    fn read(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Option<Vec<u8>>, Error> {
        if len == 0 {
            return Ok(Some(Vec::new()));
        }
        let Some(object) = self.repository.objects().read(name, ReadRange::Bounded { offset, len })? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
        object.body.take(len).read_to_end(&mut bytes).map_err(store_error)?;
        Ok(Some(bytes))
    }

    /// The error of a pack that is damaged, or gone where nothing is said of the damage.
    fn failed(&self, pack: PackId, error: Option<&CodecError>) -> Error {
        error.map_or_else(|| self.gone(pack), |error| self.damaged(pack, error))
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

/// Why something cannot be read in one place.
enum Failed {
    /// It is damaged there, or there is no such object.
    Pack(Option<CodecError>),
    /// The store did not answer, or denied it.
    Store(Error),
}

impl From<CodecError> for Failed {
    fn from(error: CodecError) -> Self {
        Self::Pack(Some(error))
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
