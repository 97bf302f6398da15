//! Which tables a server has locked that is paused in recovery.
//!
//! Replay holds the `AccessExclusiveLock` of every transaction that has taken one and has not ended by then. Where no
//! stop avoids it, anybody who looks for that very table is told, rather than left waiting.

use crate::error::Error;
use crate::limits::MAX_LOCKS_REPORTED;
use crate::postgres::Server;
use std::collections::BTreeMap;

/// A relation on which queries wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedRelation {
    /// Name of the database.
    pub database: String,
    /// Schema and name, or the OID where the name is not known.
    pub relation: String,
}

/// What is locked. `connect` leads to a database.
///
/// # Errors
/// As the server's. What has no known name is named by its OID.
pub(super) fn locked(server: &Server, connect: &dyn Fn(&str) -> Result<Server, Error>) -> Result<Vec<LockedRelation>, Error> {
    // No client of a hot standby can have such a lock.
    let sql = format!(
        "SELECT coalesce(d.datname, ''), l.relation FROM pg_catalog.pg_locks l \
         LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) l.database \
         WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock' \
         ORDER BY 1, 2 LIMIT {MAX_LOCKS_REPORTED}"
    );
    let mut of_databases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in server.rows(&sql)? {
        let mut values = row.into_iter().flatten();
        if let (Some(database), Some(oid)) = (values.next(), values.next()) {
            of_databases.entry(database).or_default().push(oid);
        }
    }
    let mut locked = Vec::new();
    for (database, oids) in of_databases {
        let relations = match connect(&database).and_then(|server| names(&server, &oids)) {
            Ok(names) if !names.is_empty() => names,
            Ok(_) => oids,
            Err(e) => {
                tracing::debug!("name what is locked in {database}: {e}");
                oids
            }
        };
        locked.extend(relations.into_iter().map(|relation| LockedRelation { database: database.clone(), relation }));
    }
    Ok(locked)
}

/// Those that somebody queries: not the indexes and TOAST tables that are locked with them.
fn names(server: &Server, oids: &[String]) -> Result<Vec<String>, Error> {
    let oids: Vec<&str> = oids.iter().map(String::as_str).filter(|oid| oid.bytes().all(|b| b.is_ascii_digit())).collect();
    // The catalog itself may be locked.
    server.rows("SET lock_timeout = '2s'")?;
    let rows = server.rows(&format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE c.oid IN ({}) AND c.relkind NOT IN ('i', 'I', 't') ORDER BY 1",
        oids.join(", ")
    ))?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}
