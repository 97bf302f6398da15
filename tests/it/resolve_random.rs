//! Targets on random stored histories, against a naive reading of them: three timelines, times that go to and fro,
//! records over one boundary or several, holes, segments without a summary, with nodes of the catalog and without.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvis::codec::Digest;
use walvis::deadline::Deadline;
use walvis::limits::MAX_SUMMARY_BYTES;
use walvis::pg::scan::{Event, Mark, PgTime, Record, Scanner, Segment, XactEnd};
use walvis::pg::target::Target;
use walvis::pg::{Lsn, SegmentName, WalFileName, WalSegmentSize};
use walvis::recovery::log::Log as _;
use walvis::recovery::path_log::PathLog;
use walvis::recovery::stop::{Stop, Unreachable, Wanted, find};
use walvis::repo::{ClusterName, Content, Facts, Repository, Secret, StoreSettings, StoreUrl, SystemId};
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, Store};

use crate::support::wal::{Log, SEGMENT_BYTES, SYSTEM_ID, Writer};

pub(crate) fn size() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT_BYTES).unwrap()
}

pub(crate) fn facts() -> Facts {
    Facts { system_id: SystemId(SYSTEM_ID), wal_segment_size: size(), postgres_major: Some(16) }
}

/// A repository in memory.
pub(crate) fn repository() -> Repository {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("repository");
    let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
    Repository::init(&settings, &Secret::None, 1, Deadline::after(Duration::from_secs(60))).unwrap();
    let memory = MemoryStore::new();
    let descriptor = Bytes::from(std::fs::read(root.join("walvis.json")).unwrap());
    let _ = memory.create(&Key::new("walvis.json").unwrap(), descriptor, &ContentId([0; 16])).unwrap();
    Repository::over(Arc::new(memory) as Arc<dyn Store>, &Secret::None, 1).unwrap()
}

pub(crate) fn put(repository: &Repository, cluster: &ClusterName, name: SegmentName, bytes: &[u8], scanned: bool) {
    let summary = scanned.then(|| {
        let mut scanner = Scanner::new(Segment::new(name, size()).unwrap(), ());
        scanner.push(bytes);
        scanner.finish().summary.encode_within(MAX_SUMMARY_BYTES).unwrap()
    });
    let content = Content::known(Digest::of(&mut &*bytes).unwrap(), || Box::new(bytes)).with_summary(summary);
    repository.put_wal(cluster, facts().system_id, &WalFileName::Segment(name), &content).unwrap();
}

/// A stretch of the log that is there, with its records that say something.
struct Stretch<'a> {
    from: Lsn,
    until: Lsn,
    records: Vec<&'a Record<Event>>,
}

/// What a reader of the files finds: segment by segment, from the newest timeline that has it.
fn stretches<'a>(legs: &[&'a Log], stored: &BTreeSet<SegmentName>) -> Vec<Stretch<'a>> {
    let end_of = |leg: usize| legs.get(leg + 1).map_or(Lsn(u64::MAX), |child| child.begin);
    let has = |leg: usize, number: u64| {
        let (begin, end) = (legs[leg].begin.0 / SEGMENT_BYTES, (end_of(leg).0 - 1) / SEGMENT_BYTES);
        let name = SegmentName::from_number(legs[leg].timeline, number, size()).unwrap();
        (begin..=end).contains(&number) && stored.contains(&name)
    };
    let last = legs.iter().flat_map(|log| log.segments.iter().map(|(number, ..)| *number)).max().unwrap();
    // A segment of which a timeline must have had one of its own is not taken from its parent.
    let must_have = |leg: usize, number: u64| {
        let is_stored = legs[leg].segments.iter().any(|(_, name, _)| stored.contains(name));
        let is_left_later = end_of(leg) != Lsn(u64::MAX) && (end_of(leg).0 - 1) / SEGMENT_BYTES > number;
        leg > 0 && number == legs[leg].begin.0 / SEGMENT_BYTES && (is_stored || is_left_later)
    };
    let (mut found, mut open): (Vec<Stretch<'a>>, Option<Stretch<'a>>) = (Vec::new(), None);
    for number in 0..=last + 1 {
        let newest = (0..legs.len()).rev().find(|leg| has(*leg, number));
        let Some(leg) = newest.filter(|newest| (newest + 1..legs.len()).all(|leg| !must_have(leg, number))) else {
            found.extend(open.take());
            continue;
        };
        let (from, until) = (Lsn(number * SEGMENT_BYTES), Lsn((number + 1) * SEGMENT_BYTES));
        let stretch = open.get_or_insert(Stretch { from, until, records: Vec::new() });
        stretch.until = until.min(end_of(leg));
        if end_of(leg) < until {
            found.extend(open.take());
        }
    }
    for stretch in &mut found {
        for (leg, log) in legs.iter().enumerate() {
            let of_leg = log.found.iter().filter(|r| log.begin <= r.start && r.start < end_of(leg));
            stretch.records.extend(of_leg.filter(|r| stretch.from <= r.start && r.end <= stretch.until));
        }
    }
    found
}

