//! `walvis pitr-restore` on copied data directories and real servers: what it promises by itself. That whole backups come back is
//! told elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use walvis::format::extent::BackupId;

use crate::recovery::Archive;
use crate::support::command::files_below;
use crate::support::postgres::{Backup, Cluster, Options, Scratch, parse_lsn, poll, run};
use crate::support::stored::Copied;

/// A server that archives, its repository, and where to restore to.
struct Site {
    scratch: Arc<Scratch>,
    archive: Archive,
    options: Options,
    primary: Cluster,
}

/// A server that a restore started; it is stopped when this is dropped.
struct Server {
    pid: Pid,
    conninfo: String,
    data: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGQUIT);
        // Its parent may be gone, so that nobody reaps it: a process without a working directory has ended.
        poll(|| fs::read_link(format!("/proc/{}/cwd", self.pid)).is_err().then_some(()));
    }
}

impl Site {
    fn new(major: u32) -> Self {
        let scratch = Scratch::new();
        let archive = Archive::walvis(&scratch);
        let options = Options { wal_segsize_mib: 1, ..archive.options() };
        let mut primary = Cluster::init(&scratch, "primary", major, &options);
        primary.start();
        primary.sql("create table t as select i, md5(i::text) from generate_series(1, 3000) i");
        // More than fits into the manifest, with a hole.
        primary.sql("create table big as select i, repeat(md5(i::text), 30) from generate_series(1, 20000) i");
        Self { scratch, archive, options, primary }
    }

    fn repository(&self) -> PathBuf {
        self.scratch.path().join("repository")
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("restored")
    }

    /// Takes a backup and stores it.
    fn backup(&mut self, name: &str) -> (Backup, BackupId) {
        let backup = self.primary.backup_to(name);
        let (repository, key) = (self.repository(), self.scratch.path().join("walvis.key"));
        let id = Copied::new(&repository, &key, &backup.dir, backup.stop_lsn, backup.major).store();
        self.give_repository();
        (backup, id)
    }

