//! The WAL scan against real servers: what it finds must be what the server did, to the microsecond and the byte.
//!
//! On 15 every record is compared with `pg_waldump`; on all versions with what the server says itself:
//! `pg_xact_commit_timestamp`, and the LSNs that restore points and backups return.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use walvis::pg::scan::{
    Carry, Chain, CheckpointKind, DatabaseFiles, End, Event, Head, Mark, PgTime, Record, Scanner, Segment, Summary,
    TablespacePath, XactEnd, XactKind, XactList,
};
use walvis::pg::{Lsn, SegmentName, Timeline, WalSegmentSize};

use crate::support::postgres::{Cluster, Options, Recovery, Role, Scratch, Stop, parse_lsn, poll, run};

type Events = Vec<Record<Event>>;

/// A directory that `archive_command` copies to.
struct Archive {
    dir: PathBuf,
    options: Options,
}

impl Archive {
    fn new(scratch: &Scratch, wal_segsize_mib: u32) -> Self {
        let dir = scratch.make_dir("archive");
        let path = dir.display();
        let options = Options {
            wal_segsize_mib,
            archive_command: Some(format!("test ! -f {path}/%f && cp %p {path}/%f")),
            restore_command: Some(format!("cp {path}/%f %p")),
            ..Options::default()
        };
        let options = options.setting("track_commit_timestamp", "on").setting("max_prepared_transactions", "10");
        Self { dir, options }
    }

    /// The complete segments of a timeline, in order.
    fn segments(&self, timeline: u32) -> Vec<PathBuf> {
        let names = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let of_timeline = |path: &PathBuf| segment_name(path).is_some_and(|name| name.timeline == Timeline(timeline));
        let mut paths: Vec<PathBuf> = names.filter(of_timeline).collect();
        paths.sort();
        paths
    }
}

fn segment_name(path: &Path) -> Option<SegmentName> {
    SegmentName::parse(path.file_name()?.to_str()?)
}

/// Scans one file, as its first 24 digits name it, and checks that its summary survives its encoding.
fn scan(path: &Path, carry: Option<Carry>, events: &mut Events) -> (Summary, Option<Carry>) {
    let bytes = fs::read(path).unwrap();
    let name = SegmentName::parse(&path.file_name().unwrap().to_str().unwrap()[..24]).unwrap();
    let segment = Segment::new(name, WalSegmentSize::new(bytes.len() as u64).unwrap()).unwrap();
    let mut scanner = Scanner::resume(segment, carry, events);
    bytes.chunks(300_000).for_each(|chunk| scanner.push(chunk));
    let scanned = scanner.finish();
    assert_eq!(scanned.carry_break, None, "{}", path.display());
    let encoded = scanned.summary.encode();
    assert_eq!(Summary::decode(&encoded).unwrap(), scanned.summary);
    (scanned.summary, scanned.carry)
}

/// What is in the archive's segments: found with records carried over, and found in summaries joined by a chain. Both
/// must be the same but for xids that summaries may not know.
fn scan_all(paths: &[PathBuf]) -> (Events, Vec<Summary>) {
    let (mut carried, mut joined, mut chain, mut carry) = (Events::new(), Events::new(), Chain::new(), None);
    let mut summaries = Vec::new();
    for path in paths {
        let (summary, next) = scan(path, carry.take(), &mut carried);
        assert!(summary.is_complete(), "{}: {:?}", path.display(), summary.end);
        carry = next;
        if let Err(broken) = chain.push(&summary, &mut joined) {
            panic!("{}: {broken}", path.display());
        }
        summaries.push(summary);
    }
    let lists = summaries.iter().flat_map(|summary| summary.xacts.iter().flat_map(XactList::iter));
    let mut through_summaries: Vec<(Lsn, XactEnd)> = lists.map(|entry| (entry.lsn, entry.end)).collect();
    through_summaries.extend(joined.iter().filter_map(xact_end));
    through_summaries.sort_by_key(|(lsn, _)| *lsn);
    let expected: Vec<(Lsn, XactEnd)> = carried.iter().filter_map(xact_end).collect();
    assert_eq!(through_summaries.len(), expected.len());
    for (found, expected) in through_summaries.iter().zip(&expected) {
        let unknown = XactEnd { xid: None, ..expected.1 };
        assert!(
            found == expected || (*found == (expected.0, unknown) && expected.1.kind.is_prepared()),
            "{found:?} {expected:?}"
        );
    }
    (carried, summaries)
}

