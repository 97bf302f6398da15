//! The header of a record.

use crc32c::crc32c_append;

use super::page::{u32_at, u64_at};
use crate::pg::Lsn;

/// `SizeOfXLogRecord`.
pub(super) const HEADER_BYTES: usize = 24;
/// The header up to the CRC, which covers these bytes last.
const HEADER_BYTES_BEFORE_CRC: usize = 20;

/// The fields of a record header.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordHeader {
    pub(super) tot_len: u32,
    pub(super) xid: u32,
    /// Position of the record before.
    pub(super) prev: Lsn,
    pub(super) info: u8,
    pub(super) rmid: u8,
    crc: u32,
}

impl RecordHeader {
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        Some(Self {
            tot_len: u32_at(bytes, 0)?,
            xid: u32_at(bytes, 4)?,
            prev: Lsn(u64_at(bytes, 8)?),
            info: *bytes.get(16)?,
            rmid: *bytes.get(17)?,
            crc: u32_at(bytes, HEADER_BYTES_BEFORE_CRC)?,
        })
    }

    /// Whether the CRC is right, given the one of the body: it covers the body first, then the header up to itself.
    pub(super) fn fits(&self, crc_of_body: u32, head: &[u8; HEADER_BYTES]) -> bool {
        head.first_chunk::<HEADER_BYTES_BEFORE_CRC>().is_some_and(|head| crc32c_append(crc_of_body, head) == self.crc)
    }

    /// Bytes after the header.
    pub(super) fn body_len(&self) -> u32 {
        self.tot_len.saturating_sub(HEADER_BYTES as u32)
    }

    /// `XLOG_SWITCH`.
    pub(super) fn is_switch(&self) -> bool {
        self.rmid == 0 && self.info & 0xF0 == 0x40
    }
}
