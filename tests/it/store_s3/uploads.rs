//! Objects in parts: nothing shows before the end, lost answers are found out, nothing is left behind.

use std::time::Duration;

use bytes::Bytes;
use walvis::limits::{ABANDONED_AFTER, MIB, PART_BYTES};
use walvis::store::s3::S3Settings;
use walvis::store::{Created, ErrorKind, Store, Upload};

use super::{create, eventually, id, impatient, key, list, noise, read_all, refuses};
use crate::support::s3::{Action, Moto, Op, S3Server, open};

fn begin<'s>(store: &'s dyn Store, name: &str) -> Box<dyn Upload + 's> {
    store.begin(&key(name), &id(name.as_bytes())).unwrap()
}

fn send(upload: &mut dyn Upload, body: &[u8]) {
    for part in body.chunks(PART_BYTES) {
        upload.part(Bytes::copy_from_slice(part)).unwrap();
    }
}

#[test]
fn nothing_shows_before_the_end() {
    let server = S3Server::start();
    let store = server.store("pg");
    let body = noise(2 * PART_BYTES + 12_345, 1);
    let mut upload = begin(&store, "large");
    send(&mut *upload, &body);
    refuses(read_all(&store, "large"), ErrorKind::NotFound, "", "");
    assert!(list(&store, "", "").unwrap().is_empty());
    assert_eq!(upload.complete().unwrap(), Created::New);
    assert_eq!(upload.complete().unwrap(), Created::Exists, "and it stays so");
    drop(upload);
    assert!(read_all(&store, "large").unwrap() == body);
    assert_eq!(list(&store, "", "").unwrap()[0].size_bytes, body.len() as u64);
    let sizes: Vec<_> = server.seen(Op::Part).iter().map(|s| s.header("content-length").unwrap().to_owned()).collect();
    assert_eq!(sizes, [PART_BYTES.to_string(), PART_BYTES.to_string(), "12345".to_owned()]);
    assert!(server.seen(Op::Abort).is_empty());
}

#[test]
fn an_upload_without_parts_is_an_empty_object() {
    let server = S3Server::start();
    let store = server.store("pg");
    assert_eq!(begin(&store, "empty").complete().unwrap(), Created::New);
    assert_eq!(read_all(&store, "empty").unwrap(), b"");
}

#[test]
fn parts_are_of_one_size() {
    let server = S3Server::start();
    let store = server.store("pg");
    let mut upload = begin(&store, "a");
    refuses(upload.part(noise(PART_BYTES + 1, 1).into()), ErrorKind::Unsupported, "one size", "");
    upload.part(noise(PART_BYTES - 1, 1).into()).unwrap();
    refuses(upload.part(noise(1, 1).into()), ErrorKind::Unsupported, "one size", "");
}

#[test]
fn an_object_that_is_there_already_is_not_touched() {
    let server = S3Server::start();
    let store = server.store("pg");
    let mut upload = begin(&store, "a");
    send(&mut *upload, b"late");
    let _ = create(&store, "a", b"early").unwrap();
    assert_eq!(upload.complete().unwrap(), Created::Exists);
    assert_eq!(upload.complete().unwrap(), Created::Exists);
    drop(upload);
    assert_eq!(read_all(&store, "a").unwrap(), b"early");
    assert!(server.uploads().is_empty(), "the useless parts are removed");
}

#[test]
fn a_part_is_given_again_after_an_error() {
    let server = S3Server::start();
    let store = server.store("pg");
    let body = noise(PART_BYTES + 5, 2);
    let scripts = [|| Action::Cut, || Action::ServeAndCut, || Action::s3_error(503, "SlowDown", "slow"), || Action::html(200)];
    for (n, script) in scripts.into_iter().enumerate() {
        let name = format!("a{n}");
        let mut upload = begin(&store, &name);
        server.clear_log();
        server.hook(move |seen| if seen.op == Op::Part && seen.nth == 1 { script() } else { Action::Pass });
        upload.part(Bytes::copy_from_slice(&body[..PART_BYTES])).unwrap();
        upload.part(Bytes::copy_from_slice(&body[PART_BYTES..])).unwrap_err();
        upload.part(Bytes::copy_from_slice(&body[PART_BYTES..])).unwrap();
        assert_eq!(upload.complete().unwrap(), Created::New);
        assert!(read_all(&store, &name).unwrap() == body);
    }
}

