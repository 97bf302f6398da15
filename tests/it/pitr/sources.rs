//! What base backups are taken of: tablespaces, unlogged and temporary tables, prepared transactions, a data directory
//! that the group may read, a `pg_wal` elsewhere, files that come, go, grow and shrink meanwhile, a standby.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::backup::copying;
use crate::pitr::{Site, exists, promote};
use crate::support::postgres::{Cluster, Journal, Options, Role, Stop, poll};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Unlogged and temporary tables, a prepared transaction, group access, `pg_wal` behind a link, strange names, empty
/// directories.
fn keeps_what_is_special(major: u32) {
    let mut site = Site::new();
    let wal = site.scratch.path().join("wal elsewhere");
    site.options.initdb = vec!["--allow-group-access".to_owned(), format!("--waldir={}", wal.display())];
    let mut primary = site.primary(major);
    assert!(fs::symlink_metadata(primary.data.join("pg_wal")).unwrap().is_symlink());
    primary.sql("create unlogged table u as select generate_series(1, 5000) i");
    primary.sql("create index on u (i); create table p (i int); create table empty (i int)");
    primary.sql("begin; insert into p values (1); prepare transaction 'held'");
    let session = primary.client();
    session.query("create temporary table t as select generate_series(1, 5000) i").unwrap();
    let unlogged = primary.sql("select pg_relation_filepath('u')");
    let empty = primary.sql("select pg_relation_filepath('empty')");
    for name in [&b"extra/\xFF\xFE odd"[..], "extra/mit Leerzeichen und ü".as_bytes(), b"extra/a\"b\\c"] {
        let path = primary.data.join(OsStr::from_bytes(name));
        if !exists(path.parent().unwrap()) {
            site.scratch.make_dir("primary/extra");
            site.scratch.make_dir("primary/extra/empty directory");
        }
        site.scratch.write(&path, name);
    }
    let conf = primary.data.join("postgresql.conf");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
    let made = site.backup(&primary, &[]);
    assert!(made.number("files") > 900, "{:#}", made.json);
    // A lock file of the server, and what it writes into pg_wal, are not in it: the manifest's check below would
    // notice.
    primary.switch_and_archive();
    drop(session);
    primary.stop(Stop::Fast);

    let mut cluster = site.restore("restored", major, &["--target", "latest", "--target-action", "promote"]);
    let data = cluster.data.clone();
    assert_eq!(mode(&data), 0o750);
    assert_eq!(mode(&data.join("PG_VERSION")), 0o640);
    assert_eq!(mode(&data.join("base")), 0o750);
    assert_eq!(mode(&data.join("postgresql.conf")), 0o600);
    let owner = fs::metadata(&primary.data).unwrap().uid();
    assert_eq!(fs::metadata(data.join("global/pg_control")).unwrap().uid(), owner);
    assert!(fs::symlink_metadata(data.join("pg_wal")).unwrap().is_dir());
    for name in
        ["pg_wal/archive_status", "pg_notify", "pg_replslot", "pg_snapshots", "pg_subtrans", "pg_tblspc", "extra/empty directory"]
    {
        assert!(data.join(name).is_dir(), "{name} is not there");
    }
    assert_eq!(fs::read(data.join(OsStr::from_bytes(b"extra/\xFF\xFE odd"))).unwrap(), b"extra/\xFF\xFE odd");
    assert!(!exists(&data.join(&unlogged)) && exists(&data.join(format!("{unlogged}_init"))), "{unlogged}");
    assert_eq!(fs::metadata(data.join(&empty)).unwrap().len(), 0);
    let database = data.join(Path::new(&unlogged).parent().unwrap());
    let temporary: Vec<_> =
        fs::read_dir(database).unwrap().map(|e| e.unwrap().file_name()).filter(|n| n.as_bytes()[0] == b't').collect();
    assert!(temporary.is_empty(), "{temporary:?}");

    promote(&mut cluster);
    assert_eq!(cluster.sql("select count(*) from u"), "0");
    cluster.sql("insert into u values (1)");
    assert_eq!(cluster.sql("select gid from pg_prepared_xacts"), "held");
    cluster.sql("commit prepared 'held'");
    assert_eq!(cluster.sql("select count(*) from p"), "1");
    cluster.amcheck();
    cluster.stop(Stop::Fast);
    cluster.assert_checksums();
}

#[test]
fn pg13_keeps_what_is_special() {
    keeps_what_is_special(13);
}

#[test]
fn pg18_keeps_what_is_special() {
    keeps_what_is_special(18);
}

