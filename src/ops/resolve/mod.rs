//! `walvis resolve`: where a recovery to a target stops, and whether everything it needs is there. Touches nothing.
//!
//! [`search`] has the server's rules, [`mod@quiet`] an equal stop with fewer locks, [`mod@log`] gives it a path of the catalog, [`backups`] chooses, [`report`] is what comes out. Here is what is around
//! them: which repository, which path, which files, and what else to say about a target that is out of reach.

pub mod backups;
pub mod log;
pub mod quiet;
pub mod replay;
pub mod report;
pub mod search;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use super::repositories;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::pg::scan::{Mark, PgTime};
use crate::pg::target::{Target, TargetTimeline, Zone, now, show};
use crate::pg::{Lsn, SegmentName, Timeline};
use crate::repo::{Catalog, ClusterName, Facts, Repository};
use backups::{Backups, Choice, usable};
use log::PathLog;
use replay::Replay;
use report::{
    BackupReport, LegReport, LockReport, Moment, Place, ResolveReport, Setting, StopReport, TransactionReport, WalReport,
};
use search::{BackupEnd, Found, Log, Stop, Unreachable, Wanted, WantedEnds, WantedMarks, Window, find};

/// How the newest WAL gets into the archive.
const ARCHIVE_NOW: &str = "wait for archive_timeout, or run SELECT pg_switch_wal() on the primary, and ask again";

/// What is asked.
#[derive(Debug, Clone)]
pub struct ResolveRequest {
    /// Where to stop.
    pub target: Target,
    /// Whether the target itself is replayed.
    pub inclusive: bool,
    /// Which timeline; `None` is the latest, and then a restore point's name or a transaction must be unique on all of them.
    pub timeline: Option<TargetTimeline>,
    /// Where recovery begins: a backup's start LSN.
    pub from: Option<Lsn>,
    /// From which backup of the repository; `None` is the newest that fits.
    pub backup: Option<BackupId>,
    /// The zone in which moments are shown beside UTC.
    pub zone: Zone,
}

/// Resolves a target in the first repository from which it can be reached.
///
/// Repositories are asked in the order of the settings, each by itself: what is spread over several is not put together. If none has
/// the target, the answer is that of the first that gave one. What was said by the others is in the notes.
///
/// # Errors
/// When no repository gives an answer, the first one's error: unreachable, denied, damaged; usage. A target that is out of reach is a
/// report.
pub fn run(config: &Config, request: &ResolveRequest, deadline: Deadline) -> Result<ResolveReport, Error> {
    let (mut out_of_reach, mut failure, mut notes) = (None, None, Vec::new());
    for (place, repository) in config.repositories.iter().enumerate() {
        let location = repository.store.location();
        let answered = repositories::open_known(config, place, deadline)
            .and_then(|(opened, facts)| answer(&opened, &config.cluster, facts, request));
        match answered {
            // Something that is there twice is no clearer elsewhere.
            Ok(mut report) if report.reachable || !report.candidates.is_empty() => {
                report.notes.append(&mut notes);
                return Ok(report);
            }
            Ok(report) => {
                notes.push(format!("out of reach in {location}: {}", report.reason.as_deref().unwrap_or_default()));
                out_of_reach.get_or_insert(report);
            }
            Err(error) if matches!(error.kind, Kind::Usage | Kind::Bug) => return Err(error),
            Err(error) => {
                notes.push(format!("no answer from {location}: {error}"));
                failure.get_or_insert(error);
            }
        }
    }
    match (out_of_reach, failure) {
        (Some(mut report), _) => {
            if config.repositories.len() > 1 {
                report.notes.append(&mut notes);
            }
            Ok(report)
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::new(Kind::Config, "no repository is configured")),
    }
}

