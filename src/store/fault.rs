//! A store that fails as told, for tests: deterministic, by operation and ordinal.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::features::Features;
use super::{ContentId, Created, Deleted, Entry, ErrorKind, Hidden, Key, Leftover, Object, ReadRange, Store, StoreError, Upload};

/// What is being done to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Store::create`].
    Create,
    /// [`Store::begin`].
    Begin,
    /// [`Upload::part`].
    Part,
    /// [`Upload::complete`].
    Complete,
    /// [`Store::read`].
    Read,
    /// [`Store::list`].
    List,
    /// [`Store::make_durable`].
    MakeDurable,
    /// [`Store::delete`].
    Delete,
    /// [`Store::delete_many`], under its first key.
    DeleteMany,
    /// [`Store::leftovers`], under no key.
    Leftovers,
    /// [`Store::remove_leftover`], under the key that it was to become.
    RemoveLeftover,
    /// [`Store::hidden`].
    Hidden,
    /// [`Store::purge`], under its first key.
    Purge,
    /// [`Store::features`], under no key.
    Features,
    /// [`Store::can_replace`].
    CanReplace,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing is done; the answer is an error of this kind.
    Fail(ErrorKind),
    /// As `Fail`, and the error says that trying again is pointless.
    FailForGood(ErrorKind),
    /// It takes this much longer.
    Delay(Duration),
    /// It is done (a list: shown to its end), but the answer is an error of this kind.
    LoseAnswer(ErrorKind),
    /// Reads: the body fails with an error of this kind after this many bytes. Lists: after this many objects.
    /// Deletions of many: the first ones are deleted, this many.
    CutAfter(u64, ErrorKind),
    /// Reads: the body ends after this many bytes as if that were all. Lists: after this many objects.
    EndAfter(u64),
    /// Reads: the lowest bit of the byte at this offset of the object is flipped, if it is delivered. Creations and
    /// parts: of the byte at this offset of what is stored.
    FlipBit(u64),
}

/// When it goes wrong: the calls `first..first + times` of an operation on the keys that contain a text, counted from
/// 1.
#[derive(Debug, Clone)]
struct Rule {
    op: Op,
    key_part: String,
    first: u64,
    times: u64,
    effect: Effect,
    seen: u64,
}

/// A store with scripted faults.
pub struct Fault {
    inner: Arc<dyn Store>,
    script: Mutex<Vec<Rule>>,
    calls: Mutex<Vec<(Op, String)>>,
}

impl Fault {
    /// Passes everything on to `inner` until told otherwise.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, script: Mutex::default(), calls: Mutex::default() }
    }

    /// Lets call number `nth` of an operation (from 1, counted from now) go wrong.
    #[must_use]
    pub fn on(self, op: Op, nth: u64, effect: Effect) -> Self {
        self.add(op, "", nth, 1, effect);
        self
    }

    /// Lets `times` calls of an operation from number `first` on go wrong: `u64::MAX` for all of them.
    #[must_use]
    pub fn storm(self, op: Op, first: u64, times: u64, effect: Effect) -> Self {
        self.add(op, "", first, times, effect);
        self
    }

    /// As [`storm`](Self::storm), counting only calls whose key (for lists: prefix) contains `key_part`, on a store in
    /// use.
    pub fn add(&self, op: Op, key_part: &str, first: u64, times: u64, effect: Effect) {
        self.script().push(Rule { op, key_part: key_part.to_owned(), first, times, effect, seen: 0 });
    }

    /// Forgets all faults.
    pub fn heal(&self) {
        self.script().clear();
    }

    /// How often an operation was asked for.
    pub fn calls(&self, op: Op) -> usize {
        self.log().iter().filter(|(done, _)| *done == op).count()
    }

    /// All calls so far in order: operation and key, or prefix.
    pub fn log(&self) -> Vec<(Op, String)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn script(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and gives the effects that it has. Waits for those that delay.
    fn effects(&self, op: Op, key: &str) -> Vec<Effect> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((op, key.to_owned()));
        let mut effects = Vec::new();
        for rule in self.script().iter_mut().filter(|rule| rule.op == op && key.contains(&rule.key_part)) {
            rule.seen += 1;
            if rule.seen >= rule.first && rule.seen - rule.first < rule.times {
                effects.push(rule.effect);
            }
        }
        for effect in &effects {
            if let Effect::Delay(delay) = effect {
                std::thread::sleep(*delay);
            }
        }
        effects
    }

    fn error(&self, op: Op, key: &str, kind: ErrorKind) -> StoreError {
        StoreError::new(kind, format!("{op:?} {key}").to_lowercase(), self.inner.location(), "scripted fault")
    }

    /// Does an operation with its effects.
    fn run<T>(
        &self,
        op: Op,
        key: &str,
        effects: &[Effect],
        action: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for effect in effects {
            match effect {
                Effect::Fail(kind) => return Err(self.error(op, key, *kind)),
                Effect::FailForGood(kind) => return Err(self.error(op, key, *kind).permanently()),
                _ => {}
            }
        }
        let answer = action()?;
        for effect in effects {
            if let Effect::LoseAnswer(kind) = effect {
                return Err(self.error(op, key, *kind));
            }
        }
        Ok(answer)
    }
}

