//! What damage costs: which moments no recovery reaches any more.
//!
//! A line can be restored from where a backup is consistent to where the stretch of whole log ends that the backup
//! begins in. What a finding costs is the difference that it makes to that, as if it were the only damage.
//!
//! Lives here: intervals of positions, without I/O. May not live here: finding damage, and what is said of it.

use std::collections::BTreeMap;

use super::lines::{Line, LineBackup, SegmentRun};
use crate::format::extent::BackupId;
use crate::pg::{Lsn, Timeline, WalSegmentSize};

/// Positions from the first one on, and before the second.
pub(super) type Interval = (Lsn, Lsn);

/// What is wrong, as far as recovery is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Harm {
    /// Backups that cannot be restored.
    pub(super) backups: Vec<BackupId>,
    /// On these timelines no recovery gets through from the first position to the second; they may be the same.
    pub(super) holes: Vec<(Timeline, Interval)>,
    /// Timelines that no server can be told to take, since their history is not there.
    pub(super) timelines: Vec<Timeline>,
}

impl Harm {
    /// Of segments that are missing or damaged.
    pub(super) fn of_segments(run: SegmentRun, size: WalSegmentSize) -> Self {
        Self { holes: vec![(run.timeline, run.positions(size))], ..Self::default() }
    }

    /// Of backups.
    pub(super) fn of_backups(backups: Vec<BackupId>) -> Self {
        Self { backups, ..Self::default() }
    }
}

/// The part of a line that costs are worked out on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    /// The timelines, each with where it begins and ends on this line.
    pub(super) legs: Vec<(Timeline, Interval)>,
    /// From where to where the server reads the files of each.
    pub(super) files: Vec<(Timeline, Interval)>,
    /// From where to where it is stored.
    pub(super) range: Interval,
    /// Gaps that are meant to be: nobody needs what was there.
    pub(super) gaps: Vec<Interval>,
    /// By start.
    pub(super) backups: Vec<LineBackup>,
}

/// All lines of a cluster.
#[derive(Debug, Default)]
pub(super) struct Costs {
    tracks: Vec<Track>,
    reached: BTreeMap<Timeline, Vec<Interval>>,
}

impl Costs {
    /// Of these lines. `needed` says whether a run of missing segments is needed by anybody.
    pub(super) fn of(lines: &[Line<'_>], size: WalSegmentSize, needed: &dyn Fn(SegmentRun) -> bool) -> Self {
        let track = |line: &Line<'_>| Track {
            legs: line.legs.iter().map(|leg| (leg.timeline, (leg.begin, leg.end))).collect(),
            files: line.files.clone(),
            range: line.range,
            gaps: line.missing.iter().filter(|run| !needed(**run)).map(|run| run.positions(size)).collect(),
            backups: line.backups.clone(),
        };
        Self::of_tracks(lines.iter().map(track).collect())
    }

    /// Of these tracks.
    pub(super) fn of_tracks(tracks: Vec<Track>) -> Self {
        let reached = reached(&tracks, &Harm::default());
        Self { tracks, reached }
    }

    /// Whether a backup that needs the WAL from one position to another cannot be restored, on any line that it is on.
    /// One that is on none needs that of its own timeline.
    pub(super) fn harms(&self, harm: &Harm, backup: BackupId, timeline: Timeline, (start, stop): Interval) -> bool {
        if harm.backups.contains(&backup) {
            return true;
        }
        let stop = Lsn(stop.0.max(start.0.saturating_add(1)));
        let is_hit = |(from, until): Interval| {
            if from == until { start < from && from < stop } else { start < until && from < stop }
        };
        let has_it = |track: &&Track| track.backups.iter().any(|other| other.id == backup);
        let mut on_lines = self.tracks.iter().filter(has_it).map(|track| track.holes(harm).into_iter().any(is_hit)).peekable();
        if on_lines.peek().is_some() {
            return on_lines.all(|is_hit| is_hit);
        }
        harm.holes.iter().any(|(other, hole)| *other == timeline && is_hit(*hole))
    }

    /// The moments that would be lost if nothing else were wrong, by timeline.
    pub(super) fn lost(&self, harm: &Harm) -> Vec<(Timeline, Interval)> {
        if harm.backups.is_empty() && harm.holes.is_empty() && harm.timelines.is_empty() {
            return Vec::new();
        }
        let left = reached(&self.tracks, harm);
        let lost = self.reached.iter().flat_map(|(timeline, before)| {
            let left = left.get(timeline).map_or(&[][..], Vec::as_slice);
            subtract(before, left).into_iter().map(|interval| (*timeline, interval))
        });
        lost.collect()
    }
}

/// What can be restored, on each timeline.
fn reached(tracks: &[Track], harm: &Harm) -> BTreeMap<Timeline, Vec<Interval>> {
    let mut found: BTreeMap<Timeline, Vec<Interval>> = BTreeMap::new();
    for track in tracks {
        for (from, until) in track.reached(harm) {
            for (timeline, (begin, end)) in &track.legs {
                let part = (from.max(*begin), until.min(*end));
                if part.0 < part.1 {
                    found.entry(*timeline).or_default().push(part);
                }
            }
        }
    }
    found.values_mut().for_each(unite);
    found
}

