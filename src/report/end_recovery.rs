//! What `end-recovery` answers.

use serde::Serialize;

/// What was taken out of the settings.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndReport {
    /// Names of the settings that were taken out.
    pub removed_settings: Vec<String>,
    /// Whether `archive_mode` is still switched off there.
    pub archiving_is_off: bool,
}
