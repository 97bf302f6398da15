//! Opening a configured repository.

use crate::config::RepositoryConfig;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::repo::Repository;

/// Opens one configured repository.
///
/// # Errors
/// As [`Repository::open`].
pub fn open(config: &RepositoryConfig, deadline: Deadline) -> Result<Repository, Error> {
    let secret = config.key.read(&deadline)?;
    Repository::open(&config.store, &secret, config.compression_level, deadline)
}
