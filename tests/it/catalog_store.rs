//! The catalog in a repository: nodes are written on the way, and walks see what a naive reading of the log sees.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bytes::Bytes;
use walvis::codec::Digest;
use walvis::deadline::Deadline;
use walvis::error::{Error, Kind};
use walvis::format::changes::{encode, span_of};
use walvis::format::node::Aggregate;
use walvis::limits::MAX_SUMMARY_BYTES;
use walvis::pg::changes::Collector;
use walvis::pg::scan::{Event, Mark, PgTime, Record, Scanner, Segment, XactEnd, Xid};
use walvis::pg::{Lsn, SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::catalog::{Path, Step};
use walvis::repo::{Catalog, ClusterName, Content, Facts, ObjectName, Repository, Secret, StoreSettings, StoreUrl, SystemId};
use walvis::store::fault::{Fault, Op};
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, ReadRange, Store};

use crate::support::command::{Site, files_below};
use crate::support::wal::{Log, SEGMENT_BYTES, SYSTEM_ID, Writer};

mod changes;
mod gone;
mod long_lists;
mod timelines;

fn size() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT_BYTES).unwrap()
}

/// A repository in memory.
struct World {
    store: Arc<Fault>,
    repository: Repository,
    cluster: ClusterName,
    facts: Facts,
    /// Whether segments are put with change sets, as an earlier version did not.
    with_changes: bool,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("repository");
        let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
        Repository::init(&settings, &Secret::None, 1, Deadline::after(Duration::from_secs(60))).unwrap();
        let memory = MemoryStore::new();
        let descriptor = Bytes::from(std::fs::read(root.join("walvis.json")).unwrap());
        let _ = memory.create(&Key::new("walvis.json").unwrap(), descriptor, &ContentId([0; 16])).unwrap();
        let store = Arc::new(Fault::new(Arc::new(memory)));
        let repository = Repository::over(Arc::clone(&store) as Arc<dyn Store>, &Secret::None, 1).unwrap();
        let facts = Facts { system_id: SystemId(SYSTEM_ID), wal_segment_size: size(), postgres_major: Some(16) };
        Self { store, repository, cluster: ClusterName::new("main").unwrap(), facts, with_changes: true }
    }

    /// As a push does, or without a summary as an earlier version did.
    fn put(&self, name: SegmentName, bytes: &[u8], scanned: bool) {
        let of_scan = scanned.then(|| {
            let segment = Segment::new(name, size()).unwrap();
            let mut scanner = Scanner::new(segment, Collector::new(SEGMENT_BYTES));
            scanner.push(bytes);
            let scanned = scanner.finish();
            let changes = encode(span_of(segment).unwrap(), &scanned.visitor.finish());
            (scanned.summary.encode_within(MAX_SUMMARY_BYTES).unwrap(), changes)
        });
        let (summary, changes) = of_scan.unzip();
        let content = Content::known(Digest::of(&mut &*bytes).unwrap(), || Box::new(bytes))
            .with_summary(summary)
            .with_changes(changes.filter(|_| self.with_changes));
        self.repository.put_wal(&self.cluster, self.facts.system_id, &WalFileName::Segment(name), &content).unwrap();
    }

    fn put_history(&self, log: &Log, parents: &[&Log]) {
        let mut text = String::new();
        for pair in parents.iter().chain([&log]).collect::<Vec<_>>().windows(2) {
            text += &format!("{}\t{}\tno recovery target specified\n", pair[0].timeline, pair[1].begin);
        }
        let content = Content::of_bytes(text.as_bytes());
        let file = WalFileName::History(log.timeline);
        self.repository.put_wal(&self.cluster, self.facts.system_id, &file, &content).unwrap();
    }

    fn nodes_after(&self, name: SegmentName) -> u64 {
        self.repository.write_nodes_after(&self.cluster, self.facts, name).unwrap()
    }

    fn put_all(&self, log: &Log) {
        for (_, name, bytes) in &log.segments {
            self.put(*name, bytes, true);
            self.nodes_after(*name);
        }
    }

    fn catalog(&self) -> Catalog<'_> {
        self.repository.catalog(&self.cluster, self.facts).unwrap()
    }

    /// The nodes of the catalog.
    fn nodes(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = self.index();
        all.retain(|name, _| matches!(ObjectName::parse(name), Some(ObjectName::Node { .. })));
        all
    }

    /// The nodes of the catalog and of changes.
    fn index(&self) -> BTreeMap<String, Vec<u8>> {
        self.objects(&format!("clusters/main/{SYSTEM_ID}/index/"))
    }

    /// All objects below a prefix.
    fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let mut names = Vec::new();
        self.store
            .list(prefix, "", &mut |entry| {
                names.push(entry.key);
                ControlFlow::Continue(())
            })
            .unwrap();
        let read = |key: Key| {
            let mut bytes = Vec::new();
            std::io::copy(&mut self.store.read(&key, ReadRange::All).unwrap().body, &mut bytes).unwrap();
            (key.as_str().to_owned(), bytes)
        };
        names.into_iter().map(read).collect()
    }
}

