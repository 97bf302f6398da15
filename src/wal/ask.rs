//! Asking the repositories for a WAL file, in turn, until one has it or all have answered.
//!
//! Lives here: the order and the patience of asking, and what counts as proof that a file exists nowhere: the answer of
//! every repository. May not live here: the download itself ([`download`](crate::wal::download)).

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::{FETCH_ROUND_PAUSE, FETCH_TURN, MIN_ANSWER_WAIT, OUTAGE_PAUSE};
use crate::repo::{Fetched, StoredName, SystemId};
use crate::report::fetch::FetchReport;
use crate::repositories;
use crate::threads::Detached;
use crate::wal::download::download;
use crate::wal::restore_call::{RestoreCall, can_do_without};
use crate::wal::spool::note_failure;
use std::path::Path;
use std::time::{Duration, Instant};

/// A file that is wanted.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The settings: which repositories, and which cluster.
    pub config: &'a Config,
    /// The file.
    pub name: StoredName,
    /// That of the data directory that we are in, if it is one.
    pub system_id: Option<SystemId>,
    /// Where it goes.
    pub destination: &'a Path,
    /// When the command has to be done.
    pub deadline: Deadline,
}

/// Asks every repository until one has the file or all have answered, or the patience of the call is over. One that
/// does not answer must not keep those after it from being asked: they take turns. `None`: all of them proved that the
/// file is not there.
///
/// # Errors
/// What the repositories said, where none has the file and at least one cannot tell.
pub fn ask_all(wanted: &Wanted<'_>, call: &RestoreCall) -> Result<Option<FetchReport>, Error> {
    let fails = |repository: &&RepositoryConfig| call.outage(&repository.store.location()).is_some();
    let (failing, mut asked): (Vec<_>, Vec<_>) = wanted.config.repositories.iter().partition(fails);
    asked.extend(failing);
    let mut failures = Vec::new();
    let mut turn = FETCH_TURN;
    loop {
        let patience = call.patience();
        let alone = asked.len() == 1;
        let mut silent = Vec::new();
        for repository in asked {
            let location = repository.store.location();
            if patience.is_some()
                && let Some(outage) = call.outage(&location).filter(|outage| outage.ago < OUTAGE_PAUSE)
            {
                silent.push(Silent { repository, error: silence(outage.said), was_tried: false });
                continue;
            }
            match ask_one(repository, wanted, patience.or((!alone).then_some(turn))) {
                Ok(answer) => {
                    if let Some(spool) = call.spool() {
                        spool.end_outage(&location);
                    }
                    if answer.is_some() {
                        // The next call had better not wait for them first.
                        failures.extend(silent.into_iter().map(|silent| silent.remember(call)));
                        if let Some(error) = Error::from_several(failures) {
                            tracing::error!("{} came from {location}; {error}{}", wanted.name, error.hint_in_brackets());
                        }
                        return Ok(answer);
                    }
                }
                Err(error) if error.kind == Kind::Unreachable => silent.push(Silent { repository, error, was_tried: true }),
                Err(error) => failures.push(error),
            }
        }
        let is_over = match patience {
            // Not where promotion was requested meanwhile and something may be lost by it: then the call has its whole
            // time.
            Some(_) => call.patience().is_some(),
            None => alone || wanted.deadline.is_over(),
        };
        if silent.is_empty() || is_over {
            failures.extend(silent.into_iter().map(|silent| silent.remember(call)));
            break;
        }
        asked = silent.into_iter().map(|silent| silent.repository).collect();
        turn *= 2;
        std::thread::sleep(FETCH_ROUND_PAUSE.min(wanted.deadline.remaining()));
    }
    match Error::from_several(failures) {
        None => Ok(None),
        Some(error) if error.what.contains(&wanted.name.to_string()) => Err(error),
        Some(error) => Err(error.while_doing(wanted.name)),
    }
}

/// A repository that did not answer.
struct Silent<'a> {
    repository: &'a RepositoryConfig,
    error: Error,
    was_tried: bool,
}

impl Silent<'_> {
    /// Notes the outage, and says how long it has been going on.
    fn remember(self, call: &RestoreCall) -> Error {
        let Self { repository, error, was_tried } = self;
        let spool = call.spool().and_then(|spool| spool.created());
        let since = note_failure(spool, &repository.store.location(), &error.what, was_tried);
        Error { what: format!("{}{since}", error.what), ..error }
    }
}

fn silence(what: String) -> Error {
    Error::new(Kind::Unreachable, what).hint("check network and store; a standby goes on with what it can stream, and asks again")
}

/// One repository's answer; an error where it says nothing for longer than `wait`.
fn ask_one(repository: &RepositoryConfig, wanted: &Wanted<'_>, wait: Option<Duration>) -> Result<Option<FetchReport>, Error> {
    let Some(wait) = wait else { return fetch_from(repository, wanted) };
    let location = repository.store.location();
    let health = repository.store.health();
    health.try_again();
    let began = Instant::now();
    let (owned, settings, path) = (repository.clone(), wanted.config.clone(), wanted.destination.to_owned());
    let Wanted { name, system_id, deadline, .. } = *wanted;
    let thread = Detached::start(move || {
        fetch_from(&owned, &Wanted { config: &settings, name, system_id, destination: &path, deadline })
    })?;
    loop {
        let quiet = health.answered().map_or(began, |answered| answered.max(began)).elapsed();
        if let Some(answer) = thread.wait(wait.saturating_sub(quiet).max(MIN_ANSWER_WAIT))? {
            return answer;
        }
        if quiet >= wait || deadline.is_over() {
            let said = health.failure().map_or_else(String::new, |said| format!(": {said}"));
            return Err(silence(format!("{location} gave no answer within {} s{said}", wait.as_secs())));
        }
    }
}

/// One repository's answer: served, proven absent, or an error.
fn fetch_from(repository: &RepositoryConfig, wanted: &Wanted<'_>) -> Result<Option<FetchReport>, Error> {
    let Wanted { config, name, system_id, destination, deadline } = *wanted;
    let opened = repositories::open_for(repository, &config.cluster, deadline)?;
    let facts = opened.facts_of(&config.cluster, system_id)?;
    match download(&opened, &config.cluster, facts, name, destination)? {
        Fetched::Served(metadata) => {
            let repository = opened.location().to_owned();
            Ok(Some(FetchReport { file: name.to_string(), repository, bytes: metadata.plaintext_bytes }))
        }
        Fetched::Absent => Ok(None),
        Fetched::Missing { .. } if can_do_without(name.file, deadline) => Ok(None),
        Fetched::Missing { because } => Err(Error::new(
            Kind::Damaged,
            format!("{name} is missing in {}: {because}. PostgreSQL must not take this for the end of the log", opened.location()),
        )
        .hint(
            "archive the file if the primary or a standby still has it (walvis push-wal); or recover to a target before it; a standby \
             can stream it instead",
        )),
    }
}
