//! Change sets against real servers: every page that is another one after some work is in the union of what the log's
//! segments say, on every version, with and without checksums, through crashes.
//!
//! A page is another one if its LSN is: between two pages of one LSN only hints differ, which nothing logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use walvis::pg::changes::{ChangeSet, Collector, Joined};
use walvis::pg::data_directory::{Fork, relation_file};
use walvis::pg::scan::{RelFile, Scanner, Segment};
use walvis::pg::{Lsn, SegmentName, Timeline, WalSegmentSize};

use crate::support::postgres::{Cluster, Options, Scratch, Stop, parse_lsn};

pub const PAGE_BYTES: usize = 8192;
const EXTENT_BYTES: usize = 8 * PAGE_BYTES;
const SEGMENT_BYTES: u64 = 1 << 20;

/// Main forks of relations, by extent.
type Pages = BTreeMap<(RelFile, u32), Vec<u8>>;

fn read_all(directory: &Path, below: &str, pages: &mut Pages) {
    let Ok(entries) = fs::read_dir(directory.join(below)) else { return };
    let names: Vec<(String, bool)> =
        entries.flatten().map(|entry| (entry.file_name().into_string().unwrap(), entry.path().is_dir())).collect();
    for (name, is_directory) in &names {
        let path = format!("{below}/{name}");
        if *is_directory {
            read_all(directory, &path, pages);
        }
        let Some((place, file)) = relation_file(path.as_bytes()) else { continue };
        let unlogged = names.iter().any(|(name, _)| *name == format!("{}_init", file.number));
        let Ok(bytes) = fs::read(directory.join(&path)) else { continue };
        if file.fork != Fork::Main || unlogged {
            continue;
        }
        let tablespace = place.tablespace.unwrap_or(if place.database.is_none() { 1664 } else { 1663 });
        let rel = RelFile { tablespace, database: place.database.unwrap_or(0), relation: file.number };
        for (extent, bytes) in (file.segment * 16_384..).zip(bytes.chunks(EXTENT_BYTES)) {
            pages.insert((rel, extent), bytes.to_vec());
        }
    }
}

/// A checkpoint, where it begins, and all pages after it.
fn checkpoint(cluster: &Cluster) -> (Lsn, Pages) {
    cluster.sql("checkpoint");
    let redo = Lsn(parse_lsn(&cluster.sql("select redo_lsn from pg_control_checkpoint()")));
    let mut pages = Pages::new();
    ["base", "global", "pg_tblspc"].iter().for_each(|below| read_all(&cluster.data, below, &mut pages));
    (redo, pages)
}

/// What the segments in `pg_wal` say.
fn changes(cluster: &Cluster, (from, to): (Lsn, Lsn)) -> ChangeSet {
    let size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
    let mut joined = Joined::new(size);
    for number in from.0 / SEGMENT_BYTES..=(to.0 - 1) / SEGMENT_BYTES {
        let name = SegmentName::from_number(Timeline(1), number, size).unwrap();
        let mut scanner = Scanner::new(Segment::new(name, size).unwrap(), Collector::new(SEGMENT_BYTES));
        scanner.push(&fs::read(cluster.data.join("pg_wal").join(name.to_string())).unwrap());
        let scanned = scanner.finish();
        joined.push(&scanned.summary, &scanned.visitor.finish()).unwrap_or_else(|e| cluster.fail(&e.to_string()));
    }
    joined.finish(to).unwrap_or_else(|e| cluster.fail(&e.to_string()))
}

pub fn lsn(page: &[u8]) -> Lsn {
    let half = |at: usize| u64::from(u32::from_le_bytes(page[at..at + 4].try_into().unwrap()));
    Lsn(half(0) << 32 | half(4))
}

/// Holds pages against pages; how many extents were the same, and how many of these differ in hints.
fn compare(what: &str, set: &ChangeSet, before: &Pages, after: &Pages, to: Lsn) -> (usize, usize) {
    assert_eq!(set.is_everything(), None, "{what}");
    let (mut same, mut hints) = (0, 0);
    for ((rel, extent), new) in after {
        let Some(old) = before.get(&(*rel, *extent)).filter(|old| old.len() == new.len()) else { continue };
        if set.touched(*rel, 0, *extent) {
            continue;
        }
        same += 1;
        hints += usize::from(old != new);
        for (block, (old, new)) in old.chunks(PAGE_BYTES).zip(new.chunks(PAGE_BYTES)).enumerate() {
            let (old, new) = (lsn(old), lsn(new));
            assert!(old == new || new >= to, "{what}: {rel:?}, extent {extent}, page {block}: {old} became {new}");
        }
    }
    (same, hints)
}

