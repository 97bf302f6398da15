//! One question to one repository about one system identifier: what it is about, and the paths that are looked at.
//!
//! Lives here: what the choice of a timeline ([`choice_of_timeline`](super::choice_of_timeline)) and the answer
//! ([`answer`](mod@super::answer)) share.

use crate::error::Error;
use crate::format::manifest::BackupSummary;
use crate::pg::{Lsn, SegmentName, Timeline, WalFileName};
use crate::recovery::choice_of_backup::Backups;
use crate::recovery::path_log::PathLog;
use crate::recovery::reach::{Reach, reach_from, reaches};
use crate::recovery::request::ResolveRequest;
use crate::repo::{Catalog, ClusterName, Repository};

/// What is asked, and of what.
pub(super) struct Resolver<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: &'a ClusterName,
    pub(super) catalog: &'a Catalog<'a>,
    pub(super) request: &'a ResolveRequest,
    pub(super) backups: &'a Backups,
    /// The backup that was named.
    pub(super) named: Option<&'a BackupSummary>,
}

/// A timeline, and the path to it.
pub(super) struct Line<'a> {
    pub(super) timeline: Timeline,
    pub(super) log: PathLog<'a>,
}

impl<'a> Resolver<'a> {
    /// The line to a timeline.
    pub(super) fn open(&self, timeline: Timeline) -> Result<Line<'a>, Error> {
        let log = PathLog::open_as_known(self.repository, self.cluster, self.catalog, timeline)?;
        Ok(Line { timeline, log })
    }

    /// What can be restored: from the backups of the repository, or from the start that was given.
    pub(super) fn reaches(&self, line: &Line<'a>, missing: &[(Lsn, Lsn)]) -> Result<Vec<Reach<'_>>, Error> {
        match (self.request.from, self.named) {
            (Some(from), _) => reach_from(&line.log, from, missing),
            (None, Some(backup)) => Ok(reaches(&line.log, std::slice::from_ref(backup), missing)),
            (None, None) => Ok(reaches(&line.log, &self.backups.readable, missing)),
        }
    }

    /// The segments of a gap, where it is one of whole segments.
    pub(super) fn segments_of(&self, line: &Line<'a>, from: Lsn, until: Lsn) -> String {
        let size = self.catalog.facts().wal_segment_size;
        let name = |lsn: Lsn| {
            let leg =
                line.log.path().legs().iter().rev().find(|leg| line.log.path().number(leg.begin) <= line.log.path().number(lsn));
            SegmentName::holding(leg.map_or(line.timeline, |leg| leg.timeline), lsn, size)
        };
        match (name(from), name(Lsn(until.0.saturating_sub(1)))) {
            (Some(first), Some(last)) if from < until && first == last => format!(" ({first})"),
            (Some(first), Some(last)) if from < until => format!(" ({first} to {last})"),
            _ => String::new(),
        }
    }

    /// What to say of a timeline whose history is missing.
    pub(super) fn history_missing(&self, timeline: Timeline) -> (String, String) {
        match self.catalog.path(timeline) {
            Ok(_) => (String::new(), String::new()),
            Err(error) => (error.what, error.hint.unwrap_or_else(|| format!("push {}", WalFileName::History(timeline)))),
        }
    }
}
