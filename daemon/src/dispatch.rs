//! Hands durable orders to the executor: the only caller of its `start`, `withdraw`, `stop` and `forget`.
//!
//! What must hold:
//! - Orders of one run go out in the order start, withdraw, stop, forget; starts in the order in which they were decided.
//! - Orders wait in a line only where the executor holds orders. Elsewhere whoever had room begins at once, and who had none has not begun.
//! - A start is given only while the core still says that the run is starting: an order that waited behind a cancel starts nothing.
//! - An order that could not be given is not retried here. The reconciler finds what is missing by comparing the table with the world.
//! - Nobody waits for what is forgotten: it takes a cluster a request for each pod, and starts do not wait for that.

use std::sync::Arc;

use executors::{Executor, Report, StartOrder};
use scheduler_core::event::{Effect, RunResult};
use scheduler_core::ids::{JobId, RunId};
use scheduler_core::state::{JobState, Placement};
use store::{JobRecord, Store};
use tokio::sync::{Notify, mpsc};

use crate::clock;
use crate::engine::{SharedCore, still_starting};
use crate::orders::{OrderContext, start_order};

/// Turns whose orders may wait here; beyond that the engine leaves them to the reconciler.
pub const QUEUE: usize = 1_024;
/// Turns that are served together.
const GATHER: usize = 64;
/// Orders that are made and given together: the first of many begins while the others are made.
const CHUNK: usize = 32;

/// Everything that the dispatcher needs.
pub struct Dispatcher {
    /// Asked before each start.
    pub core: SharedCore,
    /// Where specs are read.
    pub store: Arc<dyn Store>,
    /// Who is ordered.
    pub executor: Arc<dyn Executor>,
    /// Where a run is reported whose order cannot be made.
    pub reports: mpsc::Sender<Report>,
    /// The reconciler's signal.
    pub nudge: Arc<Notify>,
    /// What orders are made with.
    pub context: OrderContext,
}

impl Dispatcher {
    /// Serves orders until the engine is gone. `adopted` has to come first: before that the executor takes no orders.
    pub async fn run(self, mut orders: mpsc::Receiver<Vec<Effect>>, mut adopted: tokio::sync::watch::Receiver<bool>) {
        if adopted.wait_for(|adopted| *adopted).await.is_err() {
            return;
        }
        let (forgets, ended) = mpsc::channel(QUEUE);
        tokio::join!(self.serve(&mut orders, forgets), self.forget(ended));
    }

    async fn serve(&self, orders: &mut mpsc::Receiver<Vec<Effect>>, forgetting: mpsc::Sender<Vec<RunId>>) {
        let mut gathered = Vec::with_capacity(GATHER);
        while orders.recv_many(&mut gathered, GATHER).await > 0 {
            let mut starts = Vec::new();
            let mut withdrawn = Vec::new();
            let mut stops = Vec::new();
            let mut forgets = Vec::new();
            for effect in gathered.drain(..).flatten() {
                match effect {
                    Effect::Start { run } => starts.push(run),
                    Effect::Withdraw { run } => withdrawn.push(run),
                    Effect::Stop { run, policy } => stops.push((run, policy)),
                    Effect::Forget { run } => forgets.push(run),
                }
            }
            for runs in starts.chunks(CHUNK) {
                self.start(runs).await;
            }
            if !withdrawn.is_empty()
                && let Err(error) = self.executor.withdraw(withdrawn).await
            {
                self.failed("withdraw", &error);
            }
            for (run, policy) in stops {
                if let Err(error) = self.executor.stop(run, policy).await {
                    self.failed("stop", &error);
                }
            }
            // Where too many wait, the reconciler finds them.
            if !forgets.is_empty() && forgetting.try_send(forgets).is_err() {
                self.nudge.notify_one();
            }
        }
    }

    async fn forget(&self, mut ended: mpsc::Receiver<Vec<RunId>>) {
        let mut gathered = Vec::with_capacity(GATHER);
        while ended.recv_many(&mut gathered, GATHER).await > 0 {
            if let Err(error) = self.executor.forget(gathered.drain(..).flatten().collect()).await {
                self.failed("forget", &error);
            }
        }
    }

    fn failed(&self, order: &'static str, error: &dyn std::error::Error) {
        tracing::warn!(order, %error, "order not given; the reconciler will settle it");
        self.nudge.notify_one();
    }

    async fn start(&self, runs: &[RunId]) {
        let wanted = runs.iter().filter(|run| still_starting(&self.core, **run));
        let ids: Vec<JobId> = wanted.map(|run| run.job).collect();
        if ids.len() < runs.len() {
            // One that is being stopped already was never begun, and the executor will not speak of it.
            self.nudge.notify_one();
        }
        if ids.is_empty() {
            return;
        }
        let records = match self.store.jobs_by_id(&ids).await {
            Ok(records) => records,
            Err(error) => return self.failed("start", &error),
        };
        let holds_orders = self.executor.holds_orders();
        let mut orders = Vec::with_capacity(runs.len());
        for record in records {
            let is_ahead = record.lifecycle.state.placement().is_some_and(Placement::is_ahead);
            match self.order(&record) {
                Some(Ok(order)) if is_ahead && !holds_orders => self.take_back(order.run).await,
                Some(Ok(order)) if !holds_orders && order.line.is_some() => orders.push(StartOrder { line: None, ..order }),
                Some(Ok(order)) if still_starting(&self.core, order.run) => orders.push(order),
                Some(Ok(_)) | None => self.nudge.notify_one(),
                Some(Err((run, message))) => self.give_up(run, message).await,
            }
        }
        if let Err(error) = self.executor.start(orders).await {
            self.failed("start", &error);
        }
    }

    /// The order for a record that is starting; `None` where it no longer is.
    fn order(&self, record: &JobRecord) -> Option<Result<StartOrder, (RunId, String)>> {
        let JobState::Starting { placement } = &record.lifecycle.state else { return None };
        let run = RunId { job: record.id, attempt: record.lifecycle.attempt };
        Some(start_order(record, run, placement, &self.context).map_err(|error| (run, error.to_string())))
    }

    async fn take_back(&self, run: RunId) {
        let message = "the executor holds no orders".to_owned();
        if self.reports.send(Report::NotBegun { run, message, at: clock::now() }).await.is_err() {
            tracing::debug!(%run, "the engine has ended");
        }
        self.nudge.notify_one();
    }

    async fn give_up(&self, run: RunId, message: String) {
        tracing::error!(%run, message, "no order can be made for this run");
        let result = RunResult::Lost { message: message.into() };
        let report = Report::Ended { run, result, started_at: None, at: clock::now() };
        if self.reports.send(report).await.is_err() {
            tracing::debug!(%run, "the engine has ended");
        }
    }
}
