//! Several threads that do something at the same moment. Depends on `error` alone.

use std::sync::{Mutex, PoisonError, RwLock, mpsc};

use super::start::{with_crew, without_panic};
use crate::error::Error;

/// Gives each of `things` a thread of its own, which prepares; when all of them have, they act at the same moment. The
/// answers are those of the threads that could be started, in any order, each with its thing.
///
/// # Errors
/// Each answer is what `prepare` or else `act` says, or [`Kind::Bug`](crate::error::Kind::Bug) where one panicked.
pub fn at_the_same_moment<T: Sync, P, R: Send>(
    things: &[T],
    prepare: impl Fn(&T) -> Result<P, Error> + Sync,
    act: impl Fn(&T, P) -> Result<R, Error> + Sync,
) -> Vec<(&T, Result<R, Error>)> {
    let gate = RwLock::new(());
    let answers = Mutex::new(Vec::new());
    let (is_ready, ready) = mpsc::channel();
    with_crew(|crew| {
        let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
        for thing in things {
            let (is_ready, gate, answers, prepare, act) = (is_ready.clone(), &gate, &answers, &prepare, &act);
            let work = move || {
                let prepared = without_panic(|| prepare(thing));
                // Nobody waits for it who is gone.
                let _ = is_ready.send(());
                drop(is_ready);
                drop(gate.read());
                let answer = prepared.and_then(|prepared| without_panic(|| act(thing, prepared)));
                answers.lock().unwrap_or_else(PoisonError::into_inner).push((thing, answer));
            };
            if let Err(error) = crew.start(work) {
                tracing::debug!(%error, "one thread less");
            }
        }
        drop(is_ready);
        // Until all have been heard of or are gone.
        while ready.recv().is_ok() {}
        drop(closed);
    });
    answers.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::start::tests::with_threads_left;
    use super::*;
    use crate::error::Kind;

    #[test]
    fn all_have_prepared_before_one_acts() {
        let prepared = AtomicUsize::new(0);
        let prepare = |number: &usize| {
            prepared.fetch_add(1, Ordering::SeqCst);
            Ok(number * 10)
        };
        let mut answers = at_the_same_moment(&[1, 2, 3, 4], prepare, |_, ten| Ok((ten, prepared.load(Ordering::SeqCst))));
        answers.sort_by_key(|(number, _)| **number);
        let answers: Vec<_> = answers.into_iter().map(|(number, answer)| (*number, answer.unwrap())).collect();
        assert_eq!(answers, [(1, (10, 4)), (2, (20, 4)), (3, (30, 4)), (4, (40, 4))]);
    }

    #[test]
    fn failures_and_panics_keep_nobody_waiting() {
        let prepare = |number: &u32| match number {
            1 => Err(Error::new(Kind::Refused, "one")),
            2 => panic!("a test's panic"),
            _ => Ok(()),
        };
        let act = |number: &u32, ()| if *number == 3 { panic!("a test's panic") } else { Ok(()) };
        let mut answers = at_the_same_moment(&[1, 2, 3, 4], prepare, act);
        answers.sort_by_key(|(number, _)| **number);
        let kinds: Vec<_> = answers.into_iter().map(|(_, answer)| answer.map_err(|e| e.kind)).collect();
        assert_eq!(kinds, [Err(Kind::Refused), Err(Kind::Bug), Err(Kind::Bug), Ok(())]);
    }

    #[test]
    fn those_without_a_thread_do_not_answer() {
        let answers = with_threads_left(2, || at_the_same_moment(&[1, 2, 3, 4], |_| Ok(()), |_, ()| Ok(())));
        assert_eq!(answers.len(), 2);
    }
}
