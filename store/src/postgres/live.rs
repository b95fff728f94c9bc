//! What the core is rebuilt from: unfinished jobs in the order of submission, out of the hot table alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use scheduler_core::ids::Seq;
use scheduler_core::job::{LiveJob, Policy, Shape};
use scheduler_core::time::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgPool;

use super::fault::Fault;
use super::row::{get, job_id, lifecycle, time};
use crate::codec::{Damage, parse, signed};

/// Rows that are read at a time.
const STEP: u32 = 1_000;
/// Most shapes and policies that are remembered from one call to the next.
const MOST: usize = 65_536;

static LIVE: &str = include_str!("queries/live.sql");
static SHAPES: &str = include_str!("queries/shapes.sql");
static POLICIES: &str = include_str!("queries/policies.sql");

/// Shapes and policies by the ids of their rows, which never change.
#[derive(Default)]
pub(super) struct Shared {
    shapes: HashMap<i64, Arc<Shape>>,
    policies: HashMap<i64, Arc<Policy>>,
}

/// Unfinished jobs after `after`, at most `limit`. Jobs of one row of `shapes` share one [`Shape`].
pub(super) async fn live(pool: &PgPool, shared: &mut Shared, after: Seq, limit: u32) -> Result<Vec<LiveJob>, Fault> {
    if shared.shapes.len() + shared.policies.len() > MOST {
        *shared = Shared::default();
    }
    let mut jobs = Vec::with_capacity(limit.min(STEP) as usize);
    let mut after = signed(after.0);
    let mut left = limit;
    while left > 0 {
        let step = left.min(STEP);
        let rows = sqlx::query(LIVE).bind(after).bind(i64::from(step)).fetch_all(pool).await?;
        let Some(last) = rows.last() else { break };
        after = get(last, 0)?;
        let ids = |column| rows.iter().map(|row| get(row, column)).collect::<Result<HashSet<i64>, Fault>>();
        learn(pool, &mut shared.shapes, SHAPES, "a shape", ids(2)?).await?;
        learn(pool, &mut shared.policies, POLICIES, "a policy", ids(3)?).await?;
        for row in &rows {
            jobs.push(LiveJob {
                shape: known(&shared.shapes, "shape", get(row, 2)?)?,
                policy: known(&shared.policies, "policy", get(row, 3)?)?,
                id: job_id(row, 1)?,
                seq: Seq(get::<i64>(row, 0)?.cast_unsigned()),
                submitted_at: Timestamp(get(row, 4)?),
                start_after: time(row, 5)?,
                lifecycle: lifecycle(row, 6)?,
            });
        }
        let count = rows.len() as u32;
        if count < step {
            break;
        }
        left -= count;
    }
    Ok(jobs)
}

/// Reads what is not known yet.
async fn learn<T: DeserializeOwned>(
    pool: &PgPool,
    known: &mut HashMap<i64, Arc<T>>,
    sql: &'static str,
    what: &'static str,
    ids: HashSet<i64>,
) -> Result<(), Fault> {
    let unknown: Vec<i64> = ids.into_iter().filter(|id| !known.contains_key(id)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    for row in sqlx::query(sql).bind(unknown).fetch_all(pool).await? {
        known.insert(get(&row, 0)?, Arc::new(parse(what, get(&row, 1)?)?));
    }
    Ok(())
}

fn known<T>(known: &HashMap<i64, Arc<T>>, what: &'static str, id: i64) -> Result<Arc<T>, Fault> {
    known.get(&id).cloned().ok_or_else(|| Damage(format!("there is no {what} {id}")).into())
}
