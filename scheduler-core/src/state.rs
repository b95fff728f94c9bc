//! Where a job stands. One variant a state, each holding exactly that state's data.
//!
//! Only [`apply`](crate::apply::apply) makes a new [`Lifecycle`] from an old one. A finished job never changes again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::{Attempt, JobId, Name};
use crate::time::Timestamp;

/// One task on one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// Index into [`Shape::tasks`](crate::job::Shape::tasks).
    pub group: u16,
    /// Which replica of that group, from 0.
    pub replica: u32,
    /// The node.
    pub node: Name,
    /// UUIDs of the GPUs that are this task's alone.
    pub gpus: SmallVec<[Name; 1]>,
}

/// Which task goes where, ordered by (group, replica); one slot for every task that starts: all of them, or at least as many as
/// [`Shape::min_available`](crate::job::Shape::min_available) says, the first replicas of each group.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Placement {
    /// The slots.
    pub slots: Vec<Slot>,
}

/// What a waiting job waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WaitFor {
    /// Somebody has to release it.
    Hold,
    /// This time has to come (`startAfter`, or the pause before another attempt).
    NotBefore(Timestamp),
}

/// Why a run is being ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopReason {
    /// A user asked for it.
    Cancel {
        /// Who.
        by: Name,
    },
    /// It ran longer than its `timeLimit`.
    TimeLimit,
    /// A user wants it to start over; it is queued again.
    Requeue {
        /// Who.
        by: Name,
    },
    /// What it runs on is not fit for it any more: it counts as lost by infrastructure.
    Evicted {
        /// What happened.
        message: Name,
    },
    /// It makes room for another job; it is queued again.
    #[serde(rename_all = "camelCase")]
    Preempted {
        /// That job.
        by: JobId,
        /// From when its age counts again: what it had waited for is not lost.
        age_from: Timestamp,
    },
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Every task ended with exit code 0.
    Succeeded,
    /// It did not do what its user wanted.
    Failed {
        /// Why.
        reason: FailReason,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Who.
        by: Name,
    },
}

/// Why a job failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FailReason {
    /// A task ended with this code, which is not 0.
    ExitCode {
        /// `group` or `group-replica`.
        task: Name,
        /// 1 to 255.
        code: i32,
    },
    /// A task was ended by this signal, which the scheduler did not send.
    Signal {
        /// `group` or `group-replica`.
        task: Name,
        /// Its number.
        signal: i32,
    },
    /// It ran longer than its `timeLimit`.
    TimeLimit,
    /// It could not be started as asked: no such program, not executable, no such working folder. Trying again would not help.
    Start {
        /// What was tried and what the system said.
        message: Name,
    },
    /// Infrastructure lost it more often than `retry.maxAttempts` allows.
    Infrastructure {
        /// What happened last.
        message: Name,
    },
}

/// The state itself. A placement never changes while it is held, so whoever speaks of it shares it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobState {
    /// Not in its queue yet.
    Waiting {
        /// For what.
        on: WaitFor,
    },
    /// In its queue.
    Queued {
        /// Since when its age counts.
        since: Timestamp,
    },
    /// Placed; the start order may have left the house.
    Starting {
        /// Where.
        placement: Arc<Placement>,
    },
    /// Its tasks run.
    Running {
        /// Where.
        placement: Arc<Placement>,
        /// Since when.
        since: Timestamp,
    },
    /// The order to end it may have left the house. Its resources are still taken.
    Stopping {
        /// Where.
        placement: Arc<Placement>,
        /// Why it is ended.
        why: Box<StopReason>,
        /// When whatever is left of it is killed.
        deadline: Timestamp,
    },
    /// For good.
    Finished {
        /// How.
        outcome: Box<Outcome>,
        /// When.
        at: Timestamp,
    },
}

/// [`JobState`] without its data: what is compared, counted and stored in columns. The numbers are kept in databases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum StateKind {
    /// See [`JobState::Waiting`].
    Waiting = 0,
    /// See [`JobState::Queued`].
    Queued = 1,
    /// See [`JobState::Starting`].
    Starting = 2,
    /// See [`JobState::Running`].
    Running = 3,
    /// See [`JobState::Stopping`].
    Stopping = 4,
    /// See [`JobState::Finished`].
    Finished = 5,
}

impl StateKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Waiting, Self::Queued, Self::Starting, Self::Running, Self::Stopping, Self::Finished];

    /// The wire word: `waiting`, `queued`, `starting`, `running`, `stopping`, `finished`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

impl JobState {
    /// Which state it is.
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Waiting { .. } => StateKind::Waiting,
            Self::Queued { .. } => StateKind::Queued,
            Self::Starting { .. } => StateKind::Starting,
            Self::Running { .. } => StateKind::Running,
            Self::Stopping { .. } => StateKind::Stopping,
            Self::Finished { .. } => StateKind::Finished,
        }
    }

    /// Where it is placed, in the states that hold resources.
    pub fn placement(&self) -> Option<&Placement> {
        self.shared_placement().map(|placement| &**placement)
    }

    /// As [`placement`](Self::placement), for whoever keeps it.
    pub fn shared_placement(&self) -> Option<&Arc<Placement>> {
        match self {
            Self::Starting { placement } | Self::Running { placement, .. } | Self::Stopping { placement, .. } => Some(placement),
            Self::Waiting { .. } | Self::Queued { .. } | Self::Finished { .. } => None,
        }
    }
}

/// All that changes about a job, together: what `apply` takes and gives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Where it stands.
    pub state: JobState,
    /// The latest try; it grows by one with every placement.
    pub attempt: Attempt,
    /// How many tries infrastructure lost; compared with [`Policy::max_attempts`](crate::job::Policy::max_attempts).
    pub lost: u32,
}
