//! Who is first of those that stand beside each other: an indexed heap.
//!
//! Whoever may stand in a heap has a *slot* there, a small number that it keeps and by which its place is found without hashing; most heaps
//! have a handful of slots and lie in a few cache lines. The smallest priority is first. Priorities are all different, because a sequence
//! number ends every tie, so neither slots nor the past of a heap decide anything.
//!
//! What must hold: nobody's priority is smaller than that of the entry above it, and every entry's slot knows its place.

/// A place that is none.
const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry<I, P> {
    priority: P,
    item: I,
    slot: u32,
}

/// Where somebody stands in one [`Heap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot(u32);

/// See the module.
#[derive(Clone)]
pub(crate) struct Heap<I, P> {
    entries: Vec<Entry<I, P>>,
    /// By slot.
    places: Vec<u32>,
    free: Vec<u32>,
}

impl<I, P> Default for Heap<I, P> {
    fn default() -> Self {
        Self { entries: Vec::new(), places: Vec::new(), free: Vec::new() }
    }
}

impl<I: Copy, P: Copy + Ord> Heap<I, P> {
    /// A slot for somebody who may stand here.
    pub(crate) fn open(&mut self) -> Slot {
        if let Some(slot) = self.free.pop() {
            return Slot(slot);
        }
        self.places.push(NOWHERE);
        Slot(self.places.len() as u32 - 1)
    }

    /// Gives a slot back; whoever had it does not stand here any more.
    pub(crate) fn close(&mut self, slot: Slot) {
        self.remove(slot);
        self.free.push(slot.0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first one and its priority.
    pub(crate) fn first(&self) -> Option<(I, P)> {
        self.entries.first().map(|entry| (entry.item, entry.priority))
    }

    /// The priority of whoever has this slot, if it stands here.
    pub(crate) fn get(&self, slot: Slot) -> Option<P> {
        self.entries.get(self.places[slot.0 as usize] as usize).map(|entry| entry.priority)
    }

    /// Everybody who stands here, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = I> {
        self.entries.iter().map(|entry| entry.item)
    }

    /// Enters somebody, changes its priority, or takes it out; true if that changed anything.
    pub(crate) fn set(&mut self, slot: Slot, entry: Option<(I, P)>) -> bool {
        let Some((item, priority)) = entry else { return self.remove(slot) };
        let place = self.places[slot.0 as usize] as usize;
        match self.entries.get_mut(place) {
            None => {
                self.entries.push(Entry { priority, item, slot: slot.0 });
                self.rise(self.entries.len() - 1);
            }
            Some(entry) if entry.priority == priority => return false,
            Some(entry) => {
                let earlier = priority < entry.priority;
                (entry.item, entry.priority) = (item, priority);
                if earlier { self.rise(place) } else { self.sink(place) }
            }
        }
        true
    }

    fn remove(&mut self, slot: Slot) -> bool {
        let place = std::mem::replace(&mut self.places[slot.0 as usize], NOWHERE) as usize;
        if place >= self.entries.len() {
            return false;
        }
        self.entries.swap_remove(place);
        if place < self.entries.len() {
            self.rise(place);
            self.sink(place);
        }
        true
    }

    /// Moves an entry up to its place; those that it passes move down.
    fn rise(&mut self, mut place: usize) {
        let entry = self.entries[place];
        while place > 0 {
            let above = self.entries[(place - 1) / 2];
            if above.priority <= entry.priority {
                break;
            }
            self.put(place, above);
            place = (place - 1) / 2;
        }
        self.put(place, entry);
    }

    /// Moves an entry down to its place; those that it passes move up. Whoever was first and has had his turn nearly always belongs near
    /// the bottom: so the way down compares those below with each other alone, and the entry is looked for from there.
    fn sink(&mut self, top: usize) {
        let entry = self.entries[top];
        let mut place = top;
        while let Some(below) = self.earlier_below(place) {
            place = below;
        }
        while place != top && entry.priority < self.entries[place].priority {
            place = (place - 1) / 2;
        }
        // Everybody on the way from there to the top moves up by one.
        let mut moved = entry;
        while place != top {
            std::mem::swap(&mut moved, &mut self.entries[place]);
            self.places[self.entries[place].slot as usize] = place as u32;
            place = (place - 1) / 2;
        }
        self.put(top, moved);
    }

    fn earlier_below(&self, place: usize) -> Option<usize> {
        let (left, right) = (place * 2 + 1, place * 2 + 2);
        let first = self.entries.get(left)?;
        Some(if self.entries.get(right).is_some_and(|other| other.priority < first.priority) { right } else { left })
    }

    fn put(&mut self, place: usize, entry: Entry<I, P>) {
        self.places[entry.slot as usize] = place as u32;
        self.entries[place] = entry;
    }

    /// True when what must hold does.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut entries = self.entries.iter().enumerate();
        let standing = self.places.iter().filter(|place| **place != NOWHERE).count();
        standing == self.entries.len()
            && entries.all(|(place, entry)| {
                self.places[entry.slot as usize] as usize == place
                    && (place == 0 || self.entries[(place - 1) / 2].priority < entry.priority)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a sorted map: slots come and go, priorities move both ways.
        #[test]
        fn the_first_of_a_heap_is_the_smallest(steps in prop::collection::vec((0..30_usize, prop::option::of(0..1000_u32), 0..8_u8), 1..300)) {
            let (mut heap, mut slots, mut model) = (Heap::default(), vec![None; 30], BTreeMap::new());
            for (number, (item, priority, close)) in steps.into_iter().enumerate() {
                let slot = *slots[item].get_or_insert_with(|| heap.open());
                // Different for everybody, as sequence numbers make them.
                let priority = priority.map(|priority| (priority, number));
                let before = model.remove(&item);
                model.extend(priority.map(|priority| (item, priority)));
                prop_assert_eq!(heap.set(slot, priority.map(|priority| (item, priority))), before != priority);
                prop_assert!(!heap.set(slot, priority.map(|priority| (item, priority))));
                prop_assert_eq!(heap.get(slot), priority);
                if close == 0 {
                    heap.close(slot);
                    slots[item] = None;
                    model.remove(&item);
                }
                let first = model.iter().map(|(item, priority)| (*priority, *item)).min();
                prop_assert_eq!(heap.first().map(|(item, priority)| (priority, item)), first);
                prop_assert_eq!((heap.len(), heap.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(heap.iter().count(), model.len());
                prop_assert!(heap.is_consistent());
            }
        }
    }
}
