//! The way back from bytes to a summary. Foreign bytes: everything is checked, nothing is allocated on the word of a
//! number.

use super::encode::{VERSION, VERSION_WITHOUT_FILES};
use super::event::{CheckpointKind, DatabaseFiles, Mark, Parameters, PgTime, Record, RestorePointName, TablespacePath};
use super::page::PAGE_BYTES;
use super::piece::Piece;
use super::summary::{Damage, End, Head, Origin, Reason, Records, Segment, Summary, Tail, XactStats};
use super::xacts::XactList;
use crate::limits::{
    MAX_DROPPED_TABLESPACES, MAX_MARKS, MAX_WAL_RECORD_BYTES, MAX_XACT_LIST_BYTES, PIECE_FIRST_BYTES, PIECE_LAST_BYTES,
};
use crate::pg::{Lsn, Timeline};
use crate::varint::{take_varint, unzigzag};

/// Why bytes are not a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version of Walvis.
    #[error("the WAL summary has format version {0}, this Walvis knows {VERSION}")]
    Version(u8),
    /// Not what any scan yields.
    #[error("the WAL summary is damaged: its {0} is wrong")]
    Part(&'static str),
}

struct Reader<'a> {
    rest: &'a [u8],
    segment: Segment,
    /// Whether there may be marks of tablespaces and databases.
    knows_files: bool,
}

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        take_varint(&mut self.rest)
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        self.number().map(unzigzag)
    }

    fn i32(&mut self) -> Option<i32> {
        i32::try_from(self.signed()?).ok()
    }

    fn time(&mut self) -> Option<PgTime> {
        self.signed().map(PgTime)
    }

    fn timeline(&mut self) -> Option<Timeline> {
        self.u32().map(Timeline)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    /// A position from the segment's beginning to its end.
    fn lsn(&mut self) -> Option<Lsn> {
        let distance = self.number().filter(|distance| *distance <= self.segment.size_bytes)?;
        self.segment.start.0.checked_add(distance).map(Lsn)
    }

    /// Where a record may begin.
    fn record(&mut self) -> Option<Lsn> {
        self.lsn().filter(|lsn| *lsn > self.segment.start && *lsn < self.segment.end() && lsn.0.is_multiple_of(8))
    }

    fn piece(&mut self) -> Option<Piece> {
        let len = self.number()?;
        let crc = u32::from_le_bytes(self.array()?);
        let first = usize::try_from(len.min(PIECE_FIRST_BYTES as u64)).ok()?;
        let last = usize::try_from((len - first as u64).min(PIECE_LAST_BYTES as u64)).ok()?;
        Piece::from_parts(len, crc, self.take(first)?.to_owned(), self.take(last)?.to_owned())
            .filter(|piece| piece.len < self.segment.size_bytes)
    }

    fn segment(&mut self) -> Option<Segment> {
        let timeline = self.timeline()?;
        let exponent = self.u32()?;
        // Segments as small as two pages are for tests of the scan itself.
        if !(14..=30).contains(&exponent) {
            return None;
        }
        let size_bytes = 1 << exponent;
        let start = self.number()?.checked_mul(size_bytes)?;
        start.checked_add(size_bytes)?;
        Some(Segment { timeline, start: Lsn(start), size_bytes })
    }

    fn origin(&mut self) -> Option<Option<Origin>> {
        match self.number()? {
            0 => Some(None),
            major @ 13..=18 => Some(Some(Origin { major: major as u16, system_id: u64::from_le_bytes(self.array()?) })),
            _ => None,
        }
    }

    fn head(&mut self) -> Option<Head> {
        match self.number()? {
            0 => Some(Head::Record),
            1 => Some(Head::Overwrite),
            tag @ (2 | 3) => {
                let rem_len = self.u32().filter(|len| (1..=MAX_WAL_RECORD_BYTES).contains(len))?;
                let (piece, dead) = (self.piece()?, tag == 3);
                let fits = piece.len <= u64::from(rem_len) && !(dead && piece.len == u64::from(rem_len));
                fits.then_some(Head::Continuation { rem_len, piece, dead })
            }
            _ => None,
        }
    }

    fn records(&mut self) -> Option<Option<Records>> {
        let count = self.number()?;
        if count == 0 {
            return Some(None);
        }
        let (first, last) = (self.record()?, self.record()?);
        let before_first = Lsn(self.number()?);
        // A record has at least 24 bytes.
        let fits =
            before_first < first && first <= last && count <= 1 + (last.0 - first.0) / 24 && (count == 1) == (first == last);
        fits.then_some(Some(Records { first, before_first, last, count }))
    }

    fn xact_stats(&mut self) -> Option<Option<XactStats>> {
        // A record has at least 24 bytes.
        let count = self.number().filter(|count| *count <= self.segment.size_bytes / 24)?;
        if count == 0 {
            return Some(None);
        }
        XactStats::take(count, &mut self.rest).map(Some)
    }

    fn xacts(&mut self, stats: Option<XactStats>) -> Option<Option<XactList>> {
        match self.number()? {
            0 => Some(None),
            1 => {
                let len = usize::try_from(self.number()?).ok().filter(|len| *len <= MAX_XACT_LIST_BYTES)?;
                let list = XactList::from_bytes(self.segment.start, self.segment.end(), self.take(len)?)?;
                let of_list = list.iter().fold(None, |stats, entry| Some(XactStats::with(stats, &entry.end)));
                (of_list == stats).then_some(Some(list))
            }
            _ => None,
        }
    }

    fn marks(&mut self) -> Option<Option<Vec<Record<Mark>>>> {
        match self.number()? {
            0 => Some(None),
            1 => {
                let count = usize::try_from(self.number()?).ok().filter(|count| *count <= MAX_MARKS)?;
                let mut marks: Vec<Record<Mark>> = Vec::new();
                for _ in 0..count {
                    let mark = self.mark()?;
                    if marks.last().is_some_and(|last| mark.start < last.end) {
                        return None;
                    }
                    marks.push(mark);
                }
                Some(Some(marks))
            }
            _ => None,
        }
    }

    fn mark(&mut self) -> Option<Record<Mark>> {
        let start = self.record()?;
        let len = self.number().filter(|len| len.is_multiple_of(8) && *len >= 24)?;
        let end = Lsn(start.0.checked_add(len)?);
        if end > self.segment.end() {
            return None;
        }
        let what = match self.number()? {
            0 => {
                let time = self.time()?;
                let len = usize::try_from(self.number()?).ok()?;
                Mark::RestorePoint { time, name: RestorePointName::new(self.take(len)?)? }
            }
            tag @ (1 | 2) => Mark::Checkpoint {
                kind: if tag == 1 { CheckpointKind::Shutdown } else { CheckpointKind::Online },
                redo: Lsn(self.number()?),
                timeline: self.timeline()?,
                previous_timeline: self.timeline()?,
                time_unix_s: self.signed()?,
            },
            3 => Mark::BackupEnd { start: Lsn(self.number()?) },
            4 => Mark::EndOfRecovery { time: self.time()?, timeline: self.timeline()?, previous_timeline: self.timeline()? },
            5 => {
                let mut parameters = Parameters {
                    max_connections: self.i32()?,
                    max_worker_processes: self.i32()?,
                    max_wal_senders: self.i32()?,
                    max_prepared_transactions: self.i32()?,
                    max_locks_per_transaction: self.i32()?,
                    wal_level: self.i32()?,
                    wal_log_hints: false,
                    track_commit_timestamp: false,
                };
                let flags = self.number().filter(|flags| *flags <= 3)?;
                parameters.wal_log_hints = flags & 1 != 0;
                parameters.track_commit_timestamp = flags & 2 != 0;
                Mark::ParameterChange(parameters)
            }
            6 => Mark::Overwrite { dead: Lsn(self.number()?), time: self.time()? },
            tag if self.knows_files => self.files(tag)?,
            _ => return None,
        };
        Some(Record { start, end, what })
    }

    /// A mark of a tablespace or database.
    fn files(&mut self, tag: u64) -> Option<Mark> {
        Some(match tag {
            7 => {
                let tablespace = self.u32()?;
                let len = usize::try_from(self.number()?).ok()?;
                Mark::TablespaceCreate { tablespace, path: TablespacePath::new(self.take(len)?)? }
            }
            8 => Mark::TablespaceDrop { tablespace: self.u32()? },
            9 => Mark::DatabaseCreate {
                database: self.u32()?,
                tablespace: self.u32()?,
                copied_from: Some(DatabaseFiles { database: self.u32()?, tablespace: self.u32()? }),
            },
            10 => Mark::DatabaseCreate { database: self.u32()?, tablespace: self.u32()?, copied_from: None },
            11 => {
                let database = self.u32()?;
                let tablespaces = match usize::try_from(self.number()?).ok()? {
                    0 => None,
                    more if more <= 1 + MAX_DROPPED_TABLESPACES => {
                        Some((1..more).map(|_| self.u32()).collect::<Option<Vec<u32>>>()?)
                    }
                    _ => return None,
                };
                Mark::DatabaseDrop { database, tablespaces }
            }
            _ => return None,
        })
    }

    fn end(&mut self) -> Option<End> {
        Some(match self.number()? {
            0 => End::Full,
            1 => {
                let start = self.record()?;
                let tot_len = self.u32().filter(|len| (24..=MAX_WAL_RECORD_BYTES).contains(len))?;
                // Records begin at multiples of 8, so the length is on the same page; and some of the record is
                // elsewhere.
                let piece = self.piece().filter(|piece| piece.len >= 8 && piece.len < u64::from(tot_len))?;
                End::Continues(Tail { start, tot_len, piece })
            }
            2 => End::Continuation,
            3 => End::Switch { rest_is_zero: true },
            4 => End::Switch { rest_is_zero: false },
            5 => End::EndOfData { at: self.lsn()? },
            6 => {
                let reason = *Reason::ALL.get(usize::try_from(self.number()?).ok()?)?;
                End::Damaged(Damage { at: self.lsn()?, seen_at: self.lsn()?, reason, found: self.number()? })
            }
            _ => return None,
        })
    }
}

