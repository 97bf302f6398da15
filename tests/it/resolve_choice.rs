//! Which timeline and which backup are chosen, on random stored histories, against a naive reading of them: forks of
//! forks that are alive one after the other or at a time, orphans of which only the history is stored, histories,
//! segments and backups that are missing.

use std::collections::BTreeSet;
use std::io::Cursor;

use walvis::format::extent::BackupId;
use walvis::format::manifest::BackupSummary;
use walvis::pg::scan::{Event, Mark, PgTime, Record, XactEnd};
use walvis::pg::target::{Target, TargetTimeline, Zone};
use walvis::pg::{Lsn, SegmentName, Timeline, WalFileName};
use walvis::recovery::{ResolveRequest, answer};
use walvis::repo::{ClusterName, Content, Repository};
use walvis::report::resolve::ResolveReport;

use crate::resolve_random::{facts, put, repository, size};
use crate::support::backup::made_up;
use crate::support::wal::{Log, SEGMENT_BYTES, Writer};

/// Around the first and last time of a timeline nothing is asked: times in the log go to and fro by so much.
const BLUR: i64 = 30_000;

/// A made-up cluster, and what of it is stored.
struct World {
    logs: Vec<Log>,
    /// Of each log the one that it left.
    parents: Vec<Option<usize>>,
    stored: BTreeSet<SegmentName>,
    histories: BTreeSet<usize>,
    /// The log that each was taken on, where it begins, and where it is consistent.
    backups: Vec<(usize, Lsn, Lsn)>,
}

impl World {
    fn new(random: &mut fastrand::Rng) -> Self {
        let mut writers = vec![Writer::new(random.u64(..), 1)];
        let mut parents = vec![None];
        let mut backups = Vec::new();
        let mut time = 1 << 40;
        for turn in 0..random.usize(3..6) {
            // Some grow one after the other, some at a time.
            let alone = random.bool();
            for (index, slot) in writers.iter_mut().enumerate() {
                if random.bool() {
                    continue;
                }
                if alone {
                    time += 10_000_000;
                }
                let writer = std::mem::replace(slot, Writer::new(0, 1));
                *slot = writer.at(time, 1000 * u32::try_from(turn * 10 + index + 1).unwrap());
                if random.u32(0..3) == 0 {
                    let start = slot.lsn();
                    slot.busy(1);
                    backups.push((index, start, Lsn(0)));
                    slot.backup_end(start);
                    let last = backups.len() - 1;
                    backups[last].2 = slot.lsn();
                }
                for _ in 0..random.u32(1..4) {
                    slot.busy(3);
                }
            }
            time += 10_000_000;
            if writers.len() < 4 {
                let parent = random.usize(..writers.len());
                let number = u32::try_from(writers.len()).unwrap() + 1;
                writers[parent].little();
                let child = writers[parent].fork(number);
                writers.push(child);
                parents.push(Some(parent));
            }
        }
        let logs: Vec<Log> = writers.into_iter().map(Writer::finish).collect();
        let orphan = random.usize(..logs.len());
        let mut stored = BTreeSet::new();
        for (index, log) in logs.iter().enumerate() {
            // Of some only the history is stored.
            if index > 0 && index == orphan {
                continue;
            }
            stored.extend(log.segments.iter().map(|(_, name, _)| *name).filter(|_| random.u32(0..25) > 0));
        }
        let histories = (1..logs.len()).filter(|_| random.u32(0..6) > 0).collect();
        backups.retain(|_| random.u32(0..4) > 0);
        Self { logs, parents, stored, histories, backups }
    }

    /// From the first to this one.
    fn path(&self, index: usize) -> Vec<usize> {
        let mut path = vec![index];
        while let Some(parent) = self.parents[*path.last().unwrap()] {
            path.push(parent);
        }
        path.reverse();
        path
    }

    fn own(&self, index: usize) -> impl Iterator<Item = &Record<Event>> {
        let begin = self.logs[index].begin;
        self.held(index).filter(move |r| r.start >= begin)
    }

    /// Of all segments of a timeline, what its first one has of the parent included.
    fn held(&self, index: usize) -> impl Iterator<Item = &Record<Event>> {
        let log = &self.logs[index];
        let is_there = |lsn: Lsn| {
            let name = SegmentName::from_number(log.timeline, lsn.0 / SEGMENT_BYTES, size()).unwrap();
            self.stored.contains(&name)
        };
        log.found.iter().filter(move |r| is_there(r.start) && is_there(Lsn(r.end.0 - 1)))
    }

