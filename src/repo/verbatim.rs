//! Objects as they are: read whole, every byte authenticated, and whatever is wrong told apart from a store that fails.
//!
//! Lives here: what a verification reads objects with. It never takes another object instead of a damaged one. May not
//! live here: what a content means, and what damage costs. Memory: a record of a pack, or what a stream takes.

use std::io::{BufReader, Read, Write};

use super::metered::Metered;
use super::object_name::ObjectName;
use super::raw_objects::store_error;
use super::repository::Repository;
use crate::codec::CodecError;
use crate::codec::pack::Record;
use crate::error::{Error, Kind};
use crate::format::envelope::Metadata;
use crate::limits::VERIFY_READ_BYTES;
use crate::store::ReadRange;

/// What became of the reading of an object.
#[derive(Debug)]
pub enum Verbatim<T> {
    /// It is genuine.
    Good(T),
    /// It is not what was stored under its name, and why.
    Damaged(String),
    /// The store says that it does not exist.
    Gone,
    /// The store has it, and cannot hand it out.
    Unreadable(Error),
}

/// Takes what a record holds, or why it is damaged.
pub type SeenRecord<'v> = &'v mut dyn FnMut(&Record, Result<&[u8], String>);

impl Repository {
    /// Writes the plaintext of an object to `sink`; `read` is told of bytes as they come from the store. What the sink
    /// got is genuine only if the answer is [`Verbatim::Good`].
    ///
    /// # Errors
    /// [`Kind::Config`] when the sink fails; [`Kind::Denied`] when the store denies it.
    pub fn read_verbatim(
        &self,
        name: &ObjectName,
        read: &(dyn Fn(usize) + Sync),
        sink: &mut dyn Write,
    ) -> Result<Verbatim<Metadata>, Error> {
        let object = match self.objects().read(name, ReadRange::All) {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(Verbatim::Gone),
            Err(error) => return unreadable(error),
        };
        let source = Metered { inner: object.body, read };
        match self.opener().open_bytes(name, source)?.and_then(|opened| opened.copy_to(sink)) {
            Ok(metadata) => Ok(Verbatim::Good(metadata)),
            Err(error) => wrong(name, error),
        }
    }

    /// Reads a pack, and gives `seen` each of its records in order, whether it is genuine or not. The answer is good
    /// when all are, and nothing follows the last.
    ///
    /// # Errors
    /// [`Kind::Denied`] when the store denies it.
    pub fn read_pack_verbatim(
        &self,
        name: &ObjectName,
        read: &(dyn Fn(usize) + Sync),
        seen: SeenRecord<'_>,
    ) -> Result<Verbatim<()>, Error> {
        let object = match self.objects().read(name, ReadRange::All) {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(Verbatim::Gone),
            Err(error) => return unreadable(error),
        };
        let source = BufReader::with_capacity(VERIFY_READ_BYTES, Metered { inner: object.body, read });
        let opened = self.opener().open_bytes(name, source)?.and_then(crate::codec::Opened::into_pack);
        let (records, key, mut source) = match opened {
            Ok(opened) => opened,
            Err(error) => return wrong(name, error),
        };
        let (mut sealed, mut content) = (Vec::new(), Vec::new());
        let (mut first, mut bad) = (None, 0_u64);
        for record in &records {
            sealed.clear();
            content.clear();
            if let Err(error) = source.by_ref().take(record.sealed_bytes.into()).read_to_end(&mut sealed) {
                return wrong(name, CodecError::Read(error));
            }
            let opened = if sealed.len() < record.sealed_bytes as usize {
                Err(CodecError::Damaged("it is truncated".to_owned()))
            } else {
                key.open(record.kind, record.offset, &mut sealed, Some(record.plaintext_bytes as usize), &mut content)
            };
            match opened {
                Ok(()) => seen(record, Ok(&content)),
                Err(error) => {
                    let why = error.to_string();
                    first.get_or_insert_with(|| why.clone());
                    bad += 1;
                    seen(record, Err(why));
                }
            }
        }
        match source.read(&mut [0]) {
            Err(error) => return wrong(name, CodecError::Read(error)),
            Ok(0) => {}
            Ok(_) => {
                first.get_or_insert_with(|| "bytes follow its last record".to_owned());
            }
        }
        Ok(match first {
            None => Verbatim::Good(()),
            Some(why) if bad > 1 => Verbatim::Damaged(format!("{why}; {bad} of its {} records are damaged", records.len())),
            Some(why) => Verbatim::Damaged(why),
        })
    }
}

/// A store that does not hand out an object: of this one alone, unless its rights are missing.
fn unreadable<T>(error: Error) -> Result<Verbatim<T>, Error> {
    match error.kind {
        Kind::Unreachable | Kind::Config => Ok(Verbatim::Unreadable(error)),
        _ => Err(error),
    }
}

fn wrong<T>(name: &ObjectName, error: CodecError) -> Result<Verbatim<T>, Error> {
    match error {
        CodecError::Read(error) => unreadable(store_error(error)),
        CodecError::Write(e) => Err(Error::new(Kind::Config, format!("cannot write the content of {name}: {e}"))),
        error => Ok(Verbatim::Damaged(error.to_string())),
    }
}
