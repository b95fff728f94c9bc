//! The scheduler: all unfinished jobs, what they hold, and who is next.
//!
//! What must hold:
//! - lifecycles are made by [`apply`] alone; everything here only keeps the books that follow from them: heaps of
//!   queued jobs, timers, resources taken, counts;
//! - a job that finishes leaves at once: a later event for it is [`Rejected::Unknown`], the store has the rest;
//! - every entry point is given the time, does a bounded amount of work, and gives the same answers for the same calls.

mod backfill;
pub(crate) mod config;
mod explain;
mod invariants;
mod nodes;
mod place;
mod plan;
mod queue;
mod table;
mod view;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashSet;
use priority_queue::PriorityQueue;

pub use config::{
    AGE_PER_POINT_LIMIT, Config, ConfigError, Discipline, GpuDevice, NodeConfig, PRIORITY_LIMIT, QUEUE_PRIORITY_LIMIT,
    QueueConfig, Refused, Resource, RestoreError, TASK_LIMIT,
};
pub use explain::{Shortage, Why};
pub use invariants::Violation;
pub use view::{GpuUse, JobView, NodeUse, QueueUse};

use crate::apply::{apply, initial};
use crate::event::{Event, Rejected, Transition};
use crate::hash::Build;
use crate::ids::{JobId, Name, RunId, Seq};
use crate::intern::Interner;
use crate::jitter;
use crate::job::{LiveJob, NewJob, Policy, Shape};
use crate::scheduler::nodes::Nodes;
use crate::scheduler::place::{Demand, pack};
use crate::scheduler::queue::{Tree, stay};
use crate::scheduler::table::{Job, JobIx, PolicyIx, ShapeIx, Table};
use crate::state::{JobState, Lifecycle, Placement, StateKind, WaitFor};
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
    /// Jobs that hold resources, in the order in which they got them.
    active: BTreeMap<u64, JobIx>,
    next_order: u64,
    /// Jobs by state; of the finished ones, those that finished in this core.
    counts: [u64; 6],
    retry_backoff: Span,
    retry_backoff_max: Span,
    scan_limit: usize,
    discipline: Discipline,
    /// The last pass found no room for anything that is queued, and there has been no more room and no other kind since.
    exhausted: bool,
    /// Nodes that a restore put more on than they have; only there may more be taken than there is.
    overcommitted: BTreeSet<usize>,
}

