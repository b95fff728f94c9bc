//! Opening the job table: SQLite in the data folder, or a PostgreSQL.
//!
//! What must hold: of one data folder there is one daemon, wherever the table is; in PostgreSQL it is the same holder of the lease again after
//! a restart, because the folder has an identity, and whoever has the folder's lock is the only one to use it. Where another daemon
//! holds the table, a daemon whose jobs run in a cluster waits as its standby. One with processes of its own machine does not: the holder's
//! jobs run on on the holder's machine, and would be started here again.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use store::sqlite::SqliteStore;
use store::{Address, FolderLock, PostgresOptions, PostgresStore, Store, StoreError};

use crate::config::Config;
use crate::config::values::ExecutorKind;
use crate::serve::Signals;
use crate::waiting::Waiting;
use crate::{clock, standby};

/// How long others wait for a holder that is not heard of.
const LEASE: Duration = Duration::from_secs(15);
/// Longest pause of a standby between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The file with the identity of a data folder.
const IDENTITY: &str = "instance";

/// An open job table, and what came with it.
pub(crate) struct Table {
    pub(crate) store: Arc<dyn Store>,
    /// Where terms of a Lease are remembered, where that is the table's own count too. A PostgreSQL has a lease of its own.
    pub(crate) terms: Option<Arc<SqliteStore>>,
    /// The TCP door that a standby had open.
    pub(crate) tcp: Option<std::net::TcpListener>,
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
    /// Opens it, and begins a term; nothing where it was told to end meanwhile. Where another daemon holds it this may take long: one that may
    /// wait answers meanwhile that it is there.
    pub(crate) async fn open(config: &Config, signals: &mut Signals) -> anyhow::Result<Option<Self>> {
        let Some(address) = config.store.address()? else {
            let opened = standby::open(config, signals).await?;
            return Ok(opened.map(|(store, tcp)| {
                let store = Arc::new(store);
                Self { store: store.clone(), terms: Some(store), tcp, lock: None }
            }));
        };
        tokio::select! {
            table = Self::postgres(config, address) => Ok(Some(table?)),
            name = signals.next() => {
                tracing::info!(signal = name, "ending before the job table was open");
                Ok(None)
            }
        }
    }

    async fn postgres(config: &Config, address: Address) -> anyhow::Result<Self> {
        let lock = FolderLock::take(&config.data)?;
        let holder = identity(&config.data).with_context(|| format!("identity of the data folder {}", config.data.display()))?;
        let machine = executors::node::inventory().hostname;
        let holder_name = format!("{machine} (pid {})", std::process::id());
        let options = PostgresOptions { address, holder, holder_name, lease: LEASE };
        let waits = config.executors.first().copied().is_some_and(ExecutorKind::is_cluster);
        let mut standby: Option<Waiting> = None;
        loop {
            let held = match PostgresStore::open(options.clone(), clock::now()).await {
                Ok(store) => {
                    if let Some(standby) = standby {
                        standby.end().await;
                    }
                    return Ok(Self { store: Arc::new(store), terms: None, tcp: None, lock: Some(lock) });
                }
                Err(error @ StoreError::Held { .. }) if waits => error,
                Err(error @ StoreError::Held { .. }) => {
                    return Err(anyhow!(error).context(
                        "its jobs run on its machine, so this daemon does not wait for it: stop the other one, or start the one with its data folder",
                    ));
                }
                // A server that is away while one waits comes back.
                Err(error @ StoreError::Away { .. }) if standby.is_some() => error,
                Err(error) => return Err(error.into()),
            };
            if let Some(standby) = &standby {
                standby.says(&held);
            } else {
                tracing::info!(reason = %held, "waiting as a standby");
                standby = Some(Waiting::begin(config, &held).await?);
            }
            let left = if let StoreError::Held { left, .. } = held { left } else { LOOK };
            tokio::time::sleep(left.clamp(Duration::from_millis(50), LOOK)).await;
        }
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
