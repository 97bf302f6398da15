//! What an operator asks of a restore.
//!
//! Lives here: the request and its parts, as plain values. May not live here: checks and steps ([`job`](super::job)).

use crate::pg::settings::{Invocation, TargetAction};
use crate::pg::target::Target;
use crate::raw_text::RawText;
use crate::recovery::ResolveRequest;
use crate::report::resolve::ResolveReport;
use crate::restore::target_directory::Taking;
use std::path::PathBuf;

/// Which tablespace is to be put elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablespaceKey {
    /// By its object id.
    Oid(u32),
    /// By the directory it was in.
    Path(RawText),
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The directory to make.
    pub pgdata: PathBuf,
    /// The target, and from which backup.
    pub target: ResolveRequest,
    /// What the server does at the target.
    pub action: TargetAction,
    /// Tablespaces that are put elsewhere.
    pub tablespace_map: Vec<(TablespaceKey, PathBuf)>,
    /// Whether the data directory of a stopped server may be taken over.
    pub delta: bool,
    /// Whether the operator knows that no server runs there.
    pub server_is_stopped: bool,
    /// Whether WAL that was never archived may go with the directory that is taken over.
    pub discard_unarchived_wal: bool,
    /// Whether tablespaces that are not mapped go where they were, and what replay needs there is made.
    pub tablespaces_at_original_places: bool,
    /// Whether replay may remove what is where it makes tablespaces.
    pub overwrite_tablespaces_of_the_log: bool,
    /// Where `pg_wal` is to be, behind a link; `None`: in the data directory.
    pub waldir: Option<PathBuf>,
    /// Where files from outside the data directory are put.
    pub config_to: Option<PathBuf>,
    /// Whether only the plan is wanted.
    pub plan: bool,
    /// Whether the server is started.
    pub start: bool,
    /// Whether it archives as the original does.
    pub archiving: bool,
    /// Whether it is to be a standby, that follows and never ends recovery by itself.
    pub standby: bool,
    /// `primary_conninfo` of a standby.
    pub primary: Option<String>,
    /// Threads; `None`: four per core.
    pub jobs: Option<usize>,
    /// Where the server's programs are.
    pub bin_dir: Option<PathBuf>,
    /// How the server calls this program.
    pub invocation: Invocation,
}

impl RestoreRequest {
    /// What of the directory the operator allows to be taken over.
    pub(super) fn taking(&self) -> Taking {
        Taking { delta: self.delta, server_is_stopped: self.server_is_stopped }
    }

    /// What the server does where recovery stops. Of `latest` that is always to take writes, also where it needs a stop
    /// to end at a fork.
    pub fn action_at(&self, resolved: &ResolveReport) -> TargetAction {
        let is_end = self.target.target == Target::Latest && resolved.stop.as_ref().is_none_or(|stop| stop.is_fork);
        if is_end { TargetAction::Promote } else { self.action }
    }
}
