//! Verification that is ended in the middle: by a signal, by the end of its process, by the store.

use std::cell::Cell;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use walvis::limits::MIB;
use walvis::pg::Lsn;
use walvis::verify::{Hooks, Look, Session, SessionRequest, Window, session};

use super::world::{World, noise};
use crate::support::command::{Ran, start};
use crate::support::wal::{SEGMENT_BYTES, Writer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// More than one object has of all that is here, and all that is small and no object of a set, together.
const A_LITTLE: u64 = 600_000;

/// A little log, and a backup of 6 MiB that do not get shorter, all of it a month old.
fn world() -> World {
    let mut world = World::new();
    let mut writer = Writer::new(3, 2);
    while writer.lsn().0 < 3 * SEGMENT_BYTES {
        writer.busy(3);
    }
    let start = writer.lsn();
    writer.busy(2);
    let stop = writer.lsn();
    while writer.lsn().0 < 5 * SEGMENT_BYTES {
        writer.busy(3);
    }
    world.put_log(&writer.finish(), &[]);
    let names: Vec<String> = (10..30).map(|number| format!("base/5/{number}")).collect();
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().zip(0..).map(|(name, seed)| (name.as_str(), noise(seed, 6 * MIB / names.len()))).collect();
    world.backup(1, 1, (start, Lsn(stop.0)), &files);
    world.pass(30 * DAY);
    world
}

/// The stored bytes of what is read once in a period, but for manifests, whose bytes are not counted.
fn to_be_read(world: &World) -> u64 {
    let names = ["wal", "packs"].into_iter().flat_map(|part| world.objects(part));
    names.map(|name| fs::metadata(world.object(&name)).unwrap().len()).sum()
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))[0].clone()
}

fn read_bytes(report: &Value) -> u64 {
    report["read_bytes"].as_u64().unwrap()
}

/// A run that is ended by a signal while it reads. Where the signal came too early, it comes later the next time.
fn ended_in_the_middle(world: &World, look: &[&str], signal: Signal) -> Ran {
    for tenths in (5..).step_by(5) {
        let mut arguments = vec!["--json", "verify", "--jobs", "1", "--max-rate", "1"];
        arguments.extend(look);
        let running = start(&mut world.command(&arguments));
        std::thread::sleep(Duration::from_millis(tenths * 100));
        running.signal(signal);
        let ran = running.wait();
        assert_eq!(ran.status.signal(), Some(signal as i32), "the run is over: {ran:?}");
        // What is read is what nothing remembers: after SIGKILL nobody knows where it was.
        if (signal == Signal::SIGKILL && tenths >= 20) || (!ran.stdout.is_empty() && read_bytes(&report(&ran)) > A_LITTLE) {
            return ran;
        }
    }
    unreachable!()
}

#[test]
fn what_a_signal_ends_is_remembered_and_the_next_run_goes_on() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let world = world();
        let total = to_be_read(&world);
        let ran = ended_in_the_middle(&world, &["--rolling", "1d"], signal);
        let said: Value = serde_json::from_str(&ran.stderr).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        assert_eq!(said["error"]["exit"], 128 + signal as i32, "{said}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        let first = report(&ran);
        assert_eq!((&first["interrupted"], &first["findings_that_matter"]), (&true.into(), &0.into()), "{first:#}");
        assert!(read_bytes(&first) < total, "{first:#}");
        let list: Value = serde_json::from_str(&world.walvis(&["--json", "list"]).exits(0).stdout).unwrap();
        let last = &list[0]["clusters"][0]["systems"][0]["last_verifications"][0];
        assert_eq!((&last["verification_mode"], &last["interrupted"]), (&"rolling".into(), &true.into()), "{last:#}");

        let second = report(&world.walvis(&["--json", "verify", "--rolling", "1d"]).exits(0));
        let read = read_bytes(&first) + read_bytes(&second);
        // What was being read when the signal came counts as read, and is the first of the next share.
        assert!((total - A_LITTLE..total + A_LITTLE).contains(&read), "{read} of {total}: {first:#}, {second:#}");
        assert_eq!(second["interrupted"], false);
        let third = report(&world.walvis(&["--json", "verify", "--rolling", "1d"]).exits(0));
        assert_eq!(read_bytes(&third), 0, "{third:#}");
    }
}

#[test]
fn a_full_look_that_a_signal_ends_says_what_it_found_and_is_remembered() {
    let world = world();
    world.remove(&world.segment(1, 3));
    let ran = ended_in_the_middle(&world, &["--full"], Signal::SIGTERM);
    let report = report(&ran);
    assert_eq!((&report["interrupted"], &report["findings_that_matter"]), (&true.into(), &1.into()), "{report:#}");
    world.pass(DAY);
    // All is due, and what was read a day ago has its turn last.
    let next = super::interrupted::report(&world.walvis(&["--json", "verify", "--rolling", "2d"]).exits(18));
    assert!(read_bytes(&next) < to_be_read(&world) - A_LITTLE, "{next:#}");
}

#[test]
fn a_run_that_is_killed_leaves_nothing_that_disturbs_the_next() {
    let world = world();
    let total = to_be_read(&world);
    ended_in_the_middle(&world, &["--rolling", "1d"], Signal::SIGKILL);
    let next = report(&world.walvis(&["--json", "verify", "--rolling", "1d"]).exits(0));
    assert!((total..total + A_LITTLE).contains(&read_bytes(&next)), "{next:#}");
    assert_eq!(next["findings_total"], 0, "{next:#}");
}

fn rolling(world: &World, go_on: &dyn Fn(), max_bytes_per_s: Option<u64>) -> Session {
    let request = SessionRequest {
        look: Look::Rolling(DAY),
        jobs: 1,
        max_bytes_per_s,
        window: Window::Everything,
        source: None,
        keep_every: Duration::ZERO,
    };
    let go_on = || {
        go_on();
        Ok(())
    };
    session(&world.repository, &world.cluster, &request, &Hooks { go_on: &go_on, progress: &|_| {} }).unwrap()
}

/// Also a process that nobody can ask to end leaves what it had written down by then.
#[test]
fn what_was_written_down_meanwhile_is_not_read_again() {
    let world = world();
    let total = to_be_read(&world);
    let evidence = world.object(&format!("clusters/main/{}/evidence", world.facts.system_id));
    let written = || fs::read_dir(&evidence).map_or(0, Iterator::count);
    let asked = Cell::new(0);
    let killed = catch_unwind(AssertUnwindSafe(|| {
        let die = || {
            asked.set(asked.get() + 1);
            if written() >= 3 {
                resume_unwind(Box::new("killed"));
            }
        };
        rolling(&world, &die, Some(MIB as u64))
    }));
    assert!(killed.is_err() && asked.get() > 1);
    let remembered = world.repository.remembered(&world.cluster, world.facts.system_id).unwrap();
    assert_eq!(remembered.problems, []);
    let last = remembered.last_read.unwrap().verification;
    assert!(last.interrupted && last.owed_bytes > 0 && last.read_bytes > 0, "{last:?}");

    let Session { verified, ended_by, .. } = rolling(&world, &|| (), None);
    assert!(ended_by.is_none() && verified.findings.is_clean(), "{:#?}", verified.findings);
    let read = last.read_bytes + verified.checked[0].bytes;
    assert!((total - A_LITTLE..total + A_LITTLE).contains(&read), "{read} of {total}");
    let again = rolling(&world, &|| (), None);
    assert!(again.verified.checked.is_empty(), "nothing is due");
}
