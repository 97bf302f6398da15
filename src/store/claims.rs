//! Create-if-absent for stores that have none: claims.
//!
//! Some S3 services ignore `If-None-Match`: they overwrite and answer 200. On those two writers of one key could
//! destroy each other's object without anybody noticing. This decorator keeps that from happening as long as all
//! writers use it.
//!
//! # Protocol
//! To create `key` with content of id `c`:
//!
//! 1. If `key` exists: `Exists`.
//! 2. If there is a living claim of other content under `claims/<key>/`: wait (8). Spares 3 to 5, and keeps two writers
//!    whose credentials cannot delete from blocking each other with ever new claims.
//! 3. Put an empty object, the claim, `claims/<key>/<c>-<random>`. A name is never used again once its deletion was
//!    requested.
//! 4. List `claims/<key>/`. If there is a living claim of other content: delete the own claim and wait (8).
//! 5. If `key` exists: delete the own claim; `Exists`.
//! 6. Put `key`.
//! 7. If 6 was answered with success: delete the own claim and those that are dead; `New`. If it failed, the claim
//!    stays: the request may still be on its way.
//! 8. Wait a random time and begin again at 1; after a bounded number of times, or at the deadline,
//!    [`ErrorKind::Busy`].
//!
//! A claim is **dead** when it is more than [`ABANDONED_AFTER`] older than the own one, both by the store's clock, so
//! that the clocks of the writers do not matter; else it is living. (In 2 there is no own claim yet and our clock
//! stands in. If it is wrong we wait for nothing, or go on to 4, which is right.) A writer whose claim is older than a
//! quarter of that, by the monotonic or by the wall clock, puts it again and repeats 4 before it goes on to 5; its
//! deadline ends 6, at most [`MAX_TIMEOUT`](crate::limits::MAX_TIMEOUT) later. So `key` is not put under a dead claim.
//! An upload in parts does 1 to 4 when it begins, and 5 to 7 when it completes.
//!
//! # Why no object is ever replaced by other content
//! Given that the store's puts, lists and deletes are strongly consistent (each takes effect at one moment between
//! request and answer, in one order for all). Suppose writers V and W with different contents both put `key`. One of
//! them put its claim first; let it be V. W listed the claims (4) after it put its own, thus after V put its. W put
//! `key`, so it did not see V's claim; so that was deleted before W's list. V deletes its claim in 4 and 5, after which
//! it does not put `key` under this claim, or in 7, after its put was answered. So V's put came before V's delete,
//! before W's list, before W's check that `key` exists (5), which then found it: W did not put. Contradiction. (A dead
//! claim may be deleted by others, but only in 7, after `key` was put, which W then found as well.)
//!
//! An answer that is lost does no harm: a put of a claim or its deletion that arrives late concerns a name that nobody
//! relies on, and a put of `key` that arrives late is covered by the claim, which was not deleted.
//!
//! Writers of the **same content** do not see each other's claims as an obstacle, so a retry after a crash goes ahead
//! at once. Both may put `key`, and both get `New`: the later put replaces the object by one of equal content id. Each
//! has a claim with a name of its own: were it one name for both, the first to finish would delete the protection of
//! the other.
//!
//! # What it does not cover
//! A writer whose process or host is stopped for hours in the instant between its last look at the clock and the
//! sending of the request, and then sends it; writers that do not use claims; stores whose listings lag behind (noticed
//! when the own claim is missing, and an error then). Where credentials cannot delete, claims stay behind. That is
//! harmless: they are looked at only while `key` does not exist, and die.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::claim_name::{ClaimName, PREFIX};
use super::features::Features;
use super::retry::Policy;
use super::{ContentId, Created, Deleted, Entry, ErrorKind, Hidden, Key, Leftover, Object, ReadRange, Store, StoreError, Upload};
use crate::deadline::Deadline;
use crate::limits::{ABANDONED_AFTER, CLAIM_RENEWED_AFTER, MAX_CLAIMS};

/// Create-if-absent by claims.
pub struct Claims {
    inner: Arc<dyn Store>,
    policy: Policy,
    deadline: Deadline,
}

