//! A writer that knows the format and the key, and means harm: random manifests, nodes, summaries, histories, bindings,
//! key objects and descriptors, mutated as values and not only as bytes, and read by the code that commands run.
//!
//! Whatever it writes: no panic, nothing outside the target changes, memory and work stay bounded, and what comes out
//! is "damaged" (14) or "refused" (16), or what was asked for, if the change is one that a reader need not mind.
//!
//! The rounds run in a process of their own, this very test binary, so that their memory can be limited and measured.
//! `WALVIS_TEST_SEED` repeats a run; a failure prints it. `tests/long.sh hostile` runs many more.

mod bombs;
mod keys;
mod manifests;
mod objects;
mod raw;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use walvis::error::{Error, Kind};
use walvis::limits::MIB;

/// Address space of the process that reads: what a restore's threads and buffers take, and no more.
const ADDRESS_SPACE_MIB: u64 = 1024;
/// What it may have in memory at its peak.
const PEAK_MIB: u64 = 160;
/// A round that takes longer hangs.
const HANGS_AFTER_S: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs a test of this binary with so many rounds, in a process with little memory.
fn rounds(test: &str, rounds: u64) {
    let seed = number("WALVIS_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    run(test, seed, number("WALVIS_TEST_ROUNDS").unwrap_or(rounds));
}

/// The same, beginning with a seed.
fn run(test: &str, seed: u64, rounds: u64) {
    let this = std::env::current_exe().unwrap();
    let limit = format!("ulimit -v {}; exec \"$0\" \"$@\"", ADDRESS_SPACE_MIB * 1024);
    let output = Command::new("sh")
        .args(["-c", &limit])
        .arg(this)
        .args(["--exact", &format!("hostile::{test}"), "--ignored", "--nocapture", "--test-threads=1"])
        .env("WALVIS_TEST_SEED", seed.to_string())
        .env("WALVIS_TEST_ROUNDS", rounds.to_string())
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "WALVIS_TEST_SEED={seed} WALVIS_TEST_ROUNDS={rounds}: {}\n{stdout}\n{stderr}",
        output.status
    );
    let tally = stdout.lines().filter(|line| line.starts_with("tally: ")).collect::<Vec<_>>().join("\n");
    println!("{test}: {rounds} rounds, seed {seed}\n{tally}");
}

/// In that process: the seed and the number of rounds.
fn asked() -> (u64, u64) {
    (number("WALVIS_TEST_SEED").expect("run by other tests"), number("WALVIS_TEST_ROUNDS").expect("run by other tests"))
}

/// Forgets what it took to prepare: the peak is that of reading.
fn prepared() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Does one round: it may not panic, and may not hang.
fn round<T>(seed: u64, what: &str, act: impl FnOnce() -> T) -> T {
    let since = std::time::Instant::now();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    let took = since.elapsed().as_secs();
    assert!(took < HANGS_AFTER_S, "round {seed} took {took} s: {what}");
    result.unwrap_or_else(|_| panic!("round {seed} panicked: {what}"))
}

/// Says at the end what came out how often, and that memory stayed small.
fn finish(tally: &BTreeMap<String, u64>) {
    for (what, count) in tally {
        println!("tally: {count:5} {what}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    let peak_mib = peak.parse::<u64>().unwrap() * 1024 / MIB as u64;
    println!("tally: peak resident memory {peak_mib} MiB of at most {PEAK_MIB}");
    assert!(peak_mib <= PEAK_MIB, "it took {peak_mib} MiB");
}

/// A directory for a world, in memory where there is such a file system: nothing here is about disks.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Of a file: kind and mode, owner, inode, length, change, and what a link leads to.
type Seen = (u32, u32, u64, u64, i64, Option<PathBuf>);

/// Everything below a directory but what is named.
fn canary(root: &Path, but: &[&Path]) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if but.contains(&path.as_path()) {
            continue;
        }
        let meta = std::fs::symlink_metadata(&path).unwrap();
        // The directory that the target is in changes with it.
        let changed = if meta.is_dir() { 0 } else { meta.ctime_nsec() ^ meta.ctime() };
        let length = if meta.is_dir() { 0 } else { meta.len() };
        found.insert(path.clone(), (meta.mode(), meta.uid(), meta.ino(), length, changed, std::fs::read_link(&path).ok()));
        if meta.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

/// Whether an error is one that hostile objects may lead to.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind, Kind::Damaged | Kind::Refused)
}

fn kind_of<T>(result: &Result<T, Error>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("{:?}", error.kind),
    }
}
