//! The choice of the base backup: the newest one in the repository from which the server would get to the target.
//!
//! A backup is usable when its timeline is on the path and the path leaves that timeline only after the backup's end;
//! when the WAL from its start on is there; and when recovery from it stops no earlier than where it is consistent.
//!
//! For a time there is more to it. The server counts only what it replays: from a backup that began later than the time
//! it would stop at the first transaction after the backup, and everything before would be there although it is later
//! than the time. So a backup is taken only if the search from the beginning of the archive stops at the same record;
//! or if the backup began by then and what was committed last before it is not later. The second rule is for logs in
//! which an earlier transaction is later by its time, because the clock was wrong for a while: the answer is then where
//! the server would stop from this backup.

use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::pg::Lsn;
use crate::pg::scan::PgTime;
use crate::pg::target::Target;
use crate::recovery::log::Log;
use crate::recovery::stop::{Found, Unreachable, Wanted, find};
use crate::repo::backups::KnownBackup;
use crate::repo::catalog::Leg;
use crate::repo::{ClusterName, Repository, SystemId};
use crate::report::resolve::Estimate;
use std::collections::BTreeSet;

/// The backups that a repository has of a cluster.
#[derive(Default)]
pub struct Backups {
    /// Those that can be read, the newest by position first.
    pub readable: Vec<BackupSummary>,
    /// The others, and why.
    pub unreadable: Vec<(BackupId, String)>,
    /// Those of the readable ones that the index knows, and whose manifest nobody read yet.
    unread: BTreeSet<BackupId>,
}

/// A backup, and where recovery from it stops.
pub struct Choice {
    /// The backup.
    pub backup: BackupSummary,
    /// Where it stops.
    pub found: Found,
}

impl Backups {
    /// Those that are known already.
    pub fn known(mut readable: Vec<BackupSummary>) -> Self {
        readable.sort_by_key(|backup| std::cmp::Reverse((backup.stop_lsn, backup.id)));
        Self { readable, ..Self::default() }
    }

    /// Lists them.
    ///
    /// # Errors
    /// As the store's. A manifest that is damaged is no error here.
    pub fn of(repository: &Repository, cluster: &ClusterName, system_id: SystemId) -> Result<Self, Error> {
        let mut backups = Self::default();
        for KnownBackup { id, summary, is_read } in repository.known_backups(cluster, system_id)? {
            if !is_read {
                backups.unread.insert(id);
            }
            match summary {
                Ok(summary) => backups.readable.push(summary),
                Err(error) if error.kind == Kind::Damaged => backups.unreadable.push((id, error.what)),
                Err(error) => return Err(error),
            }
        }
        backups.readable.sort_by_key(|backup| std::cmp::Reverse((backup.stop_lsn, backup.id)));
        Ok(backups)
    }

    /// Why a backup cannot be restored that was taken for readable: the index knows it, and its manifest is damaged or
    /// gone. `None`: its head is there.
    ///
    /// # Errors
    /// As the store's.
    pub fn damage_of(
        &self,
        repository: &Repository,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
    ) -> Result<Option<String>, Error> {
        if !self.unread.contains(&id) {
            return Ok(None);
        }
        match repository.backup_summary(cluster, system_id, id) {
            Ok(Some(_)) => Ok(None),
            Ok(None) => Ok(Some(format!("backup {id} expired since it was listed"))),
            Err(error) if error.kind == Kind::Damaged => Ok(Some(error.what)),
            Err(error) => Err(error),
        }
    }

    /// The one that the operator named.
    ///
    /// # Errors
    /// [`Kind::Target`] when there is none of that id; [`Kind::Damaged`] when its manifest cannot be read.
    pub fn named(&self, id: BackupId) -> Result<&BackupSummary, Error> {
        if let Some(backup) = self.readable.iter().find(|backup| backup.id == id) {
            return Ok(backup);
        }
        Err(match self.unreadable.iter().find(|(other, _)| *other == id) {
            Some((_, why)) => Error::new(Kind::Damaged, why.clone()).hint("choose another backup: see 'walvis list'"),
            None => Error::new(Kind::Target, format!("there is no backup {id}")).hint("'walvis list' shows the backups"),
        })
    }

