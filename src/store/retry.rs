//! Tries again what failed, as long as that can help.
//!
//! Each request is retried by itself: a part of an upload, its completion, a page of a listing (from the last object
//! seen), the rest of a body (from the byte reached). Whether a retry can help is asked of the error
//! ([`StoreError::is_permanent`]); when to give up is the deadline's business, and the policy's; a deadline of every
//! single request counts alone, from the first attempt.
//!
//! Under [`super::claims`], not above it: a claim is then held across the retries of the request that it guards.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::features::Features;
use super::health::Health;
use super::{ContentId, Created, Deleted, Entry, ErrorKind, Hidden, Key, Leftover, Object, ReadRange, Store, StoreError, Upload};
use crate::deadline::Deadline;
use crate::limits::{DELETED_AT_ONCE, RETRY_ATTEMPTS, RETRY_FIRST_DELAY, RETRY_MAX_DELAY};
use crate::waiting::{self, Waiting};

/// How often and how fast. The delay before attempt `n + 1` is random between zero and `first_delay × 2^(n-1)`, at most
/// `max_delay` ("full jitter": many clients that failed together do not come back together).
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Upper end of the first delay.
    pub first_delay: Duration,
    /// Upper end of any delay.
    pub max_delay: Duration,
    /// Attempts of one request, the first included; progress within it (objects listed, bytes read) starts the count
    /// anew.
    pub attempts: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { first_delay: RETRY_FIRST_DELAY, max_delay: RETRY_MAX_DELAY, attempts: RETRY_ATTEMPTS }
    }
}

/// A store that retries.
pub struct Retry {
    inner: Arc<dyn Store>,
    policy: Policy,
    deadline: Deadline,
    health: Option<Arc<Health>>,
}

impl Retry {
    /// Retries the requests to `inner` until `deadline`.
    pub fn new(inner: Arc<dyn Store>, policy: Policy, deadline: Deadline) -> Self {
        Self { inner, policy, deadline, health: None }
    }

    /// Shares what is known of whether the store answers.
    #[must_use]
    pub fn watched_by(self, health: Arc<Health>) -> Self {
        Self { health: Some(health), ..self }
    }

    /// The error of a store that was given up before.
    fn given_up(&self) -> Result<(), StoreError> {
        self.health.as_ref().and_then(|health| health.given_up(self.inner.location())).map_or(Ok(()), Err)
    }

    fn run<T>(&self, mut request: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.given_up()?;
        let mut attempts = Attempts::new(self);
        loop {
            match request() {
                Ok(answer) => {
                    attempts.succeeded();
                    return Ok(answer);
                }
                Err(error) => attempts.failed(error)?,
            }
        }
    }

    /// A listing, which goes on after the last object seen.
    fn pages(&self, after: &str, mut list: impl FnMut(&str, &mut Seen<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.given_up()?;
        let mut after = after.to_owned();
        let mut attempts = Attempts::new(self);
        loop {
            let mut last: Option<Key> = None;
            let mut has_enough = false;
            let outcome = list(&after, &mut |key, flow| {
                last = Some(key);
                has_enough = flow.is_break();
                flow
            });
            if has_enough || outcome.is_ok() {
                attempts.succeeded();
                return Ok(());
            }
            if let Some(key) = last {
                key.as_str().clone_into(&mut after);
                attempts.succeeded();
                attempts = Attempts::new(self);
            }
            if let Err(error) = outcome {
                attempts.failed(error)?;
            }
        }
    }
}

/// Is told of each object that a listing shows, and what its visitor said; passes that on.
type Seen<'a> = dyn FnMut(Key, ControlFlow<()>) -> ControlFlow<()> + 'a;

/// The attempts at one request.
struct Attempts<'a> {
    retry: &'a Retry,
    made: u32,
    since: Instant,
    waiting: Waiting,
    /// What the last one said.
    said: Option<String>,
}

