//! LSN, timeline and segment size.

use std::fmt;
use std::str::FromStr;

use crate::limits::{MAX_WAL_SEGMENT_BYTES, MIN_WAL_SEGMENT_BYTES};

/// A position in the write-ahead log, in bytes. Written `%X/%X` as PostgreSQL does.
///
/// ```
/// use walvis::pg::Lsn;
///
/// let lsn: Lsn = "16/b374d848".parse()?;
/// assert_eq!(lsn, Lsn(0x16_B374_D848));
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// assert!("16".parse::<Lsn>().is_err());
/// # Ok::<(), walvis::pg::InvalidLsn>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an LSN such as 16/B374D848")]
pub struct InvalidLsn(pub String);

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            Some(Self(u64::from(hex32(high)?) << 32 | u64::from(hex32(low)?)))
        };
        parse().ok_or_else(|| InvalidLsn(text.to_owned()))
    }
}

/// 1 to 8 hexadecimal digits and nothing else (`from_str_radix` alone would take a sign).
pub(super) fn hex32(text: &str) -> Option<u32> {
    let digits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// A timeline number, from 1. Written as 8 upper-case hexadecimal digits in file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The size of a WAL segment file: a power of two from 1 MiB to 1 GiB (`initdb --wal-segsize`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalSegmentSize(u64);

impl WalSegmentSize {
    /// Checks a size in bytes.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes.is_power_of_two() && (MIN_WAL_SEGMENT_BYTES..=MAX_WAL_SEGMENT_BYTES).contains(&bytes)).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments share the middle 8 digits of a segment name (`XLogSegmentsPerXLogId`).
    pub fn segments_per_log(self) -> u64 {
        (1 << 32) / self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_it_writes_and_nothing_else() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for text in ["", "/", "1", "1/", "/1", "+1/0", "1/123456789", "1/2/3", "g/0", " 1/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn segment_sizes_are_powers_of_two_in_range() {
        assert_eq!(WalSegmentSize::new(16 << 20).unwrap().segments_per_log(), 256);
        assert!(WalSegmentSize::new(1 << 20).is_some() && WalSegmentSize::new(1 << 30).is_some());
        for bytes in [0, 1, 1 << 19, 3 << 20, 1 << 31] {
            assert!(WalSegmentSize::new(bytes).is_none(), "{bytes}");
        }
    }
}
