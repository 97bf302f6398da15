//! Which WAL stays: what kept backups and windows need of it, and what is left of a listing without that.
//!
//! Lives here: sets of segments, by timeline and number. Pure. May not live here: which backups are kept, which
//! timelines were alive.

use std::collections::BTreeMap;

use crate::pg::{Lsn, Timeline, WalFileName, WalSegmentSize};
use crate::recovery::promised::Promised;
use crate::repo::backups::BackupWal;
use crate::repo::catalog::TimelineInfo;
use crate::repo::{ObjectSet, Runs, StoredName};

/// Collects what has to stay, whether it is stored or not.
pub(super) struct NeededWal<'a> {
    timelines: &'a [TimelineInfo],
    kept: KeptWal,
}

/// Segments that have to stay, whether they are stored or not.
#[derive(Debug, Clone)]
pub(super) struct KeptWal {
    size: WalSegmentSize,
    runs: BTreeMap<Timeline, Runs>,
}

impl<'a> NeededWal<'a> {
    /// None yet. The timelines are those of the catalog.
    pub(super) fn new(size: WalSegmentSize, timelines: &'a [TimelineInfo]) -> Self {
        Self { timelines, kept: KeptWal { size, runs: BTreeMap::new() } }
    }

    /// What was collected.
    pub(super) fn kept(&self) -> &KeptWal {
        &self.kept
    }

    /// What a backup needs from its start to its stop.
    pub(super) fn backup(&mut self, wal: BackupWal, from_standby: bool) {
        let segments = wal.segments(self.kept.size);
        self.kept.runs.entry(wal.timeline).or_default().insert_run(*segments.start(), *segments.end());
        if !from_standby {
            return;
        }
        for (child, fork) in left_before(self.timelines, wal.timeline, wal.stop) {
            let first = (*segments.start()).max(self.number(fork));
            self.kept.runs.entry(child).or_default().insert_run(first, *segments.end());
        }
    }

    /// What a window needs of a path.
    pub(super) fn path(&mut self, promised: &Promised) {
        let from = promised.from.unwrap_or(Lsn(0));
        for leg in promised.legs.iter().filter(|leg| from < leg.end) {
            let (first, last) = (self.number(leg.begin.max(from)), self.number(Lsn(leg.end.0.saturating_sub(1))));
            self.kept.runs.entry(leg.timeline).or_default().insert_run(first, last);
        }
    }

    fn number(&self, lsn: Lsn) -> u64 {
        lsn.0 / self.kept.size.bytes()
    }
}

impl KeptWal {
    /// What nobody needs of the WAL files that are stored. A `.partial` or `.backup` file stays with what stays of its
    /// timeline, and what has no place in the log stays.
    pub(super) fn rest_of(&self, stored: &ObjectSet) -> ObjectSet {
        let mut rest = ObjectSet::new(self.size);
        let none = Runs::default();
        for (timeline, runs) in stored.segments() {
            let needed = self.runs.get(&timeline).unwrap_or(&none);
            without(runs, needed, |first, last| rest.insert_segments(timeline, first, last));
        }
        for file in stored.wal_files() {
            let Some((timeline, number)) = self.place_of(&file) else { continue };
            let first = self.runs.get(&timeline).and_then(|runs| runs.iter().next()).map(|(first, _)| first);
            if first.is_none_or(|first| number < first) {
                rest.insert_wal(&file);
            }
        }
        rest
    }

    fn place_of(&self, file: &StoredName) -> Option<(Timeline, u64)> {
        match file.file {
            WalFileName::Partial(name) | WalFileName::Backup(name, _) => Some((name.timeline, name.number(self.size)?)),
            // A segment that is impossible with this size.
            WalFileName::Segment(_) | WalFileName::History(_) => None,
        }
    }
}

/// The timelines that left another one before a position, on whatever way, and where.
pub(super) fn left_before(timelines: &[TimelineInfo], parent: Timeline, before: Lsn) -> impl Iterator<Item = (Timeline, Lsn)> {
    timelines.iter().filter_map(move |info| {
        let entry = info.history.as_ref()?.ancestors.iter().find(|entry| entry.timeline == parent)?;
        (entry.switch < before).then_some((info.timeline, entry.switch))
    })
}

