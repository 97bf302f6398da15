//! The push helper: `walvis push-wal --ahead`. It pushes what waits to be archived while the server's archiver still
//! waits for one file, and leaves records for the calls to come. docs/SPOOL.md is its design.
//!
//! It says success for nothing and reports no error: what it could not do, the call for that file does again, and
//! reports.

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::node::FANOUT;
use crate::fsio::{self, Change, Changes, FsError, Names, Watch};
use crate::limits::{
    AHEAD_BYTES_IN_FLIGHT, AHEAD_FILES, AHEAD_IDLE, AHEAD_TIME, FILE_TIME_STEP, NEAR_FILES, OPTIONAL_TIMEOUT,
    PUSH_AHEAD_MAX_THREADS,
};
use crate::pg::{SegmentName, WalFileName};
use crate::postgres::control_file;
use crate::repo::{ClusterName, Facts, Kept, Repository};
use crate::repositories;
use crate::threads::{steered, within};
use crate::wal::ahead::looks::{Look, Looks};
use crate::wal::ahead::workers::{Next, Shared, Work, worker_count};
use crate::wal::archive_status::{WaitingFiles, status_directory};
use crate::wal::deliver::{store, update_catalog, warning_of};
use crate::wal::inspect::{InspectedFile, inspect};
use crate::wal::spool::{Held, HelperKind, PlanWriter, Spool, note_failure, note_missed};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Pushes ahead of the file that a call was made for, until nothing is left or something fails.
///
/// # Errors
/// What ended it early; only the plan says it.
pub fn run(config: &Config, path: &Path, deadline: Deadline) -> Result<(), Error> {
    let bad_path = || Error::new(Kind::Usage, format!("{} is no WAL file", path.display()));
    let own = path.file_name().and_then(|name| name.to_str()).and_then(WalFileName::parse).ok_or_else(bad_path)?;
    let wal_directory = path.parent().ok_or_else(bad_path)?;
    let Some(spool) = Spool::find(config, wal_directory) else { return Ok(()) };
    let Some(held) = spool.lock(HelperKind::Push) else { return Ok(()) };
    // Before the first look at anything: what changes afterwards is told.
    let watch = watch(&spool);
    let files = BTreeMap::from([(own, Progress::OfTheCall)]);
    let queue = Shared::new(Queue { files, ..Queue::default() }, watch);
    let helper = PushHelper { config, wal_directory, spool: &spool, queue, deadline };
    match helper.begin(own, &held) {
        Ok(Some(begun)) => helper.push_all(begun, held),
        Ok(None) => {
            spool.end_plan(&held, "a repository is not there");
            Ok(())
        }
        Err(error) => {
            spool.end_plan(&held, &error.to_string());
            Err(error)
        }
    }
}

/// The directories that are watched, by their place.
const STATUS: usize = 0;
const SPOOL: usize = 1;

/// Tells of what is offered and archived, and of what is taken away.
fn watch(spool: &Spool) -> Option<Watch> {
    let wal_directory = spool.wal_directory();
    Watch::on(&[(&status_directory(wal_directory), Names::All), (&spool.path(""), Names::Going), (wal_directory, Names::None)])
}

/// Whether a change says something to a push helper.
fn concerns(change: &Change) -> bool {
    match change.directory {
        STATUS => change.name.as_encoded_bytes().ends_with(b".ready"),
        SPOOL => change.name == "pushed" || change.name == Spool::lock_name(HelperKind::Push).as_str(),
        _ => true,
    }
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The call that started the helper pushes it.
    OfTheCall,
    /// In the queue.
    Waits,
    /// A worker pushes it.
    Begun,
    /// Stored and on record, or vanished.
    Done,
}

#[derive(Default)]
struct Queue {
    files: BTreeMap<WalFileName, Progress>,
    waiting: VecDeque<WalFileName>,
    /// Stored segments after which a node of the catalog may be complete.
    nodes: BTreeMap<SegmentName, Facts>,
    failure: Option<Error>,
    is_over: bool,
}

impl Queue {
    fn unfinished(&self) -> Vec<WalFileName> {
        let begun = self.files.iter().filter(|(_, progress)| **progress == Progress::Begun).map(|(file, _)| *file);
        begun.chain(self.waiting.iter().copied()).collect()
    }

