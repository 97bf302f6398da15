//! Inspected WAL files into all configured repositories at once.
//!
//! Lives here: success, which means that every required repository holds every file durably, and the patience with
//! optional ones. May not live here: the steps in one repository ([`deliver`](mod@crate::wal::deliver)).

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::OPTIONAL_TIMEOUT;
use crate::pg::WalFileName;
use crate::repo::{ClusterName, Kept, Stored};
use crate::report::push::{PushOutcome, PushReport};
use crate::repositories;
use crate::threads::Detached;
use crate::wal::deliver::deliver;
use crate::wal::inspect::InspectedFile;
use crate::wal::spool::{Spool, note_failure, note_missed};
use std::sync::Arc;
use std::time::Duration;

/// Called in each repository once the cluster's name is bound there, before a file is sent.
pub type OnceBound = Arc<dyn Fn() + Send + Sync>;

/// Delivers the files, in the order given, to every repository at once. A repository ends at the first file that fails.
///
/// An optional repository may not hold up archiving: when all others are done it is waited for [`OPTIONAL_TIMEOUT`] at
/// most, and what it misses is remembered in the spool and sent later. While it fails, it is left out.
///
/// # Errors
/// What the required repositories said: [`Kind::Conflict`]: other content is stored under a name; as the stores'.
pub fn deliver_to_all(
    config: &Config,
    files: Vec<InspectedFile>,
    spool: Option<&Spool>,
    once_bound: &OnceBound,
    deadline: Deadline,
) -> Result<Vec<PushReport>, Error> {
    let names: Vec<WalFileName> = files.iter().map(|file| file.name).collect();
    let files = Arc::new(files);
    let begin = |repository: &RepositoryConfig| {
        let outage = spool.and_then(|spool| spool.outage(&repository.store.location()));
        match outage.filter(|_| repository.optional) {
            // An optional one that fails is not tried by every call: it gets later what it misses now.
            Some(outage) => Begun::LeftOut(Error::new(Kind::Unreachable, outage.said)),
            None => Begun::Tried(start(repository, &config.cluster, &files, once_bound, deadline)),
        }
    };
    // All of them before the first is waited for.
    let begun: Vec<_> = config.repositories.iter().map(begin).collect();
    let mut reports = Vec::new();
    let mut failures = Vec::new();
    let end_outage = |location: &str| {
        if let Some(spool) = spool {
            spool.end_outage(location);
        }
    };
    let (optional, required): (Vec<_>, Vec<_>) = config.repositories.iter().zip(begun).partition(|(r, _)| r.optional);
    for (repository, begun) in required {
        let location = repository.store.location();
        match begun.join() {
            Ok(kept) => {
                end_outage(&location);
                reports.extend(report(&location, &files, &kept));
            }
            Err(error) if error.kind == Kind::Unreachable => {
                let since = note_failure(spool.and_then(Spool::created), &location, &error.what, true);
                failures.push(Error { what: format!("{}{since}", error.what), ..error });
            }
            Err(error) => failures.push(error),
        }
    }
    let until = deadline.at_most(OPTIONAL_TIMEOUT);
    for (repository, begun) in optional {
        let location = repository.store.location();
        let was_tried = matches!(begun, Begun::Tried(_));
        let outcome = begun.wait(until.remaining()).unwrap_or_else(|| {
            let said = repository.store.health().failure().unwrap_or_else(|| "it takes too long".to_owned());
            Err(Error::new(Kind::Unreachable, said))
        });
        match outcome {
            Ok(kept) => {
                end_outage(&location);
                reports.extend(report(&location, &files, &kept));
            }
            Err(error) => {
                // Not only when it cannot be reached: whatever it is, the next call would only meet it again.
                let spool = spool.and_then(Spool::created);
                let since = note_failure(spool, &location, &error.what, was_tried);
                let why = format!("{error}{}{since}", error.hint_in_brackets());
                tracing::error!("{}", note_missed(spool, &location, &names, &why));
                reports.extend(files.iter().map(|file| report_of(file, &location, PushOutcome::Failed, None)));
            }
        }
    }
    // One line for all: the server's log is read by people.
    if let Some(error) = Error::from_several(failures) {
        let is_named = names.iter().any(|name| error.what.contains(&name.to_string()));
        return Err(match names.as_slice() {
            [name] if !is_named => error.while_doing(name),
            _ => error,
        });
    }
    Ok(reports)
}

