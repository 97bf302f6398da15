//! Working ahead with real servers: a backlog, a recovery, a standby, and shutdowns in the middle of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::recovery::Archive;
use crate::support::command::{helpers_below, processes_below};
use crate::support::postgres::{Cluster, Load, Options, Recovery, Role, Scratch, Stop, poll};
use crate::support::s3::S3Server;

/// Makes segments while nothing is archived.
fn make_backlog(cluster: &Cluster, segments: usize) -> String {
    cluster.sql("create table if not exists filler (n int, text text)");
    let mut last = String::new();
    for n in 0..segments {
        cluster.sql(&format!("insert into filler select {n}, repeat(md5(g::text), 8) from generate_series(1, 300) g"));
        last = cluster.switch_wal();
    }
    last
}

fn waiting(data: &Path) -> usize {
    let names = fs::read_dir(data.join("pg_wal/archive_status")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".ready")).count()
}

/// The settings of a server that archives nothing yet.
fn not_yet(options: &Options) -> Options {
    Options { archive_command: Some("false".to_owned()), ..options.clone() }
}

fn reload(cluster: &Cluster, options: &Options) {
    cluster.configure(options);
    assert_eq!(cluster.sql("select pg_reload_conf()"), "t");
}

/// A backlog is archived ahead, survives an immediate shutdown in its middle, and comes back through the spool.
fn backlog_and_back(major: u32, archive: impl FnOnce(&Scratch) -> Archive) {
    let scratch = Scratch::new();
    let archive = archive(&scratch);
    let options = Options { wal_segsize_mib: 1, ..archive.options() };
    let mut primary = Cluster::init(&scratch, "primary", major, &options);
    primary.start();
    let backup = primary.backup_to("base");
    reload(&primary, &not_yet(&options));
    make_backlog(&primary, 150);
    reload(&primary, &options);
    // An immediate shutdown kills the process group of a call, and no helper. Whatever is in the middle of something is
    // done again.
    let spool = primary.data.join("pg_wal/walvis");
    let in_the_middle = poll(|| fs::read_dir(spool.join("pushed")).is_ok_and(|names| names.count() >= 3).then_some(()));
    assert!(in_the_middle.is_some(), "nothing is pushed ahead");
    assert!(waiting(&primary.data) > 20, "it came too late to the middle");
    primary.stop(Stop::Immediate);
    primary.start();
    let last = make_backlog(&primary, 3);
    primary.wait_archived(&last);
    let expected = primary.sql("select count(*), sum(n) from filler");
    let ended = poll(|| helpers_below(&primary.data).is_empty().then_some(()));
    assert!(ended.is_some(), "a helper outlives the backlog");
    primary.destroy();

    let mut recovered = Cluster::restore(&scratch, "recovered", &backup, Role::Recovery, &options);
    recovered.spawn();
    // Killed in the middle of the prefetch, and started again.
    let asked =
        poll(|| fs::read_dir(recovered.data.join("pg_wal/walvis/fetched")).is_ok_and(|names| names.count() > 0).then_some(()));
    assert!(asked.is_some(), "nothing is fetched ahead");
    recovered.kill();
    recovered.spawn();
    match recovered.wait_recovery() {
        Recovery::Promoted => {}
        Recovery::Exited(status) => recovered.fail(&format!("recovery ended with {status}")),
    }
    assert_eq!(recovered.sql("select count(*), sum(n) from filler"), expected);
    let ended = poll(|| helpers_below(&recovered.data).is_empty().then_some(()));
    assert!(ended.is_some(), "a helper outlives recovery: {:?}", processes_below(&recovered.data));
    let left = fs::read_dir(recovered.data.join("pg_wal/walvis/fetched")).unwrap().count();
    assert_eq!(left, 0, "the prefetch left something behind");
}

#[test]
fn pg15_backlog_and_back() {
    backlog_and_back(15, Archive::walvis);
}

#[test]
fn pg13_backlog_and_back() {
    backlog_and_back(13, Archive::walvis);
}

#[test]
fn pg18_backlog_and_back_on_s3() {
    let server = S3Server::start_tls();
    server.set_latency(Duration::from_millis(10));
    backlog_and_back(18, |scratch| Archive::walvis_s3(scratch, &server));
}

/// A standby that reads the archive while it is written by several threads at once neither stops nor promotes.
#[test]
fn a_standby_follows_an_archive_that_is_written_ahead() {
    let scratch = Scratch::new();
    let server = S3Server::start_tls();
    server.set_latency(Duration::from_millis(5));
    let archive = Archive::walvis_s3(&scratch, &server);
    let options = Options { wal_segsize_mib: 1, ..archive.options() };
    let mut primary = Cluster::init(&scratch, "primary", 17, &options);
    primary.start();
    let backup = primary.backup_to("base");
    let load = Load::start(&primary, 1);
    load.wait_for(5);
    // It archives too what it restores: both work ahead, on the same names.
    let standby_options = options.clone().setting("archive_mode", "always");
    let mut standby = Cluster::restore(&scratch, "standby", &backup, Role::Standby, &standby_options);
    standby.start();
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        reload(&primary, &not_yet(&options));
        make_backlog(&primary, 25);
        reload(&primary, &options);
        acknowledged = load.acknowledged();
        let end = primary.sql("select pg_current_wal_insert_lsn()");
        primary.switch_and_archive();
        let follows = poll(|| match standby.exited() {
            Some(_) => Some(false),
            None => (standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t").then_some(true),
        });
        if follows != Some(true) {
            standby.fail(&format!("the standby does not get to {end}"));
        }
    }
    primary.destroy();
    load.abandon();
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
    standby.sql("select pg_promote()");
    standby.assert_ledger(&acknowledged);
    let last = standby.switch_and_archive();
    assert!(last.starts_with("00000002"), "{last}");
}
