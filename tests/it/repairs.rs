//! Good copies beside damaged objects: every reader takes them, none takes what is no copy of the object, and without
//! one the damage is named as before.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvis::codec::pack::RecordKind;
use walvis::crypto::WrappingKey;
use walvis::deadline::Deadline;
use walvis::error::{Error, Kind};
use walvis::format::extent::{BackupId, Extent, PackId, RecordLocation, StoredExtent};
use walvis::format::manifest::{BackupFacts, BackupSummary, Content as FileContent, FileEntry, Item, ManifestWriter};
use walvis::limits::EXTENT_BYTES;
use walvis::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::backups::{PackReader, PackTarget, with_packs};
use walvis::repo::{
    ClusterName, Content, Facts, Fetched, ObjectName, Repository, Secret, StoreSettings, StoreUrl, Stored, SystemId,
};
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, ReadRange, Store};

use crate::support::backup::made_up;
use crate::support::command::files_below;

mod made;

const SYSTEM: SystemId = SystemId(7);
const SEGMENT_BYTES: u64 = 1 << 20;

struct World {
    memory: Arc<MemoryStore>,
    repository: Repository,
    secret: Arc<Secret>,
    cluster: ClusterName,
    facts: Facts,
}

/// Bytes that do not get shorter.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A segment of which most is empty: four frames.
fn plain_segment(seed: u8) -> Vec<u8> {
    let mut bytes = noise(seed, 200_000);
    bytes.resize(SEGMENT_BYTES as usize, 0);
    bytes
}

impl World {
    fn new(encrypted: bool) -> Self {
        Self::of_system(encrypted, SYSTEM)
    }

    fn of_system(encrypted: bool, system_id: SystemId) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("repository");
        let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
        let secret = if encrypted { Secret::Key(WrappingKey::generate().unwrap().into()) } else { Secret::None };
        Repository::init(&settings, &secret, 1, Deadline::after(Duration::from_secs(60))).unwrap();
        let memory = Arc::new(MemoryStore::new());
        for file in files_below(&root) {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let body = Bytes::from(std::fs::read(&file).unwrap());
            let _ = memory.create(&Key::new(name).unwrap(), body, &ContentId([0; 16])).unwrap();
        }
        let repository = Repository::over(Arc::clone(&memory) as Arc<dyn Store>, &secret, 1).unwrap();
        let cluster = ClusterName::new("main").unwrap();
        let wal_segment_size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
        let facts = Facts { system_id, wal_segment_size, postgres_major: Some(17) };
        repository.bind(&cluster, facts).unwrap();
        Self { memory, repository, secret: Arc::new(secret), cluster, facts }
    }

    /// A copy of the repository, object for object.
    fn copy(&self) -> Self {
        let memory = Arc::new(MemoryStore::new());
        for (name, bytes) in self.all() {
            let _ = memory.create(&Key::new(name).unwrap(), bytes.into(), &ContentId([0; 16])).unwrap();
        }
        let repository = Repository::over(Arc::clone(&memory) as Arc<dyn Store>, &self.secret, 1).unwrap();
        Self { memory, repository, secret: Arc::clone(&self.secret), cluster: self.cluster.clone(), facts: self.facts }
    }

    /// All objects.
    fn all(&self) -> BTreeMap<String, Vec<u8>> {
        let mut names = Vec::new();
        self.memory
            .list("", "", &mut |entry| {
                names.push(entry.key);
                ControlFlow::Continue(())
            })
            .unwrap();
        names
            .into_iter()
            .map(|key| {
                let mut bytes = Vec::new();
                self.memory.read(&key, ReadRange::All).unwrap().body.read_to_end(&mut bytes).unwrap();
                (key.to_string(), bytes)
            })
            .collect()
    }

    /// The same repository, nothing of it remembered.
    fn again(&self) -> Repository {
        Repository::over(Arc::clone(&self.memory) as Arc<dyn Store>, &self.secret, 1).unwrap()
    }

    fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.memory.read(&name.key().unwrap(), ReadRange::All).unwrap().body.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn set(&self, name: &ObjectName, bytes: &[u8]) {
        self.remove(name);
        let body = Bytes::copy_from_slice(bytes);
        let _ = self.memory.create(&name.key().unwrap(), body, &ContentId([0; 16])).unwrap();
    }

    fn remove(&self, name: &ObjectName) {
        self.memory.delete(&name.key().unwrap()).unwrap();
    }

    fn wal(&self, file: WalFileName) -> ObjectName {
        ObjectName::wal(&self.cluster, self.facts.system_id, file)
    }

    fn push(&self, file: &WalFileName, plain: &[u8]) -> Result<Stored, Error> {
        self.again().put_wal(&self.cluster, self.facts.system_id, file, &Content::of_bytes(plain)).map(|kept| kept.stored)
    }

    fn fetch(&self, file: &WalFileName) -> Result<Option<Vec<u8>>, Error> {
        let mut sink = Vec::new();
        match self.again().get_wal(&self.cluster, self.facts, file, &mut sink)? {
            Fetched::Served(_) => Ok(Some(sink)),
            Fetched::Absent | Fetched::Missing { .. } => Ok(None),
        }
    }
}

