//! What the catalog keeps of segments: entries, aggregates, and the nodes that hold them.
//!
//! An entry is a summary without its lists, and with the transaction whose record begins in the segment and ends in a later one. An
//! aggregate says of consecutive segments what a search needs to pass over all of them at once.

use crate::pg::scan::{Mark, PgTime, Record, XactEnd, XactStats, Xid, XidRange};
use crate::pg::{Lsn, SegmentName};

/// Children of a node: segments at level 1, nodes of the level below at higher ones.
pub const FANOUT: u64 = 16;
/// Highest level: 16^11 segments of 1 MiB are all positions there can be.
pub const MAX_LEVEL: u32 = 11;

/// What is known of consecutive segments together.
///
/// It may say too much, never too little: whoever looks for something must look inside, and need not look where this says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aggregate {
    /// Number of segments.
    pub segments: u64,
    /// Ends of transactions whose records begin in them.
    pub xacts: Option<XactStats>,
    /// Restore points, checkpoints and ends of base backups.
    pub marks: MarkCounts,
    /// Segments after which recovery does not go on: damaged, or not followed by the next one.
    pub stops: u64,
}

/// How many marks of the kinds that are searched for; exact unless [`incomplete`](Self::incomplete).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MarkCounts {
    /// Restore points.
    pub restore_points: u64,
    /// Their names: bit *n* is set if the BLAKE3 of one begins with a byte that is *n* modulo 64.
    pub names: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Ends of base backups.
    pub backup_ends: u64,
    /// A segment had so many marks that its summary does not list them.
    pub incomplete: bool,
}

impl MarkCounts {
    fn bit(name: &[u8]) -> u64 {
        1 << (blake3::hash(name).as_bytes().first().copied().unwrap_or_default() % 64)
    }

    /// Counts one more.
    pub fn add(&mut self, mark: &Mark) {
        match mark {
            Mark::RestorePoint { name, .. } => {
                self.restore_points += 1;
                self.names |= Self::bit(name.as_bytes());
            }
            Mark::Checkpoint { .. } => self.checkpoints += 1,
            Mark::BackupEnd { .. } => self.backup_ends += 1,
            Mark::EndOfRecovery { .. } | Mark::ParameterChange(_) | Mark::Overwrite { .. } => {}
        }
    }
}

impl Aggregate {
    /// Of both together.
    #[must_use]
    pub fn union(self, other: &Self) -> Self {
        Self {
            segments: self.segments.saturating_add(other.segments),
            xacts: match (self.xacts, other.xacts) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            },
            marks: MarkCounts {
                restore_points: self.marks.restore_points.saturating_add(other.marks.restore_points),
                names: self.marks.names | other.marks.names,
                checkpoints: self.marks.checkpoints.saturating_add(other.marks.checkpoints),
                backup_ends: self.marks.backup_ends.saturating_add(other.marks.backup_ends),
                incomplete: self.marks.incomplete | other.marks.incomplete,
            },
            stops: self.stops.saturating_add(other.stops),
        }
    }

    /// Of several.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        parts.into_iter().fold(Self::default(), Self::union)
    }

    /// Counts one more transaction. One whose xid could not be known may be any.
    pub fn add_xact(&mut self, end: &XactEnd) {
        let mut stats = XactStats::with(None, end);
        if end.xid.is_none() {
            stats.xids = Some(XidRange::ALL);
        }
        self.xacts = Some(self.xacts.map_or(stats, |xacts| xacts.union(stats)));
    }

    /// Whether a transaction may have ended at or after this time.
    pub fn may_end_at_or_after(&self, time: PgTime) -> bool {
        self.xacts.is_some_and(|xacts| xacts.max_time >= time)
    }

    /// Whether a transaction may have ended at or before this time.
    pub fn may_end_at_or_before(&self, time: PgTime) -> bool {
        self.xacts.is_some_and(|xacts| xacts.min_time <= time)
    }

    /// Whether this transaction may have ended.
    pub fn may_have_xid(&self, xid: Xid) -> bool {
        self.xacts.and_then(|xacts| xacts.xids).is_some_and(|xids| xids.contains(xid))
    }

    /// Whether there may be a restore point of this name.
    pub fn may_have_restore_point(&self, name: &[u8]) -> bool {
        self.marks.incomplete || self.marks.names & MarkCounts::bit(name) != 0
    }
}

/// How a segment hangs together with the next one of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The next one follows, as far as both say.
    Follows,
    /// The next one is there and does not follow.
    Broken,
    /// Reading ends in this one: it is damaged, or has no more data.
    Stops,
    /// The next one is not there.
    Open,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub segment: SegmentName,
    /// Position of its first byte.
    pub start: Lsn,
    /// Where the first record that begins in it does, if one does.
    pub first_record: Option<Lsn>,
    /// Where the last one does.
    pub last_record: Option<Lsn>,
    /// Up to here it is good; the next segment's start if all is.
    pub good_until: Lsn,
    /// What is after it.
    pub edge: Edge,
    /// The transaction whose record begins in it and ends in a later one. The aggregate includes it.
    pub crossing: Option<Record<XactEnd>>,
    /// In numbers.
    pub aggregate: Aggregate,
}
