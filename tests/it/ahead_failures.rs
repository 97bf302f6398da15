//! What `push-wal` and `fetch-wal` answer when the store fails, while helpers work ahead: what they answer without.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::ahead::{Ahead, puts};
use crate::support::command::Site;
use crate::support::s3::{Action, Op, S3Server};
use crate::support::segment::{Content, Segment};

/// Every request of this kind for one of these WAL files ends so.
fn fail(server: &S3Server, op: Op, names: &[String], how: impl Fn() -> Action + Send + Sync + 'static) {
    let names = names.to_vec();
    server.hook(move |seen| {
        let is_meant = seen.op == op && names.iter().any(|name| seen.path.ends_with(&format!("/{name}")));
        if is_meant { how() } else { Action::Pass }
    });
}

fn denied() -> Action {
    Action::s3_error(403, "AccessDenied", "Access Denied")
}

fn busy() -> Action {
    Action::s3_error(503, "SlowDown", "Reduce your request rate")
}

fn cut() -> Action {
    Action::Cut
}

fn hang() -> Action {
    Action::Hang
}

#[test]
fn a_store_that_fails_is_reported_by_the_call_for_the_file() {
    for (how, code) in [(denied as fn() -> Action, 12), (busy, 11), (cut, 11), (hang, 11)] {
        let server = S3Server::start();
        let mut site = Site::on_s3(&server);
        site.set("WALVIS_TIMEOUT_S", "6");
        let names = site.backlog(1..=10);
        fail(&server, Op::Put, &names[3..], how);
        for name in &names[..3] {
            site.archives(name);
        }
        // As the server does: again and again. It is told the same each time, and in time.
        for _ in 0..2 {
            site.push(&names[3]).exits(code).tells_the_way_out().within(Duration::from_secs(12));
        }
        assert_eq!(server.objects("pg/clusters/").keys().filter(|key| key.contains("/wal/")).count(), 3);
        server.unhook();
        for name in &names[3..] {
            site.archives(name);
        }
        names.iter().for_each(|name| site.fetches(name));
    }
}

#[test]
fn a_conflict_ahead_is_the_calls_to_report() {
    let site = Site::new();
    // Another host has stored something else under the fifth name.
    let twin = site.twin();
    let other = twin.make(&Segment::new(5).holding(Content::Records(99)));
    twin.push(&other).exits(0);
    let names = site.backlog(1..=10);
    for name in &names[..4] {
        site.archives(name);
    }
    for _ in 0..2 {
        site.push(&names[4]).exits(13).tells_the_way_out().says(&["other content"]);
        site.await_no_helper();
    }
    assert!(!site.record(&names[4]).exists());
    twin.fetches(&other);
}

#[test]
fn requests_that_are_slow_now_and_then_hold_up_only_their_own_file() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let names = site.backlog(1..=40);
    let count = AtomicUsize::new(0);
    server.hook(move |_| match count.fetch_add(1, Ordering::Relaxed) % 7 {
        0 => Action::Delay(Duration::from_millis(400)),
        _ => Action::Pass,
    });
    for name in &names {
        site.archives(name);
    }
    site.await_no_helper();
    let stored: usize = names.iter().map(|name| puts(&server, name)).sum();
    assert!(stored <= names.len() + 8, "{stored} times something was stored");
    site.recovers();
    for name in &names {
        site.fetches(name);
    }
    site.fetch_fails(&Segment::new(41).name(), 1);
}

#[test]
fn a_store_that_fails_stops_recovery_and_never_ends_it() {
    for how in [denied as fn() -> Action, busy, cut, hang] {
        let server = S3Server::start();
        let mut site = Site::on_s3(&server);
        site.archive(&(1..=10).collect::<Vec<_>>());
        let names: Vec<String> = (1..=10).map(|number| Segment::new(number).name()).collect();
        site.recovers();
        site.set("WALVIS_TIMEOUT_S", "6");
        fail(&server, Op::Get, &names[3..], how);
        for name in &names[..3] {
            site.fetches(name);
        }
        for _ in 0..2 {
            site.fetch_fails(&names[3], 200).within(Duration::from_secs(12));
        }
        server.unhook();
        for name in &names[3..] {
            site.fetches(name);
        }
        site.fetch_fails(&Segment::new(11).name(), 1);
    }
}
