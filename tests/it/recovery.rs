//! The whole way with real servers: a cluster under load archives, is destroyed, and comes back from a base copy and
//! its archive.
//!
//! What must hold afterwards is what clients were told, not what the archive says: see [`Load`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::postgres::{Backup, Cluster, Load, Options, Recovery, Role, Scratch, Stop, poll, run};
use crate::support::s3::S3Server;

const PGBENCH: [&str; 4] = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];

/// How a server archives and restores in a test.
pub(crate) struct Archive {
    pub(crate) archive_command: String,
    pub(crate) restore_command: String,
    /// What these need in the server's environment.
    pub(crate) env: Vec<(String, String)>,
    /// The directory that holds what was archived; of no use with S3.
    pub(crate) directory: PathBuf,
}

impl Archive {
    /// `cp`, as the PostgreSQL manual has it: what Walvis is measured against.
    fn plain(scratch: &Scratch) -> Self {
        let directory = scratch.make_dir("archive");
        let path = directory.display();
        Self {
            archive_command: format!("test ! -f {path}/%f && cp %p {path}/%f"),
            restore_command: format!("cp {path}/%f %p"),
            env: Vec::new(),
            directory,
        }
    }

    /// Walvis with an encrypted repository in a directory, told by a settings file.
    pub(crate) fn walvis(scratch: &Scratch) -> Self {
        let directory = scratch.path().join("repository");
        let key = Self::generate_key(scratch);
        let config = scratch.path().join("walvis.toml");
        let text = format!(
            "cluster = \"main\"\n\n[[repository]]\nurl = \"file://{}\"\nkey_file = \"{}\"\n",
            directory.display(),
            key.display()
        );
        scratch.write(&config, text.as_bytes());
        let walvis = format!("'{}' --config '{}'", scratch.walvis().display(), config.display());
        Self::initialised(scratch, &walvis, Vec::new(), directory)
    }

    /// Walvis with a repository that everybody who gets at it can read and forge.
    pub(crate) fn walvis_unencrypted(scratch: &Scratch) -> Self {
        let directory = scratch.path().join("repository");
        let config = scratch.path().join("walvis.toml");
        scratch.write(&config, format!("[[repository]]\nurl = \"file://{}\"\n", directory.display()).as_bytes());
        let walvis = format!("'{}' --config '{}'", scratch.walvis().display(), config.display());
        Self::initialised_by(scratch, &walvis, "init --unencrypted", Vec::new(), directory)
    }

    /// Walvis with an encrypted repository in S3 over TLS, told by the environment.
    pub(crate) fn walvis_s3(scratch: &Scratch, server: &S3Server) -> Self {
        let key = Self::generate_key(scratch);
        // The server's own copy is out of reach for the user that PostgreSQL runs as.
        let ca_file = scratch.path().join("ca.pem");
        scratch.write(&ca_file, &fs::read(server.ca_file().unwrap()).unwrap());
        let mut env: Vec<(String, String)> = server.env().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        env.retain(|(name, _)| name != "WALVIS_S3_CA_FILE");
        env.push(("WALVIS_S3_CA_FILE".to_owned(), ca_file.display().to_string()));
        env.push(("WALVIS_REPOSITORY".to_owned(), server.url("recovery")));
        env.push(("WALVIS_KEY_FILE".to_owned(), key.display().to_string()));
        Self::initialised(scratch, &format!("'{}'", scratch.walvis().display()), env, PathBuf::new())
    }

    fn generate_key(scratch: &Scratch) -> PathBuf {
        let key = scratch.path().join("walvis.key");
        run(scratch.command(&scratch.walvis()).args(["key", "generate"]).arg(&key));
        key
    }

    fn initialised(scratch: &Scratch, walvis: &str, env: Vec<(String, String)>, directory: PathBuf) -> Self {
        Self::initialised_by(scratch, walvis, "init", env, directory)
    }

