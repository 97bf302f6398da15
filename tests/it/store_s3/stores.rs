//! Stores that answer in their own way, as they were seen to: rclone's S3 server, s3rver, versitygw. `tests/stores.sh`
//! asks the real ones.

use bytes::Bytes;
use walvis::store::{ErrorKind, ReadRange, Store};

use super::{create, key, noise, read, read_all, refuses};
use crate::conformance;
use crate::support::command::Site;
use crate::support::s3::{Action, Op, S3Server};

#[test]
fn as_rclone_answers() {
    let server = S3Server::start();
    // It counts only what there is, and has another word for an upload that begins.
    server.hook(|seen| match seen.op {
        Op::List => altered(&[("<KeyCount>0</KeyCount>", "")]),
        Op::BeginUpload => altered(&[("InitiateMultipartUploadResult", "InitiateMultipartUpload")]),
        _ => Action::Pass,
    });
    conformance::run(&server.store("pg"), "suite");
    let site = Site::on_s3(&server);
    site.archive(&[1, 2]);
    site.fetches(&crate::support::segment::Segment::new(2).name());
    site.run(["check", "--no-server"]).exits(0);
}

/// Replaces pieces of the answer's text.
fn altered(pieces: &'static [(&str, &str)]) -> Action {
    Action::Alter(Box::new(move |_, body| {
        let mut text = String::from_utf8(body.to_vec()).unwrap();
        for (from, to) in pieces {
            text = text.replace(from, to);
        }
        Bytes::from(text)
    }))
}

#[test]
fn as_s3rver_gives_ranges() {
    let server = S3Server::start();
    let store = server.store("pg");
    let body = noise(1000, 1);
    let _ = create(&store, "a", &body).unwrap();
    let _ = create(&store, "empty", b"").unwrap();
    // A range that ends with the first byte ends with the last.
    let whole = body.clone();
    server.hook(move |seen| {
        if seen.header("range") != Some("bytes=0-0") {
            return Action::Pass;
        }
        let whole = Bytes::from(whole.clone());
        Action::Alter(Box::new(move |headers, _| {
            headers.insert("content-range", "bytes 0-999/1000".parse().unwrap());
            whole
        }))
    });
    let first = ReadRange::Bounded { offset: 0, len: 1 };
    assert_eq!(read(&store, "a", first).unwrap(), (1000, body[..1].to_vec()));
    store.make_durable(&key("a")).unwrap();
    store.make_durable(&key("empty")).unwrap();
}

#[test]
fn as_s3rver_lists() {
    let server = S3Server::start();
    // As the directories come, not in the order of the names.
    server.hook(|seen| match seen.op {
        Op::List => altered(&[("order/a-b/c<", "order/?<"), ("order/a.b<", "order/a-b/c<"), ("order/?<", "order/a.b<")]),
        _ => Action::Pass,
    });
    let mut site = Site::bare();
    site.use_s3(&server, "pg");
    let ran = site.run(["init"]).exits(11).tells_the_way_out().says(&["out of order", "does not list as S3 does"]);
    assert!(!ran.stderr.contains("trying again"), "{ran:?}");
    assert!(server.objects("pg/").is_empty(), "nothing is left");
}

#[test]
fn as_versitygw_denies() {
    let server = S3Server::start();
    let store = server.store("pg");
    server.hook(|_| Action::s3_error(404, "XAdminUserNotFound", "No user exists with the provided access key ID."));
    let error = refuses(read_all(&store, "a"), ErrorKind::Denied, "XAdminUserNotFound", "does not know this access key");
    assert!(error.is_permanent());
    let mut site = Site::bare();
    site.use_s3(&server, "pg");
    let ran = site.run(["list"]).exits(12).tells_the_way_out().says(&["XAdminUserNotFound", "access key"]);
    assert!(!ran.stderr.contains("trying again"), "{ran:?}");
}
