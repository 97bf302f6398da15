//! What nodes must say, for whoever holds them against the segments under them.
//!
//! Lives here: nodes as they are stored, and entries made of summaries that are known already. May not live here: what
//! it means that they differ.

use std::sync::Arc;

use super::open::Catalog;
use crate::error::Error;
use crate::format::node::{Edge, Entry, Node, NodeId};
use crate::pg::Timeline;
use crate::pg::scan::Summary;
use crate::repo::object_name::ObjectName;

impl Catalog<'_> {
    /// Which node that is, and the name of its object.
    pub fn node_at(&self, timeline: Timeline, level: u32, number: u64) -> (NodeId, ObjectName) {
        let id = self.node_id(timeline, level, number);
        (id, self.node_name(id))
    }

    /// A node as it is stored, whatever is under it; `None` when it is not there.
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub fn node_as_stored(&self, id: NodeId) -> Result<Option<Node>, Error> {
        self.read_node(id)
    }

    /// The entry that a node must have of a segment, by its summary and those of the ones after it, which `later` may
    /// know; `None` where these are too few to tell.
    ///
    /// # Errors
    /// [`Kind::Bug`](crate::error::Kind::Bug) for a summary of no segment.
    pub fn entry_by(&self, summary: &Summary, later: &dyn Fn(u64) -> Option<Arc<Summary>>) -> Result<Option<Entry>, Error> {
        let joined = self.join(summary, &mut |number, _| Ok(later(number)))?;
        if joined.edge == Edge::Open { Ok(None) } else { self.entry_of(summary, joined).map(Some) }
    }
}
