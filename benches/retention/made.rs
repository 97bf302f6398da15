//! A repository of years, made in minutes: everything that a plan, a quick look or a rolling verification reads is real
//! and sealed; what is only listed is an empty file of the right name, length and age.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use walvis::codec::Digest;
use walvis::crypto::KeyFile;
use walvis::deadline::Deadline;
use walvis::format::extent::{BackupId, Extent, PackId, RecordLocation, StoredExtent};
use walvis::format::manifest::{
    BackupFacts, BackupSummary, Content as FileContent, DirectoryEntry, FileEntry, Item, ManifestWriter, PageChecksums,
};
use walvis::format::node::{Aggregate, Children, Edge, Entry, FANOUT, Node, NodeId, span};
use walvis::limits::MAX_SUMMARY_BYTES;
use walvis::pg::scan::{Mark, PgTime, Scanner, Segment, XactStats, Xid, XidRange};
use walvis::pg::{Lsn, SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::{
    CheckedBackup, ClusterName, Content, Facts, ObjectName, ObjectSet, Repository, Secret, StoreSettings, StoreUrl, SystemId,
    Verification, VerificationMode,
};
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, ReadRange, Store};

use crate::wal::{SEGMENT_BYTES, SYSTEM_ID, Writer};

const DAY_S: u64 = 24 * 60 * 60;
const TIMELINE: Timeline = Timeline(1);
/// Days at the end of the log whose segments are real: more than a window and its first backup reach back.
const REAL_DAYS: u64 = 9;
/// Transactions of an invented segment.
const XACTS: u64 = 200;
/// What a segment that is only listed takes, by the listing.
const STORED_SEGMENT_BYTES: u64 = 300_000;
/// Packs that the first backup writes, and that each later one does.
const PACKS: (u64, u64) = (400, 40);
/// Records of a pack, all together, in bytes.
const PACK_BYTES: u64 = 30_000_000;
/// Files of a backup, all small.
const FILES: u64 = 1500;
/// Daily rolling verifications that left evidence.
const EVIDENCE_DAYS: u64 = 365;
/// The period of these.
pub const PERIOD_DAYS: u64 = 7;
const HASH_KEY: [u8; 32] = [0x5a; 32];

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Segments of the log.
    pub segments: u64,
    /// Daily backups.
    pub backups: u64,
}

impl Size {
    /// A tenth of it.
    pub fn tenth(self) -> Self {
        Self { segments: self.segments / 10, backups: self.backups / 10 }
    }
}

/// A repository in a directory, with its key.
pub struct Made {
    /// The repository.
    pub root: PathBuf,
    /// Its key file.
    pub key: PathBuf,
    /// How many objects it has.
    pub objects: u64,
}

impl Made {
    /// Makes it, and what is not there of the directory.
    pub fn new(directory: &Path, size: Size) -> Self {
        fs::create_dir_all(directory).unwrap();
        let (root, key) = (directory.join("repository"), directory.join("key"));
        walvis::ops::key_generate::run(&key).unwrap();
        let secret = Secret::Key(KeyFile::parse(&fs::read_to_string(&key).unwrap()).unwrap());
        let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
        Repository::init(&settings, &secret, 1, Deadline::after(Duration::from_secs(60))).unwrap();
        let mut maker = Maker::new(root.clone(), &secret, size);
        maker.log();
        maker.backups();
        maker.evidence();
        let objects = maker.flush();
        Self { root, key, objects }
    }
}

/// Writes through the program's own code into memory, and from there into files: a directory would sync each of them.
struct Maker {
    root: PathBuf,
    memory: Arc<MemoryStore>,
    repository: Repository,
    cluster: ClusterName,
    facts: Facts,
    size: Size,
    now_unix_s: u64,
    /// The first segment that is real, but for those at the very beginning.
    real_from: u64,
    objects: u64,
    /// Where the log of each backup begins and ends.
    backup_wal: Vec<(BackupId, Lsn, Lsn)>,
}

