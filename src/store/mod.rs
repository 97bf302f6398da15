//! Stores: where immutable objects live. A directory, S3, or memory, behind one trait.
//!
//! Lives here: the [`Store`] contract, object keys, store errors; one module per backend ([`mod@file`], [`s3`],
//! [`memory`]) and per decorator ([`retry`], [`claims`], [`fault`]). May not live here: what the bytes mean (that is
//! `format` and `repo`). Depends on layers below it only.
//!
//! The contract is blocking on purpose: compression and encryption are blocking work on threads, and a blocking call is
//! simpler to reason about after a crash. The S3 backend keeps a small runtime of its own. Parallelism is threads
//! sharing one store.

use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;

use self::features::Features;
use crate::error::{Error, Kind};

pub mod claim_name;
pub mod claims;
pub mod fault;
pub mod features;
pub mod file;
pub mod health;
pub mod memory;
pub mod policies;
pub mod retry;
#[cfg(feature = "s3")]
pub mod s3;

/// A place for immutable objects. Every implementation and every decorator passes the one conformance suite in
/// `tests/it/conformance.rs`.
///
/// # Promises every implementation makes
/// - **Atomic**: an object is there whole or not at all, whatever is killed and whenever. No reader sees half of one.
/// - **Once**: [`create`](Store::create) and [`Upload::complete`] never replace an object; they answer
///   [`Created::Exists`].
/// - **Durable**: when `create` or `complete` answers [`Created::New`], or [`make_durable`](Store::make_durable)
///   answers `Ok`, the object survives a power failure of this host (file) or is acknowledged by the service (S3).
/// - **Read your writes**: what was created is seen at once by `read` and `list` of every other process.
/// - **Absence is proven, never guessed**: [`ErrorKind::NotFound`] means that the store itself said that this object
///   does not exist. A missing root directory, a missing bucket, a proxy's error page or a denied request is another
///   kind of error.
pub trait Store: Send + Sync {
    /// The repository URL, for messages. It never holds a secret.
    fn location(&self) -> &str;

    /// Creates `key` with `body` if no object has that key. Says whether it did. Afterwards the object is durable if it
    /// is new; if it exists, nothing is known about its content or durability: read it, compare it, and
    /// [`make_durable`](Store::make_durable) it.
    ///
    /// An error says nothing about the outcome: the object may be there (the answer was lost). Calling again is always
    /// safe.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`.
    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError>;

    /// Begins an object too large to hold in memory. Nothing is visible under `key` until [`Upload::complete`].
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`.
    fn begin(&self, key: &Key, content: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError>;

    /// Opens `key` for reading. Errors while reading the body are [`std::io::Error`]s that wrap a [`StoreError`]; the
    /// end of the body is reported only when all bytes of the range were delivered (a connection cut short is an error,
    /// not an end).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the object is proven absent. A range that begins at or beyond the end gives an
    /// empty body.
    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError>;

    /// Visits the objects whose key begins with `prefix` and sorts after `after` (`""` for all), in byte order of the
    /// whole key, until the visitor breaks. Memory is bounded by one page. An absent prefix visits nothing and is not
    /// an error. Objects created or deleted meanwhile may or may not be seen; all others are seen exactly once.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`: a listing that could not be completed is never passed off as a complete one.
    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// Makes an object that somebody else created as durable as `create` would have made it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such object.
    fn make_durable(&self, key: &Key) -> Result<(), StoreError>;

    /// Deletes `key`. Deleting an absent object is `Ok`. Afterwards the deletion is as durable as a creation, so what
    /// is deleted in an order does not come back in another. What is locked is hidden where the store keeps versions.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`; [`ErrorKind::Denied`] when the credentials cannot delete (a good thing to
    /// have); [`ErrorKind::Held`] when the store holds it.
    fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Deletes many objects in any order; the answers are in the order of `keys`. What is gone is so as durably as by
    /// [`delete`](Store::delete), also what was absent before. What object lock protects is neither deleted nor hidden.
    /// [`DELETED_AT_ONCE`](crate::limits::DELETED_AT_ONCE) of one directory cost the least.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`, `Denied` because of what the credentials may delete, and `Held`. Any of the
    /// objects may be gone then; calling again is always safe.
    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError>;

    /// What writers left that were killed, and that is older than this: temporary files, unfinished uploads. At most
    /// [`MAX_LEFTOVERS`](crate::limits::MAX_LEFTOVERS) of them. Where the store's clock says how old something is, it
    /// is held against the clock of this host.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`.
    fn leftovers(&self, older_than: Duration) -> Result<Vec<Leftover>, StoreError>;

