//! Timeline history files and backup history files (`access/transam/timeline.c`, `xlog.c`).

use super::lsn::{Lsn, Timeline, WalSegmentSize, hex32};
use super::names::SegmentName;

/// One line of a timeline history: until where a parent is part of this timeline's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The parent.
    pub timeline: Timeline,
    /// The first position that is no longer the parent's. Never beyond the next entry's.
    pub switch: Lsn,
}

/// The content of `<timeline>.history`: all ancestors, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: Timeline,
    /// Its ancestors, ascending.
    pub ancestors: Vec<HistoryEntry>,
}

/// Why a text is not a history file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Not UTF-8 in a part that must be a number, or no number.
    #[error("line {0} is not a timeline, a tab and an LSN")]
    Line(usize),
    /// The server itself refuses these (`readTimeLineHistory`).
    #[error("line {0}: timelines must ascend and stay below that of the file")]
    Order(usize),
    /// A timeline above 1 has at least one ancestor.
    #[error("it names no ancestor")]
    Empty,
    /// The server ends every line; what is cut off within a number would read like another number.
    #[error("its last line is incomplete: it is truncated")]
    Truncated,
    /// The start line is missing or names another segment.
    #[error("it has no line 'START WAL LOCATION: … (file {0})'")]
    Start(String),
}

impl TimelineHistory {
    /// Reads the content of `<timeline>.history`. Blank lines and lines that begin with `#` are ignored, as is what
    /// follows the LSN.
    ///
    /// Positions may fall from one line to the next: a recovery along timeline 3 that stops before 3 left its parent
    /// writes the whole history of 3, and then a line for 3 itself with the position where it stopped
    /// (`writeTimeLineHistory`). What lies beyond that position is the new timeline's (`tliOfPointInHistory` asks the
    /// newest first), so it ends the earlier entries too.
    ///
    /// # Errors
    /// The first line that is wrong, from 1.
    pub fn parse(timeline: Timeline, content: &[u8]) -> Result<Self, HistoryError> {
        let mut ancestors: Vec<HistoryEntry> = Vec::new();
        for (index, line) in content.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let entry = parse_line(line).ok_or(HistoryError::Line(index + 1))?;
            let in_order = ancestors.last().is_none_or(|last| last.timeline < entry.timeline);
            if !in_order || entry.timeline >= timeline || entry.timeline.0 == 0 {
                return Err(HistoryError::Order(index + 1));
            }
            ancestors.push(entry);
        }
        // Once, from the end: a file may have as many lines as it has room for.
        let mut end = Lsn(u64::MAX);
        for entry in ancestors.iter_mut().rev() {
            end = end.min(entry.switch);
            entry.switch = end;
        }
        if ancestors.is_empty() {
            return Err(HistoryError::Empty);
        }
        if !content.ends_with(b"\n") {
            return Err(HistoryError::Truncated);
        }
        Ok(Self { timeline, ancestors })
    }

    /// Number of the first segment that exists on this timeline: the one in which it left its parent.
    pub fn first_segment(&self, size: WalSegmentSize) -> Option<u64> {
        self.ancestors.last().map(|parent| parent.switch.0 / size.bytes())
    }
}

fn parse_line(line: &[u8]) -> Option<HistoryEntry> {
    let mut fields = line.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty());
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let timeline: u32 = field()?.parse().ok()?;
    let switch: Lsn = field()?.parse().ok()?;
    Some(HistoryEntry { timeline: Timeline(timeline), switch })
}

/// The content of a `.backup` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupHistory {
    /// Where the backup began.
    pub start: Lsn,
}

impl BackupHistory {
    /// Reads the start line and holds it against the file's name.
    ///
    /// # Errors
    /// When the line is missing or names another segment.
    pub fn parse(name: SegmentName, content: &[u8]) -> Result<Self, HistoryError> {
        let missing = || HistoryError::Start(name.to_string());
        let line = content.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"START WAL LOCATION: ")).ok_or_else(missing)?;
        let line = std::str::from_utf8(line.trim_ascii()).map_err(|_| missing())?;
        let (lsn, file) = line.split_once(" (file ").ok_or_else(missing)?;
        let named = file.strip_suffix(')').and_then(SegmentName::parse);
        let valid_lsn = lsn.split_once('/').is_some_and(|(h, l)| hex32(h).is_some() && hex32(l).is_some());
        if named != Some(name) || !valid_lsn {
            return Err(missing());
        }
        Ok(Self { start: lsn.parse().map_err(|_| missing())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_lists_ancestors() {
        let text = b"1\t0/C7EF88\tat restore point \"rp1\"\n\n# comment\n2\t0/D000000\tno recovery target specified\n";
        let history = TimelineHistory::parse(Timeline(3), text).unwrap();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.ancestors[0], HistoryEntry { timeline: Timeline(1), switch: Lsn(0xC7EF88) });
        assert_eq!(history.first_segment(WalSegmentSize::new(16 << 20).unwrap()), Some(0xD));
        assert_eq!(history.first_segment(WalSegmentSize::new(1 << 20).unwrap()), Some(0xD0));
    }

    /// What 18 wrote at the end of a recovery with `recovery_target_timeline = '3'` that stopped before 3, and before 2
    /// too.
    #[test]
    fn a_recovery_that_stopped_before_its_timeline_began_ends_the_others() {
        let text = b"1\t0/D58A90\tx\n\n2\t0/E9F1C8\tx\n\n3\t0/D31188\tafter LSN 0/D31150\n";
        let history = TimelineHistory::parse(Timeline(4), text).unwrap();
        let end = |timeline| HistoryEntry { timeline: Timeline(timeline), switch: Lsn(0xD31188) };
        assert_eq!(history.ancestors, [end(1), end(2), end(3)]);
    }

    #[test]
    fn damaged_histories_are_refused() {
        let parse = |text: &[u8]| TimelineHistory::parse(Timeline(3), text).unwrap_err();
        assert_eq!(parse(b""), HistoryError::Empty);
        assert_eq!(parse(&[0; 100]), HistoryError::Line(1));
        assert_eq!(parse(b"1\t0/0\n\xff\xfe\t0/1"), HistoryError::Line(2));
        assert_eq!(parse(b"1 x"), HistoryError::Line(1));
        assert_eq!(parse(b"3 0/1"), HistoryError::Order(1));
        assert_eq!(parse(b"2 0/1\n1 0/2"), HistoryError::Order(2));
        assert_eq!(parse(b"1\t0/5\tx\n2\t0/300"), HistoryError::Truncated);
    }

    #[test]
    fn a_backup_history_names_its_segment() {
        let name = SegmentName::parse("000000010000000000000004").unwrap();
        let text = b"START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\nSTOP WAL LOCATION: 0/4000100 (file 0)\n";
        assert_eq!(BackupHistory::parse(name, text).unwrap().start, Lsn(0x4000028));
        let other = SegmentName::parse("000000010000000000000005").unwrap();
        assert!(BackupHistory::parse(other, text).is_err());
        assert!(BackupHistory::parse(name, b"").is_err());
    }
}
