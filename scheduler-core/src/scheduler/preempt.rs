//! Preemption: which runs are ended so that a job can start.
//!
//! Three rules, each of which can be on or off. A job may have runs ended
//! - of its own queue and of lower priority; of its own tenant only, where the queue shares fairly;
//! - of other queues under the same root cohort, which hold what they borrowed, while the job stays within its own queue's guarantee;
//! - of queues outside of its cohort and of lower base priority, unless these runs are within a guarantee.
//!
//! A run gives way only to a job that would be looked at before it, if it were queued; and to a job that borrows only runs give way that
//! borrowed. Otherwise a victim would be the first to take the room that it made. Who is looked at first is a matter of the order, and of
//! the two rounds of a pass: those who would borrow, and whoever stands behind them in their queues, come after all others.
//!
//! Only runs of preemptible queues are victims, whole gangs, and only if the job starts once they are gone. Those that save their work go
//! first, then those that lose the least: amount, as a part of all nodes, times the time since they got it. What is not needed
//! after all is let be. Work is bounded: so many candidates, so many tries to leave one out.
//!
//! Why there are no loops. Give every run a triple: has it not borrowed (true is more), its queue's base priority, its own priority. Each
//! rule lets a run give way to a job that will have a larger triple: by the first the priorities grow, by the third the base
//! priorities, and in neither does a run that has not borrowed give way to one that does; by the second a borrower gives way to one who
//! stays within his guarantee. So a victim cannot have the job ended that it made room for: it has the smaller priority in the same
//! queue, or the smaller base priority; or it would reclaim from a run that has not borrowed, which nobody can. As long as nothing is
//! submitted and nothing ends by itself, the runs that have not borrowed, sorted by priority, only grow; and once these stand still, so
//! do the others.

use std::cmp::Reverse;

use crate::event::{Event, Transition};
use crate::scheduler::backfill::Forecast;
use crate::scheduler::config::Resource;
use crate::scheduler::place::{Rooms, take};
use crate::scheduler::runs::{Active, Back};
use crate::scheduler::table::{Job, JobIx};
use crate::scheduler::tree::BucketIx;
use crate::scheduler::tree::Stay;
use crate::scheduler::tree::share::Amounts;
use crate::scheduler::{Scheduler, is_ahead};
use crate::state::{JobState, StateKind};
use crate::time::Timestamp;

/// Runs that are considered for one job at most, the cheapest first.
const CANDIDATES: usize = 4096;
/// Tries to leave out a victim that is not needed.
const SPARES: usize = 64;

/// A run that may be ended.
#[derive(Clone, Copy)]
struct Victim {
    job: JobIx,
    bucket: BucketIx,
    held: Amounts,
    borrowed: bool,
    /// By the second rule: only while its queue holds more than its guarantee.
    reclaimed: bool,
}

/// From when the age of a job counts that is queued again through no fault of its own.
fn age_from(job: &Job) -> Timestamp {
    job.start_after().map_or(job.submitted_at, |at| at.max(job.submitted_at))
}

/// For whom room is made, and what is settled already.
struct Ahead<'a> {
    bucket: BucketIx,
    /// Those who get room first.
    before: &'a [BucketIx],
    /// Per node, what is left beside the blocked head when it starts.
    beside: Option<&'a Rooms>,
    /// Runs that are being ended anyhow.
    ending: &'a [Victim],
}

/// What a pass says of the job for which room is to be made.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    /// The job.
    pub(super) job: JobIx,
    /// Those who get room before it.
    pub(super) before: &'a [BucketIx],
    /// Per node, what is left beside the blocked head when it starts.
    pub(super) beside: Option<&'a Rooms>,
    /// It is looked at in the first round, before everybody who would borrow.
    pub(super) first_round: bool,
    pub(super) now: Timestamp,
}

