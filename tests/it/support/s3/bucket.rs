//! What a bucket does, for `s3s` to speak the protocol around it: objects in files of a temporary directory, names in a
//! sorted map.
//!
//! Not `s3s-fs`: its `If-None-Match` looks first and publishes later (two writers can both win), it cannot list
//! uploads, answers `AccessDenied` for an upload that is no more and `NoSuchKey` for a missing bucket, limits names to
//! about 150 bytes, and walks the whole directory for every page of a listing. Here all decisions are taken under one
//! lock, as in S3. Not there: versions, object lock (its headers are in the request log; moto has the behaviour),
//! copies, access control.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::future::Future;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Md5};
use s3s::dto::*;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use walvis::limits::MIB;

/// S3's smallest part, but for the last one.
const MIN_PART_BYTES: u64 = 5 * MIB as u64;

/// All buckets of a server.
#[derive(Clone)]
pub struct Buckets {
    state: Arc<Mutex<State>>,
    dir: Arc<PathBuf>,
    next_file: Arc<AtomicUsize>,
    /// Most objects in one page of a listing.
    pub page_len: Arc<AtomicUsize>,
    /// How many seconds its clock is ahead of this host's.
    pub ahead_s: Arc<AtomicI64>,
    /// Which requests look whether an object exists, and write a moment later without looking again.
    pub looks_first: Arc<Mutex<LooksFirst>>,
}

/// What a store does in two steps that ought to be one.
#[derive(Debug, Default, Clone, Copy)]
pub struct LooksFirst {
    pub puts: bool,
    pub completions: bool,
}

/// The moment between looking and writing.
const MOMENT: Duration = Duration::from_millis(5);

#[derive(Default)]
struct State {
    buckets: HashMap<String, BTreeMap<String, Stored>>,
    uploads: BTreeMap<String, Pending>,
}

#[derive(Clone)]
struct Stored {
    file: PathBuf,
    size: u64,
    etag: String,
    modified: SystemTime,
}

struct Pending {
    bucket: String,
    key: String,
    initiated: SystemTime,
    wants_crc32c: bool,
    parts: BTreeMap<i32, (Stored, Option<String>)>,
}

impl Buckets {
    pub fn new(dir: PathBuf, bucket: &str) -> Self {
        let mut state = State::default();
        state.buckets.insert(bucket.to_owned(), BTreeMap::new());
        Self {
            state: Arc::new(Mutex::new(state)),
            dir: Arc::new(dir),
            next_file: Arc::default(),
            page_len: Arc::new(AtomicUsize::new(1000)),
            ahead_s: Arc::default(),
            looks_first: Arc::default(),
        }
    }

