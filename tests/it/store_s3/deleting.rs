//! Deleting many objects, on servers that can, that cannot, and that do it halfway; uploads of killed writers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvis::limits::{ABANDONED_AFTER, DELETED_AT_ONCE, PART_BYTES};
use walvis::repo::{Leftovers, RawObjects};
use walvis::store::features::{Features, ObjectLocking, Versioning};
use walvis::store::retry::Retry;
use walvis::store::{Created, Deleted, ErrorKind, Key, Store};

use super::{create, id, key, list, names, noise, refuses};
use crate::conformance::{deadline, quick};
use crate::support::s3::{Action, Op, S3Server};

fn put(store: &dyn Store, name: &str, body: &[u8]) {
    assert_eq!(create(store, name, body).unwrap(), Created::New);
}

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| key(name)).collect()
}

/// What S3 answers to a deletion of many.
fn answer(elements: &str) -> Action {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{elements}</DeleteResult>"
    );
    Action::Answer { status: 200, content_type: "application/xml", body }
}

fn gone(name: &str) -> String {
    format!("<Deleted><Key>pg/{name}</Key></Deleted>")
}

fn refused(name: &str, code: &str, message: &str) -> String {
    format!("<Error><Key>pg/{name}</Key><Code>{code}</Code><Message>{message}</Message></Error>")
}

#[test]
fn many_go_with_few_requests() {
    let server = S3Server::start();
    let store = server.store("pg");
    let all: Vec<Key> = (0..2 * DELETED_AT_ONCE + 500).map(|i| key(&format!("wal/{i:05}"))).collect();
    all.iter().for_each(|key| server.insert(&format!("pg/{key}"), b"x"));
    server.insert("pg/wal/stays", b"x");
    server.insert("other/wal/00000", b"x");
    assert_eq!(store.delete_many(&all).unwrap(), vec![Deleted::Gone; all.len()]);
    assert_eq!(server.objects("").into_keys().collect::<Vec<_>>(), ["other/wal/00000", "pg/wal/stays"]);
    assert_eq!((server.seen(Op::DeleteMany).len(), server.seen(Op::Delete).len()), (3, 0));
    assert_eq!(server.log().len(), 4, "and whether the bucket has object lock is asked once");
    store.delete_many(&all[..1]).unwrap();
    assert_eq!(server.log().len(), 5);
}

#[test]
fn a_service_without_it_deletes_one_by_one() {
    for (status, code) in [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "MissingContentMD5")] {
        let server = S3Server::start();
        let store = server.store("pg");
        for name in ["a", "b", "c"] {
            put(&store, name, b"x");
        }
        server.clear_log();
        server.hook(move |seen| match seen.op {
            Op::DeleteMany => Action::s3_error(status, code, "no"),
            _ => Action::Pass,
        });
        let many = keys(&["a", "b", "absent"]);
        for _ in 0..2 {
            assert_eq!(store.delete_many(&many).unwrap(), vec![Deleted::Gone; 3], "{code}");
        }
        assert_eq!((server.seen(Op::DeleteMany).len(), server.seen(Op::Delete).len()), (1, 6), "{code}");
        assert_eq!(names(&list(&store, "", "").unwrap()), ["c"]);
    }
}

#[test]
fn each_object_has_an_answer_of_its_own() {
    let server = S3Server::start();
    let store = server.store("pg");
    for name in ["a", "b", "c", "d", "e"] {
        put(&store, name, b"x");
    }
    server.hook(|seen| match seen.op {
        // Nothing is said of `e`, which is asked for alone then.
        Op::DeleteMany => answer(
            &[
                refused("d", "ObjectLocked", "Object is WORM protected and cannot be overwritten"),
                gone("a"),
                refused("b", "AccessDenied", "Access Denied because object protected by object lock."),
                refused("c", "AccessDenied", "User is not authorized"),
            ]
            .concat(),
        ),
        _ => Action::Pass,
    });
    let outcomes = store.delete_many(&keys(&["a", "b", "c", "d", "e"])).unwrap();
    let held = Deleted::Held { until_unix_s: None };
    let denied = Deleted::Denied("AccessDenied: User is not authorized".to_owned());
    assert_eq!(outcomes, [Deleted::Gone, held.clone(), denied, held, Deleted::Gone]);
    let alone: Vec<_> = server.seen(Op::Delete).into_iter().map(|seen| seen.path).collect();
    assert_eq!(alone.len(), 1);
    assert!(alone[0].ends_with("/pg/e"));
}

