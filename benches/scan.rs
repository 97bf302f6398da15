//! Time of the WAL scan of a segment, data in memory: `benches/micro.sh scan`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use walvis::format::changes;
use walvis::pg::changes::Collector;
use walvis::pg::scan::{BlockRef, Scanner, Segment, Summary, Visitor};
use walvis::pg::{Lsn, WalSegmentSize};

mod segments;

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

fn scans(criterion: &mut Criterion) {
    for (name, bytes) in segments::given() {
        let size = WalSegmentSize::new(bytes.len() as u64).unwrap_or_else(|| panic!("{name}: not a segment's size"));
        let segment = Segment::new(name, size).unwrap_or_else(|| panic!("{name}: an impossible name"));
        let (summary, blocks) = scan(segment, &bytes, Blocks::default());
        let encoded = summary.encode();
        let span = changes::span_of(segment).unwrap_or_else(|| panic!("{name}: not a segment's size"));
        let with_changes = || {
            let (summary, collector) = scan(segment, &bytes, Collector::new(segment.size_bytes()));
            (summary, changes::encode(span, &collector.finish()))
        };
        let set = with_changes().1;
        println!(
            "{name}: {} MiB, {} records, {} transactions, {} block references, summary {} bytes, change set {} bytes",
            bytes.len() >> 20,
            summary.records.map_or(0, |records| records.count),
            summary.xact_stats.map_or(0, |stats| stats.count),
            blocks.0,
            encoded.len(),
            set.len(),
        );

        let mut group = criterion.benchmark_group("scan");
        group.sample_size(50).throughput(Throughput::Bytes(bytes.len() as u64));
        let id = |what: &str| BenchmarkId::new(what, name);
        group.bench_function(id("scan"), |b| b.iter(|| scan(segment, &bytes, ())));
        group.bench_function(id("scan, with blocks"), |b| b.iter(|| scan(segment, &bytes, Blocks::default())));
        group.bench_function(id("scan, with the change set"), |b| b.iter(with_changes));
        group.bench_function(id("CRC-32C of the file alone"), |b| b.iter(|| crc32c::crc32c(&bytes)));
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function(id("encode the summary"), |b| b.iter(|| summary.encode()));
        group.bench_function(id("decode the summary"), |b| b.iter(|| Summary::decode(&encoded)));
        group.finish();
    }
}

criterion_group!(benches, scans);
criterion_main!(benches);