#[test]
fn a_lost_answer_of_the_completion_is_found_out() {
    let server = S3Server::start();
    for conditional in [true, false] {
        let store = open(S3Settings { conditional, ..server.settings("pg") });
        let name = format!("conditional-{conditional}");
        server.clear_log();
        server.hook(|seen| if seen.op == Op::Complete && seen.nth == 0 { Action::ServeAndCut } else { Action::Pass });
        let mut upload = begin(&store, &name);
        send(&mut *upload, b"content");
        refuses(upload.complete(), ErrorKind::Unreachable, "", "");
        assert_eq!(upload.complete().unwrap(), Created::Exists);
        drop(upload);
        assert_eq!(read_all(&store, &name).unwrap(), b"content");
        assert!(server.seen(Op::Abort).is_empty() && server.uploads().is_empty());
    }
}

#[test]
fn an_error_inside_a_success_is_an_error() {
    let server = S3Server::start();
    let store = server.store("pg");
    let mut upload = begin(&store, "a");
    send(&mut *upload, b"content");
    // S3 sends the head of its answer before it knows the outcome.
    server.hook(|seen| match (seen.op, seen.nth) {
        (Op::Complete, 0) => Action::s3_error(200, "InternalError", "We encountered an internal error. Please try again."),
        (Op::Complete, 1) => Action::html(200),
        (Op::Complete, 2) => Action::Answer { status: 200, content_type: "application/xml", body: String::new() },
        _ => Action::Pass,
    });
    let error = refuses(upload.complete(), ErrorKind::Busy, "InternalError: We encountered", "");
    assert!(!error.is_permanent() && error.to_string().starts_with("cannot complete a in s3://walvis-test/pg: "));
    refuses(upload.complete(), ErrorKind::BadAnswer, "", "");
    let empty = upload.complete().unwrap_err();
    assert!(!empty.is_permanent(), "{empty}");
    assert!(server.objects("").is_empty());
    assert_eq!(upload.complete().unwrap(), Created::New);
    assert_eq!(read_all(&store, "a").unwrap(), b"content");
}

#[test]
fn an_upload_that_somebody_aborted_cannot_be_completed() {
    let server = S3Server::start();
    let store = server.store("pg");
    let mut upload = begin(&store, "a");
    send(&mut *upload, b"content");
    let seen = server.seen(Op::Part).remove(0);
    server.hook(|_| Action::s3_error(404, "NoSuchUpload", "The specified upload does not exist."));
    let error = refuses(upload.part(Bytes::new()), ErrorKind::Unsupported, "", "");
    assert!(error.is_permanent());
    server.hook(|seen| {
        if seen.op == Op::Complete {
            Action::s3_error(404, "NoSuchUpload", "The specified upload does not exist.")
        } else {
            Action::Pass
        }
    });
    for _ in 0..2 {
        let error = refuses(upload.complete(), ErrorKind::BadAnswer, "no longer known", "lifecycle");
        assert!(error.is_permanent(), "only a new upload can help");
    }
    assert!(seen.query.contains("uploadId="));
    // An answer that is no proof does not count as one.
    let mut upload = begin(&store, "b");
    send(&mut *upload, b"content");
    server.hook(|seen| if seen.op == Op::Complete { Action::html(404) } else { Action::Pass });
    let error = refuses(upload.complete(), ErrorKind::BadAnswer, "HTTP 404", "");
    assert!(!error.is_permanent());
    server.unhook();
    assert_eq!(upload.complete().unwrap(), Created::New);
}

