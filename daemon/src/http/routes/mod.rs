//! All routes, and the OpenAPI document that is made from them.
//!
//! Invariants: a route is in the document because it is served, and served because it is in the document: both come from one macro. What is
//! no route, or no method of it, is a problem like all others.

pub mod actions;
pub mod classes;
pub mod cluster;
pub mod cohorts;
pub mod events;
pub mod gpus;
pub mod jobs;
pub mod logs;
pub mod nodes;
pub mod notices;
mod objects;
mod params;
pub mod queues;
pub mod submit;
pub mod tail;
pub mod tokens;
pub mod usage;

use std::sync::Arc;

use api::codes;
use axum::Router;
use axum::http::{Method, Uri};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use super::App;
use super::problem::ApiError;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "flashd",
        description = "Queues, schedules and runs jobs on the CPUs and GPUs of a machine. Errors are RFC 9457 problems with a stable `code`. \
                       The Unix socket knows its peer; over TCP every request carries a bearer token, of the daemon or of the cluster in which jobs run."
    ),
    modifiers(&Token),
    security(("token" = []), ())
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("flash_…").build());
        document.components.get_or_insert_default().add_security_scheme("token", token);
    }
}

fn parts() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(submit::create, jobs::list))
        .routes(routes!(submit::create_batch))
        .routes(routes!(jobs::show, actions::update))
        .routes(routes!(jobs::why))
        .routes(routes!(jobs::history))
        .routes(routes!(logs::logs))
        .routes(routes!(actions::cancel))
        .routes(routes!(actions::hold))
        .routes(routes!(actions::release))
        .routes(routes!(actions::requeue))
        .routes(routes!(events::watch))
        .routes(routes!(notices::list))
        .routes(routes!(queues::list))
        .routes(routes!(queues::show, queues::set, queues::modify, queues::remove))
        .routes(routes!(cohorts::list))
        .routes(routes!(cohorts::show, cohorts::set, cohorts::modify, cohorts::remove))
        .routes(routes!(classes::list))
        .routes(routes!(classes::show, classes::set, classes::modify, classes::remove))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::show))
        .routes(routes!(nodes::cordon))
        .routes(routes!(nodes::drain))
        .routes(routes!(nodes::resume))
        .routes(routes!(gpus::list))
        .routes(routes!(gpus::show))
        .routes(routes!(gpus::drain))
        .routes(routes!(gpus::resume))
        .routes(routes!(usage::usage))
        .routes(routes!(cluster::info))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::remove))
        .routes(routes!(cluster::healthz))
        .routes(routes!(cluster::readyz))
        .routes(routes!(cluster::metrics))
        .split_for_parts()
}

/// Every route with its handler.
pub fn router(app: Arc<App>) -> Router {
    let (router, document) = parts();
    router
        .merge(SwaggerUi::new("/docs").url("/api/v1/openapi.json", document))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

/// The OpenAPI document, as it is served and kept in `docs/openapi.json`.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    let (_, document) = parts();
    let mut text = document.to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::new(codes::NOT_FOUND, format!("no route {}; /docs shows what there is", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(codes::METHOD, format!("{method} is not possible on {}", uri.path()))
}

/// The pattern of the route that a path is for: a word for metrics, from a closed set.
pub fn label(path: &str) -> &'static str {
    match path {
        "/api/v1/jobs" => "/api/v1/jobs",
        "/api/v1/jobs:batch" => "/api/v1/jobs:batch",
        "/api/v1/events" => "/api/v1/events",
        "/api/v1/notices" => "/api/v1/notices",
        "/api/v1/queues" => "/api/v1/queues",
        "/api/v1/cohorts" => "/api/v1/cohorts",
        "/api/v1/priorityclasses" => "/api/v1/priorityclasses",
        "/api/v1/nodes" => "/api/v1/nodes",
        "/api/v1/gpus" => "/api/v1/gpus",
        "/api/v1/usage" => "/api/v1/usage",
        "/api/v1/info" => "/api/v1/info",
        "/api/v1/tokens" => "/api/v1/tokens",
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/metrics" => "/metrics",
        _ => label_of_item(path).unwrap_or("other"),
    }
}

fn label_of_item(path: &str) -> Option<&'static str> {
    for (prefix, label) in [
        ("/api/v1/tokens/", "/api/v1/tokens/{id}"),
        ("/api/v1/queues/", "/api/v1/queues/{name}"),
        ("/api/v1/cohorts/", "/api/v1/cohorts/{name}"),
        ("/api/v1/priorityclasses/", "/api/v1/priorityclasses/{name}"),
    ] {
        if let Some(rest) = path.strip_prefix(prefix) {
            return (!rest.contains('/')).then_some(label);
        }
    }
    if let Some(rest) = path.strip_prefix("/api/v1/nodes/") {
        return match rest.split_once('/') {
            None => Some("/api/v1/nodes/{name}"),
            Some((_, "cordon")) => Some("/api/v1/nodes/{name}/cordon"),
            Some((_, "drain")) => Some("/api/v1/nodes/{name}/drain"),
            Some((_, "resume")) => Some("/api/v1/nodes/{name}/resume"),
            Some(_) => None,
        };
    }
    if let Some(rest) = path.strip_prefix("/api/v1/gpus/") {
        return match rest.split_once('/') {
            None => Some("/api/v1/gpus/{name}"),
            Some((_, "drain")) => Some("/api/v1/gpus/{name}/drain"),
            Some((_, "resume")) => Some("/api/v1/gpus/{name}/resume"),
            Some(_) => None,
        };
    }
    let rest = path.strip_prefix("/api/v1/jobs/")?;
    let Some((_, what)) = rest.split_once('/') else { return Some("/api/v1/jobs/{id}") };
    Some(match what {
        "why" => "/api/v1/jobs/{id}/why",
        "logs" => "/api/v1/jobs/{id}/logs",
        "events" => "/api/v1/jobs/{id}/events",
        "cancel" => "/api/v1/jobs/{id}/cancel",
        "hold" => "/api/v1/jobs/{id}/hold",
        "release" => "/api/v1/jobs/{id}/release",
        "requeue" => "/api/v1/jobs/{id}/requeue",
        _ => return None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_label() {
        let (_, document) = parts();
        assert!(document.paths.paths.len() > 15);
        for pattern in document.paths.paths.keys() {
            assert_eq!(label(&pattern.replace("{id}", "0197").replace("{name}", "a")), pattern);
        }
        for path in ["/", "/api/v1/jobs/x/y", "/api/v1/tokens/x/y", "/docs/"] {
            assert_eq!(label(path), "other");
        }
    }

    #[test]
    fn every_operation_says_what_it_does_and_how_it_fails() {
        let document: serde_json::Value = serde_json::from_str(&openapi_json().unwrap()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path}");
                let answers = operation["responses"].as_object().unwrap();
                assert!(path.ends_with('z') || answers.contains_key("default"), "{method} {path} has no problem answer");
            }
        }
    }
}
