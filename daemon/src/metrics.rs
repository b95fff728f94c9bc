//! What the daemon counts and times, as plain handles that any part can use without asking for a registry.
//!
//! Invariants: every series is registered here, once; label values come from closed sets (routes, states, results, configured queues),
//! so that no caller can make the number of series grow.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A queue and a state in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct QueueState {
    /// Name of the queue.
    pub queue: String,
    /// `waiting`, `queued`, `active`.
    pub state: &'static str,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RunEnd {
    /// `succeeded`, `failed`, `lost`.
    pub result: &'static str,
}

/// What the core decided.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct Decision {
    /// Word of the event: `submitted`, `placed`, `cancelled`, ...
    pub event: &'static str,
}

/// A route.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct Route {
    /// Its pattern, as in the OpenAPI document; `other` for what is none.
    pub route: &'static str,
}

/// A route and what it answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RouteStatus {
    /// Its pattern, as in the OpenAPI document; `other` for what is none.
    pub route: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// Where connections come in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct Listener {
    /// `unix` or `tcp`.
    pub listener: &'static str,
}

/// All series, with handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Jobs in each queue, by what they do.
    pub queue_jobs: Family<QueueState, Gauge>,
    /// Transitions that the core made.
    pub decisions: Family<Decision, Counter>,
    /// Time of one planning pass.
    pub plan_seconds: Histogram,
    /// Time from handing a batch to the store until it is durable.
    pub commit_seconds: Histogram,
    /// Submits and transitions in one commit.
    pub commit_batch: Histogram,
    /// Commits that failed.
    pub commit_failures: Counter,
    /// Runs that were started.
    pub starts: Counter,
    /// Runs that ended.
    pub exits: Family<RunEnd, Counter>,
    /// Rounds of the reconciler that failed.
    pub reconcile_failures: Counter,
    /// Runs found without a place in the job table, and ended.
    pub strays: Counter,
    /// Time from acceptance of a job to the start of its first task.
    pub start_latency_seconds: Histogram,
    /// Latest revision of the job table.
    pub revision: Gauge<u64, AtomicU64>,
    /// Requests answered.
    pub http_requests: Family<RouteStatus, Counter>,
    /// Time until the head of the answer was there.
    pub http_seconds: Family<Route, Histogram>,
    /// Open connections.
    pub connections: Family<Listener, Gauge>,
    /// Open event streams.
    pub watchers: Gauge,
    /// Log streams that are being followed.
    pub log_followers: Gauge,
}

/// 50 µs to 13 s, doubling.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 19))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All series, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("flashd"),
            queue_jobs: Family::default(),
            decisions: Family::default(),
            plan_seconds: latency(),
            commit_seconds: latency(),
            commit_batch: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            commit_failures: Counter::default(),
            starts: Counter::default(),
            exits: Family::default(),
            reconcile_failures: Counter::default(),
            strays: Counter::default(),
            start_latency_seconds: latency(),
            revision: Gauge::default(),
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(latency),
            connections: Family::default(),
            watchers: Gauge::default(),
            log_followers: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let registry = &mut self.registry;
        registry.register("build", "The running binary", build);
        registry.register("queue_jobs", "Unfinished jobs by queue and what they do", self.queue_jobs.clone());
        registry.register("decisions", "Transitions made by the core", self.decisions.clone());
        registry.register_with_unit("plan", "Time of a planning pass", Unit::Seconds, self.plan_seconds.clone());
        registry.register_with_unit("commit", "Time until a batch is durable", Unit::Seconds, self.commit_seconds.clone());
        registry.register("commit_batch_size", "Submits and transitions in one commit", self.commit_batch.clone());
        registry.register("commit_failures", "Commits that failed", self.commit_failures.clone());
        registry.register("starts", "Runs started", self.starts.clone());
        registry.register("exits", "Runs ended, by result", self.exits.clone());
        let failures = self.reconcile_failures.clone();
        registry.register("reconcile_failures", "Rounds of the reconciler that failed", failures);
        registry.register("strays", "Runs that were not in the job table, and were ended", self.strays.clone());
        let latency = self.start_latency_seconds.clone();
        registry.register_with_unit("start_latency", "Time from acceptance to first start", Unit::Seconds, latency);
        registry.register("revision", "Latest revision of the job table", self.revision.clone());
        registry.register("http_requests", "Requests answered, by route and status", self.http_requests.clone());
        registry.register_with_unit("http_request", "Time until the answer began", Unit::Seconds, self.http_seconds.clone());
        registry.register("http_connections", "Open connections", self.connections.clone());
        registry.register("watchers", "Open event streams", self.watchers.clone());
        registry.register("log_followers", "Logs that are being followed", self.log_followers.clone());
    }

    /// The text exposition format (OpenMetrics 1.0).
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::with_capacity(16 << 10);
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Counts one thing up for as long as it lives.
#[derive(Debug)]
pub struct InUse(Gauge);

impl InUse {
    /// Counts up.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.starts.inc();
        metrics.commit_seconds.observe(0.001);
        metrics.exits.get_or_create(&RunEnd { result: "succeeded" }).inc();
        let held = InUse::new(&metrics.watchers);
        let text = metrics.encode().unwrap_or_default();
        for line in [
            "flashd_starts_total 1",
            "flashd_commit_seconds_count 1",
            "flashd_exits_total{result=\"succeeded\"} 1",
            "flashd_watchers 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(held);
        assert!(metrics.encode().unwrap_or_default().contains("flashd_watchers 0"));
    }
}
