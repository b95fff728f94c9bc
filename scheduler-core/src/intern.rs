//! Shared values: a million jobs that ask for the same thing keep one copy of it, freed with the last of them.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::hash::hash_of;
use crate::slab::{Index, Slab};

struct Shared<T> {
    value: Arc<T>,
    refs: u32,
    /// The caller's mark that the value was checked and need not be again.
    checked: bool,
}

/// Values counted by reference.
pub(crate) struct Interner<I, T> {
    values: Slab<I, Shared<T>>,
    table: HashTable<I>,
}

impl<I: Index, T: Hash + Eq> Interner<I, T> {
    pub(crate) const fn new() -> Self {
        Self { values: Slab::new(), table: HashTable::new() }
    }

    /// The index of this value, with one reference more.
    pub(crate) fn acquire(&mut self, value: &Arc<T>) -> I {
        let hash = hash_of(&**value);
        let values = &mut self.values;
        let same = |index: &I| Arc::ptr_eq(&values[*index].value, value) || *values[*index].value == **value;
        if let Some(&index) = self.table.find(hash, same) {
            values[index].refs += 1;
            return index;
        }
        let index = values.insert(Shared { value: Arc::clone(value), refs: 1, checked: false });
        self.table.insert_unique(hash, index, |index| hash_of(&*values[*index].value));
        index
    }

    /// One reference less; the last one frees the value.
    pub(crate) fn release(&mut self, index: I) {
        let shared = &mut self.values[index];
        shared.refs -= 1;
        if shared.refs > 0 {
            return;
        }
        let hash = hash_of(&*shared.value);
        if let Ok(entry) = self.table.find_entry(hash, |found| found.position() == index.position()) {
            entry.remove();
        }
        self.values.remove(index);
    }

    pub(crate) fn get(&self, index: I) -> &Arc<T> {
        &self.values[index].value
    }

    /// True when an equal value is there and was marked as checked.
    pub(crate) fn is_checked(&self, value: &T) -> bool {
        let values = &self.values;
        self.table.find(hash_of(value), |index| *values[*index].value == *value).is_some_and(|&index| values[index].checked)
    }

    pub(crate) fn set_checked(&mut self, index: I) {
        self.values[index].checked = true;
    }

    /// Forgets all marks.
    pub(crate) fn clear_checked(&mut self) {
        for shared in self.values.iter_mut() {
            shared.checked = false;
        }
    }

    /// Every value with its number of references.
    pub(crate) fn refs(&self) -> impl Iterator<Item = (I, u32)> {
        self.values.iter().map(|(index, shared)| (index, shared.refs))
    }

    /// True when table and values agree.
    pub(crate) fn is_consistent(&self) -> bool {
        self.table.len() == self.values.len()
            && self.values.iter().all(|(index, shared)| {
                let hash = hash_of(&*shared.value);
                self.table.find(hash, |found| found.position() == index.position()).is_some()
            })
    }
}
