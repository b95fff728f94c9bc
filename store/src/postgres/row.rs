//! Columns of rows as core types.

use bytes::Bytes;
use scheduler_core::ids::{JobId, Name, Revision, Seq};
use scheduler_core::state::Lifecycle;
use scheduler_core::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row as _, Type};

use super::fault::Fault;
use super::value::{Id, told};
use crate::codec::{Damage, Stored, parse};
use crate::{JobRecord, Owner};

/// A value of this column.
pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, column: usize) -> Result<T, Fault> {
    Ok(row.try_get(column)?)
}

/// A number of another type than the database's.
pub(super) fn number<T: TryFrom<i64>>(row: &PgRow, column: usize) -> Result<T, Fault> {
    let value: i64 = get(row, column)?;
    T::try_from(value).map_err(|_| Damage(format!("column {column} is out of range: {value}")).into())
}

/// A text that may have had a NUL in it.
pub(super) fn name(row: &PgRow, column: usize) -> Result<Name, Fault> {
    Ok(Name::from(&*told(get(row, column)?)))
}

pub(super) fn job_id(row: &PgRow, column: usize) -> Result<JobId, Fault> {
    Ok(get::<Id>(row, column)?.0)
}

pub(super) fn time(row: &PgRow, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp))
}

/// The columns `username, uid`.
pub(super) fn owner(row: &PgRow, first: usize) -> Result<Owner, Fault> {
    Ok(Owner { user: name(row, first)?, uid: number(row, first + 1)? })
}

/// The columns `state, attempt, lost, state_at, placement, detail`.
pub(super) fn lifecycle(row: &PgRow, first: usize) -> Result<Lifecycle, Fault> {
    let stored = Stored {
        state: get(row, first)?,
        attempt: get(row, first + 1)?,
        lost: get(row, first + 2)?,
        state_at: get(row, first + 3)?,
        placement: get(row, first + 4)?,
        detail: get(row, first + 5)?,
    };
    Ok(stored.lifecycle()?)
}

/// The columns of `jobs_by_id.sql` and `jobs_by_seq.sql`.
pub(super) fn job(row: &PgRow) -> Result<JobRecord, Fault> {
    let placement: Option<&str> = get(row, 11)?;
    Ok(JobRecord {
        id: job_id(row, 0)?,
        seq: Seq(number(row, 1)?),
        namespace: name(row, 2)?,
        queue: name(row, 3)?,
        owner: owner(row, 4)?,
        name: name(row, 6)?,
        lifecycle: lifecycle(row, 7)?,
        revision: Revision(number(row, 13)?),
        submitted_at: Timestamp(get(row, 14)?),
        start_after: time(row, 15)?,
        started_at: time(row, 16)?,
        last_placement: placement.map(|text| parse("a placement", text)).transpose()?,
        spec: Bytes::copy_from_slice(get(row, 17)?),
    })
}

/// A SHA-256.
pub(super) fn hash(row: &PgRow, column: usize) -> Result<[u8; 32], Fault> {
    get::<&[u8]>(row, column)?.try_into().map_err(|_| Damage::new("a hash has not 32 bytes").into())
}