fn segment(number: u64) -> WalFileName {
    let size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
    WalFileName::Segment(SegmentName::from_number(Timeline(1), number, size).unwrap())
}

fn repair(number: u32, of: &ObjectName) -> ObjectName {
    ObjectName::Repair { number, of: Box::new(of.clone()) }
}

/// Ways to damage an object: in each part of it, cut off, nothing left, and something that is no object at all.
fn damages(good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let flips = [0, 8, 10, 11, 12, 16, 40, 64, 70, good.len() / 2, good.len() - 1];
    let flipped = flips.iter().map(|at| {
        let mut bytes = good.to_vec();
        bytes[*at] ^= 1;
        (format!("byte {at} flipped"), bytes)
    });
    let cuts = [0, 1, 67, 68, 100, good.len() / 2, good.len() - 1];
    let cut = cuts.iter().map(|at| (format!("cut at {at}"), good[..*at].to_vec()));
    flipped.chain(cut).chain([("other bytes".to_owned(), noise(9, good.len()))]).collect()
}

#[track_caller]
fn is_damaged<T: std::fmt::Debug>(result: Result<T, Error>, how: &str) {
    let error = result.expect_err(how);
    assert!(matches!(error.kind, Kind::Damaged | Kind::Denied), "{how}: {error:?}");
    assert!(error.hint.is_some(), "{how}: {error:?}");
}

#[test]
fn a_damaged_segment_is_read_from_its_good_copy() {
    for encrypted in [true, false] {
        let world = World::new(encrypted);
        let (file, plain) = (segment(1), plain_segment(1));
        assert_eq!(world.push(&file, &plain).unwrap(), Stored::New);
        let name = world.wal(file);
        let good = world.bytes(&name);
        for (how, bytes) in damages(&good) {
            world.set(&name, &bytes);
            is_damaged(world.fetch(&file), &how);
            world.set(&repair(1, &name), &good);
            assert_eq!(world.fetch(&file).unwrap().unwrap(), plain, "{how}");
            let metadata = world.again().wal_metadata(&world.cluster, SYSTEM, &file).unwrap().unwrap();
            assert_eq!(metadata.plaintext_bytes, SEGMENT_BYTES, "{how}");
            // Archiving goes on: the server pushes it again, and it is there.
            assert_eq!(world.push(&file, &plain).unwrap(), Stored::Same, "{how}");
            assert_eq!(world.push(&file, &plain_segment(2)).unwrap_err().kind, Kind::Conflict, "{how}");
            // The newest copy that is good counts.
            world.set(&repair(2, &name), &bytes);
            assert_eq!(world.fetch(&file).unwrap().unwrap(), plain, "{how}");
            world.set(&repair(1, &name), &bytes);
            is_damaged(world.fetch(&file), &how);
            world.set(&repair(2, &name), &good);
            assert_eq!(world.fetch(&file).unwrap().unwrap(), plain, "{how}");
            world.remove(&repair(2, &name));
            world.remove(&repair(1, &name));
        }
    }
}

