//! The bytes of a change set: what a segment, or the segments under a node, changed.
//!
//! # Encoding, version 1
//! Numbers are LEB128 of the shortest form.
//!
//! | part | fields |
//! |---|---|
//! | version | byte 1 |
//! | span | timeline; binary logarithm of the segment size; level: 0 for a segment; number: it covers the segments from number × 16^level on |
//! | everything | 0; or 1 unreadable, 2 `wal_level = minimal`, 3 too much, and the number of the segment that says so: then nothing follows |
//! | tablespaces | count; the first, then of each the distance from the one before, less 1 |
//! | databases | count; of each 0 and the distance from the one before, less 1; or 1, tablespace, database |
//! | relations | count; of each twice the distance from the one before, less 1, if it is of the same database; or 1, tablespace, database, relation; then its runs |
//! | runs | count, at least 1; of each twice the number of extents between it and the one before (at first: before it), plus 0 if it has one extent; plus 1 if a number follows: 0 it goes on to the end, else one less than its extents |
//!
//! Every byte string that decodes is the only encoding of its set.

use crate::format::node::{NodeId, span};
use crate::limits::{CHANGES_SHARE, MAX_CHANGES_BYTES, MAX_CHANGES_LEVEL, MAX_SEGMENT_CHANGES_BYTES};
use crate::pg::changes::{ChangeSet, Everything, Extents, Why};
use crate::pg::scan::{DatabaseFiles, RelFile, Segment};
use crate::pg::{Timeline, WalSegmentSize};
use crate::varint::{put_varint, take_varint};

const VERSION: u8 = 1;

/// Why bytes are not a change set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangesError {
    /// Written by another version of Walvis.
    #[error("the change set has format version {0}, this Walvis knows {VERSION}")]
    Version(u8),
    /// Not what is written.
    #[error("the change set is damaged: its {0} is wrong")]
    Part(&'static str),
}

/// What a change set is of: a segment, which is level 0 here, or the segments under a node.
pub fn span_of(segment: Segment) -> Option<NodeId> {
    let size = WalSegmentSize::new(segment.size_bytes())?;
    Some(NodeId { timeline: segment.timeline(), size, level: 0, number: segment.start().0 / size.bytes() })
}

/// The bytes that a change set may take.
pub fn limit_bytes(span: NodeId) -> usize {
    match span.level {
        0 => usize::try_from(span.size.bytes() / CHANGES_SHARE).unwrap_or(usize::MAX).min(MAX_SEGMENT_CHANGES_BYTES),
        _ => MAX_CHANGES_BYTES,
    }
}

/// Encodes a change set, and makes it coarser first if it would be longer than [`limit_bytes`]: whoever makes the set
/// of the same segments makes the same bytes.
pub fn encode(span: NodeId, set: &ChangeSet) -> Vec<u8> {
    let limit = limit_bytes(span);
    let bytes = encode_whole(span, set);
    if bytes.len() <= limit {
        return bytes;
    }
    let mut coarse = set.clone();
    // The header, and the counts.
    coarse.shrink(limit.saturating_sub(HEADER_BYTES), span.first(), encoded_bytes);
    encode_whole(span, &coarse)
}

/// Version, span, and three counts, at most.
const HEADER_BYTES: usize = 64;
/// What stands in front of the runs of a relation, at most: 1, three numbers, their count.
const RELATION_BYTES: usize = 1 + 3 * 5 + 5;

/// What a relation takes, at most.
fn encoded_bytes(extents: &Extents) -> usize {
    let mut end = 0;
    let of_run = |(first, run_end): (u32, u32)| {
        let gap = varint_bytes(u64::from(first - end) * 2 + 1);
        end = run_end;
        gap + if run_end - first == 1 { 0 } else { varint_bytes((run_end - first).into()) }
    };
    RELATION_BYTES + extents.runs().map(of_run).sum::<usize>()
}

