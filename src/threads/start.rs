//! Starting a thread, and the errors of one that did not start or panicked. Depends on `error` alone.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

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

/// Starts a thread that nobody has to wait for.
pub(super) fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    builder().spawn(work).map_err(no_thread)
}

/// As [`start`], for a thread that a debugger or `ps -T` is to show by a name.
pub(super) fn start_named(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    builder().name(name.to_owned()).spawn(work).map(drop).map_err(no_thread)
}

/// Starts a thread that ends within `scope`.
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
    fn a_thread_that_does_not_start_is_an_error_with_a_way_out() {
        let error = with_threads_left(0, || start(|| ())).map(drop).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable);
        assert!(error.what.starts_with("cannot start a thread: "), "{error}");
        assert!(error.hint.unwrap().contains("ulimit -u"));
    }
}
