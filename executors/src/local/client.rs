//! The daemon's side of the local executor.
//!
//! It keeps a connection to the runner and no knowledge of runs: what is there, the runner says. If the connection breaks, that is
//! reported ([`Report::Disturbed`]), the runner is connected to again, or another one started, and that is reported too; orders that
//! are given meanwhile are refused as unreachable. If another daemon has taken over, it stays away until it is told to adopt again.
//!
//! Dropping it ends the connection and nothing else: the runner and its tasks go on.
//!
//! Reports wait for room in the channel that it was made with, and none is dropped. If very many wait, nothing more is read from the
//! runner, which then waits too: for reports, but also for answers to [`Executor::observe`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::ids::RunId;
use scheduler_core::job::StopPolicy;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::link::{Link, Over, Session, connect_or_start, forget_orders, frame, unreachable, withdraw_orders};
use super::protocol::{BATCH_BYTES, Order};
use crate::contract::{DeviceAccess, Executor, ExecutorError, Observed, Report, StartOrder};

/// The word for this executor.
pub(super) const KIND: &str = "local";

/// First pause after a broken connection that could not be made again; it doubles up to [`LocalOptions::max_pause`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How a local executor is made.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The runner's folder: made if it is missing.
    pub dir: PathBuf,
    /// Absolute path of the folder where tasks' output goes, named by [`log_file_name`](crate::log_file_name).
    pub log_dir: PathBuf,
    /// Program and arguments that start a runner; `--dir` and the folder are added.
    pub runner_command: Vec<OsString>,
    /// Where reports go.
    pub reports: mpsc::Sender<Report>,
    /// How long a runner may take to listen.
    pub connect_timeout: Duration,
    /// How long the runner may take to answer.
    pub answer_timeout: Duration,
    /// Longest pause between attempts to reach a runner.
    pub max_pause: Duration,
}

impl LocalOptions {
    /// With the usual times.
    pub fn new(
        dir: impl Into<PathBuf>,
        log_dir: impl Into<PathBuf>,
        runner_command: Vec<OsString>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        Self {
            dir: dir.into(),
            log_dir: log_dir.into(),
            runner_command,
            reports,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            max_pause: Duration::from_secs(5),
        }
    }
}

/// Runs tasks as processes of this machine, through a runner.
pub struct LocalExecutor {
    inner: Arc<Inner>,
    /// Serves the connection, and makes it again.
    supervisor: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    options: LocalOptions,
    log_dir: String,
    link: Mutex<Option<Link>>,
    /// Whether runs can be kept from devices; `None` before the first connection.
    devices: watch::Sender<Option<DeviceAccess>>,
}

impl LocalExecutor {
    /// Made, not connected: that is [`Executor::adopt`]. An error if the log folder is not an absolute path in UTF-8.
    pub fn new(options: LocalOptions) -> Result<Self, ExecutorError> {
        let log_dir = options.log_dir.to_str().filter(|path| path.starts_with('/')).map(str::to_owned);
        let Some(log_dir) = log_dir else {
            let detail = format!("log folder {}: has to be an absolute path in UTF-8", options.log_dir.display());
            return Err(ExecutorError::Other { op: "making", executor: KIND, detail });
        };
        let inner = Arc::new(Inner { options, log_dir, link: Mutex::new(None), devices: watch::Sender::new(None) });
        Ok(Self { inner, supervisor: tokio::sync::Mutex::new(None) })
    }

    /// Whether runs can be kept from devices that are not their own; `None` until a runner has said so.
    pub fn device_access(&self) -> watch::Receiver<Option<DeviceAccess>> {
        self.inner.devices.subscribe()
    }

    fn link(&self, op: &'static str) -> Result<Link, ExecutorError> {
        self.inner.link().clone().ok_or_else(|| unreachable(op, "there is no connection to the runner at the moment"))
    }

    async fn send(&self, op: &'static str, orders: impl IntoIterator<Item = Order>) -> Result<(), ExecutorError> {
        let link = self.link(op)?;
        for order in orders {
            link.send(op, frame(op, &order)?).await?;
        }
        Ok(())
    }

    async fn observe_as(&self, op: &'static str) -> Result<Vec<Observed>, ExecutorError> {
        let link = self.link(op)?;
        let answered = timeout(self.inner.options.answer_timeout, link.observe(op)).await;
        answered.map_err(|_| unreachable(op, "the runner did not answer in time"))?
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.get_mut().take() {
            supervisor.abort();
        }
    }
}

