//! What replay does besides changing tables: directories that it makes outside the data directory, and settings that it
//! asks for.
//!
//! - `XLOG_TBLSPC_CREATE` makes `pg_tblspc/<oid>` a link to the path that the original server had, whatever the
//!   restored directory or `tablespace_map` say, and removes what is there by the name of this server's version
//!   (`create_tablespace_directories`, 13 to 18). So a tablespace created in the WAL that is replayed is shared with
//!   the original, where that runs on the same host. It may also be in the backup, when it was created between the
//!   checkpoint that the backup begins with and the end of `pg_backup_start`.
//! - After a `PARAMETER_CHANGE` a hot standby needs at least the values in it (`CheckRequiredParameterValues`): with
//!   less it pauses, or, in 13, stops. So it does at once with less than the `pg_control` of the backup has.

use crate::error::Error;
use crate::pg::Lsn;
use crate::pg::scan::{Mark, Parameters};
use crate::raw_text::RawText;
use crate::recovery::log::{Log, WantedEnds, WantedMarks};
use crate::report::resolve::{DatabaseCreated, RequiredSetting, TablespaceCreated, TablespaceDropped};
use crate::report::time::Time;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// What replay does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// See [`ResolveReport`](crate::report::resolve::ResolveReport), as for all of these.
    pub tablespaces_created: Vec<TablespaceCreated>,
    /// Tablespaces that are dropped.
    pub tablespaces_dropped: Vec<TablespaceDropped>,
    /// Databases in tablespaces that are created.
    pub databases_created: Vec<DatabaseCreated>,
    /// What a hot standby has to be started with.
    pub required_settings: Vec<RequiredSetting>,
}