fn flipped(body: Bytes, effects: &[Effect]) -> Bytes {
    let mut body = body;
    for effect in effects {
        if let Effect::FlipBit(at) = effect {
            let mut copy = body.to_vec();
            if let Some(byte) = usize::try_from(*at).ok().and_then(|at| copy.get_mut(at)) {
                *byte ^= 1;
            }
            body = copy.into();
        }
    }
    body
}

impl Store for Fault {
    fn location(&self) -> &str {
        self.inner.location()
    }

    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        let effects = self.effects(Op::Create, key.as_str());
        self.run(Op::Create, key.as_str(), &effects, || self.inner.create(key, flipped(body, &effects), content))
    }

    fn begin(&self, key: &Key, content: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        let effects = self.effects(Op::Begin, key.as_str());
        let inner = self.run(Op::Begin, key.as_str(), &effects, || self.inner.begin(key, content))?;
        Ok(Box::new(FaultUpload { fault: self, key: key.clone(), inner }))
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        let effects = self.effects(Op::Read, key.as_str());
        let object = self.run(Op::Read, key.as_str(), &effects, || self.inner.read(key, range))?;
        let body = Body { fault: self, key: key.clone(), inner: object.body, at: range.offset(), delivered: 0, effects };
        Ok(Object { size_bytes: object.size_bytes, body: Box::new(body) })
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        let effects = self.effects(Op::List, prefix);
        let (mut seen, mut cut) = (0, None);
        self.run(Op::List, prefix, &effects, || {
            self.inner.list(prefix, after, &mut |entry| {
                for effect in &effects {
                    match effect {
                        Effect::CutAfter(n, kind) if seen >= *n => {
                            cut = Some(*kind);
                            return ControlFlow::Break(());
                        }
                        Effect::EndAfter(n) if seen >= *n => return ControlFlow::Break(()),
                        _ => {}
                    }
                }
                seen += 1;
                visit(entry)
            })
        })?;
        cut.map_or(Ok(()), |kind| Err(self.error(Op::List, prefix, kind)))
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        let effects = self.effects(Op::MakeDurable, key.as_str());
        self.run(Op::MakeDurable, key.as_str(), &effects, || self.inner.make_durable(key))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let effects = self.effects(Op::Delete, key.as_str());
        self.run(Op::Delete, key.as_str(), &effects, || self.inner.delete(key))
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        let first = keys.first().map_or("", Key::as_str);
        let effects = self.effects(Op::DeleteMany, first);
        self.run(Op::DeleteMany, first, &effects, || {
            for effect in &effects {
                let Effect::CutAfter(n, kind) = effect else { continue };
                let n = usize::try_from(*n).unwrap_or(usize::MAX).min(keys.len());
                self.inner.delete_many(keys.get(..n).unwrap_or(keys))?;
                return Err(self.error(Op::DeleteMany, first, *kind));
            }
            self.inner.delete_many(keys)
        })
    }

    fn leftovers(&self, older_than: Duration) -> Result<Vec<Leftover>, StoreError> {
        let effects = self.effects(Op::Leftovers, "");
        self.run(Op::Leftovers, "", &effects, || self.inner.leftovers(older_than))
    }

    fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, StoreError> {
        let key = leftover.key.as_ref().map_or("", Key::as_str);
        let effects = self.effects(Op::RemoveLeftover, key);
        self.run(Op::RemoveLeftover, key, &effects, || self.inner.remove_leftover(leftover))
    }

    fn hidden(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError> {
        let effects = self.effects(Op::Hidden, prefix);
        self.run(Op::Hidden, prefix, &effects, || self.inner.hidden(prefix, after, visit))
    }

    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError> {
        let first = hidden.first().map_or("", |hidden| hidden.key.as_str());
        let effects = self.effects(Op::Purge, first);
        self.run(Op::Purge, first, &effects, || self.inner.purge(hidden))
    }

    fn features(&self) -> Result<Features, StoreError> {
        let effects = self.effects(Op::Features, "");
        self.run(Op::Features, "", &effects, || self.inner.features())
    }

    fn can_replace(&self, key: &Key, body: Bytes) -> Result<Option<bool>, StoreError> {
        let effects = self.effects(Op::CanReplace, key.as_str());
        self.run(Op::CanReplace, key.as_str(), &effects, || self.inner.can_replace(key, body))
    }
}

