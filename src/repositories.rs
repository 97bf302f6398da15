//! Opening a configured repository.
//!
//! As root a caller may work under another user's identity; keys, credentials and settings are root's own all the same, and are read
//! as such. What a repository's directory is worked in with is the business of the store.
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::RepositoryCipher;
use crate::fsio::{self, Entered, Identity, file_error};
use crate::raw_text::shown;
use crate::repo::{ClusterName, Facts, Repository, SystemId};
use std::path::Path;

fn as_ourselves() -> Result<Entered, Error> {
    Identity::own().enter().map_err(|e| file_error(Kind::Config, e))
}

/// What it means that a repository is not encrypted. Nothing in one is authenticated: pages of tables, functions in them, settings, WAL.
pub const UNENCRYPTED: &str = "not encrypted: whoever can read the store can read the database, and whoever can write to it can run \
     programs as the server's user wherever a server is restored or recovered from it";

/// Refuses to restore from a repository that every user of this host could have filled, and whose content nothing proves. Also as root no more
/// than this is refused: root restores and starts as the user that the data will belong to, so what such a repository can do is what that user may.
///
/// # Errors
/// [`Kind::Refused`].
pub fn refuse_writable_by_everybody(repository: &Repository) -> Result<(), Error> {
    let path = repository.location().strip_prefix("file://").map(Path::new);
    match path {
        Some(path) if repository.descriptor().cipher == RepositoryCipher::None && fsio::everybody_can_write(path) => Err(Error::new(
            Kind::Refused,
            format!(
                "{} is not encrypted, and every user of this host can write to it: who does can run programs as the server's user",
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

/// The cluster's facts in a repository.
///
/// # Errors
/// [`Kind::Config`] when nothing is stored of it; as the repository's.
pub fn facts(repository: &Repository, cluster: &ClusterName) -> Result<Facts, Error> {
    match repository.bindings(cluster)?.pop() {
        Some(binding) => Ok(binding.facts),
        None => Err(Error::new(Kind::Config, format!("nothing is stored of cluster {cluster} in {}", repository.location()))
            .hint("'walvis list' shows the clusters; name one with --cluster")),
    }
}

/// What is known of a cluster under each system identifier that it had, the current one first.
///
/// # Errors
/// As [`facts`].
pub fn systems(repository: &Repository, cluster: &ClusterName) -> Result<Vec<Facts>, Error> {
    let mut systems: Vec<Facts> = Vec::new();
    for binding in repository.bindings(cluster)?.into_iter().rev() {
        if systems.iter().all(|facts| facts.system_id != binding.facts.system_id) {
            systems.push(binding.facts);
        }
    }
    if systems.is_empty() {
        return facts(repository, cluster).map(|facts| vec![facts]);
    }
    Ok(systems)
}

/// The one of a system identifier.
///
/// # Errors
/// [`Kind::Target`] when the cluster never had it.
pub fn of_system(systems: &[Facts], cluster: &ClusterName, wanted: SystemId) -> Result<Facts, Error> {
    systems.iter().find(|facts| facts.system_id == wanted).copied().ok_or_else(|| {
        let all: Vec<String> = systems.iter().map(|facts| facts.system_id.to_string()).collect();
        Error::new(Kind::Target, format!("cluster {cluster} never had the system identifier {wanted}"))
            .hint(format!("it had: {}", all.join(", ")))
    })
}

/// Opens the repository at a place in the settings, with the cluster's facts. One that does not answer leaves those after it their
/// share of the time.
///
/// # Errors
/// As [`open`] and [`facts`].
pub fn open_known(config: &Config, place: usize, deadline: Deadline) -> Result<(Repository, Facts), Error> {
    let none = || Error::new(Kind::Config, "no repository is configured");
    let repository = config.repositories.get(place).ok_or_else(none)?;
    let left = u32::try_from(config.repositories.len() - place).unwrap_or(u32::MAX);
    if left > 1 {
        facts(&open(repository, deadline.at_most(deadline.remaining() / left))?, &config.cluster)?;
    }
    let opened = open(repository, deadline)?;
    let facts = facts(&opened, &config.cluster)?;
    Ok((opened, facts))
}

/// Opens the first repository that answers and knows the cluster; logs why those before it did not.
///
/// # Errors
/// The first one's, when none does.
pub fn open_first(config: &Config, deadline: Deadline) -> Result<(Repository, Facts), Error> {
    let mut failure = None;
    for (place, repository) in config.repositories.iter().enumerate() {
        match open_known(config, place, deadline) {
            Ok(opened) => return Ok(opened),
            Err(error) if config.repositories.len() == 1 => return Err(error),
            Err(error) => {
                tracing::warn!("{} is not asked: {error}", repository.store.location());
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Kind::Config, "no repository is configured")))
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
