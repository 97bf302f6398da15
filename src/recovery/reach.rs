//! What a repository can bring back: from where a base backup is consistent to where the stretch of WAL ends that it
//! begins in. What is before the first backup of a stretch is archived, and nothing leads there.

use crate::error::Error;
use crate::format::manifest::BackupSummary;
use crate::pg::scan::{Mark, PgTime, XactEntry};
use crate::pg::{Lsn, Timeline};
use crate::recovery::choice_of_backup::on_path;
use crate::recovery::log::{Log as _, WantedEnds, WantedMarks, Window, backup_from};
use crate::recovery::path_log::PathLog;
use crate::report::resolve::TargetOccurrence;
use crate::report::time::Time;
use crate::report::transaction::{Moment, Transaction};
use std::ops::ControlFlow;

/// A part of a stretch in which every moment can be restored.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'b> {
    /// The backup from which all of it is reached, the first in the stretch; none where only the start was named.
    pub backup: Option<&'b BackupSummary>,
    /// Where recovery begins.
    pub begin: Lsn,
    /// The earliest moment: where the backup is consistent.
    pub from: Lsn,
    /// Up to where it goes.
    pub until: Lsn,
}

/// What can be restored on a path, ascending. `missing` are runs of segments, from where the first begins to where the
/// last ends, that are known to be gone although the catalog has them.
pub fn reaches<'b>(log: &PathLog<'_>, backups: &'b [BackupSummary], missing: &[(Lsn, Lsn)]) -> Vec<Reach<'b>> {
    let mut found = Vec::new();
    for window in log.windows().iter().flat_map(|window| without(window, missing)) {
        let leads = |backup: &&BackupSummary| {
            window.from <= backup.start_lsn && backup.stop_lsn <= window.until && on_path(log.legs(), backup).is_ok()
        };
        if let Some(backup) = backups.iter().filter(leads).min_by_key(|backup| backup.stop_lsn) {
            found.push(Reach { backup: Some(backup), begin: backup.start_lsn, from: backup.stop_lsn, until: window.until });
        }
    }
    found
}

/// What can be restored from a backup that begins there, no matter who took it.
///
/// # Errors
/// As the log's.
pub fn reach_from<'b>(log: &PathLog<'_>, begin: Lsn, missing: &[(Lsn, Lsn)]) -> Result<Vec<Reach<'b>>, Error> {
    let own = log.windows().iter().flat_map(|window| without(window, missing)).find(|w| w.from <= begin && begin < w.until);
    let Some(window) = own else { return Ok(Vec::new()) };
    let end = backup_from(log, begin, window.until)?;
    Ok(vec![Reach { backup: None, begin, from: end.map_or(begin, |end| end.stop), until: window.until }])
}

/// What is left of a stretch, ascending.
pub(super) fn without(window: &Window, missing: &[(Lsn, Lsn)]) -> Vec<Window> {
    let (mut left, mut rest) = (Vec::new(), window.clone());
    for (from, until) in missing.iter().filter(|(from, until)| *from < window.until && window.from < *until) {
        left.push(Window { from: rest.from, until: *from });
        rest.from = *until;
    }
    left.push(rest);
    left.retain(|window| window.from < window.until);
    left
}

/// The nearest moments before and after a position that can be restored.
///
/// # Errors
/// As the log's.
pub fn nearest(log: &PathLog<'_>, reaches: &[Reach<'_>], at: Lsn) -> Result<(Option<Moment>, Option<Moment>), Error> {
    let before = reaches.iter().rfind(|reach| reach.until <= at).map(|reach| end_of(log, reach.from, reach.until)).transpose()?;
    let after = reaches.iter().find(|reach| at < reach.until && at <= reach.from);
    let after = after.map(|reach| begin_of(log, reach.from, reach.until)).transpose()?;
    Ok((before, after))
}

/// A position with the first transaction that ends there or later.
///
/// # Errors
/// As the log's.
pub fn begin_of(log: &PathLog<'_>, from: Lsn, until: Lsn) -> Result<Moment, Error> {
    let mut first = None;
    log.ends(from, until, WantedEnds::All, &mut |end| {
        first = Some(*end);
        ControlFlow::Break(())
    })?;
    Ok(Moment { lsn: from.to_string(), transaction: first.map(|end| transaction(log, &end)) })
}

/// A position with the last commit before it.
///
/// # Errors
/// As the log's.
pub fn end_of(log: &PathLog<'_>, from: Lsn, until: Lsn) -> Result<Moment, Error> {
    let last = log.last_commit(from, until)?;
    Ok(Moment { lsn: until.to_string(), transaction: last.map(|end| transaction(log, &end)) })
}

/// The end of a transaction with the timeline that its record was written on.
pub fn transaction(log: &PathLog<'_>, end: &XactEntry) -> Transaction {
    Transaction::new(end, log.leg(end.lsn).map_or(Timeline(1), |leg| leg.timeline))
}

/// When and where a restore point or the end of a transaction is.
///
/// # Errors
/// As the log's.
pub(super) fn occurrence(log: &PathLog<'_>, lsn: Lsn) -> Result<TargetOccurrence, Error> {
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
    Ok(TargetOccurrence { time: time.map(Time::from), lsn: lsn.to_string(), timeline, last_included: None, first_excluded: None })
}
