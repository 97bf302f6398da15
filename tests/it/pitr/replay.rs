//! What replay does outside the restored directory, and what it asks of the server's settings.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use walvis::deadline::Deadline;
use walvis::postgres::Server;

use crate::pitr::{Site, promote};
use crate::support::command::{self, Ran};
use crate::support::postgres::{Cluster, Stop};

/// `café` in Latin-1.
const LATIN: &[u8] = b"caf\xe9";

/// Restores with arguments that are bytes.
fn restore(site: &Site, name: &str, arguments: &[&str], bytes: &[OsString]) -> Ran {
    let place = site.place(name);
    let mut command = site.command(&[&["--json", "pitr-restore", "--pgdata", place.to_str().unwrap()], arguments].concat());
    command::run(command.args(bytes))
}

fn count(cluster: &Cluster) -> String {
    cluster.sql("select count(*) from t")
}

/// Tablespaces at paths that are not UTF-8, and one that was made after the backup: the original keeps what it has.
#[test]
fn pg15_tablespaces_of_the_original_are_not_touched() {
    let site = Site::new();
    let mut primary = site.primary(15);
    let odd = site.scratch.path().join(OsStr::from_bytes(LATIN));
    let late = site.scratch.make_dir("late");
    fs::create_dir(&odd).unwrap();
    site.scratch.give(&odd);
    // The path is in the encoding of the database that it is made from.
    primary.sql("create database l1 template template0 encoding 'LATIN1' locale 'C'");
    let latin = Server::connect_to(Some(&primary.conninfo()), Some("l1"), Deadline::after(Duration::from_secs(60))).unwrap();
    latin.row(&format!("create tablespace odd location '{}/café'", site.scratch.path().display())).unwrap();
    drop(latin);
    primary.sql("create table t tablespace odd as select generate_series(1, 100) i");
    site.backup(&primary, &[]);
    primary.sql("select pg_create_restore_point('before')");
    primary.sql(&format!("create tablespace late location '{}'", late.display()));
    primary.sql("create table l tablespace late as select generate_series(1, 7) i");
    primary.sql("insert into t values (101)");
    primary.switch_and_archive();

    // Neither is written to beside the server that uses them.
    let before = ["--target-name", "before"];
    let latest = ["--target", "latest"];
    let flag = "--tablespaces-at-original-places";
    restore(&site, "refused", &before, &[]).exits(16).says(&["caf\\xE9", flag]).tells_the_way_out();
    let original = [&before[..], &[flag]].concat();
    restore(&site, "refused", &original, &[]).exits(16).says(&["caf\\xE9", "is not empty"]).tells_the_way_out();
    let elsewhere = site.scratch.path().join(OsStr::from_bytes(b"new \xff"));
    let map = [odd.as_os_str(), OsStr::new("="), elsewhere.as_os_str()].join(OsStr::new(""));
    let mapped = [OsString::from("--tablespace-map"), map];
    let refused = restore(&site, "refused", &latest, &mapped).exits(16);
    refused.says(&["was made at", late.to_str().unwrap(), "--tablespaces-of-the-log-may-be-overwritten"]).tells_the_way_out();
    assert!(!site.place("refused").exists());
    let report: Value = serde_json::from_str(&restore(&site, "mapped", &before, &mapped).exits(0).stdout).unwrap();
    let hex = |path: &Path| serde_json::json!({"hex": hex::encode(path.as_os_str().as_bytes())});
    let tablespace = &report["plan"]["restore"]["tablespaces"][0];
    assert_eq!((&tablespace["from_path"], &tablespace["to_path"]), (&hex(&odd), &hex(&elsewhere)), "{report:#}");
    let mut clone = site.restored("mapped", 15);
    clone.spawn();
    clone.wait_paused();
    assert_eq!(count(&clone), "100");
    clone.sql("select pg_wal_replay_resume()");
    clone.wait_recovery();
    clone.sql("delete from t");
    clone.stop(Stop::Fast);
    primary.sql("checkpoint");
    assert_eq!((count(&primary).as_str(), primary.sql("select count(*) from l").as_str()), ("101", "7"));

    // It is lost. Its directories come back under their own names; what is left of the late one has to be given up in
    // words.
    let oid = primary.sql("select oid from pg_tablespace where spcname = 'late'");
    primary.destroy();
    fs::remove_dir_all(&odd).unwrap();
    let again = ["--target", "latest", flag];
    restore(&site, "again", &again, &[]).exits(16).says(&["is not empty"]);
    let overwrite = ["--target", "latest", flag, "--tablespaces-of-the-log-may-be-overwritten"];
    let report: Value = serde_json::from_str(&restore(&site, "again", &overwrite, &[]).exits(0).stdout).unwrap();
    let notes = report["plan"]["restore"]["notes"].to_string();
    assert!(notes.contains("replay will REMOVE"), "{notes}");
    recovers(site.restored("again", 15), &odd, &late, &oid);
    // The same where the directory is gone, which replay does not make.
    for path in [&odd, &late] {
        fs::remove_dir_all(path).unwrap();
    }
    restore(&site, "third", &latest, &[]).exits(16).says(&["caf\\xE9", flag]).tells_the_way_out();
    let map = [odd.as_os_str(), OsStr::new("="), site.scratch.path().join("anew").as_os_str()].join(OsStr::new(""));
    let mapped = [OsString::from("--tablespace-map"), map];
    restore(&site, "third", &latest, &mapped).exits(16).says(&["replay needs the directory", flag]).tells_the_way_out();
    restore(&site, "third", &again, &[]).exits(0);
    recovers(site.restored("third", 15), &odd, &late, &oid);
}

