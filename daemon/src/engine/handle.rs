//! The engine as the rest of the daemon sees it: a way to ask, and nothing to change by hand.

use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::Inquiry;
use scheduler_core::ids::{JobId, Name};
use scheduler_core::state::StateKind;
use store::Store;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::nodes::Seen;
use super::{Channels, Command, SharedCore, lock, snapshot};
use crate::backend::{Action, Backend, BackendError, Explanation, Readiness, Snapshot, Standby, SubmitRequest, Update};
use crate::clock;
use crate::cluster::ClusterState;
use crate::gpus::SharedBoard;
use crate::gpus::access::DeviceGuard;
use crate::objects::edit::{Change, Changed};
use crate::objects::{Directory, SharedDirectory};
use crate::watch::{Feed, Watch};

/// Implements [`Backend`] over the engine's queue, the shared core and the store.
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    core: SharedCore,
    directory: SharedDirectory,
    feed: Feed,
    store: Arc<dyn Store>,
    degraded: watch::Receiver<Option<String>>,
    adopted: watch::Receiver<bool>,
    trouble: watch::Receiver<Option<String>>,
    board: SharedBoard,
    devices: Option<DeviceGuard>,
    cluster: Option<ClusterState>,
    stopping: CancellationToken,
}

/// What a handle needs beside the engine's channels.
pub struct HandleParts {
    /// Shared with the engine.
    pub core: SharedCore,
    /// Which names there are.
    pub directory: SharedDirectory,
    /// Live events.
    pub feed: Feed,
    /// The job table.
    pub store: Arc<dyn Store>,
    /// Turns true when the executors were taken over.
    pub adopted: watch::Receiver<bool>,
    /// Why the reconciler's last round failed, if it did.
    pub trouble: watch::Receiver<Option<String>>,
    /// What is seen of the GPUs.
    pub board: SharedBoard,
    /// What keeps jobs from GPUs of others.
    pub devices: Option<DeviceGuard>,
    /// The cluster in which jobs run, if they do in one.
    pub cluster: Option<ClusterState>,
    /// Cancelled when the daemon goes down.
    pub stopping: CancellationToken,
}

impl EngineHandle {
    /// A handle on an engine's channels.
    pub fn new(channels: &Channels, parts: HandleParts) -> Self {
        let HandleParts { core, directory, feed, store, adopted, trouble, board, devices, cluster, stopping } = parts;
        let (commands, degraded) = (channels.commands.clone(), channels.degraded.clone());
        Self { commands, core, directory, feed, store, degraded, adopted, trouble, board, devices, cluster, stopping }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, BackendError>>) -> Command) -> Result<T, BackendError> {
        let (reply, answer) = oneshot::channel();
        let ending = || BackendError::Unavailable("the daemon is stopping".to_owned());
        self.commands.send(command(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}

#[async_trait]
impl Backend for EngineHandle {
    async fn submit(&self, request: SubmitRequest) -> Result<Vec<JobId>, BackendError> {
        self.ask(|reply| Command::Submit { request, reply }).await
    }

    async fn act(&self, job: JobId, action: Action, by: Name) -> Result<(), BackendError> {
        self.ask(|reply| Command::Act { job, action, by, reply }).await
    }

    async fn update(&self, job: JobId, update: Update) -> Result<(), BackendError> {
        self.ask(|reply| Command::Update { job, update, reply }).await
    }

    async fn why(&self, job: JobId) -> Result<Option<Explanation>, BackendError> {
        // The engine waits for the question only; the answer is worked out on a copy.
        let inquiry = lock(&self.core).inquire(job, clock::now());
        Ok(inquiry.map(Inquiry::answer))
    }

    async fn ids_between(&self, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, BackendError> {
        Ok(self.store.ids_between(first, last, limit).await?)
    }

    async fn change(&self, change: Change) -> Result<Changed, BackendError> {
        self.ask(|reply| Command::Change { change, reply }).await
    }

    async fn queue(&self, name: &Name) -> Result<Option<api::Queue>, BackendError> {
        Ok(snapshot::queue(&self.core, &self.directory.get(), name))
    }

    fn directory(&self) -> Arc<Directory> {
        self.directory.get()
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, BackendError> {
        let directory = self.directory.get();
        let cluster = self.cluster.as_ref().map(ClusterState::view);
        let gpu_access = self.devices.as_ref().and_then(DeviceGuard::says);
        let seen = Seen { board: &self.board.get(), cluster: cluster.as_deref(), silence: self.silence(), gpu_access };
        Ok(Arc::new(snapshot::take(&self.core, &directory, self.feed.revision(), &seen)))
    }

    fn silence(&self) -> Option<String> {
        self.cluster.as_ref().and_then(ClusterState::silence)
    }

    fn watch(&self) -> Watch {
        self.feed.watch()
    }

    fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    fn warnings(&self, job: JobId) -> Vec<String> {
        let Some(warning) = self.board.get().idle.get(&job).cloned() else { return Vec::new() };
        // The board may be a look behind.
        let runs = lock(&self.core).view(job).is_some_and(|view| view.lifecycle.state.kind() == StateKind::Running);
        if runs { vec![warning] } else { Vec::new() }
    }

    fn ready(&self) -> Readiness {
        if self.stopping.is_cancelled() {
            return Readiness::Draining;
        }
        if let Some(why) = self.degraded.borrow().as_ref() {
            return Readiness::NotReady(why.clone());
        }
        // What the takeover waits for, before that it is waited for.
        if let Some(why) = self.silence() {
            return Readiness::NotReady(why);
        }
        if !*self.adopted.borrow() {
            let why = self.trouble.borrow().as_ref().map_or_else(String::new, |why| format!(": {why}"));
            return Readiness::NotReady(format!("taking over the executors{why}"));
        }
        Readiness::Ready
    }

    fn standby(&self) -> Option<Standby> {
        None
    }
}
