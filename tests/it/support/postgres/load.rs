//! Clients: single queries, and a concurrent load that keeps a record of what the server acknowledged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{Cluster, PATIENCE, SUPERUSER, poll};

/// One connection. Every call has a time limit.
pub(crate) struct Client {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

impl Client {
    /// Connects as the superuser.
    pub(crate) fn connect(cluster: &Cluster) -> Result<Self, String> {
        Self::connect_to(cluster, "postgres")
    }

    /// The same, to this database.
    pub(crate) fn connect_to(cluster: &Cluster, database: &str) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host_path(&cluster.sockets).user(SUPERUSER).dbname(database).connect_timeout(PATIENCE);
        let (client, connection) = runtime.block_on(config.connect(NoTls)).map_err(|error| describe(&error))?;
        // Ends with the client or with the server; either is seen by the next query.
        runtime.spawn(async move { connection.await.ok() });
        Ok(Self { runtime, client })
    }

    /// The rows of the last statement that has any, as text; NULL is empty.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.client.simple_query(sql)).await });
        let messages = answer.map_err(|_| format!("no answer in {PATIENCE:?}"))?.map_err(|error| describe(&error))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The rows as `psql -At` prints them.
    pub(crate) fn query(&self, sql: &str) -> Result<String, String> {
        let lines: Vec<String> = self.rows(sql)?.iter().map(|row| row.join("|")).collect();
        Ok(lines.join("\n"))
    }
}

/// An error with what the server said.
fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |server| format!("{}: {}", server.severity(), server.message()))
}

/// Several clients that insert into the table `ledger`, one row per transaction, each client numbering its rows from 1
/// without a gap. The number of the last acknowledged row is kept here, outside the database: a recovery must bring
/// back every one.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Vec<AtomicU64>>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

/// What clients were told was committed: the last row number of each.
pub(crate) type Acknowledged = Vec<u64>;

/// What a row must hold, so that a wrong byte is noticed.
const PAYLOAD: &str = "repeat(md5(client || '/' || n), 4)";

/// Between two rows of a client, so that a slow archiver can keep up and a test does not end with a backlog.
const PAUSE: Duration = Duration::from_millis(2);

impl Load {
    /// Makes the ledger (unless it is there) and starts `clients` clients, which go on after the last row of before.
    pub(crate) fn start(cluster: &Cluster, clients: usize) -> Self {
        cluster.sql(
            "create table if not exists ledger (client int, n bigint, payload text not null, at timestamptz default clock_timestamp(),
             primary key (client, n))",
        );
        let stop = Arc::new(AtomicBool::new(false));
        let last =
            |client| cluster.sql(&format!("select coalesce(max(n), 0) from ledger where client = {client}")).parse().unwrap();
        let acknowledged = Arc::new((0..clients).map(|client| AtomicU64::new(last(client))).collect::<Vec<_>>());
        let threads = (0..clients)
            .map(|client| {
                let connection = cluster.client();
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let n = acknowledged[client].load(Ordering::Relaxed) + 1;
                        let row = format!("select {client} as client, {n}::bigint as n");
                        connection.query(&format!("insert into ledger select client, n, {PAYLOAD} from ({row}) r"))?;
                        acknowledged[client].store(n, Ordering::Release);
                        std::thread::sleep(PAUSE);
                    }
                    Ok(())
                })
            })
            .collect();
        Self { stop, acknowledged, threads }
    }

    /// What was acknowledged up to now.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.iter().map(|n| n.load(Ordering::Acquire)).collect()
    }

    /// Waits until every client got `rows` more rows acknowledged.
    pub(crate) fn wait_for(&self, rows: u64) {
        let target: Vec<u64> = self.acknowledged().iter().map(|n| n + rows).collect();
        let reached = poll(|| {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client of the load ended early");
            self.acknowledged().iter().zip(&target).all(|(n, target)| n >= target).then_some(())
        });
        assert!(reached.is_some(), "the load makes no progress");
    }

    /// Ends the load in good order.
    pub(crate) fn finish(mut self) -> Acknowledged {
        for result in self.join() {
            result.expect("a client of the load failed");
        }
        self.acknowledged()
    }

    /// Ends the load after its server was killed: the clients may have failed, what they were told before holds.
    pub(crate) fn abandon(mut self) -> Acknowledged {
        drop(self.join());
        self.acknowledged()
    }

    fn join(&mut self) -> Vec<Result<(), String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".to_owned()))).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.join());
    }
}

impl Cluster {
    /// Fails the test unless the ledger holds every row that was acknowledged, each intact, and no gap before the last.
    pub(crate) fn assert_ledger(&self, acknowledged: &[u64]) {
        assert!(acknowledged.iter().sum::<u64>() > 0, "the load did nothing");
        for (client, expected) in acknowledged.iter().enumerate() {
            let found = self.sql(&format!(
                "select count(*), coalesce(max(n), 0), count(*) filter (where payload <> {PAYLOAD}) from ledger where client = {client}"
            ));
            let numbers: Vec<u64> = found.split('|').map(|number| number.parse().unwrap()).collect();
            let [count, last, wrong] = numbers[..] else { panic!("{found}") };
            if last < *expected || count != last || wrong != 0 {
                self.fail(&format!(
                    "client {client} was told that {expected} rows are committed; found {count}, the last {last}, {wrong} of them wrong"
                ));
            }
        }
    }

    /// Number of rows and a checksum of each ordinary table.
    pub(crate) fn digest(&self, tables: &[&str]) -> String {
        let one = |table| self.sql(&format!("select $q${table}$q$, count(*), sum(hashtextextended(t::text, 0)) from {table} t"));
        tables.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}
