//! Threads that follow a state which the calling thread steers. Depends on `error` alone.

use super::jobs::Failure;
use super::start::{with_crew, without_panic};
use super::stop::Stop;
use crate::error::Error;

/// Runs each of `work` on a thread of its own, and `steer` on this one. `end` tells all of them to return: it is called
/// when `steer` has returned, when one of them panics, and when one cannot be started; it may be called several times.
/// Returns when all have.
///
/// # Errors
/// That of `steer`; [`Kind::Bug`](crate::error::Kind::Bug): a thread or `steer` panicked; where a thread cannot be
/// started, see [`no_thread`](super::no_thread): `steer` is not called then.
pub fn steered<R>(
    work: impl IntoIterator<Item = impl FnOnce() + Send>,
    end: impl Fn() + Sync,
    steer: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    let stop = Stop::default();
    let failure = Failure::new(&stop);
    let result = with_crew(|crew| {
        let (failure, end) = (&failure, &end);
        for work in work {
            let watched = move || {
                let ended = without_panic(|| {
                    work();
                    Ok(())
                });
                if let Err(error) = ended {
                    failure.note(error);
                    end();
                }
            };
            if let Err(error) = crew.start(watched) {
                end();
                return Err(error);
            }
        }
        let result = without_panic(steer);
        end();
        result
    });
    let result = result?;
    failure.into_first().map_or(Ok(result), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::thread;
    use std::time::Duration;

    use super::super::start::tests::with_threads_left;
    use super::*;
    use crate::error::Kind;

    /// Threads that wait until they are told to return.
    #[derive(Default)]
    struct Waiting {
        is_over: Mutex<bool>,
        changed: Condvar,
        returned: AtomicUsize,
    }

    impl Waiting {
        fn end(&self) {
            *self.is_over.lock().unwrap() = true;
            self.changed.notify_all();
        }

        fn until_over(&self) {
            let over = self.is_over.lock().unwrap();
            drop(self.changed.wait_while(over, |over| !*over).unwrap());
            self.returned.fetch_add(1, Ordering::SeqCst);
        }

        fn run<R>(&self, steer: impl FnOnce() -> Result<R, Error>) -> Result<R, Kind> {
            let work = (0..3).map(|_| || self.until_over());
            steered(work, || self.end(), steer).map_err(|e| e.kind)
        }
    }

    #[test]
    fn all_threads_have_returned_when_the_steering_is_over() {
        let waiting = Waiting::default();
        assert_eq!(waiting.run(|| Ok(7)), Ok(7));
        assert_eq!(waiting.returned.into_inner(), 3);
    }

    #[test]
    fn errors_and_panics_of_the_steering_end_the_threads() {
        let waiting = Waiting::default();
        assert_eq!(waiting.run(|| Err::<(), _>(Error::new(Kind::Refused, "no"))), Err(Kind::Refused));
        assert_eq!(waiting.returned.into_inner(), 3);
        assert_eq!(Waiting::default().run(|| -> Result<(), Error> { panic!("a test's panic") }), Err(Kind::Bug));
    }

    #[test]
    fn a_thread_that_panics_ends_the_steering() {
        let waiting = Waiting::default();
        let work: Vec<Box<dyn FnOnce() + Send>> =
            vec![Box::new(|| waiting.until_over()), Box::new(|| panic!("a test's panic")), Box::new(|| waiting.until_over())];
        let steer = || {
            while !*waiting.is_over.lock().unwrap() {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        assert_eq!(steered(work, || waiting.end(), steer).unwrap_err().kind, Kind::Bug);
    }

    #[test]
    fn where_a_thread_cannot_be_started_the_others_end_and_nothing_is_steered() {
        let waiting = Waiting::default();
        let steer = || -> Result<(), Error> { unreachable!("not all threads were started") };
        assert_eq!(with_threads_left(2, || waiting.run(steer)), Err(Kind::Unreachable));
        assert_eq!(waiting.returned.into_inner(), 2);
    }
}
