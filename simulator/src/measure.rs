//! The books of a simulation: what is in use, who has it, who waits, summed over time.
//!
//! Invariant: amounts and areas are exact integers; fractions are made of them only at the end, so that no figure depends on the order of
//! additions.

use scheduler_core::time::{Span, Timestamp};

use crate::cluster::Cluster;
use crate::report::{Resources, Spread};
use crate::series::{Point, Series};
use crate::workload::{Job, Workload};

/// Running time below which slowdown is not worth speaking of, in seconds.
const SLOWDOWN_BOUND: f64 = 10.0;
const MICROS: f64 = 1e6;

/// Amounts of CPU, memory and GPUs.
type Amounts = [u128; 3];

#[derive(Clone, Copy, Default)]
struct Tenant {
    /// Jobs that wait or run.
    present: u64,
    used: Amounts,
    /// Amounts times microseconds.
    area: Amounts,
}

/// See the module.
pub(crate) struct Measure {
    capacity: Amounts,
    now: Timestamp,
    used: Amounts,
    area: Amounts,
    tenants: Vec<Tenant>,
    pub(crate) queued: u64,
    pub(crate) longest_queue: u64,
    contended: Contended,
    waits: Vec<f64>,
    slowdowns: Vec<f64>,
    pub(crate) preemptions: u64,
    lost: u128,
    pub(crate) last_end: Option<Timestamp>,
    series: Option<Series>,
}

/// Jain's index while jobs wait.
#[derive(Default)]
struct Contended {
    micros: f64,
    weighted: f64,
}

impl Measure {
    pub(crate) fn new(workload: &Workload, cluster: &Cluster, series: bool) -> Self {
        Self {
            capacity: cluster.amounts(),
            now: Timestamp(0),
            used: [0; 3],
            area: [0; 3],
            tenants: vec![Tenant::default(); workload.tenants.len()],
            queued: 0,
            longest_queue: 0,
            contended: Contended::default(),
            waits: Vec::new(),
            slowdowns: Vec::new(),
            preemptions: 0,
            lost: 0,
            last_end: None,
            series: series.then(Series::default),
        }
    }

    /// Time goes on with everything as it is.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let passed = now.since(self.now);
        self.now = now;
        if passed.0 == 0 {
            return;
        }
        for (area, used) in self.area.iter_mut().zip(self.used) {
            *area += used * u128::from(passed.0);
        }
        if self.queued > 0 {
            let present = self.tenants.iter().filter(|tenant| tenant.present > 0);
            let jain = jain(present.map(|tenant| dominant(tenant.used, self.capacity)));
            self.contended.micros += passed.0 as f64;
            self.contended.weighted += jain * passed.0 as f64;
        }
    }

    /// A job is in its queue, for the first time or again.
    pub(crate) fn queued(&mut self, job: &Job) {
        self.queued += 1;
        self.tenants[job.tenant].present += 1;
    }

    /// A job runs; `first` if it never did before.
    pub(crate) fn started(&mut self, job: &Job, first: bool) {
        self.queued -= 1;
        if first {
            self.waits.push(self.now.since(Timestamp(0) + job.at).0 as f64 / MICROS);
        }
        for (index, amount) in job.amounts().into_iter().enumerate() {
            self.used[index] += amount;
            self.tenants[job.tenant].used[index] += amount;
        }
    }

    /// A job runs no more.
    pub(crate) fn ended(&mut self, job: &Job, since: Timestamp) {
        let ran = u128::from(self.now.since(since).0);
        let tenant = &mut self.tenants[job.tenant];
        tenant.present -= 1;
        for (index, amount) in job.amounts().into_iter().enumerate() {
            self.used[index] -= amount;
            tenant.used[index] -= amount;
            tenant.area[index] += amount * ran;
        }
    }

    /// A job is over for good.
    pub(crate) fn finished(&mut self, job: &Job) {
        self.last_end = Some(self.now);
        let stayed = self.now.since(Timestamp(0) + job.at).0 as f64 / MICROS;
        let bounded = (job.stay().0 as f64 / MICROS).max(SLOWDOWN_BOUND);
        self.slowdowns.push((stayed / bounded).max(1.0));
    }

    /// A run is ended to make room.
    pub(crate) fn preempted(&mut self, since: Timestamp) {
        self.preemptions += 1;
        self.lost += u128::from(self.now.since(since).0);
    }

    /// The instant is settled.
    pub(crate) fn settled(&mut self) {
        self.longest_queue = self.longest_queue.max(self.queued);
        let Some(series) = &mut self.series else { return };
        let point = Point {
            at: self.now.since(Timestamp(0)),
            queued: self.queued,
            used: [0, 1, 2].map(|index| share(self.used[index], self.capacity[index])),
        };
        match series.points.last_mut() {
            Some(last) if last.at == point.at => *last = point,
            _ => series.points.push(point),
        }
    }

    /// Share of the machines in use over a time.
    pub(crate) fn utilisation(&self, makespan: Span) -> Resources {
        let over = |index: usize| share(self.area[index], self.capacity[index] * u128::from(makespan.0));
        Resources { cpu: over(0), memory: over(1), gpu: over(2) }
    }

    /// Over the tenants that used anything.
    pub(crate) fn jain(&self) -> f64 {
        let used = self.tenants.iter().filter(|tenant| tenant.area.iter().any(|area| *area > 0));
        jain(used.map(|tenant| dominant(tenant.area, self.capacity)))
    }

    pub(crate) fn contended_jain(&self) -> Option<f64> {
        (self.contended.micros > 0.0).then(|| self.contended.weighted / self.contended.micros)
    }

    pub(crate) fn lost_seconds(&self) -> f64 {
        self.lost as f64 / MICROS
    }

    /// Waits, slowdowns and the series, if there is one.
    pub(crate) fn into_parts(self) -> (Spread, Spread, Option<Series>) {
        (Spread::of(self.waits), Spread::of(self.slowdowns), self.series)
    }
}

