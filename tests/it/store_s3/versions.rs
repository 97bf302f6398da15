//! Buckets with versions and with object lock, on moto: what is hidden, what is held, what is removed for good.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockLegalHold,
    ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};
use walvis::repo::{Prefix, Purged, RawObjects};
use walvis::store::features::{DefaultLock, Features, ObjectLocking, Versioning};
use walvis::store::s3::{LockMode, ObjectLock, S3Settings};
use walvis::store::{Created, Deleted, ErrorKind, Hidden, Key, Store};

use super::{create, key, list, names, read_all, refuses};
use crate::conformance;
use crate::support::s3::{Moto, open};

const WAL: &str = "clusters/main/7579128459364321234/wal/00000001/00000000/00000001000000000000000";

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn hidden(store: &dyn Store) -> Vec<Hidden> {
    let mut all = Vec::new();
    store
        .hidden("", "", &mut |hidden| {
            all.push(hidden);
            ControlFlow::Continue(())
        })
        .unwrap();
    all
}

fn versioned(moto: &Moto, bucket: &str) {
    moto.create_bucket(bucket, false);
    let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    moto.admin(|c| c.put_bucket_versioning().bucket(bucket).versioning_configuration(on).send()).unwrap();
}

fn put(store: &dyn Store, name: &str, body: &[u8]) {
    assert_eq!(create(store, name, body).unwrap(), Created::New);
}

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| key(name)).collect()
}

#[test]
fn the_suite_with_versions() {
    let moto = Moto::start();
    versioned(&moto, "versioned");
    let store = open(moto.settings("versioned", "pg"));
    conformance::run(&store, "suite");
    // All that it deletes is hidden in the end.
    let hidden = hidden(&store);
    assert!(hidden.len() > 60, "{}", hidden.len());
    assert_eq!(store.purge(&hidden).unwrap(), vec![Deleted::Gone; hidden.len()]);
    let left = moto.admin(|c| c.list_object_versions().bucket("versioned").send()).unwrap();
    assert!(left.versions().is_empty() && left.delete_markers().is_empty());
}

#[test]
fn hidden_versions_go_for_good_and_nothing_else() {
    let moto = Moto::start();
    versioned(&moto, "versioned");
    let (store, other) = (open(moto.settings("versioned", "pg")), open(moto.settings("versioned", "pg-other")));
    for name in ["a", "b", "c"] {
        put(&store, name, name.as_bytes());
    }
    put(&other, "a", b"other");
    other.delete(&key("a")).unwrap();
    assert_eq!(hidden(&store), []);
    // Deleted, created again, deleted again: two versions and two marks.
    store.delete(&key("a")).unwrap();
    put(&store, "a", b"aa");
    assert_eq!(store.delete_many(&keys(&["a", "b"])).unwrap(), vec![Deleted::Gone; 2]);
    let all = hidden(&store);
    let shown = |hidden: &Hidden| {
        let mut sizes: Vec<u64> = hidden.versions.iter().map(|(_, bytes)| *bytes).collect();
        sizes.sort_unstable();
        (hidden.key.to_string(), sizes, hidden.marks.len(), hidden.is_whole)
    };
    assert_eq!(
        all.iter().map(shown).collect::<Vec<_>>(),
        [("a".to_owned(), vec![1, 2], 2, true), ("b".to_owned(), vec![1], 1, true)]
    );
    // One of them is created anew before its versions go.
    put(&store, "b", b"anew");
    assert_eq!(store.purge(&all).unwrap(), vec![Deleted::Gone; 2]);
    assert_eq!(store.purge(&all).unwrap(), vec![Deleted::Gone; 2], "again");
    assert_eq!(names(&list(&store, "", "").unwrap()), ["b", "c"]);
    assert_eq!(read_all(&store, "b").unwrap(), b"anew");
    assert_eq!(hidden(&store), []);
    let left = moto.admin(|c| c.list_object_versions().bucket("versioned").prefix("pg/").send()).unwrap();
    assert_eq!((left.versions().len(), left.delete_markers().len()), (2, 0));
    assert_eq!(hidden(&other).len(), 1, "another's");
}

#[test]
fn only_versions_that_are_wanted_go() {
    let moto = Moto::start();
    versioned(&moto, "versioned");
    let store = Arc::new(open(moto.settings("versioned", "pg")));
    let objects = RawObjects::new(Arc::<walvis::store::s3::S3Store>::clone(&store));
    let wal: Vec<String> = (1..=3).map(|n| format!("{WAL}{n}")).collect();
    for name in &wal {
        put(&*store, name, b"12345");
    }
    put(&*store, "notes", b"of another program");
    for name in [&wal[0], &wal[1], "notes"] {
        store.delete(&key(name)).unwrap();
    }
    let mut asked = Vec::new();
    let purged = objects
        .purge_versions(Prefix::Clusters, &mut |name| {
            asked.push(name.to_string());
            asked.len() == 1
        })
        .unwrap();
    assert_eq!(asked, wal[..2]);
    assert_eq!(purged, Purged { objects: 1, bytes: 5, ..Purged::default() });
    assert_eq!(hidden(&*store).into_iter().map(|hidden| hidden.key.to_string()).collect::<Vec<_>>(), [&wal[1], "notes"]);
}

