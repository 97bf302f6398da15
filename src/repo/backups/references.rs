//! What the backups of a cluster refer to: packs, WAL, and the backup that each was compared with.
//!
//! Lives here: reading that of one manifest or of all, and the questions about it that whatever deletes, verifies or
//! copies asks: who needs this pack, which packs does nobody need, which are missing. May not live here: what is done
//! about the answers. May depend on the rest of `repo` and on what is below it.
//!
//! Memory: the head of one manifest at a time, about 50 bytes for each pack, and 32 bytes for each set of backups:
//! packs that the same backups refer to share one. In a chain of backups each has packs of its own, and refers to those
//! of the earlier ones that are still in use, so the number of sets grows with the square of the length: 64 MB for
//! 2,000.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use crate::error::Error;
use crate::format::extent::{BackupId, PackId};
use crate::format::manifest::{BackupSummary, ManifestHead, PackUse};
use crate::pg::{Lsn, Timeline, WalSegmentSize};
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::repository::Repository;

/// The WAL without which a backup cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupWal {
    /// The timeline of the start. A backup of a standby may stop on a later one, that branched off it meanwhile.
    pub timeline: Timeline,
    /// Where replay begins.
    pub start: Lsn,
    /// Where a restored cluster is consistent.
    pub stop: Lsn,
}

impl BackupWal {
    /// That of a backup.
    pub fn of(summary: &BackupSummary) -> Self {
        Self { timeline: Timeline(summary.timeline), start: summary.start_lsn, stop: summary.stop_lsn }
    }

    /// The numbers of its segments, from the first one to the last.
    pub fn segments(&self, size: WalSegmentSize) -> RangeInclusive<u64> {
        let bytes = size.bytes();
        // A position at the very beginning of a segment needs nothing of it.
        self.start.0 / bytes..=self.stop.0.saturating_sub(1).max(self.start.0) / bytes
    }
}

/// What one backup refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReferences {
    /// The backup.
    pub id: BackupId,
    /// The backup that it was compared with; it needs nothing of it but the packs that it refers to itself.
    pub parent: Option<BackupId>,
    /// Its WAL.
    pub wal: BackupWal,
    /// Its packs.
    pub packs: Vec<PackUse>,
}

impl BackupReferences {
    /// Those of a manifest.
    pub fn of(summary: &BackupSummary, head: &ManifestHead) -> Self {
        Self { id: summary.id, parent: summary.parent, wal: BackupWal::of(summary), packs: head.packs.clone() }
    }

    /// Packs with so little of it in use that a new backup stores that anew rather than refer to them.
    pub fn mostly_dead(&self) -> impl Iterator<Item = PackId> {
        self.packs.iter().filter(|used| used.is_mostly_dead()).map(|used| used.pack)
    }
}

impl Repository {
    /// Reads what each backup of a cluster refers to, oldest first. One that expired since it was listed is left out.
    ///
    /// # Errors
    /// As `visit`'s; damaged, denied, unreachable: where one manifest cannot be read, nobody knows what it needs.
    pub fn visit_references(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        visit: &mut dyn FnMut(BackupReferences) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for id in self.backup_ids(cluster, system_id)? {
            let read = self.read_manifest_head(cluster, system_id, id)?;
            if let Some((summary, head)) = read {
                visit(BackupReferences::of(&summary, &head))?;
            }
        }
        Ok(())
    }

    /// Which packs the backups of a cluster refer to.
    ///
    /// # Errors
    /// As [`visit_references`](Self::visit_references).
    pub fn pack_users(&self, cluster: &ClusterName, system_id: SystemId) -> Result<PackUsers, Error> {
        let mut users = PackUsers::default();
        self.visit_references(cluster, system_id, &mut |references| {
            users.add(&references);
            Ok(())
        })?;
        Ok(users)
    }

    /// Lists the packs of a cluster, and gives `unused` those that no backup refers to, with the lengths of their
    /// objects. Says which ones a backup refers to that are gone, or too short for their records.
    ///
    /// "Unused" is no leave to delete: the packs of a backup that is being taken have no manifest yet, and one that
    /// ended after its `users` were read is not among them. Whoever deletes waits longer than any backup takes, and
    /// reads the manifests again.
    ///
    /// # Errors
    /// As the store's.
    pub fn compare_packs(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        users: &PackUsers,
        unused: &mut dyn FnMut(PackId, u64),
    ) -> Result<BTreeSet<PackId>, Error> {
        let mut missing: BTreeSet<PackId> = users.packs.keys().copied().collect();
        self.visit_packs(cluster, system_id, &mut |pack, bytes| match users.check(pack, bytes) {
            PackState::Unused => unused(pack, bytes),
            PackState::Whole => drop(missing.remove(&pack)),
            PackState::TooShort => {}
        })?;
        Ok(missing)
    }
}

/// What a pack of the listing is to the backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackState {
    Unused,
    Whole,
    TooShort,
}

/// Which packs are referred to by which backups.
#[derive(Debug, Default)]
pub struct PackUsers {
    packs: HashMap<PackId, UsedPack>,
    sets: Vec<BackupSet>,
}

#[derive(Debug, Clone, Copy)]
struct UsedPack {
    total_bytes: u64,
    /// The backups that refer to it, by its place in the list of sets.
    users: usize,
}

/// Some backups: one, and those of another set.
#[derive(Debug, Clone, Copy)]
struct BackupSet {
    backup: BackupId,
    others: Option<usize>,
}

