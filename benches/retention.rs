//! What retention and verification take in a repository of years:
//! `cargo bench --bench retention -- [--segments N] [--backups N] [--delay-ms N] [--directory DIR] [--skip-s3]`.
//!
//! A repository of 1,000,000 segments and 1,000 daily backups is made in a directory below DIR ([the one for temporary
//! files], removed at the end), and looked at with the real program: a plan of `expire`, a quick look, and a rolling
//! verification after which nothing came. Beside them stands what it takes to walk through the same directory and to
//! ask for the size and time of every file. Then the same is done on the tests' S3 server, where every request waits:
//! with a tenth of it all, and with all of it. Requests are counted.
//!
//! What is made: an encrypted repository with all manifests, all nodes of the catalog, a year of evidence, and the
//! first segments and those of the last nine days. What is faked: all other segments, the packs and `.backup` files
//! have their names, lengths and times, and no content, since nothing of it is read; the entries in the nodes over such
//! segments are invented, and segments have 1 MiB.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    dead_code
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// For the WAL writer of the tests.
use walvis::pg;

#[path = "retention/made.rs"]
mod made;
#[path = "retention/measured.rs"]
mod measured;
#[allow(unused_imports)]
#[path = "../tests/it/support/s3/mod.rs"]
mod s3;
#[path = "../tests/it/support/wal.rs"]
mod wal;

use made::{Made, PERIOD_DAYS, Size, files_below};
use measured::{Measured, measure};
use s3::{Op, S3Server};

/// What the operator keeps.
const RULES: &str = "recovery_window = \"7d\"\nkeep_daily = 30\nkeep_weekly = 12\nkeep_monthly = 24\nkeep_yearly = 5\n";
/// The prefix in the bucket.
const PREFIX: &str = "pg";

struct Options {
    size: Size,
    delay: Duration,
    directory: PathBuf,
    with_s3: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let value = |name: &str| arguments.iter().position(|given| given == name).and_then(|at| arguments.get(at + 1));
        let number = |name: &str, default: u64| value(name).map_or(default, |text| text.parse().expect(name));
        Self {
            size: Size { segments: number("--segments", 1_000_000), backups: number("--backups", 1000) },
            delay: Duration::from_millis(number("--delay-ms", 30)),
            directory: value("--directory").map_or_else(std::env::temp_dir, PathBuf::from),
            with_s3: !arguments.iter().any(|given| given == "--skip-s3"),
        }
    }
}

/// One of the three things that are measured.
struct Task {
    what: &'static str,
    arguments: Vec<String>,
}

fn tasks() -> Vec<Task> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    // The rolling one first: it has nothing to do only for minutes after the last one.
    vec![
        Task { what: "rolling, nothing new", arguments: words(&format!("verify --rolling {PERIOD_DAYS}d --json")) },
        Task { what: "expire, plan", arguments: words("expire --json") },
        Task { what: "verify --quick", arguments: words("verify --quick --json") },
    ]
}

/// Runs the program in a repository, and sees that it did what is measured.
fn run(directory: &Path, url: &str, made: &Made, env: &[(OsString, OsString)], size: Size, task: &Task) -> Measured {
    let settings = directory.join("walvis.toml");
    let rules = format!("[repository.retention]\n{RULES}");
    let text = format!("cluster = \"main\"\n[[repository]]\nurl = \"{url}\"\nkey_file = \"{}\"\n{rules}", made.key.display());
    std::fs::write(&settings, text).unwrap();
    let mut env = env.to_vec();
    env.push(("WALVIS_CONFIG".into(), settings.into()));
    let arguments: Vec<&str> = task.arguments.iter().map(String::as_str).collect();
    let measured = measure(directory, &env, &arguments);
    let answer = &measured.answer[0];
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    match task.what {
        "expire, plan" => {
            let both = |name: &str| number(&answer["goes"][name]) + number(&answer["stays"][name]);
            assert_eq!((both("wal_files"), both("manifests")), (size.segments + size.backups, size.backups), "{answer}");
            assert!(number(&answer["goes"]["wal_files"]) > size.segments / 2, "{answer}");
        }
        _ => assert!(answer["findings"].as_array().is_some_and(Vec::is_empty), "{answer}"),
    }
    measured
}