/// Hands on the runs of numbers of `all` that are not in `needed`.
fn without(all: &Runs, needed: &Runs, mut take: impl FnMut(u64, u64)) {
    let mut needed = needed.iter().peekable();
    for (first, last) in all.iter() {
        let mut next = Some(first);
        while let Some(from) = next
            && from <= last
        {
            match needed.peek().copied() {
                Some((_, until)) if until < from => drop(needed.next()),
                Some((begin, until)) if begin <= last => {
                    if from < begin {
                        take(from, begin - 1);
                    }
                    next = until.checked_add(1);
                }
                _ => {
                    take(from, last);
                    next = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pg::{HistoryEntry, SegmentName, TimelineHistory};
    use crate::repo::catalog::Leg;

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(16 << 20).unwrap()
    }

    fn at(number: u64) -> Lsn {
        Lsn(number * size().bytes())
    }

    fn partial(timeline: u32, number: u64, copy: u32) -> StoredName {
        let name = SegmentName::from_number(Timeline(timeline), number, size()).unwrap();
        StoredName { file: WalFileName::Partial(name), copy }
    }

    fn runs(pairs: &[(u64, u64)]) -> Runs {
        let mut runs = Runs::default();
        pairs.iter().for_each(|(first, more)| runs.insert_run(*first, first + more));
        runs
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_is_not_needed(
            all in prop::collection::vec((0..80_u64, 0..9_u64), 0..20),
            needed in prop::collection::vec((0..80_u64, 0..9_u64), 0..20),
        ) {
            let (all, needed) = (runs(&all), runs(&needed));
            let mut left = Runs::default();
            without(&all, &needed, |first, last| left.insert_run(first, last));
            for number in 0..100 {
                let expected = all.contains(number) && !needed.contains(number);
                prop_assert_eq!(left.contains(number), expected, "{} of {:?} without {:?}", number, all, needed);
            }
        }
    }

    #[test]
    fn a_window_needs_its_path_from_its_backup_on_and_a_backup_its_own_wal() {
        let history = TimelineHistory {
            timeline: Timeline(2),
            ancestors: vec![HistoryEntry { timeline: Timeline(1), switch: Lsn(at(10).0 + 5) }],
        };
        let timelines = [
            TimelineInfo { timeline: Timeline(1), history: None, segments: None },
            TimelineInfo { timeline: Timeline(2), history: Some(history), segments: None },
        ];
        let mut stored = ObjectSet::new(size());
        stored.insert_segments(Timeline(1), 0, 14);
        stored.insert_segments(Timeline(2), 10, 30);
        for file in [partial(1, 1, 1), partial(1, 3, 2), partial(1, 12, 1), partial(2, 9, 1), partial(7, 5, 1)] {
            stored.insert_wal(&file);
        }
        let leg = |timeline, begin, end| Leg { timeline: Timeline(timeline), begin, end, stored: None };
        let fork = Lsn(at(10).0 + 5);
        let promised = |from| Promised {
            timeline: Timeline(2),
            legs: vec![leg(1, Lsn(0), fork), leg(2, fork, Lsn(u64::MAX))],
            backups: Vec::new(),
            soon: Vec::new(),
            from,
            reaches: Vec::new(),
        };
        let rest = |needed: &NeededWal<'_>| {
            let rest = needed.kept().rest_of(&stored);
            let segments: Vec<(u32, u64, u64)> =
                rest.segments().flat_map(|(timeline, runs)| runs.iter().map(move |(a, b)| (timeline.0, a, b))).collect();
            (segments, rest.wal_files().map(|file| file.to_string()).collect::<Vec<_>>())
        };
        let text = |files: &[StoredName]| {
            let mut names: Vec<String> = files.iter().map(ToString::to_string).collect();
            names.sort();
            names
        };

        let mut needed = NeededWal::new(size(), &timelines);
        needed.path(&promised(Some(Lsn(at(7).0 + 100))));
        let left = [partial(1, 1, 1), partial(1, 3, 2), partial(2, 9, 1), partial(7, 5, 1)];
        assert_eq!(rest(&needed), (vec![(1, 0, 6), (1, 11, 14)], text(&left)), "beyond the fork nobody needs it");
        let mut after_the_fork = NeededWal::new(size(), &timelines);
        after_the_fork.path(&promised(Some(Lsn(at(10).0 + 100))));
        assert_eq!(rest(&after_the_fork).0, [(1, 0, 14)], "in the segment of the fork, on the child");
        needed.backup(BackupWal { timeline: Timeline(1), start: Lsn(at(2).0 + 8), stop: at(4) }, false);
        assert_eq!(rest(&needed).0, [(1, 0, 1), (1, 4, 6), (1, 11, 14)]);
        assert_eq!(rest(&needed).1, text(&[partial(1, 1, 1), partial(2, 9, 1), partial(7, 5, 1)]));

        // Of a standby that followed a promotion while it was read.
        let over_the_fork = BackupWal { timeline: Timeline(1), start: at(9), stop: Lsn(at(12).0 + 8) };
        let mut standby = NeededWal::new(size(), &timelines);
        standby.backup(over_the_fork, true);
        assert_eq!(rest(&standby).0, [(1, 0, 8), (1, 13, 14), (2, 13, 30)]);
        let mut primary = NeededWal::new(size(), &timelines);
        primary.backup(over_the_fork, false);
        assert_eq!(rest(&primary).0, [(1, 0, 8), (1, 13, 14), (2, 10, 30)]);

        let mut unknown = NeededWal::new(size(), &timelines);
        unknown.path(&promised(None));
        assert_eq!(rest(&unknown).0, [(1, 11, 14)], "no backup leads there: all of the path");
    }
}
