//! The store over a bucket: what each operation asks, and what its answers mean.

use std::io::Read;
use std::ops::ControlFlow;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;

use super::body::Body;
use super::bucket::{Bucket, OTHER_LISTING, crc32c_base64, kms_key, lock_mode, retain_until, size_of, sse_name};
use super::client::Engine;
use super::errors::{Failure, quote};
use super::settings::{InvalidSettings, S3Settings};
use super::upload::S3Upload;
use super::{delete, features, leftovers, versions};
use crate::deadline::Deadline;
use crate::limits::MAX_S3_OFFSET;
use crate::store::features::Features;
use crate::store::{
    ContentId, Created, Deleted, Entry, ErrorKind, Hidden, Key, Leftover, Object, ReadRange, Store, StoreError, Upload,
};

/// Objects below a prefix of an S3 bucket. Shared by threads; a runtime of its own is started by the first request.
///
/// No request takes longer than [`S3Settings::request_timeout`] or goes beyond the deadline, and none is tried twice.
pub struct S3Store {
    bucket: Bucket,
}

impl S3Store {
    /// Prepares a store. Nothing is sent; the CA file is read.
    ///
    /// # Errors
    /// A setting that can't be used.
    pub fn open(settings: S3Settings, deadline: Deadline) -> Result<Self, InvalidSettings> {
        let location = settings.url();
        Ok(Self { bucket: Bucket::new(Engine::new(settings, deadline)?, location) })
    }

    /// What it was opened with.
    pub fn settings(&self) -> &S3Settings {
        self.bucket.engine.settings()
    }

    fn put(&self, key: &Key, body: Bytes) -> Result<Created, Failure> {
        let s = self.bucket.engine.settings();
        let checksum = s.sends_checksum().then(|| crc32c_base64(&body));
        let until = retain_until(s);
        let answer = self.bucket.engine.call(|client| {
            client
                .put_object()
                .bucket(&s.bucket)
                .key(s.full(key.as_str()))
                .set_if_none_match(s.conditional.then(|| "*".to_owned()))
                .set_checksum_algorithm(checksum.is_some().then_some(ChecksumAlgorithm::Crc32C))
                .set_checksum_crc32_c(checksum)
                .set_storage_class(s.storage_class.as_deref().map(Into::into))
                .set_server_side_encryption(s.sse.as_ref().map(sse_name))
                .set_ssekms_key_id(s.sse.as_ref().and_then(kms_key))
                .set_object_lock_mode(s.object_lock.map(lock_mode))
                .set_object_lock_retain_until_date(until)
                .body(body.into())
                .send()
        });
        match answer {
            Ok(output) if output.e_tag.is_some() => Ok(Created::New),
            Ok(_) => Err(no_etag()),
            Err(failure) if s.conditional && failure.says(412, "PreconditionFailed") => Ok(Created::Exists),
            Err(failure) => Err(failure),
        }
    }

    fn get(&self, key: &Key, range: ReadRange) -> Result<GetObjectOutput, Failure> {
        let s = self.bucket.engine.settings();
        let header = match range {
            ReadRange::All | ReadRange::From(0) => None,
            ReadRange::From(offset) => Some(format!("bytes={offset}-")),
            ReadRange::Bounded { offset, len } => match offset.checked_add(len.max(1) - 1) {
                Some(last) if last <= MAX_S3_OFFSET => Some(format!("bytes={offset}-{last}")),
                _ => Some(format!("bytes={offset}-")), // beyond what servers can count to, and any object's end
            },
        };
        self.bucket
            .engine
            .call(|client| client.get_object().bucket(&s.bucket).key(s.full(key.as_str())).set_range(header).send())
            .map_err(explain_denied)
    }

    fn open_range(&self, key: &Key, range: ReadRange) -> Result<Opened, Failure> {
        let mut size = None;
        if range.offset() <= MAX_S3_OFFSET {
            match self.get(key, range) {
                Ok(output) => return extent(&output, range).map(|(size, length)| Opened::Body(Box::new(output), size, length)),
                Err(failure) if failure.is_of_absence() => return Ok(Opened::Absent),
                // The range begins at or beyond the end; some stores say where that is.
                Err(failure) if failure.says(416, "InvalidRange") && range != ReadRange::All => size = failure.object_size(),
                Err(failure) => return Err(failure),
            }
        }
        let size = match size {
            Some(size) => Some(size),
            None => self.bucket.find(key)?,
        };
        Ok(size.map_or(Opened::Absent, Opened::BeyondEnd))
    }

