//! Voids: what stands in the place of a manifest when a backup was given up. To readers there is no such backup.
//!
//! The name of a manifest is a register that is written once: the writer of the backup and whoever gives it up both
//! create it, and the store says who was first. `docs/RETENTION.md` says why.

use serde::Serialize;

use super::manifests::manifest;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::limits::MAX_VOID_REASON_BYTES;
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::content::Content;
use crate::repo::repository::Repository;
use crate::store::Created;

/// Who was first under the name of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It is a void: this backup will never count.
    Void,
    /// The backup was finished before, and counts.
    Manifest,
}

/// The form of a void in its metadata.
#[derive(Serialize)]
struct Written<'a> {
    reason: &'a str,
}

impl Repository {
    /// Gives a backup up, unless it has a manifest: a writer that is still at work fails when it comes to its end. The
    /// answer is what has the name afterwards, whoever was first.
    ///
    /// # Errors
    /// [`Kind::Damaged`] when what has the name cannot be read; as the store's.
    pub fn give_up(&self, cluster: &ClusterName, system_id: SystemId, id: BackupId, reason: &str) -> Result<Given, Error> {
        if self.create_void(cluster, system_id, id, reason)? == Created::New {
            return Ok(Given::Void);
        }
        let name = manifest(cluster, system_id, id);
        self.objects().make_durable(&name)?;
        match self.opener().metadata(&name)? {
            Some(metadata) if metadata.void.is_some() => Ok(Given::Void),
            Some(_) => Ok(Given::Manifest),
            None => Err(Error::new(
                Kind::Unreachable,
                format!("{name} in {}: the store says that it exists and that it does not", self.location()),
            )
            .hint("it may have been deleted at this moment: try again")),
        }
    }

    /// Whether a backup was given up. What cannot be read is no void as far as anybody can tell.
    ///
    /// # Errors
    /// As the store's.
    pub(in crate::repo) fn is_void(&self, cluster: &ClusterName, system_id: SystemId, id: BackupId) -> Result<bool, Error> {
        match self.opener().metadata(&manifest(cluster, system_id, id)) {
            Ok(metadata) => Ok(metadata.is_some_and(|metadata| metadata.void.is_some())),
            Err(error) if error.kind == Kind::Damaged => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates a void, if the name is free. What has it already is not looked at.
    ///
    /// # Errors
    /// As the store's.
    pub(in crate::repo) fn create_void(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
        reason: &str,
    ) -> Result<Created, Error> {
        let reason = reason.get(..reason.floor_char_boundary(MAX_VOID_REASON_BYTES)).unwrap_or_default();
        let json = serde_json::to_vec(&Written { reason }).map_err(|e| Error::new(Kind::Bug, format!("encode a void: {e}")))?;
        // Whatever the reasons say, two voids are the same.
        let content = Content::of_bytes(&[]).void_because(json).identified_by(b"void");
        self.sealer().create(&manifest(cluster, system_id, id), &content)
    }
}