/// A claim that was put and found to be without living rivals.
struct Held {
    claim: Key,
    put: Moment,
    dead: Vec<Key>,
}

enum Acquired {
    Held(Held),
    Exists,
}

/// A moment by two clocks: one that cannot be set, and one that goes on while the host sleeps.
struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    fn age(&self) -> Duration {
        self.monotonic.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

impl Claims {
    /// Guards the creations in `inner`, whose `create` and `complete` may overwrite and answer `New`. `policy` bounds
    /// how often and how long it gives way to another writer.
    pub fn new(inner: Arc<dyn Store>, policy: Policy, deadline: Deadline) -> Self {
        Self { inner, policy, deadline }
    }

    /// Steps 1 to 4 and 8.
    fn acquire(&self, key: &Key, content: &ContentId) -> Result<Acquired, StoreError> {
        let mut ceiling = self.policy.first_delay;
        let mut last_rival = None;
        for attempt in 1_u32.. {
            let rival = match self.attempt(key, content) {
                Ok(Ok(acquired)) => return Ok(acquired),
                Ok(Err(rival)) => rival,
                // What it waited for says more than that time is over.
                Err(error) => match last_rival {
                    Some(rival) if error.kind == ErrorKind::TimedOut => return Err(self.busy(key, &rival)),
                    _ => return Err(error),
                },
            };
            let delay = ceiling.mul_f64(fastrand::f64());
            if attempt >= self.policy.attempts || delay >= self.deadline.remaining() {
                return Err(self.busy(key, &rival));
            }
            tracing::debug!(%key, claim = %rival, "another writer claims this object, waiting");
            std::thread::sleep(delay);
            last_rival = Some(rival);
            ceiling = ceiling.saturating_mul(2).min(self.policy.max_delay);
        }
        Err(self.error(ErrorKind::Busy, key, "it is claimed by other writers".to_owned()))
    }

    /// Steps 1 to 4 once: or the rival that it gave way to.
    fn attempt(&self, key: &Key, content: &ContentId) -> Result<Result<Acquired, Key>, StoreError> {
        if self.exists(key)? {
            return Ok(Ok(Acquired::Exists));
        }
        match living_rival(&self.claims_on(key)?, content, now_unix_s()) {
            Some(rival) => Ok(Err(rival.key.clone())),
            None => Ok(self.claim(key, content)?.map(Acquired::Held)),
        }
    }

    /// Steps 3 and 4: a claim, or the rival that it gave way to.
    fn claim(&self, key: &Key, content: &ContentId) -> Result<Result<Held, Key>, StoreError> {
        let claim = ClaimName::new(key, content)
            .key()
            .ok_or_else(|| self.error(ErrorKind::Unsupported, key, "its name is too long for a claim on it".to_owned()))?;
        let outcome = self.put_claim(key, content, &claim);
        if !matches!(outcome, Ok(Ok(_))) {
            self.forget(&claim);
        }
        outcome
    }

    /// Puts a claim, new or again, and looks for rivals. The claim stays in any case.
    fn put_claim(&self, key: &Key, content: &ContentId, claim: &Key) -> Result<Result<Held, Key>, StoreError> {
        let put = Moment::now(); // before the request: the claim is never older than we think
        let _overwritten_or_new = self.inner.create(claim, Bytes::new(), content)?;
        let claims = self.claims_on(key)?;
        let Some(own) = claims.iter().find(|entry| entry.key == *claim) else {
            let detail = format!("the store does not list {claim}, which it was just given: its listings lag behind its writes");
            return Err(self.error(ErrorKind::BadAnswer, key, detail));
        };
        let now = own.modified_unix_s;
        if let Some(rival) = living_rival(&claims, content, now) {
            return Ok(Err(rival.key.clone()));
        }
        let dead = claims.iter().filter(|entry| is_dead(entry, now)).map(|entry| entry.key.clone()).collect();
        Ok(Ok(Held { claim: claim.clone(), put, dead }))
    }

    /// Puts the claim again when it is due, so that nobody takes it for dead.
    fn renew(&self, key: &Key, content: &ContentId, held: &mut Held) -> Result<(), StoreError> {
        if held.put.age() < CLAIM_RENEWED_AFTER {
            return Ok(());
        }
        match self.put_claim(key, content, &held.claim)? {
            Ok(renewed) => {
                *held = renewed;
                Ok(())
            }
            Err(rival) => Err(self.busy(key, &rival)),
        }
    }

    fn exists(&self, key: &Key) -> Result<bool, StoreError> {
        let mut found = false;
        // The key itself comes before all others that begin with it.
        self.inner.list(key.as_str(), "", &mut |entry| {
            found = entry.key == *key;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// All claims on an object.
    fn claims_on(&self, key: &Key) -> Result<Vec<Entry>, StoreError> {
        let mut claims = Vec::new();
        let prefix = format!("{PREFIX}{key}/");
        self.inner.list(&prefix, "", &mut |entry| {
            // Claims on an object whose key begins with this one and a `/` are deeper.
            if entry.key.as_str().get(prefix.len()..).is_some_and(|name| !name.contains('/')) {
                claims.push(entry);
            }
            if claims.len() > MAX_CLAIMS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if claims.len() > MAX_CLAIMS {
            let hint = format!("delete the objects under {PREFIX}{key}/ when no Walvis is running");
            return Err(self
                .error(ErrorKind::Busy, key, format!("there are more than {MAX_CLAIMS} claims on it"))
                .with_hint(hint));
        }
        Ok(claims)
    }

    /// Step 7.
    fn release(&self, held: &Held) {
        self.forget(&held.claim);
        for claim in &held.dead {
            self.forget(claim);
        }
    }

    /// Deletes a claim, best effort: what is left dies of age.
    fn forget(&self, claim: &Key) {
        if let Err(error) = self.inner.delete(claim) {
            tracing::debug!(%claim, %error, "cannot delete a claim; it dies of age");
        }
    }

    fn busy(&self, key: &Key, rival: &Key) -> StoreError {
        let hours = ABANDONED_AFTER.as_secs() / 3600;
        self.error(ErrorKind::Busy, key, format!("another writer is creating it with other content (claim {rival})")).with_hint(
            format!(
                "let the other writer finish, and see that only one server archives under this name; if it died, its claim counts for \
                 nothing after {hours} hours, or delete the claim when no Walvis is running"
            ),
        )
    }

    fn error(&self, kind: ErrorKind, key: &Key, detail: String) -> StoreError {
        StoreError::new(kind, format!("create {key}"), self.inner.location(), detail)
    }
}

impl Store for Claims {
    fn location(&self) -> &str {
        self.inner.location()
    }

    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        let mut held = match self.acquire(key, content)? {
            Acquired::Held(held) => held,
            Acquired::Exists => return Ok(Created::Exists),
        };
        let is_taken = self.renew(key, content, &mut held).and_then(|()| self.exists(key));
        match is_taken {
            Ok(false) => {}
            Ok(true) => {
                self.release(&held);
                return Ok(Created::Exists);
            }
            Err(error) => {
                self.forget(&held.claim);
                return Err(error);
            }
        }
        let created = self.inner.create(key, body, content)?; // An error leaves the claim: the request may still be on its way.
        self.release(&held);
        Ok(created)
    }

    fn begin(&self, key: &Key, content: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        let held = match self.acquire(key, content)? {
            Acquired::Held(held) => held,
            Acquired::Exists => return Ok(Box::new(Superfluous)),
        };
        match self.inner.begin(key, content) {
            Ok(inner) => Ok(Box::new(ClaimedUpload {
                claims: self,
                key: key.clone(),
                content: *content,
                state: State::Open { held, inner },
            })),
            Err(error) => {
                self.forget(&held.claim);
                Err(error)
            }
        }
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        self.inner.read(key, range)
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.inner.list(prefix, after, visit)
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.make_durable(key)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        self.inner.delete_many(keys)
    }

    fn leftovers(&self, older_than: Duration) -> Result<Vec<Leftover>, StoreError> {
        self.inner.leftovers(older_than)
    }

    fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, StoreError> {
        self.inner.remove_leftover(leftover)
    }

    fn hidden(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.inner.hidden(prefix, after, visit)
    }

    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError> {
        self.inner.purge(hidden)
    }

    fn features(&self) -> Result<Features, StoreError> {
        self.inner.features()
    }

    fn can_replace(&self, key: &Key, body: Bytes) -> Result<Option<bool>, StoreError> {
        self.inner.can_replace(key, body)
    }
}

/// An upload of an object that exists already.
struct Superfluous;

impl Upload for Superfluous {
    fn part(&mut self, _: Bytes) -> Result<(), StoreError> {
        Ok(())
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        Ok(Created::Exists)
    }
}

struct ClaimedUpload<'a> {
    claims: &'a Claims,
    key: Key,
    content: ContentId,
    state: State<'a>,
}

enum State<'a> {
    /// No request to complete was sent.
    Open { held: Held, inner: Box<dyn Upload + 'a> },
    /// One was sent and not answered with success: the claim stays.
    Sent { held: Held, inner: Box<dyn Upload + 'a> },
    /// The object is there.
    Done,
}

impl Upload for ClaimedUpload<'_> {
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        match &mut self.state {
            State::Open { held, inner } | State::Sent { held, inner } => {
                self.claims.renew(&self.key, &self.content, held)?;
                inner.part(body)
            }
            State::Done => Ok(()),
        }
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        let (mut held, mut inner, was_sent) = match std::mem::replace(&mut self.state, State::Done) {
            State::Open { held, inner } => (held, inner, false),
            State::Sent { held, inner } => (held, inner, true),
            State::Done => return Ok(Created::Exists),
        };
        let is_taken = self.claims.renew(&self.key, &self.content, &mut held).and_then(|()| self.claims.exists(&self.key));
        let outcome = match is_taken {
            Ok(true) => Ok(Created::Exists),
            Ok(false) => inner.complete(),
            Err(error) => {
                self.state = if was_sent { State::Sent { held, inner } } else { State::Open { held, inner } };
                return Err(error);
            }
        };
        match outcome {
            Ok(_) => self.claims.release(&held),
            Err(_) => self.state = State::Sent { held, inner },
        }
        outcome
    }
}

impl Drop for ClaimedUpload<'_> {
    fn drop(&mut self) {
        if let State::Open { held, .. } = &self.state {
            self.claims.forget(&held.claim);
        }
    }
}

/// A claim of other content that is not dead at `now`, in Unix seconds.
fn living_rival<'a>(claims: &'a [Entry], content: &ContentId, now: Option<i64>) -> Option<&'a Entry> {
    claims.iter().find(|entry| {
        let is_same = ClaimName::parse(entry.key.as_str()).is_some_and(|claim| claim.content == *content);
        !is_same && !is_dead(entry, now)
    })
}

