//! The machine that reads the body of a record as its bytes stream by.
//!
//! It is told what comes next in the form "take `n` bytes as a field" or "step over `n` bytes", so it needs memory for
//! one field only, and its state can be put aside at any byte. It may also be told of a [`gap`](Body::gap): bytes that
//! are there but not known.

use super::effect::{Effect, Lock};
use super::event::{
    BlockRef, CheckpointKind, DatabaseFiles, Event, Mark, Parameters, PgTime, RelFile, RestorePointName, StorageChange,
    TablespacePath, XactEnd, XactKind, Xid,
};
use super::header::RecordHeader;
use super::main_data::{Main, RMGR_SMGR, RMGR_STANDBY, RMGR_TBLSPC, RMGR_XACT, RMGR_XLOG};
use super::page::{i32_at, i64_at, u16_at, u32_at, u64_at};
use super::visitor::Visitor;
use crate::limits::{MAX_DROPPED_TABLESPACES, MAX_TABLESPACE_PATH_BYTES, PIECE_LAST_BYTES};
use crate::pg::{Lsn, Timeline};

/// The largest field: the fixed part of a checkpoint up to its time, and a restore point.
const MAX_FIELD_BYTES: usize = 72;
/// `xl_xact_twophase` and `xl_xact_origin` at the end of a record without GID.
const ENDING_BYTES: usize = 20;
const _: () = assert!(PIECE_LAST_BYTES >= ENDING_BYTES);

/// `XLOG_XACT_HAS_INFO`.
const XACT_HAS_INFO: u8 = 0x80;
const XINFO_DBINFO: u32 = 1;
const XINFO_SUBXACTS: u32 = 2;
const XINFO_RELATIONS: u32 = 4;
const XINFO_INVALIDATIONS: u32 = 8;
const XINFO_TWOPHASE: u32 = 0x10;
const XINFO_ORIGIN: u32 = 0x20;
const XINFO_GID: u32 = 0x80;
const XINFO_DROPPED_STATS: u32 = 0x100;

/// The body does not have the form that its header promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

type Result = std::result::Result<(), Malformed>;

/// What the next field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The byte that says what comes: a block reference, main data, ….
    Id,
    Block,
    Image,
    HoleLength,
    Rel,
    BlockNumber,
    MainLen,
    Fixed,
    XactTime,
    XactInfo,
    /// The length of an array in a transaction's end; its elements have this size.
    Count {
        element_bytes: u64,
        relations: bool,
    },
    DroppedRel,
    TwoPhaseXid,
    DatabaseHeader,
    DatabaseTablespace,
    TablespaceHeader,
    /// The next bytes of a path, which goes on to the end of the record.
    TablespacePath,
    LockCount,
    Lock,
    /// Nothing more is wanted.
    Done,
}

/// The state of reading one record's body.
#[derive(Debug, Clone)]
pub(super) struct Body {
    lsn: Lsn,
    rmid: u8,
    info: u8,
    xid: Option<Xid>,
    major: u16,
    main: Main,

    next: Next,
    /// Length of the field that is awaited.
    want: usize,
    /// Bytes to step over before it.
    skip: u64,
    /// Bytes of the body after both.
    left: u64,
    field: [u8; MAX_FIELD_BYTES],
    have: usize,

    /// Bytes of block images, block data and main data announced so far; they follow the headers.
    data: u64,
    block: BlockRef,
    has_rel: bool,
    flags: u8,

    time: Option<PgTime>,
    xinfo: u32,
    /// The part of a transaction's end that comes next.
    part: u8,
    repeat: u32,
    /// The database or tablespace that is created or dropped, and what comes after it: a list, or the bytes of a path.
    object: u32,
    tablespaces: Vec<u32>,
    path: Vec<u8>,
    twophase_xid: Option<Xid>,
    event: Option<Event>,

    /// A field fell into a gap; from there on only the ending is kept.
    lost: bool,
    ending: [u8; ENDING_BYTES],
    ending_len: usize,
}

