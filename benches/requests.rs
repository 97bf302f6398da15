//! How many requests questions to a repository take, and how long with 30 ms for each:
//! `cargo bench --profile dev --bench requests [-- SCENE…]`. What is counted does not depend on how it was compiled.
//!
//! | scene | what is made |
//! |---|---|
//! | `timelines` | a chain of `WALVIS_BENCH_TIMELINES` promotions (64), each `WALVIS_BENCH_SEGMENTS` segments (40) long |
//! | `backups` | `WALVIS_BENCH_BACKUPS` backups (1,000) of one timeline of 40 segments |
//! | `changes` | `WALVIS_BENCH_CHANGED` segments (10,000) whose changes are joined, as a backup does that reads only what changed |
//!
//! Segments are of 1 MiB; on every second timeline a few are written after it was left. The log is made up, and stored
//! as a push stores it; of backups there are heads of manifests. Requests are those of this program's own calls of the
//! library; "opens" are what `strace` sees of the command below the repository's directory, of files and directories.
//! Without `strace` that column is empty.
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

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use walvis::format::extent::BackupId;
use walvis::format::manifest::BackupSummary;
/// For the WAL writer of the tests.
use walvis::pg;
use walvis::pg::scan::{Event, RestorePointName};
use walvis::pg::target::{Target, Zone};
use walvis::pg::{Lsn, WalFileName};
use walvis::recovery::ends::TimelineEnds;
use walvis::recovery::{ResolveRequest, answer};
use walvis::repo::{Content, Repository, Secret, SystemId};
use walvis::store::Store;
use walvis::store::fault::{Effect, Fault, Op};
use walvis::store::file::FileStore;

#[path = "../tests/it/support/backup.rs"]
mod backup;
#[path = "../tests/it/support/changed_log.rs"]
#[allow(dead_code)] // The tests use all of it.
mod changed_log;
#[path = "../tests/it/support/wal.rs"]
#[allow(dead_code)] // The tests use all of it.
mod wal;

use backup::made_up;
use changed_log::{Sets, cluster, facts, init, put_segments};
use wal::{Log, SEGMENT_BYTES, SYSTEM_ID, Writer};

const LATENCY: Duration = Duration::from_millis(30);
/// The restore point that is looked for.
const SOUGHT: &str = "sought";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn put_backup(repository: &Repository, number: u32, timeline: u32, start: Lsn) {
    let id = BackupId::new(1_790_000_000 + i64::from(number) * 3600, number).unwrap();
    let summary = BackupSummary {
        start_lsn: start,
        checkpoint_lsn: Lsn(start.0 + 8),
        stop_lsn: Lsn(start.0 + 16),
        timeline,
        wal_segment_bytes: SEGMENT_BYTES,
        ..made_up(id, SystemId(SYSTEM_ID))
    };
    // A manifest that nobody reads beyond its head.
    let mut bytes = vec![0; 16 << 10];
    fastrand::Rng::with_seed(u64::from(number)).fill(&mut bytes);
    repository.put_manifest(&cluster(), facts().system_id, &summary, || Box::new(std::io::Cursor::new(bytes.clone()))).unwrap();
}

/// Where the first transaction of a log ends, from a segment on: a backup may begin there.
fn some_record(log: &Log, from: Lsn) -> Lsn {
    let found = log.found.iter().find(|record| record.start >= from && matches!(record.what, Event::XactEnd(_)));
    found.expect("a transaction").start
}

/// A chain of promotions.
fn timelines(root: &Path) -> Repository {
    let repository = init(root);
    let (timelines, segments) = (number("WALVIS_BENCH_TIMELINES", 64), number("WALVIS_BENCH_SEGMENTS", 40));
    let mut writer = Writer::new(7, 1);
    let mut history = String::new();
    for timeline in 1..=timelines {
        for at in 0..segments {
            if timeline == timelines / 2 && at == segments / 2 {
                writer.point(SOUGHT);
            }
            writer.segment();
        }
        let next = writer.fork(u32::try_from(timeline + 1).unwrap());
        // Somebody went on for a while on every second one.
        (0..3 * (timeline % 2)).for_each(|_| writer.segment());
        let log = std::mem::replace(&mut writer, next).finish();
        put_segments(&repository, &log);
        if timeline == 1 {
            put_backup(&repository, 1, 1, some_record(&log, Lsn(2 * SEGMENT_BYTES)));
        } else {
            history += &format!("{}\t{}\tno recovery target specified\n", timeline - 1, log.begin);
            let content = Content::of_bytes(history.as_bytes());
            repository.put_wal(&cluster(), facts().system_id, &WalFileName::History(log.timeline), &content).unwrap();
        }
    }
    repository
}

fn backups(root: &Path) -> Repository {
    let repository = init(root);
    let mut writer = Writer::new(7, 1);
    for at in 0..40 {
        if at == 35 {
            writer.point(SOUGHT);
        }
        writer.segment();
    }
    let log = writer.finish();
    put_segments(&repository, &log);
    let start = some_record(&log, Lsn(2 * SEGMENT_BYTES));
    let count = u32::try_from(number("WALVIS_BENCH_BACKUPS", 1000)).unwrap();
    for number in 1..=count {
        put_backup(&repository, number, 1, Lsn(start.0 + u64::from(number) * 8));
        if number.is_multiple_of(16) {
            repository.index_backups(&cluster(), facts().system_id).unwrap();
        }
    }
    repository
}

