//! A long log of which only what the join of its changes needs is made: the segments at both ends, and the nodes of
//! changes between them, as long as they may be. The bench `requests` makes one too.

use std::path::Path;
use std::time::Duration;

use walvis::codec::Digest;
use walvis::deadline::Deadline;
use walvis::format::changes;
use walvis::format::node::{FANOUT, NodeId, span};
use walvis::limits::{MAX_CHANGES_LEVEL, MAX_SUMMARY_BYTES};
use walvis::pg::changes::{ChangeSet, Collector, Extents};
use walvis::pg::scan::{RelFile, Scanner, Segment};
use walvis::pg::{Lsn, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::{ClusterName, Content, Facts, ObjectName, Repository, Secret, StoreSettings, StoreUrl, SystemId};

use super::wal::{Log, SEGMENT_BYTES, SYSTEM_ID, Writer};

pub fn facts() -> Facts {
    let size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
    Facts { system_id: SystemId(SYSTEM_ID), wal_segment_size: size, postgres_major: Some(16) }
}

pub fn cluster() -> ClusterName {
    ClusterName::new("main").unwrap()
}

fn settings(root: &Path) -> StoreSettings {
    StoreSettings { url: StoreUrl::File(root.to_owned()), create_if_absent: None, known: None }
}

pub fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(36_000))
}

pub fn init(root: &Path) -> Repository {
    let (repository, _) = Repository::init(&settings(root), &Secret::None, 1, deadline()).unwrap();
    repository.bind(&cluster(), facts()).unwrap();
    repository
}

pub fn open(root: &Path) -> Repository {
    Repository::open(&settings(root), &Secret::None, 1, deadline()).unwrap()
}

pub fn put_segments(repository: &Repository, log: &Log) {
    for (_, name, bytes) in &log.segments {
        let segment = Segment::new(*name, facts().wal_segment_size).unwrap();
        let mut scanner = Scanner::new(segment, Collector::new(SEGMENT_BYTES));
        scanner.push(bytes);
        let scanned = scanner.finish();
        let summary = scanned.summary.encode_within(MAX_SUMMARY_BYTES);
        let changes = changes::encode(changes::span_of(segment).unwrap(), &scanned.visitor.finish());
        let content = Content::known(Digest::of(&mut bytes.as_slice()).unwrap(), || Box::new(bytes.as_slice()));
        let file = WalFileName::Segment(*name);
        repository
            .put_wal(&cluster(), facts().system_id, &file, &content.with_summary(summary).with_changes(Some(changes)))
            .unwrap();
        repository.write_nodes_after(&cluster(), facts(), *name).unwrap();
    }
}

/// What the nodes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sets {
    /// Random extents of a table of 1 TB, at random places.
    Random,
    /// Every second extent of a part of one of many tables: the most runs that a node has room for, and as good as none
    /// of them twice.
    EverySecond,
}

impl Sets {
    /// That of a node of this number, as long as it may be.
    fn set(self, number: u64, limit_bytes: usize) -> ChangeSet {
        let mut random = fastrand::Rng::with_seed(number);
        let (mut touched, mut relation) = (Extents::new(), 16_384);
        match self {
            Self::Random => {
                let mut numbers: Vec<u32> = (0..limit_bytes / 3).map(|_| random.u32(0..16 << 20)).collect();
                numbers.sort_unstable();
                numbers.into_iter().for_each(|number| touched.push(number, number + 1));
            }
            Self::EverySecond => {
                relation += random.u32(0..1000);
                let first = random.u32(0..64 << 20);
                (0..limit_bytes as u32 - 64).for_each(|number| touched.push(first + 2 * number, first + 2 * number + 1));
            }
        }
        let mut set = ChangeSet::new();
        set.add(RelFile { tablespace: 1663, database: 5, relation }, &touched);
        set
    }
}

/// The first of the segments whose changes are joined: no node begins there.
pub const FIRST_CHANGED: u64 = 21;

/// Makes the log, with this many segments.
pub fn make(root: &Path, segments: u64, sets: Sets) -> Repository {
    let repository = init(root);
    let last = FIRST_CHANGED + segments - 1;
    let span_of = |level: u32, number: u64| NodeId { timeline: Timeline(1), size: facts().wal_segment_size, level, number };
    for (first, count) in [(FIRST_CHANGED, 2 * FANOUT), (last - 2 * FANOUT, 2 * FANOUT + 2)] {
        let mut writer = Writer::new(first, first);
        (0..count).for_each(|_| writer.segment());
        put_segments(&repository, &writer.finish());
    }
    let mut covered: Vec<NodeId> = Vec::new();
    for level in (1..=MAX_CHANGES_LEVEL).rev() {
        let unit = span(level);
        for number in FIRST_CHANGED.div_ceil(unit)..(last + 1) / unit {
            let id = span_of(level, number);
            // Those over segments that are there are written with them, and those below others are not read.
            let is_there = id.last() < FIRST_CHANGED + 2 * FANOUT || id.first() >= last - 2 * FANOUT;
            if is_there || covered.iter().any(|above| above.first() <= id.first() && id.last() <= above.last()) {
                continue;
            }
            covered.push(id);
            let name = ObjectName::Changes {
                cluster: cluster(),
                system_id: facts().system_id,
                timeline: id.timeline,
                level,
                first_segment: id.first(),
            };
            let bytes = changes::encode(id, &sets.set(number, changes::limit_bytes(id)));
            repository.put(&name, &Content::of_bytes(&bytes)).unwrap();
        }
    }
    repository
}

/// Joins the changes of all its segments, as a backup does that reads only what changed.
pub fn join(repository: &Repository, segments: u64) -> ChangeSet {
    let catalog = repository.catalog(&cluster(), facts()).unwrap();
    let path = catalog.path(Timeline(1)).unwrap();
    let begin = |number: u64| Lsn(number * SEGMENT_BYTES);
    let (from, to) = (begin(FIRST_CHANGED), begin(FIRST_CHANGED + segments));
    let between = catalog.changes(&path, from, to).unwrap();
    assert!(between.nodes > 0 && between.stopped.is_none(), "{:?}", between.stopped);
    between.finish(to).unwrap()
}
