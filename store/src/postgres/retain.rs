//! Retention and tokens: what the writer does besides commits, in bounded steps.

use scheduler_core::ids::{JobId, Revision};
use scheduler_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::fault::Fault;
use super::lease::standing;
use super::row::{get, job_id};
use super::value::kept;
use super::writer::Writer;
use crate::usage::Day;
use crate::{Compaction, StoreError, TokenRecord};

static HEAD: &str = include_str!("queries/head.sql");
static OLDEST_EVENTS: &str = include_str!("queries/oldest_events.sql");
static DELETE_EVENTS: &str = include_str!("queries/delete_events.sql");
static DELETE_NOTICES: &str = include_str!("queries/delete_notices.sql");
static RAISE_FLOOR: &str = include_str!("queries/raise_floor.sql");
static OLDEST_KEYS: &str = include_str!("queries/oldest_keys.sql");
static DELETE_KEYS: &str = include_str!("queries/delete_keys.sql");
static OLDEST_FINISHED: &str = include_str!("queries/oldest_finished.sql");
static DELETE_JOBS: &str = include_str!("queries/delete_jobs.sql");
static DELETE_SPECS: &str = include_str!("queries/delete_specs.sql");
static FORGET_RUNS: &str = include_str!("queries/usage_forget_runs.sql");
static FORGET_DAYS: &str = include_str!("queries/usage_forget_days.sql");
static INSERT_TOKEN: &str = include_str!("queries/insert_token.sql");
static DELETE_TOKEN: &str = include_str!("queries/delete_token.sql");

impl Writer {
    /// Removes the oldest events, notices and keys.
    ///
    /// Events and notices go in revision order up to the first that is young enough: a clock that was set back may keep some longer, but the
    /// floor stays one number with everything above it there.
    pub(super) async fn compact(&mut self, before: Timestamp, limit: u32) -> Result<Compaction, StoreError> {
        self.ready("compact").await?;
        let after = self.standing();
        self.transaction("compact", after, async |_, db| {
            let events = old_rows(db, OLDEST_EVENTS, before, limit).await?;
            let floor = standing(&sqlx::query(HEAD).fetch_one(&mut *db).await?)?.head.floor;
            let mut compaction = Compaction { floor, events: events.count, more: events.more };
            if let Some(last) = events.last {
                sqlx::query(DELETE_EVENTS).bind(last).execute(&mut *db).await?;
                sqlx::query(DELETE_NOTICES).bind(last).execute(&mut *db).await?;
                sqlx::query(RAISE_FLOOR).bind(last).execute(&mut *db).await?;
                compaction.floor = Revision(last.cast_unsigned());
            }
            let left = limit.saturating_sub(u32::try_from(events.count).unwrap_or(u32::MAX));
            let keys = old_rows(db, OLDEST_KEYS, before, left).await?;
            if let Some(last) = keys.last {
                sqlx::query(DELETE_KEYS).bind(last).execute(&mut *db).await?;
            }
            compaction.more |= keys.more;
            Ok(compaction)
        })
        .await
    }

    /// Removes the jobs that finished first, with their specs. Their events stay until they are compacted, what they used in the sums of days.
    pub(super) async fn prune(&mut self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        self.ready("prune").await?;
        let after = self.standing();
        let removed = self
            .transaction("prune", after, async |_, db| {
                let mut seqs: Vec<i64> = Vec::new();
                let mut ids = Vec::new();
                let oldest = sqlx::query(OLDEST_FINISHED).bind(before.0).bind(i64::from(limit));
                for row in oldest.fetch_all(&mut *db).await? {
                    seqs.push(get(&row, 0)?);
                    ids.push(job_id(&row, 1)?);
                }
                if !seqs.is_empty() {
                    for sql in [FORGET_RUNS, DELETE_SPECS, DELETE_JOBS] {
                        sqlx::query(sql).bind(&seqs).execute(&mut *db).await?;
                    }
                }
                Ok(ids)
            })
            .await?;
        self.count([0, 0, 0, 0, 0, -(removed.len() as i64)]);
        Ok(removed)
    }

    /// Removes the days before this one.
    pub(super) async fn forget_usage(&mut self, before: Day) -> Result<u64, StoreError> {
        self.ready("forget usage").await?;
        let after = self.standing();
        self.transaction("forget usage", after, async |_, db| {
            Ok(sqlx::query(FORGET_DAYS).bind(before.0).execute(db).await?.rows_affected())
        })
        .await
    }

    /// Keeps a token.
    pub(super) async fn add_token(&mut self, token: &TokenRecord) -> Result<(), StoreError> {
        const OP: &str = "add a token";
        self.ready(OP).await?;
        let after = self.standing();
        self.transaction(OP, after, async |_, db| {
            let insert = sqlx::query(INSERT_TOKEN)
                .bind(kept(&token.id))
                .bind(kept(&token.name))
                .bind(token.hash.as_slice())
                .bind(kept(token.owner.user.as_str()))
                .bind(i64::from(token.owner.uid))
                .bind(token.created_at.0)
                .bind(token.expires_at.map(|time| time.0));
            let Err(error) = insert.execute(db).await else { return Ok(()) };
            let fault = Fault::from(error);
            if fault.duplicate().is_some() {
                return Err(StoreError::Duplicate { op: OP, what: format!("token {}", token.id) }.into());
            }
            Err(fault)
        })
        .await
    }

    /// Forgets a token; false if there was none.
    pub(super) async fn remove_token(&mut self, id: &str) -> Result<bool, StoreError> {
        self.ready("remove a token").await?;
        let after = self.standing();
        self.transaction("remove a token", after, async |_, db| {
            Ok(sqlx::query(DELETE_TOKEN).bind(kept(id)).execute(db).await?.rows_affected() > 0)
        })
        .await
    }
}

#[derive(Default)]
struct OldRows {
    count: u64,
    last: Option<i64>,
    more: bool,
}

/// The first rows that are older than `before`, at most `limit`. The query gives keys and times in the order of the keys.
async fn old_rows(db: &mut PgConnection, sql: &'static str, before: Timestamp, limit: u32) -> Result<OldRows, Fault> {
    let mut rows = OldRows::default();
    for row in sqlx::query(sql).bind(i64::from(limit) + 1).fetch_all(db).await? {
        if get::<i64>(&row, 1)? >= before.0 {
            break;
        }
        if rows.count == u64::from(limit) {
            rows.more = true;
            break;
        }
        rows.count += 1;
        rows.last = Some(get(&row, 0)?);
    }
    Ok(rows)
}
