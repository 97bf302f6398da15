//! Sets of objects of one cluster: what a tombstone names, what a verification looked at.
//!
//! Lives here: keeping names as runs, and their form in JSON. May not live here: why an object is in a set. Memory: 16
//! bytes for each run, not for each object.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::stored_name::StoredName;
use crate::format::extent::{BackupId, PackId};
use crate::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};

/// Numbers, as runs of consecutive ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// First and last of each run, by first; no two touch.
    runs: BTreeMap<u64, u64>,
}

impl Runs {
    /// Adds a number.
    pub fn insert(&mut self, number: u64) {
        self.insert_run(number, number);
    }

    /// Adds all numbers from `first` to `last`.
    pub fn insert_run(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last.max(first));
        // What begins before the end of the new one, or just after it, and does not end too early to touch it.
        while let Some((start, end)) = self.runs.range(..=last.saturating_add(1)).next_back().map(|(start, end)| (*start, *end)) {
            if end.saturating_add(1) < first {
                break;
            }
            self.runs.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.runs.insert(first, last);
    }

    /// Whether a number is among them.
    pub fn contains(&self, number: u64) -> bool {
        self.runs.range(..=number).next_back().is_some_and(|(_, last)| number <= *last)
    }

    /// Whether all numbers from `first` to `last` are among them.
    pub fn has_all(&self, first: u64, last: u64) -> bool {
        self.runs.range(..=first).next_back().is_some_and(|(_, end)| last <= *end)
    }

    /// Whether one of the numbers from `first` to `last` is among them.
    pub fn has_any(&self, first: u64, last: u64) -> bool {
        self.runs.range(..=last).next_back().is_some_and(|(_, end)| first <= *end)
    }

    /// Those that are also among others, or, with `but`, those that are not.
    fn kept(&self, other: &Self, but: bool) -> Self {
        let mut kept = Self::default();
        for (first, last) in self.iter() {
            let mut next = first;
            let start = other.runs.range(..=first).next_back().map_or(first, |(start, _)| *start);
            for (low, high) in other.runs.range(start..=last).map(|(low, high)| (*low, *high)).filter(|(_, high)| first <= *high)
            {
                let (low, high) = (low.max(first), high.min(last));
                match but {
                    false => kept.insert_run(low, high),
                    true if next < low => kept.insert_run(next, low - 1),
                    true => {}
                }
                next = high.saturating_add(1);
            }
            if but && next <= last {
                kept.insert_run(next, last);
            }
        }
        kept
    }

    /// The runs, ascending: first and last number of each.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        self.runs.iter().map(|(first, last)| (*first, *last))
    }

    /// What there is of them from `low` to `high`, as runs.
    pub fn within(&self, low: u64, high: u64) -> impl Iterator<Item = (u64, u64)> {
        let start = self.runs.range(..=low).next_back().map_or(low, |(first, _)| *first);
        let runs = if start <= high { Some(self.runs.range(start..=high)) } else { None };
        let cut = move |(first, last): (&u64, &u64)| ((*first).max(low), (*last).min(high));
        runs.into_iter().flatten().map(cut).filter(|(first, last)| first <= last)
    }

    /// How many runs.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.runs.iter().fold(0_u64, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// Some objects of one system identifier of a cluster: segments, other WAL files, packs, manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSet {
    size: WalSegmentSize,
    segments: BTreeMap<Timeline, Runs>,
    wal_files: BTreeSet<String>,
    packs: BTreeMap<BackupId, Runs>,
    manifests: BTreeSet<BackupId>,
}

impl ObjectSet {
    /// None, of a cluster with segments of this size.
    pub fn new(size: WalSegmentSize) -> Self {
        Self { size, segments: BTreeMap::new(), wal_files: BTreeSet::new(), packs: BTreeMap::new(), manifests: BTreeSet::new() }
    }

