//! What a backup needs besides the data directory: histories that nobody archived, what links lead to, files outside.

use std::os::unix::fs::symlink;

use walvis::format::extent::StoredExtent;

use super::*;

fn small(host: &Host) -> Options {
    Options { wal_segsize_mib: 1, ..host.options() }
}

#[test]
fn a_history_that_was_never_archived_is_stored_with_wal_and_with_a_backup() {
    let host = Host::new();
    let mut first = host.cluster("first", 15, &small(&host));
    first.sql("create table t as select 7 as i");
    let copy = first.backup_to("copy");
    first.switch_and_archive();
    drop(first);
    // As after a restore: it is promoted without archiving, which is switched on later.
    let off = Options { archive_command: None, ..small(&host) };
    let mut second = Cluster::restore(&host.scratch, "second", &copy, Role::Recovery, &off);
    second.start();
    assert!(matches!(second.wait_recovery(), Recovery::Promoted));
    second.stop(Stop::Fast);
    second.configure(&small(&host));
    second.start();
    assert_eq!(second.timeline(), 2);
    let stored = || {
        let all = files_below(&host.scratch.path().join("repository"));
        all.into_iter().find(|path| path.to_str().unwrap().ends_with("/history/00000002.history"))
    };
    assert!(!second.data.join("pg_wal/archive_status/00000002.history.ready").exists() && stored().is_none());

    // A segment of the timeline takes it along.
    second.switch_and_archive();
    fs::remove_file(stored().unwrap()).unwrap();
    // A backup does, too, where no push would.
    let done = second.data.join("pg_wal/archive_status/00000002.history.done");
    host.scratch.write(&done, b"");
    let report = host.backup(&second, &[]);
    assert_eq!(report["timeline"], 2);
    let path = stored().unwrap();

    // The server wants it: a recovery of this backup to its own timeline.
    let root = host.scratch.path().join("restored");
    read_back(&host, &report).write_to(&host.scratch, &root);
    let options = Options { archive_command: None, ..small(&host) }
        .setting("recovery_target_timeline", "2")
        .setting("recovery_target", "immediate")
        .setting("recovery_target_action", "promote");
    let recover = |name: &str| {
        let mut cluster = Cluster::in_place(&host.scratch, name, 15, &options);
        host.scratch.write(&cluster.data.join("recovery.signal"), b"");
        cluster.spawn();
        cluster
    };
    let mut restored = recover("restored");
    assert!(matches!(restored.wait_recovery(), Recovery::Promoted));
    assert_eq!(restored.sql("select i from t"), "7");
    drop(restored);

    // Nowhere: then it must not count, and everybody says what is missing.
    fs::remove_file(path).unwrap();
    fs::rename(second.data.join("pg_wal/00000002.history"), host.scratch.path().join("kept")).unwrap();
    host.ran(&second, &[]).exits(17).says(&["00000002.history", "no recovery could reach this timeline"]).tells_the_way_out();
    assert_eq!(host.manifests(), 1);
    let check = run_program(&mut host.command(&["check", "--server", &second.conninfo()])).exits(18).stdout;
    assert!(check.contains("00000002.history") && check.contains("push-wal pg_wal/00000002.history"), "{check}");
    let again = host.scratch.path().join("again");
    read_back(&host, &report).write_to(&host.scratch, &again);
    let mut again = recover("again");
    assert!(matches!(again.wait_recovery(), Recovery::Exited(_)));
    assert!(again.log().contains("recovery target timeline 2 does not exist"), "{}", again.log());
}

