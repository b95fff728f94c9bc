//! Jobs that hold resources: in the order in which they got them, and in that of their latest ends.
//!
//! The second order is what a reservation is worked out from. It is kept only while somebody asks for it: changes are noted and entered when
//! it is asked for next, and where more has changed than there are runs it is given up, to be made anew. So a cluster where the head waits
//! day and night pays for what changes, and one where nobody waits pays nothing. A few runs, or some hundred of which many are others each
//! time, are just sorted.
//!
//! The order of ends: by the latest end that limits allow; runs that have not started count from now; runs without a limit come after
//! all others. Ties go by who got his resources first.
//!
//! What must hold: an entry of the order of ends is that of a run that is there, under its end when it was last looked at; every run whose
//! end may be another by now has been noted.

mod ends;

use std::collections::VecDeque;

pub(crate) use self::ends::{Back, End};
use self::ends::{Brief, Ends, merged};
use crate::scheduler::nodes::Held;
use crate::scheduler::table::JobIx;
use crate::slab::{Slab, index};
use crate::time::Timestamp;

index! {
    /// A job that holds resources.
    RunIx
}

/// More runs than this are not sorted when it is asked for their ends: the order is kept.
const FEW: usize = 512;
/// Of fewer the order is kept where less than this part of them changed since it was asked for last, down to this part of [`FEW`].
const STEADY: usize = 4;
const FEWEST: usize = 16;

/// A job that holds resources.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) job: JobIx,
    /// When it got them.
    pub(crate) since: Timestamp,
    /// It got them beyond its queue's guarantee.
    pub(crate) borrowed: bool,
    /// What they are.
    pub(crate) held: Held,
}

struct Entry {
    order: u64,
    active: Active,
    /// Under which end it stands in the order of ends, while that is kept.
    end: Option<End>,
}

impl Entry {
    fn brief(&self, run: RunIx) -> Brief {
        match (&self.active.held.parts[..], &self.active.held.devices[..]) {
            _ if self.active.held.line.is_some() || self.active.held.shares.is_some() => Brief::More(run),
            ([part], []) => Brief::One(*part, None),
            ([part], [device]) => Brief::One(*part, Some(*device)),
            _ => Brief::More(run),
        }
    }
}

/// Runs by the order in which they got what they have. The numbers only grow, so this is a sorted row to which is appended; a run that leaves
/// from the middle leaves a gap, which goes when there are more gaps than runs.
///
/// What must hold: there is no gap at the front.
struct ByOrder {
    row: VecDeque<(u64, Option<RunIx>)>,
    gaps: usize,
}

impl ByOrder {
    /// The number is larger than all that were entered before.
    fn insert(&mut self, order: u64, run: RunIx) {
        self.row.push_back((order, Some(run)));
    }

    fn place(&self, order: u64) -> Option<usize> {
        self.row.binary_search_by_key(&order, |(order, _)| *order).ok()
    }

    fn get(&self, order: u64) -> Option<&RunIx> {
        self.row[self.place(order)?].1.as_ref()
    }

    fn remove(&mut self, order: u64) -> Option<RunIx> {
        let run = self.place(order).and_then(|place| self.row[place].1.take())?;
        self.gaps += 1;
        while self.row.front().is_some_and(|(_, run)| run.is_none()) {
            self.row.pop_front();
            self.gaps -= 1;
        }
        if self.gaps * 2 > self.row.len() {
            self.row.retain(|(_, run)| run.is_some());
            self.gaps = 0;
        }
        Some(run)
    }

    fn len(&self) -> usize {
        self.row.len() - self.gaps
    }

    fn iter(&self) -> impl Iterator<Item = (&u64, &RunIx)> {
        self.row.iter().filter_map(|(order, run)| Some((order, run.as_ref()?)))
    }

    fn values(&self) -> impl Iterator<Item = &RunIx> {
        self.row.iter().filter_map(|(_, run)| run.as_ref())
    }
}

/// See the module.
pub(crate) struct Runs {
    list: Slab<RunIx, Entry>,
    by_order: ByOrder,
    next: u64,
    ends: Option<Box<Ends>>,
    /// Runs that came, changed or went since it was asked for ends last.
    changed: usize,
    few: usize,
}

impl Runs {
    pub(crate) const fn new() -> Self {
        Self { list: Slab::new(), by_order: ByOrder { row: VecDeque::new(), gaps: 0 }, next: 1, ends: None, changed: 0, few: FEW }
    }