fn bytes() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT_BYTES).unwrap()
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn xid(n: u64) -> Xid {
    Xid::new((n % 4_000_000_000) as u32 + 1000).unwrap()
}

fn name(number: u64) -> SegmentName {
    SegmentName::from_number(TIMELINE, number, bytes()).unwrap()
}

impl Maker {
    fn new(root: PathBuf, secret: &Secret, size: Size) -> Self {
        let memory = Arc::new(MemoryStore::new());
        for path in files_below(&root) {
            let key = Key::new(path.strip_prefix(&root).unwrap().to_str().unwrap()).unwrap();
            let _ = memory.create(&key, fs::read(&path).unwrap().into(), &ContentId([0; 16])).unwrap();
        }
        let repository = Repository::over(Arc::clone(&memory) as Arc<dyn Store>, secret, 1).unwrap();
        let cluster = ClusterName::new("main").unwrap();
        let facts = Facts { system_id: SystemId(SYSTEM_ID), wal_segment_size: bytes(), postgres_major: Some(16) };
        repository.bind(&cluster, facts).unwrap();
        let per_day = size.segments / size.backups;
        let real_from = (size.segments - REAL_DAYS * per_day) / FANOUT * FANOUT;
        let (backup_wal, now_unix_s) = (Vec::new(), now_unix_s());
        let mut maker = Self { root, memory, repository, cluster, facts, size, now_unix_s, real_from, objects: 0, backup_wal };
        for day in 0..size.backups {
            let number = day * maker.per_day() + maker.per_day() / 2;
            let id = BackupId::new(maker.time_s(number) as i64, day as u32).unwrap();
            maker.backup_wal.push((id, Lsn(number * SEGMENT_BYTES + 40), Lsn((number + 2) * SEGMENT_BYTES + 4096)));
        }
        maker
    }

    /// Segments from one backup to the next.
    fn per_day(&self) -> u64 {
        self.size.segments / self.size.backups
    }

    /// When a segment begins, in Unix seconds. The last one is just over.
    fn time_s(&self, number: u64) -> u64 {
        self.now_unix_s - 60 - (self.size.segments + 1 - number) * DAY_S / self.per_day()
    }

    fn time(&self, number: u64) -> PgTime {
        PgTime::from_unix_us(self.time_s(number) as i64 * 1_000_000).unwrap()
    }

    fn object(&self, file: WalFileName) -> ObjectName {
        ObjectName::wal(&self.cluster, self.facts.system_id, file)
    }