/// Resolves a target in an opened repository.
///
/// # Errors
/// Unreachable, denied, damaged; usage. A target that is out of reach is a report.
pub fn answer(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    request: &ResolveRequest,
) -> Result<ResolveReport, Error> {
    let catalog = repository.catalog(cluster, facts)?;
    let backups = Backups::of(repository, cluster, catalog.facts().system_id)?;
    let named = request.backup.map(|id| backups.named(id)).transpose()?;
    let timeline = target_timeline(&catalog, request, named)?;
    let log = PathLog::open(repository, cluster, &catalog, timeline)?;
    let wanted = Wanted { target: request.target.clone(), inclusive: request.inclusive, from: request.from };
    let resolver = Resolver { repository, cluster, catalog: &catalog, log, request };
    let mut report = resolver.blank(timeline)?;
    let elsewhere = if resolver.looks_elsewhere() { resolver.elsewhere(timeline, &wanted)? } else { Vec::new() };
    for (id, why) in &backups.unreadable {
        report.notes.push(format!("backup {id} is left out: {why}"));
        report.damaged_backups.push(why.clone());
    }
    if let Some(backup) = named.filter(|_| elsewhere.is_empty() || request.timeline.is_some()) {
        match usable(&resolver.log, resolver.log.path().legs(), backup, &wanted, None)? {
            Ok(found) => resolver.reached(&mut report, &found, Some(backup))?,
            Err(why) => {
                report.backup = Some(BackupReport::stored(backup));
                report.reason = Some(format!("not from backup {}: {why}", backup.id));
                report.hint = Some("leave --backup out to have the newest usable one chosen".to_owned());
            }
        }
        return Ok(report);
    }
    let whole = find(&resolver.log, &wanted)?;
    let legs = resolver.log.path().legs();
    // Of a start that was given, nobody knows which backup's it is.
    let is_one = (elsewhere.is_empty() || request.timeline.is_some()) && request.from.is_none();
    if is_one && let Some(Choice { backup, found }) = backups.choose(&resolver.log, legs, &wanted, &whole)? {
        resolver.reached(&mut report, &found, Some(&backup))?;
        if whole.as_ref().is_ok_and(|whole| whole.stop != found.stop) {
            report.notes.push("seen from an older backup, recovery would stop elsewhere: the clock was set back".to_owned());
        }
        return Ok(report);
    }
    match whole {
        Ok(found) if !elsewhere.is_empty() && request.timeline.is_none() && request.from.is_none() => {
            report.candidates = found.stop.map(|stop| resolver.place(&resolver.log, stop.lsn)).transpose()?.into_iter().collect();
            report.candidates.extend(elsewhere);
            // After a fork transactions of both timelines have the same ids, so this is common.
            report.reason = Some(format!("more than one fits {}, on several timelines", report.target));
            report.hint = Some("say which timeline is meant with --target-timeline".to_owned());
        }
        Ok(found) => resolver.reached(&mut report, &found, None)?,
        Err(unreachable) => resolver.out_of_reach(&mut report, &unreachable, elsewhere)?,
    }
    Ok(report)
}

fn target_timeline(catalog: &Catalog<'_>, request: &ResolveRequest, backup: Option<&BackupSummary>) -> Result<Timeline, Error> {
    let timelines = catalog.timelines();
    let none = || Error::new(Kind::Target, "no WAL is stored of this cluster").hint("'walvis list' shows what is stored");
    match request.timeline.unwrap_or_default() {
        TargetTimeline::Number(timeline) => Ok(timeline),
        TargetTimeline::Latest => timelines.last().map(|info| info.timeline).ok_or_else(none),
        TargetTimeline::Current => {
            if let Some(backup) = backup {
                return Ok(Timeline(backup.timeline));
            }
            let Some(from) = request.from else {
                return timelines.iter().find(|info| info.segments.is_some()).map(|info| info.timeline).ok_or_else(none);
            };
            let mut holding = Vec::new();
            for info in timelines {
                let begins = info.history.as_ref().and_then(|history| history.ancestors.last()).map_or(Lsn(0), |a| a.switch);
                let size = catalog.facts().wal_segment_size;
                let ends = info.segments.and_then(|(_, last)| last.start(size)).map(|start| start.0.saturating_add(size.bytes()));
                if begins <= from && ends.is_some_and(|end| from.0 < end) {
                    holding.push(info.timeline);
                }
            }
            match holding[..] {
                [timeline] => Ok(timeline),
                [] => {
                    Err(Error::new(Kind::Target, format!("no timeline has {from}")).hint("'walvis catalog' shows what there is"))
                }
                _ => {
                    Err(Error::new(Kind::Usage, format!("{from} is on several timelines, so nothing says which one is current"))
                        .hint("name one with --target-timeline"))
                }
            }
        }
    }
}

