//! Time of lookups in the catalog of a long log, from opening the repository to the answer:
//! `cargo bench --bench catalog`.
//!
//! The log has `WALVIS_BENCH_LOG` segments, 1,000,000 unless told otherwise; the repository is made in
//! `WALVIS_BENCH_KEEP` and left there, or in a temporary directory.
//!
//! What is made: an unencrypted repository with the nodes of all levels, and real segments of 1 MiB (made-up WAL,
//! scanned and sealed as a push does) at both ends of the log, where no node covers them, and around what is looked
//! for. What is faked: all other segments are empty files, there to be listed and never read; the entries in the nodes
//! over them are invented. Files are written without syncing them. A second round answers each read and each listing 30
//! ms late.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs
)]

use std::ops::ControlFlow;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use walvis::codec::{self, Address, Digest, Sealing};
use walvis::deadline::Deadline;
use walvis::format::envelope::{Metadata, ObjectKind};
use walvis::format::node::{Aggregate, Children, Edge, Entry, FANOUT, Node, NodeId, span};
use walvis::limits::MAX_SUMMARY_BYTES;
/// For the WAL writer of the tests.
use walvis::pg;
use walvis::pg::scan::{Event, Mark, PgTime, Record, Scanner, Segment, Summary, XactStats, Xid, XidRange};
use walvis::pg::target::{Target, Zone};
use walvis::pg::{Lsn, SegmentName, Timeline, WalSegmentSize};
use walvis::recovery::ResolveRequest;
use walvis::repo::catalog::Step;
use walvis::repo::{ClusterName, Facts, Repository, Secret, StoreSettings, StoreUrl, SystemId};
use walvis::store::Store;
use walvis::store::fault::{Effect, Fault, Op};
use walvis::store::file::FileStore;

#[path = "../tests/it/support/wal.rs"]
#[allow(dead_code)]
mod wal;

use wal::{SEGMENT_BYTES, SYSTEM_ID, Writer};

const LATENCY: Duration = Duration::from_millis(30);
/// Microseconds of log in a segment, and the first one's time.
const SEGMENT_US: i64 = 30_000_000;
const FIRST_US: i64 = 1 << 49;
const XACTS: u64 = 200;
const TIMELINE: Timeline = Timeline(1);
/// The restore point that is looked for.
const SOUGHT: &str = "sought";
/// The log's only backup begins so many segments before what is looked for, so that a restore is a short one.
const BACKUP_BEFORE: u64 = 20;

fn size() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT_BYTES).unwrap()
}

fn xid(n: u64) -> Xid {
    Xid::new((n % 4_000_000_000) as u32 + 1000).unwrap()
}

/// Writes sealed objects past the store, which would sync each.
struct Maker {
    root: PathBuf,
    repository_id: [u8; 16],
}

impl Maker {
    fn write(&self, kind: ObjectKind, name: &str, plain: &[u8], wal_summary: Option<Vec<u8>>) {
        let digest = Digest::of(&mut &*plain).unwrap();
        let metadata = Metadata {
            plaintext_bytes: digest.bytes,
            plaintext_blake3: digest.blake3,
            wal_summary,
            ..Metadata::by_this_program()
        };
        let mut object = Vec::new();
        let address = Address { repository_id: &self.repository_id, kind, name };
        codec::seal(&mut &*plain, &mut object, address, None, &metadata, Sealing::with_level(1).unwrap()).unwrap();
        std::fs::write(self.root.join(name), object).unwrap();
    }
}

/// An invented entry; a real one where there is a summary.
fn entry(number: u64, real: Option<&Summary>) -> Entry {
    let start = Lsn(number * SEGMENT_BYTES);
    let min_time = FIRST_US + number as i64 * SEGMENT_US;
    let stats = XactStats {
        count: XACTS,
        aborts: 3,
        min_time: PgTime(min_time),
        max_time: PgTime(min_time + SEGMENT_US - 1000),
        xids: Some(XidRange { oldest: xid(number * XACTS), newest: xid(number * XACTS + XACTS - 1) }),
    };
    let mut aggregate = Aggregate { segments: 1, xacts: Some(stats), ..Aggregate::default() };
    if number.is_multiple_of(20) {
        aggregate.marks.checkpoints = 1;
    }
    if number.is_multiple_of(120) {
        let name = format!("hourly {number}");
        let name = pg::scan::RestorePointName::new(name.as_bytes()).unwrap();
        aggregate.marks.add(&Mark::RestorePoint { time: PgTime(min_time), name });
    }
    if let Some(summary) = real {
        aggregate.xacts = summary.xact_stats;
        aggregate.marks = Default::default();
        summary.marks.iter().flatten().for_each(|mark| aggregate.marks.add(&mark.what));
    }
    let name = SegmentName::from_number(TIMELINE, number, size()).unwrap();
    Entry {
        segment: name,
        start,
        first_record: Some(Lsn(start.0 + 40)),
        last_record: Some(Lsn(start.0 + SEGMENT_BYTES - 80)),
        good_until: Lsn(start.0 + SEGMENT_BYTES),
        edge: Edge::Follows,
        crossing: None,
        aggregate,
    }
}