/// Walks through a directory and asks for size and time of everything, as a listing does; how many files there are.
fn walk(directory: &Path) -> u64 {
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
    entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
    let mut files = 0;
    for entry in entries {
        if entry.file_type().unwrap().is_dir() {
            files += walk(&entry.path());
        } else {
            let stat = entry.metadata().unwrap();
            files += u64::from(stat.len() > 0 && stat.modified().unwrap() > UNIX_EPOCH);
        }
    }
    files
}

fn on_disk(directory: &Path, made: &Made, size: Size) {
    let url = format!("file://{}", made.root.display());
    let walked = || {
        let since = Instant::now();
        assert_eq!(walk(&made.root), made.objects);
        since.elapsed()
    };
    let walk = walked().min(walked());
    println!("directory: walk through {} files: {:.2} s", made.objects, walk.as_secs_f64());
    for task in tasks() {
        let Measured { took, cpu, peak_kib, .. } = run(directory, &url, made, &[], size, &task);
        let (took_s, cpu_s) = (took.as_secs_f64(), cpu.as_secs_f64());
        println!(
            "directory: {}: {took_s:.2} s, {:.1} x the walk, {cpu_s:.2} s of CPU, {} MiB",
            task.what,
            took_s / walk.as_secs_f64(),
            peak_kib / 1024
        );
    }
}

/// What a run on S3 took: its time, and requests by kind.
struct OnS3 {
    took: Duration,
    cpu: Duration,
    peak_kib: u64,
    lists: usize,
    gets: usize,
    others: usize,
}

impl OnS3 {
    fn requests(&self) -> usize {
        self.lists + self.gets + self.others
    }
}

fn on_s3(directory: &Path, made: &Made, size: Size, delay: Duration) -> Vec<OnS3> {
    let server = S3Server::start();
    for path in files_below(&made.root) {
        let name = path.strip_prefix(&made.root).unwrap().to_str().unwrap();
        server.insert_file(&format!("{PREFIX}/{name}"), &path);
    }
    server.set_latency(delay);
    let env: Vec<(OsString, OsString)> = server.env().into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let mut runs = Vec::new();
    for task in tasks() {
        server.clear_log();
        let Measured { took, cpu, peak_kib, .. } = run(directory, &server.url(PREFIX), made, &env, size, &task);
        let (lists, gets, all) = (server.seen(Op::List).len(), server.seen(Op::Get).len(), server.log().len());
        runs.push(OnS3 { took, cpu, peak_kib, lists, gets, others: all - lists - gets });
    }
    runs
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == measured::MEASURE) {
        return measured::be_measured(&arguments[1..]);
    }
    let Options { size, delay, directory, with_s3 } = Options::parse(&arguments);
    let temporary = tempfile::Builder::new().prefix("walvis-retention").tempdir_in(directory).unwrap();
    let made = |size: Size, name: &str| {
        let since = Instant::now();
        let made = Made::new(&temporary.path().join(name), size);
        eprintln!("made {} objects in {:.0} s", made.objects, since.elapsed().as_secs_f64());
        made
    };
    println!("{} segments, {} backups", size.segments, size.backups);
    let whole = made(size, "whole");
    on_disk(temporary.path(), &whole, size);
    if !with_s3 {
        return;
    }
    let small = size.tenth();
    let measured = on_s3(temporary.path(), &made(small, "tenth"), small, delay);
    let whole = on_s3(temporary.path(), &whole, size, delay);
    for ((task, tenth), all) in tasks().iter().zip(&measured).zip(&whole) {
        println!(
            "S3, {} ms: {}: a tenth {:.1} s, {} requests; all {:.1} s ({:.1} s of CPU), {} requests ({} listings, \
             {} reads, {} others), {} MiB",
            delay.as_millis(),
            task.what,
            tenth.took.as_secs_f64(),
            tenth.requests(),
            all.took.as_secs_f64(),
            all.cpu.as_secs_f64(),
            all.requests(),
            all.lists,
            all.gets,
            all.others,
            all.peak_kib / 1024
        );
    }
}