    /// Whether a timeline whose history is missing may have been alive: where it began nobody knows, so what its first
    /// segment has of the parent counts as its own.
    fn may_have_been_alive(&self, index: usize, time: PgTime) -> bool {
        let times = || self.held(index).filter_map(time_of);
        index > 0
            && !self.histories.contains(&index)
            && times().min().zip(times().max()).is_some_and(|(from, until)| from <= time && time <= until)
    }

    /// From when to when it was alive; whether a time is near one of its ends.
    fn life(&self, index: usize) -> Option<(PgTime, PgTime)> {
        let times: Vec<PgTime> = self.own(index).filter_map(time_of).collect();
        times.iter().min().copied().zip(times.iter().max().copied())
    }

    fn store(&self) -> (Repository, ClusterName) {
        let (repository, cluster) = (repository(), ClusterName::new("main").unwrap());
        for index in &self.histories {
            let path = self.path(*index);
            let line = |pair: &[usize]| format!("{}\t{}\tno reason\n", self.logs[pair[0]].timeline, self.logs[pair[1]].begin);
            let text: String = path.windows(2).map(line).collect();
            let file = WalFileName::History(self.logs[*index].timeline);
            repository.put_wal(&cluster, facts().system_id, &file, &Content::of_bytes(text.as_bytes())).unwrap();
        }
        for (_, name, bytes) in self.logs.iter().flat_map(|log| &log.segments) {
            if self.stored.contains(name) {
                put(&repository, &cluster, *name, bytes, true);
            }
        }
        for (number, (index, start, stop)) in self.backups.iter().enumerate() {
            let summary = summary(u32::try_from(number).unwrap(), self.logs[*index].timeline, *start, *stop);
            repository.put_manifest(&cluster, facts().system_id, &summary, || Box::new(Cursor::new(Vec::new()))).unwrap();
        }
        (repository, cluster)
    }

    /// Whether a restore from a backup gets to a position on a path, by the files.
    fn leads(&self, path: &[usize], (on, start, stop): (usize, Lsn, Lsn), to: Lsn) -> bool {
        let target = *path.last().unwrap();
        let Some(at) = path.iter().position(|index| *index == on) else { return false };
        let left = path.get(at + 1).map_or(Lsn(u64::MAX), |child| self.logs[*child].begin);
        // Without a history the server stays on the timeline of the backup.
        if stop > left || stop > to || (target > 0 && !self.histories.contains(&target) && on != target) {
            return false;
        }
        (start.0 / SEGMENT_BYTES..=to.0 / SEGMENT_BYTES).all(|number| {
            let has = |index: usize| {
                self.stored.contains(&SegmentName::from_number(self.logs[index].timeline, number, size()).unwrap())
            };
            let newest = path.iter().rev().find(|index| self.logs[**index].begin.0 / SEGMENT_BYTES <= number).unwrap();
            has(*newest)
        })
    }
}

/// When something happened, as far as its record says.
fn time_of(record: &Record<Event>) -> Option<PgTime> {
    match &record.what {
        Event::XactEnd(end) => Some(end.time),
        Event::Mark(Mark::RestorePoint { time, .. } | Mark::EndOfRecovery { time, .. }) => Some(*time),
        Event::Mark(Mark::Checkpoint { time_unix_s, .. }) => PgTime::from_unix_us(time_unix_s * 1_000_000),
        _ => None,
    }
}

fn summary(number: u32, timeline: Timeline, start: Lsn, stop: Lsn) -> BackupSummary {
    BackupSummary {
        label: String::new(),
        // Long before all that is asked for: which time suits which backup is not the question here.
        started_unix_us: 0,
        start_lsn: start,
        checkpoint_lsn: start,
        stop_lsn: stop,
        timeline: timeline.0,
        wal_segment_bytes: SEGMENT_BYTES,
        ..made_up(BackupId::new(1_790_000_000 + i64::from(number), number).unwrap(), facts().system_id)
    }
}

fn ask(repository: &Repository, cluster: &ClusterName, target: Target, timeline: Option<Timeline>) -> ResolveReport {
    let request = ResolveRequest {
        target,
        inclusive: true,
        timeline: timeline.map(TargetTimeline::Number),
        from: None,
        backup: None,
        system_id: None,
        zone: Zone::utc(),
    };
    answer(repository, cluster, facts(), &request).unwrap()
}

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

