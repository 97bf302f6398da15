//! What the log changed between two positions of a path, or why that is not known.

use std::collections::VecDeque;
use std::sync::Arc;

use super::open::Catalog;
use super::path::{Leg, Path};
use super::summaries::Stored;
use crate::error::Error;
use crate::format::node::{NodeId, span};
use crate::limits::{CATALOG_READERS, CHANGES_READERS, MAX_CHANGES_LEVEL, MAX_SCANNED_FOR_CHANGES};
use crate::pg::changes::{ChangeSet, Incomplete, Joined};
use crate::pg::scan::Summary;
use crate::pg::{Lsn, SegmentName, Timeline};
use crate::threads::at_once;

/// What is known of the changes between two positions.
#[derive(Debug)]
pub struct ChangesBetween {
    /// What is stored, joined up to [`until`](Joined::until). Segments that are not stored yet can be added.
    pub joined: Joined,
    /// Why what is stored does not go on from there.
    pub stopped: Option<Incomplete>,
    /// Nodes that were read.
    pub nodes: u64,
    /// Segments whose own change sets were read.
    pub segments: u64,
    /// Segments that were scanned, because they are stored without.
    pub scanned: u64,
}

impl ChangesBetween {
    /// All changes by records that begin before `to`, and maybe some of later ones.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn finish(self, to: Lsn) -> Result<ChangeSet, Incomplete> {
        let (joined, stopped) = (self.joined, self.stopped);
        match stopped.filter(|_| joined.until().is_none_or(|until| until < to)) {
            Some(stopped) => Err(stopped),
            None => joined.finish(to),
        }
    }
}

/// A part of a range, in the order of the log.
#[derive(Clone, Copy)]
enum Item {
    Node(NodeId),
    Segment(u64),
}

impl Catalog<'_> {
    /// What changed by records that begin from `from` on, where one must begin, and before `to`. What other records of
    /// the same segments changed may be there too, or those that a timeline has after the path leaves it.
    ///
    /// That a segment is not there, or not known, is no error, but an answer: see [`ChangesBetween::stopped`].
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub fn changes(&self, path: &Path, from: Lsn, to: Lsn) -> Result<ChangesBetween, Error> {
        let joined = Joined::new(self.size());
        let mut reading = Reading {
            catalog: self,
            path,
            known: ChangeSet::new(),
            after_node: None,
            between: ChangesBetween { joined, stopped: None, nodes: 0, segments: 0, scanned: 0 },
        };
        if to <= from {
            reading.between.joined.add_known(&ChangeSet::new(), to);
            return Ok(reading.between);
        }
        let (first, last) = (path.number(from), path.number(Lsn(to.0.saturating_sub(1))));
        let stored = path.stored_numbers().map_or(0, |(_, last)| last);
        let mut ranges: Vec<(Leg, u64, u64)> = Vec::new();
        let mut until = last.min(stored);
        for leg in path.legs().iter().rev() {
            let begin = path.number(leg.begin);
            if begin <= until && first <= until {
                ranges.push((*leg, begin.max(first), until));
            }
            match begin.checked_sub(1) {
                Some(before) => until = until.min(before),
                None => break,
            }
        }
        ranges.reverse();
        for (number, (leg, low, high)) in ranges.iter().enumerate() {
            // Nodes say that the next segment of the *same* timeline follows.
            let is_last = number + 1 == ranges.len();
            let high_of_nodes = if is_last { Some(*high) } else { high.checked_sub(1).filter(|high| low <= high) };
            let mut items = Vec::new();
            if let Some(high_of_nodes) = high_of_nodes {
                self.cover(leg.timeline, MAX_CHANGES_LEVEL, *low, high_of_nodes, &mut items)?;
            }
            if high_of_nodes != Some(*high) {
                items.push(Item::Segment(*high));
            }
            if !reading.items(leg.timeline, items.into())? {
                return Ok(reading.finished());
            }
        }
        if first <= last.min(stored) {
            reading.follow(last.min(stored) + 1, to)?;
        }
        if reading.between.stopped.is_none() && stored < last {
            let missing = path.leg_name(stored.max(first.saturating_sub(1)) + 1);
            reading.between.stopped = Some(missing.map_or(Incomplete::NoRange, Incomplete::Missing));
        }
        Ok(reading.finished())
    }

    /// The fewest nodes of changes that are there, and the segments that are under none.
    fn cover(&self, timeline: Timeline, level: u32, low: u64, high: u64, items: &mut Vec<Item>) -> Result<(), Error> {
        if level == 0 {
            items.extend((low..=high).map(Item::Segment));
            return Ok(());
        }
        // Those that are not wholly inside may have more than is asked for.
        let unit = span(level);
        let (mut next, inside) = (low, (high + 1) / unit);
        let first = low.div_ceil(unit);
        let numbers = match inside.checked_sub(1).filter(|last| first <= *last) {
            Some(last) => self.changes_in(timeline, level, first, last, usize::MAX)?.0,
            None => Vec::new(),
        };
        for number in numbers {
            let begins = number * unit;
            if next < begins {
                self.cover(timeline, level - 1, next, begins - 1, items)?;
            }
            items.push(Item::Node(self.node_id(timeline, level, number)));
            next = begins + unit;
        }
        if next <= high {
            self.cover(timeline, level - 1, next, high, items)?;
        }
        Ok(())
    }
}

