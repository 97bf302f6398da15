//! Time of the WAL scan per segment, data in memory: `cargo bench --bench scan -- SEGMENT…` with files as PostgreSQL names them.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use walvis::pg::scan::{BlockRef, Scanner, Segment, Summary, Visitor};
use walvis::pg::{Lsn, SegmentName, WalSegmentSize};

const ROUNDS: u32 = 20;

/// Wants blocks, and only counts them.
#[derive(Default)]
struct Blocks(u64);

impl Visitor for Blocks {
    const BLOCKS: bool = true;

    fn block(&mut self, _: Lsn, _: BlockRef) {
        self.0 += 1;
    }
}

fn scan<V: Visitor>(segment: Segment, bytes: &[u8], visitor: V) -> (Summary, V) {
    let mut scanner = Scanner::new(segment, visitor);
    scanner.push(bytes);
    let scanned = scanner.finish();
    (scanned.summary, scanned.visitor)
}

/// The best of several rounds: other work on the machine can only add.
fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let begin = Instant::now();
        std::hint::black_box(work());
        begin.elapsed()
    };
    (0..ROUNDS).map(once).min().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if files.is_empty() {
        eprintln!("usage: cargo bench --bench scan -- SEGMENT…");
    }
    for file in files {
        let bytes = std::fs::read(&file)?;
        let name =
            Path::new(&file).file_name().and_then(|name| SegmentName::parse(name.to_str()?)).ok_or("not a segment's name")?;
        let size = WalSegmentSize::new(bytes.len() as u64).ok_or("not a segment's size")?;
        let segment = Segment::new(name, size).ok_or("an impossible name")?;
        let (summary, blocks) = scan(segment, &bytes, Blocks::default());
        let encoded = summary.encode();
        let (plain, with_blocks) = (best(|| scan(segment, &bytes, ())), best(|| scan(segment, &bytes, Blocks::default())));
        let crc = best(|| crc32c::crc32c(&bytes));
        let (encode, decode) = (best(|| summary.encode()), best(|| Summary::decode(&encoded)));
        let (records, xacts) =
            (summary.records.map_or(0, |records| records.count), summary.xact_stats.map_or(0, |stats| stats.count));
        println!(
            "{name}: {} MiB, {records} records, {xacts} transactions, {} block references, summary {} bytes\n  scan {plain:?}, with blocks {with_blocks:?}, CRC of the file alone {crc:?}, encode {encode:?}, decode {decode:?}",
            bytes.len() >> 20,
            blocks.0,
            encoded.len(),
        );
    }
    Ok(())
}