    /// Removes one. `false` when its writer turned out to be alive. What is gone already is removed.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`.
    fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, StoreError>;

    /// Visits, as [`list`](Store::list) does, deleted objects of which the store still keeps versions.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`.
    fn hidden(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// Removes these versions for good; the answers are in the order of `hidden`. No other version is touched, so that
    /// an object that was created anew meanwhile stays. Of an object of which a version stays, the mark that it is
    /// deleted stays too: it does not come back.
    ///
    /// # Errors
    /// As [`delete_many`](Store::delete_many).
    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError>;

    /// What the store is set up to do.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`. What the credentials may not ask, or the store does not answer, is
    /// [unknown](features::Versioning::Unknown).
    fn features(&self) -> Result<Features, StoreError>;

    /// Whether an object can be put by a request that does not ask that there is none: puts `body` under `key`, over
    /// what is there. `None` where there is no such request, or nothing at all can be put there.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound` and `Denied`.
    fn can_replace(&self, key: &Key, body: Bytes) -> Result<Option<bool>, StoreError>;
}

/// What deleting an object came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Deleted {
    /// There is no such object any more, whoever deleted it.
    Gone,
    /// The store holds it, and it is untouched: object lock.
    Held {
        /// When that ends, in Unix seconds; `None` when nobody knows (a legal hold, a store that does not say).
        until_unix_s: Option<i64>,
    },
    /// These credentials cannot delete it: what the store said.
    Denied(String),
}

/// What a killed writer left that is no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The object that it was to become, where that is known.
    pub key: Option<Key>,
    /// What it is to the store: the name of a temporary file, the id of an upload.
    pub id: String,
    /// What it takes, in bytes, where the store tells.
    pub size_bytes: Option<u64>,
    /// When something was last known of its writer, in Unix seconds by the store's clock.
    pub alive_unix_s: i64,
}

/// A deleted object of which the store keeps versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The object.
    pub key: Key,
    /// Its versions: id and size in bytes.
    pub versions: Vec<(String, u64)>,
    /// Ids of the marks that say that it is deleted.
    pub marks: Vec<String>,
    /// Whether these are all versions: of very many, only some are shown.
    pub is_whole: bool,
}

/// An object being written in parts. Dropped before [`complete`](Upload::complete) answered, it removes what it can of
/// its parts.
pub trait Upload: Send {
    /// Adds a part. All parts but the last are of one size, [`crate::limits::PART_BYTES`]. After an error the same part
    /// may be given again.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`.
    fn part(&mut self, body: Bytes) -> Result<(), StoreError>;

    /// Publishes the object as [`Store::create`] does. After an error it may be called again; if an earlier call did
    /// succeed and only its answer was lost, the answer is [`Created::Exists`].
    ///
    /// # Errors
    /// Any [`ErrorKind`] but `NotFound`.
    fn complete(&mut self) -> Result<Created, StoreError>;
}

/// What [`Store::create`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// There was no such object; now there is, and it is durable.
    New,
    /// There is an object of that name already, and it was not touched.
    Exists,
}

/// A secret-free fingerprint of what is being created: equal for equal content. Only stores without create-if-absent
/// use it, to let two writers of the same content meet without harm ([`claims`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentId(pub [u8; 16]);

/// Which bytes to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadRange {
    /// The whole object.
    All,
    /// At most `len` bytes from `offset`.
    Bounded {
        /// First byte.
        offset: u64,
        /// Number of bytes, at least 1.
        len: u64,
    },
    /// Everything from this byte on.
    From(u64),
}

impl ReadRange {
    /// First byte of the range.
    pub fn offset(self) -> u64 {
        match self {
            Self::All => 0,
            Self::Bounded { offset, .. } | Self::From(offset) => offset,
        }
    }
}

/// An opened object.
pub struct Object<'a> {
    /// Size of the whole object in bytes, whatever range was asked for.
    pub size_bytes: u64,
    /// The bytes of the range.
    pub body: Box<dyn Read + Send + 'a>,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub key: Key,
    /// Its stored size in bytes.
    pub size_bytes: u64,
    /// When it was stored, in Unix seconds by the store's clock, where the store tells.
    pub modified_unix_s: Option<i64>,
}

