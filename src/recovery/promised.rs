//! What a window promises: which backups and which WAL have to stay so that every moment since its start can still be
//! restored, along every timeline that was alive in it.
//!
//! Lives here: the answer, in the resolver's own words: where `resolve` stops at the first moment of the window, and
//! from which backup it gets there. May not live here: what else keeps a backup, and what becomes of the rest
//! (`retention`). `docs/RETENTION.md` has the rules.
//!
//! # Why the first moment is enough
//! Recovery to a time stops at the first transaction, in the order of the log, that is later. Whatever is later than a
//! later time is later than the first moment, too: so every later moment stops there or beyond, whatever the clock did.
//! The backup from which the first moment is reached leads to all of them, up to a gap; after each gap there has to be
//! another one. (Where the clock was ahead for a while, the resolver passes over that for the first moment; times that
//! only those transactions have, which are older by their place, are not promised.)
//!
//! # Why the oldest WAL counts
//! Once everything before a backup is gone, the resolver knows of a time only what the rest says. From a backup that
//! began after the window did, in a time in which nothing happened, it could not tell that any more, and would say that
//! the first moment is before everything. So a backup is taken only if the first moment is still found with nothing
//! before it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::error::Error;
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::pg::scan::PgTime;
use crate::pg::target::Target;
use crate::pg::{Lsn, Timeline};
use crate::recovery::choice_of_backup::{Backups, on_path, usable};
use crate::recovery::ends::{Line, lines, newest_timeline};
use crate::recovery::log::{Log, WantedEnds, Window};
use crate::recovery::log_part::LogPart;
use crate::recovery::path_log::PathLog;
use crate::recovery::reach::{begin_of, end_of};
use crate::recovery::stop::{Stop, Wanted, find};
use crate::repo::catalog::{Leg, Path};
use crate::repo::{Catalog, ClusterName, ObjectSet, Repository};
use crate::report::transaction::Moment;

/// What is asked, of one system identifier.
pub struct Asked<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// Its catalog, opened after `stored` was listed.
    pub catalog: &'a Catalog<'a>,
    /// The backups that count.
    pub good: &'a Backups,
    /// The first moment of the window; `None`: it is empty, and all that counts is the present.
    pub since: Option<PgTime>,
    /// How far the first moment may have moved by the time at which what is asked for now is acted on; `None`: not at
    /// all.
    pub moves_to: Option<PgTime>,
    /// The segments that are there, whatever the catalog remembers of others.
    pub stored: &'a ObjectSet,
    /// When the newest WAL file of each timeline, be it a segment or not, was stored, in Unix seconds.
    pub newest_stored_unix_s: &'a BTreeMap<Timeline, i64>,
    /// Whether the timeline that recovery takes without being asked counts, whenever it was alive.
    pub always_newest: bool,
}

/// What a window needs on the path to a timeline.
#[derive(Debug)]
pub struct Promised {
    /// The timeline.
    pub timeline: Timeline,
    /// Where its path goes.
    pub legs: Vec<Leg>,
    /// The backups without which a moment is lost: that of the first moment, and the first one after each gap. None
    /// where no good backup leads to any moment of the path.
    pub backups: Vec<BackupId>,
    /// Others that may be among them before the first moment has moved as far as was asked.
    pub soon: Vec<BackupId>,
    /// From where on the WAL of the path is needed; `None`: all of it, as nobody knows what leads there.
    pub from: Option<Lsn>,
    /// What can be restored by these backups, in the order of the log.
    pub reaches: Vec<PromisedReach>,
}

/// A part of a path in which every moment can be restored.
#[derive(Debug)]
pub struct PromisedReach {
    /// The backup that leads to all of it.
    pub backup: BackupId,
    /// The earliest moment.
    pub earliest: Moment,
    /// The last one.
    pub latest: Moment,
}

