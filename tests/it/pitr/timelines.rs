//! Several timelines, and none named; timelines of which little is stored; several repositories: what `resolve` says is
//! what the plan says and what PostgreSQL recovers to.

use std::fs;

use serde_json::Value;

use crate::pitr::{Site, objects, promote};
use crate::support::postgres::{Cluster, Stop, parse_lsn, poll};

const NOW: &str = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00')";
const ROWS: &str = "select string_agg(i::text, ',' order by i) from t";

/// The same answer of `resolve` and of the plan, exit codes included.
#[track_caller]
fn asks(site: &Site, arguments: &[&str], code: i32) -> Value {
    let resolve = site.run(&[&["--json", "resolve"], arguments].concat()).exits(code);
    let place = site.place("planned");
    let plan = ["--json", "pitr-restore", "--plan", "--pgdata", place.to_str().unwrap()];
    let plan = site.run(&[&plan[..], arguments].concat()).exits(code);
    let [resolved, planned]: [Value; 2] = [&resolve, &plan].map(|ran| serde_json::from_str(&ran.stdout).unwrap());
    assert_eq!(resolved, planned["plan"]["resolve"], "{arguments:?}");
    assert_eq!(resolved["reachable"], code == 0, "{arguments:?}: {resolved:#}");
    resolved
}

fn insert(cluster: &Cluster, value: u32) -> u64 {
    cluster.sql(&format!("insert into t values ({value}) returning txid_current()")).parse().unwrap()
}

/// Restores, and lets the server take writes and archive under the same name.
fn branch(site: &Site, name: &str, major: u32, arguments: &[&str]) -> Cluster {
    let arguments = [arguments, &["--target-action", "promote", "--archiving", "keep"]].concat();
    let mut cluster = site.restore(name, major, &arguments);
    cluster.configure(&site.options);
    promote(&mut cluster);
    cluster
}

fn wait_for_history(site: &Site, name: &str) {
    assert!(poll(|| (site.archive.objects(name).len() == 1).then_some(())).is_some(), "{name} is not archived");
}

/// A clone is promoted by accident while the primary goes on, and nothing but its history is archived.
fn an_orphan_of_which_only_the_history_is_stored(major: u32) {
    let site = Site::new();
    let mut primary = site.primary(major);
    primary.sql("create table t (i int)");
    site.backup(&primary, &[]);
    insert(&primary, 1);
    primary.sql("select pg_create_restore_point('here')");
    insert(&primary, 2);
    let time = primary.sql(NOW);
    insert(&primary, 3);
    primary.switch_and_archive();
    let mut orphan = branch(&site, "orphan", major, &["--target-name", "here"]);
    wait_for_history(&site, "00000002.history");
    orphan.kill();
    let last = insert(&primary, 4);
    primary.switch_and_archive();
    primary.stop(Stop::Fast);

    // Nothing of the primary is lost because somebody was promoted.
    let json = asks(&site, &["--target", "latest"], 0);
    assert_eq!((&json["timeline"], json["last_included"]["xid"].as_u64()), (&Value::from(1), Some(last)), "{json:#}");
    let mut recovered = site.recover("latest", major, &["--target", "latest"]);
    assert_eq!(recovered.sql(ROWS), "1,2,3,4");
    recovered.stop(Stop::Fast);
    // At that moment only timeline 1 was alive.
    let json = asks(&site, &["--target-time", &time], 0);
    assert_eq!(json["timeline"], 1, "{json:#}");
    let mut recovered = site.recover("time", major, &["--target-time", &time]);
    assert_eq!(recovered.sql(ROWS), "1,2");
    recovered.stop(Stop::Fast);
    // Who asks for the orphan gets what it had: the server by itself would go on in the WAL of the primary.
    let on_two = ["--target", "latest", "--target-timeline", "2"];
    let json = asks(&site, &on_two, 0);
    let fork = json["timeline_path"][0]["fork_lsn"].as_str().unwrap().to_owned();
    assert!(json["stop"]["is_fork"] == true && json["last_included"]["kind"] == "commit", "{json:#}");
    let bin = primary.postgres().home.join("bin");
    let place = site.place("started");
    let started = Cluster::started_by_others(&site.scratch, "started", major, &site.options, &primary);
    let arguments =
        ["--json", "pitr-restore", "--pgdata", place.to_str().unwrap(), "--start", "--bin-dir", bin.to_str().unwrap()];
    let ran = site.run(&[&arguments[..], &on_two].concat()).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["server"]["state"], "promoted", "{report:#}");
    assert_eq!(parse_lsn(report["server"]["lsn"].as_str().unwrap()), parse_lsn(&fork), "{report:#}");
    assert_eq!(started.sql(ROWS), "1");
    started.destroy();
    // What comes after its fork is not on it.
    let json = asks(&site, &["--target-time", &time, "--target-timeline", "2"], 15);
    assert!(json["nearest_before"]["lsn"].is_string(), "{json:#}");
}

