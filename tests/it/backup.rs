//! `walvis base-backup` of real servers: what it copies, what it leaves out, what it finds damaged, and when it must not count.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use walvis::codec::pack::RecordKind;
use walvis::deadline::Deadline;
use walvis::format::extent::{BackupId, Extent, extent_bytes};
use walvis::format::manifest::{Content, FileEntry, Item, ManifestHead};
use walvis::pg::{BackupManifest, Lsn, Timeline, WalRange};
use walvis::repo::backups::PackReader;
use walvis::repo::{ClusterName, KeySource, Repository, StoreSettings, StoreUrl, SystemId};

use crate::support::command::{Ran, Running, eventually, files_below, run as run_program, start};
use crate::support::postgres::{Cluster, Options, Postgres, Recovery, Role, Scratch, Stop, run};

/// A host with a repository, where servers archive and backups are taken.
struct Host {
    scratch: Arc<Scratch>,
    config: PathBuf,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let key = scratch.path().join("key");
        run(scratch.command(&scratch.walvis()).args(["key", "generate"]).arg(&key));
        let url = format!("file://{}/repository", scratch.path().display());
        let text = format!("cluster = \"main\"\n[[repository]]\nurl = \"{url}\"\nkey_file = \"{}\"\n", key.display());
        let host = Self { config: scratch.path().join("walvis.toml"), scratch };
        host.scratch.write(&host.config, text.as_bytes());
        run_program(&mut host.command(&["init"])).exits(0);
        host
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.scratch.command(&self.scratch.walvis());
        command.arg("--config").arg(&self.config).args(arguments);
        command
    }

    fn walvis(&self) -> String {
        format!("'{}' --config '{}'", self.scratch.walvis().display(), self.config.display())
    }

    fn options(&self) -> Options {
        let walvis = self.walvis();
        Options {
            archive_command: Some(format!("{walvis} push-wal %p")),
            restore_command: Some(format!("{walvis} fetch-wal %f %p")),
            ..Options::default()
        }
    }

    fn cluster(&self, name: &str, major: u32, options: &Options) -> Cluster {
        let mut cluster = Cluster::init(&self.scratch, name, major, options);
        cluster.start();
        cluster
    }

    fn arguments<'a>(&self, conninfo: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["--json", "base-backup", "--fast", "--server", conninfo], more].concat()
    }

    fn ran(&self, cluster: &Cluster, more: &[&str]) -> Ran {
        let conninfo = cluster.conninfo();
        run_program(&mut self.command(&self.arguments(&conninfo, more)))
    }

    /// Takes a backup that must succeed, and gives its report.
    #[track_caller]
    fn backup(&self, cluster: &Cluster, more: &[&str]) -> Value {
        serde_json::from_str(&self.ran(cluster, more).exits(0).stdout).unwrap()
    }

    fn start(&self, cluster: &Cluster, more: &[&str]) -> Running {
        let conninfo = cluster.conninfo();
        start(&mut self.command(&self.arguments(&conninfo, more)))
    }

    fn repository(&self) -> Repository {
        let settings = StoreSettings { url: StoreUrl::File(self.scratch.path().join("repository")), create_if_absent: None };
        let deadline = Deadline::after(Duration::from_secs(60));
        let secret = KeySource::File(self.scratch.path().join("key")).read(&deadline).unwrap();
        Repository::open(&settings, &secret, 1, deadline).unwrap()
    }

    fn manifests(&self) -> usize {
        files_below(&self.scratch.path().join("repository"))
            .iter()
            .filter(|path| path.to_str().unwrap().contains("/backups/"))
            .count()
    }
}

/// A stored backup, with everything in it.
struct Stored {
    head: ManifestHead,
    directories: BTreeMap<String, u32>,
    files: BTreeMap<String, (FileEntry, Vec<u8>)>,
}

