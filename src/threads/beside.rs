//! One thing on a thread of its own while this one does another. Depends on `error` alone.

use std::thread;

use super::start::{panicked, start_scoped};
use crate::error::Error;

/// Does `other` on a thread of its own while the calling thread does `here`, and waits for both.
///
/// # Errors
/// The first answer is [`Kind::Bug`](crate::error::Kind::Bug) where `other` panicked, and what
/// [`no_thread`](super::no_thread) says where it was not done for want of a thread. `here` is done in any case.
pub fn beside<A: Send, B>(other: impl FnOnce() -> A + Send, here: impl FnOnce() -> B) -> (Result<A, Error>, B) {
    thread::scope(|scope| {
        let other = start_scoped(scope, other);
        let done_here = here();
        (other.and_then(|thread| thread.join().map_err(|_| panicked())), done_here)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::super::start::tests::with_threads_left;
    use super::*;
    use crate::error::Kind;

    #[test]
    fn both_are_done_at_the_same_time() {
        // Each waits for the other one: on one thread they would wait for ever.
        let together = Barrier::new(2);
        let wait = |answer: u32| {
            together.wait();
            answer
        };
        let (other, here) = beside(|| wait(1), || wait(2));
        assert_eq!((other.unwrap(), here), (1, 2));
    }

    #[test]
    fn what_is_done_here_depends_on_no_thread() {
        let (other, here) = with_threads_left(0, || beside(|| 1, || 2));
        assert_eq!((other.unwrap_err().kind, here), (Kind::Unreachable, 2));
        let (other, here) = beside(|| -> u32 { panic!("a test's panic") }, || 2);
        assert_eq!((other.unwrap_err().kind, here), (Kind::Bug, 2));
    }
}
