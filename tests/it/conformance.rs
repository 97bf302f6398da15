//! The one suite that every store and every decorator passes: the contract of `walvis::store::Store`, promise by
//! promise.
//!
//! [`run`] works below a key prefix of its own and leaves nothing there, so that it can run against a bucket that
//! others use. Most objects are a few bytes; one is an upload of 2.5 parts.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bytes::Bytes;
use walvis::deadline::Deadline;
use walvis::fsio::TempFiles;
use walvis::limits::{ABANDONED_AFTER, DELETED_AT_ONCE, PART_BYTES};
use walvis::store::claims::Claims;
use walvis::store::fault::Fault;
use walvis::store::file::FileStore;
use walvis::store::memory::MemoryStore;
use walvis::store::retry::{Policy, Retry};
use walvis::store::{ContentId, Created, Deleted, Entry, ErrorKind, Key, ReadRange, Store};

/// The fingerprint of some content.
pub fn content(body: &[u8]) -> ContentId {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(body).as_bytes()[..16]);
    ContentId(id)
}

pub fn key(text: impl Into<String>) -> Key {
    Key::new(text).unwrap()
}

/// Creates an object.
pub fn create(store: &dyn Store, key: &Key, body: &[u8]) -> Created {
    store.create(key, Bytes::copy_from_slice(body), &content(body)).unwrap()
}

/// Reads a range to its end.
pub fn read(store: &dyn Store, key: &Key, range: ReadRange) -> Vec<u8> {
    let mut body = Vec::new();
    store.read(key, range).unwrap().body.read_to_end(&mut body).unwrap();
    body
}

/// Lists everything.
pub fn list(store: &dyn Store, prefix: &str, after: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    store
        .list(prefix, after, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })
        .unwrap();
    entries
}

/// Lists the keys, without the prefix.
fn names(store: &dyn Store, prefix: &str, after: &str) -> Vec<String> {
    list(store, prefix, after).into_iter().map(|entry| entry.key.as_str().to_owned()).collect()
}

fn error_of(store: &dyn Store, key: &Key) -> ErrorKind {
    match store.read(key, ReadRange::All) {
        Ok(_) => panic!("{key} was read"),
        Err(e) => e.kind,
    }
}

/// Runs the suite below `prefix` (a key without a `/` at its end, used by nobody else) and removes what it made.
pub fn run(store: &dyn Store, prefix: &str) {
    assert_eq!(names(store, &format!("{prefix}/"), ""), Vec::<String>::new(), "an absent prefix lists nothing");
    creates_once(store, &format!("{prefix}/once"));
    proves_absence(store, &format!("{prefix}/absent"));
    one_of_many_creates(store, &format!("{prefix}/race"));
    reads_ranges(store, &format!("{prefix}/ranges"));
    lists_in_key_order(store, &format!("{prefix}/order"));
    uploads(store, &format!("{prefix}/upload"));
    deletes(store, &format!("{prefix}/delete"));
    deletes_many(store, &format!("{prefix}/many"));
    deletes_while_others_create(store, &format!("{prefix}/meanwhile"));
    keeps_what_is_alive(store, &format!("{prefix}/alive"));

    for entry in list(store, &format!("{prefix}/"), "") {
        store.delete(&entry.key).unwrap();
    }
    assert_eq!(names(store, &format!("{prefix}/"), ""), Vec::<String>::new(), "something cannot be deleted");
    let claims = format!("claims/{prefix}/");
    assert_eq!(names(store, &claims, ""), Vec::<String>::new(), "claims were left behind");
}

fn creates_once(store: &dyn Store, at: &str) {
    let object = key(format!("{at}/a/deep/path/object.zst"));
    assert_eq!(create(store, &object, b"first"), Created::New);
    assert_eq!(create(store, &object, b"second, longer"), Created::Exists);
    assert_eq!(create(store, &object, b"first"), Created::Exists);
    assert_eq!(read(store, &object, ReadRange::All), b"first", "an existing object was touched");
    store.make_durable(&object).unwrap();

    let empty = key(format!("{at}/empty"));
    assert_eq!(create(store, &empty, b""), Created::New);
    assert_eq!(create(store, &empty, b"not empty"), Created::Exists);
    let opened = store.read(&empty, ReadRange::All).unwrap();
    assert_eq!(opened.size_bytes, 0);
    drop(opened);
    assert_eq!(read(store, &empty, ReadRange::All), b"");
    assert_eq!(read(store, &empty, ReadRange::Bounded { offset: 0, len: 10 }), b"");
    assert_eq!(list(store, empty.as_str(), "").first().map(|entry| entry.size_bytes), Some(0));
}

