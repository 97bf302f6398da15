//! The program itself: `walvis expire --confirm` is killed (SIGKILL) on a directory and on S3, meets buckets of moto
//! that hold objects or deny their deletion, and says what it did. [`super::kills`] tries every point.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use walvis::error::Kind;
use walvis::store::s3::{LockMode, ObjectLock, S3Settings};
use walvis::store::{ContentId, Created, Key, Store};

use super::history::{History, Script};
use super::kills;
use crate::crash::{Moment, killed_at_request, strace};
use crate::support::command::{Site, run};
use crate::support::s3::{Moto, Op, S3Server, open};
use crate::support::schema;

pub(super) const RULES: &str = "[repository.retention]\nkeep_last = 1\ngrace = '1s'\n";
/// Longer than the grace period, by clocks of whole seconds.
pub(super) const LATER: Duration = Duration::from_millis(1100);

pub(super) fn objects(history: &History) -> Vec<(Key, bytes::Bytes)> {
    history.store.stored_in(i64::MIN, history.end).into_iter().map(|(_, key, bytes)| (key, bytes)).collect()
}

/// Names of what is there but tombstones, what goes with them, and evidence, below any prefix.
fn content(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let is_content =
        |name: &String| !["tombstones/", "begun/", "probe/", "evidence/", ".walvis"].iter().any(|part| name.contains(part));
    names.into_iter().filter(is_content).collect()
}

pub(super) fn below(directory: &Path) -> BTreeSet<String> {
    let files = crate::support::command::files_below(directory);
    content(files.iter().map(|path| path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned()))
}

