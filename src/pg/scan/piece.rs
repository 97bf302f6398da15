//! The part of a record that lies in one segment.

use crc32c::{crc32c, crc32c_append};

use crate::limits::{MAX_WAL_RECORD_BYTES, PIECE_FIRST_BYTES, PIECE_LAST_BYTES};

/// What a summary keeps of a part of a record: enough to verify and read the record once its other parts are known too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub(super) len: u64,
    pub(super) crc: u32,
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
}

impl Piece {
    /// Bytes of the record in this segment.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none of its bytes are.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// CRC-32C of all these bytes.
    pub fn crc32c(&self) -> u32 {
        self.crc
    }

    /// The first of them, at most [`PIECE_FIRST_BYTES`].
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// The last of those that are not among the first, at most [`PIECE_LAST_BYTES`].
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    /// Checks parts that were stored.
    pub(super) fn from_parts(len: u64, crc: u32, first: Vec<u8>, last: Vec<u8>) -> Option<Self> {
        let rest = len.checked_sub(first.len() as u64)?;
        let fits = len <= u64::from(MAX_WAL_RECORD_BYTES)
            && first.len() as u64 == len.min(PIECE_FIRST_BYTES as u64)
            && last.len() as u64 == rest.min(PIECE_LAST_BYTES as u64)
            && (rest > 0 || crc == crc32c(&first));
        fits.then_some(Self { len, crc, first, last })
    }
}

impl Default for Piece {
    /// No bytes.
    fn default() -> Self {
        Self { len: 0, crc: 0, first: Vec::new(), last: Vec::new() }
    }
}

impl Piece {
    /// Adds the next bytes.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.len += data.len() as u64;
        self.crc = crc32c_append(self.crc, data);
        let (first, rest) = data.split_at(data.len().min(PIECE_FIRST_BYTES - self.first.len().min(PIECE_FIRST_BYTES)));
        self.first.extend_from_slice(first);
        let rest = rest.get(rest.len().saturating_sub(PIECE_LAST_BYTES)..).unwrap_or_default();
        let superfluous = (self.last.len() + rest.len()).saturating_sub(PIECE_LAST_BYTES);
        self.last.drain(..superfluous);
        self.last.extend_from_slice(rest);
    }
}
