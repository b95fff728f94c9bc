//! A daemon that waits for another one's data folder: it serves what can be read of it, says who leads, and takes over when that one ends.
//!
//! What must hold:
//! - A standby writes nothing and gives no orders: it has no engine, no executor, and its store refuses whatever would change the table.
//! - Who holds the folder's lock leads; the kernel wakes the standby when the lock is free, however its holder ended.
//! - The Unix socket in the data folder belongs to who leads. A standby has TCP, where its address is free, and a socket of its own, where it was
//!   given one elsewhere.
//! - Connections that come while it takes over wait for the new leader; streams end, and are resumed by revision.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::ids::{JobId, Name};
use store::sqlite::{Holder, SqliteStore, free, holder};
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::backend::{Action, Backend, BackendError, Explanation, Readiness, Snapshot, SubmitRequest, Update};
use crate::config::Config;
use crate::http::listen::Listeners;
use crate::http::{self, cluster_auth::ClusterAuth};
use crate::metrics::Metrics;
use crate::objects::edit::{Change, Changed};
use crate::objects::{Directory, SharedDirectory};
use crate::systemd::{Notice, notify};
use crate::watch::{Feed, Watch};
use crate::{clock, serve};

/// How often it is looked for news of the table, and whether it can be served yet.
const LOOK: Duration = Duration::from_millis(250);

/// Who leads, in words, kept up to date for answers.
#[derive(Clone, Default)]
struct Leader(Arc<RwLock<String>>);

impl Leader {
    fn get(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether that is news.
    fn set(&self, words: String) -> bool {
        let mut present = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = *present != words;
        *present = words;
        is_news
    }
}

fn words(config: &Config, holder: &Holder) -> String {
    let who = match holder {
        Holder { pid: Some(pid), is_here: true } => format!("the daemon with pid {pid}"),
        Holder { pid: Some(pid), is_here: false } => format!("a daemon of another machine (pid {pid} there)"),
        Holder { pid: None, .. } => "another daemon".to_owned(),
    };
    format!("this is a standby: {who} leads on {}; this one takes over when it ends", config.data.display())
}

/// What can be answered without an engine.
struct Reader {
    store: Arc<SqliteStore>,
    feed: Feed,
    leader: Leader,
    directory: SharedDirectory,
}

impl Reader {
    fn refuse<T>(&self) -> Result<T, BackendError> {
        Err(BackendError::Unavailable(self.leader.get()))
    }
}

#[async_trait]
impl Backend for Reader {
    async fn submit(&self, _: SubmitRequest) -> Result<Vec<JobId>, BackendError> {
        self.refuse()
    }

    async fn act(&self, _: JobId, _: Action, _: Name) -> Result<(), BackendError> {
        self.refuse()
    }

    async fn update(&self, _: JobId, _: Update) -> Result<(), BackendError> {
        self.refuse()
    }

    async fn why(&self, _: JobId) -> Result<Option<Explanation>, BackendError> {
        self.refuse()
    }

    async fn ids_between(&self, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, BackendError> {
        Ok(self.store.ids_between(first, last, limit).await?)
    }

    async fn change(&self, _: Change) -> Result<Changed, BackendError> {
        self.refuse()
    }

    async fn queue(&self, _: &Name) -> Result<Option<api::Queue>, BackendError> {
        self.refuse()
    }

    fn directory(&self) -> Arc<Directory> {
        self.directory.get()
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, BackendError> {
        self.refuse()
    }

    fn silence(&self) -> Option<String> {
        Some(self.leader.get())
    }

    fn watch(&self) -> Watch {
        self.feed.watch()
    }

    fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    fn warnings(&self, _: JobId) -> Vec<String> {
        Vec::new()
    }

    fn ready(&self) -> Readiness {
        Readiness::NotReady(self.leader.get())
    }

    fn standby(&self) -> Option<String> {
        Some(self.leader.get())
    }
}

/// The doors of a standby, once they are open.
struct Doors {
    /// Kept beside the one that is served, so that nobody is refused while the next leader opens its own.
    tcp: Option<std::net::TcpListener>,
    shutdown: CancellationToken,
}

/// Opens the job table; where another daemon has it and this one is to wait, that may take long. Gives the table, and the TCP door that is
/// open already; nothing where it was told to end meanwhile.
///
/// # Errors
/// The table cannot be opened, or another daemon has it and nothing says that this one is to wait.
pub(crate) async fn open(
    config: &Config,
    signals: &mut serve::Signals,
) -> anyhow::Result<Option<(SqliteStore, Option<std::net::TcpListener>)>> {
    let leader = Leader::default();
    let mut doors: Option<Doors> = None;
    let store = loop {
        match SqliteStore::open(&config.data, clock::now()).await {
            Ok(store) => break store,
            Err(StoreError::Locked { .. }) if config.standby => {}
            Err(error) => return Err(error.into()),
        }
        let mut freed = std::pin::pin!(free(&config.data));
        loop {
            let holder = holder(&config.data);
            if leader.set(words(config, &holder)) {
                tracing::warn!("{}", leader.get());
                // It is what it was started to be.
                if let Err(error) = notify(Notice::Ready) {
                    tracing::warn!(%error, "telling systemd failed");
                }
            }
            if doors.is_none() && holder.is_here {
                match open_doors(config, &leader).await {
                    Ok(opened) => doors = Some(opened),
                    Err(error) => tracing::debug!(error = format!("{error:#}"), "nothing is served yet"),
                }
            }
            tokio::select! {
                name = signals.next() => {
                    tracing::info!(signal = name, "this standby ends");
                    return Ok(None);
                }
                freed = freed.as_mut() => {
                    freed?;
                    break;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    };
    if !leader.get().is_empty() {
        tracing::info!("the data folder is free: taking over");
    }
    let tcp = doors.and_then(|doors| {
        doors.shutdown.cancel();
        doors.tcp
    });
    Ok(Some((store, tcp)))
}

/// Serves what can be read.
async fn open_doors(config: &Config, leader: &Leader) -> anyhow::Result<Doors> {
    let store = Arc::new(SqliteStore::open_reading(&config.data).await?);
    let listeners = Listeners::bind_standby(config).await?;
    let tcp = listeners.tcp_again()?;
    tracing::info!(tcp = listeners.address().map(tracing::field::display), "this standby serves what can be read");
    let feed = Feed::new(store.head().last_revision);
    let directory = SharedDirectory::default();
    let backend = Reader { store: store.clone(), feed: feed.clone(), leader: leader.clone(), directory: directory.clone() };
    let shutdown = CancellationToken::new();
    let users: Option<ClusterAuth> = serve::cluster_auth(config, None).await?;
    let logs: PathBuf = config.data.join("logs");
    let app = http::App::new(config, logs, Arc::new(backend), directory, Arc::new(Metrics::new()), users, shutdown.clone());
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let served = listeners.serve(app.clone(), http::router(app));
        let mut served = std::pin::pin!(served);
        loop {
            tokio::select! {
                () = served.as_mut() => break,
                () = tokio::time::sleep(LOOK), if !stop.is_cancelled() => follow(&store, &feed).await,
            }
        }
        store.close().await;
    });
    Ok(Doors { tcp, shutdown })
}

/// Tells watchers what the leader has written.
async fn follow(store: &SqliteStore, feed: &Feed) {
    match store.latest().await {
        // They read it from the table.
        Ok(latest) if latest > feed.revision() => feed.publish(latest, Vec::new),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "the table is not read"),
    }
}