    fn initialised_by(scratch: &Scratch, walvis: &str, init: &str, env: Vec<(String, String)>, directory: PathBuf) -> Self {
        let environment = env.iter().map(|(name, value)| (name, value));
        run(scratch.command(Path::new("sh")).arg("-c").arg(format!("{walvis} {init}")).envs(environment));
        Self {
            archive_command: format!("{walvis} push-wal %p"),
            restore_command: format!("{walvis} fetch-wal %f %p"),
            env,
            directory,
        }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            archive_command: Some(self.archive_command.clone()),
            restore_command: Some(self.restore_command.clone()),
            env: self.env.clone(),
            ..Options::default()
        }
    }

    /// The stored objects whose file name begins with `name`.
    pub(crate) fn objects(&self, name: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, name, found);
                } else if path.file_name().unwrap().to_str().unwrap().starts_with(name) {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.directory, name, &mut found);
        found
    }

    /// The one object of a segment.
    pub(crate) fn object(&self, segment: &str) -> PathBuf {
        let objects = self.objects(segment);
        assert_eq!(objects.len(), 1, "objects of {segment}: {objects:?}");
        objects[0].clone()
    }
}

/// Recovers `backup` to the end of the archive, and returns the promoted server.
fn recover(scratch: &Arc<Scratch>, name: &str, backup: &Backup, options: &Options) -> Cluster {
    let mut cluster = Cluster::restore(scratch, name, backup, Role::Recovery, options);
    cluster.spawn();
    expect_promoted(&mut cluster);
    cluster
}

fn expect_promoted(cluster: &mut Cluster) {
    match cluster.wait_recovery() {
        Recovery::Promoted => {}
        Recovery::Exited(status) => cluster.fail(&format!("recovery ended with {status}")),
    }
}

/// Waits until recovery has stopped. Fails the test when the server promotes instead: then rows are lost silently.
fn expect_stopped(cluster: &mut Cluster) {
    match cluster.wait_recovery() {
        Recovery::Exited(status) => assert!(!status.success(), "the server ended with {status}"),
        Recovery::Promoted => cluster.fail("the server promoted although its archive is not whole"),
    }
    let log = cluster.log();
    assert!(!log.contains("archive recovery complete"), "recovery ended early:\n{log}");
    // It was the restore_command that stopped it, not what PostgreSQL made of a bad file.
    assert!(log.contains("exit code 200"), "recovery stopped for another reason:\n{log}");
}

/// Base copy under load, more load, disaster, recovery to the end of the archive.
fn loses_nothing(major: u32, wal_segsize_mib: u32, archive: impl FnOnce(&Scratch) -> Archive) {
    let scratch = Scratch::new();
    let archive = archive(&scratch);
    let options = Options { wal_segsize_mib, ..archive.options() };
    let mut primary = Cluster::init(&scratch, "primary", major, &options);
    primary.start();

    let pgbench = primary.pgbench(&["--initialize", "--quiet", "--scale=1"]);
    let load = Load::start(&primary, 2);
    load.wait_for(20);
    let backup = primary.backup_to("base");
    if pgbench {
        primary.pgbench(&["--client=2", "--jobs=2", "--transactions=100", "--no-vacuum"]);
    }
    load.wait_for(50);

    let tables = if pgbench { &PGBENCH[..] } else { &[] };
    let before = primary.digest(tables);
    let acknowledged = load.acknowledged();
    primary.switch_and_archive();
    // The clients work on until the end.
    primary.destroy();
    load.abandon();

    let recovered = recover(&scratch, "recovered", &backup, &options);
    recovered.assert_ledger(&acknowledged);
    assert_eq!(recovered.digest(tables), before);
}

#[test]
fn pg13_loses_nothing() {
    loses_nothing(13, 16, Archive::walvis);
}

#[test]
fn pg14_loses_nothing() {
    loses_nothing(14, 16, Archive::walvis);
}

