//! Time of sealing and opening a segment, data in memory, beside what its parts take at least:
//! `benches/micro.sh codec`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use walvis::codec::{self, Address, Digest, Sealing};
use walvis::crypto::{DataKey, DataKeys};
use walvis::format::envelope::{Metadata, ObjectKind};

mod lower_bound;
mod segments;

use lower_bound::LowerBound;

const ADDRESS: Address<'static> = Address {
    repository_id: &[6; 16],
    kind: ObjectKind::Segment,
    name: "clusters/main/1/wal/00000001/00000000/000000010000000000000001",
};

/// The first pass over a file, which the name of its content needs.
fn digest(plain: &[u8]) -> Metadata {
    let digest = Digest::of(&mut &*plain).expect("memory can be read");
    Metadata { plaintext_bytes: digest.bytes, plaintext_blake3: digest.blake3, ..Metadata::by_this_program() }
}

/// The second pass: compressed, encrypted and hashed again.
fn seal(plain: &[u8], metadata: &Metadata, keys: &DataKeys) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len());
    codec::seal(&mut &*plain, &mut sealed, ADDRESS, keys.current(), metadata, Sealing { level: 1, salt: [7; 32] })
        .expect("memory can be written");
    sealed
}

fn open(sealed: &[u8], keys: &DataKeys) -> u64 {
    let opened = codec::open(sealed, ADDRESS, keys).expect("it was sealed so");
    opened.copy_to(&mut std::io::sink()).expect("it was sealed so").plaintext_bytes
}

fn codec(criterion: &mut Criterion) {
    let keys = DataKeys::Encrypted { current: DataKey::from_bytes([1; 32]).into(), earlier: Vec::new() };
    for (name, plain) in segments::given() {
        let metadata = digest(&plain);
        let sealed = seal(&plain, &metadata, &keys);
        let mut lower_bound = LowerBound::new(plain.len());
        let compressed = lower_bound.compress(&plain);
        println!("{name}: {} bytes, sealed {}, by zstd 1 in one call {compressed}", plain.len(), sealed.len());

        let mut group = criterion.benchmark_group("codec");
        group.sample_size(20).sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(plain.len() as u64));
        let id = |what: &str| BenchmarkId::new(what, name);
        group.bench_function(id("first pass"), |b| b.iter(|| digest(&plain)));
        group.bench_function(id("seal"), |b| b.iter(|| seal(&plain, &metadata, &keys)));
        group.bench_function(id("open"), |b| b.iter(|| open(&sealed, &keys)));
        group.bench_function(id("lower bound, BLAKE3"), |b| b.iter(|| blake3::hash(&plain)));
        group.bench_function(id("lower bound, zstd 1"), |b| b.iter(|| lower_bound.compress(&plain)));
        group.bench_function(id("lower bound, ChaCha20-Poly1305"), |b| b.iter(|| lower_bound.encrypt(compressed)));
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
