//! `GET /jobs/{id}/logs`: what a task wrote, and what it goes on writing.
//!
//! Invariants: bytes go out as they were written, in bounded pieces, read when the client has taken the last ones; a followed log ends when
//! its run has ended and the file is read to its end, and not before; when the daemon goes down in between, the stream breaks off instead
//! of ending, so that nobody takes half a log for the whole. Only the owner and admins read logs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{JobSpec, codes};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use executors::log_file_name;
use scheduler_core::ids::{Attempt, JobId, Revision, RunId};
use scheduler_core::state::{Lifecycle, StateKind};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::{IntoParams, ToSchema};

use super::params::{Id, Params, find_own};
use super::tail::Tail;
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::problem::{ApiError, ApiResult};
use crate::http::view;
use crate::metrics::InUse;
use crate::watch::Watch;

/// A file that is followed is looked at this often.
const LOOK: Duration = Duration::from_millis(100);
/// Under a storm of events of others they are looked through this often.
const CALM: Duration = Duration::from_millis(5);
/// Events that are looked through at once.
const CHUNK: u32 = 4_096;

/// One of the two.
#[derive(Deserialize, ToSchema, Clone, Copy, Debug, Default)]
#[serde(rename_all = "lowercase")]
enum LogStream {
    /// Standard output.
    #[default]
    Out,
    /// Standard error.
    Err,
}

/// Which log, and how much of it.
#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// `group`, or `group-replica` where a group has several. Needed only where a job has more than one task.
    task: Option<String>,
    /// `out` or `err`. Default: `out`.
    #[serde(default)]
    #[param(inline)]
    stream: LogStream,
    /// Which try, from 1. Default: the latest.
    #[param(minimum = 1)]
    attempt: Option<u32>,
    /// Only the last lines, this many.
    tail: Option<u64>,
    /// Wait for more until the run has ended; where it has not begun, wait for that.
    #[serde(default)]
    follow: bool,
}

