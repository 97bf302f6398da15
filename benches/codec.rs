//! Time of sealing and opening per segment, data in memory: `cargo bench --bench codec -- [--threads N] SEGMENT…`.
//!
//! Also the limit that a push is held against: zstd at its level 1, ChaCha20-Poly1305 and BLAKE3 over the same segments, each as its
//! library does it best, on so many threads (all cores unless told).
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, clippy::expect_used, missing_docs)]

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use nix::sys::resource::{UsageWho, getrusage};
use walvis::codec::{self, Address, Digest, Sealing};
use walvis::crypto::{DataKey, Keyring};
use walvis::format::envelope::{Metadata, ObjectKind};
use walvis::limits::FRAME_BYTES;

const ROUNDS: u32 = 8;
const NAME: &str = "clusters/main/1/wal/00000001/00000000/000000010000000000000001";

/// The best of several rounds: other work on the machine can only add.
fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let begin = Instant::now();
        black_box(work());
        begin.elapsed()
    };
    (0..ROUNDS).map(once).min().unwrap_or_default()
}

fn seal(plain: &[u8], keys: &Keyring, hashed: bool) -> Vec<u8> {
    let address = Address { repository_id: &[6; 16], kind: ObjectKind::Segment, name: NAME };
    let digest = Digest::of(&mut &*plain).expect("memory can be read");
    let metadata = Metadata { plaintext_bytes: digest.bytes, plaintext_blake3: digest.blake3, ..Metadata::by_this_program() };
    let mut sealed = Vec::with_capacity(plain.len());
    if hashed {
        codec::seal(&mut &*plain, &mut sealed, address, keys.current(), &metadata, Sealing { level: 1, salt: [7; 32] })
            .expect("memory can be written");
    }
    sealed
}

fn open(sealed: &[u8], keys: &Keyring) -> u64 {
    let address = Address { repository_id: &[6; 16], kind: ObjectKind::Segment, name: NAME };
    let opened = codec::open(sealed, address, keys).expect("it was sealed so");
    opened.copy_to(&mut std::io::sink()).expect("it was sealed so").plaintext_bytes
}

/// What no implementation of the format can avoid, and nothing else.
struct Least {
    zstd: zstd::bulk::Compressor<'static>,
    cipher: ChaCha20Poly1305,
    buffer: Vec<u8>,
}

impl Least {
    fn new(segment_bytes: usize) -> std::io::Result<Self> {
        let buffer = vec![0; zstd::zstd_safe::compress_bound(segment_bytes)];
        Ok(Self { zstd: zstd::bulk::Compressor::new(1)?, cipher: ChaCha20Poly1305::new(&[1; 32].into()), buffer })
    }

    fn compress(&mut self, plain: &[u8]) -> usize {
        self.zstd.compress_to_buffer(plain, self.buffer.as_mut_slice()).expect("the buffer is large enough")
    }

    fn encrypt(&mut self, bytes: usize) {
        for frame in self.buffer.get_mut(..bytes).unwrap_or_default().chunks_mut(FRAME_BYTES) {
            black_box(self.cipher.encrypt_inout_detached(&[0; 12].into(), b"", frame.into()).expect("a short text"));
        }
    }

    fn all(&mut self, plain: &[u8]) {
        black_box(blake3::hash(plain));
        let bytes = self.compress(plain);
        self.encrypt(bytes);
    }
}

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
            file => files.push(std::fs::read(file)?),
        }
    }
    let Some(longest) = files.iter().map(Vec::len).max() else {
        eprintln!("usage: cargo bench --bench codec -- [--threads N] SEGMENT…");
        return Ok(());
    };
    let key = DataKey::from_bytes([1; 32]);
    let keys = Keyring::Encrypted { current: key, earlier: Vec::new() };
    let mut least = Least::new(longest)?;
    for plain in &files {
        let sealed = seal(plain, &keys, true);
        let digest = best(|| seal(plain, &keys, false));
        let (both, opened) = (best(|| seal(plain, &keys, true)), best(|| open(&sealed, &keys)));
        let hash = best(|| blake3::hash(plain));
        let bytes = least.compress(plain);
        let (compress, encrypt) = (best(|| least.compress(plain)), best(|| least.encrypt(bytes)));
        println!(
            "{} bytes, sealed {}: first pass {digest:?}, both passes {both:?}, open {opened:?}; least: BLAKE3 {hash:?}, zstd 1 {compress:?} ({bytes} bytes), AEAD {encrypt:?}",
            plain.len(),
            sealed.len(),
        );
    }
    // The machine's own limit: everybody takes the next segment, so that slow cores do not hold up fast ones.
    let total = files.len() * ROUNDS as usize;
    let next = AtomicUsize::new(0);
    let (begin, cpu) = (Instant::now(), cpu_s()?);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| -> std::io::Result<()> {
                let mut least = Least::new(longest)?;
                while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < total) {
                    least.all(files.get(at % files.len()).map_or(&[], Vec::as_slice));
                }
                Ok(())
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
