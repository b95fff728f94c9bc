//! The one road on which anything changes: commands and reports come in, decisions are made, one transaction makes them durable,
//! and only then does anybody hear of them.
//!
//! What must hold:
//! - Nobody but the engine changes the core. Readers may look at it under its lock; the lock is never held across an await.
//! - Acknowledgements, published events and orders to executors leave after the commit of their transitions, never before.
//! - If a commit fails, callers get an error, no effect leaves, and the core is rebuilt from the store before it decides again, however long the
//!   store cannot be read.
//! - Revisions are published in order and without a gap.

mod change;
mod counts;
mod degraded;
mod fleet;
mod gpus;
mod handle;
mod health;
mod idempotency;
mod nodes;
mod notices;
mod rebuild;
mod snapshot;
mod turn;
mod usage;
mod vain;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use executors::Report;
use scheduler_core::event::Effect;
use scheduler_core::ids::{JobId, Name, RunId};
use scheduler_core::record::Recorded;
use store::{Notice, RunSample, Store, StoreError};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::backend::{Action, BackendError, SubmitRequest, Update};
use crate::boot::Boot;
use crate::clock;
use crate::cluster::ClusterState;
use crate::decision_log::Tapper;
use crate::flashjobs::Compared;
use crate::metrics::Metrics;
use crate::objects::edit::{Change, Changed};
use crate::objects::{Directory, Seeds, SharedDirectory};
use crate::watch::Feed;

pub use gpus::{Aside, Cause, GatedEnd, GpuCommands, GpuRun, Observed, holders, runs};
pub use handle::EngineHandle;
pub use handle::HandleParts;
pub use notices::Told;
pub use rebuild::{RebuildError, rebuild};
pub(crate) use turn::run_of;
use turn::{Turn, Waiters};

/// Commands and reports that wait for the engine, each; senders beyond that wait themselves.
const QUEUE: usize = 4_096;
/// Commands or reports that one turn takes from each queue.
const GATHER: usize = 1_024;
/// New jobs after which a turn takes no more commands.
const GATHER_JOBS: usize = 8_192;
/// Timers that one turn decides at most; the rest follows in the next.
const DECISIONS: usize = 512;
/// Starts that one turn decides at most. So few, because none of them begins before the last of them is durable.
const STARTS: usize = 128;
/// How long the news that a run has started waits for company.
const STARTED_GATHER: Duration = Duration::from_millis(4);

/// The core, shared with readers.
pub type SharedCore = Arc<Mutex<Recorded>>;

/// Locks the core. A poisoned lock means that the engine panicked, and then the process is ending.
pub fn lock(core: &SharedCore) -> MutexGuard<'_, Recorded> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the engine is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// New jobs, all or none.
    Submit { request: SubmitRequest, reply: oneshot::Sender<Result<Vec<JobId>, BackendError>> },
    /// A user's wish about one job.
    Act { job: JobId, action: Action, by: Name, reply: oneshot::Sender<Result<(), BackendError>> },
    /// A user's wish that a job that waits be otherwise.
    Update { job: JobId, update: Update, reply: oneshot::Sender<Result<(), BackendError>> },
    /// An administrator's wish about a queue, a cohort, a priority class or a node.
    Change { change: Change, reply: oneshot::Sender<Result<Changed, BackendError>> },
    /// What was found out about the GPUs.
    Gpus(Box<Observed>),
    /// The end of a run whose GPUs have been looked at.
    Checked(Report),
    /// What happened to GPUs, to be told.
    Notices(Vec<Notice>),
    /// What was seen of runs with GPUs.
    Samples(Vec<RunSample>),
    /// A run leaves its GPUs idle: its user is warned, or it is stopped.
    Idle { run: RunId, stop: bool, message: Name },
}

/// Everything that the engine needs from outside.
pub struct Parts {
    /// The rebuilt core.
    pub core: SharedCore,
    /// What the configuration says: with the store, all that a core is made from.
    pub seeds: Seeds,
    /// Where decisions are written down, if anywhere.
    pub tapper: Option<Tapper>,
    /// Which names there are; only the engine changes it.
    pub directory: SharedDirectory,
    /// The job table.
    pub store: Arc<dyn Store>,
    /// Live events.
    pub feed: Feed,
    /// Where orders to executors go.
    pub orders: mpsc::Sender<Vec<Effect>>,
    /// Wakes the reconciler, when an order could not be handed on.
    pub nudge: Arc<Notify>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether the executor holds orders; the reconciler says it.
    pub holding: Arc<AtomicBool>,
    /// What is to be noted of this boot of the machine.
    pub boot: Boot,
    /// What is known of the GPUs at the start.
    pub observed: Observed,
    /// What was told of GPUs and nodes before this start.
    pub told: Option<Told>,
    /// The GPUs as the core knows them.
    pub known_gpus: Vec<scheduler_core::GpuDevice>,
    /// The cluster in which jobs run, if they do in one.
    pub cluster: Option<ClusterState>,
    /// Who looks at the GPUs of a run that has ended before its end is believed; nobody where that cannot be seen.
    pub gate: Option<mpsc::Sender<GatedEnd>>,
    /// Whether it is known of runs whose pods were deleted which of them were cancelled by that, where runs are pods that anybody may delete.
    pub compared: Option<Arc<Compared>>,
    /// After how many failures in a row a node is closed; 0: never.
    pub failures_in_a_row: u32,
}

