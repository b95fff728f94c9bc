//! Compares what executors observe with the job table, and feeds the difference back as events.
//!
//! Takes no input: a timer and a nudge. Each round reads the active runs, then the world, then the active runs again, because both move
//! while it looks. What must hold:
//! - A run counts as lost only if it was running or stopping before the world was read and still is afterwards: then the executor knew it
//!   once, and nobody but us could have made it forget.
//! - A run that is starting and is not there gets its order again: the order never left, or died with a runner before it was written
//!   down. Starts are idempotent by run. If it was ordered in an earlier boot of the machine it is lost instead ([`boot`](crate::boot)).
//! - A run that was to be taken back, and still waits in its line, is asked for again: the word may have met a broken connection.
//! - A run that the table has as active neither before nor after is a stray, and is ended, once the store confirms that; the core alone is not
//!   asked, because it may be ahead of what is durable. One that was active before has ended meanwhile, and what was seen of it is older: the
//!   next round says whether it is still there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use executors::{Executor, ExecutorError, Observed, Report, RunPhase};
use scheduler_core::event::{Effect, RunResult};
use scheduler_core::ids::RunId;
use scheduler_core::job::StopPolicy;
use scheduler_core::state::StateKind;
use scheduler_core::time::Timestamp;
use store::{Store, StoreError};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::{SharedCore, lock, run_of};
use crate::metrics::Metrics;

