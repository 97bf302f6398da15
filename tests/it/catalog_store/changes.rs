//! What the log changed between two positions: the union of change sets is never less than what the segments say,
//! however much of it comes from nodes; and where something is missing, that is said.

use walvis::format::changes;
use walvis::limits::MAX_SCANNED_FOR_CHANGES;
use walvis::pg::changes::{ChangeSet, Everything, Incomplete, Why};
use walvis::pg::scan::{DatabaseFiles, Parameters, RelFile, Summary};
use walvis::repo::catalog::ChangesBetween;

use super::*;

/// What one record changes: an extent, or all of a relation's database in its tablespace.
#[derive(Debug, Clone, Copy)]
struct Change {
    at: Lsn,
    rel: RelFile,
    /// `None`: all relations of the database.
    extent: Option<u32>,
}

fn rel(relation: u32) -> RelFile {
    RelFile { tablespace: 1663, database: 5, relation }
}

/// A log at random that changes blocks all the time, also by records that cross segments.
struct Changing {
    writer: Writer,
    random: fastrand::Rng,
    changes: Vec<Change>,
}

impl Changing {
    fn new(seed: u64, first: u64) -> Self {
        Self { writer: Writer::new(seed, first), random: fastrand::Rng::with_seed(seed), changes: Vec::new() }
    }

    fn fork(&mut self, timeline: u32) -> Self {
        Self { writer: self.writer.fork(timeline), random: self.random.fork(), changes: self.changes.clone() }
    }

    fn change(&mut self, len: usize) {
        let blocks: Vec<(RelFile, u8, u32)> = (0..self.random.u32(1..4))
            .map(|_| (rel(16384 + self.random.u32(0..5)), self.random.u8(0..3) & 2, self.random.u32(0..100_000)))
            .collect();
        let at = self.writer.change(&blocks, len);
        let main = blocks.into_iter().filter(|(_, fork, _)| *fork == 0);
        self.changes.extend(main.map(|(rel, _, block)| Change { at, rel, extent: Some(block / 8) }));
    }

    fn segment(&mut self) {
        for _ in 0..self.random.u32(1..4) {
            let len = self.random.usize(0..20_000);
            self.change(len);
        }
        if self.random.u32(0..40) == 0 {
            let database = self.random.u32(20..24);
            let copied_from = Some(DatabaseFiles { tablespace: 1663, database: 1 });
            let at = self.writer.lsn();
            self.writer.mark(Mark::DatabaseCreate { database, tablespace: 1663, copied_from });
            self.changes.push(Change { at, rel: RelFile { database, ..rel(7) }, extent: None });
        }
        if self.random.u32(0..8) == 0 {
            return self.writer.switch();
        }
        self.writer.fill_but(*self.random.choice(&[0_u64, 8, 24, 40, 64, 400]).unwrap());
        let len = *self.random.choice(&[10, 10, 300, 9000, 2_500_000]).unwrap();
        self.change(len);
    }
}

/// Whether a set has all changes of the records between two positions.
fn assert_has(set: &ChangeSet, changes: &[Change], (from, to): (Lsn, Lsn), what: &str) {
    assert_eq!(set.is_everything(), None, "{what}");
    for change in changes.iter().filter(|change| from <= change.at && change.at < to) {
        let extent = change.extent.unwrap_or(1 << 20);
        assert!(set.touched(change.rel, 0, extent), "{what}: {change:?} is not in {set:?}");
    }
}

/// Nothing is there that was not changed in the segments of the range, by a record that ends in them or begins there.
fn assert_no_more(set: &ChangeSet, changes: &[Change], (first, last): (u64, u64), what: &str) {
    let segment = |change: &&Change| (first..=last).contains(&(change.at.0 / SEGMENT_BYTES));
    let known: BTreeSet<(RelFile, Option<u32>)> =
        changes.iter().filter(segment).map(|change| (change.rel, change.extent)).collect();
    for (rel, extents) in set.relations() {
        for extent in extents.runs().flat_map(|(from, end)| from..end) {
            assert!(known.contains(&(rel, Some(extent))), "{what}: nobody changed {rel:?} {extent}");
        }
    }
}

