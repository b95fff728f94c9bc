//! The contract suite on a real PostgreSQL, and a real process that is killed while it commits.
//!
//! Where there is no PostgreSQL each test says so and passes; see `CONTRIBUTING.md`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod contract;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Fixture, build, contract_suite, crash};
use postgres_server::{Schema, schema_for_test};
use store::{PostgresOptions, PostgresStore, Store, StoreError};

/// How one daemon opens it, again and again.
fn options(url: &str) -> PostgresOptions {
    PostgresOptions {
        address: url.parse().unwrap(),
        holder: "test".to_owned(),
        holder_name: "a test".to_owned(),
        lease: Duration::from_secs(15),
    }
}

struct Database(Schema);

#[async_trait]
impl Fixture for Database {
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(PostgresStore::open(options(&self.0.url()), build::at(0)).await?))
    }

    fn reading(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::reading(self.0.url().parse().unwrap()))
    }
}

contract_suite!(match schema_for_test("the contract suite on PostgreSQL") {
    Some(schema) => Database(schema),
    None => return,
});

const CRASH_URL: &str = "STORE_TEST_CRASH_URL";

/// Not a test of its own: what the test below runs in a process that it kills.
#[tokio::test]
async fn crash_child() {
    let Ok(url) = std::env::var(CRASH_URL) else { return };
    let store = PostgresStore::open(options(&url), build::at(0)).await.unwrap();
    crash::commit_forever(&store).await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_kill_9() {
    let Some(schema) = schema_for_test("what was acknowledged outlives kill -9") else { return };
    crash::kill_again_and_again((CRASH_URL, schema.url().as_ref()), &Database(schema)).await;
}
