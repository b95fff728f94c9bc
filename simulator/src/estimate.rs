//! Time limits for traces that have none.
//!
//! Backfill lives on time limits: a job whose end nobody knows can only start beside a reservation, never before it. People who ask for a
//! limit ask for more than they need; [`Estimate::Factor`] models that with a factor that is drawn evenly from 1 to K, job by job.

use std::str::FromStr;

use scheduler_core::time::Span;

use crate::random::Random;
use crate::workload::Workload;

/// Largest factor.
const MOST: f64 = 1_000.0;
const PURPOSE: u64 = 0xe571;

/// Which limit a job gets that has none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Estimate {
    /// Exactly as long as it runs.
    Exact,
    /// As long as it runs, times a factor drawn evenly from 1 to this.
    Factor(f64),
    /// None at all.
    None,
}

/// Text that is no estimate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{got}` is not an estimate: write exact, none, or factor:K with K from 1 to 1000 (\"factor:5\")")]
pub struct EstimateError {
    got: String,
}

impl FromStr for Estimate {
    type Err = EstimateError;
    fn from_str(text: &str) -> Result<Self, EstimateError> {
        let factor = || text.strip_prefix("factor:")?.parse().ok().filter(|factor| (1.0..=MOST).contains(factor));
        match text {
            "exact" => Ok(Self::Exact),
            "none" => Ok(Self::None),
            _ => factor().map(Self::Factor).ok_or_else(|| EstimateError { got: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Factor(factor) => write!(f, "factor:{factor}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Estimate {
    /// Gives limits to the jobs that have none.
    pub fn apply(self, workload: &mut Workload, seed: u64) {
        let mut random = Random::new(seed, PURPOSE);
        for job in workload.jobs.iter_mut().filter(|job| job.limit.is_none()) {
            job.limit = match self {
                Self::Exact => Some(job.duration),
                Self::Factor(most) => {
                    let factor = 1.0 + random.unit() * (most - 1.0);
                    Some(Span((job.duration.0 as f64 * factor) as u64).max(job.duration))
                }
                Self::None => None,
            };
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Scale, kueue};

    #[test]
    fn text_becomes_an_estimate_or_says_what_is_allowed() {
        assert_eq!("exact".parse(), Ok(Estimate::Exact));
        assert_eq!("none".parse(), Ok(Estimate::None));
        assert_eq!("factor:2.5".parse(), Ok(Estimate::Factor(2.5)));
        for wrong in ["", "factor", "factor:", "factor:0.5", "factor:nan", "factor:inf", "factor:1001", "5"] {
            let error = wrong.parse::<Estimate>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{wrong}` is not an estimate")), "{error}");
        }
    }

    #[test]
    fn a_factor_never_cuts_a_job_short_and_follows_the_seed() {
        let limits = |estimate: Estimate, seed| {
            let mut workload = kueue(Scale::Baseline, 0);
            estimate.apply(&mut workload, seed);
            let within = |job: &crate::Job| job.limit.is_some_and(|limit| limit >= job.duration && limit.0 <= 3 * job.duration.0);
            assert!(workload.jobs.iter().all(within));
            workload.jobs.iter().map(|job| job.limit).collect::<Vec<_>>()
        };
        let three = Estimate::Factor(3.0);
        assert_eq!(limits(three, 1), limits(three, 1));
        assert_ne!(limits(three, 1), limits(three, 2));
        assert_ne!(limits(three, 1), limits(Estimate::Exact, 1));
        assert_eq!(limits(Estimate::Factor(1.0), 1), limits(Estimate::Exact, 1));
    }
}
