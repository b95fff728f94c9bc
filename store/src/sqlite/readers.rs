//! Connections for reading: a few, opened when first needed, on threads that may block.
//!
//! They see what was committed when their transaction began, and wait for nobody: that is what the write-ahead log gives. Their
//! transactions are short, because a log that somebody still reads from cannot be begun anew.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::connect;
use super::fault::At;
use super::raw::{Connection, RawError};
use crate::StoreError;

/// Connections at most, and so reads at one time.
const MOST: u32 = 4;

/// A pool of read-only connections.
pub(super) struct Readers {
    path: Arc<PathBuf>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), permits: Arc::new(Semaphore::new(MOST as usize)), idle: Arc::default() }
    }

    /// The file.
    pub(super) fn path(&self) -> Arc<PathBuf> {
        Arc::clone(&self.path)
    }

    /// Runs `work` on one snapshot of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed { op })?;
        let (path, idle) = (Arc::clone(&self.path), Arc::clone(&self.idle));
        let reading = tokio::task::spawn_blocking(move || {
            // Given back last, when the connection is idle again or closed.
            let _permit = permit;
            let at = At { op, path: &path };
            let unused = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut db = match unused {
                Some(db) => db,
                None => connect::open(&connect::read_options(&path)).map_err(|error| at.sqlx(&error, 0))?,
            };
            let done = snapshot(&mut db, work);
            // A connection that failed is closed: the next one starts afresh.
            if done.is_ok() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            }
            done.map_err(|error| match error {
                ReadError::Sqlite(error) => at.sqlite(error),
                ReadError::Store(error) => error,
            })
        });
        reading.await.unwrap_or_else(|error| Err(At { op, path: &self.path }.other(error.to_string())))
    }

    /// Waits for the reads under way, refuses further ones and closes the connections.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(MOST).await {
            self.permits.close();
            drop(all);
        }
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        // To be dropped is to wait for sqlx's thread. An error says that the runtime is ending, and then they are dropped as well.
        let _ = tokio::task::spawn_blocking(move || drop(idle)).await;
    }
}

/// Why a read failed: SQLite, or what was asked for.
pub(super) enum ReadError {
    Sqlite(RawError),
    Store(StoreError),
}

impl From<RawError> for ReadError {
    fn from(error: RawError) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn snapshot<T>(db: &mut Connection, work: impl FnOnce(&mut Connection) -> Result<T, ReadError>) -> Result<T, ReadError> {
    db.execute("BEGIN", &[])?;
    let value = work(db)?;
    db.execute("COMMIT", &[])?;
    Ok(value)
}
