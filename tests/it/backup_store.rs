//! Packs and manifests in a repository: what was appended is read back, and every damage is named.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvis::codec::pack::RecordKind;
use walvis::crypto::WrappingKey;
use walvis::deadline::Deadline;
use walvis::error::{Error, Kind};
use walvis::format::extent::{BackupId, Extent, ExtentTable, PackId, RecordLocation, StoredExtent};
use walvis::format::manifest::{
    BackupFacts, BackupSummary, Content, DirectoryEntry, FileEntry, Item, ItemLists, ManifestWriter, TableRef,
};
use walvis::limits::EXTENT_BYTES;
use walvis::repo::backups::{
    ExtentReader, ManifestPart, PackReader, PackTarget, Packed, ReadBuffers, ScratchManifest, TakeExtents, WantedExtent,
    with_packs,
};
use walvis::repo::{ClusterName, Repository, Secret, StoreSettings, StoreUrl, SystemId};
use walvis::store::fault::{Effect, Fault, Op};
use walvis::store::memory::MemoryStore;
use walvis::store::retry::{Policy, Retry};
use walvis::store::{ContentId, ErrorKind, Key, ReadRange, Store};

use crate::support::backup::made_up;

const SYSTEM: SystemId = SystemId(7);

struct World {
    memory: Arc<MemoryStore>,
    store: Arc<Fault>,
    repository: Repository,
    secret: Secret,
    cluster: ClusterName,
    id: BackupId,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("repository");
        let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
        let secret = Secret::Key(WrappingKey::generate().unwrap().into());
        Repository::init(&settings, &secret, 1, Deadline::after(Duration::from_secs(60))).unwrap();
        let memory = Arc::new(MemoryStore::new());
        for file in crate::support::command::files_below(&root) {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let body = Bytes::from(std::fs::read(&file).unwrap());
            let _ = memory.create(&Key::new(name).unwrap(), body, &ContentId([0; 16])).unwrap();
        }
        let store = Arc::new(Fault::new(Arc::clone(&memory) as Arc<dyn Store>));
        let repository = Repository::over(Arc::clone(&store) as Arc<dyn Store>, &secret, 1).unwrap();
        let id = BackupId::new(1_795_241_700, 7).unwrap();
        Self { memory, store, repository, secret, cluster: ClusterName::new("main").unwrap(), id }
    }

    fn target(&self, pack_bytes: usize) -> PackTarget<'_> {
        PackTarget {
            repository: &self.repository,
            cluster: &self.cluster,
            system_id: SYSTEM,
            backup: self.id,
            level: 3,
            uploaders: 2,
            pack_bytes,
        }
    }

    fn names(&self, part: &str) -> Vec<String> {
        let mut names = Vec::new();
        self.memory
            .list("", "", &mut |entry| {
                names.extend(Some(entry.key.to_string()).filter(|name| name.contains(part)));
                ControlFlow::Continue(())
            })
            .unwrap();
        names
    }

    fn replace(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let key = Key::new(name).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut self.memory.read(&key, ReadRange::All).unwrap().body, &mut bytes).unwrap();
        change(&mut bytes);
        self.memory.delete(&key).unwrap();
        let _ = self.memory.create(&key, bytes.into(), &ContentId([0; 16])).unwrap();
    }
}

/// Differs from every other number's, and does not get shorter.
fn extent(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; EXTENT_BYTES];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

type Written = Vec<(u64, RecordLocation)>;

fn write(world: &World, workers: u64, each: u64) -> Result<(Written, Packed), Error> {
    with_packs(&world.target(300_000), |writers| {
        std::thread::scope(|scope| {
            let work = |worker: u64| {
                let mut writer = writers.writer()?;
                let mut places = Vec::new();
                for number in worker * each..(worker + 1) * each {
                    places.push((number, writer.append(RecordKind::Extent, &extent(number))?));
                }
                writer.finish()?;
                Ok(places)
            };
            let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
            let results: Result<Vec<Written>, Error> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            results.map(|places| places.concat())
        })
    })
}

