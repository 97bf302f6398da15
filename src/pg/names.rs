//! Names of the files that PostgreSQL archives (`access/xlog_internal.h`).

use std::fmt;

use super::lsn::{Lsn, Timeline, WalSegmentSize, hex32};

/// The name of a WAL segment: 24 upper-case hexadecimal digits, `TTTTTTTTLLLLLLLLSSSSSSSS`.
///
/// The order is PostgreSQL's: timeline first, then position.
///
/// ```
/// use walvis::pg::{Lsn, SegmentName, WalSegmentSize};
///
/// let size = WalSegmentSize::new(16 << 20).ok_or("size")?;
/// let name = SegmentName::parse("0000000200000016000000B3").ok_or("name")?;
/// assert_eq!(name.timeline.0, 2);
/// assert_eq!(name.start(size), Some(Lsn(0x16_B300_0000)));
/// assert_eq!(SegmentName::parse("0000000200000016000000b3"), None, "PostgreSQL writes upper case");
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline that the file belongs to. Pages at its start may carry a parent's.
    pub timeline: Timeline,
    /// The middle digits.
    pub log: u32,
    /// The last digits: the segment within the log, below [`WalSegmentSize::segments_per_log`].
    pub segment: u32,
}

impl SegmentName {
    /// Reads a name; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 24 || !text.bytes().all(is_upper_hex) {
            return None;
        }
        let timeline = Timeline(hex32(text.get(0..8)?)?);
        Some(Self { timeline, log: hex32(text.get(8..16)?)?, segment: hex32(text.get(16..24)?)? })
    }

    /// The name of the segment with this number on this timeline. `None` when the number is beyond what names can hold.
    pub fn from_number(timeline: Timeline, number: u64, size: WalSegmentSize) -> Option<Self> {
        let per_log = size.segments_per_log();
        Some(Self { timeline, log: u32::try_from(number / per_log).ok()?, segment: u32::try_from(number % per_log).ok()? })
    }

    /// The name of the segment that holds this position.
    pub fn holding(timeline: Timeline, lsn: Lsn, size: WalSegmentSize) -> Option<Self> {
        Self::from_number(timeline, lsn.0 / size.bytes(), size)
    }

    /// The segment's number; `None` when the last digits are too large for this segment size.
    pub fn number(&self, size: WalSegmentSize) -> Option<u64> {
        let per_log = size.segments_per_log();
        (u64::from(self.segment) < per_log).then(|| u64::from(self.log) * per_log + u64::from(self.segment))
    }

    /// Position of the segment's first byte.
    pub fn start(&self, size: WalSegmentSize) -> Option<Lsn> {
        self.number(size)?.checked_mul(size.bytes()).map(Lsn)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.segment)
    }
}

/// Any file that PostgreSQL hands to `archive_command` or asks of `restore_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// A complete segment.
    Segment(SegmentName),
    /// `<segment>.partial`: the last segment of a timeline that was left in the middle of it.
    Partial(SegmentName),
    /// `<segment>.<offset>.backup`: a backup history file.
    Backup(SegmentName, u32),
    /// `<timeline>.history`: where a timeline left its parents.
    History(Timeline),
}

impl WalFileName {
    /// Reads a name; `None` if PostgreSQL makes no such file.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(segment) = SegmentName::parse(text) {
            return Some(Self::Segment(segment));
        }
        if let Some(stem) = text.strip_suffix(".partial") {
            return SegmentName::parse(stem).map(Self::Partial);
        }
        if let Some(stem) = text.strip_suffix(".history") {
            let valid = stem.len() == 8 && stem.bytes().all(is_upper_hex);
            return valid.then(|| hex32(stem).map(|tli| Self::History(Timeline(tli)))).flatten();
        }
        let (segment, offset) = text.strip_suffix(".backup")?.split_once('.')?;
        let valid = offset.len() == 8 && offset.bytes().all(is_upper_hex);
        if valid { Some(Self::Backup(SegmentName::parse(segment)?, hex32(offset)?)) } else { None }
    }

    /// The timeline in the name.
    pub fn timeline(&self) -> Timeline {
        match self {
            Self::Segment(name) | Self::Partial(name) | Self::Backup(name, _) => name.timeline,
            Self::History(timeline) => *timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => write!(f, "{name}"),
            Self::Partial(name) => write!(f, "{name}.partial"),
            Self::Backup(name, offset) => write!(f, "{name}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.0),
        }
    }
}

fn is_upper_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'F')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in [
            "000000010000000A000000FE",
            "000000010000000A000000FE.partial",
            "000000010000000A000000FE.00000028.backup",
            "0000000A.history",
        ] {
            assert_eq!(WalFileName::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "RECOVERYXLOG",
            "000000010000000A000000F",
            "000000010000000a000000fe",
            "000000010000000A000000FE.bak",
            "000000010000000A000000FE.0028.backup",
            "+0000001.history",
            "1.history",
            "../../../../etc/passwd00",
            "000000010000000A000000FÉ",
            "000000010000000A000000FE.partial.partial",
        ] {
            assert!(WalFileName::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn numbers_follow_the_segment_size() {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        let name = SegmentName::parse("000000010000000200000FFF").unwrap();
        assert_eq!(name.start(size), Some(Lsn(0x2_FFF0_0000)));
        assert_eq!(SegmentName::from_number(Timeline(1), name.number(size).unwrap(), size), Some(name));
        let name = SegmentName::parse("000000010000000200000100").unwrap();
        assert_eq!(name.number(WalSegmentSize::new(16 << 20).unwrap()), None);
    }
}
