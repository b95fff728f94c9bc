//! Latencies and what is said of them: an HDR histogram, exact to three digits from a microsecond to hours, in constant memory.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Durations, counted by microseconds.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Result<Self> {
        // From a microsecond to an hour; what is longer counts as an hour.
        Histogram::new_with_bounds(1, 3_600_000_000, 3).map(Self).context("making a histogram")
    }

    /// Adds one.
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Adds all of another thread's.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).context("adding two histograms up")
    }

    /// Milliseconds: p50, p90, p99, `p99_9`, max.
    pub(crate) fn summary(&self) -> Value {
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        let max = if self.0.is_empty() { 0.0 } else { self.0.max() as f64 / 1_000.0 };
        json!({"count": self.0.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99_9": at(0.999), "max": max})
    }
}

/// Events a second, to one digit behind the point.
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use super::{Latencies, per_second};

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::new().unwrap();
        let mut other = Latencies::new().unwrap();
        for millis in (1..=1_000).rev() {
            if millis % 2 == 0 { &mut latencies } else { &mut other }.add(Duration::from_millis(millis));
        }
        latencies.merge(&other).unwrap();
        let summary = latencies.summary();
        for (key, expected) in [("p50", 500.0), ("p90", 900.0), ("p99", 990.0), ("p99_9", 999.0), ("max", 1_000.0)] {
            let found = summary[key].as_f64().unwrap();
            assert!((found - expected).abs() <= expected / 1_000.0, "{key}: {found}");
        }
        assert_eq!(summary["count"], 1_000);
        assert_eq!(Latencies::new().unwrap().summary()["max"], 0.0);
    }

    #[test]
    fn rates_are_rounded() {
        assert!((per_second(1_000, 3.0) - 333.3).abs() < f64::EPSILON);
        assert!(per_second(1, 0.0).abs() < f64::EPSILON);
    }
}