impl Inner {
    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection after the other. Ends when nobody takes reports any more, or another daemon has the runner.
    async fn supervise(self: Arc<Self>, mut session: Session) {
        let reports = &self.options.reports;
        loop {
            let over = session.serve(reports).await;
            *self.link() = None;
            let why = match over {
                Over::Broken(why) => why,
                Over::Replaced => {
                    tracing::warn!("another daemon has taken over the runner");
                    // Whether anybody hears it or not: it is over, until somebody adopts.
                    let _ = disturbed(reports, "another daemon has taken over the runner".to_owned()).await;
                    return;
                }
            };
            tracing::warn!(why, "the connection to the runner broke");
            if disturbed(reports, format!("the connection to the runner broke: {why}")).await.is_err() {
                return;
            }
            session = self.connect_again().await;
            if disturbed(reports, "the runner is connected again".to_owned()).await.is_err() {
                return;
            }
        }
    }

    async fn connect_again(&self) -> Session {
        let mut pause = FIRST_PAUSE;
        loop {
            match connect_or_start("reconnect", &self.options).await {
                Ok((link, session)) => {
                    self.devices.send_replace(Some(link.devices.clone()));
                    *self.link() = Some(link);
                    return session.subscribed();
                }
                Err(error) => tracing::error!(%error, "the runner cannot be reached"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.options.max_pause);
        }
    }
}

async fn disturbed(reports: &mpsc::Sender<Report>, message: String) -> Result<(), mpsc::error::SendError<Report>> {
    reports.send(Report::Disturbed { message }).await
}

/// Splits orders into batches of about [`BATCH_BYTES`].
fn batches(log_dir: &str, orders: Vec<StartOrder>) -> Vec<Order> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for order in orders {
        bytes += rough_bytes(&order);
        batch.push(order);
        if bytes >= BATCH_BYTES {
            batches.push(Order::Start { log_dir: log_dir.to_owned(), orders: std::mem::take(&mut batch) });
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(Order::Start { log_dir: log_dir.to_owned(), orders: batch });
    }
    batches
}

fn rough_bytes(order: &StartOrder) -> usize {
    let of_task = |task: &crate::contract::TaskOrder| {
        let command: usize = task.command.iter().map(|argument| argument.len() + 3).sum();
        let env: usize = task.env.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
        command + env + task.working_dir.len() + 128
    };
    order.tasks.iter().map(of_task).sum::<usize>() + 128
}

#[async_trait]
impl Executor for LocalExecutor {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn adopt(&self) -> Result<Vec<Observed>, ExecutorError> {
        let mut supervisor = self.supervisor.lock().await;
        if supervisor.as_ref().is_none_or(JoinHandle::is_finished) {
            let (link, session) = connect_or_start("adopt", &self.inner.options).await?;
            self.inner.devices.send_replace(Some(link.devices.clone()));
            *self.inner.link() = Some(link);
            *supervisor = Some(tokio::spawn(Arc::clone(&self.inner).supervise(session)));
        }
        drop(supervisor);
        self.observe_as("adopt").await
    }

    fn holds_orders(&self) -> bool {
        self.inner.link().as_ref().is_some_and(|link| link.lines)
    }

    async fn start(&self, orders: Vec<StartOrder>) -> Result<(), ExecutorError> {
        // One that does not know of lines would start them all at once.
        if !self.link("start")?.lines && orders.iter().any(|order| order.line.is_some()) {
            let detail = "its runner is of an older version, which holds no orders".to_owned();
            return Err(ExecutorError::Other { op: "start", executor: KIND, detail });
        }
        self.send("start", batches(&self.inner.log_dir, orders)).await
    }

    async fn stop(&self, run: RunId, policy: StopPolicy) -> Result<(), ExecutorError> {
        self.send("stop", [Order::Stop { run, policy }]).await
    }

    async fn withdraw(&self, runs: Vec<RunId>) -> Result<(), ExecutorError> {
        self.send("withdraw", withdraw_orders(&runs).collect::<Vec<_>>()).await
    }

    async fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        self.observe_as("observe").await
    }

    async fn forget(&self, runs: Vec<RunId>) -> Result<(), ExecutorError> {
        self.send("forget", forget_orders(&runs).collect::<Vec<_>>()).await
    }
}