    /// The size of the cluster's segments.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.size
    }

    /// Adds a WAL file. A name that is impossible with segments of this size is kept as text.
    pub fn insert_wal(&mut self, file: &StoredName) {
        match self.number_of(file) {
            Some((timeline, number)) => self.insert_segments(timeline, number, number),
            None => drop(self.wal_files.insert(file.to_string())),
        }
    }

    /// Adds the segments of a timeline from number `first` to `last`.
    pub fn insert_segments(&mut self, timeline: Timeline, first: u64, last: u64) {
        self.segments.entry(timeline).or_default().insert_run(first, last);
    }

    /// Adds a pack.
    pub fn insert_pack(&mut self, pack: PackId) {
        self.packs.entry(pack.backup).or_default().insert(pack.number.into());
    }

    /// Adds the packs of a backup from number `first` to `last`.
    pub fn insert_packs(&mut self, backup: BackupId, first: u64, last: u64) {
        self.packs.entry(backup).or_default().insert_run(first, last);
    }

    /// Adds the manifest of a backup.
    pub fn insert_manifest(&mut self, backup: BackupId) {
        self.manifests.insert(backup);
    }

    /// Whether a WAL file is in it.
    pub fn has_wal(&self, file: &StoredName) -> bool {
        match self.number_of(file) {
            Some((timeline, number)) => self.has_segment(timeline, number),
            None => self.wal_files.contains(&file.to_string()),
        }
    }

    /// Whether a segment is in it.
    pub fn has_segment(&self, timeline: Timeline, number: u64) -> bool {
        self.segments.get(&timeline).is_some_and(|runs| runs.contains(number))
    }

    /// Whether one of the segments of a timeline from number `first` to `last` is in it.
    pub fn has_segment_within(&self, timeline: Timeline, first: u64, last: u64) -> bool {
        self.segments.get(&timeline).is_some_and(|runs| runs.has_any(first, last))
    }

    /// Whether a pack is in it.
    pub fn has_pack(&self, pack: PackId) -> bool {
        self.packs.get(&pack.backup).is_some_and(|runs| runs.contains(pack.number.into()))
    }

    /// Whether the manifest of a backup is in it.
    pub fn has_manifest(&self, backup: BackupId) -> bool {
        self.manifests.contains(&backup)
    }

    /// The segments of each timeline.
    pub fn segments(&self) -> impl Iterator<Item = (Timeline, &Runs)> {
        self.segments.iter().map(|(timeline, runs)| (*timeline, runs))
    }

    /// The other WAL files, by name.
    pub fn wal_files(&self) -> impl Iterator<Item = StoredName> {
        self.wal_files.iter().filter_map(|name| StoredName::parse(name))
    }

    /// The numbers of the packs of each backup.
    pub fn packs(&self) -> impl Iterator<Item = (BackupId, &Runs)> {
        self.packs.iter().map(|(backup, runs)| (*backup, runs))
    }

    /// The backups whose manifests are in it, oldest first.
    pub fn manifests(&self) -> impl Iterator<Item = BackupId> {
        self.manifests.iter().copied()
    }

    /// How many objects.
    pub fn count(&self) -> u64 {
        let runs = self.segments.values().chain(self.packs.values()).fold(0_u64, |sum, runs| sum.saturating_add(runs.count()));
        runs.saturating_add((self.wal_files.len() + self.manifests.len()) as u64)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        for (timeline, runs) in other.segments() {
            runs.iter().for_each(|(first, last)| self.insert_segments(timeline, first, last));
        }
        for (backup, runs) in other.packs() {
            let own = self.packs.entry(backup).or_default();
            runs.iter().for_each(|(first, last)| own.insert_run(first, last));
        }
        self.wal_files.extend(other.wal_files.iter().cloned());
        self.manifests.extend(&other.manifests);
    }

    /// None, of a cluster with segments of the same size.
    pub fn none_of_it(&self) -> Self {
        Self::new(self.size)
    }

    /// The same objects in sets of at most `most` runs each; at least one set.
    pub(super) fn split(&self, most: usize) -> Vec<Self> {
        let mut sets = Vec::new();
        let (mut set, mut room) = (Self::new(self.size), most);
        let mut each = |add: &dyn Fn(&mut Self)| {
            if room == 0 {
                sets.push(std::mem::replace(&mut set, Self::new(self.size)));
                room = most;
            }
            add(&mut set);
            room = room.saturating_sub(1);
        };
        for (timeline, runs) in self.segments() {
            runs.iter().for_each(|(first, last)| each(&|set| set.insert_segments(timeline, first, last)));
        }
        for (backup, runs) in self.packs() {
            runs.iter().for_each(|(first, last)| each(&|set| set.insert_packs(backup, first, last)));
        }
        self.wal_files().for_each(|file| each(&|set| set.insert_wal(&file)));
        self.manifests().for_each(|backup| each(&|set| set.insert_manifest(backup)));
        sets.push(set);
        sets
    }

    /// How many runs its form in JSON has, names that stand alone included.
    pub fn runs(&self) -> usize {
        let runs = self.segments.values().chain(self.packs.values()).map(|runs| runs.runs.len()).sum::<usize>();
        runs + self.wal_files.len() + self.manifests.len()
    }

    /// What is in this set and in another one.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.kept(other, false)
    }

    /// What is in this set and not in another one.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.kept(other, true)
    }

    fn kept(&self, other: &Self, but: bool) -> Self {
        fn runs<K: Ord + Copy>(own: &BTreeMap<K, Runs>, other: &BTreeMap<K, Runs>, but: bool) -> BTreeMap<K, Runs> {
            let none = Runs::default();
            let kept = own.iter().map(|(key, runs)| (*key, runs.kept(other.get(key).unwrap_or(&none), but)));
            kept.filter(|(_, runs)| !runs.is_empty()).collect()
        }
        Self {
            size: self.size,
            segments: runs(&self.segments, &other.segments, but),
            wal_files: self.wal_files.iter().filter(|name| other.wal_files.contains(*name) != but).cloned().collect(),
            packs: runs(&self.packs, &other.packs, but),
            manifests: self.manifests.iter().filter(|id| other.manifests.contains(id) != but).copied().collect(),
        }
    }

    fn number_of(&self, file: &StoredName) -> Option<(Timeline, u64)> {
        match file.file {
            WalFileName::Segment(name) if file.copy == 1 => Some((name.timeline, name.number(self.size)?)),
            _ => None,
        }
    }
}

