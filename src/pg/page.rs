//! The first page of a WAL segment, and what it must say for the segment to be what its name claims.
//!
//! Offsets from `access/xlog_internal.h` (`XLogLongPageHeaderData`), little-endian, the same in PostgreSQL 13 to 18.

use super::lsn::{Lsn, WalSegmentSize};
use super::names::SegmentName;
use std::io::{self, Read, Write};

/// Bytes of a long page header.
const LONG_HEADER_BYTES: usize = 40;
/// Bytes that [`SegmentHead`] keeps.
const KEPT_BYTES: usize = 64;
const _: () = assert!(KEPT_BYTES >= LONG_HEADER_BYTES);
/// `XLP_LONG_HEADER`: set on the first page of every segment.
const LONG_HEADER_FLAG: u16 = 2;
/// `XLOG_BLCKSZ` as every distribution builds it.
const WAL_BLOCK_BYTES: u32 = 8192;

/// `XLOG_PAGE_MAGIC` by major version.
const MAGICS: [(u16, u16); 6] = [(13, 0xD106), (14, 0xD10D), (15, 0xD110), (16, 0xD113), (17, 0xD116), (18, 0xD118)];

/// The PostgreSQL major version that writes this page magic; `None` if Walvis does not know it.
pub fn major_of_magic(magic: u16) -> Option<u16> {
    MAGICS.iter().find(|(_, m)| *m == magic).map(|(major, _)| *major)
}

/// The long header at the start of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstPage {
    /// PostgreSQL major version, from the magic.
    pub major: u16,
    /// Timeline of the page; on the first segment of a timeline it may be a parent's.
    pub timeline: u32,
    /// Position of the page.
    pub address: Lsn,
    /// System identifier of the cluster.
    pub system_id: u64,
    /// Segment size of the cluster.
    pub segment_size: WalSegmentSize,
}

/// Why a file is not the segment it is called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Shorter than a page header.
    #[error("it has only {0} bytes")]
    Short(u64),
    /// All zero where the header should be.
    #[error("it begins with zeros: it is empty, or was never written to disk")]
    Zero,
    /// A magic of no known version.
    #[error("page magic {0:04X} is of no PostgreSQL version from 13 to 18: it is not a WAL segment, or of a newer PostgreSQL")]
    Magic(u16),
    /// No long header: not the beginning of a segment.
    #[error("its first page is not the first page of a segment")]
    NotFirst,
    /// A segment size that no cluster can have, or another page size.
    #[error("its header is damaged: segment size {segment_bytes}, page size {block_bytes}")]
    Header {
        /// `xlp_seg_size`.
        segment_bytes: u32,
        /// `xlp_xlog_blcksz`.
        block_bytes: u32,
    },
    /// The file is shorter or longer than a segment.
    #[error("it has {actual} bytes, a segment of its cluster has {expected}: it is {}", if actual < expected { "truncated" } else { "too long" })]
    Size {
        /// The file's size in bytes.
        actual: u64,
        /// `xlp_seg_size`.
        expected: u64,
    },
    /// The name says another position.
    #[error("its content is the segment at {content}, its name says {name}: it is misnamed")]
    Misnamed {
        /// Position by the page header.
        content: Lsn,
        /// Position by the name.
        name: Lsn,
    },
    /// The last digits of the name are too large for the segment size.
    #[error("its name is impossible with segments of {0} bytes")]
    ImpossibleName(u64),
    /// The page's timeline is newer than the file's.
    #[error("its first page is of timeline {page}, its name says timeline {name}: it is misnamed")]
    Timeline {
        /// Timeline by the page header.
        page: u32,
        /// Timeline by the name.
        name: u32,
    },
}

impl FirstPage {
    /// Reads the header of the first page.
    ///
    /// # Errors
    /// Says what the bytes are instead.
    pub fn parse(bytes: &[u8]) -> Result<Self, PageError> {
        let Some(header) = bytes.first_chunk::<LONG_HEADER_BYTES>() else {
            return Err(PageError::Short(bytes.len() as u64));
        };
        if header.iter().all(|b| *b == 0) {
            return Err(PageError::Zero);
        }
        let [m0, m1, i0, i1, ..] = *header;
        let u32_at = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b));
        let magic = u16::from_le_bytes([m0, m1]);
        let major = major_of_magic(magic).ok_or(PageError::Magic(magic))?;
        if u16::from_le_bytes([i0, i1]) & LONG_HEADER_FLAG == 0 {
            return Err(PageError::NotFirst);
        }
        let (segment_bytes, block_bytes) = (u32_at(32), u32_at(36));
        let segment_size = WalSegmentSize::new(u64::from(segment_bytes))
            .filter(|_| block_bytes == WAL_BLOCK_BYTES)
            .ok_or(PageError::Header { segment_bytes, block_bytes })?;
        Ok(Self { major, timeline: u32_at(4), address: Lsn(u64_at(8)), system_id: u64_at(24), segment_size })
    }
}

