//! What a catalog remembers of the names that it listed.
//!
//! Only readers ask here, for whom the log is as it was when they looked. A writer of nodes lists and reads again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::CACHED_NAME_RUNS;
use crate::pg::Timeline;
use crate::repo::object_set::Runs;

/// Names by timeline and level; level 0 are the segments.
#[derive(Default)]
pub(super) struct NamesCache(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_level: HashMap<(Timeline, u32), Names>,
    /// How many runs of numbers all of them have.
    runs: usize,
}

impl NamesCache {
    /// What is known of a level from `low` on, at most `limit` numbers up to `high`, and up to where that is all there
    /// is; `None` if nothing is known of `low`.
    pub(super) fn known(&self, (timeline, level): (Timeline, u32), low: u64, high: u64, limit: usize) -> Option<(Vec<u64>, u64)> {
        self.lock().by_level.get(&(timeline, level)).and_then(|names| names.known(low, high, limit))
    }

    /// Remembers that these numbers are all that is there from `low` to `high`, as far as there is room.
    pub(super) fn learn(&self, level: (Timeline, u32), low: u64, high: u64, numbers: &[u64]) {
        let mut known = self.lock();
        // What was listed first, the ends of the log, is what is asked for again and again.
        if known.runs >= CACHED_NAME_RUNS {
            return;
        }
        let mut part = Part { low, high, numbers: Runs::default() };
        numbers.iter().for_each(|number| part.numbers.insert(*number));
        let names = known.by_level.entry(level).or_default();
        let before = names.runs();
        names.learn(part);
        let after = names.runs();
        known.runs = (known.runs + after).saturating_sub(before);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of one level that were listed, in any order and without overlap.
#[derive(Default)]
struct Names(Vec<Part>);

/// What is there from `low` to `high`, these included.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    low: u64,
    high: u64,
    numbers: Runs,
}

impl Names {
    /// What is known from `low` on, at most `limit` numbers up to `high`, and up to where that is all there is; `None`
    /// if nothing is known of `low`.
    fn known(&self, low: u64, high: u64, limit: usize) -> Option<(Vec<u64>, u64)> {
        let part = self.0.iter().find(|part| part.low <= low && low <= part.high)?;
        let mut all = part.numbers.within(low, high).flat_map(|(first, last)| first..=last);
        let some: Vec<u64> = all.by_ref().take(limit).collect();
        let until = match all.next() {
            None => part.high.min(high),
            Some(_) => some.last().copied()?,
        };
        Some((some, until))
    }

    /// Remembers a part, together with those it overlaps or touches.
    fn learn(&mut self, mut new: Part) {
        let touches = |part: &Part| part.low <= new.high.saturating_add(1) && new.low <= part.high.saturating_add(1);
        let (near, far): (Vec<Part>, Vec<Part>) = std::mem::take(&mut self.0).into_iter().partition(touches);
        self.0 = far;
        for part in near {
            new.low = new.low.min(part.low);
            new.high = new.high.max(part.high);
            part.numbers.iter().for_each(|(first, last)| new.numbers.insert_run(first, last));
        }
        self.0.push(new);
    }

    fn runs(&self) -> usize {
        self.0.iter().map(|part| part.numbers.runs()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{CACHED_NAME_RUNS, Names, NamesCache, Part, Runs, Timeline};

    /// Whatever is listed in whatever order, what is said to be known is what is there.
    #[test]
    fn what_is_known_is_what_was_listed() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut answered = 0;
        for _ in 0..200 {
            let there: Vec<u64> = (0..200).filter(|_| random.bool()).collect();
            let within = |low: u64, high: u64| there.iter().copied().filter(move |n| low <= *n && *n <= high);
            let mut names = Names::default();
            for _ in 0..30 {
                let low = random.u64(0..200);
                let high = if random.u8(..5) == 0 { u64::MAX } else { random.u64(low..200) };
                if random.bool() {
                    let mut numbers = Runs::default();
                    within(low, high).for_each(|number| numbers.insert(number));
                    names.learn(Part { low, high, numbers });
                    continue;
                }
                let limit = random.usize(1..40);
                let Some((numbers, until)) = names.known(low, high, limit) else { continue };
                answered += 1;
                assert!(low <= until && until <= high && numbers.len() <= limit);
                assert!(numbers.iter().copied().eq(within(low, until)), "{numbers:?} {low} {until}");
                // Less than what was asked for only where no more is known.
                assert!(until == high || numbers.len() == limit || names.known(until + 1, high, 1).is_none());
            }
            let mut parts: Vec<(u64, u64)> = names.0.iter().map(|part| (part.low, part.high)).collect();
            parts.sort_unstable();
            assert!(parts.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{parts:?}");
        }
        assert!(answered > 500, "{answered}");
    }

    #[test]
    fn a_long_log_takes_one_run_and_many_holes_have_a_bound() {
        let cache = NamesCache::default();
        let level = (Timeline(1), 0);
        for first in (0..1_000_000).step_by(500) {
            cache.learn(level, first, first + 499, &(first..first + 500).collect::<Vec<u64>>());
        }
        assert_eq!(cache.lock().runs, 1);
        assert_eq!(cache.known(level, 999_990, u64::MAX, 100), Some(((999_990..1_000_000).collect(), 999_999)));
        for first in (0..400_000).step_by(1000) {
            let every_other: Vec<u64> = (first..first + 1000).step_by(2).collect();
            cache.learn((Timeline(2), 0), first, first + 999, &every_other);
        }
        let runs = cache.lock().runs;
        assert!((CACHED_NAME_RUNS..CACHED_NAME_RUNS + 500).contains(&runs), "{runs}");
    }
}
