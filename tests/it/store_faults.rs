//! Retries, claims and scripted faults: what fails is tried again where that helps, and claims never let one content
//! replace another, in whatever order the requests of several writers arrive.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use walvis::deadline::Deadline;
use walvis::limits::ABANDONED_AFTER;
use walvis::store::claim_name;
use walvis::store::claims::Claims;
use walvis::store::fault::{Effect, Fault, Op};
use walvis::store::memory::MemoryStore;
use walvis::store::retry::{Policy, Retry};
use walvis::store::{ContentId, Created, Deleted, Entry, ErrorKind, Key, Object, ReadRange, Store, StoreError, Upload};

use crate::conformance::{content, create, deadline, key, list, quick, read};

/// A retrying store over a scripted one over memory.
fn retrying(policy: Policy, deadline: Deadline) -> (Arc<Fault>, Retry) {
    let fault = Arc::new(Fault::new(Arc::new(MemoryStore::new())));
    let retry = Retry::new(fault.clone(), policy, deadline);
    (fault, retry)
}

fn few(attempts: u32) -> Policy {
    Policy { attempts, ..quick() }
}

#[test]
fn every_request_is_retried_by_itself() {
    let (fault, store) = retrying(few(4), deadline());
    for op in [Op::Create, Op::Begin, Op::Part, Op::Complete, Op::Read, Op::List, Op::MakeDurable, Op::Delete] {
        fault.add(op, "", 1, 3, Effect::Fail(ErrorKind::Unreachable));
    }
    let (object, large) = (key("object"), key("large"));
    assert_eq!(create(&store, &object, b"body"), Created::New);
    assert_eq!(fault.calls(Op::Create), 4);
    assert_eq!(read(&store, &object, ReadRange::All), b"body");
    assert_eq!(fault.calls(Op::Read), 4);
    store.make_durable(&object).unwrap();
    let mut upload = store.begin(&large, &content(b"one two")).unwrap();
    upload.part(Bytes::from_static(b"one ")).unwrap();
    assert_eq!(fault.calls(Op::Part), 4);
    upload.part(Bytes::from_static(b"two")).unwrap();
    assert_eq!(upload.complete().unwrap(), Created::New);
    assert_eq!((fault.calls(Op::Begin), fault.calls(Op::Part), fault.calls(Op::Complete)), (4, 5, 4));
    drop(upload);
    assert_eq!(read(&store, &large, ReadRange::All), b"one two");
    assert_eq!(list(&store, "", "").len(), 2);
    store.delete(&object).unwrap();
    assert_eq!((fault.calls(Op::MakeDurable), fault.calls(Op::List), fault.calls(Op::Delete)), (4, 4, 4));
}

#[test]
fn what_cannot_help_is_not_retried() {
    use ErrorKind::{BadAnswer, Busy, Denied, NoSpace, NoSuchPlace, NotFound, ReadOnly, TimedOut, Unreachable, Unsupported};
    for kind in [NotFound, NoSuchPlace, Denied, NoSpace, ReadOnly, Unsupported] {
        let (fault, store) = retrying(few(5), deadline());
        fault.add(Op::Read, "", 1, u64::MAX, Effect::Fail(kind));
        assert_eq!(store.read(&key("object"), ReadRange::All).err().map(|e| e.kind), Some(kind));
        assert_eq!(fault.calls(Op::Read), 1, "{kind:?}");
    }
    for kind in [Unreachable, TimedOut, Busy, BadAnswer] {
        let (fault, store) = retrying(few(5), deadline());
        fault.add(Op::MakeDurable, "", 1, u64::MAX, Effect::Fail(kind));
        let error = store.make_durable(&key("object")).unwrap_err();
        assert_eq!((error.kind, fault.calls(Op::MakeDurable)), (kind, 5));
        assert!(error.detail.contains("(5 attempts in "), "{error}");

        let (fault, store) = retrying(few(5), deadline());
        fault.add(Op::MakeDurable, "", 1, u64::MAX, Effect::FailForGood(kind));
        assert_eq!(store.make_durable(&key("object")).unwrap_err().kind, kind);
        assert_eq!(fault.calls(Op::MakeDurable), 1, "{kind:?}");
    }
}

