//! `expire --confirm` itself, once a day: what is named is what the oracle lets go, what was named the day before is
//! gone, nothing else is, and what is promised holds after every run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use walvis::config::Retention;
use walvis::error::Error;
use walvis::format::extent::BackupId;
use walvis::pg::scan::PgTime;
use walvis::report::expire::Reason;
use walvis::retention::execute::{Executed, ExpireRequest, Watch, execute};
use walvis::retention::plan::Hooks;

use super::eventful;
use super::history::{DAY, History, cluster, facts_of};
use super::oracle::{Fate, Object, Pins, Policy, judge, segments_of};
use super::policies::{objects, quick_is_clean, rules};
use super::promises;
use super::replica::Replica;

/// Shorter than the time between two runs.
pub const GRACE: Duration = Duration::from_secs(16 * 3600);

pub fn run(replica: &Replica<'_>, rules: &Retention, now: i64) -> Executed {
    try_run(replica, rules, now, &|| Ok(())).unwrap()
}

/// The same; `deletes` is asked before each batch of deletions, and may end it.
pub fn try_run(
    replica: &Replica<'_>,
    rules: &Retention,
    now: i64,
    deletes: &dyn Fn() -> Result<(), Error>,
) -> Result<Executed, Error> {
    let cluster = cluster();
    let at = || PgTime::from_unix_us(now * 1_000_000).unwrap();
    let request = ExpireRequest {
        repository: &replica.repository,
        cluster: &cluster,
        rules,
        give_up: &BTreeSet::new(),
        purge_versions: false,
        now: &at,
        hooks: Hooks { go_on: &|| Ok(()), looked_at: &|_| {} },
        watch: Watch { go_on: deletes, deleted: &|_| {} },
    };
    execute(&request)
}

/// What tombstones name.
pub fn named(replica: &Replica<'_>, executed: &Executed) -> BTreeSet<Object> {
    let mut found = BTreeSet::new();
    for waiting in executed.waiting.iter().filter(|waiting| !executed.withdrawn.contains(&waiting.id)) {
        let names = replica.repository.read_tombstone(&cluster(), waiting.system_id, waiting.id).unwrap().unwrap();
        found.extend(objects(waiting.system_id.0, &names));
    }
    found
}

fn told(objects: &BTreeSet<Object>) -> Vec<String> {
    objects.iter().map(Object::key).collect()
}

/// A day for each grace period that the plan looks ahead, and one more for runs that are not exactly a day apart.
const LATE_DAYS: u32 = 3;