/// The name of an object: `/`-separated parts of `A-Z a-z 0-9 . _ -`, none empty and none starting with a dot, at most
/// [`crate::limits::MAX_KEY_BYTES`] long. So a key is a safe relative path and needs no escaping anywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks and wraps a key.
    ///
    /// # Errors
    /// The text, when it is not a key.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let part_ok = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() <= crate::limits::MAX_KEY_BYTES && text.split('/').all(part_ok) {
            Ok(Self(text))
        } else {
            Err(InvalidKey(text))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not an object key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an object name")]
pub struct InvalidKey(pub String);

/// What went wrong in a store, in the terms that decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The store says that this object does not exist.
    NotFound,
    /// The root directory or bucket does not exist.
    NoSuchPlace,
    /// Permission, credentials, signature, policy.
    Denied,
    /// The object is locked: nobody with these credentials can delete it now.
    Held,
    /// No connection, connection cut, name not found, certificate not trusted, I/O error.
    Unreachable,
    /// A time limit passed.
    TimedOut,
    /// The store answers 429, 500, 502, 503, 504, `SlowDown` and the like.
    Busy,
    /// Disk or quota full.
    NoSpace,
    /// A read-only file system.
    ReadOnly,
    /// The store cannot do what is asked (for example neither link nor rename without replace).
    Unsupported,
    /// The store's answer makes no sense (a proxy's page, a wrong length, a missing field).
    BadAnswer,
}

/// An error of a store: what was being done, where, what happened, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} in {location}: {detail}")]
pub struct StoreError {
    /// What decides retry and exit code.
    pub kind: ErrorKind,
    /// What was being done, present tense: `create wal/00000001/…`.
    pub action: String,
    /// The repository URL.
    pub location: String,
    /// What happened, one line, without a trailing period.
    pub detail: String,
    /// What the operator can do, if something better is known than what the kind suggests.
    pub hint: Option<String>,
    /// Whether trying again can help although the kind suggests not, or cannot although the kind suggests so.
    pub permanent: bool,
}

impl StoreError {
    /// Makes an error; permanence follows from the kind.
    pub fn new(kind: ErrorKind, action: impl Into<String>, location: impl Into<String>, detail: impl Into<String>) -> Self {
        let permanent = match kind {
            ErrorKind::NotFound
            | ErrorKind::NoSuchPlace
            | ErrorKind::Denied
            | ErrorKind::Held
            | ErrorKind::NoSpace
            | ErrorKind::ReadOnly
            | ErrorKind::Unsupported => true,
            ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Busy | ErrorKind::BadAnswer => false,
        };
        Self { kind, action: action.into(), location: location.into(), detail: detail.into(), hint: None, permanent }
    }

    /// Adds what the operator can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that trying again cannot help (a certificate that is not trusted stays so).
    #[must_use]
    pub fn permanently(mut self) -> Self {
        self.permanent = true;
        self
    }

    /// Whether trying the same call again is pointless.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// Wraps it for a body reader.
    pub fn into_io(self) -> std::io::Error {
        std::io::Error::other(self)
    }

    /// Takes it back out of an [`std::io::Error`] made by [`into_io`](Self::into_io).
    ///
    /// # Errors
    /// The error itself, when it holds no store error.
    pub fn from_io(error: std::io::Error) -> Result<Self, std::io::Error> {
        error.downcast::<Self>()
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, hint) = match error.kind {
            ErrorKind::NotFound => {
                (Kind::Damaged, "an object that belongs there is gone; look for it in another copy of the repository")
            }
            ErrorKind::NoSuchPlace => {
                (Kind::Config, "check the URL; make the bucket or mount the disk; to make a repository run 'walvis init'")
            }
            ErrorKind::Denied => (Kind::Denied, "check credentials and permissions of the user that PostgreSQL runs as"),
            ErrorKind::Held => (Kind::Denied, "the object is locked until its retention ends"),
            ErrorKind::ReadOnly => (Kind::Denied, "mount the file system read-write"),
            ErrorKind::Unsupported => (Kind::Config, "choose another file system or store"),
            ErrorKind::Unreachable => {
                (Kind::Unreachable, "check network, address and certificate, or the disk; PostgreSQL will try again")
            }
            ErrorKind::TimedOut => {
                (Kind::Unreachable, "the store is slow or hangs; PostgreSQL will try again; see timeout_s and request_timeout_s")
            }
            ErrorKind::Busy => (Kind::Unreachable, "the store is overloaded; PostgreSQL will try again"),
            ErrorKind::NoSpace => (Kind::Unreachable, "free space or raise the quota; PostgreSQL will try again"),
            ErrorKind::BadAnswer => (Kind::Unreachable, "is it really an S3 service that answers there, or a proxy?"),
        };
        let hint = error.hint.clone().unwrap_or_else(|| hint.to_owned());
        Self::new(kind, error.to_string()).hint(hint)
    }
}
