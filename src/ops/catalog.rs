//! `walvis catalog`: every moment that the stored WAL can be recovered to. Touches nothing.
//!
//! The overview asks for the parts in which reading stops, and steps over all others. Lists are reported line by line
//! as they are found, so a year of WAL takes no memory.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::format::manifest::BackupSummary;
use crate::format::node::{Edge, Entry};
use crate::limits::TIMELINES_AT_ONCE;
use crate::pg::scan::{End, Mark, PgTime};
use crate::pg::target::{TargetTimeline, Zone, now};
use crate::pg::{Lsn, SegmentName, Timeline};
use crate::recovery::choice_of_backup::Backups;
use crate::recovery::ends::{self, Line};
use crate::recovery::log::{Log, WantedEnds, WantedMarks, Window};
use crate::recovery::path_log::PathLog;
use crate::recovery::reach::{Reach, begin_of, end_of, reaches};
use crate::recovery::stretches::scanned;
use crate::recovery::verified;
use crate::repo::catalog::{Step, TimelineInfo};
use crate::repo::{Catalog, Remembered, SystemId, of_system};
use crate::report::catalog::{CatalogGap, CatalogLine, CatalogReport, CatalogSystem, CatalogTimeline, CatalogWindow, GapKind};
use crate::report::transaction::Transaction;
use crate::repositories::{self, Opened};
use crate::threads::at_once;
use std::ops::ControlFlow;

/// What is asked.
#[derive(Debug, Clone)]
pub struct CatalogRequest {
    /// What to list; `None` for the overview.
    pub list: Option<List>,
    /// From here on.
    pub from: Option<Bound>,
    /// Up to this time, or before this position.
    pub to: Option<Bound>,
    /// Of this timeline and its ancestors; `None` is the one whose last transaction is newest.
    pub timeline: Option<TargetTimeline>,
    /// Of this system identifier; `None` is the current one.
    pub system_id: Option<SystemId>,
    /// The zone in which moments are shown beside UTC.
    pub zone: Zone,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Ends of transactions, rollbacks too: recovery by time stops at both.
    Commits,
    /// Restore points.
    RestorePoints,
}

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// By the server's clock.
    Time(PgTime),
    /// In the log.
    Lsn(Lsn),
}

/// Looks at the whole cluster in the first repository that answers.
///
/// # Errors
/// Unreachable, denied, damaged; [`Kind::Config`](crate::error::Kind::Config) when nothing is stored of the cluster.
pub fn overview(config: &Config, deadline: Deadline) -> Result<CatalogReport, Error> {
    let Opened { repository, facts: current } = repositories::first_to_answer(config, deadline)?;
    let cluster = &config.cluster;
    let mut report = CatalogReport {
        repository: repository.location().to_owned(),
        cluster: cluster.to_string(),
        systems: Vec::new(),
        newest_commit: None,
        newest_commit_age_s: None,
    };
    for facts in repository.systems(cluster)?.into_iter().rev() {
        let catalog = repository.catalog(cluster, facts)?;
        let backups = Backups::of(&repository, cluster, facts.system_id)?.readable;
        let remembered = verified::remembered(&repository, cluster, facts.system_id);
        let lines = ends::lines(&repository, cluster, &catalog)?;
        let timeline = |line: &Line<'_>| timeline_report(&catalog, &backups, remembered.as_ref(), line);
        let timelines = at_once(&lines, TIMELINES_AT_ONCE, timeline).into_iter().collect::<Result<_, _>>()?;
        let runs = remembered.as_ref().map(Remembered::last_runs);
        let last_verifications = runs.map(|runs| runs.into_iter().map(Into::into).collect());
        report.systems.push(CatalogSystem { system_id: facts.system_id.to_string(), timelines, last_verifications });
        if facts.system_id == current.system_id
            && let Some((commit, timeline)) = ends::newest_commit(&lines)?
        {
            report.newest_commit_age_s = Some(now().0.saturating_sub(commit.end.time.0) / 1_000_000);
            report.newest_commit = Some(Transaction::new(&commit, timeline));
        }
    }
    Ok(report)
}

