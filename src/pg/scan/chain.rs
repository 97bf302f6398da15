//! Neighbours: the records that cross segments, and the proof that nothing is missing between them.

use super::event::{Mark, Record};
use super::record::{Complete, OpenRecord};
use super::summary::{End, Head, Reason, Summary, Tail};
use super::visitor::Visitor;
use crate::pg::Lsn;

/// Joins the summaries of consecutive segments, in LSN order along one path of timelines: reports the records that
/// cross their boundaries and verifies that one follows the other.
///
/// A chain may begin anywhere; of a record that its first segment begins in nothing is known. At a timeline's fork the
/// segment of the child follows the *predecessor* of the parent's segment with the same number: it has a copy of all
/// that the parent's has up to the fork.
///
/// After an error the chain has ended; a new one may begin with the same summary.
#[derive(Debug, Default)]
pub struct Chain {
    state: State,
    /// Where the last complete record begins.
    last: Option<Lsn>,
    /// Where the next segment begins.
    next: Option<Lsn>,
}

#[derive(Debug, Default)]
enum State {
    /// The next segment begins with a record of its own.
    Between,
    /// The next segment continues this record.
    Open(Box<OpenRecord>),
    /// Nothing is known of the record before: at the beginning of a chain.
    #[default]
    Unknown,
    /// Reading ends in the last segment.
    Ended,
}

/// Why a segment does not follow the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// It is another segment than the next.
    #[error("the next segment begins at {expected}, not at {found}")]
    Segment {
        /// Where the next segment begins.
        expected: Lsn,
        /// Where this one does.
        found: Lsn,
    },
    /// Reading ended in the segment before.
    #[error("recovery stops in the segment before")]
    Ended,
    /// A record is open, but the segment does not continue one.
    #[error("the segment before ends in the middle of a record, which this one does not continue")]
    NotContinued,
    /// The segment continues a record, but none is open.
    #[error("the segment continues a record, but the one before ends with a whole one")]
    NothingOpen,
    /// The segment continues a record of another length.
    #[error("the segment continues another record than the one that is open")]
    OtherLength,
    /// The segment overwrites another record than the one that is open.
    #[error("the segment overwrites another record than the one that is open")]
    OtherOverwritten,
    /// The record that crosses the boundary is damaged.
    #[error("the record at {start}, which crosses segments, is damaged")]
    Record {
        /// Where it begins.
        start: Lsn,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The first record of the segment names another one than the last before it.
    #[error("the record before is at {expected}, but the segment's first record says {found}")]
    PrevLink {
        /// Where the last record before begins.
        expected: Lsn,
        /// What the record says.
        found: Lsn,
    },
    /// The segment is zero from the record on that it begins in, but this is no switch.
    #[error("the segment ends after the record that it begins in, but that is no switch")]
    NoSwitch,
    /// The segment begins in the switch that ends it, but has more records.
    #[error("the segment goes on after a switch")]
    AfterSwitch,
}

