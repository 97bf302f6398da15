//! Helpers killed at every system call that changes a file system: what is on record is stored, what is in the spool is whole, and the
//! calls that come afterwards do all that is left to do.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::crash::{CALLS, calls};
use crate::support::ahead::Ahead;
use crate::support::command::{DESTINATION, Ran, Site, WALVIS, eventually, names_in, start};
use crate::support::segment::{Content, Segment};

/// Starts a helper as a call does, but under `strace`, and waits until it ends; it is told to when it has done this.
fn helper(site: &Site, log: &Path, inject: Option<&str>, arguments: &[&str], is_done: impl Fn() -> bool, end: impl Fn()) -> Ran {
    for directory in ["", "pushed", "fetched"] {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o700).recursive(true).create(site.spool().join(directory)).unwrap();
    }
    let trace = format!("trace={CALLS}");
    let mut wrapper = vec!["strace", "-f", "-o", log.to_str().unwrap(), "-e", &trace];
    wrapper.extend(inject.into_iter().flat_map(|inject| ["-e", inject]));
    wrapper.push(WALVIS);
    let mut command = site.wrapped(wrapper, arguments);
    command.envs(walvis::ops::spool::HELPER_ENVIRONMENT).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut running = start(&mut command);
    eventually("the helper does its work or dies", || running.has_ended() || is_done());
    end();
    running.wait()
}

/// Kills a helper at each of its calls, in a fresh site each time. Its threads take the files in an order of their own, so that now and
/// then it ends before it comes to a call.
fn kill_at_every_call(make: impl Fn() -> Site, work: impl Fn(&Site, &Path, Option<&str>) -> Ran, check: impl Fn(&Site, &str)) {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    work(&make(), &log, None).exits(0);
    let calls = calls(&fs::read_to_string(&log).unwrap());
    let mut killed = 0;
    for (call, n) in &calls {
        let site = make();
        let how = format!("killed at {call} {n}");
        let ran = work(&site, &log, Some(&format!("inject={call}:signal=SIGKILL:when={n}")));
        match ran.status.signal() {
            Some(signal) => assert_eq!(signal, Signal::SIGKILL as i32, "{how}: {ran:?}"),
            None => assert!(ran.status.success(), "{how}: {ran:?}"),
        }
        killed += usize::from(ran.status.signal().is_some());
        check(&site, &how);
    }
    println!("killed at {killed} of {} calls", calls.len());
    assert!(calls.len() >= 15 && killed * 3 > calls.len() * 2, "killed at {killed} of {calls:?}");
}

#[test]
fn a_push_helper_killed_at_any_call() {
    let names: Vec<String> = (1..=3).map(|number| Segment::new(number).name()).collect();
    let first = format!("pg_wal/{}", names[0]);
    kill_at_every_call(
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
        |site, log, inject| helper(site, log, inject, &["push-wal", "--ahead", &first], || true, || ()),
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
    );
}

#[test]
fn a_fetch_helper_killed_at_any_call() {
    let names: Vec<String> = (1..=4).map(|number| Segment::new(number).name()).collect();
    let signal = |site: &Site| site.data().join("recovery.signal");
    kill_at_every_call(
        || {
            let site = Site::new();
            site.archive(&[1, 2, 3, 4]);
            site.recovers();
            site
        },
        |site, log, inject| {
            let is_done = || names[1..].iter().all(|name| site.fetched_record(name).exists());
            // Recovery ends: it takes away what it brought.
            helper(site, log, inject, &["fetch-wal", "--ahead", &names[0], DESTINATION], is_done, || {
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
    );
}
