//! The WAL writer of the unit tests of `pg::scan`, for whole histories of made-up segments.

mod event {
    pub(super) use walvis::pg::scan::{
        CheckpointKind, Event, Mark, PgTime, Record, RelFile, RestorePointName, XactEnd, XactKind, Xid,
    };
}

mod page {
    pub(super) const PAGE_BYTES: usize = 8192;
    pub(super) const SHORT_HEADER_BYTES: usize = 24;
    pub(super) const LONG_HEADER_BYTES: usize = 40;
}

mod summary {
    use walvis::pg::{Lsn, Timeline};

    #[derive(Debug, Clone, Copy)]
    pub(super) struct Segment {
        pub(super) timeline: Timeline,
        pub(super) start: Lsn,
        pub(super) size_bytes: u64,
    }
}

#[allow(dead_code)]
#[path = "../../../src/pg/scan/wal.rs"]
mod writer;

use walvis::pg::scan::{Event, Mark, Record, RelFile, XactKind};
use walvis::pg::{Lsn, SegmentName, Timeline};

use writer::{Wal, Xact};

/// The system identifier in the pages.
pub const SYSTEM_ID: u64 = writer::SYSTEM_ID;
/// The size of segments.
pub const SEGMENT_BYTES: u64 = 1 << 20;

/// One timeline of a history.
pub struct Log {
    pub timeline: Timeline,
    /// Where it begins: where its parent was left.
    pub begin: Lsn,
    /// Number, name and bytes of each segment.
    pub segments: Vec<(u64, SegmentName, Vec<u8>)>,
    /// What its records say, those that it has copied from its parent included.
    pub found: Vec<Record<Event>>,
}

/// Writes a log at random: transactions with times that go back and forth, restore points, records that cross one
/// boundary or several.
pub struct Writer {
    wal: Wal,
    timeline: Timeline,
    begin: Lsn,
    random: fastrand::Rng,
    xid: u32,
    time: i64,
}

impl Writer {
    /// A log that begins with this segment.
    pub fn new(seed: u64, first_segment: u64) -> Self {
        let wal = Wal::new(16, SEGMENT_BYTES, first_segment);
        Self { wal, timeline: Timeline(1), begin: Lsn(0), random: fastrand::Rng::with_seed(seed), xid: 1000, time: 1 << 40 }
    }

    /// Goes on from this time and xid; for `benches/catalog.rs`.
    #[allow(dead_code)]
    pub fn at(mut self, time: i64, xid: u32) -> Self {
        (self.time, self.xid) = (time, xid);
        self
    }

    /// Of another cluster.
    #[allow(dead_code)]
    pub fn of(mut self, system_id: u64) -> Self {
        self.wal.system_id = system_id;
        self
    }

    pub fn lsn(&self) -> Lsn {
        Lsn(self.wal.lsn())
    }

    /// A commit at this time, and where its record begins.
    #[allow(dead_code)]
    pub fn commit_at(&mut self, time: i64) -> Lsn {
        self.xid += 1;
        self.wal.commit(time, self.xid);
        Lsn(self.wal.last)
    }

    /// The rest of the segment is given up.
    #[allow(dead_code)]
    pub fn switch(&mut self) {
        self.wal.switch();
    }

    /// The full segments, which are then not in [`finish`](Self::finish)'s.
    #[allow(dead_code)]
    pub fn take_full(&mut self) -> Vec<(u64, SegmentName, Vec<u8>)> {
        self.wal.found.clear();
        self.wal.take_full().into_iter().map(|segment| named(self.timeline, segment)).collect()
    }

    /// A new timeline that leaves this one here.
    pub fn fork(&mut self, timeline: u32) -> Self {
        let (begin, timeline, random) = (self.lsn(), Timeline(timeline), self.random.fork());
        Self { wal: self.wal.fork(timeline.0), timeline, begin, random, xid: self.xid, time: self.time }
    }

    fn next(&mut self) -> (i64, u32) {
        self.xid += 1;
        self.time += 1000;
        (self.time - self.random.i64(0..20_000), self.xid)
    }

