//! `/priorityclasses`: list, look at, set, change, delete.

use std::sync::Arc;

use api::{PriorityClass, PriorityClassList, PriorityClassSpec, codes};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use scheduler_core::ids::Name;

use super::objects::{Named, absent, answer, change, patch, put};
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::problem::{ApiError, ApiResult};
use crate::objects::Directory;
use crate::objects::edit::{Change, Edit};

fn view(name: &Name, (priority, origin): (i32, api::Origin)) -> PriorityClass {
    PriorityClass { name: name.to_string(), spec: PriorityClassSpec { priority }, origin }
}

/// What a standby has not read is not told to be absent.
fn directory(app: &App) -> ApiResult<Arc<Directory>> {
    match app.backend.standby() {
        Some(standby) => Err(ApiError::new(codes::UNAVAILABLE, standby.leader)),
        None => Ok(app.backend.directory()),
    }
}

fn find(app: &App, name: &Name) -> ApiResult<PriorityClass> {
    let directory = directory(app)?;
    let found = directory.classes.get(name).map(|class| view(name, *class));
    found.ok_or_else(|| absent("priority class", name))
}

/// List priority classes
#[utoipa::path(
    get,
    path = "/api/v1/priorityclasses",
    tag = "queues",
    responses(
        (status = 200, description = "All priority classes", body = PriorityClassList),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Asker) -> ApiResult<Json<PriorityClassList>> {
    Ok(Json(PriorityClassList { items: directory(&app)?.classes.iter().map(|(name, class)| view(name, *class)).collect() }))
}

/// Look at a priority class
#[utoipa::path(
    get,
    path = "/api/v1/priorityclasses/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The priority class", body = PriorityClass),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Asker, Named(name): Named) -> ApiResult<Json<PriorityClass>> {
    Ok(Json(find(&app, &name)?))
}

/// Set a priority class
///
/// Creates it, or changes its priority. Only administrators may. Jobs that were submitted before keep the priority that they got.
#[utoipa::path(
    put,
    path = "/api/v1/priorityclasses/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name: a DNS-1123 label")),
    request_body = PriorityClassSpec,
    responses(
        (status = 200, description = "The priority class afterwards", body = PriorityClass),
        (status = 201, description = "The new priority class", body = PriorityClass),
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
    let edit: Edit<PriorityClassSpec> = put(&app, &caller, &headers, body).await?;
    let changed = change(&app, &caller, Change::Class(name.clone(), edit)).await?;
    answer(changed, find(&app, &name))
}

/// Change a priority class
///
/// A JSON merge patch (RFC 7396): what is named is set, what is null gets its default.
#[utoipa::path(
    patch,
    path = "/api/v1/priorityclasses/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    request_body(content((PriorityClassSpec = "application/merge-patch+json"), (PriorityClassSpec = "application/json"))),
    responses(
        (status = 200, description = "The priority class afterwards", body = PriorityClass),
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
    let edit: Edit<PriorityClassSpec> = patch(&app, &caller, &headers, body).await?;
    let changed = change(&app, &caller, Change::Class(name.clone(), edit)).await?;
    answer(changed, find(&app, &name))
}

/// Delete a priority class
///
/// Only administrators may. Jobs that named it keep their priority. One that `flashd.toml` names is there again after a restart.
#[utoipa::path(
    delete,
    path = "/api/v1/priorityclasses/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(State(app): State<Arc<App>>, Asker(caller): Asker, Named(name): Named) -> ApiResult<StatusCode> {
    change(&app, &caller, Change::Class(name, Edit::Remove)).await?;
    Ok(StatusCode::NO_CONTENT)
}
