//! Real processes with real data that are killed (SIGKILL) at any time: a base backup beside `expire --confirm`, and
//! two runs of `expire --confirm` at once. No backup that counts lacks anything, the next runs remove what was left,
//! and the newest backup is restored. [`super::kills`] tries every request, without processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::hosts;
use crate::pitr::Site;
use crate::support::command::{Ran, Running};
use crate::support::postgres::{Cluster, Scratch, Stop};
use crate::support::s3::S3Server;

const MAJOR: u32 = 15;
/// So short that backups under way are given up, too.
const RULES: &str = "keep_last = 1\ngrace = '1s'\n";
/// Longer than the grace period, by clocks of whole seconds.
const LATER: Duration = Duration::from_millis(2100);
const ROWS: &str = "select count(*) || ' ' || sum(n) || ' ' || sum(hashtextextended(t::text, 0)) from t";

struct Place {
    site: Site,
    primary: Cluster,
    random: fastrand::Rng,
    /// Backups that ended well, those that were given up by `expire`, and processes that were killed.
    ended: usize,
    given_up: usize,
    killed: usize,
    _server: Option<S3Server>,
}

impl Place {
    fn in_a_directory(seed: u64) -> Self {
        Self::with(hosts::in_a_directory(RULES), None, seed)
    }

    fn on_s3(seed: u64) -> Self {
        let server = S3Server::start_tls();
        let site = hosts::on_s3(Scratch::new(), &server, RULES, &[]);
        Self::with(site, Some(server), seed)
    }

    fn with(site: Site, server: Option<S3Server>, seed: u64) -> Self {
        let primary = site.primary(MAJOR);
        primary.sql("create table t as select i, 0 as n, md5(i::text) as x from generate_series(1, 20000) i");
        let random = fastrand::Rng::with_seed(seed);
        let place = Self { site, primary, random, ended: 0, given_up: 0, killed: 0, _server: server };
        place.site.backup(&place.primary, &[]);
        place
    }

    /// Something for the next backup to store; most of what was there stays as it is.
    fn change(&mut self) {
        let from = self.random.u32(0..19_000);
        self.primary.sql(&format!("update t set n = n + 1 where i between {from} and {}", from + 500));
    }

    fn expire(&self) -> Running {
        self.site.start(&["--json", "expire", "--confirm"])
    }

    /// What a backup came to that nobody killed: it ended well, or was given up because it took longer than the grace
    /// period, and says so.
    fn backed_up(&mut self, ran: Ran) {
        if ran.code() == 0 {
            self.ended += 1;
            return;
        }
        ran.exits(16).tells_the_way_out().says(&["expire"]);
        self.given_up += 1;
    }

    /// Nothing lacks anything.
    #[track_caller]
    fn is_whole(&self, when: &str) {
        let ran = self.site.run(&["verify", "--quick"]);
        assert_eq!(ran.code(), 0, "{when}: {}{}", ran.stdout, ran.stderr);
        assert!(!self.site.backups().is_empty(), "{when}: no backup is left");
    }

    /// A backup that nobody disturbs, and runs until nothing is left to do. Then the newest is restored.
    fn settles(mut self) {
        self.change();
        let newest = self.site.backup(&self.primary, &[]).id().to_owned();
        let rows = self.primary.sql(ROWS);
        self.primary.switch_and_archive();
        for _ in 0..3 {
            std::thread::sleep(LATER);
            self.site.run(&["expire", "--confirm"]).exits(0);
        }
        assert_eq!(self.site.backups(), [newest]);
        let plan: Value = self.site.json(&["expire"]);
        let [plan] = plan.as_array().unwrap().as_slice() else { panic!("{plan:#}") };
        assert_eq!((&plan["tombstones"], &plan["systems"][0]["left_packs"]), (&Value::Array(Vec::new()), &0.into()), "{plan:#}");
        for field in ["manifests", "packs", "wal_files"] {
            assert_eq!(plan["goes"][field], 0, "{plan:#}");
        }
        // Every pack that is there is one that the backup refers to, and whole.
        self.site.run(&["verify", "--quick"]).exits(0);
        self.site.run(&["verify", "--full"]).exits(0);
        let mut restored = self.site.recover("restored", MAJOR, &["--target", "latest"]);
        assert_eq!(restored.sql(ROWS), rows);
        restored.stop(Stop::Fast);
    }
}

