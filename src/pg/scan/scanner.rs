//! The scan of one segment, page by page.

use std::io::{self, Write};

use super::event::{Event, Record};
use super::header::HEADER_BYTES;
use super::page::{LONG_HEADER_BYTES, PAGE_BYTES, PageHeader, SHORT_HEADER_BYTES, align, is_zero, u16_at, u32_at, u64_at};
use super::piece::Piece;
use super::record::{self, Complete, OpenRecord};
use super::summary::{Damage, End, Head, Origin, Reason, Segment, Summary, Tail};
use super::visitor::Visitor;
use super::{Break, MAX_WAL_RECORD_BYTES};
use crate::pg::{Lsn, major_of_magic};

/// What is wrong, and the value that shows it.
type Fault = (Reason, u64);

/// Where the scan is.
#[derive(Debug)]
enum State {
    /// Before the first page.
    Start,
    /// In a record of an earlier segment, with bytes left.
    Head(u32),
    /// At the end of a page that ends with a record.
    Between,
    /// In a record that began in this segment, and what the summary keeps of it if it reaches the segment's end.
    Open(Box<OpenRecord>, Option<Piece>),
    /// After a switch.
    Switched { rest_is_zero: bool },
    /// Whatever comes is not read.
    Stopped,
}

/// Scans one segment.
///
/// ```
/// # use walvis::pg::{SegmentName, WalSegmentSize};
/// use walvis::pg::scan::{End, Reason, Scanner, Segment};
///
/// let size = WalSegmentSize::new(1 << 20).ok_or("size")?;
/// let name = SegmentName::parse("000000010000000000000001").ok_or("name")?;
/// let mut scanner = Scanner::new(Segment::new(name, size).ok_or("segment")?, ());
/// scanner.push(b"not a");
/// scanner.push(b" WAL segment");
/// let summary = scanner.finish().summary;
/// assert!(matches!(summary.end, End::Damaged(damage) if damage.reason == Reason::Short));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug)]
pub struct Scanner<V> {
    visitor: V,
    summary: Summary,
    /// The beginning of a page that has not come whole.
    partial: Vec<u8>,
    /// Bytes of the segment that were read, whole pages.
    pos: u64,
    /// More came than a segment has.
    excess: bool,
    state: State,
    magic: u16,
    major: u16,
    /// Of the last page.
    timeline: u32,
    /// Where the last complete record begins.
    last: Option<Lsn>,
    /// The bytes just read may end an `XLOG_SWITCH` that began in the segment before.
    maybe_switch: bool,
    carried: Option<OpenRecord>,
    carry_break: Option<Break>,
}

/// A record that is still open where a segment ends, for the scan of the next one.
#[derive(Debug, Clone)]
pub struct Carry(OpenRecord);

impl Carry {
    /// Where the record begins.
    pub fn start(&self) -> Lsn {
        self.0.start
    }
}

/// What a scan yields.
#[derive(Debug)]
pub struct Scanned<V> {
    /// The summary.
    pub summary: Summary,
    /// The record that is open at the end, unless it began before what was scanned.
    pub carry: Option<Carry>,
    /// Why the record carried in from the segment before does not go on here, if it doesn't.
    pub carry_break: Option<Break>,
    /// The visitor.
    pub visitor: V,
}

impl<V: Visitor> Scanner<V> {
    /// A scan of `segment` by itself.
    pub fn new(segment: Segment, visitor: V) -> Self {
        Self::resume(segment, None, visitor)
    }

    /// A scan of the segment after the one that `carry` is from. Its summary is the same as without; but the record
    /// that crosses the boundary is reported to the visitor, with all that it says.
    pub fn resume(segment: Segment, carry: Option<Carry>, visitor: V) -> Self {
        Self {
            visitor,
            summary: Summary::new(segment),
            partial: Vec::new(),
            pos: 0,
            excess: false,
            state: State::Start,
            magic: 0,
            major: 0,
            timeline: 0,
            last: None,
            maybe_switch: false,
            carried: carry.map(|carry| carry.0),
            carry_break: None,
        }
    }

