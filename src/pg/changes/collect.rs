//! Makes a change set of what a scan finds, at little cost and in bounded memory.

use std::collections::HashMap;

use super::extents::Extents;
use super::set::{ChangeSet, Everything, Why};
use crate::limits::{
    CACHED_RELATIONS, CACHED_UNITS_LOG, MAX_COLLECTED_DATABASES, MAX_COLLECTED_EXTENTS, MAX_COLLECTED_RELATIONS,
};
use crate::pg::Lsn;
use crate::pg::scan::{BlockRef, DatabaseFiles, Event, Mark, Record, RelFile, StorageChange, Visitor};

/// `EXTENT_BYTES` are so many blocks: 8 of 8 KiB.
const BLOCKS_LOG: u32 = 3;

/// Collects what a scan, or a [`Chain`](crate::pg::scan::Chain), finds of changed blocks and files.
///
/// What comes of it depends on the records alone, and not on how they were cut. Memory: at most twice
/// [`MAX_COLLECTED_EXTENTS`] numbers, and a table of [`MAX_COLLECTED_RELATIONS`].
#[derive(Debug)]
pub struct Collector {
    segment_bytes: u64,
    /// What is changed as a whole, but for relations.
    set: ChangeSet,
    numbers: HashMap<RelFile, u32>,
    relations: Vec<Relation>,
    lately: Vec<(RelFile, u32)>,
    /// Number of the relation in the upper half, unit in the lower.
    units: Vec<u64>,
    /// Binary logarithm of the extents of a unit.
    unit_log: u32,
    seen: Vec<u64>,
    /// There were too many relations: from then on whole databases count.
    by_database: bool,
}

#[derive(Debug)]
struct Relation {
    rel: RelFile,
    /// From this extent on all is changed.
    from: u32,
}

const NO_RELATION: RelFile = RelFile { tablespace: 0, database: 0, relation: 0 };

impl Collector {
    /// For a log with segments of this size.
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes: segment_bytes.max(1),
            set: ChangeSet::new(),
            numbers: HashMap::new(),
            relations: Vec::new(),
            lately: vec![(NO_RELATION, u32::MAX); CACHED_RELATIONS],
            units: Vec::new(),
            unit_log: 0,
            seen: vec![u64::MAX; 1 << CACHED_UNITS_LOG],
            by_database: false,
        }
    }

    /// What was found.
    pub fn finish(mut self) -> ChangeSet {
        self.compact();
        let (unit_log, relations, units) = (self.unit_log, self.relations, self.units);
        let mut set = self.set;
        let extent = |unit: u64| u32::try_from(unit << unit_log).unwrap_or(Extents::END);
        let relation_of = |unit: &u64| unit >> 32;
        let mut parts = units.chunk_by(|a, b| relation_of(a) == relation_of(b)).peekable();
        for (number, relation) in relations.iter().enumerate() {
            let mut extents = Extents::new();
            if let Some(part) = parts.next_if(|part| part.first().map(relation_of) == Some(number as u64)) {
                for unit in part {
                    let unit = unit & u64::from(u32::MAX);
                    extents.push(extent(unit), extent(unit + 1));
                }
            }
            extents.union(&Extents::from(relation.from));
            set.add_owned(relation.rel, extents);
        }
        set
    }

    /// Number of a relation; `None` once whole databases count.
    fn number(&mut self, lsn: Lsn, rel: RelFile) -> Option<u32> {
        let slot = rel.relation as usize % CACHED_RELATIONS;
        match self.lately.get(slot) {
            Some((known, number)) if *known == rel && *number != u32::MAX => return Some(*number),
            _ => {}
        }
        if self.by_database {
            self.database(lsn, files_of(rel));
            return None;
        }
        let number = match self.numbers.get(&rel) {
            Some(number) => *number,
            None => {
                if self.relations.len() >= MAX_COLLECTED_RELATIONS {
                    self.give_up_relations(lsn);
                    return self.number(lsn, rel);
                }
                let number = self.relations.len() as u32;
                self.numbers.insert(rel, number);
                self.relations.push(Relation { rel, from: Extents::END });
                number
            }
        };
        if let Some(slot) = self.lately.get_mut(slot) {
            *slot = (rel, number);
        }
        Some(number)
    }

    fn give_up_relations(&mut self, lsn: Lsn) {
        self.by_database = true;
        self.lately.fill((NO_RELATION, u32::MAX));
        self.numbers = HashMap::new();
        self.units = Vec::new();
        for Relation { rel, .. } in std::mem::take(&mut self.relations) {
            self.database(lsn, files_of(rel));
        }
    }

    fn database(&mut self, lsn: Lsn, files: DatabaseFiles) {
        self.set.add_database(files);
        self.listed(lsn);
    }

    /// Whole databases and tablespaces are bounded too.
    fn listed(&mut self, lsn: Lsn) {
        if self.set.databases().len().max(self.set.tablespaces().len()) > MAX_COLLECTED_DATABASES {
            self.everything(lsn, Why::TooMuch);
        }
    }

    fn from(&mut self, lsn: Lsn, rel: RelFile, extent: u32) {
        if let Some(number) = self.number(lsn, rel)
            && let Some(relation) = self.relations.get_mut(number as usize)
        {
            relation.from = relation.from.min(extent);
        }
    }

    fn everything(&mut self, lsn: Lsn, why: Why) {
        self.set.add_everything(Everything { segment: lsn.0 / self.segment_bytes, why });
    }

    /// Sorts what came, without what came twice; and if that is still too much, in larger units.
    fn compact(&mut self) {
        self.units.sort_unstable();
        self.units.dedup();
        while self.units.len() > MAX_COLLECTED_EXTENTS {
            self.unit_log += 1;
            for unit in &mut self.units {
                *unit = *unit >> 32 << 32 | (*unit & u64::from(u32::MAX)) >> 1;
            }
            self.units.dedup();
        }
        self.seen.fill(u64::MAX);
    }
}

