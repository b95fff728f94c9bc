//! Where a job stands. One variant a state, each holding exactly that state's data.
//!
//! Only [`apply`](crate::apply::apply) makes a new [`Lifecycle`] from an old one. A finished job never changes again.

use std::fmt;
use std::sync::Arc;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::amounts::{CpuMillis, GpuShare, MemoryBytes};
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
    /// UUIDs of its GPUs: this task's alone, unless it has a share.
    pub gpus: SmallVec<[Name; 1]>,
    /// How much of its one GPU it has, where that is not all of it. Its memory is what is promised of this very GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<GpuShare>,
}

/// A run's place in the line of its node: whoever makes it real begins it as soon as what the line has in use leaves room for it within
/// these limits, in the order in which runs were ordered. What a line has in use is never more than the largest limits of its runs that have
/// not ended, and never more than these ask for together; so much is set aside for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Most processor time that the line may have in use once this run has begun.
    pub cpu: CpuMillis,
    /// Most memory, likewise.
    pub memory: MemoryBytes,
    /// From when the job's age counts if the run never begins.
    pub since: Timestamp,
    /// There was no room for it when it was ordered: it waits for those before it.
    pub ahead: bool,
}

/// Which task goes where, ordered by (group, replica); one slot for every task that starts: all of them, or at least as many as
/// [`Shape::min_available`](crate::job::Shape::min_available) says, the first replicas of each group.
///
/// As JSON it is the list of its slots, or an object where it has a line.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Placement {
    /// The slots.
    pub slots: Vec<Slot>,
    /// Its place in the line of its node, where it has one: then all tasks are on that node, and none has a GPU.
    pub line: Option<Line>,
}

impl Serialize for Placement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(line) = &self.line else { return self.slots.serialize(serializer) };
        let mut object = serializer.serialize_struct("Placement", 2)?;
        object.serialize_field("slots", &self.slots)?;
        object.serialize_field("line", line)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Placement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

/// Reads a placement in either form.
struct Either;

#[derive(Deserialize)]
struct Lined {
    slots: Vec<Slot>,
    line: Line,
}

impl<'de> Visitor<'de> for Either {
    type Value = Placement;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of slots, or an object with slots and a line")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Placement, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Placement::new)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Placement, A::Error> {
        let Lined { slots, line } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Placement { slots, line: Some(line) })
    }
}

impl Placement {
    /// One that is in no line.
    pub const fn new(slots: Vec<Slot>) -> Self {
        Self { slots, line: None }
    }

    /// It waits, or waited, for those before it in its line.
    pub fn is_ahead(&self) -> bool {
        self.line.is_some_and(|line| line.ahead)
    }
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