fn xact_end(record: &Record<Event>) -> Option<(Lsn, XactEnd)> {
    match record.what {
        Event::XactEnd(end) => Some((record.start, end)),
        _ => None,
    }
}

/// `2026-11-21 03:36:21.123456` in UTC.
fn time(text: &str) -> PgTime {
    let moment = text.parse::<DateTime>().unwrap().to_zoned(TimeZone::UTC).unwrap();
    PgTime::from_unix_us(moment.timestamp().as_microsecond()).unwrap()
}

/// A line of `pg_waldump` as an event, if it is of a kind that the scan reports. Restore points have no time there.
fn dumped(line: &str) -> Option<(u64, String)> {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest);
    let lsn = parse_lsn(after("lsn: ")?.split(',').next()?);
    let (what, rest) = after("desc: ")?.split_once(' ').unwrap_or((after("desc: ")?, ""));
    let header_xid = after("tx:")?.trim_start().split(',').next()?;
    let at = |text: &str| time(text.split(" UTC").next().unwrap()).0;
    let text = match what {
        "COMMIT" | "ABORT" => format!("{what} {header_xid} {}", at(rest)),
        "COMMIT_PREPARED" | "ABORT_PREPARED" => {
            let (xid, rest) = rest.split_once(": ").unwrap();
            format!("{what} {xid} {}", at(rest))
        }
        "PREPARE" => {
            // `PREPARE gid g1: time`
            let (_, rest) = rest.split_once(": ").unwrap();
            format!("{what} {header_xid} {}", at(rest))
        }
        "RESTORE_POINT" | "BACKUP_END" => format!("{what} {rest}"),
        "CHECKPOINT_ONLINE" | "CHECKPOINT_SHUTDOWN" => {
            let field = |key: &str| after(key).unwrap().split(';').next().unwrap();
            format!("{what} {} {}", field("redo "), field("tli "))
        }
        "CREATE" | "DROP" if line.contains("rmgr: Tablespace") => format!("{what} {rest}"),
        "CREATE_FILE_COPY" | "CREATE_WAL_LOG" => format!("{what} {rest}"),
        "DROP" if line.contains("rmgr: Database") => format!("{what} {rest}"),
        "SWITCH" | "END_OF_RECOVERY" | "PARAMETER_CHANGE" | "OVERWRITE_CONTRECORD" => what.to_owned(),
        _ => return None,
    };
    Some((lsn, text))
}

/// A mark of a tablespace or database as `pg_waldump` says it.
fn files(mark: &Mark) -> String {
    match mark {
        Mark::TablespaceCreate { tablespace, path } => format!("CREATE {tablespace} \"{path}\""),
        Mark::TablespaceDrop { tablespace } => format!("DROP {tablespace}"),
        Mark::DatabaseCreate { database, tablespace, copied_from: Some(source) } => {
            format!("CREATE_FILE_COPY copy dir {}/{} to {tablespace}/{database}", source.tablespace, source.database)
        }
        Mark::DatabaseCreate { database, tablespace, copied_from: None } => {
            format!("CREATE_WAL_LOG create dir {tablespace}/{database}")
        }
        Mark::DatabaseDrop { database, tablespaces } => {
            let dirs = tablespaces.iter().flatten().map(|tablespace| format!(" {tablespace}/{database}"));
            format!("DROP dir{}", dirs.collect::<String>())
        }
        other => panic!("{other:?}"),
    }
}

