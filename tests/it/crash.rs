//! Kills: at every system call that changes a file system, and at every request to S3. Afterwards all is as before or
//! complete, the next call succeeds, and nothing piles up.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use walvis::limits::MIB;

use crate::support::command::{DESTINATION, Ran, Running, Site, WALVIS, eventually, files_below, names_in, run, start};
use crate::support::s3::{Action, S3Server};
use crate::support::segment::{self, Content, Segment};

/// The calls that change a file system or make it durable. Between two of them a kill finds the same state as at the
/// second.
const CALLS: &str = "openat,mkdirat,mkdir,linkat,link,renameat,renameat2,rename,unlinkat,unlink,fsync,fdatasync,pwrite64,write,ftruncate,flock,fchmod";

/// A command under `strace`, which looks at these calls and does with them what the options say.
pub(crate) fn strace(site: &Site, log: &Path, options: &[&str], arguments: &[&str]) -> Command {
    let trace = format!("trace={CALLS}");
    let wrapper = [&["strace", "-f", "-o", log.to_str().unwrap(), "-e", &trace], options, &[WALVIS]].concat();
    let mut command = site.wrapped(wrapper, arguments);
    // strace itself is looked for.
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// For every call of the kinds above that an undisturbed run makes, its name and its number among those of its name and
/// thread, but not those that only read.
fn calls(log: &str) -> Vec<(String, usize)> {
    let (mut counts, mut calls) = (BTreeMap::<(String, String), usize>::new(), Vec::new());
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !CALLS.split(',').any(|c| c == call) {
            continue;
        }
        let count = counts.entry((thread.to_owned(), call.to_owned())).or_default();
        *count += 1;
        let only_reads = call == "openat" && !arguments.contains("O_CREAT") && !arguments.contains("O_TMPFILE");
        if !only_reads && !calls.contains(&(call.to_owned(), *count)) {
            calls.push((call.to_owned(), *count));
        }
    }
    calls
}

/// Kills what `work` starts at each of its calls, in a fresh site each time, and looks at what is left. How many kills
/// there were, of how many calls: threads that share work do not always come to the same ones.
pub(crate) fn kill_at_calls(
    make: impl Fn() -> Site,
    work: impl Fn(&Site, &Path, &[&str]) -> Ran,
    check: impl Fn(&Site, &str),
) -> (usize, usize) {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    work(&make(), &log, &[]).exits(0);
    let calls = calls(&fs::read_to_string(&log).unwrap());
    let mut killed = 0;
    for (call, n) in &calls {
        let (site, how) = (make(), format!("killed at {call} {n}"));
        let ran = work(&site, &log, &["-e", &format!("inject={call}:signal=SIGKILL:when={n}")]);
        if ran.status.signal() == Some(Signal::SIGKILL as i32) {
            killed += 1;
        } else {
            assert!(ran.status.success(), "{how}: {ran:?}");
        }
        check(&site, &how);
    }
    (killed, calls.len())
}

/// Kills a command at each of its calls.
fn kill_at_every_call(arguments: &[&str], make: impl Fn() -> Site, check: impl Fn(&Site, &str)) {
    let work = |site: &Site, log: &Path, options: &[&str]| run(&mut strace(site, log, options, arguments));
    let (killed, calls) = kill_at_calls(make, work, check);
    assert!(calls >= 4 && killed == calls, "{killed} kills at {calls} calls");
}

/// The file is there whole, or not at all; the next push succeeds; then it is there.
fn whole_or_none(site: &Site, name: &str, how: &str) {
    let ran = site.fetch(name);
    match ran.code() {
        0 => assert!(fs::read(site.destination()).unwrap() == fs::read(site.wal(name)).unwrap(), "{how}: half a file"),
        1 => assert!(!site.destination().exists(), "{how}"),
        // Before the binding there is no such cluster.
        200 => assert!(ran.stderr.contains("nothing is stored of cluster"), "{how}: {ran:?}"),
        _ => panic!("{how}: {ran:?}"),
    }
    let _ = fs::remove_file(site.destination());
    site.push(name).exits(0);
    site.fetches(name);
    assert_eq!(site.stored(), [name], "{how}");
}

#[test]
fn a_push_killed_at_any_call() {
    let name = Segment::new(1).name();
    let path = format!("pg_wal/{name}");
    kill_at_every_call(
        &["push-wal", &path],
        || {
            let site = Site::new();
            site.make(&Segment::new(1).holding(Content::Noise(1)));
            site
        },
        |site, how| whole_or_none(site, &name, how),
    );
}