/// A question: its name, how it is asked of the library, and as a command.
struct Question {
    name: &'static str,
    ask: fn(&Repository),
    command: &'static [&'static str],
}

fn resolve(repository: &Repository, target: Target) {
    let request =
        ResolveRequest { target, inclusive: true, timeline: None, from: None, backup: None, system_id: None, zone: Zone::utc() };
    let report = answer(repository, &cluster(), facts(), &request).unwrap();
    assert!(report.reachable, "{report:?}");
}

fn questions() -> [Question; 5] {
    let open: fn(&Repository) = |repository| drop(repository.catalog(&cluster(), facts()).unwrap());
    [
        Question { name: "open the catalog", ask: open, command: &[] },
        Question {
            name: "resolve --target-name",
            ask: |repository| resolve(repository, Target::Name(RestorePointName::new(SOUGHT.as_bytes()).unwrap())),
            command: &["resolve", "--target-name", SOUGHT],
        },
        Question {
            name: "resolve --target latest",
            ask: |repository| resolve(repository, Target::Latest),
            command: &["resolve", "--target", "latest"],
        },
        Question {
            name: "list",
            ask: |repository| {
                let (cluster, mut found) = (cluster(), 0);
                let catalog = repository.catalog(&cluster, facts()).unwrap();
                let ends = TimelineEnds::of(repository, &cluster, &catalog).unwrap();
                for backup in repository.known_backups(&cluster, facts().system_id).unwrap() {
                    found += usize::from(ends.reach_of(&backup.summary.unwrap()).is_some());
                }
                assert!(found > 0);
            },
            command: &["list"],
        },
        Question { name: "catalog", ask: |_| (), command: &["catalog"] },
    ]
}

/// What `strace` sees of a command: files and directories opened below the repository.
fn opens(root: &Path, command: &[&str]) -> Option<usize> {
    let trace = root.with_extension("trace");
    let ran = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=open,openat,openat2", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_walvis"))
        .args(["--repository", &format!("file://{}", root.display()), "--cluster", "main"])
        .args(command)
        .output()
        .ok()?;
    assert!(ran.status.success(), "{ran:?}");
    let trace = std::fs::read_to_string(trace).unwrap();
    // Below a directory that is open the rest is relative.
    let (elsewhere, here) = ("(AT_FDCWD, \"/", root.display().to_string());
    let is_below = |line: &&str| !line.contains(" = -1 ") && (!line.contains(elsewhere) || line.contains(&here));
    Some(trace.lines().filter(is_below).count())
}

type Make = fn(&Path) -> Repository;

fn measure(scene: &str, make: Make, questions: &[Question]) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("repository");
    drop(make(&root));
    println!("{scene:<26} {:>9} {:>9} {:>9} {:>12} {:>9}", "listings", "reads", "(s)", "at 30 ms (s)", "opens");
    for question in questions {
        let run = |latency: Duration| {
            let store = Arc::new(Fault::new(Arc::new(FileStore::open(&root).unwrap())));
            if !latency.is_zero() {
                store.add(Op::Read, "", 1, u64::MAX, Effect::Delay(latency));
                store.add(Op::List, "", 1, u64::MAX, Effect::Delay(latency));
            }
            let repository = Repository::over(Arc::clone(&store) as Arc<dyn Store>, &Secret::None, 1).unwrap();
            let begun = Instant::now();
            (question.ask)(&repository);
            (store.calls(Op::List), store.calls(Op::Read), begun.elapsed())
        };
        let (listings, reads, here) = run(Duration::ZERO);
        let elapsed = if number("WALVIS_BENCH_TIMED", 1) == 0 { Duration::ZERO } else { run(LATENCY).2 };
        let opened = if question.command.is_empty() { None } else { opens(&root, question.command) };
        let opened = opened.map_or_else(String::new, |count| count.to_string());
        let (here_s, elapsed_s) = (here.as_secs_f64(), elapsed.as_secs_f64());
        println!("  {:<24} {listings:>9} {reads:>9} {here_s:>9.2} {elapsed_s:>12.1} {opened:>9}", question.name);
    }
}

/// How many segments the changes of which are joined.
fn changed_segments() -> u64 {
    number("WALVIS_BENCH_CHANGED", 10_000)
}

fn changes(root: &Path) -> Repository {
    changed_log::make(root, changed_segments(), Sets::Random)
}

fn join(repository: &Repository) {
    let set = changed_log::join(repository, changed_segments());
    assert!(set.is_everything().is_none() && set.relations().next().unwrap().1.count() > 100_000);
}

fn main() {
    let join = Question { name: "join the changes", ask: join, command: &[] };
    let scenes: [(&str, Make, Vec<Question>); 3] = [
        ("timelines", timelines, questions().into()),
        ("backups", backups, questions().into()),
        ("changes", changes, vec![join]),
    ];
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (scene, make, questions) in scenes {
        if asked.is_empty() || asked.iter().any(|wanted| wanted == scene) {
            measure(scene, make, &questions);
        }
    }
}
