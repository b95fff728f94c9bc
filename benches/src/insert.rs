//! Bound for batches: what SQLite itself does with the very rows that a daemon wrote, when nothing else has to be done.
//!
//! A daemon takes the jobs first. Its tables of jobs, specs and events are then copied into a fresh database of the same schema, so
//! many rows a statement, one transaction a batch, durable as the daemon's are (WAL, synchronous=FULL). The rows come out of memory
//! and no value is bound or made, so no way of inserting them can be cheaper by much.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use crate::LoopOptions;
use crate::closed_loop::load;
use crate::connection::Dialect;
use crate::server::{Server, ServerOptions};
use crate::stats::per_second;

/// What a submit writes to, with the key that is counted up.
const TABLES: [(&str, &str); 3] = [("jobs", "seq"), ("specs", "seq"), ("events", "revision")];
/// Jobs in a request to the daemon.
const BATCH: u64 = 1_000;

/// The statements that make the daemon's tables, and the columns of those that a submit writes to.
async fn schema(from: &Path) -> Result<Vec<String>> {
    let options = SqliteConnectOptions::new().filename(from).read_only(true);
    let mut source = SqliteConnection::connect_with(&options).await.with_context(|| format!("opening {}", from.display()))?;
    let rows = source
        .fetch_all("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx_%'")
        .await
        .context("reading the schema")?;
    rows.iter().map(|row| row.try_get::<String, _>(0).context("reading the schema")).collect()
}

/// A fresh database of the same schema, with the source's rows in memory beside it.
async fn prepare(from: &Path, to: &Path) -> Result<SqliteConnection> {
    let statements = schema(from).await?;
    let options = SqliteConnectOptions::new()
        .filename(to)
        .create_if_missing(true)
        .foreign_keys(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", "-65536")
        .pragma("wal_autocheckpoint", "10000");
    let mut target = SqliteConnection::connect_with(&options).await.with_context(|| format!("creating {}", to.display()))?;
    // The statements are those of the daemon's own file.
    for statement in statements {
        target.execute(AssertSqlSafe(statement)).await.context("creating a table")?;
    }
    sqlx::query("ATTACH DATABASE ? AS source")
        .bind(from.to_string_lossy().as_ref())
        .execute(&mut target)
        .await
        .context("attaching")?;
    for (table, key) in TABLES {
        // Its rows are numbered from 1, in this order.
        let copy = format!("CREATE TEMP TABLE staged_{table} AS SELECT * FROM source.{table} ORDER BY {key}");
        target.execute(AssertSqlSafe(copy)).await.with_context(|| format!("staging {table}"))?;
    }
    target.execute("DETACH DATABASE source").await.context("detaching")?;
    Ok(target)
}

/// Inserts the first `jobs` rows of each table, `chunk` a transaction.
async fn insert(target: &mut SqliteConnection, jobs: u64, chunk: u64) -> Result<f64> {
    let begun = Instant::now();
    let mut done = 0;
    while done < jobs {
        let next = (done + chunk).min(jobs);
        target.execute("BEGIN IMMEDIATE").await.context("beginning a transaction")?;
        for (table, _) in TABLES {
            let statement = format!(
                "INSERT INTO main.{table} SELECT * FROM temp.staged_{table} WHERE rowid > {done} AND rowid <= {next} ORDER BY rowid"
            );
            target.execute(AssertSqlSafe(statement)).await.with_context(|| format!("inserting into {table}"))?;
        }
        target.execute("COMMIT").await.context("committing")?;
        done = next;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Measures `jobs` jobs, `chunk` a transaction.
pub(crate) fn run(jobs: u64, chunk: u64, options: &ServerOptions) -> Result<Value> {
    let (jobs, chunk) = (jobs.max(BATCH) / BATCH * BATCH, chunk.max(1));
    let mut server = Server::open(options)?;
    if server.name != "flashd" {
        bail!("the rows are those of a daemon of our own: without --server and --bare");
    }
    server.hold_node()?;
    let fill = LoopOptions { connections: 2, requests: Some((jobs / BATCH).max(2)), warmup: Some(1), threads: 1, seed: 3 };
    let (filled, _) = load(&server.client, &fill, Dialect::Batch(BATCH as usize))?;
    if filled["errors"] != 0 {
        bail!("the daemon refused jobs: {}", filled["first_error"]);
    }
    server.stop();
    let from = server.data()?.join("flash.db");
    let to = server.data()?.join("bound.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let seconds = runtime.block_on(async {
        let mut target = prepare(&from, &to).await?;
        let seconds = insert(&mut target, jobs, chunk).await?;
        let rows = target.fetch_one("SELECT count(*) FROM main.jobs").await.context("counting")?;
        let count: i64 = rows.try_get(0).context("counting")?;
        if u64::try_from(count).ok() != Some(jobs) {
            bail!("{count} of {jobs} rows were inserted");
        }
        target.close().await.context("closing the database")?;
        Ok(seconds)
    })?;
    Ok(json!({"mode": "insert", "jobs": jobs, "chunk": chunk, "seconds": seconds, "jobs_per_s": per_second(jobs, seconds)}))
}
