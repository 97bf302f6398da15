//! What a catalog remembers of the names that it listed.
//!
//! Only readers ask here, for whom the log is as it was when they looked. A writer of nodes lists and reads again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::CACHED_NAMES;
use crate::pg::Timeline;

/// Names by timeline and level; level 0 are the segments.
#[derive(Default)]
pub(super) struct NamesCache(Mutex<HashMap<(Timeline, u32), Names>>);

impl NamesCache {
    /// What is known of a level from `low` on, at most `limit` numbers up to `high`, and up to where that is all there
    /// is; `None` if nothing is known of `low`.
    pub(super) fn known(&self, (timeline, level): (Timeline, u32), low: u64, high: u64, limit: usize) -> Option<(Vec<u64>, u64)> {
        self.lock().get(&(timeline, level)).and_then(|names| names.known(low, high, limit))
    }

    /// Remembers that these numbers are all that is there from `low` to `high`, as far as there is room.
    pub(super) fn learn(&self, level: (Timeline, u32), low: u64, high: u64, numbers: Vec<u64>) {
        let mut known = self.lock();
        // What was listed first, the ends of the log, is what is asked for again and again.
        if known.values().map(Names::count).sum::<usize>() + numbers.len() <= CACHED_NAMES {
            known.entry(level).or_default().learn(Part { low, high, numbers });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Timeline, u32), Names>> {
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
    numbers: Vec<u64>,
}

impl Names {
    /// What is known from `low` on, at most `limit` numbers up to `high`, and up to where that is all there is; `None`
    /// if nothing is known of `low`.
    fn known(&self, low: u64, high: u64, limit: usize) -> Option<(Vec<u64>, u64)> {
        let part = self.0.iter().find(|part| part.low <= low && low <= part.high)?;
        let from = part.numbers.partition_point(|number| *number < low);
        let until = part.numbers.partition_point(|number| *number <= high);
        let all = part.numbers.get(from..until).unwrap_or_default();
        match all.get(limit..) {
            None | Some([]) => Some((all.to_vec(), part.high.min(high))),
            Some(_) => {
                let some: Vec<u64> = all.iter().take(limit).copied().collect();
                let last = some.last().copied()?;
                Some((some, last))
            }
        }
    }

    /// Remembers a part, together with those it overlaps or touches.
    fn learn(&mut self, mut new: Part) {
        let touches = |part: &Part| part.low <= new.high.saturating_add(1) && new.low <= part.high.saturating_add(1);
        let (near, far): (Vec<Part>, Vec<Part>) = std::mem::take(&mut self.0).into_iter().partition(touches);
        self.0 = far;
        for part in near {
            new.low = new.low.min(part.low);
            new.high = new.high.max(part.high);
            new.numbers.extend(part.numbers);
        }
        new.numbers.sort_unstable();
        new.numbers.dedup();
        self.0.push(new);
    }

    fn count(&self) -> usize {
        self.0.iter().map(|part| part.numbers.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Names, Part};

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
                    names.learn(Part { low, high, numbers: within(low, high).collect() });
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
}