/// Three timelines that change blocks: the changes on the path to each.
fn histories(seed: u64) -> ([Log; 3], [Vec<Change>; 3]) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut one = Changing::new(seed, 1);
    (0..random.u32(30..60)).for_each(|_| one.segment());
    if random.bool() {
        one.change(100);
    }
    let mut two = one.fork(2);
    (0..random.u32(3..20)).for_each(|_| one.segment());
    (0..random.u32(3..40)).for_each(|_| two.segment());
    let mut three = two.fork(3);
    (0..random.u32(1..40)).for_each(|_| three.segment());
    let [a, b, c] = [one, two, three].map(|log| (log.writer.finish(), log.changes));
    ([a.0, b.0, c.0], [a.1, b.1, c.1])
}

fn between(world: &World, timeline: Timeline, (from, to): (Lsn, Lsn)) -> ChangesBetween {
    let catalog = world.catalog();
    let path = catalog.path(timeline).unwrap();
    catalog.changes(&path, from, to).unwrap()
}

/// Holds unions over random ranges against the records, and returns how many nodes were read.
fn compare_changes(world: &World, timeline: Timeline, changes: &[Change], random: &mut fastrand::Rng) -> u64 {
    let mut nodes = 0;
    // Of the last record it may not be known where it ends.
    let last = changes.iter().map(|change| change.at.0 / SEGMENT_BYTES).max().unwrap() - 3;
    for _ in 0..6 {
        let (a, b) = (random.choice(changes).unwrap().at, random.choice(changes).unwrap().at);
        let (from, to) = (a.min(b), a.max(b).min(Lsn(last * SEGMENT_BYTES)));
        let found = between(world, timeline, (from, to));
        let what = format!("timeline {timeline}, {from} to {to}, {} nodes", found.nodes);
        assert_eq!((found.stopped, found.scanned), (None, 0), "{what}");
        nodes += found.nodes;
        let set = found.finish(to).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_has(&set, changes, (from, to), &what);
        if timeline.0 == 1 && from < to {
            assert_no_more(&set, changes, (from.0 / SEGMENT_BYTES, (to.0 - 1) / SEGMENT_BYTES), &what);
        }
    }
    nodes
}

#[test]
fn a_union_has_all_that_the_log_changed() {
    let mut nodes = [0; 3];
    for seed in 0..2 {
        let mut random = fastrand::Rng::with_seed(500 + seed);
        let (logs, changes) = histories(seed);
        let world = World::new();
        world.put_history(&logs[1], &[&logs[0]]);
        world.put_history(&logs[2], &[&logs[0], &logs[1]]);
        let compare = |random: &mut fastrand::Rng| {
            let pairs = logs.iter().zip(&changes);
            pairs.map(|(log, changes)| compare_changes(&world, log.timeline, changes, random)).sum::<u64>()
        };
        for (_, name, bytes) in logs.iter().flat_map(|log| &log.segments) {
            world.put(*name, bytes, true);
        }
        nodes[0] += compare(&mut random);
        for (_, name, _) in logs.iter().flat_map(|log| &log.segments) {
            world.nodes_after(*name);
        }
        nodes[1] += compare(&mut random);
        for name in world.index().keys().filter(|name| name.contains("/c1/")) {
            if random.bool() {
                world.store.delete(&Key::new(name.as_str()).unwrap()).unwrap();
            }
        }
        nodes[2] += compare(&mut random);
        let before = world.index();
        for log in &logs {
            world.catalog().rebuild(log.timeline, true).unwrap();
        }
        let after = world.index();
        assert!(before.keys().all(|name| after.contains_key(name)), "{seed}");
        nodes[2] += compare(&mut random);
    }
    assert!(nodes[0] == 0 && nodes[1] > 5 && nodes[2] > 5, "{nodes:?}");
}

