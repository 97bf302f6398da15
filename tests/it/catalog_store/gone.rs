//! Readers are right while segments expire, at every step, and nothing says afterwards that what is gone is there.

use walvis::format::node::{NodeId, span};
use walvis::repo::ObjectSet;
use walvis::repo::catalog::IndexNode;
use walvis::store::memory::MemoryStore;
use walvis::store::{Created, StoreError};

use super::*;

/// Every part of the history that is still there is read as it is.
fn compare_rest(world: &World, logs: &[Log; 3], stored: &BTreeMap<SegmentName, bool>, random: &mut fastrand::Rng) {
    let [one, two, three] = logs;
    let legs: [&[&Log]; 3] = [&[one], &[one, two], &[one, two, three]];
    for legs in legs {
        let is_known = |log: &Log| log.timeline.0 > 1 || log.segments.iter().any(|(_, name, _)| stored.contains_key(name));
        let has_any = legs.iter().any(|log| {
            let end = legs.iter().find(|child| child.timeline > log.timeline).map_or(u64::MAX, |child| child.begin.0);
            log.segments.iter().any(|(number, name, _)| stored.contains_key(name) && number * SEGMENT_BYTES < end)
        });
        if is_known(legs.last().unwrap()) && has_any {
            compare_all(world, legs, stored, random);
        }
    }
}

/// What an expire could let go: all but a few stretches, and at a fork both copies of the segment or none.
fn let_go(logs: &[Log; 3], random: &mut fastrand::Rng) -> ObjectSet {
    let mut goes = ObjectSet::new(size());
    for log in logs {
        let (first, last) = (log.segments.first().unwrap().0, log.segments.last().unwrap().0);
        let (mut number, mut stays) = (first, random.u32(0..4) == 0);
        while number <= last {
            let until = (number + random.u64(0..30)).min(last);
            if !stays {
                goes.insert_segments(log.timeline, number, until);
            }
            (number, stays) = (until + 1, !stays);
        }
    }
    for pair in logs.windows(2) {
        let fork = pair[1].segments.first().unwrap().0;
        if pair.iter().any(|log| goes.has_segment(log.timeline, fork)) {
            pair.iter().for_each(|log| goes.insert_segments(log.timeline, fork, fork));
        }
    }
    goes
}

fn delete(world: &World, name: &ObjectName) {
    world.store.delete(&name.key().unwrap()).unwrap();
}

fn remove_nodes(world: &World, nodes: &[IndexNode]) {
    for node in nodes {
        delete(world, &node.name(&world.cluster, world.facts));
    }
}

/// No node says of a segment that it is there, when it is not.
fn assert_nodes_are_true(world: &World, stored: &BTreeMap<SegmentName, bool>) {
    for name in world.index().keys() {
        let (ObjectName::Node { timeline, level, first_segment, .. }
        | ObjectName::Changes { timeline, level, first_segment, .. }) = ObjectName::parse(name).unwrap()
        else {
            panic!("{name}")
        };
        for number in first_segment..first_segment + span(level) {
            let segment = SegmentName::from_number(timeline, number, size()).unwrap();
            assert!(stored.contains_key(&segment), "{name} is over {segment}, which is gone");
        }
    }
}

fn all_of(logs: &[Log; 3]) -> impl Iterator<Item = &(u64, SegmentName, Vec<u8>)> {
    logs.iter().flat_map(|log| &log.segments)
}

