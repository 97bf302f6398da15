//! Objects that come in parts: S3's multipart upload.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::bucket::{Bucket, crc32c_base64, kms_key, lock_mode, retain_until, sse_name};
use super::errors::Failure;
use crate::limits;
use crate::limits::UPLOAD_TIDY_TIME;
use crate::store::{Created, ErrorKind, Key, StoreError, Upload};

/// 2026-01-01. Walvis is younger: an upload that is said to have begun before has a date that the store made up (moto
/// says 2010 of every one), and may have begun just now.
const NO_UPLOAD_BEFORE: Duration = Duration::from_secs(1_767_225_600);

/// A multipart upload. Nothing is visible until it is completed.
pub(super) struct S3Upload<'a> {
    bucket: &'a Bucket,
    key: Key,
    upload_id: String,
    parts: Vec<CompletedPart>,
    /// Size of the last part given.
    last_bytes: usize,
    /// Whether the upload is there no more: published, or removed by somebody.
    gone: bool,
}

impl<'a> S3Upload<'a> {
    pub(super) fn begin(bucket: &'a Bucket, key: &Key) -> Result<Self, Failure> {
        abort_abandoned(bucket, key);
        let s = bucket.engine.settings();
        let until = retain_until(s);
        let output = bucket.engine.call(|client| {
            client
                .create_multipart_upload()
                .bucket(&s.bucket)
                .key(s.full(key.as_str()))
                .set_checksum_algorithm(s.sends_checksum().then_some(ChecksumAlgorithm::Crc32C))
                .set_storage_class(s.storage_class.as_deref().map(Into::into))
                .set_server_side_encryption(s.sse.as_ref().map(sse_name))
                .set_ssekms_key_id(s.sse.as_ref().and_then(kms_key))
                .set_object_lock_mode(s.object_lock.map(lock_mode))
                .set_object_lock_retain_until_date(until)
                .send()
        });
        let upload_id = match output {
            Ok(output) => output.upload_id.filter(|id| !id.is_empty()),
            // rclone calls the answer so.
            Err(failure) => Some(failure.field_of("InitiateMultipartUpload", "UploadId").ok_or(failure)?),
        };
        let upload_id =
            upload_id.ok_or_else(|| Failure::new(ErrorKind::BadAnswer, "the store began an upload without naming it"))?;
        Ok(Self { bucket, key: key.clone(), upload_id, parts: Vec::new(), last_bytes: limits::PART_BYTES, gone: false })
    }

    fn send_part(&mut self, body: Bytes) -> Result<(), Failure> {
        if self.gone {
            return Err(upload_gone());
        }
        let bytes = body.len();
        if self.last_bytes != limits::PART_BYTES || bytes > limits::PART_BYTES {
            return Err(Failure::new(
                ErrorKind::Unsupported,
                "parts of an upload must be of one size, the last one at most that",
            ));
        }
        let number = self.parts.len() + 1;
        if number > limits::MAX_PARTS {
            return Err(Failure::new(ErrorKind::Unsupported, format!("an object of more than {} parts", limits::MAX_PARTS)));
        }
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let s = self.bucket.engine.settings();
        let checksum = s.sends_checksum().then(|| crc32c_base64(&body));
        let output = self.bucket.engine.call(|client| {
            client
                .upload_part()
                .bucket(&s.bucket)
                .key(s.full(self.key.as_str()))
                .upload_id(&self.upload_id)
                .part_number(number)
                .set_checksum_algorithm(checksum.is_some().then_some(ChecksumAlgorithm::Crc32C))
                .set_checksum_crc32_c(checksum.clone())
                .body(body.into())
                .send()
        })?;
        let tag = output
            .e_tag
            .ok_or_else(|| Failure::new(ErrorKind::BadAnswer, format!("the store took part {number} without an ETag")))?;
        self.parts.push(CompletedPart::builder().part_number(number).e_tag(tag).set_checksum_crc32_c(checksum).build());
        self.last_bytes = bytes;
        Ok(())
    }

