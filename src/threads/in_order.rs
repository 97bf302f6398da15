//! Jobs that workers do at once, and whose results are taken in the order of the jobs: progress never passes a gap.
//! Depends on `error` alone.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::jobs::{Failure, Jobs, Stopped, Worker, work_off};
use super::start::{with_crew, without_panic};
use super::stop::{Stop, StopOnDrop};
use crate::error::{Error, Kind};

/// How far ahead workers may be, and how often the caller is asked.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Jobs that may be under way or done ahead of the first one that is not: they bound the memory that results take.
    pub window: u64,
    /// How often the caller is asked whether to go on.
    pub tick: Duration,
}

/// How many results have been taken.
struct Taken {
    count: Mutex<u64>,
    moved: Condvar,
}

impl Taken {
    fn advance(&self, count: u64) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) = count;
        self.moved.notify_all();
    }
}

/// Where jobs are handed over, in order.
pub struct Feed<'a, J> {
    jobs: Jobs<'a, (u64, J)>,
    next: u64,
    taken: &'a Taken,
    order: Order,
    stop: &'a Stop,
}

impl<J> Feed<'_, J> {
    /// Hands over the next job; waits while that is too far ahead.
    ///
    /// # Errors
    /// When the workers have stopped.
    pub fn send(&mut self, job: J) -> Result<(), Stopped> {
        let mut taken = self.taken.count.lock().unwrap_or_else(PoisonError::into_inner);
        while self.next >= *taken + self.order.window && !self.stop.is_set() {
            taken = self.taken.moved.wait_timeout(taken, self.order.tick).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(taken);
        self.jobs.send((self.next, job))?;
        self.next += 1;
        Ok(())
    }
}

/// A worker that keeps the number of a job with its result.
struct Numbered<W>(W);

impl<W: Worker> Worker for Numbered<W> {
    type Job = (u64, W::Job);
    type Output = (u64, W::Output);

    fn run(&mut self, (number, job): Self::Job) -> Result<Self::Output, Error> {
        Ok((number, self.0.run(job)?))
    }

    fn finish(self) -> Result<(), Error> {
        self.0.finish()
    }
}

/// Runs `feed` on a thread of its own, which hands jobs to `workers`, one thread for each, and gives their results to
/// `take` on the calling thread, in the order of the jobs. `go_on` is asked there every [`Order::tick`]. `stop` is set
/// by the first failure.
///
/// # Errors
/// The first of a worker, of `feed`, `take` or `go_on`; [`Kind::Bug`]: a thread panicked; where a thread cannot be
/// started, see [`no_thread`](super::no_thread).
pub fn in_order<W: Worker>(
    workers: Vec<W>,
    order: Order,
    stop: &Stop,
    feed: impl FnOnce(&mut Feed<'_, W::Job>) -> Result<(), Error> + Send,
    take: impl FnMut(W::Output) -> Result<(), Error>,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    if workers.is_empty() {
        return Err(Error::new(Kind::Bug, "there are no workers"));
    }
    let (queue, jobs) = Jobs::new(workers.len(), stop);
    let (sender, results) = channel();
    let failure = Failure::new(stop);
    let taken = Taken { count: Mutex::new(0), moved: Condvar::new() };
    let handed = Mutex::new(None);
    // Outside the thread that uses it: where that cannot be started, the queue has to stay open until this is noted, or
    // the workers take its end for the end of the jobs, and finish.
    let feeder = Mutex::new(Some(Feed { jobs: queue, next: 0, taken: &taken, order, stop }));
    let count = with_crew(|crew| {
        let (jobs, failure, taken, handed, feeder) = (&jobs, &failure, &taken, &handed, &feeder);
        let take_feeder = || feeder.lock().unwrap_or_else(PoisonError::into_inner).take();
        for worker in workers {
            let results = sender.clone();
            let work = move || {
                // The calling thread listens until all workers have ended.
                work_off(Numbered(worker), jobs, failure, |result| drop(results.send(result)));
            };
            if let Err(error) = crew.start(work) {
                failure.note(error);
                drop(take_feeder());
                return 0;
            }
        }
        drop(sender);
        let fed = crew.start(move || {
            let Some(mut feeder) = take_feeder() else { return };
            match without_panic(|| feed(&mut feeder)) {
                Ok(()) => *handed.lock().unwrap_or_else(PoisonError::into_inner) = Some(feeder.next),
                Err(error) => failure.note(error),
            }
        });
        if let Err(error) = fed {
            failure.note(error);
            drop(take_feeder());
        }
        let on_panic = StopOnDrop(stop);
        let count = collect(&results, order, failure, taken, take, go_on);
        std::mem::forget(on_panic);
        count
    });
    if let Some(error) = failure.into_first() {
        return Err(error);
    }
    match handed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(handed) if handed == count => Ok(()),
        handed => Err(Error::new(Kind::Bug, format!("{count} of {} jobs were done", handed.unwrap_or_default()))),
    }
}

