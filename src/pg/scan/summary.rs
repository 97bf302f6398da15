//! What is remembered of a segment.

use std::fmt;
use std::num::NonZeroU32;

use super::event::{Event, Mark, PgTime, Record, XactEnd, Xid};
use super::page::{LONG_HEADER_BYTES, PAGE_BYTES, SHORT_HEADER_BYTES};
use super::piece::Piece;
use super::xacts::XactList;
use crate::limits::{MAX_MARKS, MAX_XACT_LIST_BYTES};
use crate::pg::{Lsn, SegmentName, Timeline, WalSegmentSize};

/// Which segment is scanned: from its name and the cluster's segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub(super) timeline: Timeline,
    pub(super) start: Lsn,
    pub(super) size_bytes: u64,
}

impl Segment {
    /// The segment of this name. `None` when the name is impossible with this size, or is the very last one there can
    /// be.
    pub fn new(name: SegmentName, size: WalSegmentSize) -> Option<Self> {
        let start = name.start(size)?;
        start.0.checked_add(size.bytes())?;
        Some(Self { timeline: name.timeline, start, size_bytes: size.bytes() })
    }

    /// The timeline in its name. Pages at its beginning may be of a parent.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Position of its first byte.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// Position after its last byte, where the next segment begins.
    pub fn end(&self) -> Lsn {
        Lsn(self.start.0 + self.size_bytes)
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Where a record ends of which the first `rem_len` bytes of this segment are the last.
    pub(super) fn end_of_head(&self, rem_len: u32) -> Lsn {
        let (page, first) = (PAGE_BYTES as u64, (PAGE_BYTES - LONG_HEADER_BYTES) as u64);
        let rem_len = u64::from(rem_len).next_multiple_of(8);
        let offset = match rem_len.checked_sub(first) {
            None | Some(0) => LONG_HEADER_BYTES as u64 + rem_len,
            Some(rest) => {
                let payload = page - SHORT_HEADER_BYTES as u64;
                let pages = (rest - 1) / payload;
                page * (pages + 1) + SHORT_HEADER_BYTES as u64 + (rest - pages * payload)
            }
        };
        Lsn(self.start.0.saturating_add(offset))
    }
}

/// What a segment says. It depends on the bytes and the name of the segment only.
///
/// Counts, times, xids and lists are of records that lie in this segment whole. The records that cross its boundaries
/// are for [`Chain`](super::Chain) to report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which segment.
    pub segment: Segment,
    /// Whether the scan looked for tablespaces and databases that were created or dropped. An earlier version did not:
    /// nothing is known of these, and anybody who needs to know scans the segment anew.
    pub knows_files: bool,
    /// Who wrote it; `None` when its first page can't be read.
    pub origin: Option<Origin>,
    /// How it begins.
    pub head: Head,
    /// The complete records, if there are any.
    pub records: Option<Records>,
    /// The ends of transactions, if there are any.
    pub xact_stats: Option<XactStats>,
    /// Each of them, in LSN order. `None` when they would take more than
    /// [`MAX_XACT_LIST_BYTES`], or were left out by [`encode_within`](Self::encode_within).
    pub xacts: Option<XactList>,
    /// Restore points, checkpoints and the like, in LSN order. `None` when there are more than [`MAX_MARKS`], or as
    /// above.
    pub marks: Option<Vec<Record<Mark>>>,
    /// How it ends.
    pub end: End,
}

/// Who wrote a segment, from its first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// PostgreSQL's major version.
    pub major: u16,
    /// The cluster.
    pub system_id: u64,
}

/// How a segment begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// With a record of its own.
    Record,
    /// With an `OVERWRITE_CONTRECORD` in place of the rest of a record that died in a crash.
    Overwrite,
    /// In the middle of a record.
    Continuation {
        /// Bytes left of the record where the segment begins, at least 1. More than the piece has: the record goes on
        /// in the next segment, or died, or the segment is damaged there.
        rem_len: u32,
        /// What of them is here.
        piece: Piece,
        /// The record died in a crash: a later page of this segment begins with `OVERWRITE_CONTRECORD`.
        dead: bool,
    },
}