type Delivery = Detached<Result<Vec<Kept>, Error>>;

/// What was begun with a repository.
enum Begun {
    /// Its thread, or what kept it from being started.
    Tried(Result<Delivery, Error>),
    /// It fails for some time: what it said.
    LeftOut(Error),
}

impl Begun {
    /// The outcome, for as long as it takes.
    fn join(self) -> Result<Vec<Kept>, Error> {
        match self {
            Self::Tried(thread) => thread?.join()?,
            Self::LeftOut(error) => Err(error),
        }
    }

    /// The outcome; `None` when it takes longer than `limit`.
    fn wait(self, limit: Duration) -> Option<Result<Vec<Kept>, Error>> {
        match self {
            Self::Tried(Ok(thread)) => thread.wait(limit).unwrap_or_else(|error| Some(Err(error))),
            Self::Tried(Err(error)) | Self::LeftOut(error) => Some(Err(error)),
        }
    }
}

/// Delivers to one repository on a thread of its own. A thread that hangs ends with the process; what it was writing is
/// whole or absent.
fn start(
    repository: &RepositoryConfig,
    cluster: &ClusterName,
    files: &Arc<Vec<InspectedFile>>,
    once_bound: &OnceBound,
    deadline: Deadline,
) -> Result<Delivery, Error> {
    let (repository, cluster, files) = (repository.clone(), cluster.clone(), Arc::clone(files));
    let once_bound = Arc::clone(once_bound);
    Detached::start(move || {
        let opened = Arc::new(repositories::open_for(&repository, &cluster, deadline)?);
        files.iter().map(|file| deliver(&opened, &cluster, file, &*once_bound, deadline)).collect()
    })
}

fn report(location: &str, files: &[InspectedFile], kept: &[Kept]) -> Vec<PushReport> {
    let report = |(file, kept): (&InspectedFile, &Kept)| {
        let outcome = match kept.stored {
            Stored::New => PushOutcome::Stored,
            Stored::Same => PushOutcome::AlreadyStored,
        };
        report_of(file, location, outcome, (kept.name.copy > 1).then(|| kept.name.to_string()))
    };
    files.iter().zip(kept).map(report).collect()
}

fn report_of(file: &InspectedFile, location: &str, outcome: PushOutcome, stored_as: Option<String>) -> PushReport {
    PushReport { file: file.name.to_string(), repository: location.to_owned(), outcome, bytes: file.digest.bytes, stored_as }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn an_optional_repository_is_waited_for_only_so_long() {
        const LONG: Duration = Duration::from_secs(60);
        let left_out = Begun::LeftOut(Error::new(Kind::Unreachable, "it failed before"));
        assert_eq!(left_out.wait(LONG).unwrap().unwrap_err().what, "it failed before");
        let not_started = Begun::Tried(Err(Error::new(Kind::Unreachable, "no thread")));
        assert_eq!(not_started.wait(LONG).unwrap().unwrap_err().what, "no thread");
        let panicked = Begun::Tried(Detached::start(|| panic!("a test's panic")));
        assert_eq!(panicked.wait(LONG).unwrap().unwrap_err().kind, Kind::Bug);
        let done = Begun::Tried(Detached::start(|| Ok(Vec::new())));
        assert!(done.wait(LONG).unwrap().unwrap().is_empty());
        let (end, hangs) = mpsc::channel::<()>();
        let hanging = Begun::Tried(Detached::start(move || hangs.recv().map(|()| Vec::new()).map_err(|_| unreachable!())));
        assert!(hanging.wait(Duration::from_millis(10)).is_none());
        end.send(()).unwrap();
    }

    #[test]
    fn a_required_repository_is_waited_for() {
        let slow = Begun::Tried(Detached::start(|| {
            std::thread::sleep(Duration::from_millis(50));
            Err(Error::new(Kind::Conflict, "other content"))
        }));
        assert_eq!(slow.join().unwrap_err().kind, Kind::Conflict);
    }
}
