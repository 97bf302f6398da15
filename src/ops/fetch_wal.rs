//! `walvis fetch-wal`: what PostgreSQL's `restore_command` calls.
//!
//! PostgreSQL takes exit codes 1 to 125 for "there is no such file" and may promote, so [`Kind::Absent`] is answered
//! only when every repository proves it. The destination gets its name only after all of the file was authenticated and
//! checked once more against the file's name and cluster.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::as_owner_of;
use crate::pg::{Timeline, WalFileName};
use crate::postgres::control_file;
use crate::repo::{StoredName, SystemId};
use crate::report::fetch::FetchReport;
use crate::wal::ahead::fetch_helper;
use crate::wal::ahead::prefetched::Prefetched;
use crate::wal::ask::{Wanted, ask_all};
use crate::wal::destination::as_owner_of_destination;
use crate::wal::restore_call::{OnError, RestoreCall};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the command is asked for.
#[derive(Debug)]
pub struct FetchRequest {
    /// PostgreSQL's `%f`.
    pub name: String,
    /// PostgreSQL's `%p`.
    pub destination: PathBuf,
    /// What to do when it is not known whether the file exists.
    pub on_error: OnError,
    /// The arguments with which this program is started to fetch ahead; `None`: nothing is fetched ahead.
    pub helper: Option<Vec<OsString>>,
}

/// Fetches a file from the first repository that has it.
///
/// # Errors
/// [`Kind::Absent`] only when every repository proved that the file is not there; [`Kind::Unavailable`] where the
/// server may go on although that is not known; anything else means "cannot tell".
pub fn run(config: &Config, request: &FetchRequest, deadline: Deadline) -> Result<FetchReport, Error> {
    let FetchRequest { destination, on_error, .. } = request;
    let name = StoredName::parse(&request.name).ok_or_else(|| {
        Error::new(Kind::Usage, format!("{:?} is not the name of a file that PostgreSQL asks for", request.name))
            .hint("use restore_command = 'walvis fetch-wal %f %p'")
    })?;
    let system_id = system_id_here(&deadline)?;
    let _as = as_owner_of_destination(destination)?;
    if name.file == WalFileName::History(Timeline(1)) {
        // The first timeline has no parent. A server that begins another from there asks for it all the same, and must
        // not fail then.
        return Err(Error::new(Kind::Absent, format!("{name} does not exist: the first timeline has no history")));
    }
    let call = RestoreCall::new(config, *on_error, name.file, system_id, destination);
    let prefetched = system_id.and_then(|system_id| Prefetched::find(config, name.file, system_id, destination));
    // It waits for a helper for half of the time that it is given.
    let time = call.patience().map_or(deadline, |patience| deadline.at_most(patience * 2));
    if let Some(report) = prefetched.as_ref().and_then(|prefetched| prefetched.serve(time)) {
        return Ok(report);
    }
    let wanted = Wanted { config, name, system_id, destination, deadline };
    let report = ask_all(&wanted, &call)
        .map_err(|error| call.answer_to(error))?
        .ok_or_else(|| Error::new(Kind::Absent, format!("{name} is in none of the repositories")))?;
    if let (Some(prefetched), Some(arguments)) = (prefetched, &request.helper) {
        prefetched.fetch_next(arguments);
    }
    Ok(report)
}

/// The system identifier of the data directory that we are in. PostgreSQL runs the command there; by hand it may be run
/// anywhere.
fn system_id_here(deadline: &Deadline) -> Result<Option<SystemId>, Error> {
    let here = Path::new(".");
    match as_owner_of(here) {
        Ok(_as) => Ok(control_file::of_data_directory(here, deadline)?.map(|facts| facts.system_id)),
        // Root, where anybody could have put a data directory, or its name for another one: that says nothing.
        Err(error) if error.kind == Kind::Refused => Ok(None),
        Err(error) => Err(error),
    }
}

/// The helper that downloads what recovery will ask for next (`--ahead`).
///
/// # Errors
/// As [`fetch_helper::run`].
pub fn run_ahead(config: &Config, name: &str, destination: &Path, deadline: Deadline) -> Result<(), Error> {
    fetch_helper::run(config, name, destination, deadline)
}
