//! Which kind of server calls `fetch-wal`: a recovery, which must not go on without an answer, or a standby, which must
//! not be kept waiting for one. docs/STANDBY.md has the argument.
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::fsio;
use crate::limits::{MAX_HISTORY_FILE_BYTES, STANDBY_PATIENCE};
use crate::pg::{SegmentCheck, TimelineHistory, WalFileName};
use crate::repo::SystemId;
use crate::wal::fetch::OnError;
use crate::wal::outage::Outage;
use crate::wal::spool::Spool;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who asks, and for what.
pub(super) struct Caller {
    on_error: OnError,
    file: WalFileName,
    here: Option<SystemId>,
    /// The server's `pg_wal`, if it asks for a file there.
    wal_directory: Option<PathBuf>,
    spool: Option<Spool>,
    is_standby: bool,
}

impl Caller {
    pub(super) fn find(
        config: &Config,
        on_error: OnError,
        file: WalFileName,
        here: Option<SystemId>,
        destination: &Path,
    ) -> Self {
        let wal_directory = destination.parent().filter(|directory| here.is_some() && is_own(directory)).map(Path::to_owned);
        let spool = wal_directory.as_ref().and_then(|directory| Spool::find(config, directory));
        let is_standby = wal_directory.is_some() && exists("standby.signal");
        Self { on_error, file, here, wal_directory, spool, is_standby }
    }

    /// Where outages are remembered.
    pub(super) fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// What is known of a repository that fails.
    pub(super) fn outage(&self, location: &str) -> Option<Outage> {
        self.spool.as_ref()?.outage(location)
    }

    /// The spool, made if need be.
    pub(super) fn make_spool(&self) -> Option<&Spool> {
        let (spool, directory) = self.spool.as_ref().zip(self.wal_directory.as_ref())?;
        match spool.make(directory) {
            Ok(()) => Some(spool),
            Err(error) => {
                tracing::debug!(%error, "no spool");
                None
            }
        }
    }

    /// How long a store that says nothing is waited for, if that is not as long as the time limit allows: a standby can
    /// stream, and asks again.
    pub(super) fn patience(&self) -> Option<Duration> {
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
    pub(super) fn may_lose(&self) -> bool {
        self.is_standby && exists("promote") && matches!(self.file, WalFileName::Segment(_)) && !self.has_begun()
    }

    /// Whether `pg_wal` has the beginning of this segment.
    fn has_begun(&self) -> bool {
        let (Some(directory), WalFileName::Segment(segment)) = (&self.wal_directory, self.file) else { return false };
        let Ok((file, stat)) = fsio::open_regular(&directory.join(self.file.to_string())) else { return false };
        let mut head = Vec::new();
        let is_read = fsio::reader(&file).take(64).read_to_end(&mut head).is_ok();
        is_read
            && SegmentCheck::run(segment, &head, stat.size_bytes).is_ok_and(|page| Some(SystemId(page.system_id)) == self.here)
    }

    /// What to answer when it is not known whether the file exists.
    pub(super) fn judge(&self, error: Error) -> Error {
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
            "it was told to say 1"
        };
        let hint = error.hint.clone().unwrap_or_else(|| hint.to_owned());
        Error { kind: Kind::Unavailable, hint: Some(hint), ..error }
    }
}

fn exists(name: &str) -> bool {
    fsio::exists(Path::new(name)).unwrap_or(false)
}

/// Whether a directory is the `pg_wal` of the data directory that we are in.
pub(super) fn is_own(directory: &Path) -> bool {
    let [there, own] = [directory, Path::new("pg_wal")].map(|path| fsio::stat(path).ok().flatten());
    there.zip(own).is_some_and(|(there, own)| (there.dev, there.ino) == (own.dev, own.ino))
}
