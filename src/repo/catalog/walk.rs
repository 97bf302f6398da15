//! Walks along a path.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::read::Stored;
use super::{Catalog, LISTED, Path};
use crate::error::Error;
use crate::format::node::{Aggregate, Entry};
use crate::pg::{Lsn, SegmentName, Timeline};

/// What a walk comes across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A segment.
    Segment(Entry),
    /// Consecutive segments that were passed over because their aggregate was not wanted. All are stored. At a timeline's end the
    /// aggregate may be of more segments than these.
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
/// Is told of every step, and says whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(Step) -> Result<ControlFlow<()>, Error>;

impl Catalog<'_> {
    /// Walks from the segment that holds `from` to the one that holds `to`, or the last stored one if that is earlier, in LSN order.
    /// Parts that are not wanted are passed over in one step, without looking inside.
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
        let Some((_, last)) = path.stored().and_then(|(first, last)| first.number(self.size()).zip(last.number(self.size())))
        else {
            return Ok(());
        };
        let (from, to) = (path.number(from), path.number(to).min(last));
        if from > to {
            return Ok(());
        }
        // A first version: reads every summary.
        let mut present: BTreeSet<(u64, std::cmp::Reverse<Timeline>)> = BTreeSet::new();
        for leg in path.legs() {
            let (mut after, until) = (path.number(leg.begin).max(from).checked_sub(1), path.last_usable(leg).min(to));
            loop {
                let (numbers, whole) = self.segments_after(leg.timeline, after, until, LISTED)?;
                after = numbers.last().copied().or(after);
                present.extend(numbers.into_iter().map(|number| (number, std::cmp::Reverse(leg.timeline))));
                if whole {
                    break;
                }
            }
        }
        let mut steps = Vec::new();
        let mut next = from;
        for (number, timeline) in present {
            if number < next {
                continue;
            }
            if next < number {
                steps.push((path.leg_name(next).zip(path.leg_name(number - 1)), None));
            }
            steps.push((None, SegmentName::from_number(timeline.0, number, self.size())));
            next = number + 1;
        }
        if next <= to {
            steps.push((path.leg_name(next).zip(path.leg_name(to)), None));
        }
        if back {
            steps.reverse();
        }
        for (missing, name) in steps {
            let step = match (missing, name) {
                (Some((first, last)), _) => Step::Missing { first, last },
                (None, Some(name)) => match self.stored(name)? {
                    Stored::Missing => Step::Missing { first: name, last: name },
                    Stored::Unscanned => Step::Unscanned(name),
                    Stored::Scanned(summary) => {
                        let entry = self.entry(path, &summary)?;
                        if wanted(&entry.aggregate) {
                            Step::Segment(entry)
                        } else {
                            Step::Skipped { first: name, last: name, aggregate: entry.aggregate }
                        }
                    }
                },
                (None, None) => continue,
            };
            if visit(step)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}
