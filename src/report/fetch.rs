//! What `fetch-wal` answers.

use serde::Serialize;

/// A file that was fetched.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FetchReport {
    /// Its name.
    pub file: String,
    /// URL of the repository that it came from.
    pub repository: String,
    /// Its length.
    pub bytes: u64,
}
