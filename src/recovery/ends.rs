//! Where the stored WAL ends: the last commit of each timeline, and the timeline that a recovery to the end takes.
//!
//! Lives here: what `resolve`, `catalog` and `list` say of the end of the archive. May not live here: targets.

use crate::error::Error;
use crate::format::manifest::BackupSummary;
use crate::pg::scan::{PgTime, XactEntry};
use crate::pg::{Lsn, Timeline};
use crate::recovery::log::Log as _;
use crate::recovery::path_log::PathLog;
use crate::recovery::reach::reaches;
use crate::repo::catalog::TimelineInfo;
use crate::repo::{Catalog, ClusterName, Repository};

/// The last commit of a path.
///
/// # Errors
/// As the log's.
pub fn last_commit(log: &PathLog<'_>) -> Result<Option<XactEntry>, Error> {
    for window in log.windows().iter().rev() {
        if let Some(commit) = log.last_commit(window.from, window.until)? {
            return Ok(Some(commit));
        }
    }
    Ok(None)
}

/// Which of several paths a recovery to the end takes: the one whose last transaction is newest; of those that are
/// equal the one that has WAL of its own, the highest of them.
pub fn newest(ends: &[(TimelineInfo, Option<PgTime>)]) -> Option<usize> {
    let key = |(info, last): &(TimelineInfo, Option<PgTime>)| (*last, info.segments.is_some(), info.timeline);
    (0..ends.len()).max_by_key(|index| ends.get(*index).map(key))
}

/// The newest commit of all timelines, by the server's clock, and the timeline that its record was written on.
///
/// # Errors
/// As the catalog's.
pub fn newest_commit(
    repository: &Repository,
    cluster: &ClusterName,
    catalog: &Catalog<'_>,
) -> Result<Option<(XactEntry, Timeline)>, Error> {
    let mut newest: Option<(XactEntry, Timeline)> = None;
    for info in catalog.timelines().iter().filter(|info| info.segments.is_some()) {
        let log = PathLog::open_as_known(repository, cluster, catalog, info.timeline)?;
        let Some(commit) = last_commit(&log)? else { continue };
        if newest.as_ref().is_none_or(|(known, _)| known.end.time <= commit.end.time) {
            newest = Some((commit, log.leg(commit.lsn).map_or(info.timeline, |leg| leg.timeline)));
        }
    }
    Ok(newest)
}

/// The timeline that a recovery to the end takes.
///
/// # Errors
/// As the catalog's.
pub fn newest_timeline(repository: &Repository, cluster: &ClusterName, catalog: &Catalog<'_>) -> Result<Option<Timeline>, Error> {
    let mut ends = Vec::new();
    for info in catalog.timelines() {
        let log = PathLog::open_as_known(repository, cluster, catalog, info.timeline)?;
        ends.push((info.clone(), last_commit(&log)?.map(|end| end.end.time)));
    }
    Ok(newest(&ends).and_then(|index| ends.get(index)).map(|(info, _)| info.timeline))
}

/// The end of what can be restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReach {
    /// Where the WAL ends that recovery from it can run through.
    pub until: Lsn,
    /// When the last transaction before that ended, by the server's clock; where there is none, when the backup did.
    pub time: Option<PgTime>,
    /// On which timeline.
    pub timeline: Timeline,
}

/// Where the archive leads to from its backups, along each timeline.
pub struct TimelineEnds<'a> {
    lines: Vec<TimelineEnd<'a>>,
}

/// The path to a timeline.
struct TimelineEnd<'a> {
    info: TimelineInfo,
    log: PathLog<'a>,
    /// The last commit of each stretch without a gap, and where that ends.
    last: Vec<(Lsn, Option<XactEntry>)>,
}

impl<'a> TimelineEnds<'a> {
    /// Looks at all timelines of a catalog.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn of(repository: &'a Repository, cluster: &'a ClusterName, catalog: &'a Catalog<'a>) -> Result<Self, Error> {
        let mut lines = Vec::new();
        for info in catalog.timelines().iter().filter(|info| info.segments.is_some()) {
            let log = PathLog::open_as_known(repository, cluster, catalog, info.timeline)?;
            let mut last = Vec::new();
            for window in log.windows() {
                last.push((window.until, log.last_commit(window.from, window.until)?));
            }
            lines.push(TimelineEnd { info: info.clone(), log, last });
        }
        Ok(Self { lines })
    }

    /// How far a recovery from a backup to the end gets: on the timeline whose last transaction is newest, of those
    /// that it leads to.
    pub fn reach_of(&self, backup: &BackupSummary) -> Option<BackupReach> {
        let mut ends = Vec::new();
        for line in &self.lines {
            let Some(reach) = reaches(&line.log, std::slice::from_ref(backup), &[]).pop() else { continue };
            let last = line.last.iter().find(|(until, _)| *until == reach.until).and_then(|(_, last)| *last);
            ends.push((line, reach.until, last));
        }
        let keys: Vec<_> = ends.iter().map(|(line, _, last)| (line.info.clone(), last.map(|last| last.end.time))).collect();
        let (line, until, last) = ends.get(newest(&keys)?)?;
        // What is before the backup's end is no end of what can be restored from it.
        let time = last.filter(|last| last.lsn >= backup.stop_lsn).map(|last| last.end.time);
        let time = time.or(PgTime::from_unix_us(backup.stopped_unix_us));
        Some(BackupReach { until: *until, time, timeline: line.info.timeline })
    }
}
