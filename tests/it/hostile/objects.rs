//! Hostile nodes, WAL summaries, histories and bindings, read by the catalog, `list` and `resolve`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walvis::config::Config;
use walvis::deadline::Deadline;
use walvis::error::{Error, Kind};
use walvis::format::node::{Aggregate, Children, Edge, Node};
use walvis::ops::catalog::{CatalogRequest, List};
use walvis::ops::list::ListRequest;
use walvis::ops::{catalog, list, resolve};
use walvis::pg::scan::{Damage, End, Mark, PgTime, Reason, RestorePointName, Summary, Xid, XidRange};
use walvis::pg::target::{Target, Zone};
use walvis::pg::{Lsn, Timeline, WalFileName};
use walvis::recovery::ResolveRequest;
use walvis::repo::{Content, ObjectName, Repository};

use super::{asked, canary, finish, is_refusal, kind_of, prepared, raw, round, rounds, run};
use crate::resolve_random::facts;
use crate::support::command::files_below;
use crate::support::wal::Writer;

/// Segments of the first timeline: enough for nodes of two levels.
const SEGMENTS: u32 = 280;

/// A long log of two timelines with its catalog. Of the segments only the summaries are stored.
struct World {
    inner: super::manifests::World,
    nodes: Vec<PathBuf>,
    segments: Vec<PathBuf>,
}

fn zone() -> Zone {
    Zone::parse("UTC").unwrap()
}

impl World {
    fn new() -> Self {
        let inner = super::manifests::World::new();
        inner.store(&inner.truth);
        let (repository, cluster) = (&inner.repository, &inner.cluster);
        let mut writer = Writer::new(7, 1);
        let mut child = None;
        for number in 0..SEGMENTS {
            writer.busy(3);
            if number == SEGMENTS / 2 {
                let mut second = writer.fork(2);
                let history = format!("1\t{}\tno reason\n", second.lsn());
                let content = Content::of_bytes(history.as_bytes());
                repository.put_wal(cluster, facts().system_id, &WalFileName::History(Timeline(2)), &content).unwrap();
                second.busy(5);
                second.busy(5);
                child = Some(second);
            }
        }
        for writer in [Some(writer), child].into_iter().flatten() {
            for (_, name, bytes) in writer.finish().segments {
                let mut scanner =
                    walvis::pg::scan::Scanner::new(walvis::pg::scan::Segment::new(name, facts().wal_segment_size).unwrap(), ());
                scanner.push(&bytes);
                let summary = scanner.finish().summary.encode_within(walvis::limits::MAX_SUMMARY_BYTES);
                let content = Content::of_bytes(b"").with_summary(summary);
                // The first few are there whole.
                match repository.put_wal(cluster, facts().system_id, &WalFileName::Segment(name), &content) {
                    Err(e) if e.kind == Kind::Conflict => {}
                    other => drop(other.unwrap()),
                }
            }
        }
        for timeline in [1, 2] {
            repository.catalog(cluster, facts()).unwrap().rebuild(Timeline(timeline), false).unwrap();
        }
        let all = files_below(&inner.place.path().join("repository"));
        let holding = |part: &str| -> Vec<PathBuf> {
            let mut found: Vec<PathBuf> = all.iter().filter(|path| path.to_str().unwrap().contains(part)).cloned().collect();
            found.sort();
            found
        };
        let (mut nodes, segments) = (holding("/index/"), holding("/wal/0000000"));
        nodes.retain(|path| !["/c1/", "/c2/"].iter().any(|level| path.to_str().unwrap().contains(level)));
        assert!(nodes.len() > 15 && segments.len() > 270, "{} nodes, {} segments", nodes.len(), segments.len());
        Self { inner, nodes, segments }
    }

    fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    fn name(&self, path: &Path) -> ObjectName {
        let root = self.inner.place.path().join("repository");
        ObjectName::parse(path.strip_prefix(root).unwrap().to_str().unwrap()).unwrap()
    }

