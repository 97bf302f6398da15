//! One truth: what `resolve` says of a target, what the plan of `pitr-restore` says, what it ends with, and where a
//! real server stops are the same, on a history that has everything at once: a tablespace made after a backup, settings
//! raised, a stretch with `wal_level = minimal`, a hole, a fork, a fork of the fork, and a timeline of which only the
//! history was archived.
//!
//! What a target means is known from the journals of the servers that wrote it, not from Walvis: see
//! `support::postgres::journal`. `WALVIS_TEST_RESTORES` says how many targets each version is recovered to,
//! `WALVIS_TEST_SEED` which.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use walvis::limits::MIB;

use crate::pitr::{Site, number, objects, promote, random};
use crate::support::command::Ran;
use crate::support::postgres::{Cluster, Entry, Journal, Options, Point, Recovery, Stop, parse_lsn, poll};

/// The directory of the tablespace that is made after the first backup.
const TABLESPACE: &str = "late";
const ORIGINAL_PLACES: &str = "--tablespaces-at-original-places";

/// A history, and what its servers know of it.
struct History {
    site: Site,
    major: u32,
    /// Of each timeline what its last server held, from the beginning.
    journals: BTreeMap<u32, Vec<Entry>>,
    /// Restore points, with the timeline that they were made on. Names are unique, but for one.
    points: Vec<(u32, Point)>,
    backups: Vec<String>,
}

impl History {
    fn new(major: u32) -> Self {
        let mut site = Site::new();
        // What is written while nothing is archived is not recycled.
        site.options = site.options.setting("wal_keep_size", "64MB");
        let tablespace = site.scratch.make_dir(TABLESPACE);
        let (mut journals, mut points, mut backups) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut note = |timeline: u32, cluster: &Cluster, name: &str| points.push((timeline, cluster.journal_point(name)));
        let work = |cluster: &Cluster, transactions: u64| {
            let journal = Journal::start(cluster, 2);
            journal.wait_for(transactions);
            journal.finish();
        };

        let mut one = site.primary(major);
        work(&one, 12);
        backups.push(site.backup(&one, &["--label", "a"]).id().to_owned());
        work(&one, 12);
        note(1, &one, "before the tablespace");
        work(&one, 6);
        one.sql(&format!("create tablespace late location '{}'", tablespace.display()));
        one.sql("create table in_late (i int) tablespace late; insert into in_late select generate_series(1, 100)");
        work(&one, 12);
        note(1, &one, "before the restart");
        // More connections than the first backup knows of.
        one.stop(Stop::Fast);
        let raised = site.options.clone().setting("max_connections", "60");
        one.configure(&raised);
        one.start();
        work(&one, 12);
        backups.push(site.backup(&one, &["--label", "b"]).id().to_owned());
        work(&one, 12);
        note(1, &one, "the fork");
        work(&one, 12);
        one.switch_and_archive();
        work(&one, 6);
        one.switch_and_archive();

        // What is written meanwhile no recovery can replay, although it is archived afterwards.
        one.stop(Stop::Fast);
        let minimal = Options { archive_command: None, ..raised.clone() };
        one.configure(&minimal.setting("wal_level", "minimal").setting("max_wal_senders", "0"));
        one.start();
        work(&one, 6);
        one.stop(Stop::Fast);
        one.configure(&raised);
        one.start();
        work(&one, 6);
        one.switch_wal();
        site.push_what_lies_in(&one);
        backups.push(site.backup(&one, &["--label", "c"]).id().to_owned());
        work(&one, 12);
        note(1, &one, "after minimal");
        work(&one, 6);
        let hole = one.switch_and_archive();
        work(&one, 12);
        note(1, &one, "beyond the hole");
        work(&one, 6);
        one.switch_and_archive();
        journals.insert(1, one.journal());
        one.destroy();

        let mut two = Self::fork(&site, major, "two", "the fork", &raised);
        assert_eq!(two.timeline(), 2);
        work(&two, 12);
        note(2, &two, "on two");
        backups.push(site.backup(&two, &["--label", "d"]).id().to_owned());
        work(&two, 12);
        note(2, &two, "later on two");
        work(&two, 6);
        two.switch_and_archive();
        journals.insert(2, two.journal());
        two.destroy();

        let mut three = Self::fork(&site, major, "three", "on two", &raised);
        assert_eq!(three.timeline(), 3);
        work(&three, 12);
        note(3, &three, "on three");
        work(&three, 6);
        three.switch_and_archive();
        journals.insert(3, three.journal());
        three.destroy();

        // Promoted by accident, and gone before its first segment was full.
        let four = Self::fork(&site, major, "four", "the fork", &raised);
        assert_eq!(four.timeline(), 4);
        let archived = poll(|| (!site.archive.objects("00000004.history").is_empty()).then_some(()));
        if archived.is_none() {
            four.fail(&format!("its history is not archived, on timeline {}", four.timeline()));
        }
        four.destroy();
        let fork = points.iter().find(|(_, point)| point.name == "the fork").unwrap().1.n;
        journals.insert(4, journals[&1].iter().filter(|entry| entry.n <= fork).cloned().collect());

        // Nodes of the catalog would remember it.
        for node in objects(&site, "/index/") {
            std::fs::remove_file(node).unwrap();
        }
        std::fs::remove_file(site.archive.object(&hole)).unwrap();
        Self { site, major, journals, points, backups }
    }