pub const TABLES: &str = "
    create table still as select n, repeat('still', 20) t from generate_series(1, 20000) n;
    create table heap (id int primary key, n int, body text, v int[], p point);
    insert into heap select n, n, repeat(md5(n::text), 3), array[n, n % 10], point(n, n % 7) from generate_series(1, 20000) n;
    create index on heap using hash (n);
    create index on heap using gin (v);
    create index on heap using gist (p);
    create index on heap using spgist (p);
    create index on heap using brin (n) with (pages_per_range = 4);
    create table toasted (id int, body text);
    alter table toasted alter body set storage external;
    insert into toasted select n, repeat(md5(n::text), 200) from generate_series(1, 300) n;
    create table tail (id int, body text) with (autovacuum_enabled = off);
    insert into tail select n, repeat('x', 500) from generate_series(1, 5000) n;
    create unlogged table volatile (id int, body text);
    insert into volatile select n, 'v' from generate_series(1, 3000) n;
    create table gone as select * from still;
    create sequence numbers;
    create sequence idle;
    select nextval('numbers'), nextval('idle');";

pub const WORK: [&str; 24] = [
    "update heap set n = n + 1, v = v || 7 where id % 400 = 1",
    "delete from heap where id between 7000 and 7100",
    "insert into heap select n, n, 'new', array[n], point(n, 3) from generate_series(30001, 31000) n",
    "update toasted set body = body || 'more' where id < 20",
    "delete from tail where id > 2000",
    "vacuum (freeze, analyze) tail",
    "vacuum heap",
    "select count(*) from still where t > 'a'",
    "select nextval('numbers') from generate_series(1, 100)",
    "begin; truncate still; rollback",
    "begin; create table never as select * from still; rollback",
    "begin; create table frozen (n int); copy frozen from program 'seq 1 5000' with (freeze); commit",
    "insert into volatile select n, 'w' from generate_series(1, 500) n",
    "alter table volatile set logged",
    "create table other as select * from still; cluster heap using heap_pkey",
    "vacuum full toasted",
    "create index concurrently on heap (body)",
    "reindex table other",
    "drop table gone",
    "begin; drop table other; prepare transaction 'p'",
    "commit prepared 'p'",
    "create table back as select n from generate_series(1, 9000) n",
    "alter table back set tablespace elsewhere",
    "begin; update back set n = n + 1 where n < 50; savepoint s; create table sub (n int); rollback to s; commit",
];

fn follows_the_log(major: u32, options: Options) {
    let scratch = Scratch::new();
    let options = Options { wal_segsize_mib: 1, ..options }
        .setting("wal_keep_size", "4GB")
        .setting("max_prepared_transactions", "5")
        .setting("autovacuum_naptime", "1s");
    let what = format!("PostgreSQL {major}, {:?}", options.settings);
    let mut cluster = Cluster::init(&scratch, "pages", major, &options);
    cluster.start();
    let elsewhere = scratch.make_dir("elsewhere");
    cluster.sql(&format!("create tablespace elsewhere location '{}'", elsewhere.display()));
    for statement in TABLES.split(';').filter(|statement| !statement.trim().is_empty()) {
        cluster.sql(statement);
    }
    cluster.sql("create database doomed");
    cluster.sql("create database moved");
    cluster.sql("select nextval('numbers')");
    let mut before = checkpoint(&cluster);
    let mut untouched = 0;
    let mut look = |cluster: &Cluster, before: &mut (Lsn, Pages), step: &str| {
        let after = checkpoint(cluster);
        let set = changes(cluster, (before.0, after.0));
        let (same, hints) = compare(&format!("{what}, {step}"), &set, &before.1, &after.1, after.0);
        println!("{what}, {step}: {} extents, {same} not touched, {hints} of these differ in hints", after.1.len());
        untouched += same;
        *before = after;
    };
    look(&cluster, &mut before, "nothing");
    for (number, statement) in WORK.iter().enumerate() {
        cluster.sql(statement);
        if number % 8 == 7 {
            look(&cluster, &mut before, statement);
        }
    }
    look(&cluster, &mut before, "work");
    cluster.sql("create database copied");
    if major >= 15 {
        cluster.sql("create database by_file strategy file_copy");
    }
    cluster.sql("drop database doomed");
    cluster.sql("alter database moved set tablespace elsewhere");
    look(&cluster, &mut before, "databases");

    // A crash in the middle of changes, hints included.
    cluster.sql("update heap set n = n + 1 where id % 500 = 2; select nextval('numbers')");
    let client = cluster.client();
    client.query("begin; update back set n = n + 7 where n % 100 = 3; insert into tail select n, 'crash' from generate_series(1, 900) n").unwrap();
    cluster.sql("select count(*) from heap; select txid_current()");
    cluster.stop(Stop::Immediate);
    cluster.start();
    cluster.sql("select count(*) from still, (select count(*) from back) b; update heap set n = 0 where id = 5");
    look(&cluster, &mut before, "crash");
    assert!(untouched > 1000, "{what}: {untouched}");
    cluster.destroy();
}

#[test]
fn pages_follow_the_log_on_every_version() {
    for major in 13..=18 {
        // One after the other: each takes memory for all pages.
        let options = Options { checksums: major % 2 == 0, ..Options::default() };
        let options = match major % 3 {
            0 => options,
            1 => options.setting("wal_compression", "on").setting("full_page_writes", "off"),
            _ => options.setting("wal_log_hints", "on").setting("wal_compression", "on"),
        };
        follows_the_log(major, options);
    }
}
