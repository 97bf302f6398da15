//! Two years under each kind of rules that operators have, day by day: what the plan lets go is what the oracle lets
//! go, no more and no less, and every moment that is promised is reached as if nothing had ever been deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use walvis::config::Retention;
use walvis::format::extent::{BackupId, PackId};
use walvis::pg::scan::PgTime;
use walvis::pg::target::Zone;
use walvis::repo::{ObjectSet, Repository};
use walvis::retention::plan::{Hooks, Plan, PlanRequest, SystemPlan, plan};
use walvis::verify::{Finding, Hooks as VerifyHooks, Mode, VerifyRequest, Window, verify};

use super::history::{DAY, Happening, History, Script, cluster};
use super::oracle::{Fate, Object, Pins, Policy, judge};
use super::promises;
use super::replica::Replica;
use super::runs::live_with_runs;

/// The rules, as the settings have them.
pub fn rules(policy: &Policy) -> Retention {
    let days = |days: i64| Duration::from_secs(u64::try_from(days * DAY).unwrap());
    let count = |count: u32| Some(count).filter(|count| *count > 0);
    Retention {
        recovery_window: policy.recovery_window.map(days),
        keep_last: count(policy.keep_last),
        keep_within: policy.keep_within.map(days),
        keep_daily: count(policy.keep_daily),
        keep_weekly: count(policy.keep_weekly),
        keep_monthly: count(policy.keep_monthly),
        keep_yearly: count(policy.keep_yearly),
        zone: policy.zone.map_or_else(Zone::utc, |name| Zone::parse(name).unwrap()),
        ..Retention::default()
    }
}

/// What a set of one system identifier holds.
pub fn objects(system: u64, set: &ObjectSet) -> BTreeSet<Object> {
    let mut found = BTreeSet::new();
    for (timeline, runs) in set.segments() {
        let numbers = runs.iter().flat_map(|(first, last)| first..=last);
        found.extend(numbers.map(|number| Object::Segment(system, timeline.0, number)));
    }
    found.extend(set.wal_files().filter_map(|file| Object::wal(system, &file)));
    for (backup, runs) in set.packs() {
        let numbers = runs.iter().flat_map(|(first, last)| first..=last);
        found.extend(numbers.map(|number| Object::Pack(system, PackId { backup, number: u32::try_from(number).unwrap() })));
    }
    found.extend(set.manifests().map(|backup| Object::Manifest(system, backup)));
    found
}

/// The plan of that moment.
pub fn planned(repository: &Repository, rules: &Retention, pins: &BTreeSet<BackupId>, now: i64) -> Plan {
    let cluster = cluster();
    let request = PlanRequest {
        repository,
        cluster: &cluster,
        rules,
        pins,
        give_up: &BTreeSet::new(),
        may_be_lost: &BTreeSet::new(),
        gone: &BTreeMap::new(),
        now: PgTime::from_unix_us(now * 1_000_000).unwrap(),
        ahead: Duration::ZERO,
        hooks: Hooks { go_on: &|| Ok(()), looked_at: &|_| {} },
    };
    plan(&request).unwrap()
}

/// What a plan keeps, in one line.
fn told(plan: &Plan) -> String {
    let mut words = String::new();
    for system in &plan.systems {
        for backup in system.backups.iter().filter(|backup| backup.stays()) {
            words += &format!("{} {:?}, ", backup.id, backup.reasons);
        }
        for window in &system.windows {
            let ids: Vec<String> = window.backups.iter().map(ToString::to_string).collect();
            words += &format!("timeline {} of {} from {:?} by {ids:?}; ", window.timeline, system.facts.system_id, window.from);
        }
    }
    words
}

/// A quick verification finds nothing that matters, but for what the history itself lost.
pub fn quick_is_clean(history: &History, replica: &Replica<'_>, policy: &Policy, now: i64, when: &str) {
    let moment = |days: i64| PgTime::from_unix_us((now - days * DAY) * 1_000_000).unwrap();
    let window = Window::Rules { since: policy.recovery_window.map(moment) };
    let request = VerifyRequest { mode: Mode::Quick, jobs: 2, max_bytes_per_s: None, window, seen: None };
    let hooks = VerifyHooks { go_on: &|| Ok(()), progress: &|_| {} };
    let verified = verify(&replica.repository, &cluster(), &request, &hooks).unwrap();
    let was_lost = |finding: &&Finding| {
        let subject = finding.subject.to_string();
        history.truth.systems.iter().any(|system| {
            let packs = system.lost_packs.iter().map(|pack| Object::Pack(system.id, *pack).key());
            let segments = system.lost_segments.iter().map(|(timeline, n)| Object::Segment(system.id, *timeline, *n).key());
            packs.chain(segments).any(|lost| subject.starts_with(&lost))
        })
    };
    let wrong: Vec<String> = verified
        .findings
        .that_matter
        .iter()
        .filter(|finding| !was_lost(finding))
        .map(|finding| format!("{}: {:?} {} {:?}", finding.subject, finding.problem, finding.detail, finding.cost))
        .collect();
    assert!(wrong.is_empty(), "{when}: a quick verification finds {wrong:#?}");
}

