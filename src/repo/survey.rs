//! What a repository holds, as the names of its objects tell it: all clusters in one listing.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::cluster::{Binding, ClusterName, SystemId};
use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::repository::Repository;
use super::stored_name::StoredName;
use crate::error::Error;
use crate::pg::WalFileName;

/// A cluster, as the names of its objects tell it.
#[derive(Debug)]
pub struct Surveyed {
    /// Its name.
    pub cluster: ClusterName,
    /// Its WAL files in the order of their names, each with its stored size in bytes.
    pub wal: Vec<(SystemId, WalFileName, u64)>,
    /// The system identifiers that have base backups.
    pub with_backups: BTreeSet<SystemId>,
    /// The system identifiers that have evidence of verifications.
    pub with_evidence: BTreeSet<SystemId>,
    /// The numbers of its bindings, ascending.
    generations: Vec<u32>,
}

impl Surveyed {
    fn new(cluster: ClusterName) -> Self {
        Self { cluster, wal: Vec::new(), with_backups: BTreeSet::new(), with_evidence: BTreeSet::new(), generations: Vec::new() }
    }
}

impl Repository {
    /// Visits all clusters in the order of their objects' names, or the one asked for. A cluster costs no request of
    /// its own: a page of the listing is as long as it is, no matter who owns its objects. `on_file` receives every WAL
    /// file as it is seen.
    ///
    /// # Errors
    /// As the store's, and what the visitor answers.
    pub fn survey(
        &self,
        only: Option<&ClusterName>,
        on_file: &mut dyn FnMut(&ClusterName, SystemId, &StoredName, u64),
        visit: &mut dyn FnMut(Surveyed) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let prefix = only.map_or(Prefix::Clusters, Prefix::Cluster);
        // The objects of a cluster are neighbours in the order of names.
        let mut current: Option<Surveyed> = None;
        let mut outcome = Ok(());
        self.objects().list(prefix, "", &mut |object| {
            let Some(cluster) = object.name.cluster() else { return ControlFlow::Continue(()) };
            if current.as_ref().is_none_or(|surveyed| surveyed.cluster != *cluster)
                && let Some(finished) = current.replace(Surveyed::new(cluster.clone()))
            {
                outcome = visit(finished);
                if outcome.is_err() {
                    return ControlFlow::Break(());
                }
            }
            let Some(surveyed) = &mut current else { return ControlFlow::Continue(()) };
            match &object.name {
                ObjectName::Wal { system_id, file, .. } => {
                    on_file(&surveyed.cluster, *system_id, file, object.size_bytes);
                    surveyed.wal.push((*system_id, file.file, object.size_bytes));
                }
                ObjectName::Binding { generation, .. } => surveyed.generations.push(*generation),
                ObjectName::Manifest { system_id, .. } => drop(surveyed.with_backups.insert(*system_id)),
                ObjectName::Evidence { system_id, .. } => drop(surveyed.with_evidence.insert(*system_id)),
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        outcome?;
        current.map_or(Ok(()), visit)
    }

    /// The bindings of a surveyed cluster, oldest first.
    ///
    /// # Errors
    /// As [`bindings`](Self::bindings).
    pub fn surveyed_bindings(&self, surveyed: &Surveyed) -> Result<Vec<Binding>, Error> {
        match self.read_bindings(&surveyed.cluster, &surveyed.generations, Vec::new())? {
            (bindings, None) => Ok(bindings),
            (_, Some(error)) => Err(error),
        }
    }
}
