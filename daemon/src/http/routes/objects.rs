//! What the routes of queues, cohorts, priority classes and nodes have in common: who may change them, bodies, answers.
//!
//! Invariants: everybody who is served may look, only administrators may change; the answer of a change leaves after it is durable; a
//! name is checked before anything is asked of the engine.

use std::sync::Arc;

use api::codes;
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use scheduler_core::ids::Name;
use scheduler_core::scheduler::NodeState;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::backend::Caller;
use crate::http::App;
use crate::http::body::{self, Kind};
use crate::http::problem::{ApiError, ApiResult};
use crate::names;
use crate::objects::edit::{Change, Changed, Edit};
use crate::objects::nodes::Closed;

/// `{name}` of a path: of an object that is there, or may be made.
pub(super) struct Named(pub(super) Name);

impl FromRequestParts<Arc<App>> for Named {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(name)) if names::is_label(&name) => Ok(Self(Name::from(name.as_str()))),
            Ok(Path(name)) => {
                Err(ApiError::invalid("name", format!("`{}` is not a name: {}", name.escape_debug(), names::LABEL_RULE)))
            }
            Err(rejection) => Err(ApiError::new(codes::MALFORMED, rejection.body_text())),
        }
    }
}

/// Only administrators.
pub(super) fn permit(caller: &Caller) -> ApiResult<()> {
    if caller.admin {
        return Ok(());
    }
    let who = match caller.membership() {
        Some(_) => "members of auth.admin_groups",
        None => "root and the user that the daemon runs as",
    };
    let detail = format!("only {who} may change this, not {}", caller.user);
    Err(ApiError::new(codes::FORBIDDEN, detail))
}

/// The body, if it says that it is JSON, or says nothing.
pub(super) async fn json(app: &App, headers: &HeaderMap, body: Body) -> ApiResult<bytes::Bytes> {
    if Kind::of(headers)? != Kind::Json {
        return Err(ApiError::new(codes::MEDIA_TYPE, "send one application/json object"));
    }
    body::read(body, app.limits.body).await
}

/// The edit that a body of `PUT` asks for.
pub(super) async fn put<S: DeserializeOwned>(app: &App, caller: &Caller, headers: &HeaderMap, body: Body) -> ApiResult<Edit<S>> {
    permit(caller)?;
    Ok(Edit::Put(body::parse(&json(app, headers, body).await?, "")?))
}

/// The edit that a body of `PATCH` asks for.
pub(super) async fn patch<S>(app: &App, caller: &Caller, headers: &HeaderMap, body: Body) -> ApiResult<Edit<S>> {
    permit(caller)?;
    Ok(Edit::Patch(merge(app, headers, body).await?))
}

/// A JSON merge patch, under either of its content types.
pub(super) async fn merge(app: &App, headers: &HeaderMap, body: Body) -> ApiResult<Map<String, Value>> {
    let is_patch = headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/merge-patch+json"));
    let bytes = if is_patch { body::read(body, app.limits.body).await? } else { json(app, headers, body).await? };
    body::parse(&bytes, "")
}

/// Makes a change durable; what it did.
pub(super) async fn change(app: &App, caller: &Caller, change: Change) -> ApiResult<Changed> {
    permit(caller)?;
    let what = match &change {
        Change::Queue(name, _) | Change::ClusterQueue(name, _) => format!("queue {name}"),
        Change::Cohort(name, _) => format!("cohort {name}"),
        Change::Class(name, _) => format!("priority class {name}"),
        Change::Gpu(uuid, order) => format!("GPU {uuid} to {}", if order.close.is_some() { "drained" } else { "ready" }),
        Change::Node(name, order) => format!("node {name} to {}", order.close.map_or(NodeState::Ready, Closed::state).as_str()),
    };
    let changed = app.backend.change(change).await?;
    tracing::info!(user = %caller.user, ?changed, what, "changed over the API");
    Ok(changed)
}

/// The thing after a change: `201` where it is new. One that is gone again already is not found.
pub(super) fn answer<T: Serialize>(changed: Changed, shown: ApiResult<T>) -> ApiResult<Response> {
    let status = if changed == Changed::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown?)).into_response())
}

/// No such thing.
pub(super) fn absent(kind: &str, name: &Name) -> ApiError {
    ApiError::new(codes::NOT_FOUND, format!("no {kind} `{name}`"))
}
