//! Sealed objects: put once, compare when the name is taken, read back.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::repository::Repository;
use crate::codec::{self, Address, CodecError, Digest, Opened, Sealing, SharedCompressed};
use crate::error::{Error, Kind};
use crate::format::envelope::{HEADER_BYTES, Metadata, ObjectKind};
use crate::limits::{KIB, MAX_SMALL_OBJECT_BYTES, METADATA_READ_BYTES, PART_BYTES};
use crate::store::{ContentId, Created, ErrorKind, Key, ReadRange, Store, StoreError, Upload};

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was stored now.
    New,
    /// The same content was there already, whole, and is durable.
    Same,
}

/// Opens a plaintext from its beginning.
type OpenContent<'a> = Box<dyn Fn() -> Box<dyn Read + 'a> + Sync + 'a>;

/// A plaintext that can be read more than once, and what it hashed to the first time.
pub struct Content<'a> {
    digest: Digest,
    /// What two writers agree on; the digest's hash, unless they may differ in what does not matter.
    identity: [u8; 32],
    wal_summary: Option<Vec<u8>>,
    backup_summary: Option<Vec<u8>>,
    compressed: Option<&'a SharedCompressed>,
    open: OpenContent<'a>,
}

impl<'a> Content<'a> {
    /// A plaintext that was read before. Should it read otherwise now, it is not stored.
    pub fn known(digest: Digest, open: impl Fn() -> Box<dyn Read + 'a> + Sync + 'a) -> Self {
        Self { digest, identity: digest.blake3, wal_summary: None, backup_summary: None, compressed: None, open: Box::new(open) }
    }

    /// Says by what it is the same as another writer's content, although not in every byte. Where the store does not refuse to
    /// overwrite, two writers of one identity do not wait for each other, nor for one that was killed, and either's bytes may stay.
    #[must_use]
    pub fn identified_by(mut self, identity: &[u8]) -> Self {
        self.identity = *blake3::hash(identity).as_bytes();
        self
    }

    /// Adds what the scan of this segment found, at most [`MAX_SUMMARY_BYTES`](crate::limits::MAX_SUMMARY_BYTES).
    #[must_use]
    pub fn with_summary(mut self, wal_summary: Option<Vec<u8>>) -> Self {
        self.wal_summary = wal_summary;
        self
    }

    /// Adds what the pass that gave the digest compressed. The plaintext is read again only when that is of no use.
    #[must_use]
    pub fn with_compressed(mut self, compressed: &'a SharedCompressed) -> Self {
        self.compressed = Some(compressed);
        self
    }

    /// Adds the summary of the backup whose manifest this is, so that it can be read without the rest.
    #[must_use]
    pub fn described_by(mut self, backup_summary: Vec<u8>) -> Self {
        self.backup_summary = Some(backup_summary);
        self
    }

    /// Length and hash.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// A plaintext in memory.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        let digest = Digest { bytes: bytes.len() as u64, blake3: *blake3::hash(bytes).as_bytes() };
        Self::known(digest, move || Box::new(bytes))
    }
}

impl Repository {
    /// Stores a plaintext under a name, once. On success the repository holds the whole object, durably.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when other content has the name; [`Kind::Damaged`] when what has the name cannot be authenticated; as the
    /// store's otherwise. Nothing is changed then, except that the object may have been stored and the answer lost: call again.
    pub fn put(&self, kind: ObjectKind, name: &Key, content: &Content<'_>) -> Result<Stored, Error> {
        match self.create(kind, name, content)? {
            Created::New => Ok(Stored::New),
            Created::Exists => self.compare(kind, name, content.digest()),
        }
    }

