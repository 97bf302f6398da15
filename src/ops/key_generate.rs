//! `walvis key generate`: a new key file.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file_error;
use crate::crypto::WrappingKey;
use crate::error::{Error, Kind};
use crate::fsio::{self, Problem};

/// What was made.
#[derive(Debug, Serialize)]
pub struct KeyReport {
    /// The file.
    pub path: PathBuf,
    /// The key's id.
    pub key_id: String,
}

/// Makes a key and writes it to a new file that only its owner can read.
///
/// # Errors
/// [`Kind::Refused`] when there is a file of that name; [`Kind::Config`] when it cannot be written.
pub fn run(path: &Path) -> Result<KeyReport, Error> {
    let key = WrappingKey::generate().map_err(|e| Error::new(Kind::Bug, e))?;
    fsio::create_secret(path, key.to_key_file().as_bytes()).map_err(|e| match e.problem {
        Problem::Exists => file_error(Kind::Refused, e),
        _ => file_error(Kind::Config, e),
    })?;
    Ok(KeyReport { path: path.to_owned(), key_id: key.id().to_string() })
}