#[test]
fn what_is_no_copy_of_the_object_is_not_read() {
    for encrypted in [true, false] {
        let world = World::new(encrypted);
        let (file, other) = (segment(1), segment(2));
        let (plain, third) = (plain_segment(1), plain_segment(3));
        for (file, plain) in [(&file, &plain), (&other, &third)] {
            world.push(file, plain).unwrap();
        }
        let name = world.wal(file);
        let good = world.bytes(&name);
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        world.set(&name, &bad);
        // Another object, genuine under its own name.
        world.set(&repair(1, &name), &world.bytes(&world.wal(other)));
        is_damaged(world.fetch(&file), "another segment");
        // Genuine, sealed as a copy of this one, of other content than what the object says of itself: not even where
        // nothing was handed on yet.
        world.remove(&repair(1, &name));
        let _ = world.repository.sealer().create(&repair(1, &name), &Content::of_bytes(&third)).unwrap();
        is_damaged(world.fetch(&file), "other content");
        // The same content, sealed anew: in the middle of the object too.
        world.remove(&repair(1, &name));
        let _ = world.repository.sealer().create(&repair(1, &name), &Content::of_bytes(&plain)).unwrap();
        assert_ne!(world.bytes(&repair(1, &name)), good);
        assert_eq!(world.fetch(&file).unwrap().unwrap(), plain);
        // A copy of another repository of the same name.
        let stranger = World::new(encrypted);
        stranger.push(&file, &plain).unwrap();
        world.set(&repair(1, &name), &stranger.bytes(&name));
        is_damaged(world.fetch(&file), "of another repository");
    }
}

#[test]
fn a_segment_that_is_gone_is_read_from_its_copy_where_a_later_one_proves_that_it_was_there() {
    let world = World::new(true);
    let plain = plain_segment(1);
    world.push(&segment(1), &plain).unwrap();
    let name = world.wal(segment(1));
    world.set(&repair(1, &name), &world.bytes(&name));
    world.remove(&name);
    assert_eq!(world.fetch(&segment(1)).unwrap(), None, "the end of the log costs no request more");
    world.push(&segment(2), &plain_segment(2)).unwrap();
    assert_eq!(world.fetch(&segment(1)).unwrap().unwrap(), plain);
}

#[test]
fn histories_and_bindings_are_read_from_their_copies() {
    let world = World::new(true);
    let history = WalFileName::History(Timeline(2));
    let text = b"1\t0/300000\tno recovery target specified\n";
    world.push(&history, text).unwrap();
    let binding = ObjectName::Binding { cluster: world.cluster.clone(), generation: 1 };
    for name in [world.wal(history), binding] {
        let good = world.bytes(&name);
        let read = || {
            let again = world.again();
            let history = again.history(&world.cluster, SYSTEM, Timeline(2))?;
            assert_eq!(history.unwrap().ancestors.len(), 1);
            again.bindings(&world.cluster)
        };
        for (how, bytes) in damages(&good) {
            world.set(&name, &bytes);
            is_damaged(read(), &how);
            world.set(&repair(1, &name), &good);
            assert_eq!(read().unwrap()[0].facts, world.facts, "{how}");
            world.remove(&repair(1, &name));
        }
        world.set(&name, &good);
    }
}

/// Stores extents of this seed in one pack; the places of its records.
fn pack(world: &World, id: BackupId) -> (ObjectName, Vec<RecordLocation>) {
    let target = PackTarget {
        repository: &world.repository,
        cluster: &world.cluster,
        system_id: world.facts.system_id,
        backup: id,
        level: 1,
        uploaders: 1,
        pack_bytes: 1 << 24,
    };
    let (places, _) = with_packs(&target, |writers| {
        let mut writer = writers.writer()?;
        let places: Result<Vec<_>, Error> =
            (0..4).map(|seed| writer.append(RecordKind::Extent, &noise(seed, EXTENT_BYTES))).collect();
        writer.finish()?;
        places
    })
    .unwrap();
    let pack = PackId { backup: id, number: 0 };
    (ObjectName::Pack { cluster: world.cluster.clone(), system_id: world.facts.system_id, pack }, places)
}

