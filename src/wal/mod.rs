//! WAL files between a server and a repository: inspected and delivered, downloaded, worked ahead for. `docs/SPOOL.md` and
//! `docs/STANDBY.md` have the designs.
//!
//! Lives here: what `push-wal`, `fetch-wal` and their helpers do. May not live here: how a file is stored
//! ([`repo`](crate::repo)), what is in it ([`scan`](crate::pg::scan)).

pub mod compare;
pub mod fetch;
pub mod fetch_ahead;
pub mod histories;
pub mod missed;
mod outage;
pub mod push;
pub mod push_ahead;
pub mod spool;
mod standby;
