//! The writing of nodes: on the way, after a push, and all that are missing, in a rebuild.
//!
//! A node is a function of the segments under it and of the record that crosses its upper edge, all of which are
//! immutable. So two writers write the same bytes, and the second finds that they are there.

use std::sync::{Arc, Mutex, PoisonError};

use super::open::Catalog;
use super::summaries::Stored as StoredSegment;
use crate::error::{Error, Kind};
use crate::format::changes;
use crate::format::node::{Aggregate, Children, Edge, Entry, FANOUT, MAX_LEVEL, Node, NodeId, span};
use crate::limits::{CATALOG_READERS, LISTED_NAMES, MAX_CHANGES_LEVEL, PUSH_CATALOG_READERS};
use crate::pg::changes::{ChangeSet, Joined};
use crate::pg::scan::Summary;
use crate::pg::{Lsn, SegmentName, Timeline};
use crate::repo::cluster::{ClusterName, Facts};
use crate::repo::content::Content;
use crate::repo::object_name::ObjectName;
use crate::repo::repository::Repository;
use crate::threads::at_once;

/// What a rebuild did with a timeline's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Deleted first.
    pub deleted: u64,
    /// Written.
    pub written: u64,
    /// There before.
    pub kept: u64,
    /// Nodes of changes that were deleted first.
    pub deleted_changes: u64,
    /// Nodes of changes that were written.
    pub written_changes: u64,
    /// Nodes of changes that were there before.
    pub kept_changes: u64,
    /// Segments that had to be fetched and scanned because they are stored without a summary or change set, or with
    /// one of an earlier version.
    pub scanned: u64,
    /// Blocks of 16 segments at the ends of the timeline, or with a hole, that cannot have a node.
    pub incomplete: u64,
}

impl Repository {
    /// Writes the nodes that a segment just stored completes; almost always none. It needs no permission but to read,
    /// list and create.
    ///
    /// # Errors
    /// As the store's; conflict and damaged when a node is not what it must be. The segment itself is not affected.
    pub fn write_nodes_after(&self, cluster: &ClusterName, facts: Facts, segment: SegmentName) -> Result<u64, Error> {
        let Some(number) = segment.number(facts.wal_segment_size).filter(|number| number.is_multiple_of(FANOUT)) else {
            return Ok(0);
        };
        let Some(block) = (number / FANOUT).checked_sub(1) else { return Ok(0) };
        let catalog = Catalog::unlisted(self, cluster, facts);
        // The block before gets a second chance: its writer may have failed, or a segment of it come late.
        let first = block.saturating_sub(1);
        let present = Lowest::of(&catalog, segment.timeline, first, block)?;
        let mut written = 0;
        for number in first..=block {
            let id = catalog.node_id(segment.timeline, 1, number);
            let wanted = present.lacks(number);
            let builder = Builder { catalog: &catalog, readers: PUSH_CATALOG_READERS, scanned: None, wanted };
            let built = builder.build(id)?;
            if let Some(node) = &built.node
                && catalog.put_node(node)?
            {
                written += 1 + catalog.climb(id)?;
            }
            if let Some(set) = &built.changes
                && catalog.put_changes(id, set)?
            {
                catalog.climb_changes(id, PUSH_CATALOG_READERS)?;
            }
        }
        Ok(written)
    }
}

