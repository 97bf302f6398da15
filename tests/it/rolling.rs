//! Shares of a rolling verification: over weeks of runs everything is read once per period, the oldest first, and a run
//! with nothing to do does nothing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvis::deadline::Deadline;
use walvis::format::extent::{BackupId, PackId};
use walvis::limits::LISTED_PART_SEGMENTS;
use walvis::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::{
    ClusterName, Facts, ListedObject, ObjectName, ObjectSet, Repository, Secret, StoreSettings, StoreUrl, StoredName, SystemId,
    Verification, VerificationMode,
};
use walvis::store::fault::{Fault, Op};
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, Store};
use walvis::verify::{Listing, Share, share};

const DAY_S: u64 = 24 * 60 * 60;
const WEEK: Duration = Duration::from_secs(7 * DAY_S);

/// A repository in memory, in which time passes as the test says.
struct World {
    memory: Arc<MemoryStore>,
    store: Arc<Fault>,
    repository: Repository,
    cluster: ClusterName,
    facts: Facts,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("repository");
        let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
        Repository::init(&settings, &Secret::None, 1, Deadline::after(Duration::from_secs(60))).unwrap();
        let memory = Arc::new(MemoryStore::new());
        let descriptor = Bytes::from(std::fs::read(root.join("walvis.json")).unwrap());
        let _ = memory.create(&Key::new("walvis.json").unwrap(), descriptor, &ContentId([0; 16])).unwrap();
        let store = Arc::new(Fault::new(Arc::clone(&memory) as Arc<dyn Store>));
        let repository = Repository::over(Arc::clone(&store) as Arc<dyn Store>, &Secret::None, 1).unwrap();
        let size = WalSegmentSize::new(16 << 20).unwrap();
        let facts = Facts { system_id: SystemId(7), wal_segment_size: size, postgres_major: Some(18) };
        Self { memory, store, repository, cluster: ClusterName::new("main").unwrap(), facts }
    }

    fn segment(&self, timeline: u32, number: u64) -> ObjectName {
        let name = SegmentName::from_number(Timeline(timeline), number, self.facts.wal_segment_size).unwrap();
        ObjectName::wal(&self.cluster, self.facts.system_id, WalFileName::Segment(name))
    }

    fn pack(&self, backup: u32, number: u32) -> ObjectName {
        let pack = PackId { backup: backup_id(backup), number };
        ObjectName::Pack { cluster: self.cluster.clone(), system_id: self.facts.system_id, pack }
    }

    fn manifest(&self, backup: u32) -> ObjectName {
        let (cluster, system_id) = (self.cluster.clone(), self.facts.system_id);
        ObjectName::Manifest { cluster, system_id, backup: backup_id(backup) }
    }

    fn put(&self, name: &ObjectName, bytes: usize) {
        let key = Key::new(name.to_string()).unwrap();
        let _ = self.memory.create(&key, vec![1; bytes].into(), &ContentId([0; 16])).unwrap();
    }

    /// Lets time pass: all that is stored, evidence too, is that much older.
    fn pass(&self, time_s: u64) {
        for (key, _) in self.keys() {
            assert!(self.memory.backdate(&key, Duration::from_secs(time_s)));
        }
    }

    fn keys(&self) -> Vec<(Key, u64)> {
        let mut keys = Vec::new();
        let mut visit = |entry: walvis::store::Entry| {
            keys.push((entry.key, entry.size_bytes));
            ControlFlow::Continue(())
        };
        self.memory.list("", "", &mut visit).unwrap();
        keys
    }

    fn share(&self, period: Duration) -> Share {
        let remembered = self.repository.remembered(&self.cluster, self.facts.system_id).unwrap();
        assert_eq!(remembered.problems, []);
        let now = jiff::Timestamp::now().as_second();
        share(&self.repository, &self.cluster, self.facts, &remembered, period, now).unwrap()
    }

    /// Writes down that these were read: `damaged` of them were.
    fn remember(&self, share: &Share, whole: &ObjectSet, damaged: &ObjectSet, owed_bytes: u64) {
        let newest = self.repository.remembered(&self.cluster, self.facts.system_id).unwrap().newest;
        let verification = self.verification(share, whole, damaged, owed_bytes);
        self.repository.put_evidence(&self.cluster, self.facts.system_id, &verification, &newest).unwrap();
    }

    fn verification(&self, share: &Share, whole: &ObjectSet, damaged: &ObjectSet, owed_bytes: u64) -> Verification {
        Verification {
            mode: VerificationMode::Rolling,
            period_s: Some(WEEK.as_secs()),
            host: "db1".to_owned(),
            began_unix_us: jiff::Timestamp::now().as_microsecond(),
            duration_us: 0,
            interrupted: owed_bytes > 0,
            piece: 1,
            read_bytes: share.bytes,
            owed_bytes,
            whole: whole.clone(),
            damaged: damaged.clone(),
            backups: Vec::new(),
            findings: Vec::new(),
            findings_total: damaged.count(),
            findings_that_matter: damaged.count(),
        }
    }

    fn none(&self) -> ObjectSet {
        ObjectSet::new(self.facts.wal_segment_size)
    }

    /// Reads all of a share and finds it whole.
    fn read(&self, share: &Share) {
        if !share.objects.is_empty() {
            self.remember(share, &share.objects, &self.none(), 0);
        }
    }
}