/// The same for what the scan found.
fn described(event: &Event) -> String {
    match event {
        Event::XactEnd(end) => {
            let what = match end.kind {
                XactKind::Commit => "COMMIT",
                XactKind::Abort => "ABORT",
                XactKind::CommitPrepared => "COMMIT_PREPARED",
                XactKind::AbortPrepared => "ABORT_PREPARED",
            };
            format!("{what} {} {}", end.xid.unwrap(), end.time.0)
        }
        Event::Prepare { xid, time } => format!("PREPARE {} {}", xid.unwrap(), time.0),
        Event::Mark(Mark::RestorePoint { name, .. }) => format!("RESTORE_POINT {name}"),
        Event::Mark(Mark::BackupEnd { start }) => format!("BACKUP_END {start}"),
        Event::Mark(Mark::Checkpoint { kind, redo, timeline, .. }) => match kind {
            CheckpointKind::Online => format!("CHECKPOINT_ONLINE {redo} {timeline}"),
            CheckpointKind::Shutdown => format!("CHECKPOINT_SHUTDOWN {redo} {timeline}"),
        },
        Event::Mark(Mark::EndOfRecovery { .. }) => "END_OF_RECOVERY".to_owned(),
        Event::Mark(Mark::ParameterChange(_)) => "PARAMETER_CHANGE".to_owned(),
        Event::Mark(Mark::Overwrite { .. }) => "OVERWRITE_CONTRECORD".to_owned(),
        Event::Mark(
            mark @ (Mark::TablespaceCreate { .. }
            | Mark::TablespaceDrop { .. }
            | Mark::DatabaseCreate { .. }
            | Mark::DatabaseDrop { .. }),
        ) => files(mark),
        Event::Switch => "SWITCH".to_owned(),
    }
}

/// `count` subtransactions with an xid each, without much WAL of their own.
fn subtransactions(table: &str, count: u32) -> String {
    format!(
        "do $$ begin for i in 1..{count} loop begin insert into {table} values (i); exception when division_by_zero then null; end; end loop; end $$"
    )
}

