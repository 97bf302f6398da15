//! The push helper: `walvis push-wal --ahead`. It pushes what waits to be archived while the server's archiver still
//! waits for one file, and leaves records for the calls to come. docs/SPOOL.md is its design.
//!
//! It says success for nothing and reports no error: what it could not do, the call for that file does again, and
//! reports.

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::node::FANOUT;
use crate::fsio;
use crate::limits::{
    AHEAD_BYTES_IN_FLIGHT, AHEAD_FILES, AHEAD_IDLE, AHEAD_TIME, FILE_TIME_STEP, OPTIONAL_TIMEOUT, PUSH_AHEAD_MAX_THREADS,
    PUSH_HELPER_IDLE_LOOK_EVERY, PUSH_HELPER_LOOK_EVERY,
};
use crate::pg::{SegmentName, WalFileName};
use crate::postgres::control_file;
use crate::repo::{ClusterName, Facts, Kept, Repository};
use crate::repositories;
use crate::threads::{steered, within};
use crate::wal::ahead::workers::{Next, Shared, Work, worker_count};
use crate::wal::archive_status::waiting_files;
use crate::wal::deliver::{store, update_catalog, warning_of};
use crate::wal::inspect::{InspectedFile, inspect};
use crate::wal::spool::{HelperKind, PlanWriter, Spool, SpoolId, note_failure, note_missed};
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
    let Some(spool_id) = spool.id() else { return Ok(()) };
    let Some(_held) = spool.lock(HelperKind::Push) else { return Ok(()) };
    let queue = Shared::new(Queue { files: BTreeMap::from([(own, Progress::OfTheCall)]), ..Queue::default() });
    let helper = PushHelper { config, wal_directory, spool, spool_id, queue, deadline };
    let outcome = helper.push_all(own);
    let why = outcome.as_ref().err().map_or_else(|| "nothing is left".to_owned(), Error::to_string);
    helper.spool.end_plan(HelperKind::Push, &why);
    outcome
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
    fn take_complete(&mut self, ready: &[WalFileName]) -> Vec<(SegmentName, Facts)> {
        let is_done = |file: &WalFileName| self.files.get(file) == Some(&Progress::Done);
        let undone = ready.iter().filter(|file| !is_done(file));
        let undone: Vec<SegmentName> =
            undone.filter_map(|file| if let WalFileName::Segment(name) = file { Some(*name) } else { None }).collect();
        let is_due = |segment: &SegmentName| !undone.iter().any(|name| name.timeline == segment.timeline && name < segment);
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
    spool: Spool,
    spool_id: SpoolId,
    queue: Shared<Queue>,
    deadline: Deadline,
}

impl PushHelper<'_> {
    fn push_all(&self, own: WalFileName) -> Result<(), Error> {
        // Before anything that takes time: a call that comes now had better wait than do the same.
        let ready = waiting_files(self.wal_directory).map_err(|e| Error::new(Kind::Config, e.to_string()))?;
        let mut plan = PlanWriter::new(&self.spool, HelperKind::Push);
        self.take_in(&ready, true);
        plan.update(self.queue.lock().unfinished());
        self.spool.sweep_pushed(&|name| WalFileName::parse(name).is_some_and(|file| ready.contains(&file)));
        if !self.spool.has_helper(HelperKind::Fetch) {
            self.spool.sweep_fetched(&|_| false);
        }
        // Taken first: a repository that takes another one's place afterwards does not match them.
        let Some(descriptors) = self.spool.descriptors() else { return Ok(()) };
        let targets = self.open_targets()?;
        let targets = targets.as_slice();
        let steer = || {
            let (due, nodes) = mpsc::channel();
            let catalogs = move || self.update_catalogs(targets, &nodes);
            // The other thread ends when `due` goes away.
            let steer = move || {
                self.steer(&mut plan, &due);
                Ok(())
            };
            steered([catalogs], || {}, steer)
        };
        self.queue.run(self.worker_count(own)?, |file| self.push(targets, &descriptors, file), steer)?;
        self.queue.lock().failure.take().map_or(Ok(()), Err)
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
        Ok(worker_count(PUSH_AHEAD_MAX_THREADS, segment_bytes))
    }

    fn path_of(&self, file: &WalFileName) -> PathBuf {
        self.wal_directory.join(file.to_string())
    }

    /// Takes in what waits now. Only the first files count: so no more of them are ever stored before the first one is.
    fn take_in(&self, ready: &[WalFileName], may_begin: bool) {
        self.queue.change(|queue| {
            queue.files.retain(|file, progress| {
                let stays = matches!(progress, Progress::Begun | Progress::Waits) || ready.contains(file);
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
                return;
            }
            for file in ready.iter().take(AHEAD_FILES) {
                if queue.files.contains_key(file) {
                    continue;
                }
                if self.spool.pushed(file, &self.path_of(file)).is_some() {
                    queue.files.insert(*file, Progress::Done);
                } else {
                    queue.files.insert(*file, Progress::Waits);
                    queue.waiting.push_back(*file);
                }
            }
        });
    }

    /// Hands out work until there is none, and writes the plan.
    fn steer(&self, plan: &mut PlanWriter<'_>, due: &Sender<(Facts, SegmentName)>) {
        let began = Instant::now();
        let (mut progress_at, mut first) = (Instant::now(), None);
        // It ends early where the spool or `pg_wal` is gone: nobody needs it any more.
        while let Some(ready) = waiting_files(self.wal_directory).ok().filter(|_| self.spool.id() == Some(self.spool_id)) {
            let may_begin = began.elapsed() < AHEAD_TIME && !self.deadline.is_over() && self.queue.lock().failure.is_none();
            self.take_in(&ready, may_begin);
            if first != ready.first().copied() {
                (progress_at, first) = (Instant::now(), ready.first().copied());
            }
            let (complete, unfinished) = {
                let mut queue = self.queue.lock();
                (queue.take_complete(&ready), queue.unfinished())
            };
            for (segment, facts) in complete {
                // The thread is there until the channel goes away.
                let _ = due.send((facts, segment));
            }
            let is_idle = unfinished.is_empty();
            if is_idle {
                let has_more = ready.len() > AHEAD_FILES && may_begin;
                if !has_more || progress_at.elapsed() > AHEAD_IDLE {
                    break;
                }
            }
            plan.update(unfinished);
            // A worker that ends while we look at the directory is seen at the latest after this time.
            self.queue.wait(if is_idle { PUSH_HELPER_IDLE_LOOK_EVERY } else { PUSH_HELPER_LOOK_EVERY });
        }
        let left = self.queue.change(|queue| {
            queue.end();
            std::mem::take(&mut queue.nodes)
        });
        for (segment, facts) in left {
            let _ = due.send((facts, segment));
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
    fn push(&self, targets: &[Target], descriptors: &str, file: WalFileName) -> Result<Option<Facts>, Error> {
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
                    let since = note_failure(Some(&self.spool), &target.location, &error.what, was_tried);
                    let why = format!("{error}{}{since}", error.hint_in_brackets());
                    failures.push(note_missed(Some(&self.spool), &target.location, &[file], &why));
                }
            }
        }
        // Under its name is still what was read, and a change yet to come will show.
        let now = fsio::stat(&path).ok().flatten();
        if now == Some(inspected.stat) && fsio::is_settled(&inspected.stat) {
            let written = self.spool.record_pushed(&file, &inspected.stat, descriptors, &failures, &warnings);
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
