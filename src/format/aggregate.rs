//! What is known of consecutive segments together: what a search looks at before it looks inside.

use crate::pg::scan::{Mark, PgTime, XactEnd, XactStats, Xid, XidRange};

/// What is known of consecutive segments together.
///
/// It may say too much, never too little: a search must look inside, and need not look where this says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aggregate {
    /// Number of segments.
    pub segments: u64,
    /// Ends of transactions whose records begin in them.
    pub xacts: Option<XactStats>,
    /// Restore points, checkpoints, ends of base backups and the like.
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
    /// Tablespaces and databases that were created or dropped.
    pub files: u64,
    /// Changes of the parameters that a standby follows.
    pub parameters: u64,
    /// Of these, those to `wal_level = minimal`.
    pub minimal: u64,
    /// A segment had so many marks that its summary does not list them.
    pub incomplete: bool,
    /// The last three are not known: an earlier version did not count them, or did not look.
    pub uncounted: bool,
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
            Mark::ParameterChange(parameters) => {
                self.parameters += 1;
                self.minimal += u64::from(parameters.is_minimal());
            }
            Mark::TablespaceCreate { .. }
            | Mark::TablespaceDrop { .. }
            | Mark::DatabaseCreate { .. }
            | Mark::DatabaseDrop { .. } => self.files += 1,
            Mark::EndOfRecovery { .. } | Mark::Overwrite { .. } => {}
        }
    }

    fn union(self, other: &Self) -> Self {
        Self {
            restore_points: self.restore_points.saturating_add(other.restore_points),
            names: self.names | other.names,
            checkpoints: self.checkpoints.saturating_add(other.checkpoints),
            backup_ends: self.backup_ends.saturating_add(other.backup_ends),
            files: self.files.saturating_add(other.files),
            parameters: self.parameters.saturating_add(other.parameters),
            minimal: self.minimal.saturating_add(other.minimal),
            incomplete: self.incomplete | other.incomplete,
            uncounted: self.uncounted | other.uncounted,
        }
    }

    /// Whether there may be tablespaces or databases that were created or dropped.
    pub fn may_have_files(&self) -> bool {
        self.files > 0 || self.incomplete || self.uncounted
    }

    /// Whether there may be changes of parameters.
    pub fn may_have_parameters(&self) -> bool {
        self.parameters > 0 || self.incomplete || self.uncounted
    }

    /// Whether there may be a change to `wal_level = minimal`.
    pub fn may_be_minimal(&self) -> bool {
        self.minimal > 0 || self.incomplete || self.uncounted
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
            marks: self.marks.union(&other.marks),
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
