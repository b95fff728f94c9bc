//! Lifecycles as columns of SQLite and back: [`crate::codec`] over its rows and parameters.

use std::ffi::c_int;

use scheduler_core::ids::JobId;
use scheduler_core::state::{Lifecycle, StateKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::raw::{Arg, RawError, Row};
pub(super) use crate::codec::Columns;
use crate::codec::{self, Damage, Stored};

impl From<Damage> for RawError {
    fn from(damage: Damage) -> Self {
        Self::corrupt(damage.0)
    }
}

/// Core types as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, RawError> {
    Ok(codec::json(value)?)
}

/// JSON that [`json`] has written.
pub(super) fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, RawError> {
    Ok(codec::parse(what, text)?)
}

/// A job's identity.
pub(super) fn job_id(bytes: &[u8]) -> Result<JobId, RawError> {
    Ok(codec::job_id(bytes)?)
}

/// The state with this number.
pub(super) fn state_kind(number: i64) -> Result<StateKind, RawError> {
    Ok(codec::state_kind(number)?)
}

/// Numbers of ours as SQLite has them.
pub(super) fn int(number: u64) -> Arg<'static> {
    Arg::Int(codec::signed(number))
}

/// The values of [`Columns`] in the order of the columns.
pub(super) fn args(columns: &Columns) -> [Arg<'_>; 7] {
    [
        Arg::Int(columns.state as i64),
        Arg::Int(i64::from(columns.attempt.0)),
        Arg::Int(i64::from(columns.lost)),
        columns.state_at.into(),
        columns.placement.as_deref().into(),
        columns.outcome.map(|outcome| outcome as i64).into(),
        columns.detail.as_deref().into(),
    ]
}

/// Reads the seven columns that begin at `first`.
pub(super) fn lifecycle(row: &Row, first: c_int) -> Result<Lifecycle, RawError> {
    let stored = Stored {
        state: row.int(first)?,
        attempt: row.int(first + 1)?,
        lost: row.int(first + 2)?,
        state_at: row.opt_int(first + 3)?,
        placement: row.opt_text(first + 4)?,
        detail: row.opt_text(first + 6)?,
    };
    Ok(stored.lifecycle()?)
}
