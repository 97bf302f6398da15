//! Kills, outages, full disks, a server that goes away: nothing counts that is not complete, and a second run succeeds.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backup::copying;
use crate::outage::Tmpfs;
use crate::pitr::{Made, Site, number, objects, promote, random};
use crate::recovery::Archive;
use crate::support::command::{self, Running};
use crate::support::postgres::restored::assert_manifest;
use crate::support::postgres::{Cluster, Scratch, Stop, poll};
use crate::support::s3::{Action, Op, S3Server, Seen};

const IMMEDIATE: [&str; 2] = ["--target", "immediate"];

/// A cluster with some 30 MB, a third of which does not compress.
fn filled(site: &Site, major: u32) -> Cluster {
    let primary = site.primary(major);
    primary.sql("create table words as select i, repeat(md5(i::text), 8) as body from generate_series(1, 40000) i");
    primary.sql(
        "create table noise as select i, md5(random()::text) as a, md5(random()::text) as b from generate_series(1, 60000) i",
    );
    primary
}

/// Runs of one kind, killed somewhere in the time that the last one took that was not.
struct Killer {
    usual: Duration,
    random: fastrand::Rng,
    killed: u64,
    ended: u64,
}

impl Killer {
    fn new(usual: Duration) -> Self {
        Self { usual, random: random(), killed: 0, ended: 0 }
    }

    /// Whether more runs are wanted: so many have to be killed, however long they take on this machine.
    fn goes_on(&self) -> bool {
        let wanted = number("WALVIS_TEST_KILLS", 6);
        assert!(self.ended <= 10 * wanted, "of {} runs {} were killed", self.ended + self.killed, self.killed);
        self.killed < wanted
    }

    /// Kills a run at a moment, unless it ended before; whether it was killed.
    fn kills(&mut self, running: Running) -> bool {
        let (ran, was_killed) = running.ends_or_dies(self.usual.mul_f64(self.random.f64()));
        if was_killed {
            self.killed += 1;
        } else {
            self.usual = ran.exits(0).took;
            self.ended += 1;
        }
        was_killed
    }
}

/// Backups and restores killed at random moments: only what is complete is a backup, and only what is complete starts.
fn killed_at_random_moments(site: &Site, major: u32) {
    let mut primary = filled(site, major);
    let since = Instant::now();
    let first = site.backup(&primary, &[]);
    let mut killer = Killer::new(since.elapsed());
    let mut complete = vec![first.id().to_owned()];
    while killer.goes_on() {
        primary.sql(&format!("update noise set a = md5(random()::text) where i % 3 = {}", complete.len() % 3));
        let was_killed = killer.kills(site.start_backup(&primary, &[]));
        let listed = site.backups();
        if was_killed {
            // It may have been killed after its last act.
            assert!(listed.len() <= complete.len() + 1, "{listed:?} {complete:?}");
        } else {
            assert_eq!(listed.len(), complete.len() + 1);
        }
        complete = listed;
        // Its session is gone, and the server is not left in backup mode.
        let gone = || primary.sql("select count(*) from pg_stat_activity where application_name ilike '%walvis%'") == "0";
        poll(|| gone().then_some(())).expect("the session of a killed backup ends");
    }
    let last = site.backup(&primary, &[]);
    assert_eq!(site.backups().len(), complete.len() + 1);
    let expected = primary.digest(&["words", "noise"]);
    primary.switch_and_archive();
    primary.destroy();

    let since = Instant::now();
    site.restore("restored", major, &IMMEDIATE);
    let mut killer = Killer::new(since.elapsed());
    let place = site.place("restored");
    fs::remove_dir_all(&place).unwrap();
    let arguments = ["pitr-restore", "--pgdata", place.to_str().unwrap(), "--target", "latest", "--target-action", "promote"];
    while killer.goes_on() {
        killer.kills(site.start(&arguments));
        if place.join("global/pg_control").exists() {
            // The last act but one: everything else is there.
            assert_manifest(&place, major);
            fs::remove_dir_all(&place).unwrap();
        } else {
            site.assert_cannot_start("restored", major);
        }
    }
    site.run(&arguments).exits(0);
    let mut recovered = site.restored("restored", major);
    promote(&mut recovered);
    assert_eq!(recovered.digest(&["words", "noise"]), expected);
    recovered.stop(Stop::Fast);
    recovered.assert_checksums();
    // Every backup that counts can be restored.
    for id in site.backups() {
        site.restore("each", major, &[&IMMEDIATE[..], &["--backup", &id, "--delta"]].concat());
    }
    assert_eq!(site.backups().last().map(String::as_str), Some(last.id()));
}

