//! What is taken over from the backup before, because the log says that nothing changed it: it is what a full read
//! would have stored; and where the log cannot tell, everything is read.

use super::sources::standby_of;
use super::*;
use crate::changed_pages::{PAGE_BYTES, TABLES, WORK, lsn};
use walvis::pg::data_directory::{Fork, relation_file};
use walvis::pg::page_checksum::page_checksum;

/// `pg_control` and `backup_label` are not read as files.
const NOT_READ: u64 = 20_000;

pub(super) fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report:#}"))
}

pub(super) fn reads_all(report: &Value) -> bool {
    number(report, "read_bytes") + NOT_READ > number(report, "bytes") && number(report, "taken_over_bytes") == 0
}

/// A cluster with a table of about 36 MB that nobody changes, and a backup of it.
fn with_still_table(host: &Host, major: u32) -> (Cluster, Value) {
    let cluster = host.cluster("server", major, &host.options().setting("autovacuum", "off"));
    cluster.sql("create table still as select i, repeat(md5(i::text), 3) t from generate_series(1, 250000) i");
    cluster.sql("create table busy as select i, md5(i::text) t from generate_series(1, 100000) i; create index on busy (i)");
    cluster.sql("vacuum freeze");
    cluster.sql("checkpoint");
    let report = host.backup(&cluster, &[]);
    (cluster, report)
}

/// Holds what one backup stored against what another one did that read everything, a moment later and without any work
/// in between: between two pages of one LSN there are only hints, and what is of the time after the start is replayed.
pub(super) fn same_as_a_full_read(what: &str, (partial, report): (&Stored, &Value), full: &Stored) {
    let start: Lsn = report["start_lsn"].as_str().unwrap().parse().unwrap();
    let is_relation = |path: &str| relation_file(path.as_bytes()).is_some_and(|(_, name)| name.fork == Fork::Main);
    let names = |stored: &Stored| stored.files.keys().filter(|path| is_relation(path)).cloned().collect::<Vec<_>>();
    assert_eq!(names(partial), names(full), "{what}");
    for (path, (_, content)) in partial.files.iter().filter(|(path, _)| is_relation(path)) {
        let expected = &full.files[path].1;
        assert_eq!(content.len(), expected.len(), "{what}: {path}");
        for (page, (is, should)) in content.chunks(PAGE_BYTES).zip(expected.chunks(PAGE_BYTES)).enumerate() {
            let (is, should) = (lsn(is), lsn(should));
            assert!(is == should || should >= start, "{what}: page {page} of {path} is of {is}, should be of {should}");
        }
    }
}

#[test]
fn an_idle_backup_reads_next_to_nothing() {
    let host = Host::new();
    let (cluster, first) = with_still_table(&host, 15);
    assert!(reads_all(&first), "{first:#}");
    let second = host.backup(&cluster, &[]);
    assert_eq!(second["read_all_because"], Value::Null, "{second:#}");
    let (bytes, read, taken) = (number(&second, "bytes"), number(&second, "read_bytes"), number(&second, "taken_over_bytes"));
    // The other forks are always read, some 2 MB of each database, and a sample of the rest.
    assert!(bytes > 60_000_000 && read < 8_500_000 && taken > bytes - 8_500_000, "{second:#}");
    let full = host.backup(&cluster, &["--read-all"]);
    assert!(full["read_all_because"] == "--read-all" && reads_all(&full), "{full:#}");
    same_as_a_full_read("idle", (&read_back(&host, &second), &second), &read_back(&host, &full));
    let said = run_program(&mut host.command(&["base-backup", "--fast", "--server", &cluster.conninfo()])).exits(0).stdout;
    run_program(&mut host.command(&["base-backup", "--verify-pages", "soon"])).exits(2).says(&["\"soon\" is no period"]);
    let taken_over = format!("did not change since {} by the log, and were taken over", full["backup_id"].as_str().unwrap());
    assert!(said.contains(&taken_over), "{said}");
}

