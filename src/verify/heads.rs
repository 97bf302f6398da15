//! What the heads of all manifests say: which backups there are, and what each refers to.

use super::fault::Fault;
use super::findings::{Problem, Subject};
use super::inventory::SystemInventory;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::limits::CATALOG_READERS;
use crate::repo::backups::{BackupReferences, PackUsers};
use crate::repo::{ClusterName, ObjectName, Repository, SystemId, Verbatim};
use crate::threads::at_once;

/// The backups of one system identifier.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Those that can be read, oldest first.
    pub(super) backups: Vec<BackupSummary>,
    /// Which packs they refer to.
    pub(super) users: PackUsers,
    /// Those whose manifest is damaged: nobody knows what they need.
    pub(super) unreadable: Vec<BackupId>,
    /// What is wrong with these.
    pub(super) faults: Vec<Fault>,
}

impl Heads {
    /// Reads the head of every manifest that is listed, several at once. One that expired meanwhile is left out.
    ///
    /// # Errors
    /// As the store's, and `go_on`'s.
    pub(super) fn read(
        repository: &Repository,
        cluster: &ClusterName,
        system_id: SystemId,
        inventory: &SystemInventory,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let ids: Vec<BackupId> = inventory.manifests.iter().copied().collect();
        let mut heads = Self::default();
        for some in ids.chunks(CATALOG_READERS) {
            go_on()?;
            let read = at_once(some, CATALOG_READERS, |id| repository.read_manifest_head(cluster, system_id, *id));
            for (id, read) in some.iter().zip(read) {
                match read {
                    Ok(Some((summary, head))) => {
                        heads.users.add(&BackupReferences::of(&summary, &head));
                        heads.backups.push(summary);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let name = ObjectName::Manifest { cluster: cluster.clone(), system_id, backup: *id };
                        heads.note(*id, damaged_manifest(repository, name, error)?);
                    }
                }
            }
        }
        Ok(heads)
    }

    fn note(&mut self, id: BackupId, fault: Fault) {
        self.unreadable.push(id);
        self.faults.push(fault);
    }
}

/// What it means that a manifest could not be read.
///
/// # Errors
/// The error itself, where it is the store that fails.
pub(super) fn damaged_manifest(repository: &Repository, name: ObjectName, error: Error) -> Result<Fault, Error> {
    let why = match error.kind {
        Kind::Damaged => error.what,
        // A key that nobody knows may be a damaged header as well as missing rights.
        Kind::Denied => match repository.read_verbatim(&name, &|_| {}, &mut std::io::sink())? {
            Verbatim::Damaged(why) => why,
            _ => return Err(error),
        },
        _ => return Err(error),
    };
    let backup = match &name {
        ObjectName::Manifest { backup, .. } => vec![*backup],
        _ => Vec::new(),
    };
    let fault = Fault::new(Subject::Object(name), Problem::Damaged, why, true);
    Ok(fault.harming(super::costs::Harm::of_backups(backup)))
}
