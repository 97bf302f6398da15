//! What cannot be reached, and what has more than one answer: gaps, forks, abandoned timelines, names used twice,
//! damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::fs;

use serde_json::Value;

use crate::resolve::Site;
use crate::support::postgres::{Backup, Cluster, Options, Recovery, Role, Stop, parse_lsn, poll};

/// The server's clock in UTC.
const NOW: &str = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00')";

/// One transaction, and its id.
fn insert(cluster: &Cluster, value: u32) -> u64 {
    cluster.sql(&format!("insert into t values ({value}) returning txid_current()")).parse().unwrap()
}

fn xid(json: &Value, end: &str) -> Option<u64> {
    json[end]["xid"].as_u64()
}

fn lsn(value: &Value) -> u64 {
    parse_lsn(value.as_str().unwrap_or_else(|| panic!("no LSN: {value}")))
}

/// `START WAL LOCATION` of a backup.
fn start_of(backup: &Backup) -> String {
    let label = fs::read_to_string(backup.dir.join("backup_label")).unwrap();
    label.split_once("START WAL LOCATION: ").unwrap().1.split(' ').next().unwrap().to_owned()
}

/// Recovers with these settings, which the server must refuse.
fn server_refuses(site: &Site, name: &str, backup: &Backup, settings: &[(&str, &str)], words: &str) {
    let mut options = Options { archive_command: None, ..site.options.clone() };
    options.settings.extend(settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    let mut cluster = Cluster::restore(&site.scratch, name, backup, Role::Recovery, &options);
    cluster.spawn();
    match cluster.wait_recovery() {
        Recovery::Exited(status) => assert!(!status.success()),
        Recovery::Promoted => cluster.fail("the server took a target that was called out of reach"),
    }
    assert!(cluster.log().contains(words), "{}", cluster.log());
}

/// Before everything, after everything, in an idle stretch, and before the end of the backup: what is refused here the
/// server refuses too.
#[test]
fn pg18_ends_of_the_archive() {
    let site = Site::new(1);
    let mut primary = site.primary(18);
    primary.sql("create table t (i int)");
    let before_backup = primary.sql(NOW);
    insert(&primary, 0);
    let backup = site.backup_of(&primary, "base");
    let start = start_of(&backup);
    let first = insert(&primary, 1);
    let idle = primary.sql(NOW);
    // Nothing but a checkpoint and a switch happens here.
    primary.sql("checkpoint");
    primary.switch_wal();
    let later = primary.sql(NOW);
    let second = insert(&primary, 2);
    let after = primary.sql(NOW);
    primary.switch_and_archive();

    for time in [&idle, &later] {
        let json = site.reaches(&format!("--target-time '{time}'"));
        assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(first), Some(second)), "{json:#}");
        assert_eq!(lsn(&json["backup"]["stop_lsn"]), backup.stop_lsn);
        assert_eq!(json["start_lsn"].as_str(), Some(&*start));
        assert_eq!(lsn(&json["oldest_backup"]["stop_lsn"]), backup.stop_lsn);
        assert!(json["wal"]["stored_bytes"].as_u64().unwrap() > 0);
    }
    // Nothing is later than that, and the server would fail. `latest` would be another moment as soon as more is
    // archived: it is not offered.
    let json = site.does_not_reach(&format!("--target-time '{after}'"));
    assert_eq!(json["nearest_before"]["transaction"]["xid"].as_u64(), Some(second), "{json:#}");
    let hint = json["hint"].as_str().unwrap();
    assert!(json["reason"].as_str().unwrap().contains("not archived yet") && !hint.contains("latest"), "{json:#}");
    assert!(hint.contains("pg_switch_wal()") && hint.contains("archive_timeout"), "{json:#}");
    let last = json["nearest_before"]["transaction"]["lsn"].as_str().unwrap();
    assert!(hint.contains(&format!("--target-lsn {last}")), "{json:#}");
    assert_eq!(xid(&site.reaches(&format!("--target-lsn {last}")), "last_included"), Some(second));
    let to_come = site.does_not_reach("--target-time '2999-01-01 00:00Z'");
    assert!(to_come["reason"].as_str().unwrap().contains("still to come"), "{to_come:#}");
    server_refuses(
        &site,
        "after",
        &backup,
        &[("recovery_target_time", &after)],
        "recovery ended before configured recovery target",
    );
    let json = site.reaches("--target latest");
    assert_eq!((xid(&json, "last_included"), json["stop"].is_null()), (Some(second), true));
    let beyond = format!("{:X}/0", (lsn(&json["latest"]["lsn"]) >> 32) + 1);
    site.does_not_reach(&format!("--target-lsn {beyond}"));
    let unknown = site.does_not_reach("--target-xid 4000000");
    assert!(unknown["hint"].as_str().unwrap().contains("not be archived yet"), "{unknown:#}");
    site.does_not_reach("--target-name 'no such point'");

    let json = site.does_not_reach("--target-time 2000-01-02T00:00:00Z");
    assert!(json["nearest_after"]["lsn"].is_string(), "{json:#}");
    // The archive has that moment, but from this backup recovery would stop before it is consistent.
    let json = site.finds(&format!("--target-time '{before_backup}'"));
    assert!(json["backup"].is_null() && json["wal"].is_null() && json["first_excluded"]["xid"].is_u64(), "{json:#}");
    assert!(lsn(&json["nearest_after"]["lsn"]) == backup.stop_lsn && json["nearest_before"].is_null(), "{json:#}");
    let json = site.does_not_reach(&format!("--target-lsn {start} --exclusive --from {start}"));
    assert_eq!(lsn(&json["backup"]["stop_lsn"]), backup.stop_lsn, "{json:#}");
    let settings = [("recovery_target_lsn", &*start), ("recovery_target_inclusive", "off")];
    server_refuses(&site, "early", &backup, &settings, "requested recovery stop point is before consistent recovery point");

    let json = site.reaches(&format!("--target immediate --from {start}"));
    let recovered = site.recover("immediate", &backup, &Site::settings(&json));
    assert_eq!(recovered.sql("select coalesce(max(i), -1) from t"), "0");
    // Bad questions are refused as such.
    for (arguments, words) in [
        ("--target-time '2026-11-21 03:36 CET'", "abbreviation"),
        ("--target-time yesterday", "not a date"),
        ("--target-xid 0700", "octal"),
        ("--target-xid +700", "not the id of a transaction"),
        ("--target-xid=-700", "not the id of a transaction"),
        ("--target-lsn 5", "not an LSN"),
        ("--target-timeline 010 --target latest", "octal"),
        ("--target-xid 1 --target latest", "cannot be used with"),
        ("--target-name x --exclusive", "cannot be used with"),
    ] {
        let output = site.walvis(&format!("resolve {arguments}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(words), "{arguments}: {stderr}");
    }
    assert_eq!(site.walvis("resolve --target latest --target-timeline 7").status.code(), Some(15));

    // What is done as the hint says leads to that moment, and not to the mistake.
    let mistake = insert(&primary, 3);
    primary.switch_and_archive();
    let json = site.reaches(&format!("--target-time '{after}'"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(second), Some(mistake)), "{json:#}");

    // A time without a zone is several moments, whatever the zone of this host; with one, both readings are printed. It
    // is the same for every command that takes times.
    let local = idle.strip_suffix("+00:00").unwrap();
    let plus_one: jiff::Timestamp = idle.parse().unwrap();
    let plus_one = plus_one.to_zoned(jiff::tz::Offset::constant(1).to_time_zone()).strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
    let restore = format!("pitr-restore --plan --pgdata '{}'", site.scratch.path().join("nowhere").display());
    for command in [
        "resolve --target-time",
        "catalog --commits --to",
        "catalog --restore-points --from",
        &format!("{restore} --target-time"),
    ] {
        let output = site.walvis(&format!("{command} '{local}'"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && stderr.contains("has no time zone") && stderr.contains("--zone"),
            "{command}: {stderr}"
        );
    }
    for stated in [format!("'{plus_one}' --zone +01:00"), format!("'{plus_one}+01:00'"), format!("'{idle}' --zone +01:00")] {
        let output = site.walvis(&format!("resolve --target-time {stated}"));
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains(&idle) && stdout.contains(&format!("{plus_one}+01:00")), "{stdout}");
        assert_eq!(xid(&site.reaches(&format!("--target-time {stated}")), "last_included"), Some(first));
    }
    let in_zone = site.list(&format!("--commits --to '{plus_one}' --zone +01:00"));
    assert_eq!(in_zone.last().unwrap()["xid"].as_u64(), Some(first));
    assert_eq!(in_zone, site.list(&format!("--commits --to '{idle}'")));
    // In the settings, for all commands.
    let config = site.scratch.path().join("walvis.toml");
    let settings = fs::read_to_string(&config).unwrap();
    site.scratch.write(&config, format!("zone = \"+01:00\"\n{settings}").as_bytes());
    assert_eq!(xid(&site.reaches(&format!("--target-time '{plus_one}'")), "last_included"), Some(first));
    assert_eq!(site.list(&format!("--commits --to '{plus_one}'")), in_zone);
    site.scratch.write(&config, format!("zone = \"CET\"\n{settings}").as_bytes());
    let output = site.walvis("catalog");
    assert!(output.status.code() == Some(10) && String::from_utf8_lossy(&output.stderr).contains("abbreviation"));
}

/// A segment that is lost, and one that is damaged inside before it was archived.
#[test]
fn pg15_gap() {
    let site = Site::new(1);
    let mut primary = site.primary(15);
    primary.sql("create table t (i int)");
    site.backup_of(&primary, "base");
    let first = insert(&primary, 0);
    primary.switch_wal();
    let mut inside = Vec::new();
    let mut lost = String::new();
    for i in 1..4 {
        inside.push((insert(&primary, i), primary.sql(NOW), primary.sql("select pg_current_wal_insert_lsn()")));
        lost = primary.switch_and_archive();
    }
    site.backup_of(&primary, "second");
    let after = insert(&primary, 10);
    let last_time = primary.sql(NOW);
    let last = insert(&primary, 11);
    primary.switch_and_archive();
    let whole = site.reaches(&format!("--target-time '{last_time}'"));
    assert_eq!((xid(&whole, "last_included"), xid(&whole, "first_excluded")), (Some(after), Some(last)));

    fs::remove_file(site.archive.object(&lost)).unwrap();
    let (of_lost, time, at) = &inside[2];
    for target in [format!("--target-time '{time}'"), format!("--target-lsn {at}")] {
        let json = site.does_not_reach(&target);
        assert_eq!(json["nearest_before"]["transaction"]["xid"].as_u64(), Some(inside[1].0), "{json:#}");
        assert_eq!(json["nearest_after"]["transaction"]["xid"].as_u64(), Some(after), "{json:#}");
    }
    site.does_not_reach(&format!("--target-xid {of_lost}"));
    // On both sides everything stays reachable; over the gap nothing leads.
    let json = site.reaches(&format!("--target-xid {}", inside[0].0));
    assert_eq!(xid(&json, "first_excluded"), Some(inside[1].0));
    assert_eq!(xid(&site.reaches(&format!("--target-xid {first}")), "last_included"), Some(first));
    let json = site.reaches(&format!("--target-time '{last_time}'"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(after), Some(last)));
    let begin = site.reaches("--target latest")["earliest"]["lsn"].as_str().unwrap().to_owned();
    site.does_not_reach(&format!("--target latest --from {begin}"));
    site.does_not_reach(&format!("--target-time '{last_time}' --from {begin}"));
    let overview = site.overview();
    let timeline = &overview["systems"][0]["timelines"][0];
    assert_eq!(timeline["windows"].as_array().unwrap().len(), 2, "{overview:#}");
    assert_eq!(
        timeline["gaps"],
        serde_json::json!([{"kind": "missing", "first_segment": lost, "last_segment": lost, "detail": "not stored"}])
    );
    let lines = site.list("--commits");
    assert_eq!(lines.iter().filter(|line| line["gap_from_lsn"].is_string()).count(), 1);
}

/// The same name twice, and on a timeline that was abandoned; transactions on both sides of a fork; a `.partial`.
fn forks(major: u32) {
    let site = Site::new(1);
    let mut primary = site.primary(major);
    primary.sql("create table t (i int)");
    let backup = site.backup_of(&primary, "base");
    let shared = insert(&primary, 1);
    let early = primary.sql(NOW);
    primary.sql("select pg_create_restore_point('twice')");
    let fork_xid = insert(&primary, 2);
    primary.sql("select pg_create_restore_point('once')");
    let abandoned = insert(&primary, 3);
    let abandoned_time = primary.sql(NOW);
    primary.sql("select pg_create_restore_point('left behind')");
    primary.sql("select pg_create_restore_point('on both')");
    let old_end = insert(&primary, 4);
    primary.switch_and_archive();
    primary.stop(Stop::Fast);

    // Of a checkpoint, with which the second timeline may begin, only the second is known.
    let seconds = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let stopped = seconds();
    poll(|| (seconds() > stopped).then_some(())).unwrap();
    // A second server leaves the first timeline after the second insert.
    let mut options = site.options.clone();
    options.settings.push(("recovery_target_name".to_owned(), "once".to_owned()));
    options.settings.push(("recovery_target_action".to_owned(), "promote".to_owned()));
    let mut second = Cluster::restore(&site.scratch, "second", &backup, Role::Recovery, &options);
    second.spawn();
    assert!(matches!(second.wait_recovery(), Recovery::Promoted), "{}", second.log());
    let between = second.sql(NOW);
    let child = insert(&second, 20);
    second.sql("select pg_create_restore_point('twice')");
    second.sql("select pg_create_restore_point('on both')");
    let child_end = insert(&second, 21);
    second.switch_and_archive();
    assert!(poll(|| (site.archive.objects("00000002.history").len() == 1).then_some(())).is_some());

    // Only the first timeline was alive then.
    let json = site.reaches(&format!("--target-time '{early}'"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(shared), Some(fork_xid)), "{json:#}");
    assert_eq!((json["timeline_path"].as_array().unwrap().len(), &json["timeline"]), (1, &Value::from(1)));
    assert!(json["timeline_reason"].as_str().unwrap().contains("timeline 1 is the only one"), "{json:#}");
    // Between the fork and the child's first transaction.
    let json = site.reaches(&format!("--target-time '{between}'"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(fork_xid), Some(child)), "{json:#}");
    assert_eq!(json["last_included"]["timeline"], 1);
    assert_eq!(json["first_excluded"]["timeline"], 2);
    // In the time in which the abandoned timeline went on, and the other was not there yet. There that time means
    // something else.
    let json = site.reaches(&format!("--target-time '{abandoned_time}' --target-timeline 2"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(fork_xid), Some(child)), "{json:#}");
    let json = site.reaches(&format!("--target-time '{abandoned_time}'"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(abandoned), Some(old_end)), "{json:#}");
    let recovered = site.recover("old", &backup, &Site::settings(&json));
    assert_eq!(recovered.sql("select string_agg(i::text, ',' order by i) from t"), "1,2,3");
    recovered.destroy();
    let json = site.reaches("--target latest");
    assert_eq!((xid(&json, "last_included"), &json["timeline"]), (Some(child_end), &Value::from(2)));
    let other = &json["other_timelines"][0];
    assert!(other["timeline"] == 1 && other["transactions"].as_u64() >= Some(2), "{json:#}");
    assert_eq!(other["last_transaction"]["xid"].as_u64(), Some(old_end), "{json:#}");
    let path = json["timeline_path"].clone();
    let recovered = site.recover("new", &backup, &Site::settings(&json));
    assert_eq!(recovered.sql("select string_agg(i::text, ',' order by i) from t"), "1,2,20,21");
    recovered.destroy();

    // Names.
    site.reaches("--target-name once");
    let json = site.does_not_reach("--target-name 'left behind'");
    assert_eq!(
        (json["candidates"].as_array().unwrap().len(), &json["candidates"][0]["timeline"]),
        (1, &Value::from(1)),
        "{json:#}"
    );
    let json = site.reaches("--target-name 'left behind' --target-timeline 1");
    assert_eq!(xid(&json, "last_included"), Some(abandoned));
    let json = site.does_not_reach("--target-name twice");
    let candidates = json["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2, "{json:#}");
    assert!(candidates.iter().all(|place| place["time"].is_string()));
    // From the first one's end on, the second is the first.
    let from = format!("{:X}/{:X}", lsn(&candidates[0]["lsn"]) >> 32, (lsn(&candidates[0]["lsn"]) & 0xFFFF_FFFF) + 8);
    let json = site.reaches(&format!("--target-name twice --from {from}"));
    assert_eq!((xid(&json, "last_included"), &json["stop"]["lsn"]), (Some(child), &candidates[1]["lsn"]), "{json:#}");
    assert_eq!(xid(&site.reaches("--target-name twice --target-timeline 1"), "last_included"), Some(shared));
    // One on each side of the fork: which one is meant only the timeline says.
    let json = site.does_not_reach("--target-name 'on both'");
    let timelines: Vec<u64> = json["candidates"].as_array().unwrap().iter().map(|p| p["timeline"].as_u64().unwrap()).collect();
    assert_eq!(timelines, [2, 1], "{json:#}");
    for (timeline, last) in [("0x1", abandoned), ("2", child)] {
        assert_eq!(
            xid(&site.reaches(&format!("--target-name 'on both' --target-timeline {timeline}")), "last_included"),
            Some(last)
        );
    }
    // Transactions of the abandoned timeline.
    let json = site.does_not_reach(&format!("--target-xid {old_end}"));
    assert!(
        json["hint"].as_str().unwrap().contains("--target-timeline 1") || old_end == child || old_end == child_end,
        "{json:#}"
    );

    let overview = site.overview();
    let timelines = overview["systems"][0]["timelines"].as_array().unwrap();
    assert_eq!(timelines.len(), 2, "{overview:#}");
    assert_eq!((&timelines[1]["parent_timeline"], &timelines[1]["fork_lsn"]), (&Value::from(1), &path[0]["fork_lsn"]));
    assert!(timelines.iter().all(|t| t["windows"].as_array().unwrap().len() == 1 && t["gaps"].as_array().unwrap().is_empty()));
    assert_eq!(overview["newest_commit"]["xid"].as_u64(), Some(child_end));
    let text = String::from_utf8(site.walvis("catalog --zone +01:00").stdout).unwrap();
    assert!(text.contains("left timeline 1 at") && text.contains("+01:00"), "{text}");
    let output = site.walvis(&format!("resolve --target-time '{abandoned_time}' --zone +01:00"));
    let answer = String::from_utf8(output.stdout).unwrap();
    for words in
        ["last included   commit of", "first excluded  commit of", "setting         recovery_target_lsn = ", ", zone +01:00)"]
    {
        assert!(answer.contains(words), "{answer}");
    }
}

#[test]
fn pg13_forks() {
    forks(13);
}

#[test]
fn pg18_forks() {
    forks(18);
}

/// A standby that archives too (`archive_mode = always`) takes over: both push the same segments, the old primary's
/// last one is a `.partial`, and the answer leads from the one timeline to the other.
#[test]
fn pg17_failover_to_a_standby_that_archives() {
    let site = Site::new(1);
    let mut primary = site.primary(17);
    primary.sql("create table t (i int)");
    let backup = site.backup_of(&primary, "base");
    let first = insert(&primary, 1);
    primary.switch_and_archive();
    let always = site.options.clone().setting("archive_mode", "always");
    let mut standby = Cluster::restore(&site.scratch, "standby", &backup, Role::Standby, &always);
    standby.start();
    let second = insert(&primary, 2);
    let time = primary.sql(NOW);
    let third = insert(&primary, 3);
    let end = primary.sql("select pg_current_wal_insert_lsn()");
    primary.switch_and_archive();
    assert!(poll(|| (standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t").then_some(())).is_some());
    // What comes now is in the primary's pg_wal only, in the middle of a segment, and is saved from there.
    let fourth = insert(&primary, 4);
    primary.kill();
    standby.stop(Stop::Fast);
    assert!(primary.save_wal(&standby) > 0);
    standby.start();
    let count = "select count(*) from t where i = 4";
    assert!(poll(|| (standby.sql(count) == "1").then_some(())).is_some());
    standby.sql("select pg_promote()");
    assert!(poll(|| (standby.sql("select pg_is_in_recovery()") == "f").then_some(())).is_some());
    let between = standby.sql(NOW);
    let fifth = insert(&standby, 5);
    standby.switch_and_archive();
    let partial = || site.archive.objects("00000001").iter().any(|path| path.to_str().unwrap().ends_with(".partial"));
    assert!(poll(|| partial().then_some(())).is_some(), "no .partial");

    let json = site.reaches(&format!("--target-time '{time}'"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(second), Some(third)), "{json:#}");
    // The fourth is stored on the second timeline's first segment only, as a copy, and belongs to the first.
    let json = site.reaches(&format!("--target-xid {fourth} --exclusive"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(third), Some(fourth)), "{json:#}");
    assert_eq!(json["first_excluded"]["timeline"], 1);
    let json = site.reaches(&format!("--target-time '{between}'"));
    assert_eq!((xid(&json, "last_included"), xid(&json, "first_excluded")), (Some(fourth), Some(fifth)), "{json:#}");
    let recovered = site.recover("recovered", &backup, &Site::settings(&json));
    assert_eq!(recovered.sql("select string_agg(i::text, ',' order by i) from t"), "1,2,3,4");
    // Each transaction once, though several files have it.
    let ends = site.list("--commits");
    for xid in [first, second, third, fourth, fifth] {
        assert_eq!(ends.iter().filter(|end| end["xid"].as_u64() == Some(xid)).count(), 1, "{xid}");
    }
    assert!(ends.iter().all(|line| line["gap_from_lsn"].is_null()));
}

/// A segment with a wrong record in it is archived all the same; recovery would stop there, and that is known before.
#[test]
fn pg16_damage_inside_a_segment() {
    let site = Site::new(1);
    let mut primary = site.primary(16);
    primary.sql("create table t (i int)");
    site.backup_of(&primary, "base");
    primary.switch_and_archive();
    // Archiving fails for a while, so that the file can be damaged before it is stored.
    let broken = Options { archive_command: Some("false".to_owned()), ..site.options.clone() };
    primary.configure(&broken);
    primary.sql("select pg_reload_conf()");
    let good = insert(&primary, 1);
    let time = primary.sql(NOW);
    let at = parse_lsn(&primary.sql("select pg_current_wal_insert_lsn()"));
    let bad = insert(&primary, 2);
    let segment = primary.switch_wal();
    insert(&primary, 3);
    let path = primary.data.join("pg_wal").join(&segment);
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::try_from(at % (1 << 20)).unwrap() + 30] ^= 1;
    site.scratch.write(&path, &bytes);
    primary.configure(&site.options);
    primary.sql("select pg_reload_conf()");
    primary.switch_and_archive();

    // The good one is the last before the damage; nothing behind it says that it is over.
    assert_eq!(xid(&site.reaches(&format!("--target-xid {good}")), "last_included"), Some(good));
    let json = site.does_not_reach(&format!("--target-time '{time}'"));
    assert_eq!(json["nearest_before"]["transaction"]["xid"].as_u64(), Some(good), "{json:#}");
    assert!(json["nearest_after"].is_null(), "no backup leads to what is after it: {json:#}");
    site.does_not_reach(&format!("--target-xid {bad}"));
    let overview = site.overview();
    let gaps = &overview["systems"][0]["timelines"][0]["gaps"];
    assert_eq!((&gaps[0]["kind"], gaps[0]["first_segment"].as_str()), (&Value::from("damaged"), Some(&*segment)), "{overview:#}");
    assert!(gaps[0]["detail"].as_str().unwrap().contains("checksum"), "{gaps}");
}
