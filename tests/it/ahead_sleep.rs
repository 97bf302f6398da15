//! Helpers sleep: they wake up when something happens and hardly otherwise, notice each kind of event, do without being
//! told, and write nothing into a spool that is taken away. Wakes and looks are counted, not timed.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use walvis::fsio::{self, Dir};
use walvis::limits::AHEAD_FILES;

use crate::support::ahead::{Ahead, hold, puts};
use crate::support::command::{DESTINATION, Running, Site, WALVIS, eventually, names_in, start};
use crate::support::s3::{Action, Op, S3Server};
use crate::support::segment::{self, Segment};

/// Something that happens, and what to call it.
type Happens<'a> = (&'a str, &'a dyn Fn(&Site));

fn names(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| Segment::new(number).name()).collect()
}

/// In recovery, with so many segments archived.
fn recovering(site: Site, last: u64) -> (Site, Vec<String>) {
    site.archive(&(1..=last).collect::<Vec<_>>());
    site.recovers();
    (site, names(1..=last))
}

/// Histories that wait to be archived.
fn histories(site: &Site, count: u32) -> Vec<String> {
    let names: Vec<String> = (2..count + 2).map(|timeline| format!("{timeline:08X}.history")).collect();
    for name in &names {
        site.write(name, segment::history(&[(1, 0x300000)]));
        site.is_ready(name);
    }
    names
}

/// How often the threads of a process went to sleep; `None` when it has ended.
fn sleeps(pid: i32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    Some(tasks.filter_map(Result::ok).map(of_task).sum())
}

/// How often it does within this time, once it has nothing to do.
fn sleeps_within(pid: i32, time: Duration) -> u64 {
    let mut before = sleeps(pid);
    eventually("it has nothing to do", || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, sleeps(pid)) == before
    });
    std::thread::sleep(time);
    sleeps(pid).unwrap() - before.unwrap()
}

/// Starts a helper as a call does, but under `strace`, which writes how each of its waits ended, and does what the
/// options say.
fn helper(site: &Site, log: &Path, options: &[&str], arguments: &[&str]) -> Running {
    site.make_spool();
    let wrapper = [&["strace", "-f", "-y", "-o", log.to_str().unwrap()], options, &[WALVIS]].concat();
    let mut command = site.wrapped(wrapper, arguments);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    start(command.envs(walvis::wal::spool::HELPER_ENVIRONMENT))
}

const WAITS: [&str; 2] = ["-e", "trace=?poll,ppoll"];

/// How often it woke up by itself, and how the last wait ended.
fn wakes_by_itself(log: &Path) -> (usize, bool) {
    let text = fs::read_to_string(log).unwrap();
    let of_watch = |line: &&str| line.contains(" = ") && (line.contains("inotify") || line.contains("resumed"));
    let waits: Vec<&str> = text.lines().filter(of_watch).collect();
    let timed_out = |line: &&&str| line.contains("(Timeout)");
    (waits.iter().filter(timed_out).count(), waits.last().is_some_and(|line| line.contains("(Timeout)")))
}

#[test]
fn a_fetch_helper_with_nothing_to_do_sleeps() {
    let server = S3Server::start();
    for site in [Site::new(), Site::on_s3(&server)] {
        let (site, names) = recovering(site, 11);
        site.fetches(&names[0]);
        site.await_fetched(&names[1..]);
        let slept = sleeps_within(site.helper().unwrap(), Duration::from_secs(4));
        // 400 times, where it looks for itself.
        assert!(slept <= 6, "it woke up {slept} times in four seconds");
        names[1..].iter().for_each(|name| site.fetches(name));
        site.await_no_helper();
    }
}