fn proves_absence(store: &dyn Store, at: &str) {
    assert_eq!(create(store, &key(format!("{at}/there")), b"x"), Created::New);
    for absent in ["not-there", "no/such/directory", "ther", "there-too"] {
        let absent = key(format!("{at}/{absent}"));
        assert_eq!(error_of(store, &absent), ErrorKind::NotFound);
        assert_eq!(store.make_durable(&absent).unwrap_err().kind, ErrorKind::NotFound);
        assert!(store.make_durable(&absent).unwrap_err().is_permanent());
        let range = ReadRange::Bounded { offset: 5, len: 5 };
        assert_eq!(store.read(&absent, range).err().map(|e| e.kind), Some(ErrorKind::NotFound));
    }
    assert_eq!(names(store, &format!("{at}/no/such/"), ""), Vec::<String>::new());
    assert_eq!(names(store, &format!("{at}/no/../"), ""), Vec::<String>::new());
    assert_eq!(names(store, &format!("{at}/."), ""), Vec::<String>::new());
}

fn one_of_many_creates(store: &dyn Store, at: &str) {
    const WRITERS: usize = 8;
    for round in 0..3 {
        let object = key(format!("{at}/{round}/object"));
        let start = Barrier::new(WRITERS);
        let write = |writer: usize| {
            let body = format!("content of writer {writer} in round {round}").into_bytes();
            start.wait();
            (body.clone(), create(store, &object, &body))
        };
        let write = &write;
        let outcomes: Vec<(Vec<u8>, Created)> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let winners: Vec<_> = outcomes.iter().filter(|(_, created)| *created == Created::New).collect();
        assert_eq!(winners.len(), 1, "not exactly one creation succeeded");
        assert_eq!(read(store, &object, ReadRange::All), winners[0].0);
    }
}

fn reads_ranges(store: &dyn Store, at: &str) {
    let object = key(format!("{at}/object"));
    let body: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(create(store, &object, &body), Created::New);
    let size = body.len() as u64;
    let cases = [
        (ReadRange::All, &body[..]),
        (ReadRange::From(0), &body[..]),
        (ReadRange::From(1), &body[1..]),
        (ReadRange::From(size - 1), &body[body.len() - 1..]),
        (ReadRange::From(size), &[]),
        (ReadRange::From(size + 1), &[]),
        (ReadRange::From(u64::MAX), &[]),
        (ReadRange::Bounded { offset: 0, len: 1 }, &body[..1]),
        (ReadRange::Bounded { offset: 0, len: size }, &body[..]),
        (ReadRange::Bounded { offset: 0, len: size + 1 }, &body[..]),
        (ReadRange::Bounded { offset: 0, len: u64::MAX }, &body[..]),
        (ReadRange::Bounded { offset: 777, len: 33_333 }, &body[777..777 + 33_333]),
        (ReadRange::Bounded { offset: size - 10, len: 100 }, &body[body.len() - 10..]),
        (ReadRange::Bounded { offset: size, len: 1 }, &[]),
        (ReadRange::Bounded { offset: size + 5, len: u64::MAX }, &[]),
    ];
    for (range, expected) in cases {
        let mut object = store.read(&object, range).unwrap();
        assert_eq!(object.size_bytes, size, "size for {range:?}");
        let mut got = Vec::new();
        object.body.read_to_end(&mut got).unwrap();
        assert!(got == expected, "{range:?} gave {} bytes, not the {} expected", got.len(), expected.len());
        assert_eq!(object.body.read(&mut [0; 8]).unwrap(), 0, "the end is not final");
    }
    // A body that is dropped before its end disturbs nobody.
    store.read(&object, ReadRange::All).unwrap().body.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(read(store, &object, ReadRange::All), body);
}

