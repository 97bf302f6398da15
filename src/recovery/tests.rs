//! The search against a server in miniature, which replays record by record.

use crate::error::Error;
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::format::manifest::tests::made_up;
use crate::pg::scan::{CheckpointKind, Mark, PgTime, Record, RestorePointName, XactEnd, XactEntry, XactKind, Xid};
use crate::pg::target::Target;
use crate::pg::{Lsn, Timeline};
use crate::recovery::log::{BackupEnd, Log, WantedEnds, WantedMarks, Window};
use crate::recovery::stop::{Found, Stop, Unreachable, Wanted, find};
use crate::repo::catalog::Leg;
use proptest::prelude::*;
use std::ops::ControlFlow;

/// 2000-01-01 plus this many seconds.
pub(super) fn at(seconds: i64) -> PgTime {
    PgTime(seconds * 1_000_000)
}

/// Timeline 1 by itself.
pub(super) fn one_leg() -> Vec<Leg> {
    vec![Leg { timeline: Timeline(1), begin: Lsn(0), end: Lsn(u64::MAX), stored: None }]
}

/// A backup from one position to another, with its checkpoint 8 bytes after its start.
pub(super) fn backup(number: u32, (start, stop): (u64, u64), began: PgTime) -> BackupSummary {
    BackupSummary {
        started_unix_us: began.unix_us().unwrap(),
        start_lsn: Lsn(start),
        checkpoint_lsn: Lsn(start + 8),
        stop_lsn: Lsn(stop),
        ..made_up(BackupId::new(1_790_000_000, number).unwrap())
    }
}

#[derive(Debug, Clone)]
pub(super) enum What {
    End(XactEnd),
    Mark(Mark),
    Other,
}

/// Records by position, in stretches.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) records: Vec<(Lsn, What)>,
    pub(super) windows: Vec<Window>,
}

impl History {
    fn within(&self, from: Lsn, to: Lsn) -> impl DoubleEndedIterator<Item = &(Lsn, What)> {
        assert!(from == to || self.windows.iter().any(|w| w.from <= from && to <= w.until), "{from} to {to} is in no window");
        self.records.iter().filter(move |(lsn, _)| from <= *lsn && *lsn < to)
    }
}

