//! The lines of a cluster's log: to each timeline the path that leads there, which of its segments are missing by the
//! listing, and which backups lead on from it.
//!
//! Lives here: positions on paths. May not live here: what a loss costs ([`costs`](super::costs)).

use std::ops::ControlFlow;

use super::inventory::SystemInventory;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::format::node::Edge;
use crate::pg::{Lsn, SegmentName, Timeline, WalSegmentSize};
use crate::recovery::choice_of_backup::on_path;
use crate::recovery::path_log::PathLog;
use crate::repo::catalog::{Leg, Path, Step};
use crate::repo::{Catalog, ClusterName, Repository};

/// Consecutive segments of a timeline, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentRun {
    /// The timeline.
    pub(super) timeline: Timeline,
    /// The first.
    pub(super) first: u64,
    /// The last.
    pub(super) last: u64,
}

impl SegmentRun {
    /// From where it begins to where it ends.
    pub(super) fn positions(&self, size: WalSegmentSize) -> (Lsn, Lsn) {
        let bytes = size.bytes();
        (Lsn(self.first.saturating_mul(bytes)), Lsn(self.last.saturating_add(1).saturating_mul(bytes)))
    }

    /// Names of the first and the last.
    pub(super) fn names(&self, size: WalSegmentSize) -> Option<(SegmentName, SegmentName)> {
        let name = |number| SegmentName::from_number(self.timeline, number, size);
        name(self.first).zip(name(self.last))
    }
}

/// A backup on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineBackup {
    /// Where recovery from it begins.
    pub(super) start: Lsn,
    /// Where it is consistent.
    pub(super) stop: Lsn,
    /// Which.
    pub(super) id: BackupId,
}

/// A segment in which recovery ends although more is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineStop {
    /// The segment.
    pub(super) segment: SegmentName,
    /// Up to here it is good.
    pub(super) until: Lsn,
    /// Whether it is the next segment that does not follow.
    pub(super) is_broken: bool,
}

/// The path to a timeline.
pub(super) struct Line<'a> {
    /// The timelines that lead there, with where each begins and ends.
    pub(super) legs: Vec<Leg>,
    /// From where to where the server reads the files of each timeline.
    pub(super) files: Vec<(Timeline, (Lsn, Lsn))>,
    /// Its log, unless the catalog is damaged.
    pub(super) log: Option<PathLog<'a>>,
    /// From the first segment that is stored to the end of the last one.
    pub(super) range: (Lsn, Lsn),
    /// What is missing between, ascending.
    pub(super) missing: Vec<SegmentRun>,
    /// What the catalog says of segments in which recovery ends.
    pub(super) stops: Vec<LineStop>,
    /// Backups that lead on along it, by start.
    pub(super) backups: Vec<LineBackup>,
}

