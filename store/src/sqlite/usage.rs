//! Reading what was used: the ledger, and what still runs on top of it, on one snapshot.

use std::collections::BTreeMap;

use scheduler_core::ids::{JobId, Name, Seq};
use scheduler_core::job::Shape;
use scheduler_core::state::{Placement, StateKind};
use scheduler_core::time::{Span, Timestamp};

use super::codec::{job_id, json, parse, state_kind};
use super::raw::{Arg, Connection, RawError, Row};
use super::readers::ReadError;
use crate::usage::{Day, JobUse, Promise, Promised, Sampled, UsageBy, UsagePage, UsageQuery, UsageRow, Used, by_days};

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

/// The time that a query speaks of. What has not happened yet is not used.
fn window(query: &UsageQuery) -> (Timestamp, Timestamp) {
    (query.since.begin(), query.until.next().begin().min(query.now))
}

/// A job with its latest run.
struct Found {
    seq: i64,
    id: JobId,
    name: Name,
    namespace: Name,
    queue: Name,
    user: Name,
    state: StateKind,
    attempt: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    promise: Promise,
}

fn found(row: &Row) -> Result<Found, RawError> {
    let shape: Shape = parse("a shape", row.text(11)?)?;
    let placement: Option<Placement> = row.opt_text(10)?.map(|text| parse("a placement", text)).transpose()?;
    Ok(Found {
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
        promise: Promise::of(&shape, placement.as_ref().filter(|_| shape.min_available > 0)),
    })
}

/// What runs used on these days, by what is asked.
pub(super) fn days(db: &mut Connection, query: &UsageQuery, by: UsageBy) -> Result<UsagePage<UsageRow>, ReadError> {
    type Key = (Option<Day>, Option<Name>, Option<Name>, Option<Name>);
    let key = |day: Day, namespace: &str, user: &str, queue: &str| -> Key {
        let name = |wanted: bool, name: &str| wanted.then(|| Name::from(name));
        (by.day.then_some(day), name(by.namespace, namespace), name(by.user, user), name(by.queue, queue))
    };
    let lists = Lists::of(query)?;
    let [namespaces, users, queues] = lists.args();
    let mut sums: BTreeMap<Key, (u64, Used)> = BTreeMap::new();
    db.query(DAYS, &[Arg::Int(query.since.0), Arg::Int(query.until.0), namespaces, users, queues], |row| {
        let sum = sums.entry(key(Day(row.int(0)?), row.text(1)?, row.text(2)?, row.text(3)?)).or_default();
        sum.0 += row.number::<u64>(4)?;
        let promised = Promised { cpu_micros: row.number(5)?, memory_mib_millis: row.number(6)?, gpu_micros: row.number(7)? };
        sum.1.add(&Used { promised, sampled: sampled(row, 8)? });
        Ok(())
    })?;
    let (from, to) = window(query);
    db.query(ACTIVE, &[Arg::Int(to.0), namespaces, users, queues], |row| {
        let run = found(row)?;
        let began = Timestamp(run.started_at.unwrap_or(to.0)).max(from);
        for (day, span) in by_days(began, to) {
            let sum = sums.entry(key(day, run.namespace.as_str(), run.user.as_str(), run.queue.as_str())).or_default();
            sum.1.promised.add(&run.promise.over(span));
        }
        Ok(())
    })?;
    let more = sums.len() > query.limit as usize;
    let row = |((day, namespace, user, queue), (runs, used))| UsageRow { day, namespace, user, queue, runs, used };
    Ok(UsagePage { rows: sums.into_iter().take(query.limit as usize).map(row).collect(), more })
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
fn of_job(db: &mut Connection, job: &Found, (from, to): (Timestamp, Timestamp)) -> Result<JobUse, RawError> {
    let mut used = Used::default();
    let mut runs = 0;
    let mut count = |promise: Promise, began: Timestamp, ended: Timestamp| -> Promised {
        runs += 1;
        let (began, ended) = (began.max(from), ended.min(to));
        let mut promised = Promised::default();
        // By days, as the ledger has it: else they would differ by what is rounded off.
        if Day::of(began) == Day::of(ended) {
            promised = promise.over(ended.since(began));
        } else {
            by_days(began, ended).for_each(|(_, span): (Day, Span)| promised.add(&promise.over(span)));
        }
        promised
    };
    // Whether the run that the job's row speaks of has a row of its own, with its end.
    let mut is_told = false;
    db.query(RUNS_OF, &[Arg::Int(job.seq)], |row| {
        used.sampled.add(&sampled(row, 6)?);
        if let (Some(began), Some(ended)) = (row.opt_int(1)?, row.opt_int(2)?) {
            let promise = Promise {
                cpu: scheduler_core::amounts::CpuMillis(row.number(3)?),
                memory: scheduler_core::amounts::MemoryBytes(row.number(4)?),
                gpu_millis: row.number(5)?,
            };
            used.promised.add(&count(promise, Timestamp(began), Timestamp(ended)));
            is_told |= row.int(0)? == job.attempt;
        }
        Ok(())
    })?;
    if let Some(began) = job.started_at
        && !is_told
        && matches!(job.state, StateKind::Running | StateKind::Stopping | StateKind::Finished)
    {
        used.promised.add(&count(job.promise, Timestamp(began), Timestamp(job.ended_at.unwrap_or(i64::MAX))));
    }
    Ok(JobUse {
        job: job.id,
        seq: Seq(job.seq.cast_unsigned()),
        name: job.name.clone(),
        namespace: job.namespace.clone(),
        queue: job.queue.clone(),
        user: job.user.clone(),
        state: job.state,
        runs,
        used,
    })
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
