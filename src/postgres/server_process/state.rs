//! How far a server has come with its recovery: what it says of itself, and what its files say.

use crate::error::{Error, Kind};
use crate::fsio::{self, Problem, local_error};
use crate::limits::MAX_HISTORY_FILE_BYTES;
use crate::pg::{Lsn, Timeline, TimelineHistory, WalFileName};
use crate::postgres::Server;
use std::path::Path;

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryState {
    /// Whether it recovers, or follows as a standby.
    pub in_recovery: bool,
    /// Whether recovery has paused.
    pub paused: bool,
    /// Up to where it has replayed.
    pub replayed: Option<Lsn>,
    /// The timeline that it writes, if it does not recover.
    pub timeline: Option<Timeline>,
}

/// Asks a server.
///
/// # Errors
/// [`Kind::Server`].
pub(super) fn ask(server: &Server) -> Result<RecoveryState, Error> {
    // 14 and later tell a pause that was asked for from one that has begun. In 13 recovery asks itself, and has paused
    // then.
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn(), \
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() END, \
               CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
                    THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
               pg_catalog.current_setting('server_version_num')";
    let row = server.row(sql)?.ok_or_else(|| Error::new(Kind::Server, "the server answers with nothing"))?;
    let mut values = row.into_iter();
    let mut next = || values.next().flatten();
    let in_recovery = next().as_deref() == Some("t");
    let replayed = next().and_then(|lsn| lsn.parse().ok());
    let mut paused = next().as_deref() == Some("t");
    let timeline = next().and_then(|name| u32::from_str_radix(&name, 16).ok()).map(Timeline);
    let version: u32 = next().and_then(|number| number.parse().ok()).unwrap_or_default();
    if in_recovery && paused && version >= 140_000 {
        paused = server.value("SELECT pg_catalog.pg_get_wal_replay_pause_state()")? == "paused";
    }
    Ok(RecoveryState { in_recovery, paused, replayed, timeline })
}

/// On which timeline and where the recovery ended from which a timeline came, as its history in a data directory says.
///
/// # Errors
/// [`Kind::Config`] when the history cannot be read.
pub fn recovery_end(data_directory: &Path, timeline: Timeline) -> Result<Option<(Timeline, Lsn)>, Error> {
    let name = WalFileName::History(timeline).to_string();
    let limit = usize::try_from(MAX_HISTORY_FILE_BYTES).unwrap_or(usize::MAX);
    match fsio::read_bounded(&data_directory.join("pg_wal").join(name), limit) {
        Ok(bytes) => {
            let history = TimelineHistory::parse(timeline, &bytes).ok();
            Ok(history.and_then(|history| history.ancestors.last().map(|entry| (entry.timeline, entry.switch))))
        }
        Err(e) if e.problem == Problem::Absent => Ok(None),
        Err(e) => Err(local_error(e)),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_where_recovery_ended() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(recovery_end(place.path(), Timeline(3)).unwrap(), None);
        std::fs::create_dir(place.path().join("pg_wal")).unwrap();
        let text = "1\t0/2000000\tno recovery target specified\n2\t0/5000060\tbefore 2026-01-01\n";
        std::fs::write(place.path().join("pg_wal/00000003.history"), text).unwrap();
        assert_eq!(recovery_end(place.path(), Timeline(3)).unwrap(), Some((Timeline(2), Lsn(0x500_0060))));
    }
}