impl Track {
    /// What can be restored on this line, ascending.
    fn reached(&self, harm: &Harm) -> Vec<Interval> {
        let target = self.legs.last().map(|(timeline, _)| *timeline);
        // Nobody can ask for such a timeline; a backup that was taken on it still stays on it.
        if target.is_some_and(|target| harm.timelines.contains(&target)) {
            return self.without_history(harm);
        }
        self.reached_from(harm, &self.backups)
    }

    fn without_history(&self, harm: &Harm) -> Vec<Interval> {
        let own = self.legs.last().map_or(Lsn(0), |(_, (begin, _))| *begin);
        let backups: Vec<LineBackup> = self.backups.iter().filter(|backup| backup.start >= own).copied().collect();
        self.reached_from(harm, &backups)
    }

    /// Where no recovery gets through on this line, unless it is meant to be so.
    fn holes(&self, harm: &Harm) -> Vec<Interval> {
        let on_line = harm.holes.iter().filter_map(|(timeline, (from, until))| {
            let (_, (begin, end)) = self.files.iter().find(|(own, _)| own == timeline)?;
            let is_hit = *from < *end && (begin < until || (from == until && begin <= from));
            is_hit.then_some(((*from).max(*begin), (*until).min(*end)))
        });
        on_line.collect()
    }

    fn reached_from(&self, harm: &Harm, backups: &[LineBackup]) -> Vec<Interval> {
        let mut holes = self.gaps.clone();
        holes.extend(self.holes(harm));
        holes.sort_unstable();
        let (mut found, mut from) = (Vec::new(), self.range.0);
        for (hole_from, hole_until) in holes {
            found.extend(reach(backups, &harm.backups, (from, hole_from)));
            from = from.max(hole_until);
        }
        found.extend(reach(backups, &harm.backups, (from, self.range.1)));
        found
    }
}

/// What can be restored in a stretch without a hole. `backups` are in the order of their starts.
fn reach(backups: &[LineBackup], harmed: &[BackupId], (from, until): Interval) -> Option<Interval> {
    if from >= until {
        return None;
    }
    let first = backups.partition_point(|backup| backup.start < from);
    let mut consistent: Option<Lsn> = None;
    for backup in backups.get(first..).unwrap_or_default() {
        if backup.start >= until || consistent.is_some_and(|at| at <= backup.start) {
            break;
        }
        if backup.stop <= until && !harmed.contains(&backup.id) {
            consistent = Some(consistent.map_or(backup.stop, |at| at.min(backup.stop)));
        }
    }
    // A backup that is consistent just where the stretch ends reaches that one moment.
    consistent.map(|at| (at.min(Lsn(until.0 - 1)), until))
}

/// Sorts intervals, and joins those that touch.
fn unite(intervals: &mut Vec<Interval>) {
    intervals.sort_unstable();
    let mut united: Vec<Interval> = Vec::with_capacity(intervals.len());
    for (from, until) in intervals.drain(..) {
        match united.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            _ => united.push((from, until)),
        }
    }
    *intervals = united;
}

