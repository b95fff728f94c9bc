//! `/usage`: what was used, by whom and when.
//!
//! Invariant: as with lists of jobs, everybody who is served may look.

use std::sync::Arc;

use api::{UsageItem, UsageList};
use axum::Json;
use axum::extract::State;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use store::usage::Day;
use store::{JobUse, UsageBy, UsageQuery, UsageRow};
use utoipa::IntoParams;

use super::params::{Params, find};
use crate::clock;
use crate::http::auth::Asker;
use crate::http::problem::{ApiError, ApiResult};
use crate::http::text::wire_time;
use crate::http::{App, view};

/// Rows where nobody says.
const ROWS: u32 = 1_000;
/// Most rows.
const ROWS_MAX: u32 = 10_000;
/// Days where nobody says, the present one counted.
const DAYS: i64 = 30;
/// 1970-01-01 in days of the calendar's own count.
const EPOCH: Date = jiff::civil::date(1970, 1, 1);

/// Which days, of whom, and what rows are told apart by. Several values of one filter are separated by commas: one of them has to hold.
#[derive(Deserialize, IntoParams, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageParams {
    /// `user`, `namespace`, `queue`, `day`, several of them separated by commas, or `job` alone. Default: `user`.
    by: Option<String>,
    /// The first day, as `2026-11-21`, in UTC. Default: 29 days before the last.
    since: Option<String>,
    /// The last day, which counts. Default: today.
    until: Option<String>,
    /// One of these namespaces.
    namespace: Option<String>,
    /// One of these users.
    user: Option<String>,
    /// One of these queues.
    queue: Option<String>,
    /// This job alone, in all its runs, whenever they were.
    job: Option<String>,
    /// Rows at most, 1 to 10,000. Default: 1,000.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
}

/// What rows are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Sums(UsageBy),
    Job,
}

fn by(text: &str) -> ApiResult<By> {
    let mut sums = UsageBy::default();
    for word in text.split(',').map(str::trim) {
        match word {
            "user" => sums.user = true,
            "namespace" => sums.namespace = true,
            "queue" => sums.queue = true,
            "day" => sums.day = true,
            "job" if text.trim() == "job" => return Ok(By::Job),
            "job" => return Err(ApiError::invalid("by", "`job` stands alone: leave the others out")),
            other => {
                let detail = format!("`{}` is not user, namespace, queue, day or job", other.escape_debug());
                return Err(ApiError::invalid("by", detail));
            }
        }
    }
    Ok(By::Sums(sums))
}

fn words(by: By) -> Vec<String> {
    let By::Sums(sums) = by else { return vec!["job".to_owned()] };
    let all = [("day", sums.day), ("namespace", sums.namespace), ("user", sums.user), ("queue", sums.queue)];
    all.into_iter().filter(|(_, is)| *is).map(|(word, _)| word.to_owned()).collect()
}

fn date(field: &'static str, text: &str) -> ApiResult<Date> {
    let parsed = (text.len() == "2026-11-21".len()).then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| ApiError::invalid(field, format!("`{}` is not a day such as 2026-11-21", text.escape_debug())))
}

fn day(date: Date) -> Day {
    Day((date - EPOCH).get_days().into())
}

fn date_of(day: Day) -> Date {
    wire_time(day.begin()).to_zoned(TimeZone::UTC).date()
}

fn list(values: Option<&str>) -> Vec<String> {
    values.into_iter().flat_map(|values| values.split(',')).map(|value| value.trim().to_owned()).collect()
}

impl UsageParams {
    /// The query, with the first and the last day.
    fn query(&self, now: scheduler_core::time::Timestamp) -> ApiResult<UsageQuery> {
        let until = self.until.as_deref().map_or_else(|| Ok(Day::of(now)), |text| date("until", text).map(day))?;
        let since = self.since.as_deref().map(|text| date("since", text).map(day)).transpose()?;
        let since = since.unwrap_or(Day(until.0 - DAYS + 1));
        if since > until {
            let detail = format!("{} is after {}, the last day (`until`)", date_of(since), date_of(until));
            return Err(ApiError::invalid("since", detail));
        }
        let limit = match self.limit.unwrap_or(ROWS) {
            limit @ 1..=ROWS_MAX => limit,
            other => return Err(ApiError::invalid("limit", format!("`{other}` is not 1 to {ROWS_MAX}"))),
        };
        Ok(UsageQuery {
            since,
            until,
            namespaces: list(self.namespace.as_deref()),
            users: list(self.user.as_deref()),
            queues: list(self.queue.as_deref()),
            now,
            limit,
        })
    }
}