impl<'a> Attempts<'a> {
    fn new(retry: &'a Retry) -> Self {
        let waiting = waiting::on(format!("an answer of {}", retry.inner.location()));
        Self { retry, made: 0, since: Instant::now(), said: None, waiting }
    }

    /// Waits before the next attempt, or gives the error back when there should be none.
    fn failed(&mut self, mut error: StoreError) -> Result<(), StoreError> {
        self.made += 1;
        let said = self.said.replace(error.detail.clone());
        if let (ErrorKind::TimedOut, true, Some(said)) = (error.kind, error.is_permanent(), said) {
            // The last attempt had no time left: what the store said before is the cause.
            error.detail = format!("{said}; and {}", error.detail);
        }
        if error.is_permanent() {
            match error.kind {
                ErrorKind::NotFound | ErrorKind::NoSuchPlace | ErrorKind::Denied | ErrorKind::Held => self.succeeded(),
                ErrorKind::TimedOut => self.gave_up(&error),
                _ => {}
            }
            return Err(self.tell(error));
        }
        let health = self.retry.health.as_deref();
        let is_first = health.is_some_and(|health| health.failed(&error));
        let policy = self.retry.policy;
        let ceiling =
            policy.first_delay.saturating_mul(1_u32.checked_shl(self.made - 1).unwrap_or(u32::MAX)).min(policy.max_delay);
        let delay = ceiling.mul_f64(fastrand::f64());
        let deadline = &self.retry.deadline;
        let over = if deadline.is_each() {
            self.since.elapsed() + delay >= deadline.limit()
        } else {
            !deadline.is_patient() && self.made >= policy.attempts || delay >= deadline.remaining()
        };
        let has_less = health.and_then(Health::first_patience).is_some_and(|patience| self.since.elapsed() + delay >= patience);
        if over || has_less {
            self.gave_up(&error);
            return Err(self.tell(error));
        }
        if deadline.is_each() && is_first {
            // Somebody may be watching a command that takes long.
            tracing::warn!("{error}; it is tried again for at most {} s", deadline.limit().as_secs());
        }
        tracing::debug!(
            action = %error.action,
            location = %error.location,
            reason = %error.detail,
            attempt = self.made,
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "request failed, trying again"
        );
        self.waiting.is_for(format!("an answer of {}, attempt {}: {}", error.location, self.made + 1, error.detail));
        std::thread::sleep(delay);
        Ok(())
    }

    fn gave_up(&self, error: &StoreError) {
        if let Some(health) = &self.retry.health {
            health.gave_up(error.kind, self.since);
        }
    }

    fn succeeded(&self) {
        if let Some(health) = &self.retry.health {
            health.succeeded();
        }
    }

    fn tell(&self, mut error: StoreError) -> StoreError {
        if self.made > 1 {
            error.detail = format!("{} ({} attempts in {:.1} s)", error.detail, self.made, self.since.elapsed().as_secs_f64());
        }
        error
    }
}