fn recovers(mut cluster: Cluster, odd: &Path, late: &Path, late_oid: &str) {
    promote(&mut cluster);
    assert_eq!((count(&cluster).as_str(), cluster.sql("select count(*) from l").as_str()), ("101", "7"));
    let links: Vec<PathBuf> =
        fs::read_dir(cluster.data.join("pg_tblspc")).unwrap().map(|e| fs::read_link(e.unwrap().path()).unwrap()).collect();
    assert!(links.len() == 2 && links.iter().any(|link| link == odd), "{links:?}");
    assert_eq!(fs::read_link(cluster.data.join("pg_tblspc").join(late_oid)).unwrap(), late);
    cluster.stop(Stop::Fast);
}

/// Settings that were raised after the backup, on a server that was no hot standby.
fn raised_settings(major: u32) {
    let mut site = Site::new();
    site.options = site.options.clone().setting("hot_standby", "off");
    let mut primary = site.primary(major);
    primary.sql("create table t as select generate_series(1, 100) i");
    site.backup(&primary, &[]);
    primary.stop(Stop::Fast);
    primary.configure(&site.options.clone().setting("max_connections", "60").setting("max_worker_processes", "12"));
    primary.start();
    primary.sql("insert into t values (101)");
    primary.sql("select pg_create_restore_point('here')");
    primary.sql("insert into t values (102)");
    primary.switch_and_archive();
    primary.stop(Stop::Fast);
    let programs = primary.postgres().home.join("bin");
    let start = ["--start", "--bin-dir", programs.to_str().unwrap()];
    for (name, target, state, rows) in
        [("paused", ["--target-name", "here"], "paused", "101"), ("latest", ["--target", "latest"], "promoted", "102")]
    {
        let _server = Cluster::started_by_others(&site.scratch, name, major, &site.options, &primary);
        let place = site.place(name);
        let report = site.json(&[&["pitr-restore", "--pgdata", place.to_str().unwrap()], &target[..], &start].concat());
        let settings = report["plan"]["restore"]["lasting_settings"].to_string();
        assert!(settings.contains("max_connections") && settings.contains("max_worker_processes"), "{settings}");
        assert!(!settings.contains("max_wal_senders"), "{settings}");
        assert_eq!(report["server"]["state"], state, "{report:#}");
        // Its socket is where the primary's was.
        assert_eq!(count(&primary), rows);
        assert_eq!(primary.sql("show max_connections"), "60");
    }
}

#[test]
fn pg13_settings_that_were_raised_after_the_backup() {
    raised_settings(13);
}

#[test]
fn pg18_settings_that_were_raised_after_the_backup() {
    raised_settings(18);
}