/// Reads a backup back, without the command that restores.
fn read_back(host: &Host, report: &Value) -> Stored {
    let repository = host.repository();
    let cluster = ClusterName::new("main").unwrap();
    let system_id = SystemId(report["system_id"].as_str().unwrap().parse().unwrap());
    let id = BackupId::parse(report["id"].as_str().unwrap()).unwrap();
    let mut items = Vec::new();
    let read = repository.read_manifest(&cluster, system_id, id, &mut |_, item| {
        items.push(item);
        Ok(ControlFlow::Continue(()))
    });
    let (summary, head) = read.unwrap().unwrap();
    let reader = PackReader::new(&repository, &cluster, system_id);
    let (mut directories, mut files) = (BTreeMap::new(), BTreeMap::new());
    for item in items {
        let path = String::from_utf8(item.path().to_vec()).unwrap();
        match item {
            Item::Directory(entry) => drop(directories.insert(path, entry.mode)),
            Item::File(entry) => {
                let extents: Vec<Extent> = match &entry.content {
                    Content::Extents(extents) => extents.clone(),
                    Content::Tables(tables) => tables.iter().flat_map(|t| reader.table(&t.place).unwrap().extents).collect(),
                };
                let mut content = Vec::new();
                for (index, extent) in (0..).zip(extents) {
                    let bytes = extent_bytes(entry.size_bytes, index);
                    match extent.stored {
                        None => content.resize(content.len() + bytes, 0),
                        Some(stored) => {
                            let place = stored.place;
                            let mut sealed = reader.range(place.pack, place.offset.into(), place.end()).unwrap();
                            reader.open(RecordKind::Extent, &place, &mut sealed, Some(bytes), &mut content).unwrap();
                        }
                    }
                }
                assert_eq!((content.len() as u64, crc32c::crc32c(&content)), (entry.size_bytes, entry.crc32c), "{path}");
                files.insert(path, (entry, content));
            }
        }
    }
    assert_eq!(summary.files, files.len() as u64);
    assert_eq!(summary.bytes, files.values().map(|(_, content)| content.len() as u64).sum::<u64>());
    // A restore reads nothing from packs that the manifest does not name, and they are as long as it says.
    for used in &head.packs {
        let records = reader.contents(used.pack).unwrap();
        assert_eq!(records.iter().map(|record| u64::from(record.sealed_bytes)).sum::<u64>(), used.total_bytes);
        assert!(used.live_bytes <= used.total_bytes && used.live_bytes > 0, "{used:?}");
    }
    Stored { head, directories, files }
}

impl Stored {
    /// Writes everything where a server can be started from it.
    fn write_to(&self, scratch: &Scratch, root: &Path) {
        for (path, mode) in &self.directories {
            let path = root.join(path);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            scratch.give(&path);
        }
        for (path, (_, content)) in &self.files {
            scratch.write(&root.join(path), content);
        }
    }

    /// The server's own manifest.
    fn write_manifest(&self, scratch: &Scratch, root: &Path, report: &Value) {
        let number = |name: &str| report[name].as_u64().unwrap();
        let lsn = |name: &str| report[name].as_str().unwrap().parse::<Lsn>().unwrap();
        let system_id = report["system_id"].as_str().unwrap().parse().unwrap();
        let major = u32::try_from(number("postgres_version_num") / 10_000).unwrap();
        let mut manifest = BackupManifest::new(Vec::new(), major, system_id).unwrap();
        for (path, (entry, _)) in &self.files {
            manifest.add_file(path.as_bytes(), entry.size_bytes, entry.modified_unix_us, entry.crc32c).unwrap();
        }
        let timeline = Timeline(u32::try_from(number("timeline")).unwrap());
        let range = WalRange { timeline, start: lsn("start_lsn"), end: lsn("stop_lsn") };
        scratch.write(&root.join("backup_manifest"), &manifest.finish(&[range]).unwrap());
    }
}

fn pages_of(cluster: &Cluster, relation: &str) -> (PathBuf, u64) {
    cluster.sql("checkpoint");
    let path = cluster.data.join(cluster.sql(&format!("select pg_relation_filepath('{relation}')")));
    let bytes = fs::metadata(&path).unwrap().len();
    (path, bytes / 8192)
}