/// What the search must answer.
#[derive(Debug, PartialEq)]
enum Expected {
    Stops(Stop),
    Unreachable(&'static str),
}

fn expected(stretches: &[Stretch<'_>], wanted: &Wanted) -> Expected {
    let from = wanted.from.unwrap_or(Lsn(0));
    let own: Vec<&Stretch<'_>> =
        stretches.iter().filter(|s| wanted.from.is_none_or(|from| s.from <= from && from < s.until)).collect();
    let mut fits = Vec::new();
    for stretch in &own {
        let records: Vec<&&Record<Event>> = stretch.records.iter().filter(|r| r.start >= from).collect();
        let mut earlier = wanted.from.is_some();
        for record in records {
            match (&wanted.target, &record.what) {
                (Target::Time(target), Event::XactEnd(XactEnd { time, .. })) => {
                    if if wanted.inclusive { time > target } else { time >= target } {
                        return if earlier {
                            Expected::Stops(Stop { lsn: record.start, after: false })
                        } else {
                            Expected::Unreachable("out of the stretch")
                        };
                    }
                    earlier |= time <= target;
                }
                (Target::Time(target), Event::Mark(Mark::RestorePoint { time, .. })) => earlier |= time <= target,
                (Target::Xid(xid), Event::XactEnd(end)) if end.xid == Some(*xid) => {
                    fits.push(Stop { lsn: record.start, after: wanted.inclusive });
                }
                (Target::Name(name), Event::Mark(Mark::RestorePoint { name: found, .. })) if found == name => {
                    fits.push(Stop { lsn: record.start, after: true });
                }
                (Target::Lsn(lsn), _) if record.start == *lsn => fits.push(Stop { lsn: *lsn, after: wanted.inclusive }),
                _ => {}
            }
        }
    }
    match (&wanted.target, fits.as_slice()) {
        (Target::Time(_), _) => Expected::Unreachable("nothing later"),
        (_, []) => Expected::Unreachable("not found"),
        (_, [stop]) => Expected::Stops(*stop),
        (_, [first, ..]) if wanted.from.is_some() => Expected::Stops(*first),
        _ => Expected::Unreachable("ambiguous"),
    }
}

fn check(log: &PathLog<'_>, stretches: &[Stretch<'_>], wanted: &Wanted) {
    let answer = find(log, wanted).unwrap();
    let expected = expected(stretches, wanted);
    match (&answer, &expected) {
        (Ok(found), Expected::Stops(stop)) => {
            assert_eq!(found.stop, Some(*stop), "{wanted:?}");
            let stretch = stretches.iter().find(|s| s.from <= stop.lsn && stop.lsn < s.until).unwrap();
            let start = wanted.from.unwrap_or(stretch.from);
            let ends = stretch.records.iter().filter_map(|r| match &r.what {
                Event::XactEnd(end) if r.start >= start => Some((r.start, *end)),
                _ => None,
            });
            let (replayed, rest): (Vec<_>, Vec<_>) =
                ends.partition(|(lsn, _)| *lsn < stop.lsn || (stop.after && *lsn == stop.lsn));
            let last = replayed.iter().rfind(|(_, end)| end.kind.is_commit()).copied();
            assert_eq!(found.last_included.map(|end| (end.lsn, end.end)), last, "{wanted:?}");
            assert_eq!(found.first_excluded.map(|end| (end.lsn, end.end)), rest.first().copied(), "{wanted:?}");
        }
        (Err(Unreachable::Before | Unreachable::Gap { .. }), Expected::Unreachable("out of the stretch"))
        | (Err(Unreachable::After | Unreachable::Gap { .. }), Expected::Unreachable("nothing later"))
        | (Err(Unreachable::NotFound(_)), Expected::Unreachable("not found"))
        | (Err(Unreachable::Ambiguous(_)), Expected::Unreachable("ambiguous")) => {}
        _ => panic!("{wanted:?}: {answer:?}, but {expected:?}"),
    }
}

fn random_target(legs: &[&Log], random: &mut fastrand::Rng) -> Target {
    let log = random.choice(legs).unwrap();
    loop {
        let record = random.choice(&log.found).unwrap();
        match &record.what {
            Event::XactEnd(end) => match random.u32(0..6) {
                0 => return Target::Lsn(record.start),
                1 | 2 => return Target::Xid(end.xid.unwrap()),
                _ => return Target::Time(PgTime(end.time.0 + random.i64(-2..3) * random.i64(0..5000))),
            },
            Event::Mark(Mark::RestorePoint { name, .. }) => return Target::Name(name.clone()),
            _ => {}
        }
    }
}

fn histories(seed: u64) -> [Log; 3] {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut one = Writer::new(seed, 1);
    (0..random.u32(18..40)).for_each(|_| one.segment());
    if random.bool() {
        one.little();
    }
    let mut two = one.fork(2);
    (0..random.u32(3..8)).for_each(|_| one.segment());
    (0..random.u32(0..20)).for_each(|_| two.segment());
    two.little();
    let mut three = two.fork(3);
    (0..random.u32(1..12)).for_each(|_| three.segment());
    [one.finish(), two.finish(), three.finish()]
}

#[test]
fn targets_are_what_a_naive_reading_finds() {
    let cluster = ClusterName::new("main").unwrap();
    let (mut reached, mut refused) = (0, 0);
    for seed in 100..106 {
        let mut random = fastrand::Rng::with_seed(seed);
        let logs = histories(seed);
        let [one, two, three] = &logs;
        let repository = repository();
        for parents in [&[one, two][..], &[one, two, three]] {
            let text: String =
                parents.windows(2).map(|pair| format!("{}\t{}\tno reason\n", pair[0].timeline, pair[1].begin)).collect();
            let file = WalFileName::History(parents.last().unwrap().timeline);
            repository.put_wal(&cluster, facts().system_id, &file, &Content::of_bytes(text.as_bytes())).unwrap();
        }
        let holes = seed % 2 == 1;
        let mut stored = BTreeSet::new();
        for (_, name, bytes) in logs.iter().flat_map(|log| &log.segments) {
            if holes && random.u32(0..15) == 0 {
                continue;
            }
            put(&repository, &cluster, *name, bytes, random.u32(0..30) > 0);
            stored.insert(*name);
            if random.bool() {
                repository.write_nodes_after(&cluster, facts(), *name).unwrap();
            }
        }
        let catalog = repository.catalog(&cluster, facts()).unwrap();
        let paths: [&[&Log]; 3] = [&[one], &[one, two], &[one, two, three]];
        for legs in paths {
            let stretches = stretches(legs, &stored);
            let log = PathLog::open(&repository, &cluster, &catalog, legs.last().unwrap().timeline).unwrap();
            let starts: Vec<Lsn> = log.windows().iter().map(|window| window.from).collect();
            assert_eq!(starts, stretches.iter().map(|s| s.from).collect::<Vec<_>>());
            let records: Vec<&&Record<Event>> = stretches.iter().flat_map(|s| &s.records).collect();
            for _ in 0..40 {
                let target = random_target(legs, &mut random);
                let from = random.bool().then(|| random.choice(&records).unwrap().start);
                // Of positions where nothing is known to begin, or before the start, the tests of `search` have more.
                let (target, from) = match target {
                    Target::Lsn(_) => (Target::Lsn(random.choice(&records).unwrap().start), None),
                    other => (other, from),
                };
                let wanted = Wanted { target, inclusive: random.bool(), from };
                check(&log, &stretches, &wanted);
                match find(&log, &wanted).unwrap() {
                    Ok(_) => reached += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(reached > 200 && refused > 20, "{reached} {refused}");
}
