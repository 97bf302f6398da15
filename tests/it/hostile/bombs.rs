//! Small objects that unfold, and what asks for much work: what the program takes in memory for them, as a process of
//! its own. A wall clock is only there to catch what hangs.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use walvis::codec::Digest;
use walvis::crypto::{Argon2id, KeyFile, KeyId};
use walvis::deadline::Deadline;
use walvis::format::descriptor::KeyObject;
use walvis::limits::{
    MAX_ARGON2_LANES, MAX_ARGON2_MEMORY_KIB, MAX_ARGON2_PASSES, MAX_ARGON2_WORK_KIB, MAX_DATABASES, MAX_FACTS_BYTES,
    MAX_MANIFEST_PACKS, MIB,
};
use walvis::repo::{Content, ObjectName, Repository, Secret, StoreSettings, StoreUrl};

use super::manifests::World;
use super::raw::Raw;
use crate::memory::peak_and_code;
use crate::resolve_random::facts;
use crate::support::command::{DESTINATION, Site, files_below};
use crate::support::segment::{self, Segment};

/// What a command that reads small things may take.
const SMALL_MIB: u64 = 64;
/// What one may take that reads a manifest: its facts, and as much again for what is made of them, and the packs.
const MANIFEST_MIB: u64 = 192;
const HANGS_AFTER_S: u64 = 60;

/// A site that reads the world's repository.
fn site(world: &World) -> Site {
    let mut site = Site::bare();
    site.set("WALVIS_REPOSITORY", format!("file://{}", world.place.path().join("repository").display()));
    site.set("WALVIS_KEY_FILE", world.place.path().join("key"));
    site
}

#[track_caller]
fn ends(site: &Site, arguments: &[&str], code: i32, bound_mib: u64, what: &str) {
    let since = Instant::now();
    let (peak_mib, ended_with) = peak_and_code(site, arguments);
    let took = since.elapsed().as_secs();
    println!("{what}: peak resident memory {peak_mib} MiB of at most {bound_mib}, exit code {ended_with:?}, {took} s");
    assert_eq!(ended_with, Some(code), "{what}");
    assert!(peak_mib <= bound_mib, "{what}: {peak_mib} MiB");
    assert!(took < HANGS_AFTER_S, "{what}: {took} s");
}

/// Restores the world's backup.
fn restores(world: &World, code: i32, what: &str) {
    let target = world.place.path().join("target");
    let map = format!("16400={}", world.place.path().join("space").display());
    let arguments = ["pitr-restore", "--target", "immediate", "--pgdata", target.to_str().unwrap(), "--tablespace-map", &map];
    ends(&site(world), &arguments, code, MANIFEST_MIB, what);
    assert!(!target.exists(), "{what}: something was written");
}

#[test]
fn a_small_manifest_does_not_unfold() {
    let world = World::new();
    let mut truth = world.truth.clone();
    // What does not get shorter: without it each would be recognised by what it claims to unfold to.
    let mut noise = vec![0; MIB / 2];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let thin = truth.clone();
    truth.facts["noise"] = hex::encode(&noise).into();
    let fat = |count: usize, member: &Value, field: &str| {
        let mut raw = truth.clone();
        raw.facts[field] = vec![member.clone(); count].into();
        raw
    };
    let warnings = (MAX_FACTS_BYTES - 2 * MIB) / 3;
    let database = json!({"oid": 1, "name": "", "bytes": null});
    let bombs: Vec<(&str, Raw)> = vec![
        ("a warning for every three bytes", fat(warnings, &"".into(), "warnings")),
        ("too many databases", fat(MAX_DATABASES + 1, &database, "databases")),
        ("longer facts than there can be", fat(MAX_FACTS_BYTES / 2, &"".into(), "something")),
        ("a name for every byte", Raw { names: vec![vec![]; 8 * MIB], ..truth.clone() }),
        (
            "more packs than there can be",
            Raw { packs: vec![truth.packs[0].clone(); MAX_MANIFEST_PACKS / 2 + 5], ..truth.clone() },
        ),
        ("bytes after the end", Raw { tail: vec![0; 40 * MIB], ..truth.clone() }),
        ("forty MiB in ten KiB", Raw { tail: vec![0; 40 * MIB], ..thin }),
    ];
    for (what, raw) in bombs {
        world.store(&raw);
        let object = world.place.path().join(format!("repository/clusters/main/{}/backups/{}", facts().system_id, world.id));
        println!("{what}: {} bytes stored", fs::metadata(object).unwrap().len());
        restores(&world, 14, what);
    }
}

