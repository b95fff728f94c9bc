//! The contract suite on SQLite, and a real process that is killed while it commits.
#![expect(clippy::unwrap_used, reason = "tests")]

mod contract;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
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
    let mut known = (0, 0);
    // Killed after another number of acknowledgements each time; each life goes on where the one before was cut off.
    for lines in [1, 2, 3, 5, 8, 13, 21, 34] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_child", "--nocapture", "--test-threads=1"])
            .env(CRASH_FOLDER, folder.0.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut seen = String::new();
        let mut counted = 0;
        while counted < lines {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended by itself");
            // The test harness prints lines of its own first.
            if line.starts_with(|first: char| first.is_ascii_digit()) {
                counted += 1;
                seen.push_str(&line);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        output.read_to_string(&mut seen).unwrap();
        let acknowledged = crash::acknowledged(&seen);
        assert!(acknowledged > known, "it went on where it was cut off");
        known = acknowledged;
        let store = folder.open().await.unwrap();
        crash::check(&*store, known).await;
        store.close().await;
    }
}
