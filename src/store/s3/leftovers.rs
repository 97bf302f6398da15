//! Unfinished uploads of writers that were killed.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::MultipartUpload;

use super::bucket::Bucket;
use super::errors::Failure;
use super::upload::{abort, age_of};
use crate::limits::MAX_LEFTOVERS;
use crate::store::{ErrorKind, Key, Leftover};

/// The uploads below the prefix that began so long ago.
pub(super) fn leftovers(bucket: &Bucket, older_than: Duration) -> Result<Vec<Leftover>, Failure> {
    let s = bucket.engine.settings();
    let prefix = s.full("");
    let mut place = (None, None);
    let mut found = Vec::new();
    loop {
        let page = bucket.engine.call(|client| {
            client
                .list_multipart_uploads()
                .bucket(&s.bucket)
                .prefix(&prefix)
                .set_key_marker(place.0.clone())
                .set_upload_id_marker(place.1.clone())
                .send()
        })?;
        let now = SystemTime::now();
        for upload in page.uploads() {
            if found.len() == MAX_LEFTOVERS {
                return Ok(found);
            }
            if let Some(leftover) = leftover(bucket, upload, now, older_than)? {
                found.push(leftover);
            }
        }
        let next = (page.next_key_marker, page.next_upload_id_marker);
        if page.is_truncated != Some(true) || next == place || next.0.is_none() {
            return Ok(found);
        }
        place = next;
    }
}

/// An upload as a leftover, if it is one.
fn leftover(
    bucket: &Bucket,
    upload: &MultipartUpload,
    now: SystemTime,
    older_than: Duration,
) -> Result<Option<Leftover>, Failure> {
    let relative = upload.key().and_then(|key| bucket.engine.settings().relative(key));
    let (Some(key), Some(id), Some(initiated)) =
        (relative.and_then(|key| Key::new(key).ok()), upload.upload_id(), upload.initiated())
    else {
        return Ok(None);
    };
    let age = SystemTime::try_from(*initiated).ok().and_then(|at| age_of(at, now));
    if age.is_none_or(|age| age < older_than) {
        return Ok(None);
    }
    let size_bytes = size_of(bucket, &key, id)?;
    Ok(Some(Leftover { key: Some(key), id: id.to_owned(), size_bytes, alive_unix_s: initiated.secs() }))
}

/// What the parts of an upload take, where the store says so.
fn size_of(bucket: &Bucket, key: &Key, id: &str) -> Result<Option<u64>, Failure> {
    let s = bucket.engine.settings();
    let (mut place, mut bytes) = (None, 0_u64);
    loop {
        let page = bucket.engine.call(|client| {
            client
                .list_parts()
                .bucket(&s.bucket)
                .key(s.full(key.as_str()))
                .upload_id(id)
                .set_part_number_marker(place.clone())
                .send()
        });
        let page = match page {
            Ok(page) => page,
            // Its writer lives, or somebody else was faster.
            Err(failure) if failure.says(404, "NoSuchUpload") => return Ok(Some(bytes)),
            Err(failure) if matches!(failure.kind(), ErrorKind::Unsupported | ErrorKind::Denied) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let sizes = page.parts().iter().filter_map(|part| u64::try_from(part.size()?).ok());
        bytes += sizes.sum::<u64>();
        if page.is_truncated != Some(true) || page.next_part_number_marker == place {
            return Ok(Some(bytes));
        }
        place = page.next_part_number_marker;
    }
}

/// Aborts an upload.
pub(super) fn remove(bucket: &Bucket, leftover: &Leftover) -> Result<(), Failure> {
    let Some(key) = &leftover.key else {
        return Err(Failure::new(ErrorKind::Unsupported, "an upload without the name of an object"));
    };
    match abort(bucket, key, &leftover.id) {
        Err(failure) if failure.says(404, "NoSuchUpload") => Ok(()),
        outcome => outcome,
    }
}
