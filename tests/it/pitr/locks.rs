//! Just before a `DROP TABLE`, paused: the table that somebody came for can be read and dumped.

use crate::pitr::{Site, promote};
use crate::support::command;
use crate::support::postgres::{Cluster, Recovery, Stop};

/// The server's clock in UTC.
const NOW: &str = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00')";
/// What is there after recovery, that no transaction takes back.
const LASTING: &str = "select last_value, (select string_agg(gid, ',') from pg_prepared_xacts) from s";

fn just_before_a_drop(major: u32) {
    let site = Site::new();
    let mut primary = site.primary(major);
    primary.sql(
        "create table wanted as select generate_series(1, 100) i; create table missed as select 1 i; create table other (i int); create sequence s",
    );
    site.backup(&primary, &[]);
    let [one, two, three] = [(); 3].map(|()| primary.client());
    let on = |client: &crate::support::postgres::load::Client, sql: &str| {
        client.query(sql).unwrap_or_else(|error| primary.fail(&format!("{sql}: {error}")))
    };
    on(&one, "insert into wanted values (0)");
    // After the last commit something happens that no transaction takes back, and must not be lost.
    on(&one, "begin");
    on(&one, "select setval('s', 55)");
    on(&two, "begin");
    on(&two, "insert into other values (1)");
    on(&two, "prepare transaction 'p'");
    // A drop that takes its time: others see its lock in a snapshot, and it makes another table with a new sequence.
    let before_drop = on(&three, NOW);
    on(&three, "begin");
    on(&three, "drop table wanted");
    on(&three, "create table wanted (i int, n serial)");
    primary.sql("checkpoint");
    on(&three, "insert into wanted values (-1)");
    on(&three, "commit");
    on(&one, "rollback");
    on(&two, "rollback prepared 'p'");
    // Somebody else commits after the lock was taken: that cannot be avoided.
    on(&three, "begin");
    on(&three, "drop table missed");
    on(&two, "insert into other values (2)");
    let before_other = on(&three, NOW);
    on(&three, "commit");
    drop((one, two, three));
    primary.switch_and_archive();
    primary.stop(Stop::Fast);

    let json = site.json(&["resolve", "--target-time", &before_drop]);
    let stop = &json["stop"];
    assert!(
        stop["instead_of_lsn"].is_string() && stop["locks"] == serde_json::json!([]) && stop["locks_known"] == true,
        "{json:#}"
    );
    let mut restored = site.restore("restored", major, &["--target-time", &before_drop]);
    restored.spawn();
    restored.wait_paused();
    let client = restored.client();
    let read = client.query("set lock_timeout = '20s'; select count(*), min(i) from wanted");
    assert_eq!(read.as_deref(), Ok("101|0"), "{json:#}");
    if let Some(pg_dump) = site.scratch.client_tool(major, "pg_dump").filter(|_| major <= 15) {
        let mut dump = site.scratch.command(&pg_dump);
        let conninfo = restored.conninfo();
        let ran = command::run(dump.args(["--lock-wait-timeout=20000", "--table=wanted", "--dbname"]).arg(&conninfo));
        assert!(ran.status.success() && ran.stdout.contains("\n100\n"), "{ran:?}");
    }
    client.query("select pg_wal_replay_resume()").unwrap();
    drop(client);
    assert!(matches!(restored.wait_recovery(), Recovery::Promoted));
    let lasting = restored.sql(LASTING);
    assert_eq!(lasting, "55|p");
    restored.stop(Stop::Fast);
    // The server's own stop has the same of these, and the same rows.
    let mut own = site.restore("own", major, &["--target", "latest"]);
    let settings = own.data.join("postgresql.auto.conf");
    let mut text = std::fs::read_to_string(&settings).unwrap();
    text.push_str(&format!("\nrecovery_target_time = '{before_drop}'\nrecovery_target_action = 'promote'\n"));
    site.scratch.write(&settings, text.as_bytes());
    promote(&mut own);
    assert_eq!((own.sql(LASTING), own.sql("select count(*), min(i) from wanted")), (lasting, "101|0".to_owned()));
    own.destroy();

    // What cannot be avoided is told, before and after.
    let json = site.json(&["resolve", "--target-time", &before_other]);
    let locks = json["stop"]["locks"].as_array().unwrap();
    assert!(json["stop"]["instead_of_lsn"].is_null() && locks.len() == 1, "{json:#}");
    assert_eq!(locks[0]["xid"], json["first_excluded"]["xid"], "{json:#}");
    let programs = site.scratch.reachable_postgres(primary.postgres()).home.join("bin");
    let mut server = Cluster::started_by_others(&site.scratch, "started", major, &site.options, &primary);
    let arguments = ["--target-time", &before_other, "--start", "--bin-dir", programs.to_str().unwrap()];
    let ran = site.try_restore("started", &arguments).exits(0);
    assert!(ran.stdout.contains("LOCKED          public.missed in database postgres"), "{ran:?}");
    let client = server.client();
    assert!(client.query("set lock_timeout = '100ms'; select i from missed").unwrap_err().contains("lock timeout"));
    client.query("select pg_wal_replay_resume()").unwrap();
    drop(client);
    assert!(matches!(server.wait_recovery(), Recovery::Promoted));
    assert_eq!(server.sql("select i from missed"), "1");
    server.destroy();
}

#[test]
fn pg13_just_before_a_drop() {
    just_before_a_drop(13);
}

#[test]
fn pg15_just_before_a_drop() {
    just_before_a_drop(15);
}

#[test]
fn pg18_just_before_a_drop() {
    just_before_a_drop(18);
}