    /// Stores a plaintext under a name that is free.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn create(&self, kind: ObjectKind, name: &Key, content: &Content<'_>) -> Result<Created, Error> {
        let metadata = Metadata {
            plaintext_bytes: content.digest.bytes,
            plaintext_blake3: content.digest.blake3,
            sealed_unix_us: jiff::Timestamp::now().as_microsecond(),
            wal_summary: content.wal_summary.clone(),
            backup_summary: content.backup_summary.clone(),
            ..Metadata::by_this_program()
        };
        let content_id = ContentId(match self.keys().current() {
            Some(key) => key.fingerprint(name.as_str(), &content.identity),
            None => content.identity.first_chunk().copied().unwrap_or_default(),
        });
        let sealing = Sealing::with_level(self.level()).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
        let (address, key) = (self.address(kind, name), self.keys().current());
        let bug = |e: CodecError| Error::new(Kind::Bug, format!("seal {name}: {e}"));
        let once = match content.compressed.and_then(|waiting| waiting.take(self.level())) {
            Some(compressed) => compressed.seal(address, key, &metadata, sealing).map_err(bug)?,
            None => None,
        };
        match once {
            Some(object) => {
                let created = self.store().create(name, object.clone(), &content_id)?;
                codec::give_back(object);
                Ok(created)
            }
            None => self.put_in_parts(name, content, &metadata, sealing, (address, &content_id)),
        }
    }

    /// Reads the plaintext once more, and stores it as it is sealed.
    fn put_in_parts(
        &self,
        name: &Key,
        content: &Content<'_>,
        metadata: &Metadata,
        sealing: Sealing,
        (address, content_id): (Address<'_>, &ContentId),
    ) -> Result<Created, Error> {
        let mut source = (content.open)();
        // Bytes that do not compress get a little longer, by their frames' tags above all.
        let room = usize::try_from(metadata.plaintext_bytes + metadata.plaintext_bytes / 256).unwrap_or(PART_BYTES) + 64 * KIB;
        let buffer = Vec::with_capacity(room.min(PART_BYTES));
        let mut parts = PartWriter { store: self.store(), name, content_id: *content_id, buffer, upload: None };
        match codec::seal(&mut source, &mut parts, address, self.keys().current(), metadata, sealing) {
            Ok(()) => Ok(parts.finish()?),
            Err(CodecError::Write(e)) if e.get_ref().is_some_and(|inner| inner.is::<NameTaken>()) => Ok(Created::Exists),
            Err(CodecError::Write(e)) => Err(store_error(e)),
            Err(CodecError::Read(e)) => Err(source_error(name, &e)),
            Err(e @ CodecError::SourceChanged) => Err(Error::new(Kind::Damaged, format!("{name}: {e}; nothing was stored"))
                .hint("PostgreSQL never changes a file that is ready to be archived: find out who writes into pg_wal")),
            Err(e) => Err(Error::new(Kind::Bug, format!("seal {name}: {e}"))),
        }
    }

    /// Reads the object that has the name, whole, and holds it against what was to be stored.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when it is something else; [`Kind::Damaged`] when it cannot be told; as the store's.
    pub(super) fn compare(&self, kind: ObjectKind, name: &Key, digest: Digest) -> Result<Stored, Error> {
        let object = match self.store().read(name, ReadRange::All) {
            Err(e) if e.kind == ErrorKind::NotFound => {
                return Err(Error::new(
                    Kind::Unreachable,
                    format!("{name} in {}: the store says that it exists and that it does not", self.location()),
                )
                .hint("it may have been deleted at this moment: try again"));
            }
            other => other?,
        };
        let opened = codec::open(object.body, self.address(kind, name), self.keys()).map_err(|e| self.read_error(name, e))?;
        if !digest.matches(opened.metadata()) {
            let sealed = jiff::Timestamp::from_microsecond(opened.metadata().sealed_unix_us)
                .map_or_else(|_| "an unknown time".to_owned(), |t| t.to_string());
            return Err(Error::new(
                Kind::Conflict,
                format!("{name} in {} holds other content, stored at {sealed}: refused, nothing was changed", self.location()),
            )
            .hint(
                "two servers write to one cluster name, or a cluster was restored and writes its own past again: stop the one that is not \
                 wanted, or give it another cluster name (WALVIS_CLUSTER, --cluster) and a new base backup; delete nothing that is stored",
            ));
        }
        opened.copy_to(&mut io::sink()).map_err(|e| self.read_error(name, e))?;
        self.store().make_durable(name)?;
        Ok(Stored::Same)
    }

    /// Writes an object's plaintext to `sink`; `None` when the store says that it does not exist. What the sink got is genuine only
    /// if the answer is `Ok(Some(…))`.
    ///
    /// # Errors
    /// Damaged, denied, unreachable; [`Kind::Config`] when the sink fails.
    pub fn get(&self, kind: ObjectKind, name: &Key, sink: &mut dyn Write) -> Result<Option<Metadata>, Error> {
        let Some(begun) = self.begin(kind, name)? else { return Ok(None) };
        begun.opened.copy_to(sink).map(Some).map_err(|e| self.read_error(name, e))
    }

    /// As [`get`](Self::get), of what cannot be longer than that: it says so before anything is written.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn get_at_most(
        &self,
        kind: ObjectKind,
        name: &Key,
        limit: u64,
        sink: &mut dyn Write,
    ) -> Result<Option<Metadata>, Error> {
        let Some(begun) = self.begin(kind, name)? else { return Ok(None) };
        let says = begun.opened.metadata().plaintext_bytes;
        if says > limit {
            return Err(self.read_error(name, CodecError::Damaged(format!("it says that it holds {says} bytes"))));
        }
        begun.opened.copy_to(sink).map(Some).map_err(|e| self.read_error(name, e))
    }

    /// Opens an object whose metadata decide what is done with its content; `None` as of [`get`](Self::get).
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub(super) fn begin(&self, kind: ObjectKind, name: &Key) -> Result<Option<Begun<'_>>, Error> {
        let object = match self.store().read(name, ReadRange::All) {
            Err(e) if e.kind == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let opened = codec::open(object.body, self.address(kind, name), self.keys()).map_err(|e| self.read_error(name, e))?;
        Ok(Some(Begun { opened, stored_bytes: object.size_bytes }))
    }

    /// An object's metadata, with one bounded ranged read (two, should its metadata be unusually long).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn metadata(&self, kind: ObjectKind, name: &Key) -> Result<Option<Metadata>, Error> {
        let mut len = METADATA_READ_BYTES as u64;
        loop {
            let object = match self.store().read(name, ReadRange::Bounded { offset: 0, len }) {
                Err(e) if e.kind == ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let mut bytes = Vec::new();
            object.body.take(len).read_to_end(&mut bytes).map_err(store_error)?;
            match bytes.get(..HEADER_BYTES).and_then(codec::preamble_bytes) {
                Some(needed) if needed > len && object.size_bytes >= needed => len = needed,
                _ => {
                    return codec::open(bytes.as_slice(), self.address(kind, name), self.keys())
                        .map(|opened| Some(opened.metadata().clone()))
                        .map_err(|e| self.read_error(name, e));
                }
            }
        }
    }

    /// A small object's plaintext in memory.
    ///
    /// # Errors
    /// As [`get`](Self::get); damaged when it is larger than [`MAX_SMALL_OBJECT_BYTES`].
    pub(super) fn read_small(&self, kind: ObjectKind, name: &Key) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = Vec::new();
        Ok(self.get_at_most(kind, name, MAX_SMALL_OBJECT_BYTES as u64, &mut bytes)?.map(|_| bytes))
    }

    /// The plaintext of a small object whose bytes are known.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn open_small(&self, kind: ObjectKind, name: &Key, object: &[u8]) -> Result<Vec<u8>, Error> {
        let damaged = |e: CodecError| self.read_error(name, e);
        let opened = codec::open(object, self.address(kind, name), self.keys()).map_err(damaged)?;
        let says = opened.metadata().plaintext_bytes;
        if says > MAX_SMALL_OBJECT_BYTES as u64 {
            return Err(damaged(CodecError::Damaged(format!("it says that it holds {says} bytes"))));
        }
        let mut bytes = Vec::new();
        opened.copy_to(&mut bytes).map_err(damaged)?;
        Ok(bytes)
    }

    pub(super) fn address<'a>(&'a self, kind: ObjectKind, name: &'a Key) -> Address<'a> {
        Address { repository_id: self.id(), kind, name: name.as_str() }
    }

    /// Says which object of which repository, and what to do.
    pub(super) fn read_error(&self, name: &Key, error: CodecError) -> Error {
        let object = format!("{name} in {}", self.location());
        match error {
            CodecError::Read(e) => store_error(e),
            CodecError::Write(e) => Error::new(Kind::Config, format!("cannot write the content of {name}: {e}")),
            CodecError::UnknownKey(_) => Error::new(Kind::Denied, format!("{object}: {error}"))
                .hint("if keys were rotated, the key of that time is needed; otherwise the object is damaged"),
            error => Error::new(Kind::Damaged, format!("{object} is damaged: {error}"))
                .hint("take this object from another repository or copy; nothing damaged was handed out"),
        }
    }
}

