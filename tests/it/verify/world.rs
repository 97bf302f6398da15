//! A repository in a directory with a made-up log of several timelines, and backups of made-up files.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use walvis::codec::Digest;
use walvis::codec::pack::RecordKind;
use walvis::crypto::{KeyFile, WrappingKey};
use walvis::deadline::Deadline;
use walvis::format::extent::{BackupId, Extent, ExtentTable, PackId, StoredExtent};
use walvis::format::manifest::{
    BackupFacts, BackupSummary, Content as FileContent, DirectoryEntry, FileEntry, Item, ManifestWriter, TableRef,
};
use walvis::limits::{EXTENT_BYTES, EXTENTS_PER_TABLE, MAX_INLINE_EXTENTS, MAX_SUMMARY_BYTES};
use walvis::pg::scan::{Scanner, Segment};
use walvis::pg::{Lsn, SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::backups::{PackTarget, with_packs};
use walvis::repo::{ClusterName, Content, Facts, Repository, Secret, StoreSettings, StoreUrl, SystemId};
use walvis::verify::{Hooks, Mode, Verified, VerifyRequest, Window, verify};

use crate::support::backup::made_up;
use crate::support::command::{Ran, files_below, run};
use crate::support::wal::{Log, SEGMENT_BYTES, SYSTEM_ID, Writer};

const HASH_KEY: [u8; 32] = [0x5a; 32];

pub fn size() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT_BYTES).unwrap()
}

pub struct World {
    directory: TempDir,
    pub repository: Repository,
    pub cluster: ClusterName,
    pub facts: Facts,
    /// What is stored of each content, so that later backups refer to it.
    stored: HashMap<Vec<u8>, StoredExtent>,
    packs: BTreeMap<PackId, u64>,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = StoreUrl::File(directory.path().join("repository"));
        let settings = StoreSettings { url, create_if_absent: None, known: None };
        let key = KeyFile::from(WrappingKey::generate().unwrap());
        write_private(&directory.path().join("key"), &key.to_text());
        write_private(&directory.path().join("walvis.toml"), "");
        let secret = Secret::Key(key);
        let deadline = Deadline::each(Duration::from_secs(60));
        Repository::init(&settings, &secret, 1, deadline).unwrap();
        let repository = Repository::open(&settings, &secret, 1, deadline).unwrap();
        let cluster = ClusterName::new("main").unwrap();
        let facts = Facts { system_id: SystemId(SYSTEM_ID), wal_segment_size: size(), postgres_major: Some(16) };
        repository.bind(&cluster, facts).unwrap();
        Self { directory, repository, cluster, facts, stored: HashMap::new(), packs: BTreeMap::new() }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    /// What opens it.
    pub fn secret(&self) -> Secret {
        let text = fs::read_to_string(self.directory.path().join("key")).unwrap();
        Secret::Key(KeyFile::parse(&text).unwrap())
    }