/// Everything there is, compared record by record.
fn agrees_with_pg_waldump(wal_level: &str) {
    let scratch = Scratch::new();
    let archive = Archive::new(&scratch, 1);
    let options = archive.options.clone().setting("wal_level", wal_level);
    let mut cluster = Cluster::init(&scratch, "primary", 15, &options);
    cluster.start();

    let backup = cluster.backup_to("base");
    cluster.sql("create unlogged table u (i int); create table t (i int)");
    assert!(cluster.pgbench(&["--initialize", "--quiet", "--scale=1"]), "pgbench of 15 is missing");
    cluster.pgbench(&["--client=4", "--jobs=2", "--transactions=400", "--no-vacuum"]);
    cluster.sql("select pg_create_restore_point('first'); select pg_create_restore_point('with a space; and more')");
    let client = cluster.client();
    let query = |sql: &str| client.query(sql).unwrap_or_else(|error| cluster.fail(&error));
    // Commit records of 60 kB, and of more than a segment: as a commit, a rollback, and both of a prepared transaction.
    for count in [15_000, 300_000] {
        for (i, end) in [
            "commit",
            "rollback",
            "prepare transaction 'g'; commit prepared 'g'",
            "prepare transaction 'h'; rollback prepared 'h'",
        ]
        .iter()
        .enumerate()
        {
            // The two of the smaller size that come after the first go along with files and invalidations.
            let ddl = if i % 2 == 1 { "create table dropped (i int primary key);" } else { "" };
            let mut statements = vec!["begin".to_owned(), subtransactions("u", count)];
            statements.extend(ddl.split_terminator(';').chain(end.split("; ")).map(str::to_owned));
            statements.iter().for_each(|statement| drop(query(statement)));
        }
        cluster.switch_wal();
    }
    query("drop table t");
    files_come_and_go(&scratch, &cluster);
    query("checkpoint");
    let load = (0..60).map(|i| format!("select pg_create_restore_point('point {i}')"));
    load.for_each(|sql| drop(query(&sql)));
    cluster.switch_and_archive();

    let paths = archive.segments(1);
    let (found, summaries) = scan_all(&paths);
    assert!(summaries.iter().any(|summary| summary.first_record().is_none()), "no record fills a segment");
    assert!(
        found.iter().any(|record| record.what == Event::Mark(Mark::BackupEnd { start: backup_start(&found, backup.stop_lsn) }))
    );

    let pg_waldump = cluster.postgres().client_tool("pg_waldump").expect("pg_waldump");
    let mut command = scratch.command(&pg_waldump);
    command
        .env("TZ", "UTC")
        .arg("--path")
        .arg(&archive.dir)
        .arg(paths[0].file_name().unwrap())
        .arg(paths.last().unwrap().file_name().unwrap());
    let output = run(&mut command);
    let expected: Vec<(u64, String)> = output.lines().filter_map(dumped).collect();
    let found: Vec<(u64, String)> = found.iter().map(|record| (record.start.0, described(&record.what))).collect();
    assert!(expected.len() > 1600, "{}", expected.len());
    for kind in [
        "COMMIT_PREPARED",
        "ABORT_PREPARED",
        "PREPARE",
        "ABORT ",
        "RESTORE_POINT",
        "CHECKPOINT_ONLINE",
        "BACKUP_END",
        "SWITCH",
        "CREATE ",
        "CREATE_FILE_COPY",
        "CREATE_WAL_LOG",
        "DROP dir",
    ] {
        assert!(expected.iter().any(|(_, text)| text.starts_with(kind)), "{kind}");
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    // Every complete record, the dull ones included, is counted.
    let records: u64 = summaries.iter().filter_map(|summary| summary.records).map(|records| records.count).sum();
    let crossing = summaries.iter().filter(|summary| matches!(summary.end, End::Continues(_))).count() as u64;
    assert_eq!(records + crossing, output.lines().filter(|line| line.starts_with("rmgr: ")).count() as u64);
}

/// The start LSN in the `BACKUP_END` that ends there.
fn backup_start(found: &Events, stop_lsn: u64) -> Lsn {
    let start = found.iter().find_map(|record| match record.what {
        Event::Mark(Mark::BackupEnd { start }) if record.end.0 == stop_lsn => Some(start),
        _ => None,
    });
    start.expect("a BACKUP_END that ends at the backup's stop LSN")
}

#[test]
fn pg15_agrees_with_pg_waldump() {
    agrees_with_pg_waldump("replica");
}

#[test]
fn pg15_agrees_with_pg_waldump_on_logical_wal() {
    agrees_with_pg_waldump("logical");
}

/// Tablespaces and databases made, moved and dropped, and the marks of it in their order.
fn files_come_and_go(scratch: &Scratch, cluster: &Cluster) -> Vec<Mark> {
    let client = cluster.client();
    let query = |sql: &str| client.query(sql).unwrap_or_else(|error| cluster.fail(&error));
    let number = |sql: &str| -> u32 { query(sql).parse().unwrap() };
    let major = cluster.postgres().major;
    let dir = scratch.make_dir("a tablespace");
    query(&format!("create tablespace side location '{}'", dir.display()));
    let side = number("select oid from pg_tablespace where spcname = 'side'");
    let by_copy = if major >= 15 { "strategy file_copy" } else { "" };
    query(&format!("create database moves {by_copy}"));
    let moves = number("select oid from pg_database where datname = 'moves'");
    query("alter database moves set tablespace side");
    let mut logged = Vec::new();
    if major >= 15 {
        query("create database logged tablespace side");
        let database = number("select oid from pg_database where datname = 'logged'");
        query("drop database logged");
        logged.push(Mark::DatabaseCreate { database, tablespace: side, copied_from: None });
        logged.push(Mark::DatabaseDrop { database, tablespaces: Some(vec![side]) });
    }
    query("drop database moves");
    query("drop tablespace side");
    let create = |tablespace, source, from| Mark::DatabaseCreate {
        database: moves,
        tablespace,
        copied_from: Some(DatabaseFiles { tablespace: from, database: source }),
    };
    let drop = |tablespace| Mark::DatabaseDrop { database: moves, tablespaces: Some(vec![tablespace]) };
    let path = TablespacePath::new(dir.to_str().unwrap().as_bytes()).unwrap();
    let mut marks = vec![Mark::TablespaceCreate { tablespace: side, path }];
    marks.extend([create(1663, 1, 1663), create(side, moves, 1663), drop(1663)]);
    marks.extend(logged);
    marks.extend([drop(side), Mark::TablespaceDrop { tablespace: side }]);
    marks
}

/// What the server says of its transactions.
fn agrees_with_the_server(major: u32) {
    let scratch = Scratch::new();
    let archive = Archive::new(&scratch, 1);
    let mut cluster = Cluster::init(&scratch, "primary", major, &archive.options);
    cluster.start();
    cluster.sql("create table t (xid bigint, filler text); create unlogged table u (i int)");
    let client = cluster.client();
    let query = |sql: &str| client.query(sql).unwrap_or_else(|error| cluster.fail(&error));

    let mut expected: BTreeMap<u32, XactKind> = BTreeMap::new();
    let mut restore_points = Vec::new();
    for i in 0..240 {
        query("begin");
        let xid: u32 = query("insert into t values (txid_current(), repeat('x', 500)) returning xid").parse().unwrap();
        if i % 40 == 0 {
            query(&subtransactions("u", 6_000));
            query("create table dropped as select 1 as one");
        }
        let kind = match i % 8 {
            0..4 => XactKind::Commit,
            4 | 5 => XactKind::Abort,
            6 => XactKind::CommitPrepared,
            _ => XactKind::AbortPrepared,
        };
        match kind {
            XactKind::Commit => drop(query("commit")),
            XactKind::Abort => drop(query("rollback")),
            XactKind::CommitPrepared | XactKind::AbortPrepared => {
                query("prepare transaction 'g'");
                query(if kind.is_commit() { "commit prepared 'g'" } else { "rollback prepared 'g'" });
            }
        }
        query("drop table if exists dropped");
        expected.insert(xid, kind);
        if i % 60 == 7 {
            let name = format!("after {xid}");
            restore_points.push((name.clone(), parse_lsn(&query(&format!("select pg_create_restore_point('{name}')")))));
        }
    }
    let backup = cluster.backup_to("base");
    let files = files_come_and_go(&scratch, &cluster);
    cluster.switch_and_archive();

    let (found, summaries) = scan_all(&archive.segments(1));
    let is_file = |mark: &&Mark| {
        matches!(
            mark,
            Mark::TablespaceCreate { .. } | Mark::TablespaceDrop { .. } | Mark::DatabaseCreate { .. } | Mark::DatabaseDrop { .. }
        )
    };
    let marks = found.iter().filter_map(|record| if let Event::Mark(mark) = &record.what { Some(mark) } else { None });
    // Those before are initdb's.
    let since = marks.filter(is_file).skip_while(|mark| !matches!(mark, Mark::TablespaceCreate { .. }));
    assert_eq!(since.collect::<Vec<_>>(), files.iter().collect::<Vec<_>>());
    assert!(summaries.iter().all(|summary| summary.origin.unwrap().major == major as u16));
    let system_id: u64 = cluster.sql("select system_identifier from pg_control_system()").parse().unwrap();
    assert!(summaries.iter().all(|summary| summary.origin.unwrap().system_id == system_id));
    let ends: BTreeMap<u32, XactEnd> = found.iter().filter_map(xact_end).map(|(_, end)| (end.xid.unwrap().get(), end)).collect();
    for (xid, kind) in &expected {
        assert_eq!(ends.get(xid).map(|end| end.kind), Some(*kind), "transaction {xid}");
    }
    // The time of every commit, also of those around the ones above.
    let commits: Vec<&XactEnd> =
        ends.values().filter(|end| end.kind.is_commit() && end.xid.unwrap().get() >= *expected.keys().next().unwrap()).collect();
    let list: Vec<String> = commits.iter().map(|end| format!("('{}')", end.xid.unwrap())).collect();
    let times = cluster.sql(&format!(
        "select to_char(pg_xact_commit_timestamp(x::xid) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') from (values {}) v(x)",
        list.join(", ")
    ));
    assert_eq!(times.lines().count(), commits.len());
    for (text, end) in times.lines().zip(commits) {
        assert_eq!(time(text), end.time, "transaction {:?}", end.xid);
    }
    for (name, lsn) in restore_points {
        let point = found.iter().find(
            |record| matches!(&record.what, Event::Mark(Mark::RestorePoint { name: n, .. }) if n.as_bytes() == name.as_bytes()),
        );
        assert_eq!(point.map(|record| record.end), Some(Lsn(lsn)), "{name}");
    }
    backup_start(&found, backup.stop_lsn);
}

#[test]
fn pg13_agrees_with_the_server() {
    agrees_with_the_server(13);
}

#[test]
fn pg14_agrees_with_the_server() {
    agrees_with_the_server(14);
}

#[test]
fn pg15_agrees_with_the_server() {
    agrees_with_the_server(15);
}

#[test]
fn pg16_agrees_with_the_server() {
    agrees_with_the_server(16);
}

#[test]
fn pg17_agrees_with_the_server() {
    agrees_with_the_server(17);
}

#[test]
fn pg18_agrees_with_the_server() {
    agrees_with_the_server(18);
}

/// A crash that loses the end of a record: the server goes on after a dead one.
fn dead_record(major: u32, across_segments: bool) {
    let scratch = Scratch::new();
    let archive = Archive::new(&scratch, 1);
    let mut cluster = Cluster::init(&scratch, "primary", major, &archive.options);
    cluster.start();
    cluster.sql("create table t (i int); insert into t values (1)");
    cluster.switch_and_archive();
    let client = cluster.client();
    let begin = if across_segments {
        // Close to the segment's end: what comes then begins in this segment and goes on in the next.
        client.query("select pg_logical_emit_message(false, 'x', repeat('x', 1000000))").unwrap();
        client.query("select pg_current_wal_insert_lsn()").unwrap()
    } else {
        client.query("select pg_current_wal_insert_lsn()").unwrap()
    };
    // Transactional, so that the commit flushes it; and the commit is lost with its end.
    client.query("select pg_logical_emit_message(true, 'x', repeat('y', 200000))").unwrap();
    let begin = parse_lsn(&begin);
    cluster.stop(Stop::Immediate);
    // What the disk did not get: all from the third page on, or the whole next segment.
    let first_lost = if across_segments { begin.next_multiple_of(1 << 20) } else { (begin / 8192 + 2) * 8192 };
    let path = cluster.data.join("pg_wal").join(cluster.segment_name(1, first_lost));
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    let offset = first_lost % (1 << 20);
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&vec![0; (1 << 20) - offset as usize]).unwrap();
    cluster.start();
    cluster.sql("insert into t values (2)");
    cluster.switch_and_archive();

    let (found, summaries) = scan_all(&archive.segments(1));
    let overwritten = found.iter().find_map(|record| match record.what {
        Event::Mark(Mark::Overwrite { dead, .. }) => Some((dead, record.start)),
        _ => None,
    });
    let (dead, at) = overwritten.unwrap_or_else(|| cluster.fail("no OVERWRITE_CONTRECORD was written"));
    assert!(dead.0 >= begin && dead.0 < first_lost && at.0 - first_lost <= 40, "{dead} {at}");
    let begins_with_it = summaries.iter().filter(|summary| summary.head == Head::Overwrite).count();
    assert_eq!(begins_with_it, usize::from(across_segments));
}

