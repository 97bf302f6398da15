//! Who is told what a scan finds.

use super::effect::Effect;
use super::event::{BlockRef, Event, Record, StorageChange};
use crate::pg::Lsn;

/// Receives what a scan finds, in LSN order.
pub trait Visitor {
    /// Whether [`block`](Self::block), [`storage`](Self::storage) and [`unreadable`](Self::unreadable) are wanted.
    /// Looking for them costs time; when it is `false` the code for it isn't there.
    const BLOCKS: bool = false;

    /// Whether [`effect`](Self::effect), and of [`storage`](Self::storage) what is created, are wanted.
    const EFFECTS: bool = false;

    /// A record that begins and ends in the segment, before [`found`](Self::found) is told what it says, if anything.
    fn record(&mut self, start: Lsn) {
        let _ = start;
    }

    /// A record that says something. Its CRC is verified.
    fn found(&mut self, record: &Record<Event>) {
        let _ = record;
    }

    /// The record at `lsn` changes a block.
    ///
    /// Of a record that crosses pages this is reported before its CRC can be verified, and the record may prove dead or
    /// damaged. So blocks, like storage changes, may be reported too many (or twice, by a scan and by a
    /// [`Chain`](super::Chain)), never too few up to where reading ends. A scan by itself knows nothing of the record
    /// that its segment begins in: use a chain too, or carry records over.
    fn block(&mut self, lsn: Lsn, block: BlockRef) {
        let _ = (lsn, block);
    }

    /// The record at `lsn` does something at once. Of a record that crosses pages it may be reported before its CRC can
    /// be verified.
    fn effect(&mut self, lsn: Lsn, effect: Effect) {
        let _ = (lsn, effect);
    }

    /// The record at `lsn` creates, cuts or removes files. See [`block`](Self::block).
    fn storage(&mut self, lsn: Lsn, change: StorageChange) {
        let _ = (lsn, change);
    }

    /// The record at `lsn` may change blocks and files that could not be read: take everything as changed.
    fn unreadable(&mut self, lsn: Lsn) {
        let _ = lsn;
    }
}

/// Wants nothing: for those who need the summary only.
impl Visitor for () {}

/// Collects every event. Its size is not bounded: for tests and small ranges.
impl Visitor for Vec<Record<Event>> {
    fn found(&mut self, record: &Record<Event>) {
        self.push(record.clone());
    }
}

impl<V: Visitor> Visitor for &mut V {
    const BLOCKS: bool = V::BLOCKS;
    const EFFECTS: bool = V::EFFECTS;

    fn record(&mut self, start: Lsn) {
        (**self).record(start);
    }

    fn found(&mut self, record: &Record<Event>) {
        (**self).found(record);
    }

    fn block(&mut self, lsn: Lsn, block: BlockRef) {
        (**self).block(lsn, block);
    }

    fn effect(&mut self, lsn: Lsn, effect: Effect) {
        (**self).effect(lsn, effect);
    }

    fn storage(&mut self, lsn: Lsn, change: StorageChange) {
        (**self).storage(lsn, change);
    }

    fn unreadable(&mut self, lsn: Lsn) {
        (**self).unreadable(lsn);
    }
}