fn row(row: UsageRow) -> UsageItem {
    let text = |name: Option<scheduler_core::ids::Name>| name.map(|name| name.to_string());
    UsageItem {
        day: row.day.map(date_of),
        namespace: text(row.namespace),
        user: text(row.user),
        queue: text(row.queue),
        runs: row.runs,
        usage: view::usage(&row.used),
        ..UsageItem::default()
    }
}

fn job(job: JobUse) -> UsageItem {
    UsageItem {
        day: None,
        namespace: Some(job.namespace.to_string()),
        user: Some(job.user.to_string()),
        queue: Some(job.queue.to_string()),
        job: Some(job.job.0),
        number: Some(job.seq.0),
        name: Some(job.name.to_string()),
        state: Some(view::state(job.state)),
        runs: job.runs,
        usage: view::usage(&job.used),
    }
}

/// Say what was used
///
/// Sums of days outlive their jobs (`retention.usage`); runs that go on count up to now. A job's figures of its GPUs are those of its whole
/// runs, also where a run began before the first day.
#[utoipa::path(
    get,
    path = "/api/v1/usage",
    tag = "cluster",
    params(UsageParams),
    responses(
        (status = 200, description = "What was used", body = UsageList),
        (status = "default", description = "No answer", body = api::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn usage(
    State(app): State<Arc<App>>,
    _: Asker,
    Params(params): Params<UsageParams>,
) -> ApiResult<Json<UsageList>> {
    let now = clock::now();
    let query = params.query(now)?;
    let said = params.by.as_deref().map(by).transpose()?;
    let store = app.backend.store();
    let (by, items, more) = if let Some(id) = &params.job {
        if said.is_some_and(|by| by != By::Job) {
            return Err(ApiError::invalid("by", "of one job there is one row: `job`, or nothing"));
        }
        let record = find(&*app.backend, id).await?;
        let found = store.usage_of(record.id, now).await?;
        (By::Job, found.into_iter().map(job).collect(), false)
    } else {
        let by = said.unwrap_or(By::Sums(UsageBy { user: true, ..UsageBy::default() }));
        match by {
            By::Job => {
                let page = store.usage_by_job(&query).await?;
                (by, page.rows.into_iter().map(job).collect(), page.more)
            }
            By::Sums(sums) => {
                let page = store.usage(&query, sums).await?;
                (by, page.rows.into_iter().map(row).collect(), page.more)
            }
        }
    };
    Ok(Json(UsageList { since: date_of(query.since), until: date_of(query.until), by: words(by), items, more }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use scheduler_core::time::Timestamp;

    use super::*;

    /// 2026-11-21 23:59:50 UTC.
    const NOW: Timestamp = Timestamp(1_795_305_590_000_000);

    fn with(since: &str, until: &str) -> UsageParams {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        UsageParams { since: some(since), until: some(until), ..UsageParams::default() }
    }

    #[test]
    fn days_are_read_and_refused_by_name() {
        let days = |params: &UsageParams| {
            let query = params.query(NOW).unwrap();
            (date_of(query.since).to_string(), date_of(query.until).to_string())
        };
        assert_eq!(days(&with("", "")), ("2026-10-23".to_owned(), "2026-11-21".to_owned()));
        assert_eq!(days(&with("1969-12-31", "2026-03-01")), ("1969-12-31".to_owned(), "2026-03-01".to_owned()));
        assert_eq!(days(&with("", "2026-03-01")).0, "2026-01-31");
        for (since, until, field, said) in [
            ("yesterday", "", "since", "`yesterday` is not a day such as 2026-11-21"),
            ("2026-02-30", "", "since", "is not a day"),
            ("2026-02-03T00:00", "", "since", "is not a day"),
            ("", "2026-13-01", "until", "is not a day"),
            ("2026-11-22", "2026-11-21", "since", "2026-11-22 is after 2026-11-21"),
        ] {
            let problem = with(since, until).query(NOW).unwrap_err();
            let problem = problem.problem();
            assert_eq!(problem.field.as_deref(), Some(field), "{since} {until}");
            assert!(problem.detail.as_deref().unwrap().contains(said), "{problem:?}");
        }
    }

    #[test]
    fn rows_are_told_apart_by_what_there_is() {
        assert_eq!(words(by("queue, day").unwrap()), ["day", "queue"]);
        assert_eq!(words(by("job").unwrap()), ["job"]);
        for (text, said) in
            [("", "`` is not user"), ("gpu", "`gpu` is not user, namespace, queue, day or job"), ("job,day", "alone")]
        {
            let problem = by(text).unwrap_err();
            assert_eq!(problem.problem().field.as_deref(), Some("by"));
            assert!(problem.problem().detail.as_deref().unwrap().contains(said), "{text}");
        }
    }
}
