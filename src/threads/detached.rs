//! A thread that is given up when it takes too long: a call to a file system or a network that may hang.
//!
//! Lives here: [`Detached`] and [`within`]. A thread that was given up goes on until the process ends. Depends on
//! `error` alone.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::start::{panicked, start};
use crate::error::Error;

/// Work on a thread that nobody has to wait for.
#[must_use]
#[derive(Debug)]
pub struct Detached<T> {
    result: Receiver<T>,
}

impl<T: Send + 'static> Detached<T> {
    /// Begins `work` on a thread of its own.
    ///
    /// # Errors
    /// When no thread can be started: see [`no_thread`](super::no_thread).
    pub fn start(work: impl FnOnce() -> T + Send + 'static) -> Result<Self, Error> {
        let (sender, result) = channel();
        start(move || {
            // Nobody waits any more if it took too long.
            let _ = sender.send(work());
        })?;
        Ok(Self { result })
    }

    /// Waits for the result for at most `limit`; `None` when that is over. It can be waited for again then.
    ///
    /// # Errors
    /// [`Kind::Bug`](crate::error::Kind::Bug): the thread panicked.
    pub fn wait(&self, limit: Duration) -> Result<Option<T>, Error> {
        match self.result.recv_timeout(limit) {
            Ok(result) => Ok(Some(result)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(panicked()),
        }
    }

    /// Waits for the result for as long as it takes.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn join(self) -> Result<T, Error> {
        self.result.recv().map_err(|_| panicked())
    }
}

/// Does `work` on a thread of its own, and waits at most `limit` for the result; `None` when it takes longer.
///
/// # Errors
/// As [`Detached::start`] and [`Detached::wait`].
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>, Error> {
    Detached::start(work)?.wait(limit)
}

#[cfg(test)]
mod tests {
    use super::super::start::tests::with_threads_left;
    use super::*;
    use crate::error::Kind;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_done_in_time_is_the_answer() {
        assert_eq!(within(LONG, || 7).unwrap(), Some(7));
        assert_eq!(Detached::start(|| 8).unwrap().join().unwrap(), 8);
    }

    #[test]
    fn what_hangs_is_given_up_and_can_be_waited_for_again() {
        let (go_on, wait) = channel::<()>();
        let thread = Detached::start(move || wait.recv().is_ok()).unwrap();
        assert_eq!(thread.wait(Duration::from_millis(10)).unwrap(), None);
        go_on.send(()).unwrap();
        assert_eq!(thread.wait(LONG).unwrap(), Some(true));
    }

    #[test]
    fn a_panic_is_an_error_at_once() {
        let panics = || -> u32 { panic!("a test's panic") };
        assert_eq!(within(LONG, panics).unwrap_err().kind, Kind::Bug);
        assert_eq!(Detached::start(panics).unwrap().join().unwrap_err().kind, Kind::Bug);
    }

    #[test]
    fn without_a_thread_nothing_is_done() {
        let error = with_threads_left(0, || within(LONG, || 7)).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable);
    }
}
