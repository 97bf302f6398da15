//! The history of a made-up cluster, as its writers leave it in a repository: WAL of several timelines, base backups
//! that share packs, failovers, a `pg_upgrade`, lost segments, damaged and interrupted backups, a clock that steps.
//!
//! All of it is written by the program's own code, with real WAL, so that whatever reads a repository can read this
//! one. Beside it stands what is true of it ([`Truth`]): what an oracle goes by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvis::codec::Digest;
use walvis::codec::pack::RecordKind;
use walvis::deadline::Deadline;
use walvis::format::extent::{BackupId, Extent, PackId, StoredExtent};
use walvis::format::manifest::{
    BackupFacts, BackupSummary, Content as FileContent, DirectoryEntry, FileEntry, Item, ManifestWriter,
};
use walvis::limits::MAX_SUMMARY_BYTES;
use walvis::pg::scan::{Scanner, Segment};
use walvis::pg::{Lsn, SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::backups::{PackTarget, with_packs};
use walvis::repo::{ClusterName, Content, Facts, Repository, Secret, StoreSettings, StoreUrl, SystemId};
use walvis::store::{Key, Store};

use super::store::TimedStore;
use crate::support::backup::made_up;
use crate::support::wal::{SEGMENT_BYTES, Writer};

/// 2024-01-01 00:00 UTC, a Monday.
pub const BEGIN: i64 = 1_704_067_200;
pub const DAY: i64 = 86_400;
const HOUR: i64 = 3600;
/// Seconds from 1970 to PostgreSQL's epoch.
const EPOCH: i64 = 946_684_800;
/// Files of a base backup. Some of them change from one to the next.
const FILES: usize = 6;

/// What happens on a day, beside commits and a base backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A standby is promoted. The old primary is gone, or goes on for a while.
    Failover { goes_on: bool },
    /// The cluster gets a new system identifier.
    Upgrade,
    /// A segment never reaches the repository.
    LostSegment,
    /// There is no base backup that day.
    NoBackup,
    /// The base backup is killed before its manifest.
    Interrupted,
    /// A pack of the base backup is lost afterwards.
    LostPack,
    /// The clock of the database host is off by so many seconds for that day.
    ClockOff(i64),
}

/// What to make.
#[derive(Debug, Clone)]
pub struct Script {
    pub seed: u64,
    pub days: i64,
    pub happenings: BTreeMap<i64, Vec<Happening>>,
}

impl Script {
    /// A quiet life.
    pub fn quiet(seed: u64, days: i64) -> Self {
        Self { seed, days, happenings: BTreeMap::new() }
    }

    pub fn on(mut self, day: i64, what: Happening) -> Self {
        self.happenings.entry(day).or_default().push(what);
        self
    }
}

/// What is true of a history.
#[derive(Debug, Default)]
pub struct Truth {
    /// The oldest system identifier first.
    pub systems: Vec<System>,
}

/// One system identifier.
#[derive(Debug)]
pub struct System {
    pub id: u64,
    /// When its binding was stored.
    pub since: i64,
    pub timelines: BTreeMap<u32, Line>,
    pub backups: Vec<Backup>,
    /// `.partial` and `.backup` files: name, timeline and number of their segment, when they were stored.
    pub files: Vec<(String, u32, u64, i64)>,
    /// Packs that no manifest names.
    pub left_packs: BTreeSet<PackId>,
    /// Packs that a manifest names, and that are gone.
    pub lost_packs: BTreeSet<PackId>,
    /// Segments that were never stored: timeline and number.
    pub lost_segments: BTreeSet<(u32, u64)>,
}

/// One timeline.
#[derive(Debug, Default)]
pub struct Line {
    /// Where it left which other one.
    pub parent: Option<(u32, u64)>,
    /// When each of its segments was stored, by number.
    pub segments: BTreeMap<u64, i64>,
    /// Position and time (Unix, in microseconds) of the end of each transaction of its own.
    pub ends: Vec<(u64, i64)>,
}

/// One base backup.
#[derive(Debug, Clone)]
pub struct Backup {
    pub id: BackupId,
    pub timeline: u32,
    pub start: u64,
    pub stop: u64,
    /// By the clock of the database host.
    pub began: i64,
    /// When its manifest was stored.
    pub stored: i64,
    /// All that its manifest names.
    pub packs: BTreeSet<PackId>,
}

/// A history: the repository as it would be if nothing was ever deleted, and what is true of it.
pub struct History {
    pub store: Arc<TimedStore>,
    pub truth: Truth,
    pub begin: i64,
    pub end: i64,
}

pub fn cluster() -> ClusterName {
    ClusterName::new("main").unwrap()
}

pub fn size() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT_BYTES).unwrap()
}

