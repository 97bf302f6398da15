//! Which manifests verifications read, without all else that evidence tells.
//!
//! Memory: the text of a few pieces of evidence at a time, and the ids in them.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::limits::{EVIDENCE_READERS, MAX_EVIDENCE_BYTES};
use crate::repo::begun::BegunBackup;
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::object_name::ObjectName;
use crate::repo::repository::Repository;
use crate::repo::tombstone_name::EvidenceId;
use crate::threads::at_once;

/// Of [`Written`](super::Written) what is asked for.
#[derive(Deserialize)]
struct Written {
    verification: Option<Verification>,
}

#[derive(Deserialize)]
struct Verification {
    whole: Objects,
    damaged: Objects,
}

#[derive(Deserialize)]
struct Objects {
    manifests: Vec<BackupId>,
}

impl Repository {
    /// Those of some backups whose manifests a verification read. Only evidence that was written since the first of
    /// them began is read, the newest first, until all are found. Evidence that cannot be read tells nothing here.
    ///
    /// # Errors
    /// As the store's.
    pub fn manifests_in_evidence(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        of: &[BegunBackup],
    ) -> Result<BTreeSet<BackupId>, Error> {
        let mut found = BTreeSet::new();
        // Times are those of several clocks: what may have been written later counts, from the earliest beginning on.
        let began = of.iter().map(|backup| backup.begun_unix_s.unwrap_or(i64::MAX).min(backup.id.started_unix_s)).min();
        let Some(began) = began else { return Ok(found) };
        let mut listed = self.list_evidence(cluster, system_id)?;
        listed.retain(|evidence| evidence.latest_unix_s >= began);
        for some in listed.chunks(EVIDENCE_READERS) {
            let read = at_once(some, EVIDENCE_READERS, |evidence| self.manifests_of(cluster, system_id, evidence.id));
            for manifests in read {
                match manifests {
                    Ok(manifests) => found.extend(manifests.into_iter().filter(|id| of.iter().any(|backup| backup.id == *id))),
                    Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                        tracing::warn!("{error}{}", error.hint_in_brackets());
                    }
                    Err(error) => return Err(error),
                }
            }
            if found.len() == of.len() {
                break;
            }
        }
        Ok(found)
    }

    fn manifests_of(&self, cluster: &ClusterName, system_id: SystemId, id: EvidenceId) -> Result<Vec<BackupId>, Error> {
        let name = ObjectName::Evidence { cluster: cluster.clone(), system_id, id };
        let mut json = Vec::new();
        if self.opener().get_at_most(&name, MAX_EVIDENCE_BYTES as u64, &mut json)?.is_none() {
            // Expired since it was listed.
            return Ok(Vec::new());
        }
        let written: Written = serde_json::from_slice(&json)
            .map_err(|e| Error::new(Kind::Damaged, format!("{name} in {} is no evidence: {e}", self.location())))?;
        Ok(written
            .verification
            .map_or_else(Vec::new, |verification| [verification.whole.manifests, verification.damaged.manifests].concat()))
    }
}
