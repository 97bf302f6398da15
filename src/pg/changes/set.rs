//! A set of changes, over a segment or any stretch of the log.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

use super::extents::Extents;
use crate::pg::scan::{DatabaseFiles, RelFile};

/// What of a cluster's relations changed.
///
/// Of a relation that counts as changed because of its database, or of its tablespace, nothing is kept: two sets that
/// say the same by the same marks are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeSet {
    everything: Option<Everything>,
    tablespaces: BTreeSet<u32>,
    databases: BTreeSet<DatabaseFiles>,
    relations: BTreeMap<RelFile, Extents>,
}

/// All of the cluster has to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Everything {
    /// Number of the first segment that says so.
    pub segment: u64,
    /// Why.
    pub why: Why,
}

/// Why everything counts as changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A record that crosses segments was too long to be kept whole, or is not understood.
    Unreadable,
    /// `wal_level = minimal`: what is made under it is not in the log.
    Minimal,
    /// More was changed than a set has room for.
    TooMuch,
}

impl fmt::Display for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Why::Unreadable => "a WAL record's blocks could not be read",
            Why::Minimal => "wal_level was minimal, so that not all is in the log",
            Why::TooMuch => "more was changed than a change set has room for",
        })
    }
}

/// What one database, or tablespace, takes in memory and in bytes, at most.
const ENTRY_BYTES: usize = 16;

impl ChangeSet {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything, and why.
    pub fn everything(why: Everything) -> Self {
        Self { everything: Some(why), ..Self::default() }
    }

    /// Whether everything counts as changed, and why.
    pub fn is_everything(&self) -> Option<Everything> {
        self.everything
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.everything.is_none() && self.tablespaces.is_empty() && self.databases.is_empty() && self.relations.is_empty()
    }

    /// Whether an extent of a fork may have changed. Of forks other than the main one this is always so: PostgreSQL
    /// does not log free space maps, nor (before 17.11 and 18.6) all changes of visibility maps.
    pub fn touched(&self, relation: RelFile, fork: u8, extent: u32) -> bool {
        fork != 0 || self.is_covered(relation) || self.relations.get(&relation).is_some_and(|extents| extents.contains(extent))
    }

    /// Whether all of a relation counts as changed: it, its database or its tablespace was created, dropped or copied,
    /// or everything is.
    pub fn invalidates(&self, relation: RelFile) -> bool {
        self.is_covered(relation)
            || self.relations.get(&relation).is_some_and(|extents| extents.contains(0) && *extents == Extents::all())
    }

    /// What may have changed of the main fork of a relation; `None`: all.
    pub fn extents(&self, relation: RelFile) -> Option<&Extents> {
        static NONE: Extents = Extents::NONE;
        if self.is_covered(relation) { None } else { Some(self.relations.get(&relation).unwrap_or(&NONE)) }
    }

    /// Tablespaces all of whose relations count as changed.
    pub fn tablespaces(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.tablespaces.iter().copied()
    }

