//! Where the server would stop: [`find`] computes the stop LSN of a target, over whatever can tell what a path of
//! timelines holds.
//!
//! Lives here: the rules of recovery targets. May not live here: which path, which backup and which repository.
//!
//! The rules are those of `recoveryStopsBefore` and `recoveryStopsAfter` (`access/transam/xlogrecovery.c`, `xlog.c` in
//! 13 and 14):
//! - time: only the ends of transactions count, commits and aborts, prepared ones too. Recovery stops before the first
//!   in LSN order that is later than the target (exclusive: not earlier), even when later ones are earlier again
//!   because the clock was put back.
//! - xid: the end of that top-level transaction; inclusive after it, exclusive before it.
//! - LSN: the first record that begins at or after it; inclusive after it, exclusive before it.
//! - name: after the first restore point of that name.
//! - immediate: after the record that ends the backup.
//!
//! Every answer is the beginning of a record, and whether that record is still replayed: so it can be handed to the
//! server as `recovery_target_lsn` and `recovery_target_inclusive`, and means the same there.
//!
//! Where nothing says from which backup the recovery starts, it starts where a stretch without a gap begins. What the
//! server cannot see is looked at too: a moment before everything in a stretch may be before the stretch, or in the gap
//! before it, and the server would stop at the first transaction all the same. Here that is out of reach, unless
//! something in the stretch is earlier.

use crate::error::Error;
use crate::pg::Lsn;
use crate::pg::scan::{Mark, PgTime, XactEntry};
use crate::pg::target::Target;
use crate::recovery::log::{BackupEnd, Log, Minimal, WantedEnds, WantedMarks, Window, backup_from, minimal_from};
use std::ops::ControlFlow;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The target.
    pub target: Target,
    /// `recovery_target_inclusive`; only time, xid and LSN ask for it.
    pub inclusive: bool,
    /// Where the recovery begins: a backup's start LSN. Without it, where a stretch without a gap does.
    pub from: Option<Lsn>,
}

/// Where a recovery stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Where the record begins at which it stops.
    pub lsn: Lsn,
    /// Whether that record is replayed.
    pub after: bool,
}

impl Stop {
    /// The first position that is not replayed for sure: records that begin before it are.
    pub fn excluded_from(self) -> Lsn {
        // Records are aligned to 8 bytes.
        if self.after { Lsn(self.lsn.0.saturating_add(1)) } else { self.lsn }
    }
}

/// Where and through what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where recovery begins, as far as it is known.
    pub start: Lsn,
    /// The stretch it runs through.
    pub window: Window,
    /// Where it stops; `None` at the end of the stretch.
    pub stop: Option<Stop>,
    /// The last commit that is replayed after `start`.
    pub last_included: Option<XactEntry>,
    /// The first end of a transaction that is not replayed.
    pub first_excluded: Option<XactEntry>,
    /// The newest backup, with its end in the log, from which this stop is reached.
    pub backup: Option<BackupEnd>,
}

/// Why a target is out of reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreachable {
    /// Nothing is archived on this path.
    Empty,
    /// It is before all that is archived.
    Before,
    /// Everything archived is before it.
    After,
    /// It is between two stretches.
    Gap {
        /// Where the stretch before ends.
        from: Lsn,
        /// Where the stretch after begins.
        until: Lsn,
    },
    /// It is in what was written with `wal_level = minimal`, or beyond.
    Minimal(Minimal),
    /// Recovery begins where nothing is archived.
    NoStart,
    /// It is before where recovery begins, or before the backup that begins there ends.
    BeforeConsistency {
        /// The backup, if its end is known.
        backup: Option<BackupEnd>,
        /// Where recovery would stop.
        stop: Lsn,
    },
    /// No such transaction or restore point is on this path. The position is of a transaction whose id is not known and
    /// that may be the one.
    NotFound(Option<Lsn>),
    /// More than one fits.
    Ambiguous(Vec<Lsn>),
    /// No backup with its end in the log is known, so nothing says where `immediate` is.
    NoBackup,
}

