//! A map that is bounded in bytes: what was used longest ago goes first.

use std::collections::HashMap;
use std::hash::Hash;

pub(crate) struct Bounded<K, V> {
    entries: HashMap<K, Entry<V>>,
    bytes: usize,
    limit: usize,
    tick: u64,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Bounded<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, limit, tick: 0 }
    }

    /// What everything in it weighs.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.tick += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.tick;
        Some(entry.value.clone())
    }

    /// The value of a key, made if there is none. It weighs nothing until [`Bounded::weigh`] says what it weighs.
    pub(crate) fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> V {
        if let Some(value) = self.get(key) {
            return value;
        }
        let value = make();
        self.entries.insert(key.clone(), Entry { value: value.clone(), bytes: 0, used: self.tick });
        value
    }

    /// Says what a value weighs now, and makes room. A value that alone is over the limit does not stay.
    pub(crate) fn weigh(&mut self, key: &K, bytes: usize) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes = self.bytes - entry.bytes + bytes;
            entry.bytes = bytes;
        }
        self.make_room();
    }

    /// What is in it may weigh so much from now on.
    pub(crate) fn limit(&mut self, bytes: usize) {
        self.limit = bytes;
        self.make_room();
    }

    /// The largest weight that stays.
    pub(crate) fn room(&self) -> usize {
        self.limit
    }

    fn make_room(&mut self) {
        while self.bytes > self.limit {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut cache = Bounded::new(10);
        for key in ["a", "b", "c"] {
            cache.get_or_insert_with(&key, || key);
            cache.weigh(&key, 4);
            cache.get(&"a");
        }
        assert_eq!(cache.get(&"b"), None);
        assert_eq!(cache.get(&"a"), Some("a"));
        cache.weigh(&"a", 11);
        assert_eq!((cache.get(&"a"), cache.bytes), (None, 0));
        for key in ["a", "b"] {
            cache.get_or_insert_with(&key, || key);
            cache.weigh(&key, 5);
        }
        cache.limit(9);
        assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.bytes), (None, Some("b"), 5));
    }
}
