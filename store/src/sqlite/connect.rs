//! How sqlx opens a connection, for the writer and for readers alike.
//!
//! sqlx's driver for SQLite works on a thread of its own for each connection and needs no runtime, so a thread that may block waits
//! for it with a plain `block_on`.

use std::path::Path;
use std::time::Duration;

use futures_executor::block_on;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use super::raw::Connection;

/// How long a connection waits for another one's lock. Only a program from outside holds one for long.
const BUSY: Duration = Duration::from_secs(5);

/// What all connections to the file at `path`, which has to be there, have in common.
///
/// Nothing of it reads the file: sqlx closes a connection that it cannot set up, and with it goes what the system said. References
/// are not enforced, because the writer alone hands out the ids that they name.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    // From the root on, because SQLite would take a name that begins with `file:` for a URI.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).foreign_keys(false).pragma("temp_store", "MEMORY")
}

/// For reading only.
pub(super) fn read_options(path: &Path) -> SqliteConnectOptions {
    options(path).read_only(true).pragma("query_only", "ON").pragma("cache_size", "-8192")
}

/// Opens a connection and takes its handle over.
pub(super) fn open(options: &SqliteConnectOptions) -> Result<Connection, sqlx::Error> {
    block_on(options.connect()).and_then(Connection::take)
}