/// The records that begin and end in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    /// Where the first begins.
    pub first: Lsn,
    /// Where the one before the first begins, as the first says (0 for the first of a cluster).
    pub before_first: Lsn,
    /// Where the last begins.
    pub last: Lsn,
    /// Their number.
    pub count: u64,
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its last record ends where it ends.
    Full,
    /// Its last record goes on in the next segment.
    Continues(Tail),
    /// The record it begins in fills it and goes on in the next segment.
    Continuation,
    /// A switch to the next segment.
    Switch {
        /// Whether nothing but zeros follows the switch. The server doesn't look there.
        rest_is_zero: bool,
    },
    /// Zeros where a record should begin. Only the segment being written, and a `.partial`, may end so.
    EndOfData {
        /// Where.
        at: Lsn,
    },
    /// Something the server would not read on after.
    Damaged(Damage),
}

/// The beginning of a record that goes on in the next segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Where it begins.
    pub start: Lsn,
    /// Its length in bytes.
    pub tot_len: u32,
    /// What of it is here.
    pub piece: Piece,
}

/// Where and why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// All before this position is good, and all that is reported lies before it.
    pub at: Lsn,
    /// The page or record that is wrong.
    pub seen_at: Lsn,
    /// What is wrong.
    pub reason: Reason,
    /// The value found there, where there is one to show.
    pub found: u64,
}

/// What is wrong with a page or record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The file is shorter than a segment.
    Short,
    /// The file is longer than a segment.
    Long,
    /// `xlp_magic` is of no known version.
    Magic,
    /// `xlp_magic` differs from the first page's.
    OtherMagic,
    /// `xlp_info` has unknown bits, or a long header where none may be, or none where one must be.
    PageFlags,
    /// `xlp_pageaddr` is another position.
    PageAddress,
    /// `xlp_tli` is higher than the file's or lower than the page's before.
    PageTimeline,
    /// `xlp_seg_size` is not the cluster's.
    SegmentSize,
    /// `xlp_xlog_blcksz` is not 8192.
    BlockSize,
    /// A record should go on here but the page says that none does.
    NoContinuation,
    /// A record goes on here but none is open.
    UnexpectedContinuation,
    /// `xlp_rem_len` is not what is left of the record.
    ContinuationLength,
    /// A dead record is said to be overwritten here but none is open.
    UnexpectedOverwrite,
    /// `xl_tot_len` is impossible.
    RecordLength,
    /// `xl_prev` is not the record before.
    PrevLink,
    /// The CRC-32C is wrong.
    Crc,
    /// The CRC is right but what the record says is not understood.
    Body,
}