#[test]
fn what_fails_is_tried_again_and_not_taken_for_done() {
    let server = S3Server::start();
    let store = server.store("pg");
    put(&store, "a", b"x");
    put(&store, "b", b"x");
    server.hook(|seen| match (seen.op, seen.nth) {
        (Op::DeleteMany, 0) => answer(&(gone("a") + &refused("b", "InternalError", "try again"))),
        (Op::DeleteMany, 1) => Action::s3_error(503, "SlowDown", "Please reduce your request rate."),
        (Op::DeleteMany, 2) => Action::ServeAndCut,
        (Op::DeleteMany, 3) => Action::html(200),
        _ => Action::Pass,
    });
    let many = keys(&["a", "b"]);
    refuses(store.delete_many(&many), ErrorKind::Busy, "InternalError", "");
    let retry = Retry::new(Arc::new(server.store("pg")), quick(), deadline());
    assert_eq!(retry.delete_many(&many).unwrap(), vec![Deleted::Gone; 2]);
    assert!(list(&store, "", "").unwrap().is_empty());
}

#[test]
fn credentials_that_are_unknown_are_no_lack_of_a_right() {
    let server = S3Server::start();
    let store = server.store("pg");
    put(&store, "a", b"x");
    let denied = |code: &'static str| {
        move |seen: &crate::support::s3::Seen| match seen.op {
            Op::DeleteMany | Op::Delete => Action::s3_error(403, code, "no"),
            _ => Action::Pass,
        }
    };
    server.hook(denied("AccessDenied"));
    let outcomes = store.delete_many(&keys(&["a", "b"])).unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Deleted::Denied(why) if why.contains("AccessDenied"))));
    assert_eq!(server.seen(Op::Delete).len(), 1, "one is tried alone");
    server.hook(denied("InvalidAccessKeyId"));
    refuses(store.delete_many(&keys(&["a", "b"])), ErrorKind::Denied, "InvalidAccessKeyId", "");
    // Where only the deletion of many is denied, one by one they go.
    server.hook(|seen| match seen.op {
        Op::DeleteMany => Action::s3_error(403, "AccessDenied", "no"),
        _ => Action::Pass,
    });
    assert_eq!(store.delete_many(&keys(&["a", "b"])).unwrap(), vec![Deleted::Gone; 2]);
    assert!(list(&store, "", "").unwrap().is_empty());
}

