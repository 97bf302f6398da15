//! `walvis fetch-wal`: what PostgreSQL's `restore_command` calls.
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::report::fetch::FetchReport;
use crate::wal::fetch::{self, FetchRequest};
use crate::wal::fetch_ahead;
use std::path::Path;

/// Fetches a file from the first repository that has it.
///
/// # Errors
/// As [`fetch::run`].
pub fn run(config: &Config, request: &FetchRequest, deadline: Deadline) -> Result<FetchReport, Error> {
    fetch::run(config, request, deadline)
}

/// The helper that downloads what recovery will ask for next (`--ahead`).
///
/// # Errors
/// As [`fetch_ahead::run`].
pub fn run_ahead(config: &Config, name: &str, destination: &Path, deadline: Deadline) -> Result<(), Error> {
    fetch_ahead::run(config, name, destination, deadline)
}