struct Resolver<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    catalog: &'a Catalog<'a>,
    log: PathLog<'a>,
    request: &'a ResolveRequest,
}

impl Resolver<'_> {
    fn blank(&self, timeline: Timeline) -> Result<ResolveReport, Error> {
        let request = self.request;
        let legs = self.log.path().legs().iter().map(|leg| LegReport {
            timeline: leg.timeline.0,
            begin: leg.begin.to_string(),
            fork: (leg.end.0 != u64::MAX).then(|| leg.end.to_string()),
        });
        let windows = self.log.windows();
        let earliest = windows.first().map(|window| self.begin_of(window)).transpose()?;
        let latest = windows.last().map(|window| self.end_of(window)).transpose()?;
        Ok(ResolveReport {
            repository: self.repository.location().to_owned(),
            cluster: self.cluster.to_string(),
            system_id: self.catalog.facts().system_id.to_string(),
            target: describe(&request.target),
            target_in_zone: match request.target {
                Target::Time(time) => Some(request.zone.show(time)),
                _ => None,
            },
            zone: request.zone.to_string(),
            inclusive: request.inclusive,
            timeline: timeline.0,
            path: legs.collect(),
            oldest_backup: self.oldest_backup()?.map(|backup| BackupReport::new(&backup)),
            earliest,
            latest,
            ..ResolveReport::default()
        })
    }

    fn oldest_backup(&self) -> Result<Option<BackupEnd>, Error> {
        let mut oldest = None;
        for window in self.log.windows() {
            self.log.marks(window.from, window.until, WantedMarks::BackupEnds, &mut |mark| {
                oldest = BackupEnd::of(mark).filter(|backup| backup.start >= window.from);
                if oldest.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if oldest.is_some() {
                break;
            }
        }
        Ok(oldest)
    }

    fn transaction(&self, log: &PathLog<'_>, end: crate::pg::scan::XactEntry) -> TransactionReport {
        TransactionReport::new(&end, log.leg(end.lsn).map_or(Timeline(1), |leg| leg.timeline))
    }

    fn begin_of(&self, window: &Window) -> Result<Moment, Error> {
        let mut first = None;
        self.log.ends(window.from, window.until, WantedEnds::All, &mut |end| {
            first = Some(*end);
            ControlFlow::Break(())
        })?;
        Ok(Moment { lsn: window.from.to_string(), transaction: first.map(|end| self.transaction(&self.log, end)) })
    }

    fn end_of(&self, window: &Window) -> Result<Moment, Error> {
        let last = self.log.last_commit(window.from, window.until)?;
        Ok(Moment { lsn: window.until.to_string(), transaction: last.map(|end| self.transaction(&self.log, end)) })
    }

    /// `stored` is the backup of the repository that recovery starts from.
    fn reached(&self, report: &mut ResolveReport, found: &Found, stored: Option<&BackupSummary>) -> Result<(), Error> {
        report.reachable = true;
        let known = self.request.from.or(stored.map(|backup| backup.start_lsn)).or(found.backup.map(|backup| backup.start));
        let start = known.unwrap_or(found.start);
        report.start = Some(start.to_string());
        report.backup = stored.map(BackupReport::stored).or(found.backup.map(|backup| BackupReport::new(&backup)));
        let stop = self.stop(report, found, stored)?;
        report.last_included = found.last_included.map(|end| self.transaction(&self.log, end));
        report.first_excluded = found.first_excluded.map(|end| self.transaction(&self.log, end));
        if self.request.target == Target::Immediate && stored.is_some() {
            report.settings.push(Setting::new("recovery_target", "immediate".to_owned()));
        } else if let Some(stop) = stop {
            report.settings.push(Setting::new("recovery_target_lsn", stop.lsn.to_string()));
            report.settings.push(Setting::new("recovery_target_inclusive", if stop.after { "on" } else { "off" }.to_owned()));
        }
        report.settings.push(Setting::new("recovery_target_timeline", report.timeline.to_string()));
        if known.is_none() {
            report.notes.push(
                "no base backup that ends before this point is in the repository or known from the WAL, so which WAL is needed is not \
                 known either: of one that was taken from a standby, name the start LSN with --from"
                    .to_owned(),
            );
        } else if stored.is_none() && self.request.from.is_none() {
            report
                .notes
                .push("the repository has no base backup for this point: this one is known from the WAL alone".to_owned());
        }
        if found.last_included.is_none() {
            report.notes.push("no transaction commits between the start and this point".to_owned());
        }
        // Where the start is not known there may be years of it.
        if known.is_none() {
            return Ok(());
        }
        let last = match stop {
            Some(stop) => self.log.segment_of_end(stop.lsn)?,
            None => Lsn(found.window.until.0.saturating_sub(1)),
        };
        let edge = stop.map_or(found.window.until, Stop::excluded_from);
        let replay = Replay::of(&self.log, start, edge, stored.and_then(|backup| backup.parameters.as_ref()))?;
        report.tablespaces_created = replay.tablespaces_created;
        report.tablespaces_dropped = replay.tablespaces_dropped;
        report.databases_created = replay.databases_created;
        report.required_settings = replay.required_settings;
        let wal = self.wal(start, last)?;
        if !wal.missing.is_empty() {
            report.reachable = false;
            report.reason = Some("WAL that recovery needs is missing".to_owned());
            report.hint = Some("look for it in another repository, or on a server that still has it".to_owned());
        }
        report.estimate = stored.map(|backup| backups::estimate(backup, wal.segments, wal.stored_bytes));
        report.wal = Some(wal);
        Ok(())
    }

    /// Where to stop: where the server would by itself, or at an earlier position with the same data and fewer locks.
    fn stop(&self, report: &mut ResolveReport, found: &Found, stored: Option<&BackupSummary>) -> Result<Option<Stop>, Error> {
        let Some(own) = found.stop else { return Ok(None) };
        let mut said = StopReport { lsn: own.lsn.to_string(), replayed: own.after, ..StopReport::default() };
        let mut stop = own;
        if self.request.target != Target::Immediate {
            let consistent =
                stored.map(|backup| backup.stop_lsn).or(found.backup.map(|backup| backup.stop)).unwrap_or(found.start);
            let included = found.last_included.map_or(consistent, |end| end.lsn);
            // What was asked for in so many words is not moved.
            let lowest = if own.after { Lsn(own.lsn.0.saturating_add(1)) } else { included.max(consistent) };
            if let Some(quiet) = quiet::quiet(&self.log, found.start, lowest, own)? {
                stop = quiet.stop;
                said = StopReport {
                    lsn: stop.lsn.to_string(),
                    replayed: stop.after,
                    instead_of: (stop != own).then(|| own.lsn.to_string()),
                    locks: quiet.held.iter().map(LockReport::new).collect(),
                    locks_known: quiet.is_all,
                };
                if quiet.removed {
                    report.notes.push(
                        "the files of a database or tablespace are removed before this point, by a transaction that is not included: it \
                         cannot be used there; choose a target before the last commit that is included"
                            .to_owned(),
                    );
                }
            }
        }
        report.stop = Some(said);
        Ok(Some(stop))
    }

    /// Lists what recovery needs from one position to another.
    fn wal(&self, from: Lsn, to: Lsn) -> Result<WalReport, Error> {
        let (facts, path) = (self.catalog.facts(), self.log.path());
        let (first, last) = (path.number(from), path.number(to));
        let name = |number| {
            let leg = path.legs().iter().rev().find(|leg| path.number(leg.begin) <= number);
            let timeline = leg.map_or(Timeline(1), |leg| leg.timeline);
            SegmentName::from_number(timeline, number, facts.wal_segment_size).map_or_else(String::new, |name| name.to_string())
        };
        let mut wal = WalReport { first: name(first), last: name(last), segments: last - first + 1, ..WalReport::default() };
        // The next number that is to come, and what is known of the one before: a child's first segment stands for its parent's copy.
        let (mut next, mut before) = (first, None);
        for leg in path.legs() {
            let end = path.number(Lsn(leg.end.0.saturating_sub(1)));
            let range = (path.number(leg.begin).max(first), end.min(last));
            if range.0 > range.1 {
                continue;
            }
            self.repository.visit_segments(self.cluster, facts, leg.timeline, range, &mut |number, bytes| {
                match before {
                    Some((same, twin)) if same == number => wal.stored_bytes -= twin,
                    _ => {
                        if next < number {
                            wal.missing.push((name(next), name(number - 1)));
                        }
                        wal.present += 1;
                    }
                }
                wal.stored_bytes += bytes;
                before = Some((number, bytes));
                next = number + 1;
            })?;
        }
        if next <= last {
            wal.missing.push((name(next), name(last)));
        }
        Ok(wal)
    }

    fn out_of_reach(&self, report: &mut ResolveReport, why: &Unreachable, elsewhere: Vec<Place>) -> Result<(), Error> {
        let windows = self.log.windows();
        let (reason, hint) = match why {
            Unreachable::Empty => {
                ("nothing is stored on the path to this timeline".to_owned(), "see 'walvis catalog'".to_owned())
            }
            Unreachable::Before => {
                report.nearest_after = report.earliest.clone();
                (
                    "it is before everything that is archived".to_owned(),
                    "look for older WAL in another repository; from this one nothing earlier can be recovered".to_owned(),
                )
            }
            Unreachable::After => {
                report.nearest_before = report.latest.clone();
                let reason = match self.request.target {
                    Target::Time(time) if time > now() => "that moment is still to come, by the clock of this host",
                    Target::Time(_) => "that moment is not archived yet: no transaction that ended later is",
                    _ => "it is not archived yet: it is after everything that is",
                };
                (reason.to_owned(), Self::not_yet(report))
            }
            Unreachable::Gap { from, until } => {
                let ends = |window: &&Window| window.until == *from;
                report.nearest_before = windows.iter().find(ends).map(|window| self.end_of(window)).transpose()?;
                report.nearest_after =
                    windows.iter().find(|window| window.from == *until).map(|window| self.begin_of(window)).transpose()?;
                let reason = format!("it is in or beyond a gap in the archive: nothing leads from {from} to {until}");
                (reason, "look for the missing WAL in another repository, or choose a target on one side".to_owned())
            }
            Unreachable::NoStart => {
                let from = self.request.from.unwrap_or(Lsn(0));
                (format!("the WAL at {from}, where recovery would begin, is not archived"), "see 'walvis catalog'".to_owned())
            }
            Unreachable::BeforeConsistency { backup, stop } => {
                report.backup = backup.map(|backup| BackupReport::new(&backup));
                let reason = match backup {
                    Some(backup) => format!("recovery would stop at {stop}, before the backup ends at {}", backup.stop),
                    None => format!("{stop} is before the start of recovery"),
                };
                let hint = match self.request.from {
                    Some(_) => "begin at an older backup: leave --from out to have one looked for",
                    None => "look for an older backup in another repository",
                };
                (reason, hint.to_owned())
            }
            Unreachable::NotFound(unknown) => {
                let mut reason = format!("no {} is on the path to timeline {}", describe(&self.request.target), report.timeline);
                if let Some(lsn) = unknown {
                    reason.push_str(&format!("; of the prepared transaction that ends at {lsn} the id is not known"));
                }
                let hint = match elsewhere.first() {
                    Some(place) => format!("it is on timeline {}: use --target-timeline {0}", place.timeline),
                    None => format!(
                        "if it is new, it may not be archived yet: {ARCHIVE_NOW}; 'walvis catalog --commits' and '--restore-points' list \
                         what is"
                    ),
                };
                report.candidates = elsewhere;
                (reason, hint)
            }
            Unreachable::Ambiguous(places) => {
                report.candidates = places.iter().map(|lsn| self.place(&self.log, *lsn)).collect::<Result<_, _>>()?;
                report.candidates.extend(elsewhere);
                (
                    format!("more than one fits {}", describe(&self.request.target)),
                    "choose one: with --from, recovery takes the first after that position; or its LSN with --target-lsn"
                        .to_owned(),
                )
            }
            Unreachable::NoBackup => (
                "the end of no base backup is known from the WAL, so nothing says where a recovery is consistent".to_owned(),
                "name the start LSN of a backup with --from".to_owned(),
            ),
        };
        (report.reason, report.hint) = (Some(reason), Some(hint));
        Ok(())
    }

    /// What to do about a target that may still be archived. `latest` is no way out: by the time of the restore it may have the mistake.
    fn not_yet(report: &ResolveReport) -> String {
        let lsn = |text: &str| text.parse::<Lsn>().ok();
        let consistent = report.oldest_backup.as_ref().and_then(|backup| lsn(&backup.stop));
        let last = report.latest.as_ref().and_then(|latest| latest.transaction.as_ref());
        // One that no backup leads to is no way out either.
        let last = last.filter(|last| consistent.zip(lsn(&last.lsn)).is_some_and(|(consistent, last)| consistent <= last));
        let now = last.map_or_else(String::new, |last| {
            format!("; --target-lsn {} stops after the newest transaction that is, whatever is archived meanwhile", last.lsn)
        });
        format!("{ARCHIVE_NOW}{now}")
    }

    fn looks_elsewhere(&self) -> bool {
        matches!(self.request.target, Target::Name(_) | Target::Xid(_))
    }

    /// The same name or transaction on timelines that the path does not have.
    fn elsewhere(&self, target: Timeline, wanted: &Wanted) -> Result<Vec<Place>, Error> {
        let mut places: Vec<Place> = Vec::new();
        for info in self.catalog.timelines().iter().filter(|info| info.timeline != target) {
            // A timeline whose beginning is not known has no path.
            if info.segments.is_none() || (info.history.is_none() && info.timeline.0 > 1) {
                continue;
            }
            let log = PathLog::open(self.repository, self.cluster, self.catalog, info.timeline)?;
            let found = match find(&log, &Wanted { from: None, ..wanted.clone() })? {
                Ok(found) => found.stop.map(|stop| stop.lsn).into_iter().collect(),
                Err(Unreachable::Ambiguous(places)) => places,
                Err(_) => Vec::new(),
            };
            for lsn in found {
                let own = log.leg(lsn).map(|leg| leg.timeline);
                // What both paths have was found on the first.
                let shared = own.is_some() && own == self.log.leg(lsn).map(|leg| leg.timeline);
                let place = self.place(&log, lsn)?;
                if !shared && places.iter().all(|p| (p.timeline, &p.lsn) != (place.timeline, &place.lsn)) {
                    places.push(place);
                }
            }
        }
        Ok(places)
    }

    /// When and where a restore point or the end of a transaction is.
    fn place(&self, log: &PathLog<'_>, lsn: Lsn) -> Result<Place, Error> {
        let mut time: Option<PgTime> = None;
        let after = Lsn(lsn.0.saturating_add(1));
        log.marks(lsn, after, WantedMarks::RestorePoints, &mut |mark| {
            if let Mark::RestorePoint { time: at, .. } = mark.what {
                time = Some(at);
            }
            ControlFlow::Break(())
        })?;
        log.ends(lsn, after, WantedEnds::All, &mut |end| {
            time = Some(end.end.time);
            ControlFlow::Break(())
        })?;
        let timeline = log.leg(lsn).map_or(0, |leg| leg.timeline.0);
        Ok(Place { time: time.map(show), lsn: lsn.to_string(), timeline })
    }
}

/// A target in words.
fn describe(target: &Target) -> String {
    match target {
        Target::Time(time) => format!("time {}", show(*time)),
        Target::Lsn(lsn) => format!("LSN {lsn}"),
        Target::Xid(xid) => format!("transaction {xid}"),
        Target::Name(name) => format!("restore point {name:?}"),
        Target::Latest => "latest".to_owned(),
        Target::Immediate => "immediate".to_owned(),
    }
}
