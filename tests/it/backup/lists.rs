//! Clusters of many files: manifests share what did not change, in lists of items that are stored in packs.

use super::*;
use walvis::format::extent::RecordLocation;
use walvis::limits::ITEMS_IN_LISTS_FROM_BYTES;

/// How many files are added to a cluster: enough for lists, and for the goal of 50 KB to mean something.
const FILES: u32 = 6000;

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report:#}"))
}

/// A cluster with many small files, each of its own content.
fn with_many_files(host: &Host) -> Cluster {
    let cluster = host.cluster("server", 15, &host.options().setting("autovacuum", "off"));
    for number in 0..FILES {
        let directory = cluster.data.join("base").join(format!("9{}", number % 10));
        if number < 10 {
            fs::create_dir(&directory).unwrap();
            host.scratch.give(&directory);
        }
        host.scratch.write(&directory.join(format!("file{number}")), blake3::hash(&number.to_le_bytes()).as_bytes());
    }
    cluster
}

fn lists_of(host: &Host, report: &Value) -> Vec<RecordLocation> {
    read_back(host, report).head.lists
}

#[test]
fn backups_share_the_items_that_did_not_change() {
    let host = Host::new();
    let cluster = with_many_files(&host);
    let first = host.backup(&cluster, &[]);
    let lists = lists_of(&host, &first);
    assert!(lists.len() > 30 && number(&first, "manifest_bytes") < 10_000, "{first:#}");
    assert!(number(&first, "files") * 30 > ITEMS_IN_LISTS_FROM_BYTES, "{first:#}");

    // Idle: what is stored anew are some files, the lists that they are in, and the manifest.
    let second = host.backup(&cluster, &[]);
    let shared =
        |report: &Value, of: &[RecordLocation]| lists_of(&host, report).iter().filter(|place| of.contains(place)).count();
    assert!(shared(&second, &lists) + 10 > lists.len(), "{} of {}", shared(&second, &lists), lists.len());
    assert!(number(&second, "new_bytes") + number(&second, "manifest_bytes") < 50_000, "{second:#}");

    // One file more, one less, one that changed: the lists beside stay.
    fs::remove_file(cluster.data.join("base/95/file95")).unwrap();
    host.scratch.write(&cluster.data.join("base/93/file93"), b"changed");
    host.scratch.write(&cluster.data.join("base/97/file97x"), b"new");
    let third = host.backup(&cluster, &[]);
    assert!(shared(&third, &lists) + 20 > lists.len(), "{} of {}", shared(&third, &lists), lists.len());
    let stored = read_back(&host, &third);
    assert!(!stored.files.contains_key("base/95/file95"));
    assert_eq!((&*stored.files["base/93/file93"].1, &*stored.files["base/97/file97x"].1), (&b"changed"[..], &b"new"[..]));
    let content = |number: u32| stored.files[&format!("base/9{}/file{number}", number % 10)].1.clone();
    for number in (0..FILES).filter(|number| ![93, 95].contains(number)) {
        assert_eq!(content(number), blake3::hash(&number.to_le_bytes()).as_bytes(), "{number}");
    }
    run_program(&mut host.command(&["verify", "--full"])).exits(0);
    // The third one stands alone: nothing of the first two is needed but packs.
    for report in [&first, &second] {
        let id = report["backup_id"].as_str().unwrap();
        let files = files_below(&host.scratch.path().join("repository"));
        fs::remove_file(files.iter().find(|path| path.ends_with(format!("backups/{id}"))).unwrap()).unwrap();
    }
    let target = host.scratch.path().join("restored");
    let restore = ["pitr-restore", "--pgdata", target.to_str().unwrap(), "--target", "immediate"];
    run_program(&mut host.command(&restore)).exits(0);
    assert_eq!(fs::read(target.join("base/93/file93")).unwrap(), b"changed");
    assert!(!target.join("base/95/file95").exists() && target.join("base/97/file97x").exists());
    assert_eq!(fs::read_dir(target.join("base/91")).unwrap().count(), FILES as usize / 10);
}

#[test]
fn damage_in_a_list_of_items_is_found_and_not_passed_on() {
    let host = Host::new();
    let cluster = with_many_files(&host);
    let first = host.backup(&cluster, &[]);
    let second = host.backup(&cluster, &[]);
    let shared = lists_of(&host, &first)[5];
    assert!(lists_of(&host, &second).contains(&shared));
    let files = files_below(&host.scratch.path().join("repository"));
    let pack = files.iter().find(|path| path.ends_with(format!("packs/{}", shared.pack))).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    let records = walvis::codec::preamble_bytes(bytes.first_chunk::<68>().unwrap()).unwrap() as usize;
    bytes[records + shared.offset as usize + 9] ^= 0x10;
    fs::remove_file(pack).unwrap();
    host.scratch.write(pack, &bytes);

    let said = run_program(&mut host.command(&["verify", "--full"])).exits(18).stdout;
    for report in [&first, &second] {
        assert!(said.contains(report["backup_id"].as_str().unwrap()), "{said}");
    }
    let target = host.scratch.path().join("restored");
    let restore = ["pitr-restore", "--pgdata", target.to_str().unwrap(), "--target", "immediate"];
    run_program(&mut host.command(&restore)).exits(14);
    assert!(!target.join("global/pg_control").exists());
    // The next backup can compare itself with none of them, says so, and can be restored.
    let third = host.backup(&cluster, &[]);
    assert_eq!(third["parent_backup_id"], Value::Null, "{third:#}");
    let warnings = third["warnings"].to_string();
    assert!(warnings.contains("could not be compared with") && warnings.contains(&shared.pack.to_string()), "{warnings}");
    assert!(!lists_of(&host, &third).contains(&shared));
    run_program(&mut host.command(&restore)).exits(0);
    assert_eq!(fs::read_dir(target.join("base/91")).unwrap().count(), FILES as usize / 10);
}