fn steps(
    catalog: &Catalog<'_>,
    path: &Path,
    (from, to): (u64, u64),
    back: bool,
    wanted: &dyn Fn(&Aggregate) -> bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut visit = |step| -> Result<ControlFlow<()>, Error> {
        steps.push(step);
        Ok(ControlFlow::Continue(()))
    };
    let (from, to) = (Lsn(from * SEGMENT_BYTES), Lsn(to.saturating_mul(SEGMENT_BYTES)));
    if back { catalog.walk_back(path, from, to, wanted, &mut visit) } else { catalog.walk(path, from, to, wanted, &mut visit) }
        .unwrap();
    steps
}

/// What a path must show of a segment number.
#[derive(Debug, Clone, PartialEq)]
enum Truth {
    Missing,
    Unscanned,
    Events(Vec<(Lsn, Event)>),
}

/// What the segments themselves say, read without any catalog. `stored` tells which are there, and which of these
/// scanned.
fn truth(legs: &[&Log], stored: &BTreeMap<SegmentName, bool>) -> BTreeMap<u64, Truth> {
    let end_of = |leg: usize| legs.get(leg + 1).map_or(u64::MAX, |child| child.begin.0);
    let file = |number: u64| {
        let exists = |(leg, log): &(usize, &&Log)| {
            let last = (end_of(*leg) - 1) / SEGMENT_BYTES;
            let name = SegmentName::from_number(log.timeline, number, size()).unwrap();
            log.begin.0 / SEGMENT_BYTES <= number && number <= last && stored.contains_key(&name)
        };
        legs.iter()
            .enumerate()
            .rev()
            .find(exists)
            .map(|(leg, log)| (leg, SegmentName::from_number(log.timeline, number, size()).unwrap()))
    };
    let last =
        legs.iter().flat_map(|log| log.segments.iter().map(|(number, ..)| *number)).filter(|n| file(*n).is_some()).max().unwrap();
    let mut truth = BTreeMap::new();
    for number in 0..=last {
        let Some((leg, name)) = file(number) else {
            truth.insert(number, Truth::Missing);
            continue;
        };
        let known = |record: &&Record<Event>| {
            let until = (record.end.0 - 1) / SEGMENT_BYTES;
            record.start.0 / SEGMENT_BYTES == number
                && record.start.0 < end_of(leg)
                && (number..=until).all(|number| file(number).is_some())
        };
        let told = |record: &Record<Event>| matches!(record.what, Event::XactEnd(_) | Event::Mark(_));
        let events = legs[leg].found.iter().filter(known).filter(|r| told(r)).map(|r| (r.start, r.what.clone())).collect();
        truth.insert(number, if stored[&name] { Truth::Events(events) } else { Truth::Unscanned });
    }
    truth
}