/// A segment of a path.
struct OnPath {
    name: SegmentName,
    stored: Stored,
    /// Bytes of its change set.
    changes: Option<Vec<u8>>,
}

/// A union under way.
struct Reading<'c, 'r> {
    catalog: &'c Catalog<'r>,
    path: &'c Path,
    /// What nodes say.
    known: ChangeSet,
    /// The last item was a node: where it ends.
    after_node: Option<Lsn>,
    between: ChangesBetween,
}

impl Reading<'_, '_> {
    fn finished(mut self) -> ChangesBetween {
        let known = std::mem::take(&mut self.known);
        self.between.joined.add_set(&known);
        self.between
    }

    /// `false` when the union ends here.
    fn items(&mut self, timeline: Timeline, mut items: VecDeque<Item>) -> Result<bool, Error> {
        while let Some(item) = items.front() {
            let goes_on = match item {
                Item::Node(_) => self.nodes(timeline, &mut items)?,
                Item::Segment(_) => self.segments(&mut items)?,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The nodes at the beginning of a list.
    fn nodes(&mut self, timeline: Timeline, items: &mut VecDeque<Item>) -> Result<bool, Error> {
        let node = |item: &Item| if let Item::Node(id) = item { Some(*id) } else { None };
        let ids: Vec<NodeId> = items.iter().map_while(node).take(CHANGES_READERS).collect();
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(true) };
        let catalog = self.catalog;
        let there = catalog.add_changes(&ids, CHANGES_READERS, &mut self.known)?;
        if there.contains(&false) {
            // Deleted since it was listed. What the others say is there already, and does no harm twice.
            let mut instead = Vec::new();
            for (id, is_there) in ids.iter().zip(there) {
                match is_there {
                    true => instead.push(Item::Node(*id)),
                    false => catalog.cover(timeline, id.level.saturating_sub(1), id.first(), id.last(), &mut instead)?,
                }
            }
            items.drain(..ids.len());
            instead.into_iter().rev().for_each(|item| items.push_front(item));
            return Ok(true);
        }
        let (begins, ends) = (first.first(), Lsn((last.last() + 1) * last.size.bytes()));
        if self.after_node.is_none() && self.between.joined.until().is_some() && !self.follow_through(begins)? {
            return Ok(false);
        }
        self.between.nodes += ids.len() as u64;
        self.between.joined.add_known(&ChangeSet::new(), ends);
        self.after_node = Some(ends);
        items.drain(..ids.len());
        Ok(true)
    }

    /// The segments at the beginning of a list.
    fn segments(&mut self, items: &mut VecDeque<Item>) -> Result<bool, Error> {
        let segment = |item: &Item| if let Item::Segment(number) = item { Some(*number) } else { None };
        let numbers: Vec<u64> = items.iter().map_while(segment).take(CATALOG_READERS).collect();
        items.drain(..numbers.len());
        let read = at_once(&numbers, CATALOG_READERS, |number| self.read(*number));
        for (number, read) in numbers.iter().zip(read) {
            let stopped = match read? {
                None => Some(self.path.leg_name(*number).map_or(Incomplete::NoRange, Incomplete::Missing)),
                Some(found) => self.segment(*number, found)?,
            };
            if stopped.is_some() {
                self.between.stopped = stopped;
                return Ok(false);
            }
            self.after_node = None;
        }
        Ok(true)
    }

    /// What is known of a segment of the path; `None` when it is not there.
    fn read(&self, number: u64) -> Result<Option<OnPath>, Error> {
        for leg in self.path.legs_of(number) {
            let Some(name) = SegmentName::from_number(leg.timeline, number, self.catalog.size()) else { return Ok(None) };
            match self.catalog.stored_with_changes(name)? {
                // What the parent has there is not what the server reads.
                (Stored::Missing, _)
                    if leg.begin.0 > 0 && self.path.number(leg.begin) == number && !self.path.is_begun_by_parent(leg) =>
                {
                    return Ok(None);
                }
                (Stored::Missing, _) => {}
                (stored, changes) => return Ok(Some(OnPath { name, stored, changes })),
            }
        }
        Ok(None)
    }

    /// Adds a segment; why that cannot be, if it cannot.
    fn segment(&mut self, number: u64, found: OnPath) -> Result<Option<Incomplete>, Error> {
        let OnPath { name, stored, changes } = found;
        let id = self.catalog.node_id(name.timeline, 0, number);
        let known = match (stored, changes) {
            (Stored::Scanned(summary), Some(bytes)) => self.catalog.understand_changes(id, &bytes)?.map(|set| (summary, set)),
            _ => None,
        };
        let (summary, set): (Arc<Summary>, ChangeSet) = match known {
            Some(known) => known,
            None if self.between.scanned >= MAX_SCANNED_FOR_CHANGES as u64 => return Ok(Some(Incomplete::Unknown(name))),
            None => {
                self.between.scanned += 1;
                let (summary, set) = self.catalog.scan_with_changes(name)?;
                (Arc::new(summary), set)
            }
        };
        self.between.segments += 1;
        Ok(self.between.joined.push(&summary, &set).err())
    }

    /// The segments from a number on in which the last record ends, and whether they follow; `false` if not.
    fn follow_through(&mut self, mut number: u64) -> Result<bool, Error> {
        loop {
            let Some(summary) = self.catalog.on_path(self.path, number, true)? else {
                let name = self.path.leg_name(number);
                self.between.stopped = Some(name.map_or(Incomplete::NoRange, Incomplete::Missing));
                return Ok(false);
            };
            match self.between.joined.push_follower(&summary) {
                Ok(true) => number += 1,
                Ok(false) => return Ok(true),
                Err(stopped) => {
                    self.between.stopped = Some(stopped);
                    return Ok(false);
                }
            }
        }
    }

    /// After the last segment of a range: the record that is open there, if what follows is stored.
    fn follow(&mut self, mut number: u64, to: Lsn) -> Result<(), Error> {
        while self.between.joined.open_record().is_some_and(|open| open < to) {
            let Some(summary) = self.catalog.on_path(self.path, number, true)? else { return Ok(()) };
            if let Err(stopped) = self.between.joined.push_follower(&summary) {
                self.between.stopped = Some(stopped);
                return Ok(());
            }
            number += 1;
        }
        Ok(())
    }
}