impl Reason {
    /// All of them, in the order of their codes.
    pub(super) const ALL: [Self; 17] = [
        Self::Short,
        Self::Long,
        Self::Magic,
        Self::OtherMagic,
        Self::PageFlags,
        Self::PageAddress,
        Self::PageTimeline,
        Self::SegmentSize,
        Self::BlockSize,
        Self::NoContinuation,
        Self::UnexpectedContinuation,
        Self::ContinuationLength,
        Self::UnexpectedOverwrite,
        Self::RecordLength,
        Self::PrevLink,
        Self::Crc,
        Self::Body,
    ];
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lsn, found) = (self.seen_at, self.found);
        match self.reason {
            Reason::Short => write!(f, "the file ends at {lsn}, in the middle of the segment"),
            Reason::Long => write!(f, "the file goes on after the end of the segment"),
            Reason::Magic => write!(f, "the page at {lsn} has the magic {found:04X}, of no PostgreSQL version from 13 to 18"),
            Reason::OtherMagic => write!(f, "the page at {lsn} has the magic {found:04X}, unlike the first page"),
            Reason::PageFlags => write!(f, "the page at {lsn} has the impossible flags {found:04X}"),
            Reason::PageAddress => write!(f, "the page at {lsn} says that it is the page at {}", Lsn(found)),
            Reason::PageTimeline => write!(f, "the page at {lsn} is of timeline {found}, which does not fit here"),
            Reason::SegmentSize => write!(f, "the page at {lsn} is of a cluster with segments of {found} bytes"),
            Reason::BlockSize => write!(f, "the page at {lsn} is of a cluster with WAL pages of {found} bytes"),
            Reason::NoContinuation => write!(f, "the page at {lsn} does not continue the record that is open"),
            Reason::UnexpectedContinuation => write!(f, "the page at {lsn} continues a record but none is open"),
            Reason::ContinuationLength => {
                write!(f, "the page at {lsn} continues a record with {found} bytes left, which is wrong")
            }
            Reason::UnexpectedOverwrite => write!(f, "the page at {lsn} overwrites the rest of a record but none is open"),
            Reason::RecordLength => write!(f, "the record at {lsn} has the impossible length {found}"),
            Reason::PrevLink => write!(f, "the record at {lsn} names {} as the one before it, which is wrong", Lsn(found)),
            Reason::Crc => write!(f, "the record at {lsn} has a wrong checksum"),
            Reason::Body => write!(f, "the record at {lsn} has a right checksum but is not understood"),
        }
    }
}

/// Transaction ends in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XactStats {
    /// How many ended, at least 1.
    pub count: u64,
    /// How many of these were rolled back.
    pub aborts: u64,
    /// The earliest time; of no particular one of them.
    pub min_time: PgTime,
    /// The latest time.
    pub max_time: PgTime,
    /// Which transactions; `None` if none of the records has one.
    pub xids: Option<XidRange>,
}

/// From an oldest to a newest transaction, in the circular order of xids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XidRange {
    /// The oldest.
    pub oldest: Xid,
    /// The newest.
    pub newest: Xid,
}

impl XidRange {
    /// Whether `xid` is not before the oldest and not after the newest. One that is may still not have ended here.
    pub fn contains(&self, xid: Xid) -> bool {
        let oldest = self.oldest.get();
        xid.get().wrapping_sub(oldest) <= self.newest.get().wrapping_sub(oldest)
    }

    /// The shortest range that has all of both. In contrast to the ranges of single segments these may be of any width:
    /// the xids of a year go around more than once.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let within = |range: Self, xid: Xid| range.contains(xid);
        let width = |range: Self| range.newest.get().wrapping_sub(range.oldest.get());
        let from_to = |oldest: Self, newest: Self| Self { oldest: oldest.oldest, newest: newest.newest };
        let ends = |range: Self, of: Self| (within(range, of.oldest), within(range, of.newest));
        let after = |range: Self, xid: Xid| xid.get().wrapping_sub(range.oldest.get());
        for (a, b) in [(self, other), (other, self)] {
            if ends(a, b) == (true, true) {
                // Both ends of b are in a: so is all of b, or the two together go around.
                return if after(a, b.oldest) <= after(a, b.newest) { a } else { Self::ALL };
            }
        }
        match ends(self, other) {
            (true, _) => from_to(self, other),
            (_, true) => from_to(other, self),
            _ if width(from_to(self, other)) <= width(from_to(other, self)) => from_to(self, other),
            _ => from_to(other, self),
        }
    }

    /// Every transaction there can be.
    pub const ALL: Self = Self { oldest: Xid(NonZeroU32::MIN), newest: Xid(NonZeroU32::MAX) };

    /// Widens the range. The distance is circular, as in `TransactionIdPrecedes`.
    fn add(&mut self, xid: Xid) {
        let before = |a: Xid, b: Xid| a.get().wrapping_sub(b.get()) as i32 <= 0;
        if before(xid, self.oldest) {
            self.oldest = xid;
        } else if before(self.newest, xid) {
            self.newest = xid;
        }
    }
}