/// Whether a claim counts for nothing at `now`. Without times it does count: better stuck than overwritten.
fn is_dead(claim: &Entry, now: Option<i64>) -> bool {
    let dead_after_s = i64::try_from(ABANDONED_AFTER.as_secs()).unwrap_or(i64::MAX);
    now.zip(claim.modified_unix_s).is_some_and(|(now, then)| now.saturating_sub(then) > dead_after_s)
}

fn now_unix_s() -> Option<i64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::store::memory::MemoryStore;

    const OWN: ContentId = ContentId([1; 16]);
    const OTHER: ContentId = ContentId([2; 16]);

    fn claims_over(memory: &Arc<MemoryStore>) -> Claims {
        let policy = Policy { first_delay: Duration::ZERO, max_delay: Duration::ZERO, attempts: 2 };
        Claims::new(Arc::<MemoryStore>::clone(memory), policy, Deadline::after(Duration::from_secs(60)))
    }

    fn key(text: impl Into<String>) -> Key {
        Key::new(text).unwrap()
    }

    fn modified(memory: &MemoryStore, key: &Key) -> Option<i64> {
        let mut modified = None;
        memory
            .list(key.as_str(), "", &mut |entry| {
                modified = entry.modified_unix_s;
                ControlFlow::Break(())
            })
            .unwrap();
        modified
    }

    fn held(claims: &Claims, object: &Key) -> Held {
        match claims.acquire(object, &OWN).unwrap() {
            Acquired::Held(held) => held,
            Acquired::Exists => panic!("it does not exist"),
        }
    }

    #[test]
    fn a_claim_is_put_again_when_it_is_due_and_not_before() {
        let memory = Arc::new(MemoryStore::without_conditions());
        let (claims, object) = (claims_over(&memory), key("object"));
        let mut held = held(&claims, &object);
        assert!(memory.backdate(&held.claim, CLAIM_RENEWED_AFTER));
        let old = modified(&memory, &held.claim).unwrap();
        claims.renew(&object, &OWN, &mut held).unwrap();
        assert_eq!(modified(&memory, &held.claim), Some(old));
        // The host slept: only the wall clock went on.
        held.put.wall -= CLAIM_RENEWED_AFTER;
        claims.renew(&object, &OWN, &mut held).unwrap();
        assert!(modified(&memory, &held.claim).unwrap() > old);
        assert!(held.put.age() < CLAIM_RENEWED_AFTER);
    }

    #[test]
    fn a_claim_that_died_protects_nothing_and_is_not_relied_on() {
        let memory = Arc::new(MemoryStore::without_conditions());
        let (claims, object) = (claims_over(&memory), key("object"));
        let begin = |by: Duration| {
            let mut held = held(&claims, &object);
            assert!(memory.backdate(&held.claim, by));
            held.put.wall -= by;
            let inner = claims.inner.begin(&object, &OWN).unwrap();
            ClaimedUpload { claims: &claims, key: object.clone(), content: OWN, state: State::Open { held, inner } }
        };
        let dead = ABANDONED_AFTER + Duration::from_secs(10);

        // Another writer is at work by now: nothing is written over its head, and both can go on when it gave up.
        let mut upload = begin(dead);
        let rival = ClaimName::new(&object, &OTHER).key().unwrap();
        assert_eq!(memory.create(&rival, Bytes::new(), &OTHER).unwrap(), Created::New);
        assert_eq!(upload.part(Bytes::from_static(b"own")).unwrap_err().kind, ErrorKind::Busy);
        assert_eq!(upload.complete().unwrap_err().kind, ErrorKind::Busy);
        memory.delete(&rival).unwrap();
        upload.part(Bytes::from_static(b"own")).unwrap();
        assert_eq!(upload.complete().unwrap(), Created::New);
        memory.delete(&object).unwrap();

        // Another writer took it for dead, created the object and removed the claim.
        let mut upload = begin(dead);
        assert_eq!(claims_over(&memory).create(&object, Bytes::from_static(b"other"), &OTHER).unwrap(), Created::New);
        assert_eq!(upload.complete().unwrap(), Created::Exists);
        drop(upload);
        let mut body = Vec::new();
        memory.read(&object, ReadRange::All).unwrap().body.read_to_end(&mut body).unwrap();
        assert_eq!(body, b"other");
        let mut left = Vec::new();
        memory
            .list(PREFIX, "", &mut |entry| {
                left.push(entry.key);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(left, []);
    }

    #[test]
    fn times_that_the_store_does_not_tell_never_kill_a_claim() {
        let claim = Entry { key: key("claims/object/x"), size_bytes: 0, modified_unix_s: None };
        assert!(!is_dead(&claim, Some(i64::MAX)));
        let claim = Entry { modified_unix_s: Some(0), ..claim };
        assert!(!is_dead(&claim, None));
        assert!(!is_dead(&claim, Some(ABANDONED_AFTER.as_secs() as i64)));
        assert!(is_dead(&claim, Some(ABANDONED_AFTER.as_secs() as i64 + 1)));
        assert!(living_rival(std::slice::from_ref(&claim), &OWN, Some(5)).is_some(), "a claim of unknown form was ignored");
    }
}