/// Whether it is known where a timeline began.
fn has_path(info: &TimelineInfo) -> bool {
    info.history.is_some() || info.timeline.0 <= 1
}

fn timeline_report(
    catalog: &Catalog<'_>,
    backups: &[BackupSummary],
    remembered: Option<&Remembered>,
    Line { info, log }: &Line<'_>,
) -> Result<CatalogTimeline, Error> {
    let parent = info.history.as_ref().and_then(|history| history.ancestors.last());
    let mut report = CatalogTimeline {
        timeline: info.timeline.0,
        parent_timeline: parent.map(|parent| parent.timeline.0),
        fork_lsn: parent.map(|parent| parent.switch.to_string()),
        history_missing: !has_path(info),
        windows: Vec::new(),
        gaps: Vec::new(),
        unscanned_segments: Vec::new(),
    };
    if info.segments.is_none() {
        return Ok(report);
    }
    let reaches = reaches(log, backups, &[]);
    let Some(own) = log.path().legs().last().copied() else { return Ok(report) };
    for window in log.windows().iter().filter(|window| window.until > own.begin) {
        let shown = Window { from: window.from.max(own.begin), until: window.until };
        let reach = reaches.iter().find(|reach| window.from <= reach.begin && reach.until == window.until);
        let verified =
            remembered.map(|remembered| verified::window(catalog, remembered, info.timeline, (shown.from, shown.until)));
        report.windows.push(CatalogWindow { verified, ..window_report(log, &shown, reach)? });
    }
    catalog.walk(log.path(), own.begin, Lsn(u64::MAX), &|aggregate| aggregate.stops > 0, &mut |step| {
        match step {
            Step::Skipped { .. } => {}
            Step::Missing { first, last } => report.gaps.push(CatalogGap {
                kind: GapKind::Missing,
                first_segment: first.to_string(),
                last_segment: last.to_string(),
                detail: "not stored".to_owned(),
            }),
            Step::Segment(entry) => report.gaps.extend(gap(catalog, &entry)?),
            Step::Unscanned(name) => {
                report.unscanned_segments.push(name.to_string());
                report.gaps.extend(gap(catalog, &scanned(catalog, log.path(), name)?)?);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let size = catalog.facts().wal_segment_size;
    for minimal in log.minimal().iter().filter(|minimal| minimal.from >= own.begin) {
        let name = |lsn| SegmentName::holding(info.timeline, lsn, size).map_or_else(String::new, |name| name.to_string());
        let (first, last) = (name(minimal.from), minimal.until.map(name));
        report.gaps.push(CatalogGap {
            kind: GapKind::Minimal,
            last_segment: last.unwrap_or_else(|| first.clone()),
            first_segment: first,
            detail: minimal.to_string(),
        });
    }
    // Before the first segment of the timeline there is nothing that could be missing, unless the fork is there.
    let first = info.segments.map(|(first, _)| first.to_string()).unwrap_or_default();
    if own.begin.0 == 0 {
        report.gaps.retain(|gap| gap.kind != GapKind::Missing || gap.last_segment > first);
    }
    Ok(report)
}

fn window_report(log: &PathLog<'_>, window: &Window, reach: Option<&Reach<'_>>) -> Result<CatalogWindow, Error> {
    let recoverable_from = reach.map(|reach| begin_of(log, reach.from.max(window.from), window.until)).transpose()?;
    Ok(CatalogWindow {
        from: begin_of(log, window.from, window.until)?,
        until: end_of(log, window.from, window.until)?,
        recoverable_from,
        backup_id: reach.and_then(|reach| reach.backup).map(|backup| backup.id.to_string()),
        verified: None,
    })
}

/// What is wrong with a segment, or after it.
fn gap(catalog: &Catalog<'_>, entry: &Entry) -> Result<Option<CatalogGap>, Error> {
    let name = entry.segment.to_string();
    let (kind, detail) = match entry.edge {
        Edge::Follows | Edge::Open => return Ok(None),
        Edge::Broken => (GapKind::Broken, "the next segment does not continue this one".to_owned()),
        Edge::Stops => match catalog.summary(entry.segment)?.as_ref().map(|summary| &summary.end) {
            Some(End::Damaged(damage)) => (GapKind::Damaged, damage.to_string()),
            Some(End::EndOfData { at }) => (GapKind::Ends, format!("there is no record after {at}")),
            _ => (GapKind::Ends, format!("reading ends at {}", entry.good_until)),
        },
    };
    Ok(Some(CatalogGap { kind, first_segment: name.clone(), last_segment: name, detail }))
}

/// Lists what is asked for, line by line, until the visitor breaks.
///
/// # Errors
/// As [`overview`]; [`Kind::Target`](crate::error::Kind::Target) when there is no such timeline.
pub fn list(
    config: &Config,
    request: &CatalogRequest,
    deadline: Deadline,
    visit: &mut dyn FnMut(&CatalogLine) -> ControlFlow<()>,
) -> Result<(), Error> {
    let Opened { repository, mut facts } = repositories::first_to_answer(config, deadline)?;
    if let Some(wanted) = request.system_id {
        facts = of_system(&repository.systems(&config.cluster)?, &config.cluster, wanted)?;
    }
    let catalog = repository.catalog(&config.cluster, facts)?;
    let timeline = match request.timeline {
        Some(TargetTimeline::Number(timeline)) => Some(timeline),
        Some(TargetTimeline::Latest | TargetTimeline::Current) => catalog.timelines().last().map(|info| info.timeline),
        None => ends::newest_timeline(&ends::lines(&repository, &config.cluster, &catalog)?)?,
    };
    let Some(timeline) = timeline else { return Ok(()) };
    let log = PathLog::open_as_known(&repository, &config.cluster, &catalog, timeline)?;
    let mut before: Option<&Window> = None;
    for window in log.windows() {
        let from = match request.from {
            Some(Bound::Lsn(lsn)) => lsn.max(window.from),
            _ => window.from,
        };
        let to = match request.to {
            Some(Bound::Lsn(lsn)) => lsn.min(window.until),
            _ => window.until,
        };
        if from >= to {
            continue;
        }
        if let Some(before) = before {
            let gap = CatalogLine::Gap { gap_from_lsn: before.until.to_string(), gap_until_lsn: window.from.to_string() };
            if visit(&gap).is_break() {
                return Ok(());
            }
        }
        before = Some(window);
        if list_window(&log, request, &Window { from, until: to }, visit)?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

fn list_window(
    log: &PathLog<'_>,
    request: &CatalogRequest,
    window: &Window,
    visit: &mut dyn FnMut(&CatalogLine) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    let earliest = match request.from {
        Some(Bound::Time(time)) => time,
        _ => PgTime(i64::MIN),
    };
    let latest = match request.to {
        Some(Bound::Time(time)) => time,
        _ => PgTime(i64::MAX),
    };
    let timeline = |lsn| log.leg(lsn).map_or(Timeline(0), |leg| leg.timeline);
    let within = |time: PgTime| earliest <= time && time <= latest;
    let mut flow = ControlFlow::Continue(());
    match request.list {
        Some(List::Commits) => log.ends(window.from, window.until, WantedEnds::Between(earliest, latest), &mut |end| {
            if within(end.end.time) {
                flow = visit(&CatalogLine::Transaction(Transaction::new(end, timeline(end.lsn))));
            }
            flow
        })?,
        Some(List::RestorePoints) => log.marks(window.from, window.until, WantedMarks::RestorePoints, &mut |mark| {
            if let Mark::RestorePoint { time, name } = &mark.what
                && within(*time)
            {
                flow = visit(&CatalogLine::RestorePoint {
                    name: name.to_string(),
                    time: (*time).into(),
                    lsn: mark.start.to_string(),
                    timeline: timeline(mark.start).0,
                });
            }
            flow
        })?,
        None => {}
    }
    Ok(flow)
}