#[test]
fn what_several_workers_append_is_read_back() {
    let world = World::new();
    let (written, packed) = write(&world, 3, 21).unwrap();
    assert_eq!(written.len(), 63);
    assert_eq!(packed.packs.len(), world.names("/packs/").len());
    assert!(packed.packs.len() >= 12 && packed.stored_bytes > 63 * EXTENT_BYTES as u64, "{packed:?}");
    let reader = PackReader::new(&world.repository, &world.cluster, SYSTEM);
    let mut records = 0;
    for (pack, bytes) in &packed.packs {
        let contents = reader.contents(*pack).unwrap();
        assert_eq!(contents.iter().map(|record| u64::from(record.sealed_bytes)).sum::<u64>(), *bytes);
        records += contents.len();
    }
    assert_eq!(records, 63);
    for (number, place) in written {
        let mut sealed = reader.range(place.pack, place.offset.into(), place.end()).unwrap();
        let mut out = Vec::new();
        reader.open(RecordKind::Extent, &place, &mut sealed, Some(EXTENT_BYTES), &mut out).unwrap();
        assert_eq!(out, extent(number));
    }
}

#[test]
fn a_pack_that_cannot_be_stored_fails_all_workers_and_hangs_none() {
    let world = World::new();
    world.store.add(Op::Create, "/packs/", 2, 100, Effect::Fail(ErrorKind::NoSpace));
    let error = write(&world, 3, 40).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    assert!(error.what.contains("/packs/"), "{error:?}");
}

#[test]
fn a_pack_whose_answer_was_lost_is_found_again_and_compared() {
    let world = World::new();
    world.store.add(Op::Create, "/packs/", 1, 1, Effect::LoseAnswer(ErrorKind::TimedOut));
    let retry =
        Retry::new(Arc::clone(&world.store) as Arc<dyn Store>, Policy::default(), Deadline::each(Duration::from_secs(60)));
    let repository = Repository::over(Arc::new(retry), &world.secret, 1).unwrap();
    let packed = with_packs(&PackTarget { repository: &repository, ..world.target(1 << 20) }, |writers| {
        let mut writer = writers.writer()?;
        writer.append(RecordKind::Extent, b"once")?;
        writer.finish()
    });
    assert_eq!(packed.unwrap().1.packs.len(), 1);
    // The same name again, as if two backups had one id.
    let error = write(&world, 1, 1).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "{error:?}");
}

#[test]
fn damaged_packs_are_named() {
    let world = World::new();
    let (written, _) = write(&world, 1, 4).unwrap();
    let place = written[0].1;
    let open = |world: &World| {
        let reader = PackReader::new(&world.repository, &world.cluster, SYSTEM);
        let mut sealed = reader.range(place.pack, place.offset.into(), place.end())?;
        reader.open(RecordKind::Extent, &place, &mut sealed, None, &mut Vec::new())
    };
    open(&world).unwrap();
    let name = world.names("/packs/").remove(0);
    let named = |error: Error| {
        assert_eq!(error.kind, Kind::Damaged, "{error:?}");
        assert!(error.what.contains(&name) && error.hint.is_some(), "{error:?}");
    };
    world.replace(&name, |bytes| {
        let middle = bytes.len() - 200_000;
        bytes[middle] ^= 1;
    });
    named(open(&world).unwrap_err());
    world.replace(&name, |bytes| bytes.truncate(1000));
    named(open(&world).unwrap_err());
    world.replace(&name, |bytes| bytes[0] ^= 1);
    named(open(&world).unwrap_err());
    world.memory.delete(&Key::new(name.clone()).unwrap()).unwrap();
    named(open(&world).unwrap_err());
}

fn summary(world: &World) -> BackupSummary {
    made_up(world.id, SYSTEM)
}

fn facts() -> BackupFacts {
    BackupFacts {
        attachments: vec![],
        hash_key: "11".repeat(32),
        databases: vec![],
        tablespaces: vec![],
        annotations: std::collections::BTreeMap::new(),
        damage: vec![],
        warnings: vec![],
        verified_up_to: 0,
    }
}

