//! Which servers are backed up, and which are refused.

use super::*;

#[test]
fn pg_control_says_what_the_server_says() {
    for major in 13..=18 {
        let host = Host::new();
        let mut primary = host.cluster("server", major, &host.options().setting("wal_level", "replica"));
        let standby = standby_of(&host, &primary, "standby", "off");
        primary.sql("create table t as select generate_series(1, 1000)");
        primary.switch_and_archive();
        for cluster in [&primary, &standby] {
            cluster.sql("checkpoint");
            let seen = || {
                let control = fs::read(cluster.data.join("global/pg_control")).unwrap();
                let control = walvis::pg::ControlFile::parse(&control).ok()?;
                let values = cluster.sql(
                    "select system_identifier, catalog_version_no, checkpoint_lsn, redo_lsn, timeline_id, min_recovery_end_lsn,
                     min_recovery_end_timeline, data_page_checksum_version > 0, database_block_size, blocks_per_segment,
                     bytes_per_wal_segment from pg_control_system(), pg_control_checkpoint(), pg_control_recovery(), pg_control_init()",
                );
                let found = format!(
                    "{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
                    control.system_id,
                    control.catalog_version,
                    control.checkpoint,
                    control.redo,
                    control.timeline,
                    control.min_recovery_point,
                    control.min_recovery_timeline,
                    if control.page_checksums { "t" } else { "f" },
                    control.page_bytes,
                    control.pages_per_file,
                    control.wal_segment_size.bytes()
                );
                Some((found, values))
            };
            // The standby goes on in between.
            eventually(&format!("{major}: {:?}", seen()), || seen().is_some_and(|(found, values)| found == values));
            if cluster.sql("select pg_is_in_recovery()") == "t" {
                assert_ne!(cluster.sql("select min_recovery_end_lsn from pg_control_recovery()"), "0/0");
            }
        }
        use walvis::pg::ClusterState;
        let state = |cluster: &Cluster| {
            walvis::pg::ControlFile::parse(&fs::read(cluster.data.join("global/pg_control")).unwrap()).unwrap().state
        };
        assert_eq!((state(&primary), state(&standby)), (ClusterState::InProduction, ClusterState::ArchiveRecovery));
        primary.stop(Stop::Fast);
        assert_eq!(state(&primary), ClusterState::ShutDown);
    }
}

/// A standby that follows `primary` over the archive and its connection.
pub(super) fn standby_of(host: &Host, primary: &Cluster, name: &str, archive_mode: &str) -> Cluster {
    let backup = primary.backup_to(&format!("{name}.copy"));
    let options = host.options().setting("archive_mode", archive_mode).setting("primary_conninfo", &primary.conninfo());
    let mut standby = Cluster::restore(&host.scratch, name, &backup, Role::Standby, &options);
    standby.start();
    standby
}

