//! The smallest changes that would let a job start at once.
//!
//! What must hold: nothing is suggested that was not tried. Each change is tried on a copy with everything else being equal, once in the
//! place of the job and once as a job submitted now instead of it, by a real pass; it has to start both times. What to try is narrowed
//! down by looking at what is free, and the number of tries is bounded; so a suggestion is true, and a smaller one may be missed.

use std::sync::Arc;

use crate::amounts::{CpuMillis, MemoryBytes};
use crate::apply::initial;
use crate::ids::{JobId, Name, Seq};
use crate::job::{NewJob, Policy, Shape};
use crate::scheduler::Scheduler;
use crate::scheduler::config::Resource;
use crate::scheduler::explain::sketch::Sketch;
use crate::scheduler::explain::why::{Change, Suggestion, Why};
use crate::state::{JobState, Lifecycle, StateKind};
use crate::time::{Span, Timestamp};

/// Tries at most.
const TRIES: usize = 24;
/// Records that are copied for them in all: two milliseconds' work.
const WORK: usize = 4_000;
/// Other queues that are tried.
const QUEUES: usize = 8;
/// No more memory is suggested than a multiple of this, and no less than one.
const MEMORY_STEP: u64 = 256 << 20;
/// Whole cores, and below one core tenths.
const CPU_STEPS: [u64; 2] = [1000, 100];

/// A queued job that is to be changed.
pub(super) struct Subject {
    pub(super) id: JobId,
    pub(super) seq: Seq,
    pub(super) shape: Arc<Shape>,
    pub(super) policy: Arc<Policy>,
    pub(super) submitted_at: Timestamp,
    pub(super) start_after: Option<Timestamp>,
    pub(super) lifecycle: Lifecycle,
}

/// Tries changes of one job.
pub(super) struct Trials<'a> {
    pub(super) sketch: &'a Sketch,
    pub(super) subject: &'a Subject,
    pub(super) now: Timestamp,
    tries: usize,
}

impl<'a> Trials<'a> {
    pub(super) fn new(sketch: &'a Sketch, subject: &'a Subject, now: Timestamp) -> Self {
        Self { sketch, subject, now, tries: Self::allowed(sketch) }
    }

    /// How often a change of a copy of this size may be tried.
    pub(super) fn allowed(sketch: &Sketch) -> usize {
        (WORK / sketch.size().max(1)).min(TRIES)
    }

    /// The smallest change of each kind that works.
    pub(super) fn suggest(&mut self, why: &Why) -> Vec<Suggestion> {
        let mut found = Vec::new();
        if let Why::Reserved { at: Some(at), .. } = why {
            found.extend(self.time_limit(*at));
        }
        for group in 0..self.subject.shape.tasks.len().min(4) {
            for resource in [Resource::Gpu, Resource::Memory, Resource::Cpu] {
                found.extend(self.less(group, resource));
            }
        }
        found.extend(self.fewer_tasks());
        if matches!(why, Why::Limit { .. } | Why::KeptBack { .. }) {
            found.extend(self.other_queue());
        }
        found
    }

    /// Less of a resource for each task of a group.
    fn less(&mut self, group: usize, resource: Resource) -> Option<Suggestion> {
        let shape = &self.subject.shape;
        let name = &shape.tasks[group].name;
        let request = &shape.tasks[group].request;
        let asked = if resource == Resource::Gpu { request.gpus.into() } else { request.of(resource) };
        let step = match resource {
            Resource::Gpu => 1,
            Resource::Memory => MEMORY_STEP,
            Resource::Cpu => CPU_STEPS[usize::from(asked <= CPU_STEPS[0])],
        };
        let with = |steps: u64| {
            let amount = steps * step;
            let mut shape = Shape::clone(shape);
            let request = &mut shape.tasks[group].request;
            let change = match resource {
                Resource::Gpu => {
                    request.gpus = u32::try_from(amount).unwrap_or(u32::MAX);
                    Change::Gpus { task: name.clone(), gpus: request.gpus }
                }
                Resource::Memory => {
                    request.memory = MemoryBytes(amount);
                    Change::Memory { task: name.clone(), memory: request.memory }
                }
                Resource::Cpu => {
                    request.cpu = CpuMillis(amount);
                    Change::Cpu { task: name.clone(), cpu: request.cpu }
                }
            };
            (change, shape, Policy::clone(&self.subject.policy))
        };
        // At least one step less.
        self.most(asked.saturating_sub(1) / step, with)
    }

    fn fewer_tasks(&mut self) -> Option<Suggestion> {
        let shape = &self.subject.shape;
        let least = shape.least_tasks();
        let with = |tasks: u64| {
            let mut shape = Shape::clone(shape);
            let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
            let change = if let ([group], 0) = (&mut shape.tasks[..], shape.min_available) {
                group.replicas = tasks;
                Change::Replicas(tasks)
            } else {
                shape.min_available = tasks;
                Change::MinAvailable(tasks)
            };
            (change, shape, Policy::clone(&self.subject.policy))
        };
        self.most(least - 1, with)
    }

