//! Nodes that are over segments which are gone, or are about to go.
//!
//! # Why a node never says of a segment that it is there when it is not
//! Whoever deletes segments removes the nodes over them first ([`nodes_without`](Repository::nodes_without)), and
//! deletes no segment of which a node could not be removed; afterwards it looks for nodes once more. Killed anywhere
//! between, it leaves fewer nodes than there could be, which costs readers requests and nothing else. A node is written
//! of what is there, so what can be wrong is one whose writer read a segment before it went and stored the node after
//! the second look. That writer looks too, after the node is stored: where a child is gone, it removes the node. One
//! that is killed at that very moment leaves a node that the next deletion finds. Until then readers are misled by it
//! within the timeline only: at both ends of a timeline they go by what is stored.
//!
//! Higher nodes are functions of lower ones, and lower ones of segments, so no node over a segment that is gone is ever
//! written from what is there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::open::Catalog;
use crate::error::{Error, Kind};
use crate::format::node::{Children, FANOUT, Node, NodeId, span};
use crate::limits::MAX_WAL_RECORD_BYTES;
use crate::pg::{Timeline, WalFileName, WalSegmentSize};
use crate::repo::cluster::{ClusterName, Facts};
use crate::repo::object_name::ObjectName;
use crate::repo::object_set::{ObjectSet, Runs};
use crate::repo::prefix::Prefix;
use crate::repo::repository::Repository;

impl Repository {
    /// The nodes that may say of a segment which is gone, or is in `goes`, that it is there; the highest first. That
    /// are those over such a segment, and those before one into which their last record may reach. Takes a request per
    /// thousand nodes and segments; 24 bytes per node, and 16 for each run of segments.
    ///
    /// # Errors
    /// As the store's.
    pub fn nodes_without(&self, cluster: &ClusterName, facts: Facts, goes: &ObjectSet) -> Result<Vec<IndexNode>, Error> {
        // Nodes first: what was under one then was stored before, so what the later listing lacks is gone.
        let nodes = self.nodes(cluster, facts)?;
        let mut stored: BTreeMap<Timeline, Runs> = BTreeMap::new();
        if !nodes.is_empty() {
            self.objects().list(Prefix::Wal(cluster, facts.system_id), "", &mut |object| {
                if let Some(WalFileName::Segment(name)) = object.name.wal_file()
                    && let Some(number) = name.number(facts.wal_segment_size)
                {
                    stored.entry(name.timeline).or_default().insert(number);
                }
                ControlFlow::Continue(())
            })?;
        }
        let none = Runs::default();
        let is_wrong = |IndexNode { id: node, .. }: &IndexNode| {
            let stored = stored.get(&node.timeline).unwrap_or(&none);
            // A node is written when the segment after it is there. Further ones may not be there yet.
            let last_known = stored.iter().next_back().map_or(0, |(_, last)| last).max(node.last().saturating_add(1));
            let until = reach(*node).min(last_known);
            !stored.has_all(node.first(), until) || goes.has_segment_within(node.timeline, node.first(), until)
        };
        Ok(nodes.into_iter().filter(is_wrong).collect())
    }

    /// The nodes over segments of a set, or just before one, the highest first: those that were written since
    /// [`nodes_without`](Self::nodes_without), where the segments have gone meanwhile.
    ///
    /// # Errors
    /// As the store's.
    pub fn nodes_over(&self, cluster: &ClusterName, facts: Facts, gone: &ObjectSet) -> Result<Vec<IndexNode>, Error> {
        let mut nodes = self.nodes(cluster, facts)?;
        nodes.retain(|IndexNode { id, .. }| gone.has_segment_within(id.timeline, id.first(), reach(*id)));
        Ok(nodes)
    }

