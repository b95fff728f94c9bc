//! The core's memory, made anew from the job table: at start, at takeover, and after a failed commit.

use scheduler_core::ids::{JobId, Seq};
use scheduler_core::record::Recorded;
use scheduler_core::time::Timestamp;
use store::{Store, StoreError};

/// Rows taken from the store at a time: bounds the memory beside the core itself.
const PAGE: u32 = 10_000;

/// Why the core could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The table could not be read.
    #[error("reading unfinished jobs")]
    Read(#[source] StoreError),
    /// A row that the core cannot take.
    #[error("restoring job {job}")]
    Restore {
        /// The job.
        job: JobId,
        /// Why.
        #[source]
        source: scheduler_core::RestoreError,
    },
}

/// Fills a blank core with all unfinished jobs.
pub async fn rebuild(mut core: Recorded, store: &dyn Store, now: Timestamp) -> Result<Recorded, RebuildError> {
    let mut after = Seq(0);
    loop {
        let page = store.live(after, PAGE).await.map_err(RebuildError::Read)?;
        let Some(last) = page.last().map(|job| job.seq) else { return Ok(core) };
        for job in page {
            let id = job.id;
            core.restore(job, now).map_err(|source| RebuildError::Restore { job: id, source })?;
        }
        after = last;
    }
}
