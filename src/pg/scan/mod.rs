//! Reads what a WAL segment says: which transactions ended when and where, restore points, checkpoints, and how the
//! segment hangs together with its neighbours.
//!
//! Lives here: the scanner, the [`Summary`] of a segment with its encoding, and [`Chain`], which joins summaries of
//! neighbours. May not live here: I/O. Facts about the format are from PostgreSQL's `access/xlog_internal.h`,
//! `access/xlogrecord.h`, `access/xact.h`, `access/xlogreader.c`, `access/xloginsert.c` and `catalog/pg_control.h` of
//! 13 to 18, little-endian, WAL pages of 8 KiB.
//!
//! # Design
//! - [`Scanner`] takes the bytes of one segment in pieces of any length and works page by page. A record that lies in
//!   one page is checked and read where it is; of a record that crosses pages only a running CRC, its 24-byte header
//!   and the state of a small machine are kept. The machine (`body.rs`) reads fields and steps over arrays by
//!   arithmetic as the bytes stream by, so a commit record of a hundred megabytes costs as little memory as one of
//!   forty bytes.
//! - What is found goes to a [`Visitor`] at once, and into the [`Summary`] that [`Scanner::finish`] returns. A summary
//!   is a function of the segment's bytes and name alone: not of the visitor, not of how the bytes were cut, not of the
//!   neighbours.
//! - A record that crosses the *segment* belongs to no summary. Both sides keep their part of it as a [`Piece`]: its
//!   length, the CRC-32C of all its bytes, the first bytes (≤ [`PIECE_FIRST_BYTES`]) and the last (≤
//!   [`PIECE_LAST_BYTES`]). [`Chain`] takes summaries in order and feeds the pieces to the same machine. CRCs of pieces
//!   combine into the CRC of the whole by arithmetic, so the record is verified although nobody has all its bytes,
//!   however many segments it fills.
//! - Nothing that is wrong with a segment is an error of the scan. Reading stops where the server would stop;
//!   [`Summary::end`] says where and why, and all before it stands.
//!
//! # Cost
//! 16 MiB of pgbench WAL (227,000 records, 35,000 transactions) take 6 ms of one core with CRC, 11 ms with block
//! references, and give a summary of 137 kB, 3.9 bytes per transaction; 16 MiB of full-page images take 1 ms
//! (`benches/scan.rs`).
//!
//! # Which fields a joined record gives
//! Kind, LSN and time of a commit or abort are within the first hundred bytes of a record, so they are always known.
//! The xid of `COMMIT PREPARED` and `ROLLBACK PREPARED` comes after arrays. It is known when these end within the kept
//! bytes, or when the record has no GID (it has one only with `wal_level = logical`), since it is then at a fixed
//! distance from the end. Otherwise [`XactEnd::xid`] is `None`. To know it nonetheless, scan both segments with
//! [`Scanner::resume`], which carries the machine over.
//!
//! # Invariants
//! - No panic, no loop without progress and no allocation that depends on a number in the bytes. Memory: one page, both
//!   pieces, at most [`MAX_XACT_LIST_BYTES`] of transactions and [`MAX_MARKS`] marks (the longest has
//!   [`MAX_TABLESPACE_PATH_BYTES`] and a few). A list that would be longer is dropped as a whole and is `None`, never a
//!   part that looks like the whole; counts, times and xids stay exact.
//! - Every reported record lay between page headers with the right magic, address, timeline order and continuation
//!   length, had the right CRC-32C, and named the record before it.
//! - `decode(encode(summary)) == summary`, and every byte string that decodes is the only encoding of its summary.
//!
//! # What could lose data here, and what prevents it
//! - *The last commit before a boundary.* A record that crosses a boundary is in no summary's list, count or time
//!   range. Anybody who looks for transactions must run [`Chain`] over the path; it reports them.
//! - *Taking a damaged or cut segment for a quiet one.* [`End`] tells a segment that is full, was switched, ends in
//!   zeros or is damaged. [`End::EndOfData`] and [`End::Damaged`] in a complete segment mean that recovery would stop
//!   there. In a `.partial`, or the segment being written, both are the normal end: what follows is whatever the
//!   recycled file held.
//! - *A hole between segments.* [`Chain`] verifies that the first record names the last one of the segment before, and
//!   that pieces fit. Two summaries that merely look adjacent don't pass.
//! - *A record that died in a crash.* After a crash the rest of a record may never come; the server then flags the next
//!   page and writes `OVERWRITE_CONTRECORD`. The dead record is not reported, and is no damage.
//! - *A switch record of which only the last 8 or 16 bytes are in a segment.* All the rest of that segment is zero,
//!   which is no end of data. It is recognised by these bytes; [`Chain`] verifies it.
//! - *An order of times.* There is none: commit times are not monotonic in LSN. Lists are in LSN order.
//! - *Records not understood.* A record with a valid CRC whose transaction or control data doesn't parse ends the scan
//!   as [`Reason::Body`], rather than being passed over.

mod blocks;
mod body;
mod chain;
mod decode;
mod effect;
mod encode;
mod event;
mod header;
mod main_data;
mod page;
mod piece;
mod record;
mod scanner;
mod summary;
mod visitor;
mod xact_stats;
mod xacts;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wal;

pub use chain::{Break, Chain};
pub use decode::DecodeError;
pub use effect::{Effect, Lock};
pub use event::{
    BlockRef, CheckpointKind, DatabaseFiles, Event, Mark, Parameters, PgTime, Record, RelFile, RestorePointName, StorageChange,
    TablespacePath, XactEnd, XactKind, Xid,
};
pub use piece::Piece;
pub use scanner::{Carry, Scanned, Scanner};
pub use summary::{Damage, End, Head, Origin, Reason, Records, Segment, Summary, Tail, XactStats, XidRange};
pub use visitor::Visitor;
pub use xacts::{XactEntry, XactList};

pub use crate::limits::{
    MAX_DROPPED_TABLESPACES, MAX_MARKS, MAX_TABLESPACE_PATH_BYTES, MAX_WAL_RECORD_BYTES, MAX_XACT_LIST_BYTES, PIECE_FIRST_BYTES,
    PIECE_LAST_BYTES,
};
