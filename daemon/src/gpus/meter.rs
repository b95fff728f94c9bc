//! Measures what runs do with their GPUs at each look, and sees to those that do nothing with them.
//!
//! What must hold: one look is measured once; what was measured is handed to the engine, for its next transaction, at least once a second and
//! before the end of a run that waited for the look; so a daemon that dies loses no more than the last look, or the last second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::JobSpec;
use executors::gpu::View;
use scheduler_core::ids::{JobId, RunId};
use scheduler_core::time::{Span, Timestamp};
use store::usage::{Day, Sampled};
use store::{RunSample, Store};
use tokio::time::Instant;

use super::SharedBoard;
use super::idle::{Idle, Verdict};
use super::sample::Sampler;
use crate::clock;
use crate::config::Gpu;
use crate::engine::{GpuCommands, SharedCore, runs};

/// Pause between two deliveries, where looks are closer together.
const DELIVERY: Duration = Duration::from_secs(1);
/// Looks that may be late before what a run did is not known.
const LATE: u64 = 3;
/// The least of that.
const LATE_LEAST: Span = Span::from_secs(2);
/// By this label or annotation a job says that it may leave its GPUs idle.
pub const MAY_IDLE: (&str, &str) = ("scheduling.flash-sched.io/gpu-idle", "allowed");

/// What a meter is made from.
pub struct MeterParts {
    /// Who has what.
    pub core: SharedCore,
    /// What is shown.
    pub board: SharedBoard,
    /// What owners have said of their jobs.
    pub store: Arc<dyn Store>,
}

/// See the module.
pub struct Meter {
    parts: MeterParts,
    sampler: Sampler,
    idle: Idle,
    /// The look that was measured last.
    round: u64,
    pending: BTreeMap<(RunId, Day), RunSample>,
    delivered: Instant,
    notes: BTreeMap<JobId, String>,
}

impl Meter {
    /// One that has seen nothing yet.
    pub fn new(parts: MeterParts, rules: &Gpu) -> Self {
        let longest = Span(rules.interval.0.saturating_mul(LATE)).max(LATE_LEAST);
        Self {
            parts,
            sampler: Sampler::new(longest),
            idle: Idle::new(&rules.idle, longest),
            round: 0,
            pending: BTreeMap::new(),
            delivered: Instant::now(),
            notes: BTreeMap::new(),
        }
    }

    /// What is to be said of jobs that leave their GPUs idle.
    pub fn notes(&self) -> BTreeMap<JobId, String> {
        self.notes.clone()
    }

    /// Measures a look that is on the board, once. `ends` are the runs that have ended and wait for their GPUs, and when. False when the
    /// engine is gone.
    pub async fn look(&mut self, view: &View, ends: &BTreeMap<RunId, Timestamp>, engine: &GpuCommands) -> bool {
        if view.round == self.round {
            return true;
        }
        self.round = view.round;
        let now = clock::now();
        let board = self.parts.board.get();
        let mut runs = runs(&self.parts.core);
        for run in &mut runs {
            run.until = ends.get(&run.run).copied();
        }
        let mut due = Vec::new();
        for looked in self.sampler.look(&board, &runs, now) {
            self.add(looked.sample);
            if let Some(verdict) = self.idle.look(looked.run, looked.busiest, now) {
                due.push((looked.run.run, verdict));
            }
        }
        self.idle.retain(&runs);
        for (run, verdict) in due {
            if self.may_idle(run.job).await {
                self.idle.excuse(run);
                continue;
            }
            let (stop, message) = match verdict {
                Verdict::Warn => (false, self.idle.says(run, now)),
                Verdict::Stop => (true, self.idle.cause()),
            };
            if !engine.idle(run, stop, message.into()).await {
                return false;
            }
        }
        self.note(now);
        let is_time = !ends.is_empty() || self.delivered.elapsed() >= DELIVERY;
        !is_time || self.deliver(engine).await
    }

    fn add(&mut self, sample: RunSample) {
        if sample.sampled == Sampled::default() {
            return;
        }
        let run = RunId { job: sample.job, attempt: sample.attempt };
        // What is of another day is of another row.
        let entry = self.pending.entry((run, Day::of(sample.at)));
        entry.and_modify(|known| known.sampled.add(&sample.sampled)).or_insert(sample);
    }

    async fn deliver(&mut self, engine: &GpuCommands) -> bool {
        self.delivered = Instant::now();
        if self.pending.is_empty() {
            return true;
        }
        engine.sampled(std::mem::take(&mut self.pending).into_values().collect()).await
    }

    /// Puts on the board what there is to say.
    fn note(&mut self, now: Timestamp) {
        let notes = self.idle.warned().map(|run| (run.job, self.idle.says(run, now))).collect();
        if notes != self.notes {
            self.notes = notes;
            let board = super::Board { idle: self.notes.clone(), ..super::Board::clone(&self.parts.board.get()) };
            self.parts.board.set(board);
        }
    }

    /// Whether the owner of a job has said that it may leave its GPUs idle. Asked when something is due, which is seldom.
    async fn may_idle(&self, job: JobId) -> bool {
        let Ok(Some(record)) = self.parts.store.job(job).await else { return false };
        let Ok(spec) = serde_json::from_slice::<JobSpec>(&record.spec) else { return false };
        let (key, value) = MAY_IDLE;
        [&spec.labels, &spec.annotations].into_iter().any(|said| said.get(key).is_some_and(|said| said == value))
    }
}
