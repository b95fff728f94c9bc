//! What is done around every request: who asks, how long it may take, what is counted, and that a panic is an answer.
//!
//! Invariants: no handler runs before its caller is known, and none that changes something runs in a standby, nor any that is not public before the
//! standby can read the table; nothing here allocates by the size of a request or logs above debug.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::codes;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use tower::Service as _;

use super::App;
use super::auth::Peer;
use super::problem::ApiError;
use super::routes;
use crate::backend::Standby;
use crate::metrics::{Route, RouteStatus};

/// Answers one request.
pub async fn answer(app: &Arc<App>, router: &Router, peer: &Peer, request: Request<Incoming>) -> Result<Response, Infallible> {
    let begun = Instant::now();
    let route = routes::label(request.uri().path());
    let limit = Duration::from_micros(app.limits.request_timeout.0);
    let handled = AssertUnwindSafe(handle(app, router, peer, request)).catch_unwind();
    let response = match tokio::time::timeout(limit, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::internal(&format_args!("a handler of {route} panicked")).into_response(),
        Err(_) => {
            let detail = format!("the answer was not there within {}", app.limits.request_timeout);
            ApiError::new(codes::TIMEOUT, detail).into_response()
        }
    };
    let status = response.status().as_u16();
    app.metrics.http_requests.get_or_create(&RouteStatus { route, status }).inc();
    app.metrics.http_seconds.get_or_create(&Route { route }).observe(begun.elapsed().as_secs_f64());
    tracing::debug!(route, status, "answered");
    Ok(response)
}

async fn handle(app: &Arc<App>, router: &Router, peer: &Peer, request: Request<Incoming>) -> Response {
    let (standby, path) = (app.backend.standby(), request.uri().path());
    if let Some(Standby { leader, reads: false }) = &standby
        && !app.auth.is_public(path)
    {
        return ApiError::new(codes::UNAVAILABLE, leader).into_response();
    }
    let caller = app.auth.identify(peer, path, request.headers(), app.backend.store()).await;
    if !request.method().is_safe()
        && caller.is_ok()
        && let Some(Standby { leader, .. }) = standby
    {
        return ApiError::new(codes::UNAVAILABLE, leader).into_response();
    }
    let mut request = request.map(Body::new);
    match caller {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
        }
        Ok(None) => {}
        Err(error) => return error.into_response(),
    }
    match router.clone().call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
