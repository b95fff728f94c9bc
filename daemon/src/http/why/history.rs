//! A job's tries that have ended, and why, from the log of events.

use std::collections::BTreeMap;

use scheduler_core::ids::{JobId, Revision};
use scheduler_core::state::{JobState, Lifecycle, Outcome, StopReason};
use scheduler_core::time::Timestamp;
use store::{EventRecord, JobRecord, Store, StoreError};

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
    let mut ended = read(&kept_events(store, record.id, EVENTS).await.map_err(BackendError::from)?);
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

/// A job's events that are still kept, oldest first. What is old is removed meanwhile: whoever is told where the rest begins may find that it
/// begins later by then.
pub(in crate::http) async fn kept_events(store: &dyn Store, job: JobId, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
    let mut from = Revision(0);
    loop {
        match store.events(from, Some(job), limit).await {
            Err(StoreError::Compacted { floor }) if floor > from => from = floor,
            other => return other,
        }
    }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use scheduler_core::apply::apply;
    use scheduler_core::event::{Event, RunResult};
    use scheduler_core::ids::Attempt;
    use scheduler_core::job::Policy;
    use scheduler_core::state::Placement;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp((1_795_255_200 + seconds) * 1_000_000)
    }

    #[test]
    fn each_run_says_why_it_ended() {
        let (job, other) = (JobId(Uuid::from_u128(1)), JobId(Uuid::from_u128(2)));
        let mut lifecycle = Lifecycle { state: JobState::Queued { since: at(0) }, attempt: Attempt(0), lost: 0 };
        let mut events = Vec::new();
        let mut happens = |event: Event, seconds| {
            lifecycle = apply(&lifecycle, &Policy::default(), job, &event, at(seconds)).unwrap().0;
            let (revision, lifecycle) = (Revision(seconds.cast_unsigned()), lifecycle.clone());
            events.push(EventRecord {
                revision,
                job,
                namespace: "a".into(),
                at: at(seconds),
                what: event.word().into(),
                lifecycle,
            });
        };
        let place = || Event::Place { placement: std::sync::Arc::new(Placement::new(Vec::new())) };
        let started = |attempt, seconds| Event::Started { attempt: Attempt(attempt), at: at(seconds) };
        let ended =
            |attempt, result, seconds| Event::Ended { attempt: Attempt(attempt), result, at: at(seconds), retry_at: at(seconds) };
        happens(place(), 1);
        happens(started(1, 2), 2);
        happens(Event::Preempt { by: other, age_from: at(0) }, 3);
        happens(ended(1, RunResult::Succeeded, 4), 4);
        happens(place(), 5);
        happens(ended(2, RunResult::Lost { message: "gone".into() }, 6), 6);
        happens(place(), 7);
        happens(started(3, 8), 8);
        happens(Event::Requeue { by: "ada".into() }, 9);
        happens(ended(3, RunResult::Succeeded, 10), 10);
        happens(place(), 11);
        happens(started(4, 12), 12);
        happens(ended(4, RunResult::Succeeded, 13), 13);
        let told = read(&events);
        let words: Vec<_> = told.iter().map(|(run, by)| (run.attempt, run.end.as_str(), run.started_at.is_some(), *by)).collect();
        assert_eq!(
            words,
            [
                (1, "preempted", true, Some(other)),
                (2, "lost", false, None),
                (3, "requeued", true, None),
                (4, "succeeded", true, None)
            ]
        );
        assert_eq!(told[0].0.message, "Run 1 was ended at 2026-11-21T10:00:04Z");
        assert_eq!(told[2].0.message, "ada ended run 3 to have it start over.");
    }
}