#[test]
fn pg18_killed_at_random_moments() {
    killed_at_random_moments(&Site::new(), 18);
}

#[test]
fn pg15_killed_at_random_moments_on_s3() {
    let server = S3Server::start_tls();
    killed_at_random_moments(&Site::on_s3(&server), 15);
}

fn stores_pack(seen: &Seen) -> bool {
    seen.path.contains("/packs/") && matches!(seen.op, Op::Put | Op::Part | Op::Complete | Op::BeginUpload)
}

/// The network is away for a while in the middle, or for good.
#[test]
fn pg16_a_network_that_comes_and_goes() {
    let server = S3Server::start_tls();
    let site = Site::on_s3(&server);
    let primary = filled(&site, 16);
    let patient = |site: &Site, arguments: &[&str]| command::start(site.command(arguments).env("WALVIS_TIMEOUT_S", "60")).wait();
    let hasty = |site: &Site, arguments: &[&str]| command::start(site.command(arguments).env("WALVIS_TIMEOUT_S", "3")).wait();
    let own = Site::backup_arguments(&primary, &[]);
    let backup: Vec<&str> = own.iter().map(String::as_str).collect();

    // For good, from the second request for a pack on. The archiver is cut off, too.
    let (count, away) = (AtomicUsize::new(0), AtomicBool::new(false));
    server.hook(move |seen| {
        if stores_pack(seen) && count.fetch_add(1, Ordering::SeqCst) >= 1 {
            away.store(true, Ordering::SeqCst);
        }
        if away.load(Ordering::SeqCst) { Action::Cut } else { Action::Pass }
    });
    hasty(&site, &backup).exits(11).tells_the_way_out();
    server.unhook();
    assert!(site.backups().is_empty());

    // Away for two seconds, then back: one run does it.
    let (count, until) = (AtomicUsize::new(0), Arc::new(std::sync::Mutex::new(None::<Instant>)));
    server.hook(move |seen| {
        let mut until = until.lock().unwrap();
        if stores_pack(seen) && count.fetch_add(1, Ordering::SeqCst) == 1 {
            *until = Some(Instant::now() + Duration::from_secs(2));
        }
        if until.is_some_and(|until| Instant::now() < until) { Action::Cut } else { Action::Pass }
    });
    let made = Made::of(&patient(&site, &backup).exits(0));
    server.unhook();
    assert_eq!(site.backups(), [made.id()]);

    // Every third request fails in one way or another.
    primary.sql("update noise set a = md5(random()::text) where i % 2 = 0");
    let now_and_then = || {
        server.hook(|seen| match (seen.nth % 3, seen.ordinal % 5) {
            (1 | 2, _) => Action::Pass,
            (_, 0) => Action::s3_error(503, "SlowDown", "Please reduce your request rate."),
            (_, 1) => Action::Cut,
            (_, 2) => Action::ServeAndCut,
            (_, 3) => Action::Truncate(20),
            _ => Action::html(500),
        });
    };
    now_and_then();
    Made::of(&patient(&site, &backup).exits(0));
    server.unhook();
    let expected = primary.digest(&["words", "noise"]);
    let mut primary = primary;
    primary.switch_and_archive();
    primary.destroy();

    let place = site.place("restored");
    let restore = ["pitr-restore", "--pgdata", place.to_str().unwrap(), "--target", "latest", "--target-action", "promote"];
    let away = AtomicUsize::new(0);
    server.hook(move |seen| {
        if seen.op == Op::Get && seen.path.contains("/packs/") && away.fetch_add(1, Ordering::SeqCst) >= 2 {
            Action::Cut
        } else {
            Action::Pass
        }
    });
    hasty(&site, &restore).exits(11).tells_the_way_out();
    site.assert_cannot_start("restored", 16);
    now_and_then();
    patient(&site, &restore).exits(0);
    server.unhook();
    let mut recovered = site.restored("restored", 16);
    promote(&mut recovered);
    assert_eq!(recovered.digest(&["words", "noise"]), expected);
}

