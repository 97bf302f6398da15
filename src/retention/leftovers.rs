//! What nobody will ever use, whatever the rules say: claims and probes of abandoned writers, temporary files,
//! unfinished uploads, evidence that is too old, that backups had begun which were given up. What interrupted backups
//! left is part of the plan.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::copies::ownerless;
use super::deleting::{Deleting, Tally};
use crate::error::Error;
use crate::format::extent::BackupId;
use crate::limits::ABANDONED_AFTER;
use crate::repo::{ClusterName, Facts, ObjectName, Prefix, Repository};

/// What was removed beside what tombstones name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Claims of writers that are dead.
    pub claims: u64,
    /// What probes left.
    pub probes: u64,
    /// Temporary files.
    pub files: u64,
    /// Unfinished uploads.
    pub uploads: u64,
    /// What these two take, in bytes, as far as that is known.
    pub bytes: u64,
    /// Evidence of verifications.
    pub evidence: u64,
    /// Parts of the index of backups that others cover, or in which no backup is left.
    pub indexes: u64,
    /// That backups had begun which were given up, and copies of that.
    pub begun: u64,
    /// Good copies of tombstones and evidence that are gone.
    pub copies: u64,
    /// All of them, with what stays.
    pub tally: Tally,
}

/// Removes it.
pub(super) struct Sweeping<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: &'a ClusterName,
    pub(super) systems: &'a [Facts],
    /// Backups that have manifests, as far as is known.
    pub(super) backups: &'a BTreeSet<BackupId>,
}

impl Sweeping<'_> {
    /// Removes it. `now_unix_s` is the present by the store's clock.
    ///
    /// # Errors
    /// As the store's, and when the command has to end.
    pub(super) fn sweep(
        &self,
        evidence_before_unix_s: Option<i64>,
        now_unix_s: i64,
        deleting: &mut Deleting<'_>,
    ) -> Result<Swept, Error> {
        let Self { repository, cluster, systems, backups } = *self;
        let mut swept = Swept::default();
        let age = i64::try_from(ABANDONED_AFTER.as_secs()).unwrap_or(i64::MAX);
        let old = |prefix| {
            let mut names = Vec::new();
            repository.objects().list(prefix, "", &mut |object| {
                if object.modified_unix_s.is_some_and(|stored| stored < now_unix_s.saturating_sub(age)) {
                    names.push(object.name);
                }
                ControlFlow::Continue(())
            })?;
            Ok::<Vec<ObjectName>, Error>(names)
        };
        for (prefix, count) in [(Prefix::Claims, &mut swept.claims), (Prefix::Probes, &mut swept.probes)] {
            let tally = deleting.all(old(prefix)?, &mut |_| {})?;
            *count = tally.gone;
            swept.tally.add(tally);
        }
        if let Some(before) = evidence_before_unix_s {
            for facts in systems {
                for id in repository.evidence_before(cluster, facts.system_id, before)? {
                    let name = ObjectName::Evidence { cluster: cluster.clone(), system_id: facts.system_id, id };
                    // One by one from the oldest on: evidence knows its predecessors, so none may be missing in the
                    // middle.
                    let tally = deleting.all([name], &mut |_| {})?;
                    let is_gone = tally.gone > 0;
                    swept.evidence += tally.gone;
                    swept.tally.add(tally);
                    if !is_gone {
                        break;
                    }
                }
            }
        }
        for facts in systems {
            let ids = repository.backup_ids(cluster, facts.system_id)?.into_iter().collect();
            let tally = deleting.all(repository.unneeded_indexes(cluster, facts.system_id, &ids)?, &mut |_| {})?;
            swept.indexes += tally.gone;
            swept.tally.add(tally);
        }
        for facts in systems {
            // After it, copies that repair made of it.
            let mut names = Vec::new();
            for backup in repository.begun_and_void(cluster, facts.system_id, backups)? {
                let begun = ObjectName::BegunBackup { cluster: cluster.clone(), system_id: facts.system_id, backup };
                let copies = repository.objects().repairs(&begun)?;
                names.extend([begun].into_iter().chain(copies));
            }
            let tally = deleting.all(names, &mut |_| {})?;
            swept.begun += tally.gone;
            swept.tally.add(tally);
        }
        let tally = deleting.all(ownerless(repository.objects())?, &mut |_| {})?;
        swept.copies = tally.gone;
        swept.tally.add(tally);
        let beside = repository.objects().remove_leftovers(ABANDONED_AFTER, true)?;
        (swept.files, swept.uploads, swept.bytes) = (beside.files, beside.uploads, beside.bytes);
        Ok(swept)
    }
}
