//! What nobody will ever use, whatever the rules say: claims and probes of abandoned writers, temporary files,
//! unfinished uploads, evidence that is too old. What interrupted backups left is part of the plan.

use std::ops::ControlFlow;

use super::deleting::{Deleting, Tally};
use crate::error::Error;
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
    /// All of them, with what stays.
    pub tally: Tally,
}

/// Removes it. `now_unix_s` is the present by the store's clock.
///
/// # Errors
/// As the store's, and when the command has to end.
pub(super) fn sweep(
    repository: &Repository,
    cluster: &ClusterName,
    systems: &[Facts],
    evidence_before_unix_s: Option<i64>,
    now_unix_s: i64,
    deleting: &mut Deleting<'_>,
) -> Result<Swept, Error> {
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
                // One by one from the oldest on: evidence knows its predecessors, so none may be missing in the middle.
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
    let beside = repository.objects().remove_leftovers(ABANDONED_AFTER, true)?;
    (swept.files, swept.uploads, swept.bytes) = (beside.files, beside.uploads, beside.bytes);
    Ok(swept)
}
