//! What is read, damaged, reused, interrupted.

use super::*;

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
    let found: Vec<String> = report["damaged_pages"]
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
    copying(&cluster, &mut running);
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
fn what_is_interrupted_does_not_count_and_a_second_run_succeeds() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 17, &host.options());
    cluster.sql("create table t as select i, md5(i::text) from generate_series(1, 50000) i");
    let sessions = "select count(*) from pg_stat_activity where application_name = 'walvis'";
    let is_pack = |path: &PathBuf| path.to_str().unwrap().contains("/packs/");
    let packs = || files_below(&host.scratch.path().join("repository")).iter().filter(|path| is_pack(path)).count();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut running = host.start(&cluster, &["--max-rate", "4"]);
        copying(&cluster, &mut running);
        running.signal(signal);
        let ran = running.wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ran.status), Some(signal as i32), "{}", ran.stderr);
        if signal != Signal::SIGKILL {
            assert!(ran.stderr.contains("interrupted by a signal"), "{}", ran.stderr);
        }
        assert_eq!(host.manifests(), 0);
        eventually("the session ends", || cluster.sql(sessions) == "0");
    }
    assert_eq!(packs(), 0, "small clusters fill their packs at the end only");
    // `nohup` wants it to go on without a terminal.
    let conninfo = cluster.conninfo();
    let mut command = host.scratch.command(Path::new("sh"));
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(host.scratch.walvis()).arg("--config").arg(&host.config);
    let mut running = start(command.args(host.arguments(&conninfo, &["--max-rate", "20"])));
    copying(&cluster, &mut running);
    running.signal(Signal::SIGHUP);
    running.wait().exits(0);
    assert_eq!(host.manifests(), 1);
    let before = packs();
    // The server restarts during the backup.
    let mut running = host.start(&cluster, &["--max-rate", "4"]);
    copying(&cluster, &mut running);
    cluster.stop(Stop::Immediate);
    running.wait().exits(17).says(&["the session on the server ended", "does not count"]).tells_the_way_out();
    cluster.start();
    assert_eq!((host.manifests(), packs()), (1, before));
    let report = host.backup(&cluster, &[]);
    assert_eq!(host.manifests(), 2);
    read_back(&host, &report);
}

#[test]
fn large_files_go_in_pieces_and_zeros_are_not_stored() {
    const PIECE: u64 = 64 << 20;
    let host = Host::new();
    let cluster = host.cluster("server", 15, &host.options());
    let path = cluster.data.join("large.bin");
    let write = |at: u64, seed: u64| {
        let mut bytes = vec![0; 200_000];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        let file = fs::File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, at).unwrap();
    };
    // Three pieces, the last one short; contents across the seams and at the end.
    for (at, seed) in [(0, 1), (PIECE - 100_000, 2), (2 * PIECE - 7, 3), (2 * PIECE + 1_000_003, 4)] {
        write(at, seed);
    }
    host.scratch.give(&path);
    let report = host.backup(&cluster, &["--jobs", "3"]);
    let new = report["new_bytes"].as_u64().unwrap();
    assert!(new < 8 << 20, "{report:#}");
    let whole = |report: &Value| assert!(read_back(&host, report).files["large.bin"].1 == fs::read(&path).unwrap());
    whole(&report);
    let tables = |report: &Value| match &read_back(&host, report).files["large.bin"].0.content {
        Content::Tables(tables) => tables.clone(),
        Content::Extents(_) => panic!("no tables"),
    };
    let before = tables(&report);
    assert_eq!(before.len(), 3);
    write(PIECE + 5_000_000, 5);
    let report = host.backup(&cluster, &["--jobs", "3"]);
    whole(&report);
    let after = tables(&report);
    assert_eq!((before[0], before[2]), (after[0], after[2]));
    assert_ne!(before[1], after[1]);
    assert!(report["new_bytes"].as_u64().unwrap() < 400_000, "{report:#}");
    fs::remove_file(&path).unwrap();
    let report = host.backup(&cluster, &[]);
    assert!(!read_back(&host, &report).files.contains_key("large.bin"));
}

#[test]
fn a_damaged_parent_is_passed_over() {
    let host = Host::new();
    let cluster = host.cluster("server", 15, &host.options());
    cluster.sql("create table t as select i, md5(i::text) from generate_series(1, 20000) i");
    let (first, second) = (host.backup(&cluster, &[]), host.backup(&cluster, &[]));
    let objects = files_below(&host.scratch.path().join("repository"));
    let id = |report: &Value| report["backup_id"].as_str().unwrap().to_owned();
    let manifest = objects.iter().find(|path| path.ends_with(format!("backups/{}", id(&second)))).unwrap();
    let mut bytes = fs::read(manifest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    host.scratch.write(manifest, &bytes);
    let third = host.backup(&cluster, &[]);
    assert_eq!(third["parent_backup_id"], first["backup_id"]);
    let warnings = third["warnings"].to_string();
    assert!(warnings.contains(&format!("backup {} could not be compared with", id(&second))), "{warnings}");
    assert!(third["new_bytes"].as_u64().unwrap() * 50 < first["new_bytes"].as_u64().unwrap(), "{third:#}");
    // Packs that are gone: whatever was in them is stored anew, and the new backup is whole.
    for pack in objects.iter().filter(|path| path.to_str().unwrap().contains(&format!("packs/{}", id(&first)))) {
        fs::remove_file(pack).unwrap();
    }
    let fourth = host.backup(&cluster, &[]);
    assert!(fourth["warnings"].to_string().contains("are gone or truncated"), "{fourth:#}");
    assert!(fourth["new_bytes"].as_u64().unwrap() * 2 > first["new_bytes"].as_u64().unwrap(), "{fourth:#}");
    read_back(&host, &fourth);
    assert_eq!(host.manifests(), 4);
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