    /// Those that may lead to the target, the newest first. It takes no look into the log.
    pub fn candidates<'b, 'w>(
        &'b self,
        wanted: &'w Wanted,
        whole: &'w Result<Found, Unreachable>,
    ) -> impl Iterator<Item = &'b BackupSummary> {
        self.readable.iter().filter(|backup| may_be_usable(backup, wanted, whole))
    }

    /// The newest from which the target is reached, or `None`.
    ///
    /// # Errors
    /// As the log's.
    pub fn choose(
        &self,
        log: &dyn Log,
        legs: &[Leg],
        wanted: &Wanted,
        whole: &Result<Found, Unreachable>,
    ) -> Result<Option<Choice>, Error> {
        for backup in self.candidates(wanted, whole) {
            if let Ok(found) = usable(log, legs, backup, wanted, Some(whole))? {
                return Ok(Some(Choice { backup: backup.clone(), found }));
            }
        }
        Ok(None)
    }
}

/// Leaves out what needs no look into the log.
fn may_be_usable(backup: &BackupSummary, wanted: &Wanted, whole: &Result<Found, Unreachable>) -> bool {
    let stop = match whole {
        Ok(found) => found.stop,
        Err(_) if matches!(wanted.target, Target::Time(_) | Target::Immediate) => None,
        Err(_) => return false,
    };
    match wanted.target {
        Target::Latest | Target::Immediate => true,
        Target::Time(time) => began_by(backup, time) || stop.is_some_and(|stop| backup.stop_lsn <= stop.lsn),
        // The record that makes it consistent is replayed: a backup's own end, for one.
        Target::Lsn(_) | Target::Xid(_) | Target::Name(_) => {
            stop.is_some_and(|stop| backup.stop_lsn <= stop.lsn || (stop.after && backup.start_lsn <= stop.lsn))
        }
    }
}

fn began_by(backup: &BackupSummary, time: PgTime) -> bool {
    PgTime::from_unix_us(backup.started_unix_us).is_some_and(|began| began <= time)
}

/// Where recovery from a backup stops, or why it cannot be used. `whole` is what the search from the beginning of the
/// archive gave; without it, as for a backup that the operator named, the first restore point or transaction after the
/// backup's start counts.
///
/// # Errors
/// As the log's.
pub fn usable(
    log: &dyn Log,
    legs: &[Leg],
    backup: &BackupSummary,
    wanted: &Wanted,
    whole: Option<&Result<Found, Unreachable>>,
) -> Result<Result<Found, String>, Error> {
    if let Err(why) = on_path(legs, backup) {
        return Ok(Err(why));
    }
    let found = match from_backup(log, backup, wanted)? {
        Ok(found) => found,
        Err(unreachable) => return Ok(Err(describe(&unreachable, backup))),
    };
    let consistent = match found.stop {
        None => found.window.until >= backup.stop_lsn,
        Some(stop) if stop.after && stop.lsn < backup.stop_lsn => match found.backup {
            // Its own end is replayed.
            Some(end) if end.start == backup.start_lsn => end.record == stop.lsn && end.stop == backup.stop_lsn,
            // Of a standby's nothing says so but the position: the record that ends there is replayed.
            _ => {
                let next = log.first_record(Lsn(stop.lsn.0.saturating_add(1)), found.window.until)?;
                backup.from_standby && next.unwrap_or(found.window.until) >= backup.stop_lsn
            }
        },
        Some(stop) => stop.lsn >= backup.stop_lsn,
    };
    if !consistent {
        let stop = found.stop.map_or(found.window.until, |stop| stop.lsn);
        return Ok(Err(format!("recovery would stop at {stop}, before the backup is consistent at {}", backup.stop_lsn)));
    }
    match (&wanted.target, whole) {
        (Target::Time(time), whole) => {
            let searched;
            let whole = match whole {
                Some(whole) => whole,
                None => {
                    searched = find(log, &Wanted { from: None, ..wanted.clone() })?;
                    &searched
                }
            };
            if whole.as_ref().is_ok_and(|whole| whole.stop == found.stop) {
                return Ok(Ok(found));
            }
            let later = |at: PgTime| if wanted.inclusive { at > *time } else { at >= *time };
            let window = log.windows().iter().find(|window| window.from <= backup.start_lsn && backup.start_lsn < window.until);
            let before = match window {
                Some(window) => log.last_commit(window.from, backup.start_lsn)?,
                None => None,
            };
            Ok(if began_by(backup, *time) && before.is_none_or(|end| !later(end.end.time)) {
                Ok(found)
            } else {
                Err("it holds transactions that are later than the target".to_owned())
            })
        }
        // Another of the same name or id, or beyond a gap.
        (Target::Lsn(_) | Target::Xid(_) | Target::Name(_), Some(Ok(whole))) if whole.stop != found.stop => {
            Ok(Err("recovery from it stops elsewhere".to_owned()))
        }
        (Target::Latest, Some(Ok(whole))) if whole.window.until != found.window.until => {
            Ok(Err("recovery from it ends at a gap".to_owned()))
        }
        _ => Ok(Ok(found)),
    }
}