impl Chain {
    /// A chain without segments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next segment. If a record that began before it ends in it, the visitor is told what it says (and its
    /// blocks, if it wants them; where a part of it is not known, that it is unreadable).
    ///
    /// A segment in which reading ends (see [`Summary::is_complete`]) is accepted; what follows it is not.
    ///
    /// # Errors
    /// When it does not follow the one before.
    pub fn push<V: Visitor>(&mut self, summary: &Summary, visitor: &mut V) -> Result<(), Break> {
        // Whatever fails below leaves a chain that has ended.
        let state = std::mem::replace(&mut self.state, State::Ended);
        let start = summary.segment.start();
        if let Some(expected) = self.next.filter(|next| *next != start) {
            return Err(Break::Segment { expected, found: start });
        }
        self.next = Some(summary.segment.end());
        let mut ends_switch = false;
        let open = match (&summary.head, state) {
            (_, State::Ended) => return Err(Break::Ended),
            // The first page is unreadable: nothing says how the segment begins.
            _ if summary.origin.is_none() => return Ok(()),
            (Head::Record | Head::Overwrite, State::Unknown) | (Head::Record, State::Between) => State::Between,
            (Head::Continuation { rem_len, piece, dead }, State::Unknown) => {
                if u64::from(*rem_len) > piece.len() && !dead {
                    State::Unknown
                } else {
                    State::Between
                }
            }
            (Head::Record, State::Open(_)) => return Err(Break::NotContinued),
            (Head::Overwrite, State::Between) => return Err(Break::OtherOverwritten),
            (Head::Overwrite, State::Open(open)) => {
                overwritten(summary, &open)?;
                State::Between
            }
            (Head::Continuation { .. }, State::Between) => return Err(Break::NothingOpen),
            (Head::Continuation { rem_len, piece, dead }, State::Open(mut open)) => {
                let (record, left) = (open.start, open.left());
                if left != *rem_len || piece.len() > u64::from(left) {
                    return Err(Break::OtherLength);
                }
                let damaged = |reason| Break::Record { start: record, reason };
                if !open.piece(piece, visitor) {
                    return Err(damaged(Reason::Body));
                }
                if *dead {
                    overwritten(summary, &open)?;
                    State::Between
                } else if open.left() > 0 {
                    State::Open(open)
                } else {
                    let prev = open.header().map(|header| header.prev);
                    let complete = open.finish(visitor).map_err(damaged)?;
                    self.follow(prev, record)?;
                    ends_switch = complete.header.is_switch();
                    report(record, summary, *rem_len, complete, visitor);
                    State::Between
                }
            }
        };
        if let Some(records) = &summary.records {
            self.follow(Some(records.before_first), records.last)?;
        }
        if ends_switch && summary.first_record().is_some() {
            return Err(Break::AfterSwitch);
        }
        self.state = match &summary.end {
            End::EndOfData { .. } | End::Damaged(_) => State::Ended,
            // Known from the record itself; or, when the segment has none, from the one that ends in it.
            End::Switch { .. } if summary.records.is_none() && !ends_switch && matches!(open, State::Between) => {
                match &summary.head {
                    // At the beginning of a chain nothing can be verified.
                    Head::Continuation { .. } if self.last.is_none() => State::Between,
                    _ => return Err(Break::NoSwitch),
                }
            }
            End::Switch { .. } | End::Full => State::Between,
            End::Continuation => open,
            End::Continues(tail) => begin(summary, tail, visitor).map_or(State::Ended, |open| State::Open(Box::new(open))),
        };
        Ok(())
    }

    /// Where the record begins that is open after the last segment, if one is.
    pub fn open_record(&self) -> Option<Lsn> {
        match &self.state {
            State::Open(open) => Some(open.start),
            State::Between | State::Unknown | State::Ended => None,
        }
    }

    /// Checks that a record names the last one, and goes on to the last one that follows it.
    fn follow(&mut self, prev: Option<Lsn>, last: Lsn) -> Result<(), Break> {
        if let (Some(expected), Some(found)) = (self.last, prev)
            && expected != found
        {
            return Err(Break::PrevLink { expected, found });
        }
        self.last = Some(last);
        Ok(())
    }
}

/// The record that the segment's end leaves open.
fn begin<V: Visitor>(summary: &Summary, tail: &Tail, visitor: &mut V) -> Option<OpenRecord> {
    let mut open = OpenRecord::new(tail.start, tail.tot_len, summary.origin?.major);
    open.piece(&tail.piece, visitor).then_some(open)
}

/// `OVERWRITE_CONTRECORD` must name the open record (`VerifyOverwriteContrecord`).
fn overwritten(summary: &Summary, open: &OpenRecord) -> Result<(), Break> {
    let Some(marks) = &summary.marks else { return Ok(()) };
    let dead = marks.iter().find_map(|record| match &record.what {
        Mark::Overwrite { dead, .. } => Some(*dead),
        _ => None,
    });
    if dead.is_none_or(|dead| dead == open.start) { Ok(()) } else { Err(Break::OtherOverwritten) }
}

