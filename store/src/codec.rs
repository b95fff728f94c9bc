//! Lifecycles and core types as values of columns and back, the same for every database.
//!
//! One encoding for the tables of jobs and of events. Reading is strict: a row that no [`Lifecycle`] could have made is damage.

use std::sync::Arc;

use scheduler_core::ids::{Attempt, JobId};
use scheduler_core::state::{JobState, Lifecycle, Outcome, Placement, StateKind, StopReason, WaitFor};
use scheduler_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::OutcomeKind;

/// A value that this program cannot have written, or that it cannot write.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damage(pub(crate) String);

impl Damage {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Core types as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Damage> {
    serde_json::to_string(value).map_err(|error| Damage(format!("cannot be written as JSON: {error}")))
}

/// JSON that [`json`] has written.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, Damage> {
    serde_json::from_str(text).map_err(|error| Damage(format!("{what} cannot be read: {error}")))
}

/// A job's identity.
pub(crate) fn job_id(bytes: &[u8]) -> Result<JobId, Damage> {
    Uuid::from_slice(bytes).map(JobId).map_err(|error| Damage(format!("a job id cannot be read: {error}")))
}

/// The state with this number.
pub(crate) fn state_kind(number: i64) -> Result<StateKind, Damage> {
    usize::try_from(number)
        .ok()
        .and_then(|index| StateKind::ALL.get(index).copied())
        .ok_or_else(|| Damage(format!("no state has number {number}")))
}

/// Numbers of ours begin at 0 and grow by one: they end long before this conversion could.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What a job is compared with and found as, for people.
pub(crate) fn standing(state: StateKind, attempt: i64) -> String {
    format!("{} in attempt {attempt}", state.as_str())
}

/// The columns `state, attempt, lost, state_at, placement, outcome, detail`; the migrations say what each holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Columns {
    pub(crate) state: StateKind,
    pub(crate) attempt: Attempt,
    pub(crate) lost: u32,
    pub(crate) state_at: Option<i64>,
    /// Of the state, so only while it holds resources.
    pub(crate) placement: Option<String>,
    pub(crate) outcome: Option<OutcomeKind>,
    pub(crate) detail: Option<String>,
}

impl Columns {
    pub(crate) fn of(lifecycle: &Lifecycle) -> Result<Self, Damage> {
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
    pub(crate) fn started_at(&self) -> Option<i64> {
        self.state_at.filter(|_| self.state == StateKind::Running)
    }
}

/// What a row says of a lifecycle. The outcome's number repeats what its detail says and is not read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) state: i64,
    pub(crate) attempt: i64,
    pub(crate) lost: i64,
    pub(crate) state_at: Option<i64>,
    pub(crate) placement: Option<&'a str>,
    pub(crate) detail: Option<&'a str>,
}

impl Stored<'_> {
    /// The lifecycle that was written so.
    pub(crate) fn lifecycle(&self) -> Result<Lifecycle, Damage> {
        let at = |what: &str| self.state_at.map(Timestamp).ok_or_else(|| Damage(format!("a job that is {what} has no time")));
        let placement = || -> Result<Arc<Placement>, Damage> {
            let text = self.placement.ok_or_else(|| Damage::new("a job that holds resources has no placement"))?;
            Ok(Arc::new(parse("a placement", text)?))
        };
        let state = match state_kind(self.state)? {
            StateKind::Waiting => {
                JobState::Waiting { on: self.state_at.map_or(WaitFor::Hold, |time| WaitFor::NotBefore(Timestamp(time))) }
            }
            StateKind::Queued => JobState::Queued { since: at("queued")? },
            StateKind::Starting => JobState::Starting { placement: placement()? },
            StateKind::Running => JobState::Running { placement: placement()?, since: at("running")? },
            StateKind::Stopping => {
                let why = self.detail.ok_or_else(|| Damage::new("a job that is stopping says not why"))?;
                JobState::Stopping {
                    placement: placement()?,
                    why: Box::new(parse::<StopReason>("a stop reason", why)?),
                    deadline: at("stopping")?,
                }
            }
            StateKind::Finished => JobState::Finished {
                outcome: Box::new(match self.detail {
                    None => Outcome::Succeeded,
                    Some(text) => parse("an outcome", text)?,
                }),
                at: at("finished")?,
            },
        };
        let count =
            |name: &str, number: i64| u32::try_from(number).map_err(|_| Damage(format!("{name} is out of range: {number}")));
        Ok(Lifecycle { state, attempt: Attempt(count("attempt", self.attempt)?), lost: count("lost", self.lost)? })
    }
}
