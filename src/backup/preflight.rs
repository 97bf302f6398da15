//! What is checked before a backup begins, so that it does not fail after hours of copying. May not live here: what is
//! checked while it runs ([`session_watch`](super::session_watch)).

use crate::backup::context::{BackupRequest, Hooks};
use crate::backup::source::Source;
use crate::backup::wal;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::pg::{ControlFile, Timeline};
use crate::repo::{ClusterName, Repository};
use crate::wal::compare;
use crate::wal::histories;

/// Checks that the server, its data directory, its archiving and the repository belong together, and stores the history
/// of its timeline. Gives its `pg_control`.
///
/// # Errors
/// [`Kind::Server`]: the server or its archiver; [`Kind::Refused`]: another server's directory, or another cluster's
/// name; as the store's.
pub(crate) fn check(
    repository: &Repository,
    cluster: &ClusterName,
    source: &Source<'_>,
    request: &BackupRequest,
    deadline: Deadline,
    hooks: &Hooks<'_>,
) -> Result<ControlFile, Error> {
    let control = source.control()?;
    source.check_directory(&control)?;
    if let Some(primary) = &request.primary {
        if !source.in_recovery {
            return Err(Error::new(Kind::Usage, "--primary is for backups of a standby, and the server is the primary itself"));
        }
        // A switch too many costs nothing.
        wal::switch_on_primary(primary, source.facts(), deadline)?;
    }
    source.check_archiving(
        &|| wal::arrives(repository, cluster, source.facts(), control.timeline, control.checkpoint),
        hooks.go_on,
    )?;
    repository.bind(cluster, source.facts())?;
    compare::refuse_set_back(repository, cluster, source.facts(), &source.server)?;
    // A standby may be on another timeline when the backup ends.
    let timeline = Timeline(source.timeline(control.timeline)?);
    histories::ensure(repository, cluster, source.system_id, timeline, &source.wal_directory())?;
    Ok(control)
}