#[test]
fn pg13_an_orphan_of_which_only_the_history_is_stored() {
    an_orphan_of_which_only_the_history_is_stored(13);
}

#[test]
fn pg18_an_orphan_of_which_only_the_history_is_stored() {
    an_orphan_of_which_only_the_history_is_stored(18);
}

/// Two timelines that are alive at a time; a fork of a fork; and then the history in the middle is lost.
#[test]
fn pg16_timelines_alive_at_a_time_and_a_history_that_is_lost() {
    let site = Site::new();
    let mut primary = site.primary(16);
    primary.sql("create table t (i int)");
    let made = site.backup(&primary, &[]);
    // The record that ends the backup is reached by it.
    let end = format!("{:X}/{:X}", made.stop_lsn() >> 32, (made.stop_lsn() & 0xFFFF_FFFF) - 8);
    insert(&primary, 1);
    primary.sql("select pg_create_restore_point('here')");
    insert(&primary, 2);
    primary.switch_and_archive();
    let mut two = branch(&site, "two", 16, &["--target-name", "here"]);
    insert(&two, 20);
    let both = two.sql(NOW);
    let third = insert(&primary, 3);
    let of_two = insert(&two, 21);
    primary.switch_and_archive();
    primary.stop(Stop::Fast);
    two.switch_and_archive();

    let json = asks(&site, &["--target-time", &both], 15);
    let candidates = json["candidates"].as_array().unwrap();
    let excluded: Vec<_> =
        candidates.iter().map(|place| (place["timeline"].as_u64(), place["first_excluded"]["xid"].as_u64())).collect();
    assert_eq!(excluded, [(Some(1), Some(third)), (Some(2), Some(of_two))], "{json:#}");
    assert!(json["hint"].as_str().unwrap().contains("--target-timeline 1, or 2"), "{json:#}");
    assert_eq!(
        asks(&site, &["--target-time", &both, "--target-timeline", "1"], 0)["first_excluded"]["xid"].as_u64(),
        Some(third)
    );
    let json = asks(&site, &["--target", "latest"], 0);
    assert_eq!((&json["timeline"], json["last_included"]["xid"].as_u64()), (&Value::from(2), Some(of_two)), "{json:#}");
    let other = &json["other_timelines"][0];
    assert!(other["timeline"] == 1 && other["last_transaction"]["xid"].as_u64() == Some(third), "{json:#}");
    // A position that both have; one that only the first has is in no doubt.
    let json = asks(&site, &["--target-lsn", candidates[1]["lsn"].as_str().unwrap()], 15);
    assert_eq!(json["candidates"].as_array().unwrap().len(), 2, "{json:#}");
    let json = asks(&site, &["--target-lsn", &end], 0);
    assert_eq!((json["backup"]["backup_id"].as_str(), &json["timeline"]), (Some(made.id()), &Value::from(1)), "{json:#}");
    let mut ended = site.recover("ended", 16, &["--target-lsn", json["stop"]["lsn"].as_str().unwrap()]);
    assert_eq!(ended.sql("select count(*) from t"), "0");
    ended.stop(Stop::Fast);
    two.stop(Stop::Fast);

    let mut three = branch(&site, "three", 16, &["--target", "latest"]);
    assert_eq!(three.timeline(), 3);
    insert(&three, 30);
    let time = three.sql(NOW);
    let of_three = insert(&three, 31);
    three.switch_and_archive();
    three.stop(Stop::Fast);
    let [history] = &site.archive.objects("00000002.history")[..] else { panic!("more than one") };
    fs::remove_file(history).unwrap();
    // The third one's history has all that is needed.
    let json = asks(&site, &["--target", "latest"], 0);
    assert_eq!((&json["timeline"], json["last_included"]["xid"].as_u64()), (&Value::from(3), Some(of_three)), "{json:#}");
    let mut recovered = site.recover("lost", 16, &["--target", "latest"]);
    assert_eq!(recovered.sql(ROWS), "1,20,21,30,31");
    recovered.stop(Stop::Fast);
    let mut recovered = site.recover("lost by time", 16, &["--target-time", &time]);
    assert_eq!(recovered.sql(ROWS), "1,20,21,30");
    recovered.stop(Stop::Fast);
    // A moment of the second timeline is on the way to the third.
    let json = asks(&site, &["--target-xid", &of_two.to_string(), "--target-timeline", "3", "--exclusive"], 0);
    assert_eq!(json["first_excluded"]["xid"].as_u64(), Some(of_two), "{json:#}");
    // As a target of its own the server would not know it.
    let json = asks(&site, &["--target", "latest", "--target-timeline", "2"], 15);
    assert!(json["reason"].as_str().unwrap().contains("00000002.history"), "{json:#}");
}

