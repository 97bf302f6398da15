//! Which of the configured repositories are asked, in which order, and how long each is waited for.
//!
//! The policy, for all commands but those that work on WAL files (`wal` asks several at once):
//! - Repositories are asked in the order of the settings, one after the other.
//! - Where one answer will do ([`ask_in_order`], [`first_to_answer`]), one that fails is passed over, and the next is
//!   asked. When all fail, the error is the first one's.
//! - One that falls silent leaves time for those after it. Whether it answers at all is found out within an equal share
//!   of the time limit for each that is left. Where an answer can still send the question on ([`ask_in_order`]), all
//!   but the last have to be done within three quarters of what is left of a time limit on the whole.
//! - Where every repository counts ([`every`]: listing, rebuilding), the first that cannot be opened ends the command.
//! - Base backups go to the first ([`for_backups`]).

use std::ops::ControlFlow;

use super::open;
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::repo::{Facts, Repository};

/// A repository that answers and knows the cluster.
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// The cluster, with its current system identifier.
    pub facts: Facts,
}

/// Takes what a repository answered, after its location; breaks when no other one has to be asked.
pub type Hear<'a, T, B> = &'a mut dyn FnMut(&str, Result<T, Error>) -> ControlFlow<B>;

/// The error of a command for which no repository is configured.
pub fn none_configured() -> Error {
    Error::new(Kind::Config, "no repository is configured")
}

/// Opens one repository after the other, has each asked, and hands answers and failures, with the location, to `hear`,
/// until that breaks.
pub fn ask_in_order<T, B>(
    config: &Config,
    deadline: Deadline,
    ask: &dyn Fn(Opened) -> Result<T, Error>,
    hear: Hear<'_, T, B>,
) -> Option<B> {
    for (index, repository) in config.repositories.iter().enumerate() {
        let is_last = index + 1 == config.repositories.len();
        // Where each request has a time limit of its own, there is time.
        let within = if is_last || deadline.is_each() { deadline } else { deadline.at_most(deadline.remaining() / 4 * 3) };
        let answered = open_known(config, index, within).and_then(ask);
        if let ControlFlow::Break(done) = hear(&repository.store.location(), answered) {
            return Some(done);
        }
    }
    None
}

/// Opens the first repository that answers and knows the cluster; logs why those before it did not.
///
/// # Errors
/// The first one's, when none does.
pub fn first_to_answer(config: &Config, deadline: Deadline) -> Result<Opened, Error> {
    let mut failure = None;
    for (index, repository) in config.repositories.iter().enumerate() {
        // No other one is asked once this is open: it gets all the time that is left.
        match open_known(config, index, deadline) {
            Ok(opened) => return Ok(opened),
            Err(error) => {
                if config.repositories.len() > 1 {
                    tracing::warn!("{} is not asked: {error}", repository.store.location());
                }
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(none_configured))
}

/// Opens every repository, one after the other, and has `visit` work on it.
///
/// # Errors
/// The first one's that cannot be opened; as `visit`'s.
pub fn every(config: &Config, deadline: Deadline, visit: &mut dyn FnMut(Repository) -> Result<(), Error>) -> Result<(), Error> {
    config.repositories.iter().try_for_each(|repository| visit(open(repository, deadline)?))
}

/// Opens the repository that base backups go to, with its settings.
///
/// # Errors
/// [`Kind::Config`] when none is configured; as [`Repository::open`].
pub fn for_backups(config: &Config, deadline: Deadline) -> Result<(&RepositoryConfig, Repository), Error> {
    let settings = config.repositories.first().ok_or_else(none_configured)?;
    Ok((settings, open(settings, deadline)?))
}

/// Opens the repository at a place in the settings, with the cluster's facts.
fn open_known(config: &Config, index: usize, deadline: Deadline) -> Result<Opened, Error> {
    let settings = config.repositories.get(index).ok_or_else(none_configured)?;
    let left = u32::try_from(config.repositories.len() - index).unwrap_or(u32::MAX);
    if left > 1 {
        open(settings, deadline.at_most(deadline.remaining() / left))?.facts(&config.cluster)?;
    }
    let repository = open(settings, deadline)?;
    let facts = repository.facts(&config.cluster)?;
    Ok(Opened { repository, facts })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::config::{Flags, definitions};
    use std::path::Path;
    use std::time::Duration;

    /// Settings with these directories as repositories.
    fn config(place: &Path, names: &[&str]) -> Config {
        let path = place.join("walvis.toml");
        let sections = names.iter().map(|name| format!("[[repository]]\nurl = \"file://{}\"\n", place.join(name).display()));
        std::fs::write(&path, format!("cluster = \"main\"\n{}", sections.collect::<String>())).unwrap();
        Config::load(&Flags::default().with(&definitions::CONFIG, path), &|_| None, &[]).unwrap()
    }

    fn deadline() -> Deadline {
        Deadline::each(Duration::from_secs(5))
    }

    #[test]
    fn repositories_are_asked_in_the_order_of_the_settings() {
        let place = tempfile::tempdir().unwrap();
        let config = config(place.path(), &["one", "two", "three"]);
        let mut heard = Vec::new();
        let stopped = ask_in_order(&config, deadline(), &|_| Ok(()), &mut |location, answered| {
            heard.push((location.rsplit('/').next().unwrap().to_owned(), answered.is_ok()));
            if heard.len() == 2 { ControlFlow::Break("enough") } else { ControlFlow::Continue(()) }
        });
        assert_eq!(stopped, Some("enough"));
        assert_eq!(heard, [("one".to_owned(), false), ("two".to_owned(), false)]);
    }

    #[test]
    fn when_none_answers_it_is_the_first_one_s_error() {
        let place = tempfile::tempdir().unwrap();
        let config = config(place.path(), &["one", "two"]);
        let error = first_to_answer(&config, deadline()).err().unwrap();
        assert!(error.what.contains("/one"), "{error}");
        let mut visited = 0;
        let error = every(&config, deadline(), &mut |_| {
            visited += 1;
            Ok(())
        });
        assert!(error.unwrap_err().what.contains("/one"));
        assert_eq!(visited, 0, "the first that cannot be opened ends the command");
        assert!(for_backups(&config, deadline()).err().unwrap().what.contains("/one"));
    }
}
