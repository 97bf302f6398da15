//! The same against moto: another's idea of S3, with object lock and access control.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::types::ObjectLockMode;
use walvis::store::retry::Retry;
use walvis::store::s3::{LockMode, ObjectLock, S3Settings};
use walvis::store::{Created, ErrorKind, ReadRange, Store};

use super::{create, id, key, list, names, noise, read, read_all, refuses};
use crate::conformance;
use crate::support::s3::{Moto, open};

/// With retries, as each command has them: moto answers 500 now and then where two requests for one name meet.
#[test]
fn the_suite() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let store = open(moto.settings("backups", "pg"));
    conformance::run(&Retry::new(Arc::new(store), conformance::quick(), conformance::deadline()), "suite");
}

#[test]
fn objects_in_another_server() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let store = open(moto.settings("backups", "pg"));
    assert_eq!(create(&store, "a", b"first").unwrap(), Created::New);
    assert_eq!(create(&store, "a", b"second").unwrap(), Created::Exists);
    assert_eq!(read_all(&store, "a").unwrap(), b"first");
    refuses(read_all(&store, "b"), ErrorKind::NotFound, "", "");
    refuses(store.make_durable(&key("b")), ErrorKind::NotFound, "", "");
    assert_eq!(read(&store, "a", ReadRange::Bounded { offset: 1, len: 3 }).unwrap(), (5, b"irs".to_vec()));
    assert_eq!(read(&store, "a", ReadRange::From(5)).unwrap(), (5, vec![]));
    let body = noise(walvis::limits::PART_BYTES + 77, 1);
    let mut upload = store.begin(&key("c"), &id(&body)).unwrap();
    for part in body.chunks(walvis::limits::PART_BYTES) {
        upload.part(bytes::Bytes::copy_from_slice(part)).unwrap();
    }
    assert_eq!(upload.complete().unwrap(), Created::New);
    drop(upload);
    assert!(read_all(&store, "c").unwrap() == body);
    assert_eq!(names(&list(&store, "", "").unwrap()), ["a", "c"]);
    assert_eq!(names(&list(&store, "", "a").unwrap()), ["c"]);
    store.delete(&key("a")).unwrap();
    refuses(read_all(&store, "a"), ErrorKind::NotFound, "", "");
    let elsewhere = open(moto.settings("elsewhere", "pg"));
    refuses(read_all(&elsewhere, "a"), ErrorKind::NoSuchPlace, "NoSuchBucket", "");
    refuses(list(&elsewhere, "", ""), ErrorKind::NoSuchPlace, "NoSuchBucket", "");
}

#[test]
fn locked_objects_cannot_be_deleted() {
    let moto = Moto::start();
    moto.create_bucket("vault", true);
    let object_lock = Some(ObjectLock { mode: LockMode::Compliance, retain_days: 7 });
    let store = open(S3Settings { object_lock, ..moto.settings("vault", "pg") });
    assert_eq!(create(&store, "small", b"x").unwrap(), Created::New);
    let mut upload = store.begin(&key("large"), &id(b"")).unwrap();
    upload.part(b"y".as_slice().into()).unwrap();
    assert_eq!(upload.complete().unwrap(), Created::New);
    drop(upload);
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    // moto forgets the retention of objects in parts; that it is asked for is tested with the headers.
    let name = "pg/small";
    let head = moto.admin(|c| c.head_object().bucket("vault").key(name).send()).unwrap();
    assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance), "{name}");
    let days_left = (head.object_lock_retain_until_date().unwrap().secs() - now) as f64 / 86_400.0;
    assert!((6.9..7.1).contains(&days_left), "{name}: {days_left}");
    let version = head.version_id.unwrap();
    moto.admin(|c| c.delete_object().bucket("vault").key(name).version_id(version).send()).unwrap_err();
    assert_eq!(create(&store, "small", b"other").unwrap(), Created::Exists);
    // A delete without a version only hides; the content stays.
    store.delete(&key("small")).unwrap();
    refuses(read_all(&store, "small"), ErrorKind::NotFound, "", "");
    let versions = moto.admin(|c| c.list_object_versions().bucket("vault").prefix("pg/small").send()).unwrap();
    assert_eq!((versions.versions().len(), versions.delete_markers().len()), (1, 1));
}

#[test]
fn a_bucket_without_object_lock_refuses_retention() {
    let moto = Moto::start();
    moto.create_bucket("plain", false);
    let object_lock = Some(ObjectLock { mode: LockMode::Governance, retain_days: 1 });
    let store = open(S3Settings { object_lock, ..moto.settings("plain", "pg") });
    let error = refuses(create(&store, "a", b"x"), ErrorKind::Unsupported, "", "object lock is not enabled");
    assert!(error.is_permanent());
}

#[test]
fn credentials_without_delete_can_do_everything_else() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let settings = moto.restrict(
        "backups",
        "pg",
        r#"{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::backups/pg/*"},
           {"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::backups"}"#,
    );
    let store = open(settings.clone());
    assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
    assert_eq!(create(&store, "a", b"y").unwrap(), Created::Exists);
    assert_eq!(read_all(&store, "a").unwrap(), b"x");
    assert_eq!(names(&list(&store, "", "").unwrap()), ["a"]);
    refuses(read_all(&store, "b"), ErrorKind::NotFound, "", "");
    let error = refuses(store.delete(&key("a")), ErrorKind::Denied, "AccessDenied", "allowed to do");
    assert!(error.is_permanent());
    assert_eq!(read_all(&store, "a").unwrap(), b"x");
    // Neither listing uploads nor aborting them is allowed; storing in parts is.
    let mut upload = store.begin(&key("large"), &id(b"")).unwrap();
    upload.part(b"y".as_slice().into()).unwrap();
    assert_eq!(upload.complete().unwrap(), Created::New);
    drop(upload);
    let outside = open(S3Settings { prefix: "other".to_owned(), ..settings });
    refuses(create(&outside, "a", b"x"), ErrorKind::Denied, "AccessDenied", "");
}
