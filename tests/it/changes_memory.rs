//! Memory of a join of very many change sets, each as long as it may be: what a backup does first that reads only what
//! changed.
//!
//! As in [`memory`](crate::memory), a process of its own is measured: this very test binary, which runs [`join`].

use std::path::Path;
use std::process::Command;

use walvis::limits::MAX_CHANGES_MEMORY_BYTES;

use crate::support::changed_log::{self, Sets};

/// So many that two nodes of the highest level lie between both ends, and many of the others.
const SEGMENTS: u64 = 12_000;
/// What a backup takes at most.
const PROMISED_MIB: u64 = 256;

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn join() {
    let root = std::env::var("WALVIS_TEST_JOIN").expect("run by other tests");
    let set = changed_log::join(&changed_log::open(Path::new(&root)), SEGMENTS);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    let runs: usize = set.relations().map(|(_, extents)| extents.runs().len()).sum();
    println!("joined: {} {} {runs} {}", mib("VmHWM:"), mib("VmRSS:"), set.is_everything().is_some());
}

#[track_caller]
fn stays_within(sets: Sets) {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("repository");
    changed_log::make(&root, SEGMENTS, sets);
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "changes_memory::join", "--ignored", "--nocapture", "--test-threads=1"])
        .env("WALVIS_TEST_JOIN", &root)
        .output()
        .unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{text}\n{}", String::from_utf8_lossy(&ran.stderr));
    let (_, line) = text.split_once("joined: ").unwrap_or_else(|| panic!("it joined nothing: {text}"));
    let fields: Vec<&str> = line.lines().next().unwrap().split(' ').collect();
    let [peak, left, runs] = [0, 1, 2].map(|at| fields[at].parse::<u64>().unwrap());
    eprintln!("a join of {SEGMENTS} segments with {sets:?} sets: {peak} MiB at most, {left} MiB afterwards, {runs} runs");
    // So many that it was coarser in between, and yet not given up.
    assert!(runs > 1_000_000 && runs as usize * 8 <= MAX_CHANGES_MEMORY_BYTES && fields[3] == "false", "{line}");
    assert!(peak <= PROMISED_MIB, "joining took {peak} MiB");
}

#[test]
fn of_random_extents() {
    stays_within(Sets::Random);
}

#[test]
fn of_as_many_runs_as_there_can_be() {
    stays_within(Sets::EverySecond);
}
