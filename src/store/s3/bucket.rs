//! A bucket that is reached: requests, looking up and listing, and how settings are written in requests. Stores and
//! uploads share it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption};
use aws_smithy_runtime_api::box_error::BoxError;

use super::client::Engine;
use super::errors::Failure;
use super::settings::{LockMode, ObjectLock, S3Settings, Sse};
use crate::store::{ErrorKind, Key, StoreError};

/// What to say of a listing that no repetition will mend.
pub(super) const OTHER_LISTING: &str = "the store does not list as S3 does (ListObjectsV2 with prefix and start-after)";

/// A bucket, and what is known of it.
pub(super) struct Bucket {
    pub(super) engine: Engine,
    pub(super) location: String,
    pub(super) tidiness: Tidiness,
    /// Whether objects are deleted one by one, because the service has no request for many.
    pub(super) deletes_singly: AtomicBool,
    /// Whether the bucket can hold objects, once that was asked.
    pub(super) has_locks: OnceLock<bool>,
}

/// Whether it is worth asking for abandoned uploads: not where the store lacks it or the credentials may not.
#[derive(Default)]
pub(super) struct Tidiness {
    pub(super) impossible: AtomicBool,
}

impl Bucket {
    pub(super) fn new(engine: Engine, location: String) -> Self {
        let (tidiness, deletes_singly, has_locks) = (Tidiness::default(), AtomicBool::new(false), OnceLock::new());
        Self { engine, location, tidiness, deletes_singly, has_locks }
    }

    pub(super) fn error(&self, action: impl fmt::Display, failure: Failure) -> StoreError {
        failure.while_doing(action, &self.location)
    }

    pub(super) fn absent(&self, action: String) -> StoreError {
        StoreError::new(ErrorKind::NotFound, action, self.location.as_str(), "there is no such object")
    }

    /// Looks an object up by listing; its size when it is there.
    pub(super) fn find(&self, key: &Key) -> Result<Option<u64>, Failure> {
        let full = self.engine.settings().full(key.as_str());
        // It sorts before everything else that begins with its name.
        let page = self.page(&full, None, None, Some(1))?;
        match page.contents().first() {
            Some(object) if object.key() == Some(full.as_str()) => Ok(Some(size_of(object)?)),
            _ => Ok(None),
        }
    }

    /// One page of a listing, checked for being one.
    pub(super) fn page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        token: Option<String>,
        max_keys: Option<i32>,
    ) -> Result<ListObjectsV2Output, Failure> {
        let s = self.engine.settings();
        let ended = Ended::default();
        let watched = ended.clone();
        let page = self.engine.call(|client| {
            client
                .list_objects_v2()
                .bucket(&s.bucket)
                .prefix(prefix)
                .set_start_after(start_after.map(str::to_owned))
                .set_continuation_token(token)
                .set_max_keys(max_keys)
                .customize()
                .interceptor(watched)
                .send()
        })?;
        let is_whole = ended.0.load(Ordering::Relaxed);
        let wrong = |what: String| {
            let failure = Failure::new(ErrorKind::BadAnswer, what);
            // A whole document will be the same the next time.
            Err(if is_whole { failure.hint(OTHER_LISTING).permanently() } else { failure })
        };
        // A page of HTML or an empty document must not pass for an empty listing, nor half a document for a whole one.
        if page.name().is_none() {
            return wrong("the listing does not name its bucket".to_owned());
        }
        let Some(truncated) = page.is_truncated() else {
            return wrong("the listing does not say whether it is complete".to_owned());
        };
        match page.key_count() {
            // rclone leaves it out of an empty listing.
            None if page.contents().is_empty() && is_whole => {}
            None => return wrong("the listing does not say how many objects it names".to_owned()),
            Some(count) if usize::try_from(count) != Ok(page.contents().len()) => {
                return wrong(format!("the listing announces {count} objects and names {}", page.contents().len()));
            }
            Some(_) => {}
        }
        if truncated && page.next_continuation_token().is_none_or(str::is_empty) {
            return wrong("the listing is incomplete and does not say how to go on".to_owned());
        }
        Ok(page)
    }
}

/// Sees whether a listing came to its end, which the SDK's reader does not demand.
#[derive(Debug, Default, Clone)]
struct Ended(Arc<AtomicBool>);

impl Intercept for Ended {
    fn name(&self) -> &'static str {
        "Ended"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default();
        self.0.store(body.trim_ascii_end().ends_with(b"</ListBucketResult>"), Ordering::Relaxed);
        Ok(())
    }
}

pub(super) fn size_of(object: &aws_sdk_s3::types::Object) -> Result<u64, Failure> {
    object
        .size()
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| Failure::new(ErrorKind::BadAnswer, "the listing holds an object without a size"))
}

/// The value of `x-amz-checksum-crc32c`. The SDK would compute one itself, but not for the uploads that S3 insists on
/// only at run time (object lock), and not with the processor's own instruction.
pub(super) fn crc32c_base64(body: &[u8]) -> String {
    aws_smithy_types::base64::encode(crc32c::crc32c(body).to_be_bytes())
}

pub(super) fn retain_until(settings: &S3Settings) -> Option<DateTime> {
    let lock = settings.object_lock?;
    Some(DateTime::from(SystemTime::now() + Duration::from_secs(u64::from(lock.retain_days) * 24 * 3600)))
}

pub(super) fn lock_mode(lock: ObjectLock) -> ObjectLockMode {
    match lock.mode {
        LockMode::Governance => ObjectLockMode::Governance,
        LockMode::Compliance => ObjectLockMode::Compliance,
    }
}

pub(super) fn sse_name(sse: &Sse) -> ServerSideEncryption {
    match sse {
        Sse::Aes256 => ServerSideEncryption::Aes256,
        Sse::Kms { .. } => ServerSideEncryption::AwsKms,
    }
}

pub(super) fn kms_key(sse: &Sse) -> Option<String> {
    match sse {
        Sse::Aes256 => None,
        Sse::Kms { key_id } => key_id.clone(),
    }
}
