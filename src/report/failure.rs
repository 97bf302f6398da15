//! What a command that fails says with `--json`, in one line on standard error.

use crate::error::Error;
use serde::Serialize;

/// Why a command failed.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailureReport<'a> {
    /// The error.
    pub error: Failure<'a>,
}

/// An error.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure<'a> {
    /// What kind of error it is: one stable word.
    pub kind: &'static str,
    /// The exit code of this run.
    pub exit: u8,
    /// What happened.
    pub message: &'a str,
    /// What to do about it.
    pub hint: Option<&'a str>,
    /// What others said about it, where that takes several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
}

impl<'a> FailureReport<'a> {
    /// Of an error, with the word for its kind and the exit code.
    pub fn new(error: &'a Error, kind: &'static str, exit: u8) -> Self {
        let (hint, detail) = (error.hint.as_deref(), error.detail.as_deref());
        Self { error: Failure { kind, exit, message: &error.what, hint, detail } }
    }
}
