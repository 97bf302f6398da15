//! When objects were last read by a verification, as evidence tells it.
//!
//! Lives here: which of several looks at an object counts, and what is said of many objects together. May not live
//! here: how evidence is read ([`evidence`](super::evidence)). Memory: about 50 bytes for each run of neighbours that
//! were looked at in the same runs, not for each object.

use std::collections::{BTreeMap, HashMap};

use super::backups::BackupReferences;
use super::object_set::ObjectSet;
use super::stored_name::StoredName;
use crate::format::extent::{BackupId, PackId};
use crate::pg::{Timeline, WalFileName, WalSegmentSize};

/// A look at an object: all of it was read. The later one counts; of two at one moment, that which found damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look {
    /// It was read after this moment, in Unix seconds: by the clocks of the store and of the host that read it,
    /// whichever says that it was earlier.
    pub after_unix_s: i64,
    /// Whether it was damaged.
    pub is_damaged: bool,
}

impl Look {
    /// Whether it says anything about an object that was stored at this moment: not about one that took the place of
    /// the one that was read. Where the store does not tell when, nobody knows.
    pub fn counts_for(&self, stored_unix_s: Option<i64>) -> bool {
        stored_unix_s.is_some_and(|stored| stored <= self.after_unix_s)
    }
}

/// Looks at what has a number. Runs of numbers by the first one, with the last; no two overlap.
#[derive(Debug, Clone, Default)]
struct Looks {
    runs: BTreeMap<u64, (u64, Look)>,
}

impl Looks {
    /// Adds a look at all numbers from `first` to `last`.
    fn insert(&mut self, first: u64, last: u64, look: Look) {
        let overlapping: Vec<(u64, u64, Look)> = self
            .runs
            .range(..=last)
            .rev()
            .map(|(start, (end, look))| (*start, *end, *look))
            .take_while(|(_, end, _)| *end >= first)
            .collect();
        let mut pieces = Vec::with_capacity(2 * overlapping.len() + 1);
        // The next number that nothing is said of yet.
        let mut next = Some(first);
        for (start, end, before) in overlapping.into_iter().rev() {
            self.runs.remove(&start);
            if start < first {
                pieces.push((start, first - 1, before));
            }
            if let Some(next) = next.filter(|next| *next < start) {
                pieces.push((next, start - 1, look));
            }
            pieces.push((start.max(first), end.min(last), before.max(look)));
            if end > last {
                pieces.push((last + 1, end, before));
            }
            next = end.min(last).checked_add(1);
        }
        if let Some(next) = next.filter(|next| *next <= last) {
            pieces.push((next, last, look));
        }
        pieces.into_iter().for_each(|(start, end, look)| self.append(start, end, look));
        self.join_next(last);
    }

    /// Adds a run that overlaps none, and joins it with the one before it where both say the same.
    fn append(&mut self, start: u64, end: u64, look: Look) {
        if let Some((_, (before_end, before))) = self.runs.range_mut(..start).next_back()
            && before_end.checked_add(1) == Some(start)
            && *before == look
        {
            *before_end = end;
        } else {
            self.runs.insert(start, (end, look));
        }
    }

    /// Joins the run that begins after this number with the one that ends there, where both say the same.
    fn join_next(&mut self, last: u64) {
        let Some(start) = last.checked_add(1) else { return };
        if let Some((end, look)) = self.runs.remove(&start) {
            self.append(start, end, look);
        }
    }

    fn get(&self, number: u64) -> Option<Look> {
        let (_, (last, look)) = self.runs.range(..=number).next_back()?;
        (number <= *last).then_some(*look)
    }

    /// The runs within a range.
    fn within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64, Look)> {
        let from = self.runs.range(..=first).next_back().map_or(first, |(start, _)| *start);
        let runs = self.runs.range(from..=last.max(from)).map(|(start, (end, look))| (*start, *end, *look));
        runs.filter(move |(start, end, _)| *start <= last && *end >= first)
            .map(move |(start, end, look)| (start.max(first), end.min(last), look))
    }
}

/// When the objects of a system identifier were last read.
#[derive(Debug, Clone, Default)]
pub struct LastChecked {
    segments: HashMap<Timeline, Looks>,
    packs: HashMap<BackupId, Looks>,
    wal_files: HashMap<StoredName, Look>,
    manifests: HashMap<BackupId, Look>,
}

