//! A bounded cache that threads share: what came first goes first.
//!
//! Lives here: [`FifoCache`]. May not live here: what is cached, and how it is read. Depends on nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values by key, at most as many as it was made for. A new one replaces the oldest. Values are cheap to clone: an
/// `Arc`, or small.
pub struct FifoCache<K, V> {
    capacity: usize,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    values: HashMap<K, V>,
    oldest_first: VecDeque<K>,
}

impl<K: Eq + Hash + Clone, V: Clone> FifoCache<K, V> {
    /// An empty cache for at most this many values.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::new(Entries { values: HashMap::new(), oldest_first: VecDeque::new() }) }
    }

    /// The value of a key, if it is still there.
    pub fn get(&self, key: &K) -> Option<V> {
        self.lock().values.get(key).cloned()
    }

    /// Adds a value. One that replaces another of the same key is as old as that one.
    pub fn insert(&self, key: K, value: V) {
        let mut entries = self.lock();
        if entries.values.insert(key.clone(), value).is_none() {
            entries.oldest_first.push_back(key);
        }
        if entries.oldest_first.len() > self.capacity
            && let Some(oldest) = entries.oldest_first.pop_front()
        {
            entries.values.remove(&oldest);
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
        cache.insert("a", 1);
        cache.insert("b", 2);
        cache.insert("a", 3);
        assert_eq!((cache.get(&"a"), cache.get(&"b")), (Some(3), Some(2)));
        cache.insert("c", 4);
        assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.get(&"c")), (None, Some(2), Some(4)));
        // The same key again and again takes the place of no other.
        for n in 0..1000 {
            cache.insert("c", n);
        }
        assert_eq!((cache.get(&"b"), cache.get(&"c")), (Some(2), Some(999)));
    }
}
