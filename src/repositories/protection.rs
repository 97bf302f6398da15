//! What keeps the objects of a repository from being deleted or replaced: rights, object lock, versions, a policy.
//!
//! Lives here: what `check` says of it. May not live here: how it is found out (`repo`).

use crate::deadline::Deadline;
use crate::error::Error;
use crate::repo::StoreSettings;
use crate::report::check::{Finding, LockMode, ProtectionCheck, Severity, Switch};
use crate::store::features::{DefaultLock, Features, ObjectLocking, Versioning};

/// How to know what the store does not say.
const RIGHTS: &str = "allow the credentials s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration, as the policies do that \
                      'walvis check --policies' prints; some stores have neither";

/// Asks the store what protects what is in it, and says what follows. `can_delete`: whether the credentials can delete.
///
/// # Errors
/// As the store's.
pub fn check(store: &StoreSettings, can_delete: bool, deadline: Deadline) -> Result<(ProtectionCheck, Vec<Finding>), Error> {
    let found = store.protection(deadline)?;
    let Features { versioning, object_lock } = &found.features;
    let lock = match object_lock {
        ObjectLocking::On { default } => store.lock().or_else(|| default.clone()),
        ObjectLocking::Off | ObjectLocking::Unknown(_) => None,
    };
    let check = ProtectionCheck {
        versioning: match versioning {
            Versioning::Off => Switch::Off,
            Versioning::On => Switch::On,
            Versioning::Suspended => Switch::Suspended,
            Versioning::Unknown(_) => Switch::Unknown,
        },
        object_lock: match object_lock {
            ObjectLocking::Off => Switch::Off,
            ObjectLocking::On { .. } => Switch::On,
            ObjectLocking::Unknown(_) => Switch::Unknown,
        },
        lock_mode: lock.as_ref().map(|lock| if lock.is_compliance { LockMode::Compliance } else { LockMode::Governance }),
        lock_days: lock.as_ref().map(|lock| lock.days),
        refuses_replacing: found.can_replace.map(|can_replace| !can_replace),
    };
    let location = store.location();
    let notes = [
        deletion(can_delete, lock.as_ref()),
        unknown(&found.features),
        versions(versioning),
        replacing(found.can_replace, versioning),
    ];
    let finding = |(message, hint): (String, &str)| Finding {
        severity: Severity::Note,
        about: location.clone(),
        message,
        hint: Some(hint.to_owned()),
    };
    Ok((check, notes.into_iter().flatten().map(finding).collect()))
}

/// A note: what was found, and what can be done.
type Note = Option<(String, &'static str)>;

fn deletion(can_delete: bool, lock: Option<&DefaultLock>) -> Note {
    if !can_delete {
        return None;
    }
    Some(match lock {
        None => (
            "these credentials can delete objects, so an attacker who takes over this host can delete the backups".to_owned(),
            "where the store allows it, archive with credentials that cannot delete ('walvis check --policies' prints what they need), \
             or lock objects (object_lock_mode)",
        ),
        Some(DefaultLock { days, .. }) => (
            format!(
                "these credentials can delete objects; of those that are younger than {days} days a version stays, which object lock holds"
            ),
            "archive with credentials that cannot delete: 'walvis check --policies' prints what they need",
        ),
    })
}

fn unknown(features: &Features) -> Note {
    let why = match (&features.versioning, &features.object_lock) {
        (Versioning::Unknown(why), _) | (_, ObjectLocking::Unknown(why)) => why,
        _ => return None,
    };
    Some((format!("the store does not say whether it keeps versions and locks objects: {why}"), RIGHTS))
}

fn versions(versioning: &Versioning) -> Note {
    let what = match versioning {
        Versioning::Off | Versioning::Unknown(_) => return None,
        Versioning::On => "the bucket keeps versions: what expire deletes is hidden, and still takes its space",
        Versioning::Suspended => "the bucket kept versions once: what expire deletes of that time is hidden, and takes its space",
    };
    Some((what.to_owned(), "expire with --purge-versions, or give the bucket a lifecycle rule for noncurrent versions"))
}

fn replacing(can_replace: Option<bool>, versioning: &Versioning) -> Note {
    // What was replaced can be brought back.
    if can_replace != Some(true) || *versioning == Versioning::On {
        return None;
    }
    Some((
        "these credentials can replace objects: only requests that ask for it are refused, and Walvis' own all do".to_owned(),
        "give the bucket a policy that refuses all others ('walvis check --policies' prints one), or let it keep versions",
    ))
}