    /// The next bytes of the segment, as many as there happen to be.
    pub fn push(&mut self, mut data: &[u8]) {
        if !self.partial.is_empty() {
            let (part, rest) = data.split_at(data.len().min(PAGE_BYTES - self.partial.len()));
            self.partial.extend_from_slice(part);
            data = rest;
            if self.partial.len() < PAGE_BYTES {
                return;
            }
            let page = std::mem::take(&mut self.partial);
            self.page(&page);
            self.partial = page;
            self.partial.clear();
        }
        let mut pages = data.chunks_exact(PAGE_BYTES);
        for page in &mut pages {
            self.page(page);
        }
        self.partial.extend_from_slice(pages.remainder());
    }

    /// The segment is at its end.
    pub fn finish(mut self) -> Scanned<V> {
        let segment = self.summary.segment;
        let at = Lsn(segment.start.0 + self.pos);
        if matches!(self.state, State::Stopped) {
            // What was wrong before stands.
        } else if self.excess || (self.pos == segment.size_bytes && !self.partial.is_empty()) {
            self.damage(segment.end(), (Reason::Long, 0));
        } else if self.pos < segment.size_bytes {
            self.damage(Lsn(at.0 + self.partial.len() as u64), (Reason::Short, 0));
        }
        let mut carry = self.carried.take();
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Start | State::Between | State::Stopped => {}
            State::Head(_) => self.summary.end = End::Continuation,
            State::Open(open, piece) => {
                let tail = Tail { start: open.start, tot_len: open.tot_len, piece: piece.unwrap_or_default() };
                self.summary.end = End::Continues(tail);
                carry = Some(*open);
            }
            State::Switched { rest_is_zero } => self.summary.end = End::Switch { rest_is_zero },
        }
        if !self.summary.is_complete() {
            carry = None;
        }
        Scanned { summary: self.summary, carry: carry.map(Carry), carry_break: self.carry_break, visitor: self.visitor }
    }

    /// Where good data end when the page or record at `lsn` is bad: an open record is not good.
    fn good_until(&self, lsn: Lsn) -> Lsn {
        match &self.state {
            State::Open(open, _) => open.start,
            State::Start | State::Head(_) | State::Between | State::Switched { .. } | State::Stopped => lsn,
        }
    }

    fn damage(&mut self, seen_at: Lsn, (reason, found): Fault) {
        let at = self.good_until(seen_at);
        self.summary.end = End::Damaged(Damage { at, seen_at, reason, found });
        self.state = State::Stopped;
    }

    fn page(&mut self, page: &[u8]) {
        let segment = self.summary.segment;
        if self.pos >= segment.size_bytes {
            self.excess = true;
            return;
        }
        let at = Lsn(segment.start.0 + self.pos);
        self.pos += PAGE_BYTES as u64;
        match &mut self.state {
            State::Stopped => return,
            State::Switched { rest_is_zero } => {
                *rest_is_zero &= is_zero(page);
                return;
            }
            State::Start | State::Between if is_zero(page) => {
                self.summary.end = End::EndOfData { at };
                self.state = State::Stopped;
                return;
            }
            State::Start | State::Head(_) | State::Between | State::Open(..) => {}
        }
        let read = self.check_page(page, at).and_then(|header| self.enter(page, at, header));
        match read {
            Ok(Some(offset)) => self.records(page, at, offset),
            Ok(None) => {}
            Err(fault) => self.damage(at, fault),
        }
    }

    /// What the server checks of a page (`XLogReaderValidatePageHeader`).
    fn check_page(&mut self, page: &[u8], at: Lsn) -> Result<PageHeader, Fault> {
        let header = PageHeader::parse(page).ok_or((Reason::Short, 0))?;
        let first = matches!(self.state, State::Start);
        let segment = self.summary.segment;
        if first {
            self.major = major_of_magic(header.magic).ok_or((Reason::Magic, header.magic.into()))?;
            self.magic = header.magic;
        } else if header.magic != self.magic {
            return Err((Reason::OtherMagic, header.magic.into()));
        }
        if !header.flags_fit(first) {
            return Err((Reason::PageFlags, header.info.into()));
        }
        if header.address != at.0 {
            return Err((Reason::PageAddress, header.address));
        }
        if header.timeline < self.timeline.max(1) || header.timeline > segment.timeline.0 {
            return Err((Reason::PageTimeline, header.timeline.into()));
        }
        if first {
            let system_id = u64_at(page, 24).ok_or((Reason::Short, 0))?;
            let size = u64::from(u32_at(page, 32).ok_or((Reason::Short, 0))?);
            let block = u64::from(u32_at(page, 36).ok_or((Reason::Short, 0))?);
            if size != segment.size_bytes {
                return Err((Reason::SegmentSize, size));
            }
            if block != PAGE_BYTES as u64 {
                return Err((Reason::BlockSize, block));
            }
            self.summary.origin = Some(Origin { major: self.major, system_id });
        }
        self.timeline = header.timeline;
        Ok(header)
    }

    /// Takes what continues a record, and returns where the first record of the page begins, if one does.
    fn enter(&mut self, page: &[u8], at: Lsn, header: PageHeader) -> Result<Option<usize>, Fault> {
        let first = matches!(self.state, State::Start);
        let header_bytes = if first { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
        if header.overwrites() {
            self.overwrite()?;
            return Ok(Some(header_bytes));
        }
        if first {
            if !header.continues() {
                if self.carried.take().is_some() {
                    self.carry_break = Some(Break::NotContinued);
                }
                self.state = State::Between;
                return Ok(Some(header_bytes));
            }
            if !(1..=MAX_WAL_RECORD_BYTES).contains(&header.rem_len) {
                return Err((Reason::ContinuationLength, header.rem_len.into()));
            }
            self.summary.head = Head::Continuation { rem_len: header.rem_len, piece: Piece::default(), dead: false };
            self.state = State::Head(header.rem_len);
            if self.carried.as_ref().is_some_and(|open| open.left() != header.rem_len) {
                self.carried = None;
                self.carry_break = Some(Break::OtherLength);
            }
        }
        let left = match &self.state {
            State::Head(left) => *left,
            State::Open(open, _) => open.left(),
            _ if header.continues() => return Err((Reason::UnexpectedContinuation, header.rem_len.into())),
            _ => return Ok(Some(header_bytes)),
        };
        if !header.continues() {
            return Err((Reason::NoContinuation, header.info.into()));
        }
        if header.rem_len != left {
            return Err((Reason::ContinuationLength, header.rem_len.into()));
        }
        let len = (PAGE_BYTES - header_bytes).min(left as usize);
        let data = page.get(header_bytes..header_bytes + len).unwrap_or_default();
        let left = left - len as u32;
        // Never beyond the page: its size and that of its header are multiples of 8.
        let offset = align(header_bytes + len);
        match std::mem::replace(&mut self.state, State::Between) {
            State::Open(mut open, mut piece) => {
                open.bytes(data, &mut self.visitor);
                if let Some(piece) = &mut piece {
                    piece.push(data);
                }
                if left > 0 {
                    self.state = State::Open(open, piece);
                    return Ok(None);
                }
                let start = open.start;
                match open.finish(&mut self.visitor) {
                    Ok(complete) => self.complete(start, Lsn(at.0 + offset as u64), complete, page.get(offset..)),
                    Err(reason) => self.damage(start, (reason, 0)),
                }
            }
            _ => {
                self.head(data, left, Lsn(at.0 + offset as u64));
                if left > 0 {
                    self.state = State::Head(left);
                    return Ok(None);
                }
            }
        }
        Ok(matches!(self.state, State::Between).then_some(offset))
    }

    /// The page takes the place of the rest of a record that died.
    fn overwrite(&mut self) -> Result<(), Fault> {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Start => self.summary.head = Head::Overwrite,
            State::Head(_) => {
                if let Head::Continuation { dead, .. } = &mut self.summary.head {
                    *dead = true;
                }
            }
            State::Open(..) => {}
            state => {
                self.state = state;
                return Err((Reason::UnexpectedOverwrite, 0));
            }
        }
        self.carried = None;
        Ok(())
    }

    /// Bytes of the record that the segment begins in.
    fn head(&mut self, data: &[u8], left: u32, end: Lsn) {
        if let Head::Continuation { rem_len, piece, .. } = &mut self.summary.head {
            piece.push(data);
            self.maybe_switch = left == 0 && ends_switch(*rem_len, piece.first());
        }
        if let Some(mut open) = self.carried.take() {
            open.bytes(data, &mut self.visitor);
            if left > 0 {
                self.carried = Some(open);
                return;
            }
            let start = open.start;
            match open.finish(&mut self.visitor) {
                Ok(Complete { event: Some(event), .. }) => self.visitor.found(&Record { start, end, what: event }),
                Ok(_) => {}
                Err(reason) => self.carry_break = Some(Break::Record { start, reason }),
            }
        }
    }

    /// Reads the records that begin in a page, from `offset` on.
    fn records(&mut self, page: &[u8], at: Lsn, mut offset: usize) {
        while matches!(self.state, State::Between) {
            let Some(rest) = page.get(offset..).filter(|rest| !rest.is_empty()) else { return };
            let start = Lsn(at.0 + offset as u64);
            let Some(tot_len) = u32_at(rest, 0) else { return };
            if tot_len == 0 {
                if std::mem::take(&mut self.maybe_switch) {
                    self.state = State::Switched { rest_is_zero: is_zero(rest) };
                } else {
                    self.summary.end = End::EndOfData { at: start };
                    self.state = State::Stopped;
                }
                return;
            }
            self.maybe_switch = false;
            if !(HEADER_BYTES as u32..=MAX_WAL_RECORD_BYTES).contains(&tot_len) {
                return self.damage(start, (Reason::RecordLength, tot_len.into()));
            }
            let Some(bytes) = rest.get(..tot_len as usize) else {
                let mut open = OpenRecord::new(start, tot_len, self.major);
                open.bytes(rest, &mut self.visitor);
                // Known from the start, so that no other record has to be kept.
                let tail = self.payload_left(rest.len()) < u64::from(tot_len);
                let piece = tail.then(|| {
                    let mut piece = Piece::default();
                    piece.push(rest);
                    piece
                });
                self.state = State::Open(Box::new(open), piece);
                return;
            };
            offset = align(offset + bytes.len());
            match record::read(start, bytes, self.major, &mut self.visitor) {
                Ok(complete) => self.complete(start, Lsn(at.0 + offset as u64), complete, page.get(offset..)),
                Err(reason) => return self.damage(start, (reason, 0)),
            }
        }
    }

    /// Bytes for records from here to the end of the segment, `in_page` of them in this page.
    fn payload_left(&self, in_page: usize) -> u64 {
        let pages = (self.summary.segment.size_bytes - self.pos) / PAGE_BYTES as u64;
        in_page as u64 + pages * (PAGE_BYTES - SHORT_HEADER_BYTES) as u64
    }

    /// A record with a right CRC. `rest` is what follows it in its page.
    fn complete(&mut self, start: Lsn, end: Lsn, complete: Complete, rest: Option<&[u8]>) {
        let header = &complete.header;
        // As the server does: exact where the record before was read, else only in the right direction.
        let linked = self.last.map_or(header.prev < start, |last| header.prev == last);
        if !linked {
            return self.damage(start, (Reason::PrevLink, header.prev.0));
        }
        self.last = Some(start);
        self.summary.add_record(start, header.prev);
        self.visitor.record(start);
        let Some(what) = complete.event else { return };
        let record = Record { start, end, what };
        self.summary.add_event(&record);
        self.visitor.found(&record);
        if record.what == Event::Switch {
            self.state = State::Switched { rest_is_zero: rest.is_none_or(is_zero) };
        }
    }
}

/// What reads a segment as a stream hands it to the scan as to any other reader.
impl<V: Visitor> Write for Scanner<V> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `bytes` can be the last 8 or 16 bytes of the header of an `XLOG_SWITCH`, which has nothing but a header.
fn ends_switch(rem_len: u32, bytes: &[u8]) -> bool {
    let Some(at) = (rem_len as usize).checked_sub(8).filter(|at| matches!(at, 0 | 8)) else { return false };
    let info_rmid = u16_at(bytes, at).map(u16::to_le_bytes);
    info_rmid.is_some_and(|[info, rmid]| info & 0xF0 == 0x40 && rmid == 0)
}
