//! The whole of point-in-time recovery with Walvis alone: base backups under load, restores to random targets, and what
//! a restored directory is. Here is what these tests share; the modules below each have a subject.
//!
//! `WALVIS_TEST_RESTORES` says how many random targets each version is restored to, `WALVIS_TEST_SEED` which.

mod afterwards;
mod agreement;
mod carried;
mod damage;
mod faults;
mod large;
mod locks;
mod replay;
mod settings_files;
mod silent;
mod sources;
mod taking_over;
mod targets;
mod timelines;
mod unencrypted;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::recovery::Archive;
use crate::support::command::{self, Ran, Running};
use crate::support::postgres::{Cluster, Options, Recovery, Scratch, parse_lsn};
use crate::support::s3::S3Server;

/// A host on which a server archives with Walvis, and the repository, encrypted.
pub(crate) struct Site {
    pub(crate) scratch: Arc<Scratch>,
    pub(crate) archive: Archive,
    pub(crate) options: Options,
    arguments: Vec<String>,
}

impl Site {
    /// With a repository in a directory.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let archive = Archive::walvis(&scratch);
        let config = scratch.path().join("walvis.toml").to_str().unwrap().to_owned();
        Self::with(scratch, archive, vec!["--config".to_owned(), config])
    }

    /// With a repository on an S3 server that speaks TLS.
    pub(crate) fn on_s3(server: &S3Server) -> Self {
        let scratch = Scratch::new();
        let archive = Archive::walvis_s3(&scratch, server);
        Self::with(scratch, archive, Vec::new())
    }

    pub(crate) fn with(scratch: Arc<Scratch>, archive: Archive, arguments: Vec<String>) -> Self {
        let options = Options { wal_segsize_mib: 1, ..archive.options() };
        let options = options.setting("track_commit_timestamp", "on").setting("max_prepared_transactions", "20");
        Self { scratch, archive, options, arguments }
    }

    /// A running server.
    pub(crate) fn primary(&self, major: u32) -> Cluster {
        let mut primary = Cluster::init(&self.scratch, "primary", major, &self.options);
        primary.start();
        primary
    }

    /// `walvis` as the server's user.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scratch.command(&self.scratch.walvis());
        command.args(&self.arguments).args(arguments).envs(self.archive.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        command::start(&mut self.command(arguments))
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).wait()
    }

    /// What a command answers with `--json`.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[&["--json"], arguments].concat()).exits(0);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", ran.stdout))
    }

    /// The arguments of a base backup of this cluster; by two threads, unless they say otherwise.
    pub(crate) fn backup_arguments(cluster: &Cluster, further: &[&str]) -> Vec<String> {
        let server = cluster.conninfo();
        let data = cluster.data.to_str().unwrap();
        let own = ["--json", "base-backup", "--fast", "--pgdata", data, "--server", &server];
        let jobs: &[&str] = if further.contains(&"--jobs") { &[] } else { &["--jobs", "2"] };
        [&own[..], jobs, further].concat().into_iter().map(str::to_owned).collect()
    }

    /// Starts a base backup.
    pub(crate) fn start_backup(&self, cluster: &Cluster, arguments: &[&str]) -> Running {
        let arguments = Self::backup_arguments(cluster, arguments);
        self.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Pushes the segments that lie in a server's `pg_wal` and that it does not mean to archive; how many there were.
    pub(crate) fn push_what_lies_in(&self, cluster: &Cluster) -> usize {
        let wal = cluster.data.join("pg_wal");
        let current = cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
        let is_waiting = |name: &String| {
            let status = |ending: &str| wal.join(format!("archive_status/{name}.{ending}")).exists();
            name.len() == 24 && *name < current && !status("done") && !status("ready")
        };
        let names = command::names_in(&wal).into_iter().filter(is_waiting);
        let paths: Vec<String> = names.map(|name| wal.join(name).to_str().unwrap().to_owned()).collect();
        for path in &paths {
            self.run(&["push-wal", path]).exits(0);
        }
        paths.len()
    }

    /// Takes a base backup; it must be without damage.
    #[track_caller]
    pub(crate) fn backup(&self, cluster: &Cluster, arguments: &[&str]) -> Made {
        Made::of(&self.start_backup(cluster, arguments).wait().exits(0))
    }

    /// The ids of the backups that count.
    #[track_caller]
    pub(crate) fn backups(&self) -> Vec<String> {
        self.listed().iter().map(|backup| backup["backup_id"].as_str().unwrap().to_owned()).collect()
    }

    /// What `list` says of the backups, oldest first.
    #[track_caller]
    pub(crate) fn listed(&self) -> Vec<Value> {
        let list = self.json(&["list"]);
        let mut backups = find_backups(&list).cloned().unwrap_or_default();
        backups.sort_by_key(|backup| backup["backup_id"].as_str().unwrap().to_owned());
        backups
    }

    /// Where something is restored to.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Restores into the directory of this name; the run, whatever came of it.
    pub(crate) fn try_restore(&self, name: &str, arguments: &[&str]) -> Ran {
        let place = self.place(name);
        self.run(&[&["pitr-restore", "--pgdata", place.to_str().unwrap()], arguments].concat())
    }

    /// Restores, and checks the directory against its manifest. The server is not started.
    #[track_caller]
    pub(crate) fn restore(&self, name: &str, major: u32, arguments: &[&str]) -> Cluster {
        self.try_restore(name, arguments).exits(0);
        self.restored(name, major)
    }

    /// What was restored, checked against its manifest.
    pub(crate) fn restored(&self, name: &str, major: u32) -> Cluster {
        assert!(!self.place(name).join("walvis.restore").exists(), "the mark of an unfinished restore is left");
        let before = self.place(name).join("test.conf");
        let settings = std::fs::read(&before);
        let cluster = Cluster::restored(&self.scratch, name, major, &self.options);
        // The harness's own settings are put in afterwards.
        let with_sockets = std::fs::read(&before).unwrap();
        if let Ok(settings) = settings {
            self.scratch.write(&before, &settings);
        }
        cluster.assert_manifest();
        self.scratch.write(&before, &with_sockets);
        cluster
    }

    /// Restores and recovers until the server takes writes.
    #[track_caller]
    pub(crate) fn recover(&self, name: &str, major: u32, arguments: &[&str]) -> Cluster {
        let mut cluster = self.restore(name, major, &[arguments, &["--target-action", "promote"]].concat());
        promote(&mut cluster);
        cluster
    }

    /// A directory that cannot be started: `pg_control` is not there, and PostgreSQL says so.
    #[track_caller]
    pub(crate) fn assert_cannot_start(&self, name: &str, major: u32) {
        let data = self.place(name);
        if !data.exists() {
            return;
        }
        assert!(!data.join("global/pg_control").exists(), "a half-restored directory has a pg_control");
        let postgres = self.scratch.reachable_postgres(&crate::support::postgres::Postgres::find(major));
        let mut command = self.scratch.command(&postgres.home.join("bin/postgres"));
        let ran = command::run(command.arg("-D").arg(&data));
        assert!(!ran.status.success(), "PostgreSQL started on a half-restored directory: {ran:?}");
    }
}