#[test]
fn what_changed_is_read_and_no_more() {
    let host = Host::new();
    let (mut cluster, first) = with_still_table(&host, 17);
    cluster.sql("update busy set t = 'changed' where i between 500 and 600");
    // As long as the others, so that none fits into an old page.
    cluster.sql("insert into still select i, repeat(md5(i::text), 3) from generate_series(250001, 260000) i");
    let second = host.backup(&cluster, &[]);
    assert_eq!((&second["read_all_because"], &second["parent_backup_id"]), (&Value::Null, &first["backup_id"]), "{second:#}");
    assert!(number(&second, "read_bytes") < 10_000_000, "{second:#}");
    let digest = cluster.digest(&["still", "busy"]);
    // The parent of the third one has what it took over itself.
    cluster.sql("delete from busy where i between 90000 and 90010");
    let third = host.backup(&cluster, &["--verify-pages", "4w"]);
    assert_eq!(third["parent_backup_id"], second["backup_id"]);
    assert!(number(&third, "read_bytes") < 12_000_000, "{third:#}");
    let changed = cluster.digest(&["still", "busy"]);
    assert_ne!(digest, changed);
    cluster.switch_and_archive();
    cluster.stop(Stop::Fast);
    let root = host.scratch.path().join("restored");
    read_back(&host, &third).write_to(&host.scratch, &root);
    let mut restored = restored(&host, "restored", 17);
    assert!(matches!(restored.wait_recovery(), Recovery::Promoted));
    assert_eq!(restored.digest(&["still", "busy"]), changed);
}

#[test]
fn where_the_log_cannot_tell_everything_is_read() {
    let host = Host::new();
    let (mut cluster, _) = with_still_table(&host, 15);
    let read_all = |cluster: &Cluster, because: &str| {
        let report = host.backup(cluster, &[]);
        let said = report["read_all_because"].as_str().unwrap_or_default();
        assert!(said.contains(because) && reads_all(&report), "{because}: {report:#}");
    };
    let takes_over = |cluster: &Cluster| {
        let report = host.backup(cluster, &[]);
        assert_eq!(report["read_all_because"], Value::Null, "{report:#}");
        assert!(number(&report, "taken_over_bytes") > 40_000_000, "{report:#}");
    };
    takes_over(&cluster);

    // Checksums that are switched off, and on again.
    let tool = host.scratch.client_tool(15, "pg_checksums").unwrap();
    for (switch, word) in [("--disable", "off"), ("--enable", "on")] {
        cluster.stop(Stop::Fast);
        run(host.scratch.command(&tool).arg(switch).arg("--pgdata").arg(&cluster.data));
        cluster.start();
        read_all(&cluster, &format!("page checksums were switched {word} since backup"));
        takes_over(&cluster);
    }

    // A segment that is gone from the archive.
    for _ in 0..3 {
        cluster.sql("insert into busy select i, 'more' from generate_series(1, 1000) i");
        cluster.switch_and_archive();
    }
    let current = cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    let gone = format!("{}{:08X}", &current[..16], u32::from_str_radix(&current[16..], 16).unwrap() - 2);
    let repository = host.scratch.path().join("repository");
    let object = files_below(&repository).into_iter().find(|path| path.to_str().unwrap().contains(&gone)).unwrap();
    let kept = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    let local = cluster.data.join("pg_wal").join(&gone);
    assert!(fs::remove_file(&local).is_ok() || !local.exists());
    read_all(&cluster, &format!("segment {gone} is not stored"));
    host.scratch.write(&object, &kept);
    takes_over(&cluster);

    // Another past: what the parent stored is not what this server has.
    cluster.sql("checkpoint");
    let label = host.scratch.path().join("older");
    let before = host.backup(&cluster, &[]);
    cluster.sql("update busy set t = 'lost'");
    host.backup(&cluster, &[]);
    cluster.switch_and_archive();
    cluster.stop(Stop::Fast);
    read_back(&host, &before).write_to(&host.scratch, &label);
    let options = host.options().setting("recovery_target", "immediate").setting("recovery_target_action", "promote");
    let mut older = Cluster::in_place(&host.scratch, "older", 15, &options);
    host.scratch.write(&older.data.join("recovery.signal"), b"");
    older.spawn();
    assert!(matches!(older.wait_recovery(), Recovery::Promoted));
    older.sql("select pg_switch_wal()");
    read_all(&older, "is not in the past of this server, which is on timeline 2");
    takes_over(&older);
}

