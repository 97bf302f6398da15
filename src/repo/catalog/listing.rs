//! What is stored, by number: segments and nodes as they are listed, once as far as the catalog remembers them.

use std::sync::Arc;

use super::open::Catalog;
use crate::error::Error;
use crate::format::node::{Node, NodeId};
use crate::pg::{SegmentName, Timeline, WalFileName};
use crate::repo::object_name::ObjectName;
use crate::repo::prefix::Prefix;

impl Catalog<'_> {
    /// As [`read_node`](Self::read_node), read once. Only what is there is remembered.
    pub(super) fn known_node(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        if let Some(node) = self.nodes.get(&id) {
            return Ok(Some(node));
        }
        let Some(node) = self.read_node(id)?.map(Arc::new) else { return Ok(None) };
        self.nodes.insert(id, Arc::clone(&node), 1);
        Ok(Some(node))
    }

    /// The numbers of the stored nodes of a level, at level 0 of the segments, from `low` to `high`, at most `limit`;
    /// and whether these are all for sure. Listed once, as far as there is room to remember it.
    pub(super) fn known_names(
        &self,
        timeline: Timeline,
        level: u32,
        low: u64,
        high: u64,
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Error> {
        let (mut numbers, next) = match self.names.known((timeline, level), low, high, limit) {
            Some((numbers, until)) if until >= high || numbers.len() >= limit => return Ok((numbers, until >= high)),
            Some((numbers, until)) => (numbers, until + 1),
            None => (Vec::new(), low),
        };
        let room = limit - numbers.len();
        let (listed, whole) = match level {
            0 => self.segments_after(timeline, next.checked_sub(1), high, room)?,
            _ => self.nodes_in(timeline, level, next, high, room)?,
        };
        numbers.extend_from_slice(&listed);
        let until = if whole { Some(high) } else { listed.last().copied() };
        if let Some(high) = until.filter(|until| *until >= next) {
            self.names.learn((timeline, level), next, high, &listed);
        }
        Ok((numbers, whole))
    }

    /// The numbers of the stored segments after `after` up to `until`, at most `limit`; and whether these are all.
    pub(super) fn segments_after(
        &self,
        timeline: Timeline,
        after: Option<u64>,
        until: u64,
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Error> {
        let (cluster, system_id, size) = (&self.cluster, self.facts.system_id, self.size());
        let after = match after {
            None => String::new(),
            Some(number) => match SegmentName::from_number(timeline, number, size) {
                // What belongs to the segment, like its .partial, sorts directly after it and is passed over below.
                Some(name) => ObjectName::wal(cluster, system_id, WalFileName::Segment(name)).to_string(),
                None => return Ok((Vec::new(), true)),
            },
        };
        self.numbers(Prefix::Timeline(cluster, system_id, timeline), &after, until, limit, |name| match name.wal_file() {
            Some(WalFileName::Segment(name)) => name.number(size),
            _ => None,
        })
    }
}
