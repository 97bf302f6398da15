//! How near `verify --full` comes to what this machine can do at best:
//! `cargo bench --bench verify -- [--rounds N] [--jobs N] SETTINGS`, which `benches/verify.sh` does with a repository
//! that it makes for it.
//!
//! The limit: all stored bytes of the repository in memory, on all cores. Each frame and record is copied (the read),
//! authenticated and decrypted, decompressed, and its content hashed, as the libraries do it best: a stream in pieces
//! that stay in the processor's cache. That is what has to be done to reach the bytes that a hash is of. How long it
//! takes without decompressing is printed beside it. Nothing is listed, opened, scanned, or held against anything, no
//! file is read. The objects are sealed anew for it, with a key of its own: their length is the same. Limits and
//! verifications take turns; the best of each counts.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

use std::error::Error;
use std::hint::black_box;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use nix::sys::resource::{UsageWho, getrusage};
use walvis::codec::pack::PackBuilder;
use walvis::codec::{self, Address, Sealing, SpareBuffers};
use walvis::config::definitions::CONFIG;
use walvis::config::{Config, Flags, RepositoryConfig};
use walvis::deadline::Deadline;
use walvis::format::envelope::{ObjectKind, SEALED_FRAME_BYTES};
use walvis::limits::{COPY_BUFFER_BYTES, EXTENT_BYTES, MAX_RECORD_BYTES, MIB, TAG_BYTES};
use walvis::ops::verify::{VerifyRequest, run};
use walvis::repo::{NameKind, ObjectName, Prefix, Repository, Verbatim};
use walvis::repositories::open;
use walvis::verify::{Hooks, Look};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

const ADDRESS: Address<'static> = Address { repository_id: &[6; 16], kind: ObjectKind::Segment, name: "" };
/// Of the record of a pack that is compressed, its first byte.
const ZSTD: u8 = 1;

/// An object in memory.
struct Sealed {
    bytes: Vec<u8>,
    /// What is sealed by itself, each with its tag.
    parts: Vec<Range<usize>>,
    content: Content,
}

enum Content {
    /// The parts after the first, which is the metadata, are one stream of so many bytes.
    Stream(usize),
    /// Each part after the first is compressed by itself, and comes to so many bytes.
    Records(Vec<usize>),
}

impl Sealed {
    /// Takes an object that is not encrypted, and encrypts each of its parts.
    fn new(mut bytes: Vec<u8>, body: Vec<usize>, content: Content, cipher: &ChaCha20Poly1305) -> Self {
        let front = usize::try_from(codec::preamble_bytes(&bytes).expect("a header")).expect("a length");
        let header = walvis::format::envelope::HEADER_BYTES;
        let mut parts: Vec<Range<usize>> = std::iter::once(header..front).collect();
        for length in body {
            let start = parts.last().map_or(front, |part| part.end);
            parts.push(start..start + length);
        }
        assert_eq!(parts.last().map(|part| part.end), Some(bytes.len()));
        for part in &parts {
            let (text, tag) = bytes[part.clone()].split_last_chunk_mut::<TAG_BYTES>().expect("room for a tag");
            *tag = cipher.encrypt_inout_detached(&[0; 12].into(), b"", text.into()).expect("a short text").into();
        }
        Self { bytes, parts, content }
    }

    fn stream(repository: &Repository, name: &ObjectName, level: i32, cipher: &ChaCha20Poly1305) -> Self {
        let mut plain = Vec::new();
        let read = repository.read_verbatim(name, &|_| {}, &mut plain).expect("a store that answers");
        let Verbatim::Good(metadata) = read else { panic!("{name}: {read:?}") };
        let mut bytes = Vec::new();
        let sealing = Sealing { level, salt: [7; 32] };
        codec::seal(&mut &*plain, &mut bytes, ADDRESS, None, &metadata, sealing).expect("it was sealed before");
        let front = codec::preamble_bytes(&bytes).expect("a header") as usize;
        let body = bytes[front..].chunks(SEALED_FRAME_BYTES).map(<[u8]>::len).collect();
        Self::new(bytes, body, Content::Stream(plain.len()), cipher)
    }