impl LastChecked {
    /// Adds a look at all of these.
    pub fn insert(&mut self, objects: &ObjectSet, look: Look) {
        for (timeline, runs) in objects.segments() {
            let looks = self.segments.entry(timeline).or_default();
            runs.iter().for_each(|(first, last)| looks.insert(first, last, look));
        }
        for (backup, runs) in objects.packs() {
            let looks = self.packs.entry(backup).or_default();
            runs.iter().for_each(|(first, last)| looks.insert(first, last, look));
        }
        for file in objects.wal_files() {
            let known = self.wal_files.entry(file).or_insert(look);
            *known = look.max(*known);
        }
        for backup in objects.manifests() {
            let known = self.manifests.entry(backup).or_insert(look);
            *known = look.max(*known);
        }
    }

    /// The last look at a segment.
    pub fn segment(&self, timeline: Timeline, number: u64) -> Option<Look> {
        self.segments.get(&timeline)?.get(number)
    }

    /// The last look at the segment of this number on a timeline, or else on a later one.
    pub fn segment_from(&self, timeline: Timeline, number: u64) -> Option<Look> {
        let later =
            || self.segments.iter().filter(|(other, _)| **other > timeline).filter_map(|(_, looks)| looks.get(number)).max();
        self.segment(timeline, number).or_else(later)
    }

    /// The last look at a WAL file; `size` is that of the cluster's segments.
    pub fn wal(&self, file: &StoredName, size: WalSegmentSize) -> Option<Look> {
        match file.file {
            WalFileName::Segment(name) if file.copy == 1 => match name.number(size) {
                Some(number) => self.segment(name.timeline, number),
                None => self.wal_files.get(file).copied(),
            },
            _ => self.wal_files.get(file).copied(),
        }
    }

    /// The last look at a pack.
    pub fn pack(&self, pack: PackId) -> Option<Look> {
        self.packs.get(&pack.backup)?.get(pack.number.into())
    }

    /// The last look at the manifest of a backup.
    pub fn manifest(&self, backup: BackupId) -> Option<Look> {
        self.manifests.get(&backup).copied()
    }

    /// All manifests that were read, in no order.
    pub fn manifests(&self) -> impl Iterator<Item = BackupId> {
        self.manifests.keys().copied()
    }

    /// What is known of the segments from number `first` to `last`, by their names alone.
    pub fn segments(&self, timeline: Timeline, first: u64, last: u64) -> Verified {
        let mut verified = Verified::default();
        if first > last {
            return verified;
        }
        let mut known = 0_u64;
        for (start, end, look) in self.segments.get(&timeline).into_iter().flat_map(|looks| looks.within(first, last)) {
            let count = (end - start).saturating_add(1);
            known = known.saturating_add(count);
            verified.add(count, Some(look));
        }
        let all = (last - first).saturating_add(1);
        verified.add(all.saturating_sub(known), None);
        verified
    }

    /// What is known of the objects of a backup, manifest, packs and WAL, by their names alone.
    pub fn backup(&self, backup: &BackupReferences, size: WalSegmentSize) -> Verified {
        let mut verified = self.stored_backup(backup);
        for number in backup.wal.segments(size) {
            // A standby may have followed another timeline while it was read.
            verified.add(1, self.segment_from(backup.wal.timeline, number));
        }
        verified
    }

    /// What is known of the manifest and the packs of a backup, by their names.
    pub fn stored_backup(&self, backup: &BackupReferences) -> Verified {
        let mut verified = Verified::default();
        verified.add(1, self.manifest(backup.id));
        backup.packs.iter().for_each(|used| verified.add(1, self.pack(used.pack)));
        verified
    }

    /// Whether nothing was ever looked at.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.packs.is_empty() && self.wal_files.is_empty() && self.manifests.is_empty()
    }
}

/// What is known of several objects together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many.
    pub objects: u64,
    /// Of these, those that no verification has read.
    pub unverified: u64,
    /// Of these, those that were damaged when they were last read.
    pub damaged: u64,
    /// All others were read after this moment, in Unix seconds; `None` if there are none.
    pub after_unix_s: Option<i64>,
}

impl Verified {
    /// Adds objects of which this is the last look.
    pub fn add(&mut self, objects: u64, look: Option<Look>) {
        if objects == 0 {
            return;
        }
        self.objects = self.objects.saturating_add(objects);
        match look {
            None => self.unverified = self.unverified.saturating_add(objects),
            Some(look) => {
                self.damaged = self.damaged.saturating_add(if look.is_damaged { objects } else { 0 });
                self.after_unix_s = Some(self.after_unix_s.map_or(look.after_unix_s, |known| known.min(look.after_unix_s)));
            }
        }
    }

    /// Adds an object that was stored at this moment, in Unix seconds.
    pub fn add_stored(&mut self, look: Option<Look>, stored_unix_s: Option<i64>) {
        self.add(1, look.filter(|look| look.counts_for(stored_unix_s)));
    }

