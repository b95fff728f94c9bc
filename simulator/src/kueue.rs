//! Kueue's published performance workloads, generated: cohorts of queues that each have little quota and may borrow.
//!
//! In every queue three classes of jobs arrive at fixed intervals. A queue brings 20 cores into its cohort and holds at most 120; a cohort's
//! queues lend each other what they do not use. There are no machines in these workloads, only quotas: here it is one machine that has all
//! of them together, so that it is never what is short.

use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::ids::Name;
use scheduler_core::time::Span;
use scheduler_core::{CohortConfig, Limits, QueueConfig};

use crate::cluster::Machine;
use crate::random::Random;
use crate::workload::{Builder, Job, Workload};

/// Cores that each queue brings into its cohort.
const NOMINAL: u64 = 20;
/// Cores that a queue may borrow of the others.
const BORROWED: u64 = 100;
const PURPOSE: u64 = 0x9ceae;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// 5 cohorts of 6 queues, 500 jobs a queue.
    Baseline,
    /// 10 cohorts of 100 queues, 50 jobs a queue.
    Large,
}

/// Jobs of one kind in each queue.
struct Class {
    count: u64,
    interval: Span,
    run: Span,
    cores: u64,
    priority: i32,
}

const fn class(count: u64, interval_ms: u64, run_ms: u64, cores: u64, priority: i32) -> Class {
    Class { count, interval: Span::from_millis(interval_ms), run: Span::from_millis(run_ms), cores, priority }
}

const BASELINE: [Class; 3] = [class(350, 100, 200, 1, 50), class(100, 500, 500, 5, 100), class(50, 1_200, 1_000, 20, 200)];
const LARGE: [Class; 3] = [class(35, 60, 150, 1, 50), class(11, 300, 350, 5, 100), class(4, 700, 700, 20, 200)];

impl Scale {
    const fn cohorts(self) -> (usize, u64) {
        match self {
            Self::Baseline => (5, 6),
            Self::Large => (10, 100),
        }
    }

    /// The quota of all queues, as one machine.
    pub fn machines(self) -> Vec<Machine> {
        let (cohorts, queues) = self.cohorts();
        vec![Machine {
            name: "quota".into(),
            cpu_millis: cohorts as u64 * queues * NOMINAL * 1_000,
            memory_bytes: 0,
            gpus: 0,
            gpu_model: "none".into(),
        }]
    }
}

/// A queue as these workloads have it.
fn quota(name: &str, cohort: &Name) -> QueueConfig {
    let cores = |cores: u64| Limits { cpu: Some(CpuMillis(cores * 1_000)), ..Limits::NONE };
    QueueConfig {
        preemptible: true,
        cohort: Some(cohort.clone()),
        guaranteed: cores(NOMINAL),
        limit: cores(NOMINAL + BORROWED),
        ..QueueConfig::named(name.into())
    }
}

/// The workload. In which order the jobs of one instant come is drawn from the seed.
pub fn kueue(scale: Scale, seed: u64) -> Workload {
    let (cohorts, queues) = scale.cohorts();
    let classes = if scale == Scale::Baseline { &BASELINE } else { &LARGE };
    let mut random = Random::new(seed, PURPOSE);
    let mut builder = Builder::new();
    let mut drawn = Vec::new();
    for cohort in 0..cohorts {
        let cohort_name = Name::from(format!("cohort-{cohort}"));
        builder.cohort(CohortConfig::named(cohort_name.clone()));
        for queue in 0..queues {
            let name = format!("cohort-{cohort}-queue-{queue}");
            let (queue, tenant) = (builder.described(quota(&name, &cohort_name)), builder.tenant(&name));
            for class in classes {
                let request = Request { cpu: CpuMillis(class.cores * 1_000), memory: MemoryBytes(0), gpus: 0 };
                for number in 0..class.count {
                    let at = Span(number * class.interval.0);
                    let job =
                        Job { at, duration: class.run, limit: None, priority: class.priority, queue, tenant, tasks: 1, request };
                    drawn.push((at, random.next(), job));
                }
            }
        }
    }
    drawn.sort_by_key(|&(at, draw, _)| (at, draw));
    for (_, _, job) in drawn {
        builder.push(job);
    }
    builder.finish().unwrap_or_else(|| unreachable!("every class has jobs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core_seconds(workload: &Workload) -> f64 {
        workload.jobs.iter().map(|job| job.amounts()[0] as f64 * job.duration.0 as f64 / 1e9).sum()
    }

    #[test]
    fn the_baseline_is_as_published() {
        let workload = kueue(Scale::Baseline, 7);
        assert_eq!((workload.jobs.len(), workload.queues.len(), workload.cohorts.len()), (15_000, 30, 5));
        let cores: u64 = Scale::Baseline.machines().iter().map(|machine| machine.cpu_millis / 1_000).sum();
        assert_eq!(cores, 600);
        assert!((core_seconds(&workload) / 600.0 - 66.0).abs() < 1e-9);
    }

    #[test]
    fn the_large_one_is_as_published() {
        let workload = kueue(Scale::Large, 7);
        assert_eq!((workload.jobs.len(), workload.queues.len(), workload.cohorts.len()), (50_000, 1_000, 10));
        assert!((core_seconds(&workload) / 20_000.0 - 4.025).abs() < 1e-9);
    }

    #[test]
    fn the_seed_orders_an_instant_and_nothing_else() {
        let (one, other) = (kueue(Scale::Baseline, 1), kueue(Scale::Baseline, 2));
        assert_ne!(one.jobs, other.jobs);
        assert_eq!(one, kueue(Scale::Baseline, 1));
        assert_eq!(
            one.jobs.iter().map(|job| job.at).collect::<Vec<_>>(),
            other.jobs.iter().map(|job| job.at).collect::<Vec<_>>()
        );
    }
}