/// What of some intervals is in none of the others; both ascending and without overlap.
fn subtract(whole: &[Interval], others: &[Interval]) -> Vec<Interval> {
    let mut left = Vec::new();
    for (from, until) in whole {
        let mut from = *from;
        let first = others.partition_point(|(_, end)| *end <= from);
        for (begin, end) in others.get(first..).unwrap_or_default() {
            if *begin >= *until {
                break;
            }
            if from < *begin {
                left.push((from, *begin));
            }
            from = from.max(*end);
        }
        if from < *until {
            left.push((from, *until));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u32) -> BackupId {
        BackupId::new(1_790_000_000, number).unwrap()
    }

    fn backup(number: u32, start: u64, stop: u64) -> LineBackup {
        LineBackup { start: Lsn(start), stop: Lsn(stop), id: id(number) }
    }

    fn interval(from: u64, until: u64) -> Interval {
        (Lsn(from), Lsn(until))
    }

    fn one_line(backups: Vec<LineBackup>) -> Costs {
        let legs = vec![(Timeline(1), interval(0, u64::MAX))];
        Costs::of_tracks(vec![Track { files: legs.clone(), legs, range: interval(0, 100), gaps: vec![], backups }])
    }

    #[test]
    fn a_hole_costs_what_is_before_the_next_backup() {
        let costs = one_line(vec![backup(1, 10, 12), backup(2, 50, 55)]);
        let hole = |from, until| Harm { holes: vec![(Timeline(1), interval(from, until))], ..Harm::default() };
        assert_eq!(costs.lost(&hole(30, 40)), [(Timeline(1), interval(30, 55))]);
        assert_eq!(costs.lost(&hole(0, 5)), [], "nothing leads there");
        assert_eq!(costs.lost(&hole(11, 12)), [(Timeline(1), interval(12, 55))], "the first backup is of no use");
        assert_eq!(costs.lost(&hole(52, 53)), [(Timeline(1), interval(52, 100))], "neither is any later one");
        assert_eq!(costs.lost(&hole(60, 60)), [(Timeline(1), interval(60, 100))], "the next segment does not follow");
        assert_eq!(costs.lost(&Harm::of_backups(vec![id(1)])), [(Timeline(1), interval(12, 55))]);
        assert_eq!(costs.lost(&Harm::of_backups(vec![id(2)])), [], "all is reached from the first one");
        assert_eq!(costs.lost(&Harm::default()), []);
    }

    #[test]
    fn a_hole_before_a_fork_is_lost_on_both_sides() {
        let first = Track {
            legs: vec![(Timeline(1), interval(0, u64::MAX))],
            files: vec![(Timeline(1), interval(0, u64::MAX))],
            range: interval(0, 60),
            gaps: vec![],
            backups: vec![backup(1, 5, 6)],
        };
        let second = Track {
            legs: vec![(Timeline(1), interval(0, 50)), (Timeline(2), interval(50, u64::MAX))],
            // Segments of 20.
            files: vec![(Timeline(1), interval(0, 40)), (Timeline(2), interval(40, u64::MAX))],
            range: interval(0, 100),
            gaps: vec![],
            backups: vec![backup(1, 5, 6), backup(2, 70, 72)],
        };
        let costs = Costs::of_tracks(vec![first, second]);
        let hole = |timeline, from, until| Harm { holes: vec![(Timeline(timeline), interval(from, until))], ..Harm::default() };
        assert_eq!(costs.lost(&hole(1, 20, 30)), [(Timeline(1), interval(20, 60)), (Timeline(2), interval(50, 72))]);
        assert_eq!(costs.lost(&hole(1, 40, 60)), [(Timeline(1), interval(50, 60))], "of the rest the child has its own");
        assert_eq!(costs.lost(&hole(2, 40, 60)), [(Timeline(2), interval(50, 72))], "and of that the part before the fork");
        assert_eq!(costs.lost(&hole(2, 80, 90)), [(Timeline(2), interval(80, 100))]);
        let wal = (Lsn(5), Lsn(6));
        assert!(costs.harms(&hole(1, 0, 20), id(1), Timeline(1), wal) && !costs.harms(&hole(2, 0, 20), id(1), Timeline(1), wal));
        assert!(costs.harms(&hole(3, 0, 20), id(9), Timeline(3), wal), "it is on no line");
        // A server that does not know the timeline stays on it from its own backup alone.
        let unknown = Harm { timelines: vec![Timeline(2)], ..Harm::default() };
        assert_eq!(costs.lost(&unknown), [(Timeline(2), interval(50, 72))]);
    }

    proptest! {
        /// As a table with a line for every position says.
        #[test]
        fn what_is_reached_is_what_a_plain_table_reaches(
            backups in prop::collection::vec((0..40_u64, 0..6_u64), 0..6),
            holes in prop::collection::vec((0..40_u64, 1..5_u64), 0..4),
            harmed in prop::collection::btree_set(0..6_u32, 0..3),
        ) {
            let mut all: Vec<LineBackup> =
                (0..).zip(&backups).map(|(number, (start, more))| backup(number, *start, start + more)).collect();
            all.sort_unstable_by_key(|backup| (backup.start, backup.stop));
            let costs = {
                let legs = vec![(Timeline(1), interval(0, u64::MAX))];
                Costs::of_tracks(vec![Track { files: legs.clone(), legs, range: interval(0, 40), gaps: vec![], backups: all.clone() }])
            };
            let harm = Harm {
                backups: harmed.iter().map(|number| id(*number)).collect(),
                holes: holes.iter().map(|(from, more)| (Timeline(1), interval(*from, from + more))).collect(),
                timelines: vec![],
            };
            let is_hole = |at: u64| holes.iter().any(|(from, more)| *from <= at && at < from + more);
            let plain = |with: bool| -> BTreeSet<u64> {
                let usable = all.iter().filter(|backup| !with || !harm.backups.contains(&backup.id));
                let mut found = BTreeSet::new();
                for backup in usable {
                    let whole = |from: u64, until: u64| until <= 40 && (from..until).all(|at| !with || !is_hole(at));
                    // Where it begins there must be something to read.
                    if backup.start.0 >= 40 || !whole(backup.start.0, backup.stop.0.max(backup.start.0 + 1)) {
                        continue;
                    }
                    found.extend((backup.stop.0..40).take_while(|at| whole(backup.start.0, at + 1)));
                    if backup.stop.0 > backup.start.0 && (backup.stop.0 == 40 || (with && is_hole(backup.stop.0))) {
                        found.insert(backup.stop.0 - 1);
                    }
                }
                found
            };
            let expected: BTreeSet<u64> = plain(false).difference(&plain(true)).copied().collect();
            let lost: BTreeSet<u64> = costs.lost(&harm).iter().flat_map(|(_, (from, until))| from.0..until.0).collect();
            prop_assert_eq!(lost, expected);
        }
    }
}
