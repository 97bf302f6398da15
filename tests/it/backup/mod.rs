//! `walvis base-backup` of real servers: what it copies, what it leaves out, what it finds damaged, and when it must
//! not count.

mod around;
mod changed;
mod content;
mod histories;
mod lists;
mod names;
mod page_cache;
mod sources;
mod tombstones;

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
use crate::support::postgres::{Cluster, Options, Recovery, Role, Scratch, Stop, run};
use crate::support::schema;

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
        let report = serde_json::from_str(&self.ran(cluster, more).exits(0).stdout).unwrap();
        schema::holds("base-backup", &report);
        report
    }

    fn start(&self, cluster: &Cluster, more: &[&str]) -> Running {
        let conninfo = cluster.conninfo();
        start(&mut self.command(&self.arguments(&conninfo, more)))
    }

    fn repository(&self) -> Repository {
        let settings =
            StoreSettings { url: StoreUrl::File(self.scratch.path().join("repository")), create_if_absent: None, known: None };
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
    let id = BackupId::parse(report["backup_id"].as_str().unwrap()).unwrap();
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

    /// Moves the one tablespace to where the server looks for it.
    fn move_tablespace(&self, root: &Path, space: &Path) {
        let within = root.join("pg_tblspc").join(self.head.facts.tablespaces[0].oid.to_string());
        for entry in fs::read_dir(&within).unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), space.join(entry.file_name())).unwrap();
        }
        fs::remove_dir(within).unwrap();
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

/// Number and process of the session that has begun a backup, and waits for the files; 0 while there is none. Before it
/// begins it asks for the archiver too, but goes on at once.
const COPYING: &str = "select count(*), min(pid) from pg_stat_activity where application_name = 'walvis' and state = 'idle' \
                       and (query like '%pg_control_checkpoint%' or query like '%last_archived_wal%') \
                       and clock_timestamp() - state_change > '300 ms'";

/// Waits until a backup copies files, and gives the process of its session.
#[track_caller]
pub(crate) fn copying(cluster: &Cluster, running: &mut Running) -> String {
    let mut pid = None;
    eventually("the backup copies files", || {
        assert!(!running.has_ended(), "the backup ended early");
        pid = cluster.sql(COPYING).strip_prefix("1|").map(str::to_owned);
        pid.is_some()
    });
    pid.unwrap()
}

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
    assert_eq!(again["parent_backup_id"], report["backup_id"]);
    let (first, second) = (report["new_bytes"].as_u64().unwrap(), again["new_bytes"].as_u64().unwrap());
    assert!(second * 100 < first, "{second} of {first}: {again:#}");
    let named = format!("/backups/{}", again["backup_id"].as_str().unwrap());
    let objects = files_below(&host.scratch.path().join("repository"));
    let manifest = objects.iter().find(|path| path.to_str().unwrap().contains(&named)).unwrap();
    assert_eq!(again["manifest_bytes"], fs::metadata(manifest).unwrap().len());
    let stored = read_back(&host, &again);
    assert_eq!(stored.head.facts.tablespaces.len(), 1);

    // The tablespace of a clone on the same host goes elsewhere.
    cluster.stop(Stop::Fast);
    fs::rename(&space, host.scratch.path().join("moved")).unwrap();
    host.scratch.make_dir("space");
    let root = host.scratch.path().join("restored");
    stored.write_to(&host.scratch, &root);
    stored.write_manifest(&host.scratch, &root, &again);
    let verify = host.scratch.client_tool(15, "pg_verifybackup");
    // Version 15's knows the manifests up to 16.
    if let Some(verify) = verify.filter(|_| major <= 16) {
        run(host.scratch.command(&verify).arg("--no-parse-wal").arg(&root));
    }
    let oid = stored.head.facts.tablespaces[0].oid.to_string();
    let map = String::from_utf8(stored.files["tablespace_map"].1.clone()).unwrap();
    assert_eq!(map, format!("{oid} {}\n", space.display()));
    stored.move_tablespace(&root, &space);
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
