//! Patience that fits the caller: a recovery waits for an answer, a standby goes on without one unless something could
//! be lost by it, what is optional holds up nothing and gets later what it missed, and the server's log has one message
//! per call.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use walvis::deadline::Deadline;
use walvis::store::fault::{Effect, Fault, Op as StoreOp};
use walvis::store::health::Health;
use walvis::store::memory::MemoryStore;
use walvis::store::retry::{Policy, Retry};
use walvis::store::{ErrorKind, Key, ReadRange, Store};

use crate::recovery::Archive;
use crate::support::ahead::{Ahead, field, forge};
use crate::support::command::{DESTINATION, Site, eventually, files_below};
use crate::support::postgres::{Cluster, Options, Recovery, Role, Scratch, poll};
use crate::support::s3::{Action, S3Server};
use crate::support::segment::{self, Segment};

fn name(number: u64) -> String {
    Segment::new(number).name()
}

/// A store whose first reads fail so.
fn failing(times: u64, kind: ErrorKind) -> Arc<Fault> {
    Arc::new(
        (1..=times).fold(Fault::new(Arc::new(MemoryStore::default())), |fault, n| fault.on(StoreOp::Read, n, Effect::Fail(kind))),
    )
}

fn quick(attempts: u32) -> Policy {
    Policy { first_delay: Duration::from_millis(1), max_delay: Duration::from_millis(2), attempts }
}

#[test]
fn who_would_not_call_again_has_the_whole_time_limit() {
    let key = Key::new("walvis.json").unwrap();
    let read = |deadline: Deadline| {
        let store = Retry::new(failing(50, ErrorKind::Busy), quick(10), deadline);
        store.read(&key, ReadRange::All).map(drop).unwrap_err()
    };
    // The object is not there, and in the end the store says so.
    assert_eq!(read(Deadline::after(Duration::from_secs(60)).patient()).kind, ErrorKind::NotFound);
    let error = read(Deadline::after(Duration::from_secs(60)));
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.detail.contains("10 attempts"), "{error}");
}

#[test]
fn a_store_that_was_given_up_is_not_waited_for_by_every_request() {
    let key = Key::new("walvis.json").unwrap();
    let health = Arc::new(Health::default());
    let fault = failing(10, ErrorKind::Busy);
    let store = Retry::new(Arc::clone(&fault) as Arc<dyn Store>, quick(10), Deadline::after(Duration::from_secs(60)));
    let store = store.watched_by(Arc::clone(&health));
    let read = || store.read(&key, ReadRange::All).map(drop).unwrap_err();
    assert_eq!(read().kind, ErrorKind::Busy);
    for _ in 0..5 {
        let error = read();
        assert!(error.is_permanent() && error.to_string().contains("did not answer before"), "{error}");
    }
    assert_eq!(fault.calls(StoreOp::Read), 10);
    health.try_again();
    assert_eq!(read().kind, ErrorKind::NotFound);
}

#[test]
fn of_two_repositories_the_dead_one_holds_up_the_first_call_only() {
    let server = S3Server::start();
    let mut site = Site::bare();
    for (variable, value) in server.env() {
        site.set(variable, value);
    }
    let key = site.path("key");
    let text = format!(
        "[[repository]]\nurl = \"{}\"\nkey_file = {key:?}\n[repository.s3]\nendpoint = \"{}\"\npath_style = true\n\n[[repository]]\nurl = \
         \"file://{}\"\nkey_file = {key:?}\n",
        server.url("pg"),
        server.endpoint(),
        site.repository().display()
    );
    site.unset("WALVIS_S3_ENDPOINT");
    site.unset("WALVIS_S3_PATH_STYLE");
    site.configure(&text);
    site.init();
    site.archive(&[1, 2, 3]);
    server.hook(|_| Action::Hang);
    site.run(["fetch-wal", &name(1), DESTINATION, "--timeout=60"]).exits(0);
    server.clear_log();
    // Now the other one is asked first.
    site.run(["fetch-wal", &name(2), DESTINATION, "--timeout=60"]).exits(0);
    assert_eq!(server.log().len(), 0);
    // That something is not there is for both to say.
    site.set("WALVIS_SPOOL", "off");
    site.run(["fetch-wal", &name(4), DESTINATION, "--timeout=2"]).exits(200).says(&[&name(4), "s3://walvis-test/pg"]);
}

