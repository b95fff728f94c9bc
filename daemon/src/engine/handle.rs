//! The engine as the rest of the daemon sees it: a way to ask, and nothing to change by hand.

use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::ids::{JobId, Name};
use store::Store;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Channels, Command, SharedCore, lock};
use crate::backend::{Action, Backend, BackendError, Readiness, Snapshot, SubmitRequest};
use crate::clock;
use crate::feed::Feed;

/// Implements [`Backend`] over the engine's queue, the shared core and the store.
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    core: SharedCore,
    feed: Arc<Feed>,
    store: Arc<dyn Store>,
    degraded: watch::Receiver<Option<String>>,
    adopted: watch::Receiver<bool>,
}

impl EngineHandle {
    /// A handle on an engine's channels. `adopted` turns true when the executors were taken over.
    pub fn new(
        channels: &Channels,
        core: SharedCore,
        feed: Arc<Feed>,
        store: Arc<dyn Store>,
        adopted: watch::Receiver<bool>,
    ) -> Self {
        Self { commands: channels.commands.clone(), core, feed, store, degraded: channels.degraded.clone(), adopted }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, BackendError>>) -> Command,
    ) -> Result<T, BackendError> {
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

    async fn why(&self, job: JobId) -> Result<Option<Why>, BackendError> {
        Ok(lock(&self.core).explain(job, clock::now()))
    }

    async fn ids_between(&self, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, BackendError> {
        Ok(self.store.ids_between(first, last, limit).await?)
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, BackendError> {
        Ok(Arc::new(snapshot::take(&self.core, self.feed.revision(), &self.gpu_note)))
    }

    fn watch(&self) -> Watch {
        self.feed.watch()
    }

    fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    fn ready(&self) -> Readiness {
        if self.stopping.is_cancelled() {
            return Readiness::Draining;
        }
        if let Some(why) = self.degraded.borrow().as_ref() {
            return Readiness::NotReady(why.clone());
        }
        if !*self.adopted.borrow() {
            return Readiness::NotReady("taking over the executors".to_owned());
        }
        Readiness::Ready
    }
}
