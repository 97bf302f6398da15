//! Reading objects and opening them. Where one is damaged and a good copy stands beside it, that is read instead.

use std::io::{self, Read, Write};

use super::address::Bound;
use super::content::Stored;
use super::metered::Metered;
use super::object_name::ObjectName;
use super::raw_objects::{RawObjects, store_error};
use super::repairs::{ReadOn, is_damage};
use crate::codec::pack::PackKey;
use crate::codec::{self, CodecError, Digest, Opened};
use crate::crypto::DataKeys;
use crate::error::{Error, Kind};
use crate::format::envelope::{HEADER_BYTES, Metadata};
use crate::limits::{MAX_SMALL_OBJECT_BYTES, METADATA_READ_BYTES};
use crate::store::{Object, ReadRange};

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
        self.get_at_most(name, u64::MAX, sink)
    }

    /// As [`get`](Self::get), of what cannot be longer than that: it says so before anything is written.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn get_at_most(&self, name: &ObjectName, limit: u64, sink: &mut dyn Write) -> Result<Option<Metadata>, Error> {
        let Some(begun) = self.begin(name, &|_| {})? else { return Ok(None) };
        let says = begun.metadata().plaintext_bytes;
        if says > limit {
            return Err(self.read_error(name, CodecError::Damaged(format!("it says that it holds {says} bytes"))));
        }
        begun.copy_to(sink).map(Some)
    }

    /// As [`get_at_most`](Self::get_at_most), of an object that is gone and of which a good copy may be left: who
    /// replaces a damaged object deletes it first.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn get_copy_at_most(
        &self,
        name: &ObjectName,
        limit: u64,
        sink: &mut dyn Write,
    ) -> Result<Option<Metadata>, Error> {
        for repair in self.objects.repairs(name)? {
            let found = self.get_at_most(&repair, limit, sink)?;
            if found.is_some() {
                tracing::warn!("{name} in {} is gone; its good copy {repair} was read", self.objects.location());
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Opens an object whose metadata decide what is done with its content; `None` as of [`get`](Self::get). `read` is
    /// told of its bytes as they come from the store, not of those of a good copy.
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub(super) fn begin<'a>(
        &'a self,
        name: &'a ObjectName,
        read: &'a (dyn Fn(usize) + Sync),
    ) -> Result<Option<Begun<'a>>, Error> {
        match self.objects.read(name, ReadRange::All)? {
            Some(Object { size_bytes, body }) => {
                self.begin_read(name, Object { size_bytes, body: Box::new(Metered { inner: body, read }) }).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The same of an object that is being read.
    fn begin_read<'a>(&'a self, name: &'a ObjectName, object: Object<'a>) -> Result<Begun<'a>, Error> {
        let begun = |(opened, stored_bytes)| Begun { opener: self, name, opened, stored_bytes };
        match self.open_object(name, object)? {
            Ok(opened) => Ok(begun(opened)),
            Err(error) => self.try_repairs(name, error, |repair| self.open_whole(repair)).map(begun),
        }
    }

    /// Opens an object itself, whatever stands beside it.
    fn open_whole(&self, name: &ObjectName) -> Result<Option<Result<OpenedObject<'_>, CodecError>>, Error> {
        match self.objects.read(name, ReadRange::All)? {
            Some(object) => self.open_object(name, object).map(Some),
            None => Ok(None),
        }
    }

    fn open_object<'a>(&'a self, name: &ObjectName, object: Object<'a>) -> Result<Result<OpenedObject<'a>, CodecError>, Error> {
        let size_bytes = object.size_bytes;
        Ok(self.open_bytes(name, object.body)?.map(|opened| (opened, size_bytes)))
    }

    /// What opens these bytes as this object, whether they are all of it or only its beginning.
    ///
    /// # Errors
    /// [`Kind::Bug`]; within, those of [`codec::open`].
    pub(super) fn open_bytes<R: Read>(&self, name: &ObjectName, object: R) -> Result<Result<Opened<R>, CodecError>, Error> {
        Ok(codec::open(object, Bound::of(name)?.address(&self.repository_id), &self.keys))
    }

    /// What the newest of the good copies beside an object gives that gives anything; without one, the error that the
    /// object itself gave.
    fn try_repairs<T>(
        &self,
        name: &ObjectName,
        error: CodecError,
        mut try_one: impl FnMut(&ObjectName) -> Result<Option<Result<T, CodecError>>, Error>,
    ) -> Result<T, Error> {
        // A repair is a good copy itself, and has none.
        if !is_damage(&error) || name.repaired().is_some() {
            return Err(self.read_error(name, error));
        }
        let repairs = match self.objects.repairs(name) {
            Err(denied) if denied.kind == Kind::Denied => Vec::new(),
            repairs => repairs?,
        };
        for repair in repairs {
            match try_one(&repair)? {
                Some(Ok(found)) => {
                    let location = self.objects.location();
                    tracing::warn!("{name} in {location} is damaged: {error}; its good copy {repair} was read");
                    return Ok(found);
                }
                Some(Err(other)) if !is_damage(&other) => return Err(self.read_error(&repair, other)),
                Some(Err(_)) | None => {}
            }
        }
        Err(self.read_error(name, error))
    }

    /// What opens the records of a pack, from the header of its object.
    ///
    /// # Errors
    /// [`Kind::Bug`]; within, those of [`PackKey::new`].
    pub(super) fn pack_key(&self, name: &ObjectName, header: &[u8]) -> Result<Result<PackKey, CodecError>, Error> {
        Ok(PackKey::new(header, Bound::of(name)?.address(&self.repository_id), &self.keys))
    }

    /// An object's metadata, with one bounded ranged read (two, should its metadata be unusually long).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn metadata(&self, name: &ObjectName) -> Result<Option<Metadata>, Error> {
        match self.own_metadata(name)? {
            None => Ok(None),
            Some(Ok(metadata)) => Ok(Some(metadata)),
            Some(Err(error)) => self.try_repairs(name, error, |repair| self.own_metadata(repair)).map(Some),
        }
    }

    /// The metadata of the object itself, whatever stands beside it.
    pub(super) fn own_metadata(&self, name: &ObjectName) -> Result<Option<Result<Metadata, CodecError>>, Error> {
        let mut len = METADATA_READ_BYTES as u64;
        loop {
            let Some(object) = self.objects.read(name, ReadRange::Bounded { offset: 0, len })? else { return Ok(None) };
            let mut bytes = Vec::new();
            object.body.take(len).read_to_end(&mut bytes).map_err(store_error)?;
            match bytes.get(..HEADER_BYTES).and_then(codec::preamble_bytes) {
                Some(needed) if needed > len && object.size_bytes >= needed => len = needed,
                _ => return Ok(Some(self.open_bytes(name, bytes.as_slice())?.map(|opened| opened.metadata().clone()))),
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
        match self.open_small_object(name, object)? {
            Ok(bytes) => Ok(bytes),
            Err(error) => self.try_repairs(name, error, |repair| match self.objects.read(repair, ReadRange::All)? {
                Some(object) => self.open_small_object(repair, object.body).map(Some),
                None => Ok(None),
            }),
        }
    }

    fn open_small_object(&self, name: &ObjectName, object: impl Read) -> Result<Result<Vec<u8>, CodecError>, Error> {
        let opened = match self.open_bytes(name, object)? {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let says = opened.metadata().plaintext_bytes;
        if says > MAX_SMALL_OBJECT_BYTES as u64 {
            return Ok(Err(CodecError::Damaged(format!("it says that it holds {says} bytes"))));
        }
        let mut bytes = Vec::new();
        Ok(opened.copy_to(&mut bytes).map(|_| bytes))
    }

    /// Reads the object that has the name, whole, and holds it against what was to be stored.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when it is something else; [`Kind::Damaged`] when it is not known; as the store's.
    pub(super) fn compare(&self, name: &ObjectName, digest: Digest) -> Result<Stored, Error> {
        let begun = self.begin_read(name, self.objects.read_existing(name)?)?;
        if !digest.matches(begun.metadata()) {
            let sealed = jiff::Timestamp::from_microsecond(begun.metadata().sealed_unix_us)
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
        begun.copy_to(&mut io::sink())?;
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

/// An object of which the metadata are authenticated, and its length as the store has it.
type OpenedObject<'a> = (Opened<Box<dyn Read + Send + 'a>>, u64);

/// An object that is being read, its metadata authenticated.
pub(super) struct Begun<'a> {
    opener: &'a Opener,
    name: &'a ObjectName,
    opened: Opened<Box<dyn Read + Send + 'a>>,
    /// Its length as the store has it.
    pub(super) stored_bytes: u64,
}

impl Begun<'_> {
    /// Its metadata.
    pub(super) fn metadata(&self) -> &Metadata {
        self.opened.metadata()
    }

    /// Writes the plaintext to `sink`. Where the object fails in the middle, the rest is taken from a good copy of the
    /// same content: what the sink has by then was authenticated, and is the beginning of that.
    ///
    /// # Errors
    /// As [`Opener::get`].
    pub(super) fn copy_to(self, sink: &mut dyn Write) -> Result<Metadata, Error> {
        let Self { opener, name, opened, .. } = self;
        let metadata = opened.metadata();
        let content = Digest { bytes: metadata.plaintext_bytes, blake3: metadata.plaintext_blake3 };
        let mut sink = ReadOn::new(sink);
        let error = match opened.copy_to(&mut sink) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        opener.try_repairs(name, error, |repair| {
            let (opened, _) = match opener.open_whole(repair)? {
                Some(Ok(opened)) if content.matches(opened.0.metadata()) => opened,
                Some(Err(error)) => return Ok(Some(Err(error))),
                Some(Ok(_)) | None => return Ok(None),
            };
            sink.begin_again();
            Ok(Some(opened.copy_to(&mut sink)))
        })
    }
}
