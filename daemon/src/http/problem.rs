//! Errors on their way out: RFC 9457 problems with stable codes.
//!
//! Invariants: every answer with a status of 400 or more comes from here; a fault of the server is logged in full and told to the client
//! without its insides.

use api::{Problem, codes};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use scheduler_core::event::Rejected;
use store::StoreError;

use super::view;
use super::why::words;
use crate::backend::{BackendError, Refused, Resource};
use crate::objects::Invalid;

/// What handlers fail with.
#[derive(Debug)]
pub struct ApiError(Box<Problem>);

/// A result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// Status and title of a code.
fn meaning(code: &str) -> (u16, &'static str) {
    match code {
        codes::MALFORMED => (400, "The request cannot be read"),
        codes::UNAUTHENTICATED => (401, "Who asks is not known"),
        codes::FORBIDDEN => (403, "Not allowed"),
        codes::NOT_FOUND => (404, "Not found"),
        codes::METHOD => (405, "No such method here"),
        codes::TIMEOUT => (408, "The request took too long"),
        codes::CONFLICT => (409, "Not possible now"),
        codes::KEY_REUSED => (409, "The idempotency key was used with another request"),
        codes::GONE => (410, "No longer there"),
        codes::BODY_TOO_LARGE => (413, "The body is too large"),
        codes::MEDIA_TYPE => (415, "Content type not taken here"),
        codes::INVALID => (422, "A value is not allowed"),
        codes::TOO_LARGE_FOR_CLUSTER => (422, "More than there is"),
        codes::NO_SUCH_NODE => (422, "No node is like that"),
        codes::BUSY => (429, "Too much at once"),
        codes::UNAVAILABLE => (503, "Not available at the moment"),
        _ => (500, "A fault of the server"),
    }
}

