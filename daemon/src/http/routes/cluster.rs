//! Who the caller is, and how the daemon does.

use std::sync::Arc;

use api::{ServerInfo, codes};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::backend::Readiness;
use crate::http::App;
use crate::http::auth::{Asker, MaybeAsker};
use crate::http::gpu_metrics;
use crate::http::problem::{ApiError, ApiResult};
use crate::metrics::QueueState;

/// Say who is asking whom
#[utoipa::path(
    get,
    path = "/api/v1/info",
    tag = "cluster",
    responses(
        (status = 200, description = "The daemon, and whom it takes the caller for", body = ServerInfo),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn info(State(app): State<Arc<App>>, Asker(caller): Asker) -> Json<ServerInfo> {
    let member = caller.membership();
    let texts = |names: &[scheduler_core::ids::Name]| names.iter().map(ToString::to_string).collect();
    Json(ServerInfo {
        namespaces: member.map(|member| texts(&member.namespaces)).unwrap_or_default(),
        groups: member.map(|member| texts(&member.groups)).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        user: caller.user.to_string(),
        admin: caller.admin,
        revision: app.backend.watch().revision().0,
        executor: app.admission.executor().to_string(),
    })
}

/// Say that the process answers
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    security(()),
    responses((status = 200, description = "It does", body = String))
)]
pub(super) async fn healthz(_: MaybeAsker) -> &'static str {
    "ok\n"
}

/// Say whether jobs can be submitted
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "They can", body = String),
        (status = 503, description = "They cannot, and why", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn readyz(State(app): State<Arc<App>>, _: MaybeAsker) -> ApiResult<&'static str> {
    if app.shutdown.is_cancelled() {
        return Err(ApiError::new(codes::UNAVAILABLE, "the daemon is going down"));
    }
    match app.backend.ready() {
        Readiness::Ready => Ok("ok\n"),
        Readiness::NotReady(why) => Err(ApiError::new(codes::UNAVAILABLE, why)),
        Readiness::Draining => Err(ApiError::new(codes::UNAVAILABLE, "the daemon is going down")),
    }
}

/// Show metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn metrics(State(app): State<Arc<App>>, _: MaybeAsker) -> ApiResult<impl IntoResponse> {
    let snapshot = app.backend.snapshot().await?;
    for queue in &snapshot.queues {
        for (state, count) in [("waiting", queue.waiting), ("queued", queue.queued), ("active", queue.active)] {
            let label = QueueState { queue: queue.name.clone(), state };
            app.metrics.queue_jobs.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    let mut text = app.metrics.encode().map_err(|error| ApiError::internal(&error))?;
    gpu_metrics::insert(&mut text, &snapshot.nodes);
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
