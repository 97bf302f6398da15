//! Backups whose manifest somebody deleted, other than `expire`.
//!
//! `expire` deletes `begun/B` before the manifest of backup B. So where `begun/B` is there and the manifest is not, the
//! backup is under way, or was interrupted, or somebody else deleted the manifest. It had one, if an earlier
//! verification read it, or if a later backup refers to its packs: that is only done from a manifest on. And a pin is
//! only left where there was one.
//!
//! Lives here: which manifests are missed by that. May not live here: what is known of those that are there.

use std::collections::{BTreeMap, BTreeSet};

use super::costs::Harm;
use super::fault::Fault;
use super::findings::{Problem, Subject};
use super::known::Known;
use super::request::SeenManifests;
use crate::error::Error;
use crate::format::extent::BackupId;
use crate::limits::PIN_SETTLES;
use crate::repo::ObjectName;
use crate::store::ReadRange;

/// The manifests that are missing although nobody let them go.
///
/// # Errors
/// As the store's.
pub(super) fn faults(known: &Known<'_>, seen: Option<&SeenManifests>) -> Result<Vec<Fault>, Error> {
    let mut faults = Vec::new();
    let readable: BTreeSet<BackupId> = known.heads.backups.iter().map(|backup| backup.id).collect();
    let seen = seen.and_then(|seen| seen.get(&known.facts.system_id));
    let is_seen = |id: &BackupId| seen.is_some_and(|seen| seen.contains(id));
    let referred = referred(known);
    // What is in the place of a manifest and is none that can be read, or cannot be read, is known otherwise.
    let is_gone = |id: &BackupId| !readable.contains(id) && !known.heads.unreadable.contains(id);
    for id in known.inventory.begun.iter().filter(|id| is_gone(id)) {
        let how = match (referred.get(id), is_seen(id)) {
            (Some(user), _) => format!("backup {user} refers to its packs"),
            (None, true) => "an earlier verification read it".to_owned(),
            (None, false) => continue,
        };
        faults.extend(missing(known, *id, &how)?);
    }
    let told: BTreeSet<BackupId> = faults.iter().flat_map(|fault: &Fault| fault.harm.backups.iter().copied()).collect();
    if known.inventory.pinned.iter().any(|id| is_gone(id) && !told.contains(id)) {
        faults.extend(pinned(known, &|id| is_gone(id) && !told.contains(id))?);
    }
    Ok(faults)
}

/// The backups whose packs others refer to, each with one of these.
fn referred(known: &Known<'_>) -> BTreeMap<BackupId, BackupId> {
    let mut referred = BTreeMap::new();
    for (pack, _) in known.heads.users.packs() {
        if let Some(user) = known.heads.users.users(pack).find(|user| *user != pack.backup) {
            referred.insert(pack.backup, user);
        }
    }
    referred
}

/// A manifest that is missing, as long as it is when somebody looks again. In this order: where `expire` deleted it
/// meanwhile, `begun` went before.
fn missing(known: &Known<'_>, id: BackupId, how: &str) -> Result<Option<Fault>, Error> {
    let (cluster, system_id) = (known.cluster.clone(), known.facts.system_id);
    let manifest = ObjectName::Manifest { cluster: cluster.clone(), system_id, backup: id };
    let is_there = |name: &ObjectName| known.repository.objects().read(name, ONE_BYTE).map(|read| read.is_some());
    let is_taken = is_there(&manifest)?;
    if is_taken && known.repository.has_backup(&cluster, system_id, id)? {
        return Ok(None);
    }
    if !is_there(&ObjectName::BegunBackup { cluster, system_id, backup: id })? {
        return Ok(None);
    }
    Ok(Some(if is_taken {
        let detail = format!("the manifest was deleted, and the backup was given up since; there was one: {how}");
        Fault::new(Subject::Object(manifest), Problem::Contradiction, detail, false)
    } else {
        let detail = format!("the manifest was deleted, and not by expire: {how}");
        Fault::new(Subject::Object(manifest), Problem::Missing, detail, true).harming(Harm::of_backups(vec![id]))
    }))
}

/// Pinned backups that are not there. A pin that was made just now may be taken back.
fn pinned(known: &Known<'_>, is_gone: &dyn Fn(&BackupId) -> bool) -> Result<Vec<Fault>, Error> {
    let (cluster, system_id) = (known.cluster, known.facts.system_id);
    let now_unix_s = jiff::Timestamp::now().as_second();
    let settles_s = i64::try_from(PIN_SETTLES.as_secs()).unwrap_or(i64::MAX);
    let mut faults = Vec::new();
    for pin in known.repository.pins(cluster, system_id)? {
        let is_settled = pin.pinned_unix_s.saturating_add(settles_s) < now_unix_s;
        let counts = is_gone(&pin.backup) && pin.keeps_at(now_unix_s) && is_settled;
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

const ONE_BYTE: ReadRange = ReadRange::Bounded { offset: 0, len: 1 };
