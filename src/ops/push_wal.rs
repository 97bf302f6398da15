//! `walvis push-wal`: what PostgreSQL's `archive_command` calls.
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::report::push::{MissedReport, PushReport};
use crate::wal::missed;
use crate::wal::push::{self, PushRequest};
use crate::wal::push_ahead;
use std::path::PathBuf;

/// Stores WAL files in every configured repository.
///
/// # Errors
/// As [`push::run`].
pub fn run(config: &Config, request: &PushRequest, deadline: Deadline) -> Result<Vec<PushReport>, Error> {
    push::run(config, request, deadline)
}

/// The helper that works ahead of the calls (`--ahead`), for the files that a call was given.
///
/// # Errors
/// As [`push_ahead::run`].
pub fn run_ahead(config: &Config, paths: &[PathBuf], deadline: Deadline) -> Result<(), Error> {
    paths.iter().try_for_each(|path| push_ahead::run(config, path, deadline))
}

/// The helper that sends what optional repositories missed (`--ahead --missed`).
///
/// # Errors
/// As [`missed::run_helper`].
pub fn run_missed_helper(config: &Config, paths: &[PathBuf], deadline: Deadline) -> Result<(), Error> {
    paths.iter().try_for_each(|path| missed::run_helper(config, path, deadline))
}

/// Sends what optional repositories missed, found by comparing (`--missed`).
///
/// # Errors
/// As [`missed::run`].
pub fn run_missed(config: &Config, deadline: Deadline) -> Result<Vec<MissedReport>, Error> {
    missed::run(config, deadline)
}
