//! Stored bytes, attacked: whatever is flipped, cut, added or swapped, nothing wrong is served, nothing is called
//! absent, and nobody is told that a damaged object is stored.

use std::fs;
use std::path::Path;
use std::time::Duration;

use walvis::config::DEFAULT_COMPRESSION_LEVEL;
use walvis::crypto::KeyFile;
use walvis::deadline::Deadline;
use walvis::error::Kind;
use walvis::limits::MIB;
use walvis::pg::WalFileName;
use walvis::repo::{ClusterName, Facts, Fetched, Repository, Secret, StoreSettings, StoreUrl};

use crate::support::command::{Site, files_below};
use crate::support::segment::{self, Content, Segment};

const HEADER_BYTES: usize = 68;
const FRAME_BYTES: usize = 64 * 1024 + 16;

/// The library's view of a site's repository.
struct Inside {
    repository: Repository,
    cluster: ClusterName,
    facts: Facts,
}

impl Inside {
    fn open(site: &Site) -> Self {
        let settings = StoreSettings { url: StoreUrl::File(site.repository()), create_if_absent: None, known: None };
        let descriptor = fs::read_to_string(site.repository().join("walvis.json")).unwrap();
        let secret = if descriptor.contains("\"none\"") {
            Secret::None
        } else {
            Secret::Key(KeyFile::parse(&fs::read_to_string(site.path("key")).unwrap()).unwrap())
        };
        let deadline = Deadline::after(Duration::from_secs(600));
        let repository = Repository::open(&settings, &secret, DEFAULT_COMPRESSION_LEVEL, deadline).unwrap();
        let cluster = ClusterName::new("main").unwrap();
        let facts = repository.bindings(&cluster).unwrap().last().unwrap().facts;
        Self { repository, cluster, facts }
    }

    /// Fetches a file that must be found damaged, never served and never absent.
    #[track_caller]
    fn is_damaged(&self, name: &str, how: &str) {
        let file = WalFileName::parse(name).unwrap();
        match self.repository.get_wal(&self.cluster, self.facts, &file, &mut std::io::sink()) {
            Err(e) => assert!(matches!(e.kind, Kind::Damaged | Kind::Denied), "{how}: {e}"),
            Ok(Fetched::Served(_)) => panic!("{how}: it was served"),
            Ok(Fetched::Absent | Fetched::Missing { .. }) => panic!("{how}: it was called absent"),
        }
        // A bounded read of the front must not call it stored under other facts either.
        match self.repository.wal_metadata(&self.cluster, self.facts.system_id, &file) {
            Ok(Some(metadata)) => assert!(metadata.plaintext_bytes <= MIB as u64, "{how}"),
            Ok(None) => panic!("{how}: it was called absent"),
            Err(e) => assert!(matches!(e.kind, Kind::Damaged | Kind::Denied), "{how}: {e}"),
        }
    }
}

fn both_ciphers() -> [Site; 2] {
    [Site::new(), Site::unencrypted()]
}

/// Offsets at which something else lies: every header field, metadata, its tag, first, middle and last frame and their
/// tags.
fn places(object: &[u8]) -> Vec<usize> {
    let metadata = u32::from_le_bytes(object[64..68].try_into().unwrap()) as usize;
    let frames = HEADER_BYTES + metadata + 16;
    let mut places: Vec<usize> = (0..frames).collect();
    let mut at = frames;
    while at < object.len() {
        let end = (at + FRAME_BYTES).min(object.len());
        places.extend(
            [at, at + 1, usize::midpoint(at, end), end - 17, end - 16, end - 1].into_iter().filter(|p| *p < object.len()),
        );
        at = end;
    }
    places.sort_unstable();
    places.dedup();
    places
}

