//! A log as it would be without some of its WAL: what a deletion leaves, or what a listing does not show although the
//! catalog remembers it.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::pg::Lsn;
use crate::pg::scan::{Mark, Record, XactEntry};
use crate::recovery::log::{BackupEnd, Log, Minimal, WantedEnds, WantedMarks, Window};
use crate::recovery::reach::without;

/// A part of another log.
pub(super) struct LogPart<'l> {
    log: &'l dyn Log,
    windows: Vec<Window>,
}

impl<'l> LogPart<'l> {
    /// What is left without some runs of segments, ascending, each from where it begins to where it ends.
    pub(super) fn without(log: &'l dyn Log, missing: &[(Lsn, Lsn)]) -> Self {
        Self { log, windows: log.windows().iter().flat_map(|window| without(window, missing)).collect() }
    }

    /// What is left from a position on.
    pub(super) fn after(log: &'l dyn Log, from: Lsn) -> Self {
        Self::without(log, &[(Lsn(0), from)])
    }
}

impl Log for LogPart<'_> {
    fn windows(&self) -> &[Window] {
        &self.windows
    }

    fn minimal(&self) -> &[Minimal] {
        self.log.minimal()
    }

    fn ends(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedEnds,
        visit: &mut dyn FnMut(&XactEntry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.log.ends(from, to, wanted, visit)
    }

    fn last_commit(&self, from: Lsn, to: Lsn) -> Result<Option<XactEntry>, Error> {
        self.log.last_commit(from, to)
    }

    fn last_backup(&self, from: Lsn, to: Lsn) -> Result<Option<BackupEnd>, Error> {
        self.log.last_backup(from, to)
    }

    fn marks(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedMarks<'_>,
        visit: &mut dyn FnMut(&Record<Mark>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.log.marks(from, to, wanted, visit)
    }

    fn first_record(&self, from: Lsn, to: Lsn) -> Result<Option<Lsn>, Error> {
        self.log.first_record(from, to)
    }
}
