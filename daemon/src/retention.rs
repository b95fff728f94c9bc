//! Forgets what is old, in bounded steps: events and idempotency keys first, finished jobs with their logs later, sums of what was used last.
//!
//! Removing many files slows the creation of others for seconds; so a round removes few, and pauses after it are long.
//!
//! A job leaves the table before its logs leave the disk. What a crash in between, or a file that could not be removed, leaves behind is
//! looked for once after each start, a piece of the folder each round: a log whose job the table does not have is removed. No log is
//! there before its job is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirEntry, ReadDir};
use std::io;
use std::path::{Path, PathBuf};
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
/// Files looked at a round, at most, while the folder is searched for logs of nobody's.
const SEARCHED: usize = 1_000;

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
        let mut search = std::fs::read_dir(&self.logs).ok();
        loop {
            let round = async {
                let more = self.run_once().await?;
                Ok(self.search(&mut search).await? || more)
            };
            let pause = match round.await {
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

    /// Goes on with the search for logs of nobody's; true where there is more of it.
    async fn search(&self, search: &mut Option<ReadDir>) -> Result<bool, StoreError> {
        let Some(mut folder) = search.take() else { return Ok(false) };
        let read = tokio::task::spawn_blocking(move || {
            let mut jobs = BTreeMap::<JobId, Vec<PathBuf>>::new();
            let mut looked_at = 0;
            for entry in folder.by_ref().take(SEARCHED).map_while(Result::ok) {
                looked_at += 1;
                if let Some(job) = job_of(&entry) {
                    jobs.entry(job).or_default().push(entry.path());
                }
            }
            (jobs, (looked_at == SEARCHED).then_some(folder))
        });
        let Ok((jobs, rest)) = read.await else { return Ok(false) };
        *search = rest;
        let mut removed = 0;
        for (job, files) in jobs {
            if self.store.ids_between(job, job, 1).await?.is_empty() {
                removed += files.len();
                remove(&files);
            }
        }
        if removed > 0 {
            tracing::info!(files = removed, "removed logs of jobs that are not in the table");
        }
        Ok(search.is_some())
    }
}

/// Whose log a file is, if it is one.
fn job_of(entry: &DirEntry) -> Option<JobId> {
    let name = entry.file_name();
    let (job, _) = name.to_str()?.split_once('.')?;
    uuid::Uuid::try_parse(job).ok().map(JobId)
}

/// One that cannot be removed does not keep the others; it is found again after the next start.
fn remove(files: &[PathBuf]) {
    for file in files {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %file.display(), %error, "a log could not be removed");
            }
            _ => {}
        }
    }
}

fn remove_logs(folder: &Path, jobs: &[JobId]) -> io::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let wanted: BTreeSet<JobId> = jobs.iter().copied().collect();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if job_of(&entry).is_some_and(|job| wanted.contains(&job)) {
            files.push(entry.path());
        }
    }
    remove(&files);
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
