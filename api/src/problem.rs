//! Errors as RFC 9457 `application/problem+json`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was wrong, where, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `about:blank`, or a page about this kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of one code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable word for programs: see [`codes`].
    pub code: String,
    /// What was wrong this time, and what is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Path of the field, as in `tasks[0].resources.cpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The stable codes and their HTTP status.
pub mod codes {
    /// 400: the body is not JSON, or has a field that is unknown or of another type.
    pub const MALFORMED: &str = "malformed";
    /// 422: a field's value is not allowed.
    pub const INVALID: &str = "invalid";
    /// 422: asks for more than the largest node has.
    pub const TOO_LARGE_FOR_CLUSTER: &str = "too-large-for-cluster";
    /// 422: asks for nodes or GPUs of a kind that no node is or has.
    pub const NO_SUCH_NODE: &str = "no-such-node";
    /// 401: no token, or one that is wrong or has ended.
    pub const UNAUTHENTICATED: &str = "unauthenticated";
    /// 403: the caller may not do this.
    pub const FORBIDDEN: &str = "forbidden";
    /// 404: no such job, queue, namespace, token or route.
    pub const NOT_FOUND: &str = "not-found";
    /// 409: not possible in the job's state.
    pub const CONFLICT: &str = "conflict";
    /// 409: the idempotency key was used with another body.
    pub const KEY_REUSED: &str = "idempotency-key-reused";
    /// 410: events from that revision on were compacted away.
    pub const GONE: &str = "gone";
    /// 413: the body is larger than allowed.
    pub const BODY_TOO_LARGE: &str = "body-too-large";
    /// 415: not a content type that the route takes.
    pub const MEDIA_TYPE: &str = "unsupported-media-type";
    /// 429: too much at once; try again after `Retry-After`.
    pub const BUSY: &str = "busy";
    /// 500: a fault of the server.
    pub const INTERNAL: &str = "internal";
    /// 503: cannot write at the moment (disk full, starting, draining).
    pub const UNAVAILABLE: &str = "unavailable";
    /// 408: the request took too long.
    pub const TIMEOUT: &str = "timeout";
    /// 405: no such method here.
    pub const METHOD: &str = "method-not-allowed";
}