impl Store for Retry {
    fn location(&self) -> &str {
        self.inner.location()
    }

    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        self.run(|| self.inner.create(key, body.clone(), content))
    }

    fn begin(&self, key: &Key, content: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        let inner = self.run(|| self.inner.begin(key, content))?;
        Ok(Box::new(RetryUpload { retry: self, inner }))
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        let object = self.run(|| self.inner.read(key, range))?;
        let size_bytes = object.size_bytes;
        let rest = size_bytes.saturating_sub(range.offset());
        let left = match range {
            ReadRange::All | ReadRange::From(_) => rest,
            ReadRange::Bounded { len, .. } => rest.min(len),
        };
        let attempts = Attempts::new(self);
        let body = Body { attempts, key: key.clone(), size_bytes, at: range.offset(), left, body: Some(object.body) };
        Ok(Object { size_bytes, body: Box::new(body) })
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.pages(after, |after, seen| {
            self.inner.list(prefix, after, &mut |entry| {
                let key = entry.key.clone();
                let flow = visit(entry);
                seen(key, flow)
            })
        })
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.run(|| self.inner.make_durable(key))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.run(|| self.inner.delete(key))
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        let mut deleted = Vec::with_capacity(keys.len());
        for keys in keys.chunks(DELETED_AT_ONCE) {
            deleted.extend(self.run(|| self.inner.delete_many(keys))?);
        }
        Ok(deleted)
    }

    fn leftovers(&self, older_than: Duration) -> Result<Vec<Leftover>, StoreError> {
        self.run(|| self.inner.leftovers(older_than))
    }

    fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, StoreError> {
        self.run(|| self.inner.remove_leftover(leftover))
    }

    fn hidden(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.pages(after, |after, seen| {
            self.inner.hidden(prefix, after, &mut |hidden| {
                let key = hidden.key.clone();
                let flow = visit(hidden);
                seen(key, flow)
            })
        })
    }

    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError> {
        self.run(|| self.inner.purge(hidden))
    }

    fn features(&self) -> Result<Features, StoreError> {
        self.run(|| self.inner.features())
    }

    fn can_replace(&self, key: &Key, body: Bytes) -> Result<Option<bool>, StoreError> {
        self.run(|| self.inner.can_replace(key, body.clone()))
    }
}

struct RetryUpload<'a> {
    retry: &'a Retry,
    inner: Box<dyn Upload + 'a>,
}

impl Upload for RetryUpload<'_> {
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        let inner = &mut self.inner;
        self.retry.run(|| inner.part(body.clone()))
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        let inner = &mut self.inner;
        self.retry.run(|| inner.complete())
    }
}

/// A body that is opened again at the byte reached when reading it fails.
struct Body<'a> {
    attempts: Attempts<'a>,
    key: Key,
    /// Size of the whole object when it was opened first.
    size_bytes: u64,
    /// The next byte.
    at: u64,
    /// Bytes of the range not delivered yet.
    left: u64,
    /// `None` after a failure.
    body: Option<Box<dyn Read + Send + 'a>>,
}

impl Body<'_> {
    fn error(&self, kind: ErrorKind, detail: String) -> StoreError {
        StoreError::new(kind, format!("read {}", self.key), self.attempts.retry.location(), detail)
    }

    /// One attempt at reading into `buf`, which is not longer than what is left.
    fn attempt(&mut self, buf: &mut [u8]) -> Result<usize, StoreError> {
        let body = match &mut self.body {
            Some(body) => body,
            none => {
                let range = ReadRange::Bounded { offset: self.at, len: self.left };
                let object = self.attempts.retry.inner.read(&self.key, range)?;
                if object.size_bytes != self.size_bytes {
                    let detail =
                        format!("its size changed from {} to {} bytes while it was read", self.size_bytes, object.size_bytes);
                    return Err(self.error(ErrorKind::BadAnswer, detail).permanently());
                }
                none.insert(object.body)
            }
        };
        loop {
            return match body.read(buf) {
                Ok(0) => {
                    let detail = format!("the body ended at byte {}, {} bytes early", self.at, self.left);
                    Err(self.error(ErrorKind::BadAnswer, detail))
                }
                Ok(n) => Ok(n),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => Err(StoreError::from_io(e).unwrap_or_else(|e| self.error(ErrorKind::Unreachable, e.to_string()))),
            };
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..want).filter(|buf| !buf.is_empty()) else { return Ok(0) };
        loop {
            match self.attempt(buf) {
                Ok(n) => {
                    self.attempts.succeeded();
                    self.attempts = Attempts::new(self.attempts.retry);
                    self.at += n as u64;
                    self.left -= n as u64;
                    return Ok(n);
                }
                Err(error) => {
                    self.body = None;
                    self.attempts.failed(error).map_err(StoreError::into_io)?;
                }
            }
        }
    }
}
