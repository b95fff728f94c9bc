//! Lifecycles as columns and back.
//!
//! One encoding for the tables of jobs and of events. Reading is strict: a row that no [`Lifecycle`] could have made is damage.

use std::ffi::c_int;
use std::sync::Arc;

use scheduler_core::ids::{Attempt, JobId};
use scheduler_core::state::{JobState, Lifecycle, Outcome, Placement, StateKind, StopReason, WaitFor};
use scheduler_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::raw::{Arg, RawError, Row};
use crate::OutcomeKind;

/// The columns `state, attempt, lost, state_at, placement, outcome, detail`; the migration says what each holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Columns {
    pub(super) state: StateKind,
    pub(super) attempt: Attempt,
    pub(super) lost: u32,
    pub(super) state_at: Option<i64>,
    /// Of the state, so only while it holds resources.
    pub(super) placement: Option<String>,
    pub(super) outcome: Option<OutcomeKind>,
    pub(super) detail: Option<String>,
}

/// Core types as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, RawError> {
    serde_json::to_string(value).map_err(|error| RawError::corrupt(format!("cannot be written as JSON: {error}")))
}

/// JSON that [`json`] has written.
pub(super) fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, RawError> {
    serde_json::from_str(text).map_err(|error| RawError::corrupt(format!("{what} cannot be read: {error}")))
}

/// A job's identity.
pub(super) fn job_id(bytes: &[u8]) -> Result<JobId, RawError> {
    Uuid::from_slice(bytes).map(JobId).map_err(|error| RawError::corrupt(format!("a job id cannot be read: {error}")))
}

/// The state with this number.
pub(super) fn state_kind(number: i64) -> Result<StateKind, RawError> {
    usize::try_from(number)
        .ok()
        .and_then(|index| StateKind::ALL.get(index).copied())
        .ok_or_else(|| RawError::corrupt(format!("no state has number {number}")))
}

impl Columns {
    pub(super) fn of(lifecycle: &Lifecycle) -> Result<Self, RawError> {
        let mut columns = Self {
            state: lifecycle.state.kind(),
            attempt: lifecycle.attempt,
            lost: lifecycle.lost,
            state_at: None,
            placement: lifecycle.state.placement().map(json).transpose()?,
            outcome: None,
            detail: None,
        };
        match &lifecycle.state {
            JobState::Waiting { on: WaitFor::Hold } | JobState::Starting { .. } => {}
            JobState::Waiting { on: WaitFor::NotBefore(time) } => columns.state_at = Some(time.0),
            JobState::Queued { since } | JobState::Running { since, .. } => columns.state_at = Some(since.0),
            JobState::Stopping { why, deadline, .. } => {
                columns.state_at = Some(deadline.0);
                columns.detail = Some(json(why)?);
            }
            JobState::Finished { outcome, at } => {
                columns.state_at = Some(at.0);
                columns.outcome = Some(OutcomeKind::from(&**outcome));
                if **outcome != Outcome::Succeeded {
                    columns.detail = Some(json(outcome)?);
                }
            }
        }
        Ok(columns)
    }

    /// When the tasks of the run that this state speaks of started, where it says so.
    pub(super) fn started_at(&self) -> Option<i64> {
        self.state_at.filter(|_| self.state == StateKind::Running)
    }

    /// The values in the order of the columns.
    pub(super) fn args(&self) -> [Arg<'_>; 7] {
        [
            Arg::Int(self.state as i64),
            Arg::Int(i64::from(self.attempt.0)),
            Arg::Int(i64::from(self.lost)),
            self.state_at.into(),
            self.placement.as_deref().into(),
            self.outcome.map(|outcome| outcome as i64).into(),
            self.detail.as_deref().into(),
        ]
    }
}

/// Reads the seven columns that begin at `first`.
pub(super) fn lifecycle(row: &Row, first: c_int) -> Result<Lifecycle, RawError> {
    let at = |what: &str| {
        row.opt_int(first + 3)?.map(Timestamp).ok_or_else(|| RawError::corrupt(format!("a job that is {what} has no time")))
    };
    let placement = || -> Result<Arc<Placement>, RawError> {
        let text = row.opt_text(first + 4)?.ok_or_else(|| RawError::corrupt("a job that holds resources has no placement"))?;
        Ok(Arc::new(parse("a placement", text)?))
    };
    let state = match state_kind(row.int(first)?)? {
        StateKind::Waiting => {
            JobState::Waiting { on: row.opt_int(first + 3)?.map_or(WaitFor::Hold, |time| WaitFor::NotBefore(Timestamp(time))) }
        }
        StateKind::Queued => JobState::Queued { since: at("queued")? },
        StateKind::Starting => JobState::Starting { placement: placement()? },
        StateKind::Running => JobState::Running { placement: placement()?, since: at("running")? },
        StateKind::Stopping => JobState::Stopping {
            placement: placement()?,
            why: Box::new(parse::<StopReason>("a stop reason", row.text(first + 6)?)?),
            deadline: at("stopping")?,
        },
        StateKind::Finished => JobState::Finished {
            outcome: Box::new(match row.opt_text(first + 6)? {
                None => Outcome::Succeeded,
                Some(text) => parse("an outcome", text)?,
            }),
            at: at("finished")?,
        },
    };
    Ok(Lifecycle { state, attempt: Attempt(row.number(first + 1)?), lost: row.number(first + 2)? })
}
