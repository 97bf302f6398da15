//! The system identifiers that a cluster had, as an opened repository knows them.
use crate::error::{Error, Kind};
use crate::repo::{ClusterName, Facts, Repository, SystemId};

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