#[test]
fn a_standby_is_told_within_seconds_and_loses_nothing_by_it() {
    let server = S3Server::start();
    let mut site = Site::on_s3(&server);
    site.archive(&[1]);
    site.set("WALVIS_TIMEOUT_S", "7");
    fs::write(site.data().join("standby.signal"), "").unwrap();
    server.hook(|_| Action::Hang);
    let ran = site.fetch_fails(&name(2), 1).tells_the_way_out();
    ran.says(&[&name(2), "s3://walvis-test/pg", "no answer within 5 s"]);
    // The next call knows, and asks nobody.
    server.clear_log();
    site.fetch_fails("00000002.history", 1).says(&["00000002.history", "s3://walvis-test/pg", "failing for", "(2 calls)"]);
    assert_eq!(server.log().len(), 0);
    // A while later it is asked again. A history that the server has, or that cannot be, keeps nobody waiting.
    let outage = files_below(&site.spool()).into_iter().find(|path| path.to_str().unwrap().contains("/outage.")).unwrap();
    let tried: u64 = field(&outage, "tried").parse().unwrap();
    forge(&outage, "tried", &tried.saturating_sub(60_000).to_string());
    site.fetch_fails(&name(2), 1).says(&["(3 calls)"]);
    assert!(!server.log().is_empty());
    site.fetch_fails("00000001.history", 1).says(&["has no history"]);

    // Promotion was requested: what may be in the repository alone is waited for, and the server not promoted without
    // it.
    fs::write(site.data().join("promote"), "").unwrap();
    site.fetch_fails(&name(2), 200).tells_the_way_out().says(&["promotion", "empty restore_command"]);
    site.run(["fetch-wal", &name(2), DESTINATION, "--on-error", "unavailable"]).exits(200);
    // What it has begun to stream is here.
    site.make(&Segment::new(2));
    site.fetch_fails(&name(2), 1);
    fs::remove_file(site.data().join("promote")).unwrap();
    fs::remove_file(site.wal(&name(2))).unwrap();
    site.run(["fetch-wal", &name(2), DESTINATION, "--on-error", "stop"]).exits(200);

    // When it has removed its signal file, and writes the history of its new timeline, it asks for that of the old one.
    fs::rename(site.data().join("standby.signal"), site.data().join("gone")).unwrap();
    site.fetch_fails("00000002.history", 200);
    site.write("00000002.history", segment::history(&[(1, 0x180000)]));
    site.fetch_fails("00000002.history", 1);
    fs::rename(site.data().join("gone"), site.data().join("standby.signal")).unwrap();

    // A recovery is never told so.
    fs::rename(site.data().join("standby.signal"), site.data().join("recovery.signal")).unwrap();
    site.fetch_fails(&name(2), 200).says(&["calls)"]);
    server.unhook();
    site.fetches(&name(1));
    site.fetch_fails(&name(2), 1).says(&["none of the repositories"]);
}

/// Puts a server on its way as a standby of another.
fn follow(scratch: &Arc<Scratch>, title: &str, primary: &Cluster, conninfo: &str, options: &Options) -> Cluster {
    let backup = primary.backup_to(&format!("{title}-base"));
    let options = Options { archive_command: None, ..options.clone() }.setting("primary_conninfo", conninfo);
    let mut standby = Cluster::restore(scratch, title, &backup, Role::Standby, &options);
    standby.start();
    standby
}

