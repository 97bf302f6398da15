//! `expire --confirm` is killed at every request that changes something, meets another run at each of them, and a base
//! backup that begins at any of them and ends at any later one. What is needed is there at every moment, and in the end
//! what may go is gone.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use walvis::config::Retention;
use walvis::error::{Error, Kind};
use walvis::format::extent::BackupId;
use walvis::format::manifest::{BackupFacts, BackupSummary, Content, Item, ManifestWriter, PackUse};
use walvis::pg::scan::PgTime;
use walvis::repo::{ObjectName, ObjectSet, Repository, Secret, SystemId, TombstonePart};
use walvis::retention::execute::{Executed, ExpireRequest, Watch, execute, preview};
use walvis::retention::plan::Hooks;
use walvis::store::{
    ContentId, Created, Deleted, Entry, ErrorKind, Hidden, Key, Leftover, Object, ReadRange, Store, StoreError, Upload,
};

use super::history::{DAY, Happening, History, Script, cluster, facts_of};
use super::store::TimedStore;

/// Where a run is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    /// Of many deletions in one request, half are done.
    Half,
    After,
}

type Disturb = Box<dyn Fn() + Send + Sync>;

/// A store that is disturbed at one of the requests that change something: what asks there is killed, or something else
/// happens meanwhile.
struct Disturbed {
    inner: Arc<TimedStore>,
    changes: AtomicUsize,
    /// Where it is killed.
    at: Option<(usize, Moment)>,
    /// What happens before which change.
    meanwhile: Vec<(usize, Disturb)>,
    dead: Mutex<bool>,
    /// What is held, or may not be deleted, by parts of keys.
    held: Vec<&'static str>,
    denied: Vec<&'static str>,
}

impl Disturbed {
    fn new(inner: &Arc<TimedStore>) -> Self {
        Self {
            inner: Arc::clone(inner),
            changes: AtomicUsize::new(0),
            at: None,
            meanwhile: Vec::new(),
            dead: Mutex::new(false),
            held: Vec::new(),
            denied: Vec::new(),
        }
    }

    fn killed_at(inner: &Arc<TimedStore>, change: usize, moment: Moment) -> Self {
        Self { at: Some((change, moment)), ..Self::new(inner) }
    }

    fn meanwhile(inner: &Arc<TimedStore>, meanwhile: Vec<(usize, Disturb)>) -> Self {
        Self { meanwhile, ..Self::new(inner) }
    }

    fn alive(&self) -> Result<(), StoreError> {
        if *self.dead.lock().unwrap() {
            return Err(StoreError::new(ErrorKind::Unreachable, "ask", "memory", "killed").permanently());
        }
        Ok(())
    }

    fn die(&self) -> Result<(), StoreError> {
        *self.dead.lock().unwrap() = true;
        self.alive()
    }

    /// Makes a change, of which `half` makes a part.
    fn change<T>(&self, half: impl FnOnce(), whole: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.alive()?;
        let number = self.changes.fetch_add(1, Ordering::SeqCst);
        self.meanwhile.iter().filter(|(at, _)| *at == number).for_each(|(_, happens)| happens());
        let Some((_, moment)) = self.at.filter(|(at, _)| *at == number) else { return whole() };
        match moment {
            Moment::Before => {}
            Moment::Half => half(),
            Moment::After => drop(whole()?),
        }
        self.die()?;
        unreachable!("it is dead")
    }

    fn outcome(&self, key: &Key) -> Option<Deleted> {
        let has = |parts: &[&str]| parts.iter().any(|part| key.as_str().contains(part));
        if has(&self.denied) {
            return Some(Deleted::Denied("AccessDenied: s3:DeleteObject".to_owned()));
        }
        has(&self.held).then_some(Deleted::Held { until_unix_s: Some(4_000_000_000) })
    }
}

impl Store for Disturbed {
    fn create(&self, key: &Key, body: Bytes, content: &ContentId) -> Result<Created, StoreError> {
        self.change(|| {}, || self.inner.create(key, body, content))
    }