impl Scheduler {
    /// An empty core.
    ///
    /// # Errors
    /// Names or GPUs that are there twice, values out of range.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            jobs: Table::new(),
            shapes: Interner::new(),
            policies: Interner::new(),
            tree: Tree::new(&config.queues),
            nodes: Nodes::new(&config.nodes),
            timers: PriorityQueue::with_default_hasher(),
            active: BTreeMap::new(),
            next_order: 1,
            counts: [0; 6],
            retry_backoff: config.retry_backoff,
            retry_backoff_max: config.retry_backoff_max,
            scan_limit: config.scan_limit,
            discipline: config.discipline,
            exhausted: false,
            overcommitted: BTreeSet::new(),
        })
    }

    /// Takes over a stored job, in any order. Timers that are due meanwhile are served by the next [`tick`](Self::tick).
    ///
    /// What a job holds is put on the books even where the node is smaller now or not configured any more, and a queue that is not
    /// configured any more is kept for its jobs, at base priority 0.
    ///
    /// # Errors
    /// The table is damaged: a job twice, a GPU twice, a placement that does not match the job's tasks.
    pub fn restore(&mut self, job: LiveJob, _now: Timestamp) -> Result<(), RestoreError> {
        let id = job.id;
        if self.jobs.find(id).is_some() {
            return Err(RestoreError::Duplicate { job: id });
        }
        if job.lifecycle.state.kind() == StateKind::Finished {
            return Err(RestoreError::Finished { job: id });
        }
        if job.shape.tasks.is_empty() {
            return Err(RestoreError::Malformed { job: id, detail: "it has no tasks" });
        }
        if let Some(placement) = job.lifecycle.state.placement() {
            if !matches(placement, &job.shape) {
                return Err(RestoreError::Malformed { job: id, detail: "its placement is not one slot for every task" });
            }
            if let Some(uuid) = twice(placement) {
                return Err(RestoreError::GpuTaken { job: id, uuid, owner: id });
            }
            if let Some((uuid, owner)) = self.nodes.conflict(placement) {
                return Err(RestoreError::GpuTaken { job: id, uuid, owner: self.jobs[owner].id });
            }
        }
        let LiveJob { seq, shape, policy, submitted_at, start_after, lifecycle, .. } = job;
        let index = self.insert(NewJob { id, seq, shape, policy, submitted_at, start_after, hold: false }, lifecycle);
        if let Some(placement) = self.jobs[index].lifecycle.state.placement() {
            self.overcommitted.extend(self.nodes.overcommitted(placement));
        }
        Ok(())
    }

    /// Whether a job like this would be accepted. Changes nothing.
    ///
    /// # Errors
    /// See [`Refused`]; a request that could never run on the configured nodes is refused with what they have.
    pub fn admit(&self, shape: &Shape, policy: &Policy) -> Result<(), Refused> {
        if !(-PRIORITY_LIMIT..=PRIORITY_LIMIT).contains(&policy.priority) {
            return Err(Refused::Priority { got: policy.priority });
        }
        if policy.max_attempts == 0 {
            return Err(Refused::NoAttempts);
        }
        if self.shapes.is_checked(shape) {
            return Ok(());
        }
        if !self.tree.is_configured(&shape.queue) {
            return Err(Refused::UnknownQueue { queue: shape.queue.clone() });
        }
        self.admit_tasks(shape)
    }

    fn admit_tasks(&self, shape: &Shape) -> Result<(), Refused> {
        if shape.tasks.is_empty() {
            return Err(Refused::NoTasks);
        }
        let asked = shape.task_count();
        if asked > TASK_LIMIT || shape.tasks.len() as u64 > TASK_LIMIT {
            return Err(Refused::TooManyTasks { asked: asked.max(shape.tasks.len() as u64) });
        }
        let mut names = HashSet::<&Name, Build>::default();
        for group in &shape.tasks {
            if group.replicas == 0 {
                return Err(Refused::NoReplicas { task: group.name.clone() });
            }
            if !names.insert(&group.name) {
                return Err(Refused::DuplicateTask { task: group.name.clone() });
            }
        }
        for resource in Resource::ALL {
            let has = self.nodes.whole().iter().map(|room| room.of(resource));
            let largest = has.clone().max().unwrap_or(0);
            let mut sum = 0_u128;
            for group in &shape.tasks {
                let asked = group.request.of(resource);
                if asked > largest {
                    return Err(Refused::TaskTooLarge { task: group.name.clone(), resource, asked, largest });
                }
                sum += u128::from(asked) * u128::from(group.replicas);
            }
            let total = has.map(u128::from).sum();
            if sum > total {
                return Err(Refused::JobTooLarge { resource, asked: sum, total });
            }
        }
        pack(&Demand::of(shape), self.nodes.whole()).map(|_| ()).map_err(|misfit| {
            let group = &shape.tasks[usize::from(misfit.group)];
            Refused::NoFit { task: group.name.clone(), asked: group.replicas, possible: misfit.possible }
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
        self.admit(&job.shape, &job.policy)?;
        let lifecycle = initial(&job, now);
        let index = self.insert(job, lifecycle.clone());
        let shape = self.tree.bucket(self.jobs[index].bucket).shape;
        self.shapes.set_checked(shape);
        Ok(lifecycle)
    }

    /// Applies what a user or an executor says.
    ///
    /// # Errors
    /// See [`Rejected`]; nothing has changed then. [`Event::Place`] is the planner's alone: it is rejected here.
    pub fn handle(&mut self, job: JobId, event: Event, now: Timestamp) -> Result<Transition, Rejected> {
        let index = self.jobs.find(job).ok_or(Rejected::Unknown)?;
        if matches!(event, Event::Place { .. }) {
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

    /// When [`tick`](Self::tick) has something to do, if ever.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.timers.peek().map(|(_, Reverse((due, _)))| *due)
    }

    /// When a run that infrastructure loses now is tried again: exponential backoff with a jitter of up to the same length.
    pub fn retry_at(&self, run: RunId, now: Timestamp) -> Timestamp {
        let pause = jitter::backoff(run.attempt, self.retry_backoff, self.retry_backoff_max);
        now + pause + jitter::retry(run, pause)
    }

    fn insert(&mut self, job: NewJob, lifecycle: Lifecycle) -> JobIx {
        let shape_ix = self.shapes.acquire(&job.shape);
        let (bucket, is_new) = self.tree.acquire(shape_ix, &job.shape, stay(&job.policy));
        if !is_new {
            // A bucket has one reference to its shape, however many jobs it has.
            self.shapes.release(shape_ix);
        }
        let policy = self.policies.acquire(&job.policy);
        let record = Job::new(job.id, job.seq, job.submitted_at, job.start_after, lifecycle, (bucket, policy));
        let index = self.jobs.insert(record);
        self.enter(index, true);
        index
    }

    /// The one way in which a job of this core changes.
    fn change(&mut self, index: JobIx, event: Event, now: Timestamp) -> Result<Transition, Rejected> {
        let job = &self.jobs[index];
        let (to, effects) = apply(&job.lifecycle, self.policies.get(job.policy), job.id, &event, now)?;
        let from = (job.lifecycle.state.kind(), job.lifecycle.attempt);
        let (id, seq) = (job.id, job.seq);
        let held = job.lifecycle.state.placement().is_some();
        let holds = to.state.placement().is_some();
        self.leave(index, held && !holds);
        self.jobs[index].lifecycle = to.clone();
        if to.state.kind() == StateKind::Finished {
            self.counts[StateKind::Finished as usize] += 1;
            self.forget(index);
        } else {
            self.enter(index, holds && !held);
        }
        Ok(Transition { job: id, seq, from, to, event, at: now, effects })
    }

    /// Puts a job on the books of its state.
    fn enter(&mut self, index: JobIx, takes: bool) {
        let job = &self.jobs[index];
        let (bucket, seq) = (job.bucket, job.seq);
        let kind = job.lifecycle.state.kind();
        let policy = self.policies.get(job.policy);
        match &job.lifecycle.state {
            JobState::Waiting { on: WaitFor::NotBefore(at) } => {
                self.timers.push(index, Reverse((*at, seq)));
            }
            JobState::Queued { since } => {
                self.exhausted &= self.tree.bucket(bucket).len() > 0;
                self.tree.push(bucket, index, policy.priority, *since, seq);
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
            let shape = self.shapes.get(self.tree.bucket(bucket).shape);
            self.nodes.take(index, shape, placement);
            let order = self.next_order;
            self.next_order += 1;
            self.active.insert(order, index);
            self.jobs[index].order = order;
        }
        self.counts[kind as usize] += 1;
        self.tree.count(bucket, kind, true);
    }

    /// Takes a job off the books of its state.
    fn leave(&mut self, index: JobIx, releases: bool) {
        let job = &self.jobs[index];
        let bucket = job.bucket;
        let kind = job.lifecycle.state.kind();
        match kind {
            StateKind::Queued => self.tree.remove(bucket, index),
            StateKind::Waiting | StateKind::Running => drop(self.timers.remove(&index)),
            StateKind::Starting | StateKind::Stopping | StateKind::Finished => {}
        }
        if releases && let Some(placement) = job.lifecycle.state.placement() {
            let shape = self.shapes.get(self.tree.bucket(bucket).shape);
            self.nodes.release(shape, placement);
            self.exhausted = false;
            self.active.remove(&job.order);
            self.jobs[index].order = 0;
        }
        self.counts[kind as usize] -= 1;
        self.tree.count(bucket, kind, false);
    }

    fn forget(&mut self, index: JobIx) {
        let Some(job) = self.jobs.remove(index) else { return };
        self.policies.release(job.policy);
        if let Some(shape) = self.tree.release(job.bucket) {
            self.shapes.release(shape);
        }
    }

    fn shape_of(&self, job: &Job) -> &Arc<Shape> {
        self.shapes.get(self.tree.bucket(job.bucket).shape)
    }
}

/// One slot for every task, each with as many GPUs as it asked for.
fn matches(placement: &Placement, shape: &Shape) -> bool {
    let mut slots = placement.slots.iter();
    let mut each = true;
    for (index, group) in shape.tasks.iter().enumerate() {
        for replica in 0..group.replicas {
            each &= slots.next().is_some_and(|slot| {
                let named = usize::from(slot.group) == index && slot.replica == replica;
                named && slot.gpus.len() == group.request.gpus as usize
            });
            if !each {
                return false;
            }
        }
    }
    each && slots.next().is_none()
}

/// The first GPU that is in a placement twice.
fn twice(placement: &Placement) -> Option<Name> {
    let mut seen = HashSet::<&Name, Build>::default();
    placement.slots.iter().flat_map(|slot| &slot.gpus).find(|uuid| !seen.insert(uuid)).cloned()
}
