//! A part of the tree as a tree of its own: what [`explain`](crate::scheduler::explain) lets a pass run on.
//!
//! What must hold: queues, cohorts and tenants are copied as they stand, with what they hold, have used and are shared by; so a pass over the
//! copy compares the same numbers. Of the kinds of jobs only those are there that are entered, each with the first jobs of its line.

use crate::scheduler::table::{JobIx, ShapeIx};
use crate::scheduler::tree::key::{Key, Rank};
use crate::scheduler::tree::line::Line;
use crate::scheduler::tree::{Bucket, BucketIx, Heap, Stay, Tree};
use crate::slab::Slab;
use crate::time::Timestamp;

impl Tree {
    /// This tree without any kinds of jobs.
    pub(crate) fn frame(&self) -> Self {
        let mut frame = Self {
            queues: self.queues.clone(),
            by_name: self.by_name.clone(),
            cohorts: self.cohorts.clone(),
            units: self.units.clone(),
            lends: self.lends,
            capacity: self.capacity,
            tenants: self.tenants.clone(),
            by_namespace: self.by_namespace.clone(),
            buckets: Slab::new(),
            by_shape: Vec::new(),
            smallest: [0; 3],
            freed: 0,
        };
        for tenant in frame.tenants.iter_mut() {
            tenant.refs = 0;
            tenant.buckets = Heap::default();
        }
        frame
    }

    /// Enters a kind of job of the tree that this is a frame of.
    pub(crate) fn enter_kind(&mut self, of: &Bucket, shape: ShapeIx) -> BucketIx {
        let Bucket { tenant, queue, .. } = *of;
        let slot = self.tenants[tenant].buckets.open();
        let bucket = Bucket {
            tenant,
            queue,
            shape,
            part: of.part,
            demand: of.demand.clone(),
            refs: 0,
            upto: Some(Stay::UNLIMITED),
            front: None,
            slot,
            jobs: Line::default(),
        };
        let index = self.buckets.insert(bucket);
        self.set_bucket(shape, Some(index));
        self.tenants[tenant].refs += 1;
        index
    }

    /// Counts a job of a kind, and enters it where it is queued; the first of a kind first. Shares stay what they are.
    pub(crate) fn enter_job(&mut self, index: BucketIx, job: JobIx, queued: Option<(Key, Stay)>) {
        let bucket = &mut self.buckets[index];
        bucket.refs += 1;
        if let Some((key, stay)) = queued {
            bucket.jobs.push(key, job, stay);
        }
    }

    /// Brings all heaps up to date once everybody is entered.
    pub(crate) fn settle_frame(&mut self) {
        let buckets: Vec<BucketIx> = self.buckets.iter().map(|(index, _)| index).collect();
        for bucket in buckets {
            self.settle(bucket);
        }
        // Those of whom nothing was entered.
        let tenants: Vec<_> = self.tenants.iter().map(|(index, _)| index).collect();
        for tenant in tenants {
            self.settle_tenant(tenant);
        }
    }

    /// How many kinds of unfinished jobs there are.
    pub(crate) const fn kinds(&self) -> usize {
        self.buckets.len()
    }

    /// Every kind that has queued jobs, with the rank of its first one.
    pub(crate) fn queued_kinds(&self, now: Timestamp) -> impl Iterator<Item = (Rank, BucketIx)> {
        self.buckets.iter().filter_map(move |(index, bucket)| {
            let (key, _) = bucket.jobs.first()?;
            Some((key.rank(&self.queue(bucket.queue).config, now), index))
        })
    }
}

impl Bucket {
    /// Its first job that is not put aside.
    pub(crate) fn front(&self) -> Option<JobIx> {
        self.front.map(|(_, job)| job)
    }

    /// How many of its jobs are ahead of this key.
    pub(crate) fn ahead_of(&self, key: Key) -> usize {
        self.jobs.iter().filter(|((other, _), _)| *other < key).count()
    }

    /// Its first jobs, in order.
    pub(crate) fn first_jobs(&self, count: usize) -> Vec<((Key, JobIx), Stay)> {
        self.jobs.first_jobs(count)
    }
}
