//! What a catalog remembers of what it listed and read: the walks of one command go over the same ends of the log and the same nodes.
//!
//! Only readers ask here, for whom the log is as it was when they looked. Whoever writes nodes lists and reads anew.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Catalog;
use crate::error::Error;
use crate::format::node::{Node, NodeId};
use crate::pg::Timeline;

/// Most nodes remembered: about 2 MB.
const MAX_NODES: usize = 512;
/// Most names remembered: 8 bytes each.
const MAX_NAMES: usize = 1 << 16;

/// Nodes and names.
#[derive(Default)]
pub(super) struct CatalogCache {
    nodes: Mutex<Nodes>,
    /// By timeline and level; level 0 are the segments.
    names: Mutex<HashMap<(Timeline, u32), Names>>,
}

#[derive(Default)]
struct Nodes {
    by_id: HashMap<NodeId, Arc<Node>>,
    oldest_first: VecDeque<NodeId>,
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
    /// What is known from `low` on, at most `limit` numbers up to `high`, and up to where that is all there is; `None` if nothing is
    /// known of `low`.
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catalog<'_> {
    /// As [`read_node`](Self::read_node), read once. Only what is there is remembered.
    pub(super) fn known_node(&self, id: NodeId) -> Result<Option<Arc<Node>>, Error> {
        if let Some(node) = locked(&self.listed.nodes).by_id.get(&id) {
            return Ok(Some(Arc::clone(node)));
        }
        let Some(node) = self.read_node(id)?.map(Arc::new) else { return Ok(None) };
        let mut nodes = locked(&self.listed.nodes);
        if nodes.by_id.insert(id, Arc::clone(&node)).is_none() {
            nodes.oldest_first.push_back(id);
            if nodes.oldest_first.len() > MAX_NODES
                && let Some(oldest) = nodes.oldest_first.pop_front()
            {
                nodes.by_id.remove(&oldest);
            }
        }
        Ok(Some(node))
    }

    /// The numbers of the stored nodes of a level, at level 0 of the segments, from `low` to `high`, at most `limit`; and whether these
    /// are all for sure. Listed once, as far as there is room to remember it.
    pub(super) fn known_names(
        &self,
        timeline: Timeline,
        level: u32,
        low: u64,
        high: u64,
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Error> {
        let known = locked(&self.listed.names).get(&(timeline, level)).and_then(|names| names.known(low, high, limit));
        let (mut numbers, next) = match known {
            Some((numbers, until)) if until >= high || numbers.len() >= limit => return Ok((numbers, until >= high)),
            Some((numbers, until)) => (numbers, until + 1),
            None => (Vec::new(), low),
        };
        let room = limit - numbers.len();
        let (listed, whole) = match level {
            0 => self.segments_after(timeline, next.checked_sub(1), high, room)?,
            _ => self.nodes_in(timeline, level, next, high, room)?,
        };
        numbers.extend_from_slice(&listed);
        let until = if whole { Some(high) } else { listed.last().copied() };
        if let Some(high) = until.filter(|until| *until >= next) {
            let mut known = locked(&self.listed.names);
            // What was listed first, the ends of the log, is what is asked for again and again.
            if known.values().map(Names::count).sum::<usize>() + listed.len() <= MAX_NAMES {
                known.entry((timeline, level)).or_default().learn(Part { low: next, high, numbers: listed });
            }
        }
        Ok((numbers, whole))
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