    /// Databases all of whose relations in a tablespace count as changed.
    pub fn databases(&self) -> impl ExactSizeIterator<Item = DatabaseFiles> + '_ {
        self.databases.iter().copied()
    }

    /// Relations, in order, with what changed of their main forks; those above are not among them.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = (RelFile, &Extents)> + '_ {
        self.relations.iter().map(|(relation, extents)| (*relation, extents))
    }

    fn is_covered(&self, relation: RelFile) -> bool {
        self.everything.is_some()
            || self.tablespaces.contains(&relation.tablespace)
            || self.databases.contains(&files_of(relation))
    }

    /// Adds extents of a relation.
    pub fn add(&mut self, relation: RelFile, extents: &Extents) {
        if extents.is_empty() || self.is_covered(relation) {
            return;
        }
        self.relations.entry(relation).or_default().union(extents);
    }

    /// As [`add`](Self::add), of extents that are not needed any more.
    pub fn add_owned(&mut self, relation: RelFile, extents: Extents) {
        if extents.is_empty() || self.is_covered(relation) {
            return;
        }
        let own = self.relations.entry(relation).or_default();
        if own.is_empty() { *own = extents } else { own.union(&extents) }
    }

    /// Adds all relations of a database in a tablespace.
    pub fn add_database(&mut self, files: DatabaseFiles) {
        if self.everything.is_some() || self.tablespaces.contains(&files.tablespace) || !self.databases.insert(files) {
            return;
        }
        self.remove_relations(files);
    }

    /// Adds all relations of a tablespace.
    pub fn add_tablespace(&mut self, tablespace: u32) {
        if self.everything.is_some() || !self.tablespaces.insert(tablespace) {
            return;
        }
        self.databases.retain(|files| files.tablespace != tablespace);
        self.relations.retain(|relation, _| relation.tablespace != tablespace);
    }

    /// Adds everything. Of several reasons that of the earliest segment is kept.
    pub fn add_everything(&mut self, everything: Everything) {
        let first = self.everything.map_or(everything, |known| known.min(everything));
        *self = Self::everything(first);
    }

    /// Adds what another set has.
    pub fn union(&mut self, other: &Self) {
        if let Some(everything) = other.everything {
            self.add_everything(everything);
        }
        if self.everything.is_some() {
            return;
        }
        other.tablespaces.iter().for_each(|tablespace| self.add_tablespace(*tablespace));
        other.databases.iter().for_each(|files| self.add_database(*files));
        other.relations.iter().for_each(|(relation, extents)| self.add(*relation, extents));
    }

    /// Whether it has all that another set has.
    pub fn has_all(&self, other: &Self) -> bool {
        let is_whole = |tablespace| self.everything.is_some() || self.tablespaces.contains(&tablespace);
        let has_extents = |relation: &RelFile, extents: &Extents| {
            self.is_covered(*relation) || self.relations.get(relation).is_some_and(|own| own.has_all(extents))
        };
        (self.everything.is_some() || other.everything.is_none())
            && other.tablespaces.iter().all(|tablespace| is_whole(*tablespace))
            && other.databases.iter().all(|files| is_whole(files.tablespace) || self.databases.contains(files))
            && other.relations.iter().all(|(relation, extents)| has_extents(relation, extents))
    }

    fn remove_relations(&mut self, files: DatabaseFiles) {
        let first = RelFile { tablespace: files.tablespace, database: files.database, relation: 0 };
        let mut rest = self.relations.split_off(&first);
        let last = RelFile { relation: u32::MAX, ..first };
        let mut after = rest.split_off(&last);
        after.remove(&last);
        self.relations.append(&mut after);
    }

    /// Says too much, in so far as what it says would cost more than `limit`: `cost` is that of a relation's extents.
    /// The relation that costs most has its extents joined first; where it is the number of relations, the database
    /// that costs most counts as changed as a whole; where it is the number of databases, everything does, with
    /// `segment` as the one that says so.
    pub fn shrink(&mut self, limit: usize, segment: u64, cost: impl Fn(&Extents) -> usize) {
        let listed = |set: &Self| (set.tablespaces.len() + set.databases.len()) * ENTRY_BYTES;
        let mut total = listed(self) + self.relations.values().map(&cost).sum::<usize>();
        if total <= limit {
            return;
        }
        let mut costs: BinaryHeap<(usize, std::cmp::Reverse<RelFile>)> = self
            .relations
            .iter()
            .filter(|(_, extents)| extents.runs().len() > 1)
            .map(|(relation, extents)| (cost(extents), std::cmp::Reverse(*relation)))
            .collect();
        while total > limit
            && let Some((before, std::cmp::Reverse(relation))) = costs.pop()
        {
            let Some(extents) = self.relations.get_mut(&relation) else { continue };
            extents.coarsen();
            let after = cost(extents);
            total = (total + after).saturating_sub(before);
            if extents.runs().len() > 1 {
                costs.push((after, std::cmp::Reverse(relation)));
            }
        }
        if total > limit {
            self.shrink_databases(limit, &cost);
        }
        let relations: usize = self.relations.values().map(&cost).sum();
        if listed(self) + relations > limit {
            self.add_everything(Everything { segment, why: Why::TooMuch });
        }
    }

    /// The databases that cost most, until it fits.
    fn shrink_databases(&mut self, limit: usize, cost: &impl Fn(&Extents) -> usize) {
        let mut costs: BTreeMap<DatabaseFiles, usize> = BTreeMap::new();
        for (relation, extents) in &self.relations {
            *costs.entry(files_of(*relation)).or_default() += cost(extents);
        }
        let mut total = (self.tablespaces.len() + self.databases.len()) * ENTRY_BYTES + costs.values().sum::<usize>();
        let mut order: Vec<(usize, DatabaseFiles)> = costs.into_iter().map(|(files, cost)| (cost, files)).collect();
        order.sort_unstable_by_key(|(cost, files)| (std::cmp::Reverse(*cost), *files));
        for (cost, files) in order {
            if total <= limit {
                return;
            }
            self.add_database(files);
            total = (total + ENTRY_BYTES).saturating_sub(cost);
        }
    }
}

fn files_of(relation: RelFile) -> DatabaseFiles {
    DatabaseFiles { tablespace: relation.tablespace, database: relation.database }
}