    /// Takes out the segments before which none of their timeline is left to be stored: a node is written when all
    /// below it is there.
    fn take_complete(&mut self, waiting: &WaitingFiles) -> Vec<(SegmentName, Facts)> {
        let is_done = |file: WalFileName| self.files.get(&file) == Some(&Progress::Done);
        let is_due = |segment: &SegmentName| waiting.segments_before(*segment).all(is_done);
        let due: Vec<(SegmentName, Facts)> =
            self.nodes.iter().filter(|(segment, _)| is_due(segment)).map(|(s, f)| (*s, *f)).collect();
        for (segment, _) in &due {
            self.nodes.remove(segment);
        }
        due
    }
}

impl Work for Queue {
    type File = WalFileName;
    type Done = Option<Facts>;

    fn take_next(&mut self) -> Next<WalFileName> {
        if self.is_over || self.failure.is_some() {
            return Next::End;
        }
        let Some(file) = self.waiting.pop_front() else { return Next::Wait };
        self.files.insert(file, Progress::Begun);
        Next::File(file)
    }

    fn finish(&mut self, file: WalFileName, outcome: Result<Option<Facts>, Error>) {
        match outcome {
            Ok(facts) => {
                self.files.insert(file, Progress::Done);
                if let (Some(facts), WalFileName::Segment(segment)) = (facts, file)
                    && segment.number(facts.wal_segment_size).is_some_and(|number| number.is_multiple_of(FANOUT))
                {
                    self.nodes.insert(segment, facts);
                }
            }
            Err(error) => {
                self.files.remove(&file);
                self.failure.get_or_insert(error);
            }
        }
    }

    fn end(&mut self) {
        self.is_over = true;
    }
}

struct PushHelper<'a> {
    config: &'a Config,
    wal_directory: &'a Path,
    spool: &'a Spool,
    queue: Shared<Queue>,
    deadline: Deadline,
}

/// What a helper needs before it can push.
struct Begun {
    waiting: WaitingFiles,
    /// State of the repositories that are directories.
    descriptors: String,
    targets: Vec<Target>,
    threads: usize,
}

