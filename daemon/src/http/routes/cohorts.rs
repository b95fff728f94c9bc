//! `/cohorts`: list, look at, set, change, delete.

use std::sync::Arc;

use api::{Cohort, CohortList, CohortSpec};
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

async fn find(app: &App, name: &Name) -> ApiResult<Cohort> {
    let snapshot = app.backend.snapshot().await?;
    let found = snapshot.cohorts.iter().find(|cohort| cohort.name == name.as_str()).cloned();
    found.ok_or_else(|| absent("cohort", name))
}

/// List cohorts
#[utoipa::path(
    get,
    path = "/api/v1/cohorts",
    tag = "queues",
    responses(
        (status = 200, description = "All cohorts", body = CohortList),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Asker) -> ApiResult<Json<CohortList>> {
    Ok(Json(CohortList { items: app.backend.snapshot().await?.cohorts.clone() }))
}

/// Look at a cohort
#[utoipa::path(
    get,
    path = "/api/v1/cohorts/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The cohort", body = Cohort),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Asker, Named(name): Named) -> ApiResult<Json<Cohort>> {
    Ok(Json(find(&app, &name).await?))
}

/// Set a cohort
///
/// Creates it, or replaces all of what is said of it; what is left out has its default. Only administrators may.
#[utoipa::path(
    put,
    path = "/api/v1/cohorts/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name: a DNS-1123 label")),
    request_body = CohortSpec,
    responses(
        (status = 200, description = "The cohort afterwards", body = Cohort),
        (status = 201, description = "The new cohort", body = Cohort),
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
    let edit: Edit<CohortSpec> = put(&app, &caller, &headers, body).await?;
    let changed = change(&app, &caller, Change::Cohort(name.clone(), edit)).await?;
    answer(changed, find(&app, &name).await)
}

/// Change a cohort
///
/// A JSON merge patch (RFC 7396): what is named is set, what is null gets its default.
#[utoipa::path(
    patch,
    path = "/api/v1/cohorts/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    request_body(content((CohortSpec = "application/merge-patch+json"), (CohortSpec = "application/json"))),
    responses(
        (status = 200, description = "The cohort afterwards", body = Cohort),
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
    let edit: Edit<CohortSpec> = patch(&app, &caller, &headers, body).await?;
    let changed = change(&app, &caller, Change::Cohort(name.clone(), edit)).await?;
    answer(changed, find(&app, &name).await)
}

/// Delete a cohort
///
/// Only administrators may, and only while no queue or cohort names it. One that `flashd.toml` names is there again after a restart.
#[utoipa::path(
    delete,
    path = "/api/v1/cohorts/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(State(app): State<Arc<App>>, Asker(caller): Asker, Named(name): Named) -> ApiResult<StatusCode> {
    change(&app, &caller, Change::Cohort(name, Edit::Remove)).await?;
    Ok(StatusCode::NO_CONTENT)
}
