//! Deleting many objects, and what object lock says of them.
//!
//! Where the service deletes many by one request it is asked so (`DeleteObjects`), elsewhere one by one. It answers for
//! each object; one that it says nothing of is asked for alone.
//!
//! In a bucket with object lock a deletion without a version succeeds and only hides the object, locked or not. What is
//! locked is to stay until it can go: there each object is asked for first (`HeadObject`).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::types::{Delete, ObjectIdentifier, ObjectLockEnabled, ObjectLockLegalHoldStatus};

use super::bucket::Bucket;
use super::errors::{Failure, Refusal};
use crate::limits::{DELETED_AT_ONCE, DELETING_THREADS};
use crate::store::{Deleted, ErrorKind, Key};
use crate::threads::at_once;

/// An object, or one version of it, by its full name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) version: Option<String>,
}

/// Deletes objects that nothing holds.
pub(super) fn delete_many(bucket: &Bucket, keys: &[Key]) -> Result<Vec<Deleted>, Failure> {
    let settings = bucket.engine.settings();
    let targets: Vec<Target> = keys.iter().map(|key| Target { name: settings.full(key.as_str()), version: None }).collect();
    if !has_locks(bucket)? {
        return remove(bucket, &targets);
    }
    let held = for_each(&targets, |target| hold_on(bucket, target))?;
    let free: Vec<Target> = targets.into_iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(target, _)| target).collect();
    let mut removed = remove(bucket, &free)?.into_iter();
    // One for each that is free.
    let outcome = |held: Option<Deleted>| held.or_else(|| removed.next()).ok_or_else(unanswered);
    held.into_iter().map(outcome).collect()
}

/// Removes objects or versions, and says of those that stay why.
pub(super) fn remove(bucket: &Bucket, targets: &[Target]) -> Result<Vec<Deleted>, Failure> {
    let mut removed = Vec::with_capacity(targets.len());
    for targets in targets.chunks(DELETED_AT_ONCE) {
        let batch = if bucket.deletes_singly.load(Ordering::Relaxed) { None } else { together(bucket, targets)? };
        removed.extend(match batch {
            Some(batch) => batch,
            None => for_each(targets, |target| singly(bucket, target))?,
        });
    }
    if removed.iter().all(|outcome| *outcome == Deleted::Gone) || !has_locks(bucket)? {
        return Ok(removed);
    }
    // Not every service tells a lock from a lack of rights, and none says when it ends.
    let reasons: Vec<(&Target, Deleted)> = targets.iter().zip(removed).collect();
    for_each(&reasons, |(target, outcome)| match outcome {
        Deleted::Gone => Ok(Deleted::Gone),
        refused => Ok(hold_on(bucket, target)?.unwrap_or_else(|| refused.clone())),
    })
}

/// Deletes with one request; `None` where the service has none for many.
fn together(bucket: &Bucket, targets: &[Target]) -> Result<Option<Vec<Deleted>>, Failure> {
    let settings = bucket.engine.settings();
    let Some(first) = targets.first() else { return Ok(Some(Vec::new())) };
    let objects = targets
        .iter()
        .map(|target| ObjectIdentifier::builder().key(&target.name).set_version_id(target.version.clone()).build())
        .collect::<Result<Vec<_>, _>>();
    let delete = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(false).build());
    let delete = delete.map_err(|e| Failure::new(ErrorKind::Unsupported, e.to_string()))?;
    let answer = bucket.engine.call(|client| client.delete_objects().bucket(&settings.bucket).delete(delete).send());
    let output = match answer {
        Ok(output) => output,
        Err(failure) => {
            // A policy or a gateway may know the deletion of one object alone.
            let is_denied = failure.refusal() == Some(Refusal::Denied);
            if is_denied && let Deleted::Denied(_) = singly(bucket, first)? {
                return Ok(Some(vec![Deleted::Denied(failure.detail().to_owned()); targets.len()]));
            }
            // Services before 2025 want a Content-MD5 that the client does not send any more.
            let is_lacking = failure.kind() == ErrorKind::Unsupported || failure.says(400, "MissingContentMD5");
            if !is_denied && !is_lacking {
                return Err(failure);
            }
            tracing::debug!(reason = failure.detail(), "objects are deleted one by one");
            bucket.deletes_singly.store(true, Ordering::Relaxed);
            return Ok(None);
        }
    };
    let mut said: HashMap<Target, Deleted> = HashMap::with_capacity(targets.len());
    let target = |name: Option<&str>, version: Option<&str>| {
        let version = version.filter(|_| first.version.is_some()).map(str::to_owned);
        name.map(|name| Target { name: name.to_owned(), version })
    };
    for gone in output.deleted() {
        said.extend(target(gone.key(), gone.version_id()).map(|target| (target, Deleted::Gone)));
    }
    for error in output.errors() {
        let failure = Failure::of_one(error.code().unwrap_or_default(), error.message().unwrap_or_default());
        let outcome = outcome_of(failure)?;
        said.extend(target(error.key(), error.version_id()).map(|target| (target, outcome)));
    }
    if !said.is_empty() && said.values().all(|outcome| matches!(outcome, Deleted::Denied(_))) {
        // As above.
        match singly(bucket, first)? {
            Deleted::Denied(_) => {}
            _ => {
                bucket.deletes_singly.store(true, Ordering::Relaxed);
                return Ok(None);
            }
        }
    }
    let outcomes: Vec<(&Target, Option<Deleted>)> = targets.iter().map(|target| (target, said.get(target).cloned())).collect();
    for_each(&outcomes, |(target, outcome)| outcome.clone().map_or_else(|| singly(bucket, target), Ok)).map(Some)
}

