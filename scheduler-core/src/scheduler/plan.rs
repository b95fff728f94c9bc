//! A pass over the queue: who starts now, and where.
//!
//! A pass takes the first job of the order, places it if it fits, and goes on. The first job that does not fit is the *blocked head*: it
//! gets a reservation ([`Shadow`]), and from then on a job starts only if that cannot delay the head (EASY backfill). Every further job
//! that does not fit, or would delay the head, has its bucket put aside: its followers ask for the same and stay no shorter. So a
//! pass costs O(started x log n + kinds), and not O(queued); and a pass gives up after `scan_limit` kinds that found no room. The head
//! is always looked at first, so giving up delays only backfill.
//!
//! Under [`Discipline::Strict`] a pass ends at the blocked head instead.
//!
//! When a pass found no room for any kind, the next one has nothing to look at until room comes back or another kind is queued.

use std::collections::BinaryHeap;

use crate::event::{Event, Transition};
use crate::scheduler::Scheduler;
use crate::scheduler::backfill::Shadow;
use crate::scheduler::config::Discipline;
use crate::scheduler::place::{Demand, Packing, pack};
use crate::scheduler::queue::BucketIx;
use crate::scheduler::table::{Job, JobIx};
use crate::state::{JobState, StateKind};
use crate::time::Timestamp;

/// What a pass knows of the first job that did not fit.
enum Head {
    /// Nobody was blocked so far.
    None,
    /// This one; its reservation is worked out when somebody behind it would fit.
    Blocked(BucketIx),
    /// This is held for it.
    Reserved(Shadow),
}

impl Scheduler {
    /// Starts queued jobs, at most `limit`; what is returned is entered already.
    pub fn plan(&mut self, now: Timestamp, limit: usize) -> Vec<Transition> {
        let mut made = Vec::new();
        if limit == 0 || self.exhausted || self.counts[StateKind::Queued as usize] == 0 {
            return made;
        }
        let indexes = self.tree.indexes();
        let mut fronts: BinaryHeap<_> = indexes.filter_map(|queue| Some((self.tree.rank(queue, now)?, queue))).collect();
        let mut head = Head::None;
        let mut parked = Vec::new();
        let mut exhausted = false;
        while made.len() < limit && parked.len() < self.scan_limit {
            let Some((_, queue)) = fronts.pop() else {
                exhausted = true;
                break;
            };
            let Some((bucket, job)) = self.tree.first(queue) else { continue };
            let packing = self.find_place(bucket, now, &mut head);
            if let Some(transition) = packing.and_then(|packing| self.start(job, bucket, &packing, now)) {
                made.push(transition);
            } else {
                if self.discipline == Discipline::Strict && !matches!(head, Head::None) {
                    break;
                }
                self.tree.park(bucket, true);
                parked.push(bucket);
            }
            if let Some(rank) = self.tree.rank(queue, now) {
                fronts.push((rank, queue));
            }
        }
        for bucket in parked {
            self.tree.park(bucket, false);
        }
        // A reservation is only worked out when somebody fits; those that it held back may be let go by time alone.
        self.exhausted = exhausted && !matches!(head, Head::Reserved(_));
        made
    }

    /// Where the jobs of a bucket can start now without delaying the blocked head. The first one that cannot becomes the head.
    fn find_place(&self, bucket: BucketIx, now: Timestamp, head: &mut Head) -> Option<Packing> {
        let kind = self.tree.bucket(bucket);
        let fits = pack(&kind.demand, self.nodes.rooms());
        let Ok(packing) = fits else {
            // What would not fit even if nothing else ran waits for the configuration, not for others: it reserves nothing.
            if matches!(head, Head::None) && pack(&kind.demand, self.nodes.whole()).is_ok() {
                *head = Head::Blocked(bucket);
            }
            return None;
        };
        if let Head::Blocked(blocked) = head {
            *head = match self.shadow(&self.tree.bucket(*blocked).demand, now) {
                Some(shadow) => Head::Reserved(shadow),
                None => Head::None,
            };
        }
        match head {
            Head::Reserved(shadow) => shadow.admit(&kind.demand, kind.stay, packing, self.nodes.rooms(), now),
            Head::None | Head::Blocked(_) => Some(packing),
        }
    }

    fn start(&mut self, job: JobIx, bucket: BucketIx, packing: &Packing, now: Timestamp) -> Option<Transition> {
        let placement = self.nodes.placement(&self.tree.bucket(bucket).demand, packing);
        self.change(job, Event::Place { placement: Box::new(placement) }, now).ok()
    }

    /// What is held for a job that does not fit now. `None` if it would not fit even after everything that runs has ended.
    pub(super) fn shadow(&self, demand: &Demand, now: Timestamp) -> Option<Shadow> {
        let ends = self.active.iter().map(|(&order, &index)| {
            let end = self.latest_end(&self.jobs[index], now);
            (end.map_or(i64::MAX, |end| end.0), order, end, index)
        });
        let mut runs: Vec<_> = ends.collect();
        runs.sort_unstable_by_key(|&(key, order, ..)| (key, order));
        let runs = runs.iter().filter_map(|&(_, _, end, index)| {
            let job = &self.jobs[index];
            Some((end, &**self.shape_of(job), job.lifecycle.state.placement()?))
        });
        Shadow::new(demand, &self.nodes, runs)
    }

    /// When a job that holds resources has given them back at the latest, if its limits say so.
    fn latest_end(&self, job: &Job, now: Timestamp) -> Option<Timestamp> {
        let stay = self.tree.bucket(job.bucket).stay;
        let end = match &job.lifecycle.state {
            JobState::Running { since, .. } => *since + stay?,
            JobState::Stopping { deadline, .. } => *deadline,
            _ => now + stay?,
        };
        Some(end.max(now))
    }
}