/// Sessions that have begun a backup, and wait for the files.
const COPIES: &str = "select count(*) from pg_stat_activity where application_name = 'walvis' and state = 'idle' \
                      and (query like '%pg_control_checkpoint%' or query like '%_start_backup(%')";

/// Flips a bit in a page behind the server's back.
fn damage(path: &Path, block: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let at = block * 8192 + 4000;
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}

/// Backup, content, second backup, recovery, the server's own tools: the whole promise of this level, for one version.
fn a_backup_is_a_cluster(major: u32) {
    let host = Host::new();
    let mut cluster = host.cluster("server", major, &host.options());
    let space = host.scratch.make_dir("space");
    cluster.sql("create table plain as select i, md5(i::text) from generate_series(1, 20000) i; create index on plain (i)");
    cluster.sql("create unlogged table quick as select i from generate_series(1, 5000) i");
    cluster.sql(&format!("create tablespace fast location '{}'", space.display()));
    cluster.sql("create table far (i int) tablespace fast");
    cluster.sql("insert into far select generate_series(1, 3000)");
    cluster.sql("create database other");
    let report = host.backup(&cluster, &["--label", "it's \\the first", "--annotate", "ticket=42", "--jobs", "3"]);
    assert_eq!(report["pages_damaged"], 0, "{report:#}");
    assert!(report["page_checksums"].as_bool().unwrap() && report["pages_verified"].as_u64().unwrap() > 700, "{report:#}");
    assert_eq!((&report["label"], &report["annotations"]["ticket"]), (&Value::from("it's \\the first"), &Value::from("42")));
    assert_eq!(report["warnings"].as_array().unwrap().len(), 0, "{report:#}");
    let databases = report["databases"].as_array().unwrap();
    let other = databases.iter().find(|database| database["name"] == "other").unwrap();
    assert!(other["bytes"].as_u64().unwrap() > 5_000_000, "{report:#}");
    assert_eq!(report["tablespaces"][0]["path"], space.display().to_string());
    let stored = read_back(&host, &report);
    let label = String::from_utf8(stored.files["backup_label"].1.clone()).unwrap();
    assert!(label.contains(&format!("START WAL LOCATION: {} ", report["start_lsn"].as_str().unwrap())), "{label}");
    assert!(label.contains("LABEL: it's \\the first\n"), "{label}");
    for name in stored.files.keys() {
        let last = name.rsplit('/').next().unwrap();
        assert!(
            !name.starts_with("pg_wal/") && !last.starts_with("pgsql_tmp") && !last.starts_with("pg_internal.init"),
            "{name}"
        );
        assert!(!["postmaster.pid", "postmaster.opts"].contains(&last), "{name}");
    }
    // Of an unlogged table only what it is reset to.
    let quick = cluster.sql("select pg_relation_filepath('quick')");
    assert!(!stored.files.contains_key(&quick) && stored.files.contains_key(&format!("{quick}_init")));
    for directory in ["", "pg_wal", "pg_wal/archive_status", "pg_replslot", "pg_notify", "pg_tblspc", "base"] {
        assert_eq!(stored.directories.get(directory), Some(&0o700), "{directory}");
    }
    assert_eq!(stored.directories.contains_key("pg_wal/summaries"), major >= 17);

    // Nothing happens, and nearly nothing is stored.
    let again = host.backup(&cluster, &[]);
    assert_eq!(again["parent"], report["id"]);
    let (first, second) = (report["new_bytes"].as_u64().unwrap(), again["new_bytes"].as_u64().unwrap());
    assert!(second * 100 < first, "{second} of {first}: {again:#}");
    let stored = read_back(&host, &again);
    assert_eq!(stored.head.facts.tablespaces.len(), 1);

    // The tablespace of a clone on the same host goes elsewhere.
    cluster.stop(Stop::Fast);
    fs::rename(&space, host.scratch.path().join("moved")).unwrap();
    host.scratch.make_dir("space");
    let root = host.scratch.path().join("restored");
    stored.write_to(&host.scratch, &root);
    stored.write_manifest(&host.scratch, &root, &again);
    let verify = Postgres::find(15).client_tool("pg_verifybackup");
    // Version 15's knows the manifests up to 16.
    if let Some(verify) = verify.filter(|_| major <= 16) {
        run(host.scratch.command(&verify).arg("--no-parse-wal").arg(&root));
    }
    let oid = stored.head.facts.tablespaces[0].oid.to_string();
    let map = String::from_utf8(stored.files["tablespace_map"].1.clone()).unwrap();
    assert_eq!(map, format!("{oid} {}\n", space.display()));
    for entry in fs::read_dir(root.join("pg_tblspc").join(&oid)).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), space.join(entry.file_name())).unwrap();
    }
    fs::remove_dir(root.join("pg_tblspc").join(&oid)).unwrap();
    fs::remove_file(root.join("backup_manifest")).unwrap();
    let mut restored = restored(&host, "restored", major);
    assert!(matches!(restored.wait_recovery(), Recovery::Promoted));
    assert_eq!(restored.sql("select count(*), sum(hashtextextended(t::text, 0)) is not null from plain t"), "20000|t");
    assert_eq!(restored.sql("select count(*) from far"), "3000");
    assert_eq!(restored.sql("select count(*) from quick"), "0");
    assert_eq!(restored.sql("set enable_seqscan = off; select count(*) from plain where i between 100 and 200"), "101");
}

