//! Walks along a path.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::open::Catalog;
use super::path::{Leg, Path};
use super::summaries::Stored;
use crate::error::Error;
use crate::format::node::{Aggregate, Children, Entry, FANOUT, MAX_LEVEL, Node, NodeId, span};
use crate::limits::{CATALOG_READERS, LISTED_NAMES, MAX_LISTED_SPAN};
use crate::pg::{Lsn, SegmentName, Timeline};
use crate::threads::at_once;

/// What a walk comes across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A segment.
    Segment(Entry),
    /// Consecutive segments that were passed over because their aggregate was not wanted. All are stored. At a
    /// timeline's end the aggregate may be of more segments than these.
    Skipped {
        /// The first in LSN order.
        first: SegmentName,
        /// The last.
        last: SegmentName,
        /// What is known of them.
        aggregate: Aggregate,
    },
    /// Consecutive segments that are not stored.
    Missing {
        /// The first in LSN order.
        first: SegmentName,
        /// The last.
        last: SegmentName,
    },
    /// A segment that is stored without a summary.
    Unscanned(SegmentName),
}

/// Whether a part of the log is worth looking into.
pub type Wanted<'a> = &'a dyn Fn(&Aggregate) -> bool;
/// Receives every step, and says whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(Step) -> Result<ControlFlow<()>, Error>;

impl Catalog<'_> {
    /// Walks from the segment that holds `from` to the one that holds `to`, or the last stored one if that is earlier,
    /// in LSN order. Parts that are not wanted are passed over in one step, without looking inside.
    ///
    /// # Errors
    /// As the visitor's; damaged, denied, unreachable.
    pub fn walk(&self, path: &Path, from: Lsn, to: Lsn, wanted: Wanted<'_>, visit: Visit<'_>) -> Result<(), Error> {
        self.walk_in(path, from, to, false, wanted, visit)
    }

    /// The same backwards: from the segment that holds `to`, or the last stored one, to the one that holds `from`.
    ///
    /// # Errors
    /// As [`walk`](Self::walk).
    pub fn walk_back(&self, path: &Path, from: Lsn, to: Lsn, wanted: Wanted<'_>, visit: Visit<'_>) -> Result<(), Error> {
        self.walk_in(path, from, to, true, wanted, visit)
    }

    fn walk_in(&self, path: &Path, from: Lsn, to: Lsn, back: bool, wanted: Wanted<'_>, visit: Visit<'_>) -> Result<(), Error> {
        let Some((_, last)) = path.stored_numbers() else { return Ok(()) };
        let (from, to) = (path.number(from), path.number(to).min(last));
        let mut ranges: Vec<(Leg, u64, u64)> = Vec::new();
        let mut until = to;
        for leg in path.legs().iter().rev() {
            let low = path.number(leg.begin).max(from);
            if low <= until && path.number(leg.begin) <= until {
                ranges.push((*leg, low, until));
            }
            match path.number(leg.begin).checked_sub(1) {
                Some(before) => until = until.min(before),
                None => break,
            }
        }
        if !back {
            ranges.reverse();
        }
        let mut walker = Walker { catalog: self, path, back, wanted, visit, missing: None, ramp: 1 };
        for (leg, low, high) in ranges {
            if walker.leg(leg, low, high)?.is_break() {
                return Ok(());
            }
        }
        walker.flush().map(drop)
    }
}

type Flow = Result<ControlFlow<()>, Error>;

/// Goes on unless the visitor has seen enough.
macro_rules! go {
    ($flow:expr) => {
        if $flow?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    };
}

struct Walker<'w, 'r> {
    catalog: &'w Catalog<'r>,
    path: &'w Path,
    back: bool,
    wanted: Wanted<'w>,
    visit: Visit<'w>,
    /// Missing segments not reported yet: more may follow.
    missing: Option<(u64, u64)>,
    /// How many wanted nodes are read at once. A search that succeeds in the first should not pay for sixteen.
    ramp: usize,
}

