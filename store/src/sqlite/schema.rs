//! Opening the database file: settings, migrations, and the beginning of a term.
//!
//! Before anything is changed, the file is looked at: another program's database and one that a newer binary has migrated are left
//! as they are. Migrations only go forward, each in its own transaction; sqlx applies them and keeps the table `_sqlx_migrations`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use futures_executor::block_on;
use scheduler_core::ids::{Revision, Seq, Term};
use scheduler_core::time::Timestamp;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqlSafeStr as _};

use super::fault::At;
use super::raw::{Arg, Connection, RawError, system_errno};
use super::readers::ReadError;
use super::{SqliteOptions, connect};
use crate::{Head, StoreError};

/// `flsh`: says whose database this file is (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x666c_7368;

/// SQLite's own bound of a database, in pages.
pub(super) const MOST_PAGES: u32 = 4_294_967_294;

/// Every migration as the version that it makes, its description and its SQL, in order. A number may be left out.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "job table", include_str!("../../../migrations/sqlite/0001_job_table.sql")),
    (2, "objects", include_str!("../../../migrations/sqlite/0002_objects.sql")),
    (3, "daemon notes", include_str!("../../../migrations/sqlite/0003_daemon_notes.sql")),
    (4, "cheaper check", include_str!("../../../migrations/sqlite/0004_cheaper_check.sql")),
    (5, "usage", include_str!("../../../migrations/sqlite/0005_usage.sql")),
    (7, "notices", include_str!("../../../migrations/sqlite/0007_notices.sql")),
];

const APPLICATION: &str = "PRAGMA application_id";
const OBJECTS: &str = "SELECT count(*) FROM sqlite_schema";
const MIGRATED: &str = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
const VERSION: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
const JOURNAL: &str = "PRAGMA journal_mode = WAL";
static BEGIN_TERM: &str = include_str!("queries/begin_term.sql");
static HEAD: &str = include_str!("queries/head.sql");

/// Why the database cannot be used: what sqlx said during an operation, or what was found.
enum Refusal {
    Sqlx(&'static str, sqlx::Error),
    Found(StoreError),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx("open", error)
    }
}

/// Opens the writer's connection and brings the schema up to date.
pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let at = At { op: "open", path };
    // Made here and not by SQLite, so that nobody else can read specs, which may hold secrets. SQLite gives its log the same mode.
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|error| at.io(&error))?;
    // Checkpoints far apart write hot pages less often. They run on the writer's own thread, because the log grows without bound
    // when it has to catch up from another one.
    let connect = connect::options(path).pragma("wal_autocheckpoint", "10000").pragma("journal_size_limit", "67108864");
    let mut db = block_on(connect.connect()).map_err(|error| at.sqlx(&error, 0))?;
    if let Err(refusal) = block_on(prepare(&mut db, path, options)) {
        let error = match refusal {
            Refusal::Sqlx(op, error) => At { op, path }.sqlx(&error, system_errno(&mut db)),
            Refusal::Found(error) => error,
        };
        // Waited for, because the caller gives the folder back. What is told is why it was refused.
        let _ = block_on(db.close());
        return Err(error);
    }
    Connection::take(db).map_err(|error| at.sqlx(&error, 0))
}

/// The version that all migrations together make.
pub(super) fn latest() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, ..)| *version)
}

/// Everything between the opening of the file and its use, through sqlx.
async fn prepare(db: &mut SqliteConnection, path: &Path, options: &SqliteOptions) -> Result<(), Refusal> {
    let at = At { op: "open", path };
    let (new, version) = recognise(db, path).await?;
    let mode: String = sqlx::query_scalar(JOURNAL).fetch_one(&mut *db).await?;
    if mode != "wal" {
        return Err(Refusal::Found(at.corrupt(format!("the journal mode is {mode}, WAL was asked for"))));
    }
    // WAL with synchronous=FULL: a commit is an append and one fdatasync.
    let (cache, pages) = (options.cache_kib, options.max_pages.unwrap_or(MOST_PAGES));
    let settings = format!("PRAGMA synchronous = FULL; PRAGMA cache_size = -{cache}; PRAGMA max_page_count = {pages};");
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *db).await?;
    if new {
        // Before the first table: a start that is cut off anywhere leaves a file that the next one recognises.
        let ours = format!("PRAGMA application_id = {APPLICATION_ID}");
        sqlx::raw_sql(AssertSqlSafe(ours)).execute(&mut *db).await?;
    }
    migrate(db, path, version).await
}

/// Whether the file is new, and the schema version in it (0 for none), if it is one to be opened.
async fn recognise(db: &mut SqliteConnection, path: &Path) -> Result<(bool, i64), Refusal> {
    let at = At { op: "open", path };
    let new = number(db, OBJECTS).await? == 0;
    if !new && number(db, APPLICATION).await? != APPLICATION_ID {
        return Err(Refusal::Found(at.corrupt("it is a database of another program")));
    }
    let version = if number(db, MIGRATED).await? == 0 { 0 } else { number(db, VERSION).await? };
    let known = latest();
    if version > known {
        let subject = path.display().to_string();
        return Err(Refusal::Found(StoreError::Newer { subject, found: version, known }));
    }
    Ok((new, version))
}

async fn number(db: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(sql).fetch_one(db).await
}

async fn migrate(db: &mut SqliteConnection, path: &Path, version: i64) -> Result<(), Refusal> {
    const OP: &str = "migrate";
    let at = At { op: OP, path };
    let known = latest();
    if version < known {
        tracing::info!(database = %path.display(), from = version, to = known, "migrating the database");
    }
    let migrations = MIGRATIONS.iter().map(|(version, description, sql)| {
        Migration::new(*version, (*description).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run(db).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Refusal::Sqlx(OP, error),
        MigrateError::VersionMismatch(_) | MigrateError::VersionMissing(_) | MigrateError::Dirty(_) => {
            Refusal::Found(at.corrupt(format!("its record of schema changes is not that of this binary: {error}")))
        }
        error => Refusal::Found(at.other(error.to_string())),
    })
}

/// Where a table stands, whoever writes it, if it is one of this version.
pub(super) fn readable(db: &mut Connection, path: &Path) -> Result<Head, ReadError> {
    let application = db.first(APPLICATION, &[], |row| row.int(0))?;
    if application != Some(APPLICATION_ID) {
        return Err(ReadError::Store(StoreError::NotMade { subject: path.display().to_string() }));
    }
    let (found, known) = (db.first(VERSION, &[], |row| row.int(0))?.unwrap_or(0), latest());
    if found != known {
        return Err(ReadError::Store(StoreError::OtherVersion { subject: path.display().to_string(), found, known }));
    }
    Ok(head(db)?)
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