/// A cluster from files that are in place already.
fn restored(host: &Host, name: &str, major: u32) -> Cluster {
    let options = Options { archive_command: None, ..host.options() };
    let mut cluster = Cluster::in_place(&host.scratch, name, major, &options);
    host.scratch.write(&cluster.data.join("recovery.signal"), b"");
    cluster.spawn();
    cluster
}

#[test]
fn a_backup_of_13_is_a_cluster() {
    a_backup_is_a_cluster(13);
}

#[test]
fn a_backup_of_14_is_a_cluster() {
    a_backup_is_a_cluster(14);
}

#[test]
fn a_backup_of_15_is_a_cluster() {
    a_backup_is_a_cluster(15);
}

#[test]
fn a_backup_of_16_is_a_cluster() {
    a_backup_is_a_cluster(16);
}

#[test]
fn a_backup_of_17_is_a_cluster() {
    a_backup_is_a_cluster(17);
}

#[test]
fn a_backup_of_18_is_a_cluster() {
    a_backup_is_a_cluster(18);
}

#[test]
fn pg_control_says_what_the_server_says() {
    for major in 13..=18 {
        let host = Host::new();
        let mut primary = host.cluster("server", major, &host.options().setting("wal_level", "replica"));
        let standby = standby_of(&host, &primary, "standby", "off");
        primary.sql("create table t as select generate_series(1, 1000)");
        primary.switch_and_archive();
        for cluster in [&primary, &standby] {
            cluster.sql("checkpoint");
            let control = fs::read(cluster.data.join("global/pg_control")).unwrap();
            let control = walvis::pg::ControlFile::parse(&control).unwrap();
            let values = cluster.sql(
                "select system_identifier, catalog_version_no, checkpoint_lsn, redo_lsn, timeline_id, min_recovery_end_lsn,
                 min_recovery_end_timeline, data_page_checksum_version > 0, database_block_size, blocks_per_segment,
                 bytes_per_wal_segment from pg_control_system(), pg_control_checkpoint(), pg_control_recovery(), pg_control_init()",
            );
            let found = format!(
                "{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
                control.system_id,
                control.catalog_version,
                control.checkpoint,
                control.redo,
                control.timeline,
                control.min_recovery_point,
                control.min_recovery_timeline,
                if control.page_checksums { "t" } else { "f" },
                control.page_bytes,
                control.pages_per_file,
                control.wal_segment_size.bytes()
            );
            // The standby goes on in between.
            assert!(
                found == values || cluster.sql("select pg_is_in_recovery()") == "t" && found.len() > 50,
                "{major}: {found} {values}"
            );
        }
        use walvis::pg::ClusterState;
        let state = |cluster: &Cluster| {
            walvis::pg::ControlFile::parse(&fs::read(cluster.data.join("global/pg_control")).unwrap()).unwrap().state
        };
        assert_eq!((state(&primary), state(&standby)), (ClusterState::InProduction, ClusterState::ArchiveRecovery));
        primary.stop(Stop::Fast);
        assert_eq!(state(&primary), ClusterState::ShutDown);
    }
}

