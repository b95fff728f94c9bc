//! `GET /events`: what happens, as it happens, over server-sent events.
//!
//! Invariants: events come in revision order without a gap, from the revision asked for; what is compacted away is answered with 410, or told
//! as the last thing of a stream that fell so far behind. A watcher is handed the next events when it has taken the last ones: what
//! it is behind by lies in the store, not in memory, and one that takes nothing is cut off by its connection.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::codes;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use scheduler_core::ids::{JobId, Revision};
use serde::Deserialize;
use store::{EventRecord, LogEntry, StoreError};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::params::{Params, resolve};
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::problem::{ApiError, ApiResult};
use crate::http::view;
use crate::metrics::InUse;
use crate::watch::Watch;

/// A sign of life after this much silence, so that neither end takes the other for dead.
const SILENCE: Duration = Duration::from_secs(15);
/// Events that are read at once.
const CHUNK: u32 = 512;

/// Which events.
#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WatchParams {
    /// Begin after this revision; the header `Last-Event-ID` says the same and wins. Default: with what happens from now on.
    after: Option<u64>,
    /// Only of this job: its UUID, or at least its first 8 digits.
    job: Option<String>,
    /// Only of this namespace.
    namespace: Option<String>,
    /// Only of things of these kinds, with commas between them: `job`, `gpu`, `node`, `queue`, `cohort`, `priorityClass`. Default: all.
    kind: Option<String>,
}

/// Watch events
///
/// Each has its revision as `id`. Those of jobs have no type and a `JobEvent` as `data`; those of other things have their kind as type (`gpu`,
/// `node`, `queue`, `cohort`, `priorityClass`) and a `Notice` as `data`, and come where no job or namespace is asked for. To resume, send the last `id` as `Last-Event-ID`; 410 says that events since
/// then are gone: list again and watch from the list's revision.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(WatchParams, ("Last-Event-ID" = Option<u64>, Header, description = "Revision to resume after")),
    responses(
        (status = 200, description = "A stream without end", body = String, content_type = "text/event-stream"),
        (status = 410, description = "Events after that revision are gone", body = api::Problem, content_type = "application/problem+json"),
        (status = "default", description = "No stream", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn watch(
    State(app): State<Arc<App>>,
    _: Asker,
    Params(params): Params<WatchParams>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let watch = app.backend.watch();
    let after = match headers.get("last-event-id") {
        Some(value) => {
            let revision = value.to_str().ok().and_then(|value| value.parse().ok());
            Some(revision.ok_or_else(|| ApiError::invalid("Last-Event-ID", "not a revision: a whole number"))?)
        }
        None => params.after,
    };
    let after = after.map_or_else(|| watch.revision(), Revision);
    if after > watch.revision() {
        let detail = format!("revision {after} has not happened yet; the latest is {}", watch.revision());
        return Err(ApiError::invalid("after", detail));
    }
    let job = match &params.job {
        Some(job) => Some(resolve(&*app.backend, job).await?),
        None => None,
    };
    let kinds = params.kind.as_deref().map(Kinds::parse).transpose()?;
    let permit = Arc::clone(&app.watchers).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::new(codes::BUSY, "too many watch already; try again later"))?;
    // Says 410 while there still is a status to say it with.
    watch.read(after, 1, app.backend.store()).await?;
    let in_use = InUse::new(&app.metrics.watchers);
    let follow = Follow {
        app,
        watch,
        after,
        job,
        namespace: params.namespace,
        kinds,
        greeted: false,
        ended: false,
        _held: (permit, in_use),
    };
    let stream = futures::stream::unfold(follow, |mut follow| async move {
        let chunk = follow.next().await?;
        Some((Ok::<_, Infallible>(chunk), follow))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Kinds of things that are asked for.
struct Kinds {
    jobs: bool,
    others: Vec<api::NoticeKind>,
}

impl Kinds {
    fn parse(text: &str) -> ApiResult<Self> {
        let mut kinds = Self { jobs: false, others: Vec::new() };
        for word in text.split(',') {
            match api::NoticeKind::of(word) {
                Some(kind) => kinds.others.push(kind),
                None if word == "job" => kinds.jobs = true,
                None => return Err(ApiError::invalid("kind", super::notices::unknown(word, &["job"]))),
            }
        }
        Ok(kinds)
    }
}

struct Follow {
    app: Arc<App>,
    watch: Watch,
    after: Revision,
    job: Option<JobId>,
    namespace: Option<String>,
    kinds: Option<Kinds>,
    greeted: bool,
    ended: bool,
    _held: (OwnedSemaphorePermit, InUse),
}

impl Follow {
    fn wants(&self, event: &EventRecord) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.jobs)
            && self.job.is_none_or(|job| job == event.job)
            && self.namespace.as_deref().is_none_or(|namespace| namespace == event.namespace.as_str())
    }

    /// What goes out next; nothing when the stream is at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            // Tells the client that it is connected, also when nothing happens.
            return Some(Bytes::from_static(b": connected\n\n"));
        }
        while !self.ended {
            match self.watch.read(self.after, CHUNK, self.app.backend.store()).await {
                Ok(events) => {
                    if let Some(last) = events.last() {
                        self.after = last.revision();
                        let chunk = self.render(&events);
                        if !chunk.is_empty() {
                            return Some(Bytes::from(chunk));
                        }
                        // Others have their turn before the next thousand that this one does not want.
                        tokio::task::yield_now().await;
                    } else if let Some(sign) = self.pause().await {
                        return Some(sign);
                    }
                }
                Err(error) => {
                    self.ended = true;
                    let compacted = matches!(error, StoreError::Compacted { .. });
                    let problem = ApiError::from(error);
                    let name = if compacted { "gone" } else { "failed" };
                    let data = serde_json::to_string(problem.problem()).unwrap_or_default();
                    return Some(Bytes::from(format!("event: {name}\ndata: {data}\n\n")));
                }
            }
        }
        None
    }

    /// Waits for something new; gives the sign of life that is due where nothing comes.
    async fn pause(&mut self) -> Option<Bytes> {
        tokio::select! {
            () = self.app.shutdown.cancelled() => self.ended = true,
            more = self.watch.beyond(self.after) => self.ended = !more,
            () = tokio::time::sleep(SILENCE) => return Some(Bytes::from_static(b": alive\n\n")),
        }
        None
    }

    /// Whoever asks for a job or a namespace asks for no other things.
    fn wants_notice(&self, kind: store::NoticeKind) -> bool {
        let kind = view::notice_kind(kind);
        self.job.is_none() && self.namespace.is_none() && self.kinds.as_ref().is_none_or(|kinds| kinds.others.contains(&kind))
    }

    fn render(&self, entries: &[Arc<LogEntry>]) -> String {
        let mut chunk = String::new();
        for entry in entries {
            // Writing to a string cannot fail.
            match &**entry {
                LogEntry::Job(event) if self.wants(event) => {
                    let data = serde_json::to_string(&view::event(event)).unwrap_or_default();
                    let _ = write!(chunk, "id: {}\ndata: {data}\n\n", event.revision);
                }
                // With a type, so that whoever knows of jobs alone does not take it for something of a job.
                LogEntry::Notice(record) if self.wants_notice(record.notice.kind) => {
                    let data = serde_json::to_string(&view::notice(record)).unwrap_or_default();
                    let kind = record.notice.kind.as_str();
                    let _ = write!(chunk, "id: {}\nevent: {kind}\ndata: {data}\n\n", record.revision);
                }
                LogEntry::Job(_) | LogEntry::Notice(_) => {}
            }
        }
        chunk
    }
}