#[test]
fn an_init_killed_at_any_call() {
    let name = Segment::new(1).name();
    kill_at_every_call(&["init", "--pgdata", "."], Site::without_repository, |site, how| {
        site.make(&Segment::new(1));
        // Either it is there or it is not, and says so.
        let ran = site.push(&name);
        assert!(ran.code() == 0 || ran.stderr.contains("walvis init"), "{how}: {ran:?}");
        site.run(["init", "--pgdata", "."]).exits(0);
        whole_or_none(site, &name, how);
        let stray: Vec<_> =
            files_below(&site.repository()).into_iter().filter(|p| p.to_str().unwrap().contains("/.walvis")).collect();
        assert!(stray.is_empty(), "{how}: {stray:?}");
    });
}

#[test]
fn a_key_killed_at_any_call() {
    kill_at_every_call(&["key", "generate", "new-key"], Site::bare, |site, how| {
        let path = site.data().join("new-key");
        if path.exists() {
            assert_eq!(fs::read(&path).unwrap().len(), fs::read(site.path("key")).unwrap().len(), "{how}: half a key");
            site.run(["key", "generate", "new-key"]).exits(16);
        } else {
            site.run(["key", "generate", "new-key"]).exits(0);
        }
        assert_eq!(names_in(&site.data()), ["global", "new-key", "pg_wal"], "{how}");
    });
}

#[test]
fn a_fetch_killed_at_any_call() {
    let name = Segment::new(1).name();
    for is_taken in [false, true] {
        let make = || {
            let site = Site::new();
            site.archive(&[1]);
            if is_taken {
                fs::write(site.destination(), "before").unwrap();
            }
            site
        };
        kill_at_every_call(&["fetch-wal", &name, DESTINATION], make, |site, how| {
            let expected = Segment::new(1).bytes();
            match fs::read(site.destination()) {
                Ok(bytes) if is_taken && bytes == b"before" => {}
                Ok(bytes) => assert!(bytes == expected, "{how}: half a file"),
                Err(e) => assert!(!is_taken && e.kind() == std::io::ErrorKind::NotFound, "{how}: {e}"),
            }
            // The next one tidies up what a killed one left under a temporary name.
            fs::write(site.destination(), "x").unwrap();
            site.fetch(&name).exits(0);
            assert!(fs::read(site.destination()).unwrap() == expected, "{how}");
            fs::remove_file(site.destination()).unwrap();
            site.left_nothing();
        });
    }
}

#[test]
fn many_kills_leave_no_heap() {
    let site = Site::new();
    site.archive(&[1]);
    let log = site.path("log");
    for number in 2..22 {
        let name = site.make(&Segment::new(number));
        let path = format!("pg_wal/{name}");
        let call = ["linkat", "fsync", "pwrite64"][number as usize % 3];
        run(&mut strace(&site, &log, &["-e", &format!("inject={call}:signal=SIGKILL")], &["push-wal", &path]));
        assert!(fs::read_to_string(&log).unwrap().contains("killed by SIGKILL"));
    }
    // 21 segments, a binding, a descriptor and a key at most; temp files nowhere.
    assert_eq!(site.stored(), [Segment::new(1).name()]);
    assert_eq!(files_below(&site.repository()).len(), 4);
}

/// When the client is killed, seen from the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// The request has begun to arrive; it never arrives whole.
    AtHead,
    /// It has arrived and is served all the same.
    Before,
    /// It has been served and not answered yet.
    After,
}

/// Runs a command and kills it at a request; whether it came to that.
pub(crate) fn killed_at_request(site: &Site, server: &S3Server, arguments: &[&str], ordinal: usize, moment: Moment) -> bool {
    server.clear_log();
    let victim: Arc<Mutex<Option<Running>>> = Arc::default();
    let hooked = Arc::clone(&victim);
    server.hook(move |seen| {
        if seen.ordinal != ordinal {
            return Action::Pass;
        }
        let victim = Arc::clone(&hooked);
        let kill = Box::new(move || {
            let running = victim.lock().unwrap().take().unwrap();
            running.signal(Signal::SIGKILL);
            assert_eq!(running.wait().status.signal(), Some(Signal::SIGKILL as i32));
        });
        match moment {
            Moment::AtHead => Action::AtHead(kill),
            Moment::Before => Action::Before(kill),
            Moment::After => Action::After(kill),
        }
    });
    {
        // Held while it is started, so that the server finds it there.
        let mut slot = victim.lock().unwrap();
        *slot = Some(start(&mut site.command(arguments)));
    }
    let mut was_killed = true;
    eventually("it is killed or ends", || {
        let mut slot = victim.lock().unwrap();
        let has_ended = slot.as_mut().map(Running::has_ended);
        was_killed = has_ended.is_none();
        has_ended != Some(false)
    });
    let left = victim.lock().unwrap().take();
    if let Some(running) = left {
        running.wait().exits(0);
    }
    // What has arrived is served to its end, although nobody waits for the answer.
    eventually("the server is idle", || server.in_flight() == 0);
    server.unhook();
    was_killed
}

