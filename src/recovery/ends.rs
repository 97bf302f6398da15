//! Where the stored WAL ends: the last commit of each timeline, and the timeline that a recovery to the end takes.
//!
//! Lives here: what `resolve`, `catalog` and `list` say of the end of the archive. May not live here: targets.

use crate::error::Error;
use crate::format::manifest::BackupSummary;
use crate::limits::TIMELINES_AT_ONCE;
use crate::pg::scan::{PgTime, XactEntry};
use crate::pg::{Lsn, Timeline};
use crate::recovery::log::{Log as _, Window};
use crate::recovery::path_log::PathLog;
use crate::recovery::reach::reaches;
use crate::repo::catalog::TimelineInfo;
use crate::repo::{Catalog, ClusterName, Repository};
use crate::threads::at_once;

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

/// A timeline, and the path to it.
pub struct Line<'a> {
    /// What is stored of it.
    pub info: TimelineInfo,
    /// The path.
    pub log: PathLog<'a>,
}

/// All timelines of a catalog.
///
/// # Errors
/// As the catalog's.
pub fn lines<'a>(repository: &'a Repository, cluster: &'a ClusterName, catalog: &'a Catalog<'a>) -> Result<Vec<Line<'a>>, Error> {
    let timelines: Vec<Timeline> = catalog.timelines().iter().map(|info| info.timeline).collect();
    let logs = PathLog::open_all(repository, cluster, catalog, &timelines)?;
    Ok(catalog.timelines().iter().cloned().zip(logs).map(|(info, log)| Line { info, log }).collect())
}

/// The last commit of each of several paths.
///
/// # Errors
/// As the logs'.
pub fn last_commits(logs: &[&PathLog<'_>]) -> Result<Vec<Option<XactEntry>>, Error> {
    at_once(logs, TIMELINES_AT_ONCE, |log| last_commit(log)).into_iter().collect()
}

/// The newest commit of all timelines, by the server's clock, and the timeline that its record was written on.
///
/// # Errors
/// As the catalog's.
pub fn newest_commit(lines: &[Line<'_>]) -> Result<Option<(XactEntry, Timeline)>, Error> {
    let mut newest: Option<(XactEntry, Timeline)> = None;
    let stored: Vec<&PathLog<'_>> = lines.iter().filter(|line| line.info.segments.is_some()).map(|line| &line.log).collect();
    for (log, commit) in stored.iter().zip(last_commits(&stored)?) {
        let Some(commit) = commit else { continue };
        if newest.as_ref().is_none_or(|(known, _)| known.end.time <= commit.end.time) {
            newest = Some((commit, log.leg(commit.lsn).map_or(log.path().target(), |leg| leg.timeline)));
        }
    }
    Ok(newest)
}

/// The timeline that a recovery to the end takes.
///
/// # Errors
/// As the catalog's.
pub fn newest_timeline(lines: &[Line<'_>]) -> Result<Option<Timeline>, Error> {
    let logs: Vec<&PathLog<'_>> = lines.iter().map(|line| &line.log).collect();
    let times = last_commits(&logs)?.into_iter().map(|end| end.map(|end| end.end.time));
    let ends: Vec<_> = lines.iter().map(|line| line.info.clone()).zip(times).collect();
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
        let mut lines = lines(repository, cluster, catalog)?;
        lines.retain(|line| line.info.segments.is_some());
        let last_of = |line: &Line<'_>| {
            let last = |window: &Window| Ok((window.until, line.log.last_commit(window.from, window.until)?));
            line.log.windows().iter().map(last).collect::<Result<Vec<_>, Error>>()
        };
        let last = at_once(&lines, TIMELINES_AT_ONCE, last_of).into_iter().collect::<Result<Vec<_>, _>>()?;
        let lines = lines.into_iter().zip(last).map(|(Line { info, log }, last)| TimelineEnd { info, log, last }).collect();
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