impl ApiError {
    /// A problem of one of the [`codes`].
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let (status, title) = meaning(code);
        Self(Box::new(Problem {
            kind: "about:blank".to_owned(),
            title: title.to_owned(),
            status,
            code: code.to_owned(),
            detail: Some(detail.into()),
            field: None,
        }))
    }

    /// A value that is not allowed.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(codes::INVALID, detail).at(field)
    }

    /// The same at a field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// The same with more to say.
    #[must_use]
    pub fn adding(mut self, more: &str) -> Self {
        self.0.detail.get_or_insert_default().push_str(more);
        self
    }

    /// A fault of the server: logged, and told without its insides.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "request failed");
        Self::new(codes::INTERNAL, "the server's log says more")
    }

    /// The core does not take a job.
    pub(super) fn refused(refused: &Refused) -> Self {
        let (resource, detail) = match refused {
            Refused::TaskTooLarge { task, resource, asked, largest } => {
                let [all, most] = [*asked, *largest].map(|number| view::amount(*resource, number.into()));
                let detail = match resource {
                    Resource::Gpu => {
                        let asked = words::amount(*resource, (*asked).into());
                        let most = if *largest == 0 { "none".to_owned() } else { most };
                        format!("task {task} asks for {asked}, the largest node has {most}")
                    }
                    _ => format!("task {task} asks for {all}, the largest node has {most}"),
                };
                (resource, detail)
            }
            Refused::JobTooLarge { resource, asked, total, task, possible } => {
                let [asked, total] = [*asked, *total].map(|number| view::amount(*resource, number));
                let most = format!("at most {possible} of the tasks `{task}` can run at once");
                (resource, format!("its tasks ask for {asked} together, all nodes have {total}: {most}"))
            }
            Refused::OverLimit { .. } | Refused::NoFit { .. } => {
                return Self::new(codes::TOO_LARGE_FOR_CLUSTER, refused.to_string()).at("tasks");
            }
            Refused::NoGpuMemory { task, asked, largest } => {
                let [asked, largest] = [*asked, *largest].map(|memory| view::amount(Resource::Memory, memory.0.into()));
                let detail =
                    format!("task {task} asks for GPUs of at least {asked}, the largest of those that it may have has {largest}");
                return Self::new(codes::NO_SUCH_NODE, detail).at("resources.gpuMemory");
            }
            Refused::NoShareMemory { task, asked, largest } => {
                let [asked, largest] = [*asked, *largest].map(|memory| view::amount(Resource::Memory, memory.0.into()));
                let detail = format!(
                    "task {task} asks for {asked} of the memory of one GPU, the largest of those that it may have has {largest}"
                );
                return Self::new(codes::NO_SUCH_NODE, detail).at("resources.gpuMemoryShare");
            }
            Refused::BadGpus { .. } => return Self::invalid("resources.gpuUuids", refused.to_string()),
            Refused::NoSuchGpu { .. } | Refused::OtherGpu { .. } | Refused::GpusApart { .. } => {
                return Self::new(codes::NO_SUCH_NODE, refused.to_string()).at("resources.gpuUuids");
            }
            Refused::NamedApart { .. } => {
                return Self::new(codes::CONFLICT, refused.to_string()).at("resources.gpuUuids");
            }
            Refused::BadShare { .. } => return Self::invalid("resources.gpu", refused.to_string()),
            Refused::NoNode { .. } | Refused::NoNodeForAll { .. } => {
                return Self::new(codes::NO_SUCH_NODE, refused.to_string()).at("nodeSelector");
            }
            Refused::NoGpuModel { .. } => {
                return Self::new(codes::NO_SUCH_NODE, refused.to_string()).at("resources.gpuModel");
            }
            Refused::NoReplica { .. } => {
                return Self::new(codes::NO_SUCH_NODE, refused.to_string()).at("resources.gpu");
            }
            Refused::NoGpuKind { asked, .. } => {
                let field = if asked.is_some() { "resources.migProfile" } else { "resources.gpu" };
                return Self::new(codes::NO_SUCH_NODE, refused.to_string()).at(field);
            }
            Refused::TooFewInstances { .. } | Refused::TooFewInstancesInAll { .. } => {
                return Self::new(codes::TOO_LARGE_FOR_CLUSTER, refused.to_string()).at("resources.gpu");
            }
            Refused::Duplicate { .. } => return Self::internal(refused),
            // Was checked at the edge already; kept apart there only by a configuration that changed in between.
            Refused::UnknownQueue { .. } => return Self::invalid("queue", refused.to_string()),
            Refused::Priority { .. } => return Self::invalid("priority", refused.to_string()),
            Refused::NoAttempts => return Self::invalid("retry.maxAttempts", refused.to_string()),
            Refused::MinAvailable { .. } => return Self::invalid("minAvailable", refused.to_string()),
            Refused::NoTasks | Refused::NoReplicas { .. } | Refused::DuplicateTask { .. } | Refused::TooManyTasks { .. } => {
                return Self::invalid("tasks", refused.to_string());
            }
        };
        Self::new(codes::TOO_LARGE_FOR_CLUSTER, detail).at(view::resource_field(*resource))
    }

    /// The same, of a part of what was sent.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        let field = self.0.field.take();
        self.0.field = Some(field.map_or_else(|| parent.to_owned(), |field| format!("{parent}.{field}")));
        self
    }

    /// What is answered.
    pub fn problem(&self) -> &Problem {
        &self.0
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // A problem has only strings and numbers: it cannot fail to be written.
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.0.status {
            401 => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            429 | 503 => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"))),
            // What is left of the request is not read.
            408 | 413 => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
            _ => {}
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Closed { .. }
            | StoreError::Standby { .. }
            | StoreError::Fenced { .. } => {
                tracing::warn!(%error, "request refused");
                Self::new(codes::UNAVAILABLE, error.to_string())
            }
            // Where the server is, is for those who run it.
            StoreError::Away { .. } => {
                tracing::warn!(%error, "request refused");
                Self::new(codes::UNAVAILABLE, "the database is away; try again")
            }
            StoreError::Compacted { .. } => Self::new(codes::GONE, error.to_string()),
            other => Self::internal(&other),
        }
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NotFound | BackendError::Rejected(Rejected::Unknown) => Self::new(codes::NOT_FOUND, "no such job"),
            BackendError::Rejected(rejected) => Self::new(codes::CONFLICT, rejected.to_string()),
            BackendError::Refused { refused, .. } => Self::refused(&refused),
            BackendError::NoObject { .. } => Self::new(codes::NOT_FOUND, error.to_string()),
            BackendError::Invalid(Invalid { field, detail }) if field.is_empty() => Self::new(codes::INVALID, detail),
            BackendError::Invalid(Invalid { field, detail }) => Self::invalid(field, detail),
            BackendError::Overtaken => Self::new(codes::CONFLICT, error.to_string()),
            BackendError::Conflict(detail) => Self::new(codes::CONFLICT, detail),
            BackendError::KeyReused => Self::new(codes::KEY_REUSED, "send another key, or the same request"),
            BackendError::Busy => Self::new(codes::BUSY, "too many requests are waiting; try again"),
            BackendError::Unavailable(why) => Self::new(codes::UNAVAILABLE, why),
            BackendError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_headers() {
        for (code, status, header) in [
            (codes::UNAUTHENTICATED, 401, Some("www-authenticate")),
            (codes::BUSY, 429, Some("retry-after")),
            (codes::KEY_REUSED, 409, None),
            (codes::INTERNAL, 500, None),
        ] {
            let response = ApiError::new(code, "x").into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert!(header.is_none_or(|header| response.headers().contains_key(header)), "{code}");
        }
    }

    #[test]
    fn what_a_disk_says_is_told_and_what_code_says_is_not() {
        let full = StoreError::Full { op: "commit", subject: "/x".to_owned() };
        assert_eq!(ApiError::from(full).problem().status, 503);
        let away = StoreError::Away { op: "commit", subject: "/x".to_owned(), detail: "secret".to_owned() };
        let error = ApiError::from(away);
        assert_eq!(error.problem().status, 503);
        assert!(!format!("{error:?}").contains("secret"));
        let other = StoreError::Other { op: "commit", subject: "/x".to_owned(), detail: "secret".to_owned() };
        let error = ApiError::from(other);
        assert_eq!(error.problem().status, 500);
        assert!(!format!("{error:?}").contains("secret"));
    }
}