impl Summary {
    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Unknown versions, and anything a scan does not yield, trailing bytes included.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, rest) = bytes.split_first().ok_or(DecodeError::Part("version"))?;
        let knows_files = match *version {
            VERSION => true,
            VERSION_WITHOUT_FILES => false,
            other => return Err(DecodeError::Version(other)),
        };
        let nowhere = Segment { timeline: Timeline(0), start: Lsn(0), size_bytes: PAGE_BYTES as u64 };
        let mut reader = Reader { rest, segment: nowhere, knows_files };
        let segment = reader.segment().ok_or(DecodeError::Part("segment"))?;
        reader.segment = segment;
        let origin = reader.origin().ok_or(DecodeError::Part("origin"))?;
        let head = reader.head().ok_or(DecodeError::Part("head"))?;
        let records = reader.records().ok_or(DecodeError::Part("span of records"))?;
        let xact_stats = reader.xact_stats().ok_or(DecodeError::Part("count of transactions"))?;
        let xacts = reader.xacts(xact_stats).ok_or(DecodeError::Part("list of transactions"))?;
        let marks = reader.marks().ok_or(DecodeError::Part("list of marks"))?;
        let end = reader.end().ok_or(DecodeError::Part("end"))?;
        if !reader.rest.is_empty() {
            return Err(DecodeError::Part("length"));
        }
        Ok(Self { segment, knows_files, origin, head, records, xact_stats, xacts, marks, end })
    }
}