    /// What root stored belongs to the server's user, as if he had stored it.
    fn give_repository(&self) {
        let mut open = vec![self.repository()];
        while let Some(dir) = open.pop() {
            self.scratch.give(&dir);
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { self.scratch.give(&path) }
            }
        }
    }

    fn walvis(&self, arguments: &str) -> Output {
        let program = self.archive.archive_command.strip_suffix(" push-wal %p").unwrap();
        let mut command = self.scratch.command(Path::new("sh"));
        command.env("PGUSER", "postgres").arg("-c").arg(format!("{program} {arguments}")).stdin(Stdio::null()).output().unwrap()
    }

    /// Restores into `data`, and gives the report.
    #[track_caller]
    fn restores(&self, arguments: &str) -> Value {
        let output = self.restore(arguments);
        assert!(output.status.success(), "pitr-restore {arguments}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
    }

    fn restore(&self, arguments: &str) -> Output {
        self.walvis(&format!("pitr-restore --json --pgdata '{}' {arguments}", self.data().display()))
    }

    #[track_caller]
    fn fails(&self, arguments: &str, code: i32, words: &[&str]) {
        let output = self.restore(arguments);
        assert_eq!(output.status.code(), Some(code), "pitr-restore {arguments}: {}", text(&output));
        for word in words {
            assert!(text(&output).contains(word), "no {word:?}: {}", text(&output));
        }
    }

    /// As [`restores`](Self::restores), with a server whose programs are those of the primary.
    #[track_caller]
    fn starts(&self, arguments: &str) -> (Value, Option<Server>) {
        let programs = self.primary.postgres().home.join("bin");
        let report = self.restores(&format!("--start --bin-dir '{}' {arguments}", programs.display()));
        let server = report["server"]["process"].as_i64().map(|pid| Server {
            pid: Pid::from_raw(i32::try_from(pid).unwrap()),
            conninfo: self.primary.conninfo(),
            data: self.data(),
        });
        (report, server)
    }

    /// Sockets of primary and restored server are in the same directory.
    fn stop_primary(&mut self) {
        self.primary.stop(crate::support::postgres::Stop::Fast);
    }

    /// Nothing starts here: there is no `pg_control`.
    fn cannot_start(&self) {
        assert!(!self.data().join("global/pg_control").exists());
        assert!(self.data().join("walvis.restore").exists());
        let postgres = self.primary.postgres().home.join("bin/postgres");
        let output = self.scratch.command(&postgres).arg("-D").arg(self.data()).output().unwrap();
        assert!(!output.status.success(), "a half-restored directory was started: {}", text(&output));
    }

    /// Every file of the backup is in the restored directory, byte for byte, but for those that a restore changes.
    #[track_caller]
    fn is_restored(&self, backup: &Backup) {
        let changed = ["postgresql.auto.conf", "backup_manifest", "recovery.signal"];
        let below = |root: &Path| -> Vec<PathBuf> {
            let all = files_below(root).into_iter().map(|path| path.strip_prefix(root).unwrap().to_owned());
            all.filter(|path| !changed.contains(&path.to_str().unwrap())).collect()
        };
        assert_eq!(below(&backup.dir), below(&self.data()));
        for path in below(&backup.dir) {
            let (was, is) = (backup.dir.join(&path), self.data().join(&path));
            assert!(fs::read(&was).unwrap() == fs::read(&is).unwrap(), "{} differs", path.display());
            let (was, is) = (fs::metadata(was).unwrap(), fs::metadata(is).unwrap());
            let of = |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec() / 1000);
            assert_eq!(of(&was), of(&is), "{}", path.display());
        }
        assert!(!self.data().join("walvis.restore").exists());
        assert!(self.data().join("recovery.signal").exists());
    }

    /// PostgreSQL's own opinion, where it ships the program.
    fn is_verified(&self) {
        let Some(program) = self.primary.postgres().client_tool("pg_verifybackup") else { return };
        run(self.scratch.command(&program).arg("-n").arg(self.data()));
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const COUNT: &str = "select count(*) || ' ' || md5(string_agg(t::text, ',' order by i)) from t";

/// Backup, more rows, a restore point, a mistake: what comes back is what was there at the restore point.
fn round_trip(major: u32) {
    let mut site = Site::new(major);
    let (backup, id) = site.backup("base");
    site.primary.sql("insert into t select i, 'more' from generate_series(3001, 4000) i");
    site.primary.sql("select pg_create_restore_point('before')");
    let expected = site.primary.sql(COUNT);
    site.primary.sql("delete from t");
    site.primary.switch_and_archive();
    site.stop_primary();

    let plan = site.restores("--target-name before --plan");
    assert_eq!(plan["plan"]["resolve"]["backup"]["id"], id.to_string(), "{plan:#}");
    assert!(plan["restored"].is_null() && !site.data().exists(), "{plan:#}");
    let estimate = &plan["plan"]["resolve"]["estimate"];
    assert!(estimate["download_bytes"].as_u64().unwrap() > 1000 && estimate["seconds"].as_u64().unwrap() > 0, "{plan:#}");

    let report = site.restores("--target-name before --jobs 3");
    site.is_restored(&backup);
    site.is_verified();
    assert_eq!(report["restored"]["files"].as_u64().unwrap() as usize, files_below(&backup.dir).len(), "{report:#}");
    assert!(report["restored"]["requests"].as_u64().unwrap() < 200, "{report:#}");

    // What was started once is a cluster of its own: only --delta takes it.
    let (report, server) = site.starts("--target-name before --delta");
    let server = server.unwrap();
    assert_eq!(report["server"]["state"], "paused", "{report:#}");
    let stop = parse_lsn(report["plan"]["resolve"]["stop"]["lsn"].as_str().unwrap());
    assert!(parse_lsn(report["server"]["lsn"].as_str().unwrap()) > stop, "{report:#}");
    assert_eq!(site.primary.sql(COUNT), expected, "{}", server.conninfo);
    site.fails("--target-name before --delta", 16, &["in use", "postmaster.pid"]);
    assert!(server.data.join("postmaster.pid").exists());
}

#[test]
fn what_was_there_at_a_restore_point_comes_back_13() {
    round_trip(13);
}

#[test]
fn what_was_there_at_a_restore_point_comes_back_15() {
    round_trip(15);
}

#[test]
fn what_was_there_at_a_restore_point_comes_back_18() {
    round_trip(18);
}
