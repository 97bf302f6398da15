//! Jobs that are handed to workers and may end in any order. Depends on `error` alone.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::start::{with_crew, without_panic};
use super::stop::{Stop, StopOnDrop};
use crate::error::{Error, Kind};

/// What one thread does with the jobs that it gets.
pub trait Worker: Send {
    /// What there is to do.
    type Job: Send;
    /// What comes of it.
    type Output: Send;

    /// Does one job.
    ///
    /// # Errors
    /// The first error of any worker stops all of them, and is what the whole ends with.
    fn run(&mut self, job: Self::Job) -> Result<Self::Output, Error>;

    /// Called after the last job, unless something failed.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn finish(self) -> Result<(), Error>
    where
        Self: Sized,
    {
        Ok(())
    }
}

/// The workers have stopped: there is an error, which is what the whole ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Self::new(Kind::Bug, "the workers stopped before their work was done")
    }
}

/// Where jobs are handed over. Several threads may do so at once.
#[derive(Debug)]
pub struct Jobs<'a, J> {
    queue: SyncSender<J>,
    stop: &'a Stop,
}

impl<'a, J> Jobs<'a, J> {
    /// A queue in which `waiting` jobs may wait.
    pub(super) fn new(waiting: usize, stop: &'a Stop) -> (Self, Mutex<Receiver<J>>) {
        let (queue, jobs) = sync_channel(waiting);
        (Self { queue, stop }, Mutex::new(jobs))
    }

    /// Hands over a job; waits while there is no room for it.
    ///
    /// # Errors
    /// When the workers have stopped.
    pub fn send(&self, job: J) -> Result<(), Stopped> {
        // Workers take jobs until there are no more, also after a failure: this never waits for ever.
        if self.stop.is_set() { Err(Stopped) } else { self.queue.send(job).map_err(|_| Stopped) }
    }
}

/// The first error of threads that work together; it stops them.
pub(super) struct Failure<'a> {
    first: Mutex<Option<Error>>,
    stop: &'a Stop,
}

impl<'a> Failure<'a> {
    pub(super) fn new(stop: &'a Stop) -> Self {
        Self { first: Mutex::new(None), stop }
    }

    pub(super) fn note(&self, error: Error) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.set();
    }

    pub(super) fn is_noted(&self) -> bool {
        self.stop.is_set()
    }

    pub(super) fn into_first(self) -> Option<Error> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does jobs until there are no more. After a failure it goes on taking them, so that nobody waits for ever to hand one
/// over.
pub(super) fn work_off<W: Worker>(
    mut worker: W,
    jobs: &Mutex<Receiver<W::Job>>,
    failure: &Failure<'_>,
    mut take: impl FnMut(W::Output),
) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { break };
        if failure.stop.is_set() {
            continue;
        }
        match without_panic(|| worker.run(job)) {
            Ok(output) => take(output),
            Err(error) => failure.note(error),
        }
    }
    if !failure.stop.is_set()
        && let Err(error) = without_panic(|| worker.finish())
    {
        failure.note(error);
    }
}

