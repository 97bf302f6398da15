//! Nodes of the catalog in the repository: their names, reading and listing them.

use std::ops::ControlFlow;

use super::open::Catalog;
use crate::error::{Error, Kind};
use crate::format::node::{Node, NodeId, span};
use crate::pg::Timeline;
use crate::repo::object_name::ObjectName;
use crate::repo::prefix::Prefix;

impl Catalog<'_> {
    pub(super) fn node_id(&self, timeline: Timeline, level: u32, number: u64) -> NodeId {
        NodeId { timeline, size: self.size(), level, number }
    }

    pub(super) fn node_name(&self, id: NodeId) -> ObjectName {
        ObjectName::Node {
            cluster: self.cluster.clone(),
            system_id: self.facts.system_id,
            timeline: id.timeline,
            level: id.level,
            first_segment: id.first(),
        }
    }

    /// A node; `None` when it is not there.
    pub(super) fn read_node(&self, id: NodeId) -> Result<Option<Node>, Error> {
        let name = self.node_name(id);
        let hint = "nodes are derived data: 'walvis catalog rebuild --force' deletes them and makes them anew";
        let bytes =
            self.repository.opener().read_small(&name).map_err(|e| if e.kind == Kind::Damaged { e.hint(hint) } else { e })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged =
            |why: String| Error::new(Kind::Damaged, format!("{name} in {}: {why}", self.repository.location())).hint(hint);
        let node = Node::decode(&bytes).map_err(|e| damaged(e.to_string()))?;
        if node.id == id { Ok(Some(node)) } else { Err(damaged("it is another node".to_owned())) }
    }

    /// The numbers of the stored nodes of a level from `low` to `high`, at most `limit`; and whether these are all.
    pub(super) fn nodes_in(
        &self,
        timeline: Timeline,
        level: u32,
        low: u64,
        high: u64,
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Error> {
        self.index_in(false, (timeline, level), (low, high), limit)
    }

    /// As [`nodes_in`](Self::nodes_in), of the nodes of changes.
    pub(super) fn changes_in(
        &self,
        timeline: Timeline,
        level: u32,
        low: u64,
        high: u64,
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Error> {
        self.index_in(true, (timeline, level), (low, high), limit)
    }

    fn index_in(
        &self,
        is_changes: bool,
        (timeline, level): (Timeline, u32),
        (low, high): (u64, u64),
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Error> {
        let (cluster, system_id) = (self.cluster.clone(), self.facts.system_id);
        let prefix = match is_changes {
            true => Prefix::Changes(&self.cluster, system_id, timeline, level),
            false => Prefix::Nodes(&self.cluster, system_id, timeline, level),
        };
        let name = |first_segment| match is_changes {
            true => ObjectName::Changes { cluster, system_id, timeline, level, first_segment },
            false => ObjectName::Node { cluster, system_id, timeline, level, first_segment },
        };
        let before = low.saturating_mul(span(level)).checked_sub(1);
        let after = before.map_or_else(String::new, |before| name(before).to_string());
        self.numbers(prefix, &after, high, limit, |name| match name {
            ObjectName::Node { first_segment, .. } | ObjectName::Changes { first_segment, .. } => {
                Some(first_segment / span(level))
            }
            _ => None,
        })
    }

    /// The numbers that names with a prefix stand for, of those that sort after `after`, up to `high`, at most `limit`;
    /// and whether these are all. Their order is that of the names; a name without a number is passed over.
    pub(super) fn numbers(
        &self,
        prefix: Prefix<'_>,
        after: &str,
        high: u64,
        limit: usize,
        number_of: impl Fn(&ObjectName) -> Option<u64>,
    ) -> Result<(Vec<u64>, bool), Error> {
        let (mut found, mut whole) = (Vec::new(), true);
        self.repository.objects().list(prefix, after, &mut |object| {
            let Some(number) = number_of(&object.name) else { return ControlFlow::Continue(()) };
            if number > high {
                return ControlFlow::Break(());
            }
            if found.len() >= limit {
                whole = false;
                return ControlFlow::Break(());
            }
            found.push(number);
            ControlFlow::Continue(())
        })?;
        Ok((found, whole))
    }
}
