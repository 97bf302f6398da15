//! The file that `fetch-wal` writes: checked before anything is fetched, written beside its place, named when all of it
//! is proven.

use crate::error::{Error, Kind};
use crate::fsio::{self, AtomicFile, Entered, FsError, Identity, ItemKind, Stat, as_owner_of, directory_of, file_error};
use std::path::Path;

const HINT: &str = "name a file in an existing directory; restore_command = 'walvis fetch-wal %f %p' does, in the data directory";

/// As root, acts as the owner of the destination's directory. Where that is root and nobody else can change the way to
/// it, root stays root, in `/tmp` too: nothing that lies there is opened.
///
/// # Errors
/// [`Kind::Refused`] for a directory that others can change; [`Kind::Config`] when it cannot be looked at.
pub fn as_owner_of_destination(destination: &Path) -> Result<Entered, Error> {
    let directory = directory_of(destination);
    let is_roots = fsio::own_user() == 0 && matches!(fsio::changeable_by_others(directory), Ok(None));
    if is_roots {
        return Identity::own().enter().map_err(destination_error);
    }
    as_owner_of(directory).map_err(|e| if e.hint.is_some() { e } else { e.hint(HINT) })
}

/// Begins a temp file beside the destination.
///
/// # Errors
/// [`Kind::Config`] when it cannot be written, or when there is something else than a regular file at the destination.
pub fn begin(destination: &Path) -> Result<AtomicFile, Error> {
    // Renaming would replace a device, a pipe, or a link: `fetch-wal NAME /dev/null` by root must not cost the host its
    // /dev/null.
    match fsio::stat_no_follow(destination).map_err(destination_error)? {
        None | Some(Stat { kind: ItemKind::File, .. }) => {}
        Some(_) => {
            return Err(Error::new(
                Kind::Config,
                format!("cannot write {}: there is something of that name that is not a regular file", destination.display()),
            )
            .hint(HINT));
        }
    }
    AtomicFile::beside(destination, 0o600).map_err(destination_error)
}

/// An error of the file system at the destination, with what to do about it.
pub fn destination_error(error: FsError) -> Error {
    let error = file_error(Kind::Config, error);
    if error.hint.is_some() { error } else { error.hint(HINT) }
}
