//! The tests' S3 server as a program, for `benches/archive.sh`:
//! `cargo bench --bench s3_server -- [--tls] [--delay-ms N]`.
//!
//! It prints what a client needs as `NAME=value` lines and runs until its standard input ends. Objects lie in the
//! directory for temporary files. Every request waits for the delay first.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::indexing_slicing, unreachable_pub, dead_code)]

#[allow(unused_imports)]
#[path = "../tests/it/support/s3/mod.rs"]
mod s3;

use std::io::Read;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let delay_ms = arguments.iter().position(|a| a == "--delay-ms").and_then(|at| arguments.get(at + 1));
    let delay_ms: u64 = delay_ms.map_or(0, |text| text.parse().expect("--delay-ms N"));
    let server = if arguments.iter().any(|a| a == "--tls") { s3::S3Server::start_tls() } else { s3::S3Server::start() };
    if delay_ms > 0 {
        server.set_latency(Duration::from_millis(delay_ms));
    }
    println!("ENDPOINT={}", server.endpoint());
    println!("CA_FILE={}", server.ca_file().map(|path| path.display().to_string()).unwrap_or_default());
    println!("BUCKET={}\nACCESS_KEY={}\nSECRET_KEY={}\nREGION={}", s3::BUCKET, s3::ACCESS_KEY, s3::SECRET_KEY, s3::REGION);
    println!("READY=1");
    let mut rest = Vec::new();
    // Whatever comes, and then the end.
    let _ = std::io::stdin().read_to_end(&mut rest);
}
