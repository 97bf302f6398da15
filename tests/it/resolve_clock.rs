//! A server whose clock is set back and forth under load: times are not monotonic in LSN, and still what is resolved is
//! what PostgreSQL does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::resolve::Site;
use crate::support::postgres::{Backup, Cluster, Load, Options, Recovery, Role, Scratch};

/// The library that gives a process a clock of its own.
fn libfaketime() -> PathBuf {
    let directories =
        ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|triple| format!("/usr/lib/{triple}/faketime/libfaketime.so.1"));
    let found = directories.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("libfaketime is not installed: run tests/run.sh, or install the package libfaketime"))
}

/// How far a server's clock is off: in a file that libfaketime reads.
///
/// The library keeps a semaphore and shared memory, made by the first process that loads it and used by the programs
/// below that. But a child that is not a program of its own takes them away when it ends, as every backend of
/// PostgreSQL does; then `archive_command` cannot be run any more. So they belong to a process that does nothing but
/// wait.
pub(crate) struct Clock {
    file: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    keeper: Child,
}

impl Clock {
    pub(crate) fn new(scratch: &Scratch) -> Self {
        let file = scratch.path().join("clock");
        let mut env = vec![("FAKETIME_TIMESTAMP_FILE".to_owned(), file.display().to_string())];
        env.push(("LD_PRELOAD".to_owned(), libfaketime().display().to_string()));
        for name in ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"] {
            env.push((name.to_owned(), "1".to_owned()));
        }
        set_clock(scratch, &file, 0);
        let mut command = scratch.command(Path::new("cat"));
        command.envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        // It answers when the library has been loaded.
        keeper.stdin.as_ref().unwrap().write_all(b"?").unwrap();
        keeper.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        env.push(("FAKETIME_SHARED".to_owned(), format!("/faketime_sem_{0} /faketime_shm_{0}", keeper.id())));
        Self { file, env, keeper }
    }

    /// Lets it be off by so many seconds.
    pub(crate) fn set(&self, scratch: &Scratch, seconds: i32) {
        set_clock(scratch, &self.file, seconds);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

fn set_clock(scratch: &Scratch, file: &Path, seconds: i32) {
    // Replaced whole: the server never reads half a number.
    let new = file.with_extension("new");
    scratch.write(&new, format!("{seconds:+}\n").as_bytes());
    std::fs::rename(new, file).unwrap();
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
    let site = &Site::new(1);
    let clock = Clock::new(&site.scratch);
    let is_off_by = |seconds| clock.set(&site.scratch, seconds);
    // This server alone: what recovers goes by the times in the log.
    let mut options = site.options.clone();
    options.env.extend_from_slice(&clock.env);
    let mut primary = Cluster::init(&site.scratch, "primary", major, &options);
    primary.start();
    primary.sql("create table other (i int)");
    let load = Load::start(&primary, 4);
    // Slow while the copy is taken, so that most of what follows is later than it.
    is_off_by(-300);
    load.wait_for(20);
    let backup = primary.backup_to("base");
    // One commit of each time, whatever the load does, and then some of all.
    let time = "to_char(pg_xact_commit_timestamp(xmin) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')";
    let mut candidates = Vec::new();
    for seconds in [0, -60, 30, -20, -400, 10] {
        is_off_by(seconds);
        load.wait_for(25);
        let newest = primary.sql(&format!("select {time} from ledger where client = 0 order by n desc limit 1"));
        candidates.push(newest);
    }
    let rows = primary.sql(&format!("select {time} from ledger"));
    let rows: Vec<&str> = rows.lines().filter(|row| !row.is_empty()).collect();
    let mut random = fastrand::Rng::with_seed(major.into());
    candidates.extend((0..4).map(|_| rows[random.usize(..rows.len())].to_owned()));
    load.wait_for(3);
    primary.switch_and_archive();
    primary.destroy();
    load.abandon();
    drop(clock);

    // The log really runs backwards, by minutes.
    let commits = site.list(&format!("--commits --from {}", lsn(backup.stop_lsn)));
    let times: Vec<jiff::Timestamp> = commits.iter().filter_map(|c| c["time"].as_str()?.parse().ok()).collect();
    let back = times.windows(2).filter(|w| w[0].duration_since(w[1]).as_secs() > 15).count();
    assert!(back >= 3, "{back} steps back in {} commits", times.len());

    let (mut reached, mut refused) = (0, 0);
    for (i, time) in candidates.iter().enumerate() {
        let arguments = format!("--target-time '{time}Z' --from {}", start_of(&backup));
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
    // Of the six, only the one from before the copy may be out of reach.
    assert!(reached >= 5, "{reached} reached, {refused} refused");
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
