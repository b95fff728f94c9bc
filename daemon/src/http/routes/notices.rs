//! `GET /notices`: what happened to GPUs, nodes and queues until now. What happens from now on is in `GET /events`.

use std::sync::Arc;

use api::NoticeList;
use axum::Json;
use axum::extract::State;
use scheduler_core::ids::{Name, Revision};
use serde::Deserialize;
use store::{NoticeKind, NoticeQuery, StoreError};
use utoipa::IntoParams;

use super::jobs::page_size;
use super::params::Params;
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::problem::{ApiError, ApiResult};
use crate::http::view;

/// Which notices.
#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NoticeParams {
    /// Only of things of this kind: `gpu`, `node`, `queue`, `cohort`, `priorityClass`.
    kind: Option<String>,
    /// Only of the thing with this name.
    name: Option<String>,
    /// Only those with a larger revision. Default: from the oldest that is kept.
    after: Option<u64>,
    /// At most this many, 1 to 1,000. Default: 100.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u32>,
}

/// A word that is no kind.
pub(super) fn unknown(word: &str, more: &[&str]) -> String {
    let words: Vec<&str> = more.iter().copied().chain(api::NoticeKind::ALL.map(api::NoticeKind::as_str)).collect();
    format!("`{word}` is no kind; there are {}", words.join(", "))
}

/// List what happened to GPUs, nodes and queues, oldest first
#[utoipa::path(
    get,
    path = "/api/v1/notices",
    tag = "events",
    params(NoticeParams),
    responses(
        (status = 200, description = "Those that are still kept", body = NoticeList),
        (status = 410, description = "Events after that revision are gone", body = api::Problem, content_type = "application/problem+json"),
        (status = "default", description = "No notices", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: Asker,
    Params(params): Params<NoticeParams>,
) -> ApiResult<Json<NoticeList>> {
    let kind = match &params.kind {
        Some(word) => {
            let found = NoticeKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            Some(found.ok_or_else(|| ApiError::invalid("kind", unknown(word, &[])))?)
        }
        None => None,
    };
    let revision = app.backend.watch().revision().0;
    let after = Revision(params.after.unwrap_or(0));
    let query = NoticeQuery { after, kind, name: params.name.map(Name::from), limit: page_size(params.limit)? };
    let store = app.backend.store();
    let notices = match store.notices(&query).await {
        // Nobody asked for what is gone: begin with what is there.
        Err(StoreError::Compacted { floor }) if params.after.is_none() => {
            store.notices(&NoticeQuery { after: floor, ..query }).await?
        }
        other => other?,
    };
    Ok(Json(NoticeList { items: notices.iter().map(view::notice).collect(), revision }))
}
