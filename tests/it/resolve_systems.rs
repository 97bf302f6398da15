//! A cluster whose system identifier changed, as `pg_upgrade` changes it: two logs under one name, and which of them is asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use crate::resolve::Site;
use crate::support::postgres::Cluster;

#[test]
fn an_upgraded_cluster_has_two_logs() {
    let site = Site::new(1);
    let mut old = site.primary(15);
    old.sql("create table t as select 1 as i");
    let time = old.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00')");
    old.sql("insert into t values (2)");
    old.switch_and_archive();
    let old_id = old.sql("select system_identifier from pg_control_system()");
    site.reaches(&format!("--target-time '{time}'"));
    old.destroy();

    let mut new = Cluster::init(&site.scratch, "upgraded", 18, &site.options);
    new.start();
    let new_id = new.sql("select system_identifier from pg_control_system()");
    let data = new.sql("show data_directory");
    assert!(site.walvis(&format!("init --pgdata '{data}'")).status.code() == Some(16), "the old one has the name");
    assert!(site.walvis(&format!("init --pgdata '{data}' --after-pg-upgrade")).status.success());
    new.sql("create table t as select 3 as i");
    new.switch_and_archive();

    let overview = site.overview();
    let systems = overview["systems"].as_array().unwrap();
    let ids: Vec<&str> = systems.iter().map(|s| s["system_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [old_id.as_str(), new_id.as_str()], "{overview:#}");
    for system in systems {
        assert_eq!(system["timelines"][0]["windows"].as_array().unwrap().len(), 1, "{overview:#}");
    }
    // The cluster is the upgraded one now: its newest commit, its end, and nothing of before.
    let earliest = site.reaches("--target latest")["earliest"]["lsn"].as_str().unwrap().to_owned();
    let latest = site.reaches(&format!("--target latest --from {earliest}"));
    assert_eq!(latest["system_id"], new_id.as_str(), "{latest:#}");
    assert_eq!(overview["newest_commit"]["lsn"], latest["last_included"]["lsn"], "{overview:#} {latest:#}");
    site.does_not_reach(&format!("--target-time '{time}'"));
    new.destroy();
}