    fn visit(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), Failure> {
        let s = self.bucket.engine.settings();
        let full_prefix = s.full(prefix);
        let start_after = (!after.is_empty()).then(|| s.full(after));
        let mut last = start_after.clone().unwrap_or_default();
        let mut token = None;
        loop {
            let page = self.bucket.page(&full_prefix, start_after.as_deref(), token.clone(), None)?;
            for object in page.contents() {
                let Some(full) = object.key() else {
                    return Err(Failure::new(ErrorKind::BadAnswer, "the listing holds an object without a name"));
                };
                if !full.starts_with(&full_prefix) || full <= last.as_str() {
                    return Err(Failure::new(
                        ErrorKind::BadAnswer,
                        format!("the listing is out of order or not below {full_prefix:?}: {:?} after {last:?}", quote(full)),
                    )
                    .hint(OTHER_LISTING)
                    .permanently());
                }
                last = full.to_owned();
                let Some(key) = s.relative(full).and_then(|name| Key::new(name).ok()) else {
                    tracing::debug!(object = full, "not an object of Walvis");
                    continue;
                };
                let modified_unix_s = object.last_modified().map(DateTime::secs);
                if visit(Entry { key, size_bytes: size_of(object)?, modified_unix_s }).is_break() {
                    return Ok(());
                }
            }
            if page.is_truncated() != Some(true) {
                return Ok(());
            }
            if page.next_continuation_token == token {
                return Err(Failure::new(ErrorKind::BadAnswer, "the listing goes on where it began")
                    .hint(OTHER_LISTING)
                    .permanently());
            }
            token = page.next_continuation_token;
        }
    }
}

impl Store for S3Store {
    fn location(&self) -> &str {
        &self.bucket.location
    }

    fn create(&self, key: &Key, body: Bytes, _: &ContentId) -> Result<Created, StoreError> {
        self.put(key, body).map_err(|f| self.bucket.error(format_args!("create {key}"), f))
    }

    fn begin(&self, key: &Key, _: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        match S3Upload::begin(&self.bucket, key) {
            Ok(upload) => Ok(Box::new(upload)),
            Err(failure) => Err(self.bucket.error(format_args!("begin {key}"), failure)),
        }
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        let action = format!("read {key}");
        match self.open_range(key, range) {
            Ok(Opened::Body(output, size_bytes, missing)) => {
                let stream = output.body;
                let body = Body {
                    engine: &self.bucket.engine,
                    stream,
                    chunk: Bytes::new(),
                    missing,
                    action,
                    location: &self.bucket.location,
                };
                let body: Box<dyn Read + Send + '_> = match range {
                    // More came than was asked for (see `extent`).
                    ReadRange::Bounded { len, .. } if len < missing => Box::new(body.take(len)),
                    _ => Box::new(body),
                };
                Ok(Object { size_bytes, body })
            }
            Ok(Opened::BeyondEnd(size_bytes)) => Ok(Object { size_bytes, body: Box::new(std::io::empty()) }),
            Ok(Opened::Absent) => Err(self.bucket.absent(action)),
            Err(failure) => Err(self.bucket.error(action, failure)),
        }
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.visit(prefix, after, visit).map_err(|f| self.bucket.error(format_args!("list {prefix}*"), explain_denied(f)))
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        // What S3 shows it keeps: only the existence is in question. A listing tells; of the first byte not every store
        // can be asked.
        match self.bucket.find(key) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.bucket.absent(format!("make durable {key}"))),
            Err(failure) => Err(self.bucket.error(format_args!("make durable {key}"), explain_denied(failure))),
        }
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let s = self.bucket.engine.settings();
        match self.bucket.engine.call(|client| client.delete_object().bucket(&s.bucket).key(s.full(key.as_str())).send()) {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_of_absence() => Ok(()), // some stores say so
            Err(failure) => Err(self.bucket.error(format_args!("delete {key}"), failure)),
        }
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        delete::delete_many(&self.bucket, keys).map_err(|f| self.bucket.error(format_args!("delete {} objects", keys.len()), f))
    }

    fn leftovers(&self, older_than: Duration) -> Result<Vec<Leftover>, StoreError> {
        leftovers::leftovers(&self.bucket, older_than).map_err(|f| self.bucket.error("list unfinished uploads", f))
    }

    fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, StoreError> {
        let id = &leftover.id;
        leftovers::remove(&self.bucket, leftover)
            .map(|()| true)
            .map_err(|f| self.bucket.error(format_args!("abort the upload {id}"), f))
    }

    fn hidden(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError> {
        versions::hidden(&self.bucket, prefix, after, visit)
            .map_err(|f| self.bucket.error(format_args!("list versions of {prefix}*"), f))
    }

    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError> {
        versions::purge(&self.bucket, hidden)
            .map_err(|f| self.bucket.error(format_args!("delete versions of {} objects", hidden.len()), f))
    }

    fn features(&self) -> Result<Features, StoreError> {
        features::features(&self.bucket).map_err(|f| self.bucket.error("ask for the settings of the bucket", f))
    }

    fn can_replace(&self, key: &Key, body: Bytes) -> Result<Option<bool>, StoreError> {
        features::can_replace(&self.bucket, key, &body).map_err(|f| self.bucket.error(format_args!("replace {key}"), f))
    }
}