#[test]
fn what_is_not_completed_is_removed() {
    let server = S3Server::start();
    let store = server.store("pg");
    let mut upload = begin(&store, "a");
    send(&mut *upload, b"x");
    assert_eq!(server.uploads(), ["pg/a"]);
    drop(upload);
    assert!(server.uploads().is_empty() && server.objects("").is_empty());
    // A store that no longer answers does not hold up the process.
    let store = open(impatient(&server));
    let upload = begin(&store, "b");
    server.hook(|_| Action::Hang);
    let since = std::time::Instant::now();
    drop(upload);
    assert!(since.elapsed() < Duration::from_secs(4));
}

#[test]
fn abandoned_uploads_of_the_same_object_are_aborted() {
    let server = S3Server::start();
    let (dead, alive) = (server.store("pg"), server.store("pg"));
    for name in ["a", "ab", "a/b"] {
        std::mem::forget(begin(&dead, name));
    }
    server.age_uploads(ABANDONED_AFTER - Duration::from_secs(60));
    let _young = begin(&alive, "a");
    assert_eq!(server.uploads().len(), 4, "another writer may still be at work");
    server.age_uploads(Duration::from_secs(120));
    let mut upload = begin(&alive, "a");
    let mut left = server.uploads();
    left.sort();
    assert_eq!(left, ["pg/a", "pg/a", "pg/a/b", "pg/ab"], "the old one of this very object is gone");
    send(&mut *upload, b"x");
    assert_eq!(upload.complete().unwrap(), Created::New);
}

#[test]
fn uploads_of_a_store_that_makes_dates_up_are_left_alone() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let (one, other) = (moto.settings("backups", "pg"), moto.settings("backups", "pg"));
    let (one, other) = (open(one), open(other));
    // Two writers of one object at the same time. Moto says 2010 of both.
    let mut first = begin(&one, "a");
    let mut second = begin(&other, "a");
    send(&mut *first, b"x");
    send(&mut *second, b"x");
    assert_eq!(first.complete().unwrap(), Created::New);
    let _ = second.complete().unwrap();
}

#[test]
fn stores_that_cannot_list_uploads_are_asked_once() {
    let server = S3Server::start();
    for (status, code) in [(501, "NotImplemented"), (403, "AccessDenied")] {
        let store = server.store(code);
        server.clear_log();
        server.hook(move |seen| if seen.op == Op::ListUploads { Action::s3_error(status, code, "no") } else { Action::Pass });
        for n in 0..3 {
            assert_eq!(begin(&store, &format!("a{n}")).complete().unwrap(), Created::New);
        }
        assert_eq!(server.seen(Op::ListUploads).len(), 1);
    }
    // A passing fault does not stop it from being asked again, nor from going on.
    let store = server.store("busy");
    server.hook(|seen| if seen.op == Op::ListUploads { Action::s3_error(503, "SlowDown", "no") } else { Action::Pass });
    server.clear_log();
    for n in 0..2 {
        assert_eq!(begin(&store, &format!("a{n}")).complete().unwrap(), Created::New);
    }
    assert_eq!(server.seen(Op::ListUploads).len(), 2);
}

#[test]
fn uploads_run_at_the_same_time() {
    let server = S3Server::start();
    let store = server.store("pg");
    std::thread::scope(|scope| {
        for n in 0..3 {
            let store = &store;
            scope.spawn(move || {
                let body = noise(PART_BYTES + MIB, n);
                let mut upload = begin(store, &format!("u{n}"));
                send(&mut *upload, &body);
                assert_eq!(upload.complete().unwrap(), Created::New);
                assert!(read_all(store, &format!("u{n}")).unwrap() == body);
            });
        }
    });
    eventually("nothing is left", || server.uploads().is_empty());
}
