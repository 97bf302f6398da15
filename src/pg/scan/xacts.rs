//! The list of transaction ends of a segment, about 4 bytes each.

use super::event::{PgTime, XactEnd, XactKind, Xid};
use crate::pg::Lsn;
use crate::varint::{put_varint, take_varint, unzigzag, zigzag};

/// One end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XactEntry {
    /// Where its record begins.
    pub lsn: Lsn,
    /// What the record says.
    pub end: XactEnd,
}

/// Ends of transactions in LSN order, kept as differences in variable-length numbers.
///
/// An entry is three of them: the distance from the record before (at first: from the segment's beginning) in units of
/// 8 bytes; the difference of times, which may be negative; the difference of the xid from the next in order with the
/// kind in the lowest 2 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct XactList {
    start: Lsn,
    bytes: Vec<u8>,
    last: Last,
}

/// What differences are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    lsn: u64,
    time: i64,
    xid: u32,
}

impl XactList {
    /// An empty list for a segment that begins there.
    pub(super) fn new(start: Lsn) -> Self {
        Self { start, bytes: Vec::new(), last: Last { lsn: start.0, time: 0, xid: 0 } }
    }

    /// Adds a record after all others.
    pub(super) fn push(&mut self, lsn: Lsn, end: &XactEnd) {
        let kind = match end.kind {
            XactKind::Commit => 0,
            XactKind::Abort => 1,
            XactKind::CommitPrepared => 2,
            XactKind::AbortPrepared => 3,
        };
        let xid = end.xid.map_or(0, Xid::get);
        let step = xid.wrapping_sub(self.last.xid).wrapping_sub(1) as i32;
        put_varint(&mut self.bytes, lsn.0.wrapping_sub(self.last.lsn) / 8);
        put_varint(&mut self.bytes, zigzag(end.time.0.wrapping_sub(self.last.time)));
        put_varint(&mut self.bytes, zigzag(i64::from(step)) << 2 | kind);
        self.last = Last { lsn: lsn.0, time: end.time.0, xid };
    }

    /// The encoded entries.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks encoded entries: every one must be whole, in canonical form, and before `until`.
    pub(super) fn from_bytes(start: Lsn, until: Lsn, bytes: &[u8]) -> Option<Self> {
        let mut entries = Entries { rest: bytes, last: Last { lsn: start.0, time: 0, xid: 0 } };
        while !entries.rest.is_empty() {
            let before = entries.last.lsn;
            let entry = entries.read()?;
            if entry.lsn.0 <= before || entry.lsn >= until {
                return None;
            }
        }
        Some(Self { start, last: entries.last, bytes: bytes.to_owned() })
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The entries in LSN order.
    pub fn iter(&self) -> impl Iterator<Item = XactEntry> + '_ {
        Entries { rest: &self.bytes, last: Last { lsn: self.start.0, time: 0, xid: 0 } }
    }
}

impl std::fmt::Debug for XactList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

struct Entries<'a> {
    rest: &'a [u8],
    last: Last,
}

impl Entries<'_> {
    fn read(&mut self) -> Option<XactEntry> {
        let distance = take_varint(&mut self.rest)?;
        let time = unzigzag(take_varint(&mut self.rest)?);
        let xid_kind = take_varint(&mut self.rest)?;
        let kind = match xid_kind & 3 {
            0 => XactKind::Commit,
            1 => XactKind::Abort,
            2 => XactKind::CommitPrepared,
            _ => XactKind::AbortPrepared,
        };
        let step = i32::try_from(unzigzag(xid_kind >> 2)).ok()?;
        self.last = Last {
            lsn: self.last.lsn.checked_add(distance.checked_mul(8)?)?,
            time: self.last.time.wrapping_add(time),
            xid: self.last.xid.wrapping_add(step as u32).wrapping_add(1),
        };
        let end = XactEnd { kind, time: PgTime(self.last.time), xid: Xid::new(self.last.xid) };
        Some(XactEntry { lsn: Lsn(self.last.lsn), end })
    }
}

impl Iterator for Entries<'_> {
    type Item = XactEntry;

    fn next(&mut self) -> Option<XactEntry> {
        self.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_checked() {
        let start = Lsn(1 << 20);
        let mut list = XactList::new(start);
        let end = |kind, time, xid| XactEnd { kind, time: PgTime(time), xid: Xid::new(xid) };
        let entries = [
            (40, end(XactKind::Commit, i64::MAX, 3)),
            (48, end(XactKind::AbortPrepared, i64::MIN, u32::MAX)),
            (80, end(XactKind::CommitPrepared, 0, 0)),
            (5000, end(XactKind::Abort, -1, 0x8000_0000)),
        ];
        for (offset, end) in &entries {
            list.push(Lsn(start.0 + offset), end);
        }
        let read: Vec<(u64, XactEnd)> = list.iter().map(|entry| (entry.lsn.0 - start.0, entry.end)).collect();
        assert_eq!(read, entries);
        let until = Lsn(start.0 + 8192);
        assert_eq!(XactList::from_bytes(start, until, list.as_bytes()), Some(list.clone()));
        assert_eq!(XactList::from_bytes(start, Lsn(start.0 + 5000), list.as_bytes()), None, "beyond the end");
        for cut in 1..list.as_bytes().len() {
            let part = XactList::from_bytes(start, until, &list.as_bytes()[..cut]);
            assert!(part.is_none_or(|part| part.iter().count() < 4));
        }
        let mut again = XactList::new(start);
        again.push(Lsn(start.0 + 40), &entries[0].1);
        again.push(Lsn(start.0 + 40), &entries[0].1);
        assert_eq!(XactList::from_bytes(start, until, again.as_bytes()), None, "twice at one position");
        // A longer form of the same number.
        assert_eq!(XactList::from_bytes(start, until, &[0x85, 0x00, 0, 0]), None);
        assert!(XactList::from_bytes(start, until, &[0x05, 0, 0]).is_some());
    }
}
