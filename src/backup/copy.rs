//! The copying itself: one thread deals out the list, workers read, and results are taken in the order of the list.
//!
//! At most `WINDOW` results wait for an earlier one: a large piece does not let memory grow.
use crate::backup::file_list::{FileList, Listed};
use crate::backup::manifest_builder::ManifestBuilder;
use crate::backup::parent::ParentFiles;
use crate::backup::worker::{Job, Known, LargeFile, Line, Outcome, PIECE_BYTES, Shared, Worker};
use crate::error::{Error, Kind};
use crate::format::extent::tables_in;
use crate::limits::MIB;
use crate::repo::backups::PackWriter;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Jobs that may be under way or done ahead of the first one that is not.
const WINDOW: u64 = 256;
/// A batch of small files is full with this many bytes, or lines.
const BATCH_BYTES: u64 = 4 * MIB as u64;
/// See [`BATCH_BYTES`].
const BATCH_LINES: usize = 64;
/// How often the caller is asked whether to go on.
const TICK: Duration = Duration::from_millis(200);

/// Copies everything on the list; one worker for each of `writers`. `tick` is asked several times a second whether to
/// go on.
///
/// # Errors
/// The first of any worker, of `tick`, or of the gathering.
pub(crate) fn copy<'a>(
    shared: &'a Shared<'a>,
    list: &FileList,
    parent: Option<ParentFiles>,
    writers: Vec<PackWriter<'a>>,
    gather: &mut ManifestBuilder<'_>,
    tick: &dyn Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let (sender, jobs) = sync_channel::<(u64, Job)>(writers.len());
    let jobs = Mutex::new(jobs);
    let (results, outcomes) = channel();
    let window = Window::default();
    thread::scope(|scope| {
        let (jobs, window) = (&jobs, &window);
        for packs in writers {
            let results = results.clone();
            scope.spawn(move || work(Worker::new(shared, packs), jobs, &results));
        }
        drop(results);
        let feeder = scope.spawn(move || feed(shared, list, parent, &sender, window));
        let mut collector = Collector { waiting: BTreeMap::new(), next: 0, failure: None };
        collector.collect(shared, &outcomes, window, gather, tick);
        let fed = feeder.join();
        if let Some(error) = collector.failure {
            return Err(error);
        }
        let count = fed.map_err(|_| Error::new(Kind::Bug, "the thread that deals out files panicked"))??;
        if collector.next != count {
            return Err(Error::new(Kind::Bug, format!("{} of {count} jobs were done", collector.next)));
        }
        Ok(())
    })
}

/// How far the results have been taken.
#[derive(Default)]
struct Window {
    taken: Mutex<u64>,
    moved: Condvar,
}

impl Window {
    /// Waits until job number `number` may begin.
    fn wait_for(&self, number: u64, shared: &Shared<'_>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while number >= *taken + WINDOW && !shared.is_stopped() {
            taken = self.moved.wait_timeout(taken, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn advance(&self, taken: u64) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
        self.moved.notify_all();
    }
}

/// Deals out the list; says how many jobs it was.
fn feed(
    shared: &Shared<'_>,
    list: &FileList,
    mut parent: Option<ParentFiles>,
    sender: &SyncSender<(u64, Job)>,
    window: &Window,
) -> Result<u64, Error> {
    let mut number = 0;
    let mut send = |job: Job| {
        window.wait_for(number, shared);
        // Workers take jobs until there are no more, also after a failure.
        let sent = !shared.is_stopped() && sender.send((number, job)).is_ok();
        number += 1;
        sent
    };
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    for listed in list.iter() {
        match listed {
            Listed::Directory(entry) => batch.push(Line::Directory(entry)),
            Listed::File(path, size_bytes) => {
                let known = parent.as_mut().map_or(Ok(None), |parent| parent.find(&path))?;
                if size_bytes <= PIECE_BYTES {
                    batch.push(Line::File(path, Known::of(known.as_ref(), 0)));
                    batch_bytes += size_bytes;
                } else {
                    if !batch.is_empty() && !send(Job::Batch(std::mem::take(&mut batch))) {
                        return Ok(number);
                    }
                    batch_bytes = 0;
                    let file = Arc::new(LargeFile::new(path, size_bytes));
                    for index in 0..tables_in(size_bytes) {
                        let known = Known::of(known.as_ref(), index as usize);
                        if !send(Job::Piece(Arc::clone(&file), index, known)) {
                            return Ok(number);
                        }
                    }
                }
            }
        }
        if batch.len() >= BATCH_LINES || batch_bytes >= BATCH_BYTES {
            batch_bytes = 0;
            if !send(Job::Batch(std::mem::take(&mut batch))) {
                return Ok(number);
            }
        }
    }
    if !batch.is_empty() {
        send(Job::Batch(batch));
    }
    Ok(number)
}

type Results = Sender<Result<(u64, Outcome), Error>>;

/// Does jobs until there are no more.
fn work(mut worker: Worker<'_, '_>, jobs: &Mutex<Receiver<(u64, Job)>>, results: &Results) {
    let mut failed = false;
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, job)) = next else { break };
        if failed || worker.is_stopped() {
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| worker.run(job)))
            .unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a worker of the backup panicked")));
        failed = result.is_err();
        // The collector listens until all workers have ended.
        let _ = results.send(result.map(|outcome| (number, outcome)));
    }
    if !failed && let Err(error) = worker.finish() {
        let _ = results.send(Err(error));
    }
}

/// Takes results in order.
struct Collector {
    waiting: BTreeMap<u64, Outcome>,
    next: u64,
    failure: Option<Error>,
}

impl Collector {
    /// Until all workers have ended.
    fn collect(
        &mut self,
        shared: &Shared<'_>,
        outcomes: &Receiver<Result<(u64, Outcome), Error>>,
        window: &Window,
        gather: &mut ManifestBuilder<'_>,
        tick: &dyn Fn() -> Result<(), Error>,
    ) {
        let mut ticked = Instant::now();
        loop {
            let result = match outcomes.recv_timeout(TICK) {
                Ok(Ok((number, outcome))) => {
                    self.waiting.insert(number, outcome);
                    self.take_all(gather)
                }
                Ok(Err(error)) => Err(error),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            window.advance(self.next);
            let result = result.and_then(|()| {
                if ticked.elapsed() < TICK {
                    return Ok(());
                }
                ticked = Instant::now();
                tick()
            });
            if let Err(error) = result
                && self.failure.is_none()
            {
                self.failure = Some(error);
                shared.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn take_all(&mut self, gather: &mut ManifestBuilder<'_>) -> Result<(), Error> {
        if self.failure.is_some() {
            return Ok(());
        }
        while let Some(outcome) = self.waiting.remove(&self.next) {
            gather.take(outcome)?;
            self.next += 1;
        }
        Ok(())
    }
}