fn varint_bytes(value: u64) -> usize {
    (64 - value.leading_zeros() as usize).div_ceil(7).max(1)
}

fn encode_whole(span: NodeId, set: &ChangeSet) -> Vec<u8> {
    let mut out = vec![VERSION];
    for number in [span.timeline.0.into(), span.size.bytes().trailing_zeros().into(), span.level.into(), span.number] {
        put_varint(&mut out, number);
    }
    if let Some(Everything { segment, why }) = set.is_everything() {
        put_varint(&mut out, 1 + WHYS.iter().position(|known| *known == why).unwrap_or_default() as u64);
        put_varint(&mut out, segment);
        return out;
    }
    put_varint(&mut out, 0);
    put_varint(&mut out, set.tablespaces().len() as u64);
    let mut before: Option<u32> = None;
    for tablespace in set.tablespaces() {
        put_varint(&mut out, before.map_or(tablespace, |before| tablespace.wrapping_sub(before).wrapping_sub(1)).into());
        before = Some(tablespace);
    }
    put_varint(&mut out, set.databases().len() as u64);
    let mut before: Option<DatabaseFiles> = None;
    for files in set.databases() {
        match before.filter(|before| before.tablespace == files.tablespace) {
            Some(before) => {
                put_varint(&mut out, 0);
                put_varint(&mut out, files.database.wrapping_sub(before.database).wrapping_sub(1).into());
            }
            None => [1, files.tablespace, files.database].iter().for_each(|number| put_varint(&mut out, (*number).into())),
        }
        before = Some(files);
    }
    put_varint(&mut out, set.relations().len() as u64);
    let mut before: Option<RelFile> = None;
    for (rel, extents) in set.relations() {
        match before.filter(|before| (before.tablespace, before.database) == (rel.tablespace, rel.database)) {
            Some(before) => put_varint(&mut out, u64::from(rel.relation.wrapping_sub(before.relation).wrapping_sub(1)) * 2),
            None => [1, rel.tablespace, rel.database, rel.relation].iter().for_each(|n| put_varint(&mut out, (*n).into())),
        }
        before = Some(rel);
        put_runs(&mut out, extents);
    }
    out
}

const WHYS: [Why; 3] = [Why::Unreadable, Why::Minimal, Why::TooMuch];