/// What has to stay for the window, on each timeline that was alive in it.
///
/// # Errors
/// As the catalog's.
pub fn promised(asked: &Asked<'_>) -> Result<Vec<Promised>, Error> {
    let lines = lines(asked.repository, asked.cluster, asked.catalog)?;
    let taken = newest_timeline(&lines)?.filter(|_| asked.always_newest);
    let mut promised = Vec::new();
    for Line { info, log } in &lines {
        if taken == Some(info.timeline) || was_alive(asked, info.timeline, log)? {
            promised.push(of_timeline(asked, info.timeline, log)?);
        }
    }
    Ok(promised)
}

/// Whether a transaction ended on a timeline in the window, or a WAL file of it was stored: the `.partial` of a
/// promotion has transactions that nobody can see here, and is of use only with what is before it.
fn was_alive(asked: &Asked<'_>, timeline: Timeline, log: &PathLog<'_>) -> Result<bool, Error> {
    let Some(since) = asked.since else { return Ok(false) };
    let stored =
        asked.newest_stored_unix_s.get(&timeline).and_then(|unix_s| PgTime::from_unix_us(unix_s.checked_mul(1_000_000)?));
    if stored.is_some_and(|stored| stored >= since) {
        return Ok(true);
    }
    let own = log.path().legs().last().map_or(Lsn(0), |leg| leg.begin);
    is_later(log, &Window { from: own, until: Lsn(u64::MAX) }, |time| time >= since, since)
}