impl Body {
    /// `None` if the body of such a record is of no interest.
    pub(super) fn new<V: Visitor>(lsn: Lsn, header: &RecordHeader, major: u16) -> Option<Self> {
        let main = Main::of(header, major, V::BLOCKS, V::EFFECTS);
        if main == Main::Ignored && !V::BLOCKS {
            return None;
        }
        let rel = RelFile { tablespace: 0, database: 0, relation: 0 };
        let mut body = Self {
            lsn,
            rmid: header.rmid,
            info: header.info,
            xid: Xid::new(header.xid),
            major,
            main,
            next: Next::Done,
            want: 0,
            skip: 0,
            left: u64::from(header.body_len()),
            field: [0; MAX_FIELD_BYTES],
            have: 0,
            data: 0,
            block: BlockRef { rel, fork: 0, block: 0 },
            has_rel: false,
            flags: 0,
            time: None,
            xinfo: 0,
            part: 0,
            repeat: 0,
            object: 0,
            tablespaces: Vec::new(),
            path: Vec::new(),
            twophase_xid: None,
            event: None,
            lost: false,
            ending: [0; ENDING_BYTES],
            ending_len: 0,
        };
        if body.left > 0 {
            body.take(1, Next::Id).ok()?;
        }
        Some(body)
    }

    /// The next bytes of the body.
    pub(super) fn bytes<V: Visitor>(&mut self, mut data: &[u8], visitor: &mut V) -> Result {
        if self.lost {
            self.keep_ending(data);
            return Ok(());
        }
        while self.want > 0 {
            if self.skip > 0 {
                let step = usize::try_from(self.skip).map_or(data.len(), |skip| skip.min(data.len()));
                data = data.get(step..).unwrap_or_default();
                self.skip -= step as u64;
                if self.skip > 0 {
                    return Ok(());
                }
            }
            if self.have == 0
                && let Some((field, rest)) = data.split_at_checked(self.want)
            {
                data = rest;
                self.step(field, visitor)?;
                continue;
            }
            let part = data.len().min(self.want - self.have);
            let (taken, rest) = data.split_at_checked(part).ok_or(Malformed)?;
            self.field.get_mut(self.have..self.have + part).ok_or(Malformed)?.copy_from_slice(taken);
            self.have += part;
            data = rest;
            if self.have < self.want {
                return Ok(());
            }
            let field = self.field;
            let len = std::mem::take(&mut self.have);
            self.step(field.get(..len).ok_or(Malformed)?, visitor)?;
        }
        Ok(())
    }

    /// `len` bytes of the body are not known.
    pub(super) fn gap<V: Visitor>(&mut self, len: u64, visitor: &mut V) {
        if len == 0 || (self.want == 0 && !self.lost) {
            return;
        }
        if !self.lost && self.skip >= len {
            self.skip -= len;
            return;
        }
        if !self.lost {
            self.lost = true;
            self.want = 0;
            if V::BLOCKS || V::EFFECTS {
                visitor.unreadable(self.lsn);
            }
        }
        self.ending_len = 0;
    }

    /// What the record says, once all its bytes were given.
    pub(super) fn finish(&self) -> std::result::Result<Option<Event>, Malformed> {
        if self.want > 0 {
            return Err(Malformed);
        }
        let Main::XactEnd(kind) = self.main else {
            return if self.only_blocks() || self.event.is_some() { Ok(self.event.clone()) } else { Err(Malformed) };
        };
        let time = self.time.ok_or(Malformed)?;
        let xid = match kind {
            XactKind::Commit | XactKind::Abort => self.xid,
            XactKind::CommitPrepared | XactKind::AbortPrepared if self.lost => self.xid_from_ending(),
            XactKind::CommitPrepared | XactKind::AbortPrepared => self.twophase_xid,
        };
        Ok(Some(Event::XactEnd(XactEnd { kind, time, xid })))
    }

    /// Without a GID the xid has a fixed distance from the end of the record.
    fn xid_from_ending(&self) -> Option<Xid> {
        if self.twophase_xid.is_some() {
            return self.twophase_xid;
        }
        if self.xinfo & XINFO_TWOPHASE == 0 || self.xinfo & XINFO_GID != 0 {
            return None;
        }
        let distance = if self.xinfo & XINFO_ORIGIN == 0 { 4 } else { ENDING_BYTES };
        let ending = self.ending.get(..self.ending_len)?;
        u32_at(ending, ending.len().checked_sub(distance)?).and_then(Xid::new)
    }

    fn keep_ending(&mut self, data: &[u8]) {
        let data = data.get(data.len().saturating_sub(ENDING_BYTES)..).unwrap_or_default();
        let kept = self.ending_len.min(ENDING_BYTES - data.len());
        self.ending.copy_within(self.ending_len - kept..self.ending_len, 0);
        if let Some(room) = self.ending.get_mut(kept..kept + data.len()) {
            room.copy_from_slice(data);
        }
        self.ending_len = kept + data.len();
    }

    fn take(&mut self, len: usize, next: Next) -> Result {
        self.left = self.left.checked_sub(len as u64).ok_or(Malformed)?;
        self.want = len;
        self.next = next;
        Ok(())
    }

