//! What happens to a server between two backups: each kind of action by itself, with a check that it did happen.

use super::*;
use crate::support::postgres::load::Client;

/// One kind of action; whether it happened. What it cannot do now, it leaves.
pub(super) type Action = fn(&mut World) -> bool;

/// What all histories begin with; `small` is a database that is copied.
pub(super) const TABLES: [&str; 16] = [
    "create table still as select n, repeat('still', 20) t from generate_series(1, 6000) n",
    "create table heap (id int primary key, n int, body text, v int[], p point, r int default 0)",
    "create index heap_hash on heap using hash (n)",
    "create index heap_gin on heap using gin (v)",
    "create index heap_gist on heap using gist (p)",
    "create index heap_spgist on heap using spgist (p)",
    "create index heap_brin on heap using brin (n) with (pages_per_range = 4)",
    "insert into heap select n, n, repeat(md5(n::text), 3), array[n, n % 10], point(n, n % 7) from generate_series(1, 3000) n",
    "create table toasted (id int, body text); alter table toasted alter body set storage external",
    "insert into toasted select n, repeat(md5(n::text), 200) from generate_series(1, 60) n",
    "create table tail (id int, body text)",
    "create unlogged table volatile (id int, body text)",
    "create table wide (id int, body text)",
    "create materialized view summary as select n % 10 k, count(*) c from heap group by 1; create unique index on summary (k)",
    "create sequence numbers; create sequence idle; select nextval('numbers'), nextval('idle')",
    "create database small",
];

/// What the server does while a backup runs, so that the next one has a parent with pages of many moments.
pub(super) const MEANWHILE: [&str; 7] = [
    "update heap set r = r + 1 where id % 41 = 3",
    "insert into tail select n, repeat('z', 300) from generate_series(1, 200) n",
    "delete from tail where ctid > '(40,0)'",
    "vacuum tail",
    "drop table if exists brief; create table brief as select * from still limit 500",
    "update toasted set body = body || 'busy' where id % 9 = 4",
    "select nextval('numbers')",
];

/// Kinds that are counted in the course of others.
pub(super) const BESIDES: [&str; 12] = [
    "backup of the primary",
    "backup of the standby",
    "busy backup",
    "backup of a past that is given up",
    "pages that differ in hints",
    "restore",
    "standby made of a backup",
    "hint bits that are logged",
    "hint bits that are not logged",
    "wal_compression = pglz",
    "wal_compression = lz4",
    "wal_compression = zstd",
];

