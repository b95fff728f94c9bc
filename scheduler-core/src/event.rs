//! What can happen to a job, and what follows from it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::{Attempt, JobId, Name, RunId, Seq};
use crate::job::{Policy, StopPolicy};
use crate::state::{FailReason, Lifecycle, Placement, StateKind, StopReason};
use crate::time::Timestamp;

/// How a run ended, as an executor saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunResult {
    /// Every task ended with exit code 0.
    Succeeded,
    /// The user's program failed, or could not be started as asked.
    Failed {
        /// [`FailReason::ExitCode`], [`FailReason::Signal`] or [`FailReason::Start`].
        reason: FailReason,
    },
    /// It ended, or is gone, for a reason that is not the user's: runner killed, machine rebooted, log folder unwritable.
    Lost {
        /// What happened.
        message: Name,
    },
}

/// What happens to a job. Reports carry the attempt they speak of, so that one that comes late changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// A user holds it.
    Hold {
        /// Who.
        by: Name,
    },
    /// A user releases it.
    Release {
        /// Who.
        by: Name,
        /// `startAfter` of the job, which still counts.
        not_before: Option<Timestamp>,
    },
    /// A user changes where it waits and how it is treated. It keeps its age.
    Update {
        /// Who.
        by: Name,
        /// The queue from now on.
        queue: Name,
        /// The whole policy from now on.
        policy: Arc<Policy>,
    },
    /// The time that it waited for has come.
    Due,
    /// The planner gives it a place.
    Place {
        /// Where.
        placement: Arc<Placement>,
    },
    /// The executor says that its tasks run.
    Started {
        /// Which try.
        attempt: Attempt,
        /// When its first task was started.
        at: Timestamp,
    },
    /// The executor says that the run is over and that nothing of it is left.
    Ended {
        /// Which try.
        attempt: Attempt,
        /// How.
        result: RunResult,
        /// When its last task ended.
        at: Timestamp,
        /// If this was lost and is tried again: not before this time. Given from outside, because it is jittered.
        retry_at: Timestamp,
    },
    /// The executor says that the run never began and never will: no process of it was made.
    NotBegun {
        /// Which try.
        attempt: Attempt,
        /// When that was settled.
        at: Timestamp,
        /// Not to be placed before this time: it has been in vain, and what it would hold meanwhile others can use. Given from outside.
        #[serde(default)]
        retry_at: Timestamp,
    },
    /// A user cancels it.
    Cancel {
        /// Who.
        by: Name,
    },
    /// A user wants a run to start over.
    Requeue {
        /// Who.
        by: Name,
    },
    /// What it runs on is not fit for it any more: a GPU is sick or gone. Its run ends and counts as lost by infrastructure.
    Evict {
        /// What happened.
        message: Name,
    },
    /// Something about its run has to be known to its user: it goes on as it is.
    Warn {
        /// What.
        message: Name,
    },
    /// It holds GPUs and leaves them idle, for longer than it may.
    Idle {
        /// For how long, and how much it may.
        message: Name,
    },
    /// Its time limit is over.
    TimeLimit,
    /// The planner ends its run to make room for another job.
    #[serde(rename_all = "camelCase")]
    Preempt {
        /// That job.
        by: JobId,
        /// From when its age counts when it is queued again.
        age_from: Timestamp,
    },
}

/// What must be done outside once a transition is durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Start this run. Where its tasks go stands in the new state.
    Start {
        /// The run.
        run: RunId,
    },
    /// End this run.
    Stop {
        /// The run.
        run: RunId,
        /// How.
        policy: StopPolicy,
    },
    /// Take this run back if it has not begun.
    Withdraw {
        /// The run.
        run: RunId,
    },
    /// The end of this run is on record; the executor may forget it.
    Forget {
        /// The run.
        run: RunId,
    },
}

/// A change that has been made in the core and is not durable yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The job.
    pub job: JobId,
    /// Its submission sequence: the key of the hot table.
    pub seq: Seq,
    /// What it changed from: the compare side of the store's compare-and-set.
    pub from: (StateKind, Attempt),
    /// What it is now.
    pub to: Lifecycle,
    /// What made it so.
    pub event: Event,
    /// When it was decided.
    pub at: Timestamp,
    /// What must be done once it is durable.
    pub effects: SmallVec<[Effect; 1]>,
}

/// Why an event changed nothing. Nothing else happened either.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejected {
    /// The core does not have this job: it never existed or it is finished.
    #[error("job is not in the active table")]
    Unknown,
    /// The job is finished.
    #[error("job is finished")]
    Finished,
    /// It speaks of another attempt than the present one.
    #[error("speaks of attempt {got}, the present one is {present}")]
    StaleAttempt {
        /// The job's attempt.
        present: Attempt,
        /// The event's.
        got: Attempt,
    },
    /// It cannot happen in this state.
    #[error("not possible while {}", state.as_str())]
    NotInState {
        /// The job's state.
        state: StateKind,
    },
    /// It is so already; asking again changes nothing and is not a fault.
    #[error("already {}", state.as_str())]
    AlreadySo {
        /// The job's state.
        state: StateKind,
    },
}

impl Event {
    /// The word under which it is recorded and shown: `held`, `released`, `updated`, `due`, `placed`, `started`, `ended`, `notBegun`,
    /// `cancelled`, `requeued`, `evicted`, `warned`, `idle`, `timeLimit`, `preempted`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Hold { .. } => "held",
            Self::Release { .. } => "released",
            Self::Update { .. } => "updated",
            Self::Due => "due",
            Self::Place { .. } => "placed",
            Self::Started { .. } => "started",
            Self::Ended { .. } => "ended",
            Self::NotBegun { .. } => "notBegun",
            Self::Cancel { .. } => "cancelled",
            Self::Requeue { .. } => "requeued",
            Self::Evict { .. } => "evicted",
            Self::Warn { .. } => "warned",
            Self::Idle { .. } => "idle",
            Self::TimeLimit => "timeLimit",
            Self::Preempt { .. } => "preempted",
        }
    }

    /// Why a run has to end because of this event, where it is such an event.
    pub fn stop_reason(&self) -> Option<StopReason> {
        match self {
            Self::Cancel { by } => Some(StopReason::Cancel { by: by.clone() }),
            Self::Requeue { by } => Some(StopReason::Requeue { by: by.clone() }),
            Self::Evict { message } => Some(StopReason::Evicted { message: message.clone() }),
            Self::Idle { message } => Some(StopReason::Idle { message: message.clone() }),
            Self::TimeLimit => Some(StopReason::TimeLimit),
            Self::Preempt { by, age_from } => Some(StopReason::Preempted { by: *by, age_from: *age_from }),
            Self::Hold { .. }
            | Self::Release { .. }
            | Self::Update { .. }
            | Self::Due
            | Self::Warn { .. }
            | Self::Place { .. }
            | Self::Started { .. }
            | Self::Ended { .. }
            | Self::NotBegun { .. } => None,
        }
    }
}
