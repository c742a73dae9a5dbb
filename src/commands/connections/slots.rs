//! A table whose values lie in memory in the order in which they came.
//!
//! A capture of HTTP traces reaches the connection that has been idle for longest for each new one. In a plain hash
//! table, it would be anywhere in a megabyte that no processor has near. Here, the table itself is small, and the
//! values are reached one after another.

use std::{collections::HashMap, hash::Hash};

#[derive(Debug)]
pub(super) struct Slots<K, V> {
    /// The slot of each key.
    index: HashMap<K, usize>,
    slots: Vec<Option<V>>,
    free: Vec<usize>,
}

impl<K: Eq + Hash, V> Slots<K, V> {
    pub(super) fn new() -> Self {
        Self { index: HashMap::new(), slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.slots[*self.index.get(key)?].as_ref()
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.slots[*self.index.get(key)?].as_mut()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.index.contains_key(key)
    }

    /// Adds a value, and returns whether it has replaced another one.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(empty) => *empty = Some(value),
            None => self.slots.push(Some(value)),
        }
        let replaced = self.index.insert(key, slot);
        if let Some(slot) = replaced {
            self.slots[slot] = None;
            self.free.push(slot);
        }
        replaced.is_some()
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.index.remove(key)?;
        self.free.push(slot);
        self.slots[slot].take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_are_a_map(steps in prop::collection::vec((any::<bool>(), 0..8_u8, any::<u16>()), 0..200)) {
            let (mut slots, mut model) = (Slots::new(), HashMap::new());
            for (adds, key, value) in steps {
                if adds {
                    prop_assert_eq!(slots.insert(key, value), model.insert(key, value).is_some());
                } else {
                    prop_assert_eq!(slots.remove(&key), model.remove(&key));
                }
                for key in 0..8 {
                    prop_assert_eq!(slots.get(&key), model.get(&key));
                    prop_assert_eq!(slots.contains(&key), model.contains_key(&key));
                }
            }
            prop_assert!(slots.slots.len() <= 9);
        }
    }
}