#[test]
fn every_flipped_bit_is_found() {
    for site in both_ciphers() {
        let name = site.make(&Segment::new(1));
        site.push(&name).exits(0);
        let inside = Inside::open(&site);
        let object = site.object(&name);
        let good = fs::read(&object).unwrap();
        assert!(good.len() > 3 * FRAME_BYTES, "it has several frames");
        let mut bytes = good.clone();
        for at in places(&good) {
            let bit = 1 << (at % 8);
            bytes[at] ^= bit;
            fs::write(&object, &bytes).unwrap();
            inside.is_damaged(&name, &format!("byte {at} of {}", good.len()));
            bytes[at] ^= bit;
        }
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..2000 {
            let flips: Vec<usize> = (0..random.usize(1..4)).map(|_| random.usize(..good.len())).collect();
            for at in &flips {
                bytes[*at] ^= random.u8(1..);
            }
            if bytes != good {
                fs::write(&object, &bytes).unwrap();
                inside.is_damaged(&name, &format!("round {round}, bytes {flips:?}"));
            }
            bytes.copy_from_slice(&good);
        }
        fs::write(&object, &good).unwrap();
        site.fetches(&name);
    }
}

#[test]
fn every_cut_and_addition_is_found() {
    for site in both_ciphers() {
        let name = site.make(&Segment::new(1));
        site.push(&name).exits(0);
        let inside = Inside::open(&site);
        let object = site.object(&name);
        let good = fs::read(&object).unwrap();
        for len in places(&good) {
            fs::write(&object, &good[..len]).unwrap();
            inside.is_damaged(&name, &format!("cut to {len} of {}", good.len()));
        }
        let frame = good[good.len() - 100_000..].to_vec();
        for more in [vec![0], vec![0; 16], vec![0; 65_552], good.clone(), frame] {
            fs::write(&object, [good.clone(), more.clone()].concat()).unwrap();
            inside.is_damaged(&name, &format!("{} bytes more", more.len()));
        }
        // Frames left out, repeated, exchanged.
        let metadata = u32::from_le_bytes(good[64..68].try_into().unwrap()) as usize;
        let first = HEADER_BYTES + metadata + 16;
        let frame = |n: usize| first + n * FRAME_BYTES..first + (n + 1) * FRAME_BYTES;
        let without = [&good[..first], &good[frame(1).start..]].concat();
        let twice = [&good[..frame(1).start], &good[frame(0)], &good[frame(1).start..]].concat();
        let exchanged = [&good[..first], &good[frame(1)], &good[frame(0)], &good[frame(2).start..]].concat();
        for (how, bytes) in [("left out", without), ("repeated", twice), ("exchanged", exchanged)] {
            fs::write(&object, bytes).unwrap();
            inside.is_damaged(&name, how);
        }
        fs::write(&object, &good).unwrap();
        site.fetches(&name);
    }
}

/// A fetch of what is damaged, and a push of it, by the program.
#[track_caller]
fn refuses(site: &Site, name: &str) {
    site.fetch_fails(name, 200).tells_the_way_out();
    let ran = site.push(name);
    assert!(matches!(ran.code(), 12 | 14), "{name}: {ran:?}");
}

#[test]
fn the_program_serves_and_accepts_nothing_damaged() {
    for site in both_ciphers() {
        let name = site.make(&Segment::new(1));
        site.push(&name).exits(0);
        let object = site.object(&name);
        let good = fs::read(&object).unwrap();
        let middle = good.len() / 2;
        for at in [0, 8, 10, 11, 12, 20, 40, 64, 70, 150, middle, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            fs::write(&object, bytes).unwrap();
            refuses(&site, &name);
        }
        for len in [0, 1, 67, 100, middle, good.len() - 1] {
            fs::write(&object, &good[..len]).unwrap();
            refuses(&site, &name);
        }
        fs::write(&object, [good.as_slice(), b"x"].concat()).unwrap();
        refuses(&site, &name);
        fs::write(&object, &good).unwrap();
        site.push(&name).exits(0);
        site.fetches(&name);
    }
}

