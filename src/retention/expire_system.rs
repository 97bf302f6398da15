//! Deleting what may go of one system identifier, in the order in which nothing that is there refers to what is gone.
//!
//! Lives here: that order, and what stays because something that stays needs it after all. May not live here: what may
//! go.

use std::collections::BTreeSet;

use super::deleting::{Deleting, Tally};
use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId};
use crate::pg::{SegmentName, WalFileName};
use crate::repo::backups::{BackupReferences, BackupWal};
use crate::repo::catalog::{IndexNode, reach};
use crate::repo::{ClusterName, Facts, ObjectName, ObjectSet, Prefix, Purged, Repository, StoredName};

/// What was deleted by tombstones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// Manifests of base backups.
    pub backups: u64,
    /// Packs.
    pub packs: u64,
    /// WAL files.
    pub wal_files: u64,
    /// Nodes of the catalog.
    pub nodes: u64,
    /// Good copies that stood beside any of these.
    pub copies: u64,
    /// All objects, with what stays.
    pub tally: Tally,
}

impl Expired {
    /// Adds another one.
    pub(super) fn add(&mut self, other: Self) {
        self.backups += other.backups;
        self.packs += other.packs;
        self.wal_files += other.wal_files;
        self.nodes += other.nodes;
        self.copies += other.copies;
        self.tally.add(other.tally);
    }
}

/// Deletes of one system identifier.
pub(super) struct Expiring<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: &'a ClusterName,
    pub(super) facts: Facts,
    /// Backups that stay by the plan: it lets nothing go that they need.
    pub(super) kept: &'a BTreeSet<BackupId>,
    /// Backups of which nobody knows what they need, and which may go.
    pub(super) give_up: &'a BTreeSet<BackupId>,
    pub(super) deleting: Deleting<'a>,
}

