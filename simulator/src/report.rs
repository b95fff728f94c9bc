//! The figures of a simulation, as they are printed and as JSON has them.

use serde::Serialize;

use crate::setup::Policy;

/// What came out.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How the core decided.
    pub policy: Policy,
    /// How many blocked jobs had a reservation at most.
    pub reservations: u32,
    /// Of everything that was drawn.
    pub seed: u64,
    /// Jobs in the workload.
    pub jobs: usize,
    /// Of these, jobs that ran to their end.
    pub completed: usize,
    /// Of these, jobs that their time limit ended.
    pub timed_out: usize,
    /// Of these, jobs that the scheduler did not accept. They are in no other figure.
    pub refused: Refusals,
    /// From the first arrival to the last end.
    pub makespan_seconds: f64,
    /// Share of the machines in use over the makespan; 0 of what they have nothing of.
    pub utilisation: Resources,
    /// Seconds from arrival to first start.
    pub wait: Spread,
    /// Time in the system over time of running, the latter taken as at least 10 s; at least 1.
    pub bounded_slowdown: Spread,
    /// Jain's index over the tenants' dominant shares of all that was used, 1/n to 1. Whoever runs a whole trace to its end gives
    /// every tenant what it asked for, so this tells tenants' demands apart more than policies.
    pub jain_index: f64,
    /// Jain's index over the dominant shares of those tenants that have jobs waiting or running, weighted by time, while any job waits.
    /// This is where policies differ. `None` when nobody ever waited.
    pub contended_jain_index: Option<f64>,
    /// Runs that were ended to make room for others.
    pub preemptions: u64,
    /// Running time of these runs, which was for nothing.
    pub lost_work_seconds: f64,
    /// Most jobs that waited at one time.
    pub longest_queue: u64,
    /// Jobs taken from the queue and placed.
    pub decisions: u64,
    /// The same for each second of real time that the simulation took, submits and ends included. The only figure that differs from
    /// run to run.
    pub decisions_per_second: f64,
    /// What no scheduler can beat.
    pub bound: Bound,
    /// What was left out or rounded.
    pub notes: Vec<String>,
}

/// Jobs that were not accepted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusals {
    /// How many.
    pub jobs: usize,
    /// Why, in the words of the scheduler, the most frequent first; at most 20 of them.
    pub reasons: Vec<Refusal>,
}

/// A reason and how often it was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// How many jobs.
    pub jobs: usize,
}

/// A figure for each resource.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Processor time.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// GPUs.
    pub gpu: f64,
}

/// How a figure is spread over jobs. Percentiles are values that occur (nearest rank).
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half of the jobs have at most this.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
}

/// Lower bounds of the makespan.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// The largest of those below.
    pub makespan_seconds: f64,
    /// Work over capacity, from the arrival on where that is largest.
    pub area_seconds: f64,
    /// The longest job.
    pub longest_job_seconds: f64,
    /// The latest end that any job would have if all started at their arrival.
    pub arrival_seconds: f64,
    /// The makespan over the bound; 1 is the best that there is.
    pub ratio: f64,
}

impl Spread {
    /// Of these values, in any order; all zero if there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        values.sort_unstable_by(f64::total_cmp);
        let rank = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Self { mean, p50: rank(50), p95: rank(95), p99: rank(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn percentiles_are_values_that_occur() {
        assert_eq!(Spread::of(vec![]), Spread::default());
        assert_eq!(Spread::of(vec![3.0]), Spread { mean: 3.0, p50: 3.0, p95: 3.0, p99: 3.0 });
        let hundred = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Spread::of(hundred), Spread { mean: 50.5, p50: 50.0, p95: 95.0, p99: 99.0 });
        assert_eq!(Spread::of(vec![1.0, 10.0]), Spread { mean: 5.5, p50: 1.0, p95: 10.0, p99: 10.0 });
    }
}