fn file(number: u32, pack: PackId) -> Item {
    let place = RecordLocation { pack, offset: number * 100, sealed_bytes: 100 };
    let (size_bytes, content) = if number.is_multiple_of(2) {
        let stored = Some(StoredExtent { hash: number.to_le_bytes().repeat(4).try_into().unwrap(), place });
        (10, Content::Extents(vec![Extent { crc32c: number, stored }]))
    } else {
        (1 << 20, Content::Tables(vec![TableRef { place, crc32c: number }]))
    };
    Item::File(FileEntry {
        path: format!("base/5/{number:08}").into_bytes(),
        size_bytes,
        mode: 0o600,
        owner: "postgres".to_owned(),
        group: "postgres".to_owned(),
        modified_unix_us: 5,
        crc32c: number,
        content,
    })
}

const DIRECTORIES: [&str; 2] = ["base", "base/5"];

fn directory(path: &str) -> Item {
    let (owner, group) = ("postgres".to_owned(), "postgres".to_owned());
    Item::Directory(DirectoryEntry { path: path.into(), mode: 0o700, owner, group })
}

fn put_manifest(world: &World, pack: PackId, files: u32) {
    let mut writer = ManifestWriter::new(Vec::new());
    for path in DIRECTORIES {
        writer.add(&directory(path), &[]).unwrap();
    }
    for number in 0..files {
        writer.add(&file(number, pack), &[]).unwrap();
    }
    let (body, head) = writer.finish(&facts(), |_| Some(1 << 24)).unwrap();
    let whole = [head, body].concat();
    world
        .repository
        .put_manifest(&world.cluster, SYSTEM, &summary(world), || Box::new(std::io::Cursor::new(whole.clone())))
        .unwrap();
}