#[test]
fn a_standby_takes_over_what_is_of_its_past() {
    for major in [13, 18] {
        let host = Host::new();
        let (primary, _) = with_still_table(&host, major);
        let standby = standby_of(&host, &primary, "standby", "off");
        let catch_up = || {
            let position = primary.sql("select pg_current_wal_lsn()");
            eventually("the standby follows", || standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{position}'")) == "t");
            standby.sql("checkpoint");
        };
        // It begins where the primary's last backup did, and that one has what came after its beginning.
        let of_primary = host.backup(&primary, &[]);
        catch_up();
        let conninfo = primary.conninfo();
        let first = host.backup(&standby, &["--primary", &conninfo]);
        assert_eq!((&first["start_lsn"], &first["parent_backup_id"]), (&of_primary["start_lsn"], &of_primary["backup_id"]));
        assert!(first["read_all_because"].as_str().unwrap().contains("ended at") && reads_all(&first), "{first:#}");
        primary.sql("update busy set t = 'changed' where i < 100");
        primary.sql("checkpoint");
        catch_up();
        let second = host.backup(&standby, &["--primary", &conninfo]);
        assert_eq!(second["read_all_because"], Value::Null, "{second:#}");
        assert!(number(&second, "taken_over_bytes") > 50_000_000, "{second:#}");
        let full = host.backup(&standby, &["--primary", &conninfo, "--read-all"]);
        same_as_a_full_read("standby", (&read_back(&host, &second), &second), &read_back(&host, &full));
        // And the primary what the standby's backup has.
        let back = host.backup(&primary, &[]);
        assert_eq!((&back["read_all_because"], &back["parent_backup_id"]), (&Value::Null, &full["backup_id"]), "{back:#}");
    }
}

/// Changes pages of a table of a stopped server so that they look as if a record had changed them that the log lacks.
fn change_behind_the_log(cluster: &mut Cluster, relation: &str, at: Lsn, pages: impl Iterator<Item = u64>) -> String {
    let (path, blocks) = pages_of(cluster, relation);
    cluster.stop(Stop::Fast);
    let mut content = fs::read(&path).unwrap();
    for block in pages.take_while(|block| *block < blocks) {
        let page: &mut [u8; PAGE_BYTES] = (&mut content[block as usize * PAGE_BYTES..][..PAGE_BYTES]).try_into().unwrap();
        page[..4].copy_from_slice(&((at.0 >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(at.0 as u32).to_le_bytes());
        page[8000] ^= 1;
        let sum = page_checksum(page, block as u32);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(&path, content).unwrap();
    cluster.start();
    path.strip_prefix(&cluster.data).unwrap().display().to_string()
}

#[test]
fn what_the_log_forgets_is_found_by_the_next_verification_of_pages() {
    let host = Host::new();
    let (mut cluster, first) = with_still_table(&host, 16);
    let start: Lsn = first["start_lsn"].as_str().unwrap().parse().unwrap();
    let path = change_behind_the_log(&mut cluster, "still", Lsn(start.0 + 64), std::iter::once(1234));
    let ran = host.ran(&cluster, &["--verify-pages", "1s"]).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let because = format!("page 1234 of {path} should be as it was: it was changed at ");
    assert!(report["read_all_because"].as_str().unwrap().starts_with(&because), "{report:#}");
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().starts_with(&because), "{report:#}");
    assert!(reads_all(&report), "{report:#}");
    // It has what is there now, and so has the next one.
    let content = fs::read(cluster.data.join(&path)).unwrap();
    assert!(read_back(&host, &report).files[&path].1 == content);
    let next = host.backup(&cluster, &["--verify-pages", "1s"]);
    assert_eq!(next["read_all_because"], Value::Null, "{next:#}");
    assert!(number(&next, "read_bytes") > 45_000_000 && read_back(&host, &next).files[&path].1 == content, "{next:#}");
}

#[test]
fn what_the_log_forgets_is_found_by_the_sample() {
    let host = Host::new();
    let (mut cluster, first) = with_still_table(&host, 14);
    let start: Lsn = first["start_lsn"].as_str().unwrap().parse().unwrap();
    change_behind_the_log(&mut cluster, "still", Lsn(start.0 + 64), 0..);
    // Of 500 extents a sample has none in one of 150 cases; each backup takes another one.
    let mut last = first;
    eventually("a sample finds it", || {
        let report = host.backup(&cluster, &[]);
        let found = report["read_all_because"].as_str().is_some_and(|why| why.contains("should be as it was"));
        if !found {
            // So that the next one has the same parent.
            let id = format!("/backups/{}", report["backup_id"].as_str().unwrap());
            let objects = files_below(&host.scratch.path().join("repository"));
            fs::remove_file(objects.iter().find(|path| path.to_str().unwrap().contains(&id)).unwrap()).unwrap();
        }
        last = report;
        found
    });
    assert!(reads_all(&last), "{last:#}");
}

/// Work of all kinds in a random order; after some of it a backup, and one that reads everything.
fn history(major: u32, seed: u64, rounds: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let host = Host::new();
    let options = host.options().setting("autovacuum", "off").setting("max_prepared_transactions", "5");
    let options = Options { wal_segsize_mib: 1, checksums: random.bool(), ..options };
    let options = options.setting("wal_compression", if random.bool() { "on" } else { "off" });
    let options = options.setting("full_page_writes", if random.bool() { "on" } else { "off" });
    let what = format!("PostgreSQL {major}, seed {seed}, {:?}", options.settings);
    let mut cluster = host.cluster("server", major, &options);
    let elsewhere = host.scratch.make_dir("elsewhere");
    cluster.sql(&format!("create tablespace elsewhere location '{}'", elsewhere.display()));
    for statement in TABLES.split(';').filter(|statement| !statement.trim().is_empty()) {
        cluster.sql(statement);
    }
    cluster.sql("create table untouched as select n, repeat('u', 400) t from generate_series(1, 20000) n");
    host.backup(&cluster, &[]);
    let mut work = WORK.iter();
    let mut taken = 0;
    for round in 0..rounds {
        for statement in work.by_ref().take(random.usize(1..=2 * WORK.len() / rounds)) {
            cluster.sql(statement);
            if random.u8(..6) == 0 {
                cluster.sql("checkpoint");
            }
        }
        if random.u8(..3) == 0 {
            cluster.stop(if random.bool() { Stop::Immediate } else { Stop::Fast });
            cluster.start();
        }
        cluster.sql(&format!("create database of_round_{round}"));
        cluster.sql("update heap set n = n + 1 where id % 97 = 3; select count(*) from untouched");
        let report = host.backup(&cluster, &[]);
        assert_eq!(report["read_all_because"], Value::Null, "{what}: {report:#}");
        taken += number(&report, "taken_over_bytes");
        let full = host.backup(&cluster, &["--read-all"]);
        let what = format!("{what}, round {round}");
        same_as_a_full_read(&what, (&read_back(&host, &report), &report), &read_back(&host, &full));
    }
    assert!(taken > rounds as u64 * 8_000_000, "{what}: only {taken} bytes were taken over");
    let objects = files_below(&host.scratch.path().join("repository"));
    let nodes = objects.iter().filter(|path| path.to_str().unwrap().contains("/index/00000001/c1/")).count();
    assert!(nodes > 1, "{what}: the changes of 16 segments are in no node");
    let report = host.backup(&cluster, &[]);
    let tables = ["heap", "toasted", "tail", "untouched"];
    let digest = cluster.digest(&tables);
    cluster.switch_and_archive();
    cluster.destroy();
    fs::rename(&elsewhere, host.scratch.path().join("was elsewhere")).unwrap();
    host.scratch.make_dir("elsewhere");
    let stored = read_back(&host, &report);
    let root = host.scratch.path().join("restored");
    stored.write_to(&host.scratch, &root);
    stored.move_tablespace(&root, &elsewhere);
    let mut restored = Cluster::in_place(&host.scratch, "restored", major, &Options { archive_command: None, ..options });
    host.scratch.write(&restored.data.join("recovery.signal"), b"");
    restored.spawn();
    assert!(matches!(restored.wait_recovery(), Recovery::Promoted), "{what}");
    assert_eq!(restored.digest(&tables), digest, "{what}");
    restored.destroy();
}

#[test]
fn histories_of_13_and_14() {
    history(13, 1, 5);
    history(14, 2, 4);
}

#[test]
fn histories_of_15_and_16() {
    history(15, 3, 5);
    history(16, 4, 4);
}

#[test]
fn histories_of_17_and_18() {
    history(17, 5, 5);
    history(18, 6, 4);
}

#[test]
#[ignore = "long: about 90 min"]
fn long_random_histories() {
    for seed in 0..100 {
        let major = 13 + u32::try_from(seed % 6).unwrap();
        history(major, 1000 + seed, 10);
        println!("seed {seed}, PostgreSQL {major}");
    }
}