fn share(part: u128, whole: u128) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The largest share of any resource.
fn dominant(amounts: Amounts, capacity: Amounts) -> f64 {
    amounts.into_iter().zip(capacity).map(|(amount, capacity)| share(amount, capacity)).fold(0.0, f64::max)
}

/// (Σx)² / (n Σx²): 1 where all have the same, 1/n where one has everything; 1 where nobody has anything.
fn jain(shares: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0_u64, 0.0, 0.0);
    for share in shares {
        count += 1;
        sum += share;
        squares += share * share;
    }
    if squares > 0.0 { sum * sum / (count as f64 * squares) } else { 1.0 }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[expect(clippy::float_cmp, reason = "these figures are exact")]
mod tests {
    use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
    use scheduler_core::time::{Span, Timestamp};

    use super::{Measure, jain};
    use crate::{Builder, Cluster, Job, Machine};

    #[test]
    fn what_is_ended_to_make_room_is_lost_work() {
        let mut builder = Builder::new();
        let (queue, tenant) = (builder.queue("q"), builder.tenant("a"));
        let request = Request { cpu: CpuMillis(500), memory: MemoryBytes(0), gpus: 0 };
        let duration = Span::from_secs(20);
        builder.push(Job { at: Span(0), duration, limit: None, priority: 0, queue, tenant, tasks: 1, request });
        let workload = builder.finish().unwrap();
        let machine = Machine { name: "n".into(), cpu_millis: 1_000, memory_bytes: 0, gpus: 0, gpu_model: "none".into() };
        let mut measure = Measure::new(&workload, &Cluster::new(vec![machine]), false);
        let (job, at) = (&workload.jobs[0], |seconds: i64| Timestamp(seconds * 1_000_000));
        measure.queued(job);
        measure.started(job, true);
        measure.advance(at(7));
        measure.preempted(at(0));
        measure.ended(job, at(0));
        measure.queued(job);
        measure.advance(at(10));
        measure.started(job, false);
        measure.advance(at(30));
        measure.ended(job, at(10));
        measure.finished(job);
        assert_eq!((measure.preemptions, measure.lost_seconds()), (1, 7.0));
        assert_eq!(measure.utilisation(Span::from_secs(30)).cpu, 27.0 * 0.5 / 30.0);
        let (wait, slowdown, _) = measure.into_parts();
        assert_eq!((wait.mean, slowdown.mean), (0.0, 1.5), "waiting counts to the first start, slowdown to the end");
    }

    #[test]
    fn jain_is_one_for_equals_and_one_over_n_for_a_winner() {
        let close = |left: f64, right: f64| assert!((left - right).abs() < 1e-12, "{left} {right}");
        close(jain([0.5, 0.5, 0.5].into_iter()), 1.0);
        close(jain([1.0, 0.0, 0.0, 0.0].into_iter()), 0.25);
        close(jain([1.0, 3.0].into_iter()), 0.8);
        close(jain(std::iter::empty()), 1.0);
    }
}
