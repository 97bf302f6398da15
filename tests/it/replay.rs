//! What WAL makes a recovering server do besides changing tables, seen before it is replayed: tablespaces at the paths of the original,
//! settings that a hot standby needs, `wal_level = minimal`, and records that make a base backup unusable.

use std::path::Path;

use serde_json::{Value, json};

use crate::pitr::Site;
use crate::support::postgres::{Cluster, Stop};

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

/// `resolve`, and so the plan, lists what replay makes at the original's paths, and the settings that it asks for; of the range that is replayed,
/// and of no more.
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
    let here = json!({"name": "max_connections", "value": 30, "at_backup": 30, "lsn": null});
    assert_eq!(*setting(&nothing, "max_connections"), here);
    assert_eq!(setting(&nothing, "max_prepared_transactions")["at_backup"], 20, "from pg_control");

    let made = site.json(&["resolve", "--target-name", "all made"]);
    let created = made["tablespaces_created"].as_array().unwrap();
    assert_eq!(created.len(), 1, "{created:#?}");
    assert_eq!((created[0]["oid"].as_u64(), Path::new(created[0]["path"].as_str().unwrap())), (Some(oid), dir.as_path()));
    assert!(created[0]["time"].as_str().is_some_and(|time| time.ends_with("+00:00")), "{created:#?}");
    let found: Vec<(u64, bool)> = made["databases_created"]
        .as_array()
        .unwrap()
        .iter()
        .map(|database| {
            assert_eq!(database["tablespace"].as_u64(), Some(oid));
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
    assert_eq!((&connections["value"], &connections["at_backup"]), (&json!(41), &json!(30)), "the highest, not the last");
    assert!(connections["lsn"].is_string());
    assert_eq!(setting(&plan, "max_locks_per_transaction")["value"], 70);
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