/// A standby that follows `primary` over the archive and its connection.
fn standby_of(host: &Host, primary: &Cluster, name: &str, archive_mode: &str) -> Cluster {
    let backup = primary.backup_to(&format!("{name}.copy"));
    let options = host.options().setting("archive_mode", archive_mode).setting("primary_conninfo", &primary.conninfo());
    let mut standby = Cluster::restore(&host.scratch, name, &backup, Role::Standby, &options);
    standby.start();
    standby
}

#[test]
fn damaged_pages_are_reported_and_the_backup_counts_all_the_same() {
    let host = Host::new();
    let cluster = host.cluster("server", 15, &host.options());
    cluster.sql("create table hurt as select i, md5(i::text) from generate_series(1, 20000) i");
    cluster.sql("create database other");
    let (path, blocks) = pages_of(&cluster, "hurt");
    let (shared, _) = pages_of(&cluster, "pg_catalog.pg_shdescription");
    assert!(blocks > 10);
    for block in [3, blocks - 1] {
        damage(&path, block);
    }
    damage(&shared, 0);
    let report: Value =
        serde_json::from_str(&host.ran(&cluster, &[]).exits(18).says(&["3 damaged pages", "is stored"]).stdout).unwrap();
    assert_eq!(report["pages_damaged"], 3);
    let found: Vec<String> = report["damaged"]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| format!("{} {} {}", page["file"].as_str().unwrap(), page["block"], page["relation"].as_str().unwrap()))
        .collect();
    let relative = |path: &Path| path.strip_prefix(&cluster.data).unwrap().display().to_string();
    let hurt = relative(&path);
    assert_eq!(
        found,
        [
            format!("{hurt} 3 postgres: hurt"),
            format!("{hurt} {} postgres: hurt", blocks - 1),
            format!("{} 0 postgres: pg_shdescription", relative(&shared))
        ]
    );
    let stored = read_back(&host, &report);
    assert_eq!(stored.head.facts.damage.len(), 3);
    assert_eq!(stored.files[&hurt].1, fs::read(&path).unwrap());
    let text = run_program(&mut host.command(&["base-backup", "--fast", "--server", &cluster.conninfo()])).exits(18).stdout;
    assert!(text.contains(&format!("page 3 of postgres: hurt in {hurt}")), "{text}");
}

#[test]
fn files_that_change_while_they_are_read_are_replayed() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 16, &host.options());
    for table in ["vanishes", "grows", "shrinks", "changes"] {
        cluster.sql(&format!("create table {table} as select i, md5(i::text) as h from generate_series(1, 30000) i"));
    }
    let mut running = host.start(&cluster, &["--max-rate", "10", "--jobs", "2"]);
    eventually("the backup runs", || cluster.sql(COPIES) == "1");
    let mut rounds = 0;
    while !running.has_ended() {
        rounds += 1;
        let name = format!("made{rounds}");
        cluster.sql(&format!("create table {name} as select generate_series(1, 1000)"));
        cluster.sql("insert into grows select i, 'new' from generate_series(1, 2000) i");
        cluster.sql("update changes set h = md5(h) where i % 7 = 0");
        match rounds {
            2 => drop(cluster.sql("drop table vanishes")),
            3 => drop(cluster.sql("delete from shrinks where i > 100")),
            4 => drop(cluster.sql("vacuum shrinks")),
            5 => drop(cluster.sql("create database passing")),
            6 => drop(cluster.sql("drop database passing")),
            _ => drop(cluster.sql("checkpoint")),
        }
    }
    let report: Value = serde_json::from_str(&running.wait().exits(0).stdout).unwrap();
    assert!(rounds > 3, "the backup was over too soon");
    assert_eq!(report["pages_damaged"], 0);
    let expected = |cluster: &Cluster| cluster.digest(&["grows", "shrinks", "changes"]);
    let before = expected(&cluster);
    cluster.switch_and_archive();
    let root = host.scratch.path().join("restored");
    read_back(&host, &report).write_to(&host.scratch, &root);
    let mut restored = restored(&host, "restored", 16);
    assert!(matches!(restored.wait_recovery(), Recovery::Promoted));
    assert_eq!(expected(&restored), before);
}