/// Lives through a history under a policy, with a run a day. How many objects went.
pub fn live_with_runs(history: &History, name: &str, policy: &Policy, asked_every: i64, verifies: bool) -> usize {
    let rules = Retention { grace: GRACE, ..rules(policy) };
    let mut replica = Replica::new(history);
    let mut random = fastrand::Rng::with_seed(history.days().unsigned_abs());
    let (mut pins, mut waiting, mut went, mut gone) = (Pins::new(), BTreeSet::new(), BTreeSet::new(), 0);
    let mut late: BTreeMap<Object, u32> = BTreeMap::new();
    let mut is_settled = true;
    for day in 1..=history.days() {
        let now = history.begin + day * DAY - DAY / 2 + random.i64(0..DAY / 4);
        let when = format!("{name}, day {day}");
        replica.advance(now);
        // What a tombstone names counts as gone.
        let counts: BTreeSet<Object> = replica.present.difference(&waiting).cloned().collect();
        if day % 9 == 4
            && let Some((system, id)) = replica.newest_backup()
        {
            // A time until which would have to be one to come, by the clock of this host.
            replica.repository.pin(&cluster(), facts_of(system).system_id, id, "the audit", None).unwrap();
            pins.insert(id, None);
        }
        if day % 20 == 19
            && let Some(id) = pins.keys().next().copied()
        {
            let removed = history.truth.systems.iter().filter(|system| {
                let id_of = facts_of(system.id).system_id;
                replica.repository.unpin(&cluster(), id_of, id).unwrap()
            });
            assert!(removed.count() <= 1);
            pins.remove(&id);
        }
        let verdict = judge(&history.truth, &counts, policy, &pins, now);
        let executed = run(&replica, &rules, now);
        let found = replica.found();
        let deleted: BTreeSet<Object> = replica.present.difference(&found).cloned().collect();
        assert!(found.is_subset(&replica.present), "{when}: something is there that was not");
        assert_eq!(executed.expired.tally.denied, 0, "{when}");
        // Where something that was named is needed again, all that was named with it waits for another day.
        let is_steady = executed.withdrawn.is_empty();
        // So does what a manifest might need that is there still: it was named later.
        let is_spared = |object: &&Object| is_in_a_backup(history, &found, object);
        let left: BTreeSet<Object> = waiting.difference(&deleted).filter(|object| !is_spared(object)).cloned().collect();
        assert!(!(is_steady && is_settled) || left.is_empty(), "{when}: these were named the day before: {:?}", told(&left));
        assert!(deleted.is_subset(&waiting), "{when}: something went that was not named the day before");
        is_settled = is_steady;
        waiting = named(&replica, &executed);
        let mut unnamed = BTreeSet::new();
        for object in counts.iter().filter(|_| is_steady) {
            match (verdict.of(object), waiting.contains(object)) {
                (Fate::Open, _) | (Fate::Goes, true) | (Fate::Stays, false) => {}
                (Fate::Goes, false) => drop(unnamed.insert(object.clone())),
                (Fate::Stays, true) => panic!("{when}: {} stays, and is named\nkept: {}", object.key(), verdict.told()),
            }
        }
        // What goes and is not named is of a backup that lies between what a window begins with now and what it will
        // begin with when things are deleted that are named now: the plan says so, as long as it looks ahead.
        let planned = executed.plan.systems.iter().flat_map(|system| &system.backups);
        let soon: BTreeSet<BackupId> =
            planned.filter(|backup| backup.reasons.contains(&Reason::WindowSoon)).map(|backup| backup.id).collect();
        late.retain(|object, _| unnamed.contains(object));
        for object in unnamed {
            let has_reason = match &object {
                Object::Manifest(_, id) => soon.contains(id),
                _ => !soon.is_empty(),
            };
            let days = late.entry(object.clone()).or_insert(0);
            *days += 1;
            let told = verdict.told();
            assert!(has_reason && *days <= LATE_DAYS, "{when}: {} goes, and is not named\nkept: {told}", object.key());
        }
        gone += deleted.len();
        went.extend(deleted);
        // A tombstone stays until all that it names is gone.
        assert!(waiting.iter().all(|object| found.contains(object) || went.contains(object)), "{when}: it names what never was");
        waiting.retain(|object| found.contains(object));
        replica.present = found;
        if day % asked_every == 0 {
            promises::hold(history, &replica, &verdict, policy, now, &mut random);
            if verifies {
                quick_is_clean(history, &replica, policy, now, &when);
            }
        }
    }
    gone
}

/// Whether a segment has the number of one between start and stop of a backup whose manifest is there: a backup of a
/// standby may go over to other timelines, so what there is of these on any timeline is spared.
fn is_in_a_backup(history: &History, found: &BTreeSet<Object>, object: &Object) -> bool {
    let Object::Segment(id, _, number) = object else { return false };
    let system = history.truth.systems.iter().find(|system| system.id == *id).unwrap();
    let there = system.backups.iter().filter(|backup| found.contains(&Object::Manifest(*id, backup.id)));
    there.map(segments_of).any(|segments| segments.contains(number))
}

#[test]
fn weeks_with_a_run_a_day() {
    let history = History::make(&eventful(2));
    let policies = [
        ("a week", Policy { recovery_window: Some(7), keep_last: 2, ..Policy::default() }),
        ("days and weeks", Policy { recovery_window: Some(2), keep_daily: 2, keep_weekly: 3, ..Policy::default() }),
    ];
    for (name, policy) in policies {
        assert!(live_with_runs(&history, name, &policy, 4, false) > 100, "{name}");
    }
}

#[test]
fn a_quick_verification_is_clean_after_each_run() {
    let history = History::make(&eventful(5));
    let policy = Policy { recovery_window: Some(5), keep_last: 1, keep_weekly: 2, ..Policy::default() };
    live_with_runs(&history, "five days", &policy, 3, true);
}
