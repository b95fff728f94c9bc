//! `POST /jobs` and `POST /jobs:batch`.
//!
//! Invariants: all jobs of a request are accepted or none; the answer leaves after they are durable; the same key with the same request is
//! answered with the same ids, also when the queue that it named is gone by then. One job costs no thread and no wait beside the
//! commit, unless a folder has to be looked at.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{JobBatch, JobSpec, Submitted, SubmittedBatch, codes};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use scheduler_core::ids::{JobId, Name};
use sha2::{Digest as _, Sha256};

use crate::backend::{BackendError, Caller, IdempotencyKey, NewSubmit, Refused, Resource, SubmitRequest};
use crate::config::values::ExecutorKind;
use crate::http::App;
use crate::http::admission::{Sent, Written};
use crate::http::auth::Asker;
use crate::http::body::{self, Kind};
use crate::http::problem::{ApiError, ApiResult};
use crate::http::text::now;

/// Longest idempotency key.
const KEY_BYTES: usize = 255;
/// Labels that an answer lists, where another one was asked for.
const LABELS_TOLD: usize = 50;
/// Says that nothing was submitted this time: the key was known.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Submit a job
///
/// `Idempotency-Key` (or `X-Request-ID`): the same key and body again is answered with the same id, another body with 409.
#[utoipa::path(
    post,
    path = "/api/v1/jobs",
    tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    request_body = JobSpec,
    responses(
        (status = 201, description = "Accepted and durable", body = Submitted),
        (status = "default", description = "Nothing was submitted", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    if Kind::of(&headers)? != Kind::Json {
        return Err(ApiError::new(codes::MEDIA_TYPE, "one job is sent as application/json; jobs:batch takes lines"));
    }
    let bytes = body::read(body, app.limits.body).await?;
    let key = key(&headers, &caller, "jobs", &bytes)?;
    if let Some(ids) = replayed(&app, key.as_ref()).await? {
        return one(&ids, true);
    }
    let mut spec: JobSpec = body::parse(&bytes, "")?;
    belong(&mut spec, &app, &caller)?;
    let written = Written::of(&spec);
    let job = if app.admission.is_quick(&spec, &caller) {
        app.admission.admit(spec, &caller, now())?
    } else {
        let (app, caller) = (Arc::clone(&app), Arc::clone(&caller));
        blocking(move || Ok(app.admission.admit(spec, &caller, now())?)).await?
    };
    let sent = Sent::new(written, &job.shape);
    match app.backend.submit(SubmitRequest { jobs: vec![job], key }).await {
        Ok(ids) => one(&ids, false),
        Err(BackendError::Refused { refused: why, .. }) => Err(refused(&app, why, Some(&sent)).await),
        Err(other) => Err(other.into()),
    }
}

/// Submit many jobs, all or none
///
/// As `{"jobs": [..]}`, or as `application/x-ndjson` with one job a line. Ids come back in the order sent.
#[utoipa::path(
    post,
    path = "/api/v1/jobs:batch",
    tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    request_body(content((JobBatch = "application/json"), (String = "application/x-ndjson"))),
    responses(
        (status = 201, description = "All accepted and durable", body = SubmittedBatch),
        (status = "default", description = "Nothing was submitted", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create_batch(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let kind = Kind::of(&headers)?;
    // The semaphore is never closed.
    let _permit = app.batches.acquire().await.ok();
    let bytes = body::read(body, app.limits.batch_body).await?;
    let key = key(&headers, &caller, "jobs:batch", &bytes)?;
    if let Some(ids) = replayed(&app, key.as_ref()).await? {
        return Ok(many(&ids, true));
    }
    let (jobs, sent) = {
        let app = Arc::clone(&app);
        blocking(move || admit_all(&app, &caller, kind, &bytes)).await?
    };
    match app.backend.submit(SubmitRequest { jobs, key }).await {
        Ok(ids) => Ok(many(&ids, false)),
        Err(BackendError::Refused { index, refused: why }) => {
            Err(refused(&app, why, sent.get(index)).await.under(&format!("jobs[{index}]")))
        }
        Err(other) => Err(other.into()),
    }
}

/// What was refused, where it was written. Who asks for a label that no node has is told which there are; who asks for GPUs where there are
/// none, why that is so.
async fn refused(app: &App, refused: Refused, sent: Option<&Sent>) -> ApiError {
    let (no_such_label, no_gpus) = match &refused {
        Refused::NoNode { there, .. } => (there.is_empty(), false),
        other => (false, may_be_without_gpus(other)),
    };
    let error = ApiError::refused(&refused);
    let error = match sent {
        Some(sent) => sent.place(&refused, error),
        None => error,
    };
    if !no_such_label && !no_gpus {
        return error;
    }
    let Ok(snapshot) = app.backend.snapshot().await else { return error };
    if no_gpus {
        let none = snapshot.nodes.iter().all(|node| node.gpus.is_empty());
        let note = snapshot.gpu_note.as_ref().filter(|_| none);
        return match note {
            Some(note) => error.adding(&format!("; why there are none: {note}")),
            None => error,
        };
    }
    let labels: BTreeSet<&str> = snapshot.nodes.iter().flat_map(|node| node.labels.keys().map(String::as_str)).collect();
    let shown: Vec<_> = labels.into_iter().take(LABELS_TOLD).collect();
    error.adding(&format!("; there are: {}", shown.join(", ")))
}

/// Whether this is what somebody is told where no node has a GPU.
fn may_be_without_gpus(refused: &Refused) -> bool {
    match refused {
        Refused::TaskTooLarge { resource: Resource::Gpu, largest, .. } => *largest == 0,
        Refused::JobTooLarge { resource: Resource::Gpu, total, .. } => *total == 0,
        Refused::NoGpuModel { there, .. } | Refused::NoGpuKind { there, .. } | Refused::NoSuchGpu { there, .. } => {
            there.is_empty()
        }
        _ => false,
    }
}

/// Runs what computes for long, or asks a disk, where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> ApiResult<T> + Send + 'static) -> ApiResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::internal(&error)),
    }
}

fn admit_all(app: &App, caller: &Caller, kind: Kind, bytes: &Bytes) -> ApiResult<(Vec<NewSubmit>, Vec<Sent>)> {
    let most = app.limits.batch_jobs;
    let specs = match kind {
        Kind::Json => body::parse::<JobBatch>(bytes, "")?.jobs,
        Kind::Lines => body::parse_lines(bytes, "jobs", most)?,
    };
    if specs.is_empty() || specs.len() as u64 > most {
        return Err(ApiError::invalid("jobs", format!("{} jobs; a batch has 1 to {most}", specs.len())));
    }
    let now = now();
    let admit = |(index, mut spec): (usize, JobSpec)| {
        let at = format!("jobs[{index}]");
        belong(&mut spec, app, caller).map_err(|error| error.under(&at))?;
        let written = Written::of(&spec);
        let job = app.admission.admit(spec, caller, now).map_err(|invalid| ApiError::from(invalid.under(&at)))?;
        let sent = Sent::new(written, &job.shape);
        Ok((job, sent))
    };
    specs.into_iter().enumerate().map(admit).collect()
}

/// A job of a user of the cluster belongs to a namespace of that user: the first one, if it names none.
fn belong(spec: &mut JobSpec, app: &App, caller: &Caller) -> ApiResult<()> {
    let Some(member) = caller.membership() else { return Ok(()) };
    let forbidden = |detail: String| Err(ApiError::new(codes::FORBIDDEN, detail));
    let user = &caller.user;
    if app.admission.executor() == ExecutorKind::Local {
        return forbidden(format!(
            "jobs run here as users of this machine, and {user} is one of the cluster's: `flash token` lets in"
        ));
    }
    let Some(asked) = &spec.namespace else {
        spec.namespace = member.namespaces.first().map(ToString::to_string);
        return if spec.namespace.is_some() || caller.admin {
            Ok(())
        } else {
            forbidden(format!("{user} belongs to no namespace; auth.members says whose groups belong to which"))
        };
    };
    if caller.admin || member.namespaces.iter().any(|own| own.as_str() == asked) {
        return Ok(());
    }
    let own: Vec<_> = member.namespaces.iter().map(Name::as_str).collect();
    let own = if own.is_empty() { "none".to_owned() } else { own.join(", ") };
    forbidden(format!("{user} may submit in its own namespaces ({own}), not in `{}`", asked.escape_debug()))
        .map_err(|error| error.at("namespace"))
}

/// The idempotency key of a request, if it has one.
fn key(headers: &HeaderMap, caller: &Caller, route: &str, bytes: &Bytes) -> ApiResult<Option<IdempotencyKey>> {
    let Some((name, value)) = ["idempotency-key", "x-request-id"].iter().find_map(|name| Some((name, headers.get(*name)?)))
    else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES).contains(&key.len()));
    let key = key.ok_or_else(|| ApiError::invalid(*name, format!("1 to {KEY_BYTES} visible ASCII characters")))?;
    let mut hasher = Sha256::new();
    hasher.update(route);
    hasher.update([0]);
    hasher.update(bytes);
    Ok(Some(IdempotencyKey { scope: caller.key_scope(), key: key.to_owned(), fingerprint: hasher.finalize().into() }))
}