    /// The file of an object.
    pub fn object(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The name of a segment's object.
    pub fn segment(&self, timeline: u32, number: u64) -> String {
        let name = SegmentName::from_number(Timeline(timeline), number, size()).unwrap();
        walvis::repo::ObjectName::wal(&self.cluster, self.facts.system_id, WalFileName::Segment(name)).to_string()
    }

    /// All objects below a part of the system identifier's names, sorted.
    pub fn objects(&self, part: &str) -> Vec<String> {
        let below = self.root().join(format!("clusters/main/{SYSTEM_ID}/{part}"));
        let files = files_below(&below);
        let mut names: Vec<String> =
            files.iter().map(|file| file.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.object(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    /// Flips a bit in the middle.
    pub fn flip(&self, name: &str) {
        self.change(name, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        });
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.object(name)).unwrap();
    }

    /// Stores a timeline with its history, as pushes do.
    pub fn put_log(&self, log: &Log, parents: &[&Log]) {
        for (_, name, bytes) in &log.segments {
            let mut scanner = Scanner::new(Segment::new(*name, size()).unwrap(), ());
            scanner.push(bytes);
            let summary = scanner.finish().summary.encode_within(MAX_SUMMARY_BYTES);
            let content = Content::known(Digest::of(&mut bytes.as_slice()).unwrap(), || Box::new(bytes.as_slice()));
            let file = WalFileName::Segment(*name);
            self.repository.put_wal(&self.cluster, self.facts.system_id, &file, &content.with_summary(summary)).unwrap();
            self.repository.write_nodes_after(&self.cluster, self.facts, *name).unwrap();
        }
        if log.timeline.0 > 1 {
            let mut text = String::new();
            for pair in parents.iter().chain([&log]).collect::<Vec<_>>().windows(2) {
                text += &format!("{}\t{}\tno recovery target specified\n", pair[0].timeline, pair[1].begin);
            }
            let content = Content::of_bytes(text.as_bytes());
            let file = WalFileName::History(log.timeline);
            self.repository.put_wal(&self.cluster, self.facts.system_id, &file, &content).unwrap();
        }
    }

    /// Stores a backup of these files. What an earlier one stored is referred to.
    pub fn backup(&mut self, number: u32, timeline: u32, (start, stop): (Lsn, Lsn), files: &[(&str, Vec<u8>)]) -> BackupId {
        let id = BackupId::new(1_790_000_000 + i64::from(number) * 86_400, number).unwrap();
        let stored = &mut self.stored;
        let system_id = self.facts.system_id;
        self.repository.begin_backup(&self.cluster, system_id, id).unwrap();
        let target =
            PackTarget { pack_bytes: 300_000, ..PackTarget::for_jobs(&self.repository, &self.cluster, system_id, id, 1, 1) };
        let (items, packed) = with_packs(&target, |writers| {
            let mut writer = writers.writer()?;
            let mut items = Vec::new();
            for (path, content) in files {
                let mut extents = Vec::new();
                for bytes in content.chunks(EXTENT_BYTES) {
                    if bytes.iter().all(|byte| *byte == 0) {
                        extents.push(Extent::zeros(bytes.len()));
                        continue;
                    }
                    let known = match stored.get(bytes) {
                        Some(known) => *known,
                        None => {
                            let hash = *blake3::keyed_hash(&HASH_KEY, bytes).as_bytes().first_chunk().unwrap();
                            let new = StoredExtent { hash, place: writer.append(RecordKind::Extent, bytes)? };
                            stored.insert(bytes.to_vec(), new);
                            new
                        }
                    };
                    extents.push(Extent { crc32c: crc32c::crc32c(bytes), stored: Some(known) });
                }
                let mut uses: BTreeMap<PackId, u64> = BTreeMap::new();
                let place = if extents.len() <= MAX_INLINE_EXTENTS {
                    FileContent::Extents(extents)
                } else {
                    let mut tables = Vec::new();
                    for (at, piece) in extents.chunks(EXTENTS_PER_TABLE).enumerate() {
                        for stored in piece.iter().filter_map(|extent| extent.stored) {
                            *uses.entry(stored.place.pack).or_default() += u64::from(stored.place.sealed_bytes);
                        }
                        let piece_bytes = EXTENTS_PER_TABLE * EXTENT_BYTES;
                        let bytes = (content.len() - at * piece_bytes).min(piece_bytes) as u64;
                        let table = ExtentTable { bytes, extents: piece.to_vec() };
                        let place = writer.append(RecordKind::Table, &table.encode().unwrap())?;
                        tables.push(TableRef { place, crc32c: table.crc32c() });
                    }
                    FileContent::Tables(tables)
                };
                items.push((file(path, content, place), uses.into_iter().collect::<Vec<_>>()));
            }
            writer.finish()?;
            Ok(items)
        })
        .unwrap();
        self.packs.extend(packed.packs);
        let mut manifest = ManifestWriter::new(Vec::new());
        for path in ["base", "base/5"] {
            let (owner, group) = ("postgres".to_owned(), "postgres".to_owned());
            manifest.add(&Item::Directory(DirectoryEntry { path: path.into(), mode: 0o700, owner, group }), &[]).unwrap();
        }
        for (item, uses) in &items {
            manifest.add(item, uses).unwrap();
        }
        let live = manifest.live_bytes();
        let facts = BackupFacts {
            attachments: vec![],
            hash_key: hex::encode(HASH_KEY),
            databases: vec![],
            tablespaces: vec![],
            annotations: BTreeMap::new(),
            damage: vec![],
            warnings: vec![],
            verified_up_to: 0,
        };
        let (body, head) = manifest.finish(&facts, |pack| self.packs.get(&pack).copied()).unwrap();
        let whole = [head, body].concat();
        let summary = BackupSummary {
            label: "made up".to_owned(),
            start_lsn: start,
            checkpoint_lsn: start,
            stop_lsn: stop,
            timeline,
            wal_segment_bytes: SEGMENT_BYTES,
            files: items.len() as u64,
            bytes: files.iter().map(|(_, content)| content.len() as u64).sum(),
            new_bytes: packed.stored_bytes,
            stored_bytes: live,
            ..made_up(id, system_id)
        };
        let open = || -> Box<dyn std::io::Read> { Box::new(Cursor::new(whole.clone())) };
        self.repository.put_manifest(&self.cluster, system_id, &summary, open).unwrap();
        id
    }

    /// Runs the program on it.
    pub fn walvis(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// The program, to be run on it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walvis"));
        command.env_clear().env("HOME", self.directory.path()).env("WALVIS_CONFIG", self.directory.path().join("walvis.toml"));
        command.env("WALVIS_REPOSITORY", format!("file://{}", self.root().display()));
        command.env("WALVIS_KEY_FILE", self.directory.path().join("key"));
        command.args(arguments);
        command
    }

    /// Lets time pass: everything that is stored is that much older.
    pub fn pass(&self, time: Duration) {
        for file in files_below(&self.root()) {
            let file = fs::File::options().write(true).open(file).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - time).unwrap();
        }
    }

    pub fn verify(&self, mode: Mode<'_>) -> Verified {
        let request = VerifyRequest { mode, jobs: 2, max_bytes_per_s: None, window: Window::Everything, seen: None };
        let hooks = Hooks { go_on: &|| Ok(()), progress: &|_| {} };
        let verified = verify(&self.repository, &self.cluster, &request, &hooks).unwrap();
        assert!(verified.ended_by.is_none(), "{:?}", verified.ended_by);
        verified
    }
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn file(path: &str, content: &[u8], place: FileContent) -> Item {
    Item::File(FileEntry {
        path: path.into(),
        size_bytes: content.len() as u64,
        mode: 0o600,
        owner: "postgres".to_owned(),
        group: "postgres".to_owned(),
        modified_unix_us: 5,
        crc32c: crc32c::crc32c(content),
        content: place,
    })
}

/// Bytes that do not get shorter.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// Three backups and two timelines: the first one of segments 2 to 34; the second leaves it in segment 20 and goes on
/// to segment 50. Backups in segments 4 and 15, and one of the second timeline in 30.
pub struct Story {
    pub world: World,
    pub backups: [BackupId; 3],
}

impl Story {
    pub fn new() -> Self {
        let mut world = World::new();
        let mut writer = Writer::new(3, 2);
        let number = |lsn: Lsn| lsn.0 / SEGMENT_BYTES;
        let write_to = |writer: &mut Writer, until: u64| {
            while number(writer.lsn()) < until {
                writer.little();
                writer.busy(3);
            }
            writer.little();
        };
        let at = |writer: &mut Writer| {
            let start = writer.lsn();
            writer.busy(2);
            writer.little();
            (start, writer.lsn())
        };
        write_to(&mut writer, 4);
        let first = at(&mut writer);
        write_to(&mut writer, 15);
        let second = at(&mut writer);
        write_to(&mut writer, 20);
        let mut child = writer.fork(2);
        write_to(&mut writer, 34);
        write_to(&mut child, 30);
        let third = at(&mut child);
        write_to(&mut child, 50);
        let (parent, child) = (writer.finish(), child.finish());
        world.put_log(&parent, &[]);
        world.put_log(&child, &[&parent]);
        let big = noise(1, 10 * EXTENT_BYTES + 77);
        let mut changed = big.clone();
        changed[3 * EXTENT_BYTES] ^= 1;
        let backups = [
            world.backup(1, 1, first, &[("base/5/1", big.clone()), ("base/5/2", noise(2, 100))]),
            world.backup(
                2,
                1,
                second,
                &[("base/5/1", changed.clone()), ("base/5/2", noise(2, 100)), ("base/5/3", vec![0; 70_000])],
            ),
            world.backup(3, 2, third, &[("base/5/1", changed), ("base/5/4", noise(4, 200_000))]),
        ];
        Self { world, backups }
    }
}
