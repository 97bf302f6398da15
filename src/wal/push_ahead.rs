//! The push helper: `walvis push-wal --ahead`. It pushes what waits to be archived while the server's archiver still waits for one
//! file, and leaves records for the calls to come. docs/SPOOL.md is its design.
//!
//! It says success for nothing and reports no error: what it could not do, the call for that file does again, and reports.
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::node::FANOUT;
use crate::fsio::{self, FsError};
use crate::limits::{
    AHEAD_BYTES_IN_FLIGHT, AHEAD_FILES, AHEAD_IDLE, AHEAD_MIN_THREADS, AHEAD_TIME, OPTIONAL_TIMEOUT, PUSH_AHEAD_MAX_THREADS,
};
use crate::pg::{SegmentName, WalFileName};
use crate::repo::{ClusterName, Facts, Kept, Repository};
use crate::repositories;
use crate::wal::missed;
use crate::wal::push::{Inspected, hint_of, inspect, note_on, store, write_nodes};
use crate::wal::spool::{HEARTBEAT, Side, Spool, start_helper};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// The start of a helper by a call, once the call knows that the repository can be reached.
pub(super) struct Start {
    spool: Arc<Spool>,
    wal_directory: PathBuf,
    file: WalFileName,
    arguments: Vec<OsString>,
    is_done: AtomicBool,
}

impl Start {
    pub(super) fn new(spool: Arc<Spool>, wal_directory: PathBuf, file: WalFileName, arguments: Vec<OsString>) -> Self {
        Self { spool, wal_directory, file, arguments, is_done: AtomicBool::new(false) }
    }

    /// Starts one where the archiver asks for this file and others wait too.
    pub(super) fn once(&self) {
        if self.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        let ready = ready(&self.wal_directory.join("archive_status")).unwrap_or_default();
        if ready.len() < 2 || !ready.contains(&self.file) {
            return;
        }
        match self.spool.make(&self.wal_directory) {
            Ok(()) if self.spool.has_helper(Side::Push) => {}
            Ok(()) => start_helper(&self.arguments),
            Err(error) => tracing::debug!(%error, "no spool, so nothing is pushed ahead"),
        }
    }
}

/// The files that wait to be archived, in the server's order: histories first.
fn ready(status: &Path) -> Result<Vec<WalFileName>, FsError> {
    let names = fsio::list_dir(status)?;
    let files = names.iter().filter_map(|name| WalFileName::parse(name.to_str()?.strip_suffix(".ready")?));
    let (mut histories, others): (Vec<_>, Vec<_>) = files.partition(|file| matches!(file, WalFileName::History(_)));
    histories.extend(others);
    Ok(histories)
}

/// Pushes ahead of the file that a call was made for, until nothing is left or something fails.
///
/// # Errors
/// What ended it early; nobody is told but the plan.
pub fn run(config: &Config, path: &Path, deadline: Deadline) -> Result<(), Error> {
    let bad_path = || Error::new(Kind::Usage, format!("{} is no WAL file", path.display()));
    let own = path.file_name().and_then(|name| name.to_str()).and_then(WalFileName::parse).ok_or_else(bad_path)?;
    let wal_directory = path.parent().ok_or_else(bad_path)?;
    let Some(spool) = Spool::find(config, wal_directory) else { return Ok(()) };
    let Some(place) = spool.place() else { return Ok(()) };
    let Some(_held) = spool.lock(Side::Push) else { return Ok(()) };
    let state = State { files: BTreeMap::from([(own, Progress::Elsewhere)]), ..State::default() };
    let run = Run { config, wal_directory, spool, place, state: Mutex::new(state), changed: Condvar::new(), deadline };
    let outcome = run.all(own);
    run.spool.end_plan(Side::Push, &outcome.as_ref().err().map_or_else(|| "nothing is left".to_owned(), Error::to_string));
    outcome
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The call that started us pushes it.
    Elsewhere,
    Waits,
    Runs,
    /// Stored and on record, or vanished.
    Done,
}

#[derive(Default)]
struct State {
    files: BTreeMap<WalFileName, Progress>,
    queue: VecDeque<WalFileName>,
    /// Stored segments after which a node of the catalog may be complete.
    nodes: BTreeMap<SegmentName, Facts>,
    failure: Option<Error>,
    is_over: bool,
}