impl<'a> Line<'a> {
    /// The line to a timeline of which something is stored; `None` where nothing of it can be used. What is wrong with
    /// the catalog goes to `damaged`.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn of(
        (repository, cluster): (&'a Repository, &'a ClusterName),
        catalog: &'a Catalog<'a>,
        timeline: Timeline,
        inventory: &SystemInventory,
        backups: &[BackupSummary],
        damaged: &mut dyn FnMut(Error),
    ) -> Result<Option<Self>, Error> {
        let path = catalog.path_as_known(timeline)?;
        let log = match PathLog::open_as_known(repository, cluster, catalog, timeline) {
            Ok(log) => Some(log),
            Err(error) => {
                only_damage(error, damaged)?;
                None
            }
        };
        let has_history = catalog.has_history(timeline);
        let legs = path.legs().to_vec();
        let usable = if has_history { legs.as_slice() } else { legs.get(legs.len().saturating_sub(1)..).unwrap_or(&legs) };
        let on_line = backups.iter().filter(|backup| on_path(usable, backup).is_ok());
        let mut on_line: Vec<LineBackup> =
            on_line.map(|b| LineBackup { start: b.start_lsn, stop: b.stop_lsn, id: b.id }).collect();
        on_line.sort_unstable_by_key(|backup| (backup.start, backup.stop));
        // What a backup needs was there once, even if nothing of it is stored.
        let bytes = inventory.size.bytes();
        let last_of = |backup: &LineBackup| backup.stop.0.saturating_sub(1).max(backup.start.0) / bytes;
        let of_backups = on_line.iter().map(|backup| (backup.start.0 / bytes, last_of(backup)));
        let ends = stored(&path, inventory).into_iter().chain(of_backups);
        let Some((first, last)) = ends.reduce(|(low, high), (first, last)| (low.min(first), high.max(last))) else {
            return Ok(None);
        };
        let mut line = Self {
            missing: missing(&path, inventory, (first, last)),
            files: files(&path, inventory.size),
            legs,
            log,
            range: (Lsn(first.saturating_mul(bytes)), Lsn(last.saturating_add(1).saturating_mul(bytes))),
            stops: Vec::new(),
            backups: on_line,
        };
        if line.log.is_some()
            && let Err(error) = line.find_stops(catalog, &path)
        {
            only_damage(error, damaged)?;
        }
        Ok(Some(line))
    }

    /// Asks the catalog for segments in which recovery ends.
    fn find_stops(&mut self, catalog: &Catalog<'_>, path: &Path) -> Result<(), Error> {
        let (from, until) = self.range;
        let (legs, stops) = (&self.legs, &mut self.stops);
        catalog.walk(path, from, Lsn(until.0.saturating_sub(1)), &|aggregate| aggregate.stops > 0, &mut |step| {
            let Step::Segment(entry) = step else { return Ok(ControlFlow::Continue(())) };
            let is_broken = entry.edge == Edge::Broken;
            let leg_end = legs.iter().find(|leg| leg.timeline == entry.segment.timeline).map(|leg| leg.end);
            let is_left_before = leg_end.is_some_and(|end| end <= entry.good_until);
            let is_last = entry.start.0.saturating_add(catalog.facts().wal_segment_size.bytes()) >= until.0;
            if matches!(entry.edge, Edge::Broken | Edge::Stops) && !is_left_before && !is_last {
                stops.push(LineStop { segment: entry.segment, until: entry.good_until, is_broken });
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Passes on what is damaged; everything else is an error.
fn only_damage(error: Error, damaged: &mut dyn FnMut(Error)) -> Result<(), Error> {
    // A key that nobody knows may be a damaged header.
    if !matches!(error.kind, Kind::Damaged | Kind::Denied | Kind::Target) {
        return Err(error);
    }
    damaged(error);
    Ok(())
}

/// The last segment of a leg that has anything before the leg's end.
fn last_usable(path: &Path, leg: &Leg) -> u64 {
    path.number(Lsn(leg.end.0.saturating_sub(1)))
}

/// Numbers of the first and last segment that is stored and on the path.
fn stored(path: &Path, inventory: &SystemInventory) -> Option<(u64, u64)> {
    let mut ends: Option<(u64, u64)> = None;
    for leg in path.legs() {
        let Some(runs) = inventory.segments.get(&leg.timeline) else { continue };
        let (low, high) = (path.number(leg.begin), last_usable(path, leg));
        let within = |(first, last): (u64, u64)| {
            let (first, last) = (first.max(low), last.min(high));
            (first <= last).then_some((first, last))
        };
        let (first, last) = (runs.iter().find_map(within), runs.iter().rev().find_map(within));
        if let Some(((first, _), (_, last))) = first.zip(last) {
            ends = Some(ends.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
        }
    }
    ends
}

/// From where to where the server reads the files of each timeline: a child's own segment stands for the one that it
/// begins in, if it has one.
fn files(path: &Path, size: WalSegmentSize) -> Vec<(Timeline, (Lsn, Lsn))> {
    let begin_of = |leg: &Leg| {
        if path.is_begun_by_parent(leg) { leg.begin } else { Lsn(leg.begin.0 - leg.begin.0 % size.bytes()) }
    };
    let ends = path.legs().iter().skip(1).map(begin_of).chain([Lsn(u64::MAX)]);
    path.legs().iter().zip(ends).map(|(leg, end)| (leg.timeline, (begin_of(leg), end))).collect()
}

/// What is missing on a path between two segments: of the files that the server would read.
fn missing(path: &Path, inventory: &SystemInventory, (from, until): (u64, u64)) -> Vec<SegmentRun> {
    let legs = path.legs();
    let mut found = Vec::new();
    for (at, leg) in legs.iter().enumerate() {
        let mut low = path.number(leg.begin).max(from);
        if leg.begin.0 > 0 && path.is_begun_by_parent(leg) {
            low = low.max(path.number(leg.begin).saturating_add(1));
        }
        let runs = inventory.segments.get(&leg.timeline);
        let last = last_usable(path, leg);
        // Where a child begins, its own segment stands for this one.
        let is_own = |child: &Leg| path.number(child.begin) == last && !path.is_begun_by_parent(child);
        let is_replaced = legs.iter().skip(at + 1).any(is_own);
        let Some(high) = last.checked_sub(u64::from(is_replaced)).map(|high| high.min(until)) else { continue };
        let mut next = low;
        for (first, last) in runs.into_iter().flat_map(|runs| runs.iter()) {
            if first > high {
                break;
            }
            if first > next {
                found.push(SegmentRun { timeline: leg.timeline, first: next, last: first - 1 });
            }
            next = next.max(last.saturating_add(1));
        }
        if next <= high {
            found.push(SegmentRun { timeline: leg.timeline, first: next, last: high });
        }
    }
    found
}