/// Tablespaces where they were, and elsewhere; never over one that is in use.
fn tablespaces(major: u32) {
    let site = Site::new();
    let places = ["one", "number two"].map(|name| site.scratch.make_dir(name));
    let mut primary = site.primary(major);
    for (i, place) in places.iter().enumerate() {
        primary.sql(&format!("create tablespace ts{i} location '{}'", place.display()));
        primary.sql(&format!(
            "create table t{i} tablespace ts{i} as select i, repeat(md5(i::text), 10) as body from generate_series(1, 3000) i"
        ));
    }
    primary.sql("create index t0_i on t0 (i) tablespace ts1; create unlogged table u tablespace ts1 as select 1 as i");
    let journal = Journal::start(&primary, 2);
    journal.wait_for(10);
    site.backup(&primary, &[]);
    journal.wait_for(10);
    let point = primary.journal_point("here");
    journal.wait_for(3);
    journal.finish();
    primary.switch_and_archive();
    let expected = primary.digest(&["t0", "t1"]);

    let target = ["--target-name", "here"];
    let map = |i: usize| format!("{}={}", places[i].display(), site.place(&format!("mapped {i}")).display());
    // Where the original is, nothing is written.
    let at_original = [&target[..], &["--tablespaces-at-original-places"]].concat();
    site.try_restore("refused", &target).exits(16).tells_the_way_out().says(&["--tablespaces-at-original-places"]);
    site.try_restore("refused", &at_original).exits(16).tells_the_way_out().says(&[places[0].to_str().unwrap()]);
    site.assert_cannot_start("refused", major);
    let maps = [map(0), map(1)];
    let one = [&target[..], &["--tablespace-map", &maps[0]]].concat();
    site.try_restore("refused", &one).exits(16).tells_the_way_out().says(&[places[1].to_str().unwrap()]);
    assert_eq!(primary.digest(&["t0", "t1"]), expected);

    let mut mapped = site.recover("mapped", major, &[&one[..], &["--tablespace-map", &maps[1]]].concat());
    assert_eq!(mapped.digest(&["t0", "t1"]), expected);
    mapped.assert_journal(point.n);
    assert_eq!(mapped.sql("select count(*) from u"), "0");
    let locations = mapped.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname like 'ts%' order by spcname");
    assert_eq!(locations, [0, 1].map(|i| site.place(&format!("mapped {i}")).display().to_string()).join("\n"));
    mapped.amcheck();
    mapped.stop(Stop::Fast);
    mapped.assert_checksums();
    // The original did not notice.
    primary.sql("checkpoint");
    assert_eq!(primary.digest(&["t0", "t1"]), expected);
    primary.destroy();

    // Gone, they are made where they were; one of them is an empty directory, as a mounted disk is.
    fs::remove_dir_all(&places[0]).unwrap();
    fs::remove_dir_all(&places[1]).unwrap();
    site.scratch.make_dir("number two");
    let mut unmapped = site.recover("unmapped", major, &at_original);
    assert_eq!(unmapped.digest(&["t0", "t1"]), expected);
    unmapped.assert_journal(point.n);
    unmapped.stop(Stop::Fast);
    unmapped.assert_checksums();
    // Again over what is there now.
    let mut again = site.recover("unmapped", major, &[&at_original[..], &["--delta", "--discard-unarchived-wal"]].concat());
    assert_eq!(again.digest(&["t0", "t1"]), expected);
    again.stop(Stop::Fast);
}

#[test]
fn pg14_tablespaces() {
    tablespaces(14);
}

#[test]
fn pg17_tablespaces() {
    tablespaces(17);
}