    /// A server that was promoted there, and archives.
    fn fork(site: &Site, major: u32, name: &str, point: &str, options: &Options) -> Cluster {
        Self::empty(&site.scratch.path().join(TABLESPACE));
        let arguments = ["--target-name", point, "--target-action", "promote", "--archiving", "keep", ORIGINAL_PLACES];
        site.try_restore(name, &arguments).exits(0);
        let mut cluster = Cluster::in_place(&site.scratch, name, major, options);
        promote(&mut cluster);
        cluster
    }

    /// Takes away what an earlier server left in the tablespace.
    fn empty(tablespace: &Path) {
        for entry in std::fs::read_dir(tablespace).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }

    /// The number of the last transaction that a recovery to this target on this timeline has.
    fn expected(&self, target: &Target, timeline: u32) -> Option<u64> {
        let journal = self.journals.get(&timeline)?;
        match target {
            Target::Name(name) => {
                let (own, point) = self.points.iter().find(|(_, point)| point.name == *name)?;
                // After a fork both sides number on.
                let entry = self.journals[own].iter().find(|entry| entry.n == point.n)?;
                journal.contains(entry).then_some(point.n)
            }
            Target::Xid(xid, exclusive) => {
                let entry = journal.iter().find(|entry| entry.xid == *xid)?;
                Some(entry.n - u64::from(*exclusive))
            }
            Target::Time(time) => {
                let later = journal.iter().find(|entry| entry.committed > *time)?;
                Some(later.n - 1)
            }
            Target::Lsn(lsn) => journal.iter().find(|entry| entry.before == *lsn).map(|entry| entry.n - 1),
            Target::Latest => None,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
enum Target {
    Name(String),
    Xid(u64, bool),
    Time(String),
    Lsn(u64),
    Latest,
}

/// A target with everything else that is said.
#[derive(Debug, Clone)]
struct Question {
    target: Target,
    timeline: Option<u32>,
    backup: Option<String>,
}

impl Question {
    fn random(history: &History, random: &mut fastrand::Rng) -> Self {
        let journals: Vec<(&u32, &Vec<Entry>)> = history.journals.iter().collect();
        let (own, journal) = random.choice(&journals).unwrap();
        // The last one is there to have something later than any target.
        let entry = random.choice(&journal[1..journal.len() - 1]).unwrap();
        let target = match random.u8(0..5) {
            0 => Target::Name(random.choice(&history.points).unwrap().1.name.clone()),
            1 => Target::Xid(entry.xid, random.bool()),
            2 => Target::Time(super::targets::moment(journal, random).0),
            // Its own first record, or one of another client, is at or after this position.
            3 => Target::Lsn(entry.before),
            _ => Target::Latest,
        };
        let timeline = match random.u8(0..3) {
            0 => None,
            1 => Some(**own),
            _ => Some(random.u32(1..=4)),
        };
        let backup = (random.u8(0..4) == 0).then(|| random.choice(&history.backups).unwrap().clone());
        Self { target, timeline, backup }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = match &self.target {
            Target::Name(name) => vec!["--target-name".to_owned(), name.clone()],
            Target::Xid(xid, exclusive) => {
                let mut arguments = vec!["--target-xid".to_owned(), xid.to_string()];
                arguments.extend(exclusive.then(|| "--exclusive".to_owned()));
                arguments
            }
            Target::Time(time) => vec!["--target-time".to_owned(), time.clone()],
            Target::Lsn(lsn) => vec!["--target-lsn".to_owned(), format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)],
            Target::Latest => vec!["--target".to_owned(), "latest".to_owned()],
        };
        if let Some(timeline) = self.timeline {
            arguments.extend(["--target-timeline".to_owned(), timeline.to_string()]);
        }
        if let Some(backup) = &self.backup {
            arguments.extend(["--backup".to_owned(), backup.clone()]);
        }
        arguments
    }
}

/// What a command printed as JSON.
fn printed(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

/// The commands agree on a target. Whether it is reachable, and on which timeline.
fn agree(history: &History, question: &Question) -> Option<u32> {
    let site = &history.site;
    let arguments = question.arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    History::empty(&site.scratch.path().join(TABLESPACE));
    let resolved = site.run(&[&["--json", "resolve"], &words[..]].concat());
    let place = site.place("nowhere");
    let plan = ["--json", "pitr-restore", "--plan", "--pgdata", place.to_str().unwrap()];
    let planned = site.run(&[&plan[..], &words[..]].concat());
    assert_eq!(resolved.code(), planned.code(), "{question:?}: {resolved:?}\n{planned:?}");
    assert!(matches!(resolved.code(), 0 | 15), "{question:?}: {resolved:?}");
    let report = printed(&resolved);
    assert_eq!(report["reachable"].as_bool(), Some(resolved.code() == 0), "{question:?}: {report:#}");
    let planned = printed(&planned);
    let of_plan = planned.get("plan").unwrap_or(&planned)["resolve"].clone();
    for field in
        ["reachable", "reason", "hint", "timeline", "stop", "backup", "last_included", "first_excluded", "settings", "wal"]
    {
        assert_eq!(report[field], of_plan[field], "{question:?}: {field} of resolve and of the plan");
    }
    if resolved.code() != 0 {
        eprintln!("    out of reach: {}", report["reason"]);
    }
    (resolved.code() == 0).then(|| u32::try_from(report["timeline"].as_u64().unwrap()).unwrap())
}

/// Restores, with the settings that the server had when the backup was taken; only the sockets are other ones.
fn restore(history: &History, name: &str, words: &[&str]) -> Cluster {
    let site = &history.site;
    site.try_restore(name, &[words, &[ORIGINAL_PLACES]].concat()).exits(0);
    let settings = std::fs::read_to_string(site.place(name).join("test.conf")).unwrap();
    let connections = settings.lines().find_map(|line| line.strip_prefix("max_connections = ")).unwrap().trim_matches('\'');
    Cluster::restored(&site.scratch, name, history.major, &site.options.clone().setting("max_connections", connections))
}

/// Whether a server gave up at the end of a recovery that was planned rightly. Where recovery stops before a fork, in
/// the fork's segment, and a transaction is prepared there, the server reads what was prepared from the segment of the
/// earlier timeline (`XlogReadTwoPhaseData`; seen on 13 and 18); but it was given the later timeline's alone.
fn gave_up_what_was_prepared(log: &str, timeline: u32) -> bool {
    let last = |what: &str| log.lines().rev().find_map(|line| line.split_once(what)).map(|(_, rest)| rest);
    let wanted = last("FATAL:  requested WAL segment pg_wal/").and_then(|rest| rest.strip_suffix(" has already been removed"));
    let (Some(wanted), Some(end)) = (wanted, last("redo done at ")) else { return false };
    let end = parse_lsn(end.split(' ').next().unwrap());
    let segment = format!("{:08X}{:08X}", end >> 32, (end & 0xFFFF_FFFF) / MIB as u64);
    let Some(of) = wanted.strip_suffix(&segment).and_then(|of| u32::from_str_radix(of, 16).ok()) else { return false };
    (of + 1..=timeline).any(|later| log.contains(&format!("restored log file \"{later:08X}{segment}\" from archive")))
}

/// A real server ends where it was said, with the transactions that the target has. `false` where it could not end
/// there at all.
fn recovers(history: &History, question: &Question, timeline: u32, name: &str) -> bool {
    let arguments = question.arguments();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    words.extend(["--target-action", "promote", "--delta"]);
    let mut cluster = restore(history, name, &words);
    cluster.spawn();
    if let Recovery::Exited(status) = cluster.wait_recovery() {
        if !gave_up_what_was_prepared(&cluster.log(), timeline) {
            cluster.fail(&format!("recovery ended with {status}"));
        }
        eprintln!("    the server cannot: a transaction is prepared before the fork, in the fork's segment");
        return false;
    }
    match history.expected(&question.target, timeline) {
        Some(n) => cluster.assert_journal(n),
        None => {
            let last = cluster.sql("select max(n) from journal").parse().unwrap();
            cluster.assert_journal(last);
            // Of a position that was written down on another timeline nobody knows how many are before it on this one.
            if !matches!(question.target, Target::Lsn(_)) {
                assert_eq!(history.journals[&timeline].last().map(|entry| entry.n), Some(last), "{question:?}");
            }
        }
    }
    cluster.stop(Stop::Fast);
    true
}

/// No server gets there from any backup with PostgreSQL's own target.
fn is_out_of_reach(history: &History, question: &Question, name: &str) {
    let Some(timeline) = question.timeline else { return };
    let site = &history.site;
    let (setting, value, inclusive) = match &question.target {
        Target::Name(name) => ("recovery_target_name", name.clone(), true),
        Target::Xid(xid, exclusive) => ("recovery_target_xid", xid.to_string(), !exclusive),
        Target::Time(time) => ("recovery_target_time", time.clone(), true),
        Target::Lsn(lsn) => ("recovery_target_lsn", format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF), true),
        Target::Latest => return,
    };
    for backup in question.backup.as_ref().map_or(&history.backups[..], std::slice::from_ref) {
        History::empty(&site.scratch.path().join(TABLESPACE));
        let mut cluster = restore(history, name, &["--backup", backup, "--target", "immediate", "--delta"]);
        let file = cluster.data.join("postgresql.auto.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with("recovery_target"));
        let own = [
            format!("{setting} = '{value}'"),
            format!("recovery_target_inclusive = '{}'", if inclusive { "on" } else { "off" }),
            format!("recovery_target_timeline = '{timeline}'"),
            "recovery_target_action = 'promote'".to_owned(),
            // What Walvis would raise by itself.
            "max_connections = 60".to_owned(),
        ];
        let text: Vec<String> = kept.map(str::to_owned).chain(own).collect();
        site.scratch.write(&file, (text.join("\n") + "\n").as_bytes());
        cluster.spawn();
        if let Recovery::Promoted = cluster.wait_recovery() {
            let got = cluster.sql("select max(n) from journal").parse::<u64>().unwrap();
            if history.expected(&question.target, timeline) == Some(got) {
                cluster.fail(&format!("{question:?} is reached from backup {backup}, and was said to be out of reach"));
            }
            cluster.stop(Stop::Fast);
        }
    }
}

fn all_agree(major: u32, questions: usize, recoveries: u64) {
    let history = History::new(major);
    let mut random = random();
    let (mut left, mut refuted) = (recoveries, recoveries.div_ceil(4));
    for i in 0..questions {
        let question = Question::random(&history, &mut random);
        eprintln!("PostgreSQL {major}, {i}: {question:?}");
        match agree(&history, &question) {
            Some(timeline) if left > 0 => {
                left -= u64::from(recovers(&history, &question, timeline, "restored"));
            }
            None if refuted > 0 => {
                refuted -= 1;
                is_out_of_reach(&history, &question, "refuted");
            }
            _ => {}
        }
    }
    assert!(left < recoveries, "no target was within reach");
}

#[test]
fn pg13_one_truth() {
    all_agree(13, 30, number("WALVIS_TEST_RESTORES", 2));
}

#[test]
fn pg14_one_truth() {
    all_agree(14, 30, number("WALVIS_TEST_RESTORES", 2));
}

#[test]
fn pg15_one_truth() {
    all_agree(15, 30, number("WALVIS_TEST_RESTORES", 2));
}

#[test]
fn pg16_one_truth() {
    all_agree(16, 30, number("WALVIS_TEST_RESTORES", 2));
}

#[test]
fn pg17_one_truth() {
    all_agree(17, 30, number("WALVIS_TEST_RESTORES", 2));
}

#[test]
fn pg18_one_truth() {
    all_agree(18, 30, number("WALVIS_TEST_RESTORES", 2));
}

/// Hundreds of targets, dozens of them recovered to, on every version.
#[test]
#[ignore = "long: about 25 min"]
fn long_one_truth_on_all_versions() {
    for major in 13..=18 {
        all_agree(major, 200, number("WALVIS_TEST_RESTORES", 40));
    }
}

/// The ends of logs of 18: what the server gave up, and what is no excuse.
#[test]
fn only_what_was_prepared_before_a_fork_excuses_a_server() {
    let log = "startup LOG:  restored log file \"00000003000000000000000D\" from archive\n\
               startup LOG:  redo done at 0/D62BD0 system usage: CPU: user: 0.00 s\n\
               startup FATAL:  requested WAL segment pg_wal/00000002000000000000000D has already been removed\n\
               postmaster LOG:  database system is shut down\n";
    assert!(gave_up_what_was_prepared(log, 3));
    // The path ends before that timeline; another segment; the segment was given; another reason.
    assert!(!gave_up_what_was_prepared(log, 2));
    assert!(!gave_up_what_was_prepared(&log.replace("0/D62BD0", "0/E62BD0"), 3));
    assert!(!gave_up_what_was_prepared(&log.replace("file \"00000003", "file \"00000002"), 3));
    assert!(!gave_up_what_was_prepared(&log.replace("has already been removed", "is damaged"), 3));
}