    fn pack(repository: &Repository, name: &ObjectName, level: i32, cipher: &ChaCha20Poly1305) -> Self {
        let mut pack = PackBuilder::new(level, 64 * MIB, SpareBuffers::keeping(0)).expect("a level");
        let (mut body, mut plain) = (Vec::new(), Vec::new());
        let read = repository.read_pack_verbatim(name, &|_| {}, &mut |record, content| {
            let content = content.expect("a whole record");
            body.push(pack.append(record.kind, content).expect("it was packed before").sealed_bytes as usize);
            plain.push(content.len());
        });
        assert!(matches!(read, Ok(Verbatim::Good(()))), "{name}: {read:?}");
        let bytes = pack.take().seal(ADDRESS, None, [7; 32], 0).expect("it was sealed before").to_vec();
        Self::new(bytes, body, Content::Records(plain), cipher)
    }

    fn content_bytes(&self) -> usize {
        match &self.content {
            Content::Stream(bytes) => *bytes,
            Content::Records(records) => records.iter().sum(),
        }
    }
}

/// One thread of the limit.
struct Worker {
    cipher: ChaCha20Poly1305,
    zstd: zstd::bulk::Decompressor<'static>,
    stream: zstd::stream::raw::Decoder<'static>,
    opened: Vec<u8>,
    plain: Vec<u8>,
    decompresses: bool,
}

impl Worker {
    fn new(cipher: ChaCha20Poly1305, longest: usize, decompresses: bool) -> Self {
        let zstd = zstd::bulk::Decompressor::new().expect("memory");
        let stream = zstd::stream::raw::Decoder::new().expect("memory");
        let (opened, plain) = (Vec::with_capacity(longest), vec![0; longest.max(EXTENT_BYTES).max(COPY_BUFFER_BYTES)]);
        Self { cipher, zstd, stream, opened, plain, decompresses }
    }

    /// Copies a part behind what is there, and decrypts it; without its tag.
    fn open(&mut self, part: &[u8]) {
        let at = self.opened.len();
        self.opened.extend_from_slice(part);
        let (text, tag) = self.opened[at..].split_last_chunk_mut::<TAG_BYTES>().expect("a tag");
        let tag = (*tag).into();
        self.cipher.decrypt_inout_detached(&[0; 12].into(), b"", text.into(), &tag).expect("it was sealed so");
        self.opened.truncate(self.opened.len() - TAG_BYTES);
    }

    fn object(&mut self, object: &Sealed) {
        let mut parts = object.parts.iter().map(|part| &object.bytes[part.clone()]);
        self.opened.clear();
        self.open(parts.next().expect("metadata"));
        match &object.content {
            Content::Stream(bytes) => {
                let mut hasher = blake3::Hasher::new();
                self.stream.reinit().expect("a context");
                for part in parts {
                    self.opened.clear();
                    self.open(part);
                    let mut from = InBuffer::around(&self.opened);
                    while self.decompresses {
                        let mut to = OutBuffer::around(&mut self.plain[..COPY_BUFFER_BYTES]);
                        self.stream.run(&mut from, &mut to).expect("it was compressed so");
                        hasher.update(to.as_slice());
                        if to.pos() < COPY_BUFFER_BYTES && from.pos() == self.opened.len() {
                            break;
                        }
                    }
                }
                if !self.decompresses {
                    hasher.update(&self.plain[..*bytes]);
                }
                assert_eq!(hasher.count(), *bytes as u64);
                black_box(hasher.finalize());
            }
            Content::Records(lengths) => {
                for (part, bytes) in parts.zip(lengths) {
                    self.opened.clear();
                    self.open(part);
                    let (codec, content) = self.opened.split_first().expect("a codec");
                    let plain = match *codec {
                        ZSTD if self.decompresses => {
                            let plain = &mut self.plain[..*bytes];
                            self.zstd.decompress_to_buffer(content, plain).expect("it was compressed so");
                            &*plain
                        }
                        ZSTD => &self.plain[..*bytes],
                        _ => content,
                    };
                    black_box(blake3::keyed_hash(&[1; 32], plain));
                }
            }
        }
    }
}

/// Wall time and CPU time of something, in seconds.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

impl Took {
    const NEVER: Self = Self { wall: f64::INFINITY, cpu: f64::INFINITY };

    fn of(something: impl FnOnce()) -> Self {
        let (begin, cpu) = (Instant::now(), cpu_s());
        something();
        Self { wall: begin.elapsed().as_secs_f64(), cpu: cpu_s() - cpu }
    }

    fn best(&mut self, other: Self) {
        *self = Self { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) };
    }
}

/// CPU time of this process so far, in seconds.
fn cpu_s() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is always known");
    [usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum()
}

