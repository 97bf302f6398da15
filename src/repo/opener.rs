//! Reading objects and opening them.

use std::io::{self, Read, Write};

use super::address::address;
use super::content::Stored;
use super::object_name::ObjectName;
use super::raw_objects::{RawObjects, store_error};
use crate::codec::pack::PackKey;
use crate::codec::{self, CodecError, Digest, Opened};
use crate::crypto::DataKeys;
use crate::error::{Error, Kind};
use crate::format::envelope::{HEADER_BYTES, Metadata};
use crate::limits::{MAX_SMALL_OBJECT_BYTES, METADATA_READ_BYTES};
use crate::store::ReadRange;

/// Reads objects of one repository and opens them.
pub struct Opener {
    objects: RawObjects,
    repository_id: [u8; 16],
    keys: DataKeys,
}

impl Opener {
    /// Opens what these keys open.
    pub fn new(objects: RawObjects, repository_id: [u8; 16], keys: DataKeys) -> Self {
        Self { objects, repository_id, keys }
    }

    /// Writes an object's plaintext to `sink`; `None` when the store says that it does not exist. What the sink got is
    /// genuine only if the answer is `Ok(Some(…))`.
    ///
    /// # Errors
    /// Damaged, denied, unreachable; [`Kind::Config`] when the sink fails.
    pub fn get(&self, name: &ObjectName, sink: &mut dyn Write) -> Result<Option<Metadata>, Error> {
        let Some(begun) = self.begin(name)? else { return Ok(None) };
        begun.opened.copy_to(sink).map(Some).map_err(|e| self.read_error(name, e))
    }

    /// As [`get`](Self::get), of what cannot be longer than that: it says so before anything is written.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn get_at_most(&self, name: &ObjectName, limit: u64, sink: &mut dyn Write) -> Result<Option<Metadata>, Error> {
        let Some(begun) = self.begin(name)? else { return Ok(None) };
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
    pub(super) fn begin(&self, name: &ObjectName) -> Result<Option<Begun<'_>>, Error> {
        let Some(object) = self.objects.read(name, ReadRange::All)? else { return Ok(None) };
        Ok(Some(Begun { opened: self.open(name, object.body)?, stored_bytes: object.size_bytes }))
    }

    /// Opens an object of which the bytes are at hand, as far as its metadata.
    fn open<R: Read>(&self, name: &ObjectName, object: R) -> Result<Opened<R>, Error> {
        let key = name.key()?;
        codec::open(object, address(&self.repository_id, name, &key)?, &self.keys).map_err(|e| self.read_error(name, e))
    }

    /// What opens the records of a pack, from the header of its object.
    ///
    /// # Errors
    /// What `damaged` makes of those of [`PackKey::new`].
    pub(super) fn pack_key(
        &self,
        name: &ObjectName,
        header: &[u8],
        damaged: impl Fn(CodecError) -> Error,
    ) -> Result<PackKey, Error> {
        let key = name.key()?;
        PackKey::new(header, address(&self.repository_id, name, &key)?, &self.keys).map_err(damaged)
    }

    /// An object's metadata, with one bounded ranged read (two, should its metadata be unusually long).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn metadata(&self, name: &ObjectName) -> Result<Option<Metadata>, Error> {
        let mut len = METADATA_READ_BYTES as u64;
        loop {
            let Some(object) = self.objects.read(name, ReadRange::Bounded { offset: 0, len })? else { return Ok(None) };
            let mut bytes = Vec::new();
            object.body.take(len).read_to_end(&mut bytes).map_err(store_error)?;
            match bytes.get(..HEADER_BYTES).and_then(codec::preamble_bytes) {
                Some(needed) if needed > len && object.size_bytes >= needed => len = needed,
                _ => return Ok(Some(self.open(name, bytes.as_slice())?.metadata().clone())),
            }
        }
    }

    /// A small object's plaintext in memory.
    ///
    /// # Errors
    /// As [`get`](Self::get); damaged when it is larger than [`MAX_SMALL_OBJECT_BYTES`].
    pub(super) fn read_small(&self, name: &ObjectName) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = Vec::new();
        Ok(self.get_at_most(name, MAX_SMALL_OBJECT_BYTES as u64, &mut bytes)?.map(|_| bytes))
    }

    /// The plaintext of a small object whose bytes are known.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn open_small(&self, name: &ObjectName, object: &[u8]) -> Result<Vec<u8>, Error> {
        let damaged = |e: CodecError| self.read_error(name, e);
        let opened = self.open(name, object)?;
        let says = opened.metadata().plaintext_bytes;
        if says > MAX_SMALL_OBJECT_BYTES as u64 {
            return Err(damaged(CodecError::Damaged(format!("it says that it holds {says} bytes"))));
        }
        let mut bytes = Vec::new();
        opened.copy_to(&mut bytes).map_err(damaged)?;
        Ok(bytes)
    }

    /// Reads the object that has the name, whole, and holds it against what was to be stored.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when it is something else; [`Kind::Damaged`] when it is not known; as the store's.
    pub(super) fn compare(&self, name: &ObjectName, digest: Digest) -> Result<Stored, Error> {
        let object = self.objects.read_existing(name)?;
        let opened = self.open(name, object.body)?;
        if !digest.matches(opened.metadata()) {
            let sealed = jiff::Timestamp::from_microsecond(opened.metadata().sealed_unix_us)
                .map_or_else(|_| "an unknown time".to_owned(), |t| t.to_string());
            return Err(Error::new(
                Kind::Conflict,
                format!("{name} in {} holds other content, stored at {sealed}: refused, nothing was changed", self.objects.location()),
            )
            .hint(
                "two servers write to one cluster name, or a cluster was restored and writes its own past again: stop the one that is not \
                 wanted, or give it another cluster name (WALVIS_CLUSTER, --cluster) and a new base backup; delete nothing that is stored",
            ));
        }
        opened.copy_to(&mut io::sink()).map_err(|e| self.read_error(name, e))?;
        self.objects.make_durable(name)?;
        Ok(Stored::Same)
    }

    /// Says which object of which repository, and what to do.
    pub(super) fn read_error(&self, name: &ObjectName, error: CodecError) -> Error {
        let object = format!("{name} in {}", self.objects.location());
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
