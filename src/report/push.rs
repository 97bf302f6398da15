//! What `push-wal` answers.

use serde::Serialize;
use std::fmt;

/// What became of one file in one repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PushReport {
    /// Its name.
    pub file: String,
    /// URL.
    pub repository: String,
    /// What became of it.
    pub outcome: PushOutcome,
    /// Its length.
    pub bytes: u64,
    /// The name that it is kept under, where other content has its own.
    pub stored_as: Option<String>,
}

/// What became of a file that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum PushOutcome {
    /// It was stored now.
    Stored,
    /// It was there already, with the same content.
    AlreadyStored,
    /// It could not be stored; in an optional repository only.
    Failed,
}

impl fmt::Display for PushOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::AlreadyStored => "already stored",
            Self::Failed => "failed",
        })
    }
}

/// What `push-wal --missed` sent to an optional repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissedReport {
    /// URL.
    pub repository: String,
    /// Names of the files that it has received now.
    pub sent_files: Vec<String>,
}
