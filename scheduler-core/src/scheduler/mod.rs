//! The scheduler: all unfinished jobs, what they hold, and who is next.
//!
//! What must hold:
//! - lifecycles are made by [`apply`] alone; everything here only keeps the books that follow from them: heaps of
//!   queued jobs, timers, resources taken, counts;
//! - a job that finishes leaves at once: a later event for it is [`Rejected::Unknown`], the store has the rest;
//! - every entry point is given the time, does a bounded amount of work, and gives the same answers for the same calls.

mod admin;
mod admit;
mod agenda;
mod backfill;
mod by_id;
pub(crate) mod config;
mod errors;
mod explain;
mod fleet;
mod fragment;
mod invariants;
mod lineup;
mod misfits;
mod named;
mod nodes;
mod pass;
mod place;
mod plan;
mod policy;
mod preempt;
mod refused;
mod restore;
mod runs;
mod spare;
mod table;
mod tree;
mod view;

use std::cmp::Reverse;
use std::sync::Arc;

use priority_queue::PriorityQueue;

pub use admin::UsageRecord;
pub use agenda::Reservation;
pub use config::{
    AGE_PER_POINT_LIMIT, Config, Discipline, GPU_KIND_LIMIT, GPU_LIMIT, GpuDevice, GpuKind, HEADS_LIMIT, NodeConfig, NodeState,
    PRIORITY_LIMIT, Preemption, QUEUE_PRIORITY_LIMIT, QueueConfig, Resource, TASK_LIMIT,
};
pub use errors::{ChangeError, ConfigError, RestoreError, Whose};
pub use explain::{
    Ahead, AsideGpu, Change, Closest, Estimate, Explanation, Exposure, Gang, Inquiry, JobRef, NoPart, Position, Rule, Shortage,
    Shortfall, Suggestion, TakenGpu, Unknown, Why,
};
pub use fleet::LostRuns;
pub use fragment::{Fragmentation, HOLES, Hole};
pub use invariants::Violation;
pub use lineup::line_of;
pub use policy::{BadWeight, CohortConfig, FairShare, HALF_LIFE, Limits, ShortFirst, TenantLimits, Weight};
pub use refused::{Refused, SHOWN};
pub use tree::ledger::Counted;
pub use tree::standing::{CohortStanding, QueueStanding, Standing, TenantStanding};
pub use view::{GpuUse, JobView, NodeUse, QueueUse};

use crate::apply::{apply, initial};
use crate::event::{Event, Rejected, Transition};
use crate::hash::Build;
use crate::ids::{JobId, Name, RunId, Seq};
use crate::intern::{Found, Interner};
use crate::jitter;
use crate::job::{NewJob, Policy, Shape};
use crate::scheduler::explain::trace::Trace;
use crate::scheduler::lineup::Lineup;
use crate::scheduler::nodes::Nodes;
use crate::scheduler::place::Packing;
use crate::scheduler::runs::{Active, Runs};
use crate::scheduler::table::{Job, JobIx, PolicyIx, ShapeIx, Table};
use crate::scheduler::tree::key::Key;
use crate::scheduler::tree::{BucketIx, Stay, Tree};
use crate::state::{JobState, Lifecycle, StateKind, WaitFor};
use crate::time::{Span, Timestamp};

/// The core. See the module for what holds.
pub struct Scheduler {
    jobs: Table,
    shapes: Interner<ShapeIx, Shape>,
    policies: Interner<PolicyIx, Policy>,
    tree: Tree,
    nodes: Nodes,
    /// Jobs that wait for a time, and running jobs with a time limit.
    timers: PriorityQueue<JobIx, Reverse<(Timestamp, Seq)>, Build>,
    /// Jobs that hold resources.
    active: Runs,
    /// Those of them that were ordered before there was room.
    lineup: Lineup,
    /// Where the job goes that is just being started; nothing for one that comes with its placement.
    placing: Packing,
    /// When a stored job was taken over last: what it holds counts as use from then on, and no earlier.
    restored: Timestamp,
    /// Transitions that the last pass made.
    made_before: usize,
    /// Jobs by state; of the finished ones, those that finished in this core.
    counts: [u64; 6],
    retry_backoff: Span,
    retry_backoff_max: Span,
    scan_limit: usize,
    discipline: Discipline,
    preemption: Preemption,
    /// What the last pass kept for blocked jobs, where it keeps room for several.
    reservations: Vec<Reservation>,
    /// The last pass found no room for anything that is queued, and there has been no more room and no other shape since.
    exhausted: bool,
    /// The last pass started somebody and so changed whose turn it is, and had kept others back before.
    unsettled: bool,
    /// What the last pass found; kept in copies that are made to explain, never in the core itself.
    trace: Option<Box<Trace>>,
}

