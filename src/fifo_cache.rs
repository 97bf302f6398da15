//! A bounded cache that threads share: what came first goes first.
//!
//! Lives here: [`FifoCache`]. May not live here: what is cached, and how it is read. Depends on nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values by key, together no heavier than it was made for: a weight is what the caller says, bytes or just 1. A new
/// one replaces the oldest ones; one that is heavier than all of it is not kept. Values are cheap to clone: an `Arc`,
/// or small.
pub struct FifoCache<K, V> {
    capacity: usize,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    values: HashMap<K, (V, usize)>,
    oldest_first: VecDeque<K>,
    weight: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> FifoCache<K, V> {
    /// An empty cache for values of at most this weight together.
    pub fn new(capacity: usize) -> Self {
        let entries = Entries { values: HashMap::new(), oldest_first: VecDeque::new(), weight: 0 };
        Self { capacity, entries: Mutex::new(entries) }
    }

    /// The value of a key, if it is still there.
    pub fn get(&self, key: &K) -> Option<V> {
        self.lock().values.get(key).map(|(value, _)| value.clone())
    }

    /// Adds a value. One that replaces another of the same key is as old as that one.
    pub fn insert(&self, key: K, value: V, weight: usize) {
        if weight > self.capacity {
            return;
        }
        let mut entries = self.lock();
        entries.weight += weight;
        match entries.values.insert(key.clone(), (value, weight)) {
            Some((_, before)) => entries.weight -= before,
            None => entries.oldest_first.push_back(key),
        }
        while entries.weight > self.capacity
            && let Some(oldest) = entries.oldest_first.pop_front()
        {
            let gone = entries.values.remove(&oldest).map_or(0, |(_, weight)| weight);
            entries.weight -= gone;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::FifoCache;

    #[test]
    fn the_oldest_value_goes_first() {
        let cache = FifoCache::new(2);
        cache.insert("a", 1, 1);
        cache.insert("b", 2, 1);
        cache.insert("a", 3, 1);
        assert_eq!((cache.get(&"a"), cache.get(&"b")), (Some(3), Some(2)));
        cache.insert("c", 4, 1);
        assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.get(&"c")), (None, Some(2), Some(4)));
        // The same key again and again takes the place of no other.
        for n in 0..1000 {
            cache.insert("c", n, 1);
        }
        assert_eq!((cache.get(&"b"), cache.get(&"c")), (Some(2), Some(999)));
    }

    #[test]
    fn a_heavy_value_replaces_several_and_one_that_is_too_heavy_none() {
        let cache = FifoCache::new(10);
        (0..10).for_each(|n| cache.insert(n, n, 1));
        cache.insert(10, 10, 4);
        assert_eq!((0..11).filter(|n| cache.get(n).is_some()).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9, 10]);
        cache.insert(11, 11, 11);
        assert_eq!((0..12).filter(|n| cache.get(n).is_some()).count(), 7);
        // In the place of a lighter one.
        cache.insert(10, 100, 10);
        assert_eq!((0..12).filter_map(|n| cache.get(&n)).collect::<Vec<_>>(), [100]);
        assert_eq!(cache.lock().weight, 10);
    }
}