/// What was answered to the same request before. What is under way at this moment is settled behind the seam.
async fn replayed(app: &App, key: Option<&IdempotencyKey>) -> ApiResult<Option<Vec<JobId>>> {
    let Some(key) = key else { return Ok(None) };
    match app.backend.store().key(&key.scope, &key.key).await? {
        Some(record) if record.fingerprint == key.fingerprint => Ok(Some(record.jobs)),
        Some(_) => Err(BackendError::KeyReused.into()),
        None => Ok(None),
    }
}

fn mark(mut response: Response, replayed: bool) -> Response {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn one(ids: &[JobId], replayed: bool) -> ApiResult<Response> {
    let [id] = ids else {
        return Err(ApiError::internal(&format_args!("{} ids for one job", ids.len())));
    };
    let location = [(header::LOCATION, format!("/api/v1/jobs/{id}"))];
    Ok(mark((StatusCode::CREATED, location, Json(Submitted { id: id.0 })).into_response(), replayed))
}

fn many(ids: &[JobId], replayed: bool) -> Response {
    let jobs = ids.iter().map(|id| Submitted { id: id.0 }).collect();
    mark((StatusCode::CREATED, Json(SubmittedBatch { jobs })).into_response(), replayed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::backend::Via;

    fn caller(uid: u32) -> Caller {
        Caller { user: "ada".into(), uid, gid: uid, home: None, admin: false, via: Via::Socket }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_belongs_to_its_caller_route_and_body() {
        let with = headers(&[("idempotency-key", "k"), ("x-request-id", "other")]);
        let body = Bytes::from_static(b"{}");
        let first = key(&with, &caller(1), "jobs", &body).unwrap().unwrap();
        assert_eq!(first.key, "k");
        assert_eq!(first, key(&with, &caller(1), "jobs", &body).unwrap().unwrap());
        assert_ne!(first.scope, key(&with, &caller(2), "jobs", &body).unwrap().unwrap().scope);
        for (route, body) in [("jobs", &b"{ }"[..]), ("jobs:batch", b"{}")] {
            let other = key(&with, &caller(1), route, &Bytes::from_static(body)).unwrap().unwrap();
            assert_ne!(first.fingerprint, other.fingerprint);
        }
    }

    #[test]
    fn the_other_header_counts_too_and_a_bad_key_is_refused() {
        let body = Bytes::new();
        assert_eq!(key(&headers(&[("x-request-id", "r")]), &caller(1), "jobs", &body).unwrap().unwrap().key, "r");
        assert_eq!(key(&HeaderMap::new(), &caller(1), "jobs", &body).unwrap(), None);
        for bad in ["", &"x".repeat(256)] {
            assert!(key(&headers(&[("idempotency-key", bad)]), &caller(1), "jobs", &body).is_err());
        }
    }
}