impl XactStats {
    /// Of both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            aborts: self.aborts.saturating_add(other.aborts),
            min_time: self.min_time.min(other.min_time),
            max_time: self.max_time.max(other.max_time),
            xids: match (self.xids, other.xids) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            },
        }
    }

    /// `stats` with one more.
    pub fn with(stats: Option<Self>, end: &XactEnd) -> Self {
        let mut stats = stats.unwrap_or(Self { count: 0, aborts: 0, min_time: end.time, max_time: end.time, xids: None });
        stats.count += 1;
        stats.aborts += u64::from(!end.kind.is_commit());
        stats.min_time = stats.min_time.min(end.time);
        stats.max_time = stats.max_time.max(end.time);
        match (&mut stats.xids, end.xid) {
            (Some(range), Some(xid)) => range.add(xid),
            (None, Some(xid)) => stats.xids = Some(XidRange { oldest: xid, newest: xid }),
            (_, None) => {}
        }
        stats
    }
}

impl Summary {
    pub(super) fn new(segment: Segment) -> Self {
        Self {
            segment,
            knows_files: true,
            origin: None,
            head: Head::Record,
            records: None,
            xact_stats: None,
            xacts: Some(XactList::new(segment.start)),
            marks: Some(Vec::new()),
            end: End::Full,
        }
    }

    /// Counts a complete record.
    pub(super) fn add_record(&mut self, start: Lsn, prev: Lsn) {
        let records = self.records.get_or_insert(Records { first: start, before_first: prev, last: start, count: 0 });
        records.last = start;
        records.count += 1;
    }

    /// Remembers what a complete record says.
    pub(super) fn add_event(&mut self, record: &Record<Event>) {
        match &record.what {
            Event::XactEnd(end) => {
                self.xact_stats = Some(XactStats::with(self.xact_stats, end));
                if let Some(list) = &mut self.xacts {
                    list.push(record.start, end);
                    if list.as_bytes().len() > MAX_XACT_LIST_BYTES {
                        self.xacts = None;
                    }
                }
            }
            Event::Mark(mark) => {
                if let Some(marks) = &mut self.marks {
                    marks.push(Record { start: record.start, end: record.end, what: mark.clone() });
                    if marks.len() > MAX_MARKS {
                        self.marks = None;
                    }
                }
            }
            Event::Prepare { .. } | Event::Switch => {}
        }
    }

    /// Where the first record that begins in this segment does.
    pub fn first_record(&self) -> Option<Lsn> {
        match (&self.records, &self.end) {
            (Some(records), _) => Some(records.first),
            (None, End::Continues(tail)) => Some(tail.start),
            (None, _) => None,
        }
    }

    /// Where the last record that begins in this segment does.
    pub fn last_record(&self) -> Option<Lsn> {
        match (&self.records, &self.end) {
            (_, End::Continues(tail)) => Some(tail.start),
            (Some(records), _) => Some(records.last),
            (None, _) => None,
        }
    }

    /// Position up to which the segment was read and is good, its end included.
    pub fn good_until(&self) -> Lsn {
        match &self.end {
            End::Full | End::Continues(_) | End::Continuation | End::Switch { .. } => self.segment.end(),
            End::EndOfData { at } => *at,
            End::Damaged(damage) => damage.at,
        }
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let piece = |piece: &Piece| piece.first().len() + piece.last().len();
        let head = if let Head::Continuation { piece: head, .. } = &self.head { piece(head) } else { 0 };
        let tail = if let End::Continues(tail) = &self.end { piece(&tail.piece) } else { 0 };
        let xacts = self.xacts.as_ref().map_or(0, XactList::size_bytes);
        // Names and paths in them are short.
        let marks = self.marks.as_ref().map_or(0, |marks| marks.len() * (size_of::<Record<Mark>>() + 64));
        size_of::<Self>() + head + tail + xacts + marks
    }

    /// Whether recovery reads on in the next segment after this one. `false` for a segment that was meant to be
    /// complete is a gap.
    pub fn is_complete(&self) -> bool {
        !matches!(self.end, End::EndOfData { .. } | End::Damaged(_))
    }
}