    /// Stores something else under a name, sealed as it must be.
    fn replace(&self, path: &Path, plain: &[u8], summary: Option<Vec<u8>>) {
        let _ = fs::remove_file(path);
        self.repository().put(&self.name(path), &Content::of_bytes(plain).with_summary(summary)).unwrap();
    }
}

/// What reads the catalog; an answer that there is no such target is one.
fn read_all(config: &Config, random: &mut fastrand::Rng) -> Vec<(&'static str, Result<(), Error>)> {
    let deadline = || Deadline::after(Duration::from_secs(60));
    let listed = |list| {
        let request = CatalogRequest { list: Some(list), from: None, to: None, timeline: None, system_id: None, zone: zone() };
        let mut lines = 0_u64;
        catalog::list(config, &request, deadline(), &mut |_| {
            lines += 1;
            if lines > 100_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    };
    let resolved = |target| {
        let request =
            ResolveRequest { target, inclusive: true, timeline: None, from: None, backup: None, system_id: None, zone: zone() };
        resolve::run(config, &request, deadline()).map(drop)
    };
    let target = match random.u32(0..5) {
        0 => Target::Time(PgTime((1 << 40) + random.i64(0..2_000_000))),
        1 => Target::Xid(Xid::new(random.u32(1001..2000)).unwrap()),
        2 => Target::Name(RestorePointName::new(b"busy").unwrap()),
        3 => Target::Lsn(Lsn(random.u64(0x10_0000..SEGMENTS as u64 * 0x10_0000))),
        _ => Target::Latest,
    };
    let other = match random.u32(0..4) {
        0 => ("overview", catalog::overview(config, deadline()).map(drop)),
        1 => ("commits", listed(List::Commits)),
        2 => ("restore points", listed(List::RestorePoints)),
        _ => ("list", list::run(config, &ListRequest::default(), deadline(), None).map(drop)),
    };
    vec![("resolve", resolved(target)), other]
}

fn odd(random: &mut fastrand::Rng) -> u64 {
    match random.u32(0..3) {
        0 => random.u64(..),
        1 => u64::MAX - random.u64(0..3),
        _ => 1 << random.u32(0..64),
    }
}

/// Changes bytes as somebody would who knows that they are numbers.
fn poke(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) -> String {
    let at = random.usize(0..bytes.len());
    match random.u32(0..6) {
        0 => {
            bytes[at] = random.u8(..);
            format!("byte {at}")
        }
        1 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        2 => {
            let end = (at + random.usize(1..40)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            let to = random.usize(0..bytes.len());
            bytes.splice(to..to, copy);
            format!("{at} to {end} again at {to}")
        }
        3 => {
            bytes.extend((0..random.usize(1..100)).map(|_| random.u8(..)));
            "bytes at the end".to_owned()
        }
        _ => {
            let end = bytes[at..].iter().position(|byte| byte & 0x80 == 0).map_or(bytes.len(), |len| at + len + 1);
            let (value, mut number) = (odd(random), Vec::new());
            raw::put(&mut number, value);
            bytes.splice(at..end, number);
            format!("the number at {at} is {value}")
        }
    }
}

fn node(node: &mut Node, random: &mut fastrand::Rng) -> String {
    let value = odd(random);
    match &mut node.children {
        Children::Segments(entries) => {
            let entry = random.choice(entries).unwrap();
            match random.u32(0..6) {
                0 => entry.good_until = Lsn(value),
                1 => entry.first_record = Some(Lsn(value)),
                2 => entry.last_record = Some(Lsn(value)),
                3 => entry.edge = *random.choice(&[Edge::Broken, Edge::Stops, Edge::Follows]).unwrap(),
                4 => entry.crossing = None,
                _ => aggregate(&mut entry.aggregate, value, random),
            }
        }
        Children::Nodes(aggregates) => aggregate(random.choice(aggregates).unwrap(), value, random),
    }
    format!("a value {value} of {:?}", node.id)
}

fn aggregate(aggregate: &mut Aggregate, value: u64, random: &mut fastrand::Rng) {
    let marks = &mut aggregate.marks;
    match random.u32(0..9) {
        0 => marks.restore_points = value,
        1 => marks.checkpoints = value,
        2 => marks.backup_ends = value,
        3 => (marks.files, marks.parameters, marks.minimal) = (value, value, value),
        4 => marks.names = value,
        5 => aggregate.stops = value,
        6 => aggregate.xacts = None,
        _ => {
            if let Some(xacts) = &mut aggregate.xacts {
                match random.u32(0..4) {
                    0 => (xacts.count, xacts.aborts) = (value, value),
                    1 => xacts.min_time = PgTime(i64::MIN),
                    2 => (xacts.min_time, xacts.max_time) = (PgTime(value.cast_signed()), PgTime(i64::MAX)),
                    _ => xacts.xids = Some(XidRange::ALL),
                }
            }
        }
    }
}

fn summary(summary: &mut Summary, random: &mut fastrand::Rng) -> String {
    let value = odd(random);
    let start = summary.segment.start().0;
    let near = Lsn(start + value % summary.segment.size_bytes() / 8 * 8);
    match random.u32(0..7) {
        0 => summary.end = End::EndOfData { at: near },
        1 => {
            let damage = Damage { at: near, seen_at: near, reason: Reason::Crc, found: value };
            summary.end = End::Damaged(damage);
        }
        2 => summary.end = End::Continuation,
        3 => {
            if let Some(records) = &mut summary.records {
                (records.first, records.count) = (near, value);
            }
        }
        4 => {
            if let Some(stats) = &mut summary.xact_stats {
                (stats.count, stats.min_time, stats.max_time) = (value, PgTime(i64::MIN), PgTime(i64::MAX));
            }
            summary.xacts = None;
        }
        5 => {
            for mark in summary.marks.iter_mut().flatten() {
                mark.what = match random.u32(0..4) {
                    0 => Mark::BackupEnd { start: Lsn(value) },
                    1 => Mark::Overwrite { dead: Lsn(value), time: PgTime(value.cast_signed()) },
                    2 => Mark::EndOfRecovery {
                        time: PgTime(value.cast_signed()),
                        timeline: Timeline(value as u32),
                        previous_timeline: Timeline(u32::MAX),
                    },
                    _ => Mark::TablespaceDrop { tablespace: value as u32 },
                };
            }
        }
        _ => summary.origin = None,
    }
    format!("a value {value} at {near}")
}

/// Reads everything after each change of one object, which is put back then.
fn read_after(world: &World, (seed, count): (u64, u64), change: &dyn Fn(&World, &mut fastrand::Rng) -> Changed) {
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    let place = world.inner.place.path();
    let repository = place.join("repository");
    let before = canary(place, &[&repository]);
    for (what, result) in read_all(&world.inner.config, &mut fastrand::Rng::with_seed(seed)) {
        assert!(result.is_ok() || matches!(&result, Err(e) if e.kind == Kind::Target), "{what}: {result:?}");
    }
    prepared();
    for number in 0..count {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let (path, original, what) = change(world, &mut random);
        let what = format!("WALVIS_TEST_SEED={} {}: {what}", seed.wrapping_add(number), path.display());
        for (command, result) in round(number, &what, || read_all(&world.inner.config, &mut random)) {
            *tally.entry(format!("{command} {}", kind_of(&result))).or_default() += 1;
            let is_answer = result.as_ref().is_err_and(|error| error.kind == Kind::Target);
            assert!(result.is_ok() || is_answer || is_refusal(result.as_ref().unwrap_err()), "{command}: {result:?}: {what}");
        }
        let _ = fs::remove_file(&path);
        if let Some(original) = original {
            fs::write(&path, original).unwrap();
        }
    }
    assert_eq!(canary(place, &[&repository]), before);
    finish(&tally);
}

#[test]
fn hostile_nodes_summaries_histories_and_bindings_mislead_nobody_into_a_panic() {
    rounds("objects::read_hostile_objects", 250);
}

/// A position in the log far behind where it should be: recovery seemed to end before its backup begins.
#[test]
fn what_misled_once_does_not_mislead_again() {
    run("objects::read_hostile_objects", 2_216_367_339_969_434_838, 1);
}

#[test]
#[ignore = "long: about 5 min"]
fn long_many_hostile_nodes_summaries_histories_and_bindings() {
    rounds("objects::read_hostile_objects", 10_000);
}

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn read_hostile_objects() {
    let world = World::new();
    read_after(&world, asked(), &|world, random| match random.u32(0..5) {
        0 | 1 => change_node(world, random),
        2 | 3 => change_summary(world, random),
        _ => change_text(world, random),
    });
}

/// Where an object was changed, what was there before, and how.
type Changed = (PathBuf, Option<Vec<u8>>, String);

fn change_node(world: &World, random: &mut fastrand::Rng) -> Changed {
    let path = random.choice(&world.nodes).unwrap().clone();
    let original = fs::read(&path).unwrap();
    let mut plain = Vec::new();
    world.repository().get(&world.name(&path), &mut plain).unwrap().unwrap();
    let mut decoded = Node::decode(&plain).unwrap();
    let mut what = node(&mut decoded, random);
    match decoded.encode() {
        Some(encoded) if random.bool() => plain = encoded,
        _ => what = poke(&mut plain, random),
    }
    world.replace(&path, &plain, None);
    (path, Some(original), what)
}

fn change_summary(world: &World, random: &mut fastrand::Rng) -> Changed {
    // Those at the end have no nodes over them, so they are read.
    let last = world.segments.len();
    let path = world.segments[random.usize(last - 30..last)].clone();
    let original = fs::read(&path).unwrap();
    let file = WalFileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let metadata = world.repository().wal_metadata(&world.inner.cluster, facts().system_id, &file).unwrap().unwrap();
    let mut bytes = metadata.wal_summary.unwrap();
    let mut decoded = Summary::decode(&bytes).unwrap();
    let mut what = summary(&mut decoded, random);
    // What a value cannot be, its writer need not survive.
    match std::panic::catch_unwind(|| decoded.encode()) {
        Ok(encoded) if random.bool() => bytes = encoded,
        _ => what = poke(&mut bytes, random),
    }
    world.replace(&path, b"", Some(bytes));
    (path, Some(original), what)
}

/// A history or a binding.
fn change_text(world: &World, random: &mut fastrand::Rng) -> Changed {
    let clusters = world.inner.place.path().join("repository/clusters/main");
    let value = odd(random);
    if random.bool() {
        let timeline = random.u32(2..6);
        let path = clusters.join(format!("{}/wal/history/{timeline:08X}.history", facts().system_id));
        let original = fs::read(&path).ok();
        let mut text = String::new();
        for _ in 0..random.u32(0..4) {
            let (parent, lsn) = (random.u32(0..4), if random.bool() { value } else { random.u64(0..400) << 20 });
            text += &format!("{parent}\t{:X}/{:X}\twhy\n", lsn >> 32, lsn & 0xFFFF_FFFF);
        }
        world.replace(&path, text.as_bytes(), None);
        return (path, original, text);
    }
    let generation = random.u32(1..5);
    let path = clusters.join(format!("bindings/{generation:08}"));
    let original = fs::read(&path).ok();
    let text = serde_json::json!({
        "system_id": if random.bool() { value.to_string() } else { facts().system_id.to_string() },
        "wal_segment_bytes": if random.bool() { value } else { 1 << 20 },
        "generation": if random.bool() { value % 6 } else { generation.into() },
        "bound_unix_s": value.cast_signed(),
    })
    .to_string();
    world.replace(&path, text.as_bytes(), None);
    (path, original, text)
}
