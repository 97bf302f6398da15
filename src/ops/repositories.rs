//! Opening the configured repositories.

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::repo::Repository;

/// Opens one configured repository.
///
/// # Errors
/// As [`Repository::open`].
pub fn open(config: &RepositoryConfig, deadline: Deadline) -> Result<Repository, Error> {
    let secret = config.key.read(&deadline)?;
    Repository::open(&config.store, &secret, config.compression_level, deadline)
}

/// Does something with every configured repository at once, each on a thread of its own, and returns the results in the order of
/// the settings. A panic in one is that one's error.
pub fn each<T: Send>(
    config: &Config,
    work: impl Fn(&RepositoryConfig) -> Result<T, Error> + Sync,
) -> Vec<(&RepositoryConfig, Result<T, Error>)> {
    if let [only] = config.repositories.as_slice() {
        return vec![(only, work(only))];
    }
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = config.repositories.iter().map(|r| (r, scope.spawn(move || work(r)))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<T, Error>>| {
            thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a thread panicked")))
        };
        threads.into_iter().map(|(r, thread)| (r, join(thread))).collect()
    })
}
