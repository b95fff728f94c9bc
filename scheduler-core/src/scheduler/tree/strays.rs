//! Jobs of a line in the order of their keys, where nothing is known of how they come or how long they stay.
//!
//! A sorted list in pieces of at most [`PIECE`] jobs. Beside the pieces stand, each in one stretch of memory, their first jobs, in which
//! the piece of a key is found, and the shortest stay in each, in which the first job that stays no longer than so long is found. So to
//! enter a job is two binary searches and a move of a few kilobytes in sequence, where a search tree of as many jobs misses the cache at
//! each of its twenty levels. Looking for a stay reads eight bytes a piece: of a million jobs some eighty kilobytes, at most.
//!
//! What must hold: no piece is empty; keys rise within a piece and from piece to piece; `firsts` and `shortest` say what is in the pieces.

use crate::scheduler::table::JobIx;
use crate::scheduler::tree::Stay;
use crate::scheduler::tree::key::Key;

/// Jobs of a piece at most: 5 KiB.
const PIECE: usize = 128;

type Order = (Key, JobIx);

#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    stay: Stay,
    job: JobIx,
}

impl Entry {
    const fn order(&self) -> Order {
        (self.key, self.job)
    }
}

type Piece = Vec<Entry>;

/// See the module.
#[derive(Default)]
pub(crate) struct Strays {
    firsts: Vec<Order>,
    shortest: Vec<Stay>,
    pieces: Vec<Piece>,
}

impl Strays {
    pub(crate) const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Enters a job that is not in it.
    pub(crate) fn insert(&mut self, order: Order, stay: Stay) {
        let entry = Entry { key: order.0, stay, job: order.1 };
        if self.pieces.is_empty() {
            // The only piece grows as it is needed: most lines have few strays.
            return self.add_piece(0, vec![entry]);
        }
        let at = self.piece_of(order);
        let piece = &mut self.pieces[at];
        let place = piece.partition_point(|other| other.order() < order);
        if piece.len() < PIECE {
            piece.insert(place, entry);
        } else if place == PIECE {
            let mut next = Vec::with_capacity(PIECE);
            next.push(entry);
            return self.add_piece(at + 1, next);
        } else {
            // Where jobs of many priorities come side by side, the next one of this priority goes behind this one: cut here, what is
            // before it stays full. In the middle otherwise.
            let cut = if place >= PIECE * 3 / 4 { place } else { PIECE / 2 };
            let mut next = Vec::with_capacity(PIECE);
            next.extend(piece.drain(cut..));
            if place <= cut {
                piece.insert(place, entry);
            } else {
                next.insert(place - cut, entry);
            }
            self.add_piece(at + 1, next);
            self.note_all(at);
            return;
        }
        self.firsts[at] = self.firsts[at].min(order);
        self.shortest[at] = self.shortest[at].min(stay);
    }

    /// False if it is not in it.
    pub(crate) fn remove(&mut self, order: Order) -> bool {
        let Some((at, place)) = self.find(order) else { return false };
        let piece = &mut self.pieces[at];
        piece.remove(place);
        if piece.is_empty() {
            self.remove_piece(at);
            return true;
        }
        self.note_all(at);
        self.join_small(at);
        true
    }

    /// The first of those that stay no longer than `stay`.
    pub(crate) fn first_within(&self, stay: Stay) -> Option<Order> {
        let at = self.shortest.iter().position(|shortest| *shortest <= stay)?;
        self.pieces[at].iter().find(|entry| entry.stay <= stay).map(Entry::order)
    }

    /// How long a job of it stays.
    pub(crate) fn get(&self, order: Order) -> Option<Stay> {
        self.find(order).map(|(at, place)| self.pieces[at][place].stay)
    }

