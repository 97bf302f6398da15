//! Extents of one relation.

/// Extents of the main fork of a relation, numbered across its files: extent *n* has the blocks from 8 · *n* on.
///
/// They are kept as runs, sorted, apart from each other; so two that are equal have the same runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extents {
    runs: Vec<Run>,
}

/// From the first extent up to, and without, the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    end: u32,
}

impl Extents {
    /// After the last extent that a relation can have: it has at most 2³² blocks.
    pub const END: u32 = 1 << 29;

    /// None.
    pub const NONE: Self = Self { runs: Vec::new() };

    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// None, with room for so many runs.
    pub fn with_room(runs: usize) -> Self {
        Self { runs: Vec::with_capacity(runs) }
    }

    /// This one and all after it.
    pub fn from(first: u32) -> Self {
        let mut all = Self::new();
        all.push(first, Self::END);
        all
    }

    /// All there can be.
    pub fn all() -> Self {
        Self::from(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether this one is among them. One that cannot be is, if the last one that can be is.
    pub fn contains(&self, extent: u32) -> bool {
        let extent = extent.min(Self::END - 1);
        let after = self.runs.partition_point(|run| run.first <= extent);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|run| extent < run.end)
    }

    /// How many there are; of a set that goes on to the end, all that could be.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.end - run.first)).sum()
    }

    /// The runs in order: first extent, and the end, which is [`END`](Self::END) where it goes on to the last one.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        self.runs.iter().map(|run| (run.first, run.end))
    }

    /// Adds a run that begins no earlier than any run before.
    pub fn push(&mut self, first: u32, end: u32) {
        let end = end.min(Self::END);
        if first >= end {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if first <= last.end => last.end = last.end.max(end),
            _ => self.runs.push(Run { first, end }),
        }
    }

    /// Adds those of another set.
    pub fn union(&mut self, other: &Self) {
        // What is there already costs nothing: the common case once a relation is covered.
        if self.has_all(other) {
            return;
        }
        // As much as there may be: growing step by step takes twice that.
        let room = Vec::with_capacity(self.runs.len() + other.runs.len());
        let (mut left, mut right) =
            (std::mem::replace(&mut self.runs, room).into_iter().peekable(), other.runs.iter().copied().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if b.first < a.first => right.next(),
                (Some(_), _) => left.next(),
                (None, _) => right.next(),
            };
            let Some(run) = next else { return };
            self.push(run.first, run.end);
        }
    }

    /// Whether it has all of another set.
    pub fn has_all(&self, other: &Self) -> bool {
        other.runs.iter().all(|run| self.has_run(*run))
    }

    fn has_run(&self, run: Run) -> bool {
        let after = self.runs.partition_point(|own| own.first <= run.first);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|own| run.end <= own.end)
    }

    /// About what it takes in memory, as one of many.
    pub fn memory_bytes(&self) -> usize {
        128 + size_of::<Run>() * self.runs.len()
    }

    /// Says too much with at most half as many runs, where there is more than one: joins those with the shortest gaps
    /// between them.
    pub fn coarsen(&mut self) {
        let gap = |pair: &[Run]| match pair {
            [a, b] => b.first - a.end,
            _ => 0,
        };
        let mut gaps: Vec<u32> = self.runs.windows(2).map(gap).collect();
        let middle = gaps.len() / 2;
        if gaps.is_empty() {
            return;
        }
        let (_, joined, _) = gaps.select_nth_unstable(middle);
        let joined = *joined;
        let mut coarse: Vec<Run> = Vec::with_capacity(middle + 1);
        for run in self.runs.drain(..) {
            match coarse.last_mut() {
                Some(last) if run.first - last.end <= joined => last.end = run.end,
                _ => coarse.push(run),
            }
        }
        self.runs = coarse;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(extents: &BTreeSet<u32>) -> Extents {
        let mut runs = Extents::new();
        extents.iter().for_each(|extent| runs.push(*extent, extent + 1));
        runs
    }

    fn some() -> impl Strategy<Value = BTreeSet<u32>> {
        prop::collection::btree_set(prop_oneof![0..60_u32, 0..4000_u32, Extents::END - 40..Extents::END], 0..120)
    }

    proptest! {
        #[test]
        fn a_union_has_what_either_has(a in some(), b in some()) {
            let mut union = of(&a);
            union.union(&of(&b));
            prop_assert_eq!(&union, &of(&a.union(&b).copied().collect()));
            for extent in (0..4000).chain(Extents::END - 40..Extents::END) {
                prop_assert_eq!(union.contains(extent), a.contains(&extent) || b.contains(&extent), "{}", extent);
            }
            prop_assert_eq!(union.count(), a.union(&b).count() as u64);
            let apart = union.runs.windows(2).all(|pair| pair[0].end < pair[1].first);
            prop_assert!(apart && union.runs.iter().all(|run| run.first < run.end));
        }

        #[test]
        fn coarser_is_shorter_and_lacks_nothing(a in some()) {
            let fine = of(&a);
            let mut coarse = fine.clone();
            let mut steps = 0;
            while coarse.runs.len() > 1 {
                let before = coarse.runs.len();
                coarse.coarsen();
                prop_assert!(coarse.runs.len() <= before.div_ceil(2), "{} of {}", coarse.runs.len(), before);
                prop_assert!(a.iter().all(|extent| coarse.contains(*extent)));
                prop_assert_eq!(coarse.contains(0), a.contains(&0), "it grows between runs only");
                steps += 1;
            }
            prop_assert!(steps <= 8);
            let mut same = coarse.clone();
            same.coarsen();
            prop_assert_eq!(same, coarse);
        }
    }

    #[test]
    fn to_the_end() {
        assert!(Extents::all().contains(0) && Extents::all().contains(u32::MAX));
        let tail = Extents::from(7);
        assert!(!tail.contains(6) && tail.contains(7) && tail.contains(u32::MAX));
        assert!(Extents::from(Extents::END).is_empty());
    }
}