/// The largest facts that a reader takes: it needs room for them, and not many times that.
#[test]
fn the_largest_facts_have_room() {
    let world = World::new();
    let mut raw = world.truth.clone();
    // What does not get shorter, so that nobody calls it a bomb.
    let mut noise = vec![0; MAX_FACTS_BYTES / 3 - MIB];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    raw.facts["something"] = hex::encode(&noise).into();
    raw.facts["databases"] = vec![json!({"oid": 1, "name": "n", "bytes": 1}); MAX_DATABASES].into();
    world.store(&raw);
    let target = world.place.path().join("target");
    let map = format!("16400={}", world.place.path().join("space").display());
    let arguments =
        ["pitr-restore", "--plan", "--target", "immediate", "--pgdata", target.to_str().unwrap(), "--tablespace-map", &map];
    ends(&site(&world), &arguments, 0, MANIFEST_MIB, "the largest facts");
}

/// Objects that are read whole say how long they are before anything is decompressed.
#[test]
fn small_objects_that_unfold_are_damaged() {
    let world = World::new();
    let digest = Digest::of(&mut std::io::Read::take(std::io::repeat(b' '), 1 << 28)).unwrap();
    let binding = world.place.path().join("repository/clusters/main/bindings/00000001");
    fs::remove_file(&binding).unwrap();
    let open = || Box::new(std::io::Read::take(std::io::repeat(b' '), 1 << 28)) as Box<dyn std::io::Read>;
    let name = ObjectName::parse("clusters/main/bindings/00000001").unwrap();
    world.repository.put(&name, &Content::known(digest, open)).unwrap();
    println!("{} bytes stored for {}", fs::metadata(&binding).unwrap().len(), digest.bytes);
    ends(&site(&world), &["catalog"], 14, SMALL_MIB, "a binding of 256 MiB");

    let world = World::new();
    // Timelines ascend without end: 100,000 lines.
    let history: String = (1..100_000).map(|timeline| format!("{timeline} 0/1\n")).collect();
    let name = format!("clusters/main/{}/wal/history/FFFFFFFE.history", facts().system_id);
    let open = || Box::new(Cursor::new(history.as_bytes())) as Box<dyn std::io::Read>;
    let digest = Digest::of(&mut history.as_bytes()).unwrap();
    let content = Content::known(digest, open);
    world.repository.put(&ObjectName::parse(&name).unwrap(), &content).unwrap();
    ends(&site(&world), &["catalog"], 0, SMALL_MIB, "a history of 100,000 timelines");
}

fn key_object(site: &Site) -> KeyObject {
    let keys = files_below(&site.repository().join("keys"));
    KeyObject::parse(&fs::read(&keys[0]).unwrap()).unwrap()
}

fn put_key(site: &Site, object: &KeyObject) {
    let directory = site.repository().join(format!("keys/{}", object.key_id));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("{}.json", object.wrapping_key_id)), object.encode()).unwrap();
}

