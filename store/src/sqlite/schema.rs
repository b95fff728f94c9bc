//! Opening the database file: settings, migrations, and the beginning of a term.
//!
//! Migrations only go forward, each in its own transaction; `PRAGMA user_version` counts them. A database that counts further than
//! this binary is left alone.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use scheduler_core::ids::{Revision, Seq, Term};
use scheduler_core::time::Timestamp;

use super::SqliteOptions;
use super::fault::At;
use super::raw::{Arg, Connection, Mode, RawError};
use crate::{Head, StoreError};

/// `flsh`: says whose database this file is (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x666c_7368;

/// SQLite's own bound of a database, in pages.
pub(super) const MOST_PAGES: u32 = 4_294_967_294;

/// Every migration, in order; number `i + 1` makes version `i + 1`.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/sqlite/0001_job_table.sql")];

static APPLICATION: &str = "PRAGMA application_id";
static VERSION: &str = "PRAGMA user_version";
static OBJECTS: &str = "SELECT count(*) FROM sqlite_schema";
static JOURNAL: &str = "PRAGMA journal_mode = WAL";
static BEGIN_TERM: &str = include_str!("queries/begin_term.sql");
static HEAD: &str = include_str!("queries/head.sql");

/// Opens the writer's connection and brings the schema up to date.
///
/// WAL with synchronous=FULL: a commit is an append and one fdatasync. Larger steps between checkpoints write hot pages less often;
/// the checkpoint runs on the writer's own thread, because the log grows without bound when it has to catch up from another one.
pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let at = At { op: "open", path };
    // Made here and not by SQLite, so that nobody else can read specs, which may hold secrets. SQLite gives its log the same mode.
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|error| at.io(&error))?;
    let mut db = Connection::open(path, Mode::Write).map_err(|error| at.sqlite(error))?;
    let version = recognise(&mut db, path)?;
    let configure = |db: &mut Connection| {
        let mode = db.first(JOURNAL, &[], |row| Ok(row.text(0)?.to_owned()))?;
        if mode.as_deref() != Some("wal") {
            return Err(RawError::corrupt(format!("the journal mode is {mode:?}, WAL was asked for")));
        }
        db.batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{}; \
             PRAGMA wal_autocheckpoint = 10000; PRAGMA journal_size_limit = 67108864; PRAGMA max_page_count = {};",
            options.cache_kib,
            options.max_pages.unwrap_or(MOST_PAGES),
        ))
    };
    configure(&mut db).map_err(|error| at.sqlite(error))?;
    migrate(&mut db, path, version)?;
    Ok(db)
}

/// The schema version of the file, 0 if it is new.
fn recognise(db: &mut Connection, path: &Path) -> Result<usize, StoreError> {
    let at = At { op: "open", path };
    let mut number = |sql| db.first(sql, &[], |row| row.int(0)).map(Option::unwrap_or_default).map_err(|error| at.sqlite(error));
    let (objects, application, version) = (number(OBJECTS)?, number(APPLICATION)?, number(VERSION)?);
    if objects > 0 && application != APPLICATION_ID {
        let detail = "it is a database of another program".to_owned();
        return Err(StoreError::Corrupt { op: at.op, subject: path.display().to_string(), detail });
    }
    let known = MIGRATIONS.len();
    usize::try_from(version).ok().filter(|&version| version <= known).ok_or_else(|| StoreError::Newer {
        subject: path.display().to_string(),
        found: version,
        known: known as i64,
    })
}

fn migrate(db: &mut Connection, path: &Path, version: usize) -> Result<(), StoreError> {
    for (done, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let at = At { op: "migrate", path };
        let next = done + 1;
        tracing::info!(database = %path.display(), version = next, "migrating the database");
        // The statement that fails leaves the transaction open; the caller drops the connection, which rolls it back.
        db.batch(&format!(
            "BEGIN IMMEDIATE; {migration}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {next}; COMMIT;"
        ))
        .map_err(|error| at.sqlite(error))?;
    }
    Ok(())
}

/// Begins the term after the stored one, durably, and reads where the table stands.
pub(super) fn begin_term(db: &mut Connection, path: &Path, now: Timestamp) -> Result<Head, StoreError> {
    let at = At { op: "begin a term", path };
    db.execute(BEGIN_TERM, &[Arg::Int(now.0)]).map_err(|error| at.sqlite(error))?;
    head(db).map_err(|error| at.sqlite(error))
}

/// Where the table stands, as it says itself.
pub(super) fn head(db: &mut Connection) -> Result<Head, RawError> {
    db.first(HEAD, &[], |row| {
        Ok(Head {
            term: Term(row.number(0)?),
            last_seq: Seq(row.number(1)?),
            last_revision: Revision(row.number(2)?),
            floor: Revision(row.number(3)?),
        })
    })?
    .ok_or_else(|| RawError::corrupt("the table meta is empty"))
}