fn events_of(catalog: &Catalog<'_>, path: &Path, step: &Step) -> Vec<(Lsn, Event)> {
    let Step::Segment(entry) = step else { panic!("{step:?}") };
    let xacts = catalog.transactions(path, entry).unwrap().into_iter().map(|xact| (xact.lsn, Event::XactEnd(xact.end)));
    let marks = catalog.marks(path, entry, true).unwrap().into_iter().map(|mark| (mark.start, Event::Mark(mark.what)));
    let mut all: Vec<(Lsn, Event)> = xacts.chain(marks).collect();
    all.sort_by_key(|(lsn, _)| *lsn);
    all
}

fn numbers(step: &Step) -> (u64, u64) {
    let number = |name: &SegmentName| name.number(size()).unwrap();
    match step {
        Step::Segment(entry) => (number(&entry.segment), number(&entry.segment)),
        Step::Unscanned(name) => (number(name), number(name)),
        Step::Skipped { first, last, .. } | Step::Missing { first, last } => (number(first), number(last)),
    }
}

/// Every number of the range is told of once and in order, and nobody is missed.
fn compare(
    catalog: &Catalog<'_>,
    path: &Path,
    truth: &BTreeMap<u64, Truth>,
    (from, to): (u64, u64),
    wanted: &dyn Fn(&Aggregate) -> bool,
    sought: &dyn Fn(&Event) -> bool,
) {
    let forward = steps(catalog, path, (from, to), false, wanted);
    let mut backward = steps(catalog, path, (from, to), true, wanted);
    backward.reverse();
    let flat = |steps: &[Step]| -> BTreeMap<u64, &'static str> {
        let kind = |step: &Step| match step {
            Step::Segment(_) => "segment",
            Step::Skipped { .. } => "skipped",
            Step::Missing { .. } => "missing",
            Step::Unscanned(_) => "unscanned",
        };
        steps.iter().flat_map(|step| (numbers(step).0..=numbers(step).1).map(move |n| (n, kind(step)))).collect()
    };
    assert_eq!(flat(&forward), flat(&backward));
    let mut next = from;
    for step in &forward {
        let (first, last) = numbers(step);
        assert_eq!(first, next, "{step:?}");
        next = last + 1;
        for number in first..=last {
            match (&truth[&number], step) {
                (Truth::Missing, Step::Missing { .. }) | (Truth::Unscanned, Step::Unscanned(_)) => {}
                (Truth::Events(events), Step::Segment(_)) => assert_eq!(&events_of(catalog, path, step), events, "{number}"),
                (Truth::Events(events), Step::Skipped { .. }) => {
                    assert!(!events.iter().any(|(_, event)| sought(event)), "{number} was passed over: {events:?}");
                }
                // A rebuild may have scanned it into a node.
                (Truth::Unscanned, Step::Segment(_) | Step::Skipped { .. }) => {}
                (truth, step) => panic!("{number}: {step:?}, but {truth:?}"),
            }
        }
    }
    assert_eq!(next, to.min(*truth.keys().last().unwrap()) + 1);
}

