//! What is simulated: jobs in the order of their arrival, the queues that they wait in, the tenants that they belong to.
//!
//! Invariants, kept by [`Builder`]: jobs are sorted by arrival and the first arrives at 0; indexes of queues and tenants are valid; names
//! are unique. A trace's own clock is gone: only differences count.

use std::collections::BTreeMap;

use scheduler_core::amounts::{CpuMillis, Request};
use scheduler_core::ids::Name;
use scheduler_core::time::Span;

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
    /// Its name; unique.
    pub name: Name,
    /// Queues of one pool share machines that no other pool has. What stands for a cohort until the core knows cohorts.
    pub pool: usize,
}

/// Jobs, and what their indexes mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Sorted by arrival; the first arrives at 0.
    pub jobs: Vec<Job>,
    /// At least one.
    pub queues: Vec<Queue>,
    /// At least one.
    pub tenants: Vec<Name>,
    /// What was left out or rounded, in sentences for people.
    pub notes: Vec<String>,
}

impl Workload {
    /// Number of pools that its queues name.
    pub fn pools(&self) -> usize {
        self.queues.iter().map(|queue| queue.pool + 1).max().unwrap_or(1)
    }
}

/// Makes a [`Workload`].
#[derive(Default, Debug)]
pub struct Builder {
    jobs: Vec<Job>,
    queues: Vec<Queue>,
    queue_by_name: BTreeMap<String, usize>,
    tenants: Vec<Name>,
    tenant_by_name: BTreeMap<String, usize>,
    notes: Vec<String>,
}

impl Builder {
    /// Nothing in it yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the queue of this name, made in pool 0 if it is new.
    pub fn queue(&mut self, name: &str) -> usize {
        self.queue_in(name, 0)
    }

    /// The index of the queue of this name, made in this pool if it is new.
    pub fn queue_in(&mut self, name: &str, pool: usize) -> usize {
        if let Some(&index) = self.queue_by_name.get(name) {
            return index;
        }
        self.queues.push(Queue { name: name.into(), pool });
        self.queue_by_name.insert(name.to_owned(), self.queues.len() - 1);
        self.queues.len() - 1
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
        Some(Workload { jobs: self.jobs, queues: self.queues, tenants: self.tenants, notes: self.notes })
    }
}
