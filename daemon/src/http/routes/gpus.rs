//! `/gpus`: list, look at, drain, resume.
//!
//! Invariants: everybody who is served may look, only administrators may say what is done with a GPU; an order that is so already is
//! answered like one that was just done.

use std::sync::Arc;

use api::{GpuList, NodeOrder, PlacedGpu};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use scheduler_core::ids::Name;

use super::nodes::NodeName;
use super::objects::{absent, change, json, permit};
use crate::backend::{Caller, Snapshot};
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::body;
use crate::http::problem::{ApiError, ApiResult};
use crate::objects::edit::Change;
use crate::objects::nodes::{Closed, Order, reason};

fn all(snapshot: &Snapshot) -> impl Iterator<Item = PlacedGpu> + '_ {
    let of = |node: &api::Node| {
        node.gpus.iter().map(|gpu| PlacedGpu { node: node.name.clone(), gpu: gpu.clone() }).collect::<Vec<_>>()
    };
    snapshot.nodes.iter().flat_map(of)
}

async fn find(app: &App, uuid: &Name) -> ApiResult<Json<PlacedGpu>> {
    let snapshot = app.backend.snapshot().await?;
    let found = all(&snapshot).find(|placed| placed.gpu.uuid == uuid.as_str());
    found.map(Json).ok_or_else(|| absent("GPU", uuid))
}

async fn order(
    app: &App,
    caller: &Caller,
    uuid: Name,
    close: Option<Closed>,
    headers: &HeaderMap,
    body: Body,
) -> ApiResult<Json<PlacedGpu>> {
    permit(caller)?;
    let bytes = json(app, headers, body).await?;
    let said = if bytes.is_empty() { NodeOrder::default() } else { body::parse(&bytes, "")? };
    let reason = said.reason.map(reason).transpose().map_err(|invalid| ApiError::invalid(invalid.field, invalid.detail))?;
    change(app, caller, Change::Gpu(uuid.clone(), Order { close, reason, by: caller.user.clone() })).await?;
    find(app, &uuid).await
}

/// List GPUs
///
/// With who has them, what uses them, and how they are.
#[utoipa::path(
    get,
    path = "/api/v1/gpus",
    tag = "cluster",
    responses(
        (status = 200, description = "All GPUs", body = GpuList),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Asker) -> ApiResult<Json<GpuList>> {
    let snapshot = app.backend.snapshot().await?;
    let driver = snapshot.driver.as_ref();
    Ok(Json(GpuList {
        items: all(&snapshot).collect(),
        driver: driver.map(|driver| driver.version.clone()),
        cuda: driver.map(|driver| driver.cuda.clone()).filter(|cuda| !cuda.is_empty()),
        note: snapshot.gpu_note.clone(),
    }))
}

/// Look at a GPU
#[utoipa::path(
    get,
    path = "/api/v1/gpus/{name}",
    tag = "cluster",
    params(("name" = String, Path, description = "Its UUID")),
    responses(
        (status = 200, description = "The GPU", body = PlacedGpu),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Asker, NodeName(uuid): NodeName) -> ApiResult<Json<PlacedGpu>> {
    find(&app, &uuid).await
}

/// Promise a GPU to nobody
///
/// Whoever has it keeps it. Only administrators may. It stays so over restarts of the daemon.
#[utoipa::path(
    post,
    path = "/api/v1/gpus/{name}/drain",
    tag = "cluster",
    params(("name" = String, Path, description = "Its UUID")),
    request_body(content = Option<NodeOrder>, description = "May be left out"),
    responses(
        (status = 200, description = "The GPU afterwards", body = PlacedGpu),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    NodeName(uuid): NodeName,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<PlacedGpu>> {
    order(&app, &caller, uuid, Some(Closed::Draining), &headers, body).await
}

/// Promise a GPU again
///
/// Also one that was drained because it was found to be sick. Only administrators may.
#[utoipa::path(
    post,
    path = "/api/v1/gpus/{name}/resume",
    tag = "cluster",
    params(("name" = String, Path, description = "Its UUID")),
    request_body(content = Option<NodeOrder>, description = "May be left out"),
    responses(
        (status = 200, description = "The GPU afterwards", body = PlacedGpu),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    NodeName(uuid): NodeName,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<PlacedGpu>> {
    order(&app, &caller, uuid, None, &headers, body).await
}
