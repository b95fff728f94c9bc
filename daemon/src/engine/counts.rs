//! What a turn adds to the metrics, kept until its commit is durable: what is decided again after a failed commit is counted once.

use std::collections::BTreeMap;

use scheduler_core::time::Span;
use store::Batch;

use crate::metrics::{Decision, Metrics, RunEnd};

/// What is counted of one turn.
#[derive(Default)]
pub(super) struct Counts {
    starts: u64,
    exits: BTreeMap<&'static str, u64>,
    latencies: Vec<Span>,
    decisions: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// A run was started; `latency` is from the acceptance of its job, where it is the first.
    pub(super) fn started(&mut self, latency: Option<Span>) {
        self.starts += 1;
        self.latencies.extend(latency);
    }

    /// Runs ended so.
    pub(super) fn ended(&mut self, result: &'static str, runs: u64) {
        *self.exits.entry(result).or_default() += runs;
    }

    /// What is decided by this batch.
    pub(super) fn decided(&mut self, batch: &Batch) {
        *self.decisions.entry("submitted").or_default() += batch.submits.len() as u64;
        for change in &batch.changes {
            *self.decisions.entry(change.event.word()).or_default() += 1;
        }
    }

    /// It is durable.
    pub(super) fn add_to(self, metrics: &Metrics) {
        metrics.starts.inc_by(self.starts);
        for (result, runs) in self.exits {
            metrics.exits.get_or_create(&RunEnd { result }).inc_by(runs);
        }
        for latency in self.latencies {
            metrics.start_latency_seconds.observe(latency.to_std().as_secs_f64());
        }
        for (event, count) in self.decisions.into_iter().filter(|(_, count)| *count > 0) {
            metrics.decisions.get_or_create(&Decision { event }).inc_by(count);
        }
    }
}
