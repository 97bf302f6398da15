//! The timelines of a catalog: finding them and their ends in a listing, and the path to one of them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::open::Catalog;
use super::path::{Leg, Path, TimelineInfo};
use crate::error::{Error, Kind};
use crate::format::node::{MAX_LEVEL, span};
use crate::limits::{CATALOG_READERS, LISTED_NAMES, MAX_LISTED_SPAN, TIMELINES_AT_ONCE};
use crate::pg::{HistoryEntry, Lsn, SegmentName, Timeline, TimelineHistory, WalFileName};
use crate::repo::cluster::{ClusterName, Facts};
use crate::repo::prefix::Prefix;
use crate::repo::repository::Repository;
use crate::threads::at_once;

impl Repository {
    /// Opens the catalog of a cluster: lists its timelines and their ends.
    ///
    /// # Errors
    /// As the store's; damaged when a timeline history is.
    pub fn catalog(&self, cluster: &ClusterName, facts: Facts) -> Result<Catalog<'_>, Error> {
        let mut catalog = Catalog::unlisted(self, cluster, facts);
        catalog.timelines = catalog.find_timelines(&mut |_, error| Err(error))?;
        Ok(catalog)
    }

    /// As [`catalog`](Self::catalog), for those who look for damage: a history that cannot be read counts as one that
    /// is missing, and `damaged` is told of it.
    ///
    /// # Errors
    /// As the store's.
    pub fn catalog_despite_damage(
        &self,
        cluster: &ClusterName,
        facts: Facts,
        damaged: &mut dyn FnMut(Timeline, Error),
    ) -> Result<Catalog<'_>, Error> {
        let mut catalog = Catalog::unlisted(self, cluster, facts);
        catalog.timelines = catalog.find_timelines(&mut |timeline, error| {
            if !matches!(error.kind, Kind::Damaged | Kind::Denied) {
                return Err(error);
            }
            damaged(timeline, error);
            Ok(())
        })?;
        Ok(catalog)
    }
}

