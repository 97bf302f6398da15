//! `walvis pitr-restore` on copied data directories and real servers: what it promises by itself. That whole backups
//! come back is told elsewhere.
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
use crate::support::schema;
use crate::support::stored::Copied;

mod room;

/// A server that archives, its repository, and where to restore to.
struct Site {
    scratch: Arc<Scratch>,
    archive: Archive,
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
        Self { scratch, archive, primary }
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
        self.scratch.give_all(&self.repository());
    }

    fn walvis(&self, arguments: &str) -> Output {
        let program = self.archive.archive_command.strip_suffix(" push-wal %p").unwrap();
        let mut command = self.scratch.command(Path::new("sh"));
        command.arg("-c").arg(format!("{program} {arguments}")).stdin(Stdio::null()).output().unwrap()
    }

    /// Restores into `data`, and gives the report.
    #[track_caller]
    fn restores(&self, arguments: &str) -> Value {
        let output = self.restore(arguments);
        assert!(output.status.success(), "pitr-restore {arguments}: {}", text(&output));
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
        schema::holds("pitr-restore", &report);
        report
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
        let server = report["server"]["pid"].as_i64().map(|pid| Server {
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
        let postgres = self.primary.postgres();
        // One of an earlier version does not read the list of 17 and later.
        if postgres.major >= 17 && !postgres.home.join("bin/pg_verifybackup").exists() {
            return;
        }
        let Some(program) = self.scratch.client_tool(postgres.major, "pg_verifybackup") else { return };
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
    assert_eq!(plan["plan"]["resolve"]["backup"]["backup_id"], id.to_string(), "{plan:#}");
    assert!(plan["restored"].is_null() && !site.data().exists(), "{plan:#}");
    let estimate = &plan["plan"]["resolve"]["estimate"];
    assert!(estimate["download_bytes"].as_u64().unwrap() > 1000 && estimate["duration_s"].as_f64().unwrap() > 0.0, "{plan:#}");

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

/// Each kind of target and action, one after the other in the same directory.
#[test]
fn every_target_is_reached_as_it_was_asked_for() {
    let mut site = Site::new(15);
    let (_, _) = site.backup("base");
    let states: Vec<(String, String, String)> = (0..3)
        .map(|round| {
            site.primary
                .sql(&format!("insert into t select i, 'r{round}' from generate_series({0}, {0} + 99) i", 4000 + round * 100));
            let time = site.primary.sql("select clock_timestamp()");
            let lsn = site.primary.sql("select pg_current_wal_insert_lsn()");
            (time, lsn, site.primary.sql(COUNT))
        })
        .collect();
    site.primary.switch_and_archive();
    site.stop_primary();
    let (time, _, at_time) = &states[1];
    let (_, lsn, at_lsn) = &states[0];
    let last = &states[2].2;

    let (report, server) = site.starts(&format!("--target-time '{time}'"));
    assert_eq!((&report["server"]["state"], &site.primary.sql(COUNT)), (&"paused".into(), at_time), "{report:#}");
    assert_eq!(site.primary.sql("show archive_mode"), "off");
    // Paused is not over: it goes on when it is told to.
    site.primary.sql("select pg_wal_replay_resume()");
    assert!(poll(|| (site.primary.sql("select pg_is_in_recovery()") == "f").then_some(())).is_some());
    drop(server);

    let (report, server) =
        site.starts(&format!("--target-lsn {lsn} --exclusive --target-action promote --delta --discard-unarchived-wal"));
    assert_eq!((&report["server"]["state"], &site.primary.sql(COUNT)), (&"promoted".into(), at_lsn), "{report:#}");
    assert_eq!(report["server"]["timeline"], 2);
    assert!(report["restored"]["kept_bytes"].as_u64().unwrap() > 1 << 20, "{report:#}");
    drop(server);

    let (report, server) = site.starts("--target latest --delta --discard-unarchived-wal --archiving keep");
    assert_eq!((&report["server"]["state"], &site.primary.sql(COUNT)), (&"promoted".into(), last), "{report:#}");
    assert_eq!(site.primary.sql("show archive_mode"), "on");
    drop(server);

    let (report, server) = site.starts("--target immediate --delta --discard-unarchived-wal");
    let consistent = parse_lsn(report["plan"]["resolve"]["backup"]["stop_lsn"].as_str().unwrap());
    assert_eq!(report["server"]["state"], "paused", "{report:#}");
    assert!(parse_lsn(report["server"]["lsn"].as_str().unwrap()) >= consistent, "{report:#}");
    assert_eq!(site.primary.sql("select count(*) from t"), "3000");
    drop(server);

    let (report, server) =
        site.starts("--target latest --target-timeline 1 --delta --discard-unarchived-wal --target-action shutdown");
    assert_eq!(report["server"]["state"], "promoted", "without a target there is no action: {report:#}");
    drop(server);
    let (report, server) = site
        .starts(&format!("--target-time '{time}' --target-action shutdown --delta --discard-unarchived-wal --target-timeline 1"));
    assert_eq!(report["server"]["state"], "shut_down", "{report:#}");
    assert!(server.is_none() && !site.data().join("postmaster.pid").exists());
}

/// Whatever is not empty, not ours, in use, or elsewhere, is left as it is.
#[test]
fn what_is_not_ours_is_refused_and_untouched() {
    let mut site = Site::new(15);
    let (_, id) = site.backup("base");
    let (_, newer) = site.backup("newer");
    site.primary.switch_and_archive();
    let data = site.data();
    fs::create_dir(&data).unwrap();
    site.scratch.give(&data);
    site.scratch.write(&data.join("thesis.tex"), b"precious");
    site.fails("--target latest", 16, &["not empty", "nothing was touched"]);
    site.fails("--target latest --delta", 16, &["not a data directory"]);
    assert_eq!(fs::read(data.join("thesis.tex")).unwrap(), b"precious");
    fs::remove_file(data.join("thesis.tex")).unwrap();

    // Another cluster's data directory.
    let other = Cluster::init(&site.scratch, "other", 15, &Options::default());
    let into = |dir: &Path, arguments: &str| site.walvis(&format!("pitr-restore --pgdata '{}' {arguments}", dir.display()));
    let output = into(&other.data, "--target latest --delta");
    assert_eq!(output.status.code(), Some(16), "{}", text(&output));
    assert!(text(&output).contains("of another cluster"), "{}", text(&output));
    assert!(other.data.join("global/pg_control").exists());
    // The one that runs.
    let output = into(&site.primary.data, "--target latest --delta");
    assert_eq!(output.status.code(), Some(16), "{}", text(&output));
    assert_eq!(site.primary.sql("select count(*) from t"), "3000");

    // An unfinished restore of another backup, and one that is under way.
    site.restores(&format!("--target latest --backup {newer}"));
    let note =
        format!(r#"{{"about":"","repository_id":"00","cluster":"main","system_id":"1","backup":"{newer}","tablespaces":[]}}"#);
    site.scratch.write(&data.join("walvis.restore"), note.as_bytes());
    site.fails(&format!("--target latest --backup {id}"), 16, &["unfinished restore of another backup", &newer.to_string()]);
    let lock = fs::File::open(&data).unwrap();
    lock.lock().unwrap();
    site.fails("--target latest --delta", 16, &["another restore writes there"]);
    drop(lock);
    site.restores(&format!("--target latest --backup {id} --delta"));
    site.fails("--target latest --delta --start --bin-dir /nonexistent", 10, &["no 'postgres' of version 15"]);
}

/// A flipped byte ends the restore with the name of the pack and the file, and nothing starts. Once mended it goes on.
#[test]
fn damage_stops_the_restore_and_the_next_run_goes_on() {
    let mut site = Site::new(15);
    let (backup, _) = site.backup("base");
    site.primary.switch_and_archive();
    let packs: Vec<PathBuf> =
        files_below(&site.repository()).into_iter().filter(|path| path.to_str().unwrap().contains("/packs/")).collect();
    assert!(packs.len() > 2, "{packs:?}");
    let pack = packs.last().unwrap();
    let flip = |path: &Path| {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let at = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    fs::set_permissions(pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    flip(pack);
    let name = pack.strip_prefix(site.repository()).unwrap().to_str().unwrap().to_owned();
    site.fails("--target latest", 14, &["is damaged", &name, "restored/"]);
    site.cannot_start();
    flip(pack);
    let report = site.restores("--target latest");
    assert_eq!(report["plan"]["restore"]["directory_state"], "unfinished");
    assert!(report["restored"]["kept_bytes"].as_u64().unwrap() > 0, "{report:#}");
    site.is_restored(&backup);
    site.is_verified();

    // A pack that is gone, and a manifest that is damaged: known before anything is touched.
    let elsewhere = pack.with_extension("away");
    fs::rename(pack, &elsewhere).unwrap();
    site.fails("--target latest --delta", 14, &["is gone", &name]);
    site.cannot_start();
    fs::rename(&elsewhere, pack).unwrap();
    site.restores("--target latest");
    let manifest = files_below(&site.repository()).into_iter().find(|path| path.to_str().unwrap().contains("/backups/")).unwrap();
    let len = fs::metadata(&manifest).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&manifest).unwrap();
    file.write_all_at(&[0x55; 8], len - 8).unwrap();
    site.fails("--target latest --delta", 14, &["/backups/", "is damaged"]);
    assert!(site.data().join("global/pg_control").exists(), "it was not touched");
}

/// Whatever became of a data directory: with --delta it is the backup's again, and only what differs is read.
#[test]
fn delta_mends_whatever_differs() {
    let mut site = Site::new(15);
    let (backup, _) = site.backup("base");
    site.primary.switch_and_archive();
    site.restores("--target latest");
    let data = site.data();
    let big = files_below(&data).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    assert!(fs::metadata(&big).unwrap().len() > 10 << 20);
    let file = fs::OpenOptions::new().write(true).open(&big).unwrap();
    file.write_all_at(b"x", 5_000_000).unwrap();
    // Longer, shorter, gone, of another kind, read-only, more than there was.
    let small: Vec<PathBuf> = files_below(&data.join("base")).into_iter().filter(|path| *path != big).collect();
    fs::OpenOptions::new().append(true).open(&small[0]).unwrap().set_len(999_999).unwrap();
    fs::OpenOptions::new().write(true).open(&small[1]).unwrap().set_len(100).unwrap();
    fs::remove_file(&small[2]).unwrap();
    fs::remove_file(&small[3]).unwrap();
    fs::create_dir(&small[3]).unwrap();
    fs::set_permissions(&small[4], std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    fs::remove_dir_all(data.join("pg_multixact")).unwrap();
    for stray in ["standby.signal", "base/stray", "pg_wal/000000010000000000000009", "stray/deep/file"] {
        fs::create_dir_all(data.join(stray).parent().unwrap()).unwrap();
        site.scratch.write(&data.join(stray), b"stray");
    }
    let outside = site.scratch.make_dir("outside");
    site.scratch.write(&outside.join("precious"), b"precious");
    std::os::unix::fs::symlink(&outside, data.join("base/link")).unwrap();
    let mut open = vec![data.clone()];
    while let Some(dir) = open.pop() {
        site.scratch.give(&dir);
        open.extend(
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap()).filter(|e| e.file_type().unwrap().is_dir()).map(|e| e.path()),
        );
    }
    let report = site.restores("--target latest --delta");
    site.is_restored(&backup);
    site.is_verified();
    assert!(outside.join("precious").exists());
    let count = |name: &str| report["restored"][name].as_u64().unwrap();
    assert!(count("removed_items") >= 6, "{report:#}");
    assert!(count("kept_bytes") > count("bytes") / 2 && count("read_bytes") < count("bytes") / 20, "{report:#}");
}

/// A disk that does not take a large file: the directory cannot be started, and the next run goes on.
#[test]
fn a_file_that_does_not_fit_leaves_nothing_that_starts() {
    let mut site = Site::new(15);
    let (backup, _) = site.backup("base");
    site.primary.switch_and_archive();
    let program = site.archive.archive_command.strip_suffix(" push-wal %p").unwrap().to_owned();
    let script = format!("ulimit -f 8192; exec {program} pitr-restore --target latest --pgdata '{}'", site.data().display());
    let output = site.scratch.command(Path::new("bash")).arg("-c").arg(script).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(10), "{}", text(&output));
    assert!(text(&output).contains("ulimit -f"), "{}", text(&output));
    site.cannot_start();
    site.restores("--target latest");
    site.is_restored(&backup);
}

/// Killed at any moment: nothing starts until it is whole, and the same command makes it whole.
#[test]
fn a_killed_restore_is_gone_on_with() {
    let mut site = Site::new(15);
    let (backup, _) = site.backup("base");
    site.primary.switch_and_archive();
    let program = site.archive.archive_command.strip_suffix(" push-wal %p").unwrap().to_owned();
    let mut killed = 0;
    for entries in [1, 3, 5, 12, 20] {
        let script = format!("exec {program} pitr-restore --jobs 1 --target latest --pgdata '{}'", site.data().display());
        let mut child = site.scratch.command(Path::new("sh")).arg("-c").arg(script).stdout(Stdio::null()).spawn().unwrap();
        poll(|| {
            let there = fs::read_dir(site.data()).map_or(0, Iterator::count);
            (there >= entries || child.try_wait().unwrap().is_some()).then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        if site.data().join("walvis.restore").exists() {
            killed += 1;
            site.cannot_start();
        } else {
            // Before its first step was complete, which the next restore takes for nothing; or done.
            let unfinished = walvis::fsio::unfinished_name("walvis.restore".as_ref());
            let is_nothing = fs::read_dir(site.data())
                .map_or(true, |mut entries| entries.all(|entry| entry.unwrap().file_name() == unfinished));
            assert!(is_nothing || site.data().join("global/pg_control").exists());
            if !is_nothing {
                fs::remove_dir_all(site.data()).unwrap();
            }
        }
    }
    assert!(killed >= 2, "{killed}");
    site.restores("--target latest --delta");
    site.is_restored(&backup);
    site.is_verified();
}

/// Tablespaces go where they were, or where they are mapped; never over anything.
#[test]
fn tablespaces_are_mapped_and_never_overwritten() {
    let mut site = Site::new(15);
    let backup = site.primary.backup_to("base");
    let (was, other) = (site.scratch.path().join("was"), site.scratch.path().join("other"));
    let copy = site.scratch.make_dir("copy");
    let version = fs::read_dir(site.primary.data.join("base")).unwrap().count();
    assert!(version > 0);
    let below = "PG_15_202209061/5";
    fs::create_dir_all(copy.join(below)).unwrap();
    site.scratch.give(&copy.join("PG_15_202209061"));
    site.scratch.give(&copy.join(below));
    site.scratch.write(&copy.join(below).join("16401"), &[7; 300_000]);
    site.scratch.write(
        &backup.dir.join("tablespace_map"),
        format!(
            "16399 {}
",
            was.display()
        )
        .as_bytes(),
    );
    let (repository, key) = (site.repository(), site.scratch.path().join("walvis.key"));
    let copied = Copied::new(&repository, &key, &backup.dir, backup.stop_lsn, 15);
    Copied { tablespaces: vec![(16399, was.clone(), copy.clone())], ..copied }.store();
    site.give_repository();
    site.primary.switch_and_archive();

    // Nothing is written outside that nobody named; and nothing where a server of the same version has its own.
    site.scratch.make_dir("was");
    let original = "--target latest --tablespaces-at-original-places";
    let named = ["tablespace 16399 was in", "--tablespaces-at-original-places", "--tablespace-map"];
    site.fails("--target latest", 16, &named);
    let plan = site.restores("--target latest --plan");
    assert!(plan["plan"]["restore"]["notes"].to_string().contains("--tablespaces-at-original-places"), "{plan:#}");
    site.scratch.make_dir("was/PG_15_202209061");
    site.scratch.write(&was.join("PG_15_202209061/live"), b"precious");
    site.fails(original, 16, &["tablespace 16399", "not empty", "--tablespace-map 16399="]);
    assert!(!site.data().exists() && was.join("PG_15_202209061/live").exists());
    site.fails("--target latest --tablespace-map 1=/x", 2, &["no tablespace 1"]);
    let plan = site.restores(&format!("--target latest --plan --tablespace-map '{}={}'", was.display(), other.display()));
    assert_eq!(plan["plan"]["restore"]["tablespaces"][0]["to_path"], other.to_str().unwrap());
    site.restores(&format!("--target latest --tablespace-map 16399={}", other.display()));
    let linked = |to: &Path| {
        assert_eq!(fs::read_link(site.data().join("pg_tblspc/16399")).unwrap(), to);
        assert_eq!(fs::read(to.join(below).join("16401")).unwrap(), [7; 300_000]);
        let map = fs::read_to_string(site.data().join("tablespace_map")).unwrap();
        assert_eq!(
            map,
            format!(
                "16399 {}
",
                to.display()
            )
        );
        site.is_verified();
    };
    linked(&other);
    // Mapped no more: the link and the map lead where it was. What else lies there is not ours.
    fs::remove_file(was.join("PG_15_202209061/live")).unwrap();
    site.restores(&format!("{original} --delta"));
    linked(&was);
    site.scratch.write(&was.join("other-data"), b"precious");
    site.scratch.make_dir("was/PG_14_202107181");
    site.restores(&format!("{original} --delta"));
    assert!(was.join("other-data").exists() && was.join("PG_14_202107181").exists() && was.join(below).join("16401").exists());
    assert!(other.join(below).join("16401").exists(), "what it was mapped to is not ours any more");
}

/// The newest backup that is usable is chosen, damaged ones are left out, and `list` shows them all.
#[test]
fn the_newest_usable_backup_is_chosen() {
    let mut site = Site::new(15);
    let (_, first) = site.backup("first");
    site.primary.sql("insert into t values (5000, 'x')");
    let between = site.primary.sql("select clock_timestamp()");
    site.primary.sql("insert into t values (5001, 'x')");
    let (_, second) = site.backup("second");
    site.primary.sql("insert into t values (5002, 'x')");
    site.primary.switch_and_archive();
    let chosen =
        |arguments: &str| site.restores(&format!("--plan {arguments}"))["plan"]["resolve"]["backup"]["backup_id"].clone();
    assert_eq!(chosen("--target latest"), second.to_string());
    assert_eq!(chosen("--target immediate"), second.to_string());
    assert_eq!(chosen(&format!("--target-time '{between}'")), first.to_string());
    assert_eq!(chosen(&format!("--target latest --backup {first}")), first.to_string());
    site.fails(&format!("--target-time '{between}' --backup {second}"), 15, &["not from backup", "later than the target"]);
    site.fails("--target latest --backup 20200101T000000Z-00000000", 15, &["there is no backup"]);
    site.fails("--target latest --backup x", 2, &["not the id of a backup"]);

    let listed = |arguments: &str| -> Vec<Value> {
        let output = site.walvis(&format!("list --json {arguments}"));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
        json[0]["clusters"][0]["systems"][0]["backups"].as_array().unwrap().clone()
    };
    let backups = listed("");
    assert_eq!(
        [&backups[0]["backup_id"], &backups[1]["backup_id"]],
        [&Value::from(second.to_string()), &Value::from(first.to_string())]
    );
    for backup in &backups {
        assert_eq!((&backup["label"], &backup["duration_s"]), (&"copied".into(), &2.0.into()), "{backup:#}");
        assert_eq!(backup["window_from"]["lsn"], backup["stop_lsn"]);
        assert!(backup["window_until"]["time"].is_string() && backup["pages_verified"] == 7, "{backup:#}");
    }
    assert_eq!(listed("--database postgres").len(), 2);
    assert!(listed("--database nobody").is_empty());
    let shown = text(&site.walvis("list"));
    assert!(shown.contains(&format!(r#"backup {second} "copied""#)) && shown.contains("recoverable from"), "{shown}");

    // Its summary cannot be read any more.
    let manifest = files_below(&site.repository()).into_iter().find(|path| path.ends_with(second.to_string())).unwrap();
    fs::OpenOptions::new().write(true).open(&manifest).unwrap().write_all_at(&[0x55; 8], 80).unwrap();
    assert_eq!(chosen("--target latest"), first.to_string());
    assert!(text(&site.walvis("list")).contains(&format!("backup {second} DAMAGED")));
    site.fails(&format!("--target latest --backup {second}"), 14, &["is damaged"]);
}

/// The server ends before the target: the reason is in its log, and is shown.
#[test]
fn a_server_that_gives_up_is_told_with_its_log() {
    let mut site = Site::new(15);
    let backup = site.primary.backup_to("base");
    let conf = backup.dir.join("postgresql.conf");
    let settings = fs::read_to_string(&conf).unwrap();
    site.scratch.write(
        &conf,
        format!(
            "{settings}
no_such_setting = 1
"
        )
        .as_bytes(),
    );
    let (repository, key) = (site.repository(), site.scratch.path().join("walvis.key"));
    Copied::new(&repository, &key, &backup.dir, backup.stop_lsn, 15).store();
    site.give_repository();
    site.primary.switch_and_archive();
    let programs = site.primary.postgres().home.join("bin");
    let start = format!("--start --bin-dir '{}'", programs.display());
    site.fails(&format!("--target latest {start}"), 17, &["ended", "no_such_setting", "the restored directory is complete"]);
    assert!(site.data().join("global/pg_control").exists() && !site.data().join("walvis.restore").exists());
}

/// As root: files belong to whom they belonged, and the server does not run as root.
#[test]
fn root_gives_files_to_their_owners() {
    if !crate::support::command::is_root() {
        return;
    }
    let mut site = Site::new(15);
    let (backup, _) = site.backup("base");
    site.primary.switch_and_archive();
    let expected = site.primary.sql(COUNT);
    site.stop_primary();
    let programs = site.primary.postgres().home.join("bin");
    let output = std::process::Command::new(site.scratch.walvis())
        .args(["--json", "--cluster", "main", "--repository"])
        .arg(format!("file://{}", site.repository().display()))
        .arg("--key-file")
        .arg(site.scratch.path().join("walvis.key"))
        .args(["pitr-restore", "--target", "latest", "--start", "--pgdata"])
        .arg(site.data())
        .arg("--bin-dir")
        .arg(programs)
        .env("PGUSER", "postgres")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pid = Pid::from_raw(i32::try_from(report["server"]["pid"].as_i64().unwrap()).unwrap());
    let _server = Server { pid, conninfo: String::new(), data: site.data() };
    assert_eq!(site.primary.sql(COUNT), expected);
    let owner = |path: PathBuf| fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
    for path in ["", "base", "PG_VERSION", "postgresql.auto.conf", "walvis-start.log", "global/pg_control", "backup_manifest"] {
        assert_eq!(owner(site.data().join(path)), owner(backup.dir.join("PG_VERSION")), "{path}");
    }
    assert_eq!(owner(PathBuf::from(format!("/proc/{pid}"))), owner(backup.dir.join("PG_VERSION")));
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