/// The form of a set in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    wal_segment_bytes: u64,
    segments: Vec<WrittenSegments>,
    wal_files: Vec<String>,
    packs: Vec<WrittenPacks>,
    manifests: Vec<BackupId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSegments {
    first_segment: String,
    last_segment: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPacks {
    backup_id: BackupId,
    first: u32,
    last: u32,
}

impl Serialize for ObjectSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = |timeline, number| {
            let name = SegmentName::from_number(timeline, number, self.size);
            name.map(|name| name.to_string()).ok_or_else(|| serde::ser::Error::custom("a segment of no name"))
        };
        let mut segments = Vec::new();
        for (timeline, runs) in self.segments() {
            for (first, last) in runs.iter() {
                segments.push(WrittenSegments { first_segment: name(timeline, first)?, last_segment: name(timeline, last)? });
            }
        }
        let number = |number: u64| u32::try_from(number).map_err(serde::ser::Error::custom);
        let mut packs = Vec::new();
        for (backup_id, runs) in self.packs() {
            for (first, last) in runs.iter() {
                packs.push(WrittenPacks { backup_id, first: number(first)?, last: number(last)? });
            }
        }
        let written = Written {
            wal_segment_bytes: self.size.bytes(),
            segments,
            wal_files: self.wal_files.iter().cloned().collect(),
            packs,
            manifests: self.manifests().collect(),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let written = Written::deserialize(deserializer)?;
        let size = WalSegmentSize::new(written.wal_segment_bytes)
            .ok_or_else(|| D::Error::custom(format!("segments cannot have {} bytes", written.wal_segment_bytes)))?;
        let mut set = Self::new(size);
        for WrittenSegments { first_segment, last_segment } in &written.segments {
            let number = |text: &str| match WalFileName::parse(text) {
                Some(WalFileName::Segment(name)) => name.number(size).map(|number| (name.timeline, number)),
                _ => None,
            };
            match (number(first_segment), number(last_segment)) {
                (Some((timeline, first)), Some((other, last))) if timeline == other && first <= last => {
                    set.insert_segments(timeline, first, last);
                }
                _ => return Err(D::Error::custom(format!("{first_segment} to {last_segment} are no run of segments"))),
            }
        }
        for WrittenPacks { backup_id, first, last } in &written.packs {
            if first > last {
                return Err(D::Error::custom(format!("packs {first} to {last} of {backup_id} are no run")));
            }
            set.packs.entry(*backup_id).or_default().insert_run((*first).into(), (*last).into());
        }
        for name in written.wal_files {
            if StoredName::parse(&name).is_none() {
                return Err(D::Error::custom(format!("{name:?} is no WAL file")));
            }
            set.wal_files.insert(name);
        }
        set.manifests.extend(written.manifests);
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(16 << 20).unwrap()
    }

    proptest! {
        #[test]
        fn runs_are_the_numbers_that_were_added(added in prop::collection::vec((0..60_u64, 0..8_u64), 0..30)) {
            let (mut runs, mut plain) = (Runs::default(), BTreeSet::new());
            for (first, more) in added {
                runs.insert_run(first, first + more);
                plain.extend(first..=first + more);
            }
            for number in 0..80 {
                prop_assert_eq!(runs.contains(number), plain.contains(&number), "{}", number);
            }
            prop_assert_eq!(runs.count(), plain.len() as u64);
            let all: Vec<(u64, u64)> = runs.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "two touch: {:?}", all);
        }

        #[test]
        fn runs_are_cut_as_sets_of_numbers_are(
            own in prop::collection::vec((0..60_u64, 0..8_u64), 0..20),
            other in prop::collection::vec((0..60_u64, 0..8_u64), 0..20),
        ) {
            let made = |added: &[(u64, u64)]| {
                let (mut runs, mut plain) = (Runs::default(), BTreeSet::new());
                for (first, more) in added {
                    runs.insert_run(*first, first + more);
                    plain.extend(*first..=first + more);
                }
                (runs, plain)
            };
            let ((own, own_plain), (other, other_plain)) = (made(&own), made(&other));
            for (kept, plain) in [
                (own.kept(&other, false), &own_plain & &other_plain),
                (own.kept(&other, true), &own_plain - &other_plain),
            ] {
                let all: Vec<u64> = kept.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(all, plain.iter().copied().collect::<Vec<_>>());
                prop_assert!(kept.iter().zip(kept.iter().skip(1)).all(|(a, b)| a.1 + 1 < b.0), "two touch: {:?}", kept);
            }
            for first in 0..70 {
                for last in first..first + 9 {
                    prop_assert_eq!(own.has_all(first, last), (first..=last).all(|number| own_plain.contains(&number)));
                    prop_assert_eq!(own.has_any(first, last), (first..=last).any(|number| own_plain.contains(&number)));
                }
            }
        }

        #[test]
        fn a_set_is_read_as_it_was_written(
            segments in prop::collection::vec((1..4_u32, 0..5000_u64), 0..40),
            packs in prop::collection::vec((0..3_u32, 0..50_u32), 0..40),
            others in prop::collection::btree_set(1..9_u32, 0..5),
        ) {
            let mut set = ObjectSet::new(size());
            for (timeline, number) in &segments {
                set.insert_segments(Timeline(*timeline), *number, *number);
            }
            let backup = |random| BackupId::new(1_790_000_000, random).unwrap();
            packs.iter().for_each(|(of, number)| set.insert_pack(PackId { backup: backup(*of), number: *number }));
            for number in &others {
                set.insert_manifest(backup(*number));
                let name = SegmentName::from_number(Timeline(1), u64::from(*number), size()).unwrap();
                set.insert_wal(&StoredName { file: WalFileName::Partial(name), copy: *number });
            }
            let text = serde_json::to_string(&set).unwrap();
            let read: ObjectSet = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &set);
            let distinct = segments.iter().collect::<BTreeSet<_>>().len() + packs.iter().collect::<BTreeSet<_>>().len();
            prop_assert_eq!(set.count(), (distinct + 2 * others.len()) as u64);
            prop_assert!(segments.iter().all(|(timeline, number)| read.has_segment(Timeline(*timeline), *number)));
            // Cut by part of it, the two parts make it whole again.
            let mut part = ObjectSet::new(size());
            segments.iter().step_by(2).for_each(|(timeline, number)| part.insert_segments(Timeline(*timeline), *number, *number));
            packs.iter().step_by(2).for_each(|(of, number)| part.insert_pack(PackId { backup: backup(*of), number: *number }));
            others.iter().step_by(2).for_each(|number| part.insert_manifest(backup(*number)));
            prop_assert_eq!(&set.intersection(&part), &part);
            let mut rest = set.difference(&part);
            prop_assert_eq!(rest.count() + part.count(), set.count());
            prop_assert!(rest.intersection(&part).is_empty());
            rest.extend(&part);
            prop_assert_eq!(&rest, &set);
            let mut twice = read.clone();
            twice.extend(&set);
            prop_assert_eq!(twice, set);
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let good = r#"{"wal_segment_bytes":16777216,"segments":[],"wal_files":[],"packs":[],"manifests":[]}"#;
        assert!(serde_json::from_str::<ObjectSet>(good).unwrap().is_empty());
        let run = |first: &str, last: &str| format!(r#""segments":[{{"first_segment":"{first}","last_segment":"{last}"}}]"#);
        let name = |timeline: u32, number: u32| format!("{timeline:08X}00000000{number:08X}");
        for (from, to) in [
            ("16777216", "12345".to_owned()),
            (r#""segments":[]"#, run(&name(1, 5), &name(1, 4))),
            (r#""segments":[]"#, run(&name(1, 5), &name(2, 6))),
            (r#""segments":[]"#, run(&name(1, 5), "00000002.history")),
            (r#""wal_files":[]"#, r#""wal_files":["../x"]"#.to_owned()),
            (r#""packs":[]"#, r#""packs":[{"backup_id":"20260102T030405Z-0000beef","first":2,"last":1}]"#.to_owned()),
            (r#""manifests":[]"#, r#""manifests":["yesterday"]"#.to_owned()),
            (r#""manifests":[]"#, r#""manifests":[],"more":1"#.to_owned()),
        ] {
            let bad = good.replace(from, &to);
            assert!(serde_json::from_str::<ObjectSet>(&bad).is_err(), "{bad}");
        }
    }
}
