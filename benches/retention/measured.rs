//! Runs the program in a process of its own, and asks the kernel what that took.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// The first argument of this very program where it measures.
pub const MEASURE: &str = "--measure";

/// What a run of the program took, and answered.
pub struct Measured {
    /// From start to end.
    pub took: Duration,
    /// Of all its threads, in the program and in the kernel.
    pub cpu: Duration,
    /// Largest resident memory.
    pub peak_kib: u64,
    /// What it printed.
    pub answer: serde_json::Value,
}

/// Runs the program with this environment and nothing else of ours.
///
/// The kernel tells the peak of the largest child that was waited for: so a process of its own, which has no other,
/// starts the program and asks.
pub fn measure(directory: &Path, env: &[(OsString, OsString)], arguments: &[&str]) -> Measured {
    let answer = directory.join("answer.json");
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this)
        .arg(MEASURE)
        .arg(&answer)
        .args(arguments)
        .env_clear()
        .envs(env.iter().cloned())
        .env("HOME", directory)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [took_us, cpu_us, peak_kib, code] = numbers[..] else { panic!("{arguments:?}: {text}") };
    assert_eq!(code, 0, "{arguments:?}: {}", std::fs::read_to_string(&answer).unwrap());
    let answer = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();
    Measured { took: Duration::from_micros(took_us), cpu: Duration::from_micros(cpu_us), peak_kib, answer }
}

/// The process that measures: the file for the answer, then the arguments.
pub fn be_measured(arguments: &[String]) {
    let answer = std::fs::File::create(&arguments[0]).unwrap();
    let since = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_walvis")).args(&arguments[1..]).stdout(answer).status().unwrap();
    let took = since.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let cpu_us = us(usage.user_time()) + us(usage.system_time());
    println!("{} {cpu_us} {} {}", took.as_micros(), usage.max_rss(), status.code().unwrap_or(255));
}
