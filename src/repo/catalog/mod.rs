//! The catalog: what the stored WAL holds, found with few requests. `docs/CATALOG.md` has the design and its rules.
//!
//! Lives here: timelines and paths, walks over segments and nodes, transactions of a segment, the writing of nodes. May not live
//! here: what a recovery target means (that is `ops`), how a segment is scanned (`pg::scan`).
//!
//! # Which file stands for a segment
//! On a path every segment number has one file, the one that the server would read: that of the newest timeline of the path that
//! exists at this position. At a fork the child's first segment begins with a copy of the parent's, so it stands for both; only
//! while it is not stored the parent's is taken, and of that only what begins before the fork.

mod cache;
mod nodes;
mod read;
mod walk;
mod write;

use std::ops::ControlFlow;
use std::sync::Mutex;

pub use walk::{Step, Visit, Wanted};
pub use write::Rebuilt;

use super::cluster::{ClusterName, Facts};
use super::names;
use super::open::Repository;
use crate::error::{Error, Kind};
use crate::format::node::{MAX_LEVEL, span};
use crate::limits::CATALOG_READERS;
use crate::pg::{HistoryEntry, Lsn, SegmentName, Timeline, TimelineHistory, WalFileName, WalSegmentSize};
use crate::threads::at_once;
use cache::CatalogCache;
use read::Cache;

/// The catalog of one cluster in one repository. It holds no more than a few MB in memory: what it listed and read lately.
pub struct Catalog<'a> {
    repository: &'a Repository,
    cluster: ClusterName,
    facts: Facts,
    timelines: Vec<TimelineInfo>,
    cache: Mutex<Cache>,
    listed: CatalogCache,
}

/// What is stored of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineInfo {
    /// Its number.
    pub timeline: Timeline,
    /// Where it left its ancestors, if that is stored. The first timeline has none.
    pub history: Option<TimelineHistory>,
    /// Its first and last stored segment, if there are any. Between them some may be missing.
    pub segments: Option<(SegmentName, SegmentName)>,
}

/// The timelines from the first to a target, each with the positions where it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    legs: Vec<Leg>,
    size: WalSegmentSize,
}

/// One timeline of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it begins: where it left its parent.
    pub begin: Lsn,
    /// Where the next one leaves it; the highest position on the last one.
    pub end: Lsn,
    /// Its first and last stored segment.
    pub stored: Option<(SegmentName, SegmentName)>,
}

impl Path {
    /// The timelines, ancestors first; never empty.
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// The last timeline.
    pub fn target(&self) -> Timeline {
        self.legs.last().map_or(Timeline(1), |leg| leg.timeline)
    }

    /// Number of the segment that holds a position.
    pub fn number(&self, lsn: Lsn) -> u64 {
        lsn.0 / self.size.bytes()
    }

    /// The first and last stored segment on the path. Between them some may be missing.
    pub fn stored(&self) -> Option<(SegmentName, SegmentName)> {
        let (first, last) = self.stored_numbers()?;
        Some((self.leg_name(first)?, self.leg_name(last)?))
    }

    fn stored_numbers(&self) -> Option<(u64, u64)> {
        let numbers = self.legs.iter().filter_map(|leg| self.stored_of(leg));
        let (mut first, mut last): (Option<u64>, Option<u64>) = (None, None);
        for (low, high) in numbers {
            first = Some(first.unwrap_or(low).min(low));
            last = last.max(Some(high));
        }
        first.zip(last)
    }

    /// Numbers of the first and last stored segment of a leg that the path can use.
    fn stored_of(&self, leg: &Leg) -> Option<(u64, u64)> {
        let (first, last) = leg.stored?;
        let (first, last) = (first.number(self.size)?.max(self.number(leg.begin)), last.number(self.size)?);
        let last = last.min(self.last_usable(leg));
        (first <= last).then_some((first, last))
    }

    /// The last segment of a leg that has anything before the leg's end.
    fn last_usable(&self, leg: &Leg) -> u64 {
        self.number(Lsn(leg.end.0.saturating_sub(1)))
    }