/// The first bytes of a file that has the name of a segment (or `.partial`), to be checked against that name. It keeps
/// them while all bytes of the file are written to it, and lets the others go.
#[derive(Debug, Clone, Default)]
pub struct SegmentHead(Vec<u8>);

impl SegmentHead {
    /// Reads the first bytes.
    ///
    /// # Errors
    /// As the reader's.
    pub fn read(file: impl Read) -> io::Result<Self> {
        let mut head = Self::default();
        file.take(KEPT_BYTES as u64).read_to_end(&mut head.0)?;
        Ok(head)
    }

    /// Takes the next bytes of the file.
    pub fn add(&mut self, bytes: &[u8]) {
        let wanted = KEPT_BYTES.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
    }

    /// Holds size, position and timeline against the name. The system identifier is for the caller to compare.
    ///
    /// # Errors
    /// Says what is wrong with the file, each fault in its own words.
    pub fn check(&self, name: SegmentName, file_bytes: u64) -> Result<FirstPage, PageError> {
        let page = FirstPage::parse(&self.0)?;
        let size = page.segment_size;
        if file_bytes != size.bytes() {
            return Err(PageError::Size { actual: file_bytes, expected: size.bytes() });
        }
        let start = name.start(size).ok_or(PageError::ImpossibleName(size.bytes()))?;
        if page.address != start {
            return Err(PageError::Misnamed { content: page.address, name: start });
        }
        if page.timeline > name.timeline.0 {
            return Err(PageError::Timeline { page: page.timeline, name: name.timeline.0 });
        }
        Ok(page)
    }
}

impl Write for SegmentHead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(magic: u16, tli: u32, address: u64, segment_bytes: u32) -> Vec<u8> {
        let mut page = vec![0; 8192];
        page[0..2].copy_from_slice(&magic.to_le_bytes());
        page[2..4].copy_from_slice(&2u16.to_le_bytes());
        page[4..8].copy_from_slice(&tli.to_le_bytes());
        page[8..16].copy_from_slice(&address.to_le_bytes());
        page[24..32].copy_from_slice(&42u64.to_le_bytes());
        page[32..36].copy_from_slice(&segment_bytes.to_le_bytes());
        page[36..40].copy_from_slice(&8192u32.to_le_bytes());
        page
    }

    #[test]
    fn every_fault_has_its_own_error() {
        let name = SegmentName::parse("000000020000000000000003").unwrap();
        let size = 16 << 20;
        let good = head(0xD110, 1, 3 * size, size as u32);
        let page = SegmentHead::read(good.as_slice()).unwrap().check(name, size).unwrap();
        assert_eq!((page.major, page.system_id), (15, 42));
        let check = |head: &[u8], bytes| SegmentHead::read(head).unwrap().check(name, bytes).unwrap_err();
        assert!(matches!(check(&good, size - 1), PageError::Size { .. }));
        assert!(matches!(check(&good[..30], 30), PageError::Short(30)));
        assert!(matches!(check(&vec![0; 8192], size), PageError::Zero));
        assert!(matches!(check(&head(0xD10C, 1, 3 * size, size as u32), size), PageError::Magic(0xD10C)));
        assert!(matches!(check(&head(0xD110, 1, 4 * size, size as u32), size), PageError::Misnamed { .. }));
        assert!(matches!(check(&head(0xD110, 3, 3 * size, size as u32), size), PageError::Timeline { .. }));
        assert!(matches!(check(&head(0xD110, 1, 3 * size, 12345), size), PageError::Header { .. }));
        let mut short_header = good.clone();
        short_header[2] = 0;
        assert!(matches!(check(&short_header, size), PageError::NotFirst));
        let beyond = SegmentName::parse("000000020000000000000100").unwrap();
        assert!(matches!(SegmentHead::read(good.as_slice()).unwrap().check(beyond, size), Err(PageError::ImpossibleName(_))));
    }
    #[test]
    fn a_head_is_the_same_in_one_piece_or_in_many() {
        let good = head(0xD110, 1, 0x300_0000, 16 << 20);
        for piece in [1, 39, 40, 63, 64, 65, 8192] {
            let mut head = SegmentHead::default();
            for bytes in good.chunks(piece) {
                head.write_all(bytes).unwrap();
            }
            assert_eq!(head.0, good[..KEPT_BYTES], "in pieces of {piece} bytes");
        }
    }
}