    /// A time limit with which it is over before the reservation begins.
    fn time_limit(&mut self, at: Timestamp) -> Option<Suggestion> {
        let policy = &self.subject.policy;
        let room = at.since(self.now).0.checked_sub(policy.stop.grace.0)?;
        // Whoever follows this types for a while.
        let step = if room > 600_000_000 { 60_000_000 } else { 1_000_000 };
        let limit = Span((room / step).saturating_sub(u64::from(step == 60_000_000)) * step);
        if limit.0 == 0 || policy.time_limit.is_some_and(|own| own <= limit) {
            return None;
        }
        let policy = Policy { time_limit: Some(limit), ..Policy::clone(policy) };
        self.attempt(Change::TimeLimit(limit), Shape::clone(&self.subject.shape), policy)
    }

    fn other_queue(&mut self) -> Option<Suggestion> {
        let queues: Vec<Name> = self.sketch.core.queue_configs().map(|queue| queue.name.clone()).collect();
        let others = queues.into_iter().filter(|queue| *queue != self.subject.shape.queue).take(QUEUES);
        let others: Vec<Name> = others.collect();
        others.into_iter().find_map(|queue| {
            let shape = Shape { queue: queue.clone(), ..Shape::clone(&self.subject.shape) };
            if !self.promising(&shape) {
                return None;
            }
            self.attempt(Change::Queue(queue), shape, Policy::clone(&self.subject.policy))
        })
    }

    /// The largest number of steps, from 1 to `most`, with which it starts: what looks possible, and if that fails, a few below.
    fn most(&mut self, most: u64, with: impl Fn(u64) -> (Change, Shape, Policy)) -> Option<Suggestion> {
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = high - (high - low) / 2;
            if self.promising(&with(middle).1) { low = middle } else { high = middle - 1 }
        }
        let mut best = None;
        let (mut works, mut upto) = (0, low);
        let mut at = low;
        for _ in 0..4 {
            if at <= works {
                break;
            }
            let (change, shape, policy) = with(at);
            match self.attempt(change, shape, policy) {
                Some(found) => (best, works) = (Some(found), at),
                None => upto = at - 1,
            }
            at = upto - (upto - works) / 2;
        }
        best
    }

    /// Whether it is worth trying: it would be accepted, it fits, and no limit is in the way.
    fn promising(&self, shape: &Shape) -> bool {
        let core = &self.sketch.core;
        core.admit(shape, &self.subject.policy).is_ok() && core.nodes.trial(shape).fits_now() && core.within_limits(shape)
    }

    fn attempt(&mut self, change: Change, shape: Shape, policy: Policy) -> Option<Suggestion> {
        let shape = Arc::new(shape);
        let policy = Arc::new(policy);
        let nodes = self.starts(&shape, &policy, false)?;
        self.starts(&shape, &policy, true)?;
        Some(Suggestion { change, nodes })
    }

    /// Where it would start with the next pass; `fresh` as a job that is submitted now.
    fn starts(&mut self, shape: &Arc<Shape>, policy: &Arc<Policy>, fresh: bool) -> Option<Vec<Name>> {
        self.tries = self.tries.checked_sub(1)?;
        let Subject { id, seq, submitted_at, start_after, lifecycle, .. } = self.subject;
        let mut sketch = self.sketch.again(self.now)?;
        sketch.withdraw(*id, self.now);
        let (shape, policy) = (shape.clone(), policy.clone());
        let mut job =
            NewJob { id: *id, seq: *seq, shape, policy, submitted_at: *submitted_at, start_after: *start_after, hold: false };
        let mut lifecycle = lifecycle.clone();
        if fresh {
            (job.seq, job.submitted_at, job.start_after) = (Seq(u64::MAX), self.now, None);
            lifecycle = initial(&job, self.now);
        }
        sketch.enter(job, lifecycle, self.now);
        let (made, _) = sketch.pass(self.now);
        let start = made.into_iter().find(|made| made.job == *id && made.to.state.kind() == StateKind::Starting)?;
        let JobState::Starting { placement } = start.to.state else { return None };
        let mut nodes: Vec<Name> = placement.slots.iter().map(|slot| slot.node.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Some(nodes)
    }
}

impl Scheduler {
    /// Whether no limit is in the way of a job like this. A tenant that has no jobs yet is judged by its queue.
    fn within_limits(&self, shape: &Shape) -> bool {
        self.tree.over_limit(&shape.queue, &self.nodes.trial(shape).demand.total).is_none()
    }
}