/// Whether any transaction of a stretch ended at such a time, of those at `from` or later.
fn is_later(log: &dyn Log, window: &Window, counts: impl Fn(PgTime) -> bool, from: PgTime) -> Result<bool, Error> {
    let mut found = false;
    log.ends(window.from, window.until, WantedEnds::AtOrAfter(from), &mut |entry| {
        found = counts(entry.end.time);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

fn of_timeline(asked: &Asked<'_>, timeline: Timeline, log: &PathLog<'_>) -> Result<Promised, Error> {
    let segment_bytes = asked.catalog.facts().wal_segment_size.bytes();
    let present = LogPart::without(log, &missing(log.path(), segment_bytes, asked.stored));
    let needs = needs(&present, log.legs(), asked.good, asked.since, segment_bytes)?;
    let soon = match asked.moves_to.filter(|_| asked.since.is_some()) {
        Some(moves_to) => {
            let later = self::needs(&present, log.legs(), asked.good, Some(moves_to), segment_bytes)?;
            between(log.legs(), asked.good, &needs, &later)
        }
        None => Vec::new(),
    };
    let mut reaches = Vec::new();
    for backup in &needs.backups {
        let window = present.windows().iter().find(|window| window.holds(backup.start_lsn));
        let Some(window) = window.filter(|window| backup.stop_lsn <= window.until) else { continue };
        reaches.push(PromisedReach {
            backup: backup.id,
            earliest: begin_of(log, backup.stop_lsn, window.until)?,
            latest: end_of(log, backup.stop_lsn, window.until)?,
        });
    }
    Ok(Promised {
        timeline,
        legs: log.path().legs().to_vec(),
        backups: needs.backups.iter().map(|backup| backup.id).collect(),
        soon,
        from: needs.from,
        reaches,
    })
}

/// Runs of segments of a path that are not stored, from where the first begins to where the last ends, between others
/// that are.
fn missing(path: &Path, segment_bytes: u64, stored: &ObjectSet) -> Vec<(Lsn, Lsn)> {
    let mut present: Vec<(u64, u64)> = Vec::new();
    // The segment in which a leg begins has a copy of what its parent has of it, and stands for that.
    let mut until = u64::MAX;
    for leg in path.legs().iter().rev() {
        let low = path.number(leg.begin).saturating_add(u64::from(path.is_begun_by_parent(leg)));
        let high = until.min(path.number(Lsn(leg.end.0.saturating_sub(1))));
        let runs = stored.segments().find(|(timeline, _)| *timeline == leg.timeline).map(|(_, runs)| runs);
        let within = runs.into_iter().flat_map(|runs| runs.iter().rev());
        present.extend(within.map(|(first, last)| (first.max(low), last.min(high))).filter(|(first, last)| first <= last));
        match low.checked_sub(1) {
            Some(before) => until = until.min(before),
            None => break,
        }
    }
    present.reverse();
    let at = |number: u64| Lsn(number.saturating_mul(segment_bytes));
    let pairs = present.iter().zip(present.iter().skip(1));
    let gaps = pairs.filter(|((_, last), (first, _))| last.saturating_add(1) < *first);
    gaps.map(|((_, last), (first, _))| (at(last.saturating_add(1)), at(*first))).collect()
}

/// What has to stay of one path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// In the order of the log.
    backups: Vec<BackupSummary>,
    /// From where on all WAL; `None`: all of it.
    from: Option<Lsn>,
}

/// The backup of the first moment, and from where on its WAL is needed.
type First<'b> = (&'b BackupSummary, Lsn);

/// What has to stay of a log, so that from `since` on every moment can be restored that can be now.
fn needs(log: &dyn Log, legs: &[Leg], good: &Backups, since: Option<PgTime>, segment_bytes: u64) -> Result<Needs, Error> {
    let windows = log.windows();
    // The stretch that the first moment is in; without one, the present is the first moment.
    let mut begins_in = None;
    if let Some(since) = since {
        for (index, window) in windows.iter().enumerate() {
            if is_later(log, window, |time| time > since, since)? {
                begins_in = Some((index, since));
                break;
            }
        }
    }
    let leads = |window: &Window, backup: &&BackupSummary| {
        window.from <= backup.start_lsn && backup.stop_lsn <= window.until && on_path(legs, backup).is_ok()
    };
    let (mut first, mut next): (Option<First<'_>>, usize) = match begins_in {
        Some((index, since)) => (first_moment(log, legs, good, since, segment_bytes)?, index),
        None => (latest(log, legs, good)?, windows.len().saturating_sub(1)),
    };
    let mut chosen: Vec<&BackupSummary> = Vec::new();
    if let Some((backup, _)) = first {
        chosen.push(backup);
        next = windows.iter().position(|window| window.holds(backup.start_lsn)).unwrap_or(next).saturating_add(1);
    }
    for window in windows.iter().skip(next) {
        let own: Vec<&BackupSummary> = good.readable.iter().filter(|backup| leads(window, backup)).collect();
        chosen.extend(beginning(log, window, &own)?);
    }
    if chosen.is_empty() {
        // Nothing of the window can be restored: then what comes nearest to it.
        let before = windows.iter().rev().find_map(|window| good.readable.iter().find(|backup| leads(window, backup)));
        first = before.map(|backup| (backup, backup.start_lsn));
        chosen.extend(before);
    }
    let from = chosen.iter().map(|backup| backup.start_lsn).chain(first.map(|(_, from)| from)).min();
    Ok(Needs { backups: chosen.into_iter().cloned().collect(), from })
}

/// The backups that a window may need while its first moment moves, beside those that it needs at the beginning. The
/// later the moment, the newer the backup that leads to it: so they lie between those of the two ends.
fn between(legs: &[Leg], good: &Backups, now: &Needs, later: &Needs) -> Vec<BackupId> {
    let ends = || now.backups.first().into_iter().chain(later.backups.first()).map(|backup| backup.start_lsn);
    let (Some(first), Some(last)) = (ends().min(), ends().max()) else { return Vec::new() };
    let moves_over = good.readable.iter().filter(|backup| (first..=last).contains(&backup.start_lsn));
    let moves_over = moves_over.filter(|backup| on_path(legs, backup).is_ok());
    let is_new = |backup: &&BackupSummary| now.backups.iter().all(|known| known.id != backup.id);
    let found: BTreeSet<BackupId> = moves_over.chain(&later.backups).filter(is_new).map(|backup| backup.id).collect();
    found.into_iter().collect()
}

/// Of the backups of a stretch the first one. Where the clock was put back around it, some that began later by their
/// place are earlier by their time than transactions before the first: such moments only they lead to.
fn beginning<'b>(log: &dyn Log, window: &Window, own: &[&'b BackupSummary]) -> Result<Vec<&'b BackupSummary>, Error> {
    let Some(first) = own.iter().min_by_key(|backup| (backup.stop_lsn, backup.id)) else { return Ok(Vec::new()) };
    let before = Window { from: window.from, until: first.stop_lsn };
    let mut chosen = Vec::new();
    for backup in own.iter().rev() {
        let began = PgTime::from_unix_us(backup.started_unix_us);
        let is_earlier = match began {
            Some(began) => backup.started_unix_us < first.started_unix_us || is_later(log, &before, |time| time > began, began)?,
            None => false,
        };
        if backup.id == first.id || is_earlier {
            chosen.push(*backup);
        }
    }
    Ok(chosen)
}

