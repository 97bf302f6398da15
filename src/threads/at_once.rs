//! The same for each of a few things, several at once. Depends on `error` alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::start::{panicked, with_crew, without_panic};
use crate::error::Error;

/// Does something for each of `things`, for at most `most` of them at once; the answers are in their order. One that
/// fails does not keep the others from being done.
///
/// The calling thread works too: where no other can be started, it does all of them.
///
/// # Errors
/// Each answer is what `action` says, or [`Kind::Bug`](crate::error::Kind::Bug) where it panicked.
pub fn at_once<T: Sync, R: Send>(
    things: &[T],
    most: usize,
    action: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Vec<Result<R, Error>> {
    let next = AtomicUsize::new(0);
    let answers: Vec<Mutex<Option<Result<R, Error>>>> = things.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some((thing, answer)) = things.get(index).zip(answers.get(index))
        {
            let said = without_panic(|| action(thing));
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
    };
    with_crew(|crew| {
        let others = things.len().min(most).saturating_sub(1);
        for _ in 0..others {
            if let Err(error) = crew.start(work) {
                tracing::debug!(%error, "fewer threads than wanted");
                break;
            }
        }
        work();
    });
    let answer = |answer: Mutex<Option<_>>| answer.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Each index was given to one thread, which writes an answer whatever happens.
    answers.into_iter().map(|said| answer(said).unwrap_or_else(|| Err(panicked()))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use super::super::start::tests::with_threads_left;
    use super::*;
    use crate::error::Kind;

    #[test]
    fn answers_are_in_order_and_failures_are_their_own() {
        let action = |number: &u32| match number {
            3 => Err(Error::new(Kind::Damaged, "three")),
            5 => panic!("a test's panic"),
            _ => Ok(number * 10),
        };
        let answers = at_once(&(0..100).collect::<Vec<u32>>(), 4, action);
        let kinds: Vec<Result<u32, Kind>> = answers.into_iter().map(|answer| answer.map_err(|e| e.kind)).collect();
        let expected = (0..100).map(|number| match number {
            3 => Err(Kind::Damaged),
            5 => Err(Kind::Bug),
            _ => Ok(number * 10),
        });
        assert_eq!(kinds, expected.collect::<Vec<_>>());
        assert!(at_once(&[], 4, |(): &()| Ok(())).is_empty());
    }

    #[test]
    fn as_many_are_done_at_once_as_are_allowed_and_no_more() {
        // Each waits for three others: fewer threads would wait for ever.
        let (together, running, most) = (Barrier::new(4), AtomicUsize::new(0), AtomicUsize::new(0));
        let answers = at_once(&[(); 40], 4, |()| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            together.wait();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        });
        assert_eq!((answers.len(), most.into_inner()), (40, 4));
    }

    #[test]
    fn without_threads_the_calling_one_does_it_all() {
        for left in [0, 1] {
            let threads = Mutex::new(HashSet::new());
            let action = |number: &usize| {
                threads.lock().unwrap().insert(thread::current().id());
                Ok(*number)
            };
            let answers = with_threads_left(left, || at_once(&[1, 2, 3, 4], 4, action));
            assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2, 3, 4]);
            assert!(threads.into_inner().unwrap().len() <= left + 1);
        }
    }
}
