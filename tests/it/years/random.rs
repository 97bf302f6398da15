//! Random histories under random rules: after each run of `expire` every moment that was promised still resolves, every
//! kept backup can be restored, and a quick verification is clean.

use proptest::prelude::*;

use super::history::{Happening, History, Script};
use super::oracle::Policy;
use super::runs::live_with_runs;

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        any::<bool>().prop_map(|goes_on| Happening::Failover { goes_on }),
        Just(Happening::Upgrade),
        Just(Happening::LostSegment),
        Just(Happening::NoBackup),
        Just(Happening::Interrupted),
        Just(Happening::LostPack),
        (-8 * 3600..8 * 3600_i64).prop_map(Happening::ClockOff),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    (any::<u64>(), 8..24_i64).prop_flat_map(|(seed, days)| {
        prop::collection::vec((1..days, happening()), 0..10).prop_map(move |happenings| {
            let quiet = Script::quiet(seed, days);
            happenings.into_iter().fold(quiet, |script, (day, what)| script.on(day, what))
        })
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let count = || prop_oneof![2 => Just(0), 1 => 1..4_u32];
    let zone = prop_oneof![Just(None), Just(Some("Europe/Amsterdam")), Just(Some("Pacific/Auckland"))];
    let rules = (prop::option::of(1..6_i64), prop::option::of(1..8_i64), 1..3_u32, (count(), count(), count(), count()), zone);
    rules.prop_map(|(recovery_window, keep_within, keep_last, (keep_daily, keep_weekly, keep_monthly, keep_yearly), zone)| {
        Policy { recovery_window, keep_within, keep_last, keep_daily, keep_weekly, keep_monthly, keep_yearly, zone }
    })
}

fn lives(script: &Script, policy: &Policy) {
    live_with_runs(&History::make(script), "random", policy, 1, false);
}

/// All segments of the old timeline were stored before the window, and its `.partial` in it: what leads to that file
/// stays, although the new timeline begins with a newer backup.
#[test]
fn a_partial_file_says_that_its_timeline_was_alive() {
    let script = Script::quiet(18_236_403_592_825_491_812, 10)
        .on(7, Happening::LostSegment)
        .on(8, Happening::Failover { goes_on: false })
        .on(8, Happening::Interrupted);
    let policy = Policy {
        keep_last: 2,
        keep_within: Some(3),
        keep_daily: 3,
        keep_yearly: 3,
        recovery_window: Some(1),
        ..Policy::default()
    };
    lives(&script, &policy);
}

/// A backup before a gap is what the window begins with for a few hours only: it waits for as long as a plan looks
/// ahead.
#[test]
fn a_backup_before_a_gap_goes_when_the_window_has_passed_it() {
    let script = Script::quiet(13_393_256_939_800_026_348, 14).on(2, Happening::Upgrade).on(6, Happening::LostSegment);
    let script = script.on(9, Happening::ClockOff(20_412)).on(10, Happening::Failover { goes_on: false });
    let script = script.on(10, Happening::ClockOff(16_619)).on(10, Happening::ClockOff(22_731)).on(13, Happening::Upgrade);
    lives(&script, &Policy { keep_last: 1, keep_weekly: 1, recovery_window: Some(3), ..Policy::default() });
}

/// Two timelines that end on one day, each with a `.partial` file, and the second without any segment.
#[test]
fn what_is_left_of_a_timeline_without_segments_stays_as_long_as_it_was_alive() {
    let ends = Happening::Failover { goes_on: false };
    let script = Script::quiet(5_826_111_301_342_677_548, 12).on(5, ends).on(5, ends);
    let policy = Policy {
        keep_last: 2,
        keep_within: Some(2),
        recovery_window: Some(3),
        zone: Some("Europe/Amsterdam"),
        ..Policy::default()
    };
    lives(&script, &policy);
}

/// The same behind a gap after which there is no backup: nobody can say what leads there.
#[test]
fn what_is_left_of_a_timeline_behind_a_gap_may_stay() {
    let ends = Happening::Failover { goes_on: false };
    let script = Script::quiet(4_540_773_186_251_765_711, 10).on(3, Happening::LostSegment).on(4, ends);
    let script = script.on(4, Happening::NoBackup).on(4, ends);
    let policy = Policy {
        keep_last: 2,
        keep_within: Some(1),
        recovery_window: Some(3),
        zone: Some("Pacific/Auckland"),
        ..Policy::default()
    };
    lives(&script, &policy);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 30, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_keep_what_is_promised(script in script(), policy in policy()) {
        lives(&script, &policy);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    #[ignore = "long: about 14 min"]
    fn long_random_histories_keep_what_is_promised(script in script(), policy in policy()) {
        lives(&script, &policy);
    }
}
