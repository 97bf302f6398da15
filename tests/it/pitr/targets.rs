//! Random targets of all kinds, on every version, in a directory and in S3: what is recovered is what the server held.

use crate::pitr::{Site, number, promote, random};
use crate::support::postgres::restored::wrong_pages;
use crate::support::postgres::{Cluster, Entry, Journal, Load, Options, Point, Role, Stop, parse_lsn};
use crate::support::s3::S3Server;

/// A target, and the last transaction of the journal that it has.
struct Target {
    arguments: Vec<String>,
    n: u64,
}

/// A moment between two transactions, a little more than a millisecond apart, so that no other client's clock matters.
pub(super) fn moment(entries: &[Entry], random: &mut fastrand::Rng) -> (String, u64) {
    let microseconds = |entry: &Entry| entry.committed.parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let gaps: Vec<(i64, i64, u64)> = entries
        .windows(2)
        .map(|pair| (microseconds(&pair[0]), microseconds(&pair[1]), pair[0].n))
        .filter(|(from, to, _)| to - from > 1000)
        .collect();
    let (from, to, n) = *random.choice(&gaps).expect("two transactions that are a millisecond apart");
    let between = random.i64(from + 400..to - 400);
    (jiff::Timestamp::from_microsecond(between).unwrap().strftime("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string(), n)
}

fn target(kind: usize, entries: &[Entry], points: &[Point], random: &mut fastrand::Rng) -> Target {
    // The last one is there to have something later than any target.
    let entry = random.choice(&entries[1..entries.len() - 1]).unwrap();
    let exclusive = random.bool();
    let (mut arguments, n) = match kind {
        0 => {
            let (time, n) = moment(&entries[..entries.len() - 1], random);
            (vec!["--target-time".to_owned(), time], n)
        }
        // Its own first record, or one of another client, is at or after this position.
        1 => (vec!["--target-lsn".to_owned(), format!("{:X}/{:X}", entry.before >> 32, entry.before & 0xFFFF_FFFF)], entry.n - 1),
        2 => (vec!["--target-xid".to_owned(), entry.xid.to_string()], if exclusive { entry.n - 1 } else { entry.n }),
        _ => {
            let point = random.choice(points).unwrap();
            return Target { arguments: vec!["--target-name".to_owned(), point.name.clone()], n: point.n };
        }
    };
    if exclusive {
        arguments.push("--exclusive".to_owned());
    }
    Target { arguments, n }
}

/// A load, two base backups in the middle of it, and afterwards restores to targets of each kind, each checked in all
/// ways there are.
fn recovers_to_random_targets(site: &Site, major: u32) {
    let mut primary = site.primary(major);
    let journal = Journal::start(&primary, 3);
    let load = Load::start(&primary, 2);
    journal.wait_for(30);

    let first = site.backup(&primary, &["--label", "first", "--annotate", "why=test"]);
    let mut points = Vec::new();
    for i in 0..3 {
        journal.wait_for(25);
        points.push(primary.journal_point(&format!("point {i}")));
    }
    let second = site.backup(&primary, &["--label", "second"]);
    assert!(second.number("reused_bytes") > 0, "nothing of the first backup is used again: {:#}", second.json);
    for i in 3..6 {
        journal.wait_for(25);
        points.push(primary.journal_point(&format!("point {i}")));
    }
    journal.wait_for(20);
    let acknowledged = load.acknowledged();
    let entries = primary.journal();
    primary.switch_and_archive();
    primary.destroy();
    journal.abandon();
    load.abandon();

    assert_eq!(site.backups(), [first.id(), second.id()]);
    let stops = [first.stop_lsn(), second.stop_lsn()];
    let reachable: Vec<Entry> = entries.iter().filter(|entry| entry.before > stops[0]).cloned().collect();
    assert!(reachable.len() > 60, "{} transactions after the first backup", reachable.len());

    let mut random = random();
    for i in 0..usize::try_from(number("WALVIS_TEST_RESTORES", 4)).unwrap() {
        let target = target(i % 4, &reachable, &points, &mut random);
        eprintln!("PostgreSQL {major}: {:?}, transaction {}", target.arguments, target.n);
        let jobs = random.u32(1..4).to_string();
        let mut arguments: Vec<&str> = target.arguments.iter().map(String::as_str).collect();
        arguments.extend(["--jobs", &jobs]);
        // What one restore left is what the next one uses.
        if i % 2 == 1 {
            arguments.extend(["--delta", "--discard-unarchived-wal"]);
        }
        let name = format!("restored{}", i / 2);
        let mut recovered = if i % 4 == 2 {
            // By default recovery pauses at the target.
            let mut cluster = site.restore(&name, major, &arguments);
            cluster.spawn();
            cluster.wait_paused();
            cluster.assert_journal(target.n);
            cluster.sql("select pg_wal_replay_resume()");
            assert!(matches!(cluster.wait_recovery(), crate::support::postgres::Recovery::Promoted));
            cluster
        } else {
            site.recover(&name, major, &arguments)
        };
        check(&mut recovered, target.n);
    }

    // To the end of the archive nothing is lost.
    let mut recovered = site.recover("latest", major, &["--target", "latest"]);
    recovered.assert_ledger(&acknowledged);
    let last = recovered.sql("select max(n) from journal").parse().unwrap();
    assert!(last >= entries.last().unwrap().n);
    check(&mut recovered, last);
}

/// The tables are those of transaction `n`, and the files are sound. Stops the server.
fn check(recovered: &mut Cluster, n: u64) {
    recovered.assert_journal(n);
    assert_eq!(recovered.sql("select count(*) from scribbles"), "0", "an unlogged table came back with rows");
    let whole = "select coalesce(bool_and(rows = last), true) from (select count(*) as rows, max(n) as last from ledger group by client) x";
    assert_eq!(recovered.sql(whole), "t", "the ledger has a gap");
    // A clone must not write into the repository of the original.
    assert_eq!(recovered.sql("show archive_mode"), "off");
    recovered.amcheck();
    // One that was prepared at that moment is again, with its locks.
    for gid in recovered.sql("select gid from pg_prepared_xacts").lines() {
        recovered.sql(&format!("rollback prepared '{gid}'"));
    }
    recovered.sql("select work()");
    recovered.assert_journal(n + 1);
    recovered.stop(Stop::Fast);
    recovered.assert_checksums();
}

fn in_a_directory(major: u32) {
    recovers_to_random_targets(&Site::new(), major);
}

fn in_s3(major: u32) {
    let server = S3Server::start_tls();
    recovers_to_random_targets(&Site::on_s3(&server), major);
}

#[test]
fn pg13_to_random_targets() {
    in_a_directory(13);
}

#[test]
fn pg14_to_random_targets() {
    in_a_directory(14);
}

#[test]
fn pg15_to_random_targets() {
    in_a_directory(15);
}

#[test]
fn pg16_to_random_targets() {
    in_a_directory(16);
}

#[test]
fn pg17_to_random_targets() {
    in_a_directory(17);
}

#[test]
fn pg18_to_random_targets() {
    in_a_directory(18);
}

#[test]
fn pg15_to_random_targets_on_s3() {
    in_s3(15);
}

#[test]
fn pg18_to_random_targets_on_s3() {
    in_s3(18);
}

/// `--start`: the command itself starts the server and says when the target is reached. Then, further along another
/// timeline: a promoted clone that archives under the same name, and targets on both sides of the fork.
fn starts_and_follows_forks(major: u32) {
    let site = Site::new();
    let mut primary = site.primary(major);
    let journal = Journal::start(&primary, 2);
    journal.wait_for(10);
    site.backup(&primary, &[]);
    journal.wait_for(20);
    let point = primary.journal_point("before the mistake");
    journal.wait_for(20);
    let later = primary.journal_point("after the mistake");
    journal.wait_for(5);
    journal.finish();
    primary.sql("delete from accounts");
    primary.switch_and_archive();
    primary.stop(Stop::Fast);

    // The settings in the backup name the primary's sockets; it is stopped.
    let bin = primary.postgres().home.join("bin");
    let place = site.place("started");
    let mut started = Cluster::started_by_others(&site.scratch, "started", major, &site.options, &primary);
    let arguments =
        ["pitr-restore", "--pgdata", place.to_str().unwrap(), "--target-name", &point.name, "--start", "--archiving", "keep"];
    let action = ["--target-action", "promote", "--bin-dir", bin.to_str().unwrap()];
    let ran = site.run(&[&arguments[..], &action[..]].concat()).exits(0);
    assert!(started.sql("select pg_is_in_recovery()") == "f", "it said that the target was reached: {ran:?}");
    started.assert_journal(point.n);
    assert_eq!(started.timeline(), 2);
    assert_eq!(started.sql("show archive_mode"), "on");
    // The fork goes on, archives, and is backed up: the same cluster on timeline 2.
    let journal = Journal::start(&started, 2);
    journal.wait_for(10);
    let on_two = site.backup(&started, &["--label", "on timeline 2"]);
    assert_eq!(on_two.number("timeline"), 2);
    journal.wait_for(10);
    let fork = started.journal_point("on the fork");
    journal.wait_for(5);
    journal.finish();
    started.switch_and_archive();
    let entries = started.journal();
    started.kill();
    primary.destroy();

    // The abandoned end of timeline 1 from the backup before the fork, and timeline 2 from its own and from that one.
    let mut one = site.recover("one", major, &["--target-name", &later.name, "--target-timeline", "1"]);
    one.assert_journal(later.n);
    one.stop(Stop::Fast);
    let mut two = site.recover("two", major, &["--target-name", &fork.name]);
    two.assert_journal(fork.n);
    two.stop(Stop::Fast);
    let label = std::fs::read_to_string(site.place("two").join("backup_label.old")).unwrap();
    assert!(label.contains("START TIMELINE: 2"), "{label}");
    let between = entries.iter().find(|entry| entry.n == point.n + 2).unwrap();
    assert!(between.before < parse_lsn(on_two.text("start_lsn")));
    let mut across = site.restore("across", major, &["--target-xid", &between.xid.to_string(), "--target-timeline", "2"]);
    across.spawn();
    across.wait_paused();
    across.assert_journal(between.n);
    // Shut down at the target, and promoted from there by hand.
    across.stop(Stop::Fast);
    promote_by_hand(&mut across);
    across.assert_journal(between.n);
}

/// Starts a server that pauses at its target, and ends recovery there.
fn promote_by_hand(cluster: &mut Cluster) {
    cluster.spawn();
    cluster.wait_paused();
    cluster.sql("select pg_wal_replay_resume()");
    assert!(matches!(cluster.wait_recovery(), crate::support::postgres::Recovery::Promoted));
}

#[test]
fn pg13_starts_and_follows_forks() {
    starts_and_follows_forks(13);
}

#[test]
fn pg18_starts_and_follows_forks() {
    starts_and_follows_forks(18);
}

/// Restored with `--target-action shutdown`, the server ends by itself at the target, and says nothing is wrong.
#[test]
fn pg16_shuts_down_at_the_target() {
    let site = Site::new();
    let mut primary = site.primary(16);
    let journal = Journal::start(&primary, 2);
    journal.wait_for(10);
    site.backup(&primary, &[]);
    journal.wait_for(10);
    let point = primary.journal_point("here");
    journal.wait_for(3);
    primary.switch_and_archive();
    primary.destroy();
    journal.abandon();
    let mut cluster = site.restore("restored", 16, &["--target-name", "here", "--target-action", "shutdown"]);
    cluster.spawn();
    let status = crate::support::postgres::poll(|| cluster.exited()).expect("it shuts down");
    assert!(status.success(), "{status}: {}", cluster.log());
    // The target is still set: from there on it is promoted.
    let settings = cluster.data.join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&settings).unwrap() + "recovery_target_action = 'promote'\n";
    site.scratch.write(&settings, text.as_bytes());
    promote(&mut cluster);
    cluster.assert_journal(point.n);
}

/// What all of the above rests on, without a backup by Walvis: the journal knows what PostgreSQL recovers to, and
/// notices when it is one transaction off.
fn the_journal_knows(major: u32) {
    let site = Site::new();
    let mut primary = site.primary(major);
    let journal = Journal::start(&primary, 3);
    journal.wait_for(10);
    let backup = primary.backup_to("base");
    journal.wait_for(20);
    let point = primary.journal_point("here");
    journal.wait_for(10);
    let entries = primary.journal();
    primary.switch_and_archive();
    primary.destroy();
    journal.abandon();
    let reachable: Vec<Entry> = entries.into_iter().filter(|entry| entry.before > backup.stop_lsn).collect();
    let mut random = random();
    for kind in 0..4 {
        let Target { arguments, n } = target(kind, &reachable, std::slice::from_ref(&point), &mut random);
        let (setting, value) = (arguments[0].replace("--target-", "recovery_target_"), arguments[1].clone());
        let inclusive = if arguments.len() == 3 { "off" } else { "on" };
        let options = Options { archive_command: None, ..site.options.clone() }
            .setting(&setting, &value)
            .setting("recovery_target_inclusive", inclusive)
            .setting("recovery_target_action", "promote");
        let mut cluster = Cluster::restore(&site.scratch, &format!("r{kind}"), &backup, Role::Recovery, &options);
        promote(&mut cluster);
        cluster.assert_journal(n);
        assert!(cluster.journal_end(n - 1).ends_with("|f") && !cluster.journal_end(n + 1).ends_with("|t"));
        cluster.sql("update accounts set balance = balance + 1 where id = 7");
        assert_eq!(cluster.journal_end(n), format!("{n}|{n}|f"));
        cluster.amcheck();
        cluster.stop(Stop::Fast);
        cluster.assert_checksums();
        // A flipped bit is noticed by ours, and by theirs.
        let file = cluster.data.join("global/1262");
        let mut content = std::fs::read(&file).unwrap();
        content[8000] ^= 1;
        site.scratch.write(&file, &content);
        assert_eq!(wrong_pages(&cluster.data).1, ["global/1262 block 0"]);
        let theirs = cluster.pg_checksums();
        assert!(
            theirs.as_ref().is_none_or(|said| said.as_ref().is_err_and(|said| said.contains("verification failed"))),
            "{theirs:?}"
        );
    }
}

#[test]
fn pg13_the_journal_knows() {
    the_journal_knows(13);
}

#[test]
fn pg18_the_journal_knows() {
    the_journal_knows(18);
}
