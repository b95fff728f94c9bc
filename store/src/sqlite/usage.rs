//! Reading what was used: the ledger, and what still runs on top of it, on one snapshot.

use scheduler_core::amounts::{CpuMillis, MemoryBytes};
use scheduler_core::ids::{JobId, Name};
use scheduler_core::time::Timestamp;

use super::codec::{job_id, json, state_kind};
use super::raw::{Arg, Connection, RawError, Row};
use super::readers::ReadError;
use crate::reckon::{DaySums, KeptRun, LatestRun, job_use, promise, window};
use crate::usage::{Day, JobUse, Promise, Promised, Sampled, UsageBy, UsagePage, UsageQuery, UsageRow, Used};

static DAYS: &str = include_str!("queries/usage_days.sql");
static ACTIVE: &str = include_str!("queries/usage_active.sql");
static FINISHED: &str = include_str!("queries/usage_finished.sql");
static JOB: &str = include_str!("queries/usage_job.sql");
static RUNS_OF: &str = include_str!("queries/usage_runs_of.sql");

/// Lists as parameters: namespaces, users, queues.
struct Lists([Option<String>; 3]);

impl Lists {
    fn of(query: &UsageQuery) -> Result<Self, RawError> {
        let list = |list: &Vec<String>| (!list.is_empty()).then(|| json(list)).transpose();
        Ok(Self([list(&query.namespaces)?, list(&query.users)?, list(&query.queues)?]))
    }

    fn args(&self) -> [Arg<'_>; 3] {
        self.0.each_ref().map(|list| list.as_deref().into())
    }
}

fn found(row: &Row) -> Result<LatestRun, RawError> {
    Ok(LatestRun {
        seq: row.int(0)?,
        id: job_id(row.blob(1)?)?,
        name: Name::from(row.text(2)?),
        namespace: Name::from(row.text(3)?),
        queue: Name::from(row.text(4)?),
        user: Name::from(row.text(5)?),
        state: state_kind(row.int(6)?)?,
        attempt: row.int(7)?,
        started_at: row.opt_int(8)?,
        ended_at: row.opt_int(9)?,
        promise: promise(row.text(11)?, row.opt_text(10)?)?,
    })
}

/// What runs used on these days, by what is asked.
pub(super) fn days(db: &mut Connection, query: &UsageQuery, by: UsageBy) -> Result<UsagePage<UsageRow>, ReadError> {
    let lists = Lists::of(query)?;
    let [namespaces, users, queues] = lists.args();
    let mut sums = DaySums::new(by);
    db.query(DAYS, &[Arg::Int(query.since.0), Arg::Int(query.until.0), namespaces, users, queues], |row| {
        let promised = Promised { cpu_micros: row.number(5)?, memory_mib_millis: row.number(6)?, gpu_micros: row.number(7)? };
        let used = Used { promised, sampled: sampled(row, 8)? };
        sums.add(Day(row.int(0)?), (row.text(1)?, row.text(2)?, row.text(3)?), row.number(4)?, &used);
        Ok(())
    })?;
    let (from, to) = window(query);
    db.query(ACTIVE, &[Arg::Int(to.0), namespaces, users, queues], |row| {
        sums.add_active(&found(row)?, (from, to));
        Ok(())
    })?;
    Ok(sums.page(query.limit))
}

/// What jobs used on these days: those that run, then those that ended last. What was seen of a run is not cut by days.
pub(super) fn jobs(db: &mut Connection, query: &UsageQuery) -> Result<UsagePage<JobUse>, ReadError> {
    let lists = Lists::of(query)?;
    let [namespaces, users, queues] = lists.args();
    let (from, to) = window(query);
    let mut all = Vec::new();
    db.query(ACTIVE, &[Arg::Int(to.0), namespaces, users, queues], |row| {
        all.push(found(row)?);
        Ok(())
    })?;
    let limit = query.limit as usize;
    let left = Arg::Int((limit.saturating_sub(all.len()) + 1) as i64);
    db.query(FINISHED, &[Arg::Int(to.0), namespaces, users, queues, Arg::Int(from.0), left], |row| {
        all.push(found(row)?);
        Ok(())
    })?;
    let more = all.len() > limit;
    let rows = all.iter().take(limit).map(|job| of_job(db, job, (from, to))).collect::<Result<_, _>>()?;
    Ok(UsagePage { rows, more })
}

/// What one job has used up to now.
pub(super) fn job(db: &mut Connection, id: JobId, now: Timestamp) -> Result<Option<JobUse>, ReadError> {
    let Some(job) = db.first(JOB, &[Arg::Blob(id.0.as_bytes())], found)? else { return Ok(None) };
    Ok(Some(of_job(db, &job, (Timestamp(i64::MIN), now))?))
}

/// All runs of a job, as far as they lie in a time.
fn of_job(db: &mut Connection, job: &LatestRun, window: (Timestamp, Timestamp)) -> Result<JobUse, RawError> {
    let mut kept = Vec::new();
    db.query(RUNS_OF, &[Arg::Int(job.seq)], |row| {
        let ended = match (row.opt_int(1)?, row.opt_int(2)?) {
            (Some(began), Some(ended)) => {
                let promise =
                    Promise { cpu: CpuMillis(row.number(3)?), memory: MemoryBytes(row.number(4)?), gpu_millis: row.number(5)? };
                Some((Timestamp(began), Timestamp(ended), promise))
            }
            _ => None,
        };
        kept.push(KeptRun { attempt: row.int(0)?, ended, sampled: sampled(row, 6)? });
        Ok(())
    })?;
    Ok(job_use(job, &kept, window))
}

/// The five columns that begin at `first`.
fn sampled(row: &Row, first: i32) -> Result<Sampled, RawError> {
    Ok(Sampled {
        known_micros: row.number(first)?,
        busy_micros: row.number(first + 1)?,
        peak_busy_percent: row.number(first + 2)?,
        peak_memory_bytes: row.number(first + 3)?,
        energy_millijoules: row.number(first + 4)?,
    })
}