    /// Whether the parent's copy of the segment in which a leg begins is what the server reads: nothing says that the leg's own ever
    /// existed. Once a later segment of it is stored, or a later timeline left it in one, its absence is a hole.
    pub fn is_begun_by_parent(&self, leg: &Leg) -> bool {
        let first = self.number(leg.begin);
        let is_left_later = leg.end.0 != u64::MAX && self.last_usable(leg) > first;
        leg.begin.0 > 0 && leg.stored.is_none() && !is_left_later
    }

    fn leg_name(&self, number: u64) -> Option<SegmentName> {
        SegmentName::from_number(self.leg_of(number).timeline, number, self.size)
    }

    /// The newest timeline that exists in a segment.
    fn leg_of(&self, number: u64) -> Leg {
        let begun = self.legs.iter().rev().find(|leg| self.number(leg.begin) <= number);
        let fallback = Leg { timeline: Timeline(1), begin: Lsn(0), end: Lsn(u64::MAX), stored: None };
        begun.or(self.legs.first()).copied().unwrap_or(fallback)
    }

    /// The timelines that exist in a segment, newest first.
    fn legs_of(&self, number: u64) -> impl Iterator<Item = &Leg> {
        self.legs.iter().rev().filter(move |leg| self.number(leg.begin) <= number && number <= self.last_usable(leg))
    }

    /// Where the path leaves this segment's timeline within the segment, if it does: what begins there or later does not count.
    fn cut(&self, segment: SegmentName) -> Option<Lsn> {
        let leg = self.legs.iter().find(|leg| leg.timeline == segment.timeline)?;
        (segment.number(self.size)? >= self.last_usable(leg)).then_some(leg.end).filter(|end| end.0 != u64::MAX)
    }
}

impl Repository {
    /// Opens the catalog of a cluster: lists its timelines and their ends.
    ///
    /// # Errors
    /// As the store's; damaged when a timeline history is.
    pub fn catalog(&self, cluster: &ClusterName, facts: Facts) -> Result<Catalog<'_>, Error> {
        let mut catalog = Catalog::unlisted(self, cluster, facts);
        catalog.timelines = catalog.find_timelines()?;
        Ok(catalog)
    }
}

impl<'a> Catalog<'a> {
    /// A catalog that knows no timelines: for those who write.
    fn unlisted(repository: &'a Repository, cluster: &ClusterName, facts: Facts) -> Self {
        Catalog {
            repository,
            cluster: cluster.clone(),
            facts,
            timelines: Vec::new(),
            cache: Mutex::default(),
            listed: CatalogCache::default(),
        }
    }
}