#[test]
fn a_store_that_hangs_stops_neither_streaming_nor_promotion_nor_loses_what_it_has() {
    let server = S3Server::start_tls();
    let scratch = Scratch::new();
    let archive = Archive::walvis_s3(&scratch, &server);
    let mut options = Options { wal_segsize_mib: 1, ..archive.options() }.setting("wal_keep_size", "64MB");
    options.env.push(("WALVIS_TIMEOUT_S".to_owned(), "8".to_owned()));
    let mut primary = Cluster::init(&scratch, "primary", 15, &options);
    primary.start();
    primary.sql("create table t(i int)");
    let streams = follow(&scratch, "streams", &primary, &primary.conninfo(), &options);
    let mut waits = follow(&scratch, "waits", &primary, "", &options);
    primary.sql("insert into t values(1)");
    primary.switch_and_archive();
    let has = |standby: &Cluster, rows: &str| poll(|| (standby.sql("select count(*) from t") == rows).then_some(()));
    for standby in [&streams, &waits] {
        assert!(has(standby, "1").is_some(), "{}", standby.log());
    }
    let streaming =
        || poll(|| (streams.sql("select count(*) from pg_stat_wal_receiver where status = 'streaming'") == "1").then_some(()));
    assert!(streaming().is_some(), "{}", streams.log());

    // Archived, and then the store hangs before the one that does not stream has seen it.
    let is_down = Arc::new(AtomicBool::new(false));
    let waits_for = Arc::clone(&is_down);
    server.hook(move |seen| if waits_for.load(Ordering::SeqCst) && seen.method == "GET" { Action::Hang } else { Action::Pass });
    is_down.store(true, Ordering::SeqCst);
    primary.sql("select pg_terminate_backend(pid) from pg_stat_replication");
    primary.sql("insert into t values(2)");
    assert!(has(&streams, "2").is_some(), "it does not stream again: {}", streams.log());
    primary.kill();
    streams.sql("select pg_promote(true, 100)");
    assert_eq!(streams.sql("select pg_is_in_recovery()"), "f");
    assert_eq!(streams.sql("select count(*) from t"), "2");

    // It has nothing of the segment that may be in the repository: it goes down rather than lose it.
    waits.sql("select pg_promote(false)");
    match waits.wait_recovery() {
        Recovery::Exited(_) => assert!(waits.log().contains("promotion was requested"), "{}", waits.log()),
        Recovery::Promoted => waits.fail("it was promoted without what the repository has"),
    }
    is_down.store(false, Ordering::SeqCst);
    waits.start();
    assert_eq!(waits.sql("select pg_is_in_recovery()"), "t");
    assert_eq!(waits.sql("select count(*) from t"), "1");
}

/// A site with a required repository in a directory and an optional one on S3.
fn with_optional(server: &S3Server) -> Site {
    let mut site = Site::bare();
    for (variable, value) in server.env().into_iter().filter(|(variable, _)| !variable.starts_with("WALVIS_S3")) {
        site.set(variable, value);
    }
    let key = site.path("key");
    let text = format!(
        "[[repository]]\nurl = \"file://{}\"\nkey_file = {key:?}\n\n[[repository]]\nurl = \"{}\"\nkey_file = {key:?}\noptional = \
         true\n[repository.s3]\nendpoint = \"{}\"\npath_style = true\n",
        site.repository().display(),
        server.url("pg"),
        server.endpoint(),
    );
    site.configure(&text);
    site.init();
    site
}