fn lists_in_key_order(store: &dyn Store, at: &str) {
    // In byte order: `-` < `.` < `/` < `0` < `A` < `_` < `a`. Siblings of a directory `a` sort before, into and after
    // it.
    let mut keys: Vec<String> =
        ["a-b/c", "a-b.c", "a.b", "a/b", "a/b.c", "a/c/d", "a0", "A/z", "_x", "ab", "b/a/a/a", "b/a-a", "b/a.a", "z"]
            .iter()
            .map(|name| format!("{at}/{name}"))
            .collect();
    keys.extend((0..40).map(|i| format!("{at}/many/{:02}/{:03}", i / 10, i)));
    for (i, name) in keys.iter().enumerate() {
        assert_eq!(create(store, &key(name.as_str()), &vec![b'x'; i]), Created::New);
    }
    let sizes: std::collections::BTreeMap<String, u64> =
        keys.iter().enumerate().map(|(i, name)| (name.clone(), i as u64)).collect();
    keys.sort();

    let all = list(store, &format!("{at}/"), "");
    assert_eq!(all.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), keys);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    for entry in &all {
        assert_eq!(entry.size_bytes, sizes[entry.key.as_str()]);
        assert!(entry.modified_unix_s.is_none_or(|at| (at - now).abs() < 3600), "{entry:?} was not stored just now");
    }

    // Every object, every directory and things in between as prefix and as the place to begin after.
    let mut points: BTreeSet<String> = keys.iter().cloned().collect();
    for name in &keys {
        points.extend(name.match_indices('/').map(|(i, _)| name[..=i].to_owned()).filter(|dir| dir.len() > at.len()));
        points.insert(format!("{name}0"));
        points.insert(name[..name.len() - 1].to_owned());
    }
    points.insert(format!("{at}/zz"));
    for point in &points {
        let expected: Vec<&String> = keys.iter().filter(|name| *name > point).collect();
        assert_eq!(names(store, &format!("{at}/"), point).iter().collect::<Vec<_>>(), expected, "after {point}");
        let expected: Vec<&String> = keys.iter().filter(|name| name.starts_with(point.as_str())).collect();
        if point.len() > at.len() {
            assert_eq!(names(store, point, "").iter().collect::<Vec<_>>(), expected, "prefix {point}");
        }
    }
    let within = format!("{at}/many/01/");
    let expected: Vec<&String> =
        keys.iter().filter(|name| name.starts_with(&within) && **name > format!("{at}/many/01/015")).collect();
    assert_eq!(names(store, &within, &format!("{at}/many/01/015")).iter().collect::<Vec<_>>(), expected);
    assert_eq!(names(store, &within, &format!("{at}/many/02")), Vec::<String>::new(), "after the prefix");
    assert_eq!(names(store, &within, at).len(), 10, "before the prefix");

    for n in [1, 5, keys.len() - 1] {
        let mut seen = Vec::new();
        let visit = &mut |entry: Entry| {
            seen.push(entry.key.as_str().to_owned());
            if seen.len() == n { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.list(&format!("{at}/"), "", visit).unwrap();
        assert_eq!(seen, keys[..n], "a break after {n} was not heeded");
    }
    // The visitor may use the store.
    let visit = &mut |entry: Entry| {
        assert_eq!(read(store, &entry.key, ReadRange::All).len() as u64, entry.size_bytes);
        ControlFlow::Continue(())
    };
    store.list(&format!("{at}/many/03/"), "", visit).unwrap();
}

fn uploads(store: &dyn Store, at: &str) {
    // Two and a half parts.
    let object = key(format!("{at}/large/object"));
    let body = Bytes::from((0..PART_BYTES * 5 / 2).map(|i| (i / 7 % 253) as u8).collect::<Vec<u8>>());
    let id = content(&body);
    let parts = || [0..PART_BYTES, PART_BYTES..2 * PART_BYTES, 2 * PART_BYTES..body.len()].map(|range| body.slice(range));
    {
        let mut upload = store.begin(&object, &id).unwrap();
        for part in parts() {
            upload.part(part).unwrap();
            assert_eq!(error_of(store, &object), ErrorKind::NotFound, "visible before it was completed");
            assert_eq!(names(store, &format!("{at}/large/"), ""), Vec::<String>::new(), "listed before it was completed");
        }
        assert_eq!(upload.complete().unwrap(), Created::New);
        assert_eq!(upload.complete().unwrap(), Created::Exists, "completing again");
    }
    assert!(read(store, &object, ReadRange::All) == body, "what was uploaded is not what is read");
    let across = ReadRange::Bounded { offset: PART_BYTES as u64 - 5, len: 10 };
    assert_eq!(read(store, &object, across), body[PART_BYTES - 5..PART_BYTES + 5]);
    assert_eq!(list(store, object.as_str(), "").first().map(|entry| entry.size_bytes), Some(body.len() as u64));
    store.make_durable(&object).unwrap();

    // Over an existing one, which was there before it began or came to be meanwhile.
    let other = Bytes::from_static(b"other content");
    let mut upload = store.begin(&object, &content(&other)).unwrap();
    upload.part(other.clone()).unwrap();
    assert_eq!(upload.complete().unwrap(), Created::Exists);
    drop(upload);
    assert!(read(store, &object, ReadRange::All) == body, "an existing object was touched");

    // Dropped before it was completed.
    let dropped = key(format!("{at}/dropped"));
    let mut upload = store.begin(&dropped, &content(&other)).unwrap();
    upload.part(other.clone()).unwrap();
    drop(upload);
    assert_eq!(error_of(store, &dropped), ErrorKind::NotFound);
    assert_eq!(create(store, &dropped, b"afterwards"), Created::New);

    // One small part, and none at all.
    let small = key(format!("{at}/small"));
    let mut upload = store.begin(&small, &content(&other)).unwrap();
    upload.part(other.clone()).unwrap();
    assert_eq!(upload.complete().unwrap(), Created::New);
    drop(upload);
    assert_eq!(read(store, &small, ReadRange::All), other);
    let none = key(format!("{at}/none"));
    assert_eq!(store.begin(&none, &content(b"")).unwrap().complete().unwrap(), Created::New);
    assert_eq!(read(store, &none, ReadRange::All), b"");
}

fn deletes(store: &dyn Store, at: &str) {
    let (object, neighbour) = (key(format!("{at}/dir/object")), key(format!("{at}/dir/object-2")));
    assert_eq!(create(store, &object, b"x"), Created::New);
    assert_eq!(create(store, &neighbour, b"y"), Created::New);
    store.delete(&object).unwrap();
    store.delete(&object).unwrap();
    store.delete(&key(format!("{at}/no/such/object"))).unwrap();
    assert_eq!(error_of(store, &object), ErrorKind::NotFound);
    assert_eq!(names(store, &format!("{at}/"), ""), [neighbour.as_str()]);
    assert_eq!(create(store, &object, b"again"), Created::New);
    assert_eq!(read(store, &object, ReadRange::All), b"again");
    store.delete(&object).unwrap();
    store.delete(&neighbour).unwrap();
    assert_eq!(create(store, &neighbour, b"in a directory that had become empty"), Created::New);
}

fn deletes_many(store: &dyn Store, at: &str) {
    // More than one request takes, in several directories, some of which become empty, and in no order.
    let all: Vec<Key> = (0..DELETED_AT_ONCE + 7).map(|i| key(format!("{at}/{}/{}/{i:04}", i % 3, i % 7))).collect();
    let stays: BTreeSet<usize> = [0, 1, 500, DELETED_AT_ONCE, DELETED_AT_ONCE + 3].into();
    let there: Vec<usize> = stays.iter().copied().chain([2, 3, 4, 5, 6, 7, 400, 999, DELETED_AT_ONCE + 6]).collect();
    for i in &there {
        assert_eq!(create(store, &all[*i], b"x"), Created::New);
    }
    let mut goes: Vec<Key> = (0..all.len()).filter(|i| !stays.contains(i)).map(|i| all[i].clone()).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut goes);
    // One twice, and one where there is not even a directory.
    goes.extend([goes[0].clone(), key(format!("{at}/no/such/object"))]);
    assert_eq!(store.delete_many(&[]).unwrap(), []);
    for _ in 0..2 {
        assert_eq!(store.delete_many(&goes).unwrap(), vec![Deleted::Gone; goes.len()]);
        let mut left: Vec<&str> = stays.iter().map(|i| all[*i].as_str()).collect();
        left.sort_unstable();
        assert_eq!(names(store, &format!("{at}/"), ""), left);
    }
    assert_eq!(error_of(store, &goes[0]), ErrorKind::NotFound);
    assert_eq!(create(store, &goes[0], b"again"), Created::New);
    assert_eq!(read(store, &goes[0], ReadRange::All), b"again");
    assert_eq!(store.delete_many(&all).unwrap(), vec![Deleted::Gone; all.len()]);
    assert_eq!(names(store, &format!("{at}/"), ""), Vec::<String>::new());
}