#[test]
fn uploads_of_killed_writers_are_found_and_removed() {
    const WAL: &str = "clusters/main/7579128459364321234/wal/00000001/00000000/000000010000000000000001";
    let server = S3Server::start();
    let (store, other) = (server.store("pg"), server.store("pgother"));
    let begin = |store: &dyn Store, name: &str, body: Vec<u8>| {
        let mut upload = store.begin(&key(name), &id(b"")).unwrap();
        upload.part(Bytes::from(body)).unwrap();
        // As if killed: nothing is aborted.
        std::mem::forget(upload);
    };
    let objects = RawObjects::new(Arc::new(server.store("pg")));
    begin(&store, WAL, noise(1000, 1));
    begin(&store, "notes-of-another-program", noise(10, 1));
    begin(&other, WAL, noise(10, 1));
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, true).unwrap(), Leftovers::default(), "they are young");
    server.age_uploads(ABANDONED_AFTER + Duration::from_secs(60));
    begin(&store, &format!("{WAL}.partial"), noise(10, 1));
    let found = store.leftovers(ABANDONED_AFTER).unwrap();
    assert_eq!(
        found.iter().map(|found| found.key.clone().unwrap()).collect::<Vec<_>>(),
        keys(&[WAL, "notes-of-another-program"])
    );
    assert_eq!(found[0].size_bytes, Some(1000));

    let expected = Leftovers { files: 0, uploads: 1, bytes: 1000, unmeasured: 0 };
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, false).unwrap(), expected);
    assert_eq!(server.uploads().len(), 4, "nothing is removed unless that is wanted");
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, true).unwrap(), expected);
    assert_eq!(server.uploads().len(), 3);
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, true).unwrap(), Leftovers::default());
    assert!(store.remove_leftover(&found[0]).unwrap(), "it is gone already");

    // What the store does not say is not made up.
    begin(&store, WAL, noise(PART_BYTES, 1));
    server.age_uploads(ABANDONED_AFTER + Duration::from_secs(60));
    server.hook(|seen| match seen.op {
        Op::ListParts => Action::s3_error(403, "AccessDenied", "no"),
        _ => Action::Pass,
    });
    let found = objects.remove_leftovers(ABANDONED_AFTER, false).unwrap();
    assert_eq!((found.uploads, found.bytes, found.unmeasured), (2, 0, 2));
    server.hook(|seen| match seen.op {
        Op::ListUploads => Action::s3_error(403, "AccessDenied", "no"),
        _ => Action::Pass,
    });
    refuses(store.leftovers(ABANDONED_AFTER), ErrorKind::Denied, "AccessDenied", "");
}

#[test]
fn what_a_bucket_does_not_tell_is_unknown() {
    let server = S3Server::start();
    let store = server.store("pg");
    let unknown = |features: Features| match features {
        Features { versioning: Versioning::Unknown(a), object_lock: ObjectLocking::Unknown(b) } => (a, b),
        other => panic!("{other:?}"),
    };
    let (versioning, lock) = unknown(store.features().unwrap());
    assert!(versioning.contains("NotImplemented") && lock.contains("NotImplemented"), "{versioning}, {lock}");
    server.hook(|_| Action::s3_error(403, "AccessDenied", "no"));
    let (versioning, lock) = unknown(store.features().unwrap());
    assert!(versioning.contains("AccessDenied") && lock.contains("AccessDenied"), "{versioning}, {lock}");
    server.hook(|_| Action::s3_error(403, "InvalidAccessKeyId", "no"));
    refuses(store.features(), ErrorKind::Denied, "InvalidAccessKeyId", "");
    server.hook(|_| Action::s3_error(503, "SlowDown", "no"));
    refuses(store.features(), ErrorKind::Busy, "SlowDown", "");
}

#[test]
fn a_policy_that_lets_nobody_replace_is_told_from_one_that_lets_nobody_store() {
    let server = S3Server::start();
    let store = server.store("pg");
    let body = Bytes::from_static(b"x");
    assert_eq!(store.can_replace(&key("a"), body.clone()).unwrap(), Some(true));
    assert_eq!(server.objects("pg/").len(), 1);
    server.hook(|seen| match (seen.op, seen.header("if-none-match")) {
        (Op::Put, None) => Action::s3_error(403, "AccessDenied", "explicit deny"),
        _ => Action::Pass,
    });
    assert_eq!(store.can_replace(&key("a"), body.clone()).unwrap(), Some(false));
    assert_eq!(store.can_replace(&key("b"), body.clone()).unwrap(), Some(false));
    server.hook(|seen| match seen.op {
        Op::Put => Action::s3_error(403, "AccessDenied", "implicit deny"),
        _ => Action::Pass,
    });
    assert_eq!(store.can_replace(&key("a"), body.clone()).unwrap(), None);
    server.hook(|_| Action::s3_error(403, "SignatureDoesNotMatch", "no"));
    refuses(store.can_replace(&key("a"), body), ErrorKind::Denied, "SignatureDoesNotMatch", "");
}
