//! A real PostgreSQL for tests: a server of their own on a Unix socket, or one that is named.
//!
//! What must hold: a server and its folder end with the process that started it, however that ends; what is not there is said plainly,
//! with how to get it, and is a failure where it is required; every test has a schema of its own.

mod programs;
mod schema;
mod server;

use std::io::Write as _;
use std::sync::OnceLock;

pub use programs::{Missing, Programs};
pub use schema::Schema;
pub use server::Server;

/// Where tests find a server that is there already.
const URL: &str = "FLASH_TEST_POSTGRES_URL";

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// PostgreSQL is not installed.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A file or a process could not be made.
    #[error("{op}")]
    Io {
        /// What was being done.
        op: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program of PostgreSQL said no.
    #[error("{program}: {said}")]
    Refused {
        /// Which one.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

/// A schema for a test in the server of this process, or in that of `FLASH_TEST_POSTGRES_URL`. `None`, and a line on standard error,
/// where there is none and neither `FLASH_TEST_POSTGRES=required` nor `CI` says that this is a failure.
///
/// # Panics
/// If a server is required and is not to be had, or if one could not be started.
pub fn schema_for_test(what: &str) -> Option<Schema> {
    static SHARED: OnceLock<Result<Server, ServerError>> = OnceLock::new();
    if let Ok(url) = std::env::var(URL) {
        return Some(Schema::create(&url, true));
    }
    SHARED.get_or_init(Server::start).as_ref().map_or_else(|error| absent(what, error), |server| Some(server.schema()))
}

/// A server that a test may kill. `None` as with [`schema_for_test`].
///
/// # Panics
/// As [`schema_for_test`].
pub fn server_for_test(what: &str) -> Option<Server> {
    Server::start().map_or_else(|error| absent(what, &error), Some)
}

fn absent<T>(what: &str, error: &ServerError) -> Option<T> {
    let is_set = |name: &str, wanted: &[&str]| std::env::var(name).is_ok_and(|value| wanted.contains(&value.as_str()));
    let required = is_set("FLASH_TEST_POSTGRES", &["required"]) || is_set("CI", &["1", "true"]);
    match error {
        ServerError::Missing(missing) if !required => {
            // Not by a macro: the test harness hides what those print when a test passes. Where nobody reads, nobody is told.
            let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {missing}");
            None
        }
        error => panic!("{what}: no PostgreSQL: {error}: {:?}", std::error::Error::source(error)),
    }
}