fn put_runs(out: &mut Vec<u8>, extents: &Extents) {
    put_varint(out, extents.runs().len() as u64);
    let mut before = 0;
    for (first, end) in extents.runs() {
        let (gap, len) = (u64::from(first - before) * 2, u64::from(end - first));
        before = end;
        if end == Extents::END {
            put_varint(out, gap + 1);
            put_varint(out, 0);
        } else if len == 1 {
            put_varint(out, gap);
        } else {
            put_varint(out, gap + 1);
            put_varint(out, len - 1);
        }
    }
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// Unknown versions, and anything that is not written, trailing bytes included.
pub fn decode(bytes: &[u8]) -> Result<(NodeId, ChangeSet), ChangesError> {
    let (version, rest) = bytes.split_first().ok_or(ChangesError::Part("version"))?;
    if *version != VERSION {
        return Err(ChangesError::Version(*version));
    }
    let mut reader = Reader(rest);
    let span = reader.span().ok_or(ChangesError::Part("span"))?;
    let mut set = ChangeSet::new();
    let everything = reader.everything(span).ok_or(ChangesError::Part("reason for everything"))?;
    if let Some(everything) = everything {
        set = ChangeSet::everything(everything);
    } else {
        reader.tablespaces(&mut set).ok_or(ChangesError::Part("list of tablespaces"))?;
        reader.databases(&mut set).ok_or(ChangesError::Part("list of databases"))?;
        reader.relations(&mut set).ok_or(ChangesError::Part("list of relations"))?;
    }
    if reader.0.is_empty() { Ok((span, set)) } else { Err(ChangesError::Part("length")) }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        take_varint(&mut self.0)
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn span(&mut self) -> Option<NodeId> {
        let timeline = Timeline(self.u32()?);
        let size = WalSegmentSize::new(1_u64.checked_shl(self.u32().filter(|log| *log < 64)?)?)?;
        let level = self.u32().filter(|level| *level <= MAX_CHANGES_LEVEL)?;
        let number = self.number()?;
        // All segments that it covers can exist.
        number.checked_add(1)?.checked_mul(span(level))?.checked_mul(size.bytes())?;
        Some(NodeId { timeline, size, level, number })
    }

    fn everything(&mut self, span: NodeId) -> Option<Option<Everything>> {
        match usize::try_from(self.number()?).ok()? {
            0 => Some(None),
            why => {
                let why = *WHYS.get(why - 1)?;
                let segment = self.number().filter(|segment| (span.first()..=span.last()).contains(segment))?;
                Some(Some(Everything { segment, why }))
            }
        }
    }

    /// The next of ascending numbers.
    fn after(&mut self, before: Option<u32>) -> Option<u32> {
        let number = self.u32()?;
        match before {
            None => Some(number),
            Some(before) => before.checked_add(1)?.checked_add(number),
        }
    }

    fn tablespaces(&mut self, set: &mut ChangeSet) -> Option<()> {
        let mut before = None;
        for _ in 0..self.number()? {
            let tablespace = self.after(before)?;
            set.add_tablespace(tablespace);
            before = Some(tablespace);
        }
        Some(())
    }

    fn databases(&mut self, set: &mut ChangeSet) -> Option<()> {
        let mut before: Option<DatabaseFiles> = None;
        for count in 0..self.number()? {
            let files = match (self.number()?, before) {
                (0, Some(before)) => DatabaseFiles { database: self.after(Some(before.database))?, ..before },
                (1, _) => {
                    let files = DatabaseFiles { tablespace: self.u32()?, database: self.u32()? };
                    before.is_none_or(|before| before.tablespace < files.tablespace).then_some(files)?
                }
                _ => return None,
            };
            set.add_database(files);
            // One of a tablespace that is there as a whole is not written.
            if set.databases().len() as u64 != count + 1 {
                return None;
            }
            before = Some(files);
        }
        Some(())
    }

    fn relations(&mut self, set: &mut ChangeSet) -> Option<()> {
        let mut before: Option<RelFile> = None;
        for count in 0..self.number()? {
            let rel = match (self.number()?, before) {
                (1, _) => {
                    let rel = RelFile { tablespace: self.u32()?, database: self.u32()?, relation: self.u32()? };
                    let place = |rel: RelFile| (rel.tablespace, rel.database);
                    before.is_none_or(|before| place(before) < place(rel)).then_some(rel)?
                }
                (step, Some(before)) if step.is_multiple_of(2) => {
                    let step = u32::try_from(step / 2).ok()?;
                    RelFile { relation: before.relation.checked_add(1)?.checked_add(step)?, ..before }
                }
                _ => return None,
            };
            set.add_owned(rel, self.runs()?);
            if set.relations().len() as u64 != count + 1 {
                return None;
            }
            before = Some(rel);
        }
        Some(())
    }

    fn runs(&mut self) -> Option<Extents> {
        let count = self.number().filter(|count| *count > 0)?;
        // A run takes a byte at least: what is claimed beyond that is not there.
        let mut extents = Extents::with_room(usize::try_from(count).ok()?.min(self.0.len()));
        let mut before = 0_u64;
        for number in 0..count {
            let gap = self.number()?;
            let first = before.checked_add(gap / 2).filter(|first| *first < u64::from(Extents::END))?;
            // Runs that touch are one run.
            if number > 0 && gap < 2 {
                return None;
            }
            // To the end has a form of its own.
            let within = |end: &u64| *end < u64::from(Extents::END);
            let end = match gap % 2 {
                0 => Some(first + 1).filter(within)?,
                _ => match self.number()? {
                    0 => Extents::END.into(),
                    more => first.checked_add(more)?.checked_add(1).filter(within)?,
                },
            };
            extents.push(u32::try_from(first).ok()?, u32::try_from(end).ok()?);
            before = end;
        }
        Some(extents)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn span(level: u32) -> NodeId {
        NodeId { timeline: Timeline(3), size: WalSegmentSize::new(16 << 20).unwrap(), level, number: 77 }
    }

    fn extents() -> impl Strategy<Value = Extents> {
        let near = (0..3000_u32, 1..4_u32);
        let far = (any::<u32>(), 1..100_000_u32);
        vec(prop_oneof![4 => near, 1 => far], 1..60).prop_map(|runs| {
            let mut all = Extents::new();
            for (first, len) in runs {
                let mut one = Extents::new();
                one.push(first % Extents::END, (first % Extents::END).saturating_add(len));
                all.union(&one);
            }
            all
        })
    }

    fn relation() -> impl Strategy<Value = RelFile> {
        let oid = || prop_oneof![3 => 0..6_u32, 1 => any::<u32>()];
        (oid(), oid(), oid()).prop_map(|(tablespace, database, relation)| RelFile { tablespace, database, relation })
    }

    fn set() -> impl Strategy<Value = ChangeSet> {
        let whole = (btree_set(0..8_u32, 0..3), btree_set((0..8_u32, 0..8_u32), 0..6));
        let listed = (whole, vec((relation(), extents()), 0..30)).prop_map(|((tablespaces, databases), relations)| {
            let mut set = ChangeSet::new();
            relations.iter().for_each(|(relation, extents)| set.add(*relation, extents));
            databases.into_iter().for_each(|(tablespace, database)| set.add_database(DatabaseFiles { tablespace, database }));
            tablespaces.into_iter().for_each(|tablespace| set.add_tablespace(tablespace));
            set
        });
        let everything = (0..3_usize).prop_map(|why| ChangeSet::everything(Everything { segment: 77, why: WHYS[why] }));
        prop_oneof![9 => listed, 1 => everything]
    }

    /// Whether `more` has all that `less` has, in two ways.
    fn has_all(more: &ChangeSet, less: &ChangeSet) -> bool {
        let mut union = more.clone();
        union.union(less);
        // What a database covers is not kept, so nothing is added exactly if nothing was missing.
        assert_eq!(union == *more, more.has_all(less));
        union == *more
    }

    proptest! {
        #[test]
        fn sets_come_back_and_every_change_is_another_set_or_none(set in set(), at: prop::sample::Index, bit in 0..8_u8) {
            let bytes = encode(span(0), &set);
            prop_assert_eq!(decode(&bytes), Ok((span(0), set)));
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_err());
            let mut other = bytes.clone();
            other[at] ^= 1_u8 << bit;
            if let Ok((span, set)) = decode(&other) {
                prop_assert_eq!(encode_whole(span, &set), other);
            }
            prop_assert!(decode(&[bytes, vec![0]].concat()).is_err());
        }

        #[test]
        fn foreign_bytes_are_no_sets_and_no_panic(mut bytes in vec(prop_oneof![0..6_u8, any::<u8>()], 0..200)) {
            // As far as to the lists.
            let head = encode_whole(span(0), &ChangeSet::new());
            bytes.splice(0..0, head[..head.len() - 4].iter().copied());
            if let Ok((span, set)) = decode(&bytes) {
                prop_assert_eq!(encode_whole(span, &set), bytes);
            }
        }

        #[test]
        fn what_is_too_long_is_coarser_and_lacks_nothing(set in set(), limit in 0..2000_usize) {
            let mut coarse = set.clone();
            coarse.shrink(limit, 77, encoded_bytes);
            prop_assert!(has_all(&coarse, &set));
            prop_assert!(coarse.is_everything().is_some() || encode_whole(span(0), &coarse).len() <= limit + HEADER_BYTES);
            prop_assert!(encode_whole(span(0), &set).len() > limit || coarse.is_everything() == set.is_everything() || limit < 600);
        }

        #[test]
        fn a_union_has_all_of_both_in_any_order(a in set(), b in set(), c in set()) {
            let union = |sets: [&ChangeSet; 3]| {
                let mut all = ChangeSet::new();
                sets.iter().for_each(|set| all.union(set));
                all
            };
            let all = union([&a, &b, &c]);
            prop_assert!(has_all(&all, &a) && has_all(&all, &b) && has_all(&all, &c));
            prop_assert_eq!(&all, &union([&c, &b, &a]));
            prop_assert_eq!(&all, &union([&b, &c, &a]));
            for set in [&a, &b, &c] {
                for (relation, extents) in set.relations() {
                    let touched = extents.runs().all(|(first, end)| all.touched(relation, 0, first) && all.touched(relation, 0, end - 1));
                    prop_assert!(touched);
                }
            }
        }
    }

    #[test]
    fn a_long_set_fits_into_its_share_of_a_segment() {
        let mut set = ChangeSet::new();
        // Far apart, so that each takes two bytes.
        let mut random = fastrand::Rng::with_seed(7);
        for relation in 0..3 {
            let (mut extents, mut next) = (Extents::new(), 0);
            for _ in 0..100_000 >> (2 * relation) {
                next += random.u32(70..500);
                extents.push(next, next + 1);
            }
            set.add(RelFile { tablespace: 1663, database: 5, relation }, &extents);
        }
        let bytes = encode(span(0), &set);
        assert!((60_000..=limit_bytes(span(0))).contains(&bytes.len()), "{}", bytes.len());
        let (_, coarse) = decode(&bytes).unwrap();
        assert!(has_all(&coarse, &set));
        let of = |relation| RelFile { tablespace: 1663, database: 5, relation };
        for (relation, is_the_same) in [(0, false), (1, true), (2, true)] {
            let same = coarse.extents(of(relation)) == set.extents(of(relation));
            assert_eq!(same, is_the_same, "the longest is coarser, and no other: {relation}");
        }

        // As many relations as do not fit.
        let mut many = ChangeSet::new();
        let kept = RelFile { tablespace: 1663, database: 4, relation: 9 };
        many.add(kept, &Extents::from(4));
        (0..50_000)
            .for_each(|relation| many.add(RelFile { tablespace: 1663, database: 5, relation: relation * 2 }, &Extents::from(4)));
        let (_, coarse) = decode(&encode(span(0), &many)).unwrap();
        assert_eq!((coarse.databases().len(), coarse.relations().len()), (1, 1));
        assert!(has_all(&coarse, &many) && !coarse.touched(kept, 0, 3));
        let mut databases = ChangeSet::new();
        // Far apart, so that each takes four bytes.
        (0..50_000).for_each(|number| databases.add_database(DatabaseFiles { tablespace: 1663, database: number * 80_000 }));
        let (_, everything) = decode(&encode(span(0), &databases)).unwrap();
        assert_eq!(everything.is_everything(), Some(Everything { segment: 77, why: Why::TooMuch }));
    }

    #[test]
    fn a_random_extent_takes_about_a_byte() {
        let mut extents = Extents::new();
        let mut random = fastrand::Rng::with_seed(7);
        let mut numbers: Vec<u32> = (0..35_000).map(|_| random.u32(0..160_000)).collect();
        numbers.sort_unstable();
        numbers.iter().for_each(|number| extents.push(*number, number + 1));
        let mut set = ChangeSet::new();
        set.add(RelFile { tablespace: 1663, database: 5, relation: 1 }, &extents);
        let bytes = encode(span(0), &set);
        assert!(bytes.len() < 36_000, "{}", bytes.len());
        assert_eq!(decode(&bytes), Ok((span(0), set)));
    }
}