#[test]
fn the_deadline_ends_retries() {
    let limit = Duration::from_millis(300);
    let policy = Policy { first_delay: Duration::from_millis(40), max_delay: Duration::from_millis(40), attempts: u32::MAX };
    let (fault, store) = retrying(policy, Deadline::after(limit));
    fault.add(Op::Create, "", 1, u64::MAX, Effect::Fail(ErrorKind::Busy));
    let begun = Instant::now();
    let error = store.create(&key("object"), Bytes::new(), &content(b"")).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.detail.starts_with("scripted fault (") && error.detail.contains(" attempts in 0."), "{error}");
    assert!(fault.calls(Op::Create) > 2);

    // Over from the beginning: one attempt is made, so that the answer is about the store.
    let (fault, store) = retrying(quick(), Deadline::after(Duration::ZERO));
    fault.add(Op::Create, "", 1, u64::MAX, Effect::Fail(ErrorKind::Busy));
    assert_eq!(store.create(&key("object"), Bytes::new(), &content(b"")).unwrap_err().detail, "scripted fault");
    assert_eq!(fault.calls(Op::Create), 1);
}

#[test]
fn a_lost_answer_shows_as_existing() {
    let (fault, store) = retrying(few(5), deadline());
    fault.add(Op::Create, "", 1, 2, Effect::LoseAnswer(ErrorKind::TimedOut));
    assert_eq!(create(&store, &key("object"), b"body"), Created::Exists);
    assert_eq!(read(&store, &key("object"), ReadRange::All), b"body");
    fault.add(Op::Complete, "", 1, 1, Effect::LoseAnswer(ErrorKind::Unreachable));
    let mut upload = store.begin(&key("large"), &content(b"body")).unwrap();
    upload.part(Bytes::from_static(b"body")).unwrap();
    assert_eq!(upload.complete().unwrap(), Created::Exists);
}

#[test]
fn a_body_is_resumed_where_it_broke() {
    let body: Vec<u8> = (0..100_000_u32).map(|i| (i % 249) as u8).collect();
    let end = body.len() as u64;
    let ranges = [
        ReadRange::All,
        ReadRange::From(777),
        ReadRange::Bounded { offset: 777, len: 50_000 },
        ReadRange::Bounded { offset: 0, len: end * 2 },
    ];
    for range in ranges {
        let begin = range.offset() as usize;
        let expected = match range {
            ReadRange::Bounded { len, .. } => &body[begin..body.len().min(begin + len as usize)],
            _ => &body[begin..],
        };
        // Cut with an error, cut without one, and cut before the first byte.
        for effect in [Effect::CutAfter(9000, ErrorKind::Unreachable), Effect::EndAfter(9000)] {
            let (fault, store) = retrying(few(3), deadline());
            assert_eq!(create(&store, &key("object"), &body), Created::New);
            fault.add(Op::Read, "", 1, 4, effect);
            fault.add(Op::Read, "", 3, 1, Effect::CutAfter(0, ErrorKind::Busy));
            let got = read(&store, &key("object"), range);
            assert!(got == expected, "{range:?} {effect:?}: {} of {} bytes", got.len(), expected.len());
            assert_eq!(fault.calls(Op::Read), 5);
        }
    }

    // No progress, no end: the attempts are bounded.
    let (fault, store) = retrying(few(3), deadline());
    assert_eq!(create(&store, &key("object"), &body), Created::New);
    fault.add(Op::Read, "", 1, u64::MAX, Effect::EndAfter(0));
    let error = store.read(&key("object"), ReadRange::All).unwrap().body.read_to_end(&mut Vec::new()).unwrap_err();
    let error = StoreError::from_io(error).unwrap();
    assert_eq!((error.kind, fault.calls(Op::Read)), (ErrorKind::BadAnswer, 3));
    assert!(error.detail.contains("(3 attempts in "), "{error}");

    // Replaced by something else meanwhile: never spliced.
    let memory = Arc::new(MemoryStore::without_conditions());
    let fault = Arc::new(Fault::new(memory.clone()));
    let store = Retry::new(fault.clone(), few(5), deadline());
    assert_eq!(create(&store, &key("object"), &body), Created::New);
    fault.add(Op::Read, "", 1, 1, Effect::CutAfter(10, ErrorKind::Unreachable));
    let mut object = store.read(&key("object"), ReadRange::All).unwrap();
    assert_eq!(create(&*memory, &key("object"), b"shorter than before, longer than ten"), Created::New);
    let error = StoreError::from_io(object.body.read_to_end(&mut Vec::new()).unwrap_err()).unwrap();
    assert_eq!(error.kind, ErrorKind::BadAnswer);
    assert!(error.is_permanent() && error.detail.contains("size changed"), "{error}");
}