/// Finds where the server would stop.
///
/// # Errors
/// Of the repository; a target that is out of reach is an answer.
pub fn find(log: &dyn Log, wanted: &Wanted) -> Result<Result<Found, Unreachable>, Error> {
    let windows = log.windows();
    let Some(last) = windows.last() else { return Ok(Err(Unreachable::Empty)) };
    let own = match wanted.from {
        Some(from) => match windows.iter().find(|window| window.holds(from)) {
            Some(window) => Some(Window { from, ..window.clone() }),
            None => return Ok(Err(Unreachable::NoStart)),
        },
        None => None,
    };
    let stretches = own.as_ref().map_or(windows, std::slice::from_ref);
    let (window, stop) = match &wanted.target {
        Target::Latest => {
            // A recovery from there does not get over the gap.
            if let Some(own) = own.as_ref().filter(|own| own.until != last.until) {
                return Ok(Err(beyond(log, own.until)));
            }
            let window = own.as_ref().unwrap_or(last);
            // The server would not end recovery there but fail.
            let stop = minimal_from(log, window.until).map(|minimal| Stop { lsn: minimal.from, after: false });
            (window, stop)
        }
        Target::Time(time) => match by_time(log, stretches, *time, wanted)? {
            Ok((window, stop)) => (window, Some(stop)),
            Err(unreachable) => return Ok(Err(unreachable)),
        },
        Target::Lsn(lsn) => {
            let Some(window) = stretches.iter().find(|window| window.holds(*lsn)) else {
                return Ok(Err(match (&own, windows.iter().rev().find(|window| window.until <= *lsn)) {
                    (Some(own), _) if *lsn < own.from => Unreachable::BeforeConsistency { backup: None, stop: *lsn },
                    (Some(own), _) => beyond(log, own.until),
                    (None, Some(before)) => beyond(log, before.until),
                    (None, None) => Unreachable::Before,
                }));
            };
            match log.first_record(*lsn, window.until)? {
                Some(record) => (window, Some(Stop { lsn: record, after: wanted.inclusive })),
                None => return Ok(Err(beyond(log, window.until))),
            }
        }
        Target::Xid(_) | Target::Name(_) => match by_identity(log, stretches, wanted)? {
            Ok((window, stop)) => (window, Some(stop)),
            Err(unreachable) => return Ok(Err(unreachable)),
        },
        Target::Immediate => {
            let mut newest = None;
            for window in stretches.iter().rev() {
                let backup = match wanted.from {
                    Some(from) => backup_from(log, from, window.until)?,
                    None => log.last_backup(window.from, window.until)?,
                };
                newest = backup.map(|backup| (window, backup));
                if newest.is_some() {
                    break;
                }
            }
            match newest {
                Some((window, backup)) => (window, Some(Stop { lsn: backup.record, after: true })),
                None => return Ok(Err(Unreachable::NoBackup)),
            }
        }
    };
    finish(log, wanted, window, stop)
}

/// What is around the stop, and whether a backup gets there.
fn finish(log: &dyn Log, wanted: &Wanted, window: &Window, stop: Option<Stop>) -> Result<Result<Found, Unreachable>, Error> {
    let edge = stop.map_or(window.until, Stop::excluded_from);
    let backup = match wanted.from {
        Some(from) => match backup_from(log, from, window.until)? {
            Some(own) if own.record >= edge => {
                return Ok(Err(Unreachable::BeforeConsistency { backup: Some(own), stop: stop.map_or(edge, |stop| stop.lsn) }));
            }
            own => own,
        },
        None => log.last_backup(window.from, edge)?,
    };
    let last_included = log.last_commit(window.from, edge)?;
    let mut first_excluded = None;
    log.ends(edge, window.until, WantedEnds::All, &mut |entry| {
        first_excluded = Some(*entry);
        ControlFlow::Break(())
    })?;
    Ok(Ok(Found { start: window.from, window: window.clone(), stop, last_included, first_excluded, backup }))
}

type Located<'a> = Result<(&'a Window, Stop), Unreachable>;