pub fn facts_of(system: u64) -> Facts {
    Facts { system_id: SystemId(system), wal_segment_size: size(), postgres_major: Some(16) }
}

pub fn open(store: &Arc<TimedStore>) -> Repository {
    Repository::over(Arc::clone(store) as Arc<dyn Store>, &Secret::None, 1).unwrap()
}

/// A store with the descriptor of a new repository, which was made at that time.
fn made_at(unix_s: i64) -> Arc<TimedStore> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("repository");
    let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
    Repository::init(&settings, &Secret::None, 1, Deadline::after(Duration::from_secs(60))).unwrap();
    let store = TimedStore::new();
    let descriptor = Bytes::from(std::fs::read(root.join("walvis.json")).unwrap());
    store.put_at(&Key::new("walvis.json").unwrap(), descriptor, unix_s);
    Arc::new(store)
}

/// Where an extent is, of each file.
type Places = BTreeMap<usize, (Extent, usize)>;

struct Maker {
    store: Arc<TimedStore>,
    repository: Repository,
    random: fastrand::Rng,
    truth: Truth,
    writer: Writer,
    timeline: u32,
    /// The highest number of a timeline so far.
    highest: u32,
    clock_off: i64,
    loses_segment: bool,
    files: Places,
    pack_bytes: HashMap<PackId, u64>,
    last_backup: Option<BackupId>,
}

impl History {
    pub fn make(script: &Script) -> Self {
        let store = made_at(BEGIN);
        let mut random = fastrand::Rng::with_seed(script.seed);
        let id = 7_300_000_000_000_000_001;
        let writer = Writer::new(random.u64(..), 3).of(id);
        let repository = open(&store);
        let mut maker = Maker {
            store: Arc::clone(&store),
            repository,
            random,
            truth: Truth::default(),
            writer,
            timeline: 1,
            highest: 1,
            clock_off: 0,
            loses_segment: false,
            files: Places::new(),
            pack_bytes: HashMap::new(),
            last_backup: None,
        };
        maker.found(id, BEGIN + 60);
        for day in 0..script.days {
            maker.day(day, script.happenings.get(&day).map_or(&[][..], Vec::as_slice));
        }
        let end = BEGIN + script.days * DAY;
        store.set_now(end);
        Self { store, truth: maker.truth, begin: BEGIN, end }
    }
}

impl History {
    pub fn days(&self) -> i64 {
        (self.end - self.begin) / DAY
    }
}

impl Maker {
    fn system(&mut self) -> &mut System {
        self.truth.systems.last_mut().unwrap()
    }

    fn line(&mut self) -> &mut Line {
        let timeline = self.timeline;
        self.system().timelines.entry(timeline).or_default()
    }

    fn facts(&self) -> Facts {
        facts_of(self.truth.systems.last().unwrap().id)
    }

    /// A new cluster under the old name.
    fn found(&mut self, id: u64, at: i64) {
        let system = System {
            id,
            since: at,
            timelines: BTreeMap::new(),
            backups: Vec::new(),
            files: Vec::new(),
            left_packs: BTreeSet::new(),
            lost_packs: BTreeSet::new(),
            lost_segments: BTreeSet::new(),
        };
        self.truth.systems.push(system);
        self.store.set_now(at);
        self.repository.rebind(&cluster(), facts_of(id)).unwrap();
        (self.timeline, self.highest) = (1, 1);
        self.line();
        self.files = Places::new();
        self.last_backup = None;
    }

    fn commit(&mut self, at: i64) {
        let unix_us = (at + self.clock_off) * 1_000_000 + self.random.i64(0..1_000_000);
        let lsn = self.writer.commit_at(unix_us - EPOCH * 1_000_000);
        self.line().ends.push((lsn.0, unix_us));
    }

    /// A few commits between two moments.
    fn commits(&mut self, from: i64, until: i64) {
        let count = self.random.i64(2..6);
        for n in 0..count {
            self.commit(from + (until - from) * (n + 1) / (count + 1));
        }
    }

    /// Gives up the rest of the segment, which is archived then.
    fn switch(&mut self, at: i64) {
        self.writer.switch();
        for (number, name, bytes) in self.writer.take_full() {
            if std::mem::take(&mut self.loses_segment) {
                let timeline = self.timeline;
                self.system().lost_segments.insert((timeline, number));
                continue;
            }
            self.put_segment(name, &bytes, at);
            self.line().segments.insert(number, at);
        }
    }

