//! `walvis key generate`: a new key file.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file_error;
use crate::crypto::{KeyFile, WrappingKey};
use crate::error::{Error, Kind};
use crate::fsio::{self, Problem};

/// What was made.
#[derive(Debug, Serialize)]
pub struct KeyReport {
    /// The file.
    pub path: PathBuf,
    /// The key's id.
    pub key_id: String,
    /// The user who alone can read it.
    pub owner: String,
}

/// Makes a key and writes it to a new file that only its owner can read.
///
/// # Errors
/// [`Kind::Refused`] when there is a file of that name; [`Kind::Config`] when it cannot be written.
pub fn run(path: &Path) -> Result<KeyReport, Error> {
    let path = std::path::absolute(path)
        .map_err(|e| Error::new(Kind::Config, format!("{}: {e}", path.display())).hint("name the file by an absolute path"))?;
    let file = KeyFile::from(WrappingKey::generate().map_err(|e| Error::new(Kind::Bug, e))?);
    fsio::create_secret(&path, file.to_text().as_bytes()).map_err(|e| match e.problem {
        Problem::Exists => file_error(Kind::Refused, e),
        Problem::Absent => {
            let directory = path.parent().unwrap_or(&path).display().to_string();
            file_error(Kind::Config, e).hint(format!(
                "make the directory first, for the user that PostgreSQL runs as: install -d -m 0750 -o postgres -g postgres {directory}"
            ))
        }
        _ => file_error(Kind::Config, e),
    })?;
    Ok(KeyReport { path, key_id: file.key.id().to_string(), owner: fsio::user_name(nix::unistd::geteuid().as_raw()) })
}