#[test]
fn pg15_loses_nothing() {
    loses_nothing(15, 16, Archive::walvis);
}

#[test]
fn pg16_loses_nothing() {
    loses_nothing(16, 16, Archive::walvis);
}

#[test]
fn pg17_loses_nothing() {
    loses_nothing(17, 16, Archive::walvis);
}

#[test]
fn pg18_loses_nothing() {
    loses_nothing(18, 16, Archive::walvis);
}

#[test]
fn pg15_loses_nothing_on_s3() {
    let server = S3Server::start_tls();
    loses_nothing(15, 16, |scratch| Archive::walvis_s3(scratch, &server));
}

#[test]
fn pg18_loses_nothing_on_s3() {
    let server = S3Server::start_tls();
    loses_nothing(18, 16, |scratch| Archive::walvis_s3(scratch, &server));
}

#[test]
fn smallest_segments() {
    loses_nothing(16, 1, Archive::walvis);
}

#[test]
fn large_segments() {
    loses_nothing(17, 64, Archive::walvis);
}

/// After a crash the last segment is only in `pg_wal`. With it put into the restored directory nothing at all is lost,
/// the server promotes in the middle of a segment, and archives that one as `.partial`. The next recovery, from the
/// copy of timeline 1, has to find its way to timeline 2.
fn crosses_timelines(major: u32) {
    let scratch = Scratch::new();
    let archive = Archive::walvis(&scratch);
    let options = Options { wal_segsize_mib: 1, ..archive.options() };
    let mut primary = Cluster::init(&scratch, "primary", major, &options);
    primary.start();
    let load = Load::start(&primary, 2);
    let backup = primary.backup_to("base");
    load.wait_for(50);
    primary.switch_and_archive();
    load.wait_for(50);
    primary.kill();
    let acknowledged = load.abandon();

    let mut second = Cluster::restore(&scratch, "second", &backup, Role::Recovery, &options);
    let saved = primary.save_wal(&second);
    assert!(saved > 0, "no segment was left to save");
    primary.destroy();
    second.spawn();
    expect_promoted(&mut second);
    second.assert_ledger(&acknowledged);
    assert_eq!(second.timeline(), 2);

    let load = Load::start(&second, 2);
    load.wait_for(50);
    let acknowledged = load.acknowledged();
    second.switch_and_archive();
    second.destroy();
    load.abandon();
    assert_eq!(archive.objects("00000002.history").len(), 1);
    let partial = archive.objects("00000001").into_iter().filter(|path| path.to_str().unwrap().contains(".partial")).count();
    assert_eq!(partial, 1);

    let third = recover(&scratch, "third", &backup, &options);
    third.assert_ledger(&acknowledged);
    assert_eq!(third.timeline(), 3);
}

#[test]
fn pg13_crosses_timelines() {
    crosses_timelines(13);
}

#[test]
fn pg18_crosses_timelines() {
    crosses_timelines(18);
}