/// Directories become empty while others put objects there: no creation fails, and nothing is lost.
fn deletes_while_others_create(store: &dyn Store, at: &str) {
    const ROUNDS: usize = 8;
    let object = |round: usize, what: &str| key(format!("{at}/{}/deep/{what}-{round}", round % 2));
    let goes = |round: usize| -> Vec<Key> { (0..5).map(|n| object(round, &format!("goes-{n}"))).collect() };
    for round in 0..ROUNDS {
        goes(round).iter().for_each(|goes| assert_eq!(create(store, goes, b"x"), Created::New));
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(store.delete_many(&goes(round)).unwrap(), vec![Deleted::Gone; 5]));
            scope.spawn(|| assert_eq!(create(store, &object(round, "stays"), b"kept"), Created::New));
        });
        assert_eq!(read(store, &object(round, "stays"), ReadRange::All), b"kept");
        assert_eq!(store.delete_many(&[object(round, "stays")]).unwrap(), [Deleted::Gone]);
    }
}

/// What is being written is not left over, and what is there is not hidden.
fn keeps_what_is_alive(store: &dyn Store, at: &str) {
    let (object, large) = (key(format!("{at}/object")), key(format!("{at}/large")));
    assert_eq!(create(store, &object, b"x"), Created::New);
    let mut upload = store.begin(&large, &content(b"y")).unwrap();
    upload.part(Bytes::from_static(b"y")).unwrap();
    for leftover in store.leftovers(ABANDONED_AFTER).unwrap() {
        assert_ne!(leftover.key.as_ref(), Some(&large), "an upload that is alive is left over");
    }
    assert_eq!(upload.complete().unwrap(), Created::New);
    drop(upload);
    let mut hidden = Vec::new();
    let visited = store.hidden(&format!("{at}/"), "", &mut |seen| {
        hidden.push(seen.key);
        ControlFlow::Continue(())
    });
    // A store may have no versions, and not even know what they are.
    if let Err(error) = visited {
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    }
    assert_eq!(hidden, []);
    store.features().unwrap();
}

