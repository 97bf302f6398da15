//! What one repository answers, about one system identifier.
//!
//! Lives here: the answer put together, and the words for what is out of reach. May not live here: the rules of the
//! server, and every choice.

use crate::error::{Error, Kind};
use crate::format::manifest::BackupSummary;
use crate::pg::settings::{NOT_AHEAD, READS_AHEAD};
use crate::pg::target::Target;
use crate::pg::{Lsn, Timeline};
use crate::recovery::choice_of_backup::{Backups, estimate, usable};
use crate::recovery::choice_of_timeline::Decision;
use crate::recovery::fewest_locks::fewest_locks;
use crate::recovery::log::{BackupEnd, Log as _, WantedMarks, minimal_from};
use crate::recovery::out_of_reach::describe;
use crate::recovery::path_log::PathLog;
use crate::recovery::reach::{begin_of, end_of, nearest, occurrence, transaction};
use crate::recovery::replay::Replay;
use crate::recovery::request::ResolveRequest;
use crate::recovery::resolver::{Line, Resolver};
use crate::recovery::stop::{Found, Stop, Unreachable, Wanted, find};
use crate::repo::{ClusterName, Facts, Repository};
use crate::report::resolve::{LegReport, LockReport, ResolveReport, ResolvedBackup, StopReport};
use crate::report::setting::Setting;
use std::ops::ControlFlow;

/// Resolves a target in an opened repository, for one system identifier of the cluster.
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
    if let Some(backup) = named
        && let Some(why) = backups.damage_of(repository, cluster, catalog.facts().system_id, backup.id)?
    {
        return Err(Error::new(Kind::Damaged, why).hint("choose another backup: see 'walvis list'"));
    }
    let resolver = Resolver { repository, cluster, catalog: &catalog, request, backups: &backups, named };
    let decision = resolver.decide()?;
    resolver.serve(decision, named)
}

impl<'a> Resolver<'a> {
    /// Answers on the timeline that was decided.
    fn serve(&self, decision: Decision<'a>, backup: Option<&BackupSummary>) -> Result<ResolveReport, Error> {
        let Decision { line, why, candidates, others } = decision;
        let mut report = self.blank(&line)?;
        (report.timeline_reason, report.other_timelines) = (why, others);
        for (id, why) in &self.backups.unreadable {
            report.notes.push(format!("backup {id} is left out: {why}"));
            report.damaged_backups.push(why.clone());
        }
        let wanted = Wanted { target: self.request.target.clone(), inclusive: self.request.inclusive, from: self.request.from };
        let is_identity = matches!(self.request.target, Target::Name(_) | Target::Xid(_));
        if !candidates.is_empty() && !is_identity {
            report.is_ambiguous = true;
            report.candidates = candidates;
            report.reason = Some(format!("it is on several timelines: {} are possible", report.candidates.len()));
            report.hint = Some(choose_one(&report));
            return Ok(report);
        }
        if let Some(backup) = backup.filter(|_| candidates.is_empty()) {
            match usable(&line.log, line.log.legs(), backup, &wanted, None)? {
                Ok(found) => self.reached(&mut report, &line, &found, Some(backup))?,
                Err(why) => {
                    report.backup = Some(ResolvedBackup::stored(backup));
                    report.reason = Some(format!("not from backup {}: {why}", backup.id));
                    report.hint = Some("leave --backup out to have the newest usable one chosen".to_owned());
                    let at = match find(&line.log, &wanted)? {
                        Ok(found) => found.stop.map_or(found.window.until, |stop| stop.lsn),
                        Err(Unreachable::Gap { from, .. }) => from,
                        Err(Unreachable::Before) => Lsn(0),
                        Err(_) => Lsn(u64::MAX),
                    };
                    let reaches = self.reaches(&line, &[])?;
                    (report.nearest_before, report.nearest_after) = nearest(&line.log, &reaches, at)?;
                }
            }
            return Ok(report);
        }
        let whole = find(&line.log, &wanted)?;
        if let Ok(found) = &whole
            && !candidates.is_empty()
            && self.request.from.is_none()
        {
            report.candidates = found.stop.map(|stop| occurrence(&line.log, stop.lsn)).transpose()?.into_iter().collect();
            report.candidates.extend(candidates);
            report.is_ambiguous = true;
            // After a fork transactions of both timelines have the same ids, so this is common.
            report.reason = Some(format!("more than one fits {}, on several timelines", report.target));
            report.hint = Some(choose_one(&report));
            return Ok(report);
        }
        // Of a start that was given, nobody knows which backup's it is.
        if self.request.from.is_none()
            && (candidates.is_empty() || whole.is_ok())
            && self.serve_from_backup(&mut report, &line, &wanted, &whole)?
        {
            return Ok(report);
        }
        match whole {
            Ok(found) if self.request.from.is_some() => self.reached(&mut report, &line, &found, None)?,
            Ok(found) => self.without_backup(&mut report, &line, &found)?,
            Err(unreachable) => {
                report.is_ambiguous = matches!(unreachable, Unreachable::Ambiguous(_));
                self.out_of_reach(&mut report, &line, &unreachable, candidates)?;
            }
        }
        Ok(report)
    }

