//! The WAL files that a recovery needs, and which of them are not stored.

use crate::error::Error;
use crate::limits::CATALOG_READERS;
use crate::pg::{Lsn, SegmentName, Timeline};
use crate::recovery::path_log::PathLog;
use crate::recovery::resolver::Resolver;
use crate::repo::Runs;
use crate::repo::catalog::Leg;
use crate::report::resolve::WalReport;
use crate::report::segments::SegmentRange;
use crate::threads::at_once;

impl Resolver<'_> {
    /// Lists what recovery needs from one position to another.
    pub(super) fn needed_wal(&self, log: &PathLog<'_>, from: Lsn, to: Lsn) -> Result<WalReport, Error> {
        let (facts, path) = (self.catalog.facts(), log.path());
        let (first, last) = (path.number(from), path.number(to));
        let name = |number| {
            let leg = path.legs().iter().rev().find(|leg| path.number(leg.begin) <= number);
            let timeline = leg.map_or(Timeline(1), |leg| leg.timeline);
            SegmentName::from_number(timeline, number, facts.wal_segment_size).map_or_else(String::new, |name| name.to_string())
        };
        let mut wal = WalReport {
            first_segment: name(first),
            last_segment: name(last),
            // None where the log ends before the backup begins, as damaged times and positions may have it.
            segments: (last + 1).saturating_sub(first),
            ..WalReport::default()
        };
        for leg in path.legs() {
            let mut end = path.number(Lsn(leg.end.0.saturating_sub(1)));
            let is_own =
                |child: &&Leg| child.begin >= leg.end && path.number(child.begin) == end && !path.is_begun_by_parent(child);
            if path.legs().iter().any(|child| is_own(&child)) {
                // The child's own stands for it, or is missing.
                end = end.saturating_sub(1);
            }
            let range = (path.number(leg.begin).max(first), end.min(last));
            if range.0 > range.1 {
                continue;
            }
            wal.ranges.push((leg.timeline, range));
        }
        let list = |(timeline, range): &(Timeline, (u64, u64))| {
            let (mut stored, mut stored_bytes) = (Runs::default(), 0_u64);
            self.repository.visit_segments(self.cluster, facts, *timeline, *range, &mut |number, bytes| {
                stored.insert(number);
                stored_bytes = stored_bytes.saturating_add(bytes);
            })?;
            Ok((stored, stored_bytes))
        };
        // The next number that is to come.
        let mut next = first;
        for listed in at_once(&wal.ranges, CATALOG_READERS, list) {
            let (stored, stored_bytes) = listed?;
            wal.stored_bytes = wal.stored_bytes.saturating_add(stored_bytes);
            wal.present += stored.count();
            for (from, to) in stored.iter() {
                if next < from {
                    wal.missing.push(SegmentRange { first_segment: name(next), last_segment: name(from - 1) });
                }
                next = to + 1;
            }
        }
        if next <= last {
            wal.missing.push(SegmentRange { first_segment: name(next), last_segment: name(last) });
        }
        Ok(wal)
    }

    /// Whether a server that reads on at the end of a stretch is told that the log has a hole there, which ends it.
    /// Then it must not read ahead of what it replays.
    pub(super) fn ends_in_a_hole(&self, log: &PathLog<'_>, until: Lsn) -> Result<bool, Error> {
        let (facts, path) = (self.catalog.facts(), log.path());
        let number = path.number(until);
        for leg in path.legs().iter().filter(|leg| path.number(leg.begin) <= number && until < leg.end) {
            let Some(next) = SegmentName::from_number(leg.timeline, number, facts.wal_segment_size) else { continue };
            if self.repository.is_hole(self.cluster, facts, next)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// From where to where the missing segments would go.
    pub(super) fn missing_wal(&self, wal: &WalReport) -> Vec<(Lsn, Lsn)> {
        let size = self.catalog.facts().wal_segment_size;
        let start = |name: &str| SegmentName::parse(name)?.start(size);
        let run = |range: &SegmentRange| {
            Some((start(&range.first_segment)?, Lsn(start(&range.last_segment)?.0.saturating_add(size.bytes()))))
        };
        wal.missing.iter().filter_map(run).collect()
    }
}
