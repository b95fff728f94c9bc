//! What the line of a node has set aside for it.
//!
//! Runs of a line begin without the core: one begins as soon as what the line has in use leaves room within the limits that the run came
//! with ([`Line`](crate::state::Line)). So what it has in use is, in each amount, never more than the largest limit of a run that has not
//! ended, and never more than such runs ask for together. The smaller of the two is set aside: which runs have begun is of no importance.
//!
//! What must hold: what is set aside grows when a run is entered with [`joined`](LineBook::joined) by no more than was looked for there, and
//! never when one leaves; all of it can be worked out again from the runs that have not ended.

use std::collections::BTreeMap;

use crate::scheduler::nodes::{Node, Nodes, Part};

/// Processor time and memory.
pub(crate) type Pair = [u128; 2];

/// Largest amounts that a line may have in use once a run has begun: processor time and memory.
pub(crate) type Limits = [u64; 2];

/// The runs of a line that have not ended, in sums.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LineBook {
    runs: u32,
    /// What they ask for together. Wider than any amount, so that no sum can overflow.
    asked: Pair,
    /// The limits that they came with, and how many with each.
    limits: [BTreeMap<u64, u32>; 2],
}

impl LineBook {
    /// Runs of it that have not ended.
    pub(crate) const fn runs(&self) -> u32 {
        self.runs
    }

    /// What its runs ask for together.
    pub(crate) const fn asked(&self) -> Pair {
        self.asked
    }

    /// The largest limits that a run of it has.
    pub(crate) fn largest(&self) -> Pair {
        [0, 1].map(|of: usize| self.limits[of].last_key_value().map_or(0, |(limit, _)| u128::from(*limit)))
    }

    /// What is set aside for it.
    pub(crate) fn set_aside(&self) -> Pair {
        least(self.largest(), self.asked)
    }

    /// Its runs ask for more than it may have in use: somebody waits.
    pub(crate) fn waits(&self) -> bool {
        let (largest, asked) = (self.largest(), self.asked);
        asked[0] > largest[0] || asked[1] > largest[1]
    }

    /// What would be set aside with one run more that asks for this much and waits for those before it. `None` where it could wait for ever.
    pub(crate) fn joined(&self, asks: Limits) -> Option<Pair> {
        let (largest, asks) = (self.largest(), asks.map(u128::from));
        let fits = asks[0] <= largest[0] && asks[1] <= largest[1];
        fits.then(|| least(largest, [self.asked[0] + asks[0], self.asked[1] + asks[1]]))
    }

    pub(crate) fn enter(&mut self, asks: Limits, limits: Limits) {
        self.runs += 1;
        for of in 0..2 {
            self.asked[of] += u128::from(asks[of]);
            *self.limits[of].entry(limits[of]).or_default() += 1;
        }
    }

    fn leave(&mut self, asks: Limits, limits: Limits) {
        self.runs -= 1;
        for of in 0..2 {
            self.asked[of] -= u128::from(asks[of]);
            if let Some(count) = self.limits[of].get_mut(&limits[of]) {
                *count -= 1;
                if *count == 0 {
                    self.limits[of].remove(&limits[of]);
                }
            }
        }
    }
}

/// The smaller one of each.
pub(crate) fn least(one: Pair, other: Pair) -> Pair {
    [one[0].min(other[0]), one[1].min(other[1])]
}

impl Node {
    /// What is set aside for its line, of what is taken.
    fn set_aside(&self) -> Pair {
        self.line.as_ref().map_or([0; 2], |line| line.set_aside())
    }

    fn book(&mut self, change: impl FnOnce(&mut LineBook)) {
        let before = self.set_aside();
        let line = self.line.get_or_insert_default();
        change(line);
        if line.runs == 0 {
            self.line = None;
        }
        let after = self.set_aside();
        self.cpu_used = self.cpu_used + after[0] - before[0];
        self.memory_used = self.memory_used + after[1] - before[1];
    }

    /// A run enters its line.
    pub(super) fn line_up(&mut self, part: &Part, limits: Limits) {
        self.book(|line| line.enter([part.cpu, part.memory], limits));
    }

    /// Nothing is left of a run of its line.
    pub(super) fn leave_line(&mut self, part: &Part, limits: Limits) {
        self.book(|line| line.leave([part.cpu, part.memory], limits));
    }
}

impl Nodes {
    /// The line of a node, if anybody is in it.
    pub(crate) fn line(&self, node: usize) -> Option<&LineBook> {
        self.list.get(node)?.line.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_limits_and_requests_is_set_aside() {
        let mut line = LineBook::default();
        line.enter([1000, 5], [1000, 5]);
        line.enter([1000, 0], [2000, 5]);
        assert_eq!((line.set_aside(), line.waits()), ([2000, 5], false));
        for _ in 0..3 {
            assert_eq!(line.joined([1000, 5]), Some([2000, 5]));
            line.enter([1000, 0], [2000, 5]);
        }
        assert_eq!((line.set_aside(), line.waits(), line.runs()), ([2000, 5], true, 5));
        assert_eq!(line.joined([2001, 0]), None, "it would wait for ever");
        line.leave([1000, 5], [1000, 5]);
        assert_eq!((line.set_aside(), line.waits()), ([2000, 0], true), "room for those who wait, and none for others");
        line.leave([1000, 0], [2000, 5]);
        line.leave([1000, 0], [2000, 5]);
        assert_eq!((line.set_aside(), line.waits()), ([2000, 0], false));
        line.leave([1000, 0], [2000, 5]);
        assert_eq!(line.set_aside(), [1000, 0]);
        line.leave([1000, 0], [2000, 5]);
        assert_eq!(line, LineBook::default());
    }
}