    fn begin(&self, key: &Key, content: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        self.alive()?;
        self.inner.begin(key, content)
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        self.alive()?;
        self.inner.read(key, range)
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.alive()?;
        self.inner.list(prefix, after, visit)
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.alive()?;
        self.inner.make_durable(key)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.change(|| {}, || self.inner.delete(key))
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        let delete = |keys: &[Key]| {
            let mut outcomes = Vec::new();
            for key in keys {
                outcomes.push(match self.outcome(key) {
                    Some(outcome) => outcome,
                    None => self.inner.delete_many(std::slice::from_ref(key))?.remove(0),
                });
            }
            Ok(outcomes)
        };
        // In any order: the last ones first.
        let half = || drop(delete(&keys[keys.len() / 2..]));
        self.change(half, || delete(keys))
    }

    fn leftovers(&self, older_than: Duration) -> Result<Vec<Leftover>, StoreError> {
        self.alive()?;
        self.inner.leftovers(older_than)
    }

    fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, StoreError> {
        self.change(|| {}, || self.inner.remove_leftover(leftover))
    }

    fn hidden(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.alive()?;
        self.inner.hidden(prefix, after, visit)
    }

    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError> {
        self.change(|| {}, || self.inner.purge(hidden))
    }

    crate::support::forward::forward!(inner: location, features, can_replace);
}

fn history() -> History {
    let script = Script::quiet(11, 16)
        .on(4, Happening::Interrupted)
        .on(13, Happening::Failover { goes_on: true })
        .on(14, Happening::Failover { goes_on: false });
    History::make(&script)
}

/// The repository as the history left it, a few hours later.
fn at_the_end(history: &History) -> Arc<TimedStore> {
    let store = TimedStore::empty_at(history.end);
    store.take_from(&history.store, i64::MIN, history.end, &|_| true);
    store.set_now(history.end + 3600);
    store
}

fn rules() -> Retention {
    let day = Duration::from_secs(u64::try_from(DAY).unwrap());
    Retention { recovery_window: Some(day * 2), keep_last: Some(2), grace: day, ..Retention::default() }
}

/// Runs `expire --confirm` at a time.
fn expire(store: Arc<dyn Store>, now_unix_s: i64, rules: &Retention, give_up: &[BackupId]) -> Result<Executed, Error> {
    with_request(store, now_unix_s, rules, give_up, |request| execute(&request))
}