/// What is known of a part of the log and not reported yet.
enum Item {
    /// A node to be read.
    Node(NodeId),
    /// A node that is not there.
    Gone(NodeId),
    /// A segment that is wanted.
    Entry(Box<Entry>),
    /// From the first to the last segment number, nothing is wanted.
    Skip(u64, u64, Aggregate),
    /// A node that could not be read: an error only if the walk comes here.
    Failed(Error),
}

/// The level of a node's children.
fn level_below(id: NodeId) -> u32 {
    id.level.saturating_sub(1)
}

/// A part of a range.
enum Piece {
    /// These are there.
    Present(Vec<u64>),
    /// From the first to the last segment number, none is.
    Gap(u64, u64),
}

impl Walker<'_, '_> {
    fn emit(&mut self, step: Step) -> Flow {
        go!(self.flush());
        (self.visit)(step)
    }

    /// Tells of the missing segments.
    fn flush(&mut self) -> Flow {
        let names = self.missing.take().and_then(|(low, high)| self.path.leg_name(low).zip(self.path.leg_name(high)));
        match names {
            Some((first, last)) => (self.visit)(Step::Missing { first, last }),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn skip(&mut self, timeline: Timeline, low: u64, high: u64, aggregate: Aggregate) -> Flow {
        let name = |number| SegmentName::from_number(timeline, number, self.catalog.size());
        match name(low).zip(name(high)) {
            Some((first, last)) => self.emit(Step::Skipped { first, last, aggregate }),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// A part of a leg. Before the first stored segment of its timeline, and after the last, there is nothing, whatever
    /// nodes say: they are removed before segments are, but one that was being written meanwhile may come after that.
    fn leg(&mut self, leg: Leg, low: u64, high: u64) -> Flow {
        let number = |name: SegmentName| name.number(self.catalog.size());
        let stored = leg.stored.and_then(|(first, last)| number(first).zip(number(last)));
        let stored = stored.map(|(first, last)| (first.max(low), last.min(high))).filter(|(first, last)| first <= last);
        let Some((first, last)) = stored else { return self.hole(leg, low, high) };
        let before = first.checked_sub(1).filter(|before| low <= *before).map(|before| (low, before));
        let after = last.checked_add(1).filter(|after| *after <= high).map(|after| (after, high));
        let holes = if self.back { [after, before] } else { [before, after] };
        if let Some((low, high)) = holes[0] {
            go!(self.hole(leg, low, high));
        }
        // No more than 17 nodes at the highest level.
        let level = (0..MAX_LEVEL).find(|level| span(level + 1) > last - first).unwrap_or(MAX_LEVEL);
        go!(self.gap(leg, level, first, last));
        match holes[1] {
            Some((low, high)) => self.hole(leg, low, high),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// Segments that no node above `level` covers.
    fn gap(&mut self, leg: Leg, level: u32, low: u64, high: u64) -> Flow {
        let (mut low, mut high, unit, mut width) = (low, high, span(level), LISTED_NAMES as u64);
        while low <= high {
            let (numbers, from, until);
            if self.back {
                from = (high / unit).saturating_sub(width - 1).saturating_mul(unit).max(low);
                until = high;
                numbers = self.list(leg, level, from, until, usize::MAX)?.0;
                // Large holes take few requests.
                width = if numbers.is_empty() { (width * 4).min(MAX_LISTED_SPAN) } else { LISTED_NAMES as u64 };
            } else {
                let (listed, whole) = self.list(leg, level, low, high, LISTED_NAMES)?;
                from = low;
                let end = listed.last().map_or(high, |last| last.saturating_mul(unit).saturating_add(unit - 1));
                until = if whole { high } else { end.min(high) };
                numbers = listed;
            }
            for piece in self.pieces(&numbers, unit, from, until) {
                go!(match piece {
                    Piece::Present(numbers) if level == 0 => self.segments(leg, &numbers),
                    Piece::Present(numbers) => self.nodes(leg, level, &numbers, (from, until)),
                    Piece::Gap(low, high) if level == 0 => self.hole(leg, low, high),
                    Piece::Gap(low, high) => self.gap(leg, level - 1, low, high),
                });
            }
            match (self.back, from.checked_sub(1), until.checked_add(1)) {
                (true, Some(before), _) => high = before,
                (false, _, Some(after)) => low = after,
                _ => break,
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn list(&self, leg: Leg, level: u32, low: u64, high: u64, limit: usize) -> Result<(Vec<u64>, bool), Error> {
        self.catalog.known_names(leg.timeline, level, low / span(level), high / span(level), limit)
    }

    /// Cuts a range into what is there and what is not, in the order of the walk.
    fn pieces(&self, numbers: &[u64], unit: u64, low: u64, high: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (mut next, mut run): (u64, Vec<u64>) = (low, Vec::new());
        for number in numbers {
            let first = number.saturating_mul(unit).max(low);
            if next < first {
                if !run.is_empty() {
                    pieces.push(Piece::Present(std::mem::take(&mut run)));
                }
                pieces.push(Piece::Gap(next, first - 1));
            }
            run.push(*number);
            next = number.saturating_mul(unit).saturating_add(unit);
        }
        if !run.is_empty() {
            pieces.push(Piece::Present(run));
        }
        if next <= high {
            pieces.push(Piece::Gap(next, high));
        }
        if self.back {
            pieces.reverse();
            for piece in &mut pieces {
                if let Piece::Present(numbers) = piece {
                    numbers.reverse();
                }
            }
        }
        pieces
    }

    /// Nodes in the order of the walk; of these only what is in the range.
    ///
    /// What is known and not reported yet stands in a queue. When a node is next that is not read, the first few such
    /// in the queue are read at once, wherever they stand, and each gives way to its children.
    fn nodes(&mut self, leg: Leg, level: u32, numbers: &[u64], range: (u64, u64)) -> Flow {
        let id = |number: &u64| Item::Node(self.catalog.node_id(leg.timeline, level, *number));
        let mut queue: VecDeque<Item> = numbers.iter().map(id).collect();
        while let Some(item) = queue.pop_front() {
            match item {
                Item::Node(next) => {
                    queue.push_front(Item::Node(next));
                    // Nothing is known of the highest ones: all have to be read.
                    let width = if next.level == level { CATALOG_READERS } else { self.ramp };
                    if next.level < level {
                        self.ramp = (self.ramp * 2).min(CATALOG_READERS);
                    }
                    queue = self.read_some(queue, width, range);
                }
                Item::Gone(id) => go!(self.gap(leg, level_below(id), id.first().max(range.0), id.last().min(range.1))),
                Item::Entry(entry) => go!(self.emit(Step::Segment(*entry))),
                Item::Skip(low, high, aggregate) => go!(self.skip(leg.timeline, low, high, aggregate)),
                Item::Failed(error) => return Err(error),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads the first `width` nodes of a queue.
    fn read_some(&self, queue: VecDeque<Item>, width: usize, range: (u64, u64)) -> VecDeque<Item> {
        let ids: Vec<NodeId> =
            queue.iter().filter_map(|item| if let Item::Node(id) = item { Some(*id) } else { None }).take(width).collect();
        let mut read = at_once(&ids, CATALOG_READERS, |id| self.catalog.known_node(*id)).into_iter();
        let mut later = VecDeque::with_capacity(queue.len());
        for item in queue {
            match item {
                Item::Node(id) => match read.next() {
                    None => later.push_back(Item::Node(id)),
                    Some(Ok(Some(node))) => later.extend(self.children(&node, range)),
                    // Deleted since it was listed, or since its parent was written.
                    Some(Ok(None)) => later.push_back(Item::Gone(id)),
                    Some(Err(error)) => later.push_back(Item::Failed(error)),
                },
                other => later.push_back(other),
            }
        }
        later
    }

    /// What stands for a node once it is read.
    fn children(&self, node: &Node, (low, high): (u64, u64)) -> Vec<Item> {
        let (low, high) = (node.id.first().max(low), node.id.last().min(high));
        let whole = node.aggregate();
        if !(self.wanted)(&whole) {
            return vec![Item::Skip(low, high, whole)];
        }
        let skip_or = |first: u64, last: u64, aggregate: Aggregate, item: Item| {
            if (self.wanted)(&aggregate) { item } else { Item::Skip(first.max(low), last.min(high), aggregate) }
        };
        let inside = |first: u64, last: u64| first <= high && last >= low;
        let mut items: Vec<Item> = match &node.children {
            Children::Segments(entries) => (node.id.first()..)
                .zip(entries)
                .filter(|(number, _)| inside(*number, *number))
                .map(|(number, entry)| skip_or(number, number, entry.aggregate, Item::Entry(Box::new(entry.clone()))))
                .collect(),
            Children::Nodes(aggregates) => (node.id.number * FANOUT..)
                .map(|number| NodeId { level: level_below(node.id), number, ..node.id })
                .zip(aggregates)
                .filter(|(id, _)| inside(id.first(), id.last()))
                .map(|(id, aggregate)| skip_or(id.first(), id.last(), *aggregate, Item::Node(id)))
                .collect(),
        };
        if self.back {
            items.reverse();
        }
        items
    }

    /// Stored segments under no node, in the order of the walk.
    fn segments(&mut self, leg: Leg, numbers: &[u64]) -> Flow {
        let name = |number: &u64| SegmentName::from_number(leg.timeline, *number, self.catalog.size());
        let names: Vec<SegmentName> = numbers.iter().filter_map(name).collect();
        let mut rest = names.as_slice();
        while !rest.is_empty() {
            let count = CATALOG_READERS.min(rest.len());
            // One more than is reported: an entry needs the segment after it.
            let ahead = if self.back { count } else { (count + 1).min(rest.len()) };
            let read = at_once(rest.get(..ahead).unwrap_or_default(), CATALOG_READERS + 1, |name| self.catalog.stored(*name));
            let (batch, later) = rest.split_at(count);
            rest = later;
            for (name, stored) in batch.iter().zip(read) {
                go!(self.segment(leg, *name, stored?));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn segment(&mut self, leg: Leg, name: SegmentName, stored: Stored) -> Flow {
        match stored {
            Stored::Unscanned => self.emit(Step::Unscanned(name)),
            Stored::Missing => match name.number(self.catalog.size()) {
                Some(number) => self.hole(leg, number, number),
                None => Ok(ControlFlow::Continue(())),
            },
            Stored::Scanned(summary) => {
                let entry = self.catalog.entry(self.path, &summary)?;
                if (self.wanted)(&entry.aggregate) {
                    self.emit(Step::Segment(entry))
                } else {
                    self.emit(Step::Skipped { first: name, last: name, aggregate: entry.aggregate })
                }
            }
        }
    }

    /// Segments that are not stored on their timeline. Of a timeline of which nothing is stored the first may be on its
    /// parent's.
    fn hole(&mut self, leg: Leg, low: u64, high: u64) -> Flow {
        if low != self.path.number(leg.begin) || !self.path.is_begun_by_parent(&leg) {
            self.miss(low, high);
            return Ok(ControlFlow::Continue(()));
        }
        let rest = (low + 1, high);
        if self.back && rest.0 <= rest.1 {
            self.miss(rest.0, rest.1);
        }
        let mut is_stored = false;
        for parent in self.path.legs_of(low).copied().filter(|parent| parent.timeline < leg.timeline).collect::<Vec<_>>() {
            let Some(name) = SegmentName::from_number(parent.timeline, low, self.catalog.size()) else { continue };
            match self.catalog.stored(name)? {
                Stored::Missing => {}
                stored => {
                    go!(self.segment(parent, name, stored));
                    is_stored = true;
                    break;
                }
            }
        }
        if !is_stored {
            self.miss(low, low);
        }
        if !self.back && rest.0 <= rest.1 {
            self.miss(rest.0, rest.1);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Remembers missing segments, so that neighbours are reported together.
    fn miss(&mut self, low: u64, high: u64) {
        self.missing = Some(match self.missing {
            None => (low, high),
            // The walk goes over every number once and in order, so these are neighbours.
            Some((first, last)) => (first.min(low), last.max(high)),
        });
    }
}
