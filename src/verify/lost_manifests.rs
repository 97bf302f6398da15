//! Backups whose manifest somebody deleted, other than `expire`.
//!
//! Lives here: what a verification says of them, and of pinned backups that are not there: a pin is only left where
//! there was a manifest. May not live here: how they are told from those that expired, or never were
//! (`repo::lost_manifests`); what is known of those that are there.

use std::collections::BTreeSet;

use super::costs::Harm;
use super::fault::Fault;
use super::findings::{Problem, Subject};
use super::known::Known;
use super::request::SeenManifests;
use crate::error::Error;
use crate::format::extent::BackupId;
use crate::repo::{LostManifest, ObjectName};

/// The manifests that are missing although nobody let them go.
///
/// # Errors
/// As the store's.
pub(super) fn faults(known: &Known<'_>, seen: Option<&SeenManifests>) -> Result<Vec<Fault>, Error> {
    let (cluster, system_id) = (known.cluster, known.facts.system_id);
    let readable: BTreeSet<BackupId> = known.heads.backups.iter().map(|backup| backup.id).collect();
    // What is in the place of a manifest and is none that can be read, or cannot be read, is known otherwise.
    let is_gone = |id: &BackupId| !readable.contains(id) && !known.heads.unreadable.contains(id);
    let without: BTreeSet<BackupId> = known.inventory.begun.iter().copied().filter(is_gone).collect();
    let seen = seen.and_then(|seen| seen.get(&system_id));
    let seen = |open: &BTreeSet<BackupId>| Ok(seen.map_or_else(BTreeSet::new, |seen| open & seen));
    let lost = known.repository.lost_manifests((cluster, system_id), &without, &known.heads.users, &BTreeSet::new(), &seen)?;
    let told: BTreeSet<BackupId> = lost.iter().filter(|lost| !lost.given_up).map(|lost| lost.id).collect();
    let mut faults: Vec<Fault> = lost.into_iter().map(|lost| missing(known, lost)).collect();
    if known.inventory.pinned.iter().any(|id| is_gone(id) && !told.contains(id)) {
        faults.extend(pinned(known, &|id| is_gone(id) && !told.contains(id))?);
    }
    Ok(faults)
}

/// A manifest that is missing.
fn missing(known: &Known<'_>, lost: LostManifest) -> Fault {
    let LostManifest { id, proof, given_up } = lost;
    let manifest = ObjectName::Manifest { cluster: known.cluster.clone(), system_id: known.facts.system_id, backup: id };
    if given_up {
        let detail = format!("the manifest was deleted, and the backup was given up since; there was one: {proof}");
        return Fault::new(Subject::Object(manifest), Problem::Contradiction, detail, false);
    }
    let detail = format!("the manifest was deleted, and not by expire: {proof}");
    Fault::new(Subject::Object(manifest), Problem::Missing, detail, true).harming(Harm::of_backups(vec![id]))
}

/// Pinned backups that are not there. A pin that was made just now may be taken back.
fn pinned(known: &Known<'_>, is_gone: &dyn Fn(&BackupId) -> bool) -> Result<Vec<Fault>, Error> {
    let (cluster, system_id) = (known.cluster, known.facts.system_id);
    let now_unix_s = jiff::Timestamp::now().as_second();
    let mut faults = Vec::new();
    for pin in known.repository.pins(cluster, system_id)? {
        let counts = is_gone(&pin.backup) && pin.keeps_at(now_unix_s) && pin.has_settled(now_unix_s);
        if !counts || known.repository.has_backup(cluster, system_id, pin.backup)? {
            continue;
        }
        let name = ObjectName::Manifest { cluster: cluster.clone(), system_id, backup: pin.backup };
        let detail = format!(
            "a pin keeps this backup ({}), and there is none: it was deleted, or 'walvis pin' was killed before it found that there is \
             none; 'walvis unpin' takes the pin away",
            pin.reason
        );
        let fault = Fault::new(Subject::Object(name), Problem::Missing, detail, true);
        faults.push(fault.harming(Harm::of_backups(vec![pin.backup])));
    }
    Ok(faults)
}
