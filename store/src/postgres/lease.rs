//! The lease: one row that says whose term it is and until when, by the server's clock.
//!
//! What must hold: a term is begun only where the one before was given back, has run out, or was of the same holder (whose process is gone:
//! it held the lock of its data folder, which we hold now). The holder renews by every transaction and, where there are none, by a third of the
//! lease. The lease alone keeps nobody from writing: each transaction is compared with the term ([`super::writer`]). The number of a term grows while it
//! lasts, where somebody else counts with us; never that of another's.

use std::time::Duration;

use scheduler_core::ids::{Revision, Seq, Term};
use scheduler_core::time::Timestamp;
use sqlx::postgres::{PgConnection, PgRow};

use super::PostgresOptions;
use super::connect::Address;
use super::fault::Fault;
use super::row::{get, number};
use super::value::kept;
use super::writer::Writer;
use crate::codec::signed;
use crate::{Head, StoreError};

static BEGIN_TERM: &str = include_str!("queries/begin_term.sql");
static HOLDER: &str = include_str!("queries/holder.sql");
static RENEW: &str = include_str!("queries/renew.sql");
static RELEASE: &str = include_str!("queries/release.sql");
static RAISE_TERM: &str = include_str!("queries/raise_term.sql");

/// What the server says when a lock was not to be had in time.
const LOCK_TIMEOUT: &str = "55P03";

/// Where the table stands, as its one row says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) head: Head,
    /// Transactions that were ever committed.
    pub(super) commits: i64,
}

/// The columns of `head.sql`.
pub(super) fn standing(row: &PgRow) -> Result<Standing, Fault> {
    let head = Head {
        term: Term(number(row, 0)?),
        last_seq: Seq(number(row, 2)?),
        last_revision: Revision(number(row, 3)?),
        floor: Revision(number(row, 4)?),
    };
    Ok(Standing { head, commits: get(row, 1)? })
}

/// A duration as the queries take it.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Begins the next term, durably.
///
/// # Errors
/// [`StoreError::Held`] while another holder's lease lasts.
pub(super) async fn begin_term(
    db: &mut PgConnection,
    address: &Address,
    options: &PostgresOptions,
    now: Timestamp,
) -> Result<Term, StoreError> {
    let at = address.at("begin a term");
    let asked = sqlx::query(BEGIN_TERM)
        .bind(kept(&options.holder))
        .bind(kept(&options.holder_name))
        .bind(now.0)
        .bind(millis(options.lease))
        .fetch_optional(&mut *db)
        .await;
    let begun = match asked {
        // It is locked: the holder is in the middle of a transaction, whatever the clock says.
        Err(error) if error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some(LOCK_TIMEOUT) => {
            None
        }
        asked => asked.map_err(|error| at.sqlx(error))?,
    };
    if let Some(row) = begun {
        return number(&row, 0).map(Term).map_err(|fault| at.fault(fault));
    }
    let held = sqlx::query(HOLDER).fetch_optional(db).await.map_err(|error| at.sqlx(error))?;
    let held = held.ok_or_else(|| at.corrupt("the table meta is empty"))?;
    let (holder, left) = super::row::name(&held, 0)
        .and_then(|name| Ok((name.to_string(), number::<u64>(&held, 1)?)))
        .map_err(|fault| at.fault(fault))?;
    Err(StoreError::Held { subject: address.to_string(), holder, left: Duration::from_millis(left) })
}

/// Renews the lease; false where the term has ended.
pub(super) async fn renew(db: &mut PgConnection, term: Term, lease: Duration) -> Result<bool, Fault> {
    let renewed = sqlx::query(RENEW).bind(signed(term.0)).bind(millis(lease)).execute(db).await?;
    Ok(renewed.rows_affected() == 1)
}

/// Gives the lease back: who comes next need not wait.
pub(super) async fn release(db: &mut PgConnection, term: Term) -> Result<(), Fault> {
    sqlx::query(RELEASE).bind(signed(term.0)).execute(db).await?;
    Ok(())
}

impl Writer {
    /// Raises the number of this term to `least`, unless it is that large.
    pub(super) async fn raise_term(&mut self, least: Term) -> Result<Term, StoreError> {
        const OP: &str = "raise the term";
        self.ready(OP).await?;
        let (raised, after) = (self.term.max(least), self.standing());
        let raise = async |writer: &mut Self, db: &mut PgConnection| {
            // Known before it is asked for: the answer may be lost.
            writer.raising = Some(raised);
            sqlx::query(RAISE_TERM).bind(signed(writer.term.0)).bind(signed(raised.0)).execute(db).await?;
            Ok(())
        };
        self.transaction(OP, after, raise).await?;
        self.raising = None;
        self.term = raised;
        Ok(raised)
    }
}