    /// From the newest backup of the repository that leads to the target; `false` when none does.
    fn serve_from_backup(
        &self,
        report: &mut ResolveReport,
        line: &Line<'a>,
        wanted: &Wanted,
        whole: &Result<Found, Unreachable>,
    ) -> Result<bool, Error> {
        let legs = line.log.legs();
        let mut incomplete: Option<ResolveReport> = None;
        for backup in self.backups.candidates(wanted, whole) {
            let Ok(found) = usable(&line.log, legs, backup, wanted, Some(whole))? else { continue };
            let system_id = self.catalog.facts().system_id;
            if let Some(why) = self.backups.damage_of(self.repository, self.cluster, system_id, backup.id)? {
                report.notes.push(format!("backup {} is left out: {why}", backup.id));
                report.damaged_backups.push(why);
                continue;
            }
            let mut answer = report.clone();
            if wanted.target == Target::Immediate && self.request.timeline.is_none() && backup.timeline != line.timeline.0 {
                // Recovery never leaves the timeline of the backup.
                let own = self.open(Timeline(backup.timeline))?;
                answer =
                    self.serve(Decision { line: own, why: None, candidates: Vec::new(), others: Vec::new() }, Some(backup))?;
            } else {
                self.reached(&mut answer, line, &found, Some(backup))?;
            }
            if answer.reachable {
                if whole.as_ref().is_ok_and(|whole| whole.stop != found.stop) && wanted.target != Target::Immediate {
                    answer
                        .notes
                        .push("seen from an older backup, recovery would stop elsewhere: the clock was set back".to_owned());
                }
                *report = answer;
                return Ok(true);
            }
            incomplete.get_or_insert(answer);
            // An older one needs this WAL too, unless its own end is the target.
            if wanted.target != Target::Immediate {
                break;
            }
        }
        if let Some(answer) = incomplete {
            *report = answer;
            return Ok(true);
        }
        Ok(false)
    }

    /// The target is in the WAL, and no backup of the repository leads there.
    fn without_backup(&self, report: &mut ResolveReport, line: &Line<'a>, found: &Found) -> Result<(), Error> {
        self.reached(report, line, found, None)?;
        let is_missing = report.reason.is_some();
        report.reachable = false;
        let reaches = self.reaches(line, &[])?;
        let at = found.stop.map_or(found.window.until, |stop| stop.lsn);
        (report.nearest_before, report.nearest_after) = nearest(&line.log, &reaches, at)?;
        if !line.log.has_history() {
            let (what, hint) = self.history_missing(line.timeline);
            (report.reason, report.hint) =
                (Some(format!("no base backup of timeline {} leads there, and {what}", line.timeline)), Some(hint));
            return Ok(());
        }
        if is_missing {
            return Ok(());
        }
        let last = reaches.iter().rfind(|reach| reach.until <= found.window.from);
        let gap = last.map_or_else(String::new, |reach| {
            let (from, until) = (reach.until, found.window.from);
            match minimal_from(&line.log, from) {
                Some(minimal) => format!(": {minimal}"),
                None => format!(": nothing leads from {from} to {until}{}", self.segments_of(line, from, until)),
            }
        });
        report.reason = Some(format!("no base backup in the repository leads there{gap}"));
        report.hint = Some(if self.backups.readable.is_empty() {
            "'walvis base-backup' takes one, for later moments; for one that another program took, name its start LSN with --from"
                .to_owned()
        } else if report.nearest_after.is_some() {
            "'walvis list' shows the backups: choose a target after the end of one; for one that another program took, name its start \
             LSN with --from"
                .to_owned()
        } else {
            "'walvis list' shows the backups, 'walvis catalog' what each leads to".to_owned()
        });
        Ok(())
    }

