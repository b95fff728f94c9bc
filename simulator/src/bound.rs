//! What no scheduler can beat: lower bounds of the makespan.
//!
//! Three of them:
//! - Area: whatever arrives from an instant on needs its share of the capacity for its time. The bound is taken at every arrival, so that
//!   idle time at the beginning, when nothing was there to run, is not held against anybody; and for all machines together as well as for
//!   every queue and cohort within what they may hold. The largest counts.
//! - The longest job.
//! - The latest of all arrivals plus length: no job ends earlier.
//!
//! Packing is not considered, so the true optimum may lie higher.

use scheduler_core::amounts::GPU_MILLIS;
use scheduler_core::ids::Name;
use scheduler_core::time::Span;
use scheduler_core::{CohortConfig, Limits, Resource};

use crate::cluster::Cluster;
use crate::report::Bound;
use crate::workload::{Job, Workload};

const MICROS: f64 = 1e6;

/// The bounds for these jobs of the workload, whose positions are in the order of arrival. Counted from `first`.
pub(crate) fn bound(workload: &Workload, accepted: &[usize], cluster: &Cluster, first: Span, makespan: f64) -> Bound {
    let jobs = || accepted.iter().map(|&index| &workload.jobs[index]);
    let whole = cluster.amounts().map(|amount| Some(amount).filter(|amount| *amount > 0));
    let mut area = area_bound(jobs(), whole, first);
    let mut by_queue = vec![Vec::new(); workload.queues.len()];
    for &index in accepted {
        by_queue[workload.jobs[index].queue].push(index);
    }
    for group in groups(workload) {
        let mut own: Vec<usize> = group.queues.iter().flat_map(|&queue| &by_queue[queue]).copied().collect();
        own.sort_unstable();
        area = area.max(area_bound(own.iter().map(|&index| &workload.jobs[index]), group.most, first));
    }
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

/// Queues that together hold no more than this of each resource.
struct Group {
    queues: Vec<usize>,
    most: [Option<u128>; 3],
}

/// Every queue with a limit, and every cohort with one: its own, or for a root what its queues are guaranteed together.
fn groups(workload: &Workload) -> impl Iterator<Item = Group> {
    // Of GPUs workloads count whole ones.
    let unit = |resource: Resource| if resource == Resource::Gpu { u128::from(GPU_MILLIS) } else { 1 };
    let limited =
        move |limits: &Limits| Resource::ALL.map(|resource| limits.of(resource).map(|limit| u128::from(limit) / unit(resource)));
    let queues = workload.queues.iter().enumerate();
    let own = queues.map(move |(index, queue)| Group { queues: vec![index], most: limited(&queue.config.limit) });
    let cohorts = workload.cohorts.iter().map(move |cohort| {
        let queues: Vec<usize> = (0..workload.queues.len()).filter(|&queue| is_under(workload, queue, cohort)).collect();
        let mut most = limited(&cohort.limit);
        if cohort.parent.is_none() {
            for (most, resource) in most.iter_mut().zip(Resource::ALL) {
                let own = queues.iter().filter_map(|&queue| workload.queues[queue].config.guaranteed.of(resource));
                let sum = own.map(|own| u128::from(own) / unit(resource)).reduce(|one, other| one + other);
                *most = most.or(sum);
            }
        }
        Group { queues, most }
    });
    own.chain(cohorts).filter(|group| group.most != [None; 3])
}

fn is_under(workload: &Workload, queue: usize, cohort: &CohortConfig) -> bool {
    let find = |name: &Name| workload.cohorts.iter().find(|other| other.name == *name);
    let own = workload.queues[queue].config.cohort.as_ref().and_then(find);
    let mut line = std::iter::successors(own, |above| above.parent.as_ref().and_then(find)).take(workload.cohorts.len());
    line.any(|above| above.name == cohort.name)
}

/// The largest, over all arrivals, of that instant plus the area of all that arrives from then on.
fn area_bound<'a>(jobs: impl DoubleEndedIterator<Item = &'a Job>, most: [Option<u128>; 3], first: Span) -> f64 {
    let mut areas = [0_u128; 3];
    let mut latest = 0.0_f64;
    for job in jobs.rev() {
        for (area, amount) in areas.iter_mut().zip(job.amounts()) {
            *area += amount * u128::from(job.stay().0);
        }
        for (area, most) in areas.into_iter().zip(most) {
            if let Some(most) = most.filter(|most| area > 0 && *most > 0) {
                latest = latest.max(((job.at.0 - first.0) as f64 + area as f64 / most as f64) / MICROS);
            }
        }
    }
    latest
}