/// The newest backup from which the end of the log is reached.
fn latest<'b>(log: &dyn Log, legs: &[Leg], good: &'b Backups) -> Result<Option<First<'b>>, Error> {
    let wanted = Wanted { target: Target::Latest, inclusive: true, from: None };
    let whole = find(log, &wanted)?;
    let choice = good.choose(log, legs, &wanted, &whole)?;
    let chosen = choice.and_then(|choice| good.readable.iter().find(|backup| backup.id == choice.backup.id));
    Ok(chosen.map(|backup| (backup, backup.start_lsn)))
}

/// The newest backup from which the resolver gets to a time, and still does when nothing is there before that backup.
fn first_moment<'b>(
    log: &dyn Log,
    legs: &[Leg],
    good: &'b Backups,
    since: PgTime,
    segment_bytes: u64,
) -> Result<Option<First<'b>>, Error> {
    let wanted = Wanted { target: Target::Time(since), inclusive: true, from: None };
    let whole = find(log, &wanted)?;
    let lasts = |backup: &BackupSummary, from: Lsn, stop: Option<Stop>| -> Result<bool, Error> {
        let rest = LogPart::after(log, Lsn(from.0 - from.0 % segment_bytes.max(1)));
        let whole = find(&rest, &wanted)?;
        Ok(usable(&rest, legs, backup, &wanted, Some(&whole))?.is_ok_and(|found| found.stop == stop))
    };
    let mut for_now: Option<(&BackupSummary, Option<Stop>)> = None;
    for backup in good.candidates(&wanted, &whole) {
        let Ok(found) = usable(log, legs, backup, &wanted, Some(&whole))? else { continue };
        if lasts(backup, backup.start_lsn, found.stop)? {
            return Ok(Some((backup, backup.start_lsn)));
        }
        for_now.get_or_insert((backup, found.stop));
    }
    let Some((backup, stop)) = for_now else { return Ok(None) };
    // No backup is old enough to say that the log has that moment: what was written before it says so.
    let window = log.windows().iter().find(|window| window.holds(backup.start_lsn));
    let Some(window) = window else { return Ok(Some((backup, backup.start_lsn))) };
    let before = log.last_commit(window.from, backup.start_lsn)?.map(|commit| commit.lsn);
    if let Some(from) = before
        && lasts(backup, from, stop)?
    {
        return Ok(Some((backup, from)));
    }
    Ok(Some((backup, window.from)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pg::scan::{CheckpointKind, Mark, XactEnd, XactKind, Xid};
    use crate::recovery::tests::{self, History, What, at, one_leg};

    const SEGMENT: u64 = 64;

    fn backup(number: u32, start: u64, stop: u64, began: i64) -> BackupSummary {
        BackupSummary { wal_segment_bytes: SEGMENT, ..tests::backup(number, (start, stop), at(began)) }
    }

    /// Logs of one timeline with up to two gaps, in which the clock jumps; and the backups that were taken meanwhile,
    /// each with the checkpoint that it begins at. Gaps are of whole segments.
    fn logs() -> impl Strategy<Value = (History, Vec<BackupSummary>)> {
        let step = (0..10_u8, prop_oneof![8 => 0..30_i64, 1 => -200..0_i64, 1 => 200..900_i64]);
        (prop::collection::vec(step, 1..90), prop::collection::vec(1..90_usize, 0..3)).prop_map(|(steps, gaps)| {
            let (mut history, mut backups) = (History::default(), Vec::new());
            let (mut lsn, mut now, mut from) = (SEGMENT, 1000_i64, SEGMENT);
            let mut open: Option<(u64, i64)> = None;
            for (index, (what, later)) in steps.into_iter().enumerate() {
                now += later;
                if gaps.contains(&index) {
                    let until = lsn.next_multiple_of(SEGMENT);
                    history.windows.push(Window { from: Lsn(from), until: Lsn(until) });
                    from = until + 2 * SEGMENT;
                    (lsn, open) = (from, None);
                }
                match (what, open) {
                    (0..5, _) => {
                        let kind = if what == 0 { XactKind::Abort } else { XactKind::Commit };
                        let end = XactEnd { time: at(now), xid: Xid::new(700 + u32::try_from(index).unwrap()), kind };
                        history.records.push((Lsn(lsn), What::End(end)));
                    }
                    (5 | 6, None) => {
                        open = Some((lsn, now));
                        history.records.push((Lsn(lsn), What::Other));
                        lsn += 8;
                        let checkpoint = Mark::Checkpoint {
                            kind: CheckpointKind::Online,
                            redo: Lsn(lsn - 8),
                            timeline: Timeline(1),
                            previous_timeline: Timeline(1),
                            time_unix_s: at(now).unix_us().unwrap() / 1_000_000,
                        };
                        history.records.push((Lsn(lsn), What::Mark(checkpoint)));
                    }
                    (7 | 8, Some((start, began))) => {
                        history.records.push((Lsn(lsn), What::Mark(Mark::BackupEnd { start: Lsn(start) })));
                        backups.push(backup(u32::try_from(index).unwrap(), start, lsn + 8, began));
                        open = None;
                    }
                    _ => history.records.push((Lsn(lsn), What::Other)),
                }
                lsn += 8;
            }
            history.windows.push(Window { from: Lsn(from), until: Lsn(lsn.next_multiple_of(SEGMENT)) });
            (history, backups)
        })
    }

    /// Where the resolver says that a recovery from one of the backups stops; `None` if it says that none gets there.
    fn resolve(log: &dyn Log, backups: &[BackupSummary], target: &Target) -> Option<(Option<Stop>, Lsn)> {
        let wanted = Wanted { target: target.clone(), inclusive: true, from: None };
        let whole = find(log, &wanted).unwrap();
        let choice = Backups::known(backups.to_vec()).choose(log, &one_leg(), &wanted, &whole).unwrap()?;
        // From where it ends only the end of the stretch matters.
        let end = if choice.found.stop.is_some() { Lsn(0) } else { choice.found.window.until };
        Some((choice.found.stop, end))
    }

    /// What is left when only this much stays: the WAL from `from` on, and what some other backups need from start to
    /// stop.
    fn left<'l>(log: &'l History, from: Lsn, others: &[&BackupSummary]) -> LogPart<'l> {
        let begin = |lsn: Lsn| lsn.0 / SEGMENT;
        let mut stays: Vec<u64> = others.iter().flat_map(|b| begin(b.start_lsn)..=begin(Lsn(b.stop_lsn.0 - 1))).collect();
        let last = begin(log.windows.last().unwrap().until);
        stays.extend(begin(from)..=last);
        let gone: Vec<(Lsn, Lsn)> = (0..=last)
            .filter(|number| !stays.contains(number))
            .map(|number| (Lsn(number * SEGMENT), Lsn((number + 1) * SEGMENT)))
            .collect();
        LogPart::without(log, &gone)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

        /// Every moment of the window that can be restored now can be restored with what is kept, and with what other
        /// rules keep besides; so can the present.
        #[test]
        fn what_is_kept_leads_to_every_moment_of_the_window(
            (log, backups) in logs(), since in 900..3000_i64, others in prop::collection::vec(0..20_usize, 0..3)
        ) {
            let good = Backups::known(backups.clone());
            let needs = needs(&log, &one_leg(), &good, Some(at(since)), SEGMENT).unwrap();
            let Some(from) = needs.from else {
                prop_assert!(backups.is_empty(), "all is kept although there is {:?}", backups);
                return Ok(());
            };
            prop_assert!(needs.backups.iter().all(|backup| from <= backup.start_lsn));
            let others: Vec<&BackupSummary> = others.iter().filter_map(|index| backups.get(*index)).collect();
            let rest = left(&log, from, &others);
            let mut kept = needs.backups.clone();
            kept.extend(others.iter().filter(|other| !needs.backups.contains(other)).map(|other| (*other).clone()));
            let times = log.records.iter().filter_map(|(_, what)| match what {
                What::End(end) => Some(end.time),
                _ => None,
            });
            let moments = times.flat_map(|time| [PgTime(time.0 - 1), time, PgTime(time.0 + 1)]).chain([at(since)]);
            // Without a backup that leads to the first moment the window begins where the first one does.
            let is_early = resolve(&log, &backups, &Target::Time(at(since))).is_some();
            let begins = needs.backups.first().and_then(|first| PgTime::from_unix_us(first.started_unix_us));
            let earliest = if is_early { at(since) } else { at(since).max(begins.unwrap()) };
            for moment in moments.filter(|moment| *moment >= earliest) {
                let target = Target::Time(moment);
                let Some((now, _)) = resolve(&log, &backups, &target) else { continue };
                // Before the backup that leads to the first moment it is later by a clock that was ahead alone.
                let first = needs.backups.first().map_or(Lsn(0), |backup| backup.stop_lsn);
                if is_early && now.is_some_and(|stop| stop.lsn < first) {
                    continue;
                }
                let Some((then, _)) = resolve(&rest, &kept, &target) else {
                    return Err(TestCaseError::fail(format!("{moment:?} is lost with {needs:?}")));
                };
                // Where the clock was put back, each backup may lead to a place of its own.
                let whole = find(&log, &Wanted { target, inclusive: true, from: None }).unwrap().ok();
                if whole.is_some_and(|whole| whole.stop == now) {
                    prop_assert_eq!(then, now, "{:?} of {:?}", moment, needs);
                }
            }
            if let Some(now) = resolve(&log, &backups, &Target::Latest) {
                prop_assert_eq!(Some(now), resolve(&rest, &kept, &Target::Latest), "the present of {:?}", needs);
            }
        }

        /// While the first moment moves, nothing else is needed than was said before, as long as clocks are right.
        #[test]
        fn what_a_window_will_need_is_known_before(
            (log, backups) in logs(), since in 900..2000_i64, moves in 1..600_i64, part in 0..100_i64
        ) {
            let times = log.records.iter().filter_map(|(_, what)| match what {
                What::End(end) => Some(end.time),
                _ => None,
            });
            if !times.is_sorted() {
                return Ok(());
            }
            let good = Backups::known(backups);
            let at_time = |time: i64| needs(&log, &one_leg(), &good, Some(at(time)), SEGMENT).unwrap();
            let (now, later, meanwhile) = (at_time(since), at_time(since + moves), at_time(since + moves * part / 100));
            let soon = between(&one_leg(), &good, &now, &later);
            for backup in &meanwhile.backups {
                prop_assert!(soon.contains(&backup.id) || now.backups.contains(backup), "{backup:?} is not in {now:?}, {soon:?}");
            }
        }

        /// Without a window the newest backup that leads to the present stays, and nothing else.
        #[test]
        fn without_a_window_one_backup_leads_to_the_present((log, backups) in logs()) {
            let needs = needs(&log, &one_leg(), &Backups::known(backups.clone()), None, SEGMENT).unwrap();
            match resolve(&log, &backups, &Target::Latest) {
                Some(now) => {
                    prop_assert_eq!(needs.backups.len(), 1);
                    let rest = left(&log, needs.from.unwrap(), &[]);
                    prop_assert_eq!(Some(now), resolve(&rest, &needs.backups, &Target::Latest));
                    let newest = backups.iter().max_by_key(|backup| backup.stop_lsn);
                    prop_assert_eq!(needs.backups.first(), newest);
                }
                // The last that there is.
                None => prop_assert_eq!(needs.backups.len(), usize::from(!backups.is_empty())),
            }
        }
    }

    fn commit(lsn: u64, seconds: i64) -> (Lsn, What) {
        let end = XactEnd { time: at(seconds), xid: Xid::new(u32::try_from(lsn).unwrap()), kind: XactKind::Commit };
        (Lsn(lsn), What::End(end))
    }

    fn end_of(lsn: u64, start: u64) -> (Lsn, What) {
        (Lsn(lsn), What::Mark(Mark::BackupEnd { start: Lsn(start) }))
    }

    fn numbers(needs: &Needs) -> Vec<u32> {
        needs.backups.iter().map(|backup| backup.id.random).collect()
    }

    #[test]
    fn a_backup_that_began_in_the_window_is_no_beginning_of_it() {
        let records =
            vec![commit(640, 10), end_of(1280, 960), commit(1920, 20), end_of(3840, 3200), commit(4480, 50), commit(5000, 60)];
        let log = History { records, windows: vec![Window { from: Lsn(0), until: Lsn(6400) }] };
        let both = Backups::known(vec![backup(1, 960, 1288, 15), backup(2, 3200, 3848, 40)]);
        let of = |good: &Backups, since| needs(&log, &one_leg(), good, Some(at(since)), SEGMENT).unwrap();
        // At 30 nothing happened between the two backups: from the second one recovery would stop at the same
        // place, but with nothing before it nobody could tell.
        assert_eq!(numbers(&of(&both, 30)), [1]);
        assert_eq!((numbers(&of(&both, 45)), of(&both, 45).from), (vec![2], Some(Lsn(3200))));
        // With the second one alone what was written before it says so.
        let second = Backups::known(vec![backup(2, 3200, 3848, 40)]);
        assert_eq!((numbers(&of(&second, 30)), of(&second, 30).from), (vec![2], Some(Lsn(1920))));
        // Before that, the beginning of what can be restored.
        assert_eq!((numbers(&of(&second, 15)), of(&second, 15).from), (vec![2], Some(Lsn(3200))));
        // Nothing ended after the moment: what leads to the present.
        assert_eq!(numbers(&of(&both, 70)), [2]);
        // Nothing leads there.
        assert_eq!(of(&Backups::default(), 30), Needs::default());
    }

    #[test]
    fn after_each_gap_there_is_a_backup_and_without_any_in_the_window_the_one_before() {
        let window = |from, until| Window { from: Lsn(from), until: Lsn(until) };
        let records = vec![
            commit(640, 10),
            end_of(1280, 960),
            commit(1300, 20),
            commit(6400, 30),
            end_of(7040, 6500),
            end_of(7800, 7200),
            commit(12_800, 40),
        ];
        let log = History { records, windows: vec![window(0, 3200), window(6400, 9600), window(12_800, 16_000)] };
        let all = vec![backup(1, 960, 1288, 15), backup(2, 6500, 7048, 32), backup(3, 7200, 7808, 34)];
        let of = |good: Vec<BackupSummary>, since: Option<i64>| {
            needs(&log, &one_leg(), &Backups::known(good), since.map(at), SEGMENT).unwrap()
        };
        assert_eq!(numbers(&of(all.clone(), Some(17))), [1, 2], "the first one after the gap");
        assert_eq!((numbers(&of(all.clone(), Some(25))), of(all.clone(), Some(25)).from), (vec![2], Some(Lsn(6500))));
        // In the last stretch there is no backup: nothing of the window can be restored, and what is nearest stays.
        for since in [Some(35), Some(90), None] {
            assert_eq!((numbers(&of(all.clone(), since)), of(all.clone(), since).from), (vec![3], Some(Lsn(7200))), "{since:?}");
        }
        assert_eq!(numbers(&of(all[..1].to_vec(), None)), [1]);
    }
}
