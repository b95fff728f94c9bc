//! Shared values: a million jobs that ask for the same thing keep one copy of it, freed with the last of them.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::hash::hash_of;
use crate::slab::{Index, Slab};

struct Shared<T> {
    value: Arc<T>,
    /// Kept: a value is hashed once when it comes, not again when the table grows and when it goes.
    hash: u32,
    /// How many have it, and [`CHECKED`].
    refs: u32,
}

/// The caller's mark that a value was checked and need not be again; beside the count, because a million jobs may have a value each.
const CHECKED: u32 = 1 << 31;

/// The hash that a table wants: both ends of it are looked at.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What came of looking for a value.
#[derive(Clone, Copy)]
pub(crate) struct Found<I> {
    hash: u32,
    index: Option<I>,
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

    /// Looks a value up, for [`acquire_found`](Self::acquire_found).
    pub(crate) fn find(&self, value: &T) -> Found<I> {
        let hash = hash_of(value) as u32;
        let same = |index: &I| {
            let shared = &self.values[*index];
            shared.hash == hash && (std::ptr::eq(&raw const *shared.value, value) || *shared.value == *value)
        };
        Found { hash, index: self.table.find(spread(hash), same).copied() }
    }

    /// The index of this value, with one reference more.
    pub(crate) fn acquire(&mut self, value: &Arc<T>) -> I {
        self.acquire_found(value, self.find(value))
    }

    /// The same for a value that was looked up, with nothing entered or released since.
    pub(crate) fn acquire_found(&mut self, value: &Arc<T>, found: Found<I>) -> I {
        let (values, hash) = (&mut self.values, found.hash);
        if let Some(index) = found.index {
            values[index].refs += 1;
            return index;
        }
        let index = values.insert(Shared { value: Arc::clone(value), hash, refs: 1 });
        self.table.insert_unique(spread(hash), index, |index| spread(values[*index].hash));
        index
    }

    /// One reference less; the last one frees the value.
    pub(crate) fn release(&mut self, index: I) {
        let shared = &mut self.values[index];
        shared.refs -= 1;
        if shared.refs & !CHECKED > 0 {
            return;
        }
        if let Ok(entry) = self.table.find_entry(spread(shared.hash), |found| found.position() == index.position()) {
            entry.remove();
        }
        self.values.remove(index);
    }

    pub(crate) fn get(&self, index: I) -> &Arc<T> {
        &self.values[index].value
    }

    /// True when the value is there and was marked as checked.
    pub(crate) fn is_checked(&self, found: Found<I>) -> bool {
        found.index.is_some_and(|index| self.values[index].refs & CHECKED > 0)
    }

    pub(crate) fn set_checked(&mut self, index: I) {
        self.values[index].refs |= CHECKED;
    }

    /// Forgets all marks.
    pub(crate) fn clear_checked(&mut self) {
        for shared in self.values.iter_mut() {
            shared.refs &= !CHECKED;
        }
    }

    /// Every value with its number of references.
    pub(crate) fn refs(&self) -> impl Iterator<Item = (I, u32)> {
        self.values.iter().map(|(index, shared)| (index, shared.refs & !CHECKED))
    }

    /// True when table and values agree.
    pub(crate) fn is_consistent(&self) -> bool {
        self.table.len() == self.values.len()
            && self.values.iter().all(|(index, shared)| {
                let kept = shared.hash == hash_of(&*shared.value) as u32;
                kept && self.table.find(spread(shared.hash), |found| found.position() == index.position()).is_some()
            })
    }
}
