//! Opening a configured repository.

use crate::config::RepositoryConfig;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::repo::{ClusterName, Repository};

/// Opens one configured repository.
///
/// # Errors
/// As [`Repository::open`].
pub fn open(config: &RepositoryConfig, deadline: Deadline) -> Result<Repository, Error> {
    let secret = config.key.read(&deadline)?;
    Repository::open(&config.store, &secret, config.compression_level, deadline)
}

/// Opens one configured repository for work on one cluster.
///
/// # Errors
/// As [`Repository::open`].
pub fn open_for(config: &RepositoryConfig, cluster: &ClusterName, deadline: Deadline) -> Result<Repository, Error> {
    let secret = config.key.read(&deadline)?;
    Repository::open_for(&config.store, &secret, config.compression_level, deadline, Some(cluster))
}