/// Higher nodes say what those below say; a writer and a rebuild write the same.
#[test]
fn nodes_of_changes_are_aggregated() {
    let mut log = Changing::new(3, 240);
    (0..300).for_each(|_| {
        log.change(50);
        log.writer.switch();
    });
    let (changes, log) = (log.changes, log.writer.finish());
    let world = World::new();
    world.put_all(&log);
    let names = |world: &World| {
        let all = world.index().into_keys().filter(|name| name.contains("/c"));
        all.map(|name| name.split("/index/00000001/").nth(1).unwrap().to_owned()).collect::<BTreeSet<String>>()
    };
    let written = names(&world);
    let count = |level: &str| written.iter().filter(|name| name.starts_with(level)).count();
    assert_eq!((count("c1/"), count("c2/"), count("c3/")), (18, 1, 0), "{written:?}");
    let whole = (Lsn(240 * SEGMENT_BYTES), Lsn(539 * SEGMENT_BYTES));
    let found = between(&world, Timeline(1), whole);
    assert_eq!((found.nodes, found.segments), (3, 11), "240, 256 to 511, 512, and from 528 on");
    let set = found.finish(whole.1).unwrap();
    assert_has(&set, &changes, whole, "all");

    let rebuilt = world.catalog().rebuild(Timeline(1), false).unwrap();
    assert_eq!((rebuilt.written_changes, rebuilt.kept_changes, rebuilt.scanned), (0, 19, 0));
    let rebuilt = world.catalog().rebuild(Timeline(1), true).unwrap();
    assert_eq!((rebuilt.written_changes, rebuilt.deleted_changes), (19, 19));
    assert_eq!(names(&world), written);
    assert_eq!(between(&world, Timeline(1), whole).finish(whole.1).unwrap(), set);

    // Of segments that an earlier version stored, a rebuild makes the same.
    let mut older = World::new();
    older.with_changes = false;
    older.put_all(&log);
    assert!(names(&older).is_empty());
    let rebuilt = older.catalog().rebuild(Timeline(1), false).unwrap();
    assert_eq!((rebuilt.written, rebuilt.written_changes, rebuilt.scanned), (0, 19, 288));
    assert_eq!(names(&older), written);
    let found = between(&older, Timeline(1), whole);
    assert_eq!((found.nodes, found.scanned), (3, 11), "what is under no node is scanned");
    assert_eq!(found.finish(whole.1).unwrap(), set);

    // Of one that is damaged it is not known what it changed; the catalog needs no more than its summary.
    let name = SegmentName::from_number(Timeline(1), 300, size()).unwrap().to_string();
    let (key, bytes) = older.objects("clusters/").into_iter().find(|(key, _)| key.ends_with(&name)).unwrap();
    let (key, mut damaged) = (Key::new(key).unwrap(), bytes);
    *damaged.last_mut().unwrap() ^= 4;
    older.store.delete(&key).unwrap();
    let _ = older.store.create(&key, damaged.into(), &ContentId([0; 16])).unwrap();
    let rebuilt = older.catalog().rebuild(Timeline(1), true).unwrap();
    assert_eq!((rebuilt.written, rebuilt.written_changes), (rebuilt.deleted, 17));
    let catalog = older.catalog();
    let path = catalog.path(Timeline(1)).unwrap();
    assert_eq!(catalog.changes(&path, whole.0, whole.1).unwrap_err().kind, Kind::Damaged);
}

