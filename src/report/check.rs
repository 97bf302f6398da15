//! What `check` answers.

use crate::error::Error;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Severity {
    /// Archiving or recovery does not work, or will not.
    Problem,
    /// It works, with a weakness that should be known.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something found.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a repository URL, or `server`.
    pub about: String,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Whether a store does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Switch {
    /// It does.
    On,
    /// It does not.
    Off,
    /// It did once.
    Suspended,
    /// It does not say.
    Unknown,
}

/// Who may lift an object lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum LockMode {
    /// Those who have the right to.
    Governance,
    /// Nobody.
    Compliance,
}

/// What keeps objects from being deleted or replaced, beside what the credentials may do.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProtectionCheck {
    /// Whether the store keeps versions of what is deleted or replaced.
    pub versioning: Switch,
    /// Whether it can hold objects against deletion.
    pub object_lock: Switch,
    /// Who may lift the lock of new objects, where they are locked.
    pub lock_mode: Option<LockMode>,
    /// For how many days new objects are locked: by the settings, or else by the bucket.
    pub lock_days: Option<u32>,
    /// Whether requests that could replace an object are refused by a policy.
    pub refuses_replacing: Option<bool>,
}

/// What is known of one repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RepositoryCheck {
    /// URL.
    pub repository: String,
    /// Whether it could be opened with the configured key.
    pub opened: bool,
    /// Whether its objects are encrypted.
    pub encrypted: Option<bool>,
    /// Whether the store was seen to refuse overwriting, just now.
    pub store_refuses_overwrite: Option<bool>,
    /// In how many rounds the store was asked for that by many writers of one object at the same moment. Only what it
    /// does wrong is proven by that.
    pub store_races: Option<usize>,
    /// Whether these credentials can delete objects.
    pub can_delete: Option<bool>,
    /// What else keeps objects from being deleted or replaced.
    pub protection: Option<ProtectionCheck>,
    /// Whether the switched segment arrived and read back as it should.
    pub segment_verified: Option<bool>,
    /// Seconds from the switch until it was there.
    pub arrived_after_s: Option<f64>,
}

/// What the server says.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServerCheck {
    /// `server_version`.
    pub postgres_version: String,
    /// System identifier, decimal.
    pub system_id: String,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// `archive_mode`.
    pub archive_mode: String,
    /// `archive_command`.
    pub archive_command: String,
    /// `archive_library` (15 and later).
    pub archive_library: Option<String>,
    /// `wal_level`.
    pub wal_level: String,
    /// `archive_timeout` in seconds; 0 is off.
    pub archive_timeout_s: u64,
    /// `wal_segment_size` in bytes.
    pub wal_segment_bytes: u64,
    /// The segment that was switched away from, if one was.
    pub switched_segment: Option<String>,
    /// What the server says of its archiver, last.
    pub archiver: Option<ArchiverCheck>,
}

/// What `pg_stat_archiver` says.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ArchiverCheck {
    /// Files archived.
    pub archived_count: u64,
    /// Failed attempts.
    pub failed_count: u64,
    /// The last file archived.
    pub last_archived_file: Option<String>,
    /// The last file that failed.
    pub last_failed_file: Option<String>,
    /// Whether the last attempt failed.
    pub is_failing: bool,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Verdict {
    /// There are no problems.
    Working,
    /// There are.
    NotWorking,
}

/// Everything found.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CheckReport {
    /// Name of the cluster.
    pub cluster: String,
    /// In the order of the settings.
    pub repositories: Vec<RepositoryCheck>,
    /// Unless it was not asked or could not be reached.
    pub server: Option<ServerCheck>,
    /// In the order found.
    pub findings: Vec<Finding>,
    /// What it comes to.
    pub verdict: Verdict,
}

impl CheckReport {
    /// Of a cluster about which nothing is known yet.
    pub fn new(cluster: String) -> Self {
        Self { cluster, repositories: Vec::new(), server: None, findings: Vec::new(), verdict: Verdict::Working }
    }

    /// Whether anything is broken.
    pub fn has_problems(&self) -> bool {
        self.verdict == Verdict::NotWorking
    }

    /// Adds a finding; an empty hint is none.
    pub fn add(&mut self, severity: Severity, about: &str, message: impl Into<String>, hint: impl Into<String>) {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self.push(Finding { severity, about: about.to_owned(), message: message.into(), hint });
    }

    /// Adds an error as a finding.
    pub fn add_error(&mut self, severity: Severity, about: &str, error: Error) {
        self.push(Finding { severity, about: about.to_owned(), message: error.what, hint: error.hint });
    }

    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        if finding.severity == Severity::Problem {
            self.verdict = Verdict::NotWorking;
        }
        self.findings.push(finding);
    }
}
