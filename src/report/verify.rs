//! What `verify` answers.

use crate::report::time::Time;
use crate::report::verified::VerificationMode;
use serde::Serialize;

/// What was found in one repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VerifyReport {
    /// URL.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// What was looked at.
    pub verification_mode: VerificationMode,
    /// How long it took, in seconds.
    pub duration_s: f64,
    /// Stored bytes that were read of objects.
    pub read_bytes: u64,
    /// What there is of each system identifier, oldest first.
    pub systems: Vec<VerifiedSystem>,
    /// What is wrong, what matters first: the first of it.
    pub findings: Vec<Damage>,
    /// How much is wrong, or odd.
    pub findings_total: u64,
    /// How much of that matters.
    pub findings_that_matter: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// What was brought back, where that was asked.
    pub repair: Option<RepairReport>,
}

/// What was brought back from another repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RepairReport {
    /// URL of the other one.
    pub repaired_from: String,
    /// Objects that were brought back: created, replaced, or with a good copy beside them.
    pub repaired_objects: u64,
    /// Objects of which it has no good copy.
    pub lost_objects: u64,
    /// What became of each: the first of them.
    pub repairs: Vec<ObjectRepair>,
}

/// What became of one object.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ObjectRepair {
    /// The object.
    pub object: String,
    /// What was done.
    pub repair_outcome: RepairOutcome,
    /// Why no more, in words.
    pub detail: Option<String>,
}

/// What was done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum RepairOutcome {
    /// Nothing: it is good by now.
    Good,
    /// It was missing, and is there again.
    Created,
    /// It was damaged, and is good.
    Replaced,
    /// A good copy stands beside it, which readers take.
    CopyBeside,
    /// There is no good copy.
    Lost,
}

/// What is stored of one system identifier.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VerifiedSystem {
    /// System identifier, decimal.
    pub system_id: String,
    /// Number of segments.
    pub segments: u64,
    /// Number of base backups whose manifest can be read.
    pub readable_backups: u64,
    /// Number of packs.
    pub packs: u64,
    /// Number of all objects.
    pub objects: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
}

/// Something that is wrong.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Damage {
    /// The object, or what it is about.
    pub object: String,
    /// The system identifier that it belongs to.
    pub system_id: Option<String>,
    /// What is wrong.
    pub problem: Problem,
    /// In words.
    pub detail: String,
    /// Whether a backup, a window or a history needs it.
    pub matters: bool,
    /// Whether readers take a good copy instead.
    pub has_good_copy: bool,
    /// Backups that cannot be restored because of it.
    pub lost_backups: Vec<String>,
    /// Some files of these that are not whole.
    pub lost_files: Vec<String>,
    /// Moments that no recovery reaches because of it.
    pub lost_moments: Vec<LostInterval>,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It is shorter or longer than it can be.
    WrongSize,
    /// It is not what was stored under its name: authentication, hash or format.
    Damaged,
    /// The store has it, and cannot hand it out.
    Unreadable,
    /// It is genuine, and yet does not fit what another object says.
    Contradiction,
    /// Recovery ends in it, or does not get from it to the next.
    RecoveryStops,
    /// It is no object of a repository.
    Foreign,
    /// Nothing needs it.
    Leftover,
}

/// Moments that cannot be reached.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LostInterval {
    /// The timeline on which they are.
    pub timeline: u32,
    /// From this position on.
    pub lost_from_lsn: String,
    /// Before this position.
    pub lost_until_lsn: String,
    /// When the last commit before them ended, where that is known.
    pub lost_from_at: Option<Time>,
    /// When the first transaction after them ended, where that is known and there is one.
    pub lost_until_at: Option<Time>,
}

impl VerifyReport {
    /// Whether anything is wrong that matters.
    pub fn has_damage(&self) -> bool {
        self.findings_that_matter > 0
    }
}