#[test]
fn what_is_not_known_is_said() {
    let mut log = Changing::new(4, 1);
    (0..60).for_each(|_| {
        log.change(50);
        log.writer.switch();
    });
    let log = log.writer.finish();
    let name = |number| SegmentName::from_number(Timeline(1), number, size()).unwrap();
    let put = |world: &World, without: &[u64]| {
        for (number, name, bytes) in log.segments.iter().filter(|(number, ..)| !without.contains(number)) {
            world.put(*name, bytes, *number != 0);
            world.nodes_after(*name);
        }
    };
    let at = |number: u64| Lsn(number * SEGMENT_BYTES);
    let stops = |world: &World, from: u64, to: u64| {
        let found = between(world, Timeline(1), (at(from), at(to)));
        let until = found.joined.until();
        (found.finish(at(to)).unwrap_err(), until)
    };
    // A hole; and the end of what is stored.
    let world = World::new();
    put(&world, &[20]);
    assert_eq!(stops(&world, 5, 40), (Incomplete::Missing(name(20)), Some(at(20))));
    assert_eq!(stops(&world, 33, 70), (Incomplete::Missing(name(61)), Some(at(61))));
    assert_eq!(stops(&world, 80, 90).0, Incomplete::Missing(name(80)));
    assert!(between(&world, Timeline(1), (at(21), at(60))).finish(at(60)).is_ok());
    assert!(between(&world, Timeline(1), (at(30), at(30))).finish(at(30)).unwrap().is_empty());
    assert!(between(&world, Timeline(1), (at(1), at(20))).finish(at(20)).is_ok());

    // A segment of another log.
    let world = World::new();
    put(&world, &[20]);
    let mut other = Changing::new(5, 20);
    other.change(4000);
    other.writer.switch();
    let foreign = other.writer.finish();
    world.put(name(20), &foreign.segments[0].2, true);
    let (why, _) = stops(&world, 5, 40);
    assert!(matches!(why, Incomplete::Broken(segment, _) if segment == name(20)), "{why}");
    assert!(why.to_string().contains(&name(20).to_string()), "{why}");

    // The log ends in a segment that is not full.
    let world = World::new();
    put(&world, &[60]);
    let mut short = log.segments.iter().find(|(number, ..)| *number == 60).unwrap().2.clone();
    let mut scanner = Scanner::new(Segment::new(name(60), size()).unwrap(), ());
    scanner.push(&short);
    let switch = scanner.finish().summary.last_record().unwrap();
    short[(switch.0 - at(60).0) as usize..].fill(0);
    world.put(name(60), &short, true);
    let found = between(&world, Timeline(1), (at(50), at(61)));
    let until = found.joined.until().unwrap();
    assert!(at(60) < until && until < at(61));
    assert!(between(&world, Timeline(1), (at(50), until)).finish(until).is_ok());

    // So many segments without a change set are scanned, and no more.
    let mut world = World::new();
    world.with_changes = false;
    put(&world, &[]);
    let many = 2 + MAX_SCANNED_FOR_CHANGES as u64;
    assert_eq!(stops(&world, 2, 50), (Incomplete::Unknown(name(many)), Some(at(many))));
    let found = between(&world, Timeline(1), (at(2), at(many)));
    assert_eq!(found.scanned, MAX_SCANNED_FOR_CHANGES as u64);
    assert!(found.finish(at(many)).is_ok());
}

/// Segments that are not stored yet are added to what is.
#[test]
fn what_is_not_stored_yet_is_added() {
    let mut log = Changing::new(6, 1);
    (0..40).for_each(|_| log.segment());
    let (changes, log) = (log.changes, log.writer.finish());
    for stored in [1, 3, 20, 33] {
        let world = World::new();
        let (put, local): (Vec<_>, Vec<_>) = log.segments.iter().partition(|(number, ..)| *number <= stored);
        for (_, name, bytes) in put {
            world.put(*name, bytes, true);
            world.nodes_after(*name);
        }
        let (from, to) = (changes[0].at, Lsn(38 * SEGMENT_BYTES));
        let mut found = between(&world, Timeline(1), (from, to));
        assert!(matches!(found.stopped, Some(Incomplete::Missing(_))));
        for (_, name, bytes) in local {
            let segment = Segment::new(*name, size()).unwrap();
            let mut scanner = Scanner::new(segment, Collector::new(SEGMENT_BYTES));
            scanner.push(bytes);
            let scanned = scanner.finish();
            found.joined.push(&scanned.summary, &scanned.visitor.finish()).unwrap();
        }
        let set = found.finish(to).unwrap();
        assert_has(&set, &changes, (from, to), &format!("{stored} stored"));
    }
}

