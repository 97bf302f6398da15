//! Clusters that are large in one way or another: a relation of two segment files, ten thousand tables. And what they
//! cost in memory.

use std::fs;

use crate::pitr::{Made, Site};
use crate::support::command::Running;
use crate::support::postgres::{Cluster, Options, Stop};
use crate::support::s3::S3Server;

/// Waits for the end of a process, and gives its peak resident memory in MiB. The kernel keeps the peak; only what a
/// process takes in its very last instant can be missed.
fn peak_mib(running: &mut Running) -> u64 {
    let status = format!("/proc/{}/status", running.id());
    let mut peak = 0;
    while !running.has_ended() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
        peak = peak.max(kib / 1024);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    peak
}

#[track_caller]
fn assert_peak(what: &str, mib: u64) {
    println!("peak resident memory of {what}: {mib} MiB");
    assert!((4..=256).contains(&mib), "{what} took {mib} MiB");
}

/// A cluster whose tables are loaded without WAL, and which archives afterwards.
fn loaded(site: &Site, major: u32, settings: &[(&str, &str)], sql: &[&str]) -> Cluster {
    let mut options = Options { archive_command: None, ..site.options.clone() };
    options = options.setting("wal_level", "minimal").setting("max_wal_senders", "0");
    for (name, value) in settings {
        options = options.setting(name, value);
    }
    let mut cluster = Cluster::init(&site.scratch, "primary", major, &options);
    cluster.start();
    for sql in sql {
        cluster.sql(sql);
    }
    cluster.stop(Stop::Fast);
    cluster.configure(&site.options);
    cluster.start();
    cluster
}

/// A relation of 1.1 GiB: two segment files, many pieces. Memory stays bounded, and an idle cluster is stored once.
#[test]
fn pg16_a_relation_of_two_segments() {
    let site = Site::new();
    let rows = "create table big as select i, repeat(md5(i::text), 34) as body from generate_series(1, 1000000) i";
    let mut primary = loaded(&site, 16, &[], &[rows, "create index on big (i)"]);
    let path = primary.sql("select pg_relation_filepath('big')");
    assert!(primary.data.join(format!("{path}.1")).exists());

    let mut running = site.start_backup(&primary, &["--jobs", "4"]);
    let peak = peak_mib(&mut running);
    let first = Made::of(&running.wait().exits(0));
    assert_peak("a backup", peak);
    assert!(first.number("bytes") > 1 << 30, "{:#}", first.json);
    let second = site.backup(&primary, &[]);
    assert!(second.number("new_bytes") * 100 < first.number("new_bytes"), "{:#}\n{:#}", first.json, second.json);
    primary.sql("update big set body = 'changed' where i % 250000 = 7");
    let third = site.backup(&primary, &[]);
    assert!(third.number("new_bytes") * 20 < first.number("new_bytes"), "{:#}\n{:#}", first.json, third.json);
    let expected = primary.digest(&["big"]);
    primary.switch_and_archive();
    primary.destroy();

    let place = site.place("restored");
    let mut running = site.start(&[
        "pitr-restore",
        "--pgdata",
        place.to_str().unwrap(),
        "--target",
        "latest",
        "--jobs",
        "4",
        "--target-action",
        "promote",
    ]);
    let peak = peak_mib(&mut running);
    running.wait().exits(0);
    assert_peak("a restore", peak);
    let mut recovered = site.restored("restored", 16);
    crate::pitr::promote(&mut recovered);
    assert_eq!(recovered.digest(&["big"]), expected);
    recovered.stop(Stop::Fast);
    recovered.assert_checksums();

    // Again over it: hardly anything is written, and all of it is right.
    fs::remove_file(recovered.data.join(format!("{path}.1"))).unwrap();
    let mut again =
        site.recover("restored", 16, &["--target", "immediate", "--delta", "--discard-unarchived-wal", "--backup", second.id()]);
    assert_eq!(again.sql("select count(*) from big where body = 'changed'"), "0");
    again.stop(Stop::Fast);
    again.assert_checksums();
}

/// Packs go to S3 in parts, and come back in ranges, of many connections: as little memory.
#[test]
fn pg14_memory_on_s3() {
    let server = S3Server::start_tls();
    let site = Site::on_s3(&server);
    let rows = "create table noise as select i, sha512(i::text::bytea) as a, sha512((-i)::text::bytea) as b from generate_series(1, 1000000) i";
    let mut primary = loaded(&site, 14, &[], &[rows]);
    let mut running = site.start_backup(&primary, &["--jobs", "4"]);
    let peak = peak_mib(&mut running);
    let made = Made::of(&running.wait().exits(0));
    assert_peak("a backup to S3", peak);
    assert!(made.number("new_bytes") > 128 << 20, "{:#}", made.json);
    primary.stop(Stop::Fast);
    let place = site.place("restored");
    let mut running = site.start(&["pitr-restore", "--pgdata", place.to_str().unwrap(), "--target", "immediate", "--jobs", "4"]);
    let peak = peak_mib(&mut running);
    running.wait().exits(0);
    assert_peak("a restore from S3", peak);
    site.restored("restored", 14);
}

#[test]
fn pg17_ten_thousand_tables() {
    let site = Site::new();
    let batch = |from: usize| {
        format!(
            "do $$ begin for i in {from}..{} loop execute format('create table t%s (i int)', i); execute format('insert into t%s values (%s)', i, i);
             end loop; end $$",
            from + 499
        )
    };
    let batches: Vec<String> = (0..20).map(|n| batch(1 + n * 500)).collect();
    let sql: Vec<&str> = batches.iter().map(String::as_str).collect();
    let mut primary = loaded(&site, 17, &[("max_locks_per_transaction", "512"), ("autovacuum", "off")], &sql);
    let mut running = site.start_backup(&primary, &[]);
    let peak = peak_mib(&mut running);
    let made = Made::of(&running.wait().exits(0));
    assert_peak("a backup of ten thousand tables", peak);
    assert!(made.number("files") > 10_000, "{:#}", made.json);
    let second = site.backup(&primary, &[]);
    // The manifest is not counted; what is idle is not stored again.
    assert!(second.number("new_bytes") * 20 < made.number("new_bytes"), "{:#}\n{:#}", made.json, second.json);
    primary.switch_and_archive();
    primary.destroy();
    let mut recovered = site.recover("restored", 17, &["--target", "latest"]);
    recovered.sql("create table sums (i int)");
    // In several transactions, as they were made: each table that one looks at is a lock that it keeps to its end.
    for from in (1..=10_000).step_by(500) {
        let to = from + 499;
        recovered.sql(&format!(
            "do $$ begin for i in {from}..{to} loop execute format('insert into sums select i from t%s', i); end loop; end $$"
        ));
    }
    let sum = recovered.sql("select sum(i) from sums");
    assert_eq!(sum, (10_000 * 10_001 / 2).to_string());
    recovered.stop(Stop::Fast);
    recovered.assert_checksums();
}