    /// The same runs in the same order, of jobs that have other numbers.
    pub(crate) fn copy(&self, mut job: impl FnMut(JobIx) -> JobIx) -> Self {
        let mut copy = Self { next: self.next, few: self.few, ..Self::new() };
        for (order, active) in self.iter() {
            let active = Active { job: job(active.job), ..active.clone() };
            let run = copy.list.insert(Entry { order, active, end: None });
            copy.by_order.insert(order, run);
        }
        copy
    }

    /// The number that the next run gets.
    pub(crate) const fn next_order(&self) -> u64 {
        self.next
    }

    /// Enters a run; it is found by the number that is returned, which is never 0.
    pub(crate) fn insert(&mut self, active: Active) -> u64 {
        let order = self.next;
        self.next += 1;
        let run = self.list.insert(Entry { order, active, end: None });
        self.by_order.insert(order, run);
        self.note(order);
        order
    }

    #[inline]
    pub(crate) fn remove(&mut self, order: u64) -> Option<Active> {
        let run = self.by_order.remove(order)?;
        self.changed += 1;
        let entry = self.list.remove(run)?;
        if let (Some(ends), Some(end)) = (&mut self.ends, entry.end) {
            ends.leave(end, order);
        }
        Some(entry.active)
    }

    /// Its end may be another from now on.
    pub(crate) fn note(&mut self, order: u64) {
        self.changed += 1;
        let Some(ends) = &mut self.ends else { return };
        ends.noted.push(order);
        if ends.noted.len() > self.list.len().max(self.few / FEWEST) {
            self.ends = None;
        }
    }

    pub(crate) fn get(&self, order: u64) -> Option<&Active> {
        self.by_order.get(order).map(|run| &self.list[*run].active)
    }

    /// It has had what it has since another time; nothing that orders runs.
    pub(crate) fn set_since(&mut self, order: u64, since: Timestamp) {
        if let Some(run) = self.by_order.get(order) {
            self.list[*run].active.since = since;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_order.len()
    }

    /// In the order in which they got what they have.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Active)> {
        self.by_order.iter().map(|(order, run)| (*order, &self.list[*run].active))
    }

