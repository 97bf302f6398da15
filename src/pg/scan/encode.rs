//! The encoding of a summary.
//!
//! Numbers are variable-length, little-endian in groups of 7 bits (LEB128), of the shortest form; signed ones are
//! zigzagged; positions are distances from the segment's beginning. Layout, version 2:
//!
//! | part | fields |
//! |---|---|
//! | version | byte 2; 1 of a scan that did not look for tablespaces and databases: the same without marks of these |
//! | segment | timeline; binary logarithm of the size; number |
//! | origin | 0, or major version and system identifier (8 bytes) |
//! | head | 0 record, 1 overwrite, 2 continuation or 3 dead continuation: rem_len, piece |
//! | records | count, or 0; first, last, position of the one before the first |
//! | transactions | count, or 0; aborts; earliest time; latest minus earliest; oldest xid or 0; if not 0: newest minus oldest |
//! | list of transactions | 0 left out; 1 and length and bytes ([`XactList`](super::XactList)) |
//! | marks | 0 left out; 1 and count and marks: start, length of the record, kind, its fields |
//! | end | 0 full, 1 continues: start, tot_len, piece; 2 continuation; 3 switch, 4 switch with other than zeros after it; 5 end of data: at; 6 damage: reason, at, seen at, found |
//!
//! A piece is its length, its CRC (4 bytes) and its bytes, whose numbers follow from the length.

use super::event::{CheckpointKind, Mark, Record};
use super::piece::Piece;
use super::summary::{End, Head, Reason, Summary, XactStats};
use crate::pg::Lsn;
use crate::varint::{put_varint, zigzag};

/// The version that a scan gives.
pub(super) const VERSION: u8 = 2;
/// Of scans that did not look for tablespaces and databases.
pub(super) const VERSION_WITHOUT_FILES: u8 = 1;

struct Writer {
    out: Vec<u8>,
    start: u64,
}

impl Writer {
    fn number(&mut self, value: u64) {
        put_varint(&mut self.out, value);
    }

    fn signed(&mut self, value: i64) {
        self.number(zigzag(value));
    }

    fn lsn(&mut self, lsn: Lsn) {
        self.number(lsn.0.wrapping_sub(self.start));
    }

    fn piece(&mut self, piece: &Piece) {
        self.number(piece.len);
        self.out.extend_from_slice(&piece.crc.to_le_bytes());
        self.out.extend_from_slice(&piece.first);
        self.out.extend_from_slice(&piece.last);
    }

    fn mark(&mut self, record: &Record<Mark>) {
        self.lsn(record.start);
        self.number(record.end.0.wrapping_sub(record.start.0));
        match &record.what {
            Mark::RestorePoint { time, name } => {
                self.number(0);
                self.signed(time.0);
                self.number(name.as_bytes().len() as u64);
                self.out.extend_from_slice(name.as_bytes());
            }
            Mark::Checkpoint { kind, redo, timeline, previous_timeline, time_unix_s } => {
                self.number(match kind {
                    CheckpointKind::Shutdown => 1,
                    CheckpointKind::Online => 2,
                });
                self.number(redo.0);
                self.number(timeline.0.into());
                self.number(previous_timeline.0.into());
                self.signed(*time_unix_s);
            }
            Mark::BackupEnd { start } => {
                self.number(3);
                self.number(start.0);
            }
            Mark::EndOfRecovery { time, timeline, previous_timeline } => {
                self.number(4);
                self.signed(time.0);
                self.number(timeline.0.into());
                self.number(previous_timeline.0.into());
            }
            Mark::ParameterChange(p) => {
                self.number(5);
                let numbers = [
                    p.max_connections,
                    p.max_worker_processes,
                    p.max_wal_senders,
                    p.max_prepared_transactions,
                    p.max_locks_per_transaction,
                    p.wal_level,
                ];
                for number in numbers {
                    self.signed(number.into());
                }
                self.number(u64::from(p.wal_log_hints) | u64::from(p.track_commit_timestamp) << 1);
            }
            Mark::Overwrite { dead, time } => {
                self.number(6);
                self.number(dead.0);
                self.signed(time.0);
            }
            Mark::TablespaceCreate { tablespace, path } => {
                self.number(7);
                self.number((*tablespace).into());
                self.number(path.as_bytes().len() as u64);
                self.out.extend_from_slice(path.as_bytes());
            }
            Mark::TablespaceDrop { tablespace } => {
                self.number(8);
                self.number((*tablespace).into());
            }
            Mark::DatabaseCreate { database, tablespace, copied_from } => {
                self.number(if copied_from.is_some() { 9 } else { 10 });
                self.number((*database).into());
                self.number((*tablespace).into());
                if let Some(source) = copied_from {
                    self.number(source.database.into());
                    self.number(source.tablespace.into());
                }
            }
            Mark::DatabaseDrop { database, tablespaces } => {
                self.number(11);
                self.number((*database).into());
                self.number(tablespaces.as_ref().map_or(0, |list| 1 + list.len() as u64));
                tablespaces.iter().flatten().for_each(|tablespace| self.number((*tablespace).into()));
            }
        }
    }
}

