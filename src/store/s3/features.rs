//! What a bucket is set up to do.

use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode};
use bytes::Bytes;

use super::bucket::{Bucket, crc32c_base64, kms_key, sse_name};
use super::errors::{Failure, Refusal};
use crate::store::features::{DefaultLock, Features, ObjectLocking, Versioning};
use crate::store::{ErrorKind, Key};

/// Asks for the settings of the bucket.
pub(super) fn features(bucket: &Bucket) -> Result<Features, Failure> {
    let s = bucket.engine.settings();
    let versioning = bucket.engine.call(|client| client.get_bucket_versioning().bucket(&s.bucket).send());
    let versioning = match versioning {
        Ok(output) => versioning_of(output.status()),
        // moto calls the answer so.
        Err(failure) if failure.is_unread("GetBucketVersioningResponse") => {
            let status = failure.field_of("GetBucketVersioningResponse", "Status");
            versioning_of(status.as_deref().map(BucketVersioningStatus::from).as_ref())
        }
        Err(failure) => Versioning::Unknown(unknown(failure)?),
    };
    let lock = bucket.engine.call(|client| client.get_object_lock_configuration().bucket(&s.bucket).send());
    let object_lock = match lock {
        Ok(output) => output.object_lock_configuration().map_or(ObjectLocking::Off, locking),
        Err(failure) if failure.is_code("ObjectLockConfigurationNotFoundError") => ObjectLocking::Off,
        Err(failure) => ObjectLocking::Unknown(unknown(failure)?),
    };
    Ok(Features { versioning, object_lock })
}

fn versioning_of(status: Option<&BucketVersioningStatus>) -> Versioning {
    match status {
        Some(BucketVersioningStatus::Enabled) => Versioning::On,
        Some(BucketVersioningStatus::Suspended) => Versioning::Suspended,
        Some(other) => Versioning::Unknown(format!("the store says {:?}", other.as_str())),
        None => Versioning::Off,
    }
}

fn locking(lock: &ObjectLockConfiguration) -> ObjectLocking {
    if lock.object_lock_enabled() != Some(&ObjectLockEnabled::Enabled) {
        return ObjectLocking::Off;
    }
    let retention = lock.rule().and_then(|rule| rule.default_retention());
    let days = |retention: &aws_sdk_s3::types::DefaultRetention| {
        let years = retention.years().map(|years| years.saturating_mul(DAYS_PER_YEAR));
        retention.days().or(years).and_then(|days| u32::try_from(days).ok())
    };
    let default = retention.and_then(|retention| {
        let is_compliance = retention.mode() == Some(&ObjectLockRetentionMode::Compliance);
        Some(DefaultLock { is_compliance, days: days(retention)? })
    });
    ObjectLocking::On { default }
}

/// As S3 counts them for this.
const DAYS_PER_YEAR: i32 = 365;

/// Why a setting is not known; an error where asking again can tell.
fn unknown(failure: Failure) -> Result<String, Failure> {
    let is_final = match failure.kind() {
        ErrorKind::Denied => failure.refusal() == Some(Refusal::Denied),
        kind => matches!(kind, ErrorKind::Unsupported | ErrorKind::BadAnswer),
    };
    if is_final { Ok(failure.detail().to_owned()) } else { Err(failure) }
}

/// Puts an object without asking that there is none; whether the store took it. `None` when it takes no such object at
/// all.
pub(super) fn can_replace(bucket: &Bucket, key: &Key, body: &Bytes) -> Result<Option<bool>, Failure> {
    let is_denied = |answer: Result<(), Failure>| match answer {
        Ok(()) => Ok(false),
        Err(failure) if failure.refusal() == Some(Refusal::Denied) => Ok(true),
        Err(failure) => Err(failure),
    };
    if !is_denied(put(bucket, key, body, false))? {
        return Ok(Some(true));
    }
    // It may be anything that is denied.
    let asked = match put(bucket, key, body, true) {
        Err(failure) if failure.says(412, "PreconditionFailed") => Ok(()),
        other => other,
    };
    Ok(if is_denied(asked)? { None } else { Some(false) })
}

fn put(bucket: &Bucket, key: &Key, body: &Bytes, conditional: bool) -> Result<(), Failure> {
    let s = bucket.engine.settings();
    let checksum = s.sends_checksum().then(|| crc32c_base64(body));
    bucket.engine.call(|client| {
        client
            .put_object()
            .bucket(&s.bucket)
            .key(s.full(key.as_str()))
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            .set_checksum_crc32_c(checksum)
            .set_server_side_encryption(s.sse.as_ref().map(sse_name))
            .set_ssekms_key_id(s.sse.as_ref().and_then(kms_key))
            .body(body.clone().into())
            .send()
    })?;
    Ok(())
}