/// A policy that hardly waits.
pub fn quick() -> Policy {
    Policy { first_delay: Duration::from_millis(1), max_delay: Duration::from_millis(50), attempts: 1000 }
}

pub fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

#[test]
fn memory() {
    run(&MemoryStore::new(), "suite");
}

#[test]
fn file() {
    for files in [TempFiles::Auto, TempFiles::Named] {
        let place = tempfile::tempdir().unwrap();
        let store = FileStore::open_with(place.path(), files).unwrap();
        run(&store, "suite");
        run(&store, "a/deeper/suite");
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
        match files {
            TempFiles::Auto => assert!(left.is_empty(), "left behind: {left:?}"),
            TempFiles::Named => {
                assert_eq!(left, [walvis::fsio::TEMP_DIR], "left behind: {left:?}");
                assert_eq!(std::fs::read_dir(place.path().join(walvis::fsio::TEMP_DIR)).unwrap().count(), 0);
            }
        }
    }
}

#[test]
fn retry_of_memory() {
    run(&Retry::new(Arc::new(MemoryStore::new()), quick(), deadline()), "suite");
}

#[test]
fn claims_of_memory_without_conditions() {
    run(&Claims::new(Arc::new(MemoryStore::without_conditions()), quick(), deadline()), "suite");
}

#[test]
fn claims_over_retry() {
    let retry = Arc::new(Retry::new(Arc::new(MemoryStore::without_conditions()), quick(), deadline()));
    run(&Claims::new(retry, quick(), deadline()), "suite");
}

#[test]
fn claims_of_memory_with_conditions() {
    run(&Claims::new(Arc::new(MemoryStore::new()), quick(), deadline()), "suite");
}

#[test]
fn fault_without_faults() {
    run(&Fault::new(Arc::new(MemoryStore::new())), "suite");
}

/// The suite can fail: the store that claims are made for does not pass it.
#[test]
#[should_panic(expected = "assertion")]
fn memory_without_conditions_fails() {
    run(&MemoryStore::without_conditions(), "suite");
}
