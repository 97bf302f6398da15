//! What is to be stored: a plaintext, its hash, and what goes into the metadata.

use std::io::Read;

use crate::codec::{Digest, SharedCompressed};

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
    pub(super) digest: Digest,
    /// What two writers agree on; the digest's hash, unless they may differ in what does not matter.
    pub(super) identity: [u8; 32],
    pub(super) wal_summary: Option<Vec<u8>>,
    pub(super) wal_changes: Option<Vec<u8>>,
    pub(super) backup_summary: Option<Vec<u8>>,
    pub(super) void: Option<Vec<u8>>,
    pub(super) compressed: Option<&'a SharedCompressed>,
    pub(super) open: OpenContent<'a>,
}

impl<'a> Content<'a> {
    /// A plaintext that was read before. Should it read otherwise now, it is not stored.
    pub fn known(digest: Digest, open: impl Fn() -> Box<dyn Read + 'a> + Sync + 'a) -> Self {
        Self {
            digest,
            identity: digest.blake3,
            wal_summary: None,
            wal_changes: None,
            backup_summary: None,
            void: None,
            compressed: None,
            open: Box::new(open),
        }
    }

    /// Says by what it is the same as another writer's content, although not in every byte. Where the store does not
    /// refuse to overwrite, two writers of one identity do not wait for each other, nor for one that was killed, and
    /// either's bytes may stay.
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

    /// Adds what this segment changed, no longer than [`limit_bytes`](crate::format::changes::limit_bytes) says.
    #[must_use]
    pub fn with_changes(mut self, wal_changes: Option<Vec<u8>>) -> Self {
        self.wal_changes = wal_changes;
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

    /// Says why a backup was given up whose manifest would have this name.
    #[must_use]
    pub fn void_because(mut self, reason: Vec<u8>) -> Self {
        self.void = Some(reason);
        self
    }

    /// A plaintext in memory.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        let digest = Digest { bytes: bytes.len() as u64, blake3: *blake3::hash(bytes).as_bytes() };
        Self::known(digest, move || Box::new(bytes))
    }
}