fn backup_id(number: u32) -> BackupId {
    BackupId::new(1_790_000_000 + i64::from(number), number).unwrap()
}

fn has(objects: &ObjectSet, name: &ObjectName) -> bool {
    match name {
        ObjectName::Wal { file, .. } => objects.has_wal(file),
        ObjectName::Pack { pack, .. } => objects.has_pack(*pack),
        ObjectName::Manifest { backup, .. } => objects.has_manifest(*backup),
        _ => panic!("{name}"),
    }
}

/// Every day something is stored, something is deleted, and a share is read.
#[test]
fn everything_is_read_once_per_period() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new();
        // When each object was stored or last read, in days.
        let mut last: BTreeMap<String, (ObjectName, u64)> = BTreeMap::new();
        let mut next = 100;
        for day in 0..40_u64 {
            for _ in 0..if day == 0 { 150 } else { random.u64(0..20) } {
                let name = match random.u32(0..4) {
                    0 => world.pack(next, random.u32(0..3)),
                    1 => world.manifest(next),
                    _ => world.segment(1 + next % 2, next.into()),
                };
                next += 1;
                world.put(&name, random.usize(100..4000));
                last.insert(name.to_string(), (name, day));
            }
            if day == 0 {
                // Years of history that nobody ever read.
                world.pass(700 * DAY_S);
            }
            // Sometimes most of it goes at once.
            let (share_of, of) = if random.u32(0..15) == 0 { (3, 4) } else { (1, 30) };
            last.retain(|_, (name, _)| {
                let stays = random.u32(0..of) >= share_of;
                if !stays {
                    world.repository.objects().delete(name).unwrap();
                }
                stays
            });
            let share = world.share(WEEK);
            assert_eq!(share.total_objects, last.len() as u64);
            let mut bytes = 0;
            for (key, size) in world.keys() {
                if let Some((name, read)) = last.get_mut(key.as_str())
                    && has(&share.objects, name)
                {
                    *read = day;
                    bytes += size;
                }
            }
            assert_eq!(share.bytes, bytes, "day {day}");
            if day == 0 {
                assert!(share.bytes < share.total_bytes / 6, "the first run reads a day's share: {share:?}");
            }
            // A run comes a little late now and then; of an object at most half is left over.
            let oldest = last.values().map(|(_, read)| day - read).max().unwrap_or(0);
            assert!(oldest <= if day < 14 { 14 } else { 8 }, "seed {seed}, day {day}: something was last read {oldest} days ago");
            world.read(&share);
            world.pass(DAY_S + random.u64(0..600));
        }
    }
}

/// The oldest is first, whatever it is.
#[test]
fn the_oldest_is_read_first() {
    let world = World::new();
    for number in 0..28 {
        world.put(&world.segment(1, number), 1000);
        world.pass(DAY_S);
    }
    let mut order = Vec::new();
    for _ in 0..7 {
        let share = world.share(WEEK);
        order.extend((0..28).filter(|number| share.objects.has_segment(Timeline(1), *number)));
        world.read(&share);
        world.pass(DAY_S);
    }
    assert_eq!(order, (0..28).collect::<Vec<_>>());
}

/// As soon as a run is over there is nothing to do, and that costs one listing.
#[test]
fn a_run_with_nothing_new_reads_nothing() {
    let world = World::new();
    (0..50).for_each(|number| world.put(&world.segment(1, number), 1000));
    world.put(&world.manifest(1), 10);
    world.pass(30 * DAY_S);
    let first = world.share(Duration::from_secs(DAY_S));
    assert_eq!((first.bytes, first.objects.count()), (50_010, 51), "a day is over, so all is due");
    world.read(&first);
    world.pass(10);
    let before = world.store.calls(Op::List);
    let second = world.share(Duration::from_secs(DAY_S));
    assert!(second.objects.is_empty() && second.due_bytes == 0 && second.total_objects == 51, "{second:?}");
    let listings = world.store.calls(Op::List) - before;
    assert!(listings < 40, "{listings} listings");
    // What came since then has its turn when it is old enough.
    world.put(&world.segment(1, 50), 1000);
    world.pass(DAY_S / 10);
    let third = world.share(Duration::from_secs(DAY_S));
    assert!(third.bytes > 4000 && third.bytes < 6500 && !third.objects.has_segment(Timeline(1), 50), "{third:?}");
}