/// Read a task's output
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/logs",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits"), LogParams),
    responses(
        (status = 200, description = "The bytes as they were written", body = String, content_type = "application/octet-stream"),
        (status = "default", description = "No log", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn logs(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    Id(id): Id,
    Params(params): Params<LogParams>,
) -> ApiResult<Response> {
    // Before the job is read: no change after this is missed.
    let watch = app.backend.watch();
    let seen = watch.revision();
    let record = find_own(&*app.backend, &caller, &id).await?;
    let task = task(&view::spec(&record)?, params.task.as_deref())?;
    let latest = record.lifecycle.attempt;
    let attempt = match params.attempt.map(Attempt) {
        Some(asked) if asked.0 == 0 || asked > latest => {
            return Err(ApiError::invalid("attempt", format!("`{asked}`: there have been {latest} tries, counted from 1")));
        }
        asked => asked,
    };
    let run = Run::of(record.id, attempt, &record.lifecycle);
    if run.attempt.is_none() && !params.follow && !run.over {
        let detail = format!("job {} has not begun; `follow=true` waits for it", record.id);
        return Err(ApiError::new(codes::CONFLICT, detail));
    }
    let held = if params.follow && !run.over {
        let permit = Arc::clone(&app.watchers).try_acquire_owned();
        let permit = permit.map_err(|_| ApiError::new(codes::BUSY, "too many follow logs already; try again later"))?;
        Some((permit, InUse::new(&app.metrics.log_followers)))
    } else {
        None
    };
    let stream = match params.stream {
        LogStream::Out => "out",
        LogStream::Err => "err",
    };
    let mut reader =
        Reader { app, watch, seen, run, task, stream, lines: params.tail, file: None, follow: params.follow, _held: held };
    // A log that cannot be read is told while there still is a status to tell it with.
    reader.open().await.map_err(|error| ApiError::internal(&format_args!("log of job {}: {error}", record.id)))?;
    let bytes = futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let mut response = Response::new(Body::from_stream(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The task that is meant, by its full name.
fn task(spec: &JobSpec, asked: Option<&str>) -> ApiResult<String> {
    let groups = spec.tasks.iter().enumerate();
    let mut names = groups.flat_map(|(group, task)| (0..task.replicas.unwrap_or(1)).map(move |replica| (group, replica)));
    let all = || spec.tasks.iter().map(|task| u64::from(task.replicas.unwrap_or(1))).sum::<u64>();
    let found = match asked {
        Some(asked) => names.map(|(group, replica)| view::task_name(spec, group, replica)).find(|name| name == asked),
        None if all() == 1 => names.next().map(|(group, replica)| view::task_name(spec, group, replica)),
        None => None,
    };
    found.ok_or_else(|| {
        let groups = spec.tasks.iter().take(10).enumerate().map(|(group, task)| match task.replicas.unwrap_or(1) {
            0 | 1 => view::task_name(spec, group, 0),
            several => format!("{} to {}", view::task_name(spec, group, 0), view::task_name(spec, group, several - 1)),
        });
        let there = groups.collect::<Vec<_>>().join(", ");
        let wrong = asked.map_or_else(|| "say which task".to_owned(), |asked| format!("no task `{}`", asked.escape_debug()));
        ApiError::invalid("task", format!("{wrong}; there are: {there}"))
    })
}

/// The run whose log is read, as far as it has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    job: JobId,
    /// Which try; none as long as none has begun.
    attempt: Option<Attempt>,
    /// Nothing is written any more.
    over: bool,
}

impl Run {
    /// The run of this try, or of the latest one, by what is known of the job.
    fn of(job: JobId, asked: Option<Attempt>, now: &Lifecycle) -> Self {
        let mut run = Self { job, attempt: asked, over: false };
        if run.attempt.is_none() && now.attempt.0 > 0 {
            // A job that is queued again shows the try that was; who follows wants the one that comes, unless there is none.
            run.attempt = Some(now.attempt);
        }
        run.learn(now);
        run
    }

    /// Takes in what the job has become.
    fn learn(&mut self, now: &Lifecycle) {
        let kind = now.state.kind();
        let active = matches!(kind, StateKind::Starting | StateKind::Running | StateKind::Stopping);
        match self.attempt {
            None if active => self.attempt = Some(now.attempt),
            None => {
                self.over = kind == StateKind::Finished;
                self.attempt = Some(now.attempt).filter(|attempt| self.over && attempt.0 > 0);
            }
            Some(attempt) => self.over = now.attempt > attempt || (now.attempt == attempt && !active),
        }
    }
}

struct Reader {
    app: Arc<App>,
    watch: Watch,
    /// Events up to here have been looked through.
    seen: Revision,
    run: Run,
    task: String,
    stream: &'static str,
    /// `tail`, as long as the file is not open.
    lines: Option<u64>,
    file: Option<Tail>,
    follow: bool,
    _held: Option<(OwnedSemaphorePermit, InUse)>,
}

impl Reader {
    fn path(&self, attempt: Attempt) -> PathBuf {
        self.app.log_dir.join(log_file_name(RunId { job: self.run.job, attempt }, &self.task, self.stream))
    }

    /// Opens the file if it is there by now.
    async fn open(&mut self) -> io::Result<()> {
        if let (None, Some(attempt)) = (&self.file, self.run.attempt) {
            self.file = Tail::open(&self.path(attempt), self.lines).await?;
            if self.file.is_none() && !self.run.over {
                // It does not exist yet: all that it will hold is new.
                self.lines = None;
            }
        }
        Ok(())
    }

    /// The next piece; nothing at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // What was over before this read has written all before it.
            let over = self.run.over;
            self.open().await?;
            if let Some(file) = &mut self.file {
                let piece = file.read().await?;
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
            }
            if over || !self.follow {
                return Ok(None);
            }
            self.wait().await?;
        }
    }

    /// Waits until it is worth looking at the file again: after a while, or at once when something happened to the job.
    async fn wait(&mut self) -> io::Result<()> {
        let look = Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = self.app.shutdown.cancelled() => return Err(io::Error::other("the daemon is going down")),
                () = sleep_until(look) => return Ok(()),
                more = self.watch.beyond(self.seen) => {
                    if !more {
                        return Err(io::Error::other("the daemon is going down"));
                    }
                }
            }
            let before = self.run;
            self.catch_up().await.map_err(io::Error::other)?;
            if self.run != before {
                return Ok(());
            }
            sleep(CALM).await;
        }
    }

    /// Looks through what has happened since.
    async fn catch_up(&mut self) -> Result<(), store::StoreError> {
        let store = self.app.backend.store();
        match self.watch.read(self.seen, CHUNK, store).await {
            Ok(events) => {
                for entry in &events {
                    self.seen = entry.revision();
                    if let Some(event) = entry.job().filter(|event| event.job == self.run.job) {
                        self.run.learn(&event.lifecycle);
                    }
                }
            }
            Err(store::StoreError::Compacted { .. }) => {
                self.seen = self.watch.revision();
                match store.job(self.run.job).await? {
                    Some(record) => self.run.learn(&record.lifecycle),
                    // Finished so long ago that it was removed.
                    None => self.run.over = true,
                }
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use api::TaskSpec;
    use scheduler_core::state::{JobState, Outcome, Placement, WaitFor};
    use scheduler_core::time::Timestamp;

    use super::*;

    fn spec(groups: &[(&str, u32)]) -> JobSpec {
        let group = |(name, replicas): &(&str, u32)| TaskSpec {
            name: Some((*name).to_owned()),
            replicas: Some(*replicas),
            ..TaskSpec::default()
        };
        JobSpec { tasks: groups.iter().map(group).collect(), ..JobSpec::default() }
    }

    #[test]
    fn a_task_is_named_or_is_the_only_one() {
        assert_eq!(task(&spec(&[("task", 1)]), None).unwrap(), "task");
        let gang = spec(&[("main", 1), ("worker", 3)]);
        assert_eq!(task(&gang, Some("worker-2")).unwrap(), "worker-2");
        for asked in [None, Some("worker"), Some("worker-3"), Some("../x")] {
            let error = task(&gang, asked).unwrap_err();
            assert!(error.problem().detail.as_ref().unwrap().ends_with("there are: main, worker-0 to worker-2"));
        }
    }

    fn job(state: JobState, attempt: u32) -> Lifecycle {
        Lifecycle { state, attempt: Attempt(attempt), lost: 0 }
    }

    #[test]
    fn a_run_is_followed_from_before_its_start_to_its_end() {
        let queued = |attempt| job(JobState::Queued { since: Timestamp(0) }, attempt);
        let placement = || std::sync::Arc::new(Placement::new(Vec::new()));
        let running = |attempt| job(JobState::Running { placement: placement(), since: Timestamp(0) }, attempt);
        let finished = |attempt| job(JobState::Finished { outcome: Box::new(Outcome::Succeeded), at: Timestamp(0) }, attempt);
        let id = JobId(uuid::Uuid::nil());
        let mut run = Run::of(id, None, &queued(0));
        assert_eq!((run.attempt, run.over), (None, false));
        run.learn(&job(JobState::Waiting { on: WaitFor::Hold }, 0));
        assert_eq!((run.attempt, run.over), (None, false));
        run.learn(&running(1));
        assert_eq!((run.attempt, run.over), (Some(Attempt(1)), false));
        let mut lost = run;
        lost.learn(&queued(1));
        assert!(lost.over, "the run was lost, the job is queued again");
        run.learn(&finished(1));
        assert!(run.over);
        assert_eq!(Run::of(id, None, &finished(0)), Run { job: id, attempt: None, over: true });
        assert_eq!(Run::of(id, None, &finished(2)), Run { job: id, attempt: Some(Attempt(2)), over: true });
        assert!(Run::of(id, Some(Attempt(1)), &running(2)).over, "an earlier try is over");
        assert!(!Run::of(id, Some(Attempt(2)), &running(2)).over);
    }
}