impl PackUsers {
    /// Adds what one more backup refers to.
    pub fn add(&mut self, references: &BackupReferences) {
        // Where packs had the same users before, they have the same ones now.
        let mut extended: HashMap<Option<usize>, usize> = HashMap::new();
        for used in &references.packs {
            let known = self.packs.get(&used.pack).copied();
            let others = known.map(|known| known.users);
            // Named twice by one manifest.
            if others.and_then(|others| self.sets.get(others)).is_some_and(|set| set.backup == references.id) {
                continue;
            }
            let users = *extended.entry(others).or_insert_with(|| {
                self.sets.push(BackupSet { backup: references.id, others });
                self.sets.len() - 1
            });
            let total_bytes = used.total_bytes.max(known.map_or(0, |known| known.total_bytes));
            self.packs.insert(used.pack, UsedPack { total_bytes, users });
        }
    }

    /// The backups that refer to a pack, the one that was added last first.
    pub fn users(&self, pack: PackId) -> impl Iterator<Item = BackupId> {
        let first = self.packs.get(&pack).map(|used| used.users);
        let sets = std::iter::successors(first.and_then(|first| self.sets.get(first)), |set| self.sets.get(set.others?));
        sets.map(|set| set.backup)
    }

    /// All packs that a backup refers to, each with how many bytes its records have, in no order.
    pub fn packs(&self) -> impl Iterator<Item = (PackId, u64)> {
        self.packs.iter().map(|(pack, used)| (*pack, used.total_bytes))
    }

    /// How many bytes the records of a pack have, by the manifests that refer to it.
    pub fn total_bytes(&self, pack: PackId) -> Option<u64> {
        self.packs.get(&pack).map(|used| used.total_bytes)
    }

    fn check(&self, pack: PackId, object_bytes: u64) -> PackState {
        match self.total_bytes(pack) {
            None => PackState::Unused,
            Some(total) if object_bytes >= total => PackState::Whole,
            Some(_) => PackState::TooShort,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backup(number: u32) -> BackupId {
        BackupId::new(1_790_000_000 + i64::from(number), number).unwrap()
    }

    fn pack(number: u32) -> PackId {
        PackId { backup: backup(number / 4), number: number % 4 }
    }

    fn references(id: u32, packs: &[(u32, u64)]) -> BackupReferences {
        let packs = packs.iter().map(|(number, total)| PackUse { pack: pack(*number), live_bytes: 1, total_bytes: *total });
        let wal = BackupWal { timeline: Timeline(1), start: Lsn(1), stop: Lsn(2) };
        BackupReferences { id: backup(id), parent: None, wal, packs: packs.collect() }
    }

    proptest! {
        /// As a table with a line for each reference says.
        #[test]
        fn users_of_packs_are_those_of_a_plain_table(
            backups in prop::collection::vec(prop::collection::btree_map(0..24_u32, 1..50_u64, 0..12), 0..12),
            listed in prop::collection::btree_map(0..24_u32, 0..60_u64, 0..24),
        ) {
            let mut users = PackUsers::default();
            let mut table: Vec<(u32, u32, u64)> = Vec::new();
            for (id, packs) in (0..).zip(&backups) {
                let packs: Vec<(u32, u64)> = packs.iter().map(|(number, total)| (*number, *total)).collect();
                users.add(&references(id, &packs));
                table.extend(packs.iter().map(|(number, total)| (id, *number, *total)));
            }
            for number in 0..24 {
                let of_pack = || table.iter().filter(|(_, other, _)| *other == number);
                let expected: Vec<BackupId> = of_pack().rev().map(|(id, ..)| backup(*id)).collect();
                prop_assert_eq!(users.users(pack(number)).collect::<Vec<_>>(), expected);
                prop_assert_eq!(users.total_bytes(pack(number)), of_pack().map(|(.., total)| *total).max());
                if let Some(bytes) = listed.get(&number) {
                    let expected = match of_pack().map(|(.., total)| *total).max() {
                        None => PackState::Unused,
                        Some(total) if total <= *bytes => PackState::Whole,
                        Some(_) => PackState::TooShort,
                    };
                    prop_assert_eq!(users.check(pack(number), *bytes), expected);
                }
            }
            // Never more sets than references.
            prop_assert!(users.sets.len() <= table.len());
        }

        /// Every byte of the log from start to stop is in one of the segments, and each of them has one.
        #[test]
        fn segments_are_those_with_a_byte_of_the_log(start in 0..200_u64, length in 0..200_u64, unit in 1..16_u64) {
            let size = WalSegmentSize::new(1 << 20).unwrap();
            let scale = size.bytes() / 16 * unit;
            let (start, stop) = (start * scale, (start + length) * scale);
            let segments = BackupWal { timeline: Timeline(1), start: Lsn(start), stop: Lsn(stop) }.segments(size);
            for number in 0..=(stop / size.bytes() + 1) {
                let (first, end) = (number * size.bytes(), (number + 1) * size.bytes());
                let has_some = start < end && (first < stop || first <= start);
                prop_assert_eq!(segments.contains(&number), has_some, "{} of {:?}", number, segments);
            }
        }
    }

    #[test]
    fn packs_with_the_same_users_share_one_set() {
        let mut users = PackUsers::default();
        let all: Vec<(u32, u64)> = (0..1000).map(|number| (number, 1)).collect();
        for id in 0..100 {
            users.add(&references(id, &all));
        }
        assert_eq!((users.packs.len(), users.sets.len()), (1000, 100));
        assert_eq!(users.users(pack(999)).count(), 100);
        // Naming one twice changes nothing.
        users.add(&references(100, &[(1, 1), (1, 1)]));
        assert_eq!(users.users(pack(1)).count(), 101);
    }
}
