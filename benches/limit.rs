//! What this machine can do at best: `cargo bench --bench limit -- [--threads N] SEGMENT…`.
//!
//! zstd at its level 1, ChaCha20-Poly1305 and BLAKE3 over segments in memory, each as its library does it best, on so
//! many threads (all cores unless told). No file is read or written meanwhile, nothing is scanned or synced, no process
//! is started: the limit that `benches/archive.sh` holds a push against. A throughput of all cores at once, so not one
//! of criterion's.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

mod lower_bound;

use lower_bound::LowerBound;

/// How often each segment is taken.
const ROUNDS: usize = 8;

/// CPU time of this process so far, in seconds.
fn cpu_s() -> Result<f64, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok([usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next().ok_or("--threads N")?.parse()?,
            flag if flag.starts_with("--") => {}
            file => files.push(std::fs::read(file).map_err(|error| format!("{file}: {error}"))?),
        }
    }
    let Some(longest) = files.iter().map(Vec::len).max() else {
        return Err("usage: cargo bench --bench limit -- [--threads N] SEGMENT…".into());
    };
    // Everybody takes the next segment, so that slow cores do not hold up fast ones.
    let total = files.len() * ROUNDS;
    let next = AtomicUsize::new(0);
    let (begin, cpu) = (Instant::now(), cpu_s()?);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut lower_bound = LowerBound::new(longest);
                while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < total) {
                    let plain = files.get(at % files.len()).map_or(&[][..], Vec::as_slice);
                    black_box(blake3::hash(plain));
                    let bytes = lower_bound.compress(plain);
                    lower_bound.encrypt(bytes);
                }
            });
        }
    });
    let took = begin.elapsed().as_secs_f64();
    println!(
        "limit: {:.2} segments/s on {threads} threads, {:.2} ms of CPU time each",
        total as f64 / took,
        (cpu_s()? - cpu) * 1e3 / total as f64
    );
    Ok(())
}