    /// In the order in which they got what they have.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Active> {
        self.by_order.values().map(|run| &self.list[*run].active)
    }

    /// Enters anew which of them are borrowed, in the order in which they got what they have. Nothing else may change.
    pub(crate) fn recount_borrowed(&mut self, mut borrows: impl FnMut(&Active) -> bool) {
        for run in self.by_order.values() {
            let active = &mut self.list[*run].active;
            active.borrowed = borrows(active);
        }
    }

    /// Brings the order of ends up to date, or makes it, if there are more than a few runs.
    pub(crate) fn know_ends(&mut self, end: impl Fn(&Active) -> End) {
        let Self { list, by_order, ends, .. } = self;
        let steady = std::mem::take(&mut self.changed) * STEADY < by_order.len() && by_order.len() > self.few / FEWEST;
        if let Some(ends) = ends {
            for order in std::mem::take(&mut ends.noted) {
                let Some(&run) = by_order.get(order) else { continue };
                let entry = &mut list[run];
                let new = end(&entry.active);
                if entry.end != Some(new) {
                    if let Some(old) = entry.end {
                        ends.leave(old, order);
                    }
                    entry.end = Some(new);
                    ends.enter(new, order, entry.brief(run));
                }
            }
        } else if by_order.len() > self.few || steady {
            let mut runs = Vec::with_capacity(by_order.len());
            for (&order, &run) in by_order.iter() {
                let entry = &mut list[run];
                let new = end(&entry.active);
                entry.end = Some(new);
                runs.push((new, order, run));
            }
            *ends = Some(Box::new(Ends::new(runs, list)));
        }
    }

    /// What runs have, in the order of their latest ends, none of which is past. The caller says when runs end; where the order of ends is
    /// up to date it is taken from there.
    pub(crate) fn by_end(
        &self,
        now: Timestamp,
        end: impl Fn(&Active) -> End,
    ) -> impl Iterator<Item = (Option<Timestamp>, Back<'_>)> {
        let kept = self.ends.as_deref().filter(|ends| ends.noted.is_empty());
        let sorted = if kept.is_some() { Vec::new() } else { self.sorted(now, end) };
        let sorted = sorted.into_iter().map(|(_, at, _, run)| (at, Brief::More(run)));
        let kept = kept.into_iter().flat_map(move |ends| merged(ends, now));
        kept.chain(sorted).map(move |(at, brief)| {
            let back = match brief {
                Brief::One(part, device) => Back::One(part, device),
                Brief::More(run) => Back::All(&self.list[run].active.held),
            };
            (at.map(|at| at.max(now)), back)
        })
    }

    fn sorted(&self, now: Timestamp, end: impl Fn(&Active) -> End) -> Vec<(bool, Option<Timestamp>, u64, RunIx)> {
        let key = |(&order, &run): (&u64, &RunIx)| {
            let at = end(&self.list[run].active).at(now);
            (at.is_none(), at, order, run)
        };
        let mut runs: Vec<_> = self.by_order.iter().map(key).collect();
        runs.sort_unstable();
        runs
    }

    /// True when the order of ends has every run that is not noted under its end, and nobody else.
    pub(crate) fn is_consistent(&self, end: impl Fn(&Active) -> End) -> bool {
        let found = self.by_order.iter().all(|(order, run)| self.list[*run].order == *order);
        let Some(ends) = &self.ends else { return found && self.list.len() == self.by_order.len() };
        let mut entered = 0;
        let right = self.by_order.iter().all(|(order, &run)| {
            let entry = &self.list[run];
            let there = entry.end.is_some_and(|end| ends.get(end, *order) == Some(&entry.brief(run)));
            entered += usize::from(entry.end.is_some());
            there == entry.end.is_some() && (entry.end == Some(end(&entry.active)) || ends.noted.contains(order))
        });
        found && right && entered == ends.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::nodes::Part;
    use crate::slab::Index;
    use crate::time::Span;

    fn end(number: usize, moved: bool) -> End {
        match (number % 3, moved) {
            (0, _) => End::At(Timestamp((number * 7919 % 101) as i64)),
            (1, false) => End::In(Span((number * 31 % 50) as u64)),
            (1, true) => End::At(Timestamp((number * 13 % 60) as i64)),
            _ => End::Never,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// The order that is kept is the one that sorting gives, whatever came, changed and went in between.
        #[test]
        fn ends_are_kept_as_sorting_would_have_them(steps in prop::collection::vec((0..4_u8, 0..1000_usize), 1..200)) {
            let mut runs = Runs { few: 4, ..Runs::new() };
            let mut there: Vec<u64> = Vec::new();
            let mut moved = BTreeSet::new();
            for (number, (what, pick)) in steps.into_iter().enumerate() {
                let pick = pick.checked_rem(there.len());
                match (what, pick) {
                    (1, Some(at)) => prop_assert!(runs.remove(there.swap_remove(at)).is_some()),
                    (2, Some(at)) => {
                        moved.insert(there[at]);
                        runs.note(there[at]);
                    }
                    _ => {
                        let mut held = Held::default();
                        held.parts.push(Part { node: number as u32, tasks: 1, cpu: 1, memory: 1 });
                        if number % 4 == 0 {
                            held.parts.push(Part { node: 0, tasks: 1, cpu: 2, memory: 2 });
                        }
                        let active = Active { job: JobIx::new(number), since: Timestamp(0), borrowed: false, held };
                        there.push(runs.insert(active));
                    }
                }
                let orders: BTreeMap<u32, u64> = runs.iter().map(|(order, active)| (active.held.parts[0].node, order)).collect();
                let end = |active: &Active| {
                    let number = active.held.parts[0].node;
                    end(number as usize, moved.contains(&orders[&number]))
                };
                prop_assert!(runs.is_consistent(end));
                let now = Timestamp(30);
                let parts = |runs: &Runs| runs.by_end(now, end).map(|(at, back)| (at, back.parts().to_vec())).collect::<Vec<_>>();
                let sorted = runs.sorted(now, end).into_iter();
                let held = |run: RunIx| runs.list[run].active.held.parts.to_vec();
                let sorted: Vec<_> = sorted.map(|(_, at, _, run)| (at.map(|at| at.max(now)), held(run))).collect();
                prop_assert_eq!(&sorted, &parts(&runs));
                if number % 3 == 0 {
                    runs.know_ends(end);
                    prop_assert!(runs.is_consistent(end));
                    prop_assert_eq!(sorted, parts(&runs));
                }
                prop_assert_eq!(runs.len(), there.len());
            }
        }
    }
}