    /// A file that is listed and never read. It takes no blocks.
    fn listed(&mut self, name: &ObjectName, size_bytes: u64, stored_unix_s: u64) {
        let path = self.root.join(name.to_string());
        let file = match fs::File::create(&path) {
            Ok(file) => file,
            Err(_) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::File::create(&path).unwrap()
            }
        };
        file.set_len(size_bytes).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(stored_unix_s)).unwrap();
        self.objects += 1;
    }

    /// Makes what was just stored in memory as old as that.
    fn backdate(&self, name: &ObjectName, stored_unix_s: u64) {
        let age = Duration::from_secs(self.now_unix_s.saturating_sub(stored_unix_s));
        assert!(self.memory.backdate(&Key::new(name.to_string()).unwrap(), age), "{name}");
    }

    /// The log and its catalog. The first segments, over which there never is a node, the next ones, and the last days
    /// are real.
    fn log(&mut self) {
        for number in 2 * FANOUT + 1..self.real_from {
            let stored = self.time_s(number + 1);
            self.listed(&self.object(WalFileName::Segment(name(number))), STORED_SEGMENT_BYTES, stored);
        }
        self.nodes();
        self.real(1, 2 * FANOUT);
        self.real(self.real_from, self.size.segments);
    }

    fn real(&mut self, first: u64, last: u64) {
        let mut writer = Writer::new(first, first).at(0, xid(first * XACTS).get());
        let ends: BTreeMap<u64, Lsn> = self.backup_wal.iter().map(|(_, start, stop)| (stop.0 / SEGMENT_BYTES, *start)).collect();
        for number in first..=last {
            let time = self.time(number).0;
            if let Some(start) = ends.get(&number) {
                writer.backup_end(*start);
            }
            for n in 0..3 {
                let _ = writer.commit_at(time + n * 1_000_000);
            }
            writer.switch();
            for (_, name, bytes) in writer.take_full() {
                let mut scanner = Scanner::new(Segment::new(name, self.facts.wal_segment_size).unwrap(), ());
                scanner.push(&bytes);
                let summary = scanner.finish().summary.encode_within(MAX_SUMMARY_BYTES);
                let digest = Digest::of(&mut bytes.as_slice()).unwrap();
                let content = Content::known(digest, || Box::new(bytes.as_slice())).with_summary(summary);
                let file = WalFileName::Segment(name);
                self.repository.put_wal(&self.cluster, self.facts.system_id, &file, &content).unwrap();
                self.backdate(&self.object(file), self.time_s(number + 1));
                self.repository.write_nodes_after(&self.cluster, self.facts, name).unwrap();
            }
        }
    }

    /// An entry of a segment that is only listed.
    fn entry(&self, number: u64) -> Entry {
        let start = Lsn(number * SEGMENT_BYTES);
        let min_time = self.time(number);
        let stats = XactStats {
            count: XACTS,
            aborts: 3,
            min_time,
            max_time: PgTime(min_time.0 + 1_000_000),
            xids: Some(XidRange { oldest: xid(number * XACTS), newest: xid(number * XACTS + XACTS - 1) }),
        };
        let mut aggregate = Aggregate { segments: 1, xacts: Some(stats), ..Aggregate::default() };
        if number.is_multiple_of(20) {
            aggregate.marks.checkpoints = 1;
        }
        let day = number / self.per_day();
        if let Some((_, start, stop)) = self.backup_wal.get(day as usize)
            && stop.0 / SEGMENT_BYTES == number
        {
            aggregate.marks.add(&Mark::BackupEnd { start: *start });
        }
        Entry {
            segment: name(number),
            start,
            first_record: Some(Lsn(start.0 + 40)),
            last_record: Some(Lsn(start.0 + SEGMENT_BYTES - 64)),
            good_until: Lsn(start.0 + SEGMENT_BYTES),
            edge: Edge::Follows,
            crossing: None,
            aggregate,
        }
    }

    /// The nodes over segments that are only listed; those over the others the program writes, and all above.
    fn nodes(&self) {
        // Number 0 of each level would be over segment 0, which never exists.
        let mut below: Vec<Aggregate> = Vec::new();
        for level in 1.. {
            let nodes = self.real_from / span(level);
            if nodes <= 1 {
                break;
            }
            let mut aggregates = vec![Aggregate::default()];
            if level == 1 {
                // Over real segments: the program writes it.
                aggregates.push(Aggregate::default());
            }
            for number in aggregates.len() as u64..nodes {
                let id = NodeId { timeline: TIMELINE, size: bytes(), level, number };
                let children = match level {
                    1 => Children::Segments((id.first()..=id.last()).map(|n| self.entry(n)).collect()),
                    _ => Children::Nodes(below[(number * FANOUT) as usize..][..FANOUT as usize].to_vec()),
                };
                let node = Node { id, children };
                aggregates.push(node.aggregate());
                let object = ObjectName::Node {
                    cluster: self.cluster.clone(),
                    system_id: self.facts.system_id,
                    timeline: id.timeline,
                    level: id.level,
                    first_segment: id.first(),
                };
                self.repository.put(&object, &Content::of_bytes(&node.encode().unwrap())).unwrap();
                self.backdate(&object, self.time_s(id.last() + 1));
            }
            below = aggregates;
        }
    }

    /// Backups that each store some packs anew, and refer to fewer and fewer of the earlier ones, the older those are.
    fn backups(&mut self) {
        let packs_of = |day: u64| if day == 0 { PACKS.0 } else { PACKS.1 };
        for day in 0..self.size.backups {
            let (id, start, stop) = self.backup_wal[day as usize];
            let began_s = id.started_unix_s as u64;
            for number in 0..packs_of(day) {
                let pack = PackId { backup: id, number: number as u32 };
                let name = ObjectName::Pack { cluster: self.cluster.clone(), system_id: self.facts.system_id, pack };
                self.listed(&name, PACK_BYTES + 300, began_s + 60);
            }
            let segment = name(start.0 / SEGMENT_BYTES);
            let file = WalFileName::Backup(segment, (start.0 % SEGMENT_BYTES) as u32);
            self.listed(&self.object(file), 500, began_s + 100);
            let mut packs = Vec::new();
            for earlier in (0..=day).rev() {
                let age = i32::try_from(day - earlier).unwrap();
                let left = (packs_of(earlier) as f64 * 0.9_f64.powi(age)).ceil() as u32;
                packs.extend((0..left).map(|number| PackId { backup: self.backup_wal[earlier as usize].0, number }));
            }
            self.manifest(id, (start, stop), day.checked_sub(1).map(|day| self.backup_wal[day as usize].0), &packs);
        }
    }

    fn manifest(&self, id: BackupId, (start, stop): (Lsn, Lsn), parent: Option<BackupId>, packs: &[PackId]) {
        let began_us = id.started_unix_s * 1_000_000;
        let (owner, group) = ("postgres".to_owned(), "postgres".to_owned());
        let mut writer = ManifestWriter::new(Vec::new());
        for path in ["", "base", "base/5"] {
            let path = path.as_bytes().to_vec();
            writer
                .add(&Item::Directory(DirectoryEntry { path, mode: 0o700, owner: owner.clone(), group: group.clone() }), &[])
                .unwrap();
        }
        let uses: Vec<(PackId, u64)> = packs.iter().map(|pack| (*pack, PACK_BYTES / 2 + 1)).collect();
        for number in 0..FILES {
            let pack = packs[number as usize % packs.len()];
            let place = RecordLocation { pack, offset: (number * 5000) as u32, sealed_bytes: 4000 };
            let hash = *blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().unwrap();
            let crc32c = number as u32;
            let entry = FileEntry {
                path: format!("base/5/{}", 10_000 + number).into_bytes(),
                size_bytes: 8192,
                mode: 0o600,
                owner: owner.clone(),
                group: group.clone(),
                modified_unix_us: began_us - number as i64 * 1_000_003,
                crc32c,
                content: FileContent::Extents(vec![Extent { crc32c, stored: Some(StoredExtent { hash, place }) }]),
            };
            // As if it had tables: their uses are told with the last one.
            let uses = if number + 1 == FILES { uses.as_slice() } else { &[] };
            writer.add(&Item::File(entry), uses).unwrap();
        }
        let stored_bytes = writer.live_bytes();
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
        let (body, head) = writer.finish(&facts, |_| Some(PACK_BYTES)).unwrap();
        let whole = [head, body].concat();
        let summary = BackupSummary {
            id,
            label: "daily".to_owned(),
            started_unix_us: began_us,
            stopped_unix_us: began_us + 100_000_000,
            start_lsn: start,
            checkpoint_lsn: start,
            stop_lsn: stop,
            timeline: TIMELINE.0,
            system_id: self.facts.system_id.to_string(),
            postgres_version_num: 160_004,
            catalog_version: 202_307_071,
            wal_segment_bytes: SEGMENT_BYTES,
            from_standby: false,
            files: FILES,
            bytes: FILES * 8192,
            new_bytes: PACKS.1 * PACK_BYTES,
            reused_bytes: 0,
            stored_bytes,
            pages: PageChecksums::default(),
            parent,
            data_directory: "/var/lib/postgresql/16/main".into(),
            warnings: vec![],
            warnings_total: 0,
            parameters: None,
            jobs: 2,
        };
        let open = || -> Box<dyn Read> { Box::new(Cursor::new(whole.clone())) };
        self.repository.put_manifest(&self.cluster, self.facts.system_id, &summary, open).unwrap();
        let name = ObjectName::Manifest { cluster: self.cluster.clone(), system_id: self.facts.system_id, backup: id };
        self.backdate(&name, id.started_unix_s as u64 + 200);
    }

    /// A year of daily rolling verifications, each of which read a share of what was stored then. The last one is over.
    fn evidence(&self) {
        let runs = EVIDENCE_DAYS.min(self.size.backups - 1);
        for run in 1..=runs {
            let day = self.size.backups - runs + run;
            // A little more than a seventh, as where runs come late: so nothing is overdue.
            let share = |stored: u64| {
                let part = (run % PERIOD_DAYS) as f64;
                let at = |part: f64| ((stored as f64 * part / PERIOD_DAYS as f64) as u64).min(stored.saturating_sub(1));
                (at((part - 0.2).max(0.0)), at(part + 1.2))
            };
            let mut whole = ObjectSet::new(self.facts.wal_segment_size);
            let (first, last) = share((day * self.per_day()).min(self.size.segments + 1));
            whole.insert_segments(TIMELINE, first.max(1), last);
            let (first, last) = share(day.min(self.size.backups));
            for (at, (id, start, _)) in self.backup_wal.iter().enumerate().take(last as usize + 1).skip(first as usize) {
                whole.insert_manifest(*id);
                whole.insert_packs(*id, 0, if at == 0 { PACKS.0 } else { PACKS.1 } - 1);
                let file = WalFileName::Backup(name(start.0 / SEGMENT_BYTES), (start.0 % SEGMENT_BYTES) as u32);
                whole.insert_wal(&file.into());
            }
            let age = Duration::from_secs((runs - run) * DAY_S);
            let began_s = now_unix_s() as i64 - age.as_secs() as i64;
            let checked = |(id, ..): &(BackupId, Lsn, Lsn)| CheckedBackup {
                backup_id: *id,
                after_unix_s: began_s - (PERIOD_DAYS * DAY_S) as i64,
                damaged: 0,
            };
            let verification = Verification {
                mode: VerificationMode::Rolling,
                period_s: Some(PERIOD_DAYS * DAY_S),
                host: "db1".to_owned(),
                began_unix_us: began_s * 1_000_000,
                duration_us: 0,
                interrupted: false,
                piece: 1,
                read_bytes: 1,
                owed_bytes: 0,
                damaged: whole.none_of_it(),
                whole,
                backups: self.backup_wal.iter().take(day as usize).map(checked).collect(),
                findings: Vec::new(),
                findings_total: 0,
                findings_that_matter: 0,
            };
            let (cluster, system_id) = (&self.cluster, self.facts.system_id);
            let newest = self.repository.lately_remembered(cluster, system_id, &mut |_| true).unwrap().newest;
            for link in self.repository.put_evidence(cluster, system_id, &verification, &newest).unwrap() {
                let name = ObjectName::Evidence { cluster: cluster.clone(), system_id, id: link.id };
                assert!(self.memory.backdate(&Key::new(name.to_string()).unwrap(), age));
            }
        }
    }

    /// Writes what is in memory into files, as old as it is there; how many objects there are then.
    fn flush(self) -> u64 {
        let mut entries = Vec::new();
        let mut visit = |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        };
        self.memory.list("", "", &mut visit).unwrap();
        for entry in &entries {
            let mut body = Vec::new();
            self.memory.read(&entry.key, ReadRange::All).unwrap().body.read_to_end(&mut body).unwrap();
            let path = self.root.join(entry.key.as_str());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, body).unwrap();
            let stored = Duration::from_secs(entry.modified_unix_s.unwrap() as u64);
            fs::File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH + stored).unwrap();
        }
        self.objects + entries.len() as u64
    }
}

/// The files below a directory, in no order.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}
