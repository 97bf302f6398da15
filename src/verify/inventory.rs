//! What a repository holds of a cluster, as listings tell it: WAL and packs as several at once.
//!
//! Lives here: counting and sorting names. May not live here: what is wrong with them. Memory: segments as runs, 16
//! bytes for each pack, a few for each backup.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::listing::Listing;
use super::rolling::{Ages, Tally};
use crate::error::Error;
use crate::format::extent::BackupId;
use crate::limits::MAX_LESSER_FINDINGS_KEPT;
use crate::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use crate::repo::{ClusterName, Facts, ForeignObject, ListedObject, ObjectName, Prefix, Repository, Runs, StoredName, SystemId};

/// A pack in a listing: its number, and its stored bytes.
pub(super) type ListedPack = (u32, u64);

/// What is stored of one system identifier.
#[derive(Debug)]
pub(super) struct SystemInventory {
    /// The size of its segments.
    pub(super) size: WalSegmentSize,
    /// The segments of each timeline, by number.
    pub(super) segments: BTreeMap<Timeline, Runs>,
    /// When the newest segment of each timeline was stored, in Unix seconds, where the store tells.
    pub(super) newest_unix_s: BTreeMap<Timeline, i64>,
    /// Timelines whose history is stored.
    pub(super) histories: BTreeSet<Timeline>,
    /// Segments whose stored size is impossible, or whose name is with segments of this size.
    pub(super) odd_segments: Vec<(SegmentName, u64)>,
    /// The packs of each backup, in order.
    pub(super) packs: BTreeMap<BackupId, Vec<ListedPack>>,
    /// Manifests, or what is stored in their places.
    pub(super) manifests: BTreeSet<BackupId>,
    /// Backups that have begun.
    pub(super) begun: BTreeSet<BackupId>,
    /// Backups that have pins, whatever these say.
    pub(super) pinned: BTreeSet<BackupId>,
    /// How many objects.
    pub(super) objects: u64,
    /// Their stored bytes.
    pub(super) bytes: u64,
}

impl SystemInventory {
    fn new(size: WalSegmentSize) -> Self {
        Self {
            size,
            segments: BTreeMap::new(),
            newest_unix_s: BTreeMap::new(),
            histories: BTreeSet::new(),
            odd_segments: Vec::new(),
            packs: BTreeMap::new(),
            manifests: BTreeSet::new(),
            begun: BTreeSet::new(),
            pinned: BTreeSet::new(),
            objects: 0,
            bytes: 0,
        }
    }

    /// How many segments there are.
    pub(super) fn segment_count(&self) -> u64 {
        self.segments.values().map(Runs::count).sum()
    }

    fn extend(&mut self, part: Self) {
        for (timeline, runs) in part.segments {
            let known = self.segments.entry(timeline).or_default();
            runs.iter().for_each(|(first, last)| known.insert_run(first, last));
        }
        for (timeline, at) in part.newest_unix_s {
            let newest = self.newest_unix_s.entry(timeline).or_insert(at);
            *newest = at.max(*newest);
        }
        self.histories.extend(part.histories);
        self.odd_segments.extend(part.odd_segments);
        self.odd_segments.truncate(MAX_LESSER_FINDINGS_KEPT);
        for (backup, packs) in part.packs {
            self.packs.entry(backup).or_default().extend(packs);
        }
        self.manifests.extend(part.manifests);
        self.begun.extend(part.begun);
        self.pinned.extend(part.pinned);
        self.objects += part.objects;
        self.bytes = self.bytes.saturating_add(part.bytes);
    }

    fn add_segment(&mut self, name: SegmentName, bytes: u64, plausible: (u64, u64)) {
        let number = name.number(self.size);
        let is_odd = number.is_none() || bytes < plausible.0 || bytes > plausible.1;
        if is_odd && self.odd_segments.len() < MAX_LESSER_FINDINGS_KEPT {
            self.odd_segments.push((name, bytes));
        }
        if let Some(number) = number {
            self.segments.entry(name.timeline).or_default().insert(number);
        }
    }
}

