//! Good copies of objects that are damaged or gone: authenticated where they are, and stored here.
//!
//! Lives here: taking the bytes of an object from another store, or the content of a WAL file from another repository.
//! May not live here: which object needs it, and whether it is replaced ([`verify`](crate::verify)).

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use super::content::Content;
use super::object_name::ObjectName;
use super::raw_objects::{RawObjects, store_error};
use super::repairs::is_damage;
use super::repository::Repository;
use super::sealer::PartWriter;
use crate::codec::{CodecError, Digest, Opened};
use crate::error::{Error, Kind};
use crate::format::envelope::{Metadata, ObjectKind};
use crate::fsio::{self, file_error};
use crate::limits::{COPY_BUFFER_BYTES, MAX_HISTORY_FILE_BYTES, MAX_WAL_SEGMENT_BYTES, PART_BYTES};
use crate::pg::{SegmentHead, WalFileName};
use crate::store::{ContentId, Created, ReadRange};

/// An object in another store, or beside the one that it is a copy of, of which every byte was authenticated as that of
/// the object here.
pub struct GoodBytes<'s> {
    source: &'s RawObjects,
    from: ObjectName,
    size_bytes: u64,
    /// Of the stored bytes.
    blake3: blake3::Hash,
    content: Digest,
}

/// The content of a WAL file in another repository, authenticated there.
pub struct GoodContent {
    plaintext: File,
    content: Digest,
    wal_summary: Option<Vec<u8>>,
    wal_changes: Option<Vec<u8>>,
}

/// Why there is no good copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCopy {
    /// There is no such object.
    Gone,
    /// It is not good itself.
    Damaged(String),
}

/// Hashes what is read.
struct Hashed<R> {
    inner: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), bytes: 0 }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Reads a file from its beginning, whoever else reads it.