    /// The present by its clock.
    fn now(&self) -> SystemTime {
        let ahead_s = self.ahead_s.load(Ordering::SeqCst);
        let by = Duration::from_secs(ahead_s.unsigned_abs());
        if ahead_s < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    /// Waits where the store looks first; whether it looks again when it writes.
    async fn looks_again(&self, which: impl Fn(LooksFirst) -> bool) -> bool {
        let looks_first = which(*self.looks_first.lock().unwrap());
        if looks_first {
            tokio::time::sleep(MOMENT).await;
        }
        !looks_first
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn save(&self, body: &[u8]) -> Stored {
        let file = self.dir.join(self.next_file.fetch_add(1, Ordering::Relaxed).to_string());
        fs::write(&file, body).unwrap();
        Stored { file, size: body.len() as u64, etag: etag(body), modified: self.now() }
    }

    /// Names and contents below a prefix, whatever the protocol says.
    pub fn objects(&self, bucket: &str, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.lock();
        let objects = state.buckets[bucket].iter().filter(|(name, _)| name.starts_with(prefix));
        objects.map(|(name, stored)| (name.clone(), fs::read(&stored.file).unwrap())).collect()
    }

    /// Puts an object there, replacing what was.
    pub fn insert(&self, bucket: &str, name: &str, body: &[u8]) {
        let stored = self.save(body);
        self.lock().buckets.get_mut(bucket).unwrap().insert(name.to_owned(), stored);
    }

    /// Puts a file there, which stays where it is.
    #[allow(dead_code)]
    pub fn insert_file(&self, bucket: &str, name: &str, file: &Path) {
        let stat = file.metadata().unwrap();
        let stored =
            Stored { file: file.to_owned(), size: stat.len(), etag: etag(name.as_bytes()), modified: stat.modified().unwrap() };
        self.lock().buckets.get_mut(bucket).unwrap().insert(name.to_owned(), stored);
    }

    /// Takes an object away; whether it was there.
    pub fn remove(&self, bucket: &str, name: &str) -> bool {
        self.lock().buckets.get_mut(bucket).unwrap().remove(name).is_some()
    }

    /// Names of the objects that have unfinished uploads, one for each.
    pub fn uploads(&self) -> Vec<String> {
        self.lock().uploads.values().map(|u| u.key.clone()).collect()
    }

    /// Makes all unfinished uploads older.
    pub fn age_uploads(&self, by: Duration) {
        for upload in self.lock().uploads.values_mut() {
            upload.initiated -= by;
        }
    }
}

impl State {
    fn bucket(&mut self, name: &str) -> S3Result<&mut BTreeMap<String, Stored>> {
        self.buckets.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    fn upload(&mut self, id: &str, bucket: &str, key: &str) -> S3Result<&mut Pending> {
        self.uploads
            .get_mut(id)
            .filter(|u| u.bucket == bucket && u.key == key)
            .ok_or_else(|| s3_error!(NoSuchUpload, "The specified upload does not exist. The upload ID may be invalid"))
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let all = Body::from(body).collect().await.map_err(|_| s3_error!(IncompleteBody))?;
    Ok(all.to_bytes())
}

/// Any 16 bytes will do, as where a store encrypts. MD5 would cost a good part of what is measured against this server.
fn etag(bytes: &[u8]) -> String {
    hex::encode(&blake3::hash(bytes).as_bytes()[..16])
}

/// Compares what the request says of its content with the content.
fn check_digests(body: &[u8], md5: Option<&str>, crc32: Option<&str>, crc32c: Option<&str>) -> S3Result<()> {
    let encode = |digest: &[u8]| aws_smithy_types::base64::encode(digest);
    let wrong = md5.is_some_and(|d| d != encode(Md5::checksum(body).as_ref()))
        || crc32.is_some_and(|d| d != encode(&Crc32::checksum(body)))
        || crc32c.is_some_and(|d| d != encode(&Crc32c::checksum(body)));
    if wrong { Err(s3_error!(BadDigest, "The digest you specified did not match what we received")) } else { Ok(()) }
}

fn file_body(bytes: Vec<u8>) -> StreamingBlob {
    StreamingBlob::from(Body::from(bytes))
}

/// Marks a request that is to be served as by a store that does not know conditional writes. (Its header can't be taken
/// away: it is under the signature.)
#[derive(Clone, Copy)]
pub struct IgnoreCondition;

/// What an input has of conditions.
trait Condition {
    fn forget_condition(&mut self) {}
}

impl Condition for PutObjectInput {
    fn forget_condition(&mut self) {
        self.if_none_match = None;
    }
}

impl Condition for CompleteMultipartUploadInput {
    fn forget_condition(&mut self) {
        self.if_none_match = None;
    }
}

impl Condition for GetObjectInput {}
impl Condition for HeadObjectInput {}
impl Condition for HeadBucketInput {}
impl Condition for ListObjectsV2Input {}
impl Condition for DeleteObjectInput {}
impl Condition for CreateMultipartUploadInput {}
impl Condition for UploadPartInput {}
impl Condition for AbortMultipartUploadInput {}
impl Condition for ListMultipartUploadsInput {}
impl Condition for DeleteObjectsInput {}
impl Condition for ListPartsInput {}

type Answer<'f, T> = Pin<Box<dyn Future<Output = S3Result<S3Response<T>>> + Send + 'f>>;

/// A method of the `S3` trait, written out as its `async_trait` attribute would.
macro_rules! operation {
    ($name:ident, $input:ty => $output:ty, |$this:ident, $request:ident| $body:block) => {
        fn $name<'s, 'f>(&'s self, request: S3Request<$input>) -> Answer<'f, $output>
        where
            's: 'f,
            Self: 'f,
        {
            let $this = self;
            Box::pin(async move {
                let mut $request = request.input;
                if request.extensions.get::<IgnoreCondition>().is_some() {
                    $request.forget_condition();
                }
                $body.map(S3Response::new)
            })
        }
    };
}

impl S3 for Buckets {
    operation!(put_object, PutObjectInput => PutObjectOutput, |this, r| {
        let body = collect(r.body).await?;
        check_digests(&body, r.content_md5.as_deref(), r.checksum_crc32.as_deref(), r.checksum_crc32c.as_deref())?;
        let stored = this.save(&body);
        let conditional = r.if_none_match.is_some_and(|c| c.is_any());
        let was_there = this.lock().bucket(&r.bucket)?.contains_key(&r.key);
        let looks_again = this.looks_again(|first| first.puts).await;
        let mut state = this.lock();
        let objects = state.bucket(&r.bucket)?;
        if conditional && if looks_again { objects.contains_key(&r.key) } else { was_there } {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        let e_tag = Some(ETag::Strong(stored.etag.clone()));
        objects.insert(r.key, stored);
        Ok(PutObjectOutput { e_tag, ..Default::default() })
    });

    operation!(get_object, GetObjectInput => GetObjectOutput, |this, r| {
        let stored = this.lock().bucket(&r.bucket)?.get(&r.key).cloned();
        let stored = stored.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
        let content = fs::read(&stored.file).unwrap();
        let (body, content_range) = match r.range {
            None => (content, None),
            Some(range) => {
                let part = range.check(stored.size)?;
                let header = format!("bytes {}-{}/{}", part.start, part.end - 1, stored.size);
                (content[part.start as usize..part.end as usize].to_vec(), Some(header))
            }
        };
        Ok(GetObjectOutput {
            content_length: Some(body.len() as i64),
            body: Some(file_body(body)),
            content_range,
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.modified.into()),
            ..Default::default()
        })
    });

    // Walvis asks neither for this nor for delimiters; the tools that it is measured against do.
    operation!(head_object, HeadObjectInput => HeadObjectOutput, |this, r| {
        let stored = this.lock().bucket(&r.bucket)?.get(&r.key).cloned();
        let stored = stored.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
        Ok(HeadObjectOutput {
            content_length: Some(stored.size as i64),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.modified.into()),
            ..Default::default()
        })
    });

    operation!(head_bucket, HeadBucketInput => HeadBucketOutput, |this, r| {
        this.lock().bucket(&r.bucket)?;
        Ok(HeadBucketOutput::default())
    });

    operation!(list_objects_v2, ListObjectsV2Input => ListObjectsV2Output, |this, r| {
        let prefix = r.prefix.clone().unwrap_or_default();
        let after = r.continuation_token.clone().or_else(|| r.start_after.clone()).unwrap_or_default();
        let page_len = this.page_len.load(Ordering::Relaxed).min(r.max_keys.unwrap_or(1000) as usize);
        let mut state = this.lock();
        let from = if after < prefix { Bound::Included(&prefix) } else { Bound::Excluded(&after) };
        let mut found = state
            .bucket(&r.bucket)?
            .range::<String, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(&prefix));
        let page: Vec<_> = found.by_ref().take(page_len).collect();
        let truncated = found.next().is_some();
        let next_continuation_token = page.last().filter(|_| truncated).map(|(name, _)| (*name).clone());
        // One directory deep: what lies deeper shows as the common beginning of its names.
        let deeper = |name: &str| {
            let delimiter = r.delimiter.as_deref().filter(|d| !d.is_empty())?;
            let at = name.get(prefix.len()..)?.find(delimiter)?;
            Some(name[..prefix.len() + at + delimiter.len()].to_owned())
        };
        let directories: std::collections::BTreeSet<String> = page.iter().filter_map(|(name, _)| deeper(name)).collect();
        let common_prefixes = directories.into_iter().map(|d| CommonPrefix { prefix: Some(d) }).collect::<Vec<_>>();
        let contents: Vec<_> = page
            .into_iter()
            .filter(|(name, _)| deeper(name).is_none())
            .map(|(name, stored)| Object {
                key: Some(name.clone()),
                size: Some(stored.size as i64),
                last_modified: Some(stored.modified.into()),
                e_tag: Some(ETag::Strong(stored.etag.clone())),
                ..Default::default()
            })
            .collect();
        Ok(ListObjectsV2Output {
            name: Some(r.bucket),
            prefix: r.prefix,
            max_keys: Some(page_len as i32),
            key_count: Some((contents.len() + common_prefixes.len()) as i32),
            common_prefixes: (!common_prefixes.is_empty()).then_some(common_prefixes),
            delimiter: r.delimiter.clone(),
            contents: Some(contents),
            is_truncated: Some(truncated),
            next_continuation_token,
            continuation_token: r.continuation_token,
            start_after: r.start_after,
            ..Default::default()
        })
    });

    operation!(delete_object, DeleteObjectInput => DeleteObjectOutput, |this, r| {
        this.lock().bucket(&r.bucket)?.remove(&r.key);
        Ok(DeleteObjectOutput::default())
    });

    operation!(delete_objects, DeleteObjectsInput => DeleteObjectsOutput, |this, r| {
        if r.delete.objects.len() > 1000 {
            return Err(s3_error!(MalformedXML, "The XML you provided was not well-formed"));
        }
        let mut state = this.lock();
        let objects = state.bucket(&r.bucket)?;
        let delete = |object: ObjectIdentifier| {
            objects.remove(&object.key);
            DeletedObject { key: Some(object.key), ..Default::default() }
        };
        let deleted: Vec<DeletedObject> = r.delete.objects.into_iter().map(delete).collect();
        let deleted = (r.delete.quiet != Some(true)).then_some(deleted);
        Ok(DeleteObjectsOutput { deleted, ..Default::default() })
    });

    operation!(list_parts, ListPartsInput => ListPartsOutput, |this, r| {
        let mut state = this.lock();
        let upload = state.upload(&r.upload_id, &r.bucket, &r.key)?;
        let part = |(number, (stored, _)): (&i32, &(Stored, Option<String>))| Part {
            part_number: Some(*number),
            size: Some(stored.size as i64),
            e_tag: Some(ETag::Strong(stored.etag.clone())),
            ..Default::default()
        };
        let parts: Vec<Part> = upload.parts.iter().map(part).collect();
        Ok(ListPartsOutput {
            bucket: Some(r.bucket),
            key: Some(r.key),
            upload_id: Some(r.upload_id),
            parts: Some(parts),
            is_truncated: Some(false),
            ..Default::default()
        })
    });

    operation!(create_multipart_upload, CreateMultipartUploadInput => CreateMultipartUploadOutput, |this, r| {
        let mut state = this.lock();
        state.bucket(&r.bucket)?;
        let id = format!("upload-{:06}", this.next_file.fetch_add(1, Ordering::Relaxed));
        let wants_crc32c = r.checksum_algorithm.is_some_and(|a| a.as_str() == ChecksumAlgorithm::CRC32C);
        let initiated = this.now();
        let pending =
            Pending { bucket: r.bucket.clone(), key: r.key.clone(), initiated, wants_crc32c, parts: BTreeMap::new() };
        state.uploads.insert(id.clone(), pending);
        Ok(CreateMultipartUploadOutput { bucket: Some(r.bucket), key: Some(r.key), upload_id: Some(id), ..Default::default() })
    });

    operation!(upload_part, UploadPartInput => UploadPartOutput, |this, r| {
        let body = collect(r.body).await?;
        check_digests(&body, r.content_md5.as_deref(), r.checksum_crc32.as_deref(), r.checksum_crc32c.as_deref())?;
        let stored = this.save(&body);
        let mut state = this.lock();
        let upload = state.upload(&r.upload_id, &r.bucket, &r.key)?;
        if upload.wants_crc32c && r.checksum_crc32c.is_none() {
            return Err(s3_error!(InvalidRequest, "Checksum Type mismatch occurred, expected checksum Type: crc32c"));
        }
        if !(1..=10_000).contains(&r.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"));
        }
        let e_tag = Some(ETag::Strong(stored.etag.clone()));
        upload.parts.insert(r.part_number, (stored, r.checksum_crc32c));
        Ok(UploadPartOutput { e_tag, ..Default::default() })
    });

    operation!(complete_multipart_upload, CompleteMultipartUploadInput => CompleteMultipartUploadOutput, |this, r| {
        let conditional = r.if_none_match.is_some_and(|c| c.is_any());
        let was_there = this.lock().bucket(&r.bucket)?.contains_key(&r.key);
        let looks_again = this.looks_again(|first| first.completions).await;
        let mut state = this.lock();
        state.bucket(&r.bucket)?;
        let upload = state.upload(&r.upload_id, &r.bucket, &r.key)?;
        let named = r.multipart_upload.and_then(|u| u.parts).unwrap_or_default();
        if named.is_empty() {
            return Err(s3_error!(MalformedXML, "The XML you provided was not well-formed"));
        }
        let mut content = Vec::new();
        let mut digests = Vec::new();
        let mut last_number = 0;
        for (i, part) in named.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            if number <= last_number {
                return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order"));
            }
            last_number = number;
            let given = upload.parts.get(&number).filter(|(s, _)| part.e_tag.as_ref().map(ETag::value) == Some(&s.etag));
            let Some((stored, crc32c)) = given else {
                return Err(s3_error!(InvalidPart, "One or more of the specified parts could not be found"));
            };
            if upload.wants_crc32c && part.checksum_crc32c != *crc32c {
                return Err(s3_error!(InvalidRequest, "The complete request must include the checksum for each part"));
            }
            if i + 1 < named.len() && stored.size < MIN_PART_BYTES {
                return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
            }
            content.extend(fs::read(&stored.file).unwrap());
            digests.extend(hex::decode(&stored.etag).unwrap());
        }
        let objects = state.bucket(&r.bucket)?;
        if conditional && if looks_again { objects.contains_key(&r.key) } else { was_there } {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        let mut stored = this.save(&content);
        stored.etag = format!("{}-{}", etag(&digests), named.len());
        let e_tag = Some(ETag::Strong(stored.etag.clone()));
        objects.insert(r.key.clone(), stored);
        state.uploads.remove(&r.upload_id);
        Ok(CompleteMultipartUploadOutput { bucket: Some(r.bucket), key: Some(r.key), e_tag, ..Default::default() })
    });

    operation!(abort_multipart_upload, AbortMultipartUploadInput => AbortMultipartUploadOutput, |this, r| {
        let mut state = this.lock();
        state.upload(&r.upload_id, &r.bucket, &r.key)?;
        state.uploads.remove(&r.upload_id);
        Ok(AbortMultipartUploadOutput::default())
    });

    operation!(list_multipart_uploads, ListMultipartUploadsInput => ListMultipartUploadsOutput, |this, r| {
        let mut state = this.lock();
        state.bucket(&r.bucket)?;
        let prefix = r.prefix.clone().unwrap_or_default();
        let mut uploads: Vec<_> = state
            .uploads
            .iter()
            .filter(|(_, u)| u.bucket == r.bucket && u.key.starts_with(&prefix))
            .map(|(id, u)| MultipartUpload {
                key: Some(u.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(u.initiated.into()),
                ..Default::default()
            })
            .collect();
        uploads.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(ListMultipartUploadsOutput {
            bucket: Some(r.bucket),
            prefix: r.prefix,
            uploads: Some(uploads),
            is_truncated: Some(false),
            ..Default::default()
        })
    });
}