/// Databases that come and go, and a table that is filled and truncated, while the backup reads at a bounded rate.
fn changes_meanwhile(major: u32) {
    let mut site = Site::new();
    // It writes much, and each segment is a process to archive and one to fetch.
    site.options.wal_segsize_mib = 16;
    let mut primary = site.primary(major);
    primary.sql(
        "create table busy (i int, body text); insert into busy select i, repeat('x', 500) from generate_series(1, 20000) i",
    );
    primary.sql("create table idle as select i, md5(i::text) from generate_series(1, 50000) i");
    let journal = Journal::start(&primary, 1);
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let connection = primary.client();
    let changer = std::thread::spawn({
        let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
        move || {
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let how = if major >= 15 && round % 2 == 1 { "strategy = file_copy" } else { "" };
                let shrink = if round % 2 == 0 { "truncate busy" } else { "delete from busy where i > 5000" };
                for sql in [
                    format!("create database d{round} {how}"),
                    shrink.to_owned(),
                    "vacuum busy".to_owned(),
                    format!("insert into busy select {round}, repeat('y', 500) from generate_series(1, 20000) i"),
                    // Every third one stays.
                    if round % 3 == 0 { "select 1".to_owned() } else { format!("drop database d{round}") },
                ] {
                    connection.query(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
                }
                rounds.fetch_add(1, Ordering::Release);
            }
        }
    });
    let reached = |wanted: usize| poll(|| (rounds.load(Ordering::Acquire) >= wanted).then_some(()));
    reached(1).expect("it changes");
    let before = rounds.load(Ordering::Acquire);
    site.backup(&primary, &["--max-rate", "10", "--jobs", "1"]);
    let during = rounds.load(Ordering::Acquire) - before;
    assert!(during >= 2, "only {during} rounds of changes during the backup");
    reached(before + during + 2).expect("it changes");
    stop.store(true, Ordering::Relaxed);
    changer.join().unwrap();
    journal.finish();

    let n = primary.sql("select max(n) from journal").parse().unwrap();
    let databases = "select string_agg(datname, ' ' order by datname) from pg_database";
    let (expected, databases_then) = (primary.digest(&["busy", "idle"]), primary.sql(databases));
    primary.switch_and_archive();
    primary.destroy();
    let mut recovered = site.recover("restored", major, &["--target", "latest"]);
    assert_eq!(recovered.digest(&["busy", "idle"]), expected);
    assert_eq!(recovered.sql(databases), databases_then);
    recovered.assert_journal(n);
    recovered.amcheck();
    recovered.stop(Stop::Fast);
    recovered.assert_checksums();
}

#[test]
fn pg13_changes_meanwhile() {
    changes_meanwhile(13);
}

#[test]
fn pg15_changes_meanwhile() {
    changes_meanwhile(15);
}

#[test]
fn pg18_changes_meanwhile() {
    changes_meanwhile(18);
}

/// A standby that streams is read; its primary is asked for nothing but the end of a segment.
fn from_a_standby(major: u32) {
    let site = Site::new();
    let mut primary = site.primary(major);
    let journal = Journal::start(&primary, 2);
    journal.wait_for(10);
    let copy = primary.backup_to("copy");
    let follow =
        format!("host={} user=postgres", primary.conninfo().split_whitespace().next().unwrap().trim_start_matches("host="));
    let options = Options { archive_command: None, ..site.options.clone() }.setting("primary_conninfo", &follow);
    let mut standby = Cluster::restore(&site.scratch, "standby", &copy, Role::Standby, &options);
    standby.start();
    let streams =
        poll(|| (primary.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "1").then_some(()));
    if streams.is_none() {
        standby.fail("the standby does not stream");
    }
    primary.sql("checkpoint");
    journal.wait_for(10);

    let made = site.backup(&standby, &["--primary", &primary.conninfo(), "--label", "from the standby"]);
    assert_eq!(site.listed()[0]["from_standby"].as_bool(), Some(true), "{:#}", made.json);
    journal.wait_for(10);
    let point = primary.journal_point("here");
    journal.wait_for(3);
    primary.switch_and_archive();
    primary.destroy();
    standby.destroy();
    journal.abandon();

    let mut recovered = site.recover("restored", major, &["--target-name", "here"]);
    recovered.assert_journal(point.n);
    recovered.amcheck();
    recovered.stop(Stop::Fast);
    recovered.assert_checksums();
    let mut immediate = site.recover("immediate", major, &["--target", "immediate"]);
    immediate.assert_journal(immediate.sql("select max(n) from journal").parse().unwrap());
    immediate.stop(Stop::Fast);
}

#[test]
fn pg13_from_a_standby() {
    from_a_standby(13);
}

#[test]
fn pg18_from_a_standby() {
    from_a_standby(18);
}

/// A standby that becomes a primary during the backup: what was read is of two timelines, and must not count.
#[test]
fn pg17_a_standby_that_is_promoted_meanwhile() {
    let site = Site::new();
    let primary = site.primary(17);
    primary.sql("create table t as select i, repeat(md5(i::text), 20) from generate_series(1, 20000) i");
    let copy = primary.backup_to("copy");
    let options = Options { archive_command: None, ..site.options.clone() };
    let mut standby = Cluster::restore(&site.scratch, "standby", &copy, Role::Standby, &options);
    standby.start();
    let mut running = site.start_backup(&standby, &["--max-rate", "4", "--jobs", "1"]);
    copying(&standby, &mut running);
    standby.sql("select pg_promote()");
    running.wait().exits(17).tells_the_way_out();
    assert!(site.backups().is_empty());
}
