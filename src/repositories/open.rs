//! Opening one configured repository, and what is said of one that is not encrypted.
//!
//! As root a caller may work under another user's identity; keys, credentials and settings are root's own all the same,
//! and are read as such. What a repository's directory is worked in with is the business of the store.

use crate::config::RepositoryConfig;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::RepositoryCipher;
use crate::fsio::{self, Entered, Identity, file_error};
use crate::raw_text::shown;
use crate::repo::{ClusterName, Repository};
use std::path::Path;

fn as_ourselves() -> Result<Entered, Error> {
    Identity::own().enter().map_err(|e| file_error(Kind::Config, e))
}

/// What it means that a repository is not encrypted. Nothing in one is authenticated: pages of tables, functions in
/// them, settings, WAL.
pub const UNENCRYPTED: &str = "not encrypted: anybody who can read the store can read the database, and anybody who can write to it can run \
     programs as the server's user wherever a server is restored or recovered from it";

/// Refuses to restore from a repository that every user of this host could have filled, and whose content nothing
/// proves. Also as root no more than this is refused: root restores and starts as the user that the data will belong
/// to, so what such a repository can do is what that user may.
///
/// # Errors
/// [`Kind::Refused`].
pub fn refuse_writable_by_everybody(repository: &Repository) -> Result<(), Error> {
    let path = repository.location().strip_prefix("file://").map(Path::new);
    match path {
        Some(path) if repository.descriptor().cipher == RepositoryCipher::None && fsio::everybody_can_write(path) => Err(Error::new(
            Kind::Refused,
            format!(
                "{} is not encrypted, and every user of this host can write to it: anybody who does can run programs as the server's user",
                repository.location()
            ),
        )
        .hint(format!("chmod -R o-w {}, and make sure that nobody has put anything there; better, make an encrypted one", shown(path)))),
        _ => Ok(()),
    }
}

/// Opens one configured repository.
///
/// # Errors
/// As [`Repository::open`].
pub fn open(config: &RepositoryConfig, deadline: Deadline) -> Result<Repository, Error> {
    let _as = as_ourselves()?;
    let secret = config.key.read(&deadline)?;
    Repository::open(&config.store, &secret, config.compression_level, deadline)
}

/// Opens one configured repository for work on one cluster.
///
/// # Errors
/// As [`Repository::open`].
pub fn open_for(config: &RepositoryConfig, cluster: &ClusterName, deadline: Deadline) -> Result<Repository, Error> {
    let _as = as_ourselves()?;
    let secret = config.key.read(&deadline)?;
    Repository::open_for(&config.store, &secret, config.compression_level, deadline, Some(cluster))
}