#[test]
fn manifests_are_listed_and_read_as_a_stream() {
    let world = World::new();
    let pack = PackId { backup: world.id, number: 0 };
    assert!(world.repository.backups(&world.cluster, SYSTEM).unwrap().is_empty());
    put_manifest(&world, pack, 20_000);
    let listed = world.repository.backups(&world.cluster, SYSTEM).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].1.as_ref().unwrap(), &summary(&world));

    let mut number = 0;
    let mut directories = DIRECTORIES.iter();
    let (read, head) = world
        .repository
        .read_manifest(&world.cluster, SYSTEM, world.id, &mut |_, item| {
            if let Some(path) = directories.next() {
                assert_eq!(item, directory(path));
                return Ok(ControlFlow::Continue(()));
            }
            assert_eq!(item, file(number, pack));
            number += 1;
            Ok(ControlFlow::Continue(()))
        })
        .unwrap()
        .unwrap();
    assert_eq!((number, read, head.facts), (20_000, summary(&world), facts()));

    let mut seen = 0;
    let early = world.repository.read_manifest(&world.cluster, SYSTEM, world.id, &mut |_, _| {
        seen += 1;
        Ok(if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    assert_eq!((seen, early.unwrap().unwrap().0), (5, summary(&world)));
    let other = BackupId::new(1, 1).unwrap();
    assert!(world.repository.read_manifest(&world.cluster, SYSTEM, other, &mut |_, _| panic!("no item")).unwrap().is_none());
}

#[test]
fn a_scratch_copy_has_the_items_of_the_manifest_and_only_of_a_whole_one() {
    let world = World::new();
    let pack = PackId { backup: world.id, number: 0 };
    put_manifest(&world, pack, 20_000);
    let mut seen = 0;
    let copy = |id, look: &mut dyn FnMut(&ManifestPart<'_>)| {
        ScratchManifest::copy_of(&world.repository, &world.cluster, SYSTEM, id, look)
    };
    let (manifest, _, head) = copy(world.id, &mut |_| seen += 1).unwrap().unwrap();
    assert_eq!((seen, head.facts), (DIRECTORIES.len() + 20_000, facts()));
    for _ in 0..2 {
        let mut items = manifest.items().map(Result::unwrap);
        for path in DIRECTORIES {
            assert_eq!(items.next().unwrap(), directory(path));
        }
        assert!(items.eq((0..20_000).map(|number| file(number, pack))));
    }
    assert!(copy(BackupId::new(1, 1).unwrap(), &mut |_| panic!("no item")).unwrap().is_none());
    world.replace(&world.names("/backups/").remove(0), |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    assert_eq!(copy(world.id, &mut |_| {}).err().unwrap().kind, Kind::Damaged);
}

/// Stores a manifest whose items are in lists, in packs of a few lists each, and says where these are.
fn put_lists(world: &World, files: u32) -> Vec<RecordLocation> {
    let pack = PackId { backup: world.id, number: 100 };
    let items = || DIRECTORIES.into_iter().map(directory).chain((0..files).map(move |number| file(number, pack)));
    let mut contents = Vec::new();
    let (mut lists, mut writer) = (ItemLists::default(), ManifestWriter::new(Vec::new()));
    for item in items() {
        contents.extend(lists.add(&item).unwrap());
        writer.add(&item, &[]).unwrap();
    }
    contents.extend(lists.finish());
    let (places, packed) = with_packs(&world.target(50_000), |writers| {
        let mut packs = writers.writer()?;
        let stored = contents.iter().map(|list| packs.append(RecordKind::Table, list)).collect::<Result<Vec<_>, _>>()?;
        packs.finish()?;
        Ok(stored)
    })
    .unwrap();
    let total = |pack| Some(packed.packs.get(&pack).copied().unwrap_or(1 << 24));
    let whole = writer.end().unwrap().1.in_lists(&places, &facts(), total).unwrap();
    world
        .repository
        .put_manifest(&world.cluster, SYSTEM, &summary(world), || Box::new(std::io::Cursor::new(whole.clone())))
        .unwrap();
    places
}

#[test]
fn a_manifest_of_lists_is_read_like_any_other() {
    let world = World::new();
    let pack = PackId { backup: world.id, number: 100 };
    let places = put_lists(&world, 20_000);
    assert!(places.len() > 80 && world.names("/packs/").len() > 2, "{places:?}");
    let expected = || DIRECTORIES.into_iter().map(directory).chain((0..20_000).map(move |number| file(number, pack)));
    let copy = ScratchManifest::copy_of(&world.repository, &world.cluster, SYSTEM, world.id, &mut |_| {});
    let (copied, read, head) = copy.unwrap().unwrap();
    assert!(copied.items().map(Result::unwrap).eq(expected()));
    assert_eq!((read, head.facts, head.lists), (summary(&world), facts(), places.clone()));
    // Lists come before their items, and a reader may stop at any of them.
    let mut seen = Vec::new();
    let early = world.repository.read_manifest_parts(&world.cluster, SYSTEM, world.id, &|_| {}, &mut |_, part| {
        seen.push(match part {
            ManifestPart::List(place, _) => Err(place),
            ManifestPart::Item(item) => Ok(item),
        });
        Ok(if seen.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    assert_eq!(early.unwrap().unwrap().0, summary(&world));
    assert_eq!(seen.remove(0), Err(places[0]));
    assert!(seen.into_iter().map(Result::unwrap).eq(expected().take(4)));

    // What is known of the backup needs no pack; its files need all of them.
    let damaged_at = |place: &RecordLocation, change: &dyn Fn(&mut Vec<u8>)| {
        let name = world.names("/packs/").into_iter().find(|name| name.ends_with(&place.pack.to_string())).unwrap();
        world.replace(&name, change);
        let head = world.repository.read_manifest_head(&world.cluster, SYSTEM, world.id).unwrap().unwrap().1;
        assert_eq!(head.lists, places);
        let error = ScratchManifest::copy_of(&world.repository, &world.cluster, SYSTEM, world.id, &mut |_| {}).err().unwrap();
        assert!(error.kind == Kind::Damaged && error.what.contains(&name), "{error:?}");
        world.replace(&name, |bytes| change(bytes));
    };
    let first = places[0];
    let last = places.last().unwrap();
    damaged_at(&first, &|bytes| {
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
    });
    let name = world.names("/packs/").into_iter().find(|name| name.ends_with(&last.pack.to_string())).unwrap();
    world.memory.delete(&Key::new(name.clone()).unwrap()).unwrap();
    let error =
        world.repository.read_manifest(&world.cluster, SYSTEM, world.id, &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap_err();
    assert!(error.kind == Kind::Damaged && error.what.contains("is gone, and a backup needs it"), "{error:?}");
}

#[test]
fn damaged_manifests_are_named_and_hide_no_other() {
    let world = World::new();
    let pack = PackId { backup: world.id, number: 0 };
    put_manifest(&world, pack, 20_000);
    let name = world.names("/backups/").remove(0);
    let read = |world: &World| {
        world.repository.read_manifest(&world.cluster, SYSTEM, world.id, &mut |_, _| Ok(ControlFlow::Continue(())))
    };
    world.replace(&name, |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    let error = read(&world).unwrap_err();
    assert_eq!(error.kind, Kind::Damaged);
    assert!(error.what.contains(&name), "{error:?}");
    world.replace(&name, |bytes| bytes[70] ^= 1);
    let listed = world.repository.backups(&world.cluster, SYSTEM).unwrap();
    assert!(matches!(&listed[0].1, Err(error) if error.kind == Kind::Damaged && error.what.contains(&name)));
}

#[test]
fn tables_are_read_back_and_bound_to_their_place() {
    let world = World::new();
    let zeros = Extent::zeros(EXTENT_BYTES);
    let table = ExtentTable { bytes: 10 * EXTENT_BYTES as u64, extents: vec![zeros; 10] };
    let encoded = table.encode().unwrap();
    let (place, _) = with_packs(&world.target(1 << 20), |writers| {
        let mut writer = writers.writer()?;
        writer.append(RecordKind::Extent, b"in front")?;
        let place = writer.append(RecordKind::Table, &encoded)?;
        writer.finish()?;
        Ok(place)
    })
    .unwrap();
    let reader = PackReader::new(&world.repository, &world.cluster, SYSTEM);
    assert_eq!(reader.table(&place).unwrap(), table);
    let extent_place = RecordLocation { offset: 0, sealed_bytes: place.offset, ..place };
    assert_eq!(reader.table(&extent_place).unwrap_err().kind, Kind::Damaged);
}

/// The number of an extent in its file, and its content, or why there is none.
type ReadExtent = (u64, Result<Vec<u8>, Error>);

/// Reads all extents of a file. Says how many requests that took.
fn read_extents(world: &World, extents: &[Extent]) -> (Vec<ReadExtent>, u64) {
    let reader = ExtentReader::new(PackReader::new(&world.repository, &world.cluster, SYSTEM), [9; 32], 1);
    let size_bytes = (extents.len() * EXTENT_BYTES) as u64;
    let mut wanted: Vec<_> =
        (0..).zip(extents).filter_map(|(index, extent)| WantedExtent::new(0, size_bytes, index, extent)).collect();
    let (mut taken, mut buffers) = (Taken::default(), ReadBuffers::default());
    for range in reader.ranges(&mut wanted) {
        reader.read(range, &mut buffers, &mut taken).unwrap();
    }
    (taken.found, reader.requests())
}

#[test]
fn what_several_extents_refer_to_is_opened_once_and_given_to_all_of_them() {
    let world = World::new();
    let (extents, _) = with_packs(&world.target(1 << 24), |writers| {
        let mut writer = writers.writer()?;
        let extents = (0..3).map(|number| {
            let body = extent(number);
            let hash = *blake3::keyed_hash(&[9; 32], &body).as_bytes().first_chunk().unwrap();
            let place = writer.append(RecordKind::Extent, &body)?;
            Ok(Extent { crc32c: crc32c::crc32c(&body), stored: Some(StoredExtent { hash, place }) })
        });
        let extents = extents.collect::<Result<Vec<_>, Error>>()?;
        writer.finish()?;
        Ok(extents)
    })
    .unwrap();
    let again = [extents[1], extents[0], extents[1], extents[2], extents[1]];
    let (mut found, _) = read_extents(&world, &again);
    found.sort_by_key(|(index, _)| *index);
    let contents: Vec<_> = found.into_iter().map(|(_, content)| content.unwrap()).collect();
    assert!(contents == [1, 0, 1, 2, 1].map(extent));
    // One of them says something else of the content: the others are none the worse for it.
    let mut wrong = again;
    wrong[2].crc32c ^= 1;
    let (found, _) = read_extents(&world, &wrong);
    let damaged: Vec<u64> = found.iter().filter(|(_, content)| content.is_err()).map(|(index, _)| *index).collect();
    assert_eq!(damaged, [2]);
}

/// Keeps what is read.
#[derive(Default)]
struct Taken {
    room: Vec<u8>,
    found: Vec<ReadExtent>,
}

impl TakeExtents for Taken {
    fn room(&mut self, wanted: &WantedExtent) -> Result<&mut [u8], Error> {
        self.room = vec![0xAA; wanted.bytes];
        Ok(&mut self.room)
    }

    fn take(&mut self, wanted: &WantedExtent, read: Result<(), Error>) -> Result<(), Error> {
        self.found.push((wanted.index, read.map(|()| self.room.clone())));
        Ok(())
    }
}

#[test]
fn extents_are_read_in_few_requests_and_each_is_checked_by_itself() {
    const COUNT: usize = 6;
    let world = World::new();
    let ((extents, table), _) = with_packs(&world.target(1 << 24), |writers| {
        let mut writer = writers.writer()?;
        let mut extents = Vec::new();
        for number in 0..COUNT as u64 {
            let body = extent(number);
            let place = writer.append(RecordKind::Extent, &body)?;
            let hash = *blake3::keyed_hash(&[9; 32], &body).as_bytes().first_chunk().unwrap();
            extents.push(Extent { crc32c: crc32c::crc32c(&body), stored: Some(StoredExtent { hash, place }) });
        }
        let table = ExtentTable { bytes: (COUNT * EXTENT_BYTES) as u64, extents: extents.clone() };
        let place = writer.append(RecordKind::Table, &table.encode().unwrap())?;
        writer.finish()?;
        Ok((extents, TableRef { place, crc32c: table.crc32c() }))
    })
    .unwrap();
    let failed = |found: &[(u64, Result<Vec<u8>, Error>)]| -> Vec<u64> {
        assert_eq!(found.len(), COUNT);
        for (index, content) in found {
            match content {
                Ok(content) => assert_eq!(*content, extent(*index)),
                Err(error) => assert_eq!(error.kind, Kind::Damaged, "{error:?}"),
            }
        }
        found.iter().filter(|(_, content)| content.is_err()).map(|(index, _)| *index).collect()
    };
    let (found, requests) = read_extents(&world, &extents);
    assert_eq!((failed(&found), requests), (vec![], 1));

    let reader = ExtentReader::new(PackReader::new(&world.repository, &world.cluster, SYSTEM), [9; 32], 1);
    let size_bytes = (COUNT * EXTENT_BYTES) as u64;
    assert_eq!(reader.table(&table, size_bytes, 0).unwrap(), extents);
    for (table, size_bytes, first) in [
        (TableRef { crc32c: table.crc32c ^ 1, ..table }, size_bytes, 0),
        (table, size_bytes - 1, 0),
        (table, size_bytes + 1, 0),
        (table, size_bytes, 1),
    ] {
        assert_eq!(reader.table(&table, size_bytes, first).unwrap_err().kind, Kind::Damaged);
    }
    // The last extent of a small file is shorter, and zeros are stored nowhere.
    let short = (extents[0], Extent::zeros(10));
    let content = reader.content(EXTENT_BYTES as u64 + 10, &[short.0, short.1]).unwrap();
    assert_eq!(content, [extent(0), vec![0; 10]].concat());
    assert!(reader.is_content_of(&extents[1], &extent(1)) && reader.is_content_of(&short.1, &[0; 10]));
    assert!(!reader.is_content_of(&extents[1], &extent(2)) && !reader.is_content_of(&short.1, &[1; 10]));

    // Two that are authentic and not what the manifest says.
    let mut others = extents.clone();
    others[1].crc32c ^= 1;
    others[4].stored.as_mut().unwrap().hash[0] ^= 1;
    assert_eq!(failed(&read_extents(&world, &others).0), [1, 4]);
    assert_eq!(reader.content(size_bytes, &others).unwrap_err().kind, Kind::Damaged);
    // One that is damaged; then all of them are gone.
    let name = world.names("/packs/").remove(0);
    world.replace(&name, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    assert_eq!(failed(&read_extents(&world, &extents).0).len(), 1);
    world.memory.delete(&Key::new(name).unwrap()).unwrap();
    assert_eq!(failed(&read_extents(&world, &extents).0).len(), COUNT);
}

#[test]
fn packs_that_nobody_needs_and_packs_that_are_missing_are_told_apart() {
    let world = World::new();
    let (_, packed) = write(&world, 1, 8).unwrap();
    let mut stored: Vec<PackId> = packed.packs.keys().copied().collect();
    stored.sort_unstable();
    assert!(stored.len() >= 2);
    let gone = PackId { backup: BackupId::new(1, 1).unwrap(), number: 0 };
    let compare = || {
        let users = world.repository.pack_users(&world.cluster, SYSTEM)?;
        let mut unused = Vec::new();
        let missing =
            world.repository.compare_packs(&world.cluster, SYSTEM, &users, &mut |pack, bytes| unused.push((pack, bytes)))?;
        Ok::<_, Error>((users.users(stored[0]).collect::<Vec<_>>(), missing.into_iter().collect::<Vec<_>>(), unused))
    };
    let (users, missing, unused) = compare().unwrap();
    assert_eq!((users, missing, unused.iter().map(|(pack, _)| *pack).collect::<Vec<_>>()), (vec![], vec![], stored.clone()));
    assert!(unused.iter().all(|(pack, bytes)| *bytes > packed.packs[pack]));
    let put = |id: BackupId, packs: &[PackId]| {
        let mut writer = ManifestWriter::new(Vec::new());
        writer.add(&directory(""), &[]).unwrap();
        for (number, pack) in (0..).zip(packs) {
            let mut item = file(number * 2, *pack);
            if let Item::File(entry) = &mut item {
                entry.path = format!("{number}").into_bytes();
            }
            writer.add(&item, &[]).unwrap();
        }
        let total = |pack| Some(packed.packs.get(&pack).copied().unwrap_or(1 << 20));
        let (body, head) = writer.finish(&facts(), total).unwrap();
        let whole = [head, body].concat();
        let summary = BackupSummary { id, ..summary(&world) };
        let open = || -> Box<dyn std::io::Read> { Box::new(std::io::Cursor::new(whole.clone())) };
        world.repository.put_manifest(&world.cluster, SYSTEM, &summary, open).unwrap();
    };
    let later = BackupId::new(1_795_241_800, 7).unwrap();
    put(world.id, &[stored[0], gone]);
    put(later, &stored[..1]);
    let (users, missing, unused) = compare().unwrap();
    assert_eq!((users, missing), (vec![later, world.id], vec![gone]));
    assert_eq!(unused.iter().map(|(pack, _)| *pack).collect::<Vec<_>>(), stored[1..]);
    // One that is too short for its records is as good as gone.
    world.replace(&world.names("/packs/")[0], |bytes| bytes.truncate(100));
    assert_eq!(compare().unwrap().1, [gone, stored[0]]);
    // Where one manifest cannot be read, nobody knows what it needs.
    world.replace(&world.names("/backups/")[0], |bytes| bytes[70] ^= 1);
    assert_eq!(compare().unwrap_err().kind, Kind::Damaged);
}
