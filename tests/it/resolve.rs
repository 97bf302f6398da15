//! `walvis resolve` and `walvis catalog` against real servers: what is said must be what PostgreSQL does and knows.
//!
//! `WALVIS_TEST_TARGETS` says how many random targets a run takes, `WALVIS_TEST_SEED` which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use walvis::format::extent::BackupId;

use crate::recovery::Archive;
use crate::support::postgres::{Backup, Cluster, Load, Options, Recovery, Role, Scratch, parse_lsn, run};
use crate::support::schema;
use crate::support::stored::Copied;

/// A server that archives with Walvis, and its repository.
pub(crate) struct Site {
    pub(crate) scratch: Arc<Scratch>,
    pub(crate) archive: Archive,
    pub(crate) options: Options,
}

impl Site {
    pub(crate) fn new(wal_segsize_mib: u32) -> Self {
        let scratch = Scratch::new();
        let archive = Archive::walvis(&scratch);
        let options = Options { wal_segsize_mib, ..archive.options() };
        let options = options.setting("track_commit_timestamp", "on").setting("max_prepared_transactions", "10");
        Self { scratch, archive, options }
    }

    pub(crate) fn primary(&self, major: u32) -> Cluster {
        let mut primary = Cluster::init(&self.scratch, "primary", major, &self.options);
        primary.start();
        primary
    }

    /// Runs `walvis` with the arguments given as they are quoted for a shell.
    pub(crate) fn walvis(&self, arguments: &str) -> Output {
        let program = self.archive.archive_command.strip_suffix(" push-wal %p").unwrap();
        let mut command = self.scratch.command(Path::new("sh"));
        command.arg("-c").arg(format!("{program} {arguments}")).stdin(Stdio::null()).output().unwrap()
    }