#[test]
fn a_standby_is_backed_up_with_the_help_of_its_primary() {
    for major in [13, 18] {
        let host = Host::new();
        let primary = host.cluster("server", major, &host.options());
        primary.sql("create table t as select generate_series(1, 5000) i");
        let standby = standby_of(&host, &primary, "standby", "off");
        eventually("the standby follows", || standby.sql("select count(*) from pg_class where relname = 't'") == "1");
        primary.sql("insert into t select generate_series(1, 5000)");
        let report = host.backup(&standby, &["--primary", &primary.conninfo()]);
        assert_eq!((&report["from_standby"], &report["timeline"]), (&Value::Bool(true), &Value::from(1)));
        assert_eq!(report["system_id"], primary.sql("select system_identifier from pg_control_system()"));
        let root = host.scratch.path().join("restored");
        let stored = read_back(&host, &report);
        assert!(stored.files["backup_label"].1.windows(20).any(|text| text == b"BACKUP FROM: standby"));
        stored.write_to(&host.scratch, &root);
        // What followed the primary must not do so any more.
        fs::remove_file(root.join("standby.signal")).unwrap();
        let mut restored = restored(&host, "restored", major);
        assert!(matches!(restored.wait_recovery(), Recovery::Promoted));
        // The primary's directory is not the standby's, though the system identifier is the same.
        let data = primary.data.display().to_string();
        host.ran(&standby, &["--pgdata", &data]).exits(16).says(&["is not the data directory of the server"]);
        host.ran(&primary, &["--primary", &primary.conninfo()]).exits(2);
        // Without help the last segment does not come, and that is said.
        primary.sql("insert into t select generate_series(1, 5000)");
        primary.sql("checkpoint");
        let position = primary.sql("select pg_current_wal_lsn()");
        eventually("the standby follows", || standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{position}'")) == "t");
        let ran = host.ran(&standby, &["--timeout", "4"]).exits(17);
        ran.says(&["did not arrive", "--primary"]);
        assert_eq!(host.manifests(), 1);
    }
}

#[test]
fn another_servers_directory_is_refused() {
    let host = Host::new();
    let first = host.cluster("first", 15, &host.options());
    let second = Host::new();
    let other = second.cluster("other", 15, &second.options());
    let data = other.data.display().to_string();
    host.ran(&first, &["--pgdata", &data]).exits(16).says(&["is not the data directory of the server"]).tells_the_way_out();
    let nowhere = host.scratch.path().join("nothing").display().to_string();
    host.ran(&first, &["--pgdata", &nowhere]).exits(10).says(&["is no data directory"]).tells_the_way_out();
    host.backup(&first, &[]);
    // The name belongs to the first one now.
    host.ran(&other, &[]).exits(16).says(&["belongs to system identifier"]).tells_the_way_out();
    assert_eq!(host.manifests(), 1);
}

#[test]
fn without_archiving_there_is_no_backup() {
    let host = Host::new();
    let off = host.cluster("off", 15, &Options { archive_command: None, ..host.options() });
    host.ran(&off, &[]).exits(17).says(&["archive_mode is off"]).tells_the_way_out();
    drop(off);
    let empty = host.cluster(
        "empty",
        15,
        &Options { archive_command: Some(String::new()), ..host.options() }.setting("archive_mode", "on"),
    );
    host.ran(&empty, &[]).exits(17).says(&["archive_command is empty"]).tells_the_way_out();
    drop(empty);
    // It archives, but elsewhere.
    let elsewhere = host.cluster("elsewhere", 15, &Options { archive_command: Some("true".to_owned()), ..host.options() });
    host.ran(&elsewhere, &["--timeout", "4"]).exits(17).says(&["did not arrive"]).tells_the_way_out();
    elsewhere.sql("alter system set archive_command = 'false'");
    elsewhere.sql("select pg_reload_conf()");
    elsewhere.switch_wal();
    let fails =
        || elsewhere.sql("select last_failed_time > coalesce(last_archived_time, '-infinity') from pg_stat_archiver") == "t";
    eventually("the archiver fails", fails);
    host.ran(&elsewhere, &[]).exits(17).says(&["the archiver fails"]).tells_the_way_out();
    assert_eq!(host.manifests(), 0);
}

#[test]
fn what_is_interrupted_does_not_count_and_a_second_run_succeeds() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 17, &host.options());
    cluster.sql("create table t as select i, md5(i::text) from generate_series(1, 50000) i");
    let sessions = "select count(*) from pg_stat_activity where application_name = 'walvis'";
    let packs = || files_below(&host.scratch.path().join("repository")).iter().any(|p| p.to_str().unwrap().contains("/packs/"));
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let running = host.start(&cluster, &["--max-rate", "4"]);
        eventually("the backup runs", || cluster.sql(COPIES) == "1");
        running.signal(signal);
        let ran = running.wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ran.status), Some(signal as i32), "{}", ran.stderr);
        if signal != Signal::SIGKILL {
            assert!(ran.stderr.contains("interrupted by a signal"), "{}", ran.stderr);
        }
        assert_eq!(host.manifests(), 0);
        eventually("the session ends", || cluster.sql(sessions) == "0");
    }
    // The server restarts during the backup.
    let running = host.start(&cluster, &["--max-rate", "4"]);
    eventually("the backup runs", || cluster.sql(COPIES) == "1");
    cluster.stop(Stop::Immediate);
    running.wait().exits(17).says(&["the session on the server ended", "does not count"]).tells_the_way_out();
    cluster.start();
    assert_eq!(host.manifests(), 0);
    assert!(!packs(), "small clusters fill their packs at the end only");
    let report = host.backup(&cluster, &[]);
    assert_eq!(host.manifests(), 1);
    read_back(&host, &report);
}

