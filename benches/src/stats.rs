//! Latencies and what is said of them. All of them are kept (4 bytes each), so quantiles are exact.

use std::time::Duration;

use serde_json::{Value, json};

/// Durations in microseconds, in no order.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    /// Adds one.
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds all of another thread's.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Milliseconds: p50, p90, p99, max.
    pub(crate) fn summary(mut self) -> Value {
        self.0.sort_unstable();
        let at = |quantile: f64| -> f64 {
            let rank = (quantile * self.0.len() as f64).ceil() as usize;
            self.0.get(rank.saturating_sub(1)).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
        };
        json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)})
    }
}

/// Events a second, to one digit behind the point.
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Latencies, per_second};

    #[test]
    fn quantiles_are_exact() {
        let mut latencies = Latencies::default();
        for millis in (1..=100).rev() {
            latencies.add(Duration::from_millis(millis));
        }
        assert_eq!(latencies.summary(), json!({"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}));
        assert_eq!(Latencies::default().summary(), json!({"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}));
    }

    #[test]
    fn rates_are_rounded() {
        assert!((per_second(1_000, 3.0) - 333.3).abs() < f64::EPSILON);
        assert!(per_second(1, 0.0).abs() < f64::EPSILON);
    }
}