#[test]
fn pg13_goes_on_after_a_dead_record() {
    dead_record(13, false);
}

#[test]
fn pg18_goes_on_after_a_dead_record() {
    dead_record(18, false);
}

#[test]
fn pg15_goes_on_after_a_dead_record_at_a_boundary() {
    dead_record(15, true);
}

/// A promotion in the middle of a segment: the child's first segment has a copy of the parent's, the parent's is a
/// `.partial`.
fn promotion(major: u32) {
    let scratch = Scratch::new();
    let archive = Archive::new(&scratch, 1);
    let mut primary = Cluster::init(&scratch, "primary", major, &archive.options);
    primary.start();
    let backup = primary.backup_to("base");
    primary.sql("create table t (i int)");
    let end = primary.switch_and_archive();
    let before: u32 = primary.sql("insert into t values (1) returning txid_current()").parse().unwrap();
    primary.kill();
    let mut second = Cluster::restore(&scratch, "second", &backup, Role::Recovery, &archive.options);
    assert!(primary.save_wal(&second) > 0);
    second.spawn();
    match second.wait_recovery() {
        Recovery::Promoted => {}
        Recovery::Exited(status) => second.fail(&format!("recovery ended with {status}")),
    }
    let after: u32 = second.sql("insert into t values (2) returning txid_current()").parse().unwrap();
    let last = second.switch_and_archive();
    second.stop(Stop::Fast);

    let partial = poll(|| {
        fs::read_dir(&archive.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|e| e == "partial"))
    });
    let partial = partial.expect("a .partial");
    let (mut of_partial, mut chain, mut joined) = (Events::new(), Chain::new(), Events::new());
    let (partial_summary, _) = scan(&partial, None, &mut of_partial);
    assert!(!partial_summary.is_complete(), "{:?}", partial_summary.end);
    // The path of timelines: the parent's up to the fork, then the child's.
    let mut path = archive.segments(1);
    assert_eq!(path.last().unwrap().file_name().unwrap().to_str().unwrap(), end);
    path.extend(archive.segments(2).into_iter().filter(|path| path.file_name().unwrap().to_str().unwrap() <= last.as_str()));
    let (found, summaries) = scan_all(&path);
    for summary in &summaries {
        chain.push(summary, &mut joined).unwrap();
    }
    let xids: Vec<u32> = found.iter().filter_map(xact_end).map(|(_, end)| end.xid.unwrap().get()).collect();
    assert!(xids.contains(&before) && xids.contains(&after));
    assert!(of_partial.iter().filter_map(xact_end).any(|(_, end)| end.xid.unwrap().get() == before));
    let forked = found.iter().any(|record| match &record.what {
        Event::Mark(
            Mark::EndOfRecovery { timeline, previous_timeline, .. } | Mark::Checkpoint { timeline, previous_timeline, .. },
        ) => (*timeline, *previous_timeline) == (Timeline(2), Timeline(1)),
        _ => false,
    });
    assert!(forked, "no record says that timeline 2 begins");
}

