//! `/queues`: list, look at, set, change, delete.

use std::sync::Arc;

use api::{Queue, QueueList, QueueSpec};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use scheduler_core::ids::Name;

use super::objects::{Named, absent, answer, change, patch, put};
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::problem::ApiResult;
use crate::objects::edit::{Change, Edit};

async fn find(app: &App, name: &Name) -> ApiResult<Queue> {
    let found = app.backend.queue(name).await?;
    found.ok_or_else(|| absent("queue", name))
}

/// List queues
#[utoipa::path(
    get,
    path = "/api/v1/queues",
    tag = "queues",
    responses(
        (status = 200, description = "All queues", body = QueueList),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Asker) -> ApiResult<Json<QueueList>> {
    Ok(Json(QueueList { items: app.backend.snapshot().await?.queues.clone() }))
}

/// Look at a queue
#[utoipa::path(
    get,
    path = "/api/v1/queues/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The queue", body = Queue),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Asker, Named(name): Named) -> ApiResult<Json<Queue>> {
    Ok(Json(find(&app, &name).await?))
}

/// Set a queue
///
/// Creates it, or replaces all of what is said of it; what is left out has its default. Only administrators may. Jobs in it are ordered anew at once.
#[utoipa::path(
    put,
    path = "/api/v1/queues/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name: a DNS-1123 label")),
    request_body = QueueSpec,
    responses(
        (status = 200, description = "The queue afterwards", body = Queue),
        (status = 201, description = "The new queue", body = Queue),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn set(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    Named(name): Named,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let edit: Edit<QueueSpec> = put(&app, &caller, &headers, body).await?;
    let changed = change(&app, &caller, Change::Queue(name.clone(), edit)).await?;
    answer(changed, find(&app, &name).await)
}

/// Change a queue
///
/// A JSON merge patch (RFC 7396): what is named is set, what is null gets its default.
#[utoipa::path(
    patch,
    path = "/api/v1/queues/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    request_body(content((QueueSpec = "application/merge-patch+json"), (QueueSpec = "application/json"))),
    responses(
        (status = 200, description = "The queue afterwards", body = Queue),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn modify(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    Named(name): Named,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let edit: Edit<QueueSpec> = patch(&app, &caller, &headers, body).await?;
    let changed = change(&app, &caller, Change::Queue(name.clone(), edit)).await?;
    answer(changed, find(&app, &name).await)
}

/// Delete a queue
///
/// Only administrators may, and only without unfinished jobs. One that `flashd.toml` names, or that is built in, is there again after a restart.
#[utoipa::path(
    delete,
    path = "/api/v1/queues/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(State(app): State<Arc<App>>, Asker(caller): Asker, Named(name): Named) -> ApiResult<StatusCode> {
    change(&app, &caller, Change::Queue(name, Edit::Remove)).await?;
    Ok(StatusCode::NO_CONTENT)
}