fn with_request<T>(
    store: Arc<dyn Store>,
    now_unix_s: i64,
    rules: &Retention,
    give_up: &[BackupId],
    work: impl FnOnce(ExpireRequest<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let repository = Repository::over(store, &Secret::None, 1)?;
    let give_up: BTreeSet<BackupId> = give_up.iter().copied().collect();
    work(ExpireRequest {
        repository: &repository,
        cluster: &cluster(),
        rules,
        give_up: &give_up,
        purge_versions: false,
        now: &|| PgTime::from_unix_us(now_unix_s * 1_000_000).unwrap(),
        hooks: Hooks { go_on: &|| Ok(()), looked_at: &|_| {} },
        watch: Watch { go_on: &|| Ok(()), deleted: &|_| {} },
    })
}

/// Runs it now, by real clocks, with a short grace period.
pub(super) fn expire_now(store: &Arc<dyn Store>) -> Result<Executed, Error> {
    let rules = Retention { keep_last: Some(1), grace: Duration::from_secs(1), ..Retention::default() };
    expire(Arc::clone(store), jiff::Timestamp::now().as_second(), &rules, &[])
}

fn run_at(store: &Arc<TimedStore>, now_unix_s: i64) -> Executed {
    store.set_now(now_unix_s);
    let inner: Arc<dyn Store> = Arc::<TimedStore>::clone(store);
    expire(inner, now_unix_s, &rules(), &[]).unwrap()
}

/// What is there but tombstones, begun backups and probes.
fn content(store: &TimedStore) -> BTreeSet<String> {
    let is_content = |key: &String| !["/tombstones/", "/begun/", "probe/"].iter().any(|part| key.contains(part));
    store.keys().into_iter().filter(is_content).collect()
}

/// Nothing of what stays in the end is missing, and no node says of a segment that it is there when it is not.
fn nothing_is_missing(history: &History, store: &Arc<TimedStore>, stays: &BTreeSet<String>, how: &str) {
    // That backups were given up is written on the way.
    let (there, before) = (content(store), content(&history.store));
    let is_missing = |key: &&String| !key.contains("/index/") && before.contains(*key) && !there.contains(*key);
    let missing: Vec<&String> = stays.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{how}: {missing:?}");
    let repository = super::history::open(store);
    for system in &history.truth.systems {
        let facts = facts_of(system.id);
        let nothing = ObjectSet::new(facts.wal_segment_size);
        assert_eq!(repository.nodes_without(&cluster(), facts, &nothing).unwrap(), [], "{how}");
    }
}

fn tombstones(store: &TimedStore) -> usize {
    store.keys().iter().filter(|key| key.contains("/tombstones/")).count()
}

/// What three undisturbed runs leave, and how many changes the first two make.
struct Reference {
    stays: BTreeSet<String>,
    changes: [usize; 2],
}

const FIRST: i64 = 2 * 3600;
const SECOND: i64 = FIRST + DAY + 60;
const THIRD: i64 = SECOND + DAY + 60;
const FOURTH: i64 = THIRD + DAY + 60;

fn reference(history: &History) -> Reference {
    let store = at_the_end(history);
    let before = content(&store);
    let mut changes = [0; 2];
    for (count, at) in changes.iter_mut().zip([FIRST, SECOND]) {
        store.set_now(history.end + at);
        let counting = Arc::new(Disturbed::new(&store));
        let asked: Arc<dyn Store> = Arc::<Disturbed>::clone(&counting);
        let done = expire(asked, history.end + at, &rules(), &[]).unwrap();
        *count = counting.changes.load(Ordering::SeqCst);
        if at == FIRST {
            assert_eq!(content(&store), before, "the first phase deletes nothing");
            assert!(done.expired.tally.gone == 0 && !done.named.is_empty() && done.waiting.len() == done.named.len());
        } else {
            assert!(done.expired.backups > 3 && done.expired.packs > 5 && done.expired.wal_files > 10, "{:?}", done.expired);
            assert!(done.expired.nodes > 0 && done.expired.tally.held == 0 && done.denied("here").is_none());
        }
    }
    run_at(&store, history.end + THIRD);
    run_at(&store, history.end + FOURTH);
    let stays = content(&store);
    let manifests = stays.iter().filter(|key| key.contains("/backups/")).count();
    assert!((2..=4).contains(&manifests), "{manifests}");
    Reference { stays, changes }
}

#[test]
fn killed_at_any_change_it_goes_on() {
    let history = history();
    let Reference { stays, changes } = reference(&history);
    let mut kills = 0;
    for (phase, at) in [FIRST, SECOND].into_iter().enumerate() {
        for change in 0..changes[phase] {
            for moment in [Moment::Before, Moment::Half, Moment::After] {
                let how = format!("phase {}, {moment:?} change {change}", phase + 1);
                let store = at_the_end(&history);
                if phase == 1 {
                    run_at(&store, history.end + FIRST);
                }
                store.set_now(history.end + at);
                let killed = Arc::new(Disturbed::killed_at(&store, change, moment));
                let result = expire(killed, history.end + at, &rules(), &[]);
                assert_eq!(result.map(|_| ()).unwrap_err().kind, Kind::Unreachable, "{how}");
                kills += 1;
                nothing_is_missing(&history, &store, &stays, &how);
                for again in [at, SECOND, THIRD, FOURTH].into_iter().filter(|again| *again >= at) {
                    run_at(&store, history.end + again);
                    nothing_is_missing(&history, &store, &stays, &how);
                }
                run_at(&store, history.end + FOURTH + DAY + 60);
                assert_eq!(content(&store).difference(&stays).collect::<Vec<_>>(), Vec::<&String>::new(), "{how}");
            }
        }
    }
    assert!(kills > 45, "{kills}");
}

/// Another run, from beginning to end, at every change of one.
#[test]
fn two_runs_at_once_delete_what_one_would() {
    let history = history();
    let Reference { stays, changes } = reference(&history);
    for (phase, at) in [FIRST, SECOND].into_iter().enumerate() {
        for change in 0..changes[phase] {
            let how = format!("phase {}, change {change}", phase + 1);
            let store = at_the_end(&history);
            if phase == 1 {
                run_at(&store, history.end + FIRST);
            }
            store.set_now(history.end + at);
            let (other, end) = (Arc::clone(&store), history.end);
            let meanwhile: Disturb = Box::new(move || drop(run_at(&other, end + at)));
            let met = Arc::new(Disturbed::meanwhile(&store, vec![(change, meanwhile)]));
            expire(met, history.end + at, &rules(), &[]).unwrap_or_else(|error| panic!("{how}: {error}"));
            nothing_is_missing(&history, &store, &stays, &how);
            for again in [SECOND, THIRD, FOURTH, FOURTH + DAY + 60].into_iter().filter(|again| *again > at) {
                run_at(&store, history.end + again);
            }
            nothing_is_missing(&history, &store, &stays, &how);
            assert_eq!(content(&store).difference(&stays).collect::<Vec<_>>(), Vec::<&String>::new(), "{how}");
        }
    }
}

/// A base backup that refers to all that an old one has, as far as no tombstone names it.
struct Writer {
    id: BackupId,
    system_id: SystemId,
    summary: BackupSummary,
    manifest: Vec<u8>,
    packs: Vec<PackUse>,
}

impl Writer {
    /// It begins, looks at the tombstones, and chooses.
    fn begin(store: &Arc<TimedStore>, system: u64) -> Self {
        let repository = super::history::open(store);
        let (cluster, facts) = (cluster(), facts_of(system));
        let id = BackupId::new(store.now(), 77).unwrap();
        repository.begin_backup(&cluster, facts.system_id, id).unwrap();
        let named = repository.tombstoned(&cluster, facts, &[]).unwrap();
        assert!(named.unreadable.is_empty());
        let ids = repository.backup_ids(&cluster, facts.system_id).unwrap();
        let newest = repository.backup_summary(&cluster, facts.system_id, *ids.last().unwrap()).unwrap().unwrap();
        let mut items = Vec::new();
        let head = repository.read_manifest(&cluster, facts.system_id, ids[0], &mut |_, item| {
            items.push(item);
            Ok(ControlFlow::Continue(()))
        });
        let head = head.unwrap().unwrap().1;
        let may_refer = |item: &Item| match item {
            Item::File(file) => match &file.content {
                Content::Extents(extents) => {
                    extents.iter().filter_map(|extent| extent.stored).all(|stored| !named.names.has_pack(stored.place.pack))
                }
                Content::Tables(_) => false,
            },
            Item::Directory(_) => true,
        };
        items.retain(may_refer);
        let mut writer = ManifestWriter::new(Vec::new());
        items.iter().for_each(|item| writer.add(item, &[]).unwrap());
        let stored_bytes = writer.live_bytes();
        let files = items.iter().filter(|item| matches!(item, Item::File(_))).count() as u64;
        let facts_of_it = BackupFacts {
            attachments: vec![],
            hash_key: hex::encode([7; 32]),
            databases: vec![],
            tablespaces: vec![],
            annotations: std::collections::BTreeMap::new(),
            damage: vec![],
            warnings: vec![],
            verified_up_to: 0,
        };
        let total = |pack| head.packs.iter().find(|used| used.pack == pack).map(|used| used.total_bytes);
        let (body, begin) = writer.finish(&facts_of_it, total).unwrap();
        let kept = |used: &&PackUse| !named.names.has_pack(used.pack);
        let packs = head.packs.iter().filter(kept).copied().collect();
        let summary = BackupSummary {
            id,
            started_unix_us: store.now() * 1_000_000,
            stopped_unix_us: (store.now() + 10) * 1_000_000,
            files,
            bytes: files * 1500,
            new_bytes: 0,
            reused_bytes: stored_bytes,
            stored_bytes,
            parent: Some(ids[0]),
            ..newest
        };
        Self { id, system_id: facts.system_id, summary, manifest: [begin, body].concat(), packs }
    }

    fn complete(&self, store: &Arc<TimedStore>) -> Result<(), Error> {
        let repository = super::history::open(store);
        repository
            .complete_backup(&cluster(), self.system_id, &self.summary, || Box::new(Cursor::new(self.manifest.clone())))
            .map(drop)
    }

    /// All that it refers to is there.
    fn is_whole(&self, store: &TimedStore) -> bool {
        let keys: BTreeSet<String> = store.keys().into_iter().collect();
        self.packs.iter().all(|used| keys.contains(&format!("clusters/main/{}/packs/{}", self.system_id, used.pack)))
    }
}

/// It begins and ends anywhere within one run, or begins within the first and ends within the second.
#[test]
fn a_backup_beside_expire_is_whole_or_fails() {
    let history = history();
    let Reference { changes, .. } = reference(&history);
    let system = history.truth.systems.last().unwrap().id;
    let (mut good, mut given_up, mut referred) = (0, 0, 0);
    for (began_in, begins) in (0..2).flat_map(|phase| (0..changes[phase]).map(move |change| (phase, change))) {
        for (ends_in, ends) in (began_in..2).flat_map(|phase| (0..changes[phase]).map(move |change| (phase, change))) {
            if (ends_in, ends) < (began_in, begins) || (began_in == ends_in && (ends - begins) % 3 != 0) || ends % 2 != 0 {
                continue;
            }
            let how = format!("from {begins} of run {began_in} to {ends} of run {ends_in}");
            let store = at_the_end(&history);
            let writer: Arc<Mutex<Option<Writer>>> = Arc::default();
            let outcome: Arc<Mutex<Option<Result<(), Error>>>> = Arc::default();
            for (phase, at) in [FIRST, SECOND].into_iter().enumerate() {
                store.set_now(history.end + at);
                let mut meanwhile: Vec<(usize, Disturb)> = Vec::new();
                if phase == began_in {
                    let (inner, writer) = (Arc::clone(&store), Arc::clone(&writer));
                    let begin = move || *writer.lock().unwrap() = Some(Writer::begin(&inner, system));
                    meanwhile.push((begins, Box::new(begin)));
                }
                if phase == ends_in {
                    let (inner, writer, outcome) = (Arc::clone(&store), Arc::clone(&writer), Arc::clone(&outcome));
                    let end = move || {
                        if let Some(writer) = &*writer.lock().unwrap() {
                            *outcome.lock().unwrap() = Some(writer.complete(&inner));
                        }
                    };
                    meanwhile.push((ends, Box::new(end)));
                }
                let asked = Arc::new(Disturbed::meanwhile(&store, meanwhile));
                expire(asked, history.end + at, &rules(), &[]).unwrap_or_else(|error| panic!("{how}: {error}"));
            }
            let writer = writer.lock().unwrap().take().unwrap_or_else(|| panic!("{how}: it did not begin"));
            match outcome.lock().unwrap().take() {
                None => panic!("{how}: it did not end"),
                Some(Ok(())) => {
                    good += 1;
                    referred += writer.packs.len();
                    assert!(writer.is_whole(&store), "{how}: it is called good, and parts of it are gone");
                    for again in [THIRD, FOURTH] {
                        run_at(&store, history.end + again);
                        assert!(writer.is_whole(&store), "{how}, later");
                    }
                    let repository = super::history::open(&store);
                    assert!(repository.has_backup(&cluster(), writer.system_id, writer.id).unwrap(), "{how}");
                }
                Some(Err(error)) => {
                    assert_eq!(error.kind, Kind::Refused, "{how}: {error}");
                    given_up += 1;
                    let repository = super::history::open(&store);
                    assert!(!repository.has_backup(&cluster(), writer.system_id, writer.id).unwrap(), "{how}");
                }
            }
        }
    }
    assert!(good > 10 && given_up > 3 && referred > 10, "{good} {given_up} {referred}");
}

/// What the store holds waits, with the tombstone; it goes when it may.
#[test]
fn what_is_held_goes_later() {
    let history = history();
    let Reference { stays, .. } = reference(&history);
    for held in ["/wal/", "/index/", "/packs/", "/backups/"] {
        let store = at_the_end(&history);
        run_at(&store, history.end + FIRST);
        let before = content(&store);
        for at in [SECOND, SECOND + 60] {
            store.set_now(history.end + at);
            let holds = Arc::new(Disturbed { held: vec![held], ..Disturbed::new(&store) });
            let done = expire(holds, history.end + at, &rules(), &[]).unwrap();
            assert!(done.expired.tally.held > 0 && done.denied("here").is_none(), "{held}: {:?}", done.expired);
            assert_eq!(done.expired.tally.held_until_unix_s, Some(4_000_000_000), "{held}");
            assert!(done.waiting.iter().any(|waiting| waiting.begun), "{held}: the tombstone stays");
            nothing_is_missing(&history, &store, &stays, held);
        }
        let of_kind = |keys: &BTreeSet<String>| keys.iter().filter(|key| key.contains(held)).cloned().collect::<BTreeSet<_>>();
        assert!(of_kind(&content(&store)).is_superset(&of_kind(&before)), "{held}");
        for again in [THIRD, FOURTH, FOURTH + DAY + 60] {
            run_at(&store, history.end + again);
        }
        assert_eq!(content(&store).difference(&stays).collect::<Vec<_>>(), Vec::<&String>::new(), "{held}");
        nothing_is_missing(&history, &store, &stays, held);
    }
}

/// Whoever may not delete is told, at once or where it comes to that, and loses nothing.
#[test]
fn who_may_not_delete_is_told() {
    let history = history();
    let Reference { stays, .. } = reference(&history);
    for denied in ["probe/", "/begun/", "/backups/", "/index/", "/packs/", "/wal/"] {
        let store = at_the_end(&history);
        run_at(&store, history.end + FIRST);
        store.set_now(history.end + SECOND);
        let denies = Arc::new(Disturbed { denied: vec![denied], ..Disturbed::new(&store) });
        let before = content(&store);
        let result = expire(denies, history.end + SECOND, &rules(), &[]);
        let error = match result {
            Ok(done) => done.denied("here").unwrap_or_else(|| panic!("{denied}: {:?}", done.expired)),
            Err(error) => error,
        };
        assert_eq!(error.kind, Kind::Denied, "{denied}: {error}");
        assert!(error.what.contains("s3:DeleteObject") && error.hint.unwrap().contains("walvis check --policies"));
        assert!(denied != "probe/" || content(&store) == before, "nothing is begun that cannot be ended");
        nothing_is_missing(&history, &store, &stays, denied);
        for again in [SECOND, THIRD, FOURTH, FOURTH + DAY + 60] {
            run_at(&store, history.end + again);
        }
        assert_eq!(content(&store).difference(&stays).collect::<Vec<_>>(), Vec::<&String>::new(), "{denied}");
    }
}

/// A pin that comes between the phases takes the tombstone back; what else it named goes by the next one.
#[test]
fn a_pin_between_the_phases_withdraws() {
    let history = history();
    let store = at_the_end(&history);
    let done = run_at(&store, history.end + FIRST);
    let repository = super::history::open(&store);
    let (system_id, tombstone, _) = done.named[0];
    let named = repository.read_tombstone(&cluster(), system_id, tombstone).unwrap().unwrap();
    let going: Vec<BackupId> = named.manifests().collect();
    let pinned = going[going.len() / 2];
    // By the clock of the test, which is not that of the simulation.
    repository.pin(&cluster(), system_id, pinned, "an audit", None).unwrap();
    let packs = |id: BackupId| {
        let head = repository.read_manifest(&cluster(), system_id, id, &mut |_, _| Ok(ControlFlow::Break(()))).unwrap();
        head.unwrap().1.packs
    };
    let needed = packs(pinned);
    let done = run_at(&store, history.end + SECOND);
    assert_eq!((done.withdrawn, done.expired.tally.gone), (vec![tombstone], 0));
    assert!(!done.named.is_empty());
    let done = run_at(&store, history.end + THIRD);
    let left = repository.backup_ids(&cluster(), system_id).unwrap();
    assert!(going.iter().all(|id| left.contains(id) == (*id == pinned)), "{left:?} of {going:?}");
    assert!(done.expired.backups as usize >= going.len() - 1);
    let keys: BTreeSet<String> = store.keys().into_iter().collect();
    let is_there = |name: ObjectName| keys.contains(&name.to_string());
    assert!(needed.iter().all(|used| is_there(ObjectName::Pack { cluster: cluster(), system_id, pack: used.pack })));
    assert!(repository.has_backup(&cluster(), system_id, pinned).unwrap());
    assert_eq!(packs(pinned), needed);
}

/// A manifest that cannot be read keeps everything, until somebody gives that backup up: once is enough.
#[test]
fn a_backup_is_given_up() {
    let history = history();
    let store = at_the_end(&history);
    let repository = super::history::open(&store);
    let system_id = facts_of(history.truth.systems.last().unwrap().id).system_id;
    let id = repository.backup_ids(&cluster(), system_id).unwrap()[0];
    let name = ObjectName::Manifest { cluster: cluster(), system_id, backup: id };
    let key = Key::new(name.to_string()).unwrap();
    let mut bytes = store.bytes(&key).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.delete(&key).unwrap();
    store.put_at(&key, bytes.into(), history.end);
    let now = history.end + FIRST;
    store.set_now(now);
    let asked = || -> Arc<dyn Store> { Arc::<TimedStore>::clone(&store) };
    let before = content(&store);
    let error = expire(asked(), now, &rules(), &[]).unwrap_err();
    assert!(error.kind == Kind::Refused && error.hint.unwrap().contains("--give-up"), "{}", error.what);
    assert_eq!((content(&store), tombstones(&store)), (before, 0));
    let unknown = BackupId::new(5, 5).unwrap();
    assert_eq!(expire(asked(), now, &rules(), &[id, unknown]).unwrap_err().kind, Kind::Target);
    let planned = with_request(asked(), now, &rules(), &[id], |request| preview(&request)).unwrap();
    assert!(planned.waiting.is_empty() && planned.plan.systems.iter().any(|system| system.goes.has_manifest(id)));
    expire(asked(), now, &rules(), &[id]).unwrap();
    // A preview and later runs need not be told again.
    assert_eq!(with_request(asked(), now, &rules(), &[], |request| preview(&request)).unwrap().waiting.len(), 1);
    run_at(&store, now + 60);
    assert!(store.keys().contains(&name.to_string()));
    run_at(&store, history.end + SECOND);
    assert!(!store.keys().contains(&name.to_string()));

    // One that began and never ended: at once.
    let begun = BackupId::new(now, 9).unwrap();
    repository.begin_backup(&cluster(), system_id, begun).unwrap();
    let now = history.end + THIRD;
    store.set_now(now);
    let done = expire(asked(), now, &rules(), &[begun]).unwrap();
    assert_eq!(done.given_up, [begun]);
    assert!(repository.tombstones(&cluster(), system_id).unwrap().iter().all(|listed| listed.has(TombstonePart::Open)));
}

/// Clocks that are apart, no rules: nothing is changed.
#[test]
fn nothing_is_changed_where_something_looks_wrong() {
    let history = history();
    let store = at_the_end(&history);
    let now = history.end + FIRST;
    store.set_now(now);
    let before = store.keys();
    for (now, rules) in [(now + 3600, rules()), (now - 3600, rules()), (now, Retention::default())] {
        let asked: Arc<dyn Store> = Arc::<TimedStore>::clone(&store);
        let error = expire(asked, now, &rules, &[]).unwrap_err();
        assert!(error.kind == Kind::Refused && error.hint.is_some(), "{error}");
        assert_eq!(store.keys(), before);
    }
}
