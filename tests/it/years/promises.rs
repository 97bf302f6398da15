//! What a window promises, held against a twin of the repository from which nothing is ever deleted.

use std::sync::Arc;

use walvis::pg::Timeline;
use walvis::pg::scan::PgTime;
use walvis::pg::target::{Target, TargetTimeline, Zone};
use walvis::recovery::{ResolveRequest, answer};
use walvis::repo::Repository;
use walvis::report::resolve::ResolveReport;

use super::history::{DAY, History, cluster, facts_of, open};
use super::oracle::{Policy, Verdict};
use super::replica::Replica;

/// Moments that are tried on each timeline.
const MOMENTS: usize = 4;

fn request(target: Target, timeline: u32) -> ResolveRequest {
    ResolveRequest {
        target,
        inclusive: true,
        timeline: Some(TargetTimeline::Number(Timeline(timeline))),
        from: None,
        backup: None,
        system_id: None,
        zone: Zone::utc(),
    }
}

fn ask(repository: &Repository, system: u64, request: &ResolveRequest) -> Option<ResolveReport> {
    answer(repository, &cluster(), facts_of(system), request).ok().filter(|report| report.reachable)
}

fn stop_of(report: &ResolveReport) -> Option<(Option<String>, Option<String>)> {
    let first = report.first_excluded.as_ref().map(|end| end.lsn.clone());
    Some((report.stop.as_ref().map(|stop| stop.lsn.clone()), first))
}

/// Whether the backup that an answer begins with has all its packs.
fn comes_from_a_good_one(history: &History, system: u64, answer: &ResolveReport) -> bool {
    let id = answer.backup.as_ref().and_then(|backup| backup.backup_id.as_deref());
    let system = history.truth.systems.iter().find(|other| other.id == system).unwrap();
    let own = system.backups.iter().find(|backup| Some(&*backup.id.to_string()) == id);
    own.is_none_or(|backup| backup.packs.is_disjoint(&system.lost_packs))
}

/// Every moment of the window that the twin reaches is reached, and at the same record; and so is every kept backup.
pub fn hold(history: &History, replica: &Replica<'_>, verdict: &Verdict, policy: &Policy, now: i64, random: &mut fastrand::Rng) {
    let twin = open(&Arc::new(history.store.seen_at(now)));
    let window = policy.recovery_window.unwrap_or_default() * DAY;
    for (system, timeline) in &verdict.alive {
        let mut targets = vec![Target::Latest];
        if window > 0 {
            let mut times = vec![now - window];
            times.extend((0..MOMENTS).map(|_| now - random.i64(0..window)));
            targets.extend(times.into_iter().map(|time| Target::Time(PgTime::from_unix_us(time * 1_000_000).unwrap())));
        }
        for target in targets {
            let request = request(target, *timeline);
            let Some(expected) = ask(&twin, *system, &request) else { continue };
            // It looks at no packs: a backup that lacks one is not good, and what leads to nothing else is not
            // promised.
            if !comes_from_a_good_one(history, *system, &expected) {
                continue;
            }
            let answered = answer(&replica.repository, &cluster(), facts_of(*system), &request)
                .unwrap_or_else(|e| panic!("{} on timeline {timeline}: {e}", expected.target));
            assert!(
                answered.reachable,
                "day {}: {} on timeline {timeline} of {system} is promised: {:?}\n{:?}\nexpected {expected:?}",
                (now - history.begin) / DAY,
                answered.target,
                answered.reason,
                verdict.kept,
            );
            assert_eq!(stop_of(&answered), stop_of(&expected), "{}", answered.target);
        }
    }
    for system in &history.truth.systems {
        for backup in system.backups.iter().filter(|backup| verdict.kept.contains_key(&backup.id)) {
            let request = ResolveRequest { backup: Some(backup.id), ..request(Target::Immediate, backup.timeline) };
            if ask(&twin, system.id, &request).is_none() {
                continue;
            }
            let answered = answer(&replica.repository, &cluster(), facts_of(system.id), &request).unwrap();
            assert!(answered.reachable, "backup {} is kept ({}): {:?}", backup.id, verdict.kept[&backup.id], answered.reason);
        }
    }
}
