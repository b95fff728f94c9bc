//! The contract suite on SQLite, and a real process that is killed while it commits.
#![expect(clippy::unwrap_used, reason = "tests")]

mod contract;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use contract::{Fixture, build, contract_suite, crash};
use store::{SqliteStore, Store, StoreError};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Fixture for Folder {
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(SqliteStore::open(self.0.path(), build::at(0)).await?))
    }

    fn reading(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::reading(self.0.path()))
    }
}

contract_suite!(Folder::new());

const CRASH_FOLDER: &str = "STORE_TEST_CRASH_FOLDER";

/// Not a test of its own: what the test below runs in a process that it kills.
#[tokio::test]
async fn crash_child() {
    let Some(folder) = std::env::var_os(CRASH_FOLDER) else { return };
    let store = SqliteStore::open(Path::new(&folder), build::at(0)).await.unwrap();
    crash::commit_forever(&store).await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_kill_9() {
    let folder = Folder::new();
    crash::kill_again_and_again((CRASH_FOLDER, folder.0.path().as_os_str()), &folder).await;
}