/// Each repository by itself: one that has lost something is passed over, and what is lost in all is named, with what
/// is around it.
#[test]
fn pg15_a_segment_is_missing_on_the_way() {
    let site = Site::new();
    let second = site.place("second");
    let config = site.place("walvis.toml");
    let text = fs::read_to_string(&config).unwrap();
    let more = format!(
        "\n[[repository]]\nurl = \"file://{}\"\nkey_file = \"{}\"\n",
        second.display(),
        site.place("walvis.key").display()
    );
    site.scratch.write(&config, (text + &more).as_bytes());
    site.run(&["init"]).exits(0);
    let mut primary = site.primary(15);
    primary.sql("create table t (i int)");
    let before_all = primary.sql("insert into t values (0) returning txid_current()");
    let made = site.backup(&primary, &[]);
    site.backup(&primary, &["--repository", &format!("file://{}", second.display())]);
    let first = insert(&primary, 1);
    primary.switch_wal();
    insert(&primary, 2);
    let lost = primary.switch_and_archive();
    let target = insert(&primary, 3).to_string();
    primary.switch_and_archive();
    let later = site.backup(&primary, &[]);
    primary.switch_and_archive();
    primary.stop(Stop::Fast);
    let find = |part: &str| -> Vec<_> {
        let all = crate::support::command::files_below(&second).into_iter().chain(objects(&site, &lost));
        all.filter(|path| path.ends_with(&lost) && path.to_str().unwrap().contains(part)).collect()
    };
    let json = asks(&site, &["--target-xid", &target], 0);
    assert!(!json["repository"].as_str().unwrap().ends_with("second"), "{json:#}");
    fs::remove_file(&find("/repository/")[0]).unwrap();
    let json = asks(&site, &["--target-xid", &target], 0);
    assert!(json["repository"].as_str().unwrap().ends_with("second"), "{json:#}");
    let mut recovered = site.recover("recovered", 15, &["--target-xid", &target]);
    assert_eq!(recovered.sql(ROWS), "0,1,2,3");
    recovered.stop(Stop::Fast);

    fs::remove_file(&find("/second/")[0]).unwrap();
    let json = asks(&site, &["--target-xid", &target], 15);
    assert!(json["reason"].as_str().unwrap().contains(&lost), "{json:#}");
    assert_eq!(json["nearest_before"]["transaction"]["xid"].as_u64(), Some(first), "{json:#}");
    assert_eq!(parse_lsn(json["nearest_after"]["lsn"].as_str().unwrap()), later.stop_lsn(), "{json:#}");
    // Before the first backup nothing leads anywhere.
    let json = asks(&site, &["--target-xid", &before_all], 15);
    assert_eq!(json["reason"], "no base backup in the repository leads there", "{json:#}");
    assert_eq!(parse_lsn(json["nearest_after"]["lsn"].as_str().unwrap()), made.stop_lsn(), "{json:#}");
    asks(&site, &["--target", "immediate"], 0);
    // And the other commands say the same.
    let overview = site.json(&["catalog"]);
    let windows = overview["systems"][0]["timelines"][0]["windows"].as_array().unwrap();
    let from: Vec<u64> = windows.iter().map(|w| parse_lsn(w["recoverable_from"]["lsn"].as_str().unwrap())).collect();
    assert_eq!(from, [made.stop_lsn(), later.stop_lsn()], "{overview:#}");
    for backup in site.listed() {
        let [from, until] = ["window_from", "window_until"].map(|end| backup[end].clone());
        assert!(parse_lsn(from["lsn"].as_str().unwrap()) <= parse_lsn(until["lsn"].as_str().unwrap()), "{backup:#}");
        assert!(from["time"].as_str() <= until["time"].as_str() && until["timeline"] == 1, "{backup:#}");
    }
}