    fn put_segment(&mut self, name: SegmentName, bytes: &[u8], at: i64) {
        self.store.set_now(at);
        let mut scanner = Scanner::new(Segment::new(name, size()).unwrap(), ());
        scanner.push(bytes);
        let summary = scanner.finish().summary.encode_within(MAX_SUMMARY_BYTES).unwrap();
        let content = Content::known(Digest::of(&mut &*bytes).unwrap(), || Box::new(bytes)).with_summary(Some(summary));
        let facts = self.facts();
        self.repository.put_wal(&cluster(), facts.system_id, &WalFileName::Segment(name), &content).unwrap();
        self.repository.write_nodes_after(&cluster(), facts, name).unwrap();
    }

    fn put_file(&mut self, file: WalFileName, bytes: &[u8], at: i64) {
        self.store.set_now(at);
        let facts = self.facts();
        self.repository.put_wal(&cluster(), facts.system_id, &file, &Content::of_bytes(bytes)).unwrap();
        if let WalFileName::Partial(name) | WalFileName::Backup(name, _) = file {
            let number = name.number(size()).unwrap();
            self.system().files.push((file.to_string(), name.timeline.0, number, at));
        }
    }

    fn day(&mut self, day: i64, happenings: &[Happening]) {
        let midnight = BEGIN + day * DAY;
        let has = |what: Happening| happenings.contains(&what);
        self.clock_off = happenings
            .iter()
            .find_map(|what| if let Happening::ClockOff(seconds) = what { Some(*seconds) } else { None })
            .unwrap_or_default();
        let mut at = midnight + 120;
        if has(Happening::Upgrade) {
            let id = self.facts().system_id.0 + 1;
            self.writer = Writer::new(self.random.u64(..), 2).of(id);
            self.found(id, at);
            at += 60;
        }
        // In the small hours, after a little work.
        let backup_at = midnight + 2 * HOUR + self.random.i64(0..HOUR);
        self.commits(at, backup_at);
        if !has(Happening::NoBackup) {
            self.backup(backup_at, has(Happening::Interrupted), has(Happening::LostPack));
        }
        let noon = midnight + 11 * HOUR + self.random.i64(0..HOUR);
        self.commits(backup_at + HOUR, noon);
        self.loses_segment = has(Happening::LostSegment);
        self.switch(noon);
        for what in happenings {
            if let Happening::Failover { goes_on } = what {
                self.failover(midnight + 14 * HOUR, *goes_on);
            }
        }
        let evening = midnight + 20 * HOUR + self.random.i64(0..HOUR);
        self.commits(midnight + 16 * HOUR, evening);
        if self.random.bool() {
            self.switch(evening);
        }
    }

    fn failover(&mut self, at: i64, goes_on: bool) {
        self.commits(at - HOUR, at);
        self.highest += 1;
        let (timeline, parent) = (self.highest, self.timeline);
        let child = self.writer.fork(timeline);
        let fork = child.lsn().0;
        let mut old = std::mem::replace(&mut self.writer, child);
        if goes_on {
            for n in 0..3 {
                // It does not know yet: nobody else sees this.
                std::mem::swap(&mut self.writer, &mut old);
                self.commits(at + n * 600, at + n * 600 + 300);
                self.switch(at + n * 600 + 400);
                std::mem::swap(&mut self.writer, &mut old);
            }
        } else {
            let (_, name, bytes) = old.finish().segments.pop().unwrap();
            self.put_file(WalFileName::Partial(name), &bytes, at + 60);
        }
        self.timeline = timeline;
        self.line().parent = Some((parent, fork));
        let mut text = String::new();
        let mut ancestors = Vec::new();
        let mut of = timeline;
        while let Some((parent, fork)) = self.system().timelines.get(&of).and_then(|line| line.parent) {
            ancestors.push((parent, fork));
            of = parent;
        }
        for (parent, fork) in ancestors.iter().rev() {
            text.push_str(&format!("{parent}\t{}\tno recovery target specified\n\n", Lsn(*fork)));
        }
        self.put_file(WalFileName::History(Timeline(timeline)), text.as_bytes(), at + 2000);
    }