#[test]
fn what_was_damaged_is_read_again_every_time_and_what_was_left_over_next_time() {
    let world = World::new();
    (0..70).for_each(|number| world.put(&world.segment(1, number), 1000));
    world.pass(30 * DAY_S);
    let first = world.share(WEEK);
    assert_eq!(first.bytes, 10_000);
    let (mut damaged, mut whole) = (world.none(), world.none());
    damaged.insert_segments(Timeline(1), 3, 3);
    whole.insert_segments(Timeline(1), 0, 2);
    // It was stopped after four of ten.
    world.remember(&first, &whole, &damaged, 6000);
    world.pass(60);
    let second = world.share(WEEK);
    assert!(second.objects.has_segment(Timeline(1), 3), "{second:?}");
    assert!((7000..=8000).contains(&second.bytes) && !second.objects.has_segment(Timeline(1), 0), "{second:?}");
    world.read(&second);
    // Found whole, it is one like all others.
    world.pass(60);
    assert!(world.share(WEEK).objects.is_empty());
}

/// Evidence says nothing about an object that took the place of the one that was read.
#[test]
fn what_was_stored_again_was_not_read() {
    let world = World::new();
    (0..10).for_each(|number| world.put(&world.segment(1, number), 1000));
    world.pass(30 * DAY_S);
    world.read(&world.share(Duration::from_secs(DAY_S)));
    world.pass(DAY_S / 2);
    world.repository.objects().delete(&world.segment(1, 4)).unwrap();
    world.put(&world.segment(1, 4), 1000);
    world.pass(DAY_S / 2 - 60);
    // Half a day old, and never read; the others were read nearly a day ago.
    let share = world.share(Duration::from_secs(DAY_S));
    assert!(share.bytes >= 9000, "{share:?}");
    // All others are read again.
    let mut others = world.none();
    others.insert_segments(Timeline(1), 0, 3);
    others.insert_segments(Timeline(1), 5, 9);
    world.read(&Share { objects: others, ..share });
    world.pass(DAY_S / 2);
    assert!(world.share(Duration::from_secs(DAY_S)).objects.has_segment(Timeline(1), 4));
}

/// Listings that run at once see together what one sees.
#[test]
fn parts_of_a_listing_are_the_whole() {
    let world = World::new();
    let mut expected: Vec<String> = Vec::new();
    let far = LISTED_PART_SEGMENTS;
    for (timeline, numbers) in [(1, vec![0, 1, far - 1, far, far + 1, 5 * far, 5 * far + 3]), (2, vec![2 * far]), (9, vec![])] {
        for number in numbers {
            let name = world.segment(timeline, number);
            world.put(&name, 1);
            expected.push(name.to_string());
            let Some(WalFileName::Segment(segment)) = name.wal_file() else { panic!("{name}") };
            let partial = StoredName { file: WalFileName::Partial(*segment), copy: 2 };
            let name = ObjectName::wal(&world.cluster, world.facts.system_id, partial);
            world.put(&name, 1);
            expected.push(name.to_string());
        }
    }
    // A timeline of which nothing but this is there.
    let segment = SegmentName::from_number(Timeline(9), 5, world.facts.wal_segment_size).unwrap();
    for file in [WalFileName::Partial(segment), WalFileName::History(Timeline(2))] {
        let name = ObjectName::wal(&world.cluster, world.facts.system_id, file);
        let content = walvis::repo::Content::of_bytes(b"1\t0/3000000\tno recovery target specified\n");
        world.repository.put(&name, &content).unwrap();
        expected.push(name.to_string());
    }
    for backup in 0..40 {
        for number in 0..2 {
            world.put(&world.pack(backup, number), 1);
            expected.push(world.pack(backup, number).to_string());
        }
        // Of some there is no manifest.
        if backup % 3 > 0 {
            world.put(&world.manifest(backup), 1);
            expected.push(world.manifest(backup).to_string());
        }
    }
    let listing = Listing::new(&world.repository, &world.cluster, world.facts).unwrap();
    let parts = listing.visit(&|names: &mut Vec<String>, object: ListedObject| names.push(object.name.to_string())).unwrap();
    assert!(parts.len() > 10, "{}", parts.len());
    let mut all = parts.concat();
    all.sort_unstable();
    expected.sort_unstable();
    assert_eq!(all, expected);
}