#[test]
fn a_listing_is_resumed_where_it_broke() {
    let (fault, store) = retrying(few(2), deadline());
    let keys: Vec<String> = (0..50).map(|i| format!("dir/{i:03}")).collect();
    for name in &keys {
        assert_eq!(create(&store, &key(name.as_str()), b""), Created::New);
    }
    fault.add(Op::List, "", 1, 4, Effect::CutAfter(7, ErrorKind::TimedOut));
    let seen: Vec<String> = list(&store, "dir/", "dir/001").iter().map(|entry| entry.key.as_str().to_owned()).collect();
    assert_eq!(seen, keys[2..], "objects were shown twice or never");
    assert_eq!(fault.calls(Op::List), 5);

    // A break ends it, and no fault after that is asked for.
    fault.heal();
    let mut seen = 0;
    store
        .list("", "", &mut |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((seen, fault.calls(Op::List)), (3, 6));

    fault.add(Op::List, "", 1, u64::MAX, Effect::CutAfter(0, ErrorKind::Busy));
    assert_eq!(store.list("", "", &mut |_| ControlFlow::Continue(())).unwrap_err().kind, ErrorKind::Busy);
}

#[test]
fn faults_come_when_scripted_and_no_other_time() {
    let store = Fault::new(Arc::new(MemoryStore::new()))
        .on(Op::Create, 2, Effect::Fail(ErrorKind::Busy))
        .on(Op::Read, 1, Effect::FlipBit(2))
        .on(Op::Read, 2, Effect::EndAfter(1))
        .storm(Op::Delete, 2, 3, Effect::Fail(ErrorKind::Denied));
    store.add(Op::MakeDurable, "special", 1, 1, Effect::Fail(ErrorKind::TimedOut));
    assert_eq!(create(&store, &key("a"), b"abcdef"), Created::New);
    assert_eq!(store.create(&key("b"), Bytes::new(), &content(b"")).unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(create(&store, &key("special"), b""), Created::New);
    assert_eq!(read(&store, &key("a"), ReadRange::From(1)), b"bbdef");
    assert_eq!(read(&store, &key("a"), ReadRange::All), b"a");
    assert_eq!(read(&store, &key("a"), ReadRange::All), b"abcdef");
    let deleted: Vec<bool> = (0..5).map(|_| store.delete(&key("x")).is_ok()).collect();
    assert_eq!(deleted, [true, false, false, false, true]);
    store.make_durable(&key("a")).unwrap();
    assert_eq!(store.make_durable(&key("special")).unwrap_err().kind, ErrorKind::TimedOut);
    store.make_durable(&key("special")).unwrap();
    store.add(Op::Create, "", 1, 1, Effect::FlipBit(0));
    store.add(Op::Create, "", 1, 1, Effect::Delay(Duration::from_millis(20)));
    let begun = Instant::now();
    assert_eq!(create(&store, &key("wrong"), b"abc"), Created::New);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(read(&store, &key("wrong"), ReadRange::All), b"`bc");
    assert_eq!(store.calls(Op::Create), 4);
    assert_eq!(store.log().last(), Some(&(Op::Read, "wrong".to_owned())));
}

/// Lets threads take turns at the store, in a given order: every request is one step, and the steps of all writers
/// interleave just as told. Who is done, or whose turn never comes, does not hold up the others.
struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

struct TurnState {
    /// Which writer does the next step.
    order: Vec<usize>,
    next: usize,
    is_done: Vec<bool>,
}

impl Turns {
    fn new(order: Vec<usize>, writers: usize) -> Self {
        Self { state: Mutex::new(TurnState { order, next: 0, is_done: vec![false; writers] }), changed: Condvar::new() }
    }

    /// Waits for the writer's turn and does the step while nobody else does any.
    fn step<T>(&self, writer: usize, action: impl FnOnce() -> T) -> T {
        let mut state = self.state.lock().unwrap();
        loop {
            while state.order.get(state.next).is_some_and(|turn| state.is_done[*turn]) {
                state.next += 1;
            }
            if state.order.get(state.next).is_none_or(|turn| *turn == writer) {
                break;
            }
            state = self.changed.wait(state).unwrap();
        }
        let answer = action();
        state.next += 1;
        self.changed.notify_all();
        answer
    }

    fn done(&self, writer: usize) {
        self.state.lock().unwrap().is_done[writer] = true;
        self.changed.notify_all();
    }
}

/// One writer's view of a store whose requests take turns.
struct TurnStore {
    inner: Arc<MemoryStore>,
    turns: Arc<Turns>,
    writer: usize,
}

impl Store for TurnStore {
    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        self.turns.step(self.writer, || self.inner.create(key, body, content))
    }
    fn begin(&self, key: &Key, content: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        Ok(Box::new(TurnUpload { store: self, inner: self.inner.begin(key, content)? }))
    }
    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.turns.step(self.writer, || self.inner.list(prefix, after, visit))
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.turns.step(self.writer, || self.inner.delete(key))
    }
    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        self.turns.step(self.writer, || self.inner.delete_many(keys))
    }

    crate::support::forward::forward!(inner: location, read, make_durable, leftovers, remove_leftover, hidden, purge, features, can_replace);
}

