//! A cluster whose system identifier changed, as `pg_upgrade` changes it: two logs under one name, and which of them is
//! asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use crate::resolve::Site;
use crate::support::postgres::{Cluster, Recovery};

#[test]
fn an_upgraded_cluster_has_two_logs() {
    let site = Site::new(1);
    let mut old = site.primary(15);
    old.sql("create table t as select 1 as i");
    let of_old = site.store(&old.backup_to("old"));
    let time = old.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00')");
    old.sql("select pg_create_restore_point('before the upgrade')");
    let xid = old.sql("insert into t values (2) returning txid_current()");
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
    // Without a backup of it nothing leads anywhere, and the end of the old log is not its end.
    new.switch_and_archive();
    let json = site.does_not_reach("--target latest");
    assert!(json["system_id"] == new_id.as_str() && json["hint"].as_str().unwrap().contains(&*old_id), "{json:#}");
    let of_new = site.store(&new.backup_to("new"));
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
    // What only the old one had is found, and said to be the old one's.
    for target in [format!("--target-time '{time}'"), "--target-name 'before the upgrade'".to_owned()] {
        let json = site.reaches(&target);
        assert_eq!(
            (&json["system_id"], &json["backup"]["backup_id"]),
            (&old_id.as_str().into(), &of_old.to_string().into()),
            "{json:#}"
        );
        assert!(json["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains(&*old_id)), "{json:#}");
    }
    // Ids of transactions start anew, so they have to be asked for.
    let json = site.does_not_reach(&format!("--target-xid {xid}"));
    assert!(json["hint"].as_str().unwrap().contains(&format!("--system-id {old_id}")), "{json:#}");
    for target in [format!("--target-xid {xid}"), "--target latest".to_owned(), "--target immediate".to_owned()] {
        let json = site.reaches(&format!("{target} --system-id {old_id}"));
        assert_eq!(json["backup"]["backup_id"], of_old.to_string(), "{json:#}");
        let json = site.reaches(&format!("{target} --backup {of_old}"));
        assert_eq!(json["system_id"], old_id.as_str(), "{json:#}");
    }
    assert_eq!(site.reaches("--target immediate")["backup"]["backup_id"], of_new.to_string());
    site.does_not_reach(&format!("--target-time '{time}' --system-id {new_id}"));
    assert_eq!(site.walvis("resolve --target latest --system-id 5").status.code(), Some(15));
    let commits = site.list(&format!("--commits --system-id {old_id}"));
    assert!(commits.iter().any(|end| end["xid"].as_u64() == xid.parse().ok()), "{commits:?}");
    // A list of one of them has nothing of the other.
    let listed = |arguments: &str| -> Vec<(String, usize)> {
        let output = site.walvis(&format!("--json list {arguments}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let systems = json[0]["clusters"][0]["systems"].as_array().unwrap().iter();
        systems.map(|s| (s["system_id"].as_str().unwrap().to_owned(), s["backups"].as_array().unwrap().len())).collect()
    };
    assert_eq!(listed(""), [(old_id.clone(), 1), (new_id.clone(), 1)]);
    let files = |arguments: &str| {
        let lines = site.walvis(&format!("--json list --files {arguments}")).stdout;
        lines.iter().filter(|b| **b == b'\n').count()
    };
    let of_each = [&old_id, &new_id].map(|id| {
        assert_eq!(listed(&format!("--system-id {id}")), [(id.clone(), 1)]);
        files(&format!("--system-id {id}"))
    });
    assert!(of_each.iter().all(|n| *n > 0) && of_each.iter().sum::<usize>() == files(""), "{of_each:?}");
    for (arguments, code, said) in [
        ("list --system-id 5", 10, "nothing is stored of system identifier 5"),
        ("--cluster main list --system-id 5", 10, "nothing is stored of system identifier 5 of cluster main"),
        ("--cluster nobody list --system-id 5", 10, "nothing is stored of cluster nobody"),
        ("list --system-id five", 2, "--system-id"),
        ("list --system-id 18446744073709551616", 2, "--system-id"),
    ] {
        let output = site.walvis(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(said), "{arguments}: {:?} {stderr}", output.status);
    }
    // And restored.
    let place = site.scratch.path().join("restored");
    let command =
        format!("pitr-restore --pgdata '{}' --target-xid {xid} --backup {of_old} --target-action promote", place.display());
    let output = site.walvis(&command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut recovered = Cluster::restored(&site.scratch, "restored", 15, &site.options);
    recovered.spawn();
    assert!(matches!(recovered.wait_recovery(), Recovery::Promoted), "{}", recovered.log());
    assert_eq!(recovered.sql("select string_agg(i::text, ',' order by i) from t"), "1,2");
    recovered.destroy();
    new.destroy();
}
