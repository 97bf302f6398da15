//! Files that the user or PostgreSQL named: with whose rights they are worked with, and what their errors are called.

use super::{Entered, FsError, Identity, Problem, Rooted, own_user};
use crate::error::{Error, Kind};
use crate::raw_text::shown;
use std::path::Path;

/// As root, works with the rights of the owner of a directory until the guard is dropped: what lies there is that
/// user's, and nothing in it leads root elsewhere. Threads that are started meanwhile do so too.
///
/// # Errors
/// [`Kind::Refused`] where the way to the directory is not safe; [`Kind::Config`] otherwise.
pub fn as_owner_of(directory: &Path) -> Result<Entered, Error> {
    if own_user() != 0 {
        return Identity::own().enter().map_err(|e| file_error(Kind::Config, e));
    }
    let rooted = Rooted::open(directory).map_err(|e| file_error(Kind::Config, e))?;
    rooted.identity().enter().map_err(|e| file_error(Kind::Config, e))
}

/// The same for several directories, which have to belong to one user.
///
/// # Errors
/// As [`as_owner_of`]; [`Kind::Refused`] where they belong to several users.
pub fn as_owner_of_all<'a>(mut directories: impl Iterator<Item = &'a Path>) -> Result<Option<Entered>, Error> {
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
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An error of a local file that the user or PostgreSQL named. Where root keeps out, it is refused, whatever it was
/// for.
pub fn file_error(kind: Kind, error: FsError) -> Error {
    let what = error.to_string();
    let kind = if error.problem == Problem::Unsafe { Kind::Refused } else { kind };
    Error { kind, what, hint: error.hint, detail: None }
}

/// An error of a file that a command works on, and after which the same command can be run again.
pub fn local_error(error: FsError) -> Error {
    let full = error.problem == Problem::NoSpace;
    let error = file_error(Kind::Config, error);
    match &error.hint {
        _ if full => error.hint("free space and run the same command again: what is there already is kept"),
        Some(_) => error,
        None => error.hint("see whether something else is at work there, and run the same command again"),
    }
}