    /// What `walvis resolve --json` answers, and its exit code.
    pub(crate) fn resolve(&self, arguments: &str) -> (Value, i32) {
        let output = self.walvis(&format!("resolve --json {arguments}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("resolve {arguments}: {e}: {stderr}"));
        schema::holds("resolve", &json);
        (json, output.status.code().unwrap())
    }

    pub(crate) fn reaches(&self, arguments: &str) -> Value {
        let (json, code) = self.resolve(arguments);
        assert_eq!((code, &json["reachable"]), (0, &Value::Bool(true)), "resolve {arguments}: {json:#}");
        assert_eq!(json["wal"]["segments"], json["wal"]["present"], "{json:#}");
        json
    }

    pub(crate) fn does_not_reach(&self, arguments: &str) -> Value {
        let (json, code) = self.resolve(arguments);
        assert_eq!((code, &json["reachable"]), (15, &Value::Bool(false)), "resolve {arguments}: {json:#}");
        json
    }

    /// The target is in the archive, and no base backup of the repository leads there.
    pub(crate) fn finds(&self, arguments: &str) -> Value {
        let json = self.does_not_reach(arguments);
        assert_eq!(
            json["reason"].as_str(),
            Some("no base backup in the repository leads there"),
            "resolve {arguments}: {json:#}"
        );
        json
    }

    /// Stores a copy in the repository as a base backup that counts.
    pub(crate) fn store(&self, backup: &Backup) -> BackupId {
        let key = self.scratch.path().join("walvis.key");
        let id = Copied::new(&self.archive.directory, &key, &backup.dir, backup.stop_lsn, backup.major).store();
        // What root stored belongs to the server's user, as if he had stored it.
        self.scratch.give_all(&self.archive.directory);
        id
    }

    /// Takes a copy, and stores it.
    pub(crate) fn backup_of(&self, cluster: &Cluster, name: &str) -> Backup {
        let backup = cluster.backup_to(name);
        self.store(&backup);
        backup
    }

    /// The lines of a list of `walvis catalog`.
    pub(crate) fn list(&self, arguments: &str) -> Vec<Value> {
        let output = self.walvis(&format!("catalog --json {arguments}"));
        assert!(output.status.success(), "catalog {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(Self::line).collect()
    }

    pub(crate) fn overview(&self) -> Value {
        let output = self.walvis("catalog --json");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let overview = serde_json::from_slice(&output.stdout).unwrap();
        schema::holds("catalog", &overview);
        overview
    }

    fn line(line: &[u8]) -> Value {
        let line = serde_json::from_slice(line).unwrap();
        schema::holds("catalog-line", &line);
        line
    }

    /// The settings that an answer says to write.
    pub(crate) fn settings(json: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        json["settings"].as_array().unwrap().iter().map(|s| (text(&s["name"]), text(&s["value"]))).collect()
    }

    /// Recovers with these settings, and does not archive: the repository stays as it is.
    pub(crate) fn recover(&self, name: &str, backup: &Backup, settings: &[(String, String)]) -> Cluster {
        let mut options = Options { archive_command: None, ..self.options.clone() };
        options.settings.push(("recovery_target_action".to_owned(), "promote".to_owned()));
        options.settings.extend_from_slice(settings);
        let mut cluster = Cluster::restore(&self.scratch, name, backup, Role::Recovery, &options);
        cluster.spawn();
        match cluster.wait_recovery() {
            Recovery::Promoted => cluster,
            Recovery::Exited(status) => cluster.fail(&format!("recovery to {settings:?} ended with {status}")),
        }
    }

    /// Recovers as PostgreSQL understands the target and as it was resolved: both must end with the same tables.
    pub(crate) fn recovers_equally(&self, i: usize, backup: &Backup, arguments: &str, own: &[(&str, &str)], tables: &[&str]) {
        let json = self.reaches(arguments);
        assert_eq!(parse_lsn(json["backup"]["stop_lsn"].as_str().unwrap()), backup.stop_lsn, "{json:#}");
        let resolved = Self::settings(&json);
        let own: Vec<(String, String)> = own.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let one = self.recover(&format!("own{i}"), backup, &own);
        let other = self.recover(&format!("res{i}"), backup, &resolved);
        let (of_one, of_other) = (one.digest(tables), other.digest(tables));
        if of_one != of_other {
            one.fail(&format!("recovered by {own:?}:\n{of_one}\nby {resolved:?}:\n{of_other}\n{json:#}"));
        }
        // The timelines fork at the same position; or earlier, at the end of the record that is named, to have fewer
        // locks.
        let fork = |cluster: &Cluster| {
            parse_lsn(cluster.sql("select pg_read_file('pg_wal/00000002.history')").split_whitespace().nth(1).unwrap())
        };
        let (own_fork, resolved_fork) = (fork(&one), fork(&other));
        match json["stop"]["instead_of_lsn"].as_str() {
            None => assert_eq!(own_fork, resolved_fork, "{json:#}"),
            Some(own_stop) => {
                let stop = parse_lsn(json["stop"]["lsn"].as_str().unwrap());
                assert!(stop <= resolved_fork && resolved_fork < own_fork, "{stop:X} {resolved_fork:X} {own_fork:X} {json:#}");
                assert!(own_fork <= parse_lsn(own_stop), "{own_fork:X} {json:#}");
            }
        }
        // What is said of commits holds in the tables.
        for (end, expected) in [("last_included", "t"), ("first_excluded", "f")] {
            let (xid, kind) = (&json[end]["xid"], &json[end]["kind"]);
            let is_commit = kind.as_str().is_some_and(|kind| kind.starts_with("commit"));
            if is_commit && xid.is_u64() {
                let known = format!("select coalesce((select true from ledger where xmin = '{xid}' limit 1), false)");
                let in_ledger = other.sql(&known);
                assert!(in_ledger == expected || (end == "last_included" && in_ledger == "f"), "{end} {xid}: {in_ledger}");
            }
        }
        one.destroy();
        other.destroy();
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Random targets of all kinds in a busy load of several clients, with rollbacks, prepared transactions and restore
/// points.
fn recovers_as_resolved(major: u32) {
    let site = Site::new(1);
    let mut primary = site.primary(major);
    primary.sql("create table other (i int)");
    let load = Load::start(&primary, 4);
    load.wait_for(10);
    let backup = site.backup_of(&primary, "base");
    let begin = primary.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')");
    let client = primary.client();
    let query = |sql: &str| client.query(sql).unwrap_or_else(|error| primary.fail(&error));
    let (mut lsns, mut points) = (Vec::new(), Vec::new());
    for i in 0..24 {
        load.wait_for(2);
        lsns.push(query("select pg_current_wal_insert_lsn()"));
        query(&format!("begin; insert into other values ({i}); rollback"));
        query(&format!("begin; insert into other values ({i}); prepare transaction 'g'"));
        load.wait_for(1);
        query(if i % 2 == 0 { "commit prepared 'g'" } else { "rollback prepared 'g'" });
        if i % 4 == 1 {
            points.push(format!("point {i}"));
            query(&format!("select pg_create_restore_point('point {i}')"));
        }
        if i % 8 == 5 {
            drop(query("select pg_switch_wal()"));
        }
    }
    let times = query(&format!(
        "select to_char(t at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') from \
         (select pg_xact_commit_timestamp(xmin) t from ledger) x where t > '{begin}+00' order by 1"
    ));
    let xids = query(&format!("select xmin from ledger where pg_xact_commit_timestamp(xmin) > '{begin}+00'"));
    load.wait_for(3);
    drop(client);
    primary.switch_and_archive();
    primary.destroy();
    load.abandon();

    let (times, xids): (Vec<&str>, Vec<&str>) = (times.lines().collect(), xids.lines().collect());
    let seed = number("WALVIS_TEST_SEED", fastrand::u64(..));
    eprintln!("WALVIS_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for i in 0..usize::try_from(number("WALVIS_TEST_TARGETS", 12)).unwrap() {
        let inclusive = random.bool();
        let exclusive = if inclusive { "" } else { "--exclusive" };
        let on = ("recovery_target_inclusive", if inclusive { "on" } else { "off" });
        let tables = ["ledger", "other"];
        match i % 6 {
            // Half of them exactly at a commit, half between.
            0..3 => {
                let mut time = times[random.usize(..times.len() - 1)].to_owned();
                if random.bool() {
                    time.truncate(time.len() - 3);
                    time.push_str(&format!("{:03}", random.u32(..1000)));
                }
                let own = [("recovery_target_time", &*format!("{time}+00")), on];
                site.recovers_equally(i, &backup, &format!("--target-time '{time}Z' {exclusive}"), &own, &tables);
            }
            3 => {
                let xid = xids[random.usize(..xids.len())];
                let own = [("recovery_target_xid", xid), on];
                site.recovers_equally(i, &backup, &format!("--target-xid {xid} {exclusive}"), &own, &tables);
            }
            4 => {
                // Also where no record begins.
                let lsn = parse_lsn(&lsns[random.usize(..lsns.len())]) + random.u64(..2000);
                let lsn = format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF);
                let own = [("recovery_target_lsn", &*lsn), on];
                site.recovers_equally(i, &backup, &format!("--target-lsn {lsn} {exclusive}"), &own, &tables);
            }
            _ => {
                let point = &points[random.usize(..points.len())];
                let own = [("recovery_target_name", &**point)];
                site.recovers_equally(i, &backup, &format!("--target-name '{point}'"), &own, &tables);
            }
        }
    }
}

#[test]
fn pg15_recovers_as_resolved() {
    recovers_as_resolved(15);
}

#[test]
fn pg18_recovers_as_resolved() {
    recovers_as_resolved(18);
}

/// Commits and restore points as the catalog lists them, and as the server knows them, to the microsecond.
fn lists_what_the_server_knows(major: u32, wal_segsize_mib: u32) {
    let site = Site::new(wal_segsize_mib);
    let mut primary = site.primary(major);
    let client = primary.client();
    let query = |sql: &str| client.query(sql).unwrap_or_else(|error| primary.fail(&error));
    query("create table t (i int); create unlogged table u (i int)");
    let (mut expected, mut long) = (BTreeMap::<u64, &str>::new(), 0);
    for i in 0..60 {
        let (kind, end) = match i % 5 {
            0..2 => ("commit", "commit"),
            2 => ("rollback", "rollback"),
            3 => ("commit_prepared", "prepare transaction 'g'; commit prepared 'g'"),
            _ => ("rollback_prepared", "prepare transaction 'g'; rollback prepared 'g'"),
        };
        query("begin");
        let xid = query("insert into t values (1) returning txid_current()").split('|').next_back().unwrap().parse().unwrap();
        // A commit record longer than a segment of 1 MiB, that crosses into the next.
        if i == 30 && wal_segsize_mib == 1 {
            query(
                "do $$ begin for i in 1..300000 loop begin insert into u values (i); exception when division_by_zero then null; end; end loop; end $$",
            );
        }
        end.split("; ").for_each(|sql| drop(query(sql)));
        if i == 30 {
            long = xid;
        }
        expected.insert(xid, kind);
        if i % 20 == 3 {
            query(&format!("select pg_create_restore_point('point {i}')"));
        }
        if i % 15 == 2 {
            drop(query("select pg_switch_wal()"));
        }
    }
    drop(client);
    primary.switch_and_archive();

    // To replay the long commit, or to see that it is not to be replayed, takes the segments it ends in.
    let begin = site.overview()["systems"][0]["timelines"][0]["windows"][0]["from"]["lsn"].as_str().unwrap().to_owned();
    for (exclusive, end) in [("", "last_included"), ("--exclusive", "first_excluded")] {
        let json = site.reaches(&format!("--target-xid {long} --from {begin} {exclusive}"));
        assert_eq!(json[end]["xid"].as_u64(), Some(long), "{json:#}");
        let holding = primary.segment_name(1, parse_lsn(json["stop"]["lsn"].as_str().unwrap()));
        let last = json["wal"]["last_segment"].as_str().unwrap();
        assert!(if wal_segsize_mib == 1 { last > &*holding } else { last == holding }, "{last} {holding}");
    }
    let ends = site.list("--commits");
    let found: BTreeMap<u64, &Value> = ends.iter().map(|end| (end["xid"].as_u64().unwrap(), end)).collect();
    for (xid, kind) in &expected {
        assert_eq!(found.get(xid).map(|end| end["kind"].as_str().unwrap()), Some(*kind), "{xid}");
    }
    let committed: Vec<(&u64, &&Value)> =
        found.iter().filter(|(_, end)| end["kind"].as_str().unwrap().starts_with("commit")).collect();
    let list: Vec<String> = committed.iter().map(|(xid, _)| format!("('{xid}')")).collect();
    // What the server has a time for: from the first transaction after its start on.
    let known = primary.sql(&format!(
        "select x, to_char(pg_xact_commit_timestamp(x::xid) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
         from (values {}) v(x) where x::int >= {}",
        list.join(", "),
        expected.keys().next().unwrap()
    ));
    assert!(known.lines().count() >= 36);
    for line in known.lines() {
        let (xid, time) = line.split_once('|').unwrap();
        assert_eq!(found[&xid.parse().unwrap()]["time"].as_str(), Some(time), "{xid}");
    }
    // In the order of the log, each once.
    let lsns: Vec<u64> = ends.iter().map(|end| parse_lsn(end["lsn"].as_str().unwrap())).collect();
    assert!(lsns.is_sorted_by(|a, b| a < b));
    let points = site.list("--restore-points");
    let names: Vec<&str> = points.iter().map(|point| point["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["point 3", "point 23", "point 43", "walvis test switch"]);
    // A part of the list is that part.
    let (from, to) = (&ends[10], &ends[20]);
    let part = site.list(&format!("--commits --from {} --to {}", from["lsn"].as_str().unwrap(), to["lsn"].as_str().unwrap()));
    assert_eq!(part, ends[10..20]);
    let by_time =
        site.list(&format!("--commits --from '{}' --to '{}'", from["time"].as_str().unwrap(), to["time"].as_str().unwrap()));
    let (low, high) = (from["time"].as_str(), to["time"].as_str());
    let expected: Vec<Value> =
        ends.iter().filter(|end| low <= end["time"].as_str() && end["time"].as_str() <= high).cloned().collect();
    assert_eq!(by_time, expected);

    if let Some(pg_waldump) = primary.postgres().client_tool("pg_waldump").filter(|_| major == 15) {
        agrees_with_pg_waldump(&site, &primary, &pg_waldump, &ends, &points);
    }
    let overview = site.overview();
    let newest = ends.iter().rfind(|end| end["kind"].as_str().unwrap().starts_with("commit")).unwrap();
    assert_eq!(&overview["newest_commit"], newest);
    assert!((0..600).contains(&overview["newest_commit_age_s"].as_i64().unwrap()));
    let timeline = &overview["systems"][0]["timelines"][0];
    assert_eq!(
        (timeline["windows"].as_array().unwrap().len(), timeline["gaps"].as_array().unwrap().len()),
        (1, 0),
        "{overview:#}"
    );
}

/// What `pg_waldump` reads in everything that `fetch-wal` brings back.
pub(crate) fn waldump(site: &Site, pg_waldump: &Path) -> String {
    let fetched = site.scratch.make_dir("fetched");
    let mut segments: Vec<String> = site
        .archive
        .objects("00000001")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name.len() == 24)
        .collect();
    segments.sort();
    for segment in &segments {
        let output = site.walvis(&format!("fetch-wal {segment} '{}'", fetched.join(segment).display()));
        assert!(output.status.success(), "{segment}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut command = site.scratch.command(pg_waldump);
    command.env("TZ", "UTC").arg("--path").arg(&fetched).arg(&segments[0]).arg(segments.last().unwrap());
    run(&mut command)
}

/// Every end and restore point by `pg_waldump`.
fn agrees_with_pg_waldump(site: &Site, primary: &Cluster, pg_waldump: &Path, ends: &[Value], points: &[Value]) {
    let output = waldump(site, pg_waldump);
    let lsn = |line: &str| parse_lsn(line.split_once("lsn: ").unwrap().1.split(',').next().unwrap());
    let with = |words: &[&str]| -> Vec<u64> {
        output.lines().filter(|line| words.iter().any(|word| line.contains(&format!("desc: {word} ")))).map(lsn).collect()
    };
    let of = |list: &[Value]| -> Vec<u64> { list.iter().map(|line| parse_lsn(line["lsn"].as_str().unwrap())).collect() };
    assert_eq!(of(ends), with(&["COMMIT", "ABORT", "COMMIT_PREPARED", "ABORT_PREPARED"]), "{}", primary.log());
    assert_eq!(of(points), with(&["RESTORE_POINT"]));
}

#[test]
fn pg13_lists_what_the_server_knows() {
    lists_what_the_server_knows(13, 1);
}

#[test]
fn pg14_lists_what_the_server_knows() {
    lists_what_the_server_knows(14, 16);
}

#[test]
fn pg15_lists_what_the_server_knows() {
    lists_what_the_server_knows(15, 1);
}

#[test]
fn pg16_lists_what_the_server_knows() {
    lists_what_the_server_knows(16, 64);
}

#[test]
fn pg17_lists_what_the_server_knows() {
    lists_what_the_server_knows(17, 16);
}

#[test]
fn pg18_lists_what_the_server_knows() {
    lists_what_the_server_knows(18, 1);
}
