//! The schema: what is there, who may change it, and bringing it up to date.
//!
//! Migrations only go forward, each in its own transaction; sqlx applies them under a lock of the database and keeps the table
//! `_sqlx_migrations`. A table that a newer binary has migrated is left as it is, and one that another daemon holds is not migrated.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;

use super::connect::Address;
use super::fault::Fault;
use crate::StoreError;

/// Every migration as its description and its SQL, in order; number `i + 1` makes version `i + 1`.
const MIGRATIONS: &[(&str, &str)] = &[
    ("initial", include_str!("../../../migrations/postgres/0001_initial.sql")),
    ("notices", include_str!("../../../migrations/postgres/0002_notices.sql")),
];

const MIGRATED: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
const VERSION: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";

/// The version of the schema that is there, 0 for none.
pub(super) async fn version(db: &mut PgConnection, address: &Address) -> Result<i64, StoreError> {
    let at = address.at("open");
    let migrated: bool = sqlx::query_scalar(MIGRATED).fetch_one(&mut *db).await.map_err(|error| at.sqlx(error))?;
    let found: i64 = if migrated { sqlx::query_scalar(VERSION).fetch_one(db).await.map_err(|error| at.sqlx(error))? } else { 0 };
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { subject: address.to_string(), found, known });
    }
    Ok(found)
}

/// Refuses to read what was made by another version, or is not made yet.
pub(super) async fn readable(db: &mut PgConnection, address: &Address) -> Result<(), StoreError> {
    let (found, known) = (version(db, address).await?, MIGRATIONS.len() as i64);
    match found {
        0 => Err(StoreError::NotMade { subject: address.to_string() }),
        _ if found != known => Err(StoreError::OtherVersion { subject: address.to_string(), found, known }),
        _ => Ok(()),
    }
}

/// Brings the schema up to date.
pub(super) async fn migrate(db: &mut PgConnection, address: &Address, found: i64) -> Result<(), StoreError> {
    let at = address.at("migrate");
    let known = MIGRATIONS.len() as i64;
    if found < known {
        tracing::info!(database = %address, from = found, to = known, "migrating the database");
    }
    let migrations = (1..).zip(MIGRATIONS).map(|(version, (description, sql))| {
        Migration::new(version, (*description).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run(db).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => at.fault(Fault::Sqlx(error)),
        MigrateError::VersionMismatch(_) | MigrateError::VersionMissing(_) | MigrateError::Dirty(_) => {
            at.corrupt(format!("its record of schema changes is not that of this binary: {error}"))
        }
        error => at.other(error.to_string()),
    })
}
