//! Which extents a backup takes over from its parent without reading them, and at which of these it looks all the same.
//!
//! An extent that no record of the log touched since the parent began is what the parent stored of it
//! (docs/CHANGES.md). Of those that are taken over, one in [`SAMPLED_ONE_IN`] is looked at, so that a defect in the
//! change sets, or a disk that loses writes, does not stay hidden; and where the operator wants every page to be
//! verified once in a period, a share of them with each backup. May not live here: the proof that nothing is missing in
//! the log ([`proof`](super::proof)), what a look at an extent says ([`second_look`](super::second_look)).

use crate::limits::{EXTENT_BYTES, SAMPLED_ONE_IN, SAMPLED_WHOLE_ONE_IN};
use crate::pg::Lsn;
use crate::pg::changes::{ChangeSet, Extents};
use crate::pg::data_directory::{Fork, relation_file};
use crate::pg::page_checksum::{PAGE_BYTES, PAGES_PER_SEGMENT};
use crate::pg::scan::RelFile;
use std::time::Duration;

/// OID of the tablespace `pg_default`.
const PG_DEFAULT: u32 = 1663;
/// OID of the tablespace `pg_global`.
const PG_GLOBAL: u32 = 1664;

/// What is known not to have changed since the parent began.
pub(crate) struct Untouched {
    /// What the log changed from there on.
    changes: ChangeSet,
    /// Where the parent began, and where this backup did.
    range: (Lsn, Lsn),
    /// Different in each backup.
    seed: u64,
    due: Due,
}

/// What becomes of an extent that the parent has in the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may have changed, so it is read.
    Read,
    /// It is taken over, and not read.
    Taken,
    /// It is taken over, and the beginning of one of its pages is read: of this one.
    HeaderRead(u8),
    /// It is taken over, and all of it is read.
    WholeRead,
}

/// The main fork of a relation of which not everything changed, or a gigabyte of it.
#[derive(Clone, Copy)]
pub(crate) struct UntouchedFile<'a> {
    all: &'a Untouched,
    touched: &'a Extents,
    relation: RelFile,
    /// Number of the file's first extent.
    first: u32,
}

impl Untouched {
    pub(crate) fn new(changes: ChangeSet, range: (Lsn, Lsn), seed: u64, due: Due) -> Self {
        Self { changes, range, seed, due }
    }

    /// From where to where the log was asked.
    pub(crate) fn range(&self) -> (Lsn, Lsn) {
        self.range
    }

    /// Of a file by its path relative to the data directory; `None` where all of it is read: what is no main fork of a
    /// relation, and relations that were created, truncated to nothing, dropped or copied.
    pub(crate) fn file(&self, path: &[u8]) -> Option<UntouchedFile<'_>> {
        let (place, name) = relation_file(path)?;
        if name.fork != Fork::Main {
            return None;
        }
        let tablespace = place.tablespace.unwrap_or(if place.database.is_none() { PG_GLOBAL } else { PG_DEFAULT });
        let relation = RelFile { tablespace, database: place.database.unwrap_or(0), relation: name.number };
        let touched = self.changes.extents(relation)?;
        let first = u64::from(name.segment) * (PAGES_PER_SEGMENT * PAGE_BYTES as u64 / EXTENT_BYTES as u64);
        let first = u32::try_from(first).ok()?;
        Some(UntouchedFile { all: self, touched, relation, first })
    }
}

impl UntouchedFile<'_> {
    /// Of the extent with this number in the file, which has so many bytes.
    pub(crate) fn fate(&self, index: u64, bytes: u64) -> Fate {
        let extent = u32::try_from(index).ok().and_then(|index| self.first.checked_add(index));
        let Some(extent) = extent.filter(|extent| !self.touched.contains(*extent)) else { return Fate::Read };
        if self.all.due.is_due(mixed(self.number(extent))) {
            return Fate::WholeRead;
        }
        let drawn = mixed(self.number(extent) ^ self.all.seed);
        if !drawn.is_multiple_of(SAMPLED_ONE_IN) {
            return Fate::Taken;
        }
        let drawn = drawn / SAMPLED_ONE_IN;
        let pages = bytes / PAGE_BYTES as u64;
        if drawn.is_multiple_of(SAMPLED_WHOLE_ONE_IN) || pages == 0 {
            return Fate::WholeRead;
        }
        Fate::HeaderRead((drawn / SAMPLED_WHOLE_ONE_IN % pages) as u8)
    }

    /// Where the file's first extent begins in the relation, in pages.
    pub(crate) fn first_page(&self) -> u64 {
        u64::from(self.first) * (EXTENT_BYTES / PAGE_BYTES) as u64
    }

    /// A number of its own for each extent of the cluster, the same in every backup.
    fn number(&self, extent: u32) -> u64 {
        let RelFile { tablespace, database, relation } = self.relation;
        [tablespace, database, relation, extent].into_iter().fold(0, |number, part| mixed(number ^ u64::from(part)))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the outcome depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Which extents are due to be verified, though nothing touched them.
///
/// Each extent has a place on a circle of 2³², by its number. A backup verifies those in an arc, the next one those in
/// the arc after it, so that the circle is closed once in the period. The arcs are as long as if the next backup came
/// as late after this one as this one after its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Where the arc begins.
    from: u32,
    /// How long it is; 2³² is the circle.
    len: u64,
}

/// The whole circle.
const CIRCLE: u64 = 1 << 32;