/// Base backups beside runs of `expire`, of which two out of three are killed.
fn backups_are_killed(mut place: Place, rounds: usize) {
    // How long one takes: undisturbed, and then as the last one did that was meant to be killed and ended before.
    place.change();
    let mut took = place.site.start_backup(&place.primary, &[]).wait().exits(0).took;
    for round in 0..rounds {
        place.change();
        let backup = place.site.start_backup(&place.primary, &[]);
        let is_killed = round % 3 != 2;
        let after = if is_killed { took.mul_f64(place.random.f64() * 0.7) } else { Duration::MAX };
        // What is named by one of them goes by a later one, while the backup is under way or after it.
        let done = AtomicBool::new(false);
        let (ran, was_killed) = std::thread::scope(|scope| {
            let (site, is_done) = (&place.site, &done);
            let expiring = scope.spawn(move || {
                while !is_done.load(Ordering::Relaxed) {
                    site.run(&["expire", "--confirm"]).exits(0);
                }
            });
            let outcome = backup.ends_or_dies(after);
            done.store(true, Ordering::Relaxed);
            expiring.join().unwrap();
            outcome
        });
        if was_killed {
            place.killed += 1;
        } else {
            if is_killed {
                took = ran.took;
            }
            place.backed_up(ran);
        }
        place.is_whole(&format!("round {round}"));
    }
    let Place { killed, ended, given_up, .. } = place;
    println!("{killed} killed, {ended} ended, {given_up} given up");
    assert!(killed > 0 && ended + given_up > 0);
    place.settles();
}

/// Two runs of `expire` at once, of which most are killed, and then a run that is not.
fn expires_are_killed(mut place: Place, rounds: usize) {
    place.change();
    place.site.backup(&place.primary, &[]);
    place.site.run(&["expire", "--confirm"]).exits(0);
    std::thread::sleep(LATER);
    // One that deletes: as long as any, until one ends before it is killed.
    let mut took = place.expire().wait().exits(0).took;
    for round in 0..rounds {
        place.change();
        place.site.backup(&place.primary, &[]);
        place.primary.switch_and_archive();
        // In turn the first phase and the second are in danger.
        for phase in 0..2 {
            let (one, other) = (place.expire(), place.expire());
            let mut after = || if place.random.u8(0..4) == 0 { Duration::MAX } else { took.mul_f64(place.random.f64() * 0.7) };
            let (first, second) = (after(), after());
            let outcomes = std::thread::scope(|scope| {
                let one = scope.spawn(move || one.ends_or_dies(first));
                [other.ends_or_dies(second), one.join().unwrap()]
            });
            for ((ran, was_killed), after) in outcomes.into_iter().zip([second, first]) {
                if was_killed {
                    place.killed += 1;
                } else {
                    let ran = ran.exits(0);
                    if after < Duration::MAX {
                        took = ran.took;
                    }
                }
            }
            place.is_whole(&format!("round {round}, phase {phase}"));
            if phase == 0 {
                std::thread::sleep(LATER);
            }
        }
    }
    assert!(place.killed > 0);
    place.settles();
}

#[test]
fn in_a_directory_a_backup_is_killed_beside_expire() {
    backups_are_killed(Place::in_a_directory(1), 6);
}

#[test]
fn on_s3_a_backup_is_killed_beside_expire() {
    backups_are_killed(Place::on_s3(2), 6);
}

#[test]
fn in_a_directory_two_runs_of_expire_are_killed() {
    expires_are_killed(Place::in_a_directory(3), 3);
}

#[test]
fn on_s3_two_runs_of_expire_are_killed() {
    expires_are_killed(Place::on_s3(4), 3);
}

#[test]
#[ignore = "long: about 8 min"]
fn long_backups_and_runs_of_expire_are_killed_many_times() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    backups_are_killed(Place::in_a_directory(seed), 40);
    backups_are_killed(Place::on_s3(seed), 40);
    expires_are_killed(Place::in_a_directory(seed), 25);
    expires_are_killed(Place::on_s3(seed), 25);
}
