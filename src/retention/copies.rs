//! Good copies that stand beside damaged objects (`repairs/…`): those of objects that go, go after them.
//!
//! Whoever replaces a damaged object deletes it, and has nothing but the copy until it has created it anew. So that an
//! object is gone is no reason for its copy to go: it has to be let go as well, by the tombstone and by the plan, and
//! nothing that is there may need it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::expire_system::{Expired, Expiring};
use super::needed::KeptWal;
use crate::error::Error;
use crate::format::node::{NodeId, span};
use crate::repo::catalog::reach;
use crate::repo::{ClusterName, Facts, ObjectName, ObjectSet, RawObjects};

impl Expiring<'_> {
    /// Deletes the copies of what `named` names and is gone. `left` is told of objects of which one stays.
    ///
    /// # Errors
    /// As the store's, and when the command has to end.
    pub(super) fn copies(
        &mut self,
        named: &ObjectSet,
        kept_wal: &KeptWal,
        expired: &mut Expired,
        left: &mut BTreeSet<String>,
    ) -> Result<(), Error> {
        let (repository, facts) = (self.repository, self.facts);
        let mut copies = copies_of(repository.objects(), &|of| is_of(of, self.cluster, facts, named))?;
        if copies.is_empty() {
            return Ok(());
        }
        let mut gone = ObjectSet::new(facts.wal_segment_size);
        let mut there = BTreeSet::new();
        for (of, _) in &copies {
            if repository.objects().exists(of)? {
                there.insert(of.to_string());
                continue;
            }
            match of {
                ObjectName::Pack { pack, .. } => gone.insert_pack(*pack),
                ObjectName::Wal { file, .. } => gone.insert_wal(file),
                _ => {}
            }
        }
        let needed = self.needed(&gone, &BTreeSet::new())?;
        let wal = kept_wal.rest_of(&gone).difference(&needed);
        copies.retain(|(of, _)| {
            let goes = !there.contains(&of.to_string())
                && match of {
                    ObjectName::Pack { pack, .. } => !needed.has_pack(*pack),
                    ObjectName::Wal { file, .. } => wal.has_wal(file),
                    _ => true,
                };
            if !goes {
                left.insert(of.to_string());
            }
            goes
        });
        let names = copies.into_iter().map(|(_, copy)| copy);
        let tally = self.deleting.all(names, &mut |copy| {
            left.extend(copy.repaired().map(ToString::to_string));
        })?;
        expired.copies += tally.gone;
        expired.tally.add(tally);
        Ok(())
    }
}

/// Removes copies of what nothing needs once it is gone, whatever it was that removed it: parts of tombstones, and
/// evidence. Repair never takes these away for a moment.
pub(super) fn ownerless(objects: &RawObjects) -> Result<Vec<ObjectName>, Error> {
    let copies = copies_of(objects, &|of| matches!(of, ObjectName::Tombstone { .. } | ObjectName::Evidence { .. }))?;
    let mut found = Vec::new();
    for (of, copy) in copies {
        if !objects.exists(&of)? {
            found.push(copy);
        }
    }
    Ok(found)
}

/// Whether an object is one of those that a set names, or leads to one that goes with it: that a backup has begun,
/// nodes over segments.
pub(super) fn is_of(name: &ObjectName, cluster: &ClusterName, facts: Facts, set: &ObjectSet) -> bool {
    let is_own = name.cluster() == Some(cluster) && name.system_id() == Some(facts.system_id);
    is_own
        && match name {
            ObjectName::Manifest { backup, .. } | ObjectName::BegunBackup { backup, .. } => set.has_manifest(*backup),
            ObjectName::Pack { pack, .. } => set.has_pack(*pack),
            ObjectName::Wal { file, .. } => set.has_wal(file),
            ObjectName::Node { timeline, level, first_segment, .. } => {
                let (size, number) = (facts.wal_segment_size, first_segment / span(*level));
                let node = NodeId { timeline: *timeline, size, level: *level, number };
                set.has_segment_within(*timeline, node.first(), reach(node))
            }
            _ => false,
        }
}

/// Copies with the objects that they stand beside. Of each object the highest number first: readers look for them from
/// 1 on.
fn copies_of(objects: &RawObjects, wants: &dyn Fn(&ObjectName) -> bool) -> Result<Vec<(ObjectName, ObjectName)>, Error> {
    let mut found = Vec::new();
    objects.visit_repairs(&mut |of, copy| {
        if wants(of) {
            found.push((of.clone(), copy.name));
        }
        ControlFlow::Continue(())
    })?;
    let number = |copy: &ObjectName| if let ObjectName::Repair { number, .. } = copy { *number } else { 0 };
    found.sort_by_cached_key(|(of, copy)| (of.to_string(), std::cmp::Reverse(number(copy))));
    Ok(found)
}
