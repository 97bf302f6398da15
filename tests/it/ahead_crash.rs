//! Helpers killed at every system call that changes a file system: what is on record is stored, what is in the spool is
//! whole, and the calls that come afterwards do all that is left to do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::crash::{kill_at_calls, strace};
use crate::support::ahead::Ahead;
use crate::support::command::{DESTINATION, Ran, Site, eventually, names_in, start};
use crate::support::segment::{Content, Segment};

/// Starts a helper as a call does, but under `strace`; when it has done its work, `end` lets it end.
fn helper(site: &Site, log: &Path, options: &[&str], arguments: &[&str], is_done: impl Fn() -> bool, end: impl Fn()) -> Ran {
    site.make_spool();
    let mut command = strace(site, log, options, arguments);
    let mut running = start(command.envs(walvis::wal::spool::HELPER_ENVIRONMENT));
    eventually("the helper does its work or dies", || running.has_ended() || is_done());
    end();
    running.wait()
}

/// Its threads take the files in an order of their own, so that now and then it does not come to a call.
fn were_killed((killed, calls): (usize, usize)) {
    assert!(calls >= 15 && killed * 3 > calls * 2, "{killed} kills at {calls} calls");
}

#[test]
fn a_push_helper_killed_at_any_call() {
    let names: Vec<String> = (1..=3).map(|number| Segment::new(number).name()).collect();
    let first = format!("pg_wal/{}", names[0]);
    were_killed(kill_at_calls(
        || {
            let site = Site::new();
            // The call for it is under way.
            site.archives(&site.backlog([1])[0]);
            fs::rename(site.status(&names[0], "done"), site.status(&names[0], "ready")).unwrap();
            for number in [2, 3] {
                let name = site.make(&Segment::new(number).holding(Content::Noise(number)));
                site.is_ready(&name);
            }
            site
        },
        |site, log, options| helper(site, log, options, &["push-wal", "--ahead", &first], || true, || ()),
        |site, how| {
            let stored = site.stored();
            for name in &names {
                if stored.contains(name) {
                    site.fetches(name);
                } else {
                    assert!(!site.record(name).exists(), "{how}: {name} is on record and not stored");
                }
            }
            for name in &names {
                site.archives(name).within(Duration::from_secs(15));
            }
            site.await_no_helper();
            names.iter().for_each(|name| site.fetches(name));
            assert_eq!(site.stored(), names, "{how}");
            assert!(names_in(&site.spool()).iter().all(|name| !name.starts_with('.')), "{how}: {:?}", names_in(&site.spool()));
        },
    ));
}

#[test]
fn a_fetch_helper_killed_at_any_call() {
    let names: Vec<String> = (1..=4).map(|number| Segment::new(number).name()).collect();
    let signal = |site: &Site| site.data().join("recovery.signal");
    were_killed(kill_at_calls(
        || {
            let site = Site::new();
            site.archive(&[1, 2, 3, 4]);
            site.recovers();
            site
        },
        |site, log, options| {
            let is_done = || names[1..].iter().all(|name| site.fetched_record(name).exists());
            // Recovery ends: it takes away what it brought.
            helper(site, log, options, &["fetch-wal", "--ahead", &names[0], DESTINATION], is_done, || {
                fs::remove_file(signal(site)).unwrap()
            })
        },
        |site, how| {
            site.recovers();
            // From the spool or not, each is what was archived.
            for name in &names {
                site.fetch(name).exits(0).within(Duration::from_secs(15));
                assert!(fs::read(site.destination()).unwrap() == fs::read(site.wal(name)).unwrap(), "{how}: {name}");
                fs::remove_file(site.destination()).unwrap();
            }
            site.fetch_fails(&Segment::new(5).name(), 1);
            // The helper of these calls takes over, and leaves nothing.
            eventually(how, || names_in(&site.spool().join("fetched")).is_empty());
        },
    ));
}