struct TurnUpload<'a> {
    store: &'a TurnStore,
    inner: Box<dyn Upload + 'a>,
}

impl Upload for TurnUpload<'_> {
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        self.inner.part(body)
    }
    fn complete(&mut self) -> Result<Created, StoreError> {
        self.store.turns.step(self.store.writer, || self.inner.complete())
    }
}

fn create_by_upload(store: &dyn Store, key: &Key, body: &[u8]) -> Result<Created, StoreError> {
    let mut upload = store.begin(key, &content(body))?;
    upload.part(Bytes::copy_from_slice(body))?;
    upload.complete()
}

/// Lets writers of these contents create one object in the given order of steps, and checks what they were told against
/// what is there. Gives the answers.
fn race(contents: &[&'static str], order: &[usize], by_upload: bool) -> Vec<Option<Created>> {
    let memory = Arc::new(MemoryStore::without_conditions());
    let turns = Arc::new(Turns::new(order.to_vec(), contents.len()));
    let object = key("object");
    let object = &object;
    // One attempt: whoever meets a rival gives up, so that the number of steps is bounded.
    let policy = Policy { first_delay: Duration::ZERO, max_delay: Duration::ZERO, attempts: 1 };
    let answers: Vec<Option<Created>> = std::thread::scope(|scope| {
        let writers: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(writer, body)| {
                let (inner, turns) = (memory.clone(), turns.clone());
                scope.spawn(move || {
                    let store = Arc::new(TurnStore { inner: inner.clone(), turns: turns.clone(), writer });
                    let claims = Claims::new(store, policy, deadline());
                    let answer = if by_upload {
                        create_by_upload(&claims, object, body.as_bytes())
                    } else {
                        claims.create(object, Bytes::from(*body), &content(body.as_bytes()))
                    };
                    // Whoever is told `New` finds its own content, now and for ever.
                    if matches!(answer, Ok(Created::New)) {
                        assert_eq!(read(&*inner, object, ReadRange::All), body.as_bytes(), "{order:?}");
                    }
                    turns.done(writer);
                    match answer {
                        Ok(created) => Some(created),
                        Err(e) if e.kind == ErrorKind::Busy => None,
                        Err(e) => panic!("{e}"),
                    }
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let winners: BTreeSet<&str> =
        contents.iter().zip(&answers).filter(|(_, answer)| **answer == Some(Created::New)).map(|(body, _)| *body).collect();
    assert!(winners.len() <= 1, "{order:?}: {answers:?}");
    if let Some(winner) = winners.first() {
        assert_eq!(read(&*memory, object, ReadRange::All), winner.as_bytes(), "{order:?}: it was replaced");
    }
    let claims_left = list(&*memory, claim_name::PREFIX, "");
    assert_eq!(claims_left, [], "{order:?}");
    answers
}

/// Every order in which `a` steps of writer 0 and `b` of writer 1 can be done.
fn orders(a: usize, b: usize) -> Vec<Vec<usize>> {
    if a == 0 || b == 0 {
        return vec![[vec![0; a], vec![1; b]].concat()];
    }
    let first = |writer: usize, rest: Vec<Vec<usize>>| rest.into_iter().map(move |rest| [vec![writer], rest].concat());
    first(0, orders(a - 1, b)).chain(first(1, orders(a, b - 1))).collect()
}

/// The most steps of one writer without a second attempt: does it exist, who claims it, claim, who claims it, does it
/// exist, put, delete the claim.
const STEPS: usize = 7;

#[test]
fn claims_hold_in_every_order_of_two_writers() {
    let orders = orders(STEPS, STEPS);
    assert_eq!(orders.len(), 3432);
    let mut seen = BTreeSet::new();
    for order in &orders {
        seen.insert(format!("{:?}", race(&["one", "two"], order, false)));
    }
    // All that can happen did: one of them, the other, and neither because each saw the other's claim.
    for expected in
        ["[Some(New), Some(Exists)]", "[Some(Exists), Some(New)]", "[Some(New), None]", "[None, Some(New)]", "[None, None]"]
    {
        assert!(seen.contains(expected), "{expected} never happened: {seen:?}");
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[test]
fn claims_of_the_same_content_do_not_hinder_each_other() {
    for order in orders(STEPS, STEPS).iter().step_by(7) {
        let answers = race(&["same", "same"], order, false);
        assert!(answers.iter().all(Option::is_some) && answers.contains(&Some(Created::New)), "{order:?}: {answers:?}");
    }
}

#[test]
fn claims_hold_among_three_writers_and_uploads() {
    let mut random = fastrand::Rng::with_seed(20);
    for round in 0..1500 {
        let mut order: Vec<usize> = (0..3).flat_map(|writer| [writer; STEPS]).collect();
        random.shuffle(&mut order);
        let contents = if round % 2 == 0 { ["one", "two", "one"] } else { ["one", "two", "three"] };
        race(&contents, &order, round % 3 == 0);
    }
}

/// A store whose requests take effect, and are answered, after random times.
struct Jitter(Arc<MemoryStore>);

impl Jitter {
    fn around<T>(action: impl FnOnce() -> T) -> T {
        let pause = || std::thread::sleep(Duration::from_micros(fastrand::u64(0..300)));
        pause();
        let answer = action();
        pause();
        answer
    }
}

impl Store for Jitter {
    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        Self::around(|| self.0.create(key, body, content))
    }
    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        Self::around(|| self.0.read(key, range))
    }
    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        Self::around(|| self.0.list(prefix, after, visit))
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        Self::around(|| self.0.delete(key))
    }
    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        Self::around(|| self.0.delete_many(keys))
    }

    crate::support::forward::forward!(0: location, begin, make_durable, leftovers, remove_leftover, hidden, purge, features, can_replace);
}

#[test]
fn claims_let_one_of_many_racing_writers_win() {
    const WRITERS: usize = 12;
    for round in 0..15 {
        let memory = Arc::new(MemoryStore::without_conditions());
        let object = key(format!("wal/{round}"));
        let start = Barrier::new(WRITERS);
        let policy = Policy { first_delay: Duration::from_millis(2), max_delay: Duration::from_millis(40), attempts: 1000 };
        let answers: Vec<(String, Created)> = std::thread::scope(|scope| {
            let (memory, object, start) = (&memory, &object, &start);
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        // Each content has two writers.
                        let body = format!("content {}", writer / 2);
                        let store = Claims::new(Arc::new(Jitter(memory.clone())), policy, deadline());
                        start.wait();
                        let created = create(&store, object, body.as_bytes());
                        if created == Created::New {
                            assert_eq!(read(&**memory, object, ReadRange::All), body.as_bytes());
                        }
                        (body, created)
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let winners: BTreeSet<&str> =
            answers.iter().filter(|(_, created)| *created == Created::New).map(|(body, _)| &**body).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert_eq!(read(&*memory, &object, ReadRange::All), winners.first().unwrap().as_bytes());
        assert_eq!(list(&*memory, claim_name::PREFIX, ""), []);
    }
}

fn claim_of(body: &[u8]) -> Key {
    key(format!("claims/object/{}-00000000000000aa", hex::encode(content(body).0)))
}

fn claims_over(store: Arc<dyn Store>, attempts: u32) -> Claims {
    Claims::new(store, few(attempts), deadline())
}

#[test]
fn a_living_claim_of_other_content_is_respected_and_a_dead_one_is_not() {
    let memory = Arc::new(MemoryStore::without_conditions());
    let store = claims_over(memory.clone(), 3);
    let (object, claim) = (key("object"), claim_of(b"other"));
    assert_eq!(create(&*memory, &claim, b""), Created::New);
    let error = store.create(&object, Bytes::from_static(b"own"), &content(b"own")).unwrap_err();
    assert_eq!((error.kind, error.is_permanent()), (ErrorKind::Busy, false));
    assert!(error.detail.contains(claim.as_str()) && error.hint.is_some(), "{error:?}");
    assert_eq!(create_by_upload(&store, &object, b"own").unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(list(&*memory, "", "").len(), 1, "something was left behind");

    // Just not dead yet.
    assert!(memory.backdate(&claim, ABANDONED_AFTER - Duration::from_secs(60)));
    assert_eq!(store.create(&object, Bytes::from_static(b"own"), &content(b"own")).unwrap_err().kind, ErrorKind::Busy);
    assert!(memory.backdate(&claim, Duration::from_secs(120)));
    assert_eq!(create(&store, &object, b"own"), Created::New);
    assert_eq!(
        list(&*memory, "", "").iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(),
        ["object"],
        "the dead claim stays"
    );
}

#[test]
fn a_living_claim_of_the_same_content_is_no_obstacle() {
    let memory = Arc::new(MemoryStore::without_conditions());
    let claim = claim_of(b"own");
    assert_eq!(create(&*memory, &claim, b""), Created::New);
    assert_eq!(create(&claims_over(memory.clone(), 1), &key("object"), b"own"), Created::New);
    assert_eq!(list(&*memory, claim_name::PREFIX, "").len(), 1, "the claim of another writer was deleted while it lived");
}

/// A put whose answer is lost may still arrive: its claim has to stay, and keeps others away.
#[test]
fn a_put_of_unknown_outcome_keeps_its_claim() {
    for by_upload in [false, true] {
        let memory = Arc::new(MemoryStore::without_conditions());
        let fault = Arc::new(Fault::new(memory.clone()));
        let store = claims_over(fault.clone(), 2);
        let object = key("object");
        let write = |body: &'static [u8]| match by_upload {
            true => create_by_upload(&store, &object, body),
            false => store.create(&object, Bytes::from_static(body), &content(body)),
        };
        // The put of the object, not that of the claim. It did not arrive (yet).
        let (op, nth) = if by_upload { (Op::Complete, 1) } else { (Op::Create, 2) };
        fault.add(op, "object", nth, 1, Effect::Fail(ErrorKind::TimedOut));
        assert_eq!(write(b"one").unwrap_err().kind, ErrorKind::TimedOut);
        assert_eq!(list(&*memory, claim_name::PREFIX, "").len(), 1, "the claim was deleted");
        assert_eq!(write(b"two").unwrap_err().kind, ErrorKind::Busy);
        // The same content again, as the archiver does.
        assert_eq!(write(b"one").unwrap(), Created::New);
        assert_eq!(write(b"two").unwrap(), Created::Exists);
        assert_eq!(read(&*memory, &object, ReadRange::All), b"one");
    }
}

/// Requests that fail before the put leave neither object nor claim.
#[test]
fn a_creation_that_fails_before_the_put_takes_its_claim_back() {
    for (op, nth) in [(Op::List, 1), (Op::List, 2), (Op::Create, 1), (Op::List, 3), (Op::List, 4)] {
        let memory = Arc::new(MemoryStore::without_conditions());
        let store = claims_over(Arc::new(Fault::new(memory.clone()).on(op, nth, Effect::LoseAnswer(ErrorKind::Unreachable))), 2);
        let error = store.create(&key("object"), Bytes::from_static(b"x"), &content(b"x")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{op:?} {nth}");
        assert_eq!(list(&*memory, "", ""), [], "{op:?} {nth}");
    }
}

/// Credentials that cannot delete leave claims behind, which hinder nobody.
#[test]
fn claims_work_without_the_right_to_delete() {
    let memory = Arc::new(MemoryStore::without_conditions());
    let fault = Arc::new(Fault::new(memory.clone()).storm(Op::Delete, 1, u64::MAX, Effect::Fail(ErrorKind::Denied)));
    let store = claims_over(fault, 2);
    assert_eq!(create(&store, &key("object"), b"one"), Created::New);
    assert_eq!(create(&store, &key("object"), b"two"), Created::Exists);
    assert_eq!(create_by_upload(&store, &key("large"), b"one").unwrap(), Created::New);
    assert_eq!(create_by_upload(&store, &key("large"), b"two").unwrap(), Created::Exists);
    assert_eq!(list(&*memory, claim_name::PREFIX, "").len(), 2);
}
