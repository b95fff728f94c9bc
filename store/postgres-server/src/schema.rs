//! A schema of its own for each test: as good as a database, and made in a moment.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

/// An empty schema. In a server that is not ours it is removed when this is dropped.
#[derive(Debug)]
pub struct Schema {
    server: String,
    name: String,
    remove: bool,
}

impl Schema {
    pub(crate) fn create(server: &str, remove: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("flash_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let schema = Self { server: server.to_owned(), name, remove };
        schema
            .run(&format!("CREATE SCHEMA {}", schema.name))
            .unwrap_or_else(|error| panic!("making a schema for a test: {error}"));
        schema
    }

    /// The address whose sessions have it as their schema.
    pub fn url(&self) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{separator}options[search_path]={}", self.server, self.name)
    }

    /// Runs SQL in it.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn execute(&self, sql: &str) {
        self.run_here(sql);
    }

    /// Runs SQL in it; of each row that is answered the first column, which has to be a text.
    ///
    /// # Panics
    /// If the server refuses it, or answers something else.
    pub fn ask(&self, sql: &str) -> Vec<String> {
        let texts: Result<_, _> = self.run_here(sql).iter().map(|row| row.try_get(0)).collect();
        texts.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn run_here(&self, sql: &str) -> Vec<PgRow> {
        let sql = format!("SET search_path = {}; {sql}", self.name);
        self.run(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn run(&self, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
        let (server, sql) = (self.server.clone(), sql.to_owned());
        // On a thread of its own: the caller may be inside of a runtime.
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(sqlx::Error::Io)?;
            runtime.block_on(async {
                let mut connection = sqlx::PgConnection::connect(&server).await?;
                let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
                connection.close().await?;
                Ok(rows)
            })
        };
        std::thread::spawn(run).join().unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if self.remove {
            // Whoever lent the server finds the schema otherwise: its name says what it is.
            let _ = self.run(&format!("DROP SCHEMA {} CASCADE", self.name));
        }
    }
}