impl Visitor for Collector {
    const BLOCKS: bool = true;

    fn block(&mut self, lsn: Lsn, block: BlockRef) {
        if block.fork != 0 {
            // There are four forks: what else a record names is nothing that is understood.
            if block.fork > 3 {
                self.unreadable(lsn);
            }
            return;
        }
        let Some(number) = self.number(lsn, block.rel) else { return };
        let unit = u64::from(number) << 32 | u64::from(block.block >> BLOCKS_LOG >> self.unit_log);
        let slot = unit.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - CACHED_UNITS_LOG);
        match self.seen.get_mut(slot as usize) {
            Some(seen) if *seen == unit => return,
            Some(seen) => *seen = unit,
            None => {}
        }
        if self.units.len() >= 2 * MAX_COLLECTED_EXTENTS {
            self.compact();
            // The unit may be another now.
            return self.block(lsn, block);
        }
        self.units.push(unit);
    }

    fn storage(&mut self, lsn: Lsn, change: StorageChange) {
        match change {
            StorageChange::Create { rel, fork: 0 } | StorageChange::Drop(rel) => self.from(lsn, rel, 0),
            // The block that is the first to go may be in the middle of an extent.
            StorageChange::Truncate { rel, blocks, forks } if forks & 1 != 0 => self.from(lsn, rel, blocks >> BLOCKS_LOG),
            StorageChange::CreateDatabase { tablespace, database } | StorageChange::DropDatabase { tablespace, database } => {
                self.database(lsn, DatabaseFiles { tablespace, database });
            }
            StorageChange::Create { .. } | StorageChange::Truncate { .. } => {}
        }
    }

    fn found(&mut self, record: &Record<Event>) {
        match &record.what {
            Event::Mark(Mark::ParameterChange(parameters)) if parameters.is_minimal() => {
                self.everything(record.start, Why::Minimal);
            }
            Event::Mark(Mark::TablespaceCreate { tablespace, .. } | Mark::TablespaceDrop { tablespace }) => {
                self.set.add_tablespace(*tablespace);
                self.listed(record.start);
            }
            _ => {}
        }
    }

    fn unreadable(&mut self, lsn: Lsn) {
        self.everything(lsn, Why::Unreadable);
    }
}

