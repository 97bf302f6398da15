//! Nodes of changes in the repository: what 16, 256 or 4096 consecutive segments changed together.
//!
//! Like the nodes of the catalog they are derived data, functions of the segments under them and of the record that
//! crosses the upper edge. One is written only where each of its segments, the one after the last included, follows the
//! one before; so a node that is there proves that.

use super::gone::IndexNode;
use super::open::Catalog;
use crate::error::{Error, Kind};
use crate::format::changes::{self, ChangesError};
use crate::format::node::{FANOUT, NodeId};
use crate::limits::{LISTED_NAMES, MAX_CHANGES_BYTES, MAX_CHANGES_LEVEL, MAX_CHANGES_MEMORY_BYTES};
use crate::pg::SegmentName;
use crate::pg::changes::{ChangeSet, Extents};
use crate::repo::content::Content;
use crate::repo::object_name::ObjectName;
use crate::threads::at_once;

impl Catalog<'_> {
    pub(super) fn changes_name(&self, id: NodeId) -> ObjectName {
        IndexNode { id, is_changes: true }.name(&self.cluster, self.facts)
    }

    /// The bytes of a node of changes; `None` when it is not there.
    pub(super) fn read_changes(&self, id: NodeId) -> Result<Option<Vec<u8>>, Error> {
        let (name, mut bytes) = (self.changes_name(id), Vec::new());
        let read = self.repository.opener().get_at_most(&name, MAX_CHANGES_BYTES as u64, &mut bytes);
        Ok(read.map_err(hinted)?.map(|_| bytes))
    }

    /// What such bytes say, or those of a segment, which is level 0; `None` where a later version wrote them.
    pub(super) fn understand_changes(&self, id: NodeId, bytes: &[u8]) -> Result<Option<ChangeSet>, Error> {
        let damaged = |why: String| match SegmentName::from_number(id.timeline, id.number, id.size).filter(|_| id.level == 0) {
            Some(segment) => self.damaged(segment, &format!("its change set: {why}")),
            None => {
                let (name, location) = (self.changes_name(id), self.repository.location());
                hinted(Error::new(Kind::Damaged, format!("{name} in {location}: {why}")))
            }
        };
        match changes::decode(bytes) {
            Ok((of, set)) if of == id => Ok(Some(set)),
            Ok(_) => Err(damaged("it is of other segments".to_owned())),
            Err(ChangesError::Version(_)) => Ok(None),
            Err(e) => Err(damaged(e.to_string())),
        }
    }

    /// Stores what the segments under a node changed. Says whether it stays: they may have expired meanwhile.
    pub(super) fn put_changes(&self, id: NodeId, set: &ChangeSet) -> Result<bool, Error> {
        let bytes = changes::encode(id, set);
        self.repository.put(&self.changes_name(id), &Content::of_bytes(&bytes))?;
        self.keep_changes_if_true(id)
    }

    /// Writes the nodes of changes above one that was just written, as far as their children are all there.
    pub(super) fn climb_changes(&self, mut id: NodeId, readers: usize) -> Result<u64, Error> {
        let mut written = 0;
        while id.level < MAX_CHANGES_LEVEL {
            let parent = self.node_id(id.timeline, id.level + 1, id.number / FANOUT);
            let first = parent.number * FANOUT;
            if self.changes_in(id.timeline, id.level, first, first + FANOUT - 1, LISTED_NAMES)?.0.len() as u64 != FANOUT {
                break;
            }
            let Some(set) = self.changes_of_nodes(parent, readers)? else { break };
            if !self.put_changes(parent, &set)? {
                break;
            }
            written += 1;
            id = parent;
        }
        Ok(written)
    }

    /// What all children of a node changed; `None` when one of them is gone.
    pub(super) fn changes_of_nodes(&self, id: NodeId, readers: usize) -> Result<Option<ChangeSet>, Error> {
        let first = id.number * FANOUT;
        let below: Vec<NodeId> = (first..first + FANOUT).map(|n| self.node_id(id.timeline, id.level - 1, n)).collect();
        let mut union = ChangeSet::new();
        let all = self.add_changes(&below, readers, &mut union)?;
        Ok(all.into_iter().all(|is_there| is_there).then_some(union))
    }

    /// Reads nodes of changes, so many at once, and adds them to others. Of each it says whether it was added: `false`
    /// when it is not there, or is of a later version.
    ///
    /// They are decoded one after the other, and all by this thread: of the memory that takes, which is many times what
    /// is read, an allocator keeps a share for each thread that ever had it.
    pub(super) fn add_changes(&self, ids: &[NodeId], readers: usize, to: &mut ChangeSet) -> Result<Vec<bool>, Error> {
        let read = at_once(ids, readers, |id| self.read_changes(*id));
        let add = |(id, read): (&NodeId, Result<Option<Vec<u8>>, Error>)| {
            let Some(bytes) = read? else { return Ok(false) };
            let Some(set) = self.understand_changes(*id, &bytes)? else { return Ok(false) };
            to.union(&set);
            to.shrink(MAX_CHANGES_MEMORY_BYTES, id.first(), Extents::memory_bytes);
            Ok(true)
        };
        ids.iter().zip(read).map(add).collect()
    }
}

fn hinted(error: Error) -> Error {
    match error.kind {
        Kind::Damaged => error.hint("it is derived data: 'walvis catalog rebuild --force' deletes it and makes it anew"),
        _ => error,
    }
}