fn report<V: Visitor>(start: Lsn, summary: &Summary, rem_len: u32, complete: Complete, visitor: &mut V) {
    if let Some(what) = complete.event {
        let end = summary.segment.end_of_head(rem_len);
        visitor.found(&Record { start, end, what });
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{Event, PgTime, XactEnd, XactKind, Xid};
    use super::super::scanner::Scanner;
    use super::super::wal::{Wal, Xact, main_data};
    use super::*;

    const SMALL: u64 = 16 << 10;

    fn summaries(wal: Wal) -> Vec<Summary> {
        let scan = |(segment, bytes): (_, Vec<u8>)| {
            let mut scanner = Scanner::new(segment, ());
            scanner.push(&bytes);
            scanner.finish().summary
        };
        wal.segments().0.into_iter().map(scan).collect()
    }

    fn run(path: &[&Summary]) -> Result<Vec<Record<Event>>, Break> {
        let (mut chain, mut events) = (Chain::new(), Vec::new());
        path.iter().try_for_each(|summary| chain.push(summary, &mut events)).map(|()| events)
    }

    /// The first of two segments full but for `left` bytes.
    fn nearly_full(left: u64, first: usize) -> Wal {
        let mut wal = Wal::new(16, SMALL, 1);
        wal.filler(first);
        wal.filler((wal.left() - left - 24 - 5) as usize);
        wal
    }

    #[test]
    fn the_first_record_names_the_last_before_it() {
        let with = |first| {
            let mut wal = nearly_full(0, first);
            wal.commit(1, 700);
            summaries(wal)
        };
        let (one, other) = (with(100), with(200));
        assert_eq!(one[0].end, End::Full);
        assert!(run(&[&one[0], &one[1]]).is_ok() && run(&[&other[0], &other[1]]).is_ok());
        assert!(matches!(run(&[&one[0], &other[1]]), Err(Break::PrevLink { .. })));
        // Also when the record that crosses is between.
        let with = |first| {
            let mut wal = nearly_full(24, first);
            wal.commit(1, 700);
            wal.commit(2, 701);
            summaries(wal)
        };
        let (one, other) = (with(100), with(200));
        assert_eq!(run(&[&one[0], &one[1]]).unwrap().len(), 1);
        let mut mixed = one[0].clone();
        mixed.records = other[0].records;
        assert!(matches!(run(&[&mixed, &one[1]]), Err(Break::PrevLink { .. })));
    }

    #[test]
    fn pieces_must_fit() {
        let with = |left| {
            let mut wal = nearly_full(left, 10);
            wal.commit(1, 700);
            wal.commit(2, 701);
            summaries(wal)
        };
        let (whole, eight, sixteen) = (with(0), with(8), with(16));
        assert!(run(&[&eight[0], &eight[1]]).is_ok() && run(&[&sixteen[0], &sixteen[1]]).is_ok());
        assert_eq!(run(&[&eight[0], &sixteen[1]]), Err(Break::OtherLength));
        assert_eq!(run(&[&whole[0], &sixteen[1]]), Err(Break::NothingOpen));
        assert_eq!(run(&[&eight[0], &whole[1]]), Err(Break::NotContinued));
    }

    #[test]
    fn the_overwritten_record_is_the_open_one() {
        let with = |first| {
            let mut wal = Wal::new(16, SMALL, 1);
            wal.filler(first);
            wal.die(1, 2);
            summaries(wal)
        };
        let (one, other) = (with(100), with(200));
        assert_eq!((&one[1].head, run(&[&one[0], &one[1]])), (&Head::Overwrite, Ok(Vec::new())));
        assert_eq!(run(&[&one[0], &other[1]]), Err(Break::OtherOverwritten));
        let mut full = nearly_full(0, 10);
        full.commit(1, 700);
        assert_eq!(run(&[&summaries(full)[0], &one[1]]), Err(Break::OtherOverwritten));
    }

    #[test]
    fn what_looks_like_the_end_of_a_switch_must_be_one() {
        let mut wal = nearly_full(400, 10);
        let mut data = vec![1; 400 - 24 - 5];
        data.extend([0x40, 0, 0, 0, 1, 2, 3, 4]);
        wal.record(10, 0, 700, &main_data(&data));
        let both = summaries(wal);
        assert!(matches!(both[1].end, End::Switch { .. }));
        assert_eq!(run(&[&both[0], &both[1]]), Err(Break::NoSwitch));
        // Alone nothing can be said.
        assert!(run(&[&both[1]]).is_ok());

        let mut wal = nearly_full(8, 10);
        wal.record(0, 0x40, 0, &[]);
        wal.commit(1, 700);
        let both = summaries(wal);
        assert!(both[1].xact_stats.is_some());
        assert_eq!(run(&[&both[0], &both[1]]), Err(Break::AfterSwitch));
    }

    /// The xid of a long prepared transaction is read from its last 20 bytes, wherever the boundary cuts them.
    #[test]
    fn the_end_of_a_record_is_cut_anywhere() {
        for origin in [false, true] {
            for over in (8..=64).step_by(8) {
                let xact = Xact { subxacts: 4000, rels: 3, origin, ..Xact::new(XactKind::AbortPrepared, 77, 0x0102_0304) };
                let mut sized = Wal::new(16, 1 << 20, 1);
                let before = sized.left();
                sized.xact(&xact);
                let len = before - sized.left();
                let mut wal = Wal::new(16, 1 << 20, 1);
                wal.filler((wal.left() - (len - over) - 24 - 5) as usize);
                wal.xact(&xact);
                wal.commit(78, 700);
                let both = summaries(wal);
                let end = XactEnd { kind: XactKind::AbortPrepared, time: PgTime(77), xid: Xid::new(0x0102_0304) };
                let found = run(&[&both[0], &both[1]]).unwrap();
                assert_eq!((found.len(), &found[0].what), (1, &Event::XactEnd(end)), "{over}");
            }
        }
    }
}
