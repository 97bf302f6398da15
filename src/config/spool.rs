//! Where calls leave to later calls what they did ahead.
//!
//! Lives here: the place that the settings name. What lies there is the business of `wal`. Depends on `definitions` and
//! `invalid`.

use std::path::PathBuf;

use super::definitions::SPOOL_OFF;
use super::invalid::config_error;
use crate::error::Error;

/// Where the spool is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SpoolPlace {
    /// In `walvis` beside the WAL files.
    #[default]
    BesideWal,
    /// Below this directory.
    At(PathBuf),
    /// Nowhere: nothing is done ahead.
    Off,
}

/// The place that the setting names.
pub(super) fn place(text: Option<&str>) -> Result<SpoolPlace, Error> {
    match text {
        None => Ok(SpoolPlace::default()),
        Some(SPOOL_OFF) => Ok(SpoolPlace::Off),
        Some(path) if path.starts_with('/') => Ok(SpoolPlace::At(path.into())),
        Some(other) => Err(config_error(format!("spool is {other:?}")).hint("give the absolute path of a directory, or off")),
    }
}
