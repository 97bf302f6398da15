//! What `key generate` answers.

use crate::raw_text::RawText;
use serde::Serialize;

/// A key file that was made.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyReport {
    /// The file.
    pub path: RawText,
    /// The key's id.
    pub key_id: String,
    /// Name of the user who alone can read it.
    pub owner: String,
}
