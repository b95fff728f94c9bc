//! The queued jobs of one bucket, first one first; and the first one of those that stay no longer than so long.
//!
//! Jobs of one kind nearly always come in the order in which they leave, and most stay as long as many others: each priority and each
//! stay is a FIFO. So a line is a handful of *runs*, each of one stay and sorted, to which a job is appended whose key is not smaller than the
//! last one's; taking the first job then reads memory in sequence, where a heap of a million entries would miss the cache at each of
//! its levels. What fits no run (a job that was requeued or released, more priorities and stays than runs) is a *stray* and goes to a
//! tree ([`Strays`]). A job that leaves from the middle of a run leaves a gap, found by its key; gaps at the front are dropped at once,
//! and a run that is mostly gaps is written anew.
//!
//! What must hold: the first job is the one with the smallest (key, index); runs stand in the order of their first jobs, and have neither
//! gaps at the front nor more gaps than jobs.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::prefetch::prefetch;
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::Stay;
use crate::scheduler::tree::key::Key;
use crate::scheduler::tree::strays::Strays;

/// Runs of a line at most; more would cost every job that joins.
const RUNS: usize = 16;

#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    job: JobIx,
    gone: bool,
}

impl Entry {
    const fn order(&self) -> (Key, JobIx) {
        (self.key, self.job)
    }
}

/// Jobs of one stay; never empty.
struct Run {
    stay: Stay,
    first: (Key, JobIx),
    last: (Key, JobIx),
    entries: VecDeque<Entry>,
    gaps: usize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Line {
    first: Option<(Key, JobIx)>,
    /// The first one inline: most lines have one, and it is the one that is read.
    runs: SmallVec<[Run; 1]>,
    strays: Option<Box<Strays>>,
    len: usize,
}

impl Line {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The first job and its key.
    pub(crate) const fn first(&self) -> Option<(Key, JobIx)> {
        self.first
    }

    /// Has the runs brought into the cache, as far as taking the first job reads them.
    pub(crate) fn prefetch_runs(&self) {
        self.runs.iter().take(2).for_each(prefetch);
    }

    /// Has the jobs brought into the cache that are first when the first one is gone.
    pub(crate) fn prefetch_jobs(&self) {
        if let Some(second) = self.runs.first().and_then(|run| run.entries.get(1)) {
            prefetch(second);
        }
    }

    /// The first job, and its key, of those that stay no longer than `stay`.
    pub(crate) fn first_within(&self, stay: Stay) -> Option<(Key, JobIx)> {
        let run = self.runs.iter().find(|run| run.stay <= stay).map(|run| run.first);
        let stray = self.strays.as_ref().and_then(|strays| strays.first_within(stay));
        run.into_iter().chain(stray).min()
    }

    /// Enters a job that is not in this line.
    pub(crate) fn push(&mut self, key: Key, job: JobIx, stay: Stay) {
        let order = (key, job);
        self.len += 1;
        if self.first.is_none_or(|first| order < first) {
            self.first = Some(order);
        }
        // The run that ends closest before it, so that runs with earlier ends stay open for others.
        let open = self.runs.iter_mut().filter(|run| run.stay == stay && run.last < order).max_by_key(|run| run.last);
        let entry = Entry { key, job, gone: false };
        if let Some(run) = open {
            run.last = order;
            run.entries.push_back(entry);
        } else if self.runs.len() < RUNS {
            let at = self.runs.partition_point(|run| run.first < order);
            self.runs.insert(at, Run { stay, first: order, last: order, entries: VecDeque::from([entry]), gaps: 0 });
        } else {
            self.strays.get_or_insert_default().insert(order, stay);
        }
    }

    /// Takes a job out by the key and stay that it was entered under; false if it is not here.
    pub(crate) fn remove(&mut self, key: Key, job: JobIx, stay: Stay) -> bool {
        let order = (key, job);
        let removed = self.remove_from_runs(order, stay) || self.remove_stray(order);
        if removed {
            self.len -= 1;
            if self.first == Some(order) {
                self.first = self.first_within(Stay::UNLIMITED);
            }
        }
        removed
    }