/// Deletes one.
fn singly(bucket: &Bucket, target: &Target) -> Result<Deleted, Failure> {
    let s = bucket.engine.settings();
    let version = target.version.clone();
    let answer =
        bucket.engine.call(|client| client.delete_object().bucket(&s.bucket).key(&target.name).set_version_id(version).send());
    match answer {
        Ok(_) => Ok(Deleted::Gone),
        Err(failure) => outcome_of(failure),
    }
}

/// What a refusal means for the object.
fn outcome_of(failure: Failure) -> Result<Deleted, Failure> {
    if failure.is_of_absence() || failure.says(404, "NoSuchVersion") {
        return Ok(Deleted::Gone);
    }
    match failure.kind() {
        ErrorKind::Held => Ok(Deleted::Held { until_unix_s: None }),
        // Others mean that the credentials are not known, whatever they may do.
        ErrorKind::Denied if matches!(failure.refusal(), None | Some(Refusal::Denied)) && !failure.lacks_credentials() => {
            Ok(Deleted::Denied(failure.detail().to_owned()))
        }
        _ => Err(failure),
    }
}

/// Whether the bucket can hold objects. Asked once.
pub(super) fn has_locks(bucket: &Bucket) -> Result<bool, Failure> {
    if let Some(known) = bucket.has_locks.get() {
        return Ok(*known);
    }
    let s = bucket.engine.settings();
    let answer = bucket.engine.call(|client| client.get_object_lock_configuration().bucket(&s.bucket).send());
    let has_locks = match answer {
        Ok(output) => output
            .object_lock_configuration()
            .and_then(|lock| lock.object_lock_enabled())
            .is_some_and(|enabled| *enabled == ObjectLockEnabled::Enabled),
        Err(failure) => match failure.kind() {
            ErrorKind::Unsupported | ErrorKind::BadAnswer => s.object_lock.is_some(),
            // Who may not know has to look at each object.
            ErrorKind::Denied if failure.refusal() == Some(Refusal::Denied) => true,
            _ => return Err(failure),
        },
    };
    Ok(*bucket.has_locks.get_or_init(|| has_locks))
}

/// What holds an object, if anything does.
fn hold_on(bucket: &Bucket, target: &Target) -> Result<Option<Deleted>, Failure> {
    let s = bucket.engine.settings();
    let version = target.version.clone();
    let answer =
        bucket.engine.call(|client| client.head_object().bucket(&s.bucket).key(&target.name).set_version_id(version).send());
    let output = match answer {
        Ok(output) => output,
        // Its answer has no body, and so proves nothing: deleting it will tell.
        Err(failure) if failure.has_status(404) || failure.has_status(405) => return Ok(None),
        Err(failure) if failure.has_status(403) => {
            let why = "the credentials cannot see what holds an object, and so delete none of a bucket with object lock";
            return Ok(Some(Deleted::Denied(format!("{why} (s3:GetObject): {}", failure.detail()))));
        }
        Err(failure) => return Err(failure),
    };
    if output.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On) {
        return Ok(Some(Deleted::Held { until_unix_s: None }));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let until = output.object_lock_retain_until_date().map(|until| until.secs());
    let lasts = until.filter(|until| u64::try_from(*until).is_ok_and(|until| until > now));
    Ok(lasts.map(|until| Deleted::Held { until_unix_s: Some(until) }))
}

/// Asks for each, several at once; the answers are in order.
fn for_each<T: Sync, R: Send>(things: &[T], ask: impl Fn(&T) -> Result<R, Failure> + Sync) -> Result<Vec<R>, Failure> {
    let answers = at_once(things, DELETING_THREADS, |thing| Ok(ask(thing)));
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|bug| Err(Failure::new(ErrorKind::BadAnswer, bug.to_string()).permanently())))
        .collect()
}

fn unanswered() -> Failure {
    Failure::new(ErrorKind::BadAnswer, "the store did not say of every object what became of it")
}
