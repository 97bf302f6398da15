//! When something was last verified, as every command shows it.

use crate::repo;
use crate::report::time::Time;
use serde::Serialize;
use std::fmt;

/// How a verification looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum VerificationMode {
    /// At listings.
    Quick,
    /// At every byte.
    Full,
    /// At its share of the bytes.
    Rolling,
}

impl From<repo::VerificationMode> for VerificationMode {
    fn from(mode: repo::VerificationMode) -> Self {
        match mode {
            repo::VerificationMode::Quick => Self::Quick,
            repo::VerificationMode::Full => Self::Full,
            repo::VerificationMode::Rolling => Self::Rolling,
        }
    }
}

impl fmt::Display for VerificationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Rolling => "rolling",
        })
    }
}

/// A verification that was.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastVerification {
    /// How it looked.
    pub verification_mode: VerificationMode,
    /// When it began, at the earliest.
    pub verified_at: Option<Time>,
    /// The host that did it.
    pub host: String,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// How much it found.
    pub findings_total: u64,
    /// How much of that something needs that is kept.
    pub findings_that_matter: u64,
    /// Id of its evidence.
    pub evidence_id: String,
}

impl From<&repo::LastRun> for LastVerification {
    fn from(run: &repo::LastRun) -> Self {
        let verification = &run.verification;
        Self {
            verification_mode: verification.mode.into(),
            verified_at: at(run.after_unix_s),
            host: verification.host.clone(),
            interrupted: verification.interrupted,
            findings_total: verification.findings_total,
            findings_that_matter: verification.findings_that_matter,
            evidence_id: run.id.to_string(),
        }
    }
}

/// What evidence says of some objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Verified {
    /// How many objects.
    pub objects: u64,
    /// How many of them no verification has read.
    pub unverified_objects: u64,
    /// How many of them were damaged when they were last read.
    pub damaged_objects: u64,
    /// All that were read were last read after this moment; null if none was.
    pub verified_at: Option<Time>,
}

impl From<repo::Verified> for Verified {
    fn from(verified: repo::Verified) -> Self {
        Self {
            objects: verified.objects,
            unverified_objects: verified.unverified,
            damaged_objects: verified.damaged,
            verified_at: verified.after_unix_s.and_then(at),
        }
    }
}

/// A moment in Unix seconds.
pub fn at(unix_s: i64) -> Option<Time> {
    Time::from_unix_us(unix_s.checked_mul(1_000_000)?)
}
