//! How much of the files a backup reads: what the log proves not to have changed it takes over from its parent.

use crate::backup::context::BackupContext;
use crate::backup::parent::ParentHead;
use crate::backup::proof::{Proof, prove};
use crate::backup::untouched::{Due, Untouched};
use crate::crypto::random_bytes;
use crate::error::{Error, Kind};
use crate::pg::Lsn;
use std::time::Duration;

/// What is read of the files, and why.
pub(crate) struct Reading {
    /// What is taken over without reading it.
    pub untouched: Option<Untouched>,
    /// Why nothing is, where there is a parent.
    pub because: Option<String>,
    /// How many bytes were read of the files.
    pub read_bytes: u64,
    /// Where the next verification of pages that nothing touched begins.
    pub verified_up_to: u32,
}

impl Reading {
    /// Decides it for a backup that began at `start`.
    ///
    /// # Errors
    /// As [`prove`]; [`Kind::Bug`] when the system has no random numbers.
    pub(crate) fn decide(backup: &BackupContext<'_>, parent: Option<&ParentHead>, start: Lsn) -> Result<Self, Error> {
        let everything = |because, from| Self { untouched: None, because, read_bytes: 0, verified_up_to: from };
        let Some(parent) = parent else { return Ok(everything(None, 0)) };
        let from = parent.verified_up_to;
        let changes = match prove(backup, parent, start)? {
            Proof::Complete(changes) => changes,
            Proof::Missing(why) => return Ok(everything(Some(why), from)),
        };
        let due = match backup.request.verify_pages {
            Some(period) => Due::in_period(period, since(backup, parent), from),
            None => Due::nothing(from),
        };
        let verified_up_to = due.until();
        let seed = u64::from_le_bytes(random_bytes().map_err(|e| Error::new(Kind::Bug, e))?);
        let untouched = Untouched::new(changes, (parent.summary.start_lsn, start), seed, due);
        Ok(Self { untouched: Some(untouched), because: None, read_bytes: 0, verified_up_to })
    }
}

/// How long ago the parent began, by the clock of this host.
fn since(backup: &BackupContext<'_>, parent: &ParentHead) -> Duration {
    let now_us = backup.id.started_unix_s.saturating_mul(1_000_000);
    Duration::from_micros(u64::try_from(now_us.saturating_sub(parent.summary.started_unix_us)).unwrap_or(0))
}
