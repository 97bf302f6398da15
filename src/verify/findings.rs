//! What a verification finds: which object, what is wrong with it, what that costs, and whether it matters.
//!
//! Lives here: plain values, and how many of them are kept. May not live here: how something is found (`quick`,
//! `full`), and how a cost is worked out (`costs`).

use std::fmt;

use crate::format::extent::BackupId;
use crate::limits::{MAX_FINDINGS_KEPT, MAX_LESSER_FINDINGS_KEPT};
use crate::pg::scan::PgTime;
use crate::pg::{Lsn, SegmentName, Timeline};
use crate::repo::{ClusterName, ObjectName, ObjectSet, SystemId};
pub use crate::report::verify::Problem;

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One object.
    Object(ObjectName),
    /// Consecutive segments of one timeline.
    Segments {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The first of them.
        first: SegmentName,
        /// The last of them, at least the first.
        last: SegmentName,
    },
    /// Something that is no object of a repository, by its name; or several objects, in words.
    Other(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(name) => write!(f, "{name}"),
            Self::Segments { cluster, system_id, first, last } => {
                write!(f, "{}", ObjectName::wal(cluster, *system_id, crate::pg::WalFileName::Segment(*first)))?;
                if first == last { Ok(()) } else { write!(f, " to {last}") }
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Moments that cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostMoments {
    /// The system identifier.
    pub system_id: SystemId,
    /// The timeline on which they are.
    pub timeline: Timeline,
    /// From this position on.
    pub from: Lsn,
    /// Before this position.
    pub until: Lsn,
    /// When the last transaction before them ended, where that is known.
    pub from_time: Option<PgTime>,
    /// When the first transaction after them ended, where that is known and there is one.
    pub until_time: Option<PgTime>,
}

/// What a finding costs. Nothing, where what is wrong is needed by nobody, or can be made anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cost {
    /// Backups that cannot be restored as they are.
    pub backups: Vec<BackupId>,
    /// Of these backups some files that are not whole, as far as that is known.
    pub files: Vec<String>,
    /// Moments that no recovery reaches.
    pub moments: Vec<LostMoments>,
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// The system identifier whose object it is, if it is of one.
    pub system_id: Option<SystemId>,
    /// What is wrong.
    pub problem: Problem,
    /// In words.
    pub detail: String,
    /// What that costs, as if it were the only damage.
    pub cost: Cost,
    /// Whether a backup, a window or a history needs it.
    pub matters: bool,
    /// Whether readers take a good copy instead, so that nothing is lost for now.
    pub is_repaired: bool,
}

/// What was found in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Those that matter, in the order in which they were found: the first [`MAX_FINDINGS_KEPT`].
    pub that_matter: Vec<Finding>,
    /// The others: the first [`MAX_LESSER_FINDINGS_KEPT`].
    pub others: Vec<Finding>,
    /// How many matter.
    pub that_matter_total: u64,
    /// How many others there are.
    pub others_total: u64,
}

impl Findings {
    /// Adds one. It is counted, also where there is no room to keep it.
    pub fn add(&mut self, finding: Finding) {
        let (kept, total, most) = if finding.matters {
            (&mut self.that_matter, &mut self.that_matter_total, MAX_FINDINGS_KEPT)
        } else {
            (&mut self.others, &mut self.others_total, MAX_LESSER_FINDINGS_KEPT)
        };
        *total += 1;
        if kept.len() < most {
            kept.push(finding);
        }
    }

    /// All that are kept, those that matter first.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.that_matter.iter().chain(&self.others)
    }

    /// Whether nothing that matters is wrong.
    pub fn is_clean(&self) -> bool {
        self.that_matter_total == 0
    }
}

/// What was looked at, of one system identifier of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The system identifier.
    pub system_id: SystemId,
    /// The objects of which every byte was read, whatever came of it.
    pub objects: ObjectSet,
    /// The stored bytes of these, and of smaller objects that a set does not name.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_those_that_matter_are_kept_for_themselves() {
        let mut findings = Findings::default();
        let finding = |matters| Finding {
            subject: Subject::Other("x".to_owned()),
            system_id: None,
            problem: Problem::Foreign,
            detail: String::new(),
            cost: Cost::default(),
            matters,
            is_repaired: false,
        };
        assert!(findings.is_clean());
        (0..=MAX_LESSER_FINDINGS_KEPT).for_each(|_| findings.add(finding(false)));
        assert!(findings.is_clean());
        findings.add(finding(true));
        assert!(!findings.is_clean());
        assert_eq!(
            (findings.others.len(), findings.others_total),
            (MAX_LESSER_FINDINGS_KEPT, 1 + MAX_LESSER_FINDINGS_KEPT as u64)
        );
        assert_eq!(findings.iter().next().map(|first| first.matters), Some(true));
    }
}