fn by_time<'a>(log: &dyn Log, windows: &'a [Window], target: PgTime, wanted: &Wanted) -> Result<Located<'a>, Error> {
    let stops = |time: PgTime| if wanted.inclusive { time > target } else { time >= target };
    let mut before: Option<&Window> = None;
    for window in windows {
        let mut stop = None;
        log.ends(window.from, window.until, WantedEnds::AtOrAfter(target), &mut |entry| {
            if stops(entry.end.time) {
                stop = Some(entry.lsn);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        let Some(lsn) = stop else {
            before = Some(window);
            continue;
        };
        // With a start that is given the server's rule is the whole rule.
        if wanted.from.is_some() || reaches_back(log, window.from, lsn, target)? {
            return Ok(Ok((window, Stop { lsn, after: false })));
        }
        return Ok(Err(match before {
            Some(before) => match minimal_from(log, before.until) {
                Some(minimal) => Unreachable::Minimal(minimal),
                None => Unreachable::Gap { from: before.until, until: window.from },
            },
            None => Unreachable::Before,
        }));
    }
    Ok(Err(before.map_or(Unreachable::After, |window| beyond(log, window.until))))
}

/// What is after the stretch that ends there: a gap, if another stretch follows.
fn beyond(log: &dyn Log, until: Lsn) -> Unreachable {
    if let Some(minimal) = minimal_from(log, until) {
        return Unreachable::Minimal(minimal);
    }
    match log.windows().iter().find(|window| window.from >= until) {
        Some(after) => Unreachable::Gap { from: until, until: after.from },
        None => Unreachable::After,
    }
}

/// Whether anything before the stop says that the stretch began at that moment or earlier.
fn reaches_back(log: &dyn Log, from: Lsn, stop: Lsn, target: PgTime) -> Result<bool, Error> {
    let mut earlier = false;
    log.ends(from, stop, WantedEnds::All, &mut |entry| {
        earlier = entry.end.time <= target;
        if earlier { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if earlier {
        return Ok(true);
    }
    log.marks(from, stop, WantedMarks::Timed, &mut |mark| {
        let time = match &mark.what {
            Mark::RestorePoint { time, .. } | Mark::EndOfRecovery { time, .. } | Mark::Overwrite { time, .. } => Some(*time),
            // In whole seconds, cut off: it may have been as late as the end of that second.
            Mark::Checkpoint { time_unix_s, .. } => {
                time_unix_s.checked_mul(1_000_000).and_then(|us| us.checked_add(999_999)).and_then(PgTime::from_unix_us)
            }
            Mark::BackupEnd { .. }
            | Mark::ParameterChange(_)
            | Mark::TablespaceCreate { .. }
            | Mark::TablespaceDrop { .. }
            | Mark::DatabaseCreate { .. }
            | Mark::DatabaseDrop { .. } => None,
        };
        earlier = time.is_some_and(|time| time <= target);
        if earlier { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(earlier)
}

/// Where a transaction ends or a restore point is, of records that begin in a part of the log, whatever gaps that has.
///
/// # Errors
/// As the log's.
pub(super) fn places(log: &dyn Log, (from, to): (Lsn, Lsn), target: &Target) -> Result<Vec<Lsn>, Error> {
    let mut found = Vec::new();
    for window in log.windows().iter().filter(|window| window.from < to && from < window.until) {
        found.append(&mut places_in(log, from.max(window.from), to.min(window.until), target, false)?.0);
    }
    Ok(found)
}

/// As [`places`], in one window, and the first transaction whose id is not known; with `first_only` no more than one.
fn places_in(log: &dyn Log, from: Lsn, to: Lsn, target: &Target, first_only: bool) -> Result<(Vec<Lsn>, Option<Lsn>), Error> {
    let (mut places, mut unknown) = (Vec::new(), None);
    let more = |places: &[Lsn]| {
        if first_only && !places.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match target {
        Target::Xid(xid) => log.ends(from, to, WantedEnds::Xid(*xid), &mut |entry| {
            match entry.end.xid {
                Some(found) if found == *xid => places.push(entry.lsn),
                Some(_) => {}
                None => unknown = unknown.or(Some(entry.lsn)),
            }
            more(&places)
        })?,
        Target::Name(name) => log.marks(from, to, WantedMarks::Named(name), &mut |mark| {
            if matches!(&mark.what, Mark::RestorePoint { name: found, .. } if found == name) {
                places.push(mark.start);
            }
            more(&places)
        })?,
        Target::Time(_) | Target::Lsn(_) | Target::Latest | Target::Immediate => {}
    }
    Ok((places, unknown))
}

/// By xid or name. The server takes the first after its start; where that is not given, more than one is not guessed
/// about.
fn by_identity<'a>(log: &dyn Log, windows: &'a [Window], wanted: &Wanted) -> Result<Located<'a>, Error> {
    let mut found: Vec<(&Window, Stop)> = Vec::new();
    let mut unknown = None;
    for window in windows {
        let (places, of_unknown) = places_in(log, window.from, window.until, &wanted.target, wanted.from.is_some())?;
        unknown = unknown.or(of_unknown);
        let after = wanted.inclusive || matches!(wanted.target, Target::Name(_));
        found.extend(places.into_iter().map(|lsn| (window, Stop { lsn, after })));
    }
    Ok(match (found.first(), found.len()) {
        (Some(place), 1) => Ok(*place),
        (Some(_), _) => Err(Unreachable::Ambiguous(found.iter().map(|(_, stop)| stop.lsn).collect())),
        (None, _) => Err(Unreachable::NotFound(unknown)),
    })
}