/// Years in which everything happens now and then.
pub fn years(seed: u64, days: i64, upgrade: i64) -> Script {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut script = Script::quiet(seed, days).on(upgrade, Happening::Upgrade);
    for day in 3..days {
        if day == upgrade {
            continue;
        }
        let what = match random.u32(0..200) {
            0..4 => Happening::Failover { goes_on: random.bool() },
            4..7 => Happening::LostSegment,
            7..14 => Happening::NoBackup,
            14..18 => Happening::Interrupted,
            18..20 => Happening::LostPack,
            20..23 => Happening::ClockOff(random.i64(-6 * 3600..6 * 3600)),
            _ => continue,
        };
        script = script.on(day, what);
    }
    script
}

/// The rules of OPERATING.md and of usual contracts.
pub fn policies() -> Vec<(&'static str, Policy)> {
    let quiet = Policy::default;
    vec![
        ("a week locally", Policy { recovery_window: Some(7), keep_within: Some(30), keep_last: 2, ..quiet() }),
        ("a month offsite", Policy { recovery_window: Some(30), keep_within: Some(90), ..quiet() }),
        (
            "days, weeks, months",
            Policy {
                recovery_window: Some(7),
                keep_daily: 7,
                keep_weekly: 4,
                keep_monthly: 12,
                zone: Some("Europe/Amsterdam"),
                ..quiet()
            },
        ),
        ("the last two", Policy { keep_last: 2, ..quiet() }),
        ("years", Policy { recovery_window: Some(1), keep_yearly: 2, keep_monthly: 3, zone: Some("Asia/Tokyo"), ..quiet() }),
        (
            "all at once",
            Policy {
                recovery_window: Some(7),
                keep_last: 2,
                keep_within: Some(30),
                keep_daily: 7,
                keep_weekly: 4,
                keep_monthly: 12,
                keep_yearly: 1,
                zone: Some("America/New_York"),
            },
        ),
    ]
}

/// Lives through a history under a policy, with a run of `expire` every so many days, and some backups pinned for a
/// while. How many objects went.
pub fn live(history: &History, name: &str, policy: &Policy, every: i64, asked_every: i64) -> usize {
    let rules = rules(policy);
    let mut replica = Replica::new(history);
    let mut random = fastrand::Rng::with_seed(history.days().unsigned_abs());
    let (mut pins, mut gone) = (Pins::new(), 0);
    for day in (1..=history.days()).step_by(usize::try_from(every).unwrap()) {
        let now = history.begin + day * DAY - DAY / 2 + random.i64(0..DAY / 4);
        replica.advance(now);
        if day % 40 < every
            && let Some((_, id)) = replica.newest_backup()
        {
            pins.insert(id, random.bool().then(|| now + random.i64(10..120) * DAY));
        }
        if day % 97 < every
            && let Some(id) = pins.keys().next().copied()
        {
            pins.remove(&id);
        }
        let verdict = judge(&history.truth, &replica.present, policy, &pins, now);
        let pinned: BTreeSet<BackupId> =
            pins.iter().filter(|(_, until)| until.is_none_or(|until| until > now)).map(|(id, _)| *id).collect();
        let plan = planned(&replica.repository, &rules, &pinned, now);
        let of_system = |system: &SystemPlan| objects(system.facts.system_id.0, &system.goes);
        let goes: BTreeSet<Object> = plan.systems.iter().flat_map(of_system).collect();
        for object in &replica.present {
            let fate = verdict.of(object);
            let is_right = match fate {
                Fate::Stays => !goes.contains(object),
                Fate::Goes => goes.contains(object),
                Fate::Open => true,
            };
            assert!(
                is_right,
                "{name}, day {day}: {} {fate:?}, but the plan lets it {}\nkept: {:?}\nplanned: {}",
                object.key(),
                if goes.contains(object) { "go" } else { "stay" },
                verdict.told(),
                told(&plan),
            );
        }
        assert!(goes.is_subset(&replica.present), "{name}, day {day}: it lets go what is not there");
        gone += goes.len();
        goes.iter().for_each(|object| replica.delete(object));
        if day % asked_every < every {
            promises::hold(history, &replica, &verdict, policy, now, &mut random);
        }
    }
    gone
}

#[test]
fn months_under_each_policy() {
    let history = History::make(&years(3, 100, 60));
    std::thread::scope(|scope| {
        for (name, policy) in policies() {
            let history = &history;
            scope.spawn(move || assert!(live(history, name, &policy, 1, 10) > 50, "{name}"));
        }
    });
}

#[test]
#[ignore = "long: 65 min of CPU time"]
fn long_two_years_under_each_policy() {
    let history = History::make(&years(4, 731, 400));
    std::thread::scope(|scope| {
        for (name, policy) in policies() {
            let history = &history;
            scope.spawn(move || assert!(live_with_runs(history, name, &policy, 5, true) > 1000, "{name}"));
        }
    });
}
