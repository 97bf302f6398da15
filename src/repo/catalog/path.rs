//! Timelines and the paths through them: which segments a server would read on its way to a timeline.
//!
//! # Which file stands for a segment
//! On a path every segment number has one file, the one that the server would read: that of the newest timeline of the
//! path that exists at this position. At a fork the child's first segment begins with a copy of the parent's, so it
//! stands for both; only while it is not stored the parent's is taken, and of that only what begins before the fork.

use crate::pg::{Lsn, SegmentName, Timeline, TimelineHistory, WalSegmentSize};

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
    pub(super) legs: Vec<Leg>,
    pub(super) size: WalSegmentSize,
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

    /// The size of its segments.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.size
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

    pub(super) fn stored_numbers(&self) -> Option<(u64, u64)> {
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

    /// Whether the parent's copy of the segment in which a leg begins is what the server reads: nothing says that the
    /// leg's own ever existed. Once a later segment of it is stored, or a later timeline left it in one, its absence is
    /// a hole.
    pub fn is_begun_by_parent(&self, leg: &Leg) -> bool {
        let first = self.number(leg.begin);
        let is_left_later = leg.end.0 != u64::MAX && self.last_usable(leg) > first;
        leg.begin.0 > 0 && leg.stored.is_none() && !is_left_later
    }

    /// The segment with this number on the path, stored or not: that of the newest timeline that exists there; `None`
    /// for a number that no segment has.
    pub fn leg_name(&self, number: u64) -> Option<SegmentName> {
        SegmentName::from_number(self.leg_of(number).timeline, number, self.size)
    }

    /// The newest timeline that exists in a segment.
    fn leg_of(&self, number: u64) -> Leg {
        let begun = self.legs.iter().rev().find(|leg| self.number(leg.begin) <= number);
        let fallback = Leg { timeline: Timeline(1), begin: Lsn(0), end: Lsn(u64::MAX), stored: None };
        begun.or(self.legs.first()).copied().unwrap_or(fallback)
    }

    /// The timelines that exist in a segment, newest first.
    pub(super) fn legs_of(&self, number: u64) -> impl Iterator<Item = &Leg> {
        self.legs.iter().rev().filter(move |leg| self.number(leg.begin) <= number && number <= self.last_usable(leg))
    }

    /// Whether the path leaves this segment's timeline within the segment, so that not all of it counts.
    pub fn leaves_in(&self, segment: SegmentName) -> bool {
        self.cut(segment).is_some()
    }

    /// Where the path leaves this segment's timeline within the segment, if it does: what begins there or later does
    /// not count.
    pub(super) fn cut(&self, segment: SegmentName) -> Option<Lsn> {
        let leg = self.legs.iter().find(|leg| leg.timeline == segment.timeline)?;
        (segment.number(self.size)? >= self.last_usable(leg)).then_some(leg.end).filter(|end| end.0 != u64::MAX)
    }
}
