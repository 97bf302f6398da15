//! Base backups that have begun: what lets whoever deletes know of a backup that has no manifest yet.
//!
//! Lives here: how a backup begins and is completed in a repository, and which ones have begun. May not live here: what
//! a backup copies. `docs/RETENTION.md` has the protocol, and the argument why each step is there.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::ControlFlow;

use serde::Serialize;

use super::cluster::{ClusterName, SystemId};
use super::content::Content;
use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::repository::Repository;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;

/// A base backup that has begun. Whether it has ended, its manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BegunBackup {
    /// Its id.
    pub id: BackupId,
    /// When it began, in Unix seconds by the store's clock, where the store tells.
    pub begun_unix_s: Option<i64>,
}

/// The form of the object.
#[derive(Serialize)]
struct Written {
    backup_id: BackupId,
}

impl Repository {
    /// Says that a backup begins. To be done before anything is looked at that the backup will refer to; the tombstones
    /// are to be read after it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn begin_backup(&self, cluster: &ClusterName, system_id: SystemId, id: BackupId) -> Result<(), Error> {
        let json = serde_json::to_vec(&Written { backup_id: id })
            .map_err(|e| Error::new(Kind::Bug, format!("encode that a backup began: {e}")))?;
        self.put(&begun(cluster, system_id, id), &Content::of_bytes(&json)).map(drop)
    }

    /// The backups of a cluster that have begun, oldest first, finished or not.
    ///
    /// # Errors
    /// As the store's.
    pub fn begun_backups(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<BegunBackup>, Error> {
        let mut found = Vec::new();
        self.objects().list(Prefix::BegunBackups(cluster, system_id), "", &mut |object| {
            if let ObjectName::BegunBackup { backup, .. } = object.name {
                found.push(BegunBackup { id: backup, begun_unix_s: object.modified_unix_s });
            }
            ControlFlow::Continue(())
        })?;
        found.sort_unstable_by_key(|backup| backup.id);
        Ok(found)
    }

    /// Stores the manifest of a backup that has begun, as [`put_manifest`](Self::put_manifest) does, and makes sure
    /// that it was not expired before its writer learned that it was stored: a call that is repeated after a very long
    /// time would otherwise bring back a manifest whose packs went with it. Gives the length of the manifest's object.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the backup was given up, or expired, meanwhile: it does not count; as
    /// [`put_manifest`](Self::put_manifest).
    pub fn complete_backup<'m>(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        summary: &BackupSummary,
        open: impl Fn() -> Box<dyn Read + 'm> + Sync + 'm,
    ) -> Result<u64, Error> {
        let id = summary.id;
        self.put_manifest(cluster, system_id, summary, open)?;
        // Whoever deletes a manifest deletes first that the backup has begun: as long as that is there, what is seen of
        // the manifest is no repetition of an earlier call. In this order, as the call that said so may be repeated as
        // well.
        let name = ObjectName::Manifest { cluster: cluster.clone(), system_id, backup: id };
        let counts = match self.objects().size(&name) {
            Ok(Some(bytes)) => self.objects().exists(&begun(cluster, system_id, id)).map(|counts| counts.then_some(bytes)),
            other => other,
        };
        let doing = || format!("the manifest of backup {id} is stored; look whether it still counts");
        if let Some(bytes) = counts.map_err(|e: Error| e.while_doing(doing()))? {
            return Ok(bytes);
        }
        let left = match self.objects().delete(&name) {
            Ok(()) => String::new(),
            Err(error) => format!("; its manifest could not be taken back: {error}"),
        };
        let what = format!(
            "backup {id} in {} expired before this command learned that it was stored, and does not count{left}",
            self.location()
        );
        Err(Error::new(Kind::Refused, what).hint("was this host asleep? take the backup again"))
    }

    /// The backups that have begun and were given up: a void has the name of their manifest, for good, so nobody needs
    /// to know any more that they had begun. Those of `backups` have manifests, and are not asked about.
    ///
    /// # Errors
    /// As the store's.
    pub fn begun_and_void(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        backups: &BTreeSet<BackupId>,
    ) -> Result<Vec<BackupId>, Error> {
        let mut decided = BTreeSet::new();
        self.visit_manifest_names(cluster, system_id, &mut |id, _| {
            decided.insert(id);
        })?;
        let mut found = Vec::new();
        for BegunBackup { id, .. } in self.begun_backups(cluster, system_id)? {
            if decided.contains(&id) && !backups.contains(&id) && self.is_void(cluster, system_id, id)? {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Forgets that backups have begun whose manifests are about to be deleted. A manifest may be deleted only after
    /// this: see [`complete_backup`](Self::complete_backup).
    ///
    /// # Errors
    /// As the store's.
    pub fn forget_begun(&self, cluster: &ClusterName, system_id: SystemId, ids: &[BackupId]) -> Result<(), Error> {
        ids.iter().try_for_each(|id| self.objects().delete(&begun(cluster, system_id, *id)))
    }
}

/// The name of the object that says that a backup has begun.
pub(super) fn begun(cluster: &ClusterName, system_id: SystemId, backup: BackupId) -> ObjectName {
    ObjectName::BegunBackup { cluster: cluster.clone(), system_id, backup }
}
