//! One question to one repository about one system identifier: what it is about, and the paths that are looked at.
//!
//! Lives here: what the choice of a timeline ([`choice_of_timeline`](super::choice_of_timeline)) and the answer ([`answer`](super::answer))
//! share.
use crate::error::Error;
use crate::format::manifest::BackupSummary;
use crate::pg::Timeline;
use crate::recovery::choice_of_backup::Backups;
use crate::recovery::path_log::PathLog;
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
}