/// A record's blocks are known wherever the boundary cuts it; where its pieces do not tell, everything has changed.
#[test]
fn records_across_segments() {
    for left in (0..=160).step_by(8) {
        let mut writer = Writer::new(1, 1);
        writer.fill_but(left);
        let blocks: Vec<(RelFile, u8, u32)> = (0..5).map(|n| (rel(100 + n), 0, 8 * n)).collect();
        let at = writer.change(&blocks, 700);
        writer.switch();
        writer.busy(3);
        let log = writer.finish();
        let world = World::new();
        log.segments.iter().for_each(|(_, name, bytes)| world.put(*name, bytes, true));
        let to = Lsn(2 * SEGMENT_BYTES);
        if at < to {
            let set = between(&world, Timeline(1), (Lsn(SEGMENT_BYTES), to)).finish(to).unwrap();
            assert!((0..5).all(|n| set.touched(rel(100 + n), 0, n)), "{left}: {set:?}");
            // Without the segment in which it ends, this is not known.
            let cut = World::new();
            cut.put(log.segments[0].1, &log.segments[0].2, true);
            let found = between(&cut, Timeline(1), (Lsn(SEGMENT_BYTES), to)).finish(to);
            assert_eq!(found, Err(Incomplete::Open(at)), "{left}");
        }
    }
    let mut writer = Writer::new(1, 1);
    writer.fill_but(4000);
    writer.drops(5000);
    writer.switch();
    writer.busy(3);
    let log = writer.finish();
    let world = World::new();
    log.segments.iter().for_each(|(_, name, bytes)| world.put(*name, bytes, true));
    let to = Lsn(2 * SEGMENT_BYTES);
    let set = between(&world, Timeline(1), (Lsn(SEGMENT_BYTES), to)).finish(to).unwrap();
    assert_eq!(set.is_everything(), Some(Everything { segment: 1, why: Why::Unreadable }));
}

/// `wal_level = minimal` makes everything changed, in nodes too.
#[test]
fn minimal_is_everything() {
    let parameters = Parameters {
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 0,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
        wal_level: 0,
        wal_log_hints: false,
        track_commit_timestamp: false,
    };
    let mut writer = Writer::new(1, 1);
    for number in 1..=40 {
        writer.change(&[(rel(1), 0, number)], 100);
        if number == 21 {
            writer.mark(Mark::ParameterChange(parameters));
        }
        writer.switch();
    }
    let log = writer.finish();
    let world = World::new();
    world.put_all(&log);
    let at = |number: u64| Lsn(number * SEGMENT_BYTES);
    let everything = |from, to| {
        let found = between(&world, Timeline(1), (at(from), at(to)));
        (found.nodes, found.finish(at(to)).unwrap().is_everything())
    };
    let why = Everything { segment: 21, why: Why::Minimal };
    assert_eq!(everything(2, 40), (1, Some(why)));
    assert_eq!(everything(2, 21), (0, None));
    assert_eq!(everything(22, 40), (0, None));
}

/// What a push stores of a segment is what a scan finds of it, in less than a hundredth of it.
#[test]
fn sets_are_of_their_segments() {
    let (logs, _) = histories(9);
    for (_, name, bytes) in &logs[0].segments {
        let segment = Segment::new(*name, size()).unwrap();
        let mut scanner = Scanner::new(segment, Collector::new(SEGMENT_BYTES));
        bytes.chunks(70_001).for_each(|part| scanner.push(part));
        let scanned = scanner.finish();
        let (summary, set): (Summary, ChangeSet) = (scanned.summary, scanned.visitor.finish());
        let mut plain = Scanner::new(segment, ());
        plain.push(bytes);
        assert_eq!(plain.finish().summary, summary, "a summary does not depend on whether changes are collected");
        let mut whole = Scanner::new(segment, Collector::new(SEGMENT_BYTES));
        whole.push(bytes);
        assert_eq!(whole.finish().visitor.finish(), set);
        let span = span_of(segment).unwrap();
        let encoded = encode(span, &set);
        assert!(encoded.len() * 100 < bytes.len());
        assert_eq!(changes::decode(&encoded), Ok((span, set)));
    }
}
