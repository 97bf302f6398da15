//! Manifests that somebody deleted, other than `expire`.
//!
//! `expire` deletes `begun/B` before the manifest of backup B. So where `begun/B` is there and the manifest is not, the
//! backup is under way, or was interrupted, or somebody else deleted the manifest. It had one, if a verification read
//! it, if another backup refers to its packs: that is only done from a manifest on, or if a pin keeps it: `pin` takes
//! back one that finds no backup.
//!
//! Lives here: telling these apart. May not live here: what follows from it (`verify`, `retention`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::backups::PackUsers;
use super::begun::begun;
use super::cluster::{ClusterName, SystemId};
use super::object_name::ObjectName;
use super::repository::Repository;
use crate::error::Error;
use crate::format::extent::BackupId;

/// A backup whose manifest somebody deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostManifest {
    /// The backup.
    pub id: BackupId,
    /// Why it must have had a manifest.
    pub proof: ProofOfManifest,
    /// Whether a void is in the place of the manifest by now.
    pub given_up: bool,
}

/// Why a backup must have had a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofOfManifest {
    /// This backup refers to its packs.
    User(BackupId),
    /// A verification read it.
    Evidence,
    /// A pin keeps it.
    Pin,
}

impl fmt::Display for ProofOfManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "backup {user} refers to its packs"),
            Self::Evidence => f.write_str("an earlier verification read it"),
            Self::Pin => f.write_str("a pin keeps it, which 'walvis unpin' takes away"),
        }
    }
}

/// Which ones of some backups have manifests that a verification read.
pub type SeenAmong<'s> = dyn Fn(&BTreeSet<BackupId>) -> Result<BTreeSet<BackupId>, Error> + 's;

impl Repository {
    /// Those of some backups whose manifests somebody deleted, oldest first. `without` are backups that have begun, and
    /// of which no manifest was listed; `users` is what all manifests say that are there; `pinned` are backups that are
    /// kept by pins which have settled; `seen` answers which ones of some backups have manifests that a verification
    /// read, and is asked only about those that are open without.
    ///
    /// # Errors
    /// As the store's, and `seen`'s.
    pub fn lost_manifests(
        &self,
        (cluster, system_id): (&ClusterName, SystemId),
        without: &BTreeSet<BackupId>,
        users: &PackUsers,
        pinned: &BTreeSet<BackupId>,
        seen: &SeenAmong<'_>,
    ) -> Result<Vec<LostManifest>, Error> {
        let mut lost = Vec::new();
        if without.is_empty() {
            return Ok(lost);
        }
        let referred = referred(without, users);
        let is_open = |id: &BackupId| !referred.contains_key(id) && !pinned.contains(id);
        let open: BTreeSet<BackupId> = without.iter().copied().filter(is_open).collect();
        let seen = if open.is_empty() { BTreeSet::new() } else { seen(&open)? };
        for id in without {
            let proof = match (referred.get(id), seen.contains(id)) {
                (Some(user), _) => ProofOfManifest::User(*user),
                (None, _) if pinned.contains(id) => ProofOfManifest::Pin,
                (None, true) => ProofOfManifest::Evidence,
                (None, false) => continue,
            };
            let given_up = self.is_lost((cluster, system_id), *id)?;
            lost.extend(given_up.map(|given_up| LostManifest { id: *id, proof, given_up }));
        }
        Ok(lost)
    }

    /// Whether a void has the place of a manifest that is lost; `None` if it is there when somebody looks again, or was
    /// let go. In this order: where `expire` deletes it meanwhile, `begun` goes before.
    fn is_lost(&self, (cluster, system_id): (&ClusterName, SystemId), id: BackupId) -> Result<Option<bool>, Error> {
        let manifest = ObjectName::Manifest { cluster: cluster.clone(), system_id, backup: id };
        let is_taken = self.objects().exists(&manifest)?;
        if (is_taken && self.has_backup(cluster, system_id, id)?) || !self.objects().exists(&begun(cluster, system_id, id))? {
            return Ok(None);
        }
        Ok(Some(is_taken))
    }
}

/// Those of some backups to whose packs others refer, each with one of these.
fn referred(without: &BTreeSet<BackupId>, users: &PackUsers) -> BTreeMap<BackupId, BackupId> {
    let mut referred = BTreeMap::new();
    for (pack, _) in users.packs().filter(|(pack, _)| without.contains(&pack.backup)) {
        if let Some(user) = users.users(pack).find(|user| *user != pack.backup) {
            referred.insert(pack.backup, user);
        }
    }
    referred
}
