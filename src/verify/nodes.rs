//! Whether nodes of the catalog say what the segments under them do: segments come in the order of their names, and of
//! each what a scan of it found.
//!
//! Lives here: making out of these what a node must say, level by level. May not live here: whether a node is
//! authentic, which is found out where every object is read. Memory: the summaries of two blocks, and on each level
//! what is known of at most 16 nodes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::fault::Fault;
use super::findings::{Problem, Subject};
use super::known::Known;
use crate::error::Error;
use crate::format::node::{Aggregate, Children, Entry, FANOUT, MAX_LEVEL, Node};
use crate::pg::scan::Summary;
use crate::pg::{SegmentName, Timeline};

const DIFFERS: &str = "it does not say what the segments under it do, and a search believes it: 'walvis catalog rebuild \
     --force' deletes the nodes and makes them anew";

/// Holds nodes against what comes.
#[derive(Default)]
pub(super) struct Nodes {
    timeline: Option<Timeline>,
    /// The number of the first summary that is kept.
    first: u64,
    /// Consecutive ones.
    summaries: VecDeque<Arc<Summary>>,
    levels: Levels,
}

/// On each level from the first on, what is known of nodes that can have a parent with those that come.
#[derive(Default)]
struct Levels(Vec<Siblings>);

/// Consecutive children of a node, from its first on.
#[derive(Default)]
struct Siblings {
    parent: u64,
    aggregates: Vec<Aggregate>,
}

/// Takes the level and the number of a node, and what it must say.
type Hold<'h> = &'h mut dyn FnMut(u32, u64, &Children);

impl Nodes {
    /// Takes the next segment. `None` as its summary: nothing is known of it.
    ///
    /// # Errors
    /// By a defect only.
    pub(super) fn take(
        &mut self,
        known: &Known<'_>,
        name: SegmentName,
        summary: Option<&Arc<Summary>>,
    ) -> Result<Vec<Fault>, Error> {
        let Some(number) = name.number(known.facts.wal_segment_size) else { return Ok(Vec::new()) };
        let mut faults = Vec::new();
        if Some(name.timeline) != self.timeline || number != self.end() || summary.is_none() {
            faults = self.finish(known)?;
            (self.timeline, self.first) = (Some(name.timeline), number);
        }
        let Some(summary) = summary else { return Ok(faults) };
        self.summaries.push_back(Arc::clone(summary));
        // A block waits for the next one, into which its last record may reach.
        if self.end().is_multiple_of(FANOUT) {
            self.blocks(known, self.end().saturating_sub(FANOUT), &mut faults)?;
        }
        Ok(faults)
    }

    /// Nothing comes any more that follows.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(super) fn finish(&mut self, known: &Known<'_>) -> Result<Vec<Fault>, Error> {
        let mut faults = Vec::new();
        self.blocks(known, self.end(), &mut faults)?;
        *self = Self::default();
        Ok(faults)
    }

    fn end(&self) -> u64 {
        self.first.saturating_add(self.summaries.len() as u64)
    }

    fn summary(&self, number: u64) -> Option<Arc<Summary>> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.summaries.get(at).cloned()
    }

    /// Looks at the blocks that end before `until`, and forgets what is before it.
    fn blocks(&mut self, known: &Known<'_>, until: u64, faults: &mut Vec<Fault>) -> Result<(), Error> {
        for block in self.first.div_ceil(FANOUT)..until / FANOUT {
            self.block(known, block, faults)?;
        }
        while self.first < until && self.summaries.pop_front().is_some() {
            self.first += 1;
        }
        Ok(())
    }

    fn block(&mut self, known: &Known<'_>, block: u64, faults: &mut Vec<Fault>) -> Result<(), Error> {
        let mut entries = Vec::new();
        for number in block * FANOUT..(block + 1) * FANOUT {
            let Some(summary) = self.summary(number) else { return Ok(()) };
            let Some(entry) = known.catalog.entry_by(&summary, &|later| self.summary(later))? else { return Ok(()) };
            entries.push(entry);
        }
        let aggregate = Aggregate::of(entries.iter().map(|entry| &entry.aggregate));
        let Some(timeline) = self.timeline else { return Ok(()) };
        let mut hold = |level, number, expected: &Children| faults.extend(differs(known, timeline, level, number, expected));
        hold(1, block, &Children::Segments(entries));
        self.levels.add(1, block, aggregate, &mut hold);
        Ok(())
    }
}

