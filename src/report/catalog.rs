//! What `catalog` answers: the overview, and the lines of its lists.

use crate::report::time::Time;
use crate::report::transaction::{Moment, Transaction};
use crate::report::verified::{LastVerification, Verified};
use serde::Serialize;

/// The overview of one cluster in one repository.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CatalogReport {
    /// URL.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Its system identifiers, oldest first; the last is the current one. No recovery leads from one to the next.
    pub systems: Vec<CatalogSystem>,
    /// The newest commit that is stored of the current system identifier, on whichever timeline.
    pub newest_commit: Option<Transaction>,
    /// Its age in seconds, by this host's clock: what would be lost at this moment.
    pub newest_commit_age_s: Option<i64>,
}

/// What the WAL of one system identifier leads to.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CatalogSystem {
    /// System identifier, decimal.
    pub system_id: String,
    /// Its timelines, ascending.
    pub timelines: Vec<CatalogTimeline>,
    /// The last verification of each mode, the newest first; null where that is not known.
    pub last_verifications: Option<Vec<LastVerification>>,
}

/// What is recoverable of one timeline by itself, without its ancestors.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CatalogTimeline {
    /// Its number.
    pub timeline: u32,
    /// The timeline that it left.
    pub parent_timeline: Option<u32>,
    /// Where it left it.
    pub fork_lsn: Option<String>,
    /// Its history is not stored although it must have one: nothing can be said of it.
    pub history_missing: bool,
    /// Stretches of WAL without a gap, in LSN order, and what of each can be restored.
    pub windows: Vec<CatalogWindow>,
    /// Why each ends before the next begins, in LSN order.
    pub gaps: Vec<CatalogGap>,
    /// Segments that were stored without being scanned; they were read whole for this report.
    pub unscanned_segments: Vec<String>,
}

/// A stretch that recovery can run through.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CatalogWindow {
    /// Where it begins, and the first transaction that ends in it.
    pub from: Moment,
    /// Where it ends, and the last commit in it.
    pub until: Moment,
    /// From where on it can be restored, and the first transaction after that; null where no base backup leads into it.
    pub recoverable_from: Option<Moment>,
    /// Id of the base backup from which that is.
    pub backup_id: Option<String>,
    /// When its segments were last verified; null where that is not known.
    pub verified: Option<Verified>,
}

/// Something that no recovery can cross.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CatalogGap {
    /// What is wrong.
    pub kind: GapKind,
    /// The first segment concerned.
    pub first_segment: String,
    /// The last.
    pub last_segment: String,
    /// What is wrong, in words.
    pub detail: String,
}

/// Why no recovery crosses a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum GapKind {
    /// Segments are not stored.
    Missing,
    /// A segment is damaged.
    Damaged,
    /// A segment has no more data.
    Ends,
    /// The next segment does not follow.
    Broken,
    /// Written with `wal_level = minimal`.
    Minimal,
}

impl GapKind {
    /// The word that JSON has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Ends => "ends",
            Self::Broken => "broken",
            Self::Minimal => "minimal",
        }
    }
}

/// A line of a list.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum CatalogLine {
    /// The end of a transaction.
    Transaction(Transaction),
    /// A restore point.
    RestorePoint {
        /// Its name.
        name: String,
        /// When it was made, by the server's clock.
        time: Time,
        /// Where its record begins.
        lsn: String,
        /// The timeline that it is on.
        timeline: u32,
    },
    /// No recovery crosses this.
    Gap {
        /// Where the stretch before ends.
        gap_from_lsn: String,
        /// Where the next begins.
        gap_until_lsn: String,
    },
}
