//! A bounded copy of the core, for questions that only a pass can answer: would it start, when, and with what change.
//!
//! What must hold: the copy is made under a bound and never flows back; a pass over it decides what a pass over the core would decide, as
//! long as no more of a kind starts than was copied ([`Sketch::whole`] says that everything was).

use hashbrown::HashMap;

use crate::event::{Event, RunResult, Transition};
use crate::hash::Build;
use crate::ids::JobId;
use crate::intern::Interner;
use crate::job::NewJob;
use crate::scheduler::Scheduler;
use crate::scheduler::explain::trace::Trace;
use crate::scheduler::lineup::Lineup;
use crate::scheduler::place::Packing;
use crate::scheduler::runs::Runs;
use crate::scheduler::table::{Job, JobIx, Table};
use crate::scheduler::tree::key::Key;
use crate::scheduler::tree::{BucketIx, Stay};
use crate::state::Lifecycle;
use crate::time::Timestamp;

/// How much is copied at most.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Kinds of jobs that there are; where there are more, there is no copy, for already looking through them takes long.
    pub(super) all_kinds: usize,
    /// Kinds of queued jobs, those first in the order.
    pub(super) kinds: usize,
    /// Queued jobs over all kinds; of each kind at least the first.
    pub(super) jobs: usize,
    /// Jobs of the kind of the job in question, up to itself.
    pub(super) peers: usize,
    /// Jobs that hold resources; where there are more, there is no copy.
    pub(super) runs: usize,
}

/// What `explain` copies: about a millisecond's work, four where so much runs.
pub(super) const BOUNDS: Bounds = Bounds { all_kinds: 20_000, kinds: 512, jobs: 1024, peers: 2048, runs: 4096 };

/// Everything: of a copy, which is small.
pub(super) const ALL: Bounds =
    Bounds { all_kinds: usize::MAX, kinds: usize::MAX, jobs: usize::MAX, peers: usize::MAX, runs: usize::MAX };

/// See the module.
pub(super) struct Sketch {
    pub(super) core: Scheduler,
    /// Every queued job is there.
    pub(super) whole: bool,
}

/// Copies jobs of one core into another.
struct Copier<'a> {
    from: &'a Scheduler,
    to: Scheduler,
    kinds: HashMap<BucketIx, BucketIx, Build>,
}

impl Copier<'_> {
    fn job(&mut self, index: JobIx, queued: Option<(Key, Stay)>) -> JobIx {
        let Self { from, to, kinds } = self;
        let job = &from.jobs[index];
        let kind = *kinds.entry(job.bucket).or_insert_with(|| {
            let bucket = from.tree.bucket(job.bucket);
            to.tree.enter_kind(bucket, to.shapes.acquire(from.shapes.get(bucket.shape)))
        });
        let policy = to.policies.acquire(from.policies.get(job.policy));
        let (times, lifecycle) = ((job.submitted_at, job.start_after()), job.lifecycle.clone());
        let mut record = Job::new(job.id, job.seq, times.0, times.1, lifecycle, (kind, policy));
        record.order = job.order;
        let copy = to.jobs.insert(record);
        to.tree.enter_job(kind, copy, queued);
        copy
    }
}

impl Scheduler {
    /// A copy for questions about a queued job; `None` where too much runs.
    pub(super) fn sketch(&self, about: JobIx, bounds: Bounds, now: Timestamp) -> Option<Sketch> {
        if self.active.len() > bounds.runs || self.tree.kinds() > bounds.all_kinds {
            return None;
        }
        let to = Self {
            jobs: Table::new(),
            shapes: Interner::new(),
            policies: Interner::new(),
            tree: self.tree.frame(),
            nodes: self.nodes.clone(),
            timers: priority_queue::PriorityQueue::with_default_hasher(),
            active: Runs::new(),
            lineup: Lineup::default(),
            placing: Packing::new(),
            restored: self.restored,
            made_before: 0,
            counts: self.counts,
            retry_backoff: self.retry_backoff,
            retry_backoff_max: self.retry_backoff_max,
            scan_limit: self.scan_limit,
            discipline: self.discipline,
            preemption: self.preemption,
            reservations: Vec::new(),
            exhausted: false,
            unsettled: false,
            trace: None,
        };
        let mut copier = Copier { from: self, to, kinds: HashMap::default() };
        let mut map: HashMap<JobIx, JobIx, Build> = HashMap::default();
        copier.to.active = self.active.copy(|job| {
            let copy = copier.job(job, None);
            map.insert(job, copy);
            copy
        });
        let whole = copier.queued(about, bounds, now);
        let Copier { mut to, .. } = copier;
        to.tree.settle_frame();
        to.nodes.renumber(&map);
        Some(Sketch { core: to, whole })
    }
}