#[test]
fn readers_are_right_at_every_step_of_an_expire() {
    let (mut kept_nodes, mut removed) = (0, 0);
    for seed in 0..3 {
        let mut random = fastrand::Rng::with_seed(2000 + seed);
        let logs = long_history(seed);
        let world = World::new();
        world.put_history(&logs[1], &[&logs[0]]);
        world.put_history(&logs[2], &[&logs[0], &logs[1]]);
        logs.iter().for_each(|log| world.put_all(log));
        let mut stored: BTreeMap<SegmentName, bool> = all_of(&logs).map(|(_, name, _)| (*name, true)).collect();
        let goes = let_go(&logs, &mut random);
        let nodes = world.repository.nodes_without(&world.cluster, world.facts, &goes).unwrap();
        assert!(nodes.windows(2).all(|pair| pair[0].id.level >= pair[1].id.level));
        // Killed after some nodes, or after all.
        let (some, rest) = nodes.split_at(random.usize(0..=nodes.len()));
        remove_nodes(&world, some);
        compare_rest(&world, &logs, &stored, &mut random);
        remove_nodes(&world, rest);
        compare_rest(&world, &logs, &stored, &mut random);
        // Killed after some segments, in the order in which they go.
        let mut going: Vec<SegmentName> = all_of(&logs)
            .filter(|(number, name, _)| goes.has_segment(name.timeline, *number))
            .map(|(_, name, _)| *name)
            .collect();
        going.sort_unstable();
        let looks: BTreeSet<usize> = (0..2).map(|_| random.usize(0..=going.len())).chain([going.len()]).collect();
        for (step, name) in (1..).zip(&going) {
            let file = WalFileName::Segment(*name);
            delete(&world, &ObjectName::wal(&world.cluster, world.facts.system_id, file));
            stored.remove(name);
            if looks.contains(&step) && !stored.is_empty() {
                compare_rest(&world, &logs, &stored, &mut random);
                assert_nodes_are_true(&world, &stored);
            }
        }
        assert_eq!(world.repository.nodes_over(&world.cluster, world.facts, &goes).unwrap(), [], "{seed}");
        let nothing = ObjectSet::new(size());
        assert_eq!(world.repository.nodes_without(&world.cluster, world.facts, &nothing).unwrap(), [], "{seed}");
        // What is written from now on is of what is there: by a rebuild, or by pushes that come late or again.
        for log in &logs {
            world.catalog().rebuild(log.timeline, false).ok();
            for (_, name, _) in &log.segments {
                world.nodes_after(*name);
            }
        }
        assert_nodes_are_true(&world, &stored);
        compare_rest(&world, &logs, &stored, &mut random);
        (kept_nodes, removed) = (kept_nodes + world.nodes().len(), removed + nodes.len());
    }
    assert!(kept_nodes > 2 && removed > 5, "{kept_nodes} {removed}");
}

/// As `history`, with room for nodes of each timeline.
fn long_history(seed: u64) -> [Log; 3] {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut one = Writer::new(seed, 1);
    (0..random.u32(30..50)).for_each(|_| one.segment());
    let mut two = one.fork(2);
    (0..random.u32(3..20)).for_each(|_| one.segment());
    (0..random.u32(30..50)).for_each(|_| two.segment());
    let mut three = two.fork(3);
    (0..random.u32(30..60)).for_each(|_| three.segment());
    [one.finish(), two.finish(), three.finish()]
}

/// Nodes that are left over what is gone do not mislead at the ends of a timeline, and the next expire finds them.
#[test]
fn nodes_left_at_the_ends_mislead_nobody() {
    let mut writer = Writer::new(9, 230);
    (0..=320).for_each(|_| writer.segment());
    let log = writer.finish();
    for kept in [300..=400_u64, 512..=515, 530..=530, 230..=240] {
        let world = World::new();
        world.put_all(&log);
        let before = world.nodes().len();
        assert!(before > 15 && world.nodes().keys().any(|name| name.contains("/00000001/2/")), "{before}");
        let mut stored = BTreeMap::new();
        for (number, name, _) in &log.segments {
            if kept.contains(number) {
                stored.insert(*name, true);
            } else {
                delete(&world, &ObjectName::wal(&world.cluster, world.facts.system_id, WalFileName::Segment(*name)));
            }
        }
        let name = |number| SegmentName::from_number(Timeline(1), number, size()).unwrap();
        let info = world.catalog().timelines()[0].segments;
        assert_eq!(info, Some((name(*kept.start()), name(*kept.end()))));
        let wrong = world.repository.nodes_without(&world.cluster, world.facts, &ObjectSet::new(size())).unwrap();
        let look = || {
            let catalog = world.catalog();
            let (path, truth) = (catalog.path(Timeline(1)).unwrap(), truth(&[&log], &stored));
            for wanted in [true, false] {
                compare(&catalog, &path, &truth, (0, u64::MAX), &|_| wanted, &|_| wanted);
            }
            compare(&catalog, &path, &truth, (kept.end() - 5, u64::MAX), &|_| true, &|_| true);
        };
        assert!(wrong.len() > 12 && wrong.iter().any(|node| node.id.level == 2), "{wrong:?}");
        look();
        remove_nodes(&world, &wrong);
        look();
        assert_nodes_are_true(&world, &stored);
    }
}

/// A store in which the segments of a range go just before a node over them is stored.
struct Vanishing {
    inner: MemoryStore,
    doomed: Vec<Key>,
    /// What the name of the node has in it.
    trigger: &'static str,
    can_delete: std::sync::atomic::AtomicBool,
}