/// What a range of an object turned out to be.
enum Opened {
    /// The answer, the size of the whole object and the length of the body, in bytes.
    Body(Box<GetObjectOutput>, u64, u64),
    /// Nothing, of an object of this size in bytes.
    BeyondEnd(u64),
    Absent,
}

fn no_etag() -> Failure {
    Failure::new(ErrorKind::BadAnswer, "the answer is a success without an ETag, which S3 does not give")
        .hint("check the endpoint; a proxy or portal may be answering instead of the store")
}

fn explain_denied(failure: Failure) -> Failure {
    if failure.says(403, "AccessDenied") {
        failure
            .hint("the credentials need s3:GetObject and s3:ListBucket; without the latter S3 answers 403 for absent objects too")
    } else {
        failure
    }
}

/// Size of the whole object and length of the body, when the answer's headers make sense for what was asked.
fn extent(output: &GetObjectOutput, range: ReadRange) -> Result<(u64, u64), Failure> {
    let wrong = |what: String| Err(Failure::new(ErrorKind::BadAnswer, what));
    if output.e_tag().is_none() {
        return Err(no_etag());
    }
    let Some(length) = output.content_length().and_then(|n| u64::try_from(n).ok()) else {
        return wrong("the answer has no Content-Length".to_owned());
    };
    let (offset, limit) = match range {
        ReadRange::All | ReadRange::From(0) => {
            return match output.content_range() {
                None => Ok((length, length)),
                Some(range) => wrong(format!("the whole object was asked for and {} came", quote(range))),
            };
        }
        ReadRange::From(offset) => (offset, u64::MAX),
        ReadRange::Bounded { offset, len } => (offset, len.max(1)),
    };
    let lacks = |what: String| {
        let failure = Failure::new(ErrorKind::Unsupported, what);
        Err(failure.hint(
            "the store does not give parts of objects as S3 does (Range): a newer version of it may, or choose another store",
        ))
    };
    let Some(header) = output.content_range() else { return lacks("the store ignored the range that was asked for".to_owned()) };
    match parse_content_range(header) {
        // Of an empty object there is no range; s3rver gives one all the same.
        Some((0, 0, 0)) if length <= 1 => Ok((0, 0)),
        // s3rver takes an end at byte 0 for none.
        Some((first, last, size))
            if first == offset
                && first <= last
                && last < size
                && length == last - first + 1
                && length >= limit.min(size - offset) =>
        {
            Ok((size, length))
        }
        _ => lacks(format!("bytes from {offset} on were asked for and {} of {length} bytes came", quote(header))),
    }
}

/// `bytes 0-99/1234` as first, last and size.
fn parse_content_range(header: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents() {
        let answer = |length: i64, range: &str| {
            GetObjectOutput::builder().e_tag("\"x\"").content_length(length).content_range(range).build()
        };
        let middle = ReadRange::Bounded { offset: 10, len: 20 };
        for (range, length, header, extent_of) in [
            (middle, 20, "bytes 10-29/1000", Some((1000, 20))),
            (middle, 5, "bytes 10-14/15", Some((15, 5))),
            (middle, 990, "bytes 10-999/1000", Some((1000, 990))),
            (middle, 19, "bytes 10-28/1000", None),
            (middle, 20, "bytes 9-28/1000", None),
            (middle, 21, "bytes 10-29/1000", None),
            (middle, 20, "bytes 0-0/0", None),
            (ReadRange::From(3), 7, "bytes 3-9/10", Some((10, 7))),
            (ReadRange::From(3), 6, "bytes 3-8/10", None),
            // As s3rver answers for an empty object.
            (middle, 1, "bytes 0-0/0", Some((0, 0))),
        ] {
            assert_eq!(extent(&answer(length, header), range).ok(), extent_of, "{range:?} {header}");
        }
    }
}