impl Due {
    /// Nothing is; the circle stays where it is.
    pub(crate) fn nothing(from: u32) -> Self {
        Self { from, len: 0 }
    }

    /// What has to be verified for every page to be verified once in `period`, where the last backup with this circle
    /// ended its arc at `from`, and began so long ago.
    pub(crate) fn in_period(period: Duration, since_parent: Duration, from: u32) -> Self {
        // The last arc of a circle may come late by as much as the backups are apart.
        let left = period.saturating_sub(since_parent).as_millis();
        let len = since_parent.as_millis().saturating_mul(u128::from(CIRCLE)).checked_div(left).unwrap_or(u128::MAX);
        // Rounded up: the arcs of a period are the circle at least.
        Self { from, len: u64::try_from(len).map_or(CIRCLE, |len| (len + 1).min(CIRCLE)) }
    }

    /// Where the next arc begins.
    pub(crate) fn until(&self) -> u32 {
        self.from.wrapping_add(self.len as u32)
    }

    fn is_due(&self, number: u64) -> bool {
        u64::from((number as u32).wrapping_sub(self.from)) < self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const DAY: Duration = Duration::from_secs(86_400);

    fn untouched(due: Due) -> Untouched {
        let mut changes = ChangeSet::new();
        changes.add(RelFile { tablespace: 1663, database: 5, relation: 70 }, &Extents::from(16_384 + 3));
        changes.add(RelFile { tablespace: 1664, database: 0, relation: 71 }, &Extents::all());
        Untouched::new(changes, (Lsn(1), Lsn(2)), 7, due)
    }

    #[test]
    fn only_main_forks_are_taken_over() {
        let untouched = untouched(Due::nothing(0));
        for path in ["base/5/70_fsm", "base/5/70_vm.1", "base/5/70_init", "base/5/PG_VERSION", "pg_xact/0000", "base/5/t3_70"] {
            assert!(untouched.file(path.as_bytes()).is_none(), "{path}");
        }
        let taken = |path: &str, index| untouched.file(path.as_bytes()).unwrap().fate(index, EXTENT_BYTES as u64) != Fate::Read;
        assert!((0..1000).all(|index| taken("base/5/70", index)));
        assert!(taken("base/5/70.1", 2) && !taken("base/5/70.1", 3) && !taken("base/5/70.2", 0));
        assert!(taken("base/6/70.1", 3), "another database");
        assert!(taken("pg_tblspc/99/PG_15_202209061/5/70.1", 3), "another tablespace");
        assert!(!taken("global/71", 0) && taken("global/72", 0));
    }

    #[test]
    fn of_a_hundred_one_is_looked_at() {
        let untouched = untouched(Due::nothing(0));
        let file = untouched.file(b"base/5/80").unwrap();
        let mut fates: BTreeMap<&str, u64> = BTreeMap::new();
        let mut pages = [0; 8];
        for index in 0..400_000 {
            let name = match file.fate(index, EXTENT_BYTES as u64) {
                Fate::HeaderRead(page) => {
                    pages[usize::from(page)] += 1;
                    "page"
                }
                Fate::WholeRead => "whole",
                Fate::Taken => "taken",
                Fate::Read => "read",
            };
            *fates.entry(name).or_default() += 1;
        }
        let looked = fates["page"] + fates["whole"];
        assert!((3600..4400).contains(&looked) && (90..170).contains(&fates["whole"]), "{fates:?}");
        assert!(pages.iter().all(|count| (350..650).contains(count)), "{pages:?}");
        // Of an extent that ends early no page is chosen that is not there.
        assert!((0..100_000).all(|index| !matches!(file.fate(index, 8192), Fate::HeaderRead(1..))));
    }

    /// How many days pass between two verifications of each extent, at most.
    fn longest_wait(period: Duration, gaps: &[u32]) -> u32 {
        let (mut from, mut longest) = (0, 0);
        let mut last = vec![0_u32; 5000];
        let mut now = 0;
        for gap in gaps.iter().cycle().take(400) {
            now += gap;
            let due = Due::in_period(period, DAY * *gap, from);
            from = due.until();
            for (extent, last) in last.iter_mut().enumerate() {
                if due.is_due(mixed(extent as u64)) {
                    longest = longest.max(now - *last);
                    *last = now;
                }
            }
        }
        longest.max(last.iter().map(|last| now - last).max().unwrap())
    }

    #[test]
    fn every_page_is_verified_once_in_the_period() {
        for days in [2, 3, 7, 8, 28, 100] {
            assert!(longest_wait(DAY * days, &[1]) <= days, "{days}");
        }
        assert!(longest_wait(DAY * 28, &[1, 1, 1, 2, 1, 1]) <= 28);
        assert!(longest_wait(DAY * 7, &[7]) <= 7 && longest_wait(DAY * 7, &[9]) <= 9);
        assert_eq!(Due::in_period(Duration::ZERO, Duration::ZERO, 3).len, CIRCLE);
        assert_eq!(Due::in_period(DAY, DAY * 3, 3).len, CIRCLE);
        assert_eq!(Due::in_period(DAY, Duration::ZERO, 3).len, 1);
    }

    #[test]
    fn no_more_is_verified_than_the_period_asks_for() {
        let due = Due::in_period(DAY * 8, DAY, 0);
        let share = (0..100_000).filter(|number| due.is_due(mixed(*number))).count();
        assert!((13_800..14_800).contains(&share), "a seventh: {share}");
        assert!((0..1000).all(|number| !Due::nothing(9).is_due(mixed(number))));
    }
}