impl Catalog<'_> {
    /// All timelines that have anything stored, ascending, as they were when the catalog was opened.
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

    /// The path to a timeline whose own history may be missing: by the history of a timeline that came after it, or
    /// else it alone.
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

    /// A timeline by itself, for positions that are on it for sure: neither its history nor those of its ancestors need
    /// be stored.
    pub fn path_alone(&self, timeline: Timeline) -> Path {
        let stored = self.timelines.iter().find(|info| info.timeline == timeline).and_then(|info| info.segments);
        let legs = vec![Leg { timeline, begin: Lsn(0), end: Lsn(u64::MAX), stored }];
        Path { legs, size: self.facts.wal_segment_size }
    }

    /// `unreadable` says what becomes of a history that cannot be read.
    fn find_timelines(
        &self,
        unreadable: &mut dyn FnMut(Timeline, Error) -> Result<(), Error>,
    ) -> Result<Vec<TimelineInfo>, Error> {
        let mut named = BTreeSet::new();
        self.repository.objects().list(Prefix::Histories(&self.cluster, self.facts.system_id), "", &mut |object| {
            if let Some(WalFileName::History(timeline)) = object.name.wal_file() {
                named.insert(*timeline);
            }
            ControlFlow::Continue(())
        })?;
        let found = self.with_unnamed(&named)?;
        let of = |timeline: &Timeline| {
            let history = match named.contains(timeline) {
                true => self.repository.history(&self.cluster, self.facts.system_id, *timeline),
                false => Ok(None),
            };
            Ok((history, self.ends_of(*timeline)?))
        };
        let mut infos = Vec::with_capacity(found.len());
        for (timeline, read) in found.iter().zip(at_once(&found, TIMELINES_AT_ONCE, of)) {
            let (history, segments) = read?;
            let history = match history {
                Ok(history) => history,
                Err(error) => {
                    unreadable(*timeline, error)?;
                    None
                }
            };
            infos.push(TimelineInfo { timeline: *timeline, history, segments });
        }
        Ok(infos)
    }

    /// The timelines that have a history, and those that have only WAL. Of the named ones nothing is asked; before,
    /// between and after them a request for each that is found, and one that finds no more.
    fn with_unnamed(&self, named: &BTreeSet<Timeline>) -> Result<Vec<Timeline>, Error> {
        let mut gaps: Vec<(u32, u32)> = Vec::new();
        let mut last = 0;
        for number in named.iter().map(|timeline| timeline.0).chain([u32::MAX]) {
            if number - last > 1 {
                gaps.push((last, number));
            }
            last = number;
        }
        let unnamed_in = |(after, until): &(u32, u32)| {
            let (mut found, mut last) = (Vec::new(), *after);
            while let Some(next) = self.next_with_files(last)?.filter(|next| next.0 < *until) {
                found.push(next);
                last = next.0;
            }
            Ok(found)
        };
        let mut found: Vec<Timeline> = named.iter().copied().collect();
        for unnamed in at_once(&gaps, CATALOG_READERS, unnamed_in) {
            found.extend(unnamed?);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The first timeline after a number of which anything but its history is stored.
    fn next_with_files(&self, after: u32) -> Result<Option<Timeline>, Error> {
        let (cluster, system_id) = (&self.cluster, self.facts.system_id);
        let end = if after == 0 { String::new() } else { Prefix::Timeline(cluster, system_id, Timeline(after)).end() };
        let mut next = None;
        self.repository.objects().list(Prefix::Wal(cluster, system_id), &end, &mut |object| {
            next = object.name.wal_file().copied();
            if next.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        // Histories come after all timelines.
        Ok(next.filter(|file| !matches!(file, WalFileName::History(_))).map(|file| file.timeline()))
    }

    /// The first and last stored segment of a timeline.
    fn ends_of(&self, timeline: Timeline) -> Result<Option<(SegmentName, SegmentName)>, Error> {
        let name = |number| SegmentName::from_number(timeline, number, self.size());
        let (beginning, is_all) = self.known_names(timeline, 0, 0, u64::MAX, LISTED_NAMES)?;
        let Some(first) = beginning.first().copied() else { return Ok(None) };
        if let Some(last) = beginning.last().filter(|_| is_all) {
            return Ok(name(first).zip(name(*last)));
        }
        // Where segments expired, a node may be left for a moment that is over more than there is.
        let guess = self.last_under_nodes(timeline)?.map_or(first, |last| last.max(first));
        let (found, mut whole) = self.known_names(timeline, 0, guess, u64::MAX, LISTED_NAMES)?;
        let mut last = match found.last() {
            Some(last) => *last,
            None => self.last_before(timeline, first, guess)?,
        };
        while !whole {
            // Is there anything far beyond? Double the distance while there is, then halve it.
            let mut step = LISTED_NAMES as u64;
            while let Some(beyond) = self.first_after(timeline, last.saturating_add(step))? {
                last = beyond;
                step = step.saturating_mul(2);
            }
            while step > LISTED_NAMES as u64 {
                step /= 2;
                if let Some(beyond) = self.first_after(timeline, last.saturating_add(step))? {
                    last = beyond;
                }
            }
            let (more, is_all) = self.known_names(timeline, 0, last.saturating_add(1), u64::MAX, LISTED_NAMES)?;
            last = more.last().copied().unwrap_or(last);
            whole = is_all;
        }
        Ok(name(first).zip(name(last)))
    }

    /// The last stored segment below a number, of a timeline that has one at `first`.
    fn last_before(&self, timeline: Timeline, first: u64, before: u64) -> Result<u64, Error> {
        let (mut high, mut width) = (before.saturating_sub(1), LISTED_NAMES as u64);
        while high > first {
            let low = high.saturating_sub(width - 1).max(first);
            if let Some(last) = self.known_names(timeline, 0, low, high, usize::MAX)?.0.last() {
                return Ok(*last);
            }
            high = low.saturating_sub(1);
            width = (width * 4).min(MAX_LISTED_SPAN);
        }
        Ok(first)
    }

    /// The last segment under any node; whatever is stored after it is found from there with few requests.
    fn last_under_nodes(&self, timeline: Timeline) -> Result<Option<u64>, Error> {
        // Level 6 takes 16 million segments.
        let mut levels: Vec<u32> = (1..=5).collect();
        let list = |level: u32, low: u64| {
            let (numbers, whole) = self.known_names(timeline, level, low, u64::MAX / span(level), LISTED_NAMES)?;
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
}