#[test]
fn a_push_helper_with_nothing_to_do_sleeps() {
    let site = Site::new();
    let names = histories(&site, 80);
    site.archives(&names[0]);
    let mut slept = None;
    for n in 1..11 {
        // Each begins anew the five seconds for which it waits for the archiver. On a busy host they may be over.
        site.archives(&names[n]);
        eventually("all that it may push is pushed", || site.record(&names[n + AHEAD_FILES]).exists());
        std::thread::sleep(Duration::from_millis(500));
        let Some(helper) = site.helper() else { continue };
        let before = sleeps(helper);
        std::thread::sleep(Duration::from_secs(2));
        slept = before.zip(sleeps(helper)).and_then(|(before, after)| after.checked_sub(before));
        if slept.is_some() && site.helper() == Some(helper) {
            break;
        }
    }
    assert!(slept.is_some_and(|slept| slept <= 4), "it woke up {slept:?} times in two seconds");
    names[11..].iter().for_each(|name| drop(site.push(name).exits(0)));
    site.await_no_helper();
}

/// What happens to the spool of a helper that has nothing to do; it is told, so no wait before that ends by itself.
#[test]
fn every_event_wakes_a_fetch_helper_up() {
    let events: [Happens<'_>; 7] = [
        ("recovery ends", &|site| fs::remove_file(site.data().join("recovery.signal")).unwrap()),
        ("the signal file is renamed", &|site| {
            fs::rename(site.data().join("recovery.signal"), site.data().join("recovery.done")).unwrap();
        }),
        ("the spool is renamed", &|site| fs::rename(site.spool(), site.data().join("pg_wal/other")).unwrap()),
        ("the spool is removed", &remove_spool),
        ("its lock is removed", &|site| fs::remove_file(site.spool().join("fetch.lock")).unwrap()),
        ("a segment is removed", &|site| fs::remove_file(site.fetched(&Segment::new(3).name())).unwrap()),
        ("pg_wal is renamed", &|site| fs::rename(site.data().join("pg_wal"), site.data().join("elsewhere")).unwrap()),
    ];
    for (what, event) in events {
        let (site, names) = recovering(Site::new(), 6);
        let log = site.path("log");
        let helper = helper(&site, &log, &WAITS, &["fetch-wal", "--ahead", &names[0], DESTINATION]);
        site.await_fetched(&names[1..]);
        event(&site);
        helper.wait().exits(0);
        let (_, by_itself) = wakes_by_itself(&log);
        assert!(!by_itself, "{what}: it was not told");
    }
}

#[test]
fn what_is_served_and_asked_for_wakes_a_fetch_helper_up() {
    let (site, names) = recovering(Site::new(), 60);
    let log = site.path("log");
    let helper = helper(&site, &log, &WAITS, &["fetch-wal", "--ahead", &names[0], DESTINATION]);
    let mut told = 0;
    site.await_fetched(&names[1..17]);
    // Each that is served makes room for another one.
    for n in 1..=8 {
        site.fetches(&names[n]);
        site.await_fetched(&names[n + 16..n + 17]);
        told += usize::from(!wakes_by_itself(&log).1);
    }
    // Recovery goes elsewhere.
    site.fetches(&names[40]);
    site.await_fetched(&names[41..57]);
    told += usize::from(!wakes_by_itself(&log).1);
    // Now and then a look by itself comes just in that moment.
    assert!(told >= 7, "of 9 it was told {told} times");
    fs::remove_file(site.data().join("recovery.signal")).unwrap();
    helper.wait().exits(0);
}

#[test]
fn every_event_wakes_a_push_helper_up() {
    let events: [Happens<'_>; 4] = [
        ("the spool is renamed", &|site| fs::rename(site.spool(), site.data().join("pg_wal/other")).unwrap()),
        ("the spool is removed", &remove_spool),
        ("pg_wal is renamed", &|site| fs::rename(site.data().join("pg_wal"), site.data().join("elsewhere")).unwrap()),
        ("all the others are archived", &|site| {
            for timeline in 2..82 {
                fs::remove_file(site.status(&format!("{timeline:08X}.history"), "ready")).unwrap();
            }
        }),
    ];
    for (what, event) in events {
        let site = Site::new();
        let names = histories(&site, 80);
        let log = site.path("log");
        let helper = helper(&site, &log, &WAITS, &["push-wal", "--ahead", &format!("pg_wal/{}", names[0])]);
        eventually("it works", || site.record(&names[AHEAD_FILES - 1]).exists());
        event(&site);
        helper.wait().exits(0);
        let (_, by_itself) = wakes_by_itself(&log);
        assert!(!by_itself, "{what}: it was not told");
    }
}

