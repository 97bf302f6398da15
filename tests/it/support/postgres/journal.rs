//! A load whose transactions write down what all its tables hold, so that any moment of it can be checked after a
//! recovery.
//!
//! Several clients change several tables in every transaction: rows updated in place, inserted and deleted, values out
//! of line, an index each. A lock makes transaction *n* see *n − 1* and nothing of *n + 1*, until its commit is in the
//! log. Its last act is a row of `journal`: its number, its id, a position in the log before anything it wrote, and a
//! checksum of all the tables as they are now. So a recovered server that ends with row *n* must hold tables of that
//! checksum, and the primary knows of every target, by its own commit times, which *n* that is. Some transactions are
//! rolled back, some are prepared first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::load::Client;
use super::{Cluster, parse_lsn, poll};

/// Number and checksum of what every table of the journal holds.
const DIGEST: &str = "(select md5(string_agg(one, '/' order by one)) from (
    select 'accounts ' || count(*) || md5(coalesce(string_agg(a::text, ';' order by id), '')) as one from accounts a union all
    select 'events ' || count(*) || md5(coalesce(string_agg(e::text, ';' order by id), '')) from events e union all
    select 'documents ' || count(*) || md5(coalesce(string_agg(d::text, ';' order by id), '')) from documents d union all
    select 'counters ' || count(*) || md5(coalesce(string_agg(c::text, ';' order by id), '')) from counters c) t)";

/// Between two transactions of a client.
const PAUSE: Duration = Duration::from_millis(1);

/// The load.
pub(crate) struct Journal {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

/// A transaction of the journal, as the primary knew it when the load was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number: the first is 1.
    pub(crate) n: u64,
    /// Its id.
    pub(crate) xid: u64,
    /// A position after the commit of the one before, and before all that it wrote.
    pub(crate) before: u64,
    /// When it was committed, in UTC to the microsecond: `2026-11-21 06:15:00.123456+00:00`.
    pub(crate) committed: String,
}

/// A restore point between two transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) name: String,
    /// The last transaction before it.
    pub(crate) n: u64,
}

impl Journal {
    /// Makes the tables (unless they are there) and starts so many clients. The server needs `track_commit_timestamp`
    /// and `max_prepared_transactions`.
    pub(crate) fn start(cluster: &Cluster, clients: usize) -> Self {
        cluster.sql(&format!(
            "create table if not exists accounts (id int primary key, balance bigint not null);
             create table if not exists events (id bigint primary key, at timestamptz, what text);
             create table if not exists documents (id int primary key, body text);
             create unlogged table if not exists scribbles (id int);
             create table if not exists counters (id int primary key, value bigint not null) with (fillfactor = 50);
             create table if not exists journal (n bigint primary key, xid bigint, before pg_lsn, digest text not null);
             insert into accounts select i, 0 from generate_series(1, 300) i on conflict do nothing;
             insert into counters select i, 0 from generate_series(1, 20) i on conflict do nothing;
             alter table documents alter body set storage external;
             create or replace function work() returns bigint language plpgsql as $$
             declare number bigint; start pg_lsn;
             begin
               perform pg_advisory_xact_lock(4711);
               start := pg_current_wal_insert_lsn();
               number := (select coalesce(max(n), 0) + 1 from journal);
               update accounts set balance = balance + number where id in (1 + number % 300, 1 + (number * 7) % 300);
               update counters set value = value + 1 where id = 1 + number % 20;
               insert into events values (number, clock_timestamp(), repeat(md5(number::text), 3));
               delete from events where id = number - 400;
               insert into documents values (number % 40, (select string_agg(md5((number * i)::text), '') from generate_series(1, 100) i))
                 on conflict (id) do update set body = excluded.body;
               insert into scribbles values (number);
               insert into journal values (number, txid_current(), start, {DIGEST});
               return number;
             end $$"
        ));
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..clients)
            .map(|client| {
                let connection = cluster.client();
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                std::thread::spawn(move || {
                    for round in client.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        transaction(&connection, client, round)?;
                        done.fetch_add(1, Ordering::Release);
                        std::thread::sleep(PAUSE);
                    }
                    Ok(())
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    /// Waits until so many more transactions are committed or rolled back.
    pub(crate) fn wait_for(&self, transactions: u64) {
        let target = self.done.load(Ordering::Acquire) + transactions;
        let reached = poll(|| {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client of the journal ended early");
            (self.done.load(Ordering::Acquire) >= target).then_some(())
        });
        assert!(reached.is_some(), "the journal makes no progress");
    }

    /// Ends the load.
    pub(crate) fn finish(mut self) {
        for result in self.join() {
            result.expect("a client of the journal failed");
        }
    }

    /// Ends the load after its server is gone.
    pub(crate) fn abandon(mut self) {
        drop(self.join());
    }

    fn join(&mut self) -> Vec<Result<(), String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".to_owned()))).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.join());
    }
}

/// One transaction of one of several kinds.
fn transaction(connection: &Client, client: usize, round: usize) -> Result<(), String> {
    match round % 8 {
        5 => {
            connection.query("begin; select work()")?;
            connection.query("rollback")?;
        }
        6 => {
            connection.query("begin; select work()")?;
            connection.query(&format!("prepare transaction 'journal {client}'"))?;
            connection.query(&format!("commit prepared 'journal {client}'"))?;
        }
        7 => {
            connection.query("begin; select work()")?;
            connection.query(&format!("prepare transaction 'journal {client}'"))?;
            connection.query(&format!("rollback prepared 'journal {client}'"))?;
        }
        _ => {
            connection.query("select work()")?;
        }
    }
    Ok(())
}

impl Cluster {
    /// Makes a restore point between two transactions of the journal.
    pub(crate) fn journal_point(&self, name: &str) -> Point {
        let session = self.client();
        let ask = |sql: &str| session.query(sql).unwrap_or_else(|error| self.fail(&error));
        ask("select pg_advisory_lock(4711)");
        let n = ask("select coalesce(max(n), 0) from journal").parse().unwrap();
        ask(&format!("select pg_create_restore_point('{name}')"));
        ask("select pg_advisory_unlock(4711)");
        Point { name: name.to_owned(), n }
    }

    /// All transactions of the journal that have a commit time, in order.
    pub(crate) fn journal(&self) -> Vec<Entry> {
        let rows = self.client().rows(
            "select n, xid, before, to_char(pg_xact_commit_timestamp(xid::text::xid) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00')
             from journal order by n",
        );
        let rows = rows.unwrap_or_else(|error| self.fail(&error));
        let entry = |row: &Vec<String>| Entry {
            n: row[0].parse().unwrap(),
            xid: row[1].parse().unwrap(),
            before: parse_lsn(&row[2]),
            committed: row[3].clone(),
        };
        rows.iter().map(entry).collect()
    }

    /// Whether the tables hold what they held when transaction `n` of the journal had been committed, and nothing
    /// later: the number of the last transaction, how many there are, and whether the checksum is that of `n`.
    pub(crate) fn journal_end(&self, n: u64) -> String {
        self.sql(&format!("select max(n), count(*), {DIGEST} = (select digest from journal where n = {n}) from journal"))
    }

    /// Fails the test unless the tables are as after transaction `n`.
    pub(crate) fn assert_journal(&self, n: u64) {
        let found = self.journal_end(n);
        if found != format!("{n}|{n}|t") {
            self.fail(&format!(
                "the journal is to end with {n}; its end, its length, and whether the tables are as then: {found}"
            ));
        }
    }
}
