//! `--delta` over a data directory: a server that may run there, WAL that is nowhere else, a `pg_wal` behind a link,
//! the roots of file systems.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::pitr::{Site, exists, promote};
use crate::support::command::{self, Ran};
use crate::support::postgres::{Cluster, Stop};

/// The arguments that take over a data directory.
fn delta<'a>(data: &'a Path, further: &[&'a str]) -> Vec<&'a str> {
    [&["pitr-restore", "--pgdata", data.to_str().unwrap(), "--target", "latest", "--delta"], further].concat()
}

/// Runs `walvis` as in another container: it sees neither the processes of this one nor their shared memory. `None`
/// where no such namespaces may be made.
fn in_another_container(site: &Site, arguments: &[&str]) -> Option<Ran> {
    const NAMESPACES: [&str; 6] = ["--user", "--map-current-user", "--pid", "--ipc", "--fork", "--mount-proc"];
    let may = site.scratch.command(Path::new("unshare")).args(NAMESPACES).arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let inner = site.command(arguments);
    let mut outer = site.scratch.command(Path::new("unshare"));
    outer.args(NAMESPACES).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    Some(command::run(&mut outer))
}

/// Whether all processes of this kernel can be seen from here.
fn sees_every_process() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/pid").unwrap().ino() == 0xEFFF_FFFC
}

/// What the root of a file system has: nobody but root may look into it.
fn make_root_of_a_file_system(site: &Site, directory: &Path) {
    let path = directory.join("lost+found");
    fs::create_dir(&path).unwrap();
    site.scratch.give(&path);
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn pg15_a_living_server_and_its_wal_are_not_taken_over() {
    let mut site = Site::new();
    let wal = site.scratch.path().join("wal elsewhere");
    site.options.initdb = vec![format!("--waldir={}", wal.display())];
    let mut primary = site.primary(15);
    let data = primary.data.clone();
    primary.sql("create table t as select 1 as i");
    site.backup(&primary, &[]);
    primary.sql("insert into t values (2)");
    primary.switch_and_archive();

    // It runs, here or elsewhere, whatever the operator says.
    site.run(&delta(&data, &[])).exits(16).says(&["is in use"]).tells_the_way_out();
    site.run(&delta(&data, &["--server-is-stopped"])).exits(16).says(&["is in use"]);
    if let Some(ran) = in_another_container(&site, &delta(&data, &[])) {
        ran.exits(16).says(&["may be in use", "postmaster.pid", "another container", "--server-is-stopped"]);
    }
    assert_eq!(primary.sql("select count(*) from t"), "2");

    // It ends at once, with a commit that waits to be archived, and one in the segment that it wrote.
    primary.sql("alter system set archive_command = 'false'");
    primary.sql("select pg_reload_conf()");
    primary.sql("insert into t values (3)");
    let waits = primary.switch_wal();
    primary.sql("insert into t values (4)");
    let written = primary.segment_name(1, crate::support::postgres::parse_lsn(&primary.sql("select pg_current_wal_lsn()")));
    primary.kill();
    assert!(exists(&data.join("postmaster.pid")));
    if sees_every_process() {
        let ran = site.run(&delta(&data, &[])).exits(16);
        ran.says(&[&waits, &written, "--discard-unarchived-wal"]);
    } else {
        site.run(&delta(&data, &[])).exits(16).says(&["may be in use", "--server-is-stopped"]);
    }
    let refused = site.run(&delta(&data, &["--server-is-stopped"])).exits(16);
    refused.says(&["is not in", &waits, &format!("{written} (1 commit)"), "--discard-unarchived-wal"]);
    assert!(exists(&data.join("global/pg_control")) && exists(&wal.join(&written)));

    // Stopped in good order it has archived all, and what it wrote at its end does not matter.
    primary.start();
    primary.sql("alter system reset archive_command");
    primary.sql("select pg_reload_conf()");
    primary.wait_archived(&waits);
    primary.stop(Stop::Fast);
    for directory in [&data, &wal, &data.join("base")] {
        make_root_of_a_file_system(&site, directory);
    }
    let plan = site.json(&delta(&data, &["--plan"]));
    let note =
        format!("pg_wal is a link to {0} and will be a directory in the data directory: --waldir {0} keeps it", wal.display());
    let notes = plan["plan"]["restore"]["notes"].as_array().unwrap();
    assert!(notes.iter().any(|line| line.as_str().unwrap().starts_with(&note)), "{notes:?}");
    assert_eq!(plan["plan"]["restore"]["unarchived_wal"], Value::Array(Vec::new()));
    site.run(&delta(&data, &["--waldir", site.scratch.path().to_str().unwrap()])).exits(16).tells_the_way_out();
    site.run(&delta(&data, &["--waldir", wal.to_str().unwrap()])).exits(0);
    assert_eq!(fs::read_link(data.join("pg_wal")).unwrap(), wal);
    assert!(!exists(&wal.join(&written)) && exists(&wal.join("archive_status")));
    assert!([&data, &wal, &data.join("base")].iter().all(|directory| exists(&directory.join("lost+found"))));
    promote(&mut primary);
    assert_eq!(primary.sql("select count(*) from t"), "4");

    // The restored server does not archive. What it wrote is nowhere else.
    primary.sql("insert into t values (5)");
    primary.stop(Stop::Fast);
    site.run(&delta(&data, &[])).exits(16).says(&["00000002", "commit"]);
    let plan = site.json(&delta(&data, &["--plan", "--discard-unarchived-wal"]));
    assert!(plan["plan"]["restore"]["unarchived_wal"][0]["commits"].as_u64().unwrap() > 0, "{plan:#}");
    let done = site.run(&delta(&data, &["--discard-unarchived-wal"])).exits(0);
    assert!(done.stdout.contains("WILL BE LOST"), "{}", done.stdout);
    assert!(fs::symlink_metadata(data.join("pg_wal")).unwrap().is_dir() && exists(&wal.join("archive_status")));
    promote(&mut primary);
    assert_eq!(primary.sql("select count(*) from t"), "4");
    let _ = Command::new("chmod").arg("-R").arg("u+rwx").arg(site.scratch.path()).status();
}

/// A server that follows another: its last segment is the beginning of one that is archived whole.
#[test]
fn pg17_the_last_segment_of_a_standby_is_archived_by_its_primary() {
    use crate::support::postgres::{Options, Role, poll};
    let site = Site::new();
    let mut primary = site.primary(17);
    primary.sql("create table t as select 1 as i");
    site.backup(&primary, &[]);
    let copy = primary.backup_to("copy");
    let host = primary.conninfo().split_whitespace().next().unwrap().to_owned();
    let options =
        Options { archive_command: None, ..site.options.clone() }.setting("primary_conninfo", &format!("{host} user=postgres"));
    let mut standby = Cluster::restore(&site.scratch, "standby", &copy, Role::Standby, &options);
    standby.start();
    primary.sql("insert into t values (2)");
    let follows = poll(|| (standby.sql("select count(*) from t") == "2").then_some(()));
    assert!(follows.is_some(), "the standby does not follow");
    standby.stop(Stop::Fast);
    let data = standby.data.clone();
    let refused = site.run(&delta(&data, &[])).exits(16);
    refused.says(&["is not in", "commit"]);
    primary.sql("insert into t values (3)");
    primary.switch_and_archive();
    site.run(&delta(&data, &[])).exits(0);
}