/// Pause between rounds when nobody nudges.
const PERIOD: Duration = Duration::from_secs(30);
/// Pause after a failed round: doubled each time, up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// The reconciler of one executor.
pub struct Reconciler {
    /// Whose runs.
    pub executor: Arc<dyn Executor>,
    /// The present.
    pub core: SharedCore,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The dispatcher's queue.
    pub orders: mpsc::Sender<Vec<Effect>>,
    /// The engine's queue.
    pub reports: mpsc::Sender<Report>,
    /// Wakes it.
    pub nudge: Arc<Notify>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Tells the engine whether the executor holds orders.
    pub holding: Arc<AtomicBool>,
    /// Runs that were being started in an earlier boot of the machine.
    pub doubtful: BTreeSet<RunId>,
    /// Is told why the last round failed, if it did.
    pub trouble: watch::Sender<Option<String>>,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The world could not be read.
    #[error("observing the {executor} executor")]
    Observe {
        /// Which one.
        executor: &'static str,
        /// Why.
        #[source]
        source: ExecutorError,
    },
    /// The table could not be read.
    #[error("confirming strays")]
    Confirm(#[source] StoreError),
    /// The engine is gone.
    #[error("the engine has ended")]
    Ended,
}

/// What the core says of a run that holds resources.
#[derive(Clone, Copy, Debug)]
struct Known {
    state: StateKind,
    stop: StopPolicy,
    /// It is to be taken back if it has not begun.
    withdrawn: bool,
}

type Active = BTreeMap<RunId, Known>;

/// What a round found. Pure: made by [`compare`] from the three readings.
#[derive(Debug, Default, PartialEq)]
struct Difference {
    orders: Vec<Effect>,
    reports: Vec<Report>,
    strays: Vec<RunId>,
}

/// `before` and `after` are the active runs around the reading of `world`; `doubtful` may have begun in an earlier boot.
fn compare(before: &Active, world: &[Observed], after: &Active, doubtful: &BTreeSet<RunId>, now: Timestamp) -> Difference {
    let mut found = Difference::default();
    let seen: BTreeMap<RunId, &RunPhase> = world.iter().map(|observed| (observed.run, &observed.phase)).collect();
    for (run, Known { state, stop, withdrawn }) in after {
        match (state, seen.get(run)) {
            (StateKind::Starting, Some(RunPhase::Held)) if *withdrawn => found.orders.push(Effect::Withdraw { run: *run }),
            (StateKind::Starting, Some(RunPhase::Running { since })) => {
                found.reports.push(Report::Started { run: *run, at: *since });
            }
            (StateKind::Stopping, Some(RunPhase::Held | RunPhase::Starting | RunPhase::Running { .. })) => {
                found.orders.push(Effect::Stop { run: *run, policy: *stop });
            }
            (StateKind::Starting, None) if doubtful.contains(run) => {
                let message = "the machine was restarted while this run was being started".into();
                let result = RunResult::Lost { message };
                found.reports.push(Report::Ended { run: *run, result, started_at: None, at: now });
            }
            (StateKind::Starting, None) => {
                if before.get(run).is_some_and(|known| known.state == StateKind::Starting) {
                    found.orders.push(Effect::Start { run: *run });
                }
            }
            (StateKind::Running | StateKind::Stopping, None) => {
                if before.get(run).is_some_and(|known| known.state != StateKind::Starting) {
                    let message = "the executor no longer knows this run".into();
                    let result = RunResult::Lost { message };
                    found.reports.push(Report::Ended { run: *run, result, started_at: None, at: now });
                }
            }
            // Ends are fed back below, together with those that the core does not have.
            (_, Some(_)) | (StateKind::Waiting | StateKind::Queued | StateKind::Finished, None) => {}
        }
    }
    for observed in world {
        match &observed.phase {
            RunPhase::Ended { result, started_at, at } => {
                found.reports.push(Report::Ended { run: observed.run, result: result.clone(), started_at: *started_at, at: *at });
            }
            RunPhase::NotBegun { message, at } => {
                found.reports.push(Report::NotBegun { run: observed.run, message: message.clone(), at: *at });
            }
            RunPhase::Held | RunPhase::Starting | RunPhase::Running { .. }
                if !before.contains_key(&observed.run) && !after.contains_key(&observed.run) =>
            {
                found.strays.push(observed.run);
            }
            RunPhase::Held | RunPhase::Starting | RunPhase::Running { .. } | RunPhase::Stopping => {}
        }
    }
    found
}

impl Reconciler {
    /// Takes the executor over, says so, and then reconciles until `stop`.
    pub async fn run(self, adopted: watch::Sender<bool>, stop: CancellationToken) {
        let mut pause = BACKOFF.0;
        let mut taken_over = false;
        loop {
            let round = async {
                if !taken_over {
                    let runs = self.adopt().await?;
                    tracing::info!(executor = self.executor.kind(), runs, "executor taken over");
                }
                self.run_once().await
            };
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = round => outcome,
            };
            let wait = match outcome {
                Ok(()) => {
                    if !taken_over {
                        taken_over = true;
                        adopted.send_replace(true);
                    }
                    self.trouble.send_replace(None);
                    pause = BACKOFF.0;
                    PERIOD
                }
                Err(ReconcileError::Ended) => return,
                Err(error) => {
                    self.failed(chain(&error));
                    self.metrics.reconcile_failures.inc();
                    pause = (pause * 2).min(BACKOFF.1);
                    pause
                }
            };
            // A nudge does not cut a failure's pause short: it would make a busy loop of an executor that is away.
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.nudge.notified(), if wait == PERIOD => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// It is tried again and again: the same is said once.
    fn failed(&self, why: String) {
        if self.trouble.borrow().as_ref() == Some(&why) {
            tracing::debug!(why, "reconciling failed again");
        } else {
            tracing::warn!(why, "reconciling failed; trying again");
            self.trouble.send_replace(Some(why));
        }
    }

    async fn adopt(&self) -> Result<usize, ReconcileError> {
        let executor = self.executor.kind();
        let runs = self.executor.adopt().await.map_err(|source| ReconcileError::Observe { executor, source })?;
        Ok(runs.len())
    }

    fn active(&self) -> Active {
        let core = lock(&self.core);
        let policy = |job| core.view(job).map(|view| view.policy.stop).unwrap_or_default();
        let known = |job, state| Known { state, stop: policy(job), withdrawn: false };
        let active = core.active().map(|(job, lifecycle)| (run_of(job, lifecycle), known(job, lifecycle.state.kind())));
        let mut active: Active = active.collect();
        for run in core.withdrawing() {
            active.entry(run).and_modify(|known| known.withdrawn = true);
        }
        active
    }

    /// One round.
    async fn run_once(&self) -> Result<(), ReconcileError> {
        let executor = self.executor.kind();
        let before = self.active();
        let world = self.executor.observe().await.map_err(|source| ReconcileError::Observe { executor, source })?;
        self.holding.store(self.executor.holds_orders(), Ordering::Relaxed);
        let after = self.active();
        let mut found = compare(&before, &world, &after, &self.doubtful, clock::now());
        for run in std::mem::take(&mut found.strays) {
            if self.is_stray(run).await? {
                tracing::warn!(%run, "runs without a place in the job table; ending it");
                self.metrics.strays.inc();
                found.orders.push(Effect::Stop { run, policy: StopPolicy::default() });
            }
        }
        for report in found.reports {
            self.reports.send(report).await.map_err(|_| ReconcileError::Ended)?;
        }
        // No room means that the dispatcher has work enough; the next round finds what is then still missing.
        if !found.orders.is_empty() && self.orders.try_send(found.orders).is_err() {
            self.nudge.notify_one();
        }
        Ok(())
    }

    /// The durable table decides: not there, finished, or at another attempt.
    async fn is_stray(&self, run: RunId) -> Result<bool, ReconcileError> {
        let record = self.store.job(run.job).await.map_err(ReconcileError::Confirm)?;
        Ok(record.is_none_or(|record| record.lifecycle.state.placement().is_none() || record.lifecycle.attempt != run.attempt))
    }
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use scheduler_core::ids::{Attempt, JobId};

    use super::*;

    const NOW: Timestamp = Timestamp(9);

    fn run(job: u128) -> RunId {
        RunId { job: JobId(uuid::Uuid::from_u128(job)), attempt: Attempt(1) }
    }

    fn active(runs: &[(u128, StateKind)]) -> Active {
        let known = |state| Known { state, stop: StopPolicy::default(), withdrawn: false };
        runs.iter().map(|(job, state)| (run(*job), known(*state))).collect()
    }

    fn world(runs: &[(u128, RunPhase)]) -> Vec<Observed> {
        runs.iter().map(|(job, phase)| Observed { run: run(*job), phase: phase.clone() }).collect()
    }

    fn lost(found: &Difference) -> Vec<RunId> {
        found
            .reports
            .iter()
            .filter_map(|report| match report {
                Report::Ended { run, result: RunResult::Lost { .. }, .. } => Some(*run),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn what_agrees_is_left_alone() {
        let table = active(&[(1, StateKind::Starting), (2, StateKind::Running), (3, StateKind::Stopping)]);
        let world = world(&[(1, RunPhase::Starting), (2, RunPhase::Running { since: NOW }), (3, RunPhase::Stopping)]);
        assert_eq!(compare(&table, &world, &table, &BTreeSet::new(), NOW), Difference::default());
    }

    #[test]
    fn a_run_is_lost_only_if_it_was_known_before_and_is_missed_after() {
        let table = active(&[(1, StateKind::Running), (2, StateKind::Stopping)]);
        assert_eq!(lost(&compare(&table, &[], &table, &BTreeSet::new(), NOW)), [run(1), run(2)]);
        let starting = active(&[(1, StateKind::Starting), (2, StateKind::Starting)]);
        let found = compare(&starting, &[], &table, &BTreeSet::new(), NOW);
        assert_eq!(found, Difference::default(), "it may have come while the world was read");
        let found = compare(&table, &[], &active(&[]), &BTreeSet::new(), NOW);
        assert_eq!(found, Difference::default(), "it may have ended meanwhile");
    }

    #[test]
    fn a_start_that_never_arrived_is_given_again() {
        let starting = active(&[(1, StateKind::Starting)]);
        assert_eq!(compare(&starting, &[], &starting, &BTreeSet::new(), NOW).orders, [Effect::Start { run: run(1) }]);
        assert_eq!(
            compare(&active(&[]), &[], &starting, &BTreeSet::new(), NOW),
            Difference::default(),
            "its order is still under way"
        );
    }

    #[test]
    fn whoever_was_to_be_taken_back_and_still_waits_is_asked_for_again() {
        let mut table = active(&[(1, StateKind::Starting), (2, StateKind::Starting), (3, StateKind::Starting)]);
        for run in [run(2), run(3)] {
            table.get_mut(&run).unwrap().withdrawn = true;
        }
        let world = world(&[(1, RunPhase::Held), (2, RunPhase::Held), (3, RunPhase::Starting)]);
        let found = compare(&table, &world, &table, &BTreeSet::new(), NOW);
        assert_eq!(found.orders, [Effect::Withdraw { run: run(2) }], "the first waits for its turn, and the third has begun");
        assert_eq!(found.reports, []);
    }

    #[test]
    fn a_start_of_an_earlier_boot_that_nobody_knows_of_is_lost() {
        let starting = active(&[(1, StateKind::Starting), (2, StateKind::Starting), (3, StateKind::Starting)]);
        let world = world(&[(2, RunPhase::Held)]);
        let found = compare(&starting, &world, &starting, &BTreeSet::from([run(1), run(2)]), NOW);
        assert_eq!(lost(&found), [run(1)]);
        assert_eq!(found.orders, [Effect::Start { run: run(3) }], "it is of this boot");
    }

    #[test]
    fn news_that_were_missed_are_fed_back() {
        let table = active(&[(1, StateKind::Starting), (2, StateKind::Stopping), (3, StateKind::Running)]);
        let ended = RunPhase::Ended { result: RunResult::Succeeded, started_at: Some(Timestamp(3)), at: Timestamp(4) };
        let world =
            world(&[(1, RunPhase::Running { since: Timestamp(5) }), (2, RunPhase::Running { since: Timestamp(5) }), (3, ended)]);
        let found = compare(&table, &world, &table, &BTreeSet::new(), NOW);
        assert_eq!(found.orders, [Effect::Stop { run: run(2), policy: StopPolicy::default() }]);
        assert_eq!(
            found.reports,
            [
                Report::Started { run: run(1), at: Timestamp(5) },
                Report::Ended { run: run(3), result: RunResult::Succeeded, started_at: Some(Timestamp(3)), at: Timestamp(4) },
            ]
        );
    }

    #[test]
    fn strays_are_found_and_old_ends_are_reported_so_that_they_can_be_forgotten() {
        let ended = RunPhase::Ended { result: RunResult::Succeeded, started_at: None, at: NOW };
        let world = world(&[(1, RunPhase::Running { since: NOW }), (2, RunPhase::Stopping), (3, ended)]);
        let found = compare(&active(&[]), &world, &active(&[]), &BTreeSet::new(), NOW);
        assert_eq!(found.strays, [run(1)]);
        assert_eq!(found.reports.len(), 1);
        assert_eq!(found.orders, []);
    }

    #[test]
    fn whoever_ends_while_the_world_is_read_is_no_stray() {
        let world = world(&[(1, RunPhase::Running { since: NOW }), (2, RunPhase::Starting)]);
        let (before, after) = (active(&[(1, StateKind::Running)]), active(&[(2, StateKind::Starting)]));
        let found = compare(&before, &world, &after, &BTreeSet::new(), NOW);
        assert_eq!(found, Difference::default());
        assert_eq!(compare(&after, &world, &after, &BTreeSet::new(), NOW).strays, [run(1)], "it is still there");
    }
}
