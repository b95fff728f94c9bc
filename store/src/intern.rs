//! What many jobs share, as numbers: a writer's memory of a table whose rows never change.
//!
//! It is bounded. What it has forgotten gets another row when it comes again, which costs that row and breaks nothing; duplicates
//! that no job uses any more are removed when a store is opened.

use std::collections::HashMap;
use std::hash::Hash;

/// Most entries of each kind that are remembered.
pub(crate) const MOST: usize = 16_384;

/// Values and the ids of their rows.
pub(crate) struct Ids<K> {
    ids: HashMap<K, i64>,
    last: i64,
}

impl<K> Default for Ids<K> {
    fn default() -> Self {
        Self { ids: HashMap::new(), last: 0 }
    }
}

impl<K: Clone + Eq + Hash> Ids<K> {
    /// Remembers a row that is there. Of several with one value the first that is told counts.
    pub(crate) fn remember(&mut self, id: i64, key: K) {
        self.last = self.last.max(id);
        self.ids.entry(key).or_insert(id);
    }

    /// The id of this value, which `insert` makes a row of where there is none.
    pub(crate) fn id_of<E>(&mut self, key: &K, insert: impl FnOnce(i64) -> Result<(), E>) -> Result<i64, E> {
        if let Some(id) = self.ids.get(key) {
            return Ok(*id);
        }
        if self.ids.len() >= MOST {
            self.ids.clear();
        }
        let id = self.last + 1;
        insert(id)?;
        self.last = id;
        self.ids.insert(key.clone(), id);
        Ok(id)
    }
}