#[test]
fn what_is_chosen_is_what_a_naive_reading_chooses() {
    let mut seen = [0; 4];
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new(&mut random);
        let (repository, cluster) = world.store();
        let lives: Vec<_> = (0..world.logs.len()).map(|index| world.life(index)).collect();
        if lives.iter().all(Option::is_none) {
            continue;
        }
        let json = |report: &ResolveReport| serde_json::to_string_pretty(report).unwrap();
        // The end of the archive is on the timeline with the newest transaction.
        let last = |index: usize| {
            let of = world.path(index);
            let own =
                of.iter().flat_map(|at| world.own(*at).filter(|r| of.iter().all(|c| c <= at || r.start < world.logs[*c].begin)));
            own.filter_map(|r| if let Event::XactEnd(XactEnd { time, .. }) = r.what { Some((r.start, time)) } else { None }).max()
        };
        let newest =
            (0..world.logs.len()).filter(|index| lives[*index].is_some()).max_by_key(|index| last(*index).map(|end| end.1));
        let report = ask(&repository, &cluster, Target::Latest, None);
        let others =
            |chosen: usize| (0..world.logs.len()).any(|i| i != chosen && last(i).map(|e| e.1) == last(chosen).map(|e| e.1));
        if let Some(newest) = newest.filter(|newest| !others(*newest)) {
            assert_eq!(report.timeline, world.logs[newest].timeline.0, "seed {seed}: {}", json(&report));
            seen[0] += 1;
        }
        // Times.
        for _ in 0..30 {
            let log = random.usize(..world.logs.len());
            let ends: Vec<PgTime> = world.logs[log]
                .found
                .iter()
                .filter_map(|r| if let Event::XactEnd(e) = r.what { Some(e.time) } else { None })
                .collect();
            let Some(time) = random.choice(&ends).map(|time| PgTime(time.0 + random.i64(-2..3) * 1000)) else { continue };
            let is_blurred =
                lives.iter().flatten().any(|(from, until)| [from, until].iter().any(|end| (end.0 - time.0).abs() < BLUR));
            if is_blurred {
                continue;
            }
            let alive: Vec<usize> = (0..lives.len())
                .filter(|i| lives[*i].is_some_and(|(from, until)| (*i == 0 || from <= time) && time <= until))
                .collect();
            let report = ask(&repository, &cluster, Target::Time(time), None);
            match alive[..] {
                [one]
                    if (one == 0 || world.histories.contains(&one))
                        && !(0..lives.len()).any(|other| world.may_have_been_alive(other, time)) =>
                {
                    assert_eq!(report.timeline, world.logs[one].timeline.0, "seed {seed}, {time:?}: {}", json(&report));
                    let named = ask(&repository, &cluster, Target::Time(time), Some(world.logs[one].timeline));
                    assert_eq!(
                        (report.reachable, &report.reason),
                        (named.reachable, &named.reason),
                        "seed {seed} {time:?} {lives:?} {}",
                        json(&report)
                    );
                    seen[1] += 1;
                }
                [_, _, ..] if report.is_ambiguous => {
                    assert!(!report.reachable && report.candidates.len() > 1, "seed {seed}: {}", json(&report));
                    let timelines: BTreeSet<u32> = report.candidates.iter().map(|place| place.timeline).collect();
                    assert!(timelines.len() == report.candidates.len(), "seed {seed}: {}", json(&report));
                    seen[2] += 1;
                }
                _ => {}
            }
            // Reachable is what a restore by the files reaches, from a backup that is stored.
            if report.reachable {
                let backup = report.backup.as_ref().unwrap();
                let path: Vec<usize> =
                    report.timeline_path.iter().map(|leg| usize::try_from(leg.timeline).unwrap() - 1).collect();
                let on = usize::try_from(backup.timeline.unwrap()).unwrap() - 1;
                let stop = lsn(&report.stop.as_ref().unwrap().lsn);
                assert!(
                    world.leads(&path, (on, lsn(&backup.start_lsn), lsn(&backup.stop_lsn)), stop),
                    "seed {seed}, {time:?}: {}",
                    json(&report)
                );
                seen[3] += 1;
            }
        }
        // What is said not to be reachable is not: no backup leads to that record.
        for _ in 0..20 {
            let log = random.usize(..world.logs.len());
            let Some(record) = random.choice(world.own(log).filter(|r| matches!(r.what, Event::XactEnd(_))).collect::<Vec<_>>())
            else {
                continue;
            };
            let timeline = world.logs[log].timeline;
            if log > 0 && !world.histories.contains(&log) {
                continue;
            }
            let report = ask(&repository, &cluster, Target::Lsn(record.start), Some(timeline));
            let path = world.path(log);
            let leads = world.backups.iter().any(|backup| world.leads(&path, *backup, record.start));
            assert_eq!(report.reachable, leads, "seed {seed}, {} on {timeline}: {}", record.start, json(&report));
        }
    }
    assert!(seen.iter().all(|seen| *seen > 10), "{seen:?}");
}