#[test]
fn pg13_promotion() {
    promotion(13);
}

#[test]
fn pg18_promotion() {
    promotion(18);
}

/// A server with segments of 64 MiB, as they come from `pgbench`, with several clients at once.
#[test]
fn large_segments_scan() {
    let scratch = Scratch::new();
    let archive = Archive::new(&scratch, 64);
    let mut cluster = Cluster::init(&scratch, "primary", 15, &archive.options);
    cluster.start();
    assert!(cluster.pgbench(&["--initialize", "--quiet", "--scale=2"]), "pgbench of 15 is missing");
    cluster.pgbench(&["--client=8", "--jobs=2", "--transactions=300", "--no-vacuum"]);
    cluster.switch_and_archive();
    let (found, summaries) = scan_all(&archive.segments(1));
    let commits = found.iter().filter_map(xact_end).filter(|(_, end)| end.kind == XactKind::Commit).count();
    assert!(commits >= 2400, "{commits}");
    let (bytes, count) = summaries.iter().fold((0, 0), |(bytes, count), summary| {
        (bytes + summary.xacts.as_ref().unwrap().size_bytes(), count + summary.xact_stats.map_or(0, |stats| stats.count))
    });
    assert!(bytes as u64 <= count * 5 + 200, "{bytes} bytes for {count} transactions");
}
