//! A thread that goes on for as long as the process does. Depends on `error` alone.

use super::start::start_named;
use crate::error::Error;

/// Begins `work` on a thread of its own that nobody ever waits for; `name` is what the system shows of it, at most 15
/// bytes.
///
/// # Errors
/// When no thread can be started: see [`no_thread`](super::no_thread).
pub fn background(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    start_named(name, work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::super::start::tests::with_threads_left;
    use super::*;
    use crate::error::Kind;

    #[test]
    fn it_runs_by_itself_under_its_name() {
        let (say, said) = channel();
        background("a-name", move || say.send(thread::current().name().map(str::to_owned)).unwrap()).unwrap();
        assert_eq!(said.recv_timeout(Duration::from_secs(60)).unwrap().as_deref(), Some("a-name"));
    }

    #[test]
    fn without_a_thread_it_is_an_error() {
        let error = with_threads_left(0, || background("a-name", || ())).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable);
    }
}