fn stored(server: &S3Server) -> Vec<String> {
    let keys = server.objects("pg/clusters/").into_keys().filter(|key| key.contains("/wal/"));
    keys.map(|key| key.rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn what_an_optional_repository_missed_is_sent_later() {
    let server = S3Server::start();
    let site = with_optional(&server);
    site.archive(&[1]);
    let (backup, text) = segment::backup(&Segment::new(2));
    server.hook(|_| Action::Hang);
    let ran = {
        let name = site.make(&Segment::new(2));
        site.push(&name).exits(0)
    };
    ran.says(&[&name(2), "optional repository s3://walvis-test/pg", "will be sent later, with 1 in all"]);
    // It is not asked again by every call.
    server.clear_log();
    site.make(&Segment::new(3));
    site.push(&name(3)).exits(0).says(&[&name(3), "with 2 in all", "failing for", "(2 calls)"]);
    site.archive_text(&backup, &text);
    assert_eq!(server.log().len(), 0);
    let missed = || files_below(&site.spool().join("missed")).len();
    assert_eq!(missed(), 3);
    assert_eq!(stored(&server), [name(1)]);

    // It answers again, and a while has passed. What is gone from pg_wal comes from the other repository.
    server.unhook();
    fs::remove_file(site.wal(&name(2))).unwrap();
    fs::remove_file(site.wal(&backup)).unwrap();
    let outage = files_below(&site.spool()).into_iter().find(|path| path.to_str().unwrap().contains("/outage.")).unwrap();
    let tried: u64 = field(&outage, "tried").parse().unwrap();
    forge(&outage, "tried", &tried.saturating_sub(60_000).to_string());
    site.make(&Segment::new(4));
    site.push(&name(4)).exits(0);
    eventually("all is sent", || missed() == 0);
    site.await_no_helper();
    assert_eq!(stored(&server), [name(1), name(2), backup.clone(), name(3), name(4)]);
    site.make(&Segment::new(5));
    assert!(!site.push(&name(5)).exits(0).stderr.contains("optional"));
    assert!(stored(&server).contains(&name(5)));
}

/// One that cannot be had any more keeps none of the others from being sent, and is not forgotten.
#[test]
fn a_missed_file_that_is_damaged_does_not_hold_up_the_others() {
    let server = S3Server::start();
    let site = with_optional(&server);
    site.archive(&[1]);
    server.hook(|_| Action::Hang);
    site.archive(&[2, 3]);
    server.unhook();
    let object = files_below(&site.repository()).into_iter().find(|path| path.ends_with(name(2))).unwrap();
    let bytes = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    fs::write(&object, &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(site.wal(&name(2))).unwrap();
    fs::remove_file(site.wal(&name(3))).unwrap();

    let missed = || files_below(&site.spool().join("missed")).len();
    let outage = files_below(&site.spool()).into_iter().find(|path| path.to_str().unwrap().contains("/outage.")).unwrap();
    let tried: u64 = field(&outage, "tried").parse().unwrap();
    forge(&outage, "tried", &tried.saturating_sub(60_000).to_string());
    site.archive(&[4]);
    eventually("the other one is sent", || missed() == 1);
    site.await_no_helper();
    assert_eq!(stored(&server), [name(1), name(3), name(4)]);
    // Not by every call.
    assert!(files_below(&site.spool()).iter().any(|path| path.to_str().unwrap().contains("/missed-pause.")));
    // By hand it is said which one, after all others were sent.
    site.run(["push-wal", "--missed"]).exits(14).says(&[&name(2), "0 files were sent"]);
}

#[test]
fn what_nobody_remembers_is_found_by_comparing() {
    let server = S3Server::start();
    let mut site = with_optional(&server);
    site.set("WALVIS_SPOOL", "off");
    site.archive(&[1]);
    server.hook(|_| Action::s3_error(403, "AccessDenied", "Access Denied"));
    site.make(&Segment::new(2));
    site.push(&name(2)).exits(0).says(&[&name(2), "--missed"]);
    site.archive_text("00000002.history", &segment::history(&[(1, 0x280000)]));
    server.unhook();
    site.archive(&[3]);
    assert_eq!(stored(&server), [name(1), name(3)]);
    let check = || site.run(["check", "--no-server", "--json"]).stdout;
    let found = check();
    assert!(found.contains("2 files that") && found.contains(&format!("{} to 00000002.history", name(2))), "{found}");
    let ran = site.run(["push-wal", "--missed"]).exits(0);
    assert!(ran.stdout.contains(&format!("2 files sent: {} 00000002.history", name(2))), "{}", ran.stdout);
    assert!(!check().contains("files that"));
    assert!(site.run(["push-wal", "--missed"]).exits(0).stdout.contains("has everything"));
    site.run(["push-wal", "--missed", &format!("pg_wal/{}", name(1))]).exits(2);
}

#[test]
fn an_outage_is_one_message_per_call() {
    let server = S3Server::start();
    let mut site = Site::on_s3(&server);
    site.archive(&[1]);
    site.make(&Segment::new(2));
    site.set("WALVIS_TIMEOUT_S", "2");
    server.hook(|_| Action::s3_error(503, "SlowDown", "Please reduce your request rate."));
    let path = format!("pg_wal/{}", name(2));
    for n in 1..=3 {
        for arguments in [["push-wal", &path, "-q"], ["fetch-wal", &name(2), DESTINATION]] {
            let arguments = arguments.into_iter().filter(|argument| *argument != "-q");
            let ran = site.run(arguments).tells_the_way_out();
            assert_ne!(ran.code(), 0);
            // What the scan says of a made-up segment is another matter.
            let lines = ran.stderr.lines().filter(|line| !line.contains("recovery will stop in it")).count();
            assert_eq!(lines, 2, "{}", ran.stderr);
            let ran = ran.says(&[&name(2), "s3://walvis-test/pg", "SlowDown"]);
            assert_eq!(
                ran.stderr.contains("it has been failing for"),
                n > 1 || ran.stderr.contains("(2 calls)"),
                "{}",
                ran.stderr
            );
        }
    }
    server.unhook();
    site.push(&name(2)).exits(0);
    assert!(!files_below(&site.spool()).iter().any(|path| path.to_str().unwrap().contains("/outage.")));
}
