//! What a query of usage answers, from what a database has found: sums by day, jobs with their runs. The same for every database.

use std::collections::BTreeMap;

use scheduler_core::ids::{JobId, Name, Seq};
use scheduler_core::job::Shape;
use scheduler_core::state::{Placement, StateKind};
use scheduler_core::time::{Span, Timestamp};

use crate::codec::{Damage, parse};
use crate::usage::{Day, JobUse, Promise, Promised, Sampled, UsageBy, UsagePage, UsageQuery, UsageRow, Used, by_days};

/// The time that a query speaks of. What has not happened yet is not used.
pub(crate) fn window(query: &UsageQuery) -> (Timestamp, Timestamp) {
    (query.since.begin(), query.until.next().begin().min(query.now))
}

/// A job with its latest run, as its row says.
pub(crate) struct LatestRun {
    pub(crate) seq: i64,
    pub(crate) id: JobId,
    pub(crate) name: Name,
    pub(crate) namespace: Name,
    pub(crate) queue: Name,
    pub(crate) user: Name,
    pub(crate) state: StateKind,
    pub(crate) attempt: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) ended_at: Option<i64>,
    pub(crate) promise: Promise,
}

/// What a run of this shape is promised, both as they are stored.
pub(crate) fn promise(shape: &str, placement: Option<&str>) -> Result<Promise, Damage> {
    let shape: Shape = parse("a shape", shape)?;
    let placement: Option<Placement> = placement.map(|text| parse("a placement", text)).transpose()?;
    Ok(Promise::of(&shape, placement.as_ref().filter(|_| shape.min_available > 0)))
}

type Key = (Option<Day>, Option<Name>, Option<Name>, Option<Name>);

/// Sums by what is asked.
pub(crate) struct DaySums {
    by: UsageBy,
    sums: BTreeMap<Key, (u64, Used)>,
}

impl DaySums {
    pub(crate) fn new(by: UsageBy) -> Self {
        Self { by, sums: BTreeMap::new() }
    }

    fn entry(&mut self, day: Day, namespace: &str, user: &str, queue: &str) -> &mut (u64, Used) {
        let name = |wanted: bool, name: &str| wanted.then(|| Name::from(name));
        let by = self.by;
        let key = (by.day.then_some(day), name(by.namespace, namespace), name(by.user, user), name(by.queue, queue));
        self.sums.entry(key).or_default()
    }

    /// Adds a row of the ledger.
    pub(crate) fn add(&mut self, day: Day, (namespace, user, queue): (&str, &str, &str), runs: u64, used: &Used) {
        let sum = self.entry(day, namespace, user, queue);
        sum.0 += runs;
        sum.1.add(used);
    }

    /// Adds a run that goes on.
    pub(crate) fn add_active(&mut self, run: &LatestRun, (from, to): (Timestamp, Timestamp)) {
        let began = Timestamp(run.started_at.unwrap_or(to.0)).max(from);
        for (day, span) in by_days(began, to) {
            let sum = self.entry(day, run.namespace.as_str(), run.user.as_str(), run.queue.as_str());
            sum.1.promised.add(&run.promise.over(span));
        }
    }

    /// The first rows.
    pub(crate) fn page(self, limit: u32) -> UsagePage<UsageRow> {
        let more = self.sums.len() > limit as usize;
        let row = |((day, namespace, user, queue), (runs, used))| UsageRow { day, namespace, user, queue, runs, used };
        UsagePage { rows: self.sums.into_iter().take(limit as usize).map(row).collect(), more }
    }
}

/// A run that has a row of its own.
pub(crate) struct KeptRun {
    pub(crate) attempt: i64,
    /// Start, end and promise, where its job's row does not say them any more.
    pub(crate) ended: Option<(Timestamp, Timestamp, Promise)>,
    pub(crate) sampled: Sampled,
}

/// All runs of a job, as far as they lie in a time.
pub(crate) fn job_use(job: &LatestRun, kept: &[KeptRun], (from, to): (Timestamp, Timestamp)) -> JobUse {
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
    for run in kept {
        used.sampled.add(&run.sampled);
        if let Some((began, ended, promise)) = run.ended {
            used.promised.add(&count(promise, began, ended));
            is_told |= run.attempt == job.attempt;
        }
    }
    if let Some(began) = job.started_at
        && !is_told
        && matches!(job.state, StateKind::Running | StateKind::Stopping | StateKind::Finished)
    {
        used.promised.add(&count(job.promise, Timestamp(began), Timestamp(job.ended_at.unwrap_or(i64::MAX))));
    }
    JobUse {
        job: job.id,
        seq: Seq(job.seq.cast_unsigned()),
        name: job.name.clone(),
        namespace: job.namespace.clone(),
        queue: job.queue.clone(),
        user: job.user.clone(),
        state: job.state,
        runs,
        used,
    }
}
