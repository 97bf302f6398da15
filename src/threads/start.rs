//! Starting a thread, and the errors of one that did not start or panicked. Depends on `error` alone.
//!
//! Every thread is joined, sooner or later, and none is detached: `pthread_detach` of glibc (seen with 2.36) reads the
//! memory of a thread that it has given free already, and a thread that ends at that moment takes its memory along
//! where more than 40 MiB of stacks are kept. After millions of threads that was a segmentation fault.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle, scope};

use crate::error::{Error, Kind};

/// The error of a thread that could not be started.
pub fn no_thread(error: io::Error) -> Error {
    Error::new(Kind::Unreachable, format!("cannot start a thread: {error}"))
        .hint("raise the limits on memory (ulimit -v) or on processes (ulimit -u, TasksMax=)")
}

/// The error of a thread that panicked.
pub(super) fn panicked() -> Error {
    Error::new(Kind::Bug, "a thread panicked")
}

/// Runs `work`; a panic becomes an error.
pub(super) fn without_panic<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

/// Threads that nobody waits for, and that may have ended.
static LEFT_ALONE: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Starts a thread that nobody has to wait for.
pub(super) fn start(work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    builder().spawn(work).map(leave_alone).map_err(no_thread)
}

/// As [`start`], for a thread that a debugger or `ps -T` is to show by a name.
pub(super) fn start_named(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    builder().name(name.to_owned()).spawn(work).map(leave_alone).map_err(no_thread)
}

/// Keeps a thread until it has ended, which is seen when another one is started.
fn leave_alone(thread: JoinHandle<()>) {
    let mut all = LEFT_ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ended: Vec<JoinHandle<()>> = all.extract_if(.., |other| other.is_finished()).collect();
    all.push(thread);
    drop(all);
    for other in ended {
        // Whoever waits for what it does was told of a panic by then.
        let _ = other.join();
    }
}

/// Threads that end within a scope.
pub(super) struct Crew<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    threads: RefCell<Vec<ScopedJoinHandle<'scope, ()>>>,
}

impl<'scope> Crew<'scope, '_> {
    /// Starts one of them.
    pub(super) fn start(&self, work: impl FnOnce() + Send + 'scope) -> Result<(), Error> {
        self.threads.borrow_mut().push(start_scoped(self.scope, work)?);
        Ok(())
    }
}

/// Does what `lead` does, which may start threads, and returns when all of these have ended. A panic of one of them
/// goes on here.
pub(super) fn with_crew<'env, R>(lead: impl for<'scope> FnOnce(&Crew<'scope, 'env>) -> R) -> R {
    scope(|scope| {
        let crew = Crew { scope, threads: RefCell::new(Vec::new()) };
        let result = lead(&crew);
        for thread in crew.threads.into_inner() {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
        result
    })
}

/// Starts a thread that ends within `scope`, and that somebody joins.
pub(super) fn start_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    builder().spawn_scoped(scope, work).map_err(no_thread)
}

#[cfg(not(test))]
fn builder() -> Builder {
    Builder::new()
}

/// As many threads as the test allows; the next one asks for more memory than there is.
#[cfg(test)]
fn builder() -> Builder {
    const MORE_THAN_THERE_IS: usize = 1 << 60;
    match tests::THREADS_LEFT.get() {
        0 => Builder::new().stack_size(MORE_THAN_THERE_IS),
        left => {
            tests::THREADS_LEFT.set(left - 1);
            Builder::new()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static THREADS_LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Does something while this thread can start only this many others.
    pub(in crate::threads) fn with_threads_left<T>(threads: usize, work: impl FnOnce() -> T) -> T {
        THREADS_LEFT.set(threads);
        let result = work();
        THREADS_LEFT.set(usize::MAX);
        result
    }

    #[test]
    fn what_has_ended_is_joined_when_another_one_starts() {
        let (say, said) = std::sync::mpsc::channel();
        for number in 0..100 {
            let say = say.clone();
            start(move || say.send(number).unwrap()).unwrap();
            assert_eq!(said.recv().unwrap(), number);
        }
        // Of this test and others there may be some that are about to end.
        assert!(LEFT_ALONE.lock().unwrap().len() < 50);
    }

    #[test]
    fn a_crew_has_ended_when_it_returns_and_its_panic_goes_on() {
        let done = std::sync::atomic::AtomicUsize::new(0);
        let count = || {
            done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        };
        with_crew(|crew| (0..5).for_each(|_| crew.start(count).unwrap()));
        assert_eq!(done.into_inner(), 5);
        let panics = || with_crew(|crew| crew.start(|| panic!("a test's panic")).unwrap());
        assert!(catch_unwind(panics).is_err());
    }

    #[test]
    fn a_thread_that_does_not_start_is_an_error_with_a_way_out() {
        let error = with_threads_left(0, || start(|| ())).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable);
        assert!(error.what.starts_with("cannot start a thread: "), "{error}");
        assert!(error.hint.unwrap().contains("ulimit -u"));
    }
}
