//! The records of unfinished jobs, compact: a queued job is one of these, one entry in a line and one word of the index by id.

use std::num::NonZeroI64;

use crate::ids::{JobId, Seq};
use crate::scheduler::by_id::ById;
use crate::scheduler::tree::BucketIx;
use crate::slab::{Slab, index};
use crate::state::Lifecycle;
use crate::time::Timestamp;

index! {
    /// A job's record.
    JobIx
}
index! {
    /// An interned policy.
    PolicyIx
}
index! {
    /// An interned shape.
    ShapeIx
}

/// A job.
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) seq: Seq,
    pub(crate) submitted_at: Timestamp,
    start_after: Option<NonZeroI64>,
    pub(crate) lifecycle: Lifecycle,
    /// Its key among the active jobs while it holds resources; 0 otherwise.
    pub(crate) order: u64,
    /// Its shape's.
    pub(crate) bucket: BucketIx,
    pub(crate) policy: PolicyIx,
}

impl Job {
    pub(crate) fn new(
        id: JobId,
        seq: Seq,
        submitted_at: Timestamp,
        start_after: Option<Timestamp>,
        lifecycle: Lifecycle,
        kind: (BucketIx, PolicyIx),
    ) -> Self {
        // The epoch itself is long past: it is the same as no time at all.
        let start_after = start_after.and_then(|at| NonZeroI64::new(at.0));
        Self { id, seq, submitted_at, start_after, lifecycle, order: 0, bucket: kind.0, policy: kind.1 }
    }

    /// `startAfter` as it was sent.
    pub(crate) fn start_after(&self) -> Option<Timestamp> {
        self.start_after.map(|at| Timestamp(at.get()))
    }
}

/// All unfinished jobs, found by index or by id.
pub(crate) struct Table {
    jobs: Slab<JobIx, Job>,
    by_id: ById,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self { jobs: Slab::new(), by_id: ById::new() }
    }

    pub(crate) fn find(&self, id: JobId) -> Option<JobIx> {
        self.by_id.find(id, |index| self.jobs[index].id == id)
    }

    /// The caller has checked that the id is new.
    pub(crate) fn insert(&mut self, job: Job) -> JobIx {
        let id = job.id;
        let index = self.jobs.insert(job);
        self.by_id.insert(id, index);
        index
    }

    pub(crate) fn remove(&mut self, index: JobIx) -> Option<Job> {
        let job = self.jobs.remove(index)?;
        self.by_id.remove(job.id, index);
        Some(job)
    }

    /// Has a record brought into the cache.
    pub(crate) fn prefetch(&self, index: JobIx) {
        self.jobs.prefetch(index);
    }

    /// Reports will speak of this job: has its place in the index by id brought into the cache.
    pub(crate) fn expect_reports(&self, index: JobIx) {
        self.by_id.prefetch(self.jobs[index].id);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (JobIx, &Job)> {
        self.jobs.iter()
    }

    pub(crate) const fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Entries in the index by id.
    pub(crate) fn indexed(&self) -> usize {
        self.by_id.len()
    }
}

impl std::ops::Index<JobIx> for Table {
    type Output = Job;
    fn index(&self, index: JobIx) -> &Job {
        &self.jobs[index]
    }
}

impl std::ops::IndexMut<JobIx> for Table {
    fn index_mut(&mut self, index: JobIx) -> &mut Job {
        &mut self.jobs[index]
    }
}