    fn publish(&mut self) -> Result<Created, Failure> {
        if self.gone {
            return self.find_published();
        }
        if self.parts.is_empty() {
            // S3 has no upload without a part, but knows an empty one.
            self.send_part(Bytes::new())?;
        }
        let s = self.bucket.engine.settings();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let answer = self.bucket.engine.call(|client| {
            client
                .complete_multipart_upload()
                .bucket(&s.bucket)
                .key(s.full(self.key.as_str()))
                .upload_id(&self.upload_id)
                .multipart_upload(parts)
                .set_if_none_match(s.conditional.then(|| "*".to_owned()))
                .send()
        });
        match answer {
            Ok(output) if output.e_tag.is_some() => {
                self.gone = true;
                Ok(Created::New)
            }
            Ok(_) => Err(Failure::new(ErrorKind::BadAnswer, "the store completed the upload without an ETag")),
            Err(failure) if s.conditional && failure.says(412, "PreconditionFailed") => Ok(Created::Exists),
            Err(failure) if failure.says(404, "NoSuchUpload") => {
                self.gone = true;
                self.find_published()
            }
            Err(failure) => Err(failure),
        }
    }

    /// The upload is no more. Either an earlier call published it and its answer was lost, or somebody aborted it.
    fn find_published(&self) -> Result<Created, Failure> {
        match self.bucket.find(&self.key)? {
            Some(_) => Ok(Created::Exists),
            None => Err(upload_gone()),
        }
    }
}

impl Upload for S3Upload<'_> {
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        let number = self.parts.len() + 1;
        self.send_part(body).map_err(|f| self.bucket.error(format_args!("store part {number} of {}", self.key), f))
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        self.publish().map_err(|f| self.bucket.error(format_args!("complete {}", self.key), f))
    }
}

impl Drop for S3Upload<'_> {
    fn drop(&mut self) {
        if !self.gone
            && let Err(failure) = abort(self.bucket, &self.key, &self.upload_id)
        {
            let error = self.bucket.error(format_args!("abort the upload of {}", self.key), failure);
            tracing::debug!(%error, "parts of an upload are left behind");
        }
    }
}

fn upload_gone() -> Failure {
    Failure::new(ErrorKind::BadAnswer, "the upload is no longer known to the store, and the object is not there")
        .hint("begin again; if it happens often, check the bucket's lifecycle rule for incomplete multipart uploads")
        .permanently()
}

pub(super) fn abort(bucket: &Bucket, key: &Key, upload_id: &str) -> Result<(), Failure> {
    let s = bucket.engine.settings();
    bucket.engine.call_within(UPLOAD_TIDY_TIME, |client| {
        client.abort_multipart_upload().bucket(&s.bucket).key(s.full(key.as_str())).upload_id(upload_id).send()
    })?;
    Ok(())
}

/// How long ago an upload began, where the store's word for that can be true.
pub(super) fn age_of(initiated: SystemTime, now: SystemTime) -> Option<Duration> {
    let is_true = initiated.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since >= NO_UPLOAD_BEFORE);
    now.duration_since(initiated).ok().filter(|_| is_true)
}

/// Aborts the uploads of this very object that no living process can still be writing. What a killed process left
/// behind costs space, and only a writer of the same object knows that nobody needs it.
fn abort_abandoned(bucket: &Bucket, key: &Key) {
    if bucket.tidiness.impossible.load(Ordering::Relaxed) {
        return;
    }
    let s = bucket.engine.settings();
    let full = s.full(key.as_str());
    let listing = bucket
        .engine
        .call_within(UPLOAD_TIDY_TIME, |client| client.list_multipart_uploads().bucket(&s.bucket).prefix(&full).send());
    let listing = match listing {
        Ok(listing) => listing,
        Err(failure) => {
            if matches!(failure.kind(), ErrorKind::Unsupported | ErrorKind::Denied) {
                bucket.tidiness.impossible.store(true, Ordering::Relaxed);
            }
            let error = bucket.error(format_args!("list the uploads of {key}"), failure);
            tracing::debug!(%error, "abandoned uploads are left alone");
            return;
        }
    };
    let now = SystemTime::now();
    for upload in listing.uploads() {
        let age = upload.initiated().and_then(|t| age_of(SystemTime::try_from(*t).ok()?, now));
        let (Some(id), Some(age)) = (upload.upload_id(), age) else { continue };
        if upload.key() != Some(full.as_str()) || age < limits::ABANDONED_AFTER {
            continue;
        }
        match abort(bucket, key, id) {
            Ok(()) => tracing::debug!(%key, age_s = age.as_secs(), "aborted an abandoned upload"),
            Err(failure) => {
                let error = bucket.error(format_args!("abort an abandoned upload of {key}"), failure);
                tracing::debug!(%error, "an abandoned upload is left alone");
                return;
            }
        }
    }
}