    fn skip(&mut self, len: u64) -> Result {
        self.left = self.left.checked_sub(len).ok_or(Malformed)?;
        self.skip += len;
        Ok(())
    }

    /// The rest is of no interest.
    fn done(&mut self) -> Result {
        self.want = 0;
        self.next = Next::Done;
        Ok(())
    }

    /// One field is there: remembers it, and says what comes next.
    fn step<V: Visitor>(&mut self, field: &[u8], visitor: &mut V) -> Result {
        let u32_of = |at| u32_at(field, at).ok_or(Malformed);
        match self.next {
            Next::Id => match field {
                [0..=32] => self.take(3, Next::Block),
                // The top-level transaction of a subtransaction (14+) and the replication origin.
                [252] => self.skip(4).and_then(|()| self.next_header()),
                [253] => self.skip(2).and_then(|()| self.next_header()),
                [254] => self.take(4, Next::MainLen),
                [255] => self.take(1, Next::MainLen),
                _ => Err(Malformed),
            },
            Next::Block => {
                self.flags = field.first().copied().ok_or(Malformed)?;
                self.block.fork = self.flags & 0x0F;
                self.data += u64::from(u16_at(field, 1).ok_or(Malformed)?);
                if self.flags & 0x10 != 0 { self.take(5, Next::Image) } else { self.after_image() }
            }
            Next::Image => {
                self.data += u64::from(u16_at(field, 0).ok_or(Malformed)?);
                let info = field.get(4).copied().ok_or(Malformed)?;
                let compressed = info & if self.major >= 15 { 0x04 | 0x08 | 0x10 } else { 0x02 };
                if info & 1 != 0 && compressed != 0 { self.take(2, Next::HoleLength) } else { self.after_image() }
            }
            Next::HoleLength => self.after_image(),
            Next::Rel => {
                self.block.rel = rel_at(field, 0)?;
                self.has_rel = true;
                self.take(4, Next::BlockNumber)
            }
            Next::BlockNumber => {
                self.block.block = u32_of(0)?;
                if V::BLOCKS {
                    visitor.block(self.lsn, self.block);
                }
                if self.main == Main::Sequence {
                    visitor.effect(self.lsn, Effect::Sequence(self.block.rel));
                }
                self.next_header()
            }
            Next::MainLen => {
                let len = match field {
                    [len] => u64::from(*len),
                    _ => u64::from(u32_of(0)?),
                };
                self.main_data(len)
            }
            Next::Fixed => {
                self.fixed(field, visitor)?;
                self.done()
            }
            Next::XactTime => {
                self.time = i64_at(field, 0).map(PgTime);
                if self.info & XACT_HAS_INFO != 0 { self.take(4, Next::XactInfo) } else { self.done() }
            }
            Next::XactInfo => {
                self.xinfo = u32_of(0)?;
                self.next_part()
            }
            Next::Count { element_bytes, relations } => {
                let count = u32::try_from(i32_at(field, 0).ok_or(Malformed)?).map_err(|_| Malformed)?;
                if V::BLOCKS && relations && count > 0 {
                    self.repeat = count;
                    self.take(12, Next::DroppedRel)
                } else {
                    self.skip(u64::from(count) * element_bytes)?;
                    self.next_part()
                }
            }
            Next::DroppedRel => {
                visitor.storage(self.lsn, StorageChange::Drop(rel_at(field, 0)?));
                self.repeat = self.repeat.saturating_sub(1);
                if self.repeat > 0 { self.take(12, Next::DroppedRel) } else { self.next_part() }
            }
            Next::TwoPhaseXid => {
                self.twophase_xid = Xid::new(u32_of(0)?);
                self.done()
            }
            Next::DatabaseHeader => {
                self.object = u32_of(0)?;
                self.repeat = u32_of(4)?;
                if u64::from(self.repeat) * 4 > self.left {
                    return Err(Malformed);
                }
                self.next_dropped::<V>()
            }
            Next::DatabaseTablespace => {
                let tablespace = u32_of(0)?;
                if V::BLOCKS {
                    visitor.storage(self.lsn, StorageChange::DropDatabase { tablespace, database: self.object });
                }
                if self.tablespaces.len() <= MAX_DROPPED_TABLESPACES {
                    self.tablespaces.push(tablespace);
                }
                self.repeat = self.repeat.saturating_sub(1);
                self.next_dropped::<V>()
            }
            Next::TablespaceHeader => {
                self.object = u32_of(0)?;
                self.path_part()
            }
            Next::TablespacePath => {
                self.path.extend_from_slice(field);
                self.path_part()
            }
            Next::LockCount => {
                self.repeat = u32_of(0)?;
                if self.repeat > 0 { self.take(12, Next::Lock) } else { self.done() }
            }
            Next::Lock => {
                let lock = Lock { xid: u32_of(0)?, database: u32_of(4)?, relation: u32_of(8)? };
                visitor.effect(self.lsn, Effect::Lock(lock));
                self.repeat = self.repeat.saturating_sub(1);
                if self.repeat > 0 { self.take(12, Next::Lock) } else { self.done() }
            }
            Next::Done => Err(Malformed),
        }
    }