impl Log for History {
    fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Leaves out all that it may.
    fn ends(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedEnds,
        visit: &mut dyn FnMut(&XactEntry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for (lsn, what) in self.within(from, to) {
            let What::End(end) = what else { continue };
            let left_out = match wanted {
                WantedEnds::All => false,
                WantedEnds::AtOrAfter(time) => end.time < time,
                WantedEnds::Between(from, to) => end.time < from || end.time > to,
                WantedEnds::Xid(xid) => end.xid.is_some_and(|found| found != xid),
            };
            if !left_out && visit(&XactEntry { lsn: *lsn, end: *end }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last_commit(&self, from: Lsn, to: Lsn) -> Result<Option<XactEntry>, Error> {
        Ok(self.within(from, to).rev().find_map(|(lsn, what)| match what {
            What::End(end) if end.kind.is_commit() => Some(XactEntry { lsn: *lsn, end: *end }),
            _ => None,
        }))
    }

    fn last_backup(&self, from: Lsn, to: Lsn) -> Result<Option<BackupEnd>, Error> {
        Ok(self.within(from, to).rev().find_map(|(lsn, what)| match what {
            What::Mark(Mark::BackupEnd { start }) if *start >= from => {
                Some(BackupEnd { start: *start, record: *lsn, stop: Lsn(lsn.0 + 8) })
            }
            _ => None,
        }))
    }

    fn marks(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedMarks<'_>,
        visit: &mut dyn FnMut(&Record<Mark>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for (lsn, what) in self.within(from, to) {
            let What::Mark(mark) = what else { continue };
            let left_out = match wanted {
                WantedMarks::Timed => false,
                WantedMarks::Named(name) => !matches!(mark, Mark::RestorePoint { name: found, .. } if found == name),
                WantedMarks::RestorePoints => !matches!(mark, Mark::RestorePoint { .. }),
                WantedMarks::BackupEnds => !matches!(mark, Mark::BackupEnd { .. }),
                WantedMarks::Files => !matches!(
                    mark,
                    Mark::TablespaceCreate { .. }
                        | Mark::TablespaceDrop { .. }
                        | Mark::DatabaseCreate { .. }
                        | Mark::DatabaseDrop { .. }
                ),
                WantedMarks::Parameters => !matches!(mark, Mark::ParameterChange(_)),
            };
            let record = Record { start: *lsn, end: Lsn(lsn.0 + 8), what: mark.clone() };
            if !left_out && visit(&record).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn first_record(&self, from: Lsn, to: Lsn) -> Result<Option<Lsn>, Error> {
        Ok(self.within(from, to).next().map(|(lsn, _)| *lsn))
    }
}

/// How a replay ends.
#[derive(Debug, PartialEq, Eq)]
enum Replayed {
    /// It stops there. `after`: that record was replayed.
    Stopped { at: Lsn, after: bool, consistent: bool },
    /// "recovery ended before configured recovery target was reached".
    Ended,
}

/// The main loop of recovery with `recoveryStopsBefore` and `recoveryStopsAfter`, for a backup that ends with a record.
fn replay(history: &History, wanted: &Wanted, start: Lsn) -> Replayed {
    let window = history.windows.iter().find(|w| w.from <= start && start < w.until).unwrap();
    let backup_end = history.records.iter().find_map(|(lsn, what)| match what {
        What::Mark(Mark::BackupEnd { start: of }) if *of == start && *lsn < window.until => Some(*lsn),
        _ => None,
    });
    let mut consistent = backup_end.is_none();
    for (lsn, what) in history.within(start, window.until) {
        let before = match (&wanted.target, what) {
            (Target::Lsn(target), _) => !wanted.inclusive && *lsn >= *target,
            (Target::Xid(xid), What::End(end)) => !wanted.inclusive && end.xid == Some(*xid),
            (Target::Time(time), What::End(end)) => {
                if wanted.inclusive {
                    end.time > *time
                } else {
                    end.time >= *time
                }
            }
            _ => false,
        };
        if before {
            return Replayed::Stopped { at: *lsn, after: false, consistent };
        }
        consistent |= Some(*lsn) == backup_end;
        let after = match (&wanted.target, what) {
            (Target::Lsn(target), _) => wanted.inclusive && *lsn >= *target,
            (Target::Xid(xid), What::End(end)) => wanted.inclusive && end.xid == Some(*xid),
            (Target::Name(name), What::Mark(Mark::RestorePoint { name: found, .. })) => found == name,
            (Target::Immediate, _) => consistent && backup_end.is_some(),
            _ => false,
        };
        if after {
            return Replayed::Stopped { at: *lsn, after: true, consistent };
        }
    }
    Replayed::Ended
}

fn name(n: u8) -> RestorePointName {
    RestorePointName::new(format!("p{n}").as_bytes()).unwrap()
}

/// Histories in which times jump to and fro, with up to two gaps, backups, and restore points of few names. Times are
/// from 0 to 30, so that many are equal.
fn history() -> impl Strategy<Value = History> {
    let record = prop_oneof![
        6 => (0..4_u8, -3..6_i64).prop_map(|(kind, step)| (kind, step)),
        1 => (4..6_u8, 0..3_i64),
        1 => Just((6_u8, 0)),
        1 => Just((7_u8, 0)),
        2 => Just((8_u8, 0)),
    ];
    (prop::collection::vec((record, 1..5_u64), 0..60), prop::collection::vec(0..60_usize, 0..3), 0..10_i64).prop_map(
        |(plan, gaps, first)| {
            let mut history = History::default();
            let (mut lsn, mut time, mut xid, mut from) = (64_u64, first, 700_u32, 64_u64);
            let mut open_backup: Option<Lsn> = None;
            for (i, ((kind, step), distance)) in plan.into_iter().enumerate() {
                if gaps.contains(&i) && lsn > from {
                    history.windows.push(Window { from: Lsn(from), until: Lsn(lsn) });
                    lsn += 800;
                    from = lsn;
                    open_backup = None;
                }
                xid += 1;
                let end = |kind| {
                    let time = PgTime(time + step);
                    What::End(XactEnd { kind, time, xid: Xid::new(xid) })
                };
                let what = match kind {
                    0 | 1 => end(XactKind::Commit),
                    2 => end(XactKind::Abort),
                    3 => end(XactKind::CommitPrepared),
                    4 => What::Mark(Mark::RestorePoint { time: PgTime(time), name: name(step as u8) }),
                    5 => What::Mark(Mark::Checkpoint {
                        kind: CheckpointKind::Online,
                        redo: Lsn(lsn),
                        timeline: Timeline(1),
                        previous_timeline: Timeline(1),
                        time_unix_s: 946_684_800,
                    }),
                    6 => {
                        open_backup.get_or_insert(Lsn(lsn));
                        What::Other
                    }
                    7 => match open_backup.take() {
                        Some(start) => What::Mark(Mark::BackupEnd { start }),
                        None => What::Other,
                    },
                    _ => What::Other,
                };
                if kind < 4 {
                    time += step;
                }
                history.records.push((Lsn(lsn), what));
                lsn += 8 * distance;
            }
            if lsn > from {
                history.windows.push(Window { from: Lsn(from), until: Lsn(lsn) });
            }
            history
        },
    )
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (-5..60_i64).prop_map(|time| Target::Time(PgTime(time))),
        (0..4000_u64).prop_map(|lsn| Target::Lsn(Lsn(lsn))),
        (695..770_u32).prop_map(|xid| Target::Xid(Xid::new(xid).unwrap())),
        (0..3_u8).prop_map(|n| Target::Name(name(n))),
        Just(Target::Immediate),
    ]
}

/// The replay of what was answered: by LSN, from the same start.
fn replay_answer(history: &History, found: &Found, start: Lsn) -> Replayed {
    let Stop { lsn, after } = found.stop.unwrap();
    replay(history, &Wanted { target: Target::Lsn(lsn), inclusive: after, from: None }, start)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// With a start that is given, the answer is what the server does, and the server does the same with the answer.
    #[test]
    fn from_a_start_it_is_what_the_server_does(
        history in history(), target in target(), inclusive: bool, at in 0..60_usize, of_backup: bool
    ) {
        prop_assume!(!history.records.is_empty());
        let backups: Vec<Lsn> = history.records.iter().filter_map(|(_, what)| match what {
            What::Mark(Mark::BackupEnd { start }) => Some(*start),
            _ => None,
        }).collect();
        let any = history.records[at % history.records.len()].0;
        let start = if of_backup && !backups.is_empty() { backups[at % backups.len()] } else { any };
        let wanted = Wanted { target: target.clone(), inclusive, from: Some(start) };
        let answer = find(&history, &wanted).unwrap();
        let server = replay(&history, &wanted, start);
        match (&answer, &server) {
            (Ok(found), Replayed::Stopped { consistent: true, .. }) => {
                prop_assert_eq!(&replay_answer(&history, found, start), &server);
                let Replayed::Stopped { at, after, .. } = server else { unreachable!() };
                let replayed = |lsn: Lsn| lsn < at || (after && lsn == at);
                let ends: Vec<XactEntry> = history.within(start, found.window.until).filter_map(|(lsn, what)| match what {
                    What::End(end) => Some(XactEntry { lsn: *lsn, end: *end }),
                    _ => None,
                }).collect();
                let last = ends.iter().rfind(|e| replayed(e.lsn) && e.end.kind.is_commit()).copied();
                prop_assert_eq!(found.last_included, last);
                prop_assert_eq!(found.first_excluded, ends.iter().find(|e| !replayed(e.lsn)).copied());
            }
            (Err(Unreachable::BeforeConsistency { .. }), Replayed::Stopped { consistent: false, .. }) => {}
            // The server takes a position before its start for one that is reached at once; a backup without its end in
            // the log would stop there before it is consistent.
            (Err(Unreachable::BeforeConsistency { backup: None, .. }), _) => {
                prop_assert!(matches!(target, Target::Lsn(lsn) if lsn < start));
            }
            (Err(Unreachable::After | Unreachable::Gap { .. } | Unreachable::NotFound(_) | Unreachable::NoBackup), Replayed::Ended) => {}
            _ => prop_assert!(false, "{:?} but the server: {:?}", answer, server),
        }
    }

    /// Without a start: an answer holds from the beginning of its stretch and from the backup it names, and a target is
    /// refused only when no stretch has it.
    #[test]
    fn without_a_start_it_holds_from_the_stretch_and_the_backup(history in history(), target in target(), inclusive: bool) {
        let wanted = Wanted { target: target.clone(), inclusive, from: None };
        let answer = find(&history, &wanted).unwrap();
        let server: Vec<Replayed> = history.windows.iter().map(|w| replay(&history, &wanted, w.from)).collect();
        match answer {
            Ok(found) => {
                let stop = found.stop.unwrap();
                let expected = Replayed::Stopped { at: stop.lsn, after: stop.after, consistent: true };
                if target != Target::Immediate && replay(&history, &wanted, found.start) != expected {
                    // Only when a backup begins at that very place.
                    let unknown = Replayed::Stopped { at: stop.lsn, after: stop.after, consistent: false };
                    prop_assert_eq!(replay(&history, &wanted, found.start), unknown);
                }
                if let Some(backup) = found.backup {
                    let same = replay(&history, &wanted, backup.start);
                    // A restore point or a transaction that the backup has already is not met again; then the LSN is
                    // not either.
                    prop_assert_eq!(same, expected, "from {:?}", backup);
                }
                if let Target::Time(time) = target {
                    let earlier = history.within(found.start, stop.lsn).any(|(_, what)| match what {
                        What::End(end) => end.time <= time,
                        What::Mark(Mark::RestorePoint { time: at, .. }) => *at <= time,
                        What::Mark(Mark::Checkpoint { .. }) => time >= PgTime(999_999),
                        _ => false,
                    });
                    prop_assert!(earlier, "nothing says that the stretch has that moment");
                }
            }
            Err(Unreachable::Empty) => prop_assert!(history.windows.is_empty()),
            Err(Unreachable::Ambiguous(places)) => {
                let named = |what: &What| matches!((what, &target), (What::Mark(Mark::RestorePoint { name, .. }), Target::Name(n)) if n == name);
                let expected: Vec<Lsn> = history.records.iter().filter(|(_, what)| named(what)).map(|(lsn, _)| *lsn).collect();
                prop_assert!(places.len() > 1);
                prop_assert_eq!(places, expected);
            }
            Err(Unreachable::After | Unreachable::NotFound(_) | Unreachable::NoBackup) => {
                if !matches!(target, Target::Immediate) {
                    prop_assert!(server.iter().all(|s| *s == Replayed::Ended), "{:?}", server);
                }
            }
            Err(Unreachable::Before) => match target {
                Target::Lsn(lsn) => prop_assert!(lsn < history.windows[0].from),
                Target::Time(time) => {
                    let first = history.records.iter().find_map(|(_, what)| match what { What::End(end) => Some(end.time), _ => None });
                    prop_assert!(first.unwrap() >= time);
                }
                _ => prop_assert!(false),
            },
            Err(Unreachable::Gap { from, until }) => {
                prop_assert!(history.windows.iter().any(|w| w.until == from) && history.windows.iter().any(|w| w.from == until));
                prop_assert!(history.records.iter().all(|(lsn, _)| *lsn < from || *lsn >= until));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