struct FromStart<'f> {
    file: &'f File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Repository {
    /// What an object says that its content is, by its own metadata; `None` when it is gone, or says nothing that can
    /// be relied on.
    ///
    /// # Errors
    /// As the store's.
    pub fn own_content(&self, name: &ObjectName) -> Result<Option<Digest>, Error> {
        match self.opener().own_metadata(name)? {
            Some(Ok(metadata)) => Ok(Some(content_of(&metadata))),
            Some(Err(error)) if !is_damage(&error) => Err(self.opener().read_error(name, error)),
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// Reads an object of a store, whole, as that of this name here: byte for byte what this repository sealed, or a
    /// copy of it that has its id. `from` is that name, or the name of a repair of it.
    ///
    /// # Errors
    /// As the store's.
    pub fn good_bytes<'s>(&self, source: &'s RawObjects, from: &ObjectName) -> Result<Result<GoodBytes<'s>, NoCopy>, Error> {
        let Some(object) = source.read(from, ReadRange::All)? else { return Ok(Err(NoCopy::Gone)) };
        let (size_bytes, mut hashed) = (object.size_bytes, Hashed::new(object.body));
        let authenticated = {
            let body = BufReader::with_capacity(COPY_BUFFER_BYTES, &mut hashed);
            let opened = self.opener().open_bytes(from, body)?;
            if from.sealed_kind() == Some(ObjectKind::Pack) {
                opened.and_then(check_pack)
            } else {
                opened.and_then(|opened| opened.copy_to(&mut io::sink()))
            }
        };
        match authenticated {
            Ok(metadata) if hashed.bytes == size_bytes => Ok(Ok(GoodBytes {
                source,
                from: from.clone(),
                size_bytes,
                blake3: hashed.hasher.finalize(),
                content: content_of(&metadata),
            })),
            Ok(_) => Ok(Err(NoCopy::Damaged("it has not the length that the store says".to_owned()))),
            Err(CodecError::Read(error)) => Err(store_error(error)),
            Err(error) => Ok(Err(NoCopy::Damaged(error.to_string()))),
        }
    }

    /// Stores good bytes under a name that is free: that of the object, or of a repair of it.
    ///
    /// # Errors
    /// [`Kind::Damaged`] when they are not read a second time as they were: nothing was stored then. As the stores'.
    pub fn put_bytes(&self, to: &ObjectName, good: &GoodBytes<'_>) -> Result<Created, Error> {
        let key = to.key()?;
        let content = ContentId(good.blake3.as_bytes().first_chunk().copied().unwrap_or_default());
        let room = usize::try_from(good.size_bytes).unwrap_or(PART_BYTES).min(PART_BYTES);
        let mut parts = PartWriter::new(self.objects(), &key, content, room);
        let mut hashed = Hashed::new(good.source.read_existing(&good.from)?.body);
        match io::copy(&mut hashed, &mut parts) {
            Ok(_) => {}
            Err(error) if PartWriter::says_taken(&error) => return Ok(Created::Exists),
            Err(error) => return Err(store_error(error)),
        }
        if hashed.hasher.finalize() != good.blake3 {
            let (from, location) = (&good.from, good.source.location());
            return Err(Error::new(
                Kind::Damaged,
                format!("{from} in {location} was read twice, and differs; nothing was stored"),
            )
            .hint("objects never change: find out who writes there, or whether its disk is failing"));
        }
        Ok(parts.finish()?)
    }

    /// Reads the content of a WAL file, whole, for it to be sealed in another repository.
    ///
    /// # Errors
    /// [`Kind::Config`] when there is no room for it in a temporary file; as the store's.
    pub fn good_content(&self, name: &ObjectName) -> Result<Result<GoodContent, NoCopy>, Error> {
        let ObjectName::Wal { system_id, file, .. } = name else {
            return Err(Error::new(Kind::Bug, format!("{name} is no WAL file")));
        };
        let limit = match file.file {
            WalFileName::Segment(_) | WalFileName::Partial(_) => MAX_WAL_SEGMENT_BYTES,
            WalFileName::History(_) | WalFileName::Backup(..) => MAX_HISTORY_FILE_BYTES,
        };
        let plaintext = fsio::scratch().map_err(|e| file_error(Kind::Config, e))?;
        let metadata = match self.opener().get_at_most(name, limit, &mut &plaintext) {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return Ok(Err(NoCopy::Gone)),
            Err(error) if error.kind == Kind::Damaged => return Ok(Err(NoCopy::Damaged(error.what))),
            Err(error) => return Err(error),
        };
        if let WalFileName::Segment(segment) = file.file {
            let head = SegmentHead::read(FromStart { file: &plaintext, at: 0 }).map_err(cannot_read)?;
            match head.check(segment, metadata.plaintext_bytes) {
                Ok(page) if page.system_id == system_id.0 => {}
                Ok(page) => return Ok(Err(NoCopy::Damaged(format!("it is of system identifier {}", page.system_id)))),
                Err(error) => return Ok(Err(NoCopy::Damaged(format!("it is not what its name says: {error}")))),
            }
        }
        let content = content_of(&metadata);
        let Metadata { wal_summary, wal_changes, .. } = metadata;
        Ok(Ok(GoodContent { plaintext, content, wal_summary, wal_changes }))
    }

    /// Seals good content under a name that is free: that of the WAL file, or of a repair of it.
    ///
    /// # Errors
    /// As [`Sealer::create`](super::Sealer::create).
    pub fn put_content(&self, to: &ObjectName, good: &GoodContent) -> Result<Created, Error> {
        let content = Content::known(good.content, || Box::new(FromStart { file: &good.plaintext, at: 0 }));
        self.sealer().create(to, &content.with_summary(good.wal_summary.clone()).with_changes(good.wal_changes.clone()))
    }
}

impl GoodBytes<'_> {
    /// What it holds.
    pub fn content(&self) -> Digest {
        self.content
    }

    /// Its stored length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl GoodContent {
    /// What it holds.
    pub fn content(&self) -> Digest {
        self.content
    }
}

/// Authenticates every record of a pack, and that nothing follows the last.
fn check_pack(opened: Opened<impl Read>) -> Result<Metadata, CodecError> {
    let metadata = opened.metadata().clone();
    let (records, key, mut source) = opened.into_pack()?;
    let (mut sealed, mut content) = (Vec::new(), Vec::new());
    for record in &records {
        sealed.clear();
        content.clear();
        source.by_ref().take(record.sealed_bytes.into()).read_to_end(&mut sealed).map_err(CodecError::Read)?;
        if sealed.len() < record.sealed_bytes as usize {
            return Err(CodecError::Damaged("it is truncated".to_owned()));
        }
        key.open(record.kind, record.offset, &mut sealed, Some(record.plaintext_bytes as usize), &mut content)?;
    }
    match source.read(&mut [0]).map_err(CodecError::Read)? {
        0 => Ok(metadata),
        _ => Err(CodecError::Damaged("bytes follow its last record".to_owned())),
    }
}

fn content_of(metadata: &Metadata) -> Digest {
    Digest { bytes: metadata.plaintext_bytes, blake3: metadata.plaintext_blake3 }
}

fn cannot_read(error: io::Error) -> Error {
    Error::new(Kind::Config, format!("cannot read a segment back from a temporary file: {error}"))
        .hint("check the disk of the directory for temporary files, or set TMPDIR to another directory")
}