    /// Every job with its stay, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Order, Stay)> {
        self.pieces.iter().flatten().map(|entry| (entry.order(), entry.stay))
    }

    /// The piece that this job is in, or belongs to; there is one.
    fn piece_of(&self, order: Order) -> usize {
        self.firsts.partition_point(|first| *first <= order).saturating_sub(1)
    }

    fn find(&self, order: Order) -> Option<(usize, usize)> {
        let at = self.piece_of(order);
        let place = self.pieces.get(at)?.binary_search_by_key(&order, Entry::order).ok()?;
        Some((at, place))
    }

    /// Puts a piece, which is not empty, before the one at `at`.
    fn add_piece(&mut self, at: usize, piece: Piece) {
        self.firsts.insert(at, piece[0].order());
        self.shortest.insert(at, shortest(&piece));
        self.pieces.insert(at, piece);
    }

    fn remove_piece(&mut self, at: usize) {
        self.firsts.remove(at);
        self.shortest.remove(at);
        self.pieces.remove(at);
        // A list that was long gives back what it does not need, seldom enough to cost nothing.
        if self.pieces.capacity() > 64 && self.pieces.len() * 4 < self.pieces.capacity() {
            let room = self.pieces.len() * 2;
            self.firsts.shrink_to(room);
            self.shortest.shrink_to(room);
            self.pieces.shrink_to(room);
        }
    }

    /// Looks anew what is first and shortest in a piece.
    fn note_all(&mut self, at: usize) {
        let piece = &self.pieces[at];
        self.firsts[at] = piece[0].order();
        self.shortest[at] = shortest(piece);
    }

    /// A piece that has become small goes into a neighbour that has room for it, and some more.
    fn join_small(&mut self, at: usize) {
        let len = self.pieces[at].len();
        if len >= PIECE / 4 || len == 1 {
            return;
        }
        let fits = |other: usize| self.pieces.get(other).is_some_and(|other| other.len() + len <= PIECE * 3 / 4);
        let left = match at.checked_sub(1) {
            _ if fits(at + 1) => at,
            Some(before) if fits(before) => before,
            _ => return,
        };
        let right = std::mem::take(&mut self.pieces[left + 1]);
        self.remove_piece(left + 1);
        self.pieces[left].extend(right);
        self.note_all(left);
    }

    /// True when what must hold does.
    pub(crate) fn is_consistent(&self) -> bool {
        let sound = |at: usize| {
            let piece = &self.pieces[at];
            piece.first().is_some_and(|first| first.order() == self.firsts[at])
                && piece.len() <= PIECE
                && shortest(piece) == self.shortest[at]
        };
        self.firsts.len() == self.pieces.len()
            && self.shortest.len() == self.pieces.len()
            && (0..self.pieces.len()).all(sound)
            && self.iter().map(|(order, _)| order).is_sorted_by(|a, b| a < b)
    }
}

fn shortest(piece: &Piece) -> Stay {
    piece.iter().map(|entry| entry.stay).min().unwrap_or(Stay::UNLIMITED)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::slab::Index;

    /// (priority, stay, whether somebody leaves, who)
    type Step = (i64, u64, bool, usize);

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a sorted map; enough jobs for many pieces, that are cut and joined.
        #[test]
        fn strays_are_a_sorted_map(
            priorities in 1..40_i64,
            come in prop::collection::vec((0..1_000_i64, 0..50_u64, any::<bool>(), 0..10_000_usize), 1..3_000),
            leave in 0..4_usize,
        ) {
            let (mut strays, mut model) = (Strays::default(), BTreeMap::new());
            let remove = |strays: &mut Strays, model: &mut BTreeMap<Order, Stay>, nth: usize| {
                let Some(order) = model.keys().nth(nth % model.len().max(1)).copied() else { return true };
                let stay = model.remove(&order);
                stay.is_some() && strays.get(order) == stay && strays.remove(order) && !strays.remove(order) && strays.get(order).is_none()
            };
            for (number, step) in come.into_iter().enumerate() {
                let (priority, stay, leaves, who): Step = step;
                let order = (Key::test(priority % priorities, number as u64), JobIx::new(number));
                strays.insert(order, Stay::test(stay));
                model.insert(order, Stay::test(stay));
                if leaves && leave > 0 {
                    prop_assert!(remove(&mut strays, &mut model, who));
                }
                if number % 64 == 0 {
                    let wanted = model.iter().find(|(_, own)| **own <= Stay::test(stay / 2)).map(|(order, _)| *order);
                    prop_assert_eq!(strays.first_within(Stay::test(stay / 2)), wanted);
                    prop_assert!(strays.is_consistent());
                }
            }
            prop_assert!(strays.iter().eq(model.iter().map(|(order, stay)| (*order, *stay))));
            let mut number = 0;
            while !model.is_empty() {
                // From anywhere, or always the first.
                let nth = if leave > 1 { number * 7_919 } else { 0 };
                prop_assert!(remove(&mut strays, &mut model, nth));
                number += 1;
                if number % 64 == 0 {
                    prop_assert!(strays.is_consistent());
                }
            }
            prop_assert!(strays.is_empty() && strays.firsts.is_empty() && strays.shortest.is_empty());
        }
    }

    #[test]
    fn pieces_are_well_filled_when_priorities_come_side_by_side() {
        for priorities in [1, 7, 200, 5_000] {
            let mut strays = Strays::default();
            for number in 0..50_000_u64 {
                let priority = crate::hash::hash_of(&number) % priorities;
                strays.insert((Key::test(priority as i64, number), JobIx::new(number as usize)), Stay::test(1));
            }
            assert!(strays.is_consistent());
            let filled = 50_000 * 100 / (strays.pieces.len() * PIECE);
            assert!(filled >= 60, "{filled} % with {priorities} priorities");
        }
    }

    #[test]
    fn an_entry_is_forty_bytes() {
        assert_eq!(size_of::<Entry>(), 40);
    }
}