impl Catalog<'_> {
    /// Writes all nodes of a timeline that can be written and are missing; with `force` deletes those that are there
    /// first. Segments that are stored without a summary, or with one of an earlier version, are fetched and scanned
    /// for it. Interrupted, it can be run again and goes on.
    ///
    /// # Errors
    /// As the store's; damaged when a node or segment is; denied when `force` may not delete.
    pub fn rebuild(&self, timeline: Timeline, force: bool) -> Result<Rebuilt, Error> {
        let mut done = Rebuilt::default();
        if force {
            // From the top: a node must never be above one that is being replaced.
            for level in (1..=MAX_LEVEL).rev() {
                for id in self.all_nodes(timeline, level)? {
                    self.delete_first(&self.node_name(id))?;
                    done.deleted += 1;
                }
            }
            for level in (1..=MAX_CHANGES_LEVEL).rev() {
                for id in self.all_changes(timeline, level)? {
                    self.delete_first(&self.changes_name(id))?;
                    done.deleted_changes += 1;
                }
            }
        }
        self.rebuild_lowest(timeline, &mut done)?;
        self.rebuild_changes(timeline, &mut done)?;
        for level in 2..=MAX_LEVEL {
            let below = self.all_nodes(timeline, level - 1)?;
            if below.len() < FANOUT as usize {
                break;
            }
            let present = self.all_nodes(timeline, level)?;
            done.kept += present.len() as u64;
            for family in below.chunk_by(|a, b| a.number / FANOUT == b.number / FANOUT) {
                let Some(first) = family.first().filter(|_| family.len() as u64 == FANOUT) else { continue };
                let id = self.node_id(timeline, level, first.number / FANOUT);
                if present.contains(&id) {
                    continue;
                }
                if let Some(node) = self.of_nodes(id)? {
                    done.written += u64::from(self.put_node(&node)?);
                }
            }
        }
        Ok(done)
    }

    fn delete_first(&self, name: &ObjectName) -> Result<(), Error> {
        self.repository.objects().delete(name).map_err(|e| {
            if e.kind == Kind::Denied {
                e.hint("rebuilding by force deletes nodes of the catalog first: use credentials that may delete, this once")
            } else {
                e
            }
        })
    }

    /// The nodes of changes above the lowest.
    fn rebuild_changes(&self, timeline: Timeline, done: &mut Rebuilt) -> Result<(), Error> {
        for level in 2..=MAX_CHANGES_LEVEL {
            let (below, present) = (self.all_changes(timeline, level - 1)?, self.all_changes(timeline, level)?);
            done.kept_changes += present.len() as u64;
            for family in below.chunk_by(|a, b| a.number / FANOUT == b.number / FANOUT) {
                let Some(first) = family.first().filter(|_| family.len() as u64 == FANOUT) else { continue };
                let id = self.node_id(timeline, level, first.number / FANOUT);
                if !present.contains(&id)
                    && let Some(set) = self.changes_of_nodes(id, CATALOG_READERS)?
                {
                    done.written_changes += u64::from(self.put_changes(id, &set)?);
                }
            }
        }
        Ok(())
    }

    /// All nodes of changes of a level, ascending.
    fn all_changes(&self, timeline: Timeline, level: u32) -> Result<Vec<NodeId>, Error> {
        let numbers = self.changes_in(timeline, level, 0, u64::MAX / span(level), usize::MAX)?.0;
        Ok(numbers.into_iter().map(|number| self.node_id(timeline, level, number)).collect())
    }

    fn rebuild_lowest(&self, timeline: Timeline, done: &mut Rebuilt) -> Result<(), Error> {
        let scanned = Mutex::new(0_u64);
        let mut next = 0;
        loop {
            let (numbers, whole) = self.segments_after(timeline, next_before(next), u64::MAX, LISTED_NAMES)?;
            let (Some(low), Some(high)) = (numbers.first(), numbers.last()) else { break };
            let present = Lowest::of(self, timeline, low / FANOUT, high / FANOUT)?;
            for block in numbers.chunk_by(|a, b| a / FANOUT == b / FANOUT) {
                let Some(number) = block.first().map(|first| first / FANOUT) else { continue };
                if !whole && number == high / FANOUT {
                    // The rest of it comes with the next names.
                    break;
                }
                let wanted = present.lacks(number);
                done.kept += u64::from(!wanted.node);
                done.kept_changes += u64::from(!wanted.changes);
                let (id, is_whole) = (self.node_id(timeline, 1, number), block.len() as u64 == FANOUT);
                let builder = Builder { catalog: self, readers: CATALOG_READERS, scanned: Some(&scanned), wanted };
                let built = if is_whole { builder.build(id)? } else { Built::default() };
                match built.node {
                    Some(node) if self.put_node(&node)? => done.written += 1,
                    _ => done.incomplete += u64::from(wanted.node),
                }
                if let Some(set) = &built.changes {
                    done.written_changes += u64::from(self.put_changes(id, set)?);
                }
            }
            if whole {
                break;
            }
            // A list is longer than a block, so this is progress.
            next = high / FANOUT * FANOUT;
        }
        done.scanned = scanned.into_inner().unwrap_or_default();
        Ok(())
    }

    /// All nodes of a level, ascending: one in 16 of the level below.
    fn all_nodes(&self, timeline: Timeline, level: u32) -> Result<Vec<NodeId>, Error> {
        let numbers = self.nodes_in(timeline, level, 0, u64::MAX / span(level), usize::MAX)?.0;
        Ok(numbers.into_iter().map(|number| self.node_id(timeline, level, number)).collect())
    }

    /// Writes the nodes above one that was just written, as far as their children are all there. The writer of the last
    /// child sees all of them, since a store shows at once what was created.
    fn climb(&self, mut id: NodeId) -> Result<u64, Error> {
        let mut written = 0;
        while id.level < MAX_LEVEL {
            let parent = self.node_id(id.timeline, id.level + 1, id.number / FANOUT);
            let first = parent.number * FANOUT;
            if self.nodes_in(id.timeline, id.level, first, first + FANOUT - 1, LISTED_NAMES)?.0.len() as u64 != FANOUT {
                break;
            }
            let Some(node) = self.of_nodes(parent)? else { break };
            if !self.put_node(&node)? {
                break;
            }
            written += 1;
            id = parent;
        }
        Ok(written)
    }

    /// A node over nodes; `None` when one of them is gone.
    fn of_nodes(&self, id: NodeId) -> Result<Option<Node>, Error> {
        let first = id.number * FANOUT;
        let below: Vec<NodeId> = (first..first + FANOUT).map(|n| self.node_id(id.timeline, id.level - 1, n)).collect();
        let nodes = at_once(&below, CATALOG_READERS, |id| self.read_node(*id))
            .into_iter()
            .collect::<Result<Option<Vec<Node>>, Error>>()?;
        let aggregates = |nodes: Vec<Node>| nodes.iter().map(Node::aggregate).collect::<Vec<Aggregate>>();
        Ok(nodes.map(|nodes| Node { id, children: Children::Nodes(aggregates(nodes)) }))
    }

    /// Stores a node. Says whether it stays: what it is over may have expired meanwhile.
    fn put_node(&self, node: &Node) -> Result<bool, Error> {
        let name = self.node_name(node.id);
        let bytes = node.encode().ok_or_else(|| Error::new(Kind::Bug, format!("{name} cannot be encoded")))?;
        self.repository.put(&name, &Content::of_bytes(&bytes))?;
        self.keep_if_true(node)
    }
}