/// What is looked for.
struct Targets {
    number: u64,
    time: PgTime,
    xid: Xid,
    lsn: Lsn,
}

fn make(root: &FilePath, segments: u64, repository_id: [u8; 16]) -> Targets {
    let maker = Maker { root: root.to_owned(), repository_id };
    let prefix = format!("clusters/main/{SYSTEM_ID}");
    let wal_name = |number: u64| {
        let name = SegmentName::from_number(TIMELINE, number, size()).unwrap();
        format!("{prefix}/wal/{:08X}/{:08X}/{name}", TIMELINE.0, name.log)
    };
    let (mut log, last) = (u64::MAX, segments);
    for number in 1..=last {
        if number / size().segments_per_log() != log {
            log = number / size().segments_per_log();
            let directory = root.join(wal_name(number));
            std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
        }
        std::fs::File::create(root.join(wal_name(number))).unwrap();
    }
    // Real segments: before the first node, after the last, and around the target.
    let target = last / 3;
    let (mut real, mut found): (Vec<(u64, Summary)>, Vec<Record<Event>>) = (Vec::new(), Vec::new());
    let edge = last / FANOUT * FANOUT;
    let mut backup = true;
    for (first, until) in [(1, FANOUT), (target - BACKUP_BEFORE, target + 2), (edge, last)] {
        let mut writer = Writer::new(first, first).at(FIRST_US + first as i64 * SEGMENT_US + 20_000, xid(first * XACTS).get());
        while writer.lsn().0 <= (until + 1) * SEGMENT_BYTES {
            (0..10).for_each(|_| writer.little());
            let number = writer.lsn().0 / SEGMENT_BYTES;
            if number == target {
                writer.point(SOUGHT);
            }
            if (target - BACKUP_BEFORE + 1..target).contains(&number) && std::mem::take(&mut backup) {
                writer.backup_end(Lsn((target - BACKUP_BEFORE) * SEGMENT_BYTES + 40));
            }
            writer.segment();
        }
        let log = writer.finish();
        found.extend(log.found);
        for (number, name, bytes) in log.segments.into_iter().filter(|(number, ..)| *number <= until) {
            let mut scanner = Scanner::new(Segment::new(name, size()).unwrap(), ());
            scanner.push(&bytes);
            let summary = scanner.finish().summary;
            maker.write(ObjectKind::Segment, &wal_name(number), &bytes, summary.encode_within(MAX_SUMMARY_BYTES));
            real.push((number, summary));
        }
    }
    let mut below: Vec<Aggregate> = Vec::new();
    let mut level = 1;
    loop {
        // Number 0 of each level would be over segment 0, which never exists.
        let nodes = (last / span(level)) as usize;
        if nodes <= 1 {
            break;
        }
        let directory = format!("{prefix}/index/{:08X}/{level}", TIMELINE.0);
        let mut aggregates = vec![Aggregate::default()];
        for number in 1..nodes as u64 {
            let id = NodeId { timeline: TIMELINE, size: size(), level, number };
            let children = if level == 1 {
                let summary = |n: u64| real.iter().find(|(number, _)| *number == n).map(|(_, summary)| summary);
                Children::Segments((id.first()..=id.last()).map(|n| entry(n, summary(n))).collect())
            } else {
                Children::Nodes(below[(number * FANOUT) as usize..][..FANOUT as usize].to_vec())
            };
            let node = Node { id, children };
            aggregates.push(node.aggregate());
            let directory = format!("{directory}/{:012x}", id.first() >> 16);
            if number == 1 || (id.first() >> 16) != (id.first() - 1) >> 16 {
                std::fs::create_dir_all(root.join(&directory)).unwrap();
            }
            maker.write(ObjectKind::Node, &format!("{directory}/{:016x}", id.first()), &node.encode().unwrap(), None);
        }
        below = aggregates;
        level += 1;
    }
    // In the segment itself, so that nothing earlier has it.
    let inside =
        |record: &&Record<Event>| record.start.0 / SEGMENT_BYTES == target && (record.end.0 - 1) / SEGMENT_BYTES == target;
    let xact = found.iter().filter(inside).find_map(|r| if let Event::XactEnd(x) = r.what { Some((r.start, x)) } else { None });
    let (lsn, xact) = xact.expect("a transaction in the target");
    Targets { number: target, time: xact.time, xid: xact.xid.unwrap(), lsn }
}