impl Levels {
    /// What a node must say in sum: with its siblings it tells what their parent must say.
    fn add(&mut self, level: u32, number: u64, aggregate: Aggregate, hold: Hold<'_>) {
        let (parent, at) = (number / FANOUT, (number % FANOUT) as usize);
        let index = level.saturating_sub(1) as usize;
        if level >= MAX_LEVEL {
            return;
        }
        if self.0.len() <= index {
            self.0.resize_with(index + 1, Siblings::default);
        }
        let Some(siblings) = self.0.get_mut(index) else { return };
        if at == 0 {
            *siblings = Siblings { parent, aggregates: Vec::new() };
        }
        if siblings.parent != parent || siblings.aggregates.len() != at {
            // An earlier one is not known.
            return;
        }
        siblings.aggregates.push(aggregate);
        if siblings.aggregates.len() as u64 == FANOUT {
            let aggregates = std::mem::take(&mut siblings.aggregates);
            let aggregate = Aggregate::of(&aggregates);
            hold(level + 1, parent, &Children::Nodes(aggregates));
            self.add(level + 1, parent, aggregate, hold);
        }
    }
}

/// Holds a node against what it must say, if it is there.
fn differs(known: &Known<'_>, timeline: Timeline, level: u32, number: u64, expected: &Children) -> Option<Fault> {
    let (id, name) = known.catalog.node_at(timeline, level, number);
    match known.catalog.node_as_stored(id) {
        Ok(None) => None,
        Ok(Some(stored)) if says(&stored, expected) => None,
        Ok(Some(_)) => {
            let (harm, matters) = known.consequences(&name);
            Some(Fault::new(Subject::Object(name), Problem::Contradiction, DIFFERS, matters).harming(harm))
        }
        // Told of where it is read as an object.
        Err(error) => {
            tracing::debug!("{name} is not held against its segments: {error}");
            None
        }
    }
}

/// Whether a node says what it must.
fn says(node: &Node, expected: &Children) -> bool {
    match (&node.children, expected) {
        (Children::Segments(stored), Children::Segments(expected)) => {
            stored.len() == expected.len() && stored.iter().zip(expected).all(|(stored, expected)| is_entry(stored, expected))
        }
        (Children::Nodes(stored), Children::Nodes(expected)) => {
            stored.len() == expected.len() && stored.iter().zip(expected).all(|(stored, expected)| covers(stored, expected))
        }
        (Children::Segments(_) | Children::Nodes(_), _) => false,
    }
}

fn is_entry(stored: &Entry, expected: &Entry) -> bool {
    covers(&stored.aggregate, &expected.aggregate) && *stored == Entry { aggregate: stored.aggregate, ..expected.clone() }
}

/// Whether an aggregate is what it must be, or says that it does not know.
fn covers(stored: &Aggregate, expected: &Aggregate) -> bool {
    let (known, mut marks) = (&stored.marks, expected.marks);
    if known.incomplete {
        // The list of marks was too long for the summary that it was made of.
        marks = *known;
    } else if known.uncounted {
        // An earlier version did not count these.
        (marks.files, marks.parameters, marks.minimal) = (known.files, known.parameters, known.minimal);
        marks.uncounted = true;
    }
    *stored == Aggregate { marks, ..*expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::node::MarkCounts;
    use crate::pg::scan::{PgTime, XactStats};

    fn aggregate(count: u64) -> Aggregate {
        let xacts = XactStats { count, aborts: 0, min_time: PgTime(1), max_time: PgTime(2), xids: None };
        Aggregate { segments: FANOUT, xacts: Some(xacts), ..Aggregate::default() }
    }

    #[test]
    fn what_parents_must_say_is_known_once_all_their_children_are() {
        let (mut levels, mut held) = (Levels::default(), Vec::new());
        // The first family lacks its first child, one later on a child in the middle.
        for number in (1..40).chain(41..600) {
            levels.add(1, number, aggregate(number), &mut |level, number, expected| {
                let Children::Nodes(aggregates) = expected else { panic!("segments") };
                assert_eq!(aggregates.len() as u64, FANOUT);
                held.push((level, number, Aggregate::of(aggregates).xacts.unwrap().count));
            });
        }
        let sum = |range: std::ops::Range<u64>| range.sum::<u64>();
        let (third, second): (Vec<_>, Vec<_>) = held.into_iter().partition(|(level, ..)| *level == 3);
        let expected = (1..37).filter(|family| *family != 2).map(|family| (2, family, sum(family * 16..family * 16 + 16)));
        assert_eq!(second, expected.collect::<Vec<_>>());
        assert_eq!(third, [(3, 1, sum(256..512))]);
    }

    #[test]
    fn what_a_node_says_that_it_does_not_know_is_not_held_against_it() {
        let marks = MarkCounts { checkpoints: 3, files: 2, ..MarkCounts::default() };
        let expected = Aggregate { marks, ..aggregate(5) };
        assert!(covers(&expected, &expected));
        assert!(!covers(&aggregate(5), &expected) && !covers(&Aggregate { marks, ..aggregate(6) }, &expected));
        let says = |marks: MarkCounts| covers(&Aggregate { marks, ..expected }, &expected);
        assert!(says(MarkCounts { uncounted: true, files: 0, ..marks }));
        assert!(!says(MarkCounts { uncounted: true, files: 0, checkpoints: 2, ..marks }));
        assert!(says(MarkCounts { incomplete: true, ..MarkCounts::default() }));
    }
}