fn compare_all(world: &World, legs: &[&Log], stored: &BTreeMap<SegmentName, bool>, random: &mut fastrand::Rng) {
    let catalog = world.catalog();
    let path = catalog.path(legs.last().unwrap().timeline).unwrap();
    let truth = truth(legs, stored);
    let last = *truth.keys().last().unwrap();
    compare(&catalog, &path, &truth, (0, u64::MAX), &|_| true, &|_| true);
    let events: Vec<Event> = truth
        .values()
        .filter_map(|t| if let Truth::Events(e) = t { Some(e) } else { None })
        .flatten()
        .map(|e| e.1.clone())
        .collect();
    for _ in 0..12 {
        let (a, b) = (random.u64(0..=last), random.u64(0..=last));
        let range = (a.min(b), a.max(b));
        match random.choice(&events).unwrap() {
            Event::XactEnd(XactEnd { time, xid, .. }) if random.bool() => {
                let (time, xid) = (*time, *xid);
                let later = |e: &Event| matches!(e, Event::XactEnd(x) if x.time >= time);
                compare(&catalog, &path, &truth, range, &|a| a.may_end_at_or_after(time), &later);
                if let Some(xid) = xid {
                    let same = |e: &Event| matches!(e, Event::XactEnd(x) if x.xid == Some(xid));
                    compare(&catalog, &path, &truth, range, &|a| a.may_have_xid(xid), &same);
                }
            }
            Event::XactEnd(XactEnd { time, .. }) => {
                let time = *time;
                let earlier = |e: &Event| matches!(e, Event::XactEnd(x) if x.time <= time);
                compare(&catalog, &path, &truth, range, &|a| a.may_end_at_or_before(time), &earlier);
            }
            Event::Mark(Mark::RestorePoint { name, .. }) => {
                let same = |e: &Event| matches!(e, Event::Mark(Mark::RestorePoint { name: n, .. }) if n == name);
                compare(&catalog, &path, &truth, range, &|a| a.may_have_restore_point(name.as_bytes()), &same);
            }
            _ => {}
        }
    }
}

/// A history of three timelines; the second leaves the first in the middle of a segment, or between two.
fn history(seed: u64) -> [Log; 3] {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut one = Writer::new(seed, 1);
    (0..random.u32(30..60)).for_each(|_| one.segment());
    if random.bool() {
        one.little();
    }
    let mut two = one.fork(2);
    (0..random.u32(3..20)).for_each(|_| one.segment());
    (0..random.u32(0..40)).for_each(|_| two.segment());
    two.little();
    let mut three = two.fork(3);
    (0..random.u32(1..30)).for_each(|_| three.segment());
    [one.finish(), two.finish(), three.finish()]
}

#[test]
fn walks_are_what_a_naive_reading_is() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(1000 + seed);
        let logs = history(seed);
        let [one, two, three] = &logs;
        let world = World::new();
        world.put_history(two, &[one]);
        world.put_history(three, &[one, two]);
        let mut stored = BTreeMap::new();
        let (holes, unscanned) = (random.bool(), random.bool());
        for log in &logs {
            for (_, name, bytes) in &log.segments {
                if holes && random.u32(0..50) == 0 {
                    continue;
                }
                let scanned = !(unscanned && random.u32(0..50) == 0);
                world.put(*name, bytes, scanned);
                stored.insert(*name, scanned);
                for _ in 0..random.u32(0..3) {
                    world.nodes_after(*name);
                }
            }
        }
        assert!(holes || unscanned || !world.nodes().is_empty(), "{seed}");
        let legs: [&[&Log]; 3] = [&[one], &[one, two], &[one, two, three]];
        for legs in legs {
            compare_all(&world, legs, &stored, &mut random);
        }
        timelines::compare_stretches(&world);
        let before = world.nodes();
        // Some nodes are lost: nothing changes.
        for name in before.keys() {
            if random.u32(0..3) == 0 {
                world.store.delete(&Key::new(name.as_str()).unwrap()).unwrap();
            }
        }
        compare_all(&world, legs[2], &stored, &mut random);
        // A rebuild makes all of them, byte for byte in their plaintext, and knows unscanned segments too.
        for log in &logs {
            world.catalog().rebuild(log.timeline, false).unwrap();
        }
        let after = world.nodes();
        assert!(before.keys().all(|name| after.contains_key(name)), "{seed}");
        for legs in legs {
            compare_all(&world, legs, &stored, &mut random);
        }
        for log in &logs {
            let again = world.catalog().rebuild(log.timeline, false).unwrap();
            assert_eq!((again.written, again.deleted), (0, 0));
        }
    }
}