fn files_of(rel: RelFile) -> DatabaseFiles {
    DatabaseFiles { tablespace: rel.tablespace, database: rel.database }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::scan::{Parameters, TablespacePath};

    const MIB: u64 = 1 << 20;

    fn rel(relation: u32) -> RelFile {
        RelFile { tablespace: 1663, database: 5, relation }
    }

    fn block(relation: u32, block: u32) -> BlockRef {
        BlockRef { rel: rel(relation), fork: 0, block }
    }

    fn runs(set: &ChangeSet, relation: u32) -> Vec<(u32, u32)> {
        set.extents(rel(relation)).unwrap().runs().collect()
    }

    #[test]
    fn blocks_become_extents_and_other_forks_are_always_touched() {
        let mut collector = Collector::new(MIB);
        for number in [17, 16, 8, 7, 0, 17, 800, 16] {
            collector.block(Lsn(MIB), block(1, number));
        }
        collector.block(Lsn(MIB), block(1 + CACHED_RELATIONS as u32, u32::MAX));
        collector.block(Lsn(MIB), BlockRef { fork: 2, ..block(3, 0) });
        let set = collector.finish();
        assert_eq!(runs(&set, 1), [(0, 3), (100, 101)]);
        assert_eq!(runs(&set, 1 + CACHED_RELATIONS as u32), [(Extents::END - 1, Extents::END)]);
        assert_eq!(set.relations().len(), 2, "of the map nothing is kept");
        assert!(set.touched(rel(1), 0, 100) && !set.touched(rel(1), 0, 99) && !set.touched(rel(3), 0, 0));
        assert!([1, 2, 3].iter().all(|fork| set.touched(rel(9), *fork, 0)));
    }

    #[test]
    fn files_that_come_and_go() {
        let mut collector = Collector::new(MIB);
        let at = Lsn(MIB);
        collector.storage(at, StorageChange::Create { rel: rel(1), fork: 0 });
        collector.block(at, block(1, 5));
        collector.storage(at, StorageChange::Create { rel: rel(2), fork: 2 });
        collector.storage(at, StorageChange::Drop(rel(3)));
        collector.block(at, block(4, 0));
        collector.storage(at, StorageChange::Truncate { rel: rel(4), blocks: 31, forks: 7 });
        collector.storage(at, StorageChange::Truncate { rel: rel(4), blocks: 99, forks: 1 });
        collector.storage(at, StorageChange::Truncate { rel: rel(5), blocks: 0, forks: 6 });
        collector.storage(at, StorageChange::CreateDatabase { tablespace: 1663, database: 6 });
        collector.block(at, BlockRef { rel: RelFile { database: 6, ..rel(1) }, fork: 0, block: 1 });
        collector.storage(at, StorageChange::DropDatabase { tablespace: 1664, database: 7 });
        let path = TablespacePath::new(b"/srv/fast").unwrap();
        let found = |what| Record { start: at, end: at, what: Event::Mark(what) };
        collector.found(&found(Mark::TablespaceCreate { tablespace: 20000, path }));
        let set = collector.finish();
        assert!(set.invalidates(rel(1)) && set.invalidates(rel(3)) && !set.invalidates(rel(2)));
        assert_eq!(runs(&set, 4), [(0, 1), (3, Extents::END)]);
        assert_eq!((runs(&set, 2), runs(&set, 5)), (vec![], vec![]));
        let other = |tablespace, database| RelFile { tablespace, database, relation: 77 };
        assert!(set.touched(other(1663, 6), 0, 9) && set.touched(other(1664, 7), 0, 9) && set.touched(other(20000, 1), 0, 9));
        assert!(!set.touched(other(1664, 6), 0, 9));
        assert_eq!(set.relations().len(), 3, "what a database covers is not kept");
    }

    #[test]
    fn what_cannot_be_known_is_everything() {
        let parameters = Parameters {
            max_connections: 1,
            max_worker_processes: 1,
            max_wal_senders: 1,
            max_prepared_transactions: 1,
            max_locks_per_transaction: 1,
            wal_level: 0,
            wal_log_hints: false,
            track_commit_timestamp: false,
        };
        let change = |wal_level| Event::Mark(Mark::ParameterChange(Parameters { wal_level, ..parameters }));
        let of = |act: &dyn Fn(&mut Collector)| {
            let mut collector = Collector::new(MIB);
            collector.block(Lsn(7 * MIB), block(1, 1));
            act(&mut collector);
            collector.block(Lsn(7 * MIB), block(2, 1));
            collector.finish().is_everything()
        };
        let found = |what| Record { start: Lsn(7 * MIB + 8), end: Lsn(7 * MIB + 64), what };
        let because = |why| Some(Everything { segment: 7, why });
        assert_eq!(of(&|collector| collector.found(&found(change(1)))), None);
        assert_eq!(of(&|collector| collector.found(&found(change(0)))), because(Why::Minimal));
        assert_eq!(of(&|collector| collector.unreadable(Lsn(8 * MIB - 1))), because(Why::Unreadable));
        assert_eq!(of(&|collector| collector.block(Lsn(7 * MIB), BlockRef { fork: 4, ..block(1, 1) })), because(Why::Unreadable));
        let many = |collector: &mut Collector| {
            for database in 0..=MAX_COLLECTED_DATABASES as u32 {
                collector.storage(Lsn(7 * MIB), StorageChange::CreateDatabase { tablespace: 1663, database });
            }
        };
        assert_eq!(of(&many), because(Why::TooMuch));
    }

    /// Whatever comes, memory is bounded, nothing is lost, and the order does not matter.
    #[test]
    fn too_much_is_coarser_and_lacks_nothing() {
        let extents = 3 * MAX_COLLECTED_EXTENTS as u32;
        let of = |numbers: &mut dyn Iterator<Item = u32>| {
            let mut collector = Collector::new(MIB);
            for number in numbers {
                // Every fourth extent, so that runs do not hide anything.
                collector.block(Lsn(MIB), block(1, number * 32));
                assert!(collector.units.len() <= 2 * MAX_COLLECTED_EXTENTS);
            }
            collector.finish()
        };
        let forward = of(&mut (0..extents));
        assert!((0..extents).all(|number| forward.touched(rel(1), 0, number * 4)));
        assert!(!forward.touched(rel(1), 0, extents * 4));
        assert_eq!(of(&mut (0..extents).rev()), forward);
        assert_eq!(of(&mut (0..extents).chain(0..extents)), forward);

        let mut collector = Collector::new(MIB);
        for number in 0..=MAX_COLLECTED_RELATIONS as u32 + 7 {
            let rel = RelFile { database: 5 + number % 3, ..rel(number) };
            collector.block(Lsn(MIB), BlockRef { rel, fork: 0, block: 0 });
            collector.storage(Lsn(MIB), StorageChange::Drop(RelFile { database: 5, ..rel }));
        }
        let set = collector.finish();
        assert_eq!((set.databases().len(), set.relations().len()), (3, 0));
        assert!(set.touched(RelFile { database: 7, ..rel(1) }, 0, 9) && !set.touched(RelFile { database: 8, ..rel(1) }, 0, 9));
    }
}
