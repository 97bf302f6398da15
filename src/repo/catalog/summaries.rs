//! Summaries and what is made of them: entries, transactions, marks.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::known::Known;
use super::open::Catalog;
use super::path::Path;
use super::wanted::WantedEnds;
use crate::error::{Error, Kind};
use crate::format::node::{Aggregate, Edge, Entry};
use crate::pg::changes::{ChangeSet, Collector};
use crate::pg::scan::{
    Carry, Chain, End, Event, Mark, Record, Scanned, Scanner, Segment, Summary, Visitor, XactEnd, XactEntry, XactList,
};
use crate::pg::{Lsn, SegmentName, WalFileName};
use crate::repo::wal::Fetched;

/// What is stored of a segment.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// Its summary; the list of transactions may be left out.
    Scanned(Arc<Summary>),
    /// It is there, without a summary.
    Unscanned,
    /// It is not there.
    Missing,
}

/// The record that crosses a segment's end, and whether the next segment follows.
pub(super) struct Joined {
    pub(super) edge: Edge,
    pub(super) record: Option<Record<Event>>,
}

/// What the metadata of a stored segment says of its content.
struct Described {
    summary: Option<Summary>,
    /// Bytes of the change set.
    changes: Option<Vec<u8>>,
}

impl Catalog<'_> {
    /// A segment's summary as it is stored; if it is stored without one, the segment is fetched and scanned. `None`
    /// when the segment is not there. Its list of transactions may have been left out.
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub fn summary(&self, segment: SegmentName) -> Result<Option<Arc<Summary>>, Error> {
        match self.summaries.get(&segment) {
            Some(Some(known)) if !known.is_lean => return Ok(Some(known.summary)),
            Some(None) => return self.scan(segment).map(|summary| Some(Arc::new(summary))),
            Some(Some(_)) | None => {}
        }
        match self.read_summary(segment)? {
            None => Ok(None),
            Some(None) => self.scan(segment).map(|summary| Some(Arc::new(summary))),
            Some(Some(summary)) => {
                let (known, list) = self.remember(segment, summary);
                Ok(Some(match list {
                    None => known.summary,
                    Some(list) => Arc::new(Summary { xacts: Some(list), ..Summary::clone(&known.summary) }),
                }))
            }
        }
    }

    /// All that [`ends`](Self::ends) visits.
    ///
    /// # Errors
    /// Damaged, denied, unreachable; damaged when the segment is gone.
    pub fn transactions(&self, path: &Path, entry: &Entry) -> Result<Vec<XactEntry>, Error> {
        let mut found = Vec::new();
        let _ = self.ends(path, entry, (Lsn(0), Lsn(u64::MAX)), WantedEnds::All, &mut |end| {
            found.push(*end);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Restore points, checkpoints and the like whose records begin in a segment of the path, as
    /// [`transactions`](Self::transactions). Those of tablespaces and databases are there for sure only with `files`:
    /// it may cost a scan of the segment.
    ///
    /// # Errors
    /// As [`transactions`](Self::transactions).
    pub fn marks(&self, path: &Path, entry: &Entry, files: bool) -> Result<Vec<Record<Mark>>, Error> {
        // Marks are never left out of what is remembered.
        let summary = match self.stored(entry.segment)? {
            Stored::Scanned(summary) => summary,
            Stored::Unscanned => Arc::new(self.scan(entry.segment)?),
            Stored::Missing => return Err(self.damaged(entry.segment, "it is gone")),
        };
        let joined = self.join(&summary, &mut |number, needed| self.on_path(path, number, needed))?;
        let is_known = summary.knows_files || !files;
        let mut found = match summary.marks.as_ref().filter(|_| is_known) {
            Some(marks) => marks.clone(),
            None => {
                let mut list = Marks(Vec::new());
                self.scan_with(entry.segment, None, &mut list)?;
                list.0
            }
        };
        if let Some(Record { start, end, what: Event::Mark(mark) }) = joined.record {
            found.push(Record { start, end, what: mark });
        }
        if let Some(cut) = path.cut(entry.segment) {
            found.retain(|mark| mark.start < cut);
        }
        Ok(found)
    }

    /// Has a visitor read the segments of the path that hold `from..to`, with the records that cross their edges.
    ///
    /// # Errors
    /// Damaged, denied, unreachable; damaged when a segment is gone.
    pub fn scan_range<V: Visitor>(&self, path: &Path, from: Lsn, to: Lsn, mut visitor: V) -> Result<V, Error> {
        let (first, last, mut carry) = (path.number(from), path.number(Lsn(to.0.saturating_sub(1))), None);
        for number in first..=last {
            let mut stored = None;
            for leg in path.legs_of(number) {
                let Some(name) = SegmentName::from_number(leg.timeline, number, self.size()) else { continue };
                if !matches!(self.stored(name)?, Stored::Missing) {
                    stored = Some(name);
                    break;
                }
            }
            let name = stored.or(path.leg_name(number)).ok_or_else(|| Error::new(Kind::Bug, "a segment of no name"))?;
            let scanned = self.scan_with(name, carry.take(), visitor)?;
            (visitor, carry) = (scanned.visitor, scanned.carry);
        }
        Ok(visitor)
    }

    /// The entry of the segment that holds a position; `None` when it is not stored. An unscanned segment is scanned.
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub fn entry_at(&self, path: &Path, lsn: Lsn) -> Result<Option<Entry>, Error> {
        match self.on_path(path, path.number(lsn), true)? {
            None => Ok(None),
            Some(summary) => self.entry(path, &summary).map(Some),
        }
    }

    /// The entry of a segment of a path.
    pub(super) fn entry(&self, path: &Path, summary: &Summary) -> Result<Entry, Error> {
        let joined = self.join(summary, &mut |number, needed| self.on_path(path, number, needed))?;
        self.entry_of(summary, joined)
    }

    /// Follows the record that crosses a segment's end, and holds the next segment against it. `next` gives summaries
    /// by number, and is told whether one is needed to know a record.
    pub(super) fn join(
        &self,
        summary: &Summary,
        next: &mut dyn FnMut(u64, bool) -> Result<Option<Arc<Summary>>, Error>,
    ) -> Result<Joined, Error> {
        if !summary.is_complete() {
            return Ok(Joined { edge: Edge::Stops, record: None });
        }
        let (mut chain, mut found): (Chain, Vec<Record<Event>>) = (Chain::new(), Vec::new());
        let begins = match &summary.end {
            End::Continues(tail) => Some(tail.start),
            _ => None,
        };
        // The first of a chain is always accepted.
        if chain.push(summary, &mut found).is_err() {
            return Ok(Joined { edge: Edge::Broken, record: None });
        }
        let mut number = summary.segment.end().0 / self.size().bytes();
        loop {
            let Some(follower) = next(number, begins.is_some())? else { return Ok(Joined { edge: Edge::Open, record: None }) };
            if chain.push(&follower, &mut found).is_err() {
                return Ok(Joined { edge: Edge::Broken, record: None });
            }
            if let Some(record) = found.iter().find(|record| Some(record.start) == begins) {
                return Ok(Joined { edge: Edge::Follows, record: Some(record.clone()) });
            }
            if begins.is_none() || chain.open_record() != begins {
                return Ok(Joined { edge: Edge::Follows, record: None });
            }
            number += 1;
        }
    }

    /// The summary of a segment number on the path, without transactions, from the newest timeline that has it. One
    /// that is stored without is scanned if it is needed.
    pub(super) fn on_path(&self, path: &Path, number: u64, needed: bool) -> Result<Option<Arc<Summary>>, Error> {
        for leg in path.legs_of(number) {
            let Some(name) = SegmentName::from_number(leg.timeline, number, self.size()) else { return Ok(None) };
            let stored = if self.is_listed_as_missing(name) { Stored::Missing } else { self.stored(name)? };
            match stored {
                // What the parent has there is not what the server reads.
                Stored::Missing if leg.begin.0 > 0 && path.number(leg.begin) == number && !path.is_begun_by_parent(leg) => {
                    return Ok(None);
                }
                Stored::Missing => {}
                Stored::Scanned(summary) => return Ok(Some(summary)),
                Stored::Unscanned if !needed => return Ok(None),
                Stored::Unscanned => return self.scan(name).map(|summary| Some(Arc::new(summary))),
            }
        }
        Ok(None)
    }

    /// Whether a listing did not show it: for a reader the log is as it was then.
    fn is_listed_as_missing(&self, segment: SegmentName) -> bool {
        let Some(number) = segment.number(self.size()) else { return false };
        self.names.known((segment.timeline, 0), number, number, 1).is_some_and(|(numbers, _)| numbers.is_empty())
    }

    /// What is stored of a segment, from the cache if it was read lately. Only presence is remembered: what is missing
    /// may come.
    pub(super) fn stored(&self, segment: SegmentName) -> Result<Stored, Error> {
        let summary = match self.summaries.get(&segment) {
            Some(known) => known,
            None => match self.read_summary(segment)? {
                None => return Ok(Stored::Missing),
                Some(Some(summary)) => Some(self.remember(segment, summary).0),
                Some(None) => {
                    self.summaries.insert(segment, None, size_of::<Summary>());
                    None
                }
            },
        };
        Ok(summary.map_or(Stored::Unscanned, |known| Stored::Scanned(known.summary)))
    }

    /// Remembers a summary, and gives back the list that is too long for that.
    fn remember(&self, segment: SegmentName, summary: Summary) -> (Known, Option<XactList>) {
        let (known, list) = Known::of(summary);
        self.summaries.insert(segment, Some(known.clone()), known.summary.memory_bytes());
        (known, list)
    }

    /// As [`stored`](Self::stored), read anew, with the bytes of the segment's change set, if it has one.
    pub(super) fn stored_with_changes(&self, segment: SegmentName) -> Result<(Stored, Option<Vec<u8>>), Error> {
        let Some(Described { summary, changes }) = self.read_metadata(segment)? else { return Ok((Stored::Missing, None)) };
        let stored = match summary {
            Some(summary) => Stored::Scanned(self.remember(segment, summary).0.summary),
            None => {
                self.summaries.insert(segment, None, size_of::<Summary>());
                Stored::Unscanned
            }
        };
        Ok((stored, changes))
    }

    /// Fetches a segment and scans it, also for what it changed.
    pub(super) fn scan_with_changes(&self, segment: SegmentName) -> Result<(Summary, ChangeSet), Error> {
        let scanned = self.scan_with(segment, None, Collector::new(self.size().bytes()))?;
        Ok((scanned.summary, scanned.visitor.finish()))
    }

    /// The stored summary: `None` when the segment is not there, `Some(None)` when it has none.
    fn read_summary(&self, segment: SegmentName) -> Result<Option<Option<Summary>>, Error> {
        Ok(self.read_metadata(segment)?.map(|described| described.summary))
    }

    /// The stored summary and change set; `None` when the segment is not there.
    fn read_metadata(&self, segment: SegmentName) -> Result<Option<Described>, Error> {
        let file = WalFileName::Segment(segment);
        let Some(metadata) = self.repository.wal_metadata(&self.cluster, self.facts.system_id, &file)? else {
            return Ok(None);
        };
        let changes = metadata.wal_changes;
        let Some(bytes) = metadata.wal_summary else { return Ok(Some(Described { summary: None, changes })) };
        let summary = Summary::decode(&bytes).map_err(|e| self.damaged(segment, &e.to_string()))?;
        if Some(summary.segment) != Segment::new(segment, self.size()) {
            return Err(self.damaged(segment, "its WAL summary is of another segment"));
        }
        Ok(Some(Described { summary: Some(summary), changes }))
    }

    pub(super) fn existing_summary(&self, segment: SegmentName) -> Result<Arc<Summary>, Error> {
        self.summary(segment)?.ok_or_else(|| self.damaged(segment, "it is gone"))
    }

    /// Fetches a segment and scans it.
    pub(super) fn scan(&self, segment: SegmentName) -> Result<Summary, Error> {
        Ok(self.scan_with(segment, None, ())?.summary)
    }

    fn scan_with<V: Visitor>(&self, segment: SegmentName, carry: Option<Carry>, visitor: V) -> Result<Scanned<V>, Error> {
        let which = Segment::new(segment, self.size()).ok_or_else(|| self.damaged(segment, "its name is impossible"))?;
        let mut scanner = Scanner::resume(which, carry, visitor);
        match self.repository.get_wal(&self.cluster, self.facts, &WalFileName::Segment(segment), &mut scanner)? {
            Fetched::Served(_) => Ok(scanner.finish()),
            Fetched::Absent | Fetched::Missing { .. } => Err(self.damaged(segment, "it is gone")),
        }
    }

    /// The xid of a record that crosses segments where their summaries don't tell: from the segments themselves.
    pub(super) fn crossing_xid(&self, path: &Path, entry: &Entry, start: Lsn) -> Result<Option<crate::pg::scan::Xid>, Error> {
        let mut carry = self.scan_with(entry.segment, None, ())?.carry;
        let mut number = path.number(entry.start);
        while carry.as_ref().is_some_and(|carry| carry.start() == start) {
            number += 1;
            let Some(next) = self.on_path(path, number, true)? else { return Ok(None) };
            let Some(name) = SegmentName::from_number(next.segment.timeline(), number, self.size()) else { return Ok(None) };
            let mut sought = Sought { start, found: None };
            carry = self.scan_with(name, carry, &mut sought)?.carry;
            if let Some(end) = sought.found {
                return Ok(end.xid);
            }
        }
        Ok(None)
    }

    /// An entry from its parts.
    pub(super) fn entry_of(&self, summary: &Summary, joined: Joined) -> Result<Entry, Error> {
        let segment = SegmentName::holding(summary.segment.timeline(), summary.segment.start(), self.size())
            .ok_or_else(|| Error::new(Kind::Bug, "a summary of no segment"))?;
        let mut aggregate = Aggregate { segments: 1, xacts: summary.xact_stats, ..Aggregate::default() };
        aggregate.stops = u64::from(matches!(joined.edge, Edge::Stops | Edge::Broken));
        match &summary.marks {
            Some(marks) => marks.iter().for_each(|mark| aggregate.marks.add(&mark.what)),
            None => aggregate.marks.incomplete = true,
        }
        aggregate.marks.uncounted = !summary.knows_files;
        let mut crossing: Option<Record<XactEnd>> = None;
        match joined.record {
            Some(Record { start, end, what: Event::XactEnd(what) }) => {
                aggregate.add_xact(&what);
                crossing = Some(Record { start, end, what });
            }
            Some(Record { what: Event::Mark(mark), .. }) => aggregate.marks.add(&mark),
            Some(_) | None => {}
        }
        Ok(Entry {
            segment,
            start: summary.segment.start(),
            first_record: summary.first_record(),
            last_record: summary.last_record(),
            good_until: summary.good_until(),
            edge: joined.edge,
            crossing,
            aggregate,
        })
    }

    pub(super) fn damaged(&self, segment: SegmentName, why: &str) -> Error {
        Error::new(
            Kind::Damaged,
            format!("segment {segment} of cluster {} in {}: {why}", self.cluster, self.repository.location()),
        )
        .hint("take this object from another repository or copy")
    }
}

/// The transaction whose record begins there.
struct Sought {
    start: Lsn,
    found: Option<XactEnd>,
}

impl Visitor for Sought {
    fn found(&mut self, record: &Record<Event>) {
        if let Event::XactEnd(end) = record.what
            && record.start == self.start
        {
            self.found = Some(end);
        }
    }
}

struct Marks(Vec<Record<Mark>>);

impl Visitor for Marks {
    fn found(&mut self, record: &Record<Event>) {
        if let Event::Mark(mark) = &record.what {
            self.0.push(Record { start: record.start, end: record.end, what: mark.clone() });
        }
    }
}