#[test]
fn a_standby_is_backed_up_with_the_help_of_its_primary() {
    for major in [13, 18] {
        let host = Host::new();
        let primary = host.cluster("server", major, &host.options());
        primary.sql("create table t as select generate_series(1, 5000) i");
        let standby = standby_of(&host, &primary, "standby", "off");
        eventually("the standby follows", || standby.sql("select count(*) from pg_class where relname = 't'") == "1");
        primary.sql("insert into t select generate_series(1, 5000)");
        let report = host.backup(&standby, &["--primary", &primary.conninfo()]);
        assert_eq!((&report["from_standby"], &report["timeline"]), (&Value::Bool(true), &Value::from(1)));
        assert_eq!(report["system_id"], primary.sql("select system_identifier from pg_control_system()"));
        let root = host.scratch.path().join("restored");
        let stored = read_back(&host, &report);
        assert!(stored.files["backup_label"].1.windows(20).any(|text| text == b"BACKUP FROM: standby"));
        stored.write_to(&host.scratch, &root);
        // What followed the primary must not do so any more.
        fs::remove_file(root.join("standby.signal")).unwrap();
        let mut restored = restored(&host, "restored", major);
        assert!(matches!(restored.wait_recovery(), Recovery::Promoted));
        // The primary's directory is not the standby's, though the system identifier is the same.
        let data = primary.data.display().to_string();
        host.ran(&standby, &["--pgdata", &data]).exits(16).says(&["is not the data directory of the server"]);
        host.ran(&primary, &["--primary", &primary.conninfo()]).exits(2);
        // Without help the last segment does not come, and that is said.
        primary.sql("insert into t select generate_series(1, 5000)");
        primary.sql("checkpoint");
        let position = primary.sql("select pg_current_wal_lsn()");
        eventually("the standby follows", || standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{position}'")) == "t");
        let ran = host.ran(&standby, &["--timeout", "4"]).exits(17);
        ran.says(&["did not arrive", "--primary"]);
        assert_eq!(host.manifests(), 1);
    }
}

#[test]
fn another_servers_directory_is_refused() {
    let host = Host::new();
    let first = host.cluster("first", 15, &host.options());
    let second = Host::new();
    let other = second.cluster("other", 15, &second.options());
    let data = other.data.display().to_string();
    host.ran(&first, &["--pgdata", &data]).exits(16).says(&["is not the data directory of the server"]).tells_the_way_out();
    let nowhere = host.scratch.path().join("nothing").display().to_string();
    host.ran(&first, &["--pgdata", &nowhere]).exits(10).says(&["is no data directory"]).tells_the_way_out();
    host.backup(&first, &[]);
    // The name belongs to the first one now.
    host.ran(&other, &[]).exits(16).says(&["belongs to system identifier"]).tells_the_way_out();
    assert_eq!(host.manifests(), 1);
}

#[test]
fn without_archiving_there_is_no_backup() {
    let host = Host::new();
    let off = host.cluster("off", 15, &Options { archive_command: None, ..host.options() });
    host.ran(&off, &[]).exits(17).says(&["archive_mode is off"]).tells_the_way_out();
    drop(off);
    let empty = host.cluster(
        "empty",
        15,
        &Options { archive_command: Some(String::new()), ..host.options() }.setting("archive_mode", "on"),
    );
    host.ran(&empty, &[]).exits(17).says(&["archive_command is empty"]).tells_the_way_out();
    drop(empty);
    // It archives, but elsewhere.
    let elsewhere = host.cluster("elsewhere", 15, &Options { archive_command: Some("true".to_owned()), ..host.options() });
    host.ran(&elsewhere, &["--timeout", "4"]).exits(17).says(&["did not arrive"]).tells_the_way_out();
    elsewhere.sql("alter system set archive_command = 'false'");
    elsewhere.sql("select pg_reload_conf()");
    elsewhere.switch_wal();
    let fails =
        || elsewhere.sql("select last_failed_time > coalesce(last_archived_time, '-infinity') from pg_stat_archiver") == "t";
    eventually("the archiver fails", fails);
    host.ran(&elsewhere, &[]).exits(17).says(&["the archiver fails"]).tells_the_way_out();
    assert_eq!(host.manifests(), 0);
}

#[test]
fn a_role_with_the_documented_rights_is_enough() {
    for (major, start, stop) in [
        (14, "pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"),
        (18, "pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"),
    ] {
        let host = Host::new();
        let cluster = host.cluster("server", major, &host.options());
        cluster.sql("create role saver login");
        let conninfo = cluster.conninfo().replace("user=postgres", "user=saver");
        let take = || run_program(&mut host.command(&host.arguments(&conninfo, &[])));
        take().exits(17).says(&["--pgdata", "pg_read_all_settings"]);
        cluster.sql("grant pg_read_all_settings to saver");
        take().exits(17).says(&["permission denied for function", "EXECUTE"]);
        cluster.sql(&format!("grant execute on function {start} to saver"));
        cluster.sql(&format!("grant execute on function {stop} to saver"));
        cluster.sql("create database closed");
        cluster.sql("revoke connect on database closed from public");
        let closed = |report: &Value| {
            let databases = report["databases"].as_array().unwrap();
            databases.iter().find(|database| database["name"] == "closed").unwrap()["bytes"].as_u64()
        };
        let report = serde_json::from_str(&take().exits(0).stdout).unwrap();
        assert_eq!(closed(&report), None, "{report:#}");
        cluster.sql("grant pg_read_all_stats to saver");
        let report = serde_json::from_str(&take().exits(0).stdout).unwrap();
        assert!(closed(&report).unwrap() > 1_000_000, "{report:#}");
    }
}

#[test]
fn wrong_options_are_refused_before_anything_happens() {
    let host = Host::new();
    let cluster = host.cluster("server", 15, &host.options());
    for wrong in
        [&["--jobs", "0"][..], &["--max-rate", "0"], &["--annotate", "x"], &["--annotate", "=x"], &["--label", "two\nlines"]]
    {
        host.ran(&cluster, wrong).exits(2);
    }
    host.ran(&cluster, &["--annotate", "a=1", "--annotate", "a=2"]).exits(2).says(&["given twice"]).tells_the_way_out();
    assert_eq!(host.manifests(), 0);
}
