//! The S3 store against real servers: what it promises, what it makes of broken answers, and what a killed process
//! leaves behind.
#![allow(clippy::print_stdout)]

mod absence;
mod addresses;
mod connection;
mod credentials;
mod deleting;
mod headers;
mod moto;
mod policies;
mod probe;
mod processes;
mod stores;
mod suite;
mod uploads;
mod versions;

use std::io::Read;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use walvis::store::s3::S3Settings;
use walvis::store::{ContentId, Created, Entry, ErrorKind, Key, ReadRange, Store, StoreError};

use crate::support::s3::S3Server;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn id(body: &[u8]) -> ContentId {
    ContentId(blake3::hash(body).as_bytes()[..16].try_into().unwrap())
}

fn create(store: &dyn Store, name: &str, body: &[u8]) -> Result<Created, StoreError> {
    store.create(&key(name), Bytes::copy_from_slice(body), &id(body))
}

/// Reads a range whole: the object's size and the bytes, or what went wrong on the way.
fn read(store: &dyn Store, name: &str, range: ReadRange) -> Result<(u64, Vec<u8>), StoreError> {
    let mut object = store.read(&key(name), range)?;
    let mut bytes = Vec::new();
    object.body.read_to_end(&mut bytes).map_err(|e| StoreError::from_io(e).unwrap())?;
    Ok((object.size_bytes, bytes))
}

fn read_all(store: &dyn Store, name: &str) -> Result<Vec<u8>, StoreError> {
    read(store, name, ReadRange::All).map(|(size, bytes)| {
        assert_eq!(size, bytes.len() as u64);
        bytes
    })
}

fn list(store: &dyn Store, prefix: &str, after: &str) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    store.list(prefix, after, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|e| e.key.as_str()).collect()
}

/// The error of something that must fail, with its kind and pieces of its message and hint.
#[track_caller]
fn refuses<T>(result: Result<T, StoreError>, kind: ErrorKind, says: &str, hints: &str) -> StoreError {
    let Err(error) = result else { panic!("it did not fail; expected {kind:?}") };
    let hint = error.hint.clone().unwrap_or_default();
    assert_eq!(error.kind, kind, "{error} ({hint})");
    assert!(error.detail.contains(says), "{error}");
    assert!(hint.contains(hints), "{error} ({hint})");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

/// Settings with a short request timeout, for requests that never end.
fn impatient(server: &S3Server) -> S3Settings {
    S3Settings { request_timeout: Duration::from_millis(400), ..server.settings("pg") }
}

/// Bytes that differ everywhere.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Waits until a condition holds.
#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn objects_below_a_prefix() {
    let server = S3Server::start();
    let store = server.store("pg/main");
    assert_eq!(store.location(), "s3://walvis-test/pg/main");
    assert_eq!(create(&store, "wal/a", b"first").unwrap(), Created::New);
    assert_eq!(create(&store, "wal/a", b"second").unwrap(), Created::Exists);
    assert_eq!(read_all(&store, "wal/a").unwrap(), b"first");
    store.make_durable(&key("wal/a")).unwrap();
    assert_eq!(server.objects("").into_keys().collect::<Vec<_>>(), ["pg/main/wal/a"]);
    assert!(list(&server.store("pg/mai"), "", "").unwrap().is_empty(), "a prefix ends at a slash");
    assert_eq!(names(&list(&server.store(""), "", "").unwrap()), ["pg/main/wal/a"]);
    store.delete(&key("wal/a")).unwrap();
    store.delete(&key("wal/a")).unwrap();
    assert!(server.objects("").is_empty());
}

#[test]
fn tls_under_a_ca_of_ones_own() {
    let server = S3Server::start_tls();
    let store = server.store("pg");
    assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
    assert_eq!(read_all(&store, "a").unwrap(), b"x");
}