/// A log whose every segment ends in the middle of a commit.
fn crossing_log(segments: u32) -> Log {
    let mut writer = Writer::new(77, 1);
    (0..segments).for_each(|_| writer.segment());
    writer.finish()
}

#[test]
fn pushes_write_every_complete_node() {
    let log = crossing_log(290);
    let world = World::new();
    world.put_all(&log);
    let last = log.segments.last().unwrap().0;
    let names: BTreeSet<String> = world.nodes().into_keys().collect();
    let prefix = format!("clusters/main/{SYSTEM_ID}/index/00000001");
    // Segment 0 never exists, so the first of each level cannot be.
    let expected: BTreeSet<String> = (1..last / 16).map(|block| format!("{prefix}/1/000000000000/{:016x}", block * 16)).collect();
    assert_eq!(names, expected);
    let rebuilt = world.catalog().rebuild(Timeline(1), false).unwrap();
    assert_eq!((rebuilt.written, rebuilt.kept), (0, expected.len() as u64));
    // Forced, the same nodes come anew.
    let rebuilt = world.catalog().rebuild(Timeline(1), true).unwrap();
    assert_eq!((rebuilt.written, rebuilt.deleted), (expected.len() as u64, expected.len() as u64));
}

#[test]
fn higher_nodes_follow_the_last_of_their_children() {
    let mut writer = Writer::new(5, 256);
    (0..=257).for_each(|_| writer.segment());
    let log = writer.finish();
    let world = World::new();
    // One segment comes late: its block and all above wait for it.
    let late = log.segments.iter().find(|(number, ..)| *number == 256 + 16 * 14 + 3).unwrap();
    for (number, name, bytes) in &log.segments {
        if *number != late.0 {
            world.put(*name, bytes, true);
            world.nodes_after(*name);
        }
        if *number == 256 + 16 * 15 + 2 {
            world.put(late.1, &late.2, true);
        }
    }
    let names: BTreeSet<String> = world.nodes().into_keys().collect();
    let last = log.segments.last().unwrap().0;
    let prefix = format!("clusters/main/{SYSTEM_ID}/index/00000001");
    let mut expected: BTreeSet<String> =
        (16..last / 16).map(|block| format!("{prefix}/1/000000000000/{:016x}", block * 16)).collect();
    expected.insert(format!("{prefix}/2/000000000000/{:016x}", 256));
    assert_eq!(names, expected);
    let stored = log.segments.iter().map(|(_, name, _)| (*name, true)).collect();
    compare_all(&world, &[&log], &stored, &mut fastrand::Rng::with_seed(3));
}

#[test]
fn two_hosts_write_the_same_nodes() {
    let log = crossing_log(70);
    let world = World::new();
    for (_, name, bytes) in &log.segments {
        world.put(*name, bytes, true);
    }
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (_, name, _) in &log.segments {
                    barrier.wait();
                    world.nodes_after(*name);
                }
            });
        }
    });
    let last = log.segments.last().unwrap().0;
    assert_eq!(world.nodes().len() as u64, last / 16 - 1);
    assert_eq!(world.catalog().rebuild(Timeline(1), false).unwrap().written, 0);
}

#[test]
fn a_damaged_node_is_named_and_mended() {
    let log = crossing_log(50);
    let world = World::new();
    world.put_all(&log);
    let stored: BTreeMap<_, _> = log.segments.iter().map(|(_, name, _)| (*name, true)).collect();
    let (name, bytes) = world.nodes().pop_first().unwrap();
    let key = Key::new(name.as_str()).unwrap();
    for at in [3, 70, 100, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        world.store.delete(&key).unwrap();
        let _ = world.store.create(&key, damaged.into(), &ContentId([0; 16])).unwrap();
        let catalog = world.catalog();
        let path = catalog.path(Timeline(1)).unwrap();
        let error = catalog.walk(&path, Lsn(0), Lsn(u64::MAX), &|_| true, &mut |_| Ok(ControlFlow::Continue(()))).unwrap_err();
        assert_eq!(error.kind, Kind::Damaged, "{error}");
        assert!(error.what.contains(&name) && error.hint.unwrap().contains("catalog rebuild --force"), "{}", error.what);
        assert!(world.catalog().rebuild(Timeline(1), true).unwrap().deleted > 0);
        compare_all(&world, &[&log], &stored, &mut fastrand::Rng::with_seed(at as u64));
    }
}