fn next_before(number: u64) -> Option<u64> {
    number.checked_sub(1)
}

/// The numbers of the nodes of level 1 that are there.
struct Lowest {
    nodes: Vec<u64>,
    changes: Vec<u64>,
}

impl Lowest {
    fn of(catalog: &Catalog<'_>, timeline: Timeline, first: u64, last: u64) -> Result<Self, Error> {
        let nodes = catalog.nodes_in(timeline, 1, first, last, usize::MAX)?.0;
        Ok(Self { nodes, changes: catalog.changes_in(timeline, 1, first, last, usize::MAX)?.0 })
    }

    fn lacks(&self, number: u64) -> Wanted {
        Wanted { node: !self.nodes.contains(&number), changes: !self.changes.contains(&number) }
    }
}

/// Which of the two nodes over 16 segments.
#[derive(Clone, Copy)]
struct Wanted {
    node: bool,
    changes: bool,
}

/// Those that can be made.
#[derive(Default)]
struct Built {
    node: Option<Node>,
    changes: Option<ChangeSet>,
}

/// Makes nodes of segments.
struct Builder<'a, 'r> {
    catalog: &'a Catalog<'r>,
    readers: usize,
    /// Whether segments without a summary are scanned, and how many were.
    scanned: Option<&'a Mutex<u64>>,
    wanted: Wanted,
}

/// A segment's summary, and the bytes of its change set.
type Known = (Arc<Summary>, Option<Vec<u8>>);

