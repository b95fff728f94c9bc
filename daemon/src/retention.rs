//! Forgets what is old, in bounded steps: events and idempotency keys first, finished jobs with their logs later, sums of what was used last.
//!
//! Removing many files slows the creation of others for seconds; so a round removes few, and pauses after it are long.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::ids::JobId;
use scheduler_core::time::Span;
use store::usage::Day;
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::clock;

/// Pause between rounds that found nothing.
const PERIOD: Duration = Duration::from_secs(60);
/// Pause between rounds while there is more to remove: other writers come first.
const BUSY_PERIOD: Duration = Duration::from_millis(500);
/// Events removed a round, at most.
const EVENTS: u32 = 5_000;
/// Jobs removed a round, at most.
const JOBS: u32 = 200;

/// The retention service.
pub struct Retention {
    /// The table.
    pub store: Arc<dyn Store>,
    /// Where logs lie.
    pub logs: PathBuf,
    /// How long events are kept.
    pub events: Span,
    /// How long finished jobs are kept.
    pub jobs: Span,
    /// How long sums of what was used are kept.
    pub usage: Span,
}

impl Retention {
    /// Runs rounds until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let pause = match self.run_once().await {
                Ok(true) => BUSY_PERIOD,
                Ok(false) => PERIOD,
                Err(StoreError::Closed { .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, "retention round failed");
                    PERIOD
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round; true where there is more.
    async fn run_once(&self) -> Result<bool, StoreError> {
        let now = clock::now();
        let compaction = self.store.compact(now - self.events, EVENTS).await?;
        let removed = self.store.prune(now - self.jobs, JOBS).await?;
        let days = self.store.forget_usage(Day::of(now - self.usage)).await?;
        let more = compaction.more || removed.len() >= JOBS as usize;
        if compaction.events > 0 || !removed.is_empty() || days > 0 {
            tracing::debug!(events = compaction.events, jobs = removed.len(), usage = days, floor = %compaction.floor, "removed what is old");
        }
        let folder = self.logs.clone();
        // The names begin with the job's id; the folder is read once a round, not once a job.
        let files = tokio::task::spawn_blocking(move || remove_logs(&folder, &removed));
        if let Ok(Err(error)) = files.await {
            tracing::warn!(%error, "removing logs of removed jobs failed");
        }
        Ok(more)
    }
}

fn remove_logs(folder: &std::path::Path, jobs: &[JobId]) -> std::io::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let wanted: std::collections::BTreeSet<String> = jobs.iter().map(ToString::to_string).collect();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((job, _)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        if wanted.contains(job) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_logs_of_the_named_jobs_go() {
        let folder = tempfile::tempdir().unwrap();
        let job = JobId(uuid::Uuid::from_u128(1));
        let other = JobId(uuid::Uuid::from_u128(2));
        for name in [format!("{job}.1.task.out"), format!("{job}.2.task.err"), format!("{other}.1.task.out"), "notes".to_owned()]
        {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        remove_logs(folder.path(), &[job]).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [format!("{other}.1.task.out").as_str(), "notes"]);
    }
}
