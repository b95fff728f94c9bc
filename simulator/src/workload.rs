//! What is simulated: jobs in the order of their arrival, the queues that they wait in, the tenants that they belong to.
//!
//! A queue that a trace only names is the policy's to set up; one that somebody has described (a generated workload, a person) stays as it
//! was described under every policy, so that limits and guarantees hold for all of them.
//!
//! Invariants, kept by [`Builder`]: jobs are sorted by arrival and the first arrives at 0; indexes of queues and tenants are valid; names
//! are unique. A trace's own clock is gone: only differences count.

use std::collections::BTreeMap;

use scheduler_core::amounts::{CpuMillis, Request};
use scheduler_core::ids::Name;
use scheduler_core::time::Span;
use scheduler_core::{CohortConfig, QueueConfig};

/// A job of a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// When it is submitted, counted from the first job of the workload.
    pub at: Span,
    /// How long its tasks run when nobody ends them.
    pub duration: Span,
    /// Its time limit: it is ended then, and backfill counts on it.
    pub limit: Option<Span>,
    /// Larger runs earlier.
    pub priority: i32,
    /// Index into [`Workload::queues`].
    pub queue: usize,
    /// Index into [`Workload::tenants`].
    pub tenant: usize,
    /// Equal tasks that start together, at least 1.
    pub tasks: u32,
    /// What each of them asks for.
    pub request: Request,
}

impl Job {
    /// How long it runs at most: its duration, or its limit where that is shorter.
    pub fn stay(&self) -> Span {
        self.limit.map_or(self.duration, |limit| limit.min(self.duration))
    }

    /// CPU in millicores, memory in bytes and GPUs of all its tasks together.
    pub(crate) fn amounts(&self) -> [u128; 3] {
        let Request { cpu: CpuMillis(cpu), memory, gpus } = self.request;
        [u128::from(cpu), u128::from(memory.0), u128::from(gpus)].map(|each| each * u128::from(self.tasks))
    }
}

/// A queue of a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Its name is unique.
    pub config: QueueConfig,
    /// Somebody has described it; else it is only named, and the policy says how it is.
    pub described: bool,
}

/// Jobs, and what their indexes mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Sorted by arrival; the first arrives at 0.
    pub jobs: Vec<Job>,
    /// At least one.
    pub queues: Vec<Queue>,
    /// The cohorts that queues name.
    pub cohorts: Vec<CohortConfig>,
    /// At least one.
    pub tenants: Vec<Name>,
    /// What was left out or rounded, in sentences for people.
    pub notes: Vec<String>,
}

impl Workload {
    /// Describes queues and cohorts. Queues that jobs wait in are described by name; the others are there too, because what they are
    /// guaranteed belongs to their cohorts. What of it cannot be is found when the simulation begins.
    pub fn describe(&mut self, queues: Vec<QueueConfig>, cohorts: Vec<CohortConfig>) {
        for config in queues {
            match self.queues.iter_mut().find(|queue| queue.config.name == config.name && !queue.described) {
                Some(queue) => *queue = Queue { config, described: true },
                None => self.queues.push(Queue { config, described: true }),
            }
        }
        self.cohorts.extend(cohorts);
    }
}

/// Makes a [`Workload`].
#[derive(Default, Debug)]
pub struct Builder {
    jobs: Vec<Job>,
    queues: Vec<Queue>,
    queue_by_name: BTreeMap<String, usize>,
    cohorts: Vec<CohortConfig>,
    tenants: Vec<Name>,
    tenant_by_name: BTreeMap<String, usize>,
    notes: Vec<String>,
}

impl Builder {
    /// Nothing in it yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the queue of this name, which is only named if it is new.
    pub fn queue(&mut self, name: &str) -> usize {
        let config = || QueueConfig { preemptible: true, ..QueueConfig::named(name.into()) };
        self.enter(name, || Queue { config: config(), described: false })
    }

    /// The index of a queue that is described here, if it is new.
    pub fn described(&mut self, config: QueueConfig) -> usize {
        let name = config.name.clone();
        self.enter(name.as_str(), || Queue { config, described: true })
    }

    fn enter(&mut self, name: &str, queue: impl FnOnce() -> Queue) -> usize {
        if let Some(&index) = self.queue_by_name.get(name) {
            return index;
        }
        self.queues.push(queue());
        self.queue_by_name.insert(name.to_owned(), self.queues.len() - 1);
        self.queues.len() - 1
    }

    /// Adds a cohort.
    pub fn cohort(&mut self, config: CohortConfig) {
        self.cohorts.push(config);
    }

    /// The index of the tenant of this name.
    pub fn tenant(&mut self, name: &str) -> usize {
        if let Some(&index) = self.tenant_by_name.get(name) {
            return index;
        }
        self.tenants.push(name.into());
        self.tenant_by_name.insert(name.to_owned(), self.tenants.len() - 1);
        self.tenants.len() - 1
    }

    /// Adds a job; its `at` may count from anywhere. Jobs may come in any order; those of one instant keep theirs.
    pub fn push(&mut self, job: Job) {
        self.jobs.push(job);
    }

    /// Adds a sentence about what was left out or rounded.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The workload; `None` if there is no job in it.
    pub fn finish(mut self) -> Option<Workload> {
        self.jobs.sort_by_key(|job| job.at);
        let first = self.jobs.first()?.at;
        for job in &mut self.jobs {
            job.at = Span(job.at.0 - first.0);
        }
        let Self { jobs, queues, cohorts, tenants, notes, .. } = self;
        Some(Workload { jobs, queues, cohorts, tenants, notes })
    }
}
