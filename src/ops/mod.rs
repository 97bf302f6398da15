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
use std::path::Path;

use crate::fsio::{self, Entered, FsError, Identity, Problem, Rooted};
use crate::raw_text::shown;

/// As root, works with the rights of the user whom a directory belongs to until the guard is dropped: what lies there is that user's, and
/// nothing in it leads root elsewhere. Threads that are started meanwhile do so too.
fn as_owner_of(directory: &Path) -> Result<Entered, Error> {
    if fsio::own_user() != 0 {
        return Identity::own().enter().map_err(|e| file_error(Kind::Config, e));
    }
    let rooted = Rooted::open(directory).map_err(|e| file_error(Kind::Config, e))?;
    rooted.identity().enter().map_err(|e| file_error(Kind::Config, e))
}

/// The same for several directories, which have to belong to one user.
fn as_owner_of_all<'a>(mut directories: impl Iterator<Item = &'a Path>) -> Result<Option<Entered>, Error> {
    let Some(first) = directories.next() else { return Ok(None) };
    let entered = as_owner_of(first)?;
    let user = Identity::current();
    for other in directories {
        let _as = as_owner_of(other)?;
        if Identity::current() != user {
            let what =
                format!("{} belongs to {}, and {} to {}", shown(first), user.name(), shown(other), Identity::current().name());
            return Err(Error::new(Kind::Refused, what).hint("name files of one user in one call"));
        }
    }
    Ok(Some(entered))
}

/// The directory that a path is in: `.` for a bare name.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An error of a local file that the user or PostgreSQL named. Where root keeps out, it is refused, whatever it was for.
fn file_error(kind: Kind, error: FsError) -> Error {
    let what = error.to_string();
    let kind = if error.problem == Problem::Unsafe { Kind::Refused } else { kind };
    Error { kind, what, hint: error.hint, detail: None }
}
