//! What the two helpers have in common: a state that one thread steers and several workers take files from, and how
//! many workers there are.

use crate::error::{Error, Kind};
use crate::fsio::{Change, Changes, Watch};
use crate::limits::AHEAD_MIN_THREADS;
use crate::threads::steered;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

/// What a worker does next.
pub(super) enum Next<F> {
    /// This file.
    File(F),
    /// Nothing, until the state changes.
    Wait,
    /// Nothing any more.
    End,
}

/// The work of a helper, as the workers see it.
pub(super) trait Work {
    /// What names a file.
    type File: Copy;
    /// What doing it gives.
    type Done;

    /// Takes the next file; from then on it counts as begun.
    fn take_next(&mut self) -> Next<Self::File>;

    /// Takes in the outcome.
    fn finish(&mut self, file: Self::File, outcome: Result<Self::Done, Error>);

    /// Lets the workers end: each once it has done what it has begun.
    fn end(&mut self);
}

/// A state that several threads share.
pub(super) struct Shared<S> {
    state: Mutex<S>,
    changed: Condvar,
    /// What wakes up the thread that steers.
    watch: Option<Watch>,
}

impl<S: Work> Shared<S> {
    /// The thread that steers waits for what changes in the directories that are watched, and for the workers; without
    /// a watch for the workers alone.
    pub(super) fn new(state: S, watch: Option<Watch>) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new(), watch }
    }

    /// Whether there is a watch.
    pub(super) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// For a look, or a change that no other thread waits for.
    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the threads that wait for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut S) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Changes the state, and wakes the threads that wait for a change if it says that there is something for them.
    pub(super) fn change_if(&self, change: impl FnOnce(&mut S) -> bool) {
        if change(&mut self.lock()) {
            self.changed.notify_all();
        }
    }

    /// Waits until a worker has done a file, or something changes that is of concern; at most so long. Says what has
    /// changed since the last time; without a watch that is unknown. (A worker that ends just before that is seen at
    /// the latest after this time where there is no watch, else at once.)
    pub(super) fn wait(&self, limit: Duration, concerns: impl Fn(&Change) -> bool) -> Changes {
        if let Some(watch) = &self.watch {
            return watch.wait(limit, concerns);
        }
        drop(self.changed.wait_timeout(self.lock(), limit).unwrap_or_else(PoisonError::into_inner));
        Changes::unknown()
    }

    /// Runs this number of workers, which do `act` for one file after the other, and `steer` on this thread, until
    /// `steer` returns.
    ///
    /// # Errors
    /// That of `steer`; [`Kind::Unreachable`] where a thread cannot be started.
    pub(super) fn run(
        &self,
        threads: usize,
        act: impl Fn(S::File) -> Result<S::Done, Error> + Sync,
        steer: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error>
    where
        S: Send,
    {
        let act = &act;
        let workers = (0..threads).map(|_| move || self.work(act));
        steered(workers, || self.change(S::end), steer)
    }

    fn work(&self, act: &dyn Fn(S::File) -> Result<S::Done, Error>) {
        while let Some(file) = self.next() {
            // A panic is the failure of one file: what the others have begun is of use all the same.
            let bug = |_| Err(Error::new(Kind::Bug, "a thread panicked"));
            let outcome = catch_unwind(AssertUnwindSafe(|| act(file))).unwrap_or_else(bug);
            self.change(|state| state.finish(file, outcome));
            if let Some(watch) = &self.watch {
                watch.ring();
            }
        }
    }

    fn next(&self) -> Option<S::File> {
        let mut state = self.lock();
        loop {
            match state.take_next() {
                Next::File(file) => return Some(file),
                Next::Wait => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Next::End => return None,
            }
        }
    }
}

/// How many workers a helper has: twice the cores, so that waiting for a store costs nothing, at most `most`, and not
/// more than files may be in flight at once.
pub(super) fn worker_count(most: usize, in_flight: u64) -> usize {
    let wanted = available_parallelism().map_or(1, usize::from) * 2;
    wanted.clamp(AHEAD_MIN_THREADS, most).min(usize::try_from(in_flight).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FETCH_AHEAD_MAX_THREADS;

    /// Doubles numbers; 3 fails and 4 panics.
    #[derive(Default)]
    struct Numbers {
        waiting: Vec<u32>,
        begun: usize,
        done: Vec<u32>,
        failed: Vec<(u32, Kind)>,
        is_over: bool,
    }

    impl Work for Numbers {
        type File = u32;
        type Done = u32;

        fn take_next(&mut self) -> Next<u32> {
            if self.is_over {
                return Next::End;
            }
            self.waiting.pop().map_or(Next::Wait, |number| {
                self.begun += 1;
                Next::File(number)
            })
        }

        fn finish(&mut self, number: u32, outcome: Result<u32, Error>) {
            match outcome {
                Ok(done) => self.done.push(done),
                Err(error) => self.failed.push((number, error.kind)),
            }
        }

        fn end(&mut self) {
            self.is_over = true;
        }
    }

    #[test]
    fn every_file_is_done_once_and_a_failure_is_that_of_one_file() {
        let place = tempfile::tempdir().unwrap();
        let watched = Watch::on(&[(place.path(), crate::fsio::Names::All)]);
        assert!(watched.is_some());
        for (watch, limit) in [(None, Duration::from_millis(5)), (watched, Duration::from_secs(600))] {
            all_are_done(&Shared::new(Numbers::default(), watch), limit);
        }
    }

    /// With a watch, no end of a worker goes unnoticed, or this takes minutes.
    fn all_are_done(shared: &Shared<Numbers>, limit: Duration) {
        let act = |number| match number {
            3 => Err(Error::new(Kind::Damaged, "three")),
            4 => panic!("a test's panic"),
            _ => Ok(number * 2),
        };
        let steer = || {
            // Given after the workers have begun to wait, in two portions.
            for portion in [0..4, 4..8] {
                let all = portion.end as usize;
                shared.change(|state| state.waiting.extend(portion));
                let is_done = || {
                    let state = shared.lock();
                    state.done.len() + state.failed.len() == all
                };
                while !is_done() {
                    shared.wait(limit, |_| true);
                }
            }
            Ok(())
        };
        shared.run(3, act, steer).unwrap();
        let mut state = shared.lock();
        state.done.sort_unstable();
        state.failed.sort_unstable_by_key(|(number, _)| *number);
        assert_eq!((state.begun, state.done.as_slice()), (8, [0, 2, 4, 10, 12, 14].as_slice()));
        assert_eq!(state.failed, [(3, Kind::Damaged), (4, Kind::Bug)]);
    }

    #[test]
    fn workers_end_when_the_steering_fails() {
        let shared = Shared::new(Numbers::default(), None);
        let failed = shared.run(2, Ok, || Err(Error::new(Kind::Config, "no"))).unwrap_err();
        assert_eq!(failed.kind, Kind::Config);
        assert!(shared.lock().is_over);
    }

    #[test]
    fn there_are_no_more_workers_than_files_in_flight_and_at_least_one() {
        assert_eq!((worker_count(FETCH_AHEAD_MAX_THREADS, 0), worker_count(FETCH_AHEAD_MAX_THREADS, 1)), (1, 1));
        assert_eq!(worker_count(FETCH_AHEAD_MAX_THREADS, 2), 2);
        let many = worker_count(FETCH_AHEAD_MAX_THREADS, 128);
        assert!((AHEAD_MIN_THREADS..=FETCH_AHEAD_MAX_THREADS).contains(&many));
        assert_eq!(worker_count(AHEAD_MIN_THREADS, u64::MAX), AHEAD_MIN_THREADS);
    }
}