impl Store for Vanishing {
    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        if key.as_str().contains(self.trigger) {
            self.doomed.iter().for_each(|key| self.inner.delete(key).unwrap());
        }
        self.inner.create(key, body, content)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if self.can_delete.load(std::sync::atomic::Ordering::SeqCst) {
            return self.inner.delete(key);
        }
        let kind = walvis::store::ErrorKind::Denied;
        Err(StoreError::new(kind, format!("delete {key}"), self.location(), "this user may not delete"))
    }

    crate::support::forward::forward!(inner: location, begin, read, list, make_durable, delete_many, leftovers, remove_leftover, hidden, purge, features, can_replace);
}

/// What is under a node goes while the node is made: its writer takes it back, or the next expire does.
#[test]
fn a_node_that_comes_too_late_is_taken_back() {
    let log = crossing_log(40);
    for (trigger, may_delete) in [("/1/000000000000/0000000000000010", true), ("/1/000000000000/0000000000000010", false)] {
        let world = World::new();
        log.segments.iter().for_each(|(_, name, bytes)| world.put(*name, bytes, true));
        let inner = MemoryStore::new();
        let mut doomed = Vec::new();
        world
            .store
            .list("", "", &mut |entry| {
                let mut bytes = Vec::new();
                std::io::copy(&mut world.store.read(&entry.key, ReadRange::All).unwrap().body, &mut bytes).unwrap();
                let _ = inner.create(&entry.key, bytes.into(), &ContentId([0; 16])).unwrap();
                if let Some(ObjectName::Wal { file, .. }) = ObjectName::parse(entry.key.as_str())
                    && let WalFileName::Segment(name) = file.file
                    && name.number(size()).unwrap() <= 20
                {
                    doomed.push(entry.key);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(doomed.len(), 20);
        let can_delete = may_delete.into();
        let store = Arc::new(Vanishing { inner, doomed, trigger, can_delete });
        let repository = Repository::over(Arc::clone(&store) as Arc<dyn Store>, &Secret::None, 1).unwrap();
        let rebuilt = repository.catalog(&world.cluster, world.facts).unwrap().rebuild(Timeline(1), false).unwrap();
        // The first block never is whole, the second was when it was read, and the last is not yet.
        let last = log.segments.last().unwrap().0 / 16;
        assert_eq!((rebuilt.written, rebuilt.incomplete), (last - 2, 3), "{rebuilt:?}");
        let nothing = ObjectSet::new(size());
        let wrong = repository.nodes_without(&world.cluster, world.facts, &nothing).unwrap();
        // The node of the catalog, and that of changes.
        assert_eq!(wrong.len(), if may_delete { 0 } else { 2 }, "{wrong:?}");
        // Whatever is left, the ends of the timeline are what is stored.
        let catalog = repository.catalog(&world.cluster, world.facts).unwrap();
        let (first, _) = catalog.timelines()[0].segments.unwrap();
        assert_eq!(first.number(size()), Some(21));
        let path = catalog.path(Timeline(1)).unwrap();
        let all = steps(&catalog, &path, (0, u64::MAX), false, &|_| true);
        assert!(matches!(&all[0], Step::Missing { last, .. } if last.number(size()) == Some(20)), "{:?}", all[0]);
    }
}

/// The nodes that go are those over what goes and those whose last record may end there, and no others.
#[test]
fn nodes_go_with_what_is_under_them() {
    let mut writer = Writer::new(5, 256);
    (0..=300).for_each(|_| writer.segment());
    let log = writer.finish();
    let world = World::new();
    world.put_all(&log);
    let all: Vec<NodeId> = world
        .nodes()
        .keys()
        .map(|name| match ObjectName::parse(name) {
            Some(ObjectName::Node { timeline, level, first_segment, .. }) => {
                NodeId { timeline, size: size(), level, number: first_segment / span(level) }
            }
            _ => panic!("{name}"),
        })
        .collect();
    let mut goes = ObjectSet::new(size());
    goes.insert_segments(Timeline(1), 0, 299);
    let wrong: BTreeSet<(u32, u64)> = world
        .repository
        .nodes_without(&world.cluster, world.facts, &goes)
        .unwrap()
        .iter()
        .map(|node| (node.id.level, node.id.number))
        .collect();
    let expected: BTreeSet<(u32, u64)> =
        all.iter().filter(|node| node.first() <= 299).map(|node| (node.level, node.number)).collect();
    assert!(expected.contains(&(1, 18)) && expected.contains(&(2, 1)) && all.len() > expected.len() + 10);
    assert_eq!(wrong, expected);
}
