//! What a connection that failed, or a statement that was refused, is called, and what to do about it.

use crate::error::{Error, Kind};
use std::fmt::Write as _;

/// An error of the server.
pub(super) fn server_error(what: impl Into<String>) -> Error {
    Error::new(Kind::Server, what)
}

/// What to do about a connection that failed: the server said why, or did not answer at all.
pub(super) fn way_in(said: Option<&tokio_postgres::error::DbError>) -> &'static str {
    match said.map(|error| error.code().code()) {
        // invalid_authorization_specification, invalid_password: wrong role or password, or no line for it in
        // pg_hba.conf.
        Some(code) if code.starts_with("28") => {
            "it runs, and lets nobody in by that name: run Walvis as a user that pg_hba.conf lets in (`peer`: as that role's user, such as \
             'sudo -u postgres'), or name the role with --server 'user=…' or PGUSER, and its password in ~/.pgpass, PGPASSFILE or PGPASSWORD"
        }
        // invalid_catalog_name
        Some("3D000") => "it runs, and has no such database: name one with --server 'dbname=…' or PGDATABASE",
        // too_many_connections
        Some("53300") => {
            "it runs, and has no connection left: try again, or see max_connections and superuser_reserved_connections"
        }
        // cannot_connect_now
        Some("57P03") => "it is starting, stopping or recovering: try again when it takes connections",
        Some(_) => "it runs, and refused the connection: its log says more",
        None => "is it running? name it with --server 'host=… port=… user=… dbname=…' or PGHOST, PGPORT, PGUSER, PGDATABASE",
    }
}

/// The server's own words where it has any; the library's name for the error says little.
pub(super) fn detail(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {}", db.severity(), db.message()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                let _ = write!(text, ": {inner}");
                source = inner.source();
            }
            text
        }
    }
}
