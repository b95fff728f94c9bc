//! `/nodes`: list, look at, cordon, drain, resume.
//!
//! Invariants: everybody who is served may look, only administrators may say what is done with a node; an order that is so already is
//! answered like one that was just done.

use std::sync::Arc;

use api::{Node, NodeList, NodeOrder, codes};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use scheduler_core::ids::Name;

use super::objects::{absent, change, json, permit};
use crate::backend::Caller;
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::body;
use crate::http::problem::{ApiError, ApiResult};
use crate::objects::edit::Change;
use crate::objects::nodes::{Closed, Order, reason};

/// `{name}` of a path. Nodes and GPUs are found and never made, so whatever is no name of one is not found.
pub(super) struct NodeName(pub(super) Name);

impl FromRequestParts<Arc<App>> for NodeName {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(name)) => Ok(Self(Name::from(name.as_str()))),
            Err(rejection) => Err(ApiError::new(codes::MALFORMED, rejection.body_text())),
        }
    }
}

async fn find(app: &App, name: &Name) -> ApiResult<Json<Node>> {
    let snapshot = app.backend.snapshot().await?;
    let found = snapshot.nodes.iter().find(|node| node.name == name.as_str()).cloned();
    found.map(Json).ok_or_else(|| absent("node", name))
}

async fn order(
    app: &App,
    caller: &Caller,
    name: Name,
    close: Option<Closed>,
    headers: &HeaderMap,
    body: Body,
) -> ApiResult<Json<Node>> {
    permit(caller)?;
    let bytes = json(app, headers, body).await?;
    let said = if bytes.is_empty() { NodeOrder::default() } else { body::parse(&bytes, "")? };
    let reason = said.reason.map(reason).transpose().map_err(|invalid| ApiError::invalid(invalid.field, invalid.detail))?;
    change(app, caller, Change::Node(name.clone(), Order { close, reason, by: caller.user.clone() })).await?;
    find(app, &name).await
}

/// List nodes
#[utoipa::path(
    get,
    path = "/api/v1/nodes",
    tag = "cluster",
    responses(
        (status = 200, description = "All nodes, with what is promised of them, and how the free GPUs lie", body = NodeList),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Asker) -> ApiResult<Json<NodeList>> {
    let snapshot = app.backend.snapshot().await?;
    let message = app.backend.silence().map(|why| format!("Nothing is started now, because {why}."));
    Ok(Json(NodeList { items: snapshot.nodes.clone(), fragmentation: snapshot.fragmentation.clone(), message }))
}

/// Look at a node
#[utoipa::path(
    get,
    path = "/api/v1/nodes/{name}",
    tag = "cluster",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The node", body = Node),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Asker, NodeName(name): NodeName) -> ApiResult<Json<Node>> {
    find(&app, &name).await
}

/// Keep a node from taking tasks
///
/// What runs on it goes on. Only administrators may. It stays so over restarts of the daemon.
#[utoipa::path(
    post,
    path = "/api/v1/nodes/{name}/cordon",
    tag = "cluster",
    params(("name" = String, Path, description = "Its name")),
    request_body(content = Option<NodeOrder>, description = "May be left out"),
    responses(
        (status = 200, description = "The node afterwards", body = Node),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn cordon(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    NodeName(name): NodeName,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Node>> {
    order(&app, &caller, name, Some(Closed::Cordoned), &headers, body).await
}

/// Empty a node
///
/// It takes no tasks any more, and is `drained` when the last run on it has ended; nothing is ended for that. Only administrators may.
#[utoipa::path(
    post,
    path = "/api/v1/nodes/{name}/drain",
    tag = "cluster",
    params(("name" = String, Path, description = "Its name")),
    request_body(content = Option<NodeOrder>, description = "May be left out"),
    responses(
        (status = 200, description = "The node afterwards", body = Node),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    NodeName(name): NodeName,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Node>> {
    order(&app, &caller, name, Some(Closed::Draining), &headers, body).await
}

/// Let a node take tasks again
///
/// Only administrators may.
#[utoipa::path(
    post,
    path = "/api/v1/nodes/{name}/resume",
    tag = "cluster",
    params(("name" = String, Path, description = "Its name")),
    request_body(content = Option<NodeOrder>, description = "May be left out"),
    responses(
        (status = 200, description = "The node afterwards", body = Node),
        (status = "default", description = "Nothing changed", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    NodeName(name): NodeName,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Node>> {
    order(&app, &caller, name, None, &headers, body).await
}