impl Scheduler {
    /// An empty core.
    ///
    /// # Errors
    /// Names or GPUs that are there twice, values out of range.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let nodes = Nodes::new(&config.nodes);
        Ok(Self {
            jobs: Table::new(),
            shapes: Interner::new(),
            policies: Interner::new(),
            tree: Tree::new(&config.queues, &config.cohorts, nodes.capacity()),
            nodes,
            timers: PriorityQueue::with_default_hasher(),
            active: Runs::new(),
            lineup: Lineup::default(),
            placing: Packing::new(),
            restored: Timestamp(i64::MIN),
            made_before: 0,
            counts: [0; 6],
            retry_backoff: config.retry_backoff,
            retry_backoff_max: config.retry_backoff_max,
            scan_limit: config.scan_limit,
            discipline: config.discipline,
            preemption: config.preemption,
            reservations: Vec::new(),
            exhausted: false,
            unsettled: false,
            trace: None,
        })
    }

    /// Accepts a job: held, waiting for its time, or queued.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), and [`Refused::Duplicate`].
    pub fn submit(&mut self, job: NewJob, now: Timestamp) -> Result<Lifecycle, Refused> {
        if self.jobs.find(job.id).is_some() {
            return Err(Refused::Duplicate { job: job.id });
        }
        let found = self.shapes.find(&job.shape);
        self.admit_found(&job.shape, &job.policy, found)?;
        let lifecycle = initial(&job, now);
        let index = self.insert(job, found, lifecycle.clone(), now);
        let shape = self.tree.bucket(self.jobs[index].bucket).shape;
        self.shapes.set_checked(shape);
        Ok(lifecycle)
    }

    /// Applies what a user or an executor says.
    ///
    /// # Errors
    /// See [`Rejected`]; nothing has changed then. [`Event::Place`] and [`Event::Preempt`] are the planner's alone: they are
    /// rejected here. Whether a job may be so is asked of [`admit`](Self::admit) before an [`Event::Update`].
    pub fn handle(&mut self, job: JobId, event: Event, now: Timestamp) -> Result<Transition, Rejected> {
        let index = self.jobs.find(job).ok_or(Rejected::Unknown)?;
        if matches!(event, Event::Place { .. } | Event::Preempt { .. }) {
            return Err(Rejected::NotInState { state: self.jobs[index].lifecycle.state.kind() });
        }
        self.change(index, event, now)
    }

    /// Serves timers that are due, earliest first, at most `limit`: jobs whose time has come are queued, runs over their limit stopped.
    pub fn tick(&mut self, now: Timestamp, limit: usize) -> Vec<Transition> {
        let mut made = Vec::new();
        while made.len() < limit {
            let Some((&index, &Reverse((due, _)))) = self.timers.peek() else { break };
            if due > now {
                break;
            }
            let waits = self.jobs[index].lifecycle.state.kind() == StateKind::Waiting;
            let event = if waits { Event::Due } else { Event::TimeLimit };
            match self.change(index, event, now) {
                Ok(transition) => made.push(transition),
                // A timer is set from the same state that it acts on, so this cannot be; without its entry it cannot be twice.
                Err(_) => drop(self.timers.remove(&index)),
            }
        }
        made
    }

    /// When [`tick`](Self::tick) or, for a line that stands still, [`plan`](Self::plan) has something to do, if ever.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let timer = self.timers.peek().map(|(_, Reverse((due, _)))| *due);
        timer.into_iter().chain(self.lineup.next_wakeup()).min()
    }

    /// When a run that infrastructure loses now is tried again: exponential backoff with a jitter of up to the same length. It grows with
    /// the tries that were lost, not with all: one that was handed back, made room or was started over by its user says nothing of how
    /// well the next would go.
    pub fn retry_at(&self, run: RunId, now: Timestamp) -> Timestamp {
        let lost_before = self.jobs.find(run.job).map_or(0, |index| self.jobs[index].lifecycle.lost);
        let pause = jitter::backoff(lost_before.saturating_add(1), self.retry_backoff, self.retry_backoff_max);
        now + pause + jitter::retry(run, pause)
    }

    fn insert(&mut self, job: NewJob, found: Found<ShapeIx>, lifecycle: Lifecycle, now: Timestamp) -> JobIx {
        let kind = (self.acquire(&job.shape, found), self.policies.acquire(&job.policy));
        let record = Job::new(job.id, job.seq, job.submitted_at, job.start_after, lifecycle, kind);
        let index = self.jobs.insert(record);
        self.enter(index, true, now);
        index
    }

    /// The bucket of a shape, which was looked up, for one more job.
    fn acquire(&mut self, shape: &Arc<Shape>, found: Found<ShapeIx>) -> BucketIx {
        let shape_ix = self.shapes.acquire_found(shape, found);
        let (bucket, is_new) = self.tree.acquire(shape_ix, shape, |shape| self.nodes.demand(shape));
        if !is_new {
            // A bucket has one reference to its shape, however many jobs it has.
            self.shapes.release(shape_ix);
        }
        bucket
    }

    /// One job less in a bucket.
    fn release(&mut self, bucket: BucketIx) {
        if let Some((shape, demand)) = self.tree.release(bucket) {
            self.shapes.release(shape);
            if self.nodes.dismiss(&demand) {
                // Somebody may have had to wait for a lane.
                self.exhausted = false;
            }
            self.lineup.forget_kind(bucket);
        }
    }

    /// Gives a job that is on no books of its state another queue and policy.
    fn update(&mut self, index: JobIx, queue: &Name, policy: &Arc<Policy>) {
        let shape = self.shape_of(&self.jobs[index]);
        if shape.queue != *queue {
            let shape = Arc::new(Shape { queue: queue.clone(), ..Shape::clone(shape) });
            let found = self.shapes.find(&shape);
            let bucket = self.acquire(&shape, found);
            let before = std::mem::replace(&mut self.jobs[index].bucket, bucket);
            self.release(before);
        }
        let policy = self.policies.acquire(policy);
        let before = std::mem::replace(&mut self.jobs[index].policy, policy);
        self.policies.release(before);
        // It may start now where nothing could, and whoever waited behind it as well.
        self.exhausted = false;
    }

    /// The one way in which a job of this core changes.
    fn change(&mut self, index: JobIx, event: Event, now: Timestamp) -> Result<Transition, Rejected> {
        let job = &self.jobs[index];
        let (to, effects) = apply(&job.lifecycle, self.policies.get(job.policy), job.id, &event, now)?;
        let from = (job.lifecycle.state.kind(), job.lifecycle.attempt);
        let (id, seq) = (job.id, job.seq);
        let held = job.lifecycle.state.placement().is_some();
        let holds = to.state.placement().is_some();
        if self.lineup.holding {
            self.note_pace(index, &event);
        }
        if held && is_to_begin(&self.jobs[index].lifecycle.state) {
            self.end_wait(index, &to.state, now);
        }
        self.leave(index, held && !holds, &event, now);
        if let Event::Update { queue, policy, .. } = &event {
            self.update(index, queue, policy);
        }
        if to.state.kind() == StateKind::Finished {
            self.counts[StateKind::Finished as usize] += 1;
            self.forget(index);
        } else {
            self.jobs[index].lifecycle = to.clone();
            self.enter(index, holds && !held, now);
        }
        Ok(Transition { job: id, seq, from, to, event, at: now, effects })
    }

    /// Puts a job on the books of its state.
    fn enter(&mut self, index: JobIx, takes: bool, now: Timestamp) {
        let job = &self.jobs[index];
        let (bucket, seq) = (job.bucket, job.seq);
        let kind = job.lifecycle.state.kind();
        let policy = self.policies.get(job.policy);
        match &job.lifecycle.state {
            JobState::Waiting { on: WaitFor::NotBefore(at) } => {
                self.timers.push(index, Reverse((*at, seq)));
            }
            JobState::Queued { since } => {
                let key = self.tree.key(bucket, policy.priority, Stay::of(policy), *since, seq);
                // One more of a kind that waits changes nothing, unless it comes before the others and so may be another head, or its priority
                // lets it have runs ended.
                self.exhausted &= self.tree.bucket(bucket).is_behind(key) && !self.may_preempt();
                self.tree.push(bucket, index, key, Stay::of(policy), now);
            }
            JobState::Running { since, .. } => {
                if let Some(limit) = policy.time_limit {
                    self.timers.push(index, Reverse((*since + limit, seq)));
                }
            }
            JobState::Waiting { on: WaitFor::Hold }
            | JobState::Starting { .. }
            | JobState::Stopping { .. }
            | JobState::Finished { .. } => {}
        }
        if takes && let Some(placement) = job.lifecycle.state.placement() {
            let demand = &self.tree.bucket(bucket).demand;
            let held = demand.held(placement);
            let taken = self.nodes.take(index, demand, placement, &std::mem::take(&mut self.placing));
            let since = if let JobState::Running { since, .. } = &job.lifecycle.state { *since } else { now };
            let borrowed = self.tree.would_borrow(bucket, &held);
            let order = self.active.insert(Active { job: index, since, borrowed, held: taken });
            self.jobs[index].order = order;
            let state = &self.jobs[index].lifecycle.state;
            self.tree.take(bucket, &held, is_to_begin(state), now);
            if is_ahead(state)
                && let Some(part) = self.active.get(order).and_then(|active| active.held.parts.first())
            {
                self.lineup.enter(part.node, order, now);
            }
        } else if job.order > 0 {
            self.active.note(job.order);
        }
        self.counts[kind as usize] += 1;
        self.tree.count(bucket, kind, true);
    }

    /// Whether any rule lets runs be ended. Reclaim alone does nothing where nothing is guaranteed.
    pub(super) fn may_preempt(&self) -> bool {
        let Preemption { within_queue, reclaim, across_queues } = self.preemption;
        within_queue || across_queues || (reclaim && self.tree.lends())
    }

    /// Takes a job off the books of its state. What it had in a line it used until it ended, not until that is heard of.
    fn leave(&mut self, index: JobIx, releases: bool, event: &Event, now: Timestamp) {
        let job = &self.jobs[index];
        let bucket = job.bucket;
        let kind = job.lifecycle.state.kind();
        match &job.lifecycle.state {
            JobState::Queued { since } => {
                let policy = self.policies.get(job.policy);
                let key = self.tree.key(bucket, policy.priority, Stay::of(policy), *since, job.seq);
                self.tree.remove(bucket, index, key, Stay::of(policy));
                if let Some(next) = self.tree.upcoming(bucket) {
                    self.jobs.prefetch(next);
                }
            }
            JobState::Waiting { .. } | JobState::Running { .. } => drop(self.timers.remove(&index)),
            JobState::Starting { .. } | JobState::Stopping { .. } | JobState::Finished { .. } => {}
        }
        if releases && let Some(placement) = job.lifecycle.state.placement() {
            let held = self.tree.bucket(bucket).demand.held(placement);
            let active = self.active.remove(job.order);
            self.exhausted = false;
            let used = active.map_or((now, now), |active| {
                self.nodes.release(active.job, &active.held);
                let mut until = now;
                if let (Some(_), Some(part)) = (active.held.line, active.held.parts.first()) {
                    self.lineup.progress(part.node, now);
                    // The room went on to the next one when the run ended, and is charged to him since then.
                    let ended = if let Event::Ended { at, .. } = event { (*at).min(now) } else { now };
                    until = ended.max(active.since).max(self.restored);
                }
                (active.since, until)
            });
            self.jobs[index].order = 0;
            self.tree.give_back(bucket, &held, used, now);
        }
        self.counts[kind as usize] -= 1;
        self.tree.count(bucket, kind, false);
    }

    fn forget(&mut self, index: JobIx) {
        let Some(job) = self.jobs.remove(index) else { return };
        self.policies.release(job.policy);
        self.release(job.bucket);
    }

    /// The key of a queued job.
    fn key_of(&self, index: JobIx) -> Option<Key> {
        let job = &self.jobs[index];
        let JobState::Queued { since } = job.lifecycle.state else { return None };
        let policy = self.policies.get(job.policy);
        Some(self.tree.key(job.bucket, policy.priority, Stay::of(policy), since, job.seq))
    }

    fn stay_of(&self, index: JobIx) -> Stay {
        Stay::of(self.policies.get(self.jobs[index].policy))
    }

    fn shape_of(&self, job: &Job) -> &Arc<Shape> {
        self.shapes.get(self.tree.bucket(job.bucket).shape)
    }
}

/// Whether a job was ordered before there was room for it, and has not been heard of since.
fn is_ahead(state: &JobState) -> bool {
    matches!(state, JobState::Starting { placement } if placement.is_ahead())
}

/// Whether a job was ordered into a line, and has not been heard of since.
fn is_to_begin(state: &JobState) -> bool {
    matches!(state, JobState::Starting { placement } if placement.line.is_some())
}
