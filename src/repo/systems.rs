//! What is known of a cluster, by its bindings: the facts of the system identifier that it has, or had. The one place
//! where a cluster that a repository does not know becomes an error.

use super::cluster::{ClusterName, Facts, SystemId};
use super::repository::Repository;
use crate::error::{Error, Kind};

impl Repository {
    /// The facts of a cluster under its current system identifier.
    ///
    /// # Errors
    /// [`Kind::Config`] when nothing is stored of the cluster; as [`bindings`](Self::bindings).
    pub fn facts(&self, cluster: &ClusterName) -> Result<Facts, Error> {
        match self.bindings(cluster)?.pop() {
            Some(binding) => Ok(binding.facts),
            None => Err(self.unknown_cluster(cluster)),
        }
    }

    /// The facts of a cluster under the system identifier that a data directory has; the current ones where there is no
    /// data directory.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the cluster has another one; [`Kind::Config`] when nothing is stored of the cluster; as
    /// [`binding_to`](Self::binding_to).
    pub fn facts_of(&self, cluster: &ClusterName, system_id: Option<SystemId>) -> Result<Facts, Error> {
        let Some(system_id) = system_id else { return self.facts(cluster) };
        if let Some(binding) = self.binding_to(cluster, system_id)? {
            return Ok(binding.facts);
        }
        let current = self.facts(cluster)?.system_id;
        Err(Error::new(
            Kind::Refused,
            format!(
                "cluster {cluster} in {} is of system identifier {current}, this data directory is of {system_id}",
                self.location()
            ),
        )
        .hint("name the right cluster: --cluster, WALVIS_CLUSTER, or cluster in the settings"))
    }

    /// The facts of a cluster under each system identifier that it had, the current one first.
    ///
    /// # Errors
    /// As [`facts`](Self::facts).
    pub fn systems(&self, cluster: &ClusterName) -> Result<Vec<Facts>, Error> {
        let mut systems: Vec<Facts> = Vec::new();
        for binding in self.bindings(cluster)?.into_iter().rev() {
            if systems.iter().all(|facts| facts.system_id != binding.facts.system_id) {
                systems.push(binding.facts);
            }
        }
        if systems.is_empty() { Err(self.unknown_cluster(cluster)) } else { Ok(systems) }
    }

    fn unknown_cluster(&self, cluster: &ClusterName) -> Error {
        Error::new(Kind::Config, format!("nothing is stored of cluster {cluster} in {}", self.location())).hint(
            "check --cluster or WALVIS_CLUSTER ('walvis list' shows the names); a new one is made known by its first push or by \
             'walvis init --pgdata DIR'",
        )
    }
}

/// Of the system identifiers that a cluster had, the one that was asked for.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::crypto::DataKeys;
    use crate::format::descriptor::{CreateIfAbsent, Descriptor, RepositoryCipher};
    use crate::pg::WalSegmentSize;
    use crate::repo::raw_objects::RawObjects;
    use crate::store::memory::MemoryStore;

    /// Every way to ask for a cluster that is not there ends with the same error.
    #[test]
    fn an_unknown_cluster_is_one_error() {
        let create_if_absent = CreateIfAbsent::Store;
        let descriptor =
            Descriptor { repository_id: [1; 16], cipher: RepositoryCipher::None, create_if_absent, created_unix_s: 0 };
        let objects = RawObjects::new(Arc::new(MemoryStore::new()));
        let repository = Repository::new(objects, descriptor, DataKeys::Unencrypted, 1, 1);
        let (main, nobody) = (ClusterName::new("main").unwrap(), ClusterName::new("nobody").unwrap());
        let (first, second) = (SystemId(7), SystemId(8));
        let facts =
            |system_id| Facts { system_id, wal_segment_size: WalSegmentSize::new(16 << 20).unwrap(), postgres_major: Some(18) };
        repository.bind(&main, facts(first)).unwrap();
        repository.rebind(&main, facts(second)).unwrap();

        let errors = [
            repository.facts(&nobody).unwrap_err(),
            repository.facts_of(&nobody, Some(first)).unwrap_err(),
            repository.facts_of(&nobody, None).unwrap_err(),
            repository.systems(&nobody).unwrap_err(),
        ];
        for error in &errors {
            assert_eq!((error.kind, &error.what, &error.hint), (Kind::Config, &errors[0].what, &errors[0].hint));
        }

        assert_eq!(repository.facts(&main).unwrap(), facts(second));
        assert_eq!(repository.facts_of(&main, Some(first)).unwrap(), facts(first));
        assert_eq!(repository.facts_of(&main, Some(SystemId(9))).unwrap_err().kind, Kind::Refused);
        let systems = repository.systems(&main).unwrap();
        assert_eq!(systems, [facts(second), facts(first)]);
        assert_eq!(of_system(&systems, &main, first).unwrap(), facts(first));
        assert_eq!(of_system(&systems, &main, SystemId(9)).unwrap_err().kind, Kind::Target);
    }
}