/// An object that is being read, its metadata authenticated.
pub(super) struct Begun<'a> {
    /// The rest of it.
    pub(super) opened: Opened<Box<dyn Read + Send + 'a>>,
    /// Its length as the store has it.
    pub(super) stored_bytes: u64,
}

/// Signals through `Write` that a large object need not be sent: its name is taken.
#[derive(Debug, thiserror::Error)]
#[error("the name is taken")]
struct NameTaken;

/// Gathers an object into parts: one request if it fits into one, an upload otherwise.
struct PartWriter<'a> {
    store: &'a dyn Store,
    name: &'a Key,
    content_id: ContentId,
    buffer: Vec<u8>,
    upload: Option<Box<dyn Upload + 'a>>,
}

impl PartWriter<'_> {
    fn send_part(&mut self) -> io::Result<()> {
        if self.upload.is_none() {
            // Before gigabytes are sent in vain: one byte tells whether the name is taken.
            match self.store.read(self.name, ReadRange::Bounded { offset: 0, len: 1 }) {
                Ok(_) => return Err(io::Error::other(NameTaken)),
                Err(e) if e.kind == ErrorKind::NotFound => {}
                Err(e) => return Err(e.into_io()),
            }
            self.upload = Some(self.store.begin(self.name, &self.content_id).map_err(StoreError::into_io)?);
        }
        let part = Bytes::from(std::mem::take(&mut self.buffer));
        match &mut self.upload {
            Some(upload) => upload.part(part).map_err(StoreError::into_io),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Created, StoreError> {
        let rest = Bytes::from(std::mem::take(&mut self.buffer));
        match &mut self.upload {
            None => self.store.create(self.name, rest, &self.content_id),
            Some(upload) => {
                if !rest.is_empty() {
                    upload.part(rest)?;
                }
                upload.complete()
            }
        }
    }
}

impl Write for PartWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PART_BYTES {
            self.send_part()?;
            // Only now: the memory of the part that was sent is free again. And at once: a buffer that grows is there twice for a moment.
            self.buffer.reserve_exact(PART_BYTES);
        }
        let taken = bytes.len().min(PART_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn store_error(error: io::Error) -> Error {
    match StoreError::from_io(error) {
        Ok(error) => error.into(),
        Err(error) => Error::new(Kind::Unreachable, format!("read or write an object: {error}")),
    }
}

fn source_error(name: &Key, error: &io::Error) -> Error {
    Error::new(Kind::Config, format!("cannot read the file to be stored as {name}: {error}"))
}