    /// After the header of a block's image, if it has one.
    fn after_image(&mut self) -> Result {
        match (self.flags & 0x80 != 0, self.has_rel) {
            (false, _) => self.take(12, Next::Rel),
            (true, true) => self.take(4, Next::BlockNumber),
            (true, false) => Err(Malformed),
        }
    }

    /// Headers go on until what is left is data. A record need not have main data.
    fn next_header(&mut self) -> Result {
        if self.left > self.data {
            return self.take(1, Next::Id);
        }
        // The main data of such a record would be awaited in vain.
        if self.left < self.data || !matches!(self.main, Main::Ignored) { Err(Malformed) } else { self.done() }
    }

    /// Main data come last, after the data of the blocks.
    fn main_data(&mut self, len: u64) -> Result {
        if self.left != self.data + len {
            return Err(Malformed);
        }
        self.skip(self.data)?;
        match self.main {
            Main::Ignored | Main::Sequence => self.done(),
            Main::Locks => self.take(4, Next::LockCount),
            Main::Fixed(len) => self.take(len, Next::Fixed),
            Main::XactEnd(_) => self.take(8, Next::XactTime),
            Main::DropDatabase => self.take(8, Next::DatabaseHeader),
            Main::CreateTablespace => self.take(4, Next::TablespaceHeader),
        }
    }

    /// Tablespaces of a database that is dropped: all of them for who asks for changes of files, else no more than are
    /// listed.
    fn next_dropped<V: Visitor>(&mut self) -> Result {
        let listed = self.tablespaces.len() <= MAX_DROPPED_TABLESPACES;
        if self.repeat > 0 && (V::BLOCKS || listed) {
            // What the event says is known before the rest, which may be lost.
            if !listed {
                self.event.get_or_insert(Event::Mark(Mark::DatabaseDrop { database: self.object, tablespaces: None }));
            }
            return self.take(4, Next::DatabaseTablespace);
        }
        if self.event.is_none() {
            let tablespaces = listed.then(|| std::mem::take(&mut self.tablespaces));
            self.event = Some(Event::Mark(Mark::DatabaseDrop { database: self.object, tablespaces }));
        }
        self.done()
    }

    /// The path of a tablespace comes in parts that fit into a field.
    fn path_part(&mut self) -> Result {
        if self.path.len() > MAX_TABLESPACE_PATH_BYTES + 1 {
            return Err(Malformed);
        }
        if self.left > 0 {
            let len = usize::try_from(self.left).map_or(MAX_FIELD_BYTES, |left| left.min(MAX_FIELD_BYTES));
            return self.take(len, Next::TablespacePath);
        }
        let end = self.path.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let path = self.path.get(..end).and_then(TablespacePath::new).ok_or(Malformed)?;
        self.event = Some(Event::Mark(Mark::TablespaceCreate { tablespace: self.object, path }));
        self.done()
    }

    /// The optional parts of a transaction's end, in their order.
    fn next_part(&mut self) -> Result {
        loop {
            let part = self.part;
            self.part += 1;
            let has = |flag| self.xinfo & flag != 0;
            let array = |element_bytes, relations| Next::Count { element_bytes, relations };
            match part {
                0 if has(XINFO_DBINFO) => self.skip(8)?,
                1 if has(XINFO_SUBXACTS) => return self.take(4, array(4, false)),
                2 if has(XINFO_RELATIONS) => return self.take(4, array(12, true)),
                3 if has(XINFO_DROPPED_STATS) && self.major >= 15 => {
                    return self.take(4, array(if self.major >= 18 { 16 } else { 12 }, false));
                }
                4 if has(XINFO_INVALIDATIONS) && matches!(self.main, Main::XactEnd(kind) if kind.is_commit()) => {
                    return self.take(4, array(16, false));
                }
                5 if has(XINFO_TWOPHASE) => return self.take(4, Next::TwoPhaseXid),
                0..=5 => {}
                _ => return self.done(),
            }
        }
    }

