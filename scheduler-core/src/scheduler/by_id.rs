//! Jobs by id: a hash table that finds a job with one look at memory.
//!
//! Of a million jobs the one that a report speaks of is seldom in the cache. A general table reads its control bytes, then its entry, then
//! the record to compare the id; here control bits and index are one word, and a word whose 32 bits of hash match is the right one but for
//! one in billions. Growing moves words and reads no record, so the pause is short.
//!
//! What must hold: between a word and the place where its hash would have it there is no empty one; at most three quarters are in use.

use crate::hash::hash_of;
use crate::ids::JobId;
use crate::prefetch::prefetch;
use crate::scheduler::table::JobIx;
use crate::slab::Index;

/// Slots to begin with; their number is always a power of two.
const FEWEST: usize = 16;

/// Hash and index of a job.
#[derive(Clone, Copy)]
struct Word {
    hash: u32,
    /// [`EMPTY`], if there is none.
    job: u32,
}

const EMPTY: u32 = u32::MAX;
const NONE: Word = Word { hash: 0, job: EMPTY };

/// See the module.
pub(crate) struct ById {
    words: Vec<Word>,
    len: usize,
}

fn hash(id: JobId) -> u32 {
    hash_of(&id.0.as_u128()) as u32
}

impl ById {
    pub(crate) const fn new() -> Self {
        Self { words: Vec::new(), len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The job with this id; `is` compares with the record.
    pub(crate) fn find(&self, id: JobId, is: impl Fn(JobIx) -> bool) -> Option<JobIx> {
        self.place(hash(id), |job| is(JobIx::new(job as usize))).map(|place| JobIx::new(self.words[place].job as usize))
    }

    /// Has the place of an id brought into the cache.
    pub(crate) fn prefetch(&self, id: JobId) {
        if !self.words.is_empty() {
            prefetch(&self.words[hash(id) as usize & self.mask()]);
        }
    }

    /// Enters a job whose id is not in it.
    pub(crate) fn insert(&mut self, id: JobId, job: JobIx) {
        if (self.len + 1) * 4 > self.words.len() * 3 {
            let larger = vec![NONE; (self.words.len() * 2).max(FEWEST)];
            for word in std::mem::replace(&mut self.words, larger) {
                if word.job != EMPTY {
                    self.put(word);
                }
            }
        }
        self.len += 1;
        self.put(Word { hash: hash(id), job: job.position() as u32 });
    }

    /// Takes a job out; nothing happens if it is not in it.
    pub(crate) fn remove(&mut self, id: JobId, job: JobIx) {
        let Some(mut hole) = self.place(hash(id), |found| found as usize == job.position()) else { return };
        self.len -= 1;
        // Whoever stands behind the hole and would rather stand in it or before it moves up, and leaves a hole.
        let mut at = self.next(hole);
        while self.words[at].job != EMPTY {
            let moved = self.distance(self.words[at].hash as usize, at);
            if moved >= self.distance(hole, at) {
                self.words[hole] = self.words[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.words[hole] = NONE;
    }

    fn put(&mut self, word: Word) {
        let mut at = word.hash as usize & self.mask();
        while self.words[at].job != EMPTY {
            at = self.next(at);
        }
        self.words[at] = word;
    }

    fn place(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<usize> {
        if self.words.is_empty() {
            return None;
        }
        let mut at = hash as usize & self.mask();
        loop {
            let word = self.words[at];
            if word.job == EMPTY {
                return None;
            }
            if word.hash == hash && is(word.job) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    const fn mask(&self) -> usize {
        self.words.len() - 1
    }

    const fn next(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }

    /// How far behind `from` a place is, round the end.
    const fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a sorted map, with so few ids that the table is as full as it may be and holes are made everywhere.
        #[test]
        fn what_is_entered_is_found_until_it_is_taken_out(steps in prop::collection::vec((0..200_u128, any::<bool>()), 1..600)) {
            let (mut table, mut model) = (ById::new(), BTreeMap::new());
            let id = |number: u128| JobId(Uuid::from_u128(number));
            for (number, leaves) in steps {
                let job = JobIx::new(number as usize);
                if leaves {
                    table.remove(id(number), job);
                    model.remove(&number);
                } else if model.insert(number, job).is_none() {
                    table.insert(id(number), job);
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for number in 0..200 {
                prop_assert_eq!(table.find(id(number), |job| job.position() as u128 == number), model.get(&number).copied());
            }
        }
    }
}