/// Runs `lead` on this thread, which hands jobs to `workers`, one thread for each; `waiting` jobs may wait for one.
/// When it returns `Ok`, and this does, every job is done. `stop` is set by the first failure.
///
/// # Errors
/// The first error of a worker or of `lead`; [`Kind::Bug`]: a worker panicked; where a thread cannot be
/// started, see [`no_thread`](super::no_thread).
pub fn with_workers<W: Worker<Output = ()>, R>(
    workers: Vec<W>,
    waiting: usize,
    stop: &Stop,
    lead: impl FnOnce(&Jobs<'_, W::Job>) -> Result<R, Error>,
) -> Result<R, Error> {
    if workers.is_empty() {
        return Err(Error::new(Kind::Bug, "there are no workers"));
    }
    let (queue, jobs) = Jobs::new(waiting, stop);
    let failure = Failure::new(stop);
    let result = with_crew(|crew| {
        let (jobs, failure, queue) = (&jobs, &failure, queue);
        for worker in workers {
            if let Err(error) = crew.start(move || work_off(worker, jobs, failure, drop)) {
                failure.note(error);
                return None;
            }
        }
        // A panic of the calling thread goes on, and nothing is finished then.
        let on_panic = StopOnDrop(stop);
        let result = lead(&queue);
        std::mem::forget(on_panic);
        // What a worker says afterwards comes of it, and does not hide it.
        result.map_err(|error| failure.note(error)).ok()
    });
    match (failure.into_first(), result) {
        (Some(first), _) => Err(first),
        (None, Some(result)) => Ok(result),
        (None, None) => Err(Error::from(Stopped)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::thread;

    use super::super::start::tests::with_threads_left;
    use super::*;

    /// Adds numbers up, and hands over its sum at the end.
    struct Adder<'a> {
        sum: u64,
        total: &'a AtomicU64,
        finished: &'a AtomicUsize,
    }

    impl Worker for Adder<'_> {
        type Job = u64;
        type Output = ();

        fn run(&mut self, number: u64) -> Result<(), Error> {
            match number {
                13 => Err(Error::new(Kind::Damaged, "thirteen")),
                17 => panic!("a test's panic"),
                _ => {
                    self.sum += number;
                    Ok(())
                }
            }
        }

        fn finish(self) -> Result<(), Error> {
            self.total.fetch_add(self.sum, Ordering::SeqCst);
            self.finished.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    /// Hands numbers to three workers: the result, the sum, and how many workers finished.
    fn add(waiting: usize, numbers: &[u64], end: Result<(), Error>) -> (Result<(), Kind>, u64, usize) {
        let (total, finished, stop) = (AtomicU64::new(0), AtomicUsize::new(0), Stop::default());
        let workers = (0..3).map(|_| Adder { sum: 0, total: &total, finished: &finished }).collect();
        let result = with_workers(workers, waiting, &stop, |jobs| {
            for number in numbers {
                jobs.send(*number)?;
            }
            end
        });
        (result.map_err(|e| e.kind), total.into_inner(), finished.into_inner())
    }

    #[test]
    fn every_job_is_done_and_every_worker_finishes() {
        let numbers: Vec<u64> = (100..1100).collect();
        for waiting in [0, 5] {
            assert_eq!(add(waiting, &numbers, Ok(())), (Ok(()), 599_500, 3));
        }
        assert_eq!(add(0, &[], Ok(())), (Ok(()), 0, 3));
    }

    #[test]
    fn the_first_error_or_panic_stops_the_rest() {
        for (bad, kind) in [(13, Kind::Damaged), (17, Kind::Bug)] {
            let numbers: Vec<u64> = std::iter::once(bad).chain(100..100_000).collect();
            let (result, _, finished) = add(0, &numbers, Ok(()));
            assert_eq!(result, Err(kind));
            assert!(finished == 0, "{finished} workers finished after a failure");
        }
    }

    #[test]
    fn an_error_of_the_lead_ends_it_unless_a_worker_knows_better() {
        let refused = || Err(Error::new(Kind::Refused, "no more"));
        assert_eq!(add(0, &[100], refused()), (Err(Kind::Refused), 0, 0));
        let (total, finished, stop) = (AtomicU64::new(0), AtomicUsize::new(0), Stop::default());
        let workers = vec![Adder { sum: 0, total: &total, finished: &finished }];
        let result = with_workers(workers, 0, &stop, |jobs| {
            jobs.send(13)?;
            while jobs.send(100).is_ok() {}
            refused()
        });
        assert_eq!(result.unwrap_err().kind, Kind::Damaged);
    }

    /// Works until all are to stop, and fails then.
    struct Interrupted<'a>(&'a Stop);

    impl Worker for Interrupted<'_> {
        type Job = ();
        type Output = ();

        fn run(&mut self, (): ()) -> Result<(), Error> {
            while !self.0.is_set() {
                thread::yield_now();
            }
            Err(Error::new(Kind::Damaged, "interrupted"))
        }

        fn finish(self) -> Result<(), Error> {
            Ok(())
        }
    }

    #[test]
    fn what_a_worker_says_when_it_is_stopped_does_not_hide_why() {
        let stop = Stop::default();
        let result = with_workers(vec![Interrupted(&stop)], 1, &stop, |jobs| {
            jobs.send(())?;
            Err::<(), _>(Error::new(Kind::Refused, "no more"))
        });
        assert_eq!(result.unwrap_err().kind, Kind::Refused);
    }

    #[test]
    fn a_panic_of_the_lead_goes_on_and_does_not_hang() {
        let (total, finished, stop) = (AtomicU64::new(0), AtomicUsize::new(0), Stop::default());
        let workers = vec![Adder { sum: 0, total: &total, finished: &finished }];
        let lead = |_: &Jobs<'_, u64>| -> Result<(), Error> { panic!("a test's panic") };
        let run = std::panic::AssertUnwindSafe(|| with_workers(workers, 0, &stop, lead));
        assert!(std::panic::catch_unwind(run).is_err());
        assert_eq!(finished.into_inner(), 0);
    }

    #[test]
    fn where_a_worker_cannot_be_started_nothing_begins() {
        for left in [0, 2] {
            let (result, total, finished) = with_threads_left(left, || add(0, &[100], Ok(())));
            assert_eq!((result, total, finished), (Err(Kind::Unreachable), 0, 0));
        }
        let result = with_workers(Vec::<Adder<'_>>::new(), 0, &Stop::default(), |_| Ok(()));
        assert_eq!(result.unwrap_err().kind, Kind::Bug);
    }
}