/// A directory with the history, after the first phase, whose grace period is over.
pub(super) fn in_a_directory(history: &History) -> Site {
    let mut site = Site::bare();
    let directory = site.path("years");
    for (key, bytes) in objects(history) {
        let path = directory.join(key.as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    site.configure(&format!("[[repository]]\nurl = \"file://{}\"\n{RULES}", directory.display()));
    let before = below(&directory);
    let ran = site.run(["expire", "--confirm", "--json"]).exits(0);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    schema::holds("expire", &json);
    assert_eq!(below(&directory), before, "the first phase deletes nothing");
    assert!(json[0]["done"]["named_objects"].as_u64().unwrap() > 10 && json[0]["tombstones"][0]["begun"] == false, "{json:#}");
    std::thread::sleep(LATER);
    site
}

/// Runs it until nothing is left to do.
pub(super) fn to_the_end(site: &Site) {
    for _ in 0..2 {
        site.run(["expire", "--confirm"]).exits(0);
        std::thread::sleep(LATER);
    }
}

#[test]
fn on_a_directory_it_is_killed_and_goes_on() {
    let history = History::make(&Script::quiet(21, 4));
    let undisturbed = in_a_directory(&history);
    let text = undisturbed.run(["expire", "--confirm"]).exits(0).stdout;
    assert!(text.contains("deleted: 3 backups") && text.contains("goes after the grace period"), "{text}");
    to_the_end(&undisturbed);
    let stays = below(&undisturbed.path("years"));
    assert_eq!(stays.iter().filter(|name| name.contains("/backups/")).count(), 1);
    let mut killed = 0;
    for (call, n) in
        [("linkat", 2), ("unlinkat", 1), ("unlinkat", 4), ("unlinkat", 9), ("unlinkat", 16), ("fsync", 5), ("unlinkat", 26)]
    {
        let (site, how) = (in_a_directory(&history), format!("killed at {call} {n}"));
        let inject = format!("inject={call}:signal=SIGKILL:when={n}");
        let ran = run(&mut strace(&site, &site.path("log"), &["-e", &inject], &["expire", "--confirm"]));
        killed += usize::from(ran.status.signal() == Some(9));
        let there = below(&site.path("years"));
        assert!(there.is_superset(&stays), "{how}: {:?}", stays.difference(&there));
        to_the_end(&site);
        assert_eq!(below(&site.path("years")), stays, "{how}");
    }
    assert!(killed >= 4, "{killed}");
}

#[test]
fn on_s3_it_is_killed_and_goes_on() {
    let history = History::make(&Script::quiet(21, 4));
    let make = || {
        let server = S3Server::start();
        let mut site = Site::bare();
        site.use_s3(&server, "pg");
        objects(&history).iter().for_each(|(key, bytes)| server.insert(&format!("pg/{key}"), bytes));
        site.configure(&format!("[[repository]]\nurl = \"{}\"\n{RULES}", server.url("pg")));
        site.run(["expire", "--confirm"]).exits(0);
        std::thread::sleep(LATER);
        (server, site)
    };
    let names = |server: &S3Server| content(server.objects("pg/").into_keys());
    let (server, site) = make();
    server.clear_log();
    site.run(["expire", "--confirm"]).exits(0);
    let changes: Vec<usize> = server
        .log()
        .iter()
        .filter(|seen| matches!(seen.op, Op::Put | Op::Delete | Op::DeleteMany))
        .map(|seen| seen.ordinal)
        .collect();
    to_the_end(&site);
    let stays = names(&server);
    assert_eq!(stays.iter().filter(|name| name.contains("/backups/")).count(), 1);
    assert!(changes.len() > 8, "{changes:?}");
    let mut killed = 0;
    for (n, ordinal) in changes.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        let moment = if n % 4 == 0 { Moment::Before } else { Moment::After };
        let (server, site) = make();
        killed += usize::from(killed_at_request(&site, &server, &["expire", "--confirm"], *ordinal, moment));
        server.unhook();
        let there = names(&server);
        assert!(there.is_superset(&stays), "killed at {ordinal}: {:?}", stays.difference(&there));
        to_the_end(&site);
        assert_eq!(names(&server), stays, "killed at {ordinal}");
    }
    assert!(killed > 3, "{killed}");
}

fn fill(store: &dyn Store, history: &History) {
    for (key, bytes) in objects(history) {
        assert_eq!(store.create(&key, bytes, &ContentId([1; 16])).unwrap(), Created::New);
    }
}

fn names(store: &dyn Store) -> BTreeSet<String> {
    let mut names = Vec::new();
    store
        .list("", "", &mut |entry| {
            names.push(entry.key.as_str().to_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    content(names)
}

#[test]
fn a_locked_bucket_holds_and_nothing_fails() {
    let history = History::make(&Script::quiet(21, 4));
    let moto = Moto::start();
    moto.create_bucket("vault", true);
    let object_lock = Some(ObjectLock { mode: LockMode::Compliance, retain_days: 7 });
    fill(&open(S3Settings { object_lock, ..moto.settings("vault", "pg") }), &history);
    let store: Arc<dyn Store> = Arc::new(open(moto.settings("vault", "pg")));
    let before = names(&*store);
    kills::expire_now(&store).unwrap();
    std::thread::sleep(LATER);
    let done = kills::expire_now(&store).unwrap();
    let tally = &done.expired.tally;
    assert!(tally.held > 3 && tally.gone == 0 && done.denied("here").is_none(), "{tally:?}");
    let week = jiff::Timestamp::now().as_second() + 7 * 86_400;
    assert!(tally.held_until_unix_s.is_some_and(|until| (until - week).abs() < 600), "{tally:?}");
    assert!(done.waiting.iter().any(|waiting| waiting.begun), "it is tried again");
    assert_eq!(names(&*store), before);
}

#[test]
fn credentials_that_cannot_delete_change_nothing() {
    let history = History::make(&Script::quiet(21, 4));
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    fill(&open(moto.settings("backups", "pg")), &history);
    let settings = moto.restrict(
        "backups",
        "pg",
        r#"{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::backups/pg/*"},
           {"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::backups"}"#,
    );
    let store: Arc<dyn Store> = Arc::new(open(settings));
    let before = names(&*store);
    let error = kills::expire_now(&store).unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.hint.unwrap().contains("s3:DeleteObject"));
    assert_eq!(names(&*store), before);
}
