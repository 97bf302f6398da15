//! Names and paths that are not UTF-8: bytes, in a backup as on the server.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use walvis::postgres::Server;

use super::*;

/// `café` in Latin-1.
const LATIN: &[u8] = b"caf\xe9";

fn path(root: &Path, name: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(name))
}

fn session(cluster: &Cluster, database: &str) -> Server {
    Server::connect_to(Some(&cluster.conninfo()), Some(database), Deadline::after(Duration::from_secs(60))).unwrap()
}

/// Odd names in the data directory, as bytes.
fn make_odd_files(host: &Host, cluster: &Cluster) -> Vec<Vec<u8>> {
    let names = [&b"with space"[..], b"new\nline", b"latin-\xe9", b"%p", b"it's", b"-rf", b"\x01\\"];
    for name in names {
        host.scratch.write(&path(&cluster.data, name), name);
    }
    names.map(<[u8]>::to_vec).to_vec()
}

/// A backup whose names are checked, restored beside the original by `pitr-restore`.
fn backed_up(host: &Host, cluster: &mut Cluster) -> (Value, BTreeMap<Vec<u8>, FileEntry>) {
    let odd = make_odd_files(host, cluster);
    let report = host.backup(cluster, &[]);
    let (repository, name) = (host.repository(), ClusterName::new("main").unwrap());
    let system_id = SystemId(report["system_id"].as_str().unwrap().parse().unwrap());
    let id = BackupId::parse(report["backup_id"].as_str().unwrap()).unwrap();
    let mut files = BTreeMap::new();
    repository
        .read_manifest(&name, system_id, id, &mut |_, item| {
            if let Item::File(entry) = item {
                files.insert(entry.path.clone(), entry);
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap()
        .unwrap();
    for name in odd {
        assert_eq!(files[&name].crc32c, crc32c::crc32c(&name), "{name:?}");
    }
    (report, files)
}

fn names_of(report: &Value) -> Vec<Value> {
    report["databases"].as_array().unwrap().iter().map(|database| database["name"].clone()).collect()
}

#[test]
fn names_of_an_sql_ascii_cluster_are_bytes() {
    let host = Host::new();
    let mut options = Options { wal_segsize_mib: 1, ..host.options() };
    options.initdb = vec!["-E".to_owned(), "SQL_ASCII".to_owned()];
    let mut cluster = host.cluster("server", 13, &options);
    cluster.sql("create database odd");
    cluster.sql("update pg_database set datname = ('caf' || chr(233))::name where datname = 'odd'");
    let (report, _) = backed_up(&host, &mut cluster);
    let latin = serde_json::json!({"hex": hex::encode(LATIN)});
    assert!(names_of(&report).contains(&latin), "{report:#}");
    assert!(names_of(&report).contains(&"template1".into()), "{report:#}");
    // A label that the database can have only as bytes.
    let labelled = host.backup(&cluster, &["--label", "café"]);
    assert_eq!(labelled["label"], "café");
    run_program(&mut host.command(&["check", "--server", &cluster.conninfo()])).exits(0);
}

#[test]
fn paths_and_names_of_a_latin_1_database_are_bytes() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 15, &Options { wal_segsize_mib: 1, ..host.options() });
    cluster.sql("create database l1 template template0 encoding 'LATIN1' locale 'C'");
    let space = path(host.scratch.path(), LATIN);
    fs::create_dir(&space).unwrap();
    host.scratch.give(&space);
    let latin = session(&cluster, "l1");
    // The session is in UTF-8, the database in Latin-1, and so is what the others read in the shared catalogs.
    latin.row("create database \"café\" template template0 encoding 'LATIN1' locale 'C'").unwrap();
    latin.row(&format!("create tablespace odd location '{}/café'", host.scratch.path().display())).unwrap();
    latin.row("create table \"né\" tablespace odd as select 7 as i").unwrap();
    cluster.sql("checkpoint");
    let file = latin.value("select pg_relation_filepath('\"né\"')").unwrap();
    assert_eq!(fs::read_link(cluster.data.join(file.split("/PG_").next().unwrap())).unwrap(), space);
    // Its name is asked for when a page is damaged.
    damage(&cluster.data.join(&file), 0);
    let odd = make_odd_files(&host, &cluster);
    let ran = host.ran(&cluster, &[]).exits(18);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let hex = |bytes: &[u8]| serde_json::json!({"hex": hex::encode(bytes)});
    assert!(names_of(&report).contains(&hex(LATIN)), "{report:#}");
    assert_eq!(report["tablespaces"][0]["path"], hex(space.as_os_str().as_bytes()), "{report:#}");
    assert_eq!(report["damaged_pages"][0]["relation"], hex(b"l1: \"n\xe9\""), "{report:#}");
    // Undone, and restored: every name as it was.
    damage(&cluster.data.join(&file), 0);
    let (report, files) = backed_up(&host, &mut cluster);
    let map = &files[&b"tablespace_map"[..]];
    assert_eq!(map.size_bytes as usize, space.as_os_str().len() + 1 + report["tablespaces"][0]["oid"].to_string().len() + 1);
    assert!(odd.iter().all(|name| files.contains_key(name)));
    let text = run_program(&mut host.command(&["list", "--database", "l1"])).exits(0).stdout;
    assert!(text.contains("database caf\\xE9"), "{text}");
}
