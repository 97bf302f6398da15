//! A call of `restore_command`: by which server, and for which file. A recovery must not go on without an answer; a
//! standby must not be kept waiting for one. docs/STANDBY.md has the argument.
//!
//! Lives here: how long a call waits, and what it answers where it cannot be told whether the file exists. May not live
//! here: asking the repositories ([`ask`](crate::wal::ask)).

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio;
use crate::limits::{MAX_HISTORY_FILE_BYTES, STANDBY_PATIENCE};
use crate::pg::{SegmentHead, TimelineHistory, WalFileName};
use crate::postgres::control_file;
use crate::repo::SystemId;
use crate::wal::spool::{Outage, Spool};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to do when it is not known whether a file exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// A standby goes on, unless something could be lost by that; every other recovery is stopped.
    Auto,
    /// The server is stopped.
    Stop,
    /// The server goes on, unless it is a standby and something could be lost by that.
    Unavailable,
}

/// A call for one file. PostgreSQL runs it in the data directory.
pub struct RestoreCall {
    on_error: OnError,
    file: WalFileName,
    system_id: Option<SystemId>,
    /// The server's `pg_wal`, if it asks for a file there.
    wal_directory: Option<PathBuf>,
    spool: Option<Spool>,
    is_standby: bool,
}

impl RestoreCall {
    /// `system_id` is that of the data directory that we are in, if it is one.
    pub fn new(config: &Config, on_error: OnError, file: WalFileName, system_id: Option<SystemId>, destination: &Path) -> Self {
        let directory = destination.parent().filter(|directory| system_id.is_some() && is_pg_wal(directory));
        let wal_directory = directory.map(Path::to_owned);
        let spool = wal_directory.as_ref().and_then(|directory| Spool::find(config, directory));
        let is_standby = wal_directory.is_some() && exists("standby.signal");
        Self { on_error, file, system_id, wal_directory, spool, is_standby }
    }

    /// Where outages are remembered.
    pub fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// What is known of a repository that fails.
    pub fn outage(&self, location: &str) -> Option<Outage> {
        self.spool.as_ref()?.outage(location)
    }

    /// How long a store that says nothing is waited for, if that is not as long as the time limit allows: a standby can
    /// stream, and asks again.
    pub fn patience(&self) -> Option<Duration> {
        let may_go_on = self.is_standby && self.on_error != OnError::Stop && !self.may_lose();
        (may_go_on || self.has_history()).then_some(STANDBY_PATIENCE)
    }

    /// Whether a standby, or one that is being promoted, asks for a history that it has itself: told that there is
    /// none, it takes its own. A server that has removed its signal file, and then fails, would come up on the old
    /// timeline.
    fn has_history(&self) -> bool {
        let (Some(directory), WalFileName::History(timeline)) = (&self.wal_directory, self.file) else { return false };
        let content = fsio::read_bounded(
            &directory.join(self.file.to_string()),
            usize::try_from(MAX_HISTORY_FILE_BYTES).unwrap_or(usize::MAX),
        );
        !exists("recovery.signal") && content.is_ok_and(|content| TimelineHistory::parse(timeline, &content).is_ok())
    }

    /// Whether the server would be promoted without something that may be in the repository alone: promotion was
    /// requested, and it has nothing of this segment by streaming. (The server removes the file `promote` once it has
    /// seen it. It looks for it only after it was told that the segment is not there, or while it streams; then it has
    /// what it could get.)
    fn may_lose(&self) -> bool {
        self.is_standby && exists("promote") && matches!(self.file, WalFileName::Segment(_)) && !self.has_begun()
    }

    /// Whether `pg_wal` has the beginning of this segment.
    fn has_begun(&self) -> bool {
        let (Some(directory), WalFileName::Segment(segment)) = (&self.wal_directory, self.file) else { return false };
        let Ok((file, stat)) = fsio::open_regular(&directory.join(self.file.to_string())) else { return false };
        let Ok(head) = SegmentHead::read(fsio::reader(&file)) else { return false };
        head.check(segment, stat.size_bytes).is_ok_and(|page| Some(SystemId(page.system_id)) == self.system_id)
    }

    /// What to answer when it is not known whether the file exists.
    pub fn answer_to(&self, error: Error) -> Error {
        let may_go_on = match self.on_error {
            OnError::Stop => false,
            OnError::Auto => self.is_standby && matches!(error.kind, Kind::Unreachable | Kind::Denied | Kind::Damaged),
            OnError::Unavailable => !matches!(error.kind, Kind::Usage | Kind::Refused | Kind::Bug),
        };
        if !(may_go_on || self.has_history() && error.kind == Kind::Unreachable) {
            return error;
        }
        if self.may_lose() {
            let what =
                format!("{error}; promotion was requested, and {} may be in the repository alone: the server stops", self.file);
            return Error::new(Kind::Refused, what).hint(
                "start it again as a standby when the repository answers; to promote it with what it has, start it with an empty \
                 restore_command",
            );
        }
        let hint = if self.is_standby {
            "the standby goes on with what it can stream, and will ask again"
        } else {
            "the setting says to answer 1"
        };
        let hint = error.hint.clone().unwrap_or_else(|| hint.to_owned());
        Error { kind: Kind::Unavailable, hint: Some(hint), ..error }
    }
}

fn exists(name: &str) -> bool {
    fsio::exists(Path::new(name)).unwrap_or(false)
}

/// Whether a directory is the `pg_wal` of the data directory that we are in.
pub fn is_pg_wal(directory: &Path) -> bool {
    let [there, own] = [directory, Path::new("pg_wal")].map(|path| fsio::stat(path).ok().flatten());
    there.zip(own).is_some_and(|(there, own)| (there.dev, there.ino) == (own.dev, own.ino))
}

/// The files in a data directory that say that its server is in archive recovery.
pub const SIGNAL_FILES: [&str; 2] = ["recovery.signal", "standby.signal"];

/// Whether the server of the data directory that we are in is in archive recovery, or will be when it is started.
pub fn is_in_recovery() -> bool {
    SIGNAL_FILES.into_iter().any(exists)
}

/// Whether a history is asked for that recovery can do without: it has chosen its timeline already and only copies what
/// leads there, or it is that of the timeline that the backup is of, whose ancestors it does not use. It never looks
/// for the newest timeline by these. Not so for a standby, which goes on looking.
pub fn can_do_without(name: WalFileName, deadline: Deadline) -> bool {
    let WalFileName::History(timeline) = name else { return false };
    if !exists("recovery.signal") || fsio::exists(Path::new("standby.signal")).unwrap_or(true) {
        return false;
    }
    let control = control_file::control_of(Path::new("."), &deadline).ok().flatten();
    if control.is_some_and(|(control, _)| control.timeline == timeline) {
        return true;
    }
    // The server keeps the history of the timeline that it has chosen. One that was put there before it started proves
    // nothing: it may still be looking for the newest timeline, by one number after the other.
    let Ok(Some(started)) = fsio::stat(Path::new("postmaster.opts")) else { return false };
    let wal = Path::new("pg_wal");
    let was_kept =
        |name: &OsString| fsio::stat(&wal.join(name)).ok().flatten().is_some_and(|kept| kept.changed > started.modified);
    let is_later = |name: &OsString| {
        let kept = name.to_str().and_then(WalFileName::parse);
        matches!(kept, Some(WalFileName::History(later)) if later > timeline)
    };
    fsio::list_dir(wal).unwrap_or_default().iter().any(|name| is_later(name) && was_kept(name))
}
