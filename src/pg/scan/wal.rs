//! A small writer of valid WAL for tests, after `CopyXLogRecordToWAL` and `ReserveXLogSwitch`. It keeps what a scan
//! must find.
//!
//! The integration tests include this file too (`tests/it/support/wal.rs`).

use crc32c::{crc32c, crc32c_append};

use super::event::{CheckpointKind, Event, Mark, PgTime, Record, RelFile, RestorePointName, XactEnd, XactKind, Xid};
use super::page::{LONG_HEADER_BYTES, PAGE_BYTES, SHORT_HEADER_BYTES};
use super::summary::Segment;
use crate::pg::{Lsn, Timeline};

pub(super) const SYSTEM_ID: u64 = 0x0123_4567_89AB_CDEF;

/// Segments and their bytes.
pub(super) type Segments = Vec<(Segment, Vec<u8>)>;

/// The end of a transaction, with everything that may be in its record.
#[derive(Debug, Clone)]
pub(super) struct Xact {
    pub(super) kind: XactKind,
    pub(super) time: i64,
    pub(super) xid: u32,
    pub(super) dbinfo: bool,
    pub(super) subxacts: u32,
    pub(super) rels: u32,
    pub(super) stats: u32,
    pub(super) invals: u32,
    pub(super) gid: Option<&'static str>,
    pub(super) origin: bool,
}

impl Xact {
    pub(super) fn new(kind: XactKind, time: i64, xid: u32) -> Self {
        Self { kind, time, xid, dbinfo: false, subxacts: 0, rels: 0, stats: 0, invals: 0, gid: None, origin: false }
    }

    fn main(&self, major: u16) -> (u8, Vec<u8>) {
        let code = match self.kind {
            XactKind::Commit => 0x00,
            XactKind::Abort => 0x20,
            XactKind::CommitPrepared => 0x30,
            XactKind::AbortPrepared => 0x40,
        };
        let (stats, invals) = (if major >= 15 { self.stats } else { 0 }, if self.kind.is_commit() { self.invals } else { 0 });
        let parts = [
            (self.dbinfo, 1_u32),
            (self.subxacts > 0, 2),
            (self.rels > 0, 4),
            (stats > 0, 0x100),
            (invals > 0, 8),
            (self.kind.is_prepared(), 0x10),
            (self.gid.is_some() && self.kind.is_prepared(), 0x80),
            (self.origin, 0x20),
        ];
        let xinfo = parts.iter().filter(|(has, _)| *has).fold(0, |xinfo, (_, bit)| xinfo | bit);
        let mut main = self.time.to_le_bytes().to_vec();
        if xinfo == 0 {
            return (code, main);
        }
        main.extend(xinfo.to_le_bytes());
        if self.dbinfo {
            main.extend([0x11; 8]);
        }
        let stat_bytes = if major >= 18 { 16 } else { 12 };
        for (count, bytes) in [(self.subxacts, 4), (self.rels, 12), (stats, stat_bytes), (invals, 16)] {
            if count > 0 {
                main.extend(count.to_le_bytes());
                main.extend((0..count * bytes).map(|i| (i % 251) as u8 | 1));
            }
        }
        if self.kind.is_prepared() {
            main.extend(self.xid.to_le_bytes());
            if let Some(gid) = self.gid {
                main.extend(gid.as_bytes());
                main.push(0);
            }
        }
        if self.origin {
            main.extend([0x77; 16]);
        }
        (code | 0x80, main)
    }
}

/// Main data with the header for it.
pub(super) fn main_data(main: &[u8]) -> Vec<u8> {
    let mut body = match u8::try_from(main.len()) {
        Ok(len) => vec![255, len],
        Err(_) => [&[254][..], &(main.len() as u32).to_le_bytes()].concat(),
    };
    body.extend(main);
    body
}

pub(super) struct Wal {
    major: u16,
    segment_bytes: u64,
    /// In the first header of each segment.
    pub(super) system_id: u64,
    timeline: u32,
    start: u64,
    bytes: Vec<u8>,
    pub(super) last: u64,
    pub(super) found: Vec<Record<Event>>,
}