    fn backup(&mut self, at: i64, interrupted: bool, loses_pack: bool) {
        self.commit(at - 5);
        let began = at + self.clock_off;
        let id = BackupId::new(began, self.random.u32(..)).unwrap();
        let facts = self.facts();
        self.store.set_now(at);
        self.repository.begin_backup(&cluster(), facts.system_id, id).unwrap();
        let start = self.writer.lsn();
        self.commits(at, at + 300);
        if self.random.u32(0..3) == 0 {
            self.switch(at + 400);
            self.commits(at + 400, at + 600);
        }
        self.store.set_now(at + 500);
        let changed: Vec<usize> =
            (0..FILES).filter(|file| !self.files.contains_key(file) || self.random.u32(0..4) == 0).collect();
        let mut content = vec![0; 1500];
        let name = cluster();
        let target =
            PackTarget { pack_bytes: 1 << 20, ..PackTarget::for_jobs(&self.repository, &name, facts.system_id, id, 1, 1) };
        let random = &mut self.random;
        let (stored, packed) = with_packs(&target, |writers| {
            let mut stored = Vec::new();
            for file in &changed {
                // A pack of its own for each.
                let mut writer = writers.writer()?;
                content.iter_mut().for_each(|byte| *byte = random.u8(..));
                let place = writer.append(RecordKind::Extent, &content)?;
                let hash = *blake3::keyed_hash(&[7; 32], &content).as_bytes().first_chunk().unwrap();
                let extent = Extent { crc32c: crc32c::crc32c(&content), stored: Some(StoredExtent { hash, place }) };
                stored.push((*file, (extent, content.len())));
                writer.finish()?;
            }
            Ok(stored)
        })
        .unwrap();
        self.pack_bytes.extend(&packed.packs);
        if interrupted {
            self.system().left_packs.extend(packed.packs.keys());
            self.switch(at + 700);
            return;
        }
        self.files.extend(stored);
        self.writer.backup_end(start);
        let stop = self.writer.lsn();
        self.commit(at + 650);
        self.switch(at + 700);
        let (timeline, parent) = (self.timeline, self.last_backup.replace(id));
        let name = SegmentName::holding(Timeline(timeline), start, size()).unwrap();
        let offset = u32::try_from(start.0 % SEGMENT_BYTES).unwrap();
        self.put_file(WalFileName::Backup(name, offset), b"START WAL LOCATION and so on\n", at + 750);
        let packs = self.put_manifest(id, began, start, stop, parent, at + 900);
        if let Some(lost) = packs.iter().find(|pack| loses_pack && pack.backup == id) {
            let key = format!("clusters/main/{}/packs/{lost}", facts.system_id);
            self.store.delete(&Key::new(key).unwrap()).unwrap();
            self.system().lost_packs.insert(*lost);
            // What comes after does not rely on it.
            self.files.clear();
        }
        let (start, stop) = (start.0, stop.0);
        let backup = Backup { id, timeline, start, stop, began, stored: at + 900, packs };
        self.system().backups.push(backup);
    }

    fn put_manifest(
        &mut self,
        id: BackupId,
        began: i64,
        start: Lsn,
        stop: Lsn,
        parent: Option<BackupId>,
        at: i64,
    ) -> BTreeSet<PackId> {
        let (owner, group) = ("postgres".to_owned(), "postgres".to_owned());
        let mut writer = ManifestWriter::new(Vec::new());
        for path in ["", "base"] {
            let entry =
                DirectoryEntry { path: path.as_bytes().to_vec(), mode: 0o700, owner: owner.clone(), group: group.clone() };
            writer.add(&Item::Directory(entry), &[]).unwrap();
        }
        let mut packs = BTreeSet::new();
        for (file, (extent, bytes)) in &self.files {
            let entry = FileEntry {
                path: format!("base/{file}").into_bytes(),
                size_bytes: *bytes as u64,
                mode: 0o600,
                owner: owner.clone(),
                group: group.clone(),
                modified_unix_us: began * 1_000_000,
                crc32c: extent.crc32c,
                content: FileContent::Extents(vec![*extent]),
            };
            packs.insert(extent.stored.unwrap().place.pack);
            writer.add(&Item::File(entry), &[]).unwrap();
        }
        let stored_bytes = writer.live_bytes();
        let facts = BackupFacts {
            attachments: vec![],
            hash_key: hex::encode([7; 32]),
            databases: vec![],
            tablespaces: vec![],
            annotations: BTreeMap::new(),
            damage: vec![],
            warnings: vec![],
            verified_up_to: 0,
        };
        let (body, head) = writer.finish(&facts, |pack| self.pack_bytes.get(&pack).copied()).unwrap();
        let whole = [head, body].concat();
        let system_id = self.facts().system_id;
        let summary = BackupSummary {
            label: "daily".to_owned(),
            started_unix_us: began * 1_000_000,
            stopped_unix_us: (began + 700) * 1_000_000,
            start_lsn: start,
            checkpoint_lsn: start,
            stop_lsn: stop,
            timeline: self.timeline,
            wal_segment_bytes: SEGMENT_BYTES,
            files: FILES as u64,
            bytes: FILES as u64 * 1500,
            new_bytes: stored_bytes,
            stored_bytes,
            parent,
            ..made_up(id, system_id)
        };
        self.store.set_now(at);
        self.repository.put_manifest(&cluster(), system_id, &summary, || Box::new(Cursor::new(whole.clone()))).unwrap();
        packs
    }
}
