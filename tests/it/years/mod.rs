//! Retention over years: histories of a cluster, day by day, under rules of every kind, against an oracle that was
//! written from `docs/RETENTION.md` alone ([`oracle`]), and against a twin from which nothing is ever deleted
//! ([`promises`]).

mod beside;
mod command;
mod history;
mod hosts;
mod killed;
mod kills;
mod obstructed;
mod oracle;
mod policies;
mod processes;
mod promises;
mod purged;
mod random;
mod replica;
mod restored;
mod runs;
mod store;
mod withdrawn;

use history::{DAY, Happening, History, Script};
use oracle::{Fate, Object, Pins, Policy, judge};
use replica::Replica;

/// A few weeks in which everything happens.
fn eventful(seed: u64) -> Script {
    Script::quiet(seed, 40)
        .on(5, Happening::Failover { goes_on: false })
        .on(8, Happening::NoBackup)
        .on(9, Happening::LostSegment)
        .on(12, Happening::Failover { goes_on: true })
        .on(14, Happening::Interrupted)
        .on(17, Happening::LostPack)
        .on(20, Happening::Upgrade)
        .on(27, Happening::Failover { goes_on: true })
        .on(31, Happening::ClockOff(5 * 3600))
        .on(34, Happening::ClockOff(-3 * 3600))
}

/// Where the oracle lets everything go at once, nobody misses anything: it is right about the promise.
#[test]
fn what_the_oracle_lets_go_nobody_misses() {
    let history = History::make(&eventful(1));
    let policies = [
        Policy { recovery_window: Some(7), keep_last: 2, ..Policy::default() },
        Policy { recovery_window: Some(3), keep_daily: 2, keep_weekly: 3, ..Policy::default() },
        Policy { keep_last: 1, ..Policy::default() },
    ];
    for policy in &policies {
        let mut replica = Replica::new(&history);
        let mut random = fastrand::Rng::with_seed(7);
        let mut gone = 0;
        for day in 1..=history.days() {
            let now = history.begin + day * DAY - DAY / 2;
            replica.advance(now);
            let verdict = judge(&history.truth, &replica.present, policy, &Pins::new(), now);
            let going: Vec<Object> = replica.present.iter().filter(|o| verdict.of(o) == Fate::Goes).cloned().collect();
            gone += going.len();
            going.iter().for_each(|object| replica.delete(object));
            assert!(replica.found() == replica.present);
            if day % 3 == 0 {
                promises::hold(&history, &replica, &verdict, policy, now, &mut random);
            }
        }
        assert!(gone > 100, "{gone} objects went");
    }
}
