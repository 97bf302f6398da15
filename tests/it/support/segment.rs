//! Files as PostgreSQL archives them, made without a server: segments, `.partial`, `.history`, `.backup`, and
//! `pg_control`.

use std::path::Path;

use walvis::limits::MIB;

/// The system identifier of made-up clusters, unless another is wanted.
pub const SYSTEM_ID: u64 = 7_301_234_567_890_123_456;
/// That of another cluster.
pub const FOREIGN_ID: u64 = 7_309_999_999_999_999_999;
/// `XLOG_PAGE_MAGIC` of PostgreSQL 13 to 18.
pub const MAGICS: [u16; 6] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];
const PAGE_BYTES: usize = 8192;

/// What is behind the page headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing, as after a switch in an idle cluster.
    Zeros,
    /// Compresses to about a third.
    Records(u64),
    /// Does not compress.
    Noise(u64),
}

/// A segment to be made.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub magic: u16,
    pub system_id: u64,
    /// In the name.
    pub timeline: u32,
    /// In the page headers.
    pub page_timeline: u32,
    pub number: u64,
    pub size: usize,
    pub content: Content,
}

impl Segment {
    /// Number `number` of timeline 1, 1 MiB long.
    pub fn new(number: u64) -> Self {
        Self {
            magic: MAGICS[4],
            system_id: SYSTEM_ID,
            timeline: 1,
            page_timeline: 1,
            number,
            size: MIB,
            content: Content::Records(number),
        }
    }

    pub fn on(mut self, timeline: u32) -> Self {
        (self.timeline, self.page_timeline) = (timeline, timeline);
        self
    }

    pub fn sized(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    pub fn of(mut self, system_id: u64) -> Self {
        self.system_id = system_id;
        self
    }

    pub fn holding(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    pub fn name(&self) -> String {
        let per_log = 0x1_0000_0000 / self.size as u64;
        format!("{:08X}{:08X}{:08X}", self.timeline, self.number / per_log, self.number % per_log)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        match self.content {
            Content::Zeros => {}
            Content::Noise(seed) => noise(&mut bytes, seed),
            Content::Records(seed) => {
                // A third of every page is new.
                for (n, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
                    let (new, rest) = page.split_at_mut(PAGE_BYTES / 3);
                    noise(new, seed << 32 | n as u64);
                    rest.fill(0x2A);
                }
            }
        }
        self.write_headers(&mut bytes);
        bytes
    }

    /// The header of every page.
    fn write_headers(&self, bytes: &mut [u8]) {
        let start = self.number * self.size as u64;
        for (n, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
            page[0..2].copy_from_slice(&self.magic.to_le_bytes());
            page[2..4].copy_from_slice(&(if n == 0 { 2_u16 } else { 0 }).to_le_bytes());
            page[4..8].copy_from_slice(&self.page_timeline.to_le_bytes());
            page[8..16].copy_from_slice(&(start + (n * PAGE_BYTES) as u64).to_le_bytes());
            page[16..24].fill(0);
            if n == 0 {
                page[24..32].copy_from_slice(&self.system_id.to_le_bytes());
                page[32..36].copy_from_slice(&u32::try_from(self.size).unwrap().to_le_bytes());
                page[36..40].copy_from_slice(&u32::try_from(PAGE_BYTES).unwrap().to_le_bytes());
            }
        }
    }

    /// A file of zeros with the first page's header and some noise in between, without holding it in memory: a GiB is
    /// cheap so.
    pub fn write_sparse(&self, path: &Path, noise_every: usize, noise_bytes: usize) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(path).unwrap();
        file.set_len(self.size as u64).unwrap();
        let mut block = vec![0; noise_bytes];
        for (n, at) in (PAGE_BYTES..self.size - noise_bytes).step_by(noise_every).enumerate() {
            noise(&mut block, n as u64);
            file.write_all_at(&block, at as u64).unwrap();
        }
        let mut first = vec![0; PAGE_BYTES];
        self.write_headers(&mut first);
        file.write_all_at(&first, 0).unwrap();
    }
}

/// Fills with bytes that do not compress.
pub fn noise(bytes: &mut [u8], seed: u64) {
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(bytes);
}

/// The content of `<timeline>.history`: ancestors and the positions at which they were left.
pub fn history(ancestors: &[(u32, u64)]) -> String {
    let line =
        |(timeline, lsn): &(u32, u64)| format!("{timeline}\t{:X}/{:X}\tno recovery target specified\n\n", lsn >> 32, *lsn as u32);
    ancestors.iter().map(line).collect()
}

/// Name and content of the backup history file of a backup that began in this segment.
pub fn backup(segment: &Segment) -> (String, String) {
    let start = segment.number * segment.size as u64 + 0x28;
    let name = segment.name();
    let lsn = |at: u64| format!("{:X}/{:X}", at >> 32, at as u32);
    let text = format!(
        "START WAL LOCATION: {} (file {name})\nSTOP WAL LOCATION: {} (file {name})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\n\
         BACKUP FROM: primary\nSTART TIME: 2026-11-21 03:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\nSTOP TIME: 2026-11-21 03:00:01 UTC\n\
         STOP TIMELINE: 1\n",
        lsn(start),
        lsn(start + 0x100),
        lsn(start + 0x38),
    );
    (format!("{name}.00000028.backup"), text)
}

/// `global/pg_control` of a PostgreSQL 17.
pub fn pg_control(system_id: u64, segment_bytes: usize) -> Vec<u8> {
    const CRC_AT: usize = 288;
    let mut bytes = vec![0; PAGE_BYTES];
    bytes[0..8].copy_from_slice(&system_id.to_le_bytes());
    bytes[8..12].copy_from_slice(&1700_u32.to_le_bytes());
    bytes[228..232].copy_from_slice(&u32::try_from(segment_bytes).unwrap().to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}