impl Scheduler {
    /// Ends runs so that a queued job can start once they are gone; nothing more where enough is being ended already. `None` where that
    /// cannot be.
    pub(super) fn preempt_for(&mut self, claim: Claim<'_>) -> Option<Vec<Transition>> {
        let Claim { job, before, beside, now, .. } = claim;
        let ending: Vec<Victim> = self.active.values().filter_map(|active| self.ending(active)).collect();
        for victim in &ending {
            self.tree.unreserve(victim.bucket, &victim.held);
        }
        let ahead = Ahead { bucket: self.jobs[job].bucket, before, beside, ending: &ending };
        let chosen = if self.would_start(&ahead, &[]) {
            Some(Vec::new())
        } else {
            let candidates = self.candidates(claim);
            self.choose(&ahead, &candidates, true).or_else(|| self.choose(&ahead, &candidates, false))
        };
        for victim in &ending {
            self.tree.reserve(victim.bucket, &victim.held);
        }
        let chosen = chosen?;
        // Who has not begun gives way before whoever has.
        if !chosen.is_empty() && self.withdraw_all() {
            return Some(Vec::new());
        }
        let by = self.jobs[job].id;
        let stop = |victim: Victim| {
            let age_from = age_from(&self.jobs[victim.job]);
            self.change(victim.job, Event::Preempt { by, age_from }, now).ok()
        };
        Some(chosen.into_iter().filter_map(stop).collect())
    }

    fn ending(&self, active: &Active) -> Option<Victim> {
        let kind = self.jobs[active.job].lifecycle.state.kind();
        (kind == StateKind::Stopping).then(|| self.victim(active, false)).flatten()
    }

    fn victim(&self, active: &Active, reclaimed: bool) -> Option<Victim> {
        let job = &self.jobs[active.job];
        let held = self.tree.bucket(job.bucket).demand.held(job.lifecycle.state.placement()?);
        Some(Victim { job: active.job, bucket: job.bucket, held, borrowed: active.borrowed, reclaimed })
    }

    /// The runs that a rule lets end for this job, cheapest first.
    fn candidates(&self, claim: Claim<'_>) -> Vec<Victim> {
        let capacity = self.nodes.capacity();
        let demand = &self.tree.bucket(self.jobs[claim.job].bucket).demand;
        // Where nodes are what it lacks, whoever is on others is not in its way.
        let anywhere = !self.tree.barriers(self.jobs[claim.job].bucket, &demand.total).is_empty();
        let mut found: Vec<_> = self
            .active
            .iter()
            .filter(|(_, active)| anywhere || self.nodes.is_in_the_way(demand, &active.held))
            .filter_map(|(order, active)| {
                let victim = self.victim(active, self.rule(claim, active)?)?;
                let part = |resource: usize| (victim.held[resource] * 1_000_000).checked_div(capacity[resource]).unwrap_or(0);
                let part = part(0).max(part(1)).max(part(2));
                let run = &self.jobs[active.job];
                let running = matches!(run.lifecycle.state, JobState::Running { .. });
                let lost = if running { part * u128::from(claim.now.since(active.since).0) } else { 0 };
                Some(((!self.policies.get(run.policy).checkpointable, lost, Reverse(order)), victim))
            })
            .collect();
        found.sort_unstable_by_key(|(cost, _)| *cost);
        found.truncate(CANDIDATES);
        found.into_iter().map(|(_, victim)| victim).collect()
    }

    /// Whether a rule lets a run end for a queued job, and whether it is the second one.
    fn rule(&self, claim: Claim<'_>, active: &Active) -> Option<bool> {
        let (job, run) = (&self.jobs[claim.job], &self.jobs[active.job]);
        let goes_before = || self.goes_before(job, run, claim.now);
        // Ending one who has not begun would make no room: those are taken back instead.
        if is_ahead(&run.lifecycle.state) || !matches!(run.lifecycle.state, JobState::Starting { .. } | JobState::Running { .. })
        {
            return None;
        }
        let asks = &self.tree.bucket(job.bucket).demand.total;
        let (own_ix, other_ix) = (self.tree.bucket(job.bucket).queue, self.tree.bucket(run.bucket).queue);
        let (own, other) = (self.tree.queue(own_ix), self.tree.queue(other_ix));
        if !other.config.preemptible {
            return None;
        }
        if own_ix == other_ix {
            let lower = self.policies.get(run.policy).priority < self.policies.get(job.policy).priority;
            let tenant = |bucket| self.tree.bucket(bucket).tenant;
            let peers = own.config.fair_share.is_none() || tenant(job.bucket) == tenant(run.bucket);
            return (self.preemption.within_queue && lower && peers && goes_before()).then_some(false);
        }
        if own.root.is_some() && own.root == other.root {
            let claims = self.preemption.reclaim && active.borrowed && !self.tree.would_borrow(job.bucket, asks);
            return (claims && (claim.first_round || goes_before())).then_some(true);
        }
        let guaranteed = !active.borrowed && other.root.is_some_and(|root| self.tree.cohort(root).bound != [None; 3]);
        let lower = other.config.priority < own.config.priority;
        let round = claim.first_round || active.borrowed;
        (self.preemption.across_queues && lower && !guaranteed && round && goes_before()).then_some(false)
    }