/// Kills a push at every request from this one on, with a fresh server and site each time.
fn kill_push_at_every_request(segment: Segment, moments: &[Moment], first: usize, ignores_conditions: bool) {
    let name = segment.name();
    let path = format!("pg_wal/{name}");
    for moment in moments {
        for ordinal in first.. {
            let server = S3Server::start();
            server.set_ignores_conditions(ignores_conditions);
            let site = Site::on_s3(&server);
            site.become_cluster(segment::SYSTEM_ID, segment.size);
            match segment.content {
                Content::Noise(_) => segment.write_sparse(&site.wal(&name), segment.size, 8 * MIB + 4096),
                _ => site.write(&name, segment.bytes()),
            }
            if !killed_at_request(&site, &server, &["push-wal", &path], ordinal, *moment) {
                assert!(ordinal >= 5, "only {ordinal} requests");
                break;
            }
            let how = format!("{moment:?} request {ordinal} of {} bytes", segment.size);
            let wal = || server.objects("pg/clusters/").keys().filter(|k| k.contains("/wal/")).count();
            if wal() == 0 {
                assert!(matches!(site.fetch(&name).code(), 1 | 200), "{how}");
                assert!(!site.destination().exists(), "{how}");
            }
            // What is there already is read whole and compared.
            site.push(&name).exits(0).within(Duration::from_secs(20));
            site.fetches(&name);
            assert_eq!(wal(), 1, "{how}");
        }
    }
}

#[test]
fn a_push_to_s3_killed_at_any_request() {
    let moments = [Moment::AtHead, Moment::Before, Moment::After];
    kill_push_at_every_request(Segment::new(1).holding(Content::Zeros), &moments, 0, false);
}

/// Its killed uploads are not seen as objects.
#[test]
fn a_push_in_parts_killed_at_any_request() {
    let segment = Segment::new(1).sized(16 * MIB).holding(Content::Noise(1));
    // Half an upload part is `store_s3`'s subject.
    kill_push_at_every_request(segment, &[Moment::After], 6, false);
}

#[test]
fn a_push_with_claims_killed_at_any_request() {
    kill_push_at_every_request(Segment::new(1).holding(Content::Zeros), &[Moment::Before, Moment::After], 0, true);
}

#[test]
fn an_init_on_s3_killed_at_any_request() {
    for ignores_conditions in [false, true] {
        for moment in if ignores_conditions { vec![Moment::After] } else { vec![Moment::Before, Moment::After] } {
            let requests = {
                let server = S3Server::start();
                server.set_ignores_conditions(ignores_conditions);
                Site::on_s3(&server);
                server.log().len()
            };
            // The races of the probe are one like the other: some of them, and everything before and behind.
            let chosen = |ordinal: &usize| *ordinal < 9 || *ordinal + 8 >= requests || ordinal.is_multiple_of(40);
            for ordinal in (0..).filter(chosen) {
                let server = S3Server::start();
                server.set_ignores_conditions(ignores_conditions);
                let mut site = Site::bare();
                site.use_s3(&server, "pg");
                if !killed_at_request(&site, &server, &["init"], ordinal, moment) {
                    assert!(ordinal >= 5, "only {ordinal} requests");
                    break;
                }
                let how = format!("{moment:?} request {ordinal}");
                // Not to wait long for a claim; but a busy machine may not even come to it within a second.
                let claimed = |ran: &Ran| ran.stderr.contains("claim claims/walvis.json/");
                let mut tries = ["--timeout=1", "--timeout=10"].iter().map(|limit| site.run(["init", limit]));
                let again = tries.find(|ran| ran.code() == 0 || claimed(ran)).unwrap_or_else(|| panic!("{how}: init fails"));
                if again.code() != 0 {
                    // Its claim on the descriptor counts for two hours, or until an operator does as the message says.
                    assert!(ignores_conditions, "{how}: {again:?}");
                    again.exits(11).tells_the_way_out().says(&["delete the claim"]);
                    for claim in server.objects("pg/claims/").keys() {
                        server.remove(claim);
                    }
                    site.init();
                }
                let descriptor = String::from_utf8(server.objects("pg/walvis.json").remove("pg/walvis.json").unwrap()).unwrap();
                // What the killed one left must not be taken for an answer of the store.
                assert_eq!(descriptor.contains("\"claims\""), ignores_conditions, "{how}: {descriptor}");
                site.archive(&[1]);
                site.fetches(&Segment::new(1).name());
            }
        }
    }
}
