//! One module per command: request in, report out.
//!
//! Lives here: what a command does, readable top to bottom. May not live here: arguments, printing, exit codes (`cli`). What two
//! commands share sinks one layer, or into [`archiver`], [`cluster_facts`], [`histories`], [`repositories`] and
//! [`stored_wal`] here.

pub mod archiver;
pub mod base_backup;
pub mod catalog;
pub mod catalog_rebuild;
pub mod check;
pub mod cluster_facts;
pub mod fetch_ahead;
mod fetch_standby;
pub mod fetch_wal;
pub mod histories;
pub mod init;
pub mod key_generate;
pub mod list;
mod outage;
pub mod pitr_restore;
pub mod push_ahead;
pub mod push_missed;
pub mod push_wal;
pub mod repositories;
pub mod resolve;
pub mod spool;
pub mod stored_wal;

use crate::error::{Error, Kind};
use crate::fsio::{FsError, Problem};

/// An error of a local file that the user or PostgreSQL named. Where root keeps out, it is refused, whatever it was for.
fn file_error(kind: Kind, error: FsError) -> Error {
    let what = error.to_string();
    let kind = if error.problem == Problem::Unsafe { Kind::Refused } else { kind };
    Error { kind, what, hint: error.hint, detail: None }
}
