//! `walvis push-wal`: what PostgreSQL's `archive_command` calls.
//!
//! It says success only when every required repository holds the whole file durably: because this call stored it, or
//! because a helper did that ahead of the call.
//!
//! As root it is all done as the owner of the files' directory: a link there leads to nothing that this user could not
//! read.

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, as_owner_of, as_owner_of_all, directory_of};
use crate::postgres::control_file;
use crate::report::push::{MissedReport, PushReport};
use crate::wal::ahead::push_helper;
use crate::wal::ahead::pushed::{PushHelperStart, report, report_if_pushed};
use crate::wal::deliver_to_all::{OnceBound, deliver_to_all};
use crate::wal::histories::UnofferedHistory;
use crate::wal::inspect::inspect_all;
use crate::wal::missed::{self, Hindered, Sender, missing};
use crate::wal::spool::Spool;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the command is asked for.
#[derive(Debug, Default)]
pub struct PushRequest {
    /// The files, as PostgreSQL's `%p` names them.
    pub paths: Vec<PathBuf>,
    /// The arguments with which this program is started to push ahead; `None`: nothing is pushed ahead.
    pub helper: Option<Vec<OsString>>,
}

/// The answer to the most frequent call: it has one file, a helper has stored it, and nothing else is left to do, to
/// say or to wait for. `None` means that nothing is known: [`run`] finds it out.
///
/// It is found out without waiting for anybody, so nothing has to watch over it.
pub fn on_record(config: &Config, paths: &[PathBuf]) -> Option<Vec<PushReport>> {
    let [path] = paths else { return None };
    // Root works as the owner of the directory, and what optional repositories missed has to be sent.
    let is_plain = fsio::own_user() != 0 && config.repositories.iter().all(|repository| !repository.optional);
    if !is_plain || !fsio::is_at_hand(path) {
        return None;
    }
    let (spool, name) = Spool::of_file(config, path)?;
    let pushed = spool.pushed_at_hand(&name, path)?;
    let has_nothing_to_say = pushed.failures.is_empty() && pushed.notes.is_empty();
    // Histories come last: of them, too, it is found out whether the repositories are the same.
    let is_all = has_nothing_to_say && UnofferedHistory::find(config, path).is_empty();
    is_all.then(|| report(config, &name, &pushed))
}

/// Stores WAL files, in the order given, in every configured repository, and with them the histories that recovery
/// needs on their timelines and that the server never offers.
///
/// # Errors
/// [`Kind::Config`]: a file cannot be read; [`Kind::Damaged`]: it is not what its name says; [`Kind::Refused`]: it is
/// of another cluster; [`Kind::Conflict`]: other content is stored under its name; as the stores'.
pub fn run(config: &Config, request: &PushRequest, deadline: Deadline) -> Result<Vec<PushReport>, Error> {
    let _as = as_owner_of_all(request.paths.iter().map(|path| directory_of(path)))?;
    let mut reports = Vec::new();

    let histories: Vec<_> = request.paths.iter().flat_map(|path| UnofferedHistory::find(config, path)).collect();
    let mut to_push: Vec<&Path> = histories.iter().map(UnofferedHistory::path).collect();
    let mut first_spool = None;
    let mut helper = None;
    for path in &request.paths {
        let Some((spool, name)) = Spool::of_file(config, path) else {
            to_push.push(path);
            continue;
        };
        let spool = Arc::new(spool);
        if let Some(pushed) = report_if_pushed(config, &spool, &name, path, deadline) {
            reports.extend(pushed);
        } else {
            to_push.push(path);
            if let ([_], Some(arguments)) = (request.paths.as_slice(), &request.helper) {
                helper = Some(PushHelperStart::new(Arc::clone(&spool), name, arguments.clone()));
            }
        }
        first_spool.get_or_insert(spool);
    }

    if !to_push.is_empty() {
        let files = inspect_all(&to_push, config, &deadline)?;
        let once_bound: OnceBound = Arc::new(move || {
            if let Some(helper) = &helper {
                helper.start();
            }
        });
        reports.extend(deliver_to_all(config, files, first_spool.as_deref(), &once_bound, deadline)?);
    }
    if let (Some(spool), Some(arguments)) = (&first_spool, &request.helper) {
        missed::start_helper_if_due(config, spool, arguments);
    }
    histories.into_iter().for_each(UnofferedHistory::record_stored);
    Ok(reports)
}

/// The helper that works ahead of the calls (`--ahead`), for the files that a call was given.
///
/// # Errors
/// As [`push_helper::run`].
pub fn run_ahead(config: &Config, paths: &[PathBuf], deadline: Deadline) -> Result<(), Error> {
    paths.iter().try_for_each(|path| push_helper::run(config, path, deadline))
}

/// The helper that sends what optional repositories missed (`--ahead --missed`).
///
/// # Errors
/// As [`missed::run_helper`].
pub fn run_missed_helper(config: &Config, paths: &[PathBuf], deadline: Deadline) -> Result<(), Error> {
    paths.iter().try_for_each(|path| missed::run_helper(config, path, deadline))
}

/// Compares every optional repository with the first one that is required, and sends what it lacks (`--missed`). Run in
/// a data directory.
///
/// # Errors
/// The first that is met; what was sent before stays.
pub fn run_missed(config: &Config, deadline: Deadline) -> Result<Vec<MissedReport>, Error> {
    // As root: as the owner of the data directory.
    let _as = as_owner_of(Path::new("."))?;
    let wal_directory = Path::new("pg_wal");
    let Some(here) = control_file::of_data_directory(Path::new("."), &deadline)? else {
        return Err(
            Error::new(Kind::Config, "this is not a data directory").hint("cd DATA_DIRECTORY && walvis push-wal --missed")
        );
    };
    let spool = Spool::find(config, wal_directory).filter(|spool| spool.create().is_ok());
    let copies = spool.as_ref().map_or_else(|| wal_directory.join("walvis.sent"), |spool| spool.path("sent"));
    let send = |repository: &RepositoryConfig| {
        let location = repository.store.location();
        let mut sender = Sender::open(config, repository, wal_directory, copies.clone(), deadline)?;
        let files = missing(&*sender.required()?, sender.optional(), &config.cluster, here.system_id)?;
        let (mut sent, mut hindered) = (Vec::new(), None);
        for file in &files {
            match sender.send(file) {
                Ok(is_sent) => sent.extend(is_sent.then(|| file.to_string())),
                // Those after it can still be sent.
                Err(Hindered::File(error)) => {
                    hindered.get_or_insert(error);
                    continue;
                }
                Err(Hindered::Repository(error)) => return Err(error),
            }
            if let Some(spool) = &spool {
                spool.forget_missed(&location, file);
            }
        }
        if let Some(error) = hindered {
            return Err(error.while_doing(format!("send what {location} missed; {} files were sent", sent.len())));
        }
        if let Some(spool) = &spool {
            spool.end_outage(&location);
        }
        Ok(MissedReport { repository: location, sent_files: sent })
    };
    config.repositories.iter().filter(|repository| repository.optional).map(send).collect()
}