#[test]
fn objects_do_not_stand_in_for_each_other() {
    for site in both_ciphers() {
        let segment = Segment::new(1);
        let (one, two, partial) = (segment.name(), Segment::new(2).name(), format!("{}.partial", segment.name()));
        let (backup, text) = segment::backup(&segment);
        for (name, bytes) in [
            (&one, segment.bytes()),
            (&two, Segment::new(2).bytes()),
            (&partial, segment.bytes()),
            (&backup, text.into()),
            (&"00000002.history".to_owned(), segment::history(&[(1, 0x300000)]).into()),
            (&"00000003.history".to_owned(), segment::history(&[(1, 0x300000)]).into()),
        ] {
            site.write(name, bytes);
            site.push(name).exits(0);
        }
        let objects =
            [&one, &two, &partial, &backup, "00000002.history", "00000003.history"].map(|n: &str| (n.to_owned(), site.object(n)));
        let contents: Vec<Vec<u8>> = objects.iter().map(|(_, path)| fs::read(path).unwrap()).collect();
        for (n, (name, path)) in objects.iter().enumerate() {
            for (m, other) in contents.iter().enumerate().filter(|(m, _)| *m != n) {
                fs::write(path, other).unwrap();
                site.fetch_fails(name, 200).says(&["damaged"]);
                // Recovery never asks for these two: they are kept beside what is damaged, and archiving goes on.
                let is_kept_beside = [&partial, &backup].contains(&name);
                site.push(name).exits(if is_kept_beside { 0 } else { 14 });
                let _ = m;
            }
            fs::write(path, &contents[n]).unwrap();
            site.fetches(name);
        }
    }
}

#[test]
fn another_repositorys_objects_are_not_ours() {
    for (ours, theirs) in
        [(Site::new(), Site::new()), (Site::unencrypted(), Site::unencrypted()), (Site::new(), Site::unencrypted())]
    {
        ours.archive(&[1]);
        theirs.archive(&[1]);
        let name = Segment::new(1).name();
        let (object, good) = (ours.object(&name), fs::read(ours.object(&name)).unwrap());
        fs::copy(theirs.object(&name), &object).unwrap();
        refuses(&ours, &name);
        fs::write(&object, good).unwrap();
        ours.fetches(&name);
    }
    // The same key for both: still other data keys, and another repository id.
    let ours = Site::new();
    let mut theirs = ours.twin();
    theirs.set("WALVIS_REPOSITORY", format!("file://{}", theirs.repository().display()));
    theirs.init_sharing_the_key();
    ours.archive(&[1]);
    theirs.archive(&[1]);
    let name = Segment::new(1).name();
    fs::copy(theirs.object(&name), ours.object(&name)).unwrap();
    for file in files_below(&theirs.repository().join("keys")) {
        // Even with their keys smuggled in.
        let place = ours.repository().join(file.strip_prefix(theirs.repository()).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&file, place).unwrap();
    }
    refuses(&ours, &name);
}

/// Does this to a file, expects that nothing works, and puts it back.
#[track_caller]
fn breaks(site: &Site, path: &Path, how: impl FnOnce(&Path)) {
    let good = fs::read(path).unwrap();
    how(path);
    let (there, absent) = (Segment::new(1).name(), Segment::new(2).name());
    site.fetch_fails(&there, 200).tells_the_way_out();
    site.fetch_fails(&absent, 200).tells_the_way_out();
    let ran = site.push(&there);
    assert!((10..=16).contains(&ran.code()), "{ran:?}");
    let _ = fs::remove_dir(path);
    fs::write(path, good).unwrap();
    site.fetches(&there);
    site.fetch_fails(&absent, 1);
}