impl State {
    fn unfinished(&self) -> Vec<WalFileName> {
        let runs = self.files.iter().filter(|(_, progress)| **progress == Progress::Runs).map(|(file, _)| *file);
        runs.chain(self.queue.iter().copied()).collect()
    }
}

struct Run<'a> {
    config: &'a Config,
    wal_directory: &'a Path,
    spool: Spool,
    place: (u64, u64),
    state: Mutex<State>,
    changed: Condvar,
    deadline: Deadline,
}

impl Run<'_> {
    fn all(&self, own: WalFileName) -> Result<(), Error> {
        // Before anything that takes time: a call that comes now had better wait than do the same.
        let ready = ready(&self.wal_directory.join("archive_status")).map_err(|e| Error::new(Kind::Config, e.to_string()))?;
        self.take(&ready, true);
        self.say(&self.lock().unfinished());
        self.spool.sweep_pushed(&|name| WalFileName::parse(name).is_some_and(|file| ready.contains(&file)));
        if !self.spool.has_helper(Side::Fetch) {
            self.spool.sweep_fetched(&|_| false);
        }
        // Taken first: a repository that takes another one's place afterwards does not match them.
        let Some(descriptors) = self.spool.descriptors() else { return Ok(()) };
        let targets = self.targets()?;
        let threads = self.threads(own)?;
        let (due, nodes) = mpsc::channel();
        std::thread::scope(|scope| {
            let (targets, descriptors) = (&targets, descriptors.as_str());
            std::thread::Builder::new().spawn_scoped(scope, move || self.write_nodes(targets, &nodes)).map_err(no_thread)?;
            for _ in 0..threads {
                if let Err(e) = std::thread::Builder::new().spawn_scoped(scope, move || self.work(targets, descriptors)) {
                    self.lock().is_over = true;
                    self.changed.notify_all();
                    return Err(no_thread(e));
                }
            }
            self.steer(&due);
            drop(due);
            Ok(())
        })?;
        self.lock().failure.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens all repositories, once for all files.
    fn targets(&self) -> Result<Vec<Target>, Error> {
        let open = |config: &RepositoryConfig| {
            let (owned, deadline) = (config.clone(), self.deadline);
            let outage = self.spool.outage(&config.store.location()).filter(|_| config.optional);
            let opened = if let Some(outage) = outage {
                Err(outage.said)
            } else if config.optional {
                within(OPTIONAL_TIMEOUT, move || repositories::open(&owned, deadline)).map_err(|e| e.to_string())
            } else {
                Ok(repositories::open(config, deadline)?)
            };
            let location = config.store.location();
            Ok(Target {
                location,
                optional: config.optional,
                opened: opened.map(Arc::new),
                bound: Mutex::default(),
                hangs: false.into(),
            })
        };
        self.config.repositories.iter().map(open).collect()
    }

    /// Twice the cores, so that waiting for a store costs nothing, and fewer where segments are large.
    fn threads(&self, own: WalFileName) -> Result<usize, Error> {
        let size = match own {
            WalFileName::Segment(_) => fsio::stat(&self.path_of(&own)).ok().flatten().map(|stat| stat.size_bytes),
            _ => None,
        };
        let size = match size {
            Some(size) => size,
            None => crate::postgres::control_file::of_data_directory(&self.wal_directory.join(".."), &self.deadline)?
                .map_or(AHEAD_BYTES_IN_FLIGHT, |facts| facts.wal_segment_size.bytes()),
        };
        let wanted = available_parallelism().map_or(1, usize::from) * 2;
        let fit = usize::try_from(AHEAD_BYTES_IN_FLIGHT / size.max(1)).unwrap_or(usize::MAX);
        Ok(wanted.clamp(AHEAD_MIN_THREADS, PUSH_AHEAD_MAX_THREADS).min(fit).max(1))
    }

    fn path_of(&self, file: &WalFileName) -> PathBuf {
        self.wal_directory.join(file.to_string())
    }

    /// Takes in what waits now. Only the first files count: so no more of them are ever stored before the first one is.
    fn take(&self, ready: &[WalFileName], may_begin: bool) {
        let mut state = self.lock();
        state.files.retain(|file, progress| {
            let stays = *progress == Progress::Runs || *progress == Progress::Waits || ready.contains(file);
            if !stays {
                // The server has it marked as archived, and asks no more.
                self.spool.forget_pushed(file);
            }
            stays
        });
        if !may_begin {
            while let Some(file) = state.queue.pop_front() {
                state.files.remove(&file);
            }
            return;
        }
        for file in ready.iter().take(AHEAD_FILES) {
            if state.files.contains_key(file) {
                continue;
            }
            if self.spool.pushed(file, &self.path_of(file)).is_some() {
                state.files.insert(*file, Progress::Done);
            } else {
                state.files.insert(*file, Progress::Waits);
                state.queue.push_back(*file);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn say(&self, files: &[WalFileName]) {
        let names: Vec<String> = files.iter().map(WalFileName::to_string).collect();
        if let Err(error) = self.spool.write_plan(Side::Push, &names) {
            tracing::debug!(%error, "cannot write the plan");
        }
    }

    /// Hands out work until there is none, and says what is being done.
    fn steer(&self, due: &Sender<(Facts, SegmentName)>) {
        let status = self.wal_directory.join("archive_status");
        let (since, mut said_at, mut said) = (Instant::now(), Instant::now(), Vec::new());
        let (mut progress_at, mut first) = (Instant::now(), None);
        loop {
            let ready = match ready(&status) {
                Ok(ready) if self.spool.place() == Some(self.place) => ready,
                // Nobody needs us any more.
                _ => {
                    self.lock().is_over = true;
                    break;
                }
            };
            let may_begin = since.elapsed() < AHEAD_TIME && !self.deadline.is_over() && self.lock().failure.is_none();
            self.take(&ready, may_begin);
            if first != ready.first().copied() {
                (progress_at, first) = (Instant::now(), ready.first().copied());
            }
            let mut state = self.lock();
            for (segment, facts) in Self::complete(&mut state, &ready) {
                // The thread is there until we drop the channel.
                let _ = due.send((facts, segment));
            }
            let unfinished = state.unfinished();
            if unfinished.is_empty() {
                let more = ready.len() > AHEAD_FILES && may_begin;
                if !more || progress_at.elapsed() > AHEAD_IDLE {
                    state.is_over = true;
                    break;
                }
            }
            drop(state);
            if unfinished != said || said_at.elapsed() >= HEARTBEAT {
                self.say(&unfinished);
                (said, said_at) = (unfinished, Instant::now());
            }
            let state = self.lock();
            // A worker that ends while we look at the directory is seen at the latest after this time.
            let pause = if said.is_empty() { Duration::from_millis(20) } else { Duration::from_millis(100) };
            drop(self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
        }
        self.changed.notify_all();
        for (segment, facts) in std::mem::take(&mut self.lock().nodes) {
            let _ = due.send((facts, segment));
        }
    }

    /// Takes out the segments before which none of their timeline is left to be stored: whoever writes a node wants all below it there.
    fn complete(state: &mut State, ready: &[WalFileName]) -> Vec<(SegmentName, Facts)> {
        let is_done = |file: &WalFileName| state.files.get(file) == Some(&Progress::Done);
        let undone = ready.iter().filter(|file| !is_done(file));
        let undone: Vec<SegmentName> =
            undone.filter_map(|file| if let WalFileName::Segment(name) = file { Some(*name) } else { None }).collect();
        let is_due = |segment: &SegmentName| !undone.iter().any(|name| name.timeline == segment.timeline && name < segment);
        let due: Vec<(SegmentName, Facts)> =
            state.nodes.iter().filter(|(segment, _)| is_due(segment)).map(|(s, f)| (*s, *f)).collect();
        for (segment, _) in &due {
            state.nodes.remove(segment);
        }
        due
    }

    fn write_nodes(&self, targets: &[Target], due: &Receiver<(Facts, SegmentName)>) {
        for (facts, segment) in due {
            for opened in targets.iter().filter_map(|target| target.opened.as_ref().ok().filter(|_| !target.hangs())) {
                write_nodes(opened, &self.config.cluster, facts, segment, self.deadline);
            }
        }
    }

    /// Pushes one file after the other.
    fn work(&self, targets: &[Target], descriptors: &str) {
        loop {
            let mut state = self.lock();
            let file = loop {
                if state.is_over || state.failure.is_some() {
                    return;
                }
                match state.queue.pop_front() {
                    Some(file) => break file,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            state.files.insert(file, Progress::Runs);
            drop(state);
            let bug = |_| Err(Error::new(Kind::Bug, "a thread panicked"));
            let outcome = catch_unwind(AssertUnwindSafe(|| self.push(targets, descriptors, file))).unwrap_or_else(bug);
            let mut state = self.lock();
            match outcome {
                Ok(facts) => {
                    state.files.insert(file, Progress::Done);
                    if let (Some(facts), WalFileName::Segment(segment)) = (facts, file)
                        && segment.number(facts.wal_segment_size).is_some_and(|number| number.is_multiple_of(FANOUT))
                    {
                        state.nodes.insert(segment, facts);
                    }
                }
                Err(error) => {
                    state.files.remove(&file);
                    state.failure.get_or_insert(error);
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Pushes a file to every repository and puts it on record. `None` when it is gone.
    fn push(&self, targets: &[Target], descriptors: &str, file: WalFileName) -> Result<Option<Facts>, Error> {
        let path = self.path_of(&file);
        // A change in the same tick as the last one would not show in the file's times: read it once that tick is over.
        if fsio::stat(&path).ok().flatten().is_some_and(|stat| !fsio::is_settled(&stat)) {
            std::thread::sleep(fsio::TIME_STEP);
        }
        let inspected = match inspect(&path, self.config, &self.deadline) {
            Ok(inspected) => Arc::new(inspected),
            Err(error) => return if fsio::exists(&path).is_ok_and(|is| !is) { Ok(None) } else { Err(error) },
        };
        let (mut failures, mut notes) = (Vec::new(), Vec::new());
        for target in targets {
            match target.push(&self.config.cluster, &inspected) {
                Ok(kept) => notes.extend(note_on(&kept, &target.location)),
                Err(error) if !target.optional => return Err(error),
                Err(error) => {
                    let since =
                        self.spool.note_outage(&target.location, &error.what, target.opened.is_ok() && !target.hangs()).since();
                    let why = format!("{error}{}{since}", hint_of(&error));
                    failures.push(missed::note(Some(&self.spool), &target.location, &[file], &why));
                }
            }
        }
        // Under its name is still what was read, and a change yet to come will show.
        let now = fsio::stat(&path).ok().flatten();
        if now == Some(inspected.stat) && fsio::is_settled(&inspected.stat) {
            let written = self.spool.record_pushed(&file, &inspected.stat, descriptors, &failures, &notes);
            written.map_err(|e| Error::new(Kind::Config, e.to_string()))?;
        }
        Ok(Some(inspected.facts))
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(Kind::Unreachable, format!("cannot start a thread: {error}"))
}

/// An opened repository.
struct Target {
    location: String,
    optional: bool,
    opened: Result<Arc<Repository>, String>,
    /// What the cluster's name is known to be bound to.
    bound: Mutex<Option<Facts>>,
    /// An optional one that did not answer in time is left out from then on.
    hangs: AtomicBool,
}

impl Target {
    fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Relaxed)
    }

    fn push(&self, cluster: &ClusterName, file: &Arc<Inspected>) -> Result<Kept, Error> {
        let opened = self.opened.as_ref().map_err(|e| Error::new(Kind::Unreachable, e.clone()))?;
        let facts = file.facts;
        if !self.optional {
            // The others wait for the first, rather than all look at the binding.
            let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
            if *bound != Some(facts) {
                opened.bind(cluster, facts)?;
                *bound = Some(facts);
            }
            drop(bound);
            return store(opened, cluster, file);
        }
        if self.hangs() {
            return Err(Error::new(Kind::Unreachable, "it did not answer before"));
        }
        let (opened, cluster, file) = (Arc::clone(opened), cluster.clone(), Arc::clone(file));
        let outcome = within(OPTIONAL_TIMEOUT, move || {
            opened.bind(&cluster, file.facts)?;
            store(&opened, &cluster, &file)
        });
        if outcome.as_ref().is_err_and(|e| e.kind == Kind::Unreachable) {
            self.hangs.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// Does something on a thread of its own and waits at most so long. A thread that hangs ends with the process.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .spawn(move || {
            // Nobody waits any more if it took too long.
            let _ = sender.send(work());
        })
        .map_err(no_thread)?;
    receiver.recv_timeout(limit).unwrap_or_else(|_| Err(Error::new(Kind::Unreachable, "it hangs")))
}
