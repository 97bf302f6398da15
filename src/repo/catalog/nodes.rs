//! Nodes of the catalog in the repository: their names, reading and listing them.

use std::ops::ControlFlow;

use super::open::Catalog;
use crate::error::{Error, Kind};
use crate::format::envelope::ObjectKind;
use crate::format::node::{Node, NodeId, span};
use crate::pg::Timeline;
use crate::repo::names;
use crate::store::Key;

impl Catalog<'_> {
    pub(super) fn node_id(&self, timeline: Timeline, level: u32, number: u64) -> NodeId {
        NodeId { timeline, size: self.size(), level, number }
    }

    pub(super) fn node_name(&self, id: NodeId) -> Result<Key, Error> {
        names::node(&self.cluster, self.facts.system_id, id.timeline, id.level, id.first())
    }

    /// A node; `None` when it is not there.
    pub(super) fn read_node(&self, id: NodeId) -> Result<Option<Node>, Error> {
        let name = self.node_name(id)?;
        let hint = "nodes are derived data: 'walvis catalog rebuild --force' deletes them and makes them anew";
        let bytes = self
            .repository
            .read_small(ObjectKind::Node, &name)
            .map_err(|e| if e.kind == Kind::Damaged { e.hint(hint) } else { e })?;
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
        let prefix = names::nodes_prefix(&self.cluster, self.facts.system_id, timeline, level);
        let after = match (low.saturating_mul(span(level))).checked_sub(1) {
            None => String::new(),
            Some(before) => format!("{prefix}{}", names::node_suffix(before)),
        };
        let (mut found, mut whole) = (Vec::new(), true);
        self.repository.store().list(&prefix, &after, &mut |entry| {
            let Some(number) = entry.key.as_str().strip_prefix(&prefix).and_then(|name| number_of(name, level)) else {
                return ControlFlow::Continue(());
            };
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

/// The number of a node from what follows the prefix of its level.
fn number_of(name: &str, level: u32) -> Option<u64> {
    let first = u64::from_str_radix(name.split_once('/')?.1, 16).ok().filter(|first| names::node_suffix(*first) == name)?;
    first.is_multiple_of(span(level)).then(|| first / span(level))
}