/// Every kind, and what does it.
pub(super) const ACTIONS: [(&str, Action); 47] = [
    ("insert", |w| w.ok(&insert(fastrand::usize(1..400)))),
    ("update", |w| w.ok(&format!("update heap set n = n + 1, v = v || 7 where id % {} = 1", fastrand::usize(20..400)))),
    ("update in place of the row", |w| w.ok(&format!("update heap set r = r + 1 where id % {} = 2", fastrand::usize(5..400)))),
    ("delete", |w| w.ok(&format!("delete from heap where id % {} = 3", fastrand::usize(20..200)))),
    ("rollback", |w| w.ok(&format!("begin; {}; delete from heap where id % 50 = 7; rollback", insert(50)))),
    ("savepoint", savepoint),
    ("TOAST", toast),
    ("GIN", |w| {
        w.sql(&insert(300));
        w.sql("select gin_clean_pending_list('heap_gin')").parse::<u64>().unwrap() > 0
    }),
    ("GiST", |w| {
        w.sql(
            "insert into heap select m + n, n, 'g', array[n], point(n % 3, n % 5) from generate_series(1, 300) n,
              (select max(id) m from heap) s; delete from heap where p <@ box '(0,0),(1,1)'",
        );
        w.ok("vacuum heap")
    }),
    ("BRIN", |w| {
        w.sql("select brin_desummarize_range('heap_brin', 0)");
        w.sql("select brin_summarize_new_values('heap_brin')").parse::<u64>().unwrap() > 0
    }),
    ("sequence", |w| {
        w.handed_out = w.number("select max(v) from (select nextval('numbers') v from generate_series(1, 70)) s");
        true
    }),
    ("sequence set", |w| {
        let far = w.number("select last_value + 1000 from numbers");
        w.sql(&format!("select setval('numbers', {far}); alter sequence numbers cache 1"));
        w.handed_out = w.number("select nextval('numbers')");
        w.handed_out > far
    }),
    ("unlogged to logged", |w| relogged(w, "u", "logged")),
    ("logged to unlogged", |w| relogged(w, "p", "unlogged")),
    ("unlogged", |w| w.ok("insert into volatile select n, 'w' from generate_series(1, 500) n")),
    ("VACUUM FULL", |w| {
        let table = one_of(&["heap", "toasted", "tail", "wide"]);
        w.new_file(table, &format!("vacuum full {table}"))
    }),
    ("VACUUM FULL of a mapped catalog", |w| {
        let table = one_of(&["pg_class", "pg_attribute", "pg_proc", "pg_type", "pg_database"]);
        w.new_file(table, &format!("vacuum full {table}"))
    }),
    ("CLUSTER", |w| w.new_file("heap", "cluster heap using heap_pkey")),
    ("VACUUM", |w| {
        w.sql(&format!("delete from heap where id % {} = 4", fastrand::usize(10..100)));
        w.ok(one_of(&["vacuum heap", "vacuum (freeze) heap", "vacuum (freeze, analyze)"]))
    }),
    ("truncation by VACUUM", truncation_by_vacuum),
    ("TRUNCATE rolled back", |w| {
        let table = one_of(&["still", "heap", "toasted", "tail"]);
        let again = if table == "tail" { "insert into tail select n, 'never' from generate_series(1, 900) n" } else { "select" };
        !w.new_file(table, &format!("begin; truncate {table}; {again}; rollback"))
    }),
    ("TRUNCATE", |w| {
        w.new_file("toasted", "begin; truncate toasted; insert into toasted select n, repeat(md5(n::text), 150) from generate_series(1, 40) n; commit")
    }),
    ("CREATE INDEX CONCURRENTLY", |w| {
        w.ok("drop index if exists heap_extra");
        w.sql("create index concurrently heap_extra on heap (body)");
        w.sql("select indisvalid from pg_index where indexrelid = 'heap_extra'::regclass") == "t"
    }),
    ("REINDEX", |w| {
        let concurrently = one_of(&["", "concurrently "]);
        w.new_file("heap_pkey", &format!("reindex index {concurrently}heap_pkey"))
    }),
    ("CREATE INDEX", |w| w.ok("drop index if exists heap_other; create index heap_other on heap (body, id)")),
    ("COPY FREEZE", |w| {
        w.ok("drop table if exists frozen");
        w.sql("begin; create table frozen (n int); copy frozen from program 'seq 1 4000' with (freeze); commit");
        w.sql("select count(*) from frozen") == "4000"
    }),
    ("several sessions extend a relation", several_extend),
    ("table created and dropped", |w| {
        w.ok("drop table if exists other; create table other as select * from still; create index on other (n)");
        w.ok("begin; create table never as select * from still; rollback")
    }),
    ("many tables dropped at once", |w| {
        let each = |does: &str, end: &str| (0..25).map(|n| format!("{does} many_{n}{end}; ")).collect::<String>();
        w.ok(&format!("{}{}", each("create table", " (n int primary key)"), each("drop table", "")))
    }),
    ("rewritten by ALTER TABLE", |w| {
        w.new_file("wide", "alter table wide drop column if exists c; alter table wide add c float default random()")
    }),
    ("materialized view", |w| {
        w.ok(one_of(&["refresh materialized view summary", "refresh materialized view concurrently summary"]))
    }),
    ("large object", |w| {
        w.ok("select lo_from_bytea(0, decode(repeat('ab12', 3000), 'hex'))");
        w.ok("select lo_unlink(oid) from pg_largeobject_metadata where oid::bigint % 3 = 0")
    }),
    ("row locks of two sessions", row_locks),
    ("temporary table", |w| {
        w.ok("create temp table passing as select * from still; create index on passing (n); drop table passing")
    }),
    ("prepared transaction", prepared),
    ("database copied through the log", |w| w.major >= 15 && copied(w, "strategy wal_log")),
    ("database copied by its files", |w| copied(w, if w.major >= 15 { "strategy file_copy" } else { "" })),
    ("database dropped", |w| match fastrand::choice(w.databases.clone()) {
        Some(name) => {
            w.databases.retain(|other| *other != name);
            w.ok(&format!("drop database {name}"))
        }
        None => false,
    }),
    ("database moved to another tablespace", database_moved),
    ("table moved to another tablespace", |w| {
        let table = one_of(&["toasted", "tail", "wide", "frozen"]);
        if w.sql(&format!("select to_regclass('{table}') is null")) == "t" {
            return false;
        }
        let is_at_home = w.sql(&format!("select reltablespace = 0 from pg_class where oid = '{table}'::regclass")) == "t";
        let space = if is_at_home { "elsewhere" } else { "pg_default" };
        w.new_file(table, &format!("alter table {table} set tablespace {space}"))
    }),
    ("hint bits", hint_bits),
    ("full_page_writes", |w| {
        let other = if w.sql("show full_page_writes") == "on" { "off" } else { "on" };
        w.set("full_page_writes", other)
    }),
    ("wal_compression", |w| {
        // What this server was built with.
        let kinds = w.sql("select array_to_string(enumvals, ' ') from pg_settings where name = 'wal_compression'");
        let kinds = if kinds.is_empty() { "off on".to_owned() } else { kinds };
        let kinds: Vec<&str> = kinds.split(' ').filter(|kind| *kind != "on" || w.major < 15).collect();
        let kind = fastrand::choice(kinds).unwrap().to_owned();
        w.happened(&format!("wal_compression = {kind}"));
        w.set("wal_compression", &kind) && w.ok("checkpoint; update heap set r = r + 1 where id % 9 = 0")
    }),
    ("checkpoint", |w| w.ok("checkpoint")),
    // So that the changes of whole nodes are asked for.
    ("more than 32 segments", |w| {
        w.ok("create table bulk as select n, repeat('b', 1000) from generate_series(1, 40000) n; drop table bulk")
    }),
    ("segment switched", |w| w.ok("select pg_switch_wal()")),
    ("schema of a catalog changed", |w| {
        w.ok("create or replace function f() returns int language sql as 'select 1'; comment on table heap is 'x'; analyze")
    }),
];