fn facts() -> Facts {
    Facts { system_id: SystemId(SYSTEM_ID), wal_segment_size: size(), postgres_major: Some(16) }
}

/// Opens the repository and its catalog and looks for something, as a command does.
fn look(store: &Arc<Fault>, target: &Targets, what: &str) -> bool {
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    let repository = Repository::over(store, &Secret::None, 1).unwrap();
    let cluster = ClusterName::new("main").unwrap();
    if what == "resolve" {
        // All that the command answers: also the files of the restore, and the earliest and latest target.
        let request = ResolveRequest {
            target: Target::Time(target.time),
            inclusive: true,
            timeline: None,
            from: None,
            backup: None,
            system_id: None,
            zone: Zone::utc(),
        };
        return walvis::recovery::answer(&repository, &cluster, facts(), &request)
            .unwrap()
            .wal
            .is_some_and(|wal| wal.present > BACKUP_BEFORE / 2);
    }
    let catalog = repository.catalog(&cluster, facts()).unwrap();
    let path = catalog.path(TIMELINE).unwrap();
    if what == "LSN" {
        let entry = catalog.entry_at(&path, target.lsn).unwrap().unwrap();
        return catalog.transactions(&path, &entry).unwrap().iter().any(|xact| xact.lsn == target.lsn);
    }
    let wanted = |aggregate: &Aggregate| match what {
        "time" => aggregate.may_end_at_or_after(target.time),
        "xid" => aggregate.may_have_xid(target.xid),
        _ => aggregate.may_have_restore_point(SOUGHT.as_bytes()),
    };
    let mut found = false;
    let mut visit = |step: Step| {
        if let Step::Segment(entry) = step {
            // Invented ones cannot be read; xids go around, so there are several that might have it.
            if entry.segment.number(size()) != Some(target.number) {
                return Ok(ControlFlow::Continue(()));
            }
            found = match what {
                "time" => catalog.transactions(&path, &entry)?.iter().any(|xact| xact.end.time >= target.time),
                "xid" => catalog.transactions(&path, &entry)?.iter().any(|xact| xact.end.xid == Some(target.xid)),
                _ => catalog
                    .marks(&path, &entry, false)?
                    .iter()
                    .any(|mark| matches!(&mark.what, Mark::RestorePoint { name, .. } if name.as_bytes() == SOUGHT.as_bytes())),
            };
        }
        Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    catalog.walk(&path, Lsn(0), Lsn(u64::MAX), &wanted, &mut visit).unwrap();
    found
}

fn lookups(criterion: &mut Criterion) {
    let segments: u64 = std::env::var("WALVIS_BENCH_LOG").map_or(1_000_000, |text| text.parse().expect("a number of segments"));
    let temporary = tempfile::tempdir().unwrap();
    let directory = std::env::var_os("WALVIS_BENCH_KEEP").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let root = directory.join("repository");
    let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
    let deadline = Deadline::after(Duration::from_secs(3600));
    let (repository, _) = Repository::init(&settings, &Secret::None, 1, deadline).unwrap();
    let target = make(&root, segments, repository.descriptor().repository_id);
    repository.bind(&ClusterName::new("main").unwrap(), facts()).unwrap();
    let mut group = criterion.benchmark_group(format!("catalog of {segments} segments"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_secs(1));
    for (latency, label) in [(Duration::ZERO, "no latency"), (LATENCY, "30 ms per request")] {
        for what in ["time", "LSN", "xid", "name", "resolve"] {
            let store = || {
                let store = Arc::new(Fault::new(Arc::new(FileStore::open(&root).unwrap())));
                if !latency.is_zero() {
                    store.add(Op::Read, "", 1, u64::MAX, Effect::Delay(latency));
                    store.add(Op::List, "", 1, u64::MAX, Effect::Delay(latency));
                }
                store
            };
            let counting = store();
            assert!(look(&counting, &target, what), "{what}");
            println!("{what}: {} listings, {} reads", counting.calls(Op::List), counting.calls(Op::Read));
            let find = |store: &Arc<Fault>| assert!(look(store, &target, what), "{what}");
            group.bench_function(BenchmarkId::new(what, label), |b| {
                b.iter_batched_ref(store, |s| find(s), BatchSize::PerIteration)
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