    /// Whether a queued job is ahead of a run, if that were queued again.
    pub(super) fn goes_before(&self, job: &Job, run: &Job, now: Timestamp) -> bool {
        let rank = |of: &Job, due| {
            let queue = &self.tree.queue(self.tree.bucket(of.bucket).queue).config;
            let policy = self.policies.get(of.policy);
            self.tree.key(of.bucket, policy.priority, Stay::of(policy), due, of.seq).rank(queue, now)
        };
        let JobState::Queued { since } = job.lifecycle.state else { return false };
        rank(job, since) > rank(run, age_from(run))
    }

    /// As few victims as it takes. With `guaranteed` also runs that have not borrowed, provided that the job will not either.
    fn choose(&mut self, ahead: &Ahead<'_>, candidates: &[Victim], guaranteed: bool) -> Option<Vec<Victim>> {
        let mut chosen: Vec<Victim> = Vec::new();
        let mut look_at = 1;
        let mut enough = false;
        for victim in candidates {
            if (victim.reclaimed && !self.still_borrows(victim)) || (!guaranteed && !victim.borrowed) {
                continue;
            }
            self.tree.unreserve(victim.bucket, &victim.held);
            chosen.push(*victim);
            // Looking through all nodes for each would cost too much; whoever was one too many is let be below.
            if chosen.len() == look_at {
                look_at *= 2;
                enough = self.would_start(ahead, &chosen);
                if enough {
                    break;
                }
            }
        }
        enough = enough || (!chosen.is_empty() && self.would_start(ahead, &chosen));
        if enough {
            self.spare(ahead, &mut chosen);
        }
        let borrows = self.tree.would_borrow(ahead.bucket, &self.tree.bucket(ahead.bucket).demand.total);
        let right = !borrows || chosen.iter().all(|victim| victim.borrowed);
        for victim in &chosen {
            self.tree.reserve(victim.bucket, &victim.held);
        }
        (enough && right).then_some(chosen)
    }

    fn still_borrows(&self, victim: &Victim) -> bool {
        let queue = self.tree.queue(self.tree.bucket(victim.bucket).queue);
        Resource::ALL.into_iter().any(|resource| victim.held[resource as usize] > 0 && queue.borrows(resource, 0))
    }

    /// Lets those be who are not needed, the dearest first.
    fn spare(&mut self, ahead: &Ahead<'_>, chosen: &mut Vec<Victim>) {
        let mut tries = SPARES;
        for at in (0..chosen.len()).rev() {
            if chosen.len() == 1 || tries == 0 {
                break;
            }
            tries -= 1;
            let victim = chosen.remove(at);
            self.tree.reserve(victim.bucket, &victim.held);
            if !self.would_start(ahead, chosen) {
                self.tree.unreserve(victim.bucket, &victim.held);
                chosen.insert(at, victim);
            }
        }
    }

    /// Whether the job could start once these are gone; the tree does not count them any more.
    fn would_start(&self, ahead: &Ahead<'_>, chosen: &[Victim]) -> bool {
        let demand = &self.tree.bucket(ahead.bucket).demand;
        if !self.tree.barriers(ahead.bucket, &demand.total).is_empty() {
            return false;
        }
        let mut forecast = Forecast::new(&self.nodes);
        for victim in ahead.ending.iter().chain(chosen) {
            if let Some(active) = self.active.get(self.jobs[victim.job].order) {
                forecast.end(&Back::All(&active.held), |_, _| ());
            }
        }
        let mut rooms = forecast.rooms();
        for bucket in ahead.before {
            let demand = &self.tree.bucket(*bucket).demand;
            if let Ok(packing) = self.nodes.pack(demand, &rooms) {
                take(&mut rooms, demand, &packing);
            }
        }
        if let Some(extra) = ahead.beside {
            rooms.lower(extra);
        }
        self.nodes.pack(demand, &rooms).is_ok()
    }
}