/// A repository on a disk that is full, and a restore to one that is.
#[test]
fn pg17_a_disk_that_is_full() {
    let scratch = Scratch::new();
    let repository = scratch.path().join("repository");
    // Without the right to mount there is no disk of our own to fill.
    let Some(_disk) = Tmpfs::mount(repository.clone(), "200m") else { return };
    scratch.give(&repository);
    let archive = Archive::walvis(&scratch);
    let config = scratch.path().join("walvis.toml").to_str().unwrap().to_owned();
    // The directory goes last, when nothing is mounted in it any more.
    let site = Site::with(Arc::clone(&scratch), archive, vec!["--config".to_owned(), config.clone()]);
    let mut primary = filled(&site, 17);
    primary.switch_and_archive();
    let ballast = repository.join("ballast");
    let free = nix::sys::statvfs::statvfs(&repository).unwrap();
    let free = free.blocks_available() * free.fragment_size();
    // Room for a pack's beginning, and not for all.
    let size = usize::try_from(free - 2 * 1024 * 1024).unwrap();
    fs::write(&ballast, vec![1; size]).unwrap();
    let ran = site.start_backup(&primary, &[]).wait().exits(11).tells_the_way_out();
    assert!(ran.stderr.contains("No space left"), "{}", ran.stderr);
    assert!(site.backups().is_empty());
    let left = objects(&site, "/.").len();
    assert_eq!(left, 0, "temp files are left");
    fs::remove_file(&ballast).unwrap();
    site.backup(&primary, &[]);
    let expected = primary.digest(&["words", "noise"]);
    primary.switch_and_archive();
    primary.destroy();

    let small = Tmpfs::mount(site.place("small"), "12m").unwrap();
    site.scratch.give(&site.place("small"));
    let arguments = ["--target", "latest", "--target-action", "promote"];
    // Known before anything is written; and when the room is gone in the middle.
    site.try_restore("small/data", &arguments).exits(10).tells_the_way_out().says(&["MiB are missing"]);
    assert!(!site.place("small/data").exists());
    let log = site.place("strace.log");
    let mut command = site.scratch.command(Path::new("strace"));
    let options = ["-f", "-o", log.to_str().unwrap(), "-e", "inject=pwrite64:error=ENOSPC:when=30+"];
    let ran = command::run(
        command
            .args(options)
            .arg(site.scratch.walvis())
            .args(["--config", &config, "pitr-restore", "--pgdata"])
            .arg(site.place("full"))
            .args(arguments),
    );
    ran.exits(10).tells_the_way_out().says(&["No space left", "free space"]);
    site.assert_cannot_start("full", 17);
    site.try_restore("full", &arguments).exits(0);
    assert_manifest(&site.place("full"), 17);
    let grown = Command::new("mount").args(["-o", "remount,size=300m"]).arg(site.place("small")).status().unwrap();
    assert!(grown.success());
    site.try_restore("small/data", &arguments).exits(0);
    assert_manifest(&site.place("small/data"), 17);
    // The harness wants its own place.
    let copied = Command::new("cp").arg("-a").arg(site.place("small/data")).arg(site.place("data")).status().unwrap();
    assert!(copied.success());
    drop(small);
    let mut recovered = site.restored("data", 17);
    promote(&mut recovered);
    assert_eq!(recovered.digest(&["words", "noise"]), expected);
}

/// The server goes down in the middle: what was read is worth nothing.
#[test]
fn pg13_a_server_that_goes_away() {
    let site = Site::new();
    let mut primary = filled(&site, 13);
    for how in ["killed", "terminated"] {
        let mut running = site.start_backup(&primary, &["--max-rate", "4", "--jobs", "1"]);
        let pid = copying(&primary, &mut running);
        if how == "killed" {
            primary.kill();
            running.wait().exits(17).tells_the_way_out();
            primary.start();
        } else {
            primary.sql(&format!("select pg_terminate_backend({pid})"));
            running.wait().exits(17).tells_the_way_out();
        }
        assert!(site.backups().is_empty(), "{how}");
    }
    site.backup(&primary, &[]);
    site.restore("restored", 13, &IMMEDIATE);
}

/// Two backups at once, as when a timer and an operator meet: both count, and both can be restored.
#[test]
fn pg16_two_backups_at_once() {
    let site = Site::new();
    let primary = filled(&site, 16);
    let both = [site.start_backup(&primary, &["--label", "one"]), site.start_backup(&primary, &["--label", "other"])];
    let ids = both.map(|running| Made::of(&running.wait().exits(0)).id().to_owned());
    assert_eq!(site.backups().len(), 2);
    for id in ids {
        let mut restored = site.recover(&id, 16, &[&IMMEDIATE[..], &["--backup", &id]].concat());
        assert_eq!(restored.digest(&["words", "noise"]), primary.digest(&["words", "noise"]));
        restored.stop(Stop::Fast);
        restored.assert_checksums();
    }
}
