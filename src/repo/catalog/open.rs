//! A catalog that is open, and what it remembers: the walks of one command go over the same ends of the log and the
//! same nodes.

use std::sync::Arc;

use super::known::Known;
use super::names_cache::NamesCache;
use super::path::TimelineInfo;
use super::wanted::WantedEnds;
use crate::fifo_cache::FifoCache;
use crate::format::node::{Node, NodeId};
use crate::limits::{CACHED_ENDS, CACHED_NODES, CACHED_SUMMARY_BYTES};
use crate::pg::scan::XactEntry;
use crate::pg::{Lsn, SegmentName, WalSegmentSize};
use crate::repo::cluster::{ClusterName, Facts};
use crate::repo::repository::Repository;

/// The catalog of one cluster in one repository. What it listed and read lately it holds in memory, up to
/// [`CACHED_SUMMARY_BYTES`] and [`CACHED_NODES`]: of a log of one timeline that is a few MB.
pub struct Catalog<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: ClusterName,
    pub(super) facts: Facts,
    pub(super) timelines: Vec<TimelineInfo>,
    /// Summaries, `None` where a segment has none: neighbours need each other, and so do the paths to several
    /// timelines.
    pub(super) summaries: FifoCache<SegmentName, Option<Known>>,
    pub(super) nodes: FifoCache<NodeId, Arc<Node>>,
    pub(super) names: NamesCache,
    /// Of segments whose list of transactions is too long to be stored: what was asked of them.
    pub(super) first_ends: FifoCache<(SegmentName, Lsn, WantedEnds), Option<XactEntry>>,
    /// The last commits before a position.
    pub(super) last_commits: FifoCache<(SegmentName, Lsn), Option<XactEntry>>,
}

impl<'a> Catalog<'a> {
    /// A catalog that knows no timelines: for those who write.
    pub(super) fn unlisted(repository: &'a Repository, cluster: &ClusterName, facts: Facts) -> Self {
        Catalog {
            repository,
            cluster: cluster.clone(),
            facts,
            timelines: Vec::new(),
            summaries: FifoCache::new(CACHED_SUMMARY_BYTES),
            nodes: FifoCache::new(CACHED_NODES),
            names: NamesCache::default(),
            first_ends: FifoCache::new(CACHED_ENDS),
            last_commits: FifoCache::new(CACHED_ENDS),
        }
    }
}

impl Catalog<'_> {
    /// The cluster's system identifier and segment size.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    pub(super) fn size(&self) -> WalSegmentSize {
        self.facts.wal_segment_size
    }

    /// Which catalog it is, for messages.
    pub(super) fn place(&self) -> String {
        format!("of cluster {} in {}", self.cluster, self.repository.location())
    }
}