#[test]
fn a_lookup_takes_few_requests() {
    let log = crossing_log(200);
    let world = World::new();
    world.put_all(&log);
    let xacts: Vec<(PgTime, Option<Xid>)> =
        log.found.iter().filter_map(|r| if let Event::XactEnd(x) = r.what { Some((x.time, x.xid)) } else { None }).collect();
    let (time, xid) = xacts[xacts.len() / 2];
    let wanted: [&dyn Fn(&Aggregate) -> bool; 2] = [&|a| a.may_end_at_or_after(time), &|a| a.may_have_xid(xid.unwrap())];
    for wanted in wanted {
        let before = world.store.log().len();
        let catalog = world.catalog();
        let path = catalog.path(Timeline(1)).unwrap();
        let mut found = false;
        let mut visit = |step: Step| -> Result<ControlFlow<()>, Error> {
            if let Step::Segment(entry) = step {
                found |= catalog.transactions(&path, &entry)?.iter().any(|x| x.end.time >= time || x.end.xid == xid);
            }
            Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        catalog.walk(&path, Lsn(0), Lsn(u64::MAX), wanted, &mut visit).unwrap();
        assert!(found);
        let calls = world.store.log();
        let count = |op: Op| calls[before..].iter().filter(|(done, _)| *done == op).count();
        // 12 nodes cover all but the first 15 and the last few segments.
        assert!(count(Op::List) <= 12, "{:?}", &calls[before..]);
        assert!(count(Op::Read) <= 16 + 13 + 4, "{:?}", &calls[before..]);
        assert!(calls[before..].iter().all(|(op, _)| matches!(op, Op::List | Op::Read)));
        // What was listed and read for one question is there for the next.
        let before = calls.len();
        catalog.walk_back(&path, Lsn(0), Lsn(u64::MAX), &|_| false, &mut |_| Ok(ControlFlow::Continue(()))).unwrap();
        let calls = world.store.log();
        assert!(calls[before..].iter().all(|(op, name)| *op == Op::Read && !name.contains("/index/")), "{:?}", &calls[before..]);
    }
}

/// What a catalog remembers from its walks is not what it writes nodes by.
#[test]
fn a_rebuild_sees_what_came_after_the_walks() {
    let log = crossing_log(70);
    let world = World::new();
    let (early, late) = log.segments.split_at(40);
    early.iter().for_each(|(_, name, bytes)| world.put(*name, bytes, true));
    let catalog = world.catalog();
    let path = catalog.path(Timeline(1)).unwrap();
    let walk = || catalog.walk(&path, Lsn(0), Lsn(u64::MAX), &|_| true, &mut |_| Ok(ControlFlow::Continue(()))).unwrap();
    walk();
    assert_eq!(catalog.rebuild(Timeline(1), false).unwrap().written, 1);
    walk();
    late.iter().for_each(|(_, name, bytes)| world.put(*name, bytes, true));
    let first: Vec<String> = world.nodes().into_keys().collect();
    let done = catalog.rebuild(Timeline(1), false).unwrap();
    assert!(done.kept == 1 && done.written >= 2, "{done:?}");
    let whole = 1 + done.written;
    let done = catalog.rebuild(Timeline(1), true).unwrap();
    assert_eq!((done.deleted, done.written), (whole, whole), "{done:?}");
    let all = world.nodes();
    assert!(all.len() as u64 == whole && first.iter().all(|name| all.contains_key(name)));
    // A catalog opened now sees all of it.
    let stored: BTreeMap<_, _> = log.segments.iter().map(|(_, name, _)| (*name, true)).collect();
    compare_all(&world, &[&log], &stored, &mut fastrand::Rng::with_seed(1));
}

#[test]
fn a_path_says_what_is_missing() {
    let mut one = Writer::new(1, 1);
    (0..4).for_each(|_| one.segment());
    let mut two = one.fork(2);
    (0..2).for_each(|_| two.segment());
    let (one, two) = (one.finish(), two.finish());
    let world = World::new();
    world.put_all(&one);
    world.put_all(&two);
    let catalog = world.catalog();
    let unknown = catalog.path(Timeline(9)).unwrap_err();
    assert!(unknown.kind == Kind::Target && unknown.what.contains("timeline 9") && unknown.hint.unwrap().contains("1, 2"));
    let error = catalog.path(Timeline(2)).unwrap_err();
    assert!(error.kind == Kind::Target && error.what.contains("00000002.history"), "{error}");
    world.put_history(&two, &[&one]);
    let catalog = world.catalog();
    let path = catalog.path(Timeline(2)).unwrap();
    assert_eq!(
        path.legs().iter().map(|leg| (leg.timeline, leg.end)).collect::<Vec<_>>(),
        [(Timeline(1), two.begin), (Timeline(2), Lsn(u64::MAX))]
    );
    assert_eq!(catalog.timelines()[1].segments, Some((two.segments[0].1, two.segments.last().unwrap().1)));
}

/// The program itself: pushes leave nodes behind, never fail because of them, and say what recovery will stumble over.
#[test]
fn the_catalog_never_holds_up_archiving() {
    let log = crossing_log(40);
    let site = Site::new();
    site.become_cluster(SYSTEM_ID, usize::try_from(SEGMENT_BYTES).unwrap());
    let index = site.repository().join(format!("clusters/main/{SYSTEM_ID}/index"));
    let push = |numbers: std::ops::RangeInclusive<u64>, damage: bool| {
        let mut arguments = vec!["push-wal".to_owned()];
        for (_, name, bytes) in log.segments.iter().filter(|(number, ..)| numbers.contains(number)) {
            let mut bytes = bytes.clone();
            if damage {
                bytes[500_000] ^= 1;
            }
            site.write(&name.to_string(), bytes);
            arguments.push(format!("pg_wal/{name}"));
        }
        site.run(arguments).exits(0)
    };
    assert_eq!(push(1..=31, false).stderr, "");
    assert!(!index.exists());
    // Something is in the way of the first node.
    std::fs::create_dir_all(index.parent().unwrap()).unwrap();
    std::fs::write(&index, "not a directory").unwrap();
    push(32..=32, false).says(&["000000010000000000000020", "is stored", "could not be brought up to date"]);
    std::fs::remove_file(&index).unwrap();
    let damaged = push(33..=33, true);
    damaged.says(&["000000010000000000000021", "recovery will stop", "0/21", "archived all the same"]);
    let rebuilt = site.run(["catalog", "rebuild", "--json"]).exits(0);
    let report: serde_json::Value = serde_json::from_str(&rebuilt.stdout).unwrap();
    assert_eq!((&report[0]["written_nodes"], &report[0]["incomplete_blocks"]), (&1.into(), &2.into()), "{report}");
    assert_eq!(report[0]["written_changes"], 1, "{report}");
    let mut nodes = files_below(&index);
    nodes.retain(|path| !path.to_str().unwrap().contains("/c1/"));
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    std::fs::write(&nodes[0], "not a node").unwrap();
    let again = site.run(["catalog", "rebuild", "--force", "--timeline", "1"]).exits(0);
    assert!(again.stdout.contains("1 nodes written, 0 kept, 1 deleted first"), "{}", again.stdout);
    site.run(["catalog", "rebuild", "--timeline", "7"]).exits(15).says(&["timeline 7"]);
}
