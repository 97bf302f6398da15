//! The ends of transactions of a segment, one after the other: a list of them may be longer than memory should be.
//!
//! Lives here: the walk over one segment's, and what is remembered of segments whose list is too long to be stored:
//! each question to one of these reads it up to the answer, and is asked once. May not live here: which segments are
//! looked at.

use std::cell::Cell;
use std::io::{self, Write};
use std::ops::ControlFlow;

use super::open::Catalog;
use super::path::Path;
use super::wanted::WantedEnds;
use crate::error::Error;
use crate::format::node::Entry;
use crate::pg::scan::{Event, Record, Scanner, Segment, Visitor, XactEntry};
use crate::pg::{Lsn, SegmentName, WalFileName};
use crate::repo::wal::Fetched;

/// Receives the end of a transaction, and says whether to go on.
pub type OnEnd<'a> = &'a mut dyn FnMut(&XactEntry) -> ControlFlow<()>;

impl Catalog<'_> {
    /// Visits ends of transactions whose records begin in a segment of the path and in `from..to`, in LSN order; also
    /// the one that ends in a later segment. Those that are not wanted are passed over.
    ///
    /// # Errors
    /// Damaged, denied, unreachable; damaged when the segment is gone.
    pub fn ends(
        &self,
        path: &Path,
        entry: &Entry,
        (from, to): (Lsn, Lsn),
        wanted: WantedEnds,
        visit: OnEnd<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let to = path.cut(entry.segment).map_or(to, |cut| cut.min(to));
        if entry.aggregate.xacts.is_some() {
            let flow = match &self.existing_summary(entry.segment)?.xacts {
                Some(list) => {
                    let within =
                        list.iter().take_while(|end| end.lsn < to).filter(|end| from <= end.lsn && wanted.wants(&end.end));
                    within.into_iter().try_for_each(|end| visit(&end))
                }
                None => self.ends_in_bytes(entry.segment, (from, to), wanted, visit)?,
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        let crossing = entry.crossing.as_ref().filter(|crossing| from <= crossing.start && crossing.start < to);
        let Some(crossing) = crossing.filter(|crossing| wanted.wants(&crossing.what)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut end = crossing.what;
        if end.xid.is_none() {
            end.xid = self.crossing_xid(path, entry, crossing.start)?;
        }
        Ok(if wanted.wants(&end) { visit(&XactEntry { lsn: crossing.start, end }) } else { ControlFlow::Continue(()) })
    }

    /// The last commit whose record begins in a segment of the path and in `from..to`.
    ///
    /// # Errors
    /// As [`ends`](Self::ends).
    pub fn last_commit(&self, path: &Path, entry: &Entry, (from, to): (Lsn, Lsn)) -> Result<Option<XactEntry>, Error> {
        let to = path.cut(entry.segment).map_or(to, |cut| cut.min(to));
        let key = (entry.segment, to);
        if let Some(known) = self.last_commits.get(&key) {
            return Ok(known.filter(|last: &XactEntry| from <= last.lsn));
        }
        let mut last = None;
        let _ = self.ends(path, entry, (Lsn(0), to), WantedEnds::All, &mut |end| {
            if end.end.kind.is_commit() {
                last = Some(*end);
            }
            ControlFlow::Continue(())
        })?;
        self.last_commits.insert(key, last, 1);
        Ok(last.filter(|last| from <= last.lsn))
    }

    /// From the segment itself, which is read up to where the visitor has seen enough.
    fn ends_in_bytes(
        &self,
        segment: SegmentName,
        (mut from, to): (Lsn, Lsn),
        wanted: WantedEnds,
        visit: OnEnd<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        match self.first_ends.get(&(segment, from, wanted)) {
            Some(None) => return Ok(ControlFlow::Continue(())),
            Some(Some(first)) if first.lsn >= to => return Ok(ControlFlow::Continue(())),
            Some(Some(first)) => {
                if visit(&first).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                from = Lsn(first.lsn.0.saturating_add(1));
            }
            None => {}
        }
        let enough = Cell::new(false);
        let (mut first, mut next, mut flow) = (None, None, ControlFlow::Continue(()));
        let on_end = |end: &XactEntry| {
            if enough.get() || end.lsn < from {
                return;
            }
            if end.lsn >= to {
                next = Some(*end);
                enough.set(true);
            } else if wanted.wants(&end.end) {
                first.get_or_insert(*end);
                flow = visit(end);
                enough.set(flow.is_break());
            }
        };
        self.read_until(segment, &enough, OnEnds(on_end))?;
        // What is after the range is known only of all of them.
        let first = first.or(next.filter(|end| wanted.wants(&end.end)));
        if first.is_some() || next.is_none() {
            self.first_ends.insert((segment, from, wanted), first, 1);
        }
        if let Some(next) = next {
            self.first_ends.insert((segment, to, WantedEnds::All), Some(next), 1);
        }
        Ok(flow)
    }

    /// Reads a segment until a visitor has enough, or to its end.
    fn read_until<V: Visitor>(&self, segment: SegmentName, enough: &Cell<bool>, visitor: V) -> Result<(), Error> {
        let which = Segment::new(segment, self.size()).ok_or_else(|| self.damaged(segment, "its name is impossible"))?;
        let mut sink = UntilEnough { scanner: Scanner::new(which, visitor), enough };
        match self.repository.get_wal(&self.cluster, self.facts, &WalFileName::Segment(segment), &mut sink) {
            Ok(Fetched::Served(_)) => Ok(()),
            Ok(Fetched::Absent | Fetched::Missing { .. }) => Err(self.damaged(segment, "it is gone")),
            Err(_) if enough.get() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Hands ends of transactions on.
struct OnEnds<F>(F);

impl<F: FnMut(&XactEntry)> Visitor for OnEnds<F> {
    fn found(&mut self, record: &Record<Event>) {
        if let Event::XactEnd(end) = record.what {
            self.0(&XactEntry { lsn: record.start, end });
        }
    }
}

/// Fails when there is enough, so that no more is read.
struct UntilEnough<'e, V> {
    scanner: Scanner<V>,
    enough: &'e Cell<bool>,
}

impl<V: Visitor> Write for UntilEnough<'_, V> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.scanner.push(bytes);
        if self.enough.get() { Err(io::Error::other("enough")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