/// What is stored of a cluster, and around it.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// By system identifier.
    pub(super) systems: BTreeMap<SystemId, SystemInventory>,
    /// The numbers of its bindings.
    pub(super) bindings: Vec<u32>,
    /// What is no object of a repository: the first of them.
    pub(super) foreign: Vec<ForeignObject>,
    /// How many of these there are.
    pub(super) foreign_total: u64,
    /// Objects of the repository as a whole: its descriptor, keys, claims, probes, repairs.
    pub(super) other_objects: u64,
    /// How many objects of the cluster there are.
    pub(super) objects: u64,
    /// Their stored bytes.
    pub(super) bytes: u64,
    /// How old what is stored is, for a rolling verification.
    pub(super) tallies: BTreeMap<SystemId, Tally>,
}

impl Inventory {
    /// Lists the cluster, and what belongs to no cluster. `facts` has the size of segments of the system identifiers
    /// that are known; of others nothing but names is looked at, with the size of the newest. Of the system identifiers
    /// of `ages` it is counted how old what is stored is.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn of(
        repository: &Repository,
        cluster: &ClusterName,
        facts: &[Facts],
        ages: &BTreeMap<SystemId, Ages<'_>>,
        go_on: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut inventory = Self::default();
        let fallback = facts.first().map(|facts| facts.wal_segment_size).or(WalSegmentSize::new(DEFAULT_SEGMENT));
        let size_of = |system_id: SystemId| {
            let known = facts.iter().find(|facts| facts.system_id == system_id).map(|facts| facts.wal_segment_size);
            known.or(fallback)
        };
        let add = |inventory: &mut Self, listed: Result<ListedObject, ForeignObject>| match listed {
            Ok(object) => inventory.add(object, &size_of, ages),
            Err(foreign) => inventory.add_foreign(foreign),
        };
        // Manifests before what they refer to: what a backup has that ends meanwhile was stored before its manifest.
        let contents =
            facts.iter().flat_map(|facts| [Prefix::Wal(cluster, facts.system_id), Prefix::Packs(cluster, facts.system_id)]);
        let contents: Vec<(String, String)> = contents.map(|prefix| (prefix.to_string(), prefix.end())).collect();
        let mut from = Some(String::new());
        while let Some(after) = from.take() {
            let mut outcome = Ok(());
            repository.objects().list_all(Some(Prefix::Cluster(cluster)), &after, &mut |listed| {
                let name = match &listed {
                    Ok(object) => object.name.to_string(),
                    Err(foreign) => foreign.name.clone(),
                };
                if let Some((_, end)) = contents.iter().find(|(prefix, _)| name.starts_with(prefix)) {
                    from = Some(end.clone());
                    return ControlFlow::Break(());
                }
                add(&mut inventory, listed);
                outcome = go_on(inventory.objects);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome?;
        }
        for facts in facts {
            go_on(inventory.objects)?;
            let listing = Listing::new(repository, cluster, *facts)?;
            listing.visit_content(&add)?.into_iter().for_each(|part| inventory.extend(part));
        }
        inventory.list_outside(repository)?;
        Ok(inventory)
    }

    /// Adds what another part of the listing has; parts come in the order of names.
    fn extend(&mut self, part: Self) {
        for (system_id, system) in part.systems {
            match self.systems.entry(system_id) {
                Entry::Vacant(free) => drop(free.insert(system)),
                Entry::Occupied(mut known) => known.get_mut().extend(system),
            }
        }
        for (system_id, tally) in part.tallies {
            let known = self.tallies.remove(&system_id).unwrap_or_default();
            self.tallies.insert(system_id, known.and(tally));
        }
        self.bindings.extend(part.bindings);
        self.foreign_total += part.foreign_total;
        self.foreign.extend(part.foreign);
        self.foreign.truncate(MAX_LESSER_FINDINGS_KEPT);
        self.objects += part.objects;
        self.bytes = self.bytes.saturating_add(part.bytes);
    }

    /// What is before and after the clusters in the order of names.
    fn list_outside(&mut self, repository: &Repository) -> Result<(), Error> {
        let clusters = Prefix::Clusters.to_string();
        for after in [String::new(), Prefix::Clusters.end()] {
            repository.objects().list_all(None, &after, &mut |listed| match listed {
                Ok(object) if object.name.to_string().starts_with(&clusters) => ControlFlow::Break(()),
                Err(foreign) if foreign.name.starts_with(&clusters) => ControlFlow::Break(()),
                Ok(_) => {
                    self.other_objects += 1;
                    ControlFlow::Continue(())
                }
                Err(foreign) => {
                    self.add_foreign(foreign);
                    ControlFlow::Continue(())
                }
            })?;
        }
        Ok(())
    }

    fn add_foreign(&mut self, foreign: ForeignObject) {
        self.foreign_total += 1;
        if self.foreign.len() < MAX_LESSER_FINDINGS_KEPT {
            self.foreign.push(foreign);
        }
    }

    fn add(
        &mut self,
        object: ListedObject,
        size_of: &dyn Fn(SystemId) -> Option<WalSegmentSize>,
        ages: &BTreeMap<SystemId, Ages<'_>>,
    ) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(object.size_bytes);
        if let ObjectName::Binding { generation, .. } = &object.name {
            return self.bindings.push(*generation);
        }
        let Some(system_id) = object.name.system_id() else { return };
        if let Some(ages) = ages.get(&system_id) {
            ages.tally(self.tallies.entry(system_id).or_default(), &object);
        }
        let Some(size) = size_of(system_id) else { return };
        let system = self.systems.entry(system_id).or_insert_with(|| SystemInventory::new(size));
        system.objects += 1;
        system.bytes = system.bytes.saturating_add(object.size_bytes);
        match object.name {
            ObjectName::Wal { file: StoredName { file: WalFileName::Segment(name), .. }, .. } => {
                system.add_segment(name, object.size_bytes, plausible(system.size));
                if let Some(at) = object.modified_unix_s {
                    let newest = system.newest_unix_s.entry(name.timeline).or_insert(at);
                    *newest = at.max(*newest);
                }
            }
            ObjectName::Wal { file: StoredName { file: WalFileName::History(timeline), .. }, .. } => {
                system.histories.insert(timeline);
            }
            ObjectName::Pack { pack, .. } => {
                system.packs.entry(pack.backup).or_default().push((pack.number, object.size_bytes));
            }
            ObjectName::Manifest { backup, .. } => drop(system.manifests.insert(backup)),
            ObjectName::BegunBackup { backup, .. } => drop(system.begun.insert(backup)),
            ObjectName::Pin { backup, .. } => drop(system.pinned.insert(backup)),
            _ => {}
        }
    }
}

/// The size of segments where nothing is known: PostgreSQL's default.
const DEFAULT_SEGMENT: u64 = 16 << 20;

/// The least and the most stored bytes of a segment: header, metadata and one frame; all of it without compression.
fn plausible(size: WalSegmentSize) -> (u64, u64) {
    use crate::format::envelope::{HEADER_BYTES, SEALED_FRAME_BYTES};
    use crate::limits::{FRAME_BYTES, MAX_METADATA_BYTES, TAG_BYTES};
    let frames = size.bytes().div_ceil(FRAME_BYTES as u64) + 2;
    let least = (HEADER_BYTES + 2 * TAG_BYTES) as u64;
    (least, frames * SEALED_FRAME_BYTES as u64 + (HEADER_BYTES + MAX_METADATA_BYTES + TAG_BYTES) as u64)
}