#[test]
fn a_damaged_pack_is_read_from_its_good_copy() {
    for encrypted in [true, false] {
        let world = World::new(encrypted);
        let (name, places) = pack(&world, BackupId::new(1_795_241_700, 7).unwrap());
        let good = world.bytes(&name);
        let read = || {
            let again = world.again();
            let reader = PackReader::new(&again, &world.cluster, SYSTEM);
            for (seed, place) in (0..).zip(&places) {
                let (mut sealed, mut out) = (reader.range(place.pack, place.offset.into(), place.end())?, Vec::new());
                reader.open(RecordKind::Extent, place, &mut sealed, Some(EXTENT_BYTES), &mut out)?;
                assert_eq!(out, noise(seed, EXTENT_BYTES));
            }
            reader.contents(PackId { number: 0, ..places[0].pack })
        };
        for (how, bytes) in damages(&good) {
            world.set(&name, &bytes);
            is_damaged(read(), &how);
            world.set(&repair(1, &name), &good);
            assert_eq!(read().unwrap().len(), places.len(), "{how}");
            // Each has what the other has not.
            let mut other = good.clone();
            other[good.len() / 4] ^= 1;
            world.set(&repair(1, &name), &other);
            let both = read();
            if how == format!("byte {} flipped", good.len() / 2) {
                assert_eq!(both.unwrap().len(), places.len());
            }
            world.remove(&repair(1, &name));
        }
        world.remove(&name);
        let reader = |world: &World| {
            let again = world.again();
            let reader = PackReader::new(&again, &world.cluster, SYSTEM);
            reader.range(places[0].pack, 0, 100).map(|bytes| bytes.len())
        };
        is_damaged(reader(&world), "gone");
        world.set(&repair(1, &name), &good);
        assert_eq!(reader(&world).unwrap(), 100);
    }
}

#[test]
fn a_damaged_manifest_is_read_from_its_good_copy_each_item_once() {
    let world = World::new(true);
    let id = BackupId::new(1_795_241_700, 7).unwrap();
    let mut writer = ManifestWriter::new(Vec::new());
    // So many that it has several frames.
    let files = 30_000_u32;
    let place = RecordLocation { pack: PackId { backup: id, number: 0 }, offset: 0, sealed_bytes: 100 };
    for number in 0..files {
        let hash = noise(number as u8, 20)[..16].try_into().unwrap();
        let stored = Some(StoredExtent { hash, place });
        let file = FileEntry {
            path: format!("{number:08}").into_bytes(),
            size_bytes: 10,
            mode: 0o600,
            owner: "postgres".to_owned(),
            group: "postgres".to_owned(),
            modified_unix_us: number.into(),
            crc32c: number.wrapping_mul(2_654_435_761),
            content: FileContent::Extents(vec![Extent { crc32c: number, stored }]),
        };
        writer.add(&Item::File(file), &[]).unwrap();
    }
    let facts = BackupFacts { hash_key: "11".repeat(32), ..empty_facts() };
    let (body, head) = writer.finish(&facts, |_| Some(1 << 24)).unwrap();
    let whole = [head, body].concat();
    let open = || Box::new(std::io::Cursor::new(whole.clone())) as Box<dyn Read>;
    world.repository.put_manifest(&world.cluster, SYSTEM, &summary(id), open).unwrap();

    let name = ObjectName::Manifest { cluster: world.cluster.clone(), system_id: SYSTEM, backup: id };
    let good = world.bytes(&name);
    assert!(good.len() > 3 * 65_552, "{}", good.len());
    let read = || {
        let mut paths = 0;
        let read = world.again().read_manifest(&world.cluster, SYSTEM, id, &mut |_, item| {
            let Item::File(file) = item else { panic!("{item:?}") };
            assert_eq!(file.path, format!("{paths:08}").into_bytes());
            paths += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        assert_eq!((read.unwrap().0, paths), (summary(id), files));
        Ok(())
    };
    read().unwrap();
    for (how, bytes) in damages(&good) {
        world.set(&name, &bytes);
        is_damaged(read(), &how);
        world.set(&repair(1, &name), &good);
        read().unwrap();
        let listed = world.again().backups(&world.cluster, SYSTEM).unwrap();
        assert_eq!(listed[0].1.as_ref().unwrap(), &summary(id), "{how}");
        world.remove(&repair(1, &name));
    }
}

fn empty_facts() -> BackupFacts {
    BackupFacts {
        attachments: vec![],
        hash_key: String::new(),
        databases: vec![],
        tablespaces: vec![],
        annotations: BTreeMap::new(),
        damage: vec![],
        warnings: vec![],
        verified_up_to: 0,
    }
}

fn summary(id: BackupId) -> BackupSummary {
    BackupSummary { wal_segment_bytes: SEGMENT_BYTES, ..made_up(id, SYSTEM) }
}
