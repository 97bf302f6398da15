//! Records: the CRC, what a record says, and one that is still incomplete.

use crc32c::{crc32c, crc32c_append, crc32c_combine};

use super::blocks::tell_blocks;
use super::body::Body;
use super::effect::Effect;
use super::event::{Event, PgTime, XactEnd, XactKind, Xid};
use super::header::{HEADER_BYTES, RecordHeader};
use super::main_data::{Main, RMGR_XACT};
use super::piece::Piece;
use super::summary::Reason;
use super::visitor::Visitor;
use crate::pg::Lsn;

/// What came of a complete record.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) header: RecordHeader,
    pub(super) event: Option<Event>,
}

/// Checks and reads a record that lies in memory whole.
pub(super) fn read<V: Visitor>(lsn: Lsn, bytes: &[u8], major: u16, visitor: &mut V) -> Result<Complete, Reason> {
    let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Reason::RecordLength)?;
    let header = RecordHeader::parse(head).ok_or(Reason::RecordLength)?;
    if !header.fits(crc32c(body), head) {
        return Err(Reason::Crc);
    }
    tell_effect(lsn, &header, major, visitor);
    if let Some(end) = plain_end(&header, body) {
        return Ok(Complete { header, event: Some(Event::XactEnd(end)) });
    }
    if V::BLOCKS && Main::of(&header, major, V::BLOCKS, V::EFFECTS) == Main::Ignored {
        if tell_blocks(lsn, body, major, visitor).is_none() {
            visitor.unreadable(lsn);
        }
        return Ok(Complete { header, event: switch(&header) });
    }
    let Some(mut machine) = Body::new::<V>(lsn, &header, major) else {
        return Ok(Complete { header, event: switch(&header) });
    };
    let outcome = machine.bytes(body, visitor);
    let event = end_of_record(lsn, &machine, outcome.is_err(), visitor)?;
    Ok(Complete { header, event: event.or(switch(&header)) })
}

/// What nearly all ends of transactions are: nothing but the header of their main data, and the time. Of these there
/// are so many that it pays to read them without a machine.
fn plain_end(header: &RecordHeader, body: &[u8]) -> Option<XactEnd> {
    let kind = match (header.rmid, header.info & 0xF0) {
        (RMGR_XACT, 0x00) => XactKind::Commit,
        (RMGR_XACT, 0x20) => XactKind::Abort,
        _ => return None,
    };
    match body {
        [255, 8, time @ ..] => {
            let time = PgTime(i64::from_le_bytes(time.try_into().ok()?));
            Some(XactEnd { kind, time, xid: Xid::new(header.xid) })
        }
        _ => None,
    }
}

/// What the header alone tells.
fn tell_effect<V: Visitor>(lsn: Lsn, header: &RecordHeader, major: u16, visitor: &mut V) {
    if V::EFFECTS
        && let Some(effect) = Effect::of(header, major)
    {
        visitor.effect(lsn, effect);
    }
}

fn switch(header: &RecordHeader) -> Option<Event> {
    header.is_switch().then_some(Event::Switch)
}

/// What a record says after all its bytes were read. Blocks that cannot be read are no damage: a summary doesn't depend
/// on whether somebody wanted them.
fn end_of_record<V: Visitor>(lsn: Lsn, body: &Body, malformed: bool, visitor: &mut V) -> Result<Option<Event>, Reason> {
    match body.finish() {
        Ok(event) if !malformed => Ok(event),
        _ if body.only_blocks() => {
            visitor.unreadable(lsn);
            Ok(None)
        }
        _ => Err(Reason::Body),
    }
}

/// A record whose beginning alone is known so far.
#[derive(Debug, Clone)]
pub(super) struct OpenRecord {
    pub(super) start: Lsn,
    pub(super) tot_len: u32,
    major: u16,
    got: u32,
    head: [u8; HEADER_BYTES],
    header: Option<RecordHeader>,
    /// CRC-32C of the body so far.
    crc: u32,
    body: Option<Body>,
    malformed: bool,
}

impl OpenRecord {
    pub(super) fn new(start: Lsn, tot_len: u32, major: u16) -> Self {
        Self { start, tot_len, major, got: 0, head: [0; HEADER_BYTES], header: None, crc: 0, body: None, malformed: false }
    }

    /// Bytes that are still to come.
    pub(super) fn left(&self) -> u32 {
        self.tot_len.saturating_sub(self.got)
    }

    /// The next bytes; no more than [`left`](Self::left).
    pub(super) fn bytes<V: Visitor>(&mut self, data: &[u8], visitor: &mut V) {
        let body = self.take_header::<V>(data);
        self.crc = crc32c_append(self.crc, body);
        self.feed(body, visitor);
        self.got = self.got.saturating_add(len_u32(body));
    }

    /// The next bytes, of which only a digest is known. `false` if it doesn't show the header, which no piece of a scan
    /// lacks.
    #[must_use]
    pub(super) fn piece<V: Visitor>(&mut self, piece: &Piece, visitor: &mut V) -> bool {
        let first = self.take_header::<V>(&piece.first);
        let of_header = piece.first.len() - first.len();
        let Some(body_len) = piece.len.checked_sub(of_header as u64).and_then(|len| u32::try_from(len).ok()) else {
            return false;
        };
        if self.header.is_none() && body_len > 0 {
            return false;
        }
        // crc(AB) = shift(crc(A), len(B)) xor crc(B), so what A contributed can be taken out again.
        let header_crc = crc32c(piece.first.get(..of_header).unwrap_or_default());
        let body_crc = piece.crc ^ crc32c_combine(header_crc, 0, body_len as usize);
        self.crc = crc32c_combine(self.crc, body_crc, body_len as usize);
        self.feed(first, visitor);
        if let Some(body) = &mut self.body {
            body.gap(u64::from(body_len).saturating_sub((first.len() + piece.last.len()) as u64), visitor);
        }
        self.feed(&piece.last, visitor);
        self.got = self.got.saturating_add(body_len);
        true
    }

    fn feed<V: Visitor>(&mut self, data: &[u8], visitor: &mut V) {
        if let Some(body) = &mut self.body
            && !self.malformed
        {
            self.malformed = body.bytes(data, visitor).is_err();
        }
    }

    /// Puts bytes of the header aside and returns the rest.
    fn take_header<'a, V: Visitor>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let got = self.got as usize;
        let Some(room) = self.head.get_mut(got..).filter(|room| !room.is_empty()) else { return data };
        let (part, rest) = data.split_at(room.len().min(data.len()));
        if let Some(room) = room.get_mut(..part.len()) {
            room.copy_from_slice(part);
        }
        self.got += len_u32(part);
        if self.got as usize == HEADER_BYTES {
            self.header = RecordHeader::parse(&self.head);
            self.body = self.header.and_then(|header| Body::new::<V>(self.start, &header, self.major));
        }
        rest
    }

    /// The header, once it is there.
    pub(super) fn header(&self) -> Option<&RecordHeader> {
        self.header.as_ref()
    }

    /// Checks and reads the record after its last byte.
    pub(super) fn finish<V: Visitor>(self, visitor: &mut V) -> Result<Complete, Reason> {
        let header = self.header.filter(|_| self.left() == 0).ok_or(Reason::RecordLength)?;
        if !header.fits(self.crc, &self.head) {
            return Err(Reason::Crc);
        }
        tell_effect(self.start, &header, self.major, visitor);
        let event = match &self.body {
            Some(body) => end_of_record(self.start, body, self.malformed, visitor)?,
            None => None,
        };
        Ok(Complete { header, event: event.or(switch(&header)) })
    }
}

/// Pieces are never longer than a record.
fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
