//! What a path of timelines holds, as far as the search for a stop needs it: stretches without a gap, ends of
//! transactions, marks.
//!
//! Lives here: the trait [`Log`] and the plain values that it speaks of. May not live here: the rules of the server
//! ([`stop`](super::stop)), and the catalog, which is one log ([`path_log`](super::path_log)); tests have another one.

use crate::error::Error;
use crate::pg::Lsn;
use crate::pg::scan::{Mark, Record, RestorePointName, XactEntry};
pub use crate::repo::catalog::WantedEnds;
use std::fmt;
use std::ops::ControlFlow;

/// A stretch of the path through which a recovery can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Where its first segment begins; after a stretch of `wal_level = minimal`, where that ends.
    pub from: Lsn,
    /// Up to where it can be read, or recovery gets.
    pub until: Lsn,
}

/// What was written with `wal_level = minimal`. Recovery ends at the record that begins it: "WAL was generated with
/// wal_level=minimal, cannot continue recovering" (`CheckRequiredParameterValues`; 13 only warns without a hot standby,
/// and data are missing). Backups cannot begin in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minimal {
    /// Where the `PARAMETER_CHANGE` begins that starts it.
    pub from: Lsn,
    /// Where the one begins that ends it; `None` where it goes on to the end of what is archived, or to a gap.
    pub until: Option<Lsn>,
}

impl fmt::Display for Minimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WAL was written with wal_level=minimal from {} ", self.from)?;
        match self.until {
            Some(until) => write!(f, "to {until}")?,
            None => f.write_str("on")?,
        }
        f.write_str(", and no recovery gets over that")
    }
}

impl Window {
    /// Whether a record that begins there is in it.
    pub fn holds(&self, lsn: Lsn) -> bool {
        self.from <= lsn && lsn < self.until
    }
}

/// Which marks are looked for; all others may be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedMarks<'a> {
    /// Restore points and checkpoints, which have times.
    Timed,
    /// Restore points of this name.
    Named(&'a RestorePointName),
    /// Restore points.
    RestorePoints,
    /// Ends of base backups.
    BackupEnds,
    /// Tablespaces and databases that were created or dropped.
    Files,
    /// Changes of the parameters that a standby follows.
    Parameters,
}

/// What one path of timelines holds, in LSN order.
pub trait Log {
    /// The stretches without a gap, ascending.
    fn windows(&self) -> &[Window];

    /// What lies between some of them, or after the last, because it was written with `wal_level = minimal`; ascending.
    fn minimal(&self) -> &[Minimal] {
        &[]
    }

    /// Visits the ends of transactions whose records begin in `from..to`, which lies in one window. Of those that are
    /// not `wanted` any may be left out.
    ///
    /// # Errors
    /// Of the repository. Nothing is left out because it cannot be read.
    fn ends(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedEnds,
        visit: &mut dyn FnMut(&XactEntry) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// The last commit that begins in `from..to`, which lies in one window.
    ///
    /// # Errors
    /// As above.
    fn last_commit(&self, from: Lsn, to: Lsn) -> Result<Option<XactEntry>, Error>;

    /// The last backup whose ending record begins in `from..to`, which lies in one window, and that does not begin
    /// before `from`.
    ///
    /// # Errors
    /// As above.
    fn last_backup(&self, from: Lsn, to: Lsn) -> Result<Option<BackupEnd>, Error>;

    /// Visits what is remembered besides transactions, of records that begin in `from..to`, which lies in one window.
    /// Of those that are not `wanted` any may be left out.
    ///
    /// # Errors
    /// As above.
    fn marks(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedMarks<'_>,
        visit: &mut dyn FnMut(&Record<Mark>) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// Where the first record begins that does so in `from..to`, which lies in one window.
    ///
    /// # Errors
    /// As above.
    fn first_record(&self, from: Lsn, to: Lsn) -> Result<Option<Lsn>, Error>;
}

/// A backup whose end is in the log: one that was taken from a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupEnd {
    /// Where recovery from it begins (its redo position).
    pub start: Lsn,
    /// Where the record begins that ends it. Recovery must replay it.
    pub record: Lsn,
    /// Its stop LSN: where that record ends.
    pub stop: Lsn,
}

impl BackupEnd {
    /// From the record that ends it; `None` if it is another mark.
    pub fn of(mark: &Record<Mark>) -> Option<Self> {
        match mark.what {
            Mark::BackupEnd { start } => Some(Self { start, record: mark.start, stop: mark.end }),
            _ => None,
        }
    }
}

/// What was written with `wal_level = minimal` after the stretch that ends there.
pub fn minimal_from(log: &dyn Log, until: Lsn) -> Option<Minimal> {
    log.minimal().iter().find(|minimal| minimal.from == until).copied()
}

/// The backup that begins at `from`, if it ends before `until`.
///
/// # Errors
/// As the log's.
pub fn backup_from(log: &dyn Log, from: Lsn, until: Lsn) -> Result<Option<BackupEnd>, Error> {
    let mut found = None;
    log.marks(from, until, WantedMarks::BackupEnds, &mut |mark| {
        found = BackupEnd::of(mark).filter(|backup| backup.start == from);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}
