//! Which segments somebody needs: what is wrong with others is told, and costs nothing.
//!
//! Lives here: sets of segments. May not live here: why a backup is kept.

use std::collections::BTreeMap;

use super::inventory::SystemInventory;
use super::lines::{Line, SegmentRun};
use crate::format::manifest::BackupSummary;
use crate::pg::{Lsn, Timeline, WalSegmentSize};
use crate::repo::Runs;
use crate::repo::backups::BackupWal;

/// The segments that somebody needs, of one system identifier.
#[derive(Debug, Default)]
pub(super) struct Needed {
    segments: BTreeMap<Timeline, Runs>,
    /// There are no backups: all may belong to ones that another program took.
    all: bool,
}

impl Needed {
    /// What these backups need, and what leads on from them: along each line all from the first backup on, or from
    /// where `window` says that the window of the timeline begins. `whole` says that some backups cannot be read, so
    /// that nobody knows what they need.
    pub(super) fn of(
        backups: &[BackupSummary],
        lines: &[Line<'_>],
        size: WalSegmentSize,
        window: Option<&BTreeMap<Timeline, Runs>>,
        whole: bool,
    ) -> Self {
        let mut needed = Self { all: backups.is_empty() || whole, ..Self::default() };
        for backup in backups {
            let wal = BackupWal::of(backup);
            let numbers = wal.segments(size);
            needed.segments.entry(wal.timeline).or_default().insert_run(*numbers.start(), *numbers.end());
        }
        match window {
            Some(window) => {
                for (timeline, runs) in window {
                    let own = needed.segments.entry(*timeline).or_default();
                    runs.iter().for_each(|(first, last)| own.insert_run(first, last));
                }
            }
            None => lines.iter().for_each(|line| needed.add_line(line, size)),
        }
        needed
    }

    /// All of a line from its first backup on.
    fn add_line(&mut self, line: &Line<'_>, size: WalSegmentSize) {
        let Some(first) = line.backups.first() else { return };
        let number = |lsn: Lsn| lsn.0 / size.bytes();
        let (from, until) = (number(first.start), number(Lsn(line.range.1.0.saturating_sub(1))));
        for (at, leg) in line.legs.iter().enumerate() {
            let low = number(leg.begin).max(from);
            // A child's own segment stands for the one that it begins in; its parent's, where nothing else is stored.
            let next = line.legs.get(at + 1).map(|child| number(child.begin).saturating_sub(1));
            let high = next.unwrap_or(until).min(until);
            if low <= high {
                self.segments.entry(leg.timeline).or_default().insert_run(low, high);
            }
            if leg.stored.is_none() && low == number(leg.begin) && leg.begin.0 > 0 {
                for parent in line.legs.get(..at).unwrap_or_default() {
                    self.segments.entry(parent.timeline).or_default().insert_run(low, low);
                }
            }
        }
    }

    /// Whether somebody needs any of these.
    pub(super) fn wants(&self, run: SegmentRun) -> bool {
        self.all
            || self.segments.get(&run.timeline).is_some_and(|runs| {
                // The last run that begins at the end of this one or before.
                runs.iter().rev().find(|(first, _)| *first <= run.last).is_some_and(|(_, last)| run.first <= last)
            })
    }

    /// Whether somebody needs anything of a timeline.
    pub(super) fn wants_timeline(&self, timeline: Timeline, inventory: &SystemInventory) -> bool {
        self.segments.get(&timeline).is_some_and(|runs| !runs.is_empty())
            || self.all && inventory.segments.contains_key(&timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_needed_when_any_of_it_is() {
        let mut needed = Needed::default();
        let runs = needed.segments.entry(Timeline(2)).or_default();
        runs.insert_run(10, 12);
        runs.insert_run(20, 20);
        let run = |timeline, first, last| SegmentRun { timeline: Timeline(timeline), first, last };
        for (first, last, expected) in
            [(0, 9, false), (0, 10, true), (12, 15, true), (13, 19, false), (13, 20, true), (21, 99, false)]
        {
            assert_eq!(needed.wants(run(2, first, last)), expected, "{first} to {last}");
            assert!(!needed.wants(run(1, first, last)));
        }
        assert!(Needed { all: true, ..Needed::default() }.wants(run(1, 5, 5)));
    }
}