    /// A structure of fixed size.
    fn fixed<V: Visitor>(&mut self, field: &[u8], visitor: &mut V) -> Result {
        let read = |event: Option<Event>| event.ok_or(Malformed).map(Some);
        match (self.rmid, self.info & 0xF0) {
            (RMGR_XLOG, info) => self.event = read(mark(info, field).map(Event::Mark))?,
            (RMGR_XACT, _) => self.event = read(prepare(field))?,
            (RMGR_STANDBY, _) => {
                let overflowed = *field.get(8).ok_or(Malformed)? != 0;
                visitor.effect(self.lsn, Effect::Snapshot { overflowed });
            }
            (RMGR_SMGR, 0x10) => {
                let fork = u32_at(field, 12).ok_or(Malformed)?;
                visitor.storage(self.lsn, StorageChange::Create { rel: rel_at(field, 0)?, fork });
            }
            (RMGR_SMGR, _) => {
                let (blocks, forks) = (u32_at(field, 0).ok_or(Malformed)?, u32_at(field, 16).ok_or(Malformed)?);
                visitor.storage(self.lsn, StorageChange::Truncate { rel: rel_at(field, 4)?, blocks, forks });
            }
            (RMGR_TBLSPC, _) => {
                let tablespace = u32_at(field, 0).ok_or(Malformed)?;
                self.event = Some(Event::Mark(Mark::TablespaceDrop { tablespace }));
            }
            _ => {
                let (database, tablespace) = (u32_at(field, 0).ok_or(Malformed)?, u32_at(field, 4).ok_or(Malformed)?);
                let copied_from =
                    u32_at(field, 8).zip(u32_at(field, 12)).map(|(database, tablespace)| DatabaseFiles { tablespace, database });
                if V::BLOCKS {
                    visitor.storage(self.lsn, StorageChange::CreateDatabase { tablespace, database });
                }
                self.event = Some(Event::Mark(Mark::DatabaseCreate { database, tablespace, copied_from }));
            }
        }
        Ok(())
    }

    /// Whether the body is of interest for blocks, files and effects only, and not for the summary.
    pub(super) fn only_blocks(&self) -> bool {
        matches!(self.main, Main::Ignored | Main::Locks | Main::Sequence) || matches!(self.rmid, RMGR_SMGR | RMGR_STANDBY)
    }
}

fn rel_at(field: &[u8], at: usize) -> std::result::Result<RelFile, Malformed> {
    let number = |i: usize| u32_at(field, at + 4 * i).ok_or(Malformed);
    Ok(RelFile { tablespace: number(0)?, database: number(1)?, relation: number(2)? })
}

/// `xl_xact_prepare`: magic, length, xid, database, time.
fn prepare(field: &[u8]) -> Option<Event> {
    Some(Event::Prepare { xid: Xid::new(u32_at(field, 8)?), time: PgTime(i64_at(field, 16)?) })
}

fn mark(info: u8, field: &[u8]) -> Option<Mark> {
    let lsn = |at| u64_at(field, at).map(Lsn);
    let time = |at| i64_at(field, at).map(PgTime);
    let timeline = |at| u32_at(field, at).map(Timeline);
    let int = |at| i32_at(field, at);
    let flag = |at: usize| field.get(at).map(|byte| *byte != 0);
    Some(match info {
        0x00 | 0x10 => Mark::Checkpoint {
            kind: if info == 0 { CheckpointKind::Shutdown } else { CheckpointKind::Online },
            redo: lsn(0)?,
            timeline: timeline(8)?,
            previous_timeline: timeline(12)?,
            time_unix_s: i64_at(field, 64)?,
        },
        0x50 => Mark::BackupEnd { start: lsn(0)? },
        0x60 => Mark::ParameterChange(Parameters {
            max_connections: int(0)?,
            max_worker_processes: int(4)?,
            max_wal_senders: int(8)?,
            max_prepared_transactions: int(12)?,
            max_locks_per_transaction: int(16)?,
            wal_level: int(20)?,
            wal_log_hints: flag(24)?,
            track_commit_timestamp: flag(25)?,
        }),
        0x70 => {
            let name = field.get(8..)?.split(|byte| *byte == 0).next()?;
            Mark::RestorePoint { time: time(0)?, name: RestorePointName::new(name)? }
        }
        0x90 => Mark::EndOfRecovery { time: time(0)?, timeline: timeline(8)?, previous_timeline: timeline(12)? },
        0xD0 => Mark::Overwrite { dead: lsn(0)?, time: time(8)? },
        _ => return None,
    })
}