    /// Adds what is known of others.
    pub fn extend(&mut self, other: &Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.unverified = self.unverified.saturating_add(other.unverified);
        self.damaged = self.damaged.saturating_add(other.damaged);
        self.after_unix_s = match (self.after_unix_s, other.after_unix_s) {
            (Some(one), Some(another)) => Some(one.min(another)),
            (one, another) => one.or(another),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(16 << 20).unwrap()
    }

    fn look((after_unix_s, is_damaged): (i64, bool)) -> Look {
        Look { after_unix_s, is_damaged }
    }

    proptest! {
        /// As a table with a line for each object says, in whichever order evidence is read.
        #[test]
        fn the_last_look_counts(
            looks in prop::collection::vec(((0..60_u64, 0..20_u64), (0..6_i64, any::<bool>())), 0..40),
            asked in (0..90_u64, 0..90_u64),
        ) {
            let mut checked = LastChecked::default();
            let mut table: BTreeMap<u64, Look> = BTreeMap::new();
            let backup = BackupId::new(1_790_000_000, 7).unwrap();
            for ((first, more), said) in looks {
                let mut set = ObjectSet::new(size());
                set.insert_segments(Timeline(3), first, first + more);
                set.insert_packs(backup, first, first + more);
                checked.insert(&set, look(said));
                for number in first..=first + more {
                    let known = table.entry(number).or_insert(look(said));
                    *known = look(said).max(*known);
                }
            }
            for number in 0..90 {
                prop_assert_eq!(checked.segment(Timeline(3), number), table.get(&number).copied(), "{}", number);
                let pack = PackId { backup, number: u32::try_from(number).unwrap() };
                prop_assert_eq!(checked.pack(pack), table.get(&number).copied());
            }
            let mut expected = Verified::default();
            (asked.0..=asked.1).for_each(|number| expected.add(1, table.get(&number).copied()));
            prop_assert_eq!(checked.segments(Timeline(3), asked.0, asked.1), expected);
            // No two runs touch and say the same, so they are as few as can be.
            let runs: Vec<(u64, u64, Look)> =
                checked.segments.values().flat_map(|looks| looks.within(0, u64::MAX)).collect();
            prop_assert!(runs.windows(2).all(|two| two[0].1 < two[1].0), "they overlap: {:?}", runs);
            prop_assert!(runs.windows(2).all(|two| two[0].1 + 1 < two[1].0 || two[0].2 != two[1].2), "two are one: {:?}", runs);
        }
    }

    #[test]
    fn a_look_counts_for_what_was_there() {
        let seen = look((100, false));
        assert!(seen.counts_for(Some(100)) && seen.counts_for(Some(1)));
        assert!(!seen.counts_for(Some(101)), "it was stored after the look");
        assert!(!seen.counts_for(None), "nobody knows when it was stored");
        let mut verified = Verified::default();
        verified.add_stored(Some(seen), Some(50));
        verified.add_stored(Some(look((90, true))), Some(50));
        verified.add_stored(Some(seen), Some(150));
        verified.add_stored(None, Some(50));
        let expected = Verified { objects: 4, unverified: 2, damaged: 1, after_unix_s: Some(90) };
        assert_eq!(verified, expected);
        let mut sum = Verified::default();
        sum.extend(&verified);
        sum.extend(&Verified { objects: 1, unverified: 0, damaged: 0, after_unix_s: Some(80) });
        assert_eq!(sum, Verified { objects: 5, unverified: 2, damaged: 1, after_unix_s: Some(80) });
    }

    #[test]
    fn files_are_told_apart() {
        let segment = |number| crate::pg::SegmentName::from_number(Timeline(1), number, size()).unwrap();
        let mut set = ObjectSet::new(size());
        let partial = StoredName { file: WalFileName::Partial(segment(5)), copy: 2 };
        set.insert_wal(&partial);
        set.insert_wal(&WalFileName::Segment(segment(6)).into());
        set.insert_manifest(BackupId::new(1_790_000_000, 7).unwrap());
        let mut checked = LastChecked::default();
        checked.insert(&set, look((9, false)));
        let of = |file: WalFileName, copy| checked.wal(&StoredName { file, copy }, size());
        assert_eq!(of(WalFileName::Partial(segment(5)), 2), Some(look((9, false))));
        assert_eq!(of(WalFileName::Partial(segment(5)), 1), None);
        assert_eq!(of(WalFileName::Segment(segment(5)), 1), None);
        assert_eq!(of(WalFileName::Segment(segment(6)), 1), Some(look((9, false))));
        assert_eq!(checked.manifest(BackupId::new(1_790_000_000, 7).unwrap()), Some(look((9, false))));
        assert_eq!(checked.manifest(BackupId::new(1_790_000_000, 8).unwrap()), None);
        assert!(!checked.is_empty() && LastChecked::default().is_empty());
    }
}
