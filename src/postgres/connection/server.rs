//! A session on a server: it is asked for values as text.

use super::connect::Targets;
use super::conninfo::Conninfo;
use super::errors::{detail, server_error};
use super::sql_text::{hex_of, of_hex};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::Identity;
use crate::limits::{SERVER_CONNECT_TIMEOUT, STATEMENT_LOOK_EVERY};
use crate::raw_text::RawText;
use crate::waiting;
use std::future::Future;
use tokio_postgres::SimpleQueryMessage;

/// A connection, with a runtime of its own.
pub struct Server {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
    targets: Targets,
    deadline: Deadline,
}

impl Server {
    /// Connects with a libpq connection string, such as `host=/var/run/postgresql dbname=postgres` or `postgresql://…`.
    /// A service file, the libpq variables, a password file and the usual defaults complete it.
    ///
    /// # Errors
    /// [`Kind::Server`] when it cannot connect; [`Kind::Config`] when the string makes no sense.
    pub fn connect(conninfo: Option<&str>, deadline: Deadline) -> Result<Self, Error> {
        Self::connect_to(conninfo, None, deadline)
    }

    /// As [`connect`](Self::connect), to this database whatever the string says.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_to(conninfo: Option<&str>, database: Option<&str>, deadline: Deadline) -> Result<Self, Error> {
        // Password files and certificates are the process's own, no matter whom a thread of root's works as.
        let _as = Identity::own().enter().map_err(|e| {
            let what = e.to_string();
            Error { hint: e.hint, ..Error::new(Kind::Config, what) }
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| Error::new(Kind::Bug, format!("cannot start a runtime: {e}")))?;
        let mut info = Conninfo::parse(conninfo.unwrap_or_default())?;
        if let Some(database) = database {
            info.set("dbname", database);
        }
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let time = SERVER_CONNECT_TIMEOUT.min(deadline.remaining());
        let targets = Targets::of(&info.complete(&env)?, time, &env)?;
        let (client, driver) = bounded(&runtime, &deadline, "connect to the server", targets.connect())??;
        runtime.spawn(driver);
        Ok(Self { runtime, client, targets, deadline })
    }

    /// Takes from this session what a role or database sets to end idle sessions and long statements: for commands that
    /// wait for checkpoints and archiving, and have a time limit of their own.
    ///
    /// # Errors
    /// [`Kind::Server`] with what the server says.
    pub fn lift_timeouts(&self) -> Result<(), Error> {
        self.rows(
            "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', \
             'lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')",
        )
        .map(drop)
    }

    /// All rows of a query, as text.
    ///
    /// # Errors
    /// [`Kind::Server`] with what the server says.
    pub fn rows(&self, sql: &str) -> Result<Vec<Row>, Error> {
        let answer = bounded(&self.runtime, &self.deadline, "query the server", self.client.simple_query(sql))?;
        rows_of(sql, answer)
    }

    /// The first row of a query, as text; `None` for no row.
    ///
    /// # Errors
    /// [`Kind::Server`] with what the server says.
    pub fn row(&self, sql: &str) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql)?.into_iter().next())
    }

    /// The first row of a statement that may take as long as it likes, such as one that waits for a checkpoint. `go_on`
    /// is asked several times a second; with its error the statement is cancelled.
    ///
    /// # Errors
    /// As `go_on`'s; [`Kind::Server`] with what the server says, also for no row.
    pub fn row_patiently(&self, sql: &str, go_on: &dyn Fn() -> Result<(), Error>) -> Result<Row, Error> {
        let answer = self.runtime.block_on(async {
            let statement = self.client.simple_query(sql);
            tokio::pin!(statement);
            loop {
                match tokio::time::timeout(STATEMENT_LOOK_EVERY, &mut statement).await {
                    Ok(answer) => return Ok(answer),
                    Err(_) => {
                        if let Err(error) = go_on() {
                            // As far as possible: the session ends soon in any case.
                            let cancel = self.client.cancel_token();
                            let _ =
                                tokio::time::timeout(SERVER_CONNECT_TIMEOUT, cancel.cancel_query(self.targets.connector())).await;
                            return Err(error);
                        }
                    }
                }
            }
        })?;
        rows_of(sql, answer)?.into_iter().next().ok_or_else(|| server_error(format!("the server answers '{sql}' with nothing")))
    }

    /// Whether the session is known to have ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The first value of the first row.
    ///
    /// # Errors
    /// [`Kind::Server`], also when there is none.
    pub fn value(&self, sql: &str) -> Result<String, Error> {
        let first = self.row(sql)?.and_then(|row| row.into_iter().next()).flatten();
        first.ok_or_else(|| server_error(format!("the server answers '{sql}' with nothing")))
    }

    /// The value of an SQL expression, byte by byte as the server has it, whatever the encodings of database and
    /// session are: a name that came from another database need not be of this one's.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub fn text(&self, expression: &str) -> Result<Option<RawText>, Error> {
        let row = self.row(&format!("SELECT {}", hex_of(expression)))?;
        row.and_then(|row| row.into_iter().next()).flatten().map(|hex| of_hex(&hex)).transpose()
    }

    /// A setting, as `SHOW` prints it; `None` when this version does not have it.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub fn setting(&self, name: &str) -> Result<Option<String>, Error> {
        let row = self.row(&format!("SELECT pg_catalog.current_setting('{name}', true)"))?;
        Ok(row.and_then(|row| row.into_iter().next()).flatten())
    }
}

/// A row, each value as text; `None` for null.
pub type Row = Vec<Option<String>>;

fn rows_of(sql: &str, answer: Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>) -> Result<Vec<Row>, Error> {
    let messages = answer.map_err(|e| {
        if e.is_closed() {
            return Error::new(Kind::Server, format!("the session on the server ended before it answered '{sql}'"))
                .hint("did the server restart? When it is there again, run the same command again");
        }
        server_error(format!("the server refuses '{sql}': {}", detail(&e)))
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| Ok(row.try_get(i)?.map(str::to_owned))).collect()),
        _ => None,
    });
    rows.collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|e| server_error(format!("the answer of the server to '{sql}' is not UTF-8 text: {}", detail(&e))))
}

/// Runs a request, within the time limit.
fn bounded<T>(
    runtime: &tokio::runtime::Runtime,
    deadline: &Deadline,
    action: &str,
    request: impl Future<Output = T>,
) -> Result<T, Error> {
    let _waiting = waiting::on("the server's answer");
    runtime.block_on(async { tokio::time::timeout(deadline.remaining(), request).await }).map_err(|_| {
        server_error(format!("cannot {action}: no answer within the time limit of {} s", deadline.limit().as_secs()))
            .hint("is the server overloaded or stopped?")
    })
}
