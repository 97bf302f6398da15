//! A commit record of several megabytes: segments that hold nothing but a part of it, and recovery to it and to just
//! before it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use crate::resolve::{Site, waldump};
use crate::support::postgres::parse_lsn;

/// Ids of subtransactions in the record, 4 bytes each.
const SUBTRANSACTIONS: u32 = 800_000;
/// Tables dropped by it: their files and the cache entries of them are in it too.
const TABLES: u32 = 200;
const MIB: u64 = 1 << 20;
/// Those of them that are there, in the place of a table.
const DROPPED: &str = "(select relname from pg_class where relname ~ $$^dropped$$)";

fn recovers_at_the_long_commit(major: u32) {
    let site = Site::new(1);
    let mut primary = site.primary(major);
    primary.sql(&format!(
        "create table ledger (i int); create unlogged table many (i int);
         do $$ begin for i in 1..{TABLES} loop execute 'create table dropped' || i || ' (i int primary key)'; end loop; end $$"
    ));
    let backup = site.backup_of(&primary, "base");
    primary.sql("insert into ledger values (1)");
    let client = primary.client();
    let query = |sql: &str| client.query(sql).unwrap_or_else(|error| primary.fail(&error));
    query("begin");
    let long = query("insert into ledger values (2) returning txid_current()");
    query(&format!(
        "do $$ begin for i in 1..{SUBTRANSACTIONS} loop
             begin insert into many values (i); exception when division_by_zero then null; end; end loop; end $$"
    ));
    query(&format!("do $$ begin for i in 1..{TABLES} loop execute 'drop table dropped' || i; end loop; end $$"));
    query("commit");
    drop(client);
    primary.sql("insert into ledger values (3)");
    let known = primary.sql(&format!(
        "select to_char(pg_xact_commit_timestamp('{long}'::xid) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    ));
    primary.switch_and_archive();

    let ends = site.list("--commits");
    let commit = ends.iter().find(|end| end["xid"].as_u64() == long.parse().ok()).unwrap();
    assert_eq!((commit["kind"].as_str(), commit["time"].as_str()), (Some("commit"), Some(&*known)), "{commit:#}");
    let lsn = commit["lsn"].as_str().unwrap();
    // The next record that begins says where this one ends: several segments later.
    let start = parse_lsn(lsn);
    let after = site.reaches(&format!("--target-lsn {:X}/{:X} --exclusive", (start + 8) >> 32, (start + 8) & 0xFFFF_FFFF));
    let bytes = parse_lsn(after["stop"]["lsn"].as_str().unwrap()) - start;
    let whole = (start + bytes) / MIB - start / MIB - 1;
    assert!(bytes > 3 * MIB && whole >= 2, "{bytes} bytes, {whole} segments with nothing but a part of it");
    eprintln!("PostgreSQL {major}: a commit record over {bytes} bytes of WAL, {whole} segments hold nothing else");
    if let Some(pg_waldump) = primary.postgres().client_tool("pg_waldump").filter(|_| major == 15) {
        let dumped = waldump(&site, &pg_waldump);
        let is_it = |line: &&str| {
            line.contains("desc: COMMIT ") && line.contains(&format!("lsn: {:X}/{:08X},", start >> 32, start & 0xFFFF_FFFF))
        };
        let record = dumped.lines().find(is_it).unwrap_or_else(|| panic!("pg_waldump knows no commit at {lsn}"));
        let field = |name: &str| record.split_once(name).unwrap().1.trim_start().split([',', '/']).next().unwrap().to_owned();
        assert_eq!(field("tx:"), long);
        let total: u64 = record
            .split_once("len (rec/tot):")
            .unwrap()
            .1
            .split_once('/')
            .unwrap()
            .1
            .split(',')
            .next()
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        // The rest of what it takes are the headers of pages.
        assert!(total > 3 * MIB && total < bytes && bytes < total + total / 100, "{total} {bytes}");
    }

    // At it and just before it: by xid, LSN and time.
    let time: jiff::Timestamp = known.parse().unwrap();
    let just_before = time.checked_sub(jiff::SignedDuration::from_micros(1)).unwrap();
    // As `recovery_target_time` takes it: a `T` and a `Z` it refuses.
    let as_setting = |time: jiff::Timestamp| time.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string();
    let (at_commit, before) = (as_setting(time), as_setting(just_before));
    let (on, off) = (("recovery_target_inclusive", "on"), ("recovery_target_inclusive", "off"));
    let targets = [
        (format!("--target-xid {long}"), vec![("recovery_target_xid", &*long), on], "last_included"),
        (format!("--target-lsn {lsn} --exclusive"), vec![("recovery_target_lsn", lsn), off], "first_excluded"),
        (format!("--target-time '{known}'"), vec![("recovery_target_time", &*at_commit), on], "last_included"),
        (format!("--target-time '{before}'"), vec![("recovery_target_time", &*before), on], "first_excluded"),
    ];
    for (i, (arguments, own, end)) in targets.iter().enumerate() {
        site.recovers_equally(i, &backup, arguments, own, &["ledger", DROPPED]);
        let json = site.reaches(arguments);
        assert_eq!(json[end]["xid"].as_u64(), long.parse().ok(), "{arguments}: {json:#}");
    }
    primary.destroy();
}

#[test]
fn pg15_recovers_at_the_long_commit() {
    recovers_at_the_long_commit(15);
}

#[test]
fn pg18_recovers_at_the_long_commit() {
    recovers_at_the_long_commit(18);
}
