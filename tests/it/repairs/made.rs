//! Repairs made from another repository: what is damaged or missing is good again, or has a good copy beside it; killed
//! at any request, the next run goes on, and nobody who reads meanwhile meets anything worse than the damage.

use walvis::store::ErrorKind;
use walvis::store::fault::{Effect, Fault, Op};
use walvis::verify::repair::{RepairSource, Repaired, remove_needless_copies, repair};

use super::*;

/// What a repository has in these tests, and how a repair ends where all is allowed.
struct Objects {
    /// The first is replaced where it is damaged; the last of the timeline is not.
    segments: [ObjectName; 2],
    history: ObjectName,
    binding: ObjectName,
    pack: ObjectName,
}

fn genuine(number: u64) -> Vec<u8> {
    let mut wal = crate::support::wal::Writer::new(number, number);
    wal.point("here");
    wal.segment();
    wal.finish().segments.swap_remove(0).2
}

fn filled(encrypted: bool) -> (World, Objects) {
    let world = World::of_system(encrypted, SystemId(crate::support::wal::SYSTEM_ID));
    for number in [1, 2] {
        world.push(&segment(number), &genuine(number)).unwrap();
    }
    let history = WalFileName::History(Timeline(2));
    world.push(&history, b"1\t0/300000\tno recovery target specified\n").unwrap();
    let (pack, _) = pack(&world, BackupId::new(1_795_241_700, 7).unwrap());
    let segments = [1, 2].map(|number| world.wal(segment(number)));
    let binding = ObjectName::Binding { cluster: world.cluster.clone(), generation: 1 };
    (Objects { segments, history: world.wal(history), binding, pack }).with(world)
}

impl Objects {
    fn with(self, world: World) -> (World, Self) {
        (world, self)
    }

    fn replaced(&self) -> [&ObjectName; 2] {
        [&self.segments[0], &self.pack]
    }

    fn kept(&self) -> [&ObjectName; 3] {
        [&self.segments[1], &self.history, &self.binding]
    }
}

fn run(world: &World, source: &World, name: &ObjectName) -> Result<Repaired, Error> {
    repair(&world.again(), &RepairSource::new(&world.again(), &source.again()), name, false)
}

/// The object as readers see it.
fn read(world: &World, name: &ObjectName) -> Result<Option<Vec<u8>>, Error> {
    let again = world.again();
    if let ObjectName::Pack { pack, .. } = name {
        let reader = PackReader::new(&again, &world.cluster, world.facts.system_id);
        let mut all = Vec::new();
        for record in reader.contents(*pack)? {
            let place = RecordLocation { pack: *pack, offset: record.offset, sealed_bytes: record.sealed_bytes };
            let mut sealed = reader.range(*pack, place.offset.into(), place.end())?;
            reader.open(record.kind, &place, &mut sealed, None, &mut all)?;
        }
        return Ok(Some(all));
    }
    let mut bytes = Vec::new();
    Ok(again.get(name, &mut bytes)?.map(|_| bytes))
}

#[test]
fn what_is_damaged_or_missing_is_brought_back_from_a_copy() {
    for encrypted in [true, false] {
        let (world, objects) = filled(encrypted);
        let source = world.copy();
        let before = world.all();
        for name in objects.replaced().into_iter().chain(objects.kept()) {
            let good = world.bytes(name);
            assert_eq!(run(&world, &source, name).unwrap(), Repaired::Good);
            for (how, bytes) in damages(&good) {
                world.set(name, &bytes);
                let repaired = run(&world, &source, name).unwrap();
                assert_eq!(world.bytes(&repair_of(1, name)), good, "{how}: a copy stands beside it");
                if objects.replaced().contains(&name) {
                    assert_eq!(repaired, Repaired::Replaced, "{how}");
                    assert_eq!(world.bytes(name), good, "{how}");
                } else {
                    let Repaired::Beside { copy, because } = &repaired else { panic!("{how}: {repaired:?}") };
                    assert_eq!((copy, because.is_empty()), (&repair_of(1, name), false));
                    assert_eq!(world.bytes(name), bytes, "{how}: it was not touched");
                    assert!(read(&world, name).unwrap().is_some(), "{how}");
                    // A second run finds it so, and adds nothing.
                    assert_eq!(run(&world, &source, name).unwrap(), repaired, "{how}");
                }
                world.remove(&repair_of(1, name));
                world.set(name, &good);
            }
            world.remove(name);
            assert_eq!(run(&world, &source, name).unwrap(), Repaired::Created);
            assert!(world.all() == before, "exactly what was lost is there again: {name}");
        }
    }
}