    /// All nodes, the highest first.
    fn nodes(&self, cluster: &ClusterName, facts: Facts) -> Result<Vec<IndexNode>, Error> {
        let mut nodes = Vec::new();
        self.objects().list(Prefix::AllNodes(cluster, facts.system_id), "", &mut |object| {
            let (timeline, level, first, is_changes) = match object.name {
                ObjectName::Node { timeline, level, first_segment, .. } => (timeline, level, first_segment, false),
                ObjectName::Changes { timeline, level, first_segment, .. } => (timeline, level, first_segment, true),
                _ => return ControlFlow::Continue(()),
            };
            let id = NodeId { timeline, size: facts.wal_segment_size, level, number: first / span(level) };
            nodes.push(IndexNode { id, is_changes });
            ControlFlow::Continue(())
        })?;
        nodes.sort_by_key(|IndexNode { id, is_changes }| (std::cmp::Reverse(id.level), id.timeline, id.number, *is_changes));
        Ok(nodes)
    }
}

/// A node of the catalog, or of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexNode {
    /// What it is over.
    pub id: NodeId,
    /// Which of the two.
    pub is_changes: bool,
}

impl IndexNode {
    /// The name of its object.
    pub fn name(&self, cluster: &ClusterName, facts: Facts) -> ObjectName {
        let (cluster, system_id, NodeId { timeline, level, .. }) = (cluster.clone(), facts.system_id, self.id);
        let first_segment = self.id.first();
        match self.is_changes {
            false => ObjectName::Node { cluster, system_id, timeline, level, first_segment },
            true => ObjectName::Changes { cluster, system_id, timeline, level, first_segment },
        }
    }
}

/// The last segment into which a record can reach that begins under a node.
pub fn reach(node: NodeId) -> u64 {
    node.last().saturating_add(segments_of_a_record(node.size))
}

fn segments_of_a_record(size: WalSegmentSize) -> u64 {
    u64::from(MAX_WAL_RECORD_BYTES) / size.bytes() + 1
}

impl Catalog<'_> {
    /// Removes a node that was just stored, unless all its children are still there: what it was made of may have gone
    /// while it was made. Says whether it stays.
    pub(super) fn keep_if_true(&self, node: &Node) -> Result<bool, Error> {
        let id = node.id;
        let (first, last) = (id.number * FANOUT, id.number * FANOUT + FANOUT - 1);
        let is_true = match &node.children {
            Children::Segments(entries) => {
                // And those after it into which its last record reaches.
                let crossing =
                    entries.last().and_then(|entry| entry.crossing.as_ref()).map(|record| record.end.0.saturating_sub(1));
                self.are_there(id.timeline, first, crossing.map_or(last, |end| end / id.size.bytes()).max(last + 1))?
            }
            Children::Nodes(_) => self.nodes_in(id.timeline, id.level - 1, first, last, usize::MAX)?.0.len() as u64 == FANOUT,
        };
        if is_true { Ok(true) } else { self.remove_late(IndexNode { id, is_changes: false }) }
    }

    /// The same of changes.
    pub(super) fn keep_changes_if_true(&self, id: NodeId) -> Result<bool, Error> {
        let (first, last) = (id.number * FANOUT, id.number * FANOUT + FANOUT - 1);
        let is_true = match id.level {
            1 => self.are_there(id.timeline, first, last + 1)?,
            _ => self.changes_in(id.timeline, id.level - 1, first, last, usize::MAX)?.0.len() as u64 == FANOUT,
        };
        if is_true { Ok(true) } else { self.remove_late(IndexNode { id, is_changes: true }) }
    }

    fn are_there(&self, timeline: Timeline, first: u64, last: u64) -> Result<bool, Error> {
        let there = self.segments_after(timeline, first.checked_sub(1), last, usize::MAX)?.0;
        Ok(there.len() as u64 == last - first + 1)
    }

    fn remove_late(&self, node: IndexNode) -> Result<bool, Error> {
        let name = node.name(&self.cluster, self.facts);
        match self.repository.objects().delete(&name) {
            Ok(()) => tracing::info!("{name} {}: not kept, segments under it have expired", self.place()),
            // A host that only writes. The next expire removes it.
            Err(error) if error.kind == Kind::Denied => {
                tracing::warn!("{name} {} is over segments that have expired, and cannot be removed: {error}", self.place());
            }
            Err(error) => return Err(error),
        }
        Ok(false)
    }
}
