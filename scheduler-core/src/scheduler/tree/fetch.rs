//! What is brought into the cache before it is read. Nothing depends on it but time.

use crate::scheduler::table::JobIx;
use crate::scheduler::tree::{BucketIx, Tree};

impl Tree {
    /// The job that stands for the tenant of a bucket. What there is of it here is brought into the cache.
    pub(crate) fn upcoming(&self, bucket: BucketIx) -> Option<JobIx> {
        let ((bucket, job), _) = self.tenants[self.buckets[bucket].tenant].buckets.first()?;
        self.buckets.prefetch(bucket);
        Some(job)
    }

    /// Has a bucket brought into the cache.
    pub(crate) fn prefetch(&self, bucket: BucketIx) {
        self.buckets.prefetch(bucket);
    }

    /// Has brought into the cache how the jobs of a bucket stand; the bucket itself is taken to be there.
    pub(crate) fn prefetch_line(&self, bucket: BucketIx) {
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.jobs.prefetch_runs();
        }
    }

    /// Has the first jobs of a bucket brought into the cache; how they stand is taken to be there.
    pub(crate) fn prefetch_jobs(&self, bucket: BucketIx) {
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.jobs.prefetch_jobs();
        }
    }
}