impl Copier<'_> {
    /// Copies queued jobs; true if those are all.
    fn queued(&mut self, about: JobIx, bounds: Bounds, now: Timestamp) -> bool {
        let mut kinds: Vec<_> = self.from.tree.queued_kinds(now).collect();
        let mut whole = kinds.len() <= bounds.kinds;
        if !whole {
            kinds.select_nth_unstable_by(bounds.kinds - 1, |one, other| other.cmp(one));
            kinds.truncate(bounds.kinds);
        }
        let own = self.from.jobs[about].bucket;
        if !kinds.iter().any(|(_, kind)| *kind == own) {
            kinds.extend(self.from.tree.queued_kinds(now).find(|(_, kind)| *kind == own));
        }
        // Kinds with few jobs leave their part to the others.
        kinds.sort_unstable_by_key(|&(rank, kind)| (self.from.tree.bucket(kind).len(), rank));
        let mut left = bounds.jobs;
        let mut to_come = kinds.len();
        for (_, kind) in kinds {
            let bucket = self.from.tree.bucket(kind);
            let mut count = (left / to_come).max(1).min(bucket.len());
            left = left.saturating_sub(count);
            to_come -= 1;
            if kind == own
                && let Some(key) = self.from.key_of(about)
            {
                let upto = bucket.ahead_of(key) + 1;
                count = count.max(if upto <= bounds.peers { upto } else { 0 });
            }
            whole &= count == bucket.len();
            for ((key, job), stay) in bucket.first_jobs(count) {
                self.job(job, Some((key, stay)));
            }
        }
        whole
    }
}

impl Sketch {
    /// A copy of this copy.
    pub(super) fn again(&self, now: Timestamp) -> Option<Self> {
        let (about, _) = self.core.jobs.iter().next()?;
        let again = self.core.sketch(about, ALL, now)?;
        Some(Self { whole: self.whole, ..again })
    }

    /// How many records it has, about: what a copy or a pass costs.
    pub(super) fn size(&self) -> usize {
        self.core.jobs.len() + self.core.nodes.whole().len()
    }

    /// A pass, and what it found.
    pub(super) fn pass(&mut self, now: Timestamp) -> (Vec<Transition>, Trace) {
        self.core.exhausted = false;
        self.core.trace = Some(Box::default());
        let made = self.core.plan(now, usize::MAX);
        (made, self.core.trace.take().map(|trace| *trace).unwrap_or_default())
    }

    /// Ends a run, as if all its tasks had succeeded.
    pub(super) fn end(&mut self, job: JobIx, now: Timestamp) {
        let attempt = self.core.jobs[job].lifecycle.attempt;
        let event = Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now };
        // It holds resources, so this is possible.
        drop(self.core.change(job, event, now));
    }

    /// Takes a queued job out, if it is here.
    pub(super) fn withdraw(&mut self, id: JobId, now: Timestamp) {
        if let Some(job) = self.core.jobs.find(id) {
            drop(self.core.change(job, Event::Cancel { by: "explain".into() }, now));
        }
    }

    /// Enters a job.
    pub(super) fn enter(&mut self, job: NewJob, lifecycle: Lifecycle, now: Timestamp) {
        let found = self.core.shapes.find(&job.shape);
        self.core.insert(job, found, lifecycle, now);
    }
}