/// Whether the path to the target goes through the backup.
///
/// # Errors
/// Why it does not.
pub fn on_path(legs: &[Leg], backup: &BackupSummary) -> Result<(), String> {
    let target = legs.last().map_or(0, |leg| leg.timeline.0);
    let Some(leg) = legs.iter().find(|leg| leg.timeline.0 == backup.timeline) else {
        return Err(format!("it was taken on timeline {}, which does not lead to timeline {target}", backup.timeline));
    };
    if backup.checkpoint_lsn >= leg.end || backup.stop_lsn > leg.end {
        return Err(format!(
            "timeline {} was left at {}, before the backup ends at {}",
            backup.timeline, leg.end, backup.stop_lsn
        ));
    }
    Ok(())
}

fn from_backup(log: &dyn Log, backup: &BackupSummary, wanted: &Wanted) -> Result<Result<Found, Unreachable>, Error> {
    let wanted = Wanted { from: Some(backup.start_lsn), ..wanted.clone() };
    if wanted.target != Target::Immediate || !backup.from_standby {
        return find(log, &wanted);
    }
    // The end of a backup from a standby is in no record: it is consistent at the position that its pg_control has.
    let at_end = Wanted { target: Target::Lsn(backup.stop_lsn), inclusive: false, ..wanted.clone() };
    match find(log, &at_end)? {
        Err(Unreachable::After | Unreachable::Minimal(_)) => find(log, &Wanted { target: Target::Latest, ..wanted }),
        other => Ok(other),
    }
}

fn describe(unreachable: &Unreachable, backup: &BackupSummary) -> String {
    match unreachable {
        Unreachable::Empty | Unreachable::NoStart => format!("the WAL at its start, {}, is not archived", backup.start_lsn),
        Unreachable::Before | Unreachable::BeforeConsistency { .. } => {
            format!("the target is before the backup is consistent at {}", backup.stop_lsn)
        }
        Unreachable::After => "the target is after everything that is archived".to_owned(),
        Unreachable::Gap { from, until } => format!("nothing leads from {from} to {until}"),
        Unreachable::Minimal(minimal) => minimal.to_string(),
        Unreachable::NotFound(_) => "the target is not in the WAL after its start".to_owned(),
        Unreachable::Ambiguous(_) => "more than one fits the target".to_owned(),
        Unreachable::NoBackup => "its end is not in the WAL that is archived".to_owned(),
    }
}

/// Assumed, not measured: files written per second.
const RESTORED_PER_S: u64 = 200 * 1024 * 1024;
/// Assumed, not measured: WAL replayed per second. It is one process's work, and depends on what is in it.
const REPLAYED_PER_S: u64 = 50 * 1024 * 1024;
const ASSUMPTION: &str = "assumes 200 MiB/s of files restored and 50 MiB/s of WAL replayed; measured nowhere";

