//! What comes in paths and queries.
//!
//! Invariant: an unknown or wrong parameter is named; none is ignored.

use std::sync::Arc;

use api::codes;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use scheduler_core::ids::{JobId, Seq};
use serde::de::DeserializeOwned;
use store::JobRecord;
use uuid::Uuid;

use crate::backend::{Backend, Caller};
use crate::http::App;
use crate::http::problem::{ApiError, ApiResult};

/// Fewest hex digits of a prefix.
const PREFIX_DIGITS: usize = 8;

/// The query, as a type that denies unknown fields.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(ApiError::new(codes::MALFORMED, format!("query: {}", rejection.body_text()))),
        }
    }
}

/// `{id}` of a path, as it was sent.
pub(super) struct Id(pub(super) String);

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(rejection) => Err(ApiError::new(codes::MALFORMED, rejection.body_text())),
        }
    }
}

/// First and last id that begin with these hex digits; hyphens count for nothing.
fn range(text: &str) -> Option<(Uuid, Uuid)> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if !(PREFIX_DIGITS..=32).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let first = Uuid::try_parse(&format!("{digits:0<32}")).ok()?;
    let last = Uuid::try_parse(&format!("{digits:f<32}")).ok()?;
    Some((first, last))
}

/// A job's number. No id begins like one: UUIDv7 begin with a zero until the year 2527.
fn number(text: &str) -> Option<Seq> {
    let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(Seq)
}

/// The job that is meant: its number, its id, or a prefix that only one job has.
pub(super) async fn resolve(backend: &dyn Backend, text: &str) -> ApiResult<JobId> {
    if let Some(number) = number(text) {
        let found = backend.store().id_by_seq(number).await?;
        return found.ok_or_else(|| ApiError::new(codes::NOT_FOUND, format!("no job has the number {number}")));
    }
    let Some((first, last)) = range(text) else {
        let detail = format!(
            "`{}` is neither the number of a job nor its id (a UUID, or at least its first 8 digits)",
            text.escape_debug()
        );
        return Err(ApiError::new(codes::NOT_FOUND, detail));
    };
    if first == last {
        return Ok(JobId(first));
    }
    match backend.ids_between(JobId(first), JobId(last), 2).await?.as_slice() {
        [] => Err(ApiError::new(codes::NOT_FOUND, format!("no job's id begins with {text}"))),
        [one] => Ok(*one),
        _ => Err(ApiError::invalid("id", format!("more than one job's id begins with {text}: say more of it"))),
    }
}

/// The job that is meant, as it lies in the store.
pub(super) async fn find(backend: &dyn Backend, text: &str) -> ApiResult<JobRecord> {
    let id = resolve(backend, text).await?;
    let record = backend.store().job(id).await?;
    record.ok_or_else(|| ApiError::new(codes::NOT_FOUND, format!("no job {id}; finished jobs are kept for a time only")))
}

/// The same, if the caller may act on it and see what it holds.
pub(super) async fn find_own(backend: &dyn Backend, caller: &Caller, text: &str) -> ApiResult<JobRecord> {
    let record = find(backend, text).await?;
    if caller.may_act_on(&record.namespace, &record.owner) {
        return Ok(record);
    }
    let whose = match caller.membership() {
        Some(_) => format!("is in the namespace {}, which is none of yours", record.namespace),
        None => format!("belongs to {}", record.owner.user),
    };
    let detail = format!("job {} {whose}, you are {}", record.id, caller.user);
    Err(ApiError::new(codes::FORBIDDEN, detail))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_are_told_apart() {
        assert_eq!(number("1042"), Some(Seq(1042)));
        assert_eq!(number("12345678901"), Some(Seq(12_345_678_901)));
        for text in ["01990000", "0", "", "1a", "+1", "-1", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_is_a_range_of_ids() {
        let (first, last) = range("0197ABcd-12").unwrap();
        assert_eq!(first.to_string(), "0197abcd-1200-0000-0000-000000000000");
        assert_eq!(last.to_string(), "0197abcd-12ff-ffff-ffff-ffffffffffff");
        let whole = "0197abcd-1234-7000-8000-123456789abc";
        assert_eq!(range(whole).unwrap(), (whole.parse().unwrap(), whole.parse().unwrap()));
        for text in ["", "0197abc", "0197abcg", "x", "..", "0197abcd-1234-7000-8000-123456789abc0", "é197abcd"] {
            assert!(range(text).is_none(), "{text}");
        }
    }
}
