//! Rows as columns: what a statement with `unnest` takes, one array a column.

use scheduler_core::event::Transition;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;

use super::changes::{Changes, JobChange, Known};
use super::fault::Fault;
use super::value::{Id, kept};
use crate::Submit;
use crate::codec::{Columns, Damage, json, signed};

static INSERT_JOBS: &str = include_str!("queries/insert_jobs.sql");
static INSERT_SPECS: &str = include_str!("queries/insert_specs.sql");
static INSERT_EVENTS: &str = include_str!("queries/insert_events.sql");
static CHANGE_JOBS: &str = include_str!("queries/change_jobs.sql");

/// A new job with all that its rows are made of.
pub(super) struct NewRow<'a> {
    pub(super) submit: &'a Submit,
    pub(super) revision: i64,
    pub(super) shape: i64,
    pub(super) policy: i64,
    pub(super) owner: i64,
    pub(super) columns: Columns,
}

fn all<'a, R, T>(rows: &'a [R], column: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(column).collect()
}

fn labels(labels: &[(String, String)]) -> Result<Option<String>, Damage> {
    if labels.is_empty() {
        return Ok(None);
    }
    let object: serde_json::Map<_, _> =
        labels.iter().map(|(key, value)| (kept(key).into_owned(), kept(value).into_owned().into())).collect();
    json(&object).map(Some)
}

/// Writes rows and specs of new jobs.
pub(super) async fn insert_jobs(db: &mut PgConnection, rows: &[NewRow<'_>], term: i64) -> Result<(), Fault> {
    let seqs = all(rows, |row| signed(row.submit.job.seq.0));
    sqlx::query(INSERT_JOBS)
        .bind(&seqs)
        .bind(all(rows, |row| Id(row.submit.job.id)))
        .bind(all(rows, |row| row.shape))
        .bind(all(rows, |row| row.policy))
        .bind(all(rows, |row| row.owner))
        .bind(all(rows, |row| kept(row.submit.name.as_str())))
        .bind(all(rows, |row| row.columns.state as i16))
        .bind(all(rows, |row| i64::from(row.columns.attempt.0)))
        .bind(all(rows, |row| i64::from(row.columns.lost)))
        .bind(all(rows, |row| row.columns.state_at))
        .bind(all(rows, |row| row.columns.placement.as_deref()))
        .bind(all(rows, |row| row.columns.outcome.map(|outcome| outcome as i16)))
        .bind(all(rows, |row| row.columns.detail.as_deref()))
        .bind(all(rows, |row| row.columns.started_at()))
        .bind(all(rows, |row| row.submit.job.submitted_at.0))
        .bind(all(rows, |row| row.submit.job.start_after.map(|time| time.0)))
        .bind(all(rows, |row| row.revision))
        .bind(term)
        .execute(&mut *db)
        .await?;
    let labels = rows.iter().map(|row| labels(&row.submit.labels)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(INSERT_SPECS).bind(seqs).bind(labels).bind(all(rows, |row| &*row.submit.spec)).execute(db).await?;
    Ok(())
}

/// An entry of the log.
pub(super) struct EventRow<'a> {
    pub(super) revision: i64,
    pub(super) prev: Option<i64>,
    pub(super) id: Id,
    pub(super) shape: i64,
    pub(super) at: i64,
    pub(super) what: &'static str,
    pub(super) columns: &'a Columns,
}

impl<'a> EventRow<'a> {
    /// That a job was submitted.
    pub(super) fn submitted(row: &'a NewRow<'_>) -> Self {
        let job = &row.submit.job;
        let (id, at) = (Id(job.id), job.submitted_at.0);
        Self { revision: row.revision, prev: None, id, shape: row.shape, at, what: "submitted", columns: &row.columns }
    }

    /// That a job changed.
    pub(super) fn changed(change: &Transition, columns: &'a Columns, revision: i64, prev: i64, shape: i64) -> Self {
        let (id, what) = (Id(change.job), change.event.word());
        Self { revision, prev: Some(prev), id, shape, at: change.at.0, what, columns }
    }
}

/// Writes entries of the log.
pub(super) async fn insert_events(db: &mut PgConnection, rows: &[EventRow<'_>]) -> Result<(), Fault> {
    sqlx::query(INSERT_EVENTS)
        .bind(all(rows, |row| row.revision))
        .bind(all(rows, |row| row.prev))
        .bind(all(rows, |row| row.id))
        .bind(all(rows, |row| row.shape))
        .bind(all(rows, |row| row.at))
        .bind(all(rows, |row| row.what))
        .bind(all(rows, |row| row.columns.state as i16))
        .bind(all(rows, |row| i64::from(row.columns.attempt.0)))
        .bind(all(rows, |row| i64::from(row.columns.lost)))
        .bind(all(rows, |row| row.columns.state_at))
        .bind(all(rows, |row| row.columns.placement.as_deref()))
        .bind(all(rows, |row| row.columns.outcome.map(|outcome| outcome as i16)))
        .bind(all(rows, |row| row.columns.detail.as_deref()))
        .execute(db)
        .await?;
    Ok(())
}

/// The compare-and-sets of some jobs. Change `i` of the batch has revision `first + i`.
pub(super) fn change_jobs<'q>(
    jobs: &'q [JobChange],
    changes: &'q Changes<'_>,
    first: i64,
    term: i64,
) -> Query<'q, Postgres, PgArguments> {
    let to = |job: &'q JobChange| &changes.columns[job.last];
    let placed = |job: &'q JobChange| match job.placement {
        Known::Before => None,
        Known::Now(change) => changes.columns[change].placement.as_deref(),
    };
    let started = |job: &'q JobChange| match job.started {
        Known::Before => None,
        Known::Now(started) => started,
    };
    sqlx::query(CHANGE_JOBS)
        .bind(all(jobs, |job| job.seq))
        .bind(all(jobs, |job| Id(job.id)))
        .bind(all(jobs, |job| job.from.0 as i16))
        .bind(all(jobs, |job| i64::from(job.from.1.0)))
        .bind(all(jobs, |job| to(job).state as i16))
        .bind(all(jobs, |job| i64::from(to(job).attempt.0)))
        .bind(all(jobs, |job| i64::from(to(job).lost)))
        .bind(all(jobs, |job| to(job).state_at))
        .bind(all(jobs, placed))
        .bind(all(jobs, |job| to(job).outcome.map(|outcome| outcome as i16)))
        .bind(all(jobs, |job| to(job).detail.as_deref()))
        .bind(all(jobs, |job| job.started != Known::Before))
        .bind(all(jobs, started))
        .bind(all(jobs, |job| first + signed(job.last as u64)))
        .bind(all(jobs, JobChange::wants_placement))
        .bind(term)
}
