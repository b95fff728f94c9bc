//! A daemon that waits for a job table that another one has: it serves what can be read of it, says who leads, and takes over when that one ends.
//!
//! What must hold, wherever the table is ([`Place`]):
//! - A standby writes nothing and gives no orders: it has no engine, no executor, and its store refuses whatever would change the table.
//! - Who holds the table leads: the lock of the folder that it is in, or the lease in its database.
//! - Before the table can be read, and before callers can be recognised, whoever asks hears who leads, and nothing else.
//! - The Unix socket in a data folder belongs to who has the folder. A standby has TCP, where its address is free, the socket in a folder of its
//!   own, and one elsewhere, where it was given one.
//! - Its doors are handed on: connections that come while it takes over wait for the new leader; streams end, and are resumed by revision.

use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::ids::{JobId, Name, Revision};
use store::{Store, StoreError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::{Action, Backend, BackendError, Explanation, Readiness, Snapshot, Standby, SubmitRequest, Update};
use crate::config::Config;
use crate::http;
use crate::http::listen::{Kept, Listeners};
use crate::metrics::Metrics;
use crate::objects::edit::{Change, Changed};
use crate::objects::{Directory, SharedDirectory};
use crate::serve::{self, Signals};
use crate::systemd::{Notice, notify};
use crate::watch::{Feed, Watch};

/// How often it is looked for news of the table, and whether it can be read yet.
const LOOK: Duration = Duration::from_millis(250);

/// A job table that may be another daemon's: how it becomes ours, and what is known of it until then.
#[async_trait]
pub(crate) trait Place: Send + Sync {
    /// The table, once it is ours.
    type Table: Send;

    /// Begins a term.
    ///
    /// # Errors
    /// Another daemon has it ([`StoreError::Locked`], [`StoreError::Held`]), or it cannot be opened.
    async fn take(&mut self) -> Result<Self::Table, StoreError>;

    /// Whether it is waited for where it was refused so; `waits`: it is waited for already.
    fn is_waited_for(&self, refused: &StoreError, waits: bool) -> bool;

    /// Who has it, where it was refused so.
    fn leader(&self, refused: &StoreError) -> Leads;

    /// Waits until another try may go through. Others may wait for the same.
    ///
    /// # Errors
    /// That cannot be found out.
    async fn free(&self, refused: &StoreError) -> Result<(), StoreError>;

    /// The table for reading alone; nothing is asked of it yet.
    fn reading(&self) -> Arc<dyn Store>;

    /// Whether the data folder is ours, and with it the socket in there.
    fn has_folder(&self) -> bool;
}

/// Who leads.
pub(crate) struct Leads {
    /// In words, for whoever asks.
    pub(crate) words: String,
    /// Whether its table may be read from here.
    pub(crate) readable: bool,
}

/// Who leads and whether the table is read, kept up to date for answers.
#[derive(Clone, Default)]
struct Leader(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    /// Who leads.
    words: String,
    reads: bool,
    /// Why the table is not read now, for whoever asks.
    trouble: Option<String>,
}

impl Leader {
    fn get(&self) -> Standby {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let leader = match &known.trouble {
            Some(trouble) => format!("{}; it cannot read the job table: {trouble}", known.words),
            None => known.words.clone(),
        };
        Standby { leader, reads: known.reads }
    }

    /// What `change` says of what is known.
    fn set<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing is read, so nobody is known either.
    fn unread(&self, trouble: &str) {
        self.set(|known| {
            known.reads = false;
            known.trouble = Some(trouble.to_owned());
        });
    }
}

/// Why a table is not read, for whoever asks: where it is, and what it says of itself, is for those who run it.
fn told(error: &StoreError) -> String {
    match error {
        StoreError::OtherVersion { found, known, .. } => {
            format!("it has schema version {found}, this flashd reads version {known}")
        }
        StoreError::NotMade { .. } => "there is no job table yet".to_owned(),
        StoreError::Away { .. } => "the database does not answer".to_owned(),
        _ => "the log of this daemon says why".to_owned(),
    }
}

/// What can be answered without an engine.
struct Reader {
    store: Arc<dyn Store>,
    feed: Feed,
    leader: Leader,
    directory: SharedDirectory,
}

impl Reader {
    fn refuse<T>(&self) -> Result<T, BackendError> {
        Err(BackendError::Unavailable(self.leader.get().leader))
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
        Some(self.leader.get().leader)
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
        Readiness::NotReady(self.leader.get().leader)
    }

    fn standby(&self) -> Option<Standby> {
        Some(self.leader.get())
    }
}

/// The doors of a standby, once they are open, and what is behind them.
struct Doors {
    /// Kept beside those that are served, so that nobody is refused while the next leader opens its own.
    kept: Kept,
    address: Option<std::net::SocketAddr>,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    store: Arc<dyn Store>,
    feed: Feed,
    /// Whether those whom the table does not know can be asked about.
    knows_callers: bool,
}

/// A daemon that waits, from the first time that it was refused.
#[derive(Default)]
struct Waiting {
    leader: Leader,
    readable: bool,
    doors: Option<Doors>,
    /// What was last said of why nothing is served or read.
    trouble: String,
}

/// Opens the job table; where another daemon has it and this one is to wait, that may take long. Gives the table, and the doors that are
/// open already; nothing where it was told to end meanwhile.
///
/// # Errors
/// The table cannot be opened, or another daemon has it and nothing says that this one is to wait.
pub(crate) async fn open<P: Place>(
    config: &Config,
    place: &mut P,
    signals: &mut Signals,
) -> anyhow::Result<Option<(P::Table, Kept)>> {
    let mut waiting: Option<Waiting> = None;
    loop {
        let taken = tokio::select! {
            taken = place.take() => taken,
            name = signals.next() => {
                end(name, waiting, signals).await;
                return Ok(None);
            }
        };
        let refused = match taken {
            Ok(table) => {
                let Some(waiting) = waiting else { return Ok(Some((table, Kept::default()))) };
                tracing::info!("the job table is free: taking over");
                return Ok(Some((table, waiting.hand_on())));
            }
            Err(error) if place.is_waited_for(&error, waiting.is_some()) => error,
            Err(error) => return Err(error.into()),
        };
        let standby = waiting.get_or_insert_default();
        let mut freed = pin!(place.free(&refused));
        let name = loop {
            standby.tell(config, place, &refused).await;
            tokio::select! {
                name = signals.next() => break Some(name),
                freed = freed.as_mut() => {
                    freed?;
                    break None;
                }
                () = standby.look() => {}
            }
        };
        if let Some(name) = name {
            end(name, waiting, signals).await;
            return Ok(None);
        }
    }
}

/// It is told to end: what was asked is answered.
async fn end(signal: &'static str, waiting: Option<Waiting>, signals: &mut Signals) {
    tracing::info!(signal, "this daemon ends, and never led");
    let Some(doors) = waiting.and_then(|waiting| waiting.doors) else { return };
    doors.shutdown.cancel();
    tokio::select! {
        _ = doors.served => {}
        signal = signals.next() => tracing::warn!(signal, "ending at once"),
    }
    doors.kept.remove();
}

impl Waiting {
    /// Keeps up to date who leads, and opens the doors as soon as they can be.
    async fn tell(&mut self, config: &Config, place: &impl Place, refused: &StoreError) {
        let Leads { words, readable } = place.leader(refused);
        self.readable = readable;
        let is_news = self.leader.set(|known| {
            let is_news = known.words != words;
            known.words.clone_from(&words);
            is_news
        });
        if is_news {
            tracing::warn!(reason = %refused, "{words}");
            // It is what it was started to be.
            if let Err(error) = notify(Notice::Ready) {
                tracing::warn!(%error, "telling systemd failed");
            }
        }
        if self.doors.is_none() {
            match open_doors(config, place, &self.leader).await {
                Ok(doors) => self.doors = Some(doors),
                Err(error) => self.trouble("nothing is served yet", &format!("{error:#}")),
            }
        }
    }

    /// Says once why something cannot be done.
    fn trouble(&mut self, what: &str, why: &str) {
        if self.trouble != why {
            tracing::warn!(why, "{what}");
            why.clone_into(&mut self.trouble);
        }
    }

    /// Looks for news of the table, after a moment, and tells watchers what the leader has written.
    async fn look(&mut self) {
        tokio::time::sleep(LOOK).await;
        let Some(doors) = &self.doors else { return };
        if !self.readable {
            self.leader.unread("it is on another machine");
            return;
        }
        if !doors.knows_callers {
            self.leader.unread("users of the cluster cannot be recognised, and the log of this daemon says why");
            return;
        }
        match doors.store.standing().await {
            Ok(standing) => {
                // They read it from the table.
                if standing.last_revision > doors.feed.revision() {
                    doors.feed.publish(standing.last_revision, Vec::new);
                }
                let is_news = self.leader.set(|known| {
                    known.trouble = None;
                    !std::mem::replace(&mut known.reads, true)
                });
                if is_news {
                    tracing::info!(tcp = doors.address.map(tracing::field::display), "this standby serves what can be read");
                }
            }
            // Whoever asks meanwhile hears of that.
            Err(error @ StoreError::Away { .. }) => {
                tracing::debug!(%error, "the table is not read");
                self.leader.set(|known| known.trouble = Some(told(&error)));
            }
            Err(error) => {
                self.leader.unread(&told(&error));
                self.trouble("the table is not read", &error.to_string());
            }
        }
    }

    /// Ends what it serves, and gives the doors to who goes on.
    fn hand_on(self) -> Kept {
        let Some(doors) = self.doors else { return Kept::default() };
        doors.shutdown.cancel();
        doors.kept
    }
}

/// Serves who leads, and what can be read, once it can be.
async fn open_doors(config: &Config, place: &impl Place, leader: &Leader) -> anyhow::Result<Doors> {
    let mut listeners = Listeners::bind_standby(config, place.has_folder()).await?;
    let kept = listeners.hand_on()?;
    let address = listeners.address();
    // Not found out is not refused: without it nobody is told that a token is not known.
    let users = serve::cluster_auth(config, None).await;
    if let Err(error) = &users {
        tracing::warn!(error = format!("{error:#}"), "users of the cluster cannot be recognised, so nothing is read here");
    }
    let knows_callers = users.is_ok();
    let store = place.reading();
    let feed = Feed::new(Revision(0));
    let directory = SharedDirectory::default();
    let backend = Reader { store: Arc::clone(&store), feed: feed.clone(), leader: leader.clone(), directory: directory.clone() };
    let shutdown = CancellationToken::new();
    let (logs, users) = (config.data.join("logs"), users.ok().flatten());
    let app = http::App::new(config, logs, Arc::new(backend), directory, Arc::new(Metrics::new()), users, shutdown.clone());
    let reading = Arc::clone(&store);
    let served = tokio::spawn(async move {
        listeners.serve(Arc::clone(&app), http::router(app)).await;
        reading.close().await;
    });
    Ok(Doors { kept, address, shutdown, served, store, feed, knows_callers })
}