    fn remove_from_runs(&mut self, order: (Key, JobIx), stay: Stay) -> bool {
        for at in 0..self.runs.len() {
            let run = &mut self.runs[at];
            if run.first > order {
                break;
            }
            if run.last < order || run.stay != stay {
                continue;
            }
            if run.first == order {
                run.entries.pop_front();
            } else {
                let Ok(found) = run.entries.binary_search_by_key(&order, Entry::order) else { continue };
                let entry = &mut run.entries[found];
                if entry.gone {
                    continue;
                }
                entry.gone = true;
                run.gaps += 1;
            }
            if run.tidy() {
                self.sort_in(at);
            } else {
                self.runs.remove(at);
            }
            return true;
        }
        false
    }

    /// Moves a run whose first job has become a later one to its place.
    fn sort_in(&mut self, at: usize) {
        let first = self.runs[at].first;
        let behind = self.runs[at + 1..].iter().take_while(|run| run.first < first).count();
        self.runs[at..=at + behind].rotate_left(1);
    }

    fn remove_stray(&mut self, order: (Key, JobIx)) -> bool {
        let Some(strays) = &mut self.strays else { return false };
        let removed = strays.remove(order);
        if strays.is_empty() {
            self.strays = None;
        }
        removed
    }

    /// Every job with its key and its stay, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ((Key, JobIx), Stay)> {
        let runs = self.runs.iter().flat_map(|run| run.entries.iter().map(|entry| (entry, run.stay)));
        let runs = runs.filter(|(entry, _)| !entry.gone).map(|(entry, stay)| (entry.order(), stay));
        runs.chain(self.strays.iter().flat_map(|strays| strays.iter()))
    }

    /// The first jobs with their keys and stays, in order.
    pub(crate) fn first_jobs(&self, count: usize) -> Vec<((Key, JobIx), Stay)> {
        let from_run = |run: &Run| {
            let entries = run.entries.iter().filter(|entry| !entry.gone).take(count);
            entries.map(|entry| (entry.order(), run.stay)).collect::<Vec<_>>()
        };
        let mut jobs: Vec<_> = self.runs.iter().flat_map(from_run).collect();
        jobs.extend(self.strays.iter().flat_map(|strays| strays.iter().take(count)));
        if jobs.len() > count && count > 0 {
            jobs.select_nth_unstable(count - 1);
        }
        jobs.truncate(count);
        jobs.sort_unstable();
        jobs
    }

    /// True when this job is here under this key and stay.
    pub(crate) fn contains(&self, key: Key, job: JobIx, stay: Stay) -> bool {
        let order = (key, job);
        let find = |run: &Run| run.entries.binary_search_by_key(&order, Entry::order).is_ok_and(|at| !run.entries[at].gone);
        let stray = self.strays.as_ref().and_then(|strays| strays.get(order));
        self.runs.iter().any(|run| run.stay == stay && find(run)) || stray == Some(stay)
    }

    /// True when what is kept is what the jobs say.
    pub(crate) fn is_consistent(&self) -> bool {
        let sound = |run: &Run| {
            let entries = &run.entries;
            entries.front().is_some_and(|entry| entry.order() == run.first && !entry.gone)
                && entries.back().is_some_and(|entry| entry.order() <= run.last)
                && entries.iter().is_sorted_by_key(Entry::order)
                && entries.iter().filter(|entry| entry.gone).count() == run.gaps
                && run.gaps * 2 <= entries.len()
        };
        self.runs.iter().all(sound)
            && self.runs.is_sorted_by_key(|run| run.first)
            && self.strays.as_ref().is_none_or(|strays| !strays.is_empty() && strays.is_consistent())
            && self.iter().count() == self.len
            && self.iter().map(|(order, _)| order).min() == self.first
    }
}