/// Whoever may add objects to the bucket neither stops archiving nor makes it take memory.
#[test]
fn bogus_key_objects_stop_no_push() {
    let mut with_passphrase = Site::without_repository();
    with_passphrase.unset("WALVIS_KEY_FILE");
    with_passphrase.set("WALVIS_PASSPHRASE", "correct horse battery staple");
    with_passphrase.init();
    for (site, bound_mib) in [(Site::new(), SMALL_MIB), (with_passphrase, 64 + u64::from(MAX_ARGON2_MEMORY_KIB) / 1024)] {
        site.become_cluster(segment::SYSTEM_ID, MIB);
        let genuine = key_object(&site);
        // The genuine one was there first.
        for (number, memory_kib, passes) in
            [(1, 1024 * 1024, 64), (2, MAX_ARGON2_MEMORY_KIB, MAX_ARGON2_WORK_KIB / MAX_ARGON2_MEMORY_KIB)]
        {
            // Of a salt that nobody derived from before: the kernel would have the key.
            let salt = fastrand::u128(..).to_le_bytes();
            let argon2id = Argon2id { salt, memory_kib, passes, lanes: MAX_ARGON2_LANES };
            assert!(passes <= MAX_ARGON2_PASSES || !argon2id.is_bearable());
            let id = KeyId([number; 16]);
            let mut bogus = KeyObject { key_id: id, generation: u64::MAX, ..genuine.clone() };
            if genuine.argon2id.is_some() {
                (bogus.argon2id, bogus.wrapping_key_id) = (Some(argon2id), id);
            }
            put_key(&site, &bogus);
        }
        let garbage = site.repository().join(format!("keys/{}", KeyId([3; 16])));
        fs::create_dir_all(&garbage).unwrap();
        fs::write(garbage.join(format!("{}.json", genuine.wrapping_key_id)), vec![b'['; 2 * MIB]).unwrap();
        make_unreadable(&garbage.join(format!("{}.json", KeyId([4; 16]))));
        let name = site.make(&Segment::new(1));
        ends(&site, &["push-wal", &format!("pg_wal/{name}")], 0, bound_mib, "bogus key objects");
    }
}

fn make_unreadable(path: &Path) {
    fs::write(path, "{}").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
}

/// A segment that says that it is longer than segments are: not a byte of it comes to the disk of the server.
#[test]
fn a_segment_that_unfolds_fills_no_disk() {
    let site = Site::new();
    let name = site.make(&Segment::new(1));
    site.push(&name).exits(0);
    let key = KeyFile::parse(&fs::read_to_string(site.path("key")).unwrap()).unwrap();
    let settings = StoreSettings { url: StoreUrl::File(site.repository()), create_if_absent: None, known: None };
    let repository = Repository::open(&settings, &Secret::Key(key), 1, Deadline::after(Duration::from_secs(60))).unwrap();
    let object = site.object(&name);
    let stored = ObjectName::parse(object.strip_prefix(site.repository()).unwrap().to_str().unwrap()).unwrap();
    fs::remove_file(&object).unwrap();
    let open = || Box::new(std::io::Read::take(std::io::repeat(0), 1 << 28)) as Box<dyn std::io::Read>;
    let digest = Digest::of(&mut open()).unwrap();
    repository.put(&stored, &Content::known(digest, open)).unwrap();
    let ran = site.run(["fetch-wal", &name, DESTINATION]).exits(200);
    assert!(ran.stderr.contains("says that it holds 268435456 bytes"), "{ran:?}");
    assert!(!site.destination().exists());
}

/// Somebody added a binding that nobody can open. The server knows which cluster it is.
#[test]
fn a_bogus_binding_stops_neither_push_nor_fetch() {
    let site = Site::new();
    let first = site.make(&Segment::new(1));
    site.push(&first).exits(0);
    let bindings = site.repository().join("clusters/main/bindings");
    let genuine = fs::read(bindings.join("00000001")).unwrap();
    for (number, (name, bytes)) in (2..).zip([("00000002", &genuine), ("00000007", &genuine), ("00000002", &vec![0; 1000])]) {
        fs::write(bindings.join(name), bytes).unwrap();
        let next = site.make(&Segment::new(number));
        site.push(&next).exits(0);
        site.fetches(&first);
        // Who knows nothing cannot tell which one counts.
        site.run(["catalog"]).exits(14);
        fs::remove_file(bindings.join(name)).unwrap();
    }
    site.run(["catalog"]).exits(0);
}