fn one_of(words: &[&'static str]) -> &'static str {
    words[fastrand::usize(..words.len())]
}

fn insert(rows: usize) -> String {
    format!(
        "insert into heap select m + n, n, repeat(md5(n::text), 1 + n % 4), array[n, n % 10], point(n, n % 7)
         from generate_series(1, {rows}) n, (select coalesce(max(id), 0) m from heap) s"
    )
}

/// What a server holds: rows and large objects of all databases, and what indexes say of them.
pub(super) fn contents(cluster: &Cluster) -> String {
    let tables = "select oid::regclass from pg_class where relkind in ('r', 'm') and relpersistence = 'p' and oid >= 16384
                  and relnamespace = 'public'::regnamespace order by relname";
    let databases = cluster.sql("select datname from pg_database where datallowconn and datname <> 'template1' order by 1");
    let mut found = String::new();
    for database in databases.lines() {
        let digest =
            |table: &str| format!("select '{database}.{table}', count(*), sum(hashtextextended(t::text, 0)) from {table} t");
        let tables = cluster.sql_in(database, tables);
        let all: Vec<String> = tables.lines().chain(["pg_largeobject"]).map(digest).collect();
        found += &cluster.sql_in(database, &all.join(" union all "));
        found.push('\n');
    }
    let client = cluster.client();
    client.query("set enable_seqscan = off").unwrap();
    for by_index in [
        "id between 100 and 900",
        "n = 77",
        "v @> array[3]",
        "p <@ box '(0,0),(900,3)'",
        "p ~= point '(5,5)'",
        "n between 10 and 500",
    ] {
        found += &client.query(&format!("select count(*), sum(id) from heap where {by_index}")).unwrap();
        found.push('\n');
    }
    found
}

fn savepoint(w: &mut World) -> bool {
    w.ok("begin; update heap set r = r + 1 where id < 50; savepoint s; create table sub (n int); insert into sub values (1);
          rollback to s; update heap set r = 0 where id = 7; commit")
}

fn toast(w: &mut World) -> bool {
    w.sql("update toasted set body = body || 'more' where id % 5 = 1; delete from toasted where id % 7 = 3");
    w.ok("insert into toasted select n, repeat(md5(n::text), 180) from generate_series(61, 70) n")
}

fn relogged(w: &mut World, from: &str, to: &str) -> bool {
    if w.sql("select relpersistence from pg_class where relname = 'volatile'") != from {
        return false;
    }
    w.sql("insert into volatile select n, 'v' from generate_series(1, 600) n");
    if w.sql("select count(*) from volatile").parse::<u64>().unwrap() > 5000 {
        w.sql("truncate volatile");
    }
    w.new_file("volatile", &format!("alter table volatile set {to}"))
}

/// A table gets shorter: its last pages have no row that anybody can see.
fn truncation_by_vacuum(w: &mut World) -> bool {
    w.sql("insert into tail select n, repeat('x', 500) from generate_series(1, 700) n");
    let pages = |w: &World| w.sql("select pg_relation_size('tail') / 8192").parse::<u64>().unwrap();
    let before = pages(w);
    w.sql(&format!("delete from tail where ctid >= '({},0)'", fastrand::u64(0..before / 2)));
    w.sql("vacuum (freeze, analyze) tail");
    let after = pages(w);
    // Sometimes it grows again, over what was cut off.
    if fastrand::bool() {
        w.sql("insert into tail select n, repeat('y', 400) from generate_series(1, 500) n");
    }
    after < before
}

fn several_extend(w: &mut World) -> bool {
    let size = |w: &World| w.sql("select pg_relation_size('wide')").parse::<u64>().unwrap();
    if size(w) > 3_000_000 {
        w.sql("truncate wide");
    }
    let before = size(w);
    let cluster = &w.servers.primary;
    let sessions: Vec<Client> = (0..4).map(|_| cluster.client()).collect();
    std::thread::scope(|scope| {
        for (number, session) in sessions.into_iter().enumerate() {
            scope.spawn(move || {
                for _ in 0..3 {
                    let rows = "select n, repeat('w', 700) from generate_series(1, 60) n";
                    session.query(&format!("insert into wide (id, body) {rows}; select {number}")).unwrap();
                }
            });
        }
    });
    size(w) > before
}

fn row_locks(w: &mut World) -> bool {
    let sessions = [w.servers.primary.client(), w.servers.primary.client()];
    for session in &sessions {
        session.query("begin; select id from heap where id % 60 = 5 for share").unwrap();
    }
    sessions.iter().all(|session| session.query("commit").is_ok())
}

fn prepared(w: &mut World) -> bool {
    w.sql("drop table if exists doomed; create table doomed as select * from still limit 900");
    let end = one_of(&["commit", "rollback"]);
    w.sql("begin; drop table doomed; create table if not exists made as select * from still limit 700; prepare transaction 'p'");
    match fastrand::u8(..4) {
        0 => w.sql("checkpoint"),
        1 => {
            let _ = w.servers.crash(Stop::Immediate);
            String::new()
        }
        _ => String::new(),
    };
    w.ok(&format!("{end} prepared 'p'"))
}

fn copied(w: &mut World, strategy: &str) -> bool {
    if w.databases.len() > 1 {
        let oldest = w.databases.remove(0);
        w.sql(&format!("drop database {oldest}"));
    }
    w.names += 1;
    let name = format!("copy_{}", w.names);
    w.sql(&format!("create database {name} template small {strategy}"));
    w.databases.push(name.clone());
    w.servers
        .primary
        .sql_in(&name, "update inside set n = n + 1 where n % 40 = 1; create table of_the_copy as select * from inside");
    w.servers.primary.sql_in("small", "update inside set n = n + 1 where n % 200 = 3");
    true
}

fn database_moved(w: &mut World) -> bool {
    let Some(name) = fastrand::choice(w.databases.clone()) else { return false };
    let spaces = "from pg_database d join pg_tablespace t on t.oid = d.dattablespace";
    let is_at_home = w.sql(&format!("select spcname = 'pg_default' {spaces} where datname = '{name}'")) == "t";
    let space = if is_at_home { "elsewhere" } else { "pg_default" };
    w.ok(&format!("alter database {name} set tablespace {space}"));
    w.servers.primary.sql_in(&name, "update inside set n = n + 1 where n % 100 = 1");
    true
}

/// The first ones after a checkpoint, which is what is logged if anything is.
fn hint_bits(w: &mut World) -> bool {
    w.sql("update heap set r = r + 1 where id % 3 = 0; delete from wide where id % 4 = 0");
    w.sql("checkpoint");
    w.sql("select count(*) from heap; select count(*) from wide; select count(*) from heap where id < 500");
    let are_logged = w.sql("select current_setting('data_checksums') = 'on' or current_setting('wal_log_hints') = 'on'") == "t";
    w.happened(if are_logged { "hint bits that are logged" } else { "hint bits that are not logged" });
    true
}
