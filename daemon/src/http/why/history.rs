//! A job's tries that have ended, and why, from the log of events.

use std::collections::BTreeMap;

use scheduler_core::ids::{JobId, Revision};
use scheduler_core::state::{JobState, Lifecycle, Outcome, StopReason};
use scheduler_core::time::Timestamp;
use store::{EventRecord, JobRecord, StoreError};

use super::words;
use crate::backend::{Backend, BackendError};
use crate::http::problem::ApiResult;
use crate::http::text::wire_time;

/// Events that are looked at, and tries that are told, at most.
const EVENTS: u32 = 500;
const TOLD: usize = 10;

/// A try while its events are read.
#[derive(Default)]
struct Run {
    started: Option<Timestamp>,
    stop: Option<StopReason>,
    lost_before: u32,
}

/// The latest tries that have ended, oldest first.
pub(super) async fn attempts(backend: &dyn Backend, record: &JobRecord) -> ApiResult<Vec<api::Attempt>> {
    if record.lifecycle.attempt.0 == 0 {
        return Ok(Vec::new());
    }
    let store = backend.store();
    let events = match store.events(Revision(0), Some(record.id), EVENTS).await {
        Err(StoreError::Compacted { floor }) => store.events(floor, Some(record.id), EVENTS).await,
        other => other,
    };
    let mut ended = read(&events.map_err(BackendError::from)?);
    let older = ended.len().saturating_sub(TOLD);
    ended.drain(..older);
    let mut numbers: BTreeMap<JobId, Option<u64>> = BTreeMap::new();
    for job in ended.iter().filter_map(|(_, by)| *by) {
        let found = store.job(job).await.map_err(BackendError::from)?;
        numbers.insert(job, found.map(|found| found.seq.0));
    }
    let named = |(mut attempt, by): (api::Attempt, Option<JobId>)| {
        if let Some(job) = by {
            let number = numbers.get(&job).copied().flatten();
            let name = number.map_or_else(|| job.to_string(), |number| format!("#{number}"));
            attempt.message = format!("{} to make room for job {name}.", attempt.message);
            attempt.for_job = Some(api::JobRef { id: job.0, number });
        }
        attempt
    };
    Ok(ended.into_iter().map(named).collect())
}

/// Tries that have ended, each with the job that it made room for.
fn read(events: &[EventRecord]) -> Vec<(api::Attempt, Option<JobId>)> {
    let mut run = Run::default();
    let mut ended = Vec::new();
    let mut lost = 0;
    for event in events {
        let Lifecycle { state, attempt, lost: now_lost } = &event.lifecycle;
        match state {
            JobState::Starting { .. } => run = Run { lost_before: *now_lost, ..Run::default() },
            JobState::Running { since, .. } => run.started = Some(*since),
            JobState::Stopping { why, .. } => run.stop = Some(StopReason::clone(why)),
            JobState::Waiting { .. } | JobState::Queued { .. } | JobState::Finished { .. } if event.what.as_str() == "ended" => {
                run.lost_before = run.lost_before.max(lost);
                ended.push(end(&run, event, attempt.0, *now_lost > run.lost_before));
            }
            _ => {}
        }
        lost = *now_lost;
    }
    ended
}

fn end(run: &Run, event: &EventRecord, attempt: u32, lost: bool) -> (api::Attempt, Option<JobId>) {
    let at = if let JobState::Finished { at, .. } = &event.lifecycle.state { *at } else { event.at };
    let mut made_room = None;
    let (word, message) = match (&event.lifecycle.state, &run.stop) {
        (JobState::Finished { outcome, .. }, _) => match &**outcome {
            Outcome::Succeeded => ("succeeded", format!("Run {attempt} succeeded.")),
            Outcome::Cancelled { by } => ("cancelled", format!("{by} cancelled run {attempt}.")),
            Outcome::Failed { .. } if lost => ("lost", format!("Run {attempt} was lost at {}.", words::time(at))),
            Outcome::Failed { .. } => ("failed", format!("Run {attempt} failed.")),
        },
        _ if lost => ("lost", format!("Run {attempt} was lost at {}, which was no fault of the job.", words::time(at))),
        (_, Some(StopReason::Requeue { by })) => ("requeued", format!("{by} ended run {attempt} to have it start over.")),
        (_, Some(StopReason::Preempted { by, .. })) => {
            made_room = Some(*by);
            ("preempted", format!("Run {attempt} was ended at {}", words::time(at)))
        }
        // The beginning of its history is gone.
        _ => ("requeued", format!("Run {attempt} ended, and it was queued again.")),
    };
    let started_at = run.started.map(wire_time);
    let told = api::Attempt { attempt, started_at, ended_at: wire_time(at), end: word.to_owned(), for_job: None, message };
    (told, made_room)
}
