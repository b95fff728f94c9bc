//! What the core is rebuilt from: unfinished jobs in the order of submission, out of the hot table alone.

use std::collections::HashMap;
use std::sync::Arc;

use scheduler_core::ids::Seq;
use scheduler_core::job::{LiveJob, Policy, Shape};
use scheduler_core::state::Lifecycle;
use scheduler_core::time::Timestamp;

use super::codec::{job_id, lifecycle, parse};
use super::intern::shape;
use super::raw::{Arg, Connection, RawError};
use super::readers::ReadError;

/// Rows that are read before the shapes and policies that they name are looked up.
const STEP: u32 = 1_000;

static LIVE: &str = include_str!("queries/live.sql");
static SHAPE: &str = include_str!("queries/shape.sql");
static POLICY: &str = include_str!("queries/policy.sql");

/// A row whose shape and policy are still numbers.
struct Half {
    seq: i64,
    id: scheduler_core::ids::JobId,
    shape: i64,
    policy: i64,
    submitted_at: i64,
    start_after: Option<i64>,
    lifecycle: Lifecycle,
}

/// Most shapes and policies that are remembered from one call to the next.
const MOST: usize = 65_536;

/// Shapes and policies by the ids of their rows, which never change.
#[derive(Default)]
pub(super) struct Shared {
    shapes: HashMap<i64, Arc<Shape>>,
    policies: HashMap<i64, Arc<Policy>>,
}

/// Unfinished jobs after `after`, at most `limit`. Jobs of one row of `shapes` share one [`Shape`].
pub(super) fn live(db: &mut Connection, shared: &mut Shared, after: Seq, limit: u32) -> Result<Vec<LiveJob>, ReadError> {
    if shared.shapes.len() + shared.policies.len() > MOST {
        *shared = Shared::default();
    }
    let mut jobs = Vec::with_capacity(limit.min(STEP) as usize);
    let mut after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let mut left = limit;
    while left > 0 {
        let step = left.min(STEP);
        let halves = step_of(db, after, step)?;
        let Some(last) = halves.last() else { break };
        after = last.seq;
        let count = halves.len() as u32;
        for half in halves {
            jobs.push(LiveJob {
                shape: shape_of(db, shared, half.shape)?,
                policy: policy_of(db, shared, half.policy)?,
                id: half.id,
                seq: Seq(half.seq.cast_unsigned()),
                submitted_at: Timestamp(half.submitted_at),
                start_after: half.start_after.map(Timestamp),
                lifecycle: half.lifecycle,
            });
        }
        if count < step {
            break;
        }
        left -= count;
    }
    Ok(jobs)
}

fn step_of(db: &mut Connection, after: i64, step: u32) -> Result<Vec<Half>, RawError> {
    let mut halves = Vec::with_capacity(step as usize);
    db.query(LIVE, &[Arg::Int(after), Arg::Int(step.into())], |row| {
        halves.push(Half {
            seq: row.int(0)?,
            id: job_id(row.blob(1)?)?,
            shape: row.int(2)?,
            policy: row.int(3)?,
            submitted_at: row.int(4)?,
            start_after: row.opt_int(5)?,
            lifecycle: lifecycle(row, 6)?,
        });
        Ok(())
    })?;
    Ok(halves)
}

fn shape_of(db: &mut Connection, shared: &mut Shared, id: i64) -> Result<Arc<Shape>, RawError> {
    if let Some(shape) = shared.shapes.get(&id) {
        return Ok(Arc::clone(shape));
    }
    let found = db.first(SHAPE, &[Arg::Int(id)], |row| shape(row, 0).map(Arc::new))?;
    let shape = found.ok_or_else(|| RawError::corrupt(format!("there is no shape {id}")))?;
    shared.shapes.insert(id, Arc::clone(&shape));
    Ok(shape)
}

fn policy_of(db: &mut Connection, shared: &mut Shared, id: i64) -> Result<Arc<Policy>, RawError> {
    if let Some(policy) = shared.policies.get(&id) {
        return Ok(Arc::clone(policy));
    }
    let found = db.first(POLICY, &[Arg::Int(id)], |row| parse("a policy", row.text(0)?).map(Arc::new))?;
    let policy = found.ok_or_else(|| RawError::corrupt(format!("there is no policy {id}")))?;
    shared.policies.insert(id, Arc::clone(&policy));
    Ok(policy)
}