/// All objects once, on so many threads. Everybody takes the next one, the largest first.
fn limit(objects: &[Sealed], cipher: &ChaCha20Poly1305, threads: usize, decompresses: bool) -> Took {
    let longest = objects.iter().map(|object| object.content_bytes().max(object.bytes.len())).max().unwrap_or_default();
    let mut workers: Vec<Worker> =
        (0..threads).map(|_| Worker::new(cipher.clone(), longest.max(MAX_RECORD_BYTES), decompresses)).collect();
    // Fresh memory is paid for before.
    for worker in &mut workers {
        worker.opened.resize(longest, 1);
        worker.plain.fill(1);
    }
    let next = AtomicUsize::new(0);
    Took::of(|| {
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| {
                    while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                        worker.object(object);
                    }
                });
            }
        });
    })
}

/// Every object that is sealed and that a full verification reads.
fn objects(config: &Config, settings: &RepositoryConfig, cipher: &ChaCha20Poly1305) -> (Vec<Sealed>, String) {
    let repository = open(settings, Deadline::each(config.timeout)).expect("a repository");
    let mut names = Vec::new();
    repository
        .objects()
        .list(Prefix::Cluster(&config.cluster), "", &mut |object| {
            names.push(object.name);
            ControlFlow::Continue(())
        })
        .expect("a listing");
    let (mut segments, mut packs, mut others) = (0, 0, 0);
    let mut objects = Vec::new();
    for name in &names {
        match name.kind() {
            NameKind::Pack => {
                packs += 1;
                objects.push(Sealed::pack(&repository, name, settings.backup_compression_level, cipher));
            }
            _ if name.sealed_kind().is_none() || name.kind() == NameKind::Evidence => {}
            kind => {
                *(if matches!(kind, NameKind::WalFile) { &mut segments } else { &mut others }) += 1;
                objects.push(Sealed::stream(&repository, name, settings.compression_level, cipher));
            }
        }
    }
    objects.sort_by_key(|object| std::cmp::Reverse(object.bytes.len()));
    (objects, format!("{segments} segments, {packs} packs, {others} other objects"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut rounds, mut jobs, mut path) = (5, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().ok_or("--rounds N")?.parse()?,
            "--jobs" => jobs = Some(arguments.next().ok_or("--jobs N")?.parse()?),
            flag if flag.starts_with("--") => {}
            settings => path = Some(PathBuf::from(settings)),
        }
    }
    let path = path.ok_or("usage: cargo bench --bench verify -- [--rounds N] [--jobs N] SETTINGS")?;
    let config = Config::load(&Flags::default().with(&CONFIG, path), &|_| None, &[])?;
    let settings = config.repositories.first().ok_or("no repository")?;
    let cipher = ChaCha20Poly1305::new(&[1; 32].into());
    let (sealed, what) = objects(&config, settings, &cipher);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mib = |bytes: usize| bytes as f64 / MIB as f64;
    println!(
        "{what}: {:.1} MiB stored, {:.1} MiB of content; {threads} threads, best of {rounds} rounds",
        mib(sealed.iter().map(|object| object.bytes.len()).sum()),
        mib(sealed.iter().map(Sealed::content_bytes).sum()),
    );
    let request = VerifyRequest { look: Look::Full, jobs, max_rate_mib_per_s: None };
    let hooks = Hooks { go_on: &|| Ok(()), progress: &|_| {} };
    let verify = || {
        let deadline = Deadline::each(Duration::from_secs(600));
        let answer = run(&config, &request, None, deadline, &hooks).expect("a repository that can be read");
        let is_whole = answer.reports.iter().all(|report| report.findings_that_matter == 0);
        assert!(is_whole && answer.ended_by.is_none(), "{answer:?}");
    };
    let [mut best, mut undecompressed, mut verified] = [Took::NEVER; 3];
    for _ in 0..rounds {
        best.best(limit(&sealed, &cipher, threads, true));
        verified.best(Took::of(verify));
        undecompressed.best(limit(&sealed, &cipher, threads, false));
    }
    let line = |what: &str, took: Took| {
        let (wall, cpu) = (best.wall / took.wall, best.cpu / took.cpu);
        println!("{what:<46} {:>7.3} s {:>7.3} s of CPU time; the limit is {wall:.2} and {cpu:.2} of it", took.wall, took.cpu);
    };
    line("limit: read, decrypt, decompress, hash", best);
    line("without decompressing", undecompressed);
    line("verify --full", verified);
    Ok(())
}