/// Owner of the core.
pub struct Engine {
    parts: Parts,
    commands: mpsc::Receiver<Command>,
    reports: mpsc::Receiver<Report>,
    keys: idempotency::RecentKeys,
    /// As it is after what has been decided; [`Parts::directory`] follows the commits.
    directory: Directory,
    fleet: Option<fleet::Fleet>,
    usage: usage::UsageClock,
    /// Failures in a row, by node.
    rows: health::Rows,
    /// What a cluster took back again and again.
    in_vain: vain::InVain,
    teller: notices::Teller,
    boot: Boot,
    ids: crate::ids::JobIds,
    /// After a failed commit: no other try before this, and what is wrong.
    degraded: Option<degraded::Degraded>,
    degraded_flag: tokio::sync::watch::Sender<Option<String>>,
}

/// An engine's channels.
pub struct Channels {
    /// For [`EngineHandle`].
    pub(crate) commands: mpsc::Sender<Command>,
    /// For executors.
    pub reports: mpsc::Sender<Report>,
    /// For who looks at the GPUs.
    pub gpus: GpuCommands,
    /// What keeps the engine from writing, if anything.
    pub degraded: tokio::sync::watch::Receiver<Option<String>>,
}

/// Why the engine ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another daemon leads now.
    #[error("leadership is lost")]
    Fenced(#[source] StoreError),
    /// The store is gone for good.
    #[error("the store ended")]
    StoreEnded(#[source] StoreError),
    /// What the store holds cannot be taken into the core.
    #[error("the core could not be rebuilt")]
    Rebuild(#[source] RebuildError),
}

impl Engine {
    /// An engine that continues where the store's head stands.
    pub fn new(mut parts: Parts) -> (Self, Channels) {
        let (command_sender, commands) = mpsc::channel(QUEUE);
        let (report_sender, reports) = mpsc::channel(QUEUE);
        let (degraded_flag, degraded) = tokio::sync::watch::channel(None);
        let head = parts.store.head();
        let directory = Directory::clone(&parts.directory.get());
        let boot = std::mem::take(&mut parts.boot);
        gpus::set_aside(&mut lock(&parts.core), &directory, &parts.observed);
        let fleet = parts.cluster.take().map(fleet::Fleet::new);
        let rows = health::Rows::new(parts.failures_in_a_row);
        let teller = notices::Teller::new(parts.told.take());
        let engine = Self {
            parts,
            fleet,
            boot,
            directory,
            usage: usage::UsageClock::new(),
            rows,
            in_vain: vain::InVain::default(),
            teller,
            commands,
            reports,
            keys: idempotency::RecentKeys::default(),
            ids: crate::ids::JobIds::new(head.last_seq),
            degraded: None,
            degraded_flag,
        };
        let gpus = GpuCommands(command_sender.clone());
        (engine, Channels { commands: command_sender, reports: report_sender, gpus, degraded })
    }

    /// Runs until `stop`, or until it must not go on. What was taken from the queues is settled before it returns.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), EngineError> {
        let mut commands = Vec::with_capacity(GATHER);
        let mut reports = Vec::with_capacity(GATHER);
        let mut again = true;
        loop {
            let wakeup = if again { Duration::ZERO } else { self.until_wakeup() };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                taken = self.reports.recv_many(&mut reports, GATHER) => if taken == 0 { break },
                taken = self.commands.recv_many(&mut commands, GATHER) => if taken == 0 { break },
                () = fleet::Fleet::changed(&mut self.fleet) => {}
                () = tokio::time::sleep(wakeup) => {}
            }
            if commands.is_empty() && reports.iter().all(|report| matches!(report, Report::Started { .. })) {
                self.wait_for_company(&mut commands, &mut reports, &stop).await;
            }
            self.gather(&mut commands, &mut reports);
            again = self.turn(&mut commands, &mut reports).await?;
        }
        // Callers whose commands were acknowledged by the queue but not decided see their reply channel close: not accepted.
        self.keep_usage().await;
        Ok(())
    }

    fn until_wakeup(&self) -> Duration {
        const IDLE: Duration = Duration::from_secs(60);
        if let Some(degraded) = &self.degraded {
            return degraded.until.saturating_duration_since(tokio::time::Instant::now());
        }
        let next = lock(&self.parts.core).next_wakeup();
        let wait = next.map_or(IDLE, |at| at.since(clock::now()).to_std().min(IDLE));
        self.usage.due().map_or(wait, |due| wait.min(due.saturating_duration_since(tokio::time::Instant::now())))
    }

    /// What was used, to the last moment, for the next daemon.
    async fn keep_usage(&mut self) {
        let term = self.parts.store.head().term;
        let object = self.usage.object(&lock(&self.parts.core), clock::now(), true);
        let Some(object) = object else { return };
        let batch = store::Batch { term, objects: vec![object], ..store::Batch::default() };
        if let Err(error) = self.parts.store.commit(batch).await {
            tracing::warn!(%error, "the last minute of what was used is not kept");
        }
    }

    /// News that runs have started free nothing and nobody waits for them: they share the transaction of what comes next, because for
    /// short jobs a transaction of their own would be half of all transactions.
    async fn wait_for_company(&mut self, commands: &mut Vec<Command>, reports: &mut Vec<Report>, stop: &CancellationToken) {
        if reports.is_empty() {
            return;
        }
        let wait = STARTED_GATHER.min(self.until_wakeup());
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = self.reports.recv_many(reports, GATHER) => {}
            _ = self.commands.recv_many(commands, GATHER) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    /// Takes what else has come meanwhile, so that one transaction serves it all.
    fn gather(&mut self, commands: &mut Vec<Command>, reports: &mut Vec<Report>) {
        while reports.len() < GATHER {
            let Ok(report) = self.reports.try_recv() else { break };
            reports.push(report);
        }
        let size = |command: &Command| match command {
            Command::Submit { request, .. } => request.jobs.len(),
            _ => 1,
        };
        let mut jobs: usize = commands.iter().map(size).sum();
        while commands.len() < GATHER && jobs < GATHER_JOBS {
            let Ok(command) = self.commands.try_recv() else { break };
            jobs += size(&command);
            commands.push(command);
        }
    }

    /// One turn: decide, make durable, tell. True where there is more to decide at once.
    async fn turn(&mut self, commands: &mut Vec<Command>, reports: &mut Vec<Report>) -> Result<bool, EngineError> {
        if self.degraded.as_ref().is_some_and(|degraded| tokio::time::Instant::now() < degraded.until) {
            self.refuse(commands, reports);
            return Ok(false);
        }
        if self.degraded.as_ref().is_some_and(|degraded| degraded.ahead) && !self.rebuild_core().await? {
            self.refuse(commands, reports);
            return Ok(false);
        }
        let turn = self.decide(commands, reports);
        let batch = &turn.batch;
        let things = [batch.objects.len(), batch.notices.len(), batch.samples.len()];
        if (batch.submits.len(), batch.changes.len(), things) == (0, 0, [0; 3]) {
            self.finish(turn.waiters, turn.effects);
            if self.degraded.is_some() {
                self.probe(turn.batch).await?;
            }
            return Ok(turn.again);
        }
        let Turn { batch, records, effects, waiters, mut counts, again, nudge, .. } = turn;
        counts.decided(&batch);
        let size = batch.submits.len() + batch.changes.len() + batch.objects.len() + batch.notices.len();
        let notes_boot = batch.objects.iter().any(Boot::is_note);
        let notices = batch.notices.clone();
        let redirected = !batch.objects.is_empty() && *self.parts.directory.get() != self.directory;
        let begun = std::time::Instant::now();
        match self.parts.store.commit(batch).await {
            Ok(committed) => {
                self.parts.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                self.parts.metrics.commit_batch.observe(size as f64);
                self.parts.metrics.revision.set(committed.last.0);
                counts.add_to(&self.parts.metrics);
                self.recovered();
                if notes_boot {
                    self.boot.noted();
                }
                self.teller.committed();
                if redirected {
                    self.parts.directory.set(self.directory.clone());
                }
                self.parts.feed.publish(committed.last, || turn::number(records, notices, committed));
                self.finish(waiters, effects);
                if nudge {
                    self.parts.nudge.notify_one();
                }
                Ok(again)
            }
            Err(error) => {
                self.failed(waiters, error).await?;
                Ok(true)
            }
        }
    }

    /// Answers callers and hands orders on. Orders that find no room are the reconciler's: it compares the table with the world.
    fn finish(&self, waiters: Waiters, effects: Vec<Effect>) {
        waiters.tell();
        if !effects.is_empty() && self.parts.orders.try_send(effects).is_err() {
            self.parts.nudge.notify_one();
        }
    }
}

/// True while the core says that this run is to be started: the dispatcher asks right before it gives the order.
pub fn still_starting(core: &SharedCore, run: RunId) -> bool {
    lock(core).view(run.job).is_some_and(|view| {
        view.lifecycle.attempt == run.attempt && view.lifecycle.state.kind() == scheduler_core::state::StateKind::Starting
    })
}