#[test]
fn what_is_locked_is_held_and_neither_deleted_nor_hidden() {
    let moto = Moto::start();
    moto.create_bucket("vault", true);
    let object_lock = Some(ObjectLock { mode: LockMode::Compliance, retain_days: 7 });
    let (locking, store) = (open(S3Settings { object_lock, ..moto.settings("vault", "pg") }), open(moto.settings("vault", "pg")));
    put(&locking, "locked", b"x");
    put(&store, "free", b"x");
    put(&store, "legal", b"x");
    put(&store, "was-locked", b"x");
    let hold = |status| ObjectLockLegalHold::builder().status(status).build();
    let legal = |status| {
        let (name, hold) = ("pg/legal", hold(status));
        moto.admin(|c| c.put_object_legal_hold().bucket("vault").key(name).legal_hold(hold).send()).unwrap();
    };
    legal(ObjectLockLegalHoldStatus::On);
    let past = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .retain_until_date(DateTime::from_secs(now() - 60))
        .build();
    moto.admin(|c| c.put_object_retention().bucket("vault").key("pg/was-locked").retention(past).send()).unwrap();

    let outcomes = store.delete_many(&keys(&["absent", "free", "legal", "locked", "was-locked"])).unwrap();
    assert_eq!(outcomes[..3], [Deleted::Gone, Deleted::Gone, Deleted::Held { until_unix_s: None }]);
    let Deleted::Held { until_unix_s: Some(until) } = outcomes[3] else { panic!("{outcomes:?}") };
    assert!((until - now() - 7 * 86_400).abs() < 600, "{until}");
    assert_eq!(outcomes[4], Deleted::Gone);
    assert_eq!(names(&list(&store, "", "").unwrap()), ["legal", "locked"]);

    // Lifted, it goes.
    legal(ObjectLockLegalHoldStatus::Off);
    assert_eq!(store.delete_many(&keys(&["legal"])).unwrap(), [Deleted::Gone]);

    // Hidden all the same, by whatever hand, it is held, and does not come back.
    store.delete(&key("locked")).unwrap();
    let outcomes = store.purge(&hidden(&store)).unwrap();
    assert_eq!(hidden(&store).into_iter().map(|hidden| hidden.key).collect::<Vec<_>>(), keys(&["locked"]));
    assert_eq!(
        outcomes.iter().filter(|outcome| **outcome != Deleted::Gone).collect::<Vec<_>>(),
        [&Deleted::Held { until_unix_s: Some(until) }]
    );
    refuses(read_all(&store, "locked"), ErrorKind::NotFound, "", "");
}

#[test]
fn credentials_that_cannot_delete_are_told_so_for_each_object() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let settings = moto.restrict(
        "backups",
        "pg",
        r#"{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::backups/pg/*"},
           {"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::backups"}"#,
    );
    let store = open(settings);
    put(&store, "a", b"x");
    put(&store, "b", b"x");
    let outcomes = store.delete_many(&keys(&["a", "b"])).unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Deleted::Denied(why) if !why.is_empty())), "{outcomes:?}");
    assert_eq!(names(&list(&store, "", "").unwrap()), ["a", "b"]);
}

#[test]
fn a_bucket_tells_what_it_does() {
    let moto = Moto::start();
    moto.create_bucket("plain", false);
    versioned(&moto, "versioned");
    moto.create_bucket("vault", true);
    let features = |bucket: &str| open(moto.settings(bucket, "pg")).features().unwrap();
    assert_eq!(features("plain"), Features::none());
    assert_eq!(features("versioned"), Features { versioning: Versioning::On, object_lock: ObjectLocking::Off });
    assert_eq!(features("vault"), Features { versioning: Versioning::On, object_lock: ObjectLocking::On { default: None } });
    let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(30).build();
    let lock = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(ObjectLockRule::builder().default_retention(retention).build())
        .build();
    moto.admin(|c| c.put_object_lock_configuration().bucket("vault").object_lock_configuration(lock).send()).unwrap();
    let default = Some(DefaultLock { is_compliance: false, days: 30 });
    assert_eq!(features("vault").object_lock, ObjectLocking::On { default });
    let off = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    moto.admin(|c| c.put_bucket_versioning().bucket("versioned").versioning_configuration(off).send()).unwrap();
    assert_eq!(features("versioned").versioning, Versioning::Suspended);
    refuses(open(moto.settings("nowhere", "pg")).features(), ErrorKind::NoSuchPlace, "NoSuchBucket", "");
}
