//! Reading packs: ranges of records, each opened by itself. Where a pack is damaged or gone and a good copy stands
//! beside it, the copy is read from then on.

use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::codec::CodecError;
use crate::codec::pack::{PackKey, Record, RecordKind, contents};
use crate::error::{Error, Kind};
use crate::fifo_cache::FifoCache;
use crate::format::envelope::HEADER_BYTES;
use crate::format::extent::{ExtentTable, PackId, RecordLocation};
use crate::fsio::DirectBuffer;
use crate::limits::{CACHED_PACK_KEYS, DIRECT_ALIGNMENT};
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
        self.range_in(pack, from, until, &mut DirectBuffer::default()).map(|bytes| bytes.to_vec())
    }

    /// As [`range`](Self::range), in memory that is used for one range after the other.
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn range_in<'b>(&self, pack: PackId, from: u64, until: u64, buffer: &'b mut DirectBuffer) -> Result<&'b mut [u8], Error> {
        let source = self.source(pack)?;
        let place = match self.records(&source, from, until, buffer) {
            Ok(place) => place,
            Err(Failed::Store(error)) => return Err(error),
            Err(Failed::Pack(error)) => self.instead(pack, &source, error, |other| self.records(other, from, until, buffer))?,
        };
        Ok(buffer.room(place.end).get_mut(place).unwrap_or_default())
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
        self.open_with(place, sealed, |key, sealed| key.open(kind, place.offset, sealed, plaintext_bytes, out))
    }

    /// As [`open`](Self::open), into `room`, which has the length of the content.
    ///
    /// # Errors
    /// As [`open`](Self::open); what is in `room` then is nobody's content.
    pub fn open_into(&self, kind: RecordKind, place: &RecordLocation, sealed: &mut [u8], room: &mut [u8]) -> Result<(), Error> {
        self.open_with(place, sealed, |key, sealed| key.open_into(kind, place.offset, sealed, room))
    }

    fn open_with(
        &self,
        place: &RecordLocation,
        sealed: &mut [u8],
        mut open: impl FnMut(&PackKey, &mut [u8]) -> Result<(), CodecError>,
    ) -> Result<(), Error> {
        let source = self.source(place.pack)?;
        let Err(error) = open(&source.key, sealed) else { return Ok(()) };
        let mut buffer = DirectBuffer::default();
        self.instead(place.pack, &source, Some(error), |other| {
            let sealed = self.records(other, place.offset.into(), place.end(), &mut buffer)?;
            Ok(open(&other.key, buffer.room(sealed.end).get_mut(sealed).unwrap_or_default())?)
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
        let mut header = [0; HEADER_BYTES];
        let read = self.read(&name, 0, &mut header)?.ok_or(Failed::Pack(None))?;
        let key = self.repository.opener().pack_key(&name, header.get(..read).unwrap_or_default())??;
        Ok(Source { name, key, others: OnceLock::new() })
    }

    /// Reads bytes `from` to `until` of the records; says where in the buffer they are. A little more is read, so that
    /// a disk can be read past the cache and straight into the buffer.
    fn records(&self, source: &Source, from: u64, until: u64, buffer: &mut DirectBuffer) -> Result<Range<usize>, Failed> {
        let truncated = || CodecError::Damaged("it is truncated".to_owned());
        let (body_at, aligned) = (source.key.body_at(), DIRECT_ALIGNMENT as u64);
        let (from, until) = (body_at.saturating_add(from), body_at.saturating_add(until));
        let begin = from - from % aligned;
        let end = until.checked_next_multiple_of(aligned).ok_or_else(truncated)?;
        let place = (from - begin) as usize..usize::try_from(until.saturating_sub(begin)).map_err(|_| truncated())?;
        let room = buffer.room(usize::try_from(end.saturating_sub(begin)).map_err(|_| truncated())?);
        let read = self.read(&source.name, begin, room)?.ok_or(Failed::Pack(None))?;
        if read >= place.end { Ok(place) } else { Err(truncated().into()) }
    }

    /// Reads a part of an object, as long as `room` or up to the object's end; says how much that was. `None` when
    /// there is no such object.
    fn read(&self, name: &ObjectName, offset: u64, room: &mut [u8]) -> Result<Option<usize>, Error> {
        if room.is_empty() {
            return Ok(Some(0));
        }
        let part = ReadRange::Bounded { offset, len: room.len() as u64 };
        let Some(mut object) = self.repository.objects().read(name, part)? else { return Ok(None) };
        let mut filled = 0;
        while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match object.body.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(store_error(e)),
            }
        }
        Ok(Some(filled))
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
