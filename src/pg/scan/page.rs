//! WAL pages and numbers in them.

/// `XLOG_BLCKSZ`.
pub(super) const PAGE_BYTES: usize = 8192;
/// Header of every page but a segment's first.
pub(super) const SHORT_HEADER_BYTES: usize = 24;
/// Header of a segment's first page.
pub(super) const LONG_HEADER_BYTES: usize = 40;

/// The page begins in the middle of a record.
const FIRST_IS_CONTRECORD: u16 = 1;
const LONG_HEADER: u16 = 2;
/// The page begins with an `OVERWRITE_CONTRECORD` in place of the rest of a record.
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 8;
const ALL_FLAGS: u16 = 0xF;

/// Reads `N` bytes at `at`.
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes_at(bytes, at).map(i32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    bytes_at(bytes, at).map(i64::from_le_bytes)
}

/// Whether all bytes of (a part of) a page are zero. A comparison of memory, fast without optimisation too.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    static ZERO: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    bytes.chunks(PAGE_BYTES).all(|chunk| ZERO.get(..chunk.len()) == Some(chunk))
}

/// The next multiple of 8 (`MAXALIGN`).
pub(super) fn align(at: usize) -> usize {
    at.next_multiple_of(8)
}

/// The fields of a page header.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageHeader {
    pub(super) magic: u16,
    pub(super) info: u16,
    pub(super) timeline: u32,
    pub(super) address: u64,
    /// Bytes left of the record the page begins in.
    pub(super) rem_len: u32,
}

impl PageHeader {
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        Some(Self {
            magic: u16_at(page, 0)?,
            info: u16_at(page, 2)?,
            timeline: u32_at(page, 4)?,
            address: u64_at(page, 8)?,
            rem_len: u32_at(page, 16)?,
        })
    }

    /// Whether the flags are right for a page in this place.
    pub(super) fn flags_fit(&self, first: bool) -> bool {
        self.info & !ALL_FLAGS == 0 && (self.info & LONG_HEADER != 0) == first
    }

    pub(super) fn continues(&self) -> bool {
        self.info & FIRST_IS_CONTRECORD != 0
    }

    pub(super) fn overwrites(&self) -> bool {
        self.info & FIRST_IS_OVERWRITE_CONTRECORD != 0
    }
}