    fn blank(&self, line: &Line<'a>) -> Result<ResolveReport, Error> {
        let (request, log) = (self.request, &line.log);
        let legs = log.path().legs().iter().map(|leg| LegReport {
            timeline: leg.timeline.0,
            begin_lsn: leg.begin.to_string(),
            fork_lsn: (leg.end.0 != u64::MAX).then(|| leg.end.to_string()),
        });
        let windows = log.windows();
        let earliest = windows.first().map(|window| begin_of(log, window.from, window.until)).transpose()?;
        let latest = windows.last().map(|window| end_of(log, window.from, window.until)).transpose()?;
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
            timeline: line.timeline.0,
            timeline_path: legs.collect(),
            oldest_backup: oldest_backup(log)?.map(|backup| ResolvedBackup::in_wal(backup.start, backup.stop)),
            earliest,
            latest,
            ..ResolveReport::default()
        })
    }

    /// `stored` is the backup of the repository that recovery starts from.
    fn reached(
        &self,
        report: &mut ResolveReport,
        line: &Line<'a>,
        found: &Found,
        stored: Option<&BackupSummary>,
    ) -> Result<(), Error> {
        let log = &line.log;
        report.reachable = true;
        let known = self.request.from.or(stored.map(|backup| backup.start_lsn)).or(found.backup.map(|backup| backup.start));
        let start = known.unwrap_or(found.start);
        report.start_lsn = Some(start.to_string());
        report.backup =
            stored.map(ResolvedBackup::stored).or(found.backup.map(|backup| ResolvedBackup::in_wal(backup.start, backup.stop)));
        let stop = self.stop(report, line, found, stored)?;
        report.last_included = found.last_included.map(|end| transaction(log, &end));
        report.first_excluded = found.first_excluded.map(|end| transaction(log, &end));
        if self.request.target == Target::Immediate && stored.is_some() {
            report.settings.push(Setting::new("recovery_target", "immediate".to_owned()));
        } else if let Some(stop) = stop {
            report.settings.push(Setting::new("recovery_target_lsn", stop.lsn.to_string()));
            report.settings.push(Setting::new("recovery_target_inclusive", if stop.after { "on" } else { "off" }.to_owned()));
        } else {
            report.end_lsn = Some(log.end_of_records(&found.window)?.to_string());
        }
        // The server takes the number of a timeline only if it finds its history.
        let timeline = if log.has_history() { report.timeline.to_string() } else { "current".to_owned() };
        report.settings.push(Setting::new("recovery_target_timeline", timeline));
        if stored.is_none() && self.request.from.is_none() && known.is_some() {
            report
                .notes
                .push("the repository has no base backup for this point: this one is known from the WAL alone".to_owned());
        }
        if self.request.target == Target::Latest
            && let Some(minimal) = log.minimal().iter().find(|minimal| minimal.from == found.window.until)
        {
            report.notes.push(format!("this is not the end of what is archived, but as far as a recovery gets: {minimal}"));
        }
        if found.last_included.is_none() {
            report.notes.push("no transaction commits between the start and this point".to_owned());
        }
        // Where the start is not known there may be years of it.
        if known.is_none() {
            return Ok(());
        }
        let last = match stop.filter(|_| found.stop.is_some()) {
            Some(stop) => log.segment_of_end(stop.lsn)?,
            None => Lsn(found.window.until.0.saturating_sub(1)),
        };
        let edge = stop.map_or(found.window.until, Stop::excluded_from);
        let replay = Replay::of(log, start, edge, stored.and_then(|backup| backup.parameters.as_ref()))?;
        report.tablespaces_created = replay.tablespaces_created;
        report.tablespaces_dropped = replay.tablespaces_dropped;
        report.databases_created = replay.databases_created;
        report.required_settings = replay.required_settings;
        let wal = self.needed_wal(log, start, last)?;
        if let (Some(first), Some(last)) = (wal.missing.first(), wal.missing.last()) {
            let (first, last) = (&first.first_segment, &last.last_segment);
            report.reachable = false;
            let what = if first == last { first.clone() } else { format!("{first} to {last}") };
            report.reason = Some(format!("WAL that recovery needs is missing: {what}"));
            report.hint = Some(
                "look for it in another repository, or on a server that still has it; or choose a target on one side".to_owned(),
            );
            let missing = self.missing_wal(&wal);
            let reaches = self.reaches(line, &missing)?;
            if let Some((gap, _)) = missing.first() {
                (report.nearest_before, report.nearest_after) = nearest(log, &reaches, *gap)?;
            }
        }
        report.estimate = stored.map(|backup| estimate(backup, wal.segments, wal.stored_bytes));
        report.wal = Some(wal);
        let has_end = found.stop.is_some() || self.request.target == Target::Immediate;
        let reads_ahead = stored.is_some_and(|backup| backup.postgres_version_num >= READS_AHEAD);
        if report.reachable && has_end && reads_ahead && self.ends_in_a_hole(log, found.window.until)? {
            let (name, value) = NOT_AHEAD;
            report.settings.push(Setting::new(name, value.to_owned()));
            report.notes.push("WAL is missing after the stop: the server must not read ahead".to_owned());
        }
        Ok(())
    }

    /// Where to stop: where the server would by itself, or at an earlier position with the same data and fewer locks.
    fn stop(
        &self,
        report: &mut ResolveReport,
        line: &Line<'a>,
        found: &Found,
        stored: Option<&BackupSummary>,
    ) -> Result<Option<Stop>, Error> {
        let Some(own) = found.stop else {
            // Without a stop the server would go on in the parent's WAL.
            let fork = self.fork_stop(line, found)?;
            report.stop = fork.map(|stop| StopReport {
                lsn: stop.lsn.to_string(),
                replayed: stop.after,
                is_fork: true,
                locks_known: true,
                ..StopReport::default()
            });
            return Ok(fork);
        };
        let mut said = StopReport { lsn: own.lsn.to_string(), replayed: own.after, ..StopReport::default() };
        let mut stop = own;
        if self.request.target != Target::Immediate {
            let consistent =
                stored.map(|backup| backup.stop_lsn).or(found.backup.map(|backup| backup.stop)).unwrap_or(found.start);
            let included = found.last_included.map_or(consistent, |end| end.lsn);
            // A position that was asked for explicitly is not moved.
            let lowest = if own.after { Lsn(own.lsn.0.saturating_add(1)) } else { included.max(consistent) };
            if let Some(found) = fewest_locks(&line.log, found.start, lowest, own)? {
                stop = found.stop;
                said = StopReport {
                    lsn: stop.lsn.to_string(),
                    replayed: stop.after,
                    instead_of_lsn: (stop != own).then(|| own.lsn.to_string()),
                    locks: found.held.iter().map(LockReport::new).collect(),
                    locks_known: found.is_all,
                    is_fork: false,
                };
                if found.removed {
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

    /// Where the server has to be stopped on a timeline whose history alone is stored: it would go on in its parent's
    /// WAL, beyond the fork.
    fn fork_stop(&self, line: &Line<'a>, found: &Found) -> Result<Option<Stop>, Error> {
        let legs = line.log.path().legs();
        let Some(parent) = legs.iter().find(|leg| leg.end.0 != u64::MAX && leg.end == found.window.until) else {
            return Ok(None);
        };
        let log = PathLog::open_as_known(self.repository, self.cluster, self.catalog, parent.timeline)?;
        let Some(window) = log.windows().iter().find(|window| window.from <= parent.end && parent.end < window.until) else {
            return Ok(None);
        };
        let beyond = log.first_record(parent.end, window.until)?;
        Ok(beyond.map(|lsn| Stop { lsn, after: false }))
    }
}

/// How to choose among candidates.
fn choose_one(report: &ResolveReport) -> String {
    let mut timelines: Vec<String> = report.candidates.iter().map(|place| place.timeline.to_string()).collect();
    timelines.sort_unstable();
    timelines.dedup();
    format!("say which timeline is meant: --target-timeline {}", timelines.join(", or "))
}

/// The oldest backup whose end is in the WAL.
fn oldest_backup(log: &PathLog<'_>) -> Result<Option<BackupEnd>, Error> {
    let mut oldest = None;
    for window in log.windows() {
        log.marks(window.from, window.until, WantedMarks::BackupEnds, &mut |mark| {
            oldest = BackupEnd::of(mark).filter(|backup| backup.start >= window.from);
            if oldest.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if oldest.is_some() {
            break;
        }
    }
    Ok(oldest)
}
