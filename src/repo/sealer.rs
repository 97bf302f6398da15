//! Sealing objects and storing them. Nothing here can open one: a host that may only write needs no more than this.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;

use super::address::Bound;
use super::content::Content;
use super::object_name::ObjectName;
use super::raw_objects::{RawObjects, store_error};
use crate::codec::pack::PackedRecords;
use crate::codec::{self, Address, CodecError, Sealing};
use crate::crypto::DataKey;
use crate::error::{Error, Kind};
use crate::format::envelope::Metadata;
use crate::limits::{KIB, PART_BYTES};
use crate::store::{ContentId, Created, ErrorKind, Key, ReadRange, StoreError, Upload};

/// Seals objects of one repository and stores them.
pub struct Sealer {
    objects: RawObjects,
    repository_id: [u8; 16],
    /// The newest data key; `None` in an unencrypted repository.
    key: Option<Arc<DataKey>>,
    level: i32,
}

impl Sealer {
    /// Seals with this key, or not at all in an unencrypted repository, and compresses at this zstd level.
    pub fn new(objects: RawObjects, repository_id: [u8; 16], key: Option<Arc<DataKey>>, level: i32) -> Self {
        Self { objects, repository_id, key, level }
    }

    /// Stores a plaintext under a name, if that is free.
    ///
    /// # Errors
    /// As the store's; [`Kind::Damaged`] when the plaintext is not what it was when it was hashed; [`Kind::Config`]
    /// when it cannot be read.
    pub fn create(&self, name: &ObjectName, content: &Content<'_>) -> Result<Created, Error> {
        let metadata = Metadata {
            plaintext_bytes: content.digest.bytes,
            plaintext_blake3: content.digest.blake3,
            sealed_unix_us: jiff::Timestamp::now().as_microsecond(),
            wal_summary: content.wal_summary.clone(),
            wal_changes: content.wal_changes.clone(),
            backup_summary: content.backup_summary.clone(),
            void: content.void.clone(),
            ..Metadata::by_this_program()
        };
        let key = name.key()?;
        let content_id = ContentId(match &self.key {
            Some(data_key) => data_key.fingerprint(key.as_str(), &content.identity),
            None => content.identity.first_chunk().copied().unwrap_or_default(),
        });
        let sealing = Sealing::with_level(self.level).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
        let bound = Bound::of(name)?;
        let address = bound.address(&self.repository_id);
        let bug = |e: CodecError| Error::new(Kind::Bug, format!("seal {name}: {e}"));
        let once = match content.compressed.and_then(|waiting| waiting.take(self.level)) {
            Some(compressed) => compressed.seal(address, self.key.as_deref(), &metadata, sealing).map_err(bug)?,
            None => None,
        };
        match once {
            Some(object) => Ok(self.objects.store().create(&key, object, &content_id)?),
            None => self.put_in_parts((name, &key), content, &metadata, sealing, (address, &content_id)),
        }
    }

    /// Seals a pack: the object, and what it is told from another one of its name by.
    ///
    /// # Errors
    /// [`Kind::Bug`].
    pub fn seal_pack(&self, name: &ObjectName, records: PackedRecords) -> Result<(Bytes, ContentId), Error> {
        let bug = |e: CodecError| Error::new(Kind::Bug, format!("seal {name}: {e}"));
        let key = name.key()?;
        let salt = Sealing::with_level(self.level).map_err(bug)?.salt;
        let now = jiff::Timestamp::now().as_microsecond();
        let bound = Bound::of(name)?;
        let address = bound.address(&self.repository_id);
        let object = records.seal(address, self.key.as_deref(), salt, now).map_err(bug)?;
        // The name is used once, so it says enough; the salt is random and no secret.
        let identity = blake3::hash(&[key.as_str().as_bytes(), &salt].concat());
        Ok((object, ContentId(identity.as_bytes().first_chunk().copied().unwrap_or_default())))
    }

    /// Reads the plaintext once more, and stores it as it is sealed.
    fn put_in_parts(
        &self,
        (name, key): (&ObjectName, &Key),
        content: &Content<'_>,
        metadata: &Metadata,
        sealing: Sealing,
        (address, content_id): (Address<'_>, &ContentId),
    ) -> Result<Created, Error> {
        let mut source = (content.open)();
        // Bytes that do not compress get a little longer, by their frames' tags above all.
        let room = usize::try_from(metadata.plaintext_bytes + metadata.plaintext_bytes / 256).unwrap_or(PART_BYTES) + 64 * KIB;
        let mut parts = PartWriter::new(&self.objects, key, *content_id, room);
        match codec::seal(&mut source, &mut parts, address, self.key.as_deref(), metadata, sealing) {
            Ok(()) => Ok(parts.finish()?),
            Err(CodecError::Write(e)) if PartWriter::says_taken(&e) => Ok(Created::Exists),
            Err(CodecError::Write(e)) => Err(store_error(e)),
            Err(CodecError::Read(e)) => Err(source_error(name, &e)),
            Err(e @ CodecError::SourceChanged) => Err(Error::new(Kind::Damaged, format!("{name}: {e}; nothing was stored"))
                .hint("PostgreSQL never changes a file that is ready to be archived: find out who writes into pg_wal")),
            Err(e) => Err(Error::new(Kind::Bug, format!("seal {name}: {e}"))),
        }
    }
}

/// Signals through `Write` that a large object need not be sent: its name is taken.
#[derive(Debug, thiserror::Error)]
#[error("the name is taken")]
struct NameTaken;

/// Gathers an object into parts: one request if it fits into one, an upload otherwise.
pub(super) struct PartWriter<'a> {
    objects: &'a RawObjects,
    key: &'a Key,
    content_id: ContentId,
    buffer: Vec<u8>,
    upload: Option<Box<dyn Upload + 'a>>,
}

impl<'a> PartWriter<'a> {
    /// Writes an object of about `room` bytes.
    pub(super) fn new(objects: &'a RawObjects, key: &'a Key, content_id: ContentId, room: usize) -> Self {
        Self { objects, key, content_id, buffer: Vec::with_capacity(room.min(PART_BYTES)), upload: None }
    }

    /// Whether an error of writing says that the name is taken.
    pub(super) fn says_taken(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<NameTaken>())
    }

    fn send_part(&mut self) -> io::Result<()> {
        if self.upload.is_none() {
            // Before gigabytes are sent in vain: one byte tells whether the name is taken.
            match self.objects.store().read(self.key, ReadRange::Bounded { offset: 0, len: 1 }) {
                Ok(_) => return Err(io::Error::other(NameTaken)),
                Err(e) if e.kind == ErrorKind::NotFound => {}
                Err(e) => return Err(e.into_io()),
            }
            self.upload = Some(self.objects.store().begin(self.key, &self.content_id).map_err(StoreError::into_io)?);
        }
        let part = Bytes::from(std::mem::take(&mut self.buffer));
        match &mut self.upload {
            Some(upload) => upload.part(part).map_err(StoreError::into_io),
            None => Ok(()),
        }
    }

    /// Publishes the object.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn finish(mut self) -> Result<Created, StoreError> {
        let rest = Bytes::from(std::mem::take(&mut self.buffer));
        match &mut self.upload {
            None => self.objects.store().create(self.key, rest, &self.content_id),
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
            // Only now: the memory of the part that was sent is free again. And at once: a buffer that grows is there
            // twice for a moment.
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

fn source_error(name: &ObjectName, error: &io::Error) -> Error {
    Error::new(Kind::Config, format!("cannot read the file to be stored as {name}: {error}"))
}