impl Wal {
    pub(super) fn new(major: u16, segment_bytes: u64, first_segment: u64) -> Self {
        let (start, last) = (first_segment * segment_bytes, (first_segment * segment_bytes).saturating_sub(64));
        Self { major, segment_bytes, system_id: SYSTEM_ID, timeline: 1, start, bytes: Vec::new(), last, found: Vec::new() }
    }

    /// The log of a timeline that leaves this one here, from the segment in which it does: that begins with a copy of
    /// this one's.
    #[allow(dead_code)]
    pub(super) fn fork(&self, timeline: u32) -> Self {
        let cut = self.bytes.len() / self.segment_bytes as usize * self.segment_bytes as usize;
        let start = self.start + cut as u64;
        let found = self.found.iter().filter(|record| record.start.0 >= start).cloned().collect();
        Self { timeline, start, bytes: self.bytes[cut..].to_vec(), found, ..*self }
    }

    pub(super) fn lsn(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Bytes for records left in the segment.
    pub(super) fn left(&self) -> u64 {
        let in_segment = self.bytes.len() as u64 % self.segment_bytes;
        let headers = |from: u64| {
            let pages = (self.segment_bytes - from).div_ceil(PAGE_BYTES as u64);
            let own = if from == 0 { LONG_HEADER_BYTES - SHORT_HEADER_BYTES } else { 0 };
            pages * SHORT_HEADER_BYTES as u64 + own as u64
        };
        self.segment_bytes - in_segment - headers(in_segment.next_multiple_of(PAGE_BYTES as u64))
    }

    fn page_header(&mut self, flags: u16, rem_len: u32) {
        assert!(self.bytes.len().is_multiple_of(PAGE_BYTES));
        let long = (self.bytes.len() as u64).is_multiple_of(self.segment_bytes);
        let magic: u16 = match self.major {
            13 => 0xD106,
            14 => 0xD10D,
            15 => 0xD110,
            16 => 0xD113,
            17 => 0xD116,
            _ => 0xD118,
        };
        let address = self.lsn();
        self.bytes.extend(magic.to_le_bytes());
        self.bytes.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend(rem_len.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(self.system_id.to_le_bytes());
            self.bytes.extend((self.segment_bytes as u32).to_le_bytes());
            self.bytes.extend((PAGE_BYTES as u32).to_le_bytes());
        }
    }

    /// Bytes of a record with a right CRC.
    pub(super) fn build(&self, rmid: u8, info: u8, xid: u32, body: &[u8]) -> Vec<u8> {
        let mut record = (24 + body.len() as u32).to_le_bytes().to_vec();
        record.extend(xid.to_le_bytes());
        record.extend(self.last.to_le_bytes());
        record.extend([info, rmid, 0, 0]);
        let crc = crc32c_append(crc32c(body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        record
    }

    /// Appends bytes as they are, over as many pages as it takes, and returns where they begin and end.
    pub(super) fn append(&mut self, record: &[u8]) -> (Lsn, Lsn) {
        if self.bytes.len().is_multiple_of(PAGE_BYTES) {
            self.page_header(0, 0);
        }
        let start = self.lsn();
        let mut rest = record;
        loop {
            let room = PAGE_BYTES - self.bytes.len() % PAGE_BYTES;
            let (part, more) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(part);
            rest = more;
            if rest.is_empty() {
                break;
            }
            self.page_header(1, rest.len() as u32);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        (Lsn(start), Lsn(self.lsn()))
    }

    pub(super) fn record(&mut self, rmid: u8, info: u8, xid: u32, body: &[u8]) -> (Lsn, Lsn) {
        let (start, end) = self.append(&self.build(rmid, info, xid, body));
        self.last = start.0;
        (start, end)
    }

    fn expect(&mut self, (start, end): (Lsn, Lsn), what: Event) {
        self.found.push(Record { start, end, what });
    }

    /// A heap record of `len` bytes of main data.
    pub(super) fn filler(&mut self, len: usize) {
        self.record(10, 0, 700, &main_data(&vec![0xA5; len]));
    }

    /// A heap record that changes blocks of forks, with `len` bytes of main data.
    #[allow(dead_code)]
    pub(super) fn change(&mut self, blocks: &[(RelFile, u8, u32)], len: usize) {
        let mut body = Vec::new();
        for (id, (rel, fork, block)) in (0..).zip(blocks) {
            body.extend([id, *fork, 0, 0]);
            body.extend([rel.tablespace, rel.database, rel.relation, *block].iter().flat_map(|n| n.to_le_bytes()));
        }
        body.extend(main_data(&vec![0xA5; len]));
        self.record(10, 0, 700, &body);
    }

    pub(super) fn xact(&mut self, xact: &Xact) {
        let (info, main) = xact.main(self.major);
        let header_xid = if xact.kind.is_prepared() { 0 } else { xact.xid };
        let at = self.record(1, info, header_xid, &main_data(&main));
        let end = XactEnd { kind: xact.kind, time: PgTime(xact.time), xid: Xid::new(xact.xid) };
        self.expect(at, Event::XactEnd(end));
    }

    pub(super) fn commit(&mut self, time: i64, xid: u32) {
        self.xact(&Xact::new(XactKind::Commit, time, xid));
    }

    pub(super) fn prepare(&mut self, time: i64, xid: u32, rest: usize) {
        let mut main = [0x57F9_4534, 0, xid, 5].iter().flat_map(|n: &u32| n.to_le_bytes()).collect::<Vec<u8>>();
        main.extend(time.to_le_bytes());
        main.resize(main.len() + rest, 0x33);
        let at = self.record(1, 0x10, xid, &main_data(&main));
        self.expect(at, Event::Prepare { xid: Xid::new(xid), time: PgTime(time) });
    }

    pub(super) fn restore_point(&mut self, time: i64, name: &str) {
        let mut main = time.to_le_bytes().to_vec();
        main.extend(name.as_bytes());
        main.resize(72, 0);
        let at = self.record(0, 0x70, 0, &main_data(&main));
        let name = RestorePointName::new(name.as_bytes()).unwrap();
        self.expect(at, Event::Mark(Mark::RestorePoint { time: PgTime(time), name }));
    }

    /// The end of a base backup that began there.
    #[allow(dead_code)]
    pub(super) fn backup_end(&mut self, start: Lsn) {
        let at = self.record(0, 0x50, 0, &main_data(&start.0.to_le_bytes()));
        self.expect(at, Event::Mark(Mark::BackupEnd { start }));
    }

    /// A record that changes tablespaces or databases, or the parameters that a standby follows.
    #[allow(dead_code)]
    pub(super) fn mark(&mut self, mark: Mark) {
        let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let before_15 = self.major < 15;
        let (rmid, info, main) = match &mark {
            Mark::TablespaceCreate { tablespace, path } => (5, 0x00, [&numbers(&[*tablespace]), path.as_bytes(), &[0]].concat()),
            Mark::TablespaceDrop { tablespace } => (5, 0x10, numbers(&[*tablespace])),
            Mark::DatabaseCreate { database, tablespace, copied_from: Some(source) } => {
                (4, 0x00, numbers(&[*database, *tablespace, source.database, source.tablespace]))
            }
            Mark::DatabaseCreate { database, tablespace, copied_from: None } => (4, 0x10, numbers(&[*database, *tablespace])),
            Mark::DatabaseDrop { database, tablespaces } => {
                let list = tablespaces.clone().unwrap_or_else(|| (0..100).collect());
                let main = [numbers(&[*database, list.len() as u32]), numbers(&list)].concat();
                (4, if before_15 { 0x10 } else { 0x20 }, main)
            }
            Mark::ParameterChange(p) => {
                let settings = [
                    p.max_connections,
                    p.max_worker_processes,
                    p.max_wal_senders,
                    p.max_prepared_transactions,
                    p.max_locks_per_transaction,
                    p.wal_level,
                ];
                let mut main: Vec<u8> = settings.iter().flat_map(|n| n.to_le_bytes()).collect();
                main.extend([p.wal_log_hints.into(), p.track_commit_timestamp.into(), 0, 0]);
                (0, 0x60, main)
            }
            other => panic!("{other:?} is written by a function of its own"),
        };
        let at = self.record(rmid, info, 0, &main_data(&main));
        self.expect(at, Event::Mark(mark));
    }

    pub(super) fn checkpoint(&mut self, kind: CheckpointKind, time_unix_s: i64) {
        let redo = self.last;
        let mut main = redo.to_le_bytes().to_vec();
        main.extend(1_u32.to_le_bytes());
        main.extend(1_u32.to_le_bytes());
        main.resize(64, 0x22);
        main.extend(time_unix_s.to_le_bytes());
        main.resize(88, 0x22);
        let info = if kind == CheckpointKind::Shutdown { 0 } else { 0x10 };
        let at = self.record(0, info, 0, &main_data(&main));
        let (timeline, previous_timeline) = (Timeline(1), Timeline(1));
        self.expect(at, Event::Mark(Mark::Checkpoint { kind, redo: Lsn(redo), timeline, previous_timeline, time_unix_s }));
    }

    /// An `XLOG_SWITCH`; nothing at the beginning of a segment.
    pub(super) fn switch(&mut self) {
        if (self.bytes.len() as u64).is_multiple_of(self.segment_bytes) {
            return;
        }
        let at = self.record(0, 0x40, 0, &[]);
        self.expect(at, Event::Switch);
        self.fill();
    }

    /// A record that loses all but what is on its first `pages` pages in a crash. Nothing when it would fit there.
    pub(super) fn die(&mut self, time: i64, pages: usize) {
        let (info, main) = Xact { subxacts: 40_000, ..Xact::new(XactKind::Commit, time, 800) }.main(self.major);
        let record = self.build(1, info, 800, &main_data(&main));
        if self.bytes.len().is_multiple_of(PAGE_BYTES) {
            self.page_header(0, 0);
        }
        let before = self.bytes.len();
        let (dead, _) = self.append(&record);
        let cut = (before / PAGE_BYTES + pages.max(1)) * PAGE_BYTES;
        assert!(cut < self.bytes.len());
        self.bytes.truncate(cut);
        self.page_header(8, 0);
        let mut main = dead.0.to_le_bytes().to_vec();
        main.extend(time.to_le_bytes());
        let at = self.record(0, 0xD0, 0, &main_data(&main));
        self.expect(at, Event::Mark(Mark::Overwrite { dead, time: PgTime(time) }));
    }

    /// Zeros up to the end of the segment.
    pub(super) fn fill(&mut self) {
        let len = (self.bytes.len() as u64).next_multiple_of(self.segment_bytes);
        self.bytes.resize(len as usize, 0);
    }

    /// The segments that are full, taken out: years of log need not be in memory at once.
    #[allow(dead_code)]
    pub(super) fn take_full(&mut self) -> Segments {
        let full = self.bytes.len() / self.segment_bytes as usize * self.segment_bytes as usize;
        let rest = self.bytes.split_off(full);
        let taken = Self { bytes: std::mem::replace(&mut self.bytes, rest), found: Vec::new(), ..*self };
        self.start += full as u64;
        taken.segments().0
    }

    /// The segments, the last one filled up with zeros.
    pub(super) fn segments(mut self) -> (Segments, Vec<Record<Event>>) {
        self.fill();
        let segment = |(i, bytes): (usize, &[u8])| {
            let start = Lsn(self.start + i as u64 * self.segment_bytes);
            (Segment { timeline: Timeline(self.timeline), start, size_bytes: self.segment_bytes }, bytes.to_owned())
        };
        (self.bytes.chunks(self.segment_bytes as usize).enumerate().map(segment).collect(), self.found)
    }
}