impl Expiring<'_> {
    /// Deletes: that backups have begun, and their manifests; then nodes, packs, WAL from the oldest on, and nodes that
    /// came meanwhile.
    ///
    /// # Errors
    /// As the store's, and when the command has to end.
    pub(super) fn delete(&mut self, doomed: ObjectSet) -> Result<Expired, Error> {
        let mut expired = Expired::default();
        self.manifests(&doomed, &mut expired)?;
        if expired.tally.denied > 0 {
            return Ok(expired);
        }
        let needed = self.needed(&doomed, self.kept)?;
        let mut doomed = doomed.difference(&needed);
        self.nodes_first(&mut doomed, &mut expired)?;
        self.packs(&doomed, &mut expired)?;
        self.wal(&doomed, &mut expired)?;
        Ok(expired)
    }

    fn manifests(&mut self, doomed: &ObjectSet, expired: &mut Expired) -> Result<(), Error> {
        let (cluster, system_id) = (self.cluster, self.facts.system_id);
        let begun = doomed.manifests().map(|backup| ObjectName::BegunBackup { cluster: cluster.clone(), system_id, backup });
        let mut stays = BTreeSet::new();
        let tally = self.deleting.all(begun, &mut |name| {
            if let ObjectName::BegunBackup { backup, .. } = name {
                stays.insert(*backup);
            }
        })?;
        // Counted with their manifests.
        let mut tally = Tally { gone: 0, ..tally };
        if tally.denied == 0 {
            let go = doomed.manifests().filter(|backup| !stays.contains(backup));
            let names = go.map(|backup| ObjectName::Manifest { cluster: cluster.clone(), system_id, backup });
            tally.add(self.deleting.all(names, &mut |_| {})?);
        }
        expired.backups += tally.gone;
        expired.tally.add(tally);
        Ok(())
    }

    /// What manifests need that are there but `but`. Those that no rule keeps are held by the store, or no tombstone
    /// names them yet, or they came since the plan was made.
    pub(super) fn needed(&self, doomed: &ObjectSet, but: &BTreeSet<BackupId>) -> Result<ObjectSet, Error> {
        let (repository, cluster, system_id) = (self.repository, self.cluster, self.facts.system_id);
        let mut needed = ObjectSet::new(self.facts.wal_segment_size);
        let stored = repository.backup_ids(cluster, system_id)?;
        for id in stored.into_iter().filter(|id| !but.contains(id)) {
            let head = match repository.read_manifest_head(cluster, system_id, id) {
                Ok(head) => head,
                Err(error) if error.kind == Kind::Damaged && self.may_go_unread(id)? => None,
                Err(error) => return Err(error),
            };
            let Some((summary, head)) = head else { continue };
            let references = BackupReferences::of(&summary, &head);
            references.packs.iter().for_each(|used| needed.insert_pack(used.pack));
            let segments = BackupWal::of(&summary).segments(self.facts.wal_segment_size);
            // A backup of a standby may go over to other timelines: too much stays rather than too little.
            for (timeline, _) in doomed.segments() {
                needed.insert_segments(timeline, *segments.start(), *segments.end());
            }
        }
        Ok(needed)
    }

    /// Whether an operator gave a backup up whose manifest cannot be read: just now, or when a tombstone named it.
    fn may_go_unread(&self, id: BackupId) -> Result<bool, Error> {
        let named = || self.repository.tombstoned(self.cluster, self.facts, &[]);
        Ok(self.give_up.contains(&id) || named()?.names.has_manifest(id))
    }

    /// Removes the nodes over segments that go. A segment of which one stays is not deleted: see the catalog's `gone`.
    fn nodes_first(&mut self, doomed: &mut ObjectSet, expired: &mut Expired) -> Result<(), Error> {
        if doomed.segments().next().is_none() {
            return Ok(());
        }
        let nodes = self.repository.nodes_without(self.cluster, self.facts, doomed)?;
        let left = self.nodes(nodes, expired)?;
        let mut under = ObjectSet::new(self.facts.wal_segment_size);
        for node in left {
            under.insert_segments(node.id.timeline, node.id.first(), reach(node.id));
        }
        let waits = doomed.intersection(&under);
        if expired.tally.denied == 0 {
            expired.tally.held += waits.count();
        }
        *doomed = doomed.difference(&under);
        Ok(())
    }

    /// Deletes nodes; those that stay.
    fn nodes(&mut self, nodes: Vec<IndexNode>, expired: &mut Expired) -> Result<Vec<IndexNode>, Error> {
        let (cluster, facts) = (self.cluster, self.facts);
        let mut left = BTreeSet::new();
        let names = nodes.iter().map(|node| node.name(cluster, facts));
        let tally = self.deleting.all(names, &mut |name| {
            left.insert(name.to_string());
        })?;
        expired.nodes += tally.gone;
        expired.tally.add(tally);
        Ok(nodes.into_iter().filter(|node| left.contains(&node.name(cluster, facts).to_string())).collect())
    }

    fn packs(&mut self, doomed: &ObjectSet, expired: &mut Expired) -> Result<(), Error> {
        if expired.tally.denied > 0 {
            return Ok(());
        }
        let (cluster, system_id) = (self.cluster, self.facts.system_id);
        let packs = doomed.packs().flat_map(|(backup, runs)| {
            let numbers = runs.iter().flat_map(|(first, last)| first..=last).filter_map(|number| u32::try_from(number).ok());
            numbers.map(move |number| PackId { backup, number })
        });
        let names = packs.map(|pack| ObjectName::Pack { cluster: cluster.clone(), system_id, pack });
        let tally = self.deleting.all(names, &mut |_| {})?;
        expired.packs += tally.gone;
        expired.tally.add(tally);
        Ok(())
    }

    /// From the oldest on, so that what is left of a timeline has no hole if this ends early.
    fn wal(&mut self, doomed: &ObjectSet, expired: &mut Expired) -> Result<(), Error> {
        if expired.tally.denied > 0 {
            return Ok(());
        }
        let (cluster, system_id, size) = (self.cluster, self.facts.system_id, self.facts.wal_segment_size);
        let segments = doomed.segments().flat_map(|(timeline, runs)| {
            let numbers = runs.iter().flat_map(|(first, last)| first..=last);
            numbers.filter_map(move |number| SegmentName::from_number(timeline, number, size))
        });
        let segments = segments.map(|name| StoredName::from(WalFileName::Segment(name)));
        let names = segments.chain(doomed.wal_files()).map(|file| ObjectName::wal(cluster, system_id, file));
        let tally = self.deleting.all(names, &mut |_| {})?;
        expired.wal_files += tally.gone;
        expired.tally.add(tally);
        if doomed.segments().next().is_some() {
            let late = self.repository.nodes_over(cluster, self.facts, doomed)?;
            self.nodes(late, expired)?;
        }
        Ok(())
    }
}