/// Takes results in order until all workers have ended; says how many it were.
fn collect<R>(
    results: &Receiver<(u64, R)>,
    order: Order,
    failure: &Failure<'_>,
    taken: &Taken,
    mut take: impl FnMut(R) -> Result<(), Error>,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> u64 {
    let (mut early, mut next) = (BTreeMap::new(), 0);
    let mut asked = Instant::now();
    loop {
        match results.recv_timeout(order.tick) {
            Ok((number, result)) => drop(early.insert(number, result)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return next,
        }
        while !failure.is_noted()
            && let Some(result) = early.remove(&next)
        {
            match take(result) {
                Ok(()) => next += 1,
                Err(error) => failure.note(error),
            }
        }
        taken.advance(next);
        if asked.elapsed() >= order.tick && !failure.is_noted() {
            asked = Instant::now();
            if let Err(error) = go_on() {
                failure.note(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::thread;

    use super::super::start::tests::with_threads_left;
    use super::*;

    const ORDER: Order = Order { window: 8, tick: Duration::from_millis(5) };

    /// Takes its time over every third number.
    struct Doubler<'a> {
        begun: &'a AtomicU64,
        finished: &'a AtomicUsize,
    }

    impl Worker for Doubler<'_> {
        type Job = u64;
        type Output = u64;

        fn run(&mut self, number: u64) -> Result<u64, Error> {
            self.begun.fetch_max(number, Ordering::SeqCst);
            match number {
                1013 => return Err(Error::new(Kind::Damaged, "thirteen")),
                1017 => panic!("a test's panic"),
                _ if number.is_multiple_of(3) => thread::sleep(Duration::from_micros(200)),
                _ => {}
            }
            Ok(number * 2)
        }

        fn finish(self) -> Result<(), Error> {
            self.finished.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    struct Run {
        result: Result<(), Kind>,
        taken: Vec<u64>,
        begun: u64,
        finished: usize,
    }

    fn run(
        feed: impl FnOnce(&mut Feed<'_, u64>) -> Result<(), Error> + Send,
        mut take: impl FnMut(u64) -> Result<(), Error>,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Run {
        let (begun, finished, stop) = (AtomicU64::new(0), AtomicUsize::new(0), Stop::default());
        let workers = (0..3).map(|_| Doubler { begun: &begun, finished: &finished }).collect();
        let mut taken = Vec::new();
        let keep = |result| {
            take(result)?;
            taken.push(result);
            Ok(())
        };
        let result = in_order(workers, ORDER, &stop, feed, keep, go_on).map_err(|e| e.kind);
        assert_eq!(stop.is_set(), result.is_err());
        Run { result, taken, begun: begun.into_inner(), finished: finished.into_inner() }
    }

    fn numbers(range: std::ops::Range<u64>) -> impl FnOnce(&mut Feed<'_, u64>) -> Result<(), Error> + Send {
        move |feed| {
            for number in range {
                feed.send(number)?;
            }
            Ok(())
        }
    }

    #[test]
    fn results_come_in_the_order_of_their_jobs() {
        let run = run(numbers(0..500), |_| Ok(()), &|| Ok(()));
        assert_eq!((run.result, run.finished), (Ok(()), 3));
        assert_eq!(run.taken, (0..500).map(|number| number * 2).collect::<Vec<_>>());
    }

    #[test]
    fn no_job_begins_too_far_ahead_of_what_was_taken() {
        let taken = AtomicU64::new(0);
        let feed = |feed: &mut Feed<'_, u64>| {
            for number in 0..50 {
                feed.send(number)?;
                assert!(number < taken.load(Ordering::SeqCst) + ORDER.window, "{number} was handed over too early");
            }
            Ok(())
        };
        let take = |_| {
            thread::sleep(Duration::from_micros(500));
            taken.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        assert_eq!(run(feed, take, &|| Ok(())).result, Ok(()));
    }

    #[test]
    fn an_error_or_panic_of_a_worker_stops_the_rest_and_nothing_after_it_is_taken() {
        for (first, kind) in [(1013, Kind::Damaged), (1017, Kind::Bug)] {
            let run = run(numbers(first - 2..1_000_000), |_| Ok(()), &|| Ok(()));
            assert_eq!((run.result, run.finished), (Err(kind), 0));
            assert!(run.taken.iter().all(|taken| *taken < first * 2), "{:?}", run.taken);
            assert!(run.begun < first + ORDER.window, "{} was begun", run.begun);
        }
    }

    #[test]
    fn errors_of_the_caller_stop_the_workers() {
        let refuse = || Error::new(Kind::Refused, "no");
        let take = |result| if result == 20 { Err(refuse()) } else { Ok(()) };
        let stopped = run(numbers(0..1_000_000), take, &|| Ok(()));
        assert_eq!((stopped.result, stopped.taken.len()), (Err(Kind::Refused), 10));
        assert_eq!(run(numbers(2000..1_000_000_000), |_| Ok(()), &|| Err(refuse())).result, Err(Kind::Refused));
        assert_eq!(run(|_| Err(refuse()), |_| Ok(()), &|| Ok(())).result, Err(Kind::Refused));
        assert_eq!(run(|_| panic!("a test's panic"), |_| Ok(()), &|| Ok(())).result, Err(Kind::Bug));
    }

    #[test]
    fn a_panic_of_the_caller_goes_on_and_does_not_hang() {
        let take = |_| -> Result<(), Error> { panic!("a test's panic") };
        let panics = std::panic::AssertUnwindSafe(|| run(numbers(2000..1_000_000_000), take, &|| Ok(())));
        assert!(std::panic::catch_unwind(panics).is_err());
    }

    #[test]
    fn where_a_thread_cannot_be_started_nothing_is_done() {
        for left in [0, 2, 3] {
            let run = with_threads_left(left, || run(numbers(2000..3000), |_| Ok(()), &|| Ok(())));
            assert_eq!((run.result, run.begun, run.finished), (Err(Kind::Unreachable), 0, 0));
        }
    }
}
