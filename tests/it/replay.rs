//! What WAL makes a recovering server do besides changing tables, seen before it is replayed: tablespaces at the paths
//! of the original, settings that a hot standby needs, `wal_level = minimal`, and records that make a base backup
//! unusable.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::backup::copying;
use crate::pitr::{Site, promote};
use crate::support::command::{Ran, Running};
use crate::support::postgres::{Cluster, Recovery, Stop, parse_lsn, run};

fn number(cluster: &Cluster, sql: &str) -> u64 {
    cluster.sql(sql).parse().unwrap()
}

/// The value of one setting of a list.
fn setting<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["required_settings"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap_or(&Value::Null)
}

/// Changes settings of a server, which needs a restart.
fn restart_with(cluster: &mut Cluster, site: &Site, settings: &[(&str, &str)]) {
    let options = settings.iter().fold(site.options.clone(), |options, (name, value)| options.setting(name, value));
    cluster.stop(Stop::Fast);
    cluster.configure(&options);
    cluster.start();
}

/// `resolve`, and so the plan, lists what replay makes at the original's paths, and the settings that it asks for; of
/// the range that is replayed, and of no more.
fn lists_what_replay_makes(major: u32) {
    let site = Site::new();
    let mut primary = site.primary(major);
    let before = site.scratch.make_dir("before");
    primary.sql(&format!("create tablespace before location '{}'", before.display()));
    primary.sql("create database moves");
    site.backup(&primary, &[]);
    let point = primary.sql("select pg_create_restore_point('nothing yet')");
    let dir = site.scratch.make_dir("a new tablespace");
    primary.sql(&format!("create tablespace anew location '{}'", dir.display()));
    let oid = number(&primary, "select oid from pg_tablespace where spcname = 'anew'");
    primary.sql("alter database moves set tablespace anew");
    primary.sql("create database made tablespace anew");
    primary.sql("create database elsewhere tablespace before");
    let databases =
        ["moves", "made"].map(|name| number(&primary, &format!("select oid from pg_database where datname = '{name}'")));
    primary.sql("select pg_create_restore_point('all made')");
    primary.sql("drop database made");
    primary.sql("alter database moves set tablespace pg_default");
    primary.sql("drop tablespace anew");
    restart_with(&mut primary, &site, &[("max_connections", "41"), ("max_locks_per_transaction", "70")]);
    primary.sql("select pg_create_restore_point('raised')");
    restart_with(&mut primary, &site, &[("max_connections", "35")]);
    primary.sql("create table last (i int)");
    primary.switch_and_archive();

    let nothing = site.json(&["resolve", "--target-name", "nothing yet"]);
    for list in ["tablespaces_created", "tablespaces_dropped", "databases_created"] {
        assert_eq!(nothing[list], json!([]), "{list} before {point}");
    }
    let here = json!({"name": "max_connections", "minimum": 30, "at_backup": 30, "lsn": null});
    assert_eq!(*setting(&nothing, "max_connections"), here);
    assert_eq!(setting(&nothing, "max_prepared_transactions")["at_backup"], 20, "from pg_control");

    let made = site.json(&["resolve", "--target-name", "all made"]);
    let created = made["tablespaces_created"].as_array().unwrap();
    assert_eq!(created.len(), 1, "{created:#?}");
    assert_eq!((created[0]["oid"].as_u64(), Path::new(created[0]["path"].as_str().unwrap())), (Some(oid), dir.as_path()));
    assert!(created[0]["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{created:#?}");
    let found: Vec<(u64, bool)> = made["databases_created"]
        .as_array()
        .unwrap()
        .iter()
        .map(|database| {
            assert_eq!(database["tablespace_oid"].as_u64(), Some(oid));
            (database["oid"].as_u64().unwrap(), database["moved"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(found, [(databases[0], true), (databases[1], false)]);
    assert_eq!(made["tablespaces_dropped"], json!([]));

    // The plan of a restore has the whole of this.
    let plan = site.json(&["resolve", "--target", "latest"]);
    assert_eq!(plan["tablespaces_created"].as_array().unwrap().len(), 1, "created and dropped again: {plan:#}");
    assert_eq!(plan["tablespaces_dropped"][0]["oid"].as_u64(), Some(oid));
    let connections = setting(&plan, "max_connections");
    assert_eq!((&connections["minimum"], &connections["at_backup"]), (&json!(41), &json!(30)), "the highest, not the last");
    assert!(connections["lsn"].is_string());
    assert_eq!(setting(&plan, "max_locks_per_transaction")["minimum"], 70);
    let text = site.run(&["resolve", "--target", "latest"]).exits(0).stdout;
    for line in [
        format!("NEW TABLESPACE  {oid}, created at "),
        "max_connections = 41 or more".to_owned(),
        format!("drops           tablespace {oid}"),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
}

#[test]
fn pg13_lists_what_replay_makes() {
    lists_what_replay_makes(13);
}

#[test]
fn pg15_lists_what_replay_makes() {
    lists_what_replay_makes(15);
}

#[test]
fn pg18_lists_what_replay_makes() {
    lists_what_replay_makes(18);
}

/// Pushes by hand what a server without archiving has finished.
fn push_by_hand(site: &Site, cluster: &Cluster) {
    let last = cluster.sql("select pg_walfile_name(pg_switch_wal())");
    let mut names: Vec<String> = std::fs::read_dir(cluster.data.join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 24 && *name <= last)
        .collect();
    names.sort();
    for name in names {
        site.run(&["push-wal", cluster.data.join("pg_wal").join(name).to_str().unwrap()]).exits(0);
    }
}

/// A stretch of `wal_level = minimal` ends every recovery that comes to it, and is told from a gap: the files are all
/// there.
fn minimal_ends_a_window(major: u32) {
    let site = Site::new();
    let mut primary = site.primary(major);
    let first = site.backup(&primary, &[]);
    primary.sql("create table t as select 1 as i; select pg_create_restore_point('before')");
    let minimal = [("wal_level", "minimal"), ("archive_mode", "off"), ("max_wal_senders", "0")];
    restart_with(&mut primary, &site, &minimal);
    primary.sql("insert into t values (2)");
    let inside = primary.sql("select pg_current_wal_lsn()");
    primary.sql("insert into t values (3)");
    push_by_hand(&site, &primary);

    // As far as it gets, and no further.
    let latest = site.json(&["resolve", "--target", "latest"]);
    let stop = latest["stop"]["lsn"].as_str().unwrap();
    assert!(parse_lsn(stop) < parse_lsn(&inside), "{latest:#}");
    assert!(latest["notes"].to_string().contains("wal_level=minimal"), "{latest:#}");
    let mut restored = site.restore("latest", major, &["--target", "latest", "--target-action", "promote"]);
    promote(&mut restored);
    assert_eq!(restored.sql("select count(*), max(i) from t"), "1|1");
    restored.stop(Stop::Fast);

    restart_with(&mut primary, &site, &[]);
    let refused = |arguments: &[&str]| -> Value {
        let ran: Ran = site.run(&[&["--json", "resolve"], arguments].concat()).exits(15);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    primary.sql("insert into t values (4)");
    primary.switch_and_archive();
    // Until there is a backup again, nothing leads to what comes after it.
    let stranded = refused(&["--target", "latest"]);
    assert!(stranded["reason"].as_str().unwrap().contains(": WAL was written with wal_level=minimal from "), "{stranded:#}");
    let second = site.backup(&primary, &[]);
    primary.sql("insert into t values (5)");
    primary.switch_and_archive();

    let latest = site.json(&["resolve", "--target", "latest"]);
    assert_eq!((latest["backup"]["backup_id"].as_str(), latest["stop"].is_null()), (Some(second.id()), true), "{latest:#}");
    let beyond = refused(&["--backup", first.id(), "--target", "latest"]);
    assert!(beyond["reason"].as_str().unwrap().contains("wal_level=minimal"), "{beyond:#}");
    let within = refused(&["--target-lsn", &inside]);
    let reason = within["reason"].as_str().unwrap();
    assert!(reason.starts_with("WAL was written with wal_level=minimal from ") && reason.contains(" to "), "{within:#}");
    let near = |side: &str| parse_lsn(within[side]["lsn"].as_str().unwrap_or_else(|| panic!("{within:#}")));
    assert!(near("nearest_before") <= parse_lsn(stop) && near("nearest_after") > parse_lsn(&inside), "{within:#}");
    let before = site.json(&["resolve", "--target-name", "before"]);
    assert_eq!(before["backup"]["backup_id"].as_str(), Some(first.id()));
    let catalog = site.json(&["catalog"]);
    let timeline = &catalog["systems"][0]["timelines"][0];
    let windows = timeline["windows"].as_array().unwrap();
    assert_eq!((windows.len(), windows[0]["until"]["lsn"].as_str()), (2, Some(stop)), "{timeline:#}");
    assert!(timeline["gaps"].as_array().unwrap().iter().any(|gap| gap["kind"] == "minimal"), "{timeline:#}");

    // The server agrees: it fails there, at whatever target beyond.
    let mut beyond = site.restore("beyond", major, &["--backup", first.id(), "--target-name", "before"]);
    let settings = beyond.data.join("postgresql.auto.conf");
    let mut text = std::fs::read_to_string(&settings).unwrap();
    text.push_str("recovery_target_lsn = ''\nrecovery_target_name = ''\nrecovery_target = ''\n");
    site.scratch.write(&settings, text.as_bytes());
    beyond.spawn();
    match beyond.wait_recovery() {
        Recovery::Exited(_) => {}
        Recovery::Promoted => panic!("the server got over it"),
    }
}

#[test]
fn pg13_minimal_ends_a_window() {
    minimal_ends_a_window(13);
}

#[test]
fn pg15_minimal_ends_a_window() {
    minimal_ends_a_window(15);
}

#[test]
fn pg18_minimal_ends_a_window() {
    minimal_ends_a_window(18);
}

/// A backup that has begun to copy files, and does not go on.
fn held_backup(site: &Site, primary: &Cluster) -> Running {
    let mut running = site.start_backup(primary, &["--max-rate", "16", "--jobs", "1"]);
    copying(primary, &mut running);
    running.signal(Signal::SIGSTOP);
    assert!(!running.has_ended(), "the backup was too quick");
    running
}

fn go_on(running: Running) -> Ran {
    running.signal(Signal::SIGCONT);
    running.wait()
}

/// A database that is moved, or copied from one that is then changed or dropped, while a backup runs, is lost in it:
/// replay copies what the backup has of its source. Such a backup does not count. What else is done to databases does
/// no harm.
fn a_spoiled_backup_does_not_count(major: u32) {
    let site = Site::new();
    let primary = site.primary(major);
    let side = site.scratch.make_dir("side");
    let by_copy = if major >= 15 { " strategy file_copy" } else { "" };
    primary.sql(&format!("create tablespace side location '{}'", side.display()));
    for name in ["moves", "model", "ends"] {
        primary.sql(&format!("create database {name}"));
    }
    let during = |statements: &[String]| -> Ran {
        let running = held_backup(&site, &primary);
        for statement in statements {
            primary.sql(statement);
        }
        go_on(running)
    };
    let harmless = [
        format!("create database copied template model{by_copy}"),
        "create database made tablespace side".to_owned(),
        "drop database made".to_owned(),
        "drop database ends".to_owned(),
    ];
    during(&harmless).exits(0);
    assert_eq!(site.backups().len(), 1);

    let moved = during(&["alter database moves set tablespace side".to_owned()]).exits(18).tells_the_way_out();
    moved.says(&["database moves (oid ", "was moved to another tablespace", "take another backup"]);
    assert_eq!(site.backups().len(), 1, "it is not stored");

    let removed = during(&[format!("create database twin template model{by_copy}"), "drop database model".to_owned()]);
    removed.exits(18).tells_the_way_out().says(&["database twin (oid ", "was copied from model (oid "]);

    let running = held_backup(&site, &primary);
    primary.sql(&format!("create database late template copied{by_copy}"));
    let psql = primary.postgres().client_tool("psql").expect("psql");
    let source = primary.conninfo().replace("dbname=postgres", "dbname=copied");
    run(site.scratch.command(&psql).args([&source, "-c", "create table late (i int)"]));
    go_on(running).exits(18).says(&["database late (oid ", "which was then changed"]);

    assert_eq!(site.backups().len(), 1);
    site.backup(&primary, &[]);
    assert_eq!(site.backups().len(), 2, "the next one counts");
}

#[test]
fn pg13_a_spoiled_backup_does_not_count() {
    a_spoiled_backup_does_not_count(13);
}

#[test]
fn pg18_a_spoiled_backup_does_not_count() {
    a_spoiled_backup_does_not_count(18);
}