/// The objects of a set that are there.
///
/// # Errors
/// As the store's.
pub(super) fn present(repository: &Repository, cluster: &ClusterName, facts: Facts, set: &ObjectSet) -> Result<ObjectSet, Error> {
    let mut there = ObjectSet::new(facts.wal_segment_size);
    if set.manifests().next().is_some() {
        let stored = repository.backup_ids(cluster, facts.system_id)?;
        stored.into_iter().filter(|id| set.has_manifest(*id)).for_each(|id| there.insert_manifest(id));
    }
    if set.packs().next().is_some() {
        repository.visit_packs(cluster, facts.system_id, &mut |pack, _| {
            if set.has_pack(pack) {
                there.insert_pack(pack);
            }
        })?;
    }
    for (timeline, runs) in set.segments() {
        for run in runs.iter() {
            repository.visit_segments(cluster, facts, timeline, run, &mut |number, _| {
                there.insert_segments(timeline, number, number);
            })?;
        }
    }
    for file in set.wal_files() {
        let name = ObjectName::wal(cluster, facts.system_id, file);
        if repository.objects().exists(&name)? {
            there.insert_wal(&file);
        }
    }
    Ok(there)
}

/// Removes the versions that the store keeps of deleted probes: each run makes one, to learn the store's time. One that
/// may not go yet is nothing that anybody waits for.
///
/// # Errors
/// As the store's.
pub(super) fn purge_probes(repository: &Repository, purged: &mut Purged) -> Result<(), Error> {
    let Purged { objects, bytes, .. } = repository.objects().purge_versions(Prefix::Probes, &mut |_| true)?;
    purged.objects += objects;
    purged.bytes += bytes;
    Ok(())
}

/// Removes the versions that the store keeps of what tombstones name and is deleted, and of what only leads there:
/// nodes, tombstones, begun backups. An object that is there is not touched.
///
/// # Errors
/// As the store's.
pub(super) fn purge(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    names: &[&ObjectSet],
    purged: &mut Purged,
) -> Result<(), Error> {
    let system_id = facts.system_id;
    let mut below = |prefix: Prefix<'_>, wants: &dyn Fn(&ObjectName) -> bool| {
        let some = repository.objects().purge_versions(prefix, &mut |name| wants(name))?;
        purged.objects += some.objects;
        purged.bytes += some.bytes;
        purged.held += some.held;
        purged.held_until_unix_s = purged.held_until_unix_s.max(some.held_until_unix_s);
        purged.denied += some.denied;
        if purged.denied_because.is_none() {
            purged.denied_because = some.denied_because;
        }
        Ok::<(), Error>(())
    };
    let named = |name: &ObjectName| {
        names.iter().any(|set| match name {
            ObjectName::Manifest { backup, .. } => set.has_manifest(*backup),
            ObjectName::Pack { pack, .. } => set.has_pack(*pack),
            ObjectName::Wal { file, .. } => set.has_wal(file),
            _ => false,
        })
    };
    below(Prefix::Manifests(cluster, system_id), &named)?;
    below(Prefix::Packs(cluster, system_id), &named)?;
    below(Prefix::Wal(cluster, system_id), &named)?;
    below(Prefix::AllNodes(cluster, system_id), &|_| true)?;
    below(Prefix::Tombstones(cluster, system_id), &|_| true)?;
    below(Prefix::BegunBackups(cluster, system_id), &|_| true)?;
    let is_own = |name: &ObjectName| name.cluster() == Some(cluster) && name.system_id() == Some(system_id);
    let leads_there = |name: &ObjectName| {
        matches!(name, ObjectName::Node { .. } | ObjectName::Tombstone { .. } | ObjectName::BegunBackup { .. })
    };
    below(Prefix::Repairs, &|copy| copy.repaired().is_some_and(|of| is_own(of) && (named(of) || leads_there(of))))
}
