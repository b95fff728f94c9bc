//! What no scheduler can beat: lower bounds of the makespan.
//!
//! Three of them, each for one pool of machines at a time; the largest over all pools counts.
//! - Area: whatever arrives from an instant on needs its share of the capacity for its time. The bound is taken at every arrival, so that
//!   idle time at the beginning, when nothing was there to run, is not held against anybody.
//! - The longest job.
//! - The latest of all arrivals plus length: no job ends earlier.
//!
//! Packing is not considered, so the true optimum may lie higher.

use scheduler_core::time::Span;

use crate::cluster::Cluster;
use crate::report::Bound;
use crate::workload::{Job, Workload};

const MICROS: f64 = 1e6;

/// The bounds for these jobs of the workload, whose positions are in the order of arrival. Counted from `first`.
pub(crate) fn bound(workload: &Workload, accepted: &[usize], cluster: &Cluster, first: Span, makespan: f64) -> Bound {
    let mut area = 0.0_f64;
    for pool in 0..cluster.pools {
        let jobs = accepted.iter().map(|&index| &workload.jobs[index]);
        area = area.max(area_bound(jobs.filter(|job| workload.queues[job.queue].pool == pool), cluster, first));
    }
    let jobs = || accepted.iter().map(|&index| &workload.jobs[index]);
    let longest = jobs().map(|job| job.stay().0).max().unwrap_or(0) as f64 / MICROS;
    let arrival = jobs().map(|job| job.at.0 - first.0 + job.stay().0).max().unwrap_or(0) as f64 / MICROS;
    let most = area.max(longest).max(arrival);
    Bound {
        makespan_seconds: most,
        area_seconds: area,
        longest_job_seconds: longest,
        arrival_seconds: arrival,
        ratio: if most > 0.0 { makespan / most } else { 1.0 },
    }
}

/// The largest, over all arrivals, of that instant plus the area of all that arrives from then on.
fn area_bound<'a>(jobs: impl DoubleEndedIterator<Item = &'a Job>, cluster: &Cluster, first: Span) -> f64 {
    let capacity = cluster.pool_amounts();
    let mut areas = [0_u128; 3];
    let mut most = 0.0_f64;
    for job in jobs.rev() {
        for (area, amount) in areas.iter_mut().zip(job.amounts()) {
            *area += amount * u128::from(job.stay().0);
        }
        for (area, capacity) in areas.into_iter().zip(capacity) {
            if area > 0 && capacity > 0 {
                most = most.max(((job.at.0 - first.0) as f64 + area as f64 / capacity as f64) / MICROS);
            }
        }
    }
    most
}
