//! Reading jobs: one, a page, their history, and why.
//!
//! Invariant: everybody who is known may see that a job is there and how it goes; what only its owner may see is hidden in the view.

use std::sync::Arc;

use api::{EventList, Job, JobList};
use axum::Json;
use axum::extract::State;
use scheduler_core::ids::Revision;
use scheduler_core::state::StateKind;
use serde::Deserialize;
use store::JobQuery;
use utoipa::IntoParams;

use super::params::{Id, Params, find, resolve};
use crate::clock;
use crate::http::App;
use crate::http::auth::Asker;
use crate::http::problem::{ApiError, ApiResult};
use crate::http::{cursor, selector, view, why};

/// Jobs, or events, on a page where nobody says.
const PAGE: u32 = 100;
/// Most on a page.
const PAGE_MAX: u32 = 1_000;

pub(super) fn page_size(limit: Option<u32>) -> ApiResult<u32> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        other => Err(ApiError::invalid("limit", format!("`{other}` is not 1 to {PAGE_MAX}"))),
    }
}

/// Filters of a list. Several values of one are separated by commas: one of them has to hold. All filters have to hold.
#[derive(Deserialize, IntoParams, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// One of these namespaces.
    namespace: Option<String>,
    /// One of these queues.
    queue: Option<String>,
    /// One of these users.
    owner: Option<String>,
    /// Exactly this name.
    name: Option<String>,
    /// One of these states.
    state: Option<String>,
    /// Finished in one of these ways: succeeded, failed, cancelled.
    outcome: Option<String>,
    /// Terms as in Kubernetes: `a=b`, `a!=b`, `a`, `!a`.
    label_selector: Option<String>,
    /// Terms such as `state=queued`.
    field_selector: Option<String>,
    /// Jobs on a page, 1 to 1,000. Default: 100.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u32>,
    /// `nextCursor` of the page before, with the same filters.
    cursor: Option<String>,
}

impl ListParams {
    /// All filters in one text: what a cursor goes with.
    fn filters(&self) -> String {
        let all = [
            &self.namespace,
            &self.queue,
            &self.owner,
            &self.name,
            &self.state,
            &self.outcome,
            &self.label_selector,
            &self.field_selector,
        ];
        all.iter().map(|filter| filter.as_deref().unwrap_or_default()).collect::<Vec<_>>().join("\u{1f}")
    }

    fn query(&self) -> ApiResult<JobQuery> {
        let mut query = JobQuery { limit: page_size(self.limit)?, ..JobQuery::default() };
        let simple = [
            ("namespace", &self.namespace),
            ("queue", &self.queue),
            ("owner", &self.owner),
            ("name", &self.name),
            ("state", &self.state),
            ("outcome", &self.outcome),
        ];
        for (key, values) in simple {
            if let Some(values) = values {
                selector::values(key, values, &mut query)?;
            }
        }
        if let Some(text) = &self.label_selector {
            query.labels = selector::labels(text)?;
        }
        if let Some(text) = &self.field_selector {
            selector::fields(text, &mut query)?;
        }
        if !query.outcomes.is_empty() && !query.states.is_empty() && !query.states.contains(&StateKind::Finished) {
            return Err(ApiError::invalid(
                "outcome",
                "only finished jobs have one: leave `state` out, or let it contain finished",
            ));
        }
        if let Some(text) = &self.cursor {
            let before = cursor::decode(text, &self.filters());
            let detail = "not a cursor of this list: give `nextCursor` of the page before, with the same filters";
            query.before = Some(before.ok_or_else(|| ApiError::invalid("cursor", detail))?);
        }
        Ok(query)
    }
}

/// List jobs, newest first
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    tag = "jobs",
    params(ListParams),
    responses(
        (status = 200, description = "A page", body = JobList),
        (status = "default", description = "No page", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<JobList>> {
    let page = app.backend.store().jobs(&params.query()?).await?;
    let items = page.jobs.iter().map(|record| view::job(record, &caller)).collect::<ApiResult<_>>()?;
    let next_cursor = page.next.map(|seq| cursor::encode(seq, &params.filters()));
    Ok(Json(JobList { items, next_cursor, revision: page.revision.0 }))
}

/// Show a job
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits")),
    responses(
        (status = 200, description = "The job", body = Job),
        (status = "default", description = "No job", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, Asker(caller): Asker, Id(id): Id) -> ApiResult<Json<Job>> {
    let record = find(&*app.backend, &id).await?;
    let used = app.backend.store().usage_of(record.id, clock::now()).await?;
    let used = used.filter(|used| used.runs > 0);
    let usage = used.map(|used| api::JobUsage { runs: used.runs, usage: view::usage(&used.used) });
    let warnings = app.backend.warnings(record.id);
    Ok(Json(Job { usage, warnings, ..view::job(&record, &caller)? }))
}

/// Say why a job is where it is
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/why",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits")),
    responses(
        (status = 200, description = "The reason", body = api::Why),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn why(State(app): State<Arc<App>>, _: Asker, Id(id): Id) -> ApiResult<Json<api::Why>> {
    let id = resolve(&*app.backend, &id).await?;
    Ok(Json(why::answer(&*app.backend, id).await?))
}

/// Which events of a job.
#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// Only those with a larger revision.
    after: Option<u64>,
    /// At most this many, 1 to 1,000. Default: 100.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u32>,
}

/// List what happened to a job, oldest first
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/events",
    tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job, or at least its first 8 digits"), HistoryParams),
    responses(
        (status = 200, description = "Its events that are still kept", body = EventList),
        (status = "default", description = "No events", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn history(
    State(app): State<Arc<App>>,
    _: Asker,
    Id(id): Id,
    Params(params): Params<HistoryParams>,
) -> ApiResult<Json<EventList>> {
    let limit = page_size(params.limit)?;
    let revision = app.backend.watch().revision().0;
    let record = find(&*app.backend, &id).await?;
    let store = app.backend.store();
    let events = match store.events(Revision(params.after.unwrap_or(0)), Some(record.id), limit).await {
        // Nobody asked for what is gone: begin with what is there.
        Err(store::StoreError::Compacted { floor }) if params.after.is_none() => {
            store.events(floor, Some(record.id), limit).await?
        }
        other => other?,
    };
    Ok(Json(EventList { items: events.iter().map(view::event).collect(), revision }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use scheduler_core::ids::Seq;

    use super::*;

    #[test]
    fn a_cursor_continues_the_same_list_only() {
        let params = ListParams { state: Some("queued".to_owned()), ..ListParams::default() };
        let cursor = Some(cursor::encode(Seq(5), &params.filters()));
        let same =
            ListParams { state: Some("queued".to_owned()), cursor: cursor.clone(), limit: Some(7), ..ListParams::default() };
        assert_eq!(same.query().unwrap().before, Some(Seq(5)));
        let other = ListParams { queue: Some("queued".to_owned()), cursor, ..ListParams::default() };
        assert_eq!(other.query().unwrap_err().problem().field.as_deref(), Some("cursor"));
    }

    #[test]
    fn limits_and_contradictions_are_refused() {
        for limit in [0, 1_001] {
            let params = ListParams { limit: Some(limit), ..ListParams::default() };
            assert_eq!(params.query().unwrap_err().problem().field.as_deref(), Some("limit"));
        }
        let state = |state: &str| ListParams {
            state: Some(state.to_owned()),
            outcome: Some("failed".to_owned()),
            ..ListParams::default()
        };
        assert!(state("queued").query().is_err());
        assert!(state("queued,finished").query().is_ok());
    }
}
