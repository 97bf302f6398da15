//! What becomes of a restored server: the settings of its recovery end with it, others can be made from it, and it can
//! be a standby.

use std::fs;
use std::path::Path;

use crate::pitr::{Site, exists};
use crate::support::postgres::{Cluster, Recovery, Stop, poll, run};

fn settings_of(data: &Path) -> String {
    fs::read_to_string(data.join("postgresql.auto.conf")).unwrap()
}

#[track_caller]
fn has(cluster: &Cluster, rows: &str) {
    let count = || cluster.sql("select count(*) from t");
    if poll(|| (count() == rows).then_some(())).is_none() {
        cluster.fail(&format!("it has {} rows, and never {rows}", count()));
    }
}

/// Restored to a pause, looked at, changed a little, and resumed. Nobody but the server itself knows when recovery is
/// over.
fn promoted_after_a_pause(site: &Site, major: u32) -> Cluster {
    let mut primary = site.primary(major);
    primary.sql("create table t as select 1 as i");
    site.backup(&primary, &[]);
    primary.sql("insert into t values (2)");
    primary.sql("select pg_create_restore_point('here')");
    primary.sql("insert into t values (3)");
    primary.switch_and_archive();
    primary.destroy();
    let mut restored = site.restore("restored", major, &["--target-name", "here"]);
    restored.spawn();
    restored.wait_paused();
    assert!(settings_of(&restored.data).contains("recovery_target_lsn"));
    // The server writes the file anew, without comments.
    restored.sql("alter system set work_mem = '5MB'");
    restored.sql("select pg_wal_replay_resume()");
    match restored.wait_recovery() {
        Recovery::Promoted => {}
        Recovery::Exited(status) => restored.fail(&format!("recovery ended with {status}")),
    }
    assert_eq!(restored.sql("select count(*) from t"), "2");
    let settings = settings_of(&restored.data);
    for gone in ["recovery_", "restore_command", "archive_cleanup_command"] {
        assert!(!settings.contains(gone), "{gone} is left in: {settings}");
    }
    assert!(settings.contains("archive_mode = 'off'") && settings.contains("work_mem = '5MB'"), "{settings}");
    // Nobody is to find out only later that it does not archive.
    assert!(restored.log().contains("the server does not archive"), "{}", restored.log());
    restored
}

#[test]
fn pg13_the_settings_of_a_recovery_end_with_it() {
    promoted_after_a_pause(&Site::new(), 13).stop(Stop::Fast);
}

#[test]
fn pg18_the_settings_of_a_recovery_end_with_it() {
    promoted_after_a_pause(&Site::new(), 18).stop(Stop::Fast);
}

#[test]
fn pg15_standbys_of_a_promoted_restore_follow_a_failover() {
    let site = Site::new();
    let mut restored = promoted_after_a_pause(&site, 15);
    let program = site.scratch.client_tool(15, "pg_basebackup").expect("pg_basebackup 15");
    let mut standbys = ["one", "other"].map(|name| {
        let mut command = site.scratch.command(&program);
        command.args(["-R", "-c", "fast", "--no-sync", "-X", "stream", "-d", &restored.conninfo(), "-D"]);
        run(command.arg(site.place(name)));
        let options = crate::support::postgres::Options { archive_command: None, ..site.options.clone() };
        let mut standby = Cluster::in_place(&site.scratch, name, 15, &options);
        standby.start();
        standby
    });
    restored.sql("insert into t values (4)");
    standbys.iter().for_each(|standby| has(standby, "3"));
    restored.stop(Stop::Fast);
    let [one, other] = &mut standbys;
    one.sql("select pg_promote()");
    other.sql(&format!("alter system set primary_conninfo = '{}'", one.conninfo()));
    other.sql("select pg_reload_conf()");
    one.sql("insert into t values (5)");
    has(other, "4");
    other.stop(Stop::Fast);
    one.stop(Stop::Fast);
}

#[test]
fn pg17_a_standby_is_made_from_the_repository() {
    let site = Site::new();
    let mut primary = site.primary(17);
    primary.sql("create table t as select 1 as i");
    site.backup(&primary, &[]);
    primary.sql("insert into t values (2)");
    primary.switch_and_archive();
    let usage = ["--standby", "--target-action", "promote"];
    site.try_restore("standby", &usage).exits(2);
    let mut standby = site.restore("standby", 17, &["--standby", "--primary", &primary.conninfo()]);
    let data = standby.data.clone();
    assert!(exists(&data.join("standby.signal")) && !exists(&data.join("recovery.signal")));
    assert!(!settings_of(&data).contains("archive_mode"), "a standby archives as its primary does: {}", settings_of(&data));
    standby.start();
    primary.sql("insert into t values (3)");
    has(&standby, "3");
    primary.switch_and_archive();
    primary.stop(Stop::Fast);
    standby.sql("select pg_promote()");
    standby.sql("insert into t values (4)");
    standby.stop(Stop::Fast);

    // On the archive alone, started by Walvis.
    let programs = primary.postgres().home.join("bin");
    let place = site.place("alone");
    let arguments =
        ["pitr-restore", "--pgdata", place.to_str().unwrap(), "--standby", "--start", "--bin-dir", programs.to_str().unwrap()];
    let _server = Cluster::started_by_others(&site.scratch, "alone", 17, &site.options, &primary);
    let report = site.json(&arguments);
    assert_eq!(report["server"]["state"], "standby", "{report:#}");
    // The primary's sockets are those of its settings.
    has(&primary, "3");
}