/// However many files wait, and however many of them are archived meanwhile.
#[test]
fn the_waiting_files_are_listed_once() {
    let site = Site::new();
    let names = histories(&site, 300);
    let log = site.path("log");
    let helper = helper(&site, &log, &["-e", "trace=getdents64"], &["push-wal", "--ahead", &format!("pg_wal/{}", names[0])]);
    // As the server does: the next ones come into view.
    for (n, name) in names[..150].iter().enumerate() {
        eventually("it is on record", || n == 0 || site.record(name).exists());
        fs::rename(site.status(name, "ready"), site.status(name, "done")).unwrap();
    }
    eventually("what came into view is pushed", || site.record(&names[149 + AHEAD_FILES]).exists());
    names[150..].iter().for_each(|name| fs::remove_file(site.status(name, "ready")).unwrap());
    helper.wait().exits(0);
    let text = fs::read_to_string(&log).unwrap();
    let listings = text.lines().filter(|line| line.contains("archive_status>") && line.ends_with(" = 0")).count();
    // Once more only where a look after five seconds meets a change.
    assert!((1..=3).contains(&listings), "archive_status was read {listings} times");
}

/// Where no watch can be had, helpers look for themselves, and do all the same.
#[test]
fn without_a_watch_helpers_look_for_themselves() {
    for injected in
        ["inotify_init1:error=EMFILE", "inotify_add_watch:error=ENOSPC", "inotify_init1:error=ENOSYS", "eventfd2:error=EMFILE"]
    {
        let call = injected.split(':').next().unwrap();
        let options = ["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), format!("inject={injected}")];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (site, names) = recovering(Site::new(), 30);
        let log = site.path("log");
        let running = helper(&site, &log, &options, &["fetch-wal", "--ahead", &names[0], DESTINATION]);
        site.await_fetched(&names[1..17]);
        for n in 1..=5 {
            site.fetches(&names[n]);
            site.await_fetched(&names[n + 16..n + 17]);
        }
        fs::remove_file(site.data().join("recovery.signal")).unwrap();
        running.wait().exits(0);
        assert!(names_in(&site.spool().join("fetched")).is_empty(), "{injected}");
        assert!(fs::read_to_string(&log).unwrap().contains("(INJECTED)"), "{injected}");

        let site = Site::new();
        let names = histories(&site, 80);
        let log = site.path("log");
        let running = helper(&site, &log, &options, &["push-wal", "--ahead", &format!("pg_wal/{}", names[0])]);
        for (n, name) in names[..16].iter().enumerate() {
            eventually("it is on record", || n == 0 || site.record(name).exists());
            fs::rename(site.status(name, "ready"), site.status(name, "done")).unwrap();
        }
        eventually("what came into view is pushed", || site.record(&names[79]).exists());
        running.wait().exits(0);
        assert!(fs::read_to_string(&log).unwrap().contains("(INJECTED)"), "{injected}");
    }
}

/// As `pitr-restore --delta` does.
fn remove_spool(site: &Site) {
    assert!(Dir::open(&site.data().join("pg_wal")).unwrap().remove_beneath(Path::new("walvis")).unwrap());
}

/// A helper that takes in what comes next, at each moment of its work.
#[test]
fn a_spool_that_is_removed_stays_removed() {
    for round in 0..8_u64 {
        // A server holds one repository.
        let server = S3Server::start();
        server.set_latency(Duration::from_millis(3));
        let site = if round % 2 == 0 { Site::new() } else { Site::on_s3(&server) };
        let (site, names) = recovering(site, 40);
        site.fetches(&names[0]);
        site.await_fetched(&names[1..3]);
        for name in &names[1..3] {
            site.fetches(name);
        }
        std::thread::sleep(Duration::from_millis(round * 9));
        remove_spool(&site);
        assert!(!site.spool().exists(), "round {round}");
        site.await_no_helper();
        assert!(!site.spool().exists(), "round {round}: the helper made it anew");

        // The archiver's.
        // A server holds one repository.
        let server = S3Server::start();
        server.set_latency(Duration::from_millis(3));
        let site = if round % 2 == 0 { Site::new() } else { Site::on_s3(&server) };
        let names = site.backlog(1..=20);
        site.archives(&names[0]);
        eventually("it works", || site.record(&names[1]).exists());
        std::thread::sleep(Duration::from_millis(round * 6));
        remove_spool(&site);
        site.await_no_helper();
        assert!(!site.spool().exists(), "round {round}: the helper made it anew");
    }
}

/// What is under way when the spool is taken away is never given a name there.
#[test]
fn without_its_lock_a_helper_writes_nothing() {
    let server = S3Server::start();
    let (site, names) = recovering(Site::on_s3(&server), 6);
    let barrier = hold(&server, Op::Get, &names[3]);
    site.fetches(&names[0]);
    site.await_fetched(&[1, 2, 4, 5].map(|n| names[n].clone()));
    let before = names_in(&site.spool());
    fs::remove_file(site.spool().join("fetch.lock")).unwrap();
    barrier.wait();
    server.unhook();
    site.await_no_helper();
    assert!(!site.fetched(&names[3]).exists() && !site.fetched_record(&names[3]).exists());
    let after = names_in(&site.spool());
    assert!(after.iter().all(|name| before.contains(name) && name != "fetch.lock"), "{after:?}");

    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let names = site.backlog(1..=6);
    let barrier = hold(&server, Op::Put, &names[3]);
    site.archives(&names[0]);
    eventually("the others are on record", || [1, 2, 4, 5].iter().all(|n| site.record(&names[*n]).exists()));
    eventually("it is in the middle", || puts(&server, &names[3]) == 1);
    fs::remove_file(site.spool().join("push.lock")).unwrap();
    // What was being written at that moment is there by now.
    std::thread::sleep(Duration::from_millis(200));
    let plan = fs::read(site.spool().join("push.plan")).unwrap();
    barrier.wait();
    server.unhook();
    site.await_no_helper();
    assert!(!site.record(&names[3]).exists());
    assert!(fs::read(site.spool().join("push.plan")).unwrap() == plan, "it wrote its plan without its lock");
    // Nothing is lost by it.
    names[1..].iter().for_each(|name| drop(site.archives(name)));
    names.iter().for_each(|name| site.fetches(name));
}

/// The catalog may be slow; the next helper does not wait for that.
#[test]
fn the_lock_is_free_while_the_last_nodes_are_written() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let names = site.backlog(16..=40);
    static GO_ON: AtomicBool = AtomicBool::new(false);
    server.hook(|seen| {
        if seen.op != Op::Put || !seen.path.contains("/index/") {
            return Action::Pass;
        }
        Action::Before(Box::new(|| {
            while !GO_ON.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }))
    });
    // This one is not the server's: it waits for the first of the files, so that no call writes the node.
    site.push(&names[0]).exits(0);
    let lock = site.spool().join("push.lock");
    eventually("all are on record", || names[1..].iter().all(|name| site.record(name).exists()));
    eventually("the next helper could begin", || !fsio::is_locked(&lock));
    let helper = site.helper();
    GO_ON.store(true, Ordering::Relaxed);
    server.unhook();
    assert!(helper.is_some(), "the helper was done with the catalog before that");
    site.await_no_helper();
    let nodes = server.objects("pg/clusters/").keys().filter(|key| key.contains("/index/00000001/1/")).count();
    assert_eq!(nodes, 1, "16 to 31");
}