impl Catalog<'_> {
    /// The cluster's system identifier and segment size.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// All timelines of which anything is stored, ascending, as they were when the catalog was opened.
    pub fn timelines(&self) -> &[TimelineInfo] {
        &self.timelines
    }

    /// The path to a timeline.
    ///
    /// # Errors
    /// [`Kind::Target`] when nothing is stored of the timeline, or its history is missing: the error names it.
    pub fn path(&self, target: Timeline) -> Result<Path, Error> {
        self.info(target)?;
        if self.has_history(target) {
            return Ok(self.path_through(target, self.ancestors(target)));
        }
        let file = WalFileName::History(target);
        Err(Error::new(Kind::Target, format!("{file} {} is missing: nobody knows where the timeline began", self.place()))
            .hint(format!("push it from a server that has it: walvis push-wal pg_wal/{file}")))
    }

    /// The path to a timeline whose own history may be missing: by the history of a timeline that came after it, or else it alone.
    ///
    /// # Errors
    /// [`Kind::Target`] when nothing is stored of the timeline.
    pub fn path_as_known(&self, target: Timeline) -> Result<Path, Error> {
        self.info(target)?;
        Ok(self.path_through(target, self.ancestors(target)))
    }

    /// Whether a timeline's own history is stored, or it is the first, which has none.
    pub fn has_history(&self, target: Timeline) -> bool {
        target.0 <= 1 || self.timelines.iter().any(|info| info.timeline == target && info.history.is_some())
    }

    fn place(&self) -> String {
        format!("of cluster {} in {}", self.cluster, self.repository.location())
    }

    fn info(&self, target: Timeline) -> Result<&TimelineInfo, Error> {
        self.timelines.iter().find(|info| info.timeline == target).ok_or_else(|| {
            let all: Vec<String> = self.timelines.iter().map(|info| info.timeline.to_string()).collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            Error::new(Kind::Target, format!("nothing is stored of timeline {target} {}", self.place()))
                .hint(format!("stored timelines: {all}"))
        })
    }

    /// The ancestors of a timeline, by its own history, or by that of a timeline that came after it.
    fn ancestors(&self, target: Timeline) -> &[HistoryEntry] {
        let histories = || self.timelines.iter().filter_map(|info| info.history.as_ref());
        if let Some(own) = histories().find(|history| history.timeline == target) {
            return &own.ancestors;
        }
        // One that never came to the timeline (it stopped before) has other positions than the timeline's own history.
        let comes_to = |history: &TimelineHistory, at: usize| {
            let switch = |at: usize| history.ancestors.get(at).map(|entry| entry.switch);
            at.checked_sub(1).is_none_or(|before| switch(before) < switch(at))
        };
        let of_child = |history: &'_ TimelineHistory| {
            let at = history.ancestors.iter().position(|entry| entry.timeline == target)?;
            comes_to(history, at).then_some(at)
        };
        let known = histories().find_map(|history| history.ancestors.get(..of_child(history)?));
        known.unwrap_or_default()
    }

    fn path_through(&self, target: Timeline, ancestors: &[HistoryEntry]) -> Path {
        let stored = |timeline| self.timelines.iter().find(|info| info.timeline == timeline).and_then(|info| info.segments);
        let mut legs = Vec::new();
        let mut begin = Lsn(0);
        for (timeline, end) in ancestors.iter().map(|a| (a.timeline, a.switch)).chain([(target, Lsn(u64::MAX))]) {
            // Of a timeline that was left where it began nothing is on the path.
            if begin == end {
                continue;
            }
            legs.push(Leg { timeline, begin, end, stored: stored(timeline) });
            begin = end;
        }
        Path { legs, size: self.facts.wal_segment_size }
    }

    /// A timeline by itself, for positions that are on it for sure: neither its history nor those of its ancestors need be stored.
    pub fn path_alone(&self, timeline: Timeline) -> Path {
        let stored = self.timelines.iter().find(|info| info.timeline == timeline).and_then(|info| info.segments);
        let legs = vec![Leg { timeline, begin: Lsn(0), end: Lsn(u64::MAX), stored }];
        Path { legs, size: self.facts.wal_segment_size }
    }

    fn size(&self) -> WalSegmentSize {
        self.facts.wal_segment_size
    }

    fn find_timelines(&self) -> Result<Vec<TimelineInfo>, Error> {
        let prefix = names::wal_prefix(&self.cluster, self.facts.system_id);
        let mut found: Vec<Timeline> = Vec::new();
        // One request per timeline: '0' is the character after '/'.
        loop {
            let after = found.last().map_or_else(String::new, |last| format!("{prefix}{:08X}0", last.0));
            let mut next = None;
            self.repository.store().list(&prefix, &after, &mut |entry| {
                next = names::WalObject::parse(&entry.key).map(|object| object.file);
                if next.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            match next {
                Some(WalFileName::History(_)) | None => break,
                Some(file) => found.push(file.timeline()),
            }
        }
        let histories = names::histories_prefix(&self.cluster, self.facts.system_id);
        let mut named = Vec::new();
        self.repository.store().list(&histories, "", &mut |entry| {
            if let Some(WalFileName::History(timeline)) = names::WalObject::parse(&entry.key).map(|object| object.file) {
                named.push(timeline);
            }
            ControlFlow::Continue(())
        })?;
        found.extend(&named);
        found.sort_unstable();
        found.dedup();
        let info = |timeline: Timeline| {
            let history = if named.contains(&timeline) {
                self.repository.history(&self.cluster, self.facts.system_id, timeline)?
            } else {
                None
            };
            Ok(TimelineInfo { timeline, history, segments: self.ends_of(timeline)? })
        };
        found.into_iter().map(info).collect()
    }

    /// The first and last stored segment of a timeline.
    fn ends_of(&self, timeline: Timeline) -> Result<Option<(SegmentName, SegmentName)>, Error> {
        let first = self.known_names(timeline, 0, 0, u64::MAX, LISTED)?.0.first().copied();
        let Some(first) = first else { return Ok(None) };
        let mut last = self.last_under_nodes(timeline)?.map_or(first, |last| last.max(first));
        loop {
            let (more, whole) = self.known_names(timeline, 0, last.saturating_add(1), u64::MAX, LISTED)?;
            last = more.last().copied().unwrap_or(last);
            if whole {
                break;
            }
            // Is there anything far beyond? Double the distance while there is, then halve it.
            let mut step = LISTED as u64;
            while let Some(beyond) = self.first_after(timeline, last.saturating_add(step))? {
                last = beyond;
                step = step.saturating_mul(2);
            }
            while step > LISTED as u64 {
                step /= 2;
                if let Some(beyond) = self.first_after(timeline, last.saturating_add(step))? {
                    last = beyond;
                }
            }
        }
        let name = |number| SegmentName::from_number(timeline, number, self.size());
        Ok(name(first).zip(name(last)))
    }

    /// The last segment under any node; whatever is stored after it is found from there with few requests.
    fn last_under_nodes(&self, timeline: Timeline) -> Result<Option<u64>, Error> {
        // Level 6 takes 16 million segments.
        let mut levels: Vec<u32> = (1..=5).collect();
        let list = |level: u32, low: u64| {
            let (numbers, whole) = self.known_names(timeline, level, low, u64::MAX / span(level), LISTED)?;
            Ok((numbers.last().map(|number| self.node_id(timeline, level, *number).last()), whole))
        };
        let mut lists =
            at_once(&levels, CATALOG_READERS, |level| list(*level, 0)).into_iter().collect::<Result<Vec<_>, Error>>()?;
        if lists.last().is_some_and(|(last, _)| last.is_some()) {
            let higher: Vec<u32> = (6..=MAX_LEVEL).collect();
            lists.extend(
                at_once(&higher, CATALOG_READERS, |level| list(*level, 0)).into_iter().collect::<Result<Vec<_>, Error>>()?,
            );
            levels.extend(higher);
        }
        let mut last = lists.iter().filter_map(|(last, _)| *last).max();
        // Of the levels with many nodes only the beginning was seen: on from what the others cover, the highest first.
        for (level, (_, whole)) in levels.iter().zip(&lists).rev() {
            let mut whole = *whole;
            while !whole {
                let next = last.map_or(0, |last| last / span(*level) + u64::from(last % span(*level) == span(*level) - 1));
                let (more, is_last) = list(*level, next)?;
                (last, whole) = (last.max(more), is_last);
            }
        }
        Ok(last)
    }

    fn first_after(&self, timeline: Timeline, number: u64) -> Result<Option<u64>, Error> {
        Ok(self.segments_after(timeline, Some(number), u64::MAX, 1)?.0.first().copied())
    }

    /// The numbers of the stored segments after `after` up to `until`, at most `limit`; and whether these are all.
    fn segments_after(
        &self,
        timeline: Timeline,
        after: Option<u64>,
        until: u64,
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Error> {
        let (cluster, system_id, size) = (&self.cluster, self.facts.system_id, self.size());
        let prefix = names::timeline_prefix(cluster, system_id, timeline);
        let after = match after {
            None => String::new(),
            Some(number) => match SegmentName::from_number(timeline, number, size) {
                // What belongs to the segment, like its .partial, sorts directly after it and is passed over below.
                Some(name) => names::wal_file(cluster, system_id, &WalFileName::Segment(name))?.as_str().to_owned(),
                None => return Ok((Vec::new(), true)),
            },
        };
        let (mut found, mut whole) = (Vec::new(), true);
        self.repository.store().list(&prefix, &after, &mut |entry| {
            let Some(WalFileName::Segment(name)) = names::WalObject::parse(&entry.key).map(|object| object.file) else {
                return ControlFlow::Continue(());
            };
            let Some(number) = name.number(size) else { return ControlFlow::Continue(()) };
            if number > until {
                return ControlFlow::Break(());
            }
            if found.len() >= limit {
                whole = false;
                return ControlFlow::Break(());
            }
            found.push(number);
            ControlFlow::Continue(())
        })?;
        Ok((found, whole))
    }
}

/// How many names are listed at once.
const LISTED: usize = 512;
