//! Opening the job table: SQLite in the data folder, or a PostgreSQL.
//!
//! What must hold: of one data folder there is one daemon, wherever the table is; in PostgreSQL it is the same holder of the lease again after
//! a restart, because the folder has an identity, and whoever has the folder's lock is the only one to use it. Where another daemon
//! has the table, one that may wait stands by ([`crate::standby`]). One with processes of its own machine does not wait for a daemon with another
//! folder: the holder's jobs run on on the holder's machine, and would be started here again.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use store::sqlite::{self, Holder, SqliteStore};
use store::{Address, FolderLock, PostgresOptions, PostgresStore, Store, StoreError};

use crate::clock;
use crate::config::Config;
use crate::config::values::ExecutorKind;
use crate::http::listen::Kept;
use crate::serve::Signals;
use crate::standby::{self, Leads, Place};

/// How long others wait for a holder that is not heard of.
const LEASE: Duration = Duration::from_secs(15);
/// Pause of a standby between two tries to take the lease.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The file with the identity of a data folder.
const IDENTITY: &str = "instance";

/// An open job table, and what came with it.
pub(crate) struct Table {
    pub(crate) store: Arc<dyn Store>,
    /// The doors that a standby had open.
    pub(crate) kept: Kept,
    /// Keeps the folder ours.
    pub(crate) lock: Option<FolderLock>,
}

/// The identity of a data folder, made where there is none.
fn identity(folder: &Path) -> std::io::Result<String> {
    let path = folder.join(IDENTITY);
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let made = uuid::Uuid::now_v7().to_string();
    // Whole or not at all: half of one would be nobody's.
    let fresh = folder.join(format!("{IDENTITY}.new"));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(made.as_bytes()).and_then(|()| file.sync_all())?;
    std::fs::rename(&fresh, &path)?;
    Ok(made)
}

impl Table {
    /// Opens it, and begins a term; nothing where it was told to end meanwhile. Where another daemon has it this may take long: one that may
    /// wait serves meanwhile what can be read.
    pub(crate) async fn open(config: &Config, signals: &mut Signals) -> anyhow::Result<Option<Self>> {
        let Some(address) = config.store.address()? else {
            let opened = standby::open(config, &mut InFolder(config), signals).await?;
            return Ok(opened.map(|(store, kept)| Self { store: Arc::new(store), kept, lock: None }));
        };
        let mut place = InDatabase { config, address, ours: None };
        let opened = standby::open(config, &mut place, signals).await;
        let opened = if place.runs_elsewhere() {
            opened
        } else {
            opened.map_err(|error| match error.downcast_ref() {
                Some(StoreError::Held { .. }) => error.context(
                    "its jobs run on its machine, so this daemon does not wait for it: stop the other one, or start the one with its data folder",
                ),
                _ => error,
            })
        };
        let lock = place.ours.map(|(lock, _)| lock);
        Ok(opened?.map(|(store, kept)| Self { store: Arc::new(store), kept, lock }))
    }
}

/// Who leads where another daemon has the data folder.
fn folder_leader(config: &Config) -> Leads {
    let holder = sqlite::holder(&config.data);
    let who = match holder {
        Holder { pid: Some(pid), is_here: true } => format!("the daemon with pid {pid}"),
        Holder { pid: Some(pid), is_here: false } => format!("a daemon of another machine (pid {pid} there)"),
        Holder { pid: None, .. } => "another daemon".to_owned(),
    };
    let words = format!("this is a standby: {who} leads on {}; this one takes over when it ends", config.data.display());
    Leads { words, readable: holder.is_here }
}

/// A table in SQLite in the data folder: who has the folder's lock has it.
struct InFolder<'a>(&'a Config);

#[async_trait]
impl Place for InFolder<'_> {
    type Table = SqliteStore;

    async fn take(&mut self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.0.data, clock::now()).await
    }

    fn is_waited_for(&self, refused: &StoreError, _: bool) -> bool {
        self.0.standby && matches!(refused, StoreError::Locked { .. })
    }

    fn leader(&self, _: &StoreError) -> Leads {
        folder_leader(self.0)
    }

    async fn free(&self, _: &StoreError) -> Result<(), StoreError> {
        sqlite::free(&self.0.data).await
    }

    fn reading(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::reading(&self.0.data))
    }

    fn has_folder(&self) -> bool {
        false
    }
}

/// Takes the data folder; with it, who we are to the database.
fn begin(config: &Config, address: &Address) -> Result<(FolderLock, PostgresOptions), StoreError> {
    let lock = FolderLock::take(&config.data)?;
    let holder = identity(&config.data).map_err(|error| StoreError::Other {
        op: "read the identity of the data folder",
        subject: config.data.display().to_string(),
        detail: error.to_string(),
    })?;
    let machine = executors::node::inventory().hostname;
    let holder_name = format!("{machine} (pid {})", std::process::id());
    Ok((lock, PostgresOptions { address: address.clone(), holder, holder_name, lease: LEASE }))
}

/// A table in a PostgreSQL: who has the lease has it, and nobody asks for that without a data folder of his own.
struct InDatabase<'a> {
    config: &'a Config,
    address: Address,
    /// The folder's lock, and who we are with it.
    ours: Option<(FolderLock, PostgresOptions)>,
}

impl InDatabase<'_> {
    /// Whether jobs run in a cluster: whoever leads finds them there.
    fn runs_elsewhere(&self) -> bool {
        self.config.executors.first().copied().is_some_and(ExecutorKind::is_cluster)
    }
}

#[async_trait]
impl Place for InDatabase<'_> {
    type Table = PostgresStore;

    async fn take(&mut self) -> Result<PostgresStore, StoreError> {
        let (_, options) = match &mut self.ours {
            Some(ours) => ours,
            none => none.insert(begin(self.config, &self.address)?),
        };
        PostgresStore::open(options.clone(), clock::now()).await
    }

    fn is_waited_for(&self, refused: &StoreError, waits: bool) -> bool {
        match refused {
            StoreError::Locked { .. } => self.config.standby,
            StoreError::Held { .. } => self.config.standby && self.runs_elsewhere(),
            // A server that is away while one waits comes back.
            StoreError::Away { .. } => waits,
            _ => false,
        }
    }

    fn leader(&self, refused: &StoreError) -> Leads {
        let words = match refused {
            StoreError::Locked { .. } => return Leads { readable: true, ..folder_leader(self.config) },
            // Where the database is, is for those who run it.
            StoreError::Held { holder, .. } => {
                format!("this is a standby: {holder} leads and holds the job table; this one takes over when it ends")
            }
            _ => "this is a standby, and the database is away".to_owned(),
        };
        Leads { words, readable: true }
    }

    async fn free(&self, refused: &StoreError) -> Result<(), StoreError> {
        let left = match refused {
            StoreError::Locked { .. } => return sqlite::free(&self.config.data).await,
            StoreError::Held { left, .. } => *left,
            _ => LOOK.1,
        };
        // It is given back early, too.
        tokio::time::sleep(left.clamp(LOOK.0, LOOK.1)).await;
        Ok(())
    }

    fn reading(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::reading(self.address.clone()))
    }

    fn has_folder(&self) -> bool {
        self.ours.is_some()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_identity_and_no_two_have_the_same() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = identity(one.path()).unwrap();
        assert_eq!(identity(one.path()).unwrap(), first);
        assert_ne!(identity(other.path()).unwrap(), first);
        std::fs::write(one.path().join(IDENTITY), "\n").unwrap();
        assert_ne!(identity(one.path()).unwrap(), first, "what a full disk left is not one");
    }
}
