//! Reading what was used: the ledger, and what still runs on top of it, on one snapshot.

use std::collections::HashMap;

use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::ids::JobId;
use scheduler_core::time::Timestamp;
use sqlx::Acquire as _;
use sqlx::postgres::{PgConnection, PgPool, PgRow};

use super::fault::Fault;
use super::read::snapshot;
use super::row::{get, job_id, name, number, time};
use super::value::{Id, kept_list, told};
use crate::codec::state_kind;
use crate::reckon::{DaySums, KeptRun, LatestRun, job_use, promise, window};
use crate::usage::{Day, JobUse, Promise, Promised, Sampled, UsageBy, UsagePage, UsageQuery, UsageRow, Used};

static DAYS: &str = include_str!("queries/usage_days.sql");
static ACTIVE: &str = include_str!("queries/usage_active.sql");
static FINISHED: &str = include_str!("queries/usage_finished.sql");
static JOB: &str = include_str!("queries/usage_job.sql");
static RUNS_OF: &str = include_str!("queries/usage_runs_of.sql");

fn found(row: &PgRow) -> Result<LatestRun, Fault> {
    Ok(LatestRun {
        seq: get(row, 0)?,
        id: job_id(row, 1)?,
        name: name(row, 2)?,
        namespace: name(row, 3)?,
        queue: name(row, 4)?,
        user: name(row, 5)?,
        state: state_kind(get(row, 6)?)?,
        attempt: get(row, 7)?,
        started_at: get(row, 8)?,
        ended_at: get(row, 9)?,
        promise: promise(get(row, 11)?, get(row, 10)?)?,
    })
}

/// Runs that go on and began before `to`.
async fn active(db: &mut PgConnection, query: &UsageQuery, to: Timestamp) -> Result<Vec<LatestRun>, Fault> {
    let rows = sqlx::query(ACTIVE)
        .bind(to.0)
        .bind(kept_list(&query.namespaces))
        .bind(kept_list(&query.users))
        .bind(kept_list(&query.queues))
        .fetch_all(db)
        .await?;
    rows.iter().map(found).collect()
}

/// What runs used on these days, by what is asked.
pub(super) async fn days(pool: &PgPool, query: &UsageQuery, by: UsageBy) -> Result<UsagePage<UsageRow>, Fault> {
    let mut snapshot = snapshot(pool).await?;
    let db = snapshot.acquire().await?;
    let mut sums = DaySums::new(by);
    let rows = sqlx::query(DAYS)
        .bind(query.since.0)
        .bind(query.until.0)
        .bind(kept_list(&query.namespaces))
        .bind(kept_list(&query.users))
        .bind(kept_list(&query.queues))
        .fetch_all(&mut *db)
        .await?;
    for row in &rows {
        let promised = Promised { cpu_micros: number(row, 5)?, memory_mib_millis: number(row, 6)?, gpu_micros: number(row, 7)? };
        let used = Used { promised, sampled: sampled(row, 8)? };
        let [namespace, user, queue] = [told(get(row, 1)?), told(get(row, 2)?), told(get(row, 3)?)];
        sums.add(Day(get(row, 0)?), (&namespace, &user, &queue), number(row, 4)?, &used);
    }
    let (from, to) = window(query);
    for run in active(db, query, to).await? {
        sums.add_active(&run, (from, to));
    }
    snapshot.commit().await?;
    Ok(sums.page(query.limit))
}

/// What jobs used on these days: those that run, then those that ended last. What was seen of a run is not cut by days.
pub(super) async fn jobs(pool: &PgPool, query: &UsageQuery) -> Result<UsagePage<JobUse>, Fault> {
    let mut snapshot = snapshot(pool).await?;
    let db = snapshot.acquire().await?;
    let (from, to) = window(query);
    let mut all = active(db, query, to).await?;
    let limit = query.limit as usize;
    let rows = sqlx::query(FINISHED)
        .bind(to.0)
        .bind(kept_list(&query.namespaces))
        .bind(kept_list(&query.users))
        .bind(kept_list(&query.queues))
        .bind(from.0)
        .bind((limit.saturating_sub(all.len()) + 1) as i64)
        .fetch_all(&mut *db)
        .await?;
    for row in &rows {
        all.push(found(row)?);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    let rows = with_runs(db, &all, (from, to)).await?;
    snapshot.commit().await?;
    Ok(UsagePage { rows, more })
}

/// What one job has used up to now.
pub(super) async fn job(pool: &PgPool, id: JobId, now: Timestamp) -> Result<Option<JobUse>, Fault> {
    let mut snapshot = snapshot(pool).await?;
    let db = snapshot.acquire().await?;
    let Some(row) = sqlx::query(JOB).bind(Id(id)).fetch_optional(&mut *db).await? else { return Ok(None) };
    let used = with_runs(db, &[found(&row)?], (Timestamp(i64::MIN), now)).await?.pop();
    snapshot.commit().await?;
    Ok(used)
}

/// These jobs with all their runs, as far as they lie in a time.
async fn with_runs(db: &mut PgConnection, jobs: &[LatestRun], window: (Timestamp, Timestamp)) -> Result<Vec<JobUse>, Fault> {
    let seqs: Vec<i64> = jobs.iter().map(|job| job.seq).collect();
    let mut kept: HashMap<i64, Vec<KeptRun>> = HashMap::new();
    for row in sqlx::query(RUNS_OF).bind(seqs).fetch_all(db).await? {
        let ended = match (time(&row, 2)?, time(&row, 3)?) {
            (Some(began), Some(ended)) => {
                let promise = Promise {
                    cpu: CpuMillis(number(&row, 4)?),
                    memory: MemoryBytes(number(&row, 5)?),
                    gpu_millis: number(&row, 6)?,
                };
                Some((began, ended, promise))
            }
            _ => None,
        };
        let run = KeptRun { attempt: get(&row, 1)?, ended, sampled: sampled(&row, 7)? };
        kept.entry(get(&row, 0)?).or_default().push(run);
    }
    let none = Vec::new();
    Ok(jobs.iter().map(|job| job_use(job, kept.get(&job.seq).unwrap_or(&none), window)).collect())
}

/// The five columns that begin at `first`.
fn sampled(row: &PgRow, first: usize) -> Result<Sampled, Fault> {
    Ok(Sampled {
        known_micros: number(row, first)?,
        busy_micros: number(row, first + 1)?,
        peak_busy_percent: number(row, first + 2)?,
        peak_memory_bytes: number(row, first + 3)?,
        energy_millijoules: number(row, first + 4)?,
    })
}