impl PushHelper<'_> {
    /// Says what it will do, and opens the repositories; `None` where it cannot leave records.
    fn begin(&self, own: WalFileName, held: &Held) -> Result<Option<Begun>, Error> {
        // Before anything that takes time: a call that comes now had better wait than do the same.
        let waiting = WaitingFiles::listed(self.wal_directory).map_err(|e| Error::new(Kind::Config, e.to_string()))?;
        self.take_in(&waiting, true);
        PlanWriter::new(self.spool, held).update(self.queue.lock().unfinished(), |_| true, false);
        self.spool.sweep_pushed(&|name| WalFileName::parse(name).is_some_and(|file| waiting.contains(&file)));
        if !self.spool.has_helper(HelperKind::Fetch) {
            self.spool.sweep_fetched(&|_| false);
        }
        // Taken first: a repository that takes another one's place afterwards does not match them.
        let Some(descriptors) = self.spool.descriptors() else { return Ok(None) };
        Ok(Some(Begun { waiting, descriptors, targets: self.open_targets()?, threads: self.worker_count(own)? }))
    }

    /// Pushes all that it may, and lets the next helper begin before the last nodes of the catalog are written: these
    /// may take a while, and nothing of them concerns the spool.
    fn push_all(&self, begun: Begun, held: Held) -> Result<(), Error> {
        let Begun { waiting, descriptors, targets, threads } = begun;
        let targets = targets.as_slice();
        let (due, nodes) = mpsc::channel();
        // This thread ends when `due` goes away.
        let catalogs = move || self.update_catalogs(targets, &nodes);
        let push = move || {
            let steer = || {
                self.steer(&held, waiting, &due);
                Ok(())
            };
            let pushed = self.queue.run(threads, |file| self.push(&held, targets, &descriptors, file), steer);
            let (left, failure) = {
                let mut queue = self.queue.lock();
                (std::mem::take(&mut queue.nodes), queue.failure.take())
            };
            let outcome = pushed.and(failure.map_or(Ok(()), Err));
            let why = outcome.as_ref().err().map_or_else(|| "nothing is left".to_owned(), Error::to_string);
            self.spool.end_plan(&held, &why);
            drop(held);
            for (segment, facts) in left {
                // The thread is there until the channel goes away.
                let _ = due.send((facts, segment));
            }
            outcome
        };
        steered([catalogs], || {}, push)
    }

    /// Opens all repositories, once for all files.
    fn open_targets(&self) -> Result<Vec<Target>, Error> {
        let open = |config: &RepositoryConfig| {
            let location = config.store.location();
            let outage = self.spool.outage(&location).filter(|_| config.optional);
            let opened = if let Some(outage) = outage {
                Err(outage.said)
            } else if config.optional {
                let (owned, deadline) = (config.clone(), self.deadline);
                in_time(move || repositories::open(&owned, deadline)).map_err(|e| e.to_string())
            } else {
                Ok(repositories::open(config, self.deadline)?)
            };
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

    fn worker_count(&self, own: WalFileName) -> Result<usize, Error> {
        let own_bytes = match own {
            WalFileName::Segment(_) => fsio::stat(&self.path_of(&own)).ok().flatten().map(|stat| stat.size_bytes),
            _ => None,
        };
        let segment_bytes = match own_bytes {
            Some(bytes) => bytes,
            None => control_file::of_data_directory(&self.wal_directory.join(".."), &self.deadline)?
                .map_or(AHEAD_BYTES_IN_FLIGHT, |facts| facts.wal_segment_size.bytes()),
        };
        Ok(worker_count(PUSH_AHEAD_MAX_THREADS, AHEAD_BYTES_IN_FLIGHT / segment_bytes.max(1)))
    }

    fn path_of(&self, file: &WalFileName) -> PathBuf {
        self.wal_directory.join(file.to_string())
    }

    /// Takes in what waits now. Only the first files count: so no more of them are ever stored before the first one is.
    fn take_in(&self, waiting: &WaitingFiles, may_begin: bool) {
        self.queue.change_if(|queue| {
            queue.files.retain(|file, progress| {
                let stays = matches!(progress, Progress::Begun | Progress::Waits) || waiting.contains(file);
                if !stays {
                    // The server has it marked as archived, and asks no more.
                    self.spool.forget_pushed(file);
                }
                stays
            });
            if !may_begin {
                while let Some(file) = queue.waiting.pop_front() {
                    queue.files.remove(&file);
                }
                // The workers end.
                return true;
            }
            for file in waiting.files().take(AHEAD_FILES) {
                if queue.files.contains_key(&file) {
                    continue;
                }
                if self.spool.pushed(&file, &self.path_of(&file)).is_some() {
                    queue.files.insert(file, Progress::Done);
                } else {
                    queue.files.insert(file, Progress::Waits);
                    queue.waiting.push_back(file);
                }
            }
            !queue.waiting.is_empty()
        });
    }

    /// Finds out what waits now.
    fn follow(&self, waiting: &mut WaitingFiles, changes: &Changes, looks: &mut Looks) -> Result<(), FsError> {
        waiting.follow(changes.names.iter().filter(|change| change.directory == STATUS));
        match looks.next(changes) {
            Look::AtChanges => {}
            Look::AtAll if looks.is_told() => waiting.list()?,
            Look::AtAll => drop(waiting.list_if_changed()?),
            Look::ToBeSure => {
                if waiting.list_if_changed()? && changes.is_empty() {
                    looks.found_untold();
                }
            }
        }
        Ok(())
    }

    /// Hands out work until there is none, and writes the plan.
    fn steer(&self, held: &Held, mut waiting: WaitingFiles, due: &Sender<(Facts, SegmentName)>) {
        let began = Instant::now();
        let (mut progress_at, mut first) = (Instant::now(), None);
        let mut plan = PlanWriter::new(self.spool, held);
        let (mut looks, mut changes) = (Looks::new(self.queue.is_watched()), Changes::default());
        // It ends early where the spool or `pg_wal` is gone: nobody needs it any more.
        while self.spool.is_held(held) && self.follow(&mut waiting, &changes, &mut looks).is_ok() {
            let may_begin = began.elapsed() < AHEAD_TIME && !self.deadline.is_over() && self.queue.lock().failure.is_none();
            self.take_in(&waiting, may_begin);
            let now_first = waiting.files().next();
            if first != now_first {
                (progress_at, first) = (Instant::now(), now_first);
            }
            let (complete, unfinished) = {
                let mut queue = self.queue.lock();
                (queue.take_complete(&waiting), queue.unfinished())
            };
            for (segment, facts) in complete {
                // The thread is there until the channel goes away.
                let _ = due.send((facts, segment));
            }
            let mut pause = looks.pause();
            if unfinished.is_empty() {
                let has_more = waiting.count() > AHEAD_FILES && may_begin;
                if !has_more || progress_at.elapsed() >= AHEAD_IDLE {
                    break;
                }
                pause = pause.min(AHEAD_IDLE.saturating_sub(progress_at.elapsed()));
            }
            let near: Vec<WalFileName> = waiting.files().take(NEAR_FILES).collect();
            plan.update(unfinished, |file| near.contains(file), !may_begin);
            pause = plan.next_heartbeat().map_or(pause, |heartbeat| pause.min(heartbeat));
            changes = self.queue.wait(pause, concerns);
        }
    }

    fn update_catalogs(&self, targets: &[Target], due: &Receiver<(Facts, SegmentName)>) {
        for (facts, segment) in due {
            for opened in targets.iter().filter_map(|target| target.opened.as_ref().ok().filter(|_| !target.hangs())) {
                update_catalog(opened, &self.config.cluster, facts, segment, self.deadline);
            }
        }
    }

    /// Pushes a file to every repository and puts it on record. `None` when it is gone.
    fn push(&self, held: &Held, targets: &[Target], descriptors: &str, file: WalFileName) -> Result<Option<Facts>, Error> {
        let path = self.path_of(&file);
        // A change in the same tick as the last one would not show in the file's times: read it once that tick is over.
        if fsio::stat(&path).ok().flatten().is_some_and(|stat| !fsio::is_settled(&stat)) {
            std::thread::sleep(FILE_TIME_STEP);
        }
        let inspected = match inspect(&path, self.config, &self.deadline) {
            Ok(inspected) => Arc::new(inspected),
            Err(error) => return if fsio::exists(&path).is_ok_and(|is| !is) { Ok(None) } else { Err(error) },
        };
        let (mut failures, mut warnings) = (Vec::new(), Vec::new());
        for target in targets {
            match target.push(&self.config.cluster, &inspected) {
                Ok(kept) => warnings.extend(warning_of(&kept, &target.location)),
                Err(error) if !target.optional => return Err(error),
                Err(error) => {
                    let was_tried = target.opened.is_ok() && !target.hangs();
                    let spool = Some(self.spool).filter(|spool| spool.is_held(held));
                    let since = note_failure(spool, &target.location, &error.what, was_tried);
                    let why = format!("{error}{}{since}", error.hint_in_brackets());
                    failures.push(note_missed(spool, &target.location, &[file], &why));
                }
            }
        }
        // Under its name is still what was read, and a change yet to come will show.
        let now = fsio::stat(&path).ok().flatten();
        if now == Some(inspected.stat) && fsio::is_settled(&inspected.stat) {
            let written = self
                .spool
                .must_be_held(held)
                .and_then(|()| self.spool.record_pushed(&file, &inspected.stat, descriptors, &failures, &warnings));
            written.map_err(|e| Error::new(Kind::Config, e.to_string()))?;
        }
        Ok(Some(inspected.facts))
    }
}

/// A repository that all files go to.
struct Target {
    location: String,
    optional: bool,
    /// Or what kept it from being opened; of optional ones only.
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

    fn push(&self, cluster: &ClusterName, file: &Arc<InspectedFile>) -> Result<Kept, Error> {
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
        let outcome = in_time(move || {
            opened.bind(&cluster, file.facts)?;
            store(&opened, &cluster, &file)
        });
        if outcome.as_ref().is_err_and(|e| matches!(e.kind, Kind::Unreachable | Kind::Bug)) {
            self.hangs.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// What an optional repository is asked to do, or an error when that takes longer than it may.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    within(OPTIONAL_TIMEOUT, work)?.unwrap_or_else(|| Err(Error::new(Kind::Unreachable, "it hangs")))
}
