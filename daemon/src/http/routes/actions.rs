//! What a user does to a job: cancel, hold, release, requeue, change.
//!
//! Invariants: only the owner and admins may; what is so already is answered like what was just done, so that a call can be repeated; a
//! finished job stays finished.

use std::sync::Arc;

use api::{Job, codes};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use scheduler_core::event::Rejected;
use scheduler_core::ids::JobId;
use scheduler_core::state::{JobState, StateKind};
use store::JobRecord;

use super::objects::merge;
use super::params::{Id, find_own};
use crate::backend::{Action, BackendError, Caller};
use crate::http::App;
use crate::http::admission::FIELDS;
use crate::http::auth::Asker;
use crate::http::problem::{ApiError, ApiResult};
use crate::http::view;

/// How often a patch is made anew where others change the same job at the same time.
const UPDATE_TRIES: usize = 8;

fn word(action: Action) -> &'static str {
    match action {
        Action::Cancel => "cancel",
        Action::Hold => "hold",
        Action::Release => "release",
        Action::Requeue => "requeue",
    }
}

async fn read(app: &App, id: JobId) -> ApiResult<JobRecord> {
    let record = app.backend.store().job(id).await?;
    record.ok_or_else(|| ApiError::new(codes::NOT_FOUND, format!("no job {id}")))
}

/// Where a job stands, as the end of `job X is`.
fn standing(record: &JobRecord) -> String {
    match &record.lifecycle.state {
        JobState::Finished { outcome, .. } => {
            let outcome = view::outcome(outcome);
            let result = match outcome.result {
                api::OutcomeWord::Succeeded => "succeeded",
                api::OutcomeWord::Failed => "failed",
                api::OutcomeWord::Cancelled => "cancelled",
            };
            format!("finished ({result})")
        }
        other => other.kind().as_str().to_owned(),
    }
}

/// Why it cannot be done, with where the job stands.
fn conflict(record: &JobRecord, action: Action) -> ApiError {
    let how = standing(record);
    ApiError::new(codes::CONFLICT, format!("job {} is {how}: {} is not possible", record.id, word(action)))
}

async fn act(app: &App, caller: &Caller, id: &str, action: Action) -> ApiResult<Json<Job>> {
    let record = find_own(&*app.backend, caller, id).await?;
    if record.lifecycle.state.kind() == StateKind::Finished {
        return Err(conflict(&record, action));
    }
    match app.backend.act(record.id, action, caller.user.clone()).await {
        Ok(()) | Err(BackendError::Rejected(Rejected::AlreadySo { .. })) => {
            Ok(Json(view::job(&read(app, record.id).await?, caller)?))
        }
        // It may have finished in between, and left the core.
        Err(BackendError::NotFound | BackendError::Rejected(_)) => Err(conflict(&read(app, record.id).await?, action)),
        Err(other) => Err(other.into()),
    }
}

/// Change a job that waits
///
/// A JSON merge patch (RFC 7396) of some fields of the spec: what is named is set, what is null gets its default. Possible while the job is waiting or
/// queued; it keeps its age. What is so already can be sent again.
#[utoipa::path(
    patch,
    path = "/api/v1/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits")),
    request_body(content((api::JobPatch = "application/merge-patch+json"), (api::JobPatch = "application/json"))),
    responses(
        (status = 200, description = "The job afterwards", body = Job),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Job>> {
    let patch = merge(&app, &headers, body).await?;
    let too_late = |record: &JobRecord| {
        let fields = FIELDS.join(", ");
        let detail = format!(
            "job {} is {}: {fields} can be changed while it is waiting or queued, nothing later",
            record.id,
            standing(record)
        );
        ApiError::new(codes::CONFLICT, detail)
    };
    for _ in 0..UPDATE_TRIES {
        let record = find_own(&*app.backend, &caller, &id).await?;
        let Some(update) = app.admission.update(&record, patch.clone(), &caller)? else {
            return Ok(Json(view::job(&record, &caller)?));
        };
        if !matches!(record.lifecycle.state.kind(), StateKind::Waiting | StateKind::Queued) {
            return Err(too_late(&record));
        }
        match app.backend.update(record.id, update).await {
            Ok(()) => return Ok(Json(view::job(&read(&app, record.id).await?, &caller)?)),
            // Another patch came first: this one is made anew from what that left.
            Err(BackendError::Overtaken) => {}
            Err(BackendError::NotFound | BackendError::Rejected(_)) => return Err(too_late(&read(&app, record.id).await?)),
            Err(other) => return Err(other.into()),
        }
    }
    Err(BackendError::Overtaken.into())
}

/// Cancel a job
///
/// What runs of it is ended as its `stop` says.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/cancel",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits")),
    responses(
        (status = 200, description = "The job afterwards", body = Job),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn cancel(State(app): State<Arc<App>>, Asker(caller): Asker, Id(id): Id) -> ApiResult<Json<Job>> {
    act(&app, &caller, &id, Action::Cancel).await
}

/// Keep a job from being started
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/hold",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits")),
    responses(
        (status = 200, description = "The job afterwards", body = Job),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn hold(State(app): State<Arc<App>>, Asker(caller): Asker, Id(id): Id) -> ApiResult<Json<Job>> {
    act(&app, &caller, &id, Action::Hold).await
}

/// Let a held job be queued
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/release",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits")),
    responses(
        (status = 200, description = "The job afterwards", body = Job),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn release(State(app): State<Arc<App>>, Asker(caller): Asker, Id(id): Id) -> ApiResult<Json<Job>> {
    act(&app, &caller, &id, Action::Release).await
}

/// End what runs of a job and queue it again
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/requeue",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits")),
    responses(
        (status = 200, description = "The job afterwards", body = Job),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn requeue(State(app): State<Arc<App>>, Asker(caller): Asker, Id(id): Id) -> ApiResult<Json<Job>> {
    act(&app, &caller, &id, Action::Requeue).await
}