struct FaultUpload<'a> {
    fault: &'a Fault,
    key: Key,
    inner: Box<dyn Upload + 'a>,
}

impl Upload for FaultUpload<'_> {
    /// A part whose answer is lost is not stored: the contract lets the same part be given again, so a store that has
    /// it already must be able to tell, and this one cannot. A failed part is thus always one that did not arrive.
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        let mut effects = self.fault.effects(Op::Part, self.key.as_str());
        for effect in &mut effects {
            if let Effect::LoseAnswer(kind) = *effect {
                *effect = Effect::Fail(kind);
            }
        }
        let inner = &mut self.inner;
        self.fault.run(Op::Part, self.key.as_str(), &effects, || inner.part(flipped(body, &effects)))
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        let effects = self.fault.effects(Op::Complete, self.key.as_str());
        let inner = &mut self.inner;
        self.fault.run(Op::Complete, self.key.as_str(), &effects, || inner.complete())
    }
}

struct Body<'a> {
    fault: &'a Fault,
    key: Key,
    inner: Box<dyn Read + Send + 'a>,
    /// Offset in the object of the next byte.
    at: u64,
    delivered: u64,
    effects: Vec<Effect>,
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut want = buf.len();
        for effect in &self.effects {
            let (Effect::CutAfter(limit, _) | Effect::EndAfter(limit)) = effect else { continue };
            want = want.min(usize::try_from(limit.saturating_sub(self.delivered)).unwrap_or(usize::MAX));
            if want == 0 && !buf.is_empty() {
                return match effect {
                    Effect::CutAfter(_, kind) => Err(self.fault.error(Op::Read, self.key.as_str(), *kind).into_io()),
                    _ => Ok(0),
                };
            }
        }
        let Some(buf) = buf.get_mut(..want) else { return Ok(0) };
        let n = self.inner.read(buf)?;
        for effect in &self.effects {
            let Effect::FlipBit(offset) = effect else { continue };
            let place =
                offset.checked_sub(self.at).filter(|place| *place < n as u64).and_then(|place| usize::try_from(place).ok());
            if let Some(byte) = place.and_then(|place| buf.get_mut(place)) {
                *byte ^= 1;
            }
        }
        self.at += n as u64;
        self.delivered += n as u64;
        Ok(n)
    }
}