#[test]
fn wrong_options_are_refused_before_anything_happens() {
    let host = Host::new();
    let cluster = host.cluster("server", 15, &host.options());
    for wrong in
        [&["--jobs", "0"][..], &["--max-rate", "0"], &["--annotate", "x"], &["--annotate", "=x"], &["--label", "two\nlines"]]
    {
        host.ran(&cluster, wrong).exits(2);
    }
    host.ran(&cluster, &["--annotate", "a=1", "--annotate", "a=2"]).exits(2).says(&["given twice"]).tells_the_way_out();
    assert_eq!(host.manifests(), 0);
}

#[test]
fn an_extent_in_a_pack_that_is_mostly_dead_is_stored_anew() {
    let host = Host::new();
    let cluster = host.cluster("server", 15, &host.options());
    // Does not get shorter, so that it fills packs.
    cluster.sql("create table big as select i, gen_random_uuid() u, gen_random_uuid() v from generate_series(1, 300000) i");
    let first = host.backup(&cluster, &["--jobs", "1"]);
    cluster.sql("update big set u = gen_random_uuid()");
    cluster.sql("vacuum full big");
    let second = host.backup(&cluster, &["--jobs", "1"]);
    let third = host.backup(&cluster, &["--jobs", "1"]);
    let stored = read_back(&host, &third);
    let (live, total) = stored.head.packs.iter().fold((0, 0), |(l, t), used| (l + used.live_bytes, t + used.total_bytes));
    assert!(live * 2 >= total, "{live} of {total} are used: {first:#} {second:#} {third:#}");
    assert_eq!(third["stored_bytes"].as_u64().unwrap(), live);
}