    /// Commits and a restore point, and the rest of the segment given up.
    pub fn busy(&mut self, commits: u32) {
        for _ in 0..commits {
            let (time, xid) = self.next();
            self.wal.commit(time, xid);
        }
        self.point("busy");
        self.wal.switch();
    }

    /// A restore point.
    pub fn point(&mut self, name: &str) {
        let (time, _) = self.next();
        self.wal.restore_point(time, name);
    }

    /// The end of a base backup; for `benches/catalog.rs`.
    #[allow(dead_code)]
    pub fn backup_end(&mut self, start: Lsn) {
        self.wal.backup_end(start);
    }

    /// A change of tablespaces, databases or parameters.
    pub fn mark(&mut self, mark: Mark) {
        self.wal.mark(mark);
    }

    /// A record that changes blocks, with so many bytes of other data, and where it begins.
    #[allow(dead_code)]
    pub fn change(&mut self, blocks: &[(RelFile, u8, u32)], len: usize) -> Lsn {
        self.wal.change(blocks, len);
        Lsn(self.wal.last)
    }

    /// The end of a transaction that drops so many relations, whose numbers are of no importance.
    #[allow(dead_code)]
    pub fn drops(&mut self, rels: u32) {
        let (time, xid) = self.next();
        self.wal.xact(&Xact { rels, ..Xact::new(XactKind::Commit, time, xid) });
    }

    /// Fills the segment but for so many bytes.
    #[allow(dead_code)]
    pub fn fill_but(&mut self, left: u64) {
        if let Some(fill) = self.wal.left().checked_sub(left + 24 + 5 + 3) {
            self.wal.filler(fill as usize);
        }
    }

    /// A little of everything.
    pub fn little(&mut self) {
        for _ in 0..self.random.u32(0..4) {
            let (time, xid) = self.next();
            match self.random.u32(0..12) {
                0 => self.wal.restore_point(time, &format!("point {}", self.random.u32(0..40))),
                1 => self.wal.xact(&Xact::new(XactKind::Abort, time, xid)),
                _ => self.wal.commit(time, xid),
            }
            self.wal.filler(self.random.usize(0..20_000));
        }
    }

    /// Up to the end of the segment, and usually a little over it.
    pub fn segment(&mut self) {
        self.little();
        let (kind, leave) = (self.random.u32(0..12), *self.random.choice(&[0_u64, 8, 16, 24, 400]).unwrap());
        if kind == 0 {
            return self.wal.switch();
        }
        if let Some(fill) = self.wal.left().checked_sub(leave + 24 + 5 + 8) {
            self.wal.filler(fill as usize);
        }
        let (time, xid) = self.next();
        match kind {
            1 => self.wal.restore_point(time, &format!("point {}", self.random.u32(0..40))),
            // Over several segments.
            2 => self.wal.xact(&Xact { subxacts: 600_000, ..Xact::new(XactKind::Commit, time, xid) }),
            // Its xid is hidden behind arrays.
            3 => self.wal.xact(&Xact { subxacts: 9000, gid: Some("gid"), ..Xact::new(XactKind::CommitPrepared, time, xid) }),
            4 => self.wal.filler(3000),
            _ => self.wal.commit(time, xid),
        }
    }

    pub fn finish(self) -> Log {
        let (segments, found) = self.wal.segments();
        let segments = segments.into_iter().map(|segment| named(self.timeline, segment)).collect();
        Log { timeline: self.timeline, begin: self.begin, segments, found }
    }
}

fn named(timeline: Timeline, (segment, bytes): (summary::Segment, Vec<u8>)) -> (u64, SegmentName, Vec<u8>) {
    assert_eq!((segment.timeline, segment.size_bytes), (timeline, SEGMENT_BYTES));
    let number = segment.start.0 / SEGMENT_BYTES;
    let size = walvis::pg::WalSegmentSize::new(SEGMENT_BYTES).unwrap();
    (number, SegmentName::from_number(timeline, number, size).unwrap(), bytes)
}
