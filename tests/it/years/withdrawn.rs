//! Rules that want back what they let go the day before: windows and ages move, so a backup that is too old for one of
//! them may be what the other begins with a day later. What is named has to be what stays unneeded until it is deleted;
//! else each run withdraws what the one before named, and nothing ever goes.

use std::collections::{BTreeMap, BTreeSet};

use walvis::config::Retention;

use super::eventful;
use super::history::{DAY, History, Script};
use super::oracle::{Fate, Object, Pins, Policy, judge};
use super::policies::{policies, rules};
use super::replica::Replica;
use super::runs::{GRACE, named, run};

/// Runs in a row that may leave an object although it may go at each of them: it is about to be what the window begins
/// with, for as long as two runs are apart and a little longer; then it is named, and then deleted.
const PATIENCE: usize = 5;

/// What came of it.
#[derive(Debug)]
struct Came {
    runs: usize,
    /// Runs that withdrew something.
    withdrew: usize,
    deleted: usize,
    /// The most runs in a row that left an object that may go.
    waited: usize,
}

/// Lives through a history under a policy, with a run every so many days.
fn live(history: &History, policy: &Policy, every: i64) -> Came {
    let rules = Retention { grace: GRACE, ..rules(policy) };
    let mut replica = Replica::new(history);
    let mut random = fastrand::Rng::with_seed(every.unsigned_abs());
    let mut waits: BTreeMap<Object, usize> = BTreeMap::new();
    let mut waiting = BTreeSet::new();
    let mut came = Came { runs: 0, withdrew: 0, deleted: 0, waited: 0 };
    for day in (1..=history.days()).step_by(usize::try_from(every).unwrap()) {
        let now = history.begin + day * DAY - DAY / 2 + random.i64(0..DAY / 4);
        replica.advance(now);
        let counts = replica.present.difference(&waiting).cloned().collect();
        let verdict = judge(&history.truth, &counts, policy, &Pins::new(), now);
        let executed = run(&replica, &rules, now);
        let found = replica.found();
        came.runs += 1;
        came.withdrew += usize::from(!executed.withdrawn.is_empty());
        came.deleted += replica.present.difference(&found).count();
        let goes = |object: &&Object| waiting.contains(*object) || verdict.of(object) == Fate::Goes;
        let still: Vec<&Object> = found.iter().filter(goes).collect();
        waits = still.into_iter().map(|object| (object.clone(), waits.get(object).map_or(1, |times| times + 1))).collect();
        came.waited = came.waited.max(waits.values().copied().max().unwrap_or_default());
        waiting = named(&replica, &executed);
        waiting.retain(|object| found.contains(object));
        replica.present = found;
    }
    came
}

/// Windows and ages in every relation, with runs as often as backups, and more seldom.
fn cases() -> Vec<(String, Policy, i64)> {
    let quiet = Policy::default;
    let mut all: Vec<(String, Policy)> = Vec::new();
    for (within, window) in [(4, 5), (4, 6), (1, 3), (6, 7), (5, 5), (6, 5), (2, 9), (4, 14)] {
        let policy = Policy { keep_within: Some(within), recovery_window: Some(window), ..quiet() };
        all.push((format!("within {within}d, window {window}d"), policy));
    }
    for window in [1, 2, 3, 7] {
        all.push((format!("window {window}d alone"), Policy { recovery_window: Some(window), ..quiet() }));
        let last = Policy { keep_last: 2, recovery_window: Some(window), ..quiet() };
        all.push((format!("last 2, window {window}d"), last));
    }
    let days = Policy { keep_daily: 2, keep_weekly: 2, recovery_window: Some(4), ..quiet() };
    all.push(("daily 2, weekly 2, window 4d".to_owned(), days));
    all.extend(policies().into_iter().map(|(name, policy)| (name.to_owned(), policy)));
    [1, 3, 7]
        .into_iter()
        .flat_map(|every| all.iter().map(move |(name, policy)| (format!("{name}, every {every}d"), policy.clone(), every)))
        .collect()
}

/// Those that withdrew day after day while nobody looked ahead, and one of each other kind.
const FEW: [&str; 13] = [
    "within 4d, window 5d, every 1d",
    "within 6d, window 5d, every 1d",
    "window 2d alone, every 1d",
    "last 2, window 3d, every 1d",
    "daily 2, weekly 2, window 4d, every 1d",
    "all at once, every 1d",
    "last 2, window 7d, every 3d",
    "within 5d, window 5d, every 3d",
    "daily 2, weekly 2, window 4d, every 3d",
    "within 2d, window 9d, every 7d",
    "within 4d, window 14d, every 7d",
    "days, weeks, months, every 7d",
    "all at once, every 7d",
];

fn few() -> Vec<(String, Policy, i64)> {
    let mut all = cases();
    all.retain(|(name, ..)| FEW.contains(&name.as_str()));
    assert_eq!(all.len(), FEW.len());
    all
}

fn live_quietly(cases: Vec<(String, Policy, i64)>) {
    let history = History::make(&Script::quiet(11, 60));
    let mut wrong = Vec::new();
    for (name, policy, every) in cases {
        let came = live(&history, &policy, every);
        // How far apart runs are is known from the second one that finds something named.
        let at_first = if every == 1 { 0 } else { 2 };
        if came.withdrew > at_first || came.waited > PATIENCE {
            wrong.push(format!("{name}: {came:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn live_through_much(cases: Vec<(String, Policy, i64)>) {
    let history = History::make(&eventful(12));
    let mut wrong = Vec::new();
    for (name, policy, every) in cases.into_iter().filter(|(.., every)| *every == 1) {
        let came = live(&history, &policy, every);
        if came.withdrew > 4 || came.waited > 2 * PATIENCE {
            wrong.push(format!("{name}: {came:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_named_is_not_needed_again_and_goes_in_time() {
    live_quietly(few());
}

/// What happens to a cluster may bring something back now and then, and never day after day.
#[test]
fn what_happens_withdraws_little() {
    live_through_much(few());
}

#[test]
#[ignore = "long: about 2 min"]
fn long_no_rule_is_withdrawn_day_after_day() {
    live_quietly(cases());
    live_through_much(cases());
}