#[test]
fn descriptor_keys_and_binding_are_guarded_too() {
    for site in both_ciphers() {
        site.archive(&[1]);
        let other = if site.repository().join("keys").exists() { Site::new() } else { Site::unencrypted() };
        other.archive(&[1]);
        let is_sole = |path: &&std::path::PathBuf| {
            path.to_str().is_some_and(|p| p.contains("/keys/") || p.contains("/bindings/") || p.ends_with("walvis.json"))
        };
        let theirs: Vec<_> = files_below(&other.repository()).into_iter().filter(|p| is_sole(&p)).collect();
        let ours: Vec<_> = files_below(&site.repository()).into_iter().filter(|p| is_sole(&p)).collect();
        assert_eq!(ours.len(), theirs.len());
        for path in &ours {
            let len = fs::read(path).unwrap().len();
            for at in (0..len).step_by(23) {
                breaks(&site, path, |path| {
                    let mut bytes = fs::read(path).unwrap();
                    bytes[at] ^= 1;
                    fs::write(path, bytes).unwrap();
                });
            }
            for keep in [0, 1, len / 2, len - 2] {
                breaks(&site, path, |path| fs::write(path, &fs::read(path).unwrap()[..keep]).unwrap());
            }
            breaks(&site, path, |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            });
            // Another repository's object of the same kind.
            let of_same_kind = |p: &&std::path::PathBuf| {
                ["/keys/", "/bindings/", "walvis.json"].iter().any(|k| [path, *p].iter().all(|p| p.to_str().unwrap().contains(k)))
            };
            let foreign = theirs.iter().find(of_same_kind).unwrap();
            breaks(&site, path, |path| {
                fs::copy(foreign, path).unwrap();
            });
        }
        // Removed. Without its binding a cluster is unknown, and a push would bind it again, which is no damage.
        for path in ours.iter().filter(|p| !p.to_str().unwrap().contains("/bindings/")) {
            breaks(&site, path, |path| fs::remove_file(path).unwrap());
        }
        let binding = ours.iter().find(|p| p.to_str().unwrap().contains("/bindings/")).unwrap();
        fs::remove_file(binding).unwrap();
        site.fetch_fails(&Segment::new(1).name(), 200);
        site.push(&Segment::new(1).name()).exits(0);
        site.fetches(&Segment::new(1).name());
    }
}

#[test]
fn an_unencrypted_repository_does_not_pass_for_an_encrypted_one() {
    let site = Site::new();
    site.archive(&[1]);
    let plain = Site::unencrypted();
    plain.archive(&[1]);
    fs::rename(site.repository(), site.path("away")).unwrap();
    fs::rename(plain.repository(), site.repository()).unwrap();
    let name = Segment::new(1).name();
    site.fetch_fails(&name, 200).says(&["not encrypted", "refused"]);
    site.push(&name).exits(16).tells_the_way_out().says(&["not encrypted"]);
    site.run(["init"]).exits(16);
}

/// Its descriptor is lost, its data is not: to make a new one there would lock the data away.
#[test]
fn a_repository_is_not_made_over_another_ones_data() {
    for site in both_ciphers() {
        site.archive(&[1]);
        let descriptor = site.repository().join("walvis.json");
        let good = fs::read(&descriptor).unwrap();
        fs::remove_file(&descriptor).unwrap();
        let init = if site.repository().join("keys").exists() { vec!["init"] } else { vec!["init", "--unencrypted"] };
        site.run(init).exits(16).tells_the_way_out().says(&["walvis.json", "clusters/"]);
        assert!(!descriptor.exists());
        fs::write(&descriptor, good).unwrap();
        site.fetches(&Segment::new(1).name());
    }
}

#[test]
fn a_damaged_large_object_is_found_before_a_new_one_is_sent() {
    let site = Site::new();
    site.become_cluster(segment::SYSTEM_ID, 16 * MIB);
    let segment = Segment::new(1).sized(16 * MIB).holding(Content::Noise(1));
    let name = segment.name();
    segment.write_sparse(&site.wal(&name), 16 * MIB, 9 * MIB);
    site.push(&name).exits(0);
    let object = site.object(&name);
    let mut bytes = fs::read(&object).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    fs::write(&object, &bytes).unwrap();
    refuses(&site, &name);
    assert!(fs::read(&object).unwrap() == bytes, "what is damaged stays for who wants to look at it");
}