impl Builder<'_, '_> {
    /// Nothing unless all segments are there with a summary, and it is known how the last one ends. What they changed
    /// only if that is known of each, and each follows the one before.
    fn build(&self, id: NodeId) -> Result<Built, Error> {
        if !self.wanted.node && !self.wanted.changes {
            return Ok(Built::default());
        }
        let numbers: Vec<u64> = (id.first()..=id.last()).collect();
        let mut known: Vec<Known> = Vec::new();
        for batch in numbers.chunks(self.readers) {
            for segment in at_once(batch, self.readers, |number| self.segment(id.timeline, *number)) {
                match segment? {
                    Some(segment) => known.push(segment),
                    None => return Ok(Built::default()),
                }
            }
        }
        let mut entries: Vec<Entry> = Vec::new();
        for (summary, _) in &known {
            let joined = self.catalog.join(summary, &mut |number, _| {
                let known = number.checked_sub(id.first()).and_then(|at| known.get(usize::try_from(at).ok()?));
                match known {
                    Some((summary, _)) => Ok(Some(Arc::clone(summary))),
                    None => self.summary(id.timeline, number),
                }
            })?;
            if joined.edge == Edge::Open {
                return Ok(Built::default());
            }
            entries.push(self.catalog.entry_of(summary, joined)?);
        }
        let follows = entries.iter().all(|entry| entry.edge == Edge::Follows);
        let changes = if self.wanted.changes && follows { self.changes(id, &known)? } else { None };
        let node = self.wanted.node.then_some(Node { id, children: Children::Segments(entries) });
        Ok(Built { node, changes })
    }

    /// What all of them changed, with the records that cross their edges.
    fn changes(&self, id: NodeId, known: &[Known]) -> Result<Option<ChangeSet>, Error> {
        let mut joined = Joined::new(id.size);
        for (number, (summary, bytes)) in (id.first()..).zip(known) {
            let Some(bytes) = bytes else { return Ok(None) };
            let segment = self.catalog.node_id(id.timeline, 0, number);
            let Some(set) = self.catalog.understand_changes(segment, bytes)? else { return Ok(None) };
            if joined.push(summary, &set).is_err() {
                return Ok(None);
            }
        }
        let mut next = id.last();
        while joined.open_record().is_some() {
            next += 1;
            let Some(summary) = self.summary(id.timeline, next)? else { return Ok(None) };
            if joined.push_follower(&summary).is_err() {
                return Ok(None);
            }
        }
        Ok(joined.finish(Lsn((id.last() + 1) * id.size.bytes())).ok())
    }

    /// A segment with all that is wanted of it, which is scanned for it if that is allowed; `None` when it is not there
    /// or has no summary. Without a change set where that is not known.
    fn segment(&self, timeline: Timeline, number: u64) -> Result<Option<Known>, Error> {
        let Some(name) = SegmentName::from_number(timeline, number, self.catalog.size()) else { return Ok(None) };
        let (stored, bytes) = self.catalog.stored_with_changes(name)?;
        match (stored, self.scanned) {
            (StoredSegment::Missing, _) => Ok(None),
            (StoredSegment::Scanned(summary), _)
                if summary.knows_files && (bytes.is_some() || !self.wanted.changes || self.scanned.is_none()) =>
            {
                Ok(Some((summary, bytes)))
            }
            (StoredSegment::Unscanned | StoredSegment::Scanned(_), None) => Ok(None),
            (stored @ (StoredSegment::Unscanned | StoredSegment::Scanned(_)), Some(scanned)) => {
                let (summary, set) = match (self.catalog.scan_with_changes(name), stored) {
                    (Ok(found), _) => found,
                    // The catalog needs no more than what is known of it already.
                    (Err(e), StoredSegment::Scanned(summary)) if e.kind == Kind::Damaged && summary.knows_files => {
                        return Ok(Some((summary, None)));
                    }
                    (Err(e), _) => return Err(e),
                };
                *scanned.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                let bytes = changes::encode(self.catalog.node_id(timeline, 0, number), &set);
                Ok(Some((Arc::new(Summary { xacts: None, ..summary }), Some(bytes))))
            }
        }
    }

    fn summary(&self, timeline: Timeline, number: u64) -> Result<Option<Arc<Summary>>, Error> {
        let Some(name) = SegmentName::from_number(timeline, number, self.catalog.size()) else { return Ok(None) };
        match (self.catalog.stored(name)?, self.scanned) {
            (StoredSegment::Scanned(summary), _) if summary.knows_files => Ok(Some(summary)),
            // A summary of an earlier version does not say all that a node has: it counts as none.
            (StoredSegment::Unscanned | StoredSegment::Scanned(_), Some(scanned)) => {
                let summary = self.catalog.scan(name)?;
                *scanned.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                Ok(Some(Arc::new(Summary { xacts: None, ..summary })))
            }
            (StoredSegment::Unscanned | StoredSegment::Scanned(_), None) | (StoredSegment::Missing, _) => Ok(None),
        }
    }
}
