//! While the table takes no writes: callers hear so, attempts have pauses, and what was decided and not written is undone.
//!
//! What must hold: after a failed commit nothing is decided before the core has been rebuilt from the table, however long that cannot be read.

use std::time::Duration;

use executors::Report;
use store::StoreError;

use super::rebuild::{RebuildError, rebuild};
use super::turn::Waiters;
use super::{Command, Engine, EngineError, gpus, lock};
use crate::backend::BackendError;
use crate::clock;
use crate::objects::LoadError;

/// Pause after a failed commit: doubled each time, up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// After a failed commit.
pub(super) struct Degraded {
    pub(super) until: tokio::time::Instant,
    pause: Duration,
    why: String,
    /// The core is ahead of the table, which could not be read: nothing is decided before it has been rebuilt.
    pub(super) ahead: bool,
}

impl Engine {
    /// While the store cannot be written: callers hear so at once, and reports are dropped, because reconciling brings them back.
    pub(super) fn refuse(&mut self, commands: &mut Vec<Command>, reports: &mut Vec<Report>) {
        let why = self.degraded.as_ref().map(|degraded| degraded.why.clone()).unwrap_or_default();
        for command in commands.drain(..) {
            match command {
                Command::Submit { reply, .. } => drop(reply.send(Err(BackendError::Unavailable(why.clone())))),
                Command::Act { reply, .. } | Command::Update { reply, .. } => {
                    drop(reply.send(Err(BackendError::Unavailable(why.clone()))));
                }
                Command::Change { reply, .. } => drop(reply.send(Err(BackendError::Unavailable(why.clone())))),
                // Reconciling brings the end back; the next look, what a run does.
                Command::Checked(_) | Command::Samples(_) | Command::Idle { .. } | Command::Notices(_) => {}
                Command::Gpus(observed) => self.observe(*observed),
            }
        }
        reports.clear();
    }

    /// Whether the store can be written again, asked while there is nothing to write: readiness must not wait for somebody's submit.
    /// Nothing was decided, so nothing has to be rebuilt.
    pub(super) async fn probe(&mut self, empty: store::Batch) -> Result<(), EngineError> {
        match self.parts.store.commit(empty).await {
            Ok(_) => self.recovered(),
            Err(error @ (StoreError::Fenced { .. } | StoreError::Closed { .. })) => {
                self.failed(Waiters::default(), error).await?;
            }
            Err(error) => {
                tracing::debug!(%error, "the store still takes no writes");
                self.degrade(error.to_string());
            }
        }
        Ok(())
    }

    /// No other try before a pause.
    fn degrade(&mut self, why: String) {
        let pause = self.degraded.as_ref().map_or(BACKOFF.0, |degraded| (degraded.pause * 2).min(BACKOFF.1));
        let ahead = self.degraded.as_ref().is_some_and(|degraded| degraded.ahead);
        self.degraded = Some(Degraded { until: tokio::time::Instant::now() + pause, pause, why: why.clone(), ahead });
        self.degraded_flag.send_replace(Some(why));
    }

    pub(super) async fn failed(&mut self, mut waiters: Waiters, error: StoreError) -> Result<(), EngineError> {
        let why = error.to_string();
        tracing::error!(error = %why, "commit failed; rebuilding from the store");
        waiters.refuse_jobs(&why);
        self.parts.metrics.commit_failures.inc();
        match error {
            StoreError::Fenced { .. } => return Err(EngineError::Fenced(error)),
            StoreError::Closed { .. } => return Err(EngineError::StoreEnded(error)),
            _ => {}
        }
        self.keys.clear();
        self.teller.failed();
        self.degrade(why.clone());
        self.rebuild_core().await?;
        waiters.refuse(&why);
        Ok(())
    }

    /// Makes the core anew from the store; false where that cannot be read for now.
    pub(super) async fn rebuild_core(&mut self) -> Result<bool, EngineError> {
        let now = clock::now();
        let used = lock(&self.parts.core).usage_snapshot(now);
        if let Some(fleet) = &mut self.fleet {
            self.parts.seeds.base.nodes = fleet.configs();
            fleet.forget_all();
        }
        let rebuilt = rebuild(&self.parts.seeds, self.parts.tapper.as_ref(), self.parts.store.as_ref(), Some(used), now).await;
        let (mut fresh, directory) = match rebuilt {
            Ok(rebuilt) => rebuilt,
            Err(
                RebuildError::Objects(LoadError::Read(error @ StoreError::Fenced { .. }))
                | RebuildError::Read(error @ StoreError::Fenced { .. }),
            ) => {
                return Err(EngineError::Fenced(error));
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "the store cannot be read; nothing is decided until it can");
                if let Some(degraded) = &mut self.degraded {
                    degraded.ahead = true;
                }
                let why = self.degraded.as_ref().map_or_else(|| error.to_string(), |degraded| degraded.why.clone());
                self.degrade(why);
                return Ok(false);
            }
            Err(error) => return Err(EngineError::Rebuild(error)),
        };
        gpus::set_aside(&mut fresh, &directory, &self.parts.observed);
        *lock(&self.parts.core) = fresh;
        self.parts.directory.set(directory.clone());
        self.directory = directory;
        self.usage.touch();
        if let Some(degraded) = &mut self.degraded {
            degraded.ahead = false;
        }
        Ok(true)
    }

    pub(super) fn recovered(&mut self) {
        if self.degraded.take().is_some() {
            tracing::info!("the store takes writes again");
            self.degraded_flag.send_replace(None);
            // Reports were dropped meanwhile.
            self.parts.nudge.notify_one();
        }
    }
}