#[test]
fn what_links_of_the_servers_lead_to_is_in_the_backup() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 15, &small(&host));
    cluster.sql("create table t as select generate_series(1, 1000) i");
    cluster.sql("create database moved");
    let oid = cluster.sql("select oid from pg_database where datname = 'moved'");
    let file = cluster.sql("select pg_relation_filepath('t')");
    cluster.stop(Stop::Fast);
    let disk = host.scratch.make_dir("disk");
    let link = |relative: &str, name: &str| {
        fs::rename(cluster.data.join(relative), disk.join(name)).unwrap();
        symlink(disk.join(name), cluster.data.join(relative)).unwrap();
    };
    link("pg_xact", "xact");
    link(&format!("base/{oid}"), "database");
    link(&file, "file");
    link("postgresql.conf", "main.conf");
    symlink(&disk, cluster.data.join("log")).unwrap();
    cluster.start();
    cluster.sql("insert into t values (0)");
    let report = host.backup(&cluster, &[]);
    let warnings: Vec<&str> = report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    for words in
        ["pg_xact is a symbolic link to ", "a restore makes a directory of it", "log is a symbolic link that is not the server's"]
    {
        assert!(warnings.iter().any(|warning| warning.contains(words)), "{words}: {warnings:?}");
    }
    // Whoever looks at the backup later is told.
    let list = run_program(&mut host.command(&["list"])).exits(0).stdout;
    assert!(list.contains("warning: pg_xact is a symbolic link"), "{list}");
    let plan = host.scratch.path().join("planned").display().to_string();
    let plan =
        run_program(&mut host.command(&["pitr-restore", "--plan", "--pgdata", &plan, "--target", "immediate"])).exits(0).stdout;
    assert!(plan.contains("when the backup was taken: pg_xact is a symbolic link"), "{plan}");

    let stored = read_back(&host, &report);
    assert!(stored.files.contains_key(&format!("base/{oid}/PG_VERSION")) && stored.files.contains_key(&file));
    assert!(!stored.files.keys().any(|name| name.starts_with("log")));
    let root = host.scratch.path().join("restored");
    stored.write_to(&host.scratch, &root);
    let mut copy = restored(&host, "restored", 15);
    assert!(matches!(copy.wait_recovery(), Recovery::Promoted));
    assert_eq!(copy.sql("select count(*) from t"), "1001");
    drop(copy);

    // A link that leads nowhere: the backup would not be whole.
    symlink(disk.join("nowhere"), cluster.data.join("base/99999")).unwrap();
    host.ran(&cluster, &[]).exits(10).says(&["base/99999", "leads nowhere"]).tells_the_way_out();
    assert_eq!(host.manifests(), 1);
}

#[test]
fn files_outside_that_the_settings_name_are_attached() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 16, &small(&host));
    cluster.stop(Stop::Fast);
    let etc = host.scratch.make_dir("etc");
    let rules = fs::read_to_string(cluster.data.join("pg_hba.conf")).unwrap();
    let name = |name: &str| etc.join(name).display().to_string();
    let long = format!("# {}\n", "x".repeat(100_000));
    for (file, text) in [
        ("extra.conf", format!("hba_file = '{}'\nident_file = '{}'\ninclude_dir 'd'\n", name("pg_hba.conf"), name("closed"))),
        ("pg_hba.conf", format!("{rules}\nlocal @names all trust\n")),
        ("names", "nobody".to_owned()),
        ("closed", String::new()),
    ] {
        host.scratch.write(&etc.join(file), text.as_bytes());
    }
    host.scratch.make_dir("etc/d");
    host.scratch.write(&etc.join("d/1.conf"), long.as_bytes());
    fs::set_permissions(etc.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut main = fs::read_to_string(cluster.data.join("postgresql.conf")).unwrap();
    main.push_str(&format!("\ninclude '{}'\n", name("extra.conf")));
    host.scratch.write(&cluster.data.join("postgresql.conf"), main.as_bytes());
    cluster.start();

    let report = host.backup(&cluster, &[]);
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{report:#}");
    assert!(warnings[0].as_str().unwrap().contains("closed (ident_file) is not in the backup: "), "{report:#}");
    let expected =
        [("extra.conf", "config_file"), ("d/1.conf", "config_file"), ("pg_hba.conf", "hba_file"), ("names", "hba_file")];
    let named: Vec<(&str, &str)> = report["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["setting"].as_str().unwrap()))
        .collect();
    assert_eq!(
        named,
        expected.map(|(file, setting)| (name(file), setting)).each_ref().map(|(file, setting)| (file.as_str(), *setting))
    );

    let contents = |report: &Value| -> Vec<Vec<StoredExtent>> {
        let stored = read_back(&host, report);
        let repository = host.repository();
        let (cluster, system_id) =
            (ClusterName::new("main").unwrap(), SystemId(report["system_id"].as_str().unwrap().parse().unwrap()));
        let reader = PackReader::new(&repository, &cluster, system_id);
        let attachments = stored.head.facts.attachments;
        for attachment in &attachments {
            let mut content = Vec::new();
            for (index, extent) in (0..).zip(&attachment.extents) {
                let place = extent.stored.unwrap().place;
                assert!(stored.head.packs.iter().any(|used| used.pack == place.pack), "{place:?}");
                let mut sealed = reader.range(place.pack, place.offset.into(), place.end()).unwrap();
                let bytes = extent_bytes(attachment.size_bytes, index);
                reader.open(RecordKind::Extent, &place, &mut sealed, Some(bytes), &mut content).unwrap();
            }
            assert_eq!(content, fs::read(attachment.path.as_path()).unwrap(), "{}", attachment.path);
            assert_eq!((attachment.crc32c, attachment.mode), (crc32c::crc32c(&content), 0o600));
        }
        attachments.iter().map(|attachment| attachment.extents.iter().filter_map(|extent| extent.stored).collect()).collect()
    };
    let first = contents(&report);
    assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1, 1]);
    // What did not change is not stored again.
    assert_eq!(contents(&host.backup(&cluster, &[])), first);
}
