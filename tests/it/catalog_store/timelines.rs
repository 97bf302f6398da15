//! What questions to many timelines cost, and that what several paths have in common is the same for each.

use walvis::pg::scan::RestorePointName;
use walvis::pg::target::{Target, Zone};
use walvis::recovery::ends::{self, TimelineEnds};
use walvis::recovery::log::Log as _;
use walvis::recovery::path_log::PathLog;
use walvis::recovery::{ResolveRequest, answer};

use super::*;

/// The paths to all timelines, opened together and each by itself, with a catalog that remembers nothing yet.
pub(super) fn compare_stretches(world: &World) {
    let shared = world.catalog();
    let lines = ends::lines(&world.repository, &world.cluster, &shared).unwrap();
    assert_eq!(lines.len(), shared.timelines().len());
    for line in &lines {
        let own = world.catalog();
        let alone = PathLog::open_as_known(&world.repository, &world.cluster, &own, line.info.timeline).unwrap();
        assert_eq!((line.log.windows(), line.log.minimal()), (alone.windows(), alone.minimal()), "{}", line.info.timeline);
    }
}

/// A chain of promotions: each timeline is left at its end, and somebody goes on for a while on every second one.
fn promotions(world: &World, timelines: u32, segments: u32) {
    let mut writer = Writer::new(7, 1);
    let mut logs: Vec<Log> = Vec::new();
    for timeline in 1..=timelines {
        for at in 0..segments {
            if (timeline, at) == (timelines / 2, segments / 2) {
                writer.point("sought");
            }
            writer.segment();
        }
        let next = writer.fork(timeline + 1);
        (0..2 * (timeline % 2)).for_each(|_| writer.segment());
        let log = std::mem::replace(&mut writer, next).finish();
        world.put_all(&log);
        if timeline > 1 {
            world.put_history(&log, &logs.iter().collect::<Vec<_>>());
        }
        logs.push(log);
    }
}

#[test]
fn many_timelines_cost_what_they_hold() {
    let world = World::new();
    let timelines = 16;
    promotions(&world, timelines, 18);
    let mut objects = 0;
    world
        .store
        .list("", "", &mut |_| {
            objects += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    let cost = |ask: &dyn Fn()| {
        let before = (world.store.calls(Op::List), world.store.calls(Op::Read));
        ask();
        (world.store.calls(Op::List) - before.0, world.store.calls(Op::Read) - before.1)
    };
    let resolve = |target: Target| {
        let (inclusive, zone) = (true, Zone::utc());
        let request = ResolveRequest { target, inclusive, timeline: None, from: None, backup: None, system_id: None, zone };
        answer(&world.repository, &world.cluster, world.facts, &request).unwrap();
    };
    let asked = [
        ("open", cost(&|| drop(world.catalog()))),
        ("name", cost(&|| resolve(Target::Name(RestorePointName::new(b"sought").unwrap())))),
        ("xid", cost(&|| resolve(Target::Xid(Xid::new(1100).unwrap())))),
        ("time", cost(&|| resolve(Target::Time(PgTime(1 << 40))))),
        ("latest", cost(&|| resolve(Target::Latest))),
        ("ends", cost(&|| drop(TimelineEnds::of(&world.repository, &world.cluster, &world.catalog()).unwrap()))),
    ];
    for (what, (listings, reads)) in asked {
        eprintln!("{what}: {listings} listings, {reads} reads of {objects} objects");
        // One for its segments, and one for the nodes of each level that it has or could have.
        assert!(listings <= 5 * timelines as usize + 8, "{what}: {listings} listings");
        // Of what two threads want at the same moment some is read twice.
        assert!(reads <= objects + objects / 4 + 40, "{what}: {reads} reads of {objects} objects");
    }
    compare_stretches(&world);
}
