//! `walvis key generate`: a new key file.
//!
//! As root it is made as the owner of the directory, and is that user's. A link of the name is not followed: the name
//! is taken.

use crate::crypto::{KeyFile, WrappingKey};
use crate::error::{Error, Kind};
use crate::fsio::{self, Identity, Problem, as_owner_of, directory_of, file_error};
use crate::report::key::KeyReport;
use std::path::Path;

/// Makes a key and writes it to a new file that only its owner can read.
///
/// # Errors
/// [`Kind::Refused`] when there is a file of that name; [`Kind::Config`] when it cannot be written.
pub fn run(path: &Path) -> Result<KeyReport, Error> {
    let path = std::path::absolute(path)
        .map_err(|e| Error::new(Kind::Config, format!("{}: {e}", path.display())).hint("name the file by an absolute path"))?;
    let directory = directory_of(&path);
    let absent = || {
        format!(
            "make the directory first, root's own, readable for everybody: install -d -m 0755 -o root -g root {}",
            directory.display()
        )
    };
    let _as = match as_owner_of(directory) {
        Err(e) if matches!(fsio::exists(directory), Ok(false)) => return Err(Error { hint: None, ..e }.hint(absent())),
        entered => entered?,
    };
    let file = KeyFile::from(WrappingKey::generate().map_err(|e| Error::new(Kind::Bug, e))?);
    fsio::create_secret(&path, file.to_text().as_bytes()).map_err(|e| match e.problem {
        Problem::Exists => file_error(Kind::Refused, e),
        Problem::Absent => file_error(Kind::Config, e).hint(absent()),
        _ => file_error(Kind::Config, e),
    })?;
    Ok(KeyReport { path: path.into(), key_id: file.key.id().to_string(), owner: Identity::current().name() })
}