/// One of [`Parameters`].
type Setting = (&'static str, fn(&Parameters) -> i32);

/// The settings that a hot standby needs at least as high as its primary has them.
const SETTINGS: [Setting; 5] = [
    ("max_connections", |parameters| parameters.max_connections),
    ("max_worker_processes", |parameters| parameters.max_worker_processes),
    ("max_wal_senders", |parameters| parameters.max_wal_senders),
    ("max_prepared_transactions", |parameters| parameters.max_prepared_transactions),
    ("max_locks_per_transaction", |parameters| parameters.max_locks_per_transaction),
];

impl Replay {
    /// Of the records that begin in `from..edge`, which lies in one stretch of the log. `at_backup` is what the backup
    /// says.
    ///
    /// # Errors
    /// As the log's.
    pub fn of(log: &dyn Log, from: Lsn, edge: Lsn, at_backup: Option<&Parameters>) -> Result<Self, Error> {
        let mut replay = Self::default();
        if from >= edge {
            return Ok(replay);
        }
        let mut marks = Vec::new();
        log.marks(from, edge, WantedMarks::Files, &mut |mark| {
            marks.push((mark.start, mark.what.clone()));
            ControlFlow::Continue(())
        })?;
        let mut made_anew = HashSet::new();
        for (start, mark) in marks {
            let (lsn, time) = (start.to_string(), || time_after(log, start, edge));
            match mark {
                Mark::TablespaceCreate { tablespace: oid, path } => {
                    made_anew.insert(oid);
                    let path = Some(path.as_bytes()).filter(|path| !path.is_empty()).map(RawText::from);
                    replay.tablespaces_created.push(TablespaceCreated { oid, path, lsn, time: time()? });
                }
                Mark::TablespaceDrop { tablespace: oid } => {
                    replay.tablespaces_dropped.push(TablespaceDropped { oid, lsn, time: time()? });
                }
                Mark::DatabaseCreate { database: oid, tablespace, copied_from } if made_anew.contains(&tablespace) => {
                    let moved = copied_from.is_some_and(|source| source.database == oid);
                    replay.databases_created.push(DatabaseCreated { oid, tablespace_oid: tablespace, moved, lsn, time: time()? });
                }
                _ => {}
            }
        }
        let mut highest = SETTINGS.map(|(name, of)| (name, of, at_backup.map(of), None::<(i32, Lsn)>));
        log.marks(from, edge, WantedMarks::Parameters, &mut |mark| {
            if let Mark::ParameterChange(parameters) = &mark.what {
                for (_, of, at_backup, raised) in &mut highest {
                    let (value, before) = (of(parameters), raised.map(|(value, _)| value).max(*at_backup));
                    if before.is_none_or(|before| value > before) {
                        *raised = Some((value, mark.start));
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        let required = highest.into_iter().filter_map(|(name, _, at_backup, raised)| {
            let value = raised.map(|(value, _)| value).or(at_backup)?;
            Some(RequiredSetting { name, minimum: value, at_backup, lsn: raised.map(|(_, lsn)| lsn.to_string()) })
        });
        replay.required_settings.extend(required);
        Ok(replay)
    }
}

/// When the first transaction ended that did so after a record.
fn time_after(log: &dyn Log, lsn: Lsn, edge: Lsn) -> Result<Option<Time>, Error> {
    let until = log.windows().iter().find(|window| window.from <= lsn && lsn < window.until).map_or(edge, |window| window.until);
    let mut time = None;
    log.ends(lsn, until, WantedEnds::All, &mut |entry| {
        time = Some(Time::from(entry.end.time));
        ControlFlow::Break(())
    })?;
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::scan::{DatabaseFiles, PgTime, TablespacePath, XactEnd, XactKind, Xid};
    use crate::recovery::log::Window;
    use crate::recovery::tests::{History, What};

    fn commit(lsn: u64) -> (Lsn, What) {
        let end = XactEnd { time: PgTime(lsn as i64 * 1_000_000), xid: Xid::new(700), kind: XactKind::Commit };
        (Lsn(lsn), What::End(end))
    }

    fn parameters(max_connections: i32, max_wal_senders: i32) -> Parameters {
        Parameters {
            max_connections,
            max_worker_processes: 8,
            max_wal_senders,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
            wal_level: 1,
            wal_log_hints: false,
            track_commit_timestamp: false,
        }
    }

    #[test]
    fn what_is_made_and_dropped_in_the_range_and_no_other() {
        let create = |tablespace, path: &[u8]| Mark::TablespaceCreate { tablespace, path: TablespacePath::new(path).unwrap() };
        let database = |database, tablespace, from: Option<u32>| Mark::DatabaseCreate {
            database,
            tablespace,
            copied_from: from.map(|source| DatabaseFiles { tablespace: 1663, database: source }),
        };
        let marks = [
            (100, create(1, b"/before")),
            (200, create(2, b"/srv/caf\xE9")),
            (210, create(3, b"")),
            (220, database(50, 1, None)),
            (230, database(51, 2, Some(1))),
            (240, database(52, 2, Some(52))),
            (250, database(53, 3, None)),
            (260, Mark::TablespaceDrop { tablespace: 1 }),
            (400, create(4, b"/after")),
        ];
        let mut records: Vec<(Lsn, What)> = marks.into_iter().map(|(lsn, mark)| (Lsn(lsn), What::Mark(mark))).collect();
        records.extend([commit(205), commit(300)]);
        records.sort_by_key(|(lsn, _)| *lsn);
        let history = History { records, windows: vec![Window { from: Lsn(0), until: Lsn(1000) }] };
        let replay = Replay::of(&history, Lsn(200), Lsn(400), None).unwrap();
        let time = |lsn: i64| Some(Time::from(PgTime(lsn * 1_000_000)));
        let created: Vec<_> = replay.tablespaces_created.iter().map(|t| (t.oid, t.path.clone(), t.time)).collect();
        assert_eq!(created, [(2, Some(RawText::from(&b"/srv/caf\xE9"[..])), time(205)), (3, None, time(300))]);
        assert_eq!(replay.tablespaces_dropped.iter().map(|t| t.oid).collect::<Vec<_>>(), [1]);
        let databases: Vec<_> = replay.databases_created.iter().map(|d| (d.oid, d.tablespace_oid, d.moved)).collect();
        assert_eq!(databases, [(51, 2, false), (52, 2, true), (53, 3, false)], "not in one that the backup has");
        assert_eq!(replay.required_settings, []);
        assert_eq!(Replay::of(&history, Lsn(400), Lsn(400), None).unwrap(), Replay::default());
    }

    #[test]
    fn a_setting_is_required_at_its_highest() {
        let change = |lsn, connections, senders| (Lsn(lsn), What::Mark(Mark::ParameterChange(parameters(connections, senders))));
        let history = History {
            records: vec![change(100, 500, 50), change(200, 100, 20), change(300, 300, 10), change(400, 200, 10)],
            windows: vec![Window { from: Lsn(0), until: Lsn(1000) }],
        };
        let of = |from, edge, at_backup: Option<Parameters>| {
            let replay = Replay::of(&history, Lsn(from), Lsn(edge), at_backup.as_ref()).unwrap();
            let two = replay.required_settings.into_iter().filter(|s| ["max_connections", "max_wal_senders"].contains(&s.name));
            two.map(|s| (s.minimum, s.at_backup, s.lsn)).collect::<Vec<_>>()
        };
        let at = |lsn: u64| Some(Lsn(lsn).to_string());
        assert_eq!(of(150, 1000, Some(parameters(100, 20))), [(300, Some(100), at(300)), (20, Some(20), None)]);
        assert_eq!(of(150, 1000, None), [(300, None, at(300)), (20, None, at(200))]);
        assert_eq!(of(150, 300, Some(parameters(100, 10))), [(100, Some(100), None), (20, Some(10), at(200))]);
        assert_eq!(of(500, 1000, Some(parameters(100, 10))), [(100, Some(100), None), (10, Some(10), None)]);
        assert_eq!(of(500, 1000, None), []);
    }
}