fn repair_of(number: u32, name: &ObjectName) -> ObjectName {
    super::repair(number, name)
}

#[test]
fn where_nothing_can_be_deleted_the_copy_stays_beside() {
    let (world, objects) = filled(true);
    let source = world.copy();
    let denied = Fault::new(Arc::clone(&world.memory) as Arc<dyn Store>);
    denied.add(Op::Delete, "", 1, u64::MAX, Effect::Fail(ErrorKind::Denied));
    let target = Repository::over(Arc::new(denied), &world.secret, 1).unwrap();
    for name in objects.replaced().into_iter().chain(objects.kept()) {
        let (good, content) = (world.bytes(name), read(&world, name).unwrap());
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        world.set(name, &bad);
        let repaired = repair(&target, &RepairSource::new(&target, &source.again()), name, false).unwrap();
        assert!(matches!(&repaired, Repaired::Beside { copy, .. } if *copy == repair_of(1, name)), "{name}: {repaired:?}");
        assert_eq!((world.bytes(name), world.bytes(&repair_of(1, name))), (bad, good));
        assert_eq!(read(&world, name).unwrap(), content);
    }
    assert_eq!(remove_needless_copies(&target, &|| Ok(())).unwrap(), 0);
}

#[test]
fn a_repair_that_is_killed_at_any_request_is_finished_by_the_next() {
    let (world, objects) = filled(true);
    let source = world.copy();
    for name in objects.replaced().into_iter().chain(objects.kept()) {
        let (good, content) = (world.bytes(name), read(&world, name).unwrap());
        let mut bad = good.clone();
        bad[good.len() - 1] ^= 1;
        for (op, lost) in [(Op::Create, false), (Op::Create, true), (Op::Delete, false), (Op::Delete, true), (Op::Read, false)] {
            for nth in 1.. {
                world.set(name, &bad);
                let fault = Arc::new(Fault::new(Arc::clone(&world.memory) as Arc<dyn Store>));
                let target = Repository::over(Arc::clone(&fault) as Arc<dyn Store>, &world.secret, 1).unwrap();
                let effect = if lost { Effect::LoseAnswer } else { Effect::Fail };
                // From there on nothing is done any more.
                for all in [Op::Create, Op::Delete, Op::Read, Op::List] {
                    let first = if all == op { nth } else { u64::MAX };
                    fault.add(all, "", first, u64::MAX, effect(ErrorKind::Unreachable));
                }
                let first = repair(&target, &RepairSource::new(&target, &source.again()), name, false);
                // Whoever reads now is served, or is told of the damage; of what never goes missing, nobody is told
                // that it is not there.
                match read(&world, name) {
                    Ok(Some(bytes)) => assert_eq!(Some(bytes), content),
                    Ok(None) => assert!(objects.replaced().contains(&name) && read_wal(&world, name) == content),
                    Err(error) => assert_eq!(error.kind, Kind::Damaged, "{error:?}"),
                }
                let ended = first.is_ok();
                let second = run(&world, &source, name).unwrap();
                assert!(!matches!(second, Repaired::Lost { .. }), "{name} {op:?} {nth}: {second:?}");
                assert_eq!(read(&world, name).unwrap(), content, "{name} {op:?} {nth}");
                if objects.replaced().contains(&name) {
                    assert_eq!(world.bytes(name), good, "{name} {op:?} {nth}");
                }
                world.set(name, &good);
                for number in 1..4 {
                    world.remove(&repair_of(number, name));
                }
                if ended {
                    break;
                }
            }
        }
    }
}

/// A segment as a recovery gets it.
fn read_wal(world: &World, name: &ObjectName) -> Option<Vec<u8>> {
    world.fetch(name.wal_file().unwrap()).unwrap()
}