impl Summary {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_parts(true, true)
    }

    /// Its bytes without the list of transactions, and if need be without the marks, if it does not fit in `max_bytes`
    /// with them; decoding then gives `None` for these. `None` if it does not fit even so, which takes less than 17 KiB
    /// (2 × ([`PIECE_FIRST_BYTES`](crate::limits::PIECE_FIRST_BYTES) +
    /// [`PIECE_LAST_BYTES`](crate::limits::PIECE_LAST_BYTES)) and a few numbers).
    pub fn encode_within(&self, max_bytes: usize) -> Option<Vec<u8>> {
        let parts = [(true, true), (false, true), (false, false)];
        parts.into_iter().map(|(xacts, marks)| self.encode_parts(xacts, marks)).find(|bytes| bytes.len() <= max_bytes)
    }

    fn encode_parts(&self, xacts: bool, marks: bool) -> Vec<u8> {
        let version = if self.knows_files { VERSION } else { VERSION_WITHOUT_FILES };
        let mut w = Writer { out: vec![version], start: self.segment.start.0 };
        w.number(self.segment.timeline.0.into());
        w.number(self.segment.size_bytes.trailing_zeros().into());
        w.number(self.segment.start.0 / self.segment.size_bytes);
        match &self.origin {
            None => w.number(0),
            Some(origin) => {
                w.number(origin.major.into());
                w.out.extend_from_slice(&origin.system_id.to_le_bytes());
            }
        }
        match &self.head {
            Head::Record => w.number(0),
            Head::Overwrite => w.number(1),
            Head::Continuation { rem_len, piece, dead } => {
                w.number(2 + u64::from(*dead));
                w.number((*rem_len).into());
                w.piece(piece);
            }
        }
        w.number(self.records.map_or(0, |records| records.count));
        if let Some(records) = &self.records {
            w.lsn(records.first);
            w.lsn(records.last);
            w.number(records.before_first.0);
        }
        XactStats::put(self.xact_stats.as_ref(), &mut w.out);
        match self.xacts.as_ref().filter(|_| xacts) {
            None => w.number(0),
            Some(list) => {
                w.number(1);
                w.number(list.as_bytes().len() as u64);
                w.out.extend_from_slice(list.as_bytes());
            }
        }
        match self.marks.as_ref().filter(|_| marks) {
            None => w.number(0),
            Some(marks) => {
                w.number(1);
                w.number(marks.len() as u64);
                marks.iter().for_each(|record| w.mark(record));
            }
        }
        match &self.end {
            End::Full => w.number(0),
            End::Continues(tail) => {
                w.number(1);
                w.lsn(tail.start);
                w.number(tail.tot_len.into());
                w.piece(&tail.piece);
            }
            End::Continuation => w.number(2),
            End::Switch { rest_is_zero } => w.number(if *rest_is_zero { 3 } else { 4 }),
            End::EndOfData { at } => {
                w.number(5);
                w.lsn(*at);
            }
            End::Damaged(damage) => {
                w.number(6);
                w.number(Reason::ALL.iter().position(|reason| *reason == damage.reason).unwrap_or_default() as u64);
                w.lsn(damage.at);
                w.lsn(damage.seen_at);
                w.number(damage.found);
            }
        }
        w.out
    }
}