/// Starts a restored server and waits until it takes writes.
pub(crate) fn promote(cluster: &mut Cluster) {
    cluster.spawn();
    match cluster.wait_recovery() {
        Recovery::Promoted => {}
        Recovery::Exited(status) => cluster.fail(&format!("recovery ended with {status}")),
    }
}

/// The backups in the answer of `list`, wherever in it they are.
fn find_backups(value: &Value) -> Option<&Vec<Value>> {
    match value {
        Value::Object(fields) => match fields.get("backups") {
            Some(Value::Array(backups)) => Some(backups),
            _ => fields.values().find_map(find_backups),
        },
        Value::Array(values) => values.iter().find_map(find_backups),
        _ => None,
    }
}

/// A base backup that was taken.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) json: Value,
}

impl Made {
    #[track_caller]
    pub(crate) fn of(ran: &Ran) -> Self {
        Self { json: serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("base-backup: {e}: {ran:?}")) }
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_else(|| panic!("no {field}: {:#}", self.json))
    }

    pub(crate) fn number(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_else(|| panic!("no {field}: {:#}", self.json))
    }

    pub(crate) fn id(&self) -> &str {
        self.text("backup_id")
    }

    pub(crate) fn stop_lsn(&self) -> u64 {
        parse_lsn(self.text("stop_lsn"))
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A random generator, whose seed is told so that a failure can be repeated.
pub(crate) fn random() -> fastrand::Rng {
    let seed = number("WALVIS_TEST_SEED", fastrand::u64(..));
    eprintln!("WALVIS_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// All files of the repository of a site in a directory whose path has this in it, ascending.
pub(crate) fn objects(site: &Site, part: &str) -> Vec<PathBuf> {
    let all = command::files_below(&site.archive.directory);
    all.into_iter().filter(|path| path.to_str().unwrap().contains(part)).collect()
}

/// Whether a path exists, whatever it is.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
