//! The records of unfinished jobs, compact: a queued job is one of these, one entry in a heap and five bytes of index.

use std::num::NonZeroI64;

use hashbrown::HashTable;

use crate::hash::hash_of;
use crate::ids::{JobId, Seq};
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
    /// Its kind, which knows the shape.
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
    by_id: HashTable<JobIx>,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self { jobs: Slab::new(), by_id: HashTable::new() }
    }

    pub(crate) fn find(&self, id: JobId) -> Option<JobIx> {
        self.by_id.find(hash_of(&id), |&index| self.jobs[index].id == id).copied()
    }

    /// The caller has checked that the id is new.
    pub(crate) fn insert(&mut self, job: Job) -> JobIx {
        let hash = hash_of(&job.id);
        let index = self.jobs.insert(job);
        self.by_id.insert_unique(hash, index, |&index| hash_of(&self.jobs[index].id));
        index
    }

    pub(crate) fn remove(&mut self, index: JobIx) -> Option<Job> {
        let job = self.jobs.remove(index)?;
        if let Ok(entry) = self.by_id.find_entry(hash_of(&job.id), |&found| found == index) {
            entry.remove();
        }
        Some(job)
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