#[test]
fn wal_of_another_repository_is_sealed_anew_and_nothing_else_is_taken() {
    let (world, objects) = filled(true);
    let (other, _) = filled(true);
    let (open, _) = filled(false);
    for name in [&objects.segments[0], &objects.segments[1], &objects.history] {
        let (good, content) = (world.bytes(name), read(&world, name).unwrap());
        for source in [&other, &open] {
            // Its metadata say what it holds, and so which content is right.
            let mut bad = good.clone();
            *bad.last_mut().unwrap() ^= 1;
            world.set(name, &bad);
            let repaired = run(&world, source, name).unwrap();
            assert!(matches!(repaired, Repaired::Replaced | Repaired::Beside { .. }), "{repaired:?}");
            assert_eq!(read(&world, name).unwrap(), content);
            assert_ne!(world.bytes(&repair_of(1, name)), good);
            world.remove(&repair_of(1, name));
            // Nothing is known of it any more: what is not encrypted proves nothing.
            world.remove(name);
            let repaired = run(&world, source, name).unwrap();
            if std::ptr::eq(source, &other) {
                assert_eq!(repaired, Repaired::Created);
                assert_eq!(read(&world, name).unwrap(), content);
            } else {
                assert!(matches!(&repaired, Repaired::Lost { because } if because.contains("not encrypted")), "{repaired:?}");
            }
            world.set(name, &good);
        }
    }
    for name in [&objects.pack, &objects.binding] {
        let good = world.bytes(name);
        world.remove(name);
        let repaired = run(&world, &other, name).unwrap();
        assert!(matches!(&repaired, Repaired::Lost { because } if because.contains("WAL files only")), "{repaired:?}");
        world.set(name, &good);
    }
    // A segment of other content, of which the damaged one says that it is not its own; and one of another cluster.
    let name = &objects.segments[0];
    let good = world.bytes(name);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    world.set(name, &bad);
    other.remove(name);
    let mut changed = genuine(1);
    *changed.last_mut().unwrap() ^= 1;
    other.push(&segment(1), &changed).unwrap();
    let repaired = run(&world, &other, name).unwrap();
    assert!(matches!(&repaired, Repaired::Lost { because } if because.contains("other content")), "{repaired:?}");
    world.remove(name);
    other.remove(name);
    other.push(&segment(1), &plain_segment(1)).unwrap();
    let repaired = run(&world, &other, name).unwrap();
    assert!(matches!(&repaired, Repaired::Lost { because } if because.contains("what its name says")), "{repaired:?}");
    assert!(!world.all().contains_key(&name.to_string()));
}

#[test]
fn a_source_that_is_damaged_too_gives_nothing_and_its_good_copies_everything() {
    for encrypted in [true, false] {
        let (world, objects) = filled(encrypted);
        let source = world.copy();
        for name in objects.replaced().into_iter().chain(objects.kept()) {
            let good = world.bytes(name);
            for (how, bytes) in damages(&good) {
                world.set(name, &bytes);
                source.set(name, &bytes);
                let lost = run(&world, &source, name).unwrap();
                assert!(matches!(&lost, Repaired::Lost { because } if because.contains("is no good copy")), "{how}: {lost:?}");
                assert_eq!(world.bytes(name), bytes, "{how}: it was not touched");
                source.set(&repair_of(1, name), &good);
                let repaired = run(&world, &source, name).unwrap();
                assert!(matches!(repaired, Repaired::Replaced | Repaired::Beside { .. }), "{how}: {repaired:?}");
                // What stands beside it needs no source.
                world.set(name, &bytes);
                source.remove(&repair_of(1, name));
                assert_eq!(run(&world, &source, name).unwrap(), repaired, "{how}");
                world.remove(&repair_of(1, name));
            }
            world.set(name, &good);
            source.set(name, &good);
        }
    }
}

#[test]
fn copies_go_when_their_object_has_been_good_for_a_day() {
    let (world, objects) = filled(true);
    let source = world.copy();
    let [first, second] = objects.replaced();
    for name in [first, second, &objects.binding] {
        let mut bad = world.bytes(name);
        bad[100] ^= 1;
        world.set(name, &bad);
        run(&world, &source, name).unwrap();
    }
    // Two copies of one object, of which one is young.
    world.set(&repair_of(2, second), &world.bytes(second));
    let backdate = |name: &ObjectName| assert!(world.memory.backdate(&name.key().unwrap(), Duration::from_secs(90_000)));
    let remove = || remove_needless_copies(&world.again(), &|| Ok(())).unwrap();
    assert_eq!(remove(), 0);
    [first, second, &objects.binding].into_iter().for_each(|name| backdate(&repair_of(1, name)));
    assert_eq!(remove(), 1, "the first's: the second has a young one, and the binding is damaged");
    backdate(&repair_of(2, second));
    assert_eq!(remove(), 2);
    let left: Vec<String> = world.all().into_keys().filter(|name| name.starts_with("repairs/")).collect();
    assert_eq!(left, [repair_of(1, &objects.binding).to_string()]);
}
