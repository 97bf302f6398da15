//! A server whose clock is set back and forth under load: times are not monotonic in LSN, and still what is resolved is what
//! PostgreSQL does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::path::PathBuf;

use crate::resolve::Site;
use crate::support::postgres::{Backup, Cluster, Load, Options, Recovery, Role};

/// The library that gives a process a clock of its own.
fn libfaketime() -> PathBuf {
    let directories =
        ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|triple| format!("/usr/lib/{triple}/faketime/libfaketime.so.1"));
    let found = directories.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("libfaketime is not installed: run tests/run.sh, or install the package libfaketime"))
}

/// A site whose servers read how far their clock is off from a file.
struct Clock {
    site: Site,
    file: PathBuf,
}

impl Clock {
    fn new() -> Self {
        let mut site = Site::new(1);
        let file = site.scratch.path().join("clock");
        let set = |name: &str, value: &std::path::Path| (name.to_owned(), value.display().to_string());
        site.options.env.push(set("LD_PRELOAD", &libfaketime()));
        site.options.env.push(set("FAKETIME_TIMESTAMP_FILE", &file));
        for name in ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"] {
            site.options.env.push((name.to_owned(), "1".to_owned()));
        }
        let clock = Self { site, file };
        clock.is_off_by(0);
        clock
    }

    fn is_off_by(&self, seconds: i32) {
        // Replaced whole: the server never reads half a number.
        let new = self.file.with_extension("new");
        self.site.scratch.write(&new, format!("{seconds:+}\n").as_bytes());
        std::fs::rename(new, &self.file).unwrap();
    }
}

/// Recovers by the server's own idea of a target that was said not to be reachable: it must refuse too.
fn server_refuses(site: &Site, name: &str, backup: &Backup, time: &str) {
    let mut options = Options { archive_command: None, ..site.options.clone() };
    options.settings.push(("recovery_target_time".to_owned(), format!("{time}+00")));
    let mut cluster = Cluster::restore(&site.scratch, name, backup, Role::Recovery, &options);
    cluster.spawn();
    match cluster.wait_recovery() {
        Recovery::Exited(_) => cluster.destroy(),
        Recovery::Promoted => cluster.fail(&format!("{time} was said not to be reachable")),
    }
}

fn resolves_as_the_server_recovers(major: u32) {
    let clock = Clock::new();
    let site = &clock.site;
    let mut primary = site.primary(major);
    primary.sql("create table other (i int)");
    let load = Load::start(&primary, 4);
    // Slow while the copy is taken, so that most of what follows is later than it.
    clock.is_off_by(-300);
    load.wait_for(20);
    let backup = primary.backup_to("base");
    for seconds in [0, -60, 30, -20, -400, 10] {
        clock.is_off_by(seconds);
        load.wait_for(25);
    }
    let rows =
        primary.sql("select to_char(pg_xact_commit_timestamp(xmin) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') from ledger");
    load.wait_for(3);
    primary.switch_and_archive();
    primary.destroy();
    load.abandon();
    clock.is_off_by(0);

    // The log really runs backwards, by minutes.
    let commits = site.list(&format!("--commits --from {}", lsn(backup.stop_lsn)));
    let times: Vec<jiff::Timestamp> = commits.iter().filter_map(|c| c["time"].as_str()?.parse().ok()).collect();
    let back = times.windows(2).filter(|w| w[0].duration_since(w[1]).as_secs() > 15).count();
    assert!(back >= 3, "{back} steps back in {} commits", times.len());

    let candidates: Vec<&str> = rows.lines().filter(|row| !row.is_empty()).collect();
    let mut random = fastrand::Rng::with_seed(major.into());
    let (mut reached, mut refused) = (0, 0);
    for i in 0..10 {
        let time = candidates[random.usize(..candidates.len())];
        let arguments = format!("--target-time '{time}' --from {}", start_of(&backup));
        let (json, code) = site.resolve(&arguments);
        if code == 0 {
            let own = [("recovery_target_time", &*format!("{time}+00"))];
            site.recovers_equally(i, &backup, &arguments, &own, &["ledger", "other"]);
            reached += 1;
        } else {
            assert_eq!(code, 15, "{json:#}");
            server_refuses(site, &format!("refused{i}"), &backup, time);
            refused += 1;
        }
    }
    assert!(reached >= 3, "{reached} reached, {refused} refused");
}

/// Where recovery of a copy begins, from its `backup_label`.
fn start_of(backup: &Backup) -> String {
    let label = std::fs::read_to_string(backup.dir.join("backup_label")).unwrap();
    let rest = label.strip_prefix("START WAL LOCATION: ").unwrap();
    rest.split(' ').next().unwrap().to_owned()
}

fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

#[test]
fn pg15_with_a_clock_set_back() {
    resolves_as_the_server_recovers(15);
}

#[test]
fn pg18_with_a_clock_set_back() {
    resolves_as_the_server_recovers(18);
}