/// A standby that has nothing but the archive keeps asking for what is not there yet.
#[test]
fn standby_follows_the_archive() {
    let scratch = Scratch::new();
    let archive = Archive::walvis(&scratch);
    let options = Options { wal_segsize_mib: 1, ..archive.options() };
    let mut primary = Cluster::init(&scratch, "primary", 17, &options);
    primary.start();
    let load = Load::start(&primary, 2);
    let backup = primary.backup_to("base");
    let mut standby =
        Cluster::restore(&scratch, "standby", &backup, Role::Standby, &Options { archive_command: None, ..options.clone() });
    standby.start();

    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        load.wait_for(50);
        acknowledged = load.acknowledged();
        let end = primary.sql("select pg_current_wal_insert_lsn()");
        primary.switch_and_archive();
        let follows = poll(|| (standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t").then_some(()));
        if follows.is_none() {
            standby.fail(&format!("the standby does not get to {end}"));
        }
        standby.assert_ledger(&acknowledged);
    }
    load.finish();
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");

    standby.sql("select pg_promote()");
    standby.assert_ledger(&acknowledged);
    standby.stop(Stop::Fast);
    primary.stop(Stop::Immediate);
}

/// A destroyed primary whose archive needs at least five segments after the end of the base copy.
struct Disaster {
    scratch: Arc<Scratch>,
    archive: Archive,
    options: Options,
    backup: Backup,
    acknowledged: Vec<u64>,
    /// The segments archived after the copy, ascending.
    segments: Vec<String>,
}

impl Disaster {
    fn strike(major: u32, archive: impl FnOnce(&Scratch) -> Archive) -> Self {
        let scratch = Scratch::new();
        let archive = archive(&scratch);
        let options = Options { wal_segsize_mib: 1, ..archive.options() };
        let mut primary = Cluster::init(&scratch, "primary", major, &options);
        primary.start();
        let load = Load::start(&primary, 2);
        let backup = primary.backup_to("base");
        let mut acknowledged = Vec::new();
        let mut segments = Vec::new();
        for _ in 0..5 {
            load.wait_for(20);
            acknowledged = load.acknowledged();
            segments.push(primary.switch_and_archive());
        }
        primary.destroy();
        load.abandon();
        Self { scratch, archive, options, backup, acknowledged, segments }
    }

    /// The restored directory, not started.
    fn restore(&self) -> Cluster {
        Cluster::restore(&self.scratch, "recovered", &self.backup, Role::Recovery, &self.options)
    }

    /// The object of a segment that recovery needs, with others before and after it.
    fn middle(&self) -> PathBuf {
        self.archive.object(&self.segments[2])
    }

    /// Once the archive is whole again, the same directory recovers completely.
    fn recovers(&self, mut cluster: Cluster) {
        cluster.spawn();
        expect_promoted(&mut cluster);
        cluster.assert_ledger(&self.acknowledged);
    }
}

/// What the other tests of this file prevent, and a proof that they would notice: with `cp`, a lost segment is a
/// promotion and a silent loss of what came after it.
#[test]
fn with_cp_a_missing_segment_promotes_early() {
    let disaster = Disaster::strike(15, Archive::plain);
    fs::remove_file(disaster.middle()).unwrap();
    let mut cluster = disaster.restore();
    cluster.spawn();
    expect_promoted(&mut cluster);
    let last: u64 = cluster.sql("select count(*) from ledger").parse().unwrap();
    assert!(last < disaster.acknowledged.iter().sum(), "nothing is lost: {last}");
}

#[test]
fn a_damaged_segment_stops_recovery() {
    let disaster = Disaster::strike(18, Archive::walvis);
    let object = disaster.middle();
    let whole = fs::read(&object).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    disaster.scratch.write(&object, &damaged);

    let mut cluster = disaster.restore();
    cluster.spawn();
    expect_stopped(&mut cluster);
    disaster.scratch.write(&object, &whole);
    disaster.recovers(cluster);
}

#[test]
fn a_missing_segment_with_later_ones_stops_recovery() {
    let disaster = Disaster::strike(13, Archive::walvis);
    let object = disaster.middle();
    let aside = disaster.scratch.path().join("aside");
    fs::rename(&object, &aside).unwrap();

    let mut cluster = disaster.restore();
    cluster.spawn();
    expect_stopped(&mut cluster);
    fs::rename(&aside, &object).unwrap();
    disaster.recovers(cluster);
}

#[test]
fn a_vanished_repository_stops_recovery() {
    let disaster = Disaster::strike(16, Archive::walvis);
    let aside = disaster.scratch.path().join("aside");
    fs::rename(&disaster.archive.directory, &aside).unwrap();

    let mut cluster = disaster.restore();
    cluster.spawn();
    expect_stopped(&mut cluster);
    fs::rename(&aside, &disaster.archive.directory).unwrap();
    disaster.recovers(cluster);
}