/// The estimate for a backup and this many segments of WAL.
pub fn estimate(backup: &BackupSummary, segments: u64, wal_stored_bytes: u64) -> Estimate {
    let replayed_bytes = segments.saturating_mul(backup.wal_segment_bytes);
    let seconds = (backup.bytes / RESTORED_PER_S).saturating_add(replayed_bytes / REPLAYED_PER_S).saturating_add(1);
    Estimate {
        download_bytes: backup.stored_bytes.saturating_add(wal_stored_bytes),
        restored_bytes: backup.bytes,
        replayed_bytes,
        duration_s: seconds as f64,
        assuming: ASSUMPTION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::scan::{Mark, RestorePointName, XactEnd, XactKind, Xid};
    use crate::pg::{Lsn, Timeline};
    use crate::recovery::log::Window;
    use crate::recovery::tests::{self, History, What, at, one_leg};

    fn commit(lsn: u64, seconds: i64) -> (Lsn, What) {
        let end = XactEnd { time: at(seconds), xid: Xid::new(u32::try_from(lsn).unwrap()), kind: XactKind::Commit };
        (Lsn(lsn), What::End(end))
    }

    fn end_of(lsn: u64, start: u64) -> (Lsn, What) {
        (Lsn(lsn), What::Mark(Mark::BackupEnd { start: Lsn(start) }))
    }

    fn history(records: Vec<(Lsn, What)>) -> History {
        History { records, windows: vec![Window { from: Lsn(0), until: Lsn(100_000) }] }
    }

    /// Its end record begins 8 bytes before its stop.
    fn backup(random: u32, timeline: u32, start: u64, stop: u64, began: i64) -> BackupSummary {
        BackupSummary { timeline, ..tests::backup(random, (start, stop), at(began)) }
    }

    /// Which is chosen, and where recovery from it stops.
    fn choose(log: &History, legs: &[Leg], mut all: Vec<BackupSummary>, target: Target) -> Option<(u32, Option<u64>)> {
        all.sort_by_key(|backup| std::cmp::Reverse(backup.stop_lsn));
        let wanted = Wanted { target, inclusive: true, from: None };
        let whole = find(log, &wanted).unwrap();
        let backups = Backups { readable: all, ..Backups::default() };
        let choice = backups.choose(log, legs, &wanted, &whole).unwrap();
        choice.map(|choice| (choice.backup.id.random, choice.found.stop.map(|stop| stop.lsn.0)))
    }

    #[test]
    fn a_backup_that_began_after_the_time_is_taken_only_if_nothing_happened_between() {
        let records = |between: i64| {
            history(vec![
                commit(1000, 10),
                end_of(2000, 1500),
                commit(3000, 20),
                commit(4000, between),
                end_of(6000, 5000),
                commit(7000, 50),
            ])
        };
        let both = || vec![backup(1, 1, 1500, 2008, 15), backup(2, 1, 5000, 6008, 40)];
        // The cluster was idle while the second backup was taken: from there the server would stop at 7000 as well, too
        // late.
        assert_eq!(choose(&records(30), &one_leg(), both(), Target::Time(at(25))), Some((1, Some(4000))));
        assert_eq!(choose(&records(30), &one_leg(), both(), Target::Time(at(35))), Some((2, Some(7000))), "the same state");
        assert_eq!(choose(&records(30), &one_leg(), both(), Target::Time(at(45))), Some((2, Some(7000))));
        assert_eq!(choose(&records(30), &one_leg(), both(), Target::Time(at(12))), Some((1, Some(3000))));
        assert_eq!(choose(&records(30), &one_leg(), vec![backup(2, 1, 5000, 6008, 40)], Target::Time(at(25))), None);
        // Nothing is later than that: the server would fail.
        assert_eq!(choose(&records(30), &one_leg(), both(), Target::Time(at(60))), None);
        // The clock was ahead once: from the beginning recovery would stop there, from the second backup it does not.
        assert_eq!(
            choose(&records(99), &one_leg(), both(), Target::Time(at(45))),
            Some((1, Some(4000))),
            "it is the last before"
        );
        let mut wrong = records(30);
        wrong.records.insert(3, commit(3500, 99));
        assert_eq!(choose(&wrong, &one_leg(), both(), Target::Time(at(45))), Some((2, Some(7000))));
        assert_eq!(choose(&wrong, &one_leg(), both(), Target::Time(at(25))), Some((1, Some(3500))));
    }

    #[test]
    fn a_transaction_later_than_the_time_within_the_backup_rules_it_out() {
        let log = history(vec![commit(1000, 10), end_of(2000, 1500), end_of(6000, 5000), commit(7000, 50)]);
        let inside = |seconds| {
            let mut log = history(log.records.clone());
            log.records.insert(2, commit(5500, seconds));
            choose(&log, &one_leg(), vec![backup(1, 1, 1500, 2008, 15), backup(2, 1, 5000, 6008, 40)], Target::Time(at(45)))
        };
        assert_eq!(inside(44), Some((2, Some(7000))));
        assert_eq!(inside(46), Some((1, Some(5500))));
    }

    #[test]
    fn other_targets_begin_after_the_backup_is_consistent() {
        let name = RestorePointName::new(b"here").unwrap();
        let point = |lsn| (Lsn(lsn), What::Mark(Mark::RestorePoint { time: at(1), name: name.clone() }));
        let log = history(vec![commit(1000, 10), end_of(2000, 1500), commit(3000, 20), end_of(6000, 5000), commit(7000, 50)]);
        let both = || vec![backup(1, 1, 1500, 2008, 15), backup(2, 1, 5000, 6008, 40)];
        let chosen = |target| choose(&log, &one_leg(), both(), target);
        assert_eq!(chosen(Target::Lsn(Lsn(6500))), Some((2, Some(7000))));
        assert_eq!(chosen(Target::Lsn(Lsn(5999))), Some((2, Some(6000))), "its own end is replayed");
        let exclusive = Wanted { target: Target::Lsn(Lsn(5999)), inclusive: false, from: None };
        let whole = find(&log, &exclusive).unwrap();
        let readable: Vec<BackupSummary> = both().into_iter().rev().collect();
        let choice = Backups { readable, ..Backups::default() }.choose(&log, &one_leg(), &exclusive, &whole).unwrap().unwrap();
        assert_eq!(choice.backup.id.random, 1, "its own end is not replayed");
        assert_eq!(chosen(Target::Lsn(Lsn(1600))), Some((1, Some(2000))), "the first record from there on is its own end");
        assert_eq!(chosen(Target::Lsn(Lsn(900))), None);
        assert_eq!(chosen(Target::Xid(Xid::new(3000).unwrap())), Some((1, Some(3000))));
        assert_eq!(chosen(Target::Latest), Some((2, None)));
        assert_eq!(chosen(Target::Immediate), Some((2, Some(6000))));
        let mut named = history(log.records.clone());
        named.records.insert(3, point(4000));
        assert_eq!(choose(&named, &one_leg(), both(), Target::Name(name.clone())), Some((1, Some(4000))));
        // Twice: nobody guesses which, although the second backup has only one of them before it.
        named.records.push(point(8000));
        assert_eq!(choose(&named, &one_leg(), both(), Target::Name(name.clone())), None);
        let wanted = Wanted { target: Target::Name(name), inclusive: true, from: None };
        let own = usable(&named, &one_leg(), &backup(2, 1, 5000, 6008, 40), &wanted, None).unwrap().unwrap();
        assert_eq!(own.stop.map(|stop| stop.lsn), Some(Lsn(8000)), "unless the backup is named");
    }

    #[test]
    fn a_backup_of_a_standby_is_consistent_where_it_says() {
        let log = history(vec![commit(1000, 10), commit(3000, 20), commit(7000, 50)]);
        let standby = || vec![BackupSummary { from_standby: true, ..backup(1, 1, 1500, 4000, 15) }];
        assert_eq!(choose(&log, &one_leg(), standby(), Target::Lsn(Lsn(900))), None);
        // Its position is where the record at 3000 ends: that one has to be replayed, and that is enough.
        let at_3000 = || vec![BackupSummary { from_standby: true, ..backup(1, 1, 1500, 3008, 15) }];
        assert_eq!(choose(&log, &one_leg(), at_3000(), Target::Lsn(Lsn(2000))), Some((1, Some(3000))));
        assert_eq!(choose(&log, &one_leg(), at_3000(), Target::Xid(Xid::new(3000).unwrap())), Some((1, Some(3000))));
        let before = Wanted { target: Target::Lsn(Lsn(3000)), inclusive: false, from: None };
        let whole = find(&log, &before).unwrap();
        let backups = Backups { readable: at_3000(), ..Backups::default() };
        assert!(backups.choose(&log, &one_leg(), &before, &whole).unwrap().is_none());
        assert_eq!(choose(&log, &one_leg(), standby(), Target::Time(at(30))), Some((1, Some(7000))));
        assert_eq!(choose(&log, &one_leg(), standby(), Target::Immediate), Some((1, Some(7000))));
        let at_end = history(vec![commit(1000, 10), commit(3000, 20)]);
        assert_eq!(choose(&at_end, &one_leg(), standby(), Target::Immediate), Some((1, None)));
        assert_eq!(choose(&at_end, &one_leg(), standby(), Target::Latest), Some((1, None)));
    }

    #[test]
    fn a_backup_of_an_ancestor_ends_before_the_fork() {
        let leg = |timeline, begin, end| Leg { timeline: Timeline(timeline), begin: Lsn(begin), end: Lsn(end), stored: None };
        let legs = [leg(1, 0, 2500), leg(3, 2500, u64::MAX)];
        let log = history(vec![commit(1000, 10), end_of(2000, 1500), commit(3000, 20), end_of(6000, 5000), commit(7000, 50)]);
        let chosen = |all| choose(&log, &legs, all, Target::Latest);
        assert_eq!(chosen(vec![backup(1, 1, 1500, 2008, 15)]), Some((1, None)));
        assert_eq!(chosen(vec![backup(1, 1, 1500, 2008, 15), backup(2, 1, 5000, 6008, 40)]), Some((1, None)), "after the fork");
        assert_eq!(chosen(vec![backup(1, 1, 1500, 2508, 15)]), None, "its end is on the branch that was left");
        assert_eq!(chosen(vec![backup(1, 2, 1500, 2008, 15)]), None, "another branch");
        assert_eq!(chosen(vec![backup(1, 1, 1500, 2008, 15), backup(2, 3, 5000, 6008, 40)]), Some((2, None)));
    }
}