impl Run {
    /// Restores what must hold after a job has left; false if it was the last one.
    fn tidy(&mut self) -> bool {
        while self.entries.front().is_some_and(|entry| entry.gone) {
            self.entries.pop_front();
            self.gaps -= 1;
        }
        let Some(front) = self.entries.front() else { return false };
        self.first = front.order();
        if let Some(later) = self.entries.get(2) {
            prefetch(later);
        }
        if self.gaps * 2 > self.entries.len() {
            self.entries.retain(|entry| !entry.gone);
            self.gaps = 0;
        }
        // A run that was long gives back what it does not need, seldom enough to cost nothing.
        if self.entries.capacity() > 64 && self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::slab::Index;

    /// How keys and stays come: (priority, how far behind, stay, who leaves).
    type Step = (i64, u64, u64, Option<usize>);

    /// Keys that mostly rise, more priorities and stays than there are runs, and leaving from anywhere.
    fn steps(stays: u64) -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0..12_i64, 0..20_u64, 0..stays, prop::option::of(0..1000_usize)), 1..400)
    }

    fn first_within(model: &BTreeMap<(Key, JobIx), Stay>, stay: Stay) -> Option<(Key, JobIx)> {
        model.iter().find(|(_, own)| **own <= stay).map(|(order, _)| *order)
    }

    /// Against a sorted map.
    fn check(steps: Vec<Step>, stays: u64) -> Result<(), TestCaseError> {
        let (mut line, mut model) = (Line::default(), BTreeMap::new());
        for (number, (priority, early, stay, leave)) in steps.into_iter().enumerate() {
            let late = (number as u64).saturating_sub(if early > 16 { early } else { 0 });
            let order = (Key::test(priority, late), JobIx::new(number));
            line.push(order.0, order.1, Stay::test(stay));
            model.insert(order, Stay::test(stay));
            if let Some(leave) = leave {
                // Mostly the first one, as in a pass; or the first one that is short enough.
                let at = if leave % 3 > 0 { 0 } else { leave % model.len() };
                let nth = *model.keys().nth(at).ok_or_else(|| TestCaseError::fail("empty"))?;
                let gone =
                    if leave % 2 > 0 { first_within(&model, Stay::test(leave as u64 % stays)).unwrap_or(nth) } else { nth };
                let stay = model.remove(&gone).ok_or_else(|| TestCaseError::fail("gone"))?;
                prop_assert!(line.contains(gone.0, gone.1, stay));
                prop_assert!(line.remove(gone.0, gone.1, stay));
                prop_assert!(!line.remove(gone.0, gone.1, stay));
                prop_assert!(!line.contains(gone.0, gone.1, stay));
            }
            prop_assert_eq!(line.first(), model.keys().next().copied());
            for stay in (0..stays).step_by(stays as usize / 8 + 1).map(Stay::test).chain([Stay::UNLIMITED]) {
                prop_assert_eq!(line.first_within(stay), first_within(&model, stay));
            }
            prop_assert_eq!(line.len(), model.len());
            let first: Vec<_> = model.iter().map(|(order, stay)| (*order, *stay)).take(3).collect();
            prop_assert_eq!(line.first_jobs(3), first);
            prop_assert!(line.is_consistent());
        }
        while let Some(first) = line.first() {
            let (order, stay) = model.pop_first().ok_or_else(|| TestCaseError::fail("empty"))?;
            prop_assert_eq!(first, order);
            prop_assert!(line.remove(first.0, first.1, stay));
            prop_assert!(line.is_consistent());
        }
        prop_assert!(model.is_empty());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_line_is_a_sorted_map(steps in steps(3)) {
            check(steps, 3)?;
        }

        #[test]
        fn so_it_is_when_nearly_every_job_has_a_stay_of_its_own(steps in steps(300)) {
            check(steps, 300)?;
        }
    }
}