#[test]
fn ranges() {
    let server = S3Server::start();
    let store = server.store("pg");
    let body = noise(100_000, 1);
    let _ = create(&store, "a", &body).unwrap();
    let _ = create(&store, "empty", b"").unwrap();
    let size = body.len() as u64;
    for (offset, len) in [(0_u64, 1_u64), (0, size), (0, size + 1), (5, 10), (99_999, 1), (99_999, 500), (60_000, u64::MAX)] {
        let end = offset.saturating_add(len).min(size);
        let expected = (size, body[offset as usize..end as usize].to_vec());
        assert_eq!(read(&store, "a", ReadRange::Bounded { offset, len }).unwrap(), expected, "{offset}+{len}");
    }
    assert_eq!(read(&store, "a", ReadRange::From(99_000)).unwrap(), (size, body[99_000..].to_vec()));
    for beyond in [ReadRange::From(size), ReadRange::From(size * 2), ReadRange::Bounded { offset: size, len: 7 }] {
        assert_eq!(read(&store, "a", beyond).unwrap(), (size, vec![]), "{beyond:?}");
    }
    for range in [ReadRange::All, ReadRange::From(0), ReadRange::From(3), ReadRange::Bounded { offset: 0, len: 9 }] {
        assert_eq!(read(&store, "empty", range).unwrap(), (0, vec![]), "{range:?}");
    }
    store.make_durable(&key("empty")).unwrap();
}

#[test]
fn listings_go_on_page_after_page() {
    let server = S3Server::start();
    server.set_page_len(7);
    let store = server.store("pg");
    let all: Vec<String> = (0..50).map(|n| format!("wal/{n:04}")).collect();
    for name in &all {
        server.insert(&format!("pg/{name}"), name.as_bytes());
    }
    for foreign in ["pg/wal/", "pg/wal/00 20", "pg/wal/.hidden", "pga/x", "p"] {
        server.insert(foreign, b"x");
    }
    let entries = list(&store, "wal/", "").unwrap();
    assert_eq!(names(&entries), all);
    assert!(entries.iter().all(|e| e.size_bytes == 8 && e.modified_unix_s.is_some_and(|t| t > 1_600_000_000)));
    assert_eq!(names(&list(&store, "wal/", "wal/0044").unwrap()), all[45..]);
    assert_eq!(names(&list(&store, "wal/001", "wal/0017x").unwrap()), all[18..20]);
    assert_eq!(names(&list(&store, "wal/", "a").unwrap()), all);
    assert!(list(&store, "wal/", "x").unwrap().is_empty());
    assert!(list(&store, "nothing", "").unwrap().is_empty());

    server.clear_log();
    let mut visited = 0;
    store
        .list("wal/", "", &mut |_| {
            visited += 1;
            if visited == 8 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((visited, server.log().len()), (8, 2), "no page is fetched that nobody looks at");
}

#[test]
fn one_of_many_writers_wins() {
    let server = S3Server::start();
    let store = server.store("pg");
    let small = race(|body| store.create(&key("small"), body.clone(), &id(&body)).unwrap());
    assert_eq!(read_all(&store, "small").unwrap(), small);
    let large = race(|body| {
        let mut upload = store.begin(&key("large"), &id(&body)).unwrap();
        upload.part(body).unwrap();
        upload.complete().unwrap()
    });
    assert_eq!(read_all(&store, "large").unwrap(), large);
    eventually("losers abort their uploads", || server.uploads().is_empty());
}

/// Lets eight threads create at the same moment; the body of the only one that did.
fn race(create: impl Fn(Bytes) -> Created + Sync) -> Vec<u8> {
    let barrier = std::sync::Barrier::new(8);
    let mut winners: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (create, barrier) = (&create, &barrier);
                scope.spawn(move || {
                    let body = noise(10_000, n);
                    barrier.wait();
                    (create(body.clone().into()) == Created::New).then_some(body)
                })
            })
            .collect();
        writers.into_iter().filter_map(|w| w.join().unwrap()).collect()
    });
    assert_eq!(winners.len(), 1);
    winners.remove(0)
}

#[test]
fn threads_share_a_store_without_waiting_for_each_other() {
    let server = S3Server::start();
    let store = server.store("pg");
    let (arrived, release) = (std::sync::Barrier::new(5), std::sync::Barrier::new(5));
    let gates = std::sync::Arc::new((arrived, release));
    let at_server = std::sync::Arc::clone(&gates);
    server.hook(move |_| {
        let gates = std::sync::Arc::clone(&at_server);
        crate::support::s3::Action::Before(Box::new(move || {
            gates.0.wait();
            gates.1.wait();
        }))
    });
    std::thread::scope(|scope| {
        for n in 0..4 {
            let store = &store;
            scope.spawn(move || create(store, &format!("k{n}"), b"x").unwrap());
        }
        gates.0.wait(); // only passes when four requests are there at the same time
        gates.1.wait();
    });
    assert_eq!(server.objects("pg/").len(), 4);
    assert!(server.peak_in_flight() >= 4);
}
