//! Why a job is where it is: the answer of `GET /jobs/{id}/why`.
//!
//! What must hold: `reason` is a stable word, and each reason has exactly its own figures; amounts are texts as in requests (`"500m"`,
//! `"4Gi"`, `"2"`); every `message` is a whole sentence for people, whose times are RFC 3339 words that a client may put into its own zone.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::job::{Outcome, PlacedTask, State};
use crate::quantity::Duration;
use crate::shortfall::Shortfall;

/// Why a job is where it is, or what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The job.
    pub job: Uuid,
    /// Its number.
    pub number: u64,
    /// Where it stands.
    pub state: State,
    /// The reason, with its figures.
    #[serde(flatten)]
    pub reason: Reason,
    /// The reason as a person would give it.
    pub message: String,
    /// Its queue.
    pub queue: String,
    /// Its place in its queue, from 1, while it is queued. Where namespaces take turns, those whose turn comes before count as one job each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Jobs that are queued there, while it is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// The first of those that are ahead of it in its queue, in order. There are `position - 1` in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<Ahead>,
    /// When it starts, while it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// What would let it start at once, everything else being equal: the smallest change of each kind that was found. Each was tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<Suggestion>,
    /// Its tries that have ended, oldest first, as far as events are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

/// Why, in a word, and the figures that belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "reason", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reason {
    /// Somebody has to release it.
    Held,
    /// Its time has not come.
    NotBefore {
        /// When it joins its queue.
        #[schema(value_type = String, format = DateTime)]
        at: jiff::Timestamp,
    },
    /// Infrastructure lost its run, and there is a pause before the next.
    Backoff {
        /// When it joins its queue.
        #[schema(value_type = String, format = DateTime)]
        at: jiff::Timestamp,
        /// Runs that were lost so far.
        lost: u32,
        /// The loss of so many is final.
        max_attempts: u32,
    },
    /// It could not start even if nothing else ran.
    Never {
        /// What is in the way.
        detail: String,
    },
    /// There are no nodes.
    NoNodes,
    /// It has room only on nodes that take no tasks now: cordoned, draining or lost ones.
    NodesClosed {
        /// The first of them.
        nodes: Vec<String>,
        /// How many more there are.
        more: u64,
    },
    /// It has room only with GPUs that are set aside now: used by others, sick, drained.
    GpusAside {
        /// The first of them.
        gpus: Vec<AsideGpu>,
        /// How many more there are.
        more: u64,
    },
    /// Too little is free, and it is the first for which room is kept.
    Resources {
        /// What it lacks.
        shortfall: Shortfall,
        /// When it starts at the latest, by the time limits of what runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, format = DateTime)]
        expected_start: Option<jiff::Timestamp>,
    },
    /// Others are ahead of it, and it does not fit beside them.
    Behind {
        /// The first of them that everybody waits for.
        first: Ahead,
        /// What it would lack itself.
        shortfall: Shortfall,
        /// When it starts at the latest, where it has a reservation of its own behind the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, format = DateTime)]
        expected_start: Option<jiff::Timestamp>,
    },
    /// It would fit, and could delay one who is ahead and for whom room is kept.
    Reservation {
        /// Who that is.
        first: Ahead,
        /// How many others have reservations behind that one; it may be one of them that would be delayed.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: u64,
        /// When that job starts at the latest; absent where no time limits tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, format = DateTime)]
        at: Option<jiff::Timestamp>,
        /// The longest time that this job may hold its resources: time limit and grace. Absent where it has no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stay: Option<Duration>,
    },
    /// A limit keeps it back, whatever is free.
    Limit {
        /// `tenant`, `queue` or `cohort`.
        whose: String,
        /// The name of that namespace, queue or cohort.
        of: String,
        /// `jobs`, `cpu`, `memory` or `gpu`.
        counted: String,
        /// What is held.
        held: String,
        /// What the job asks for.
        asked: String,
        /// What may be held.
        limit: String,
    },
    /// It keeps all limits, and what is left of one is kept for somebody ahead of it.
    KeptBack {
        /// Who that is.
        first: Ahead,
        /// `tenant`, `queue` or `cohort`.
        whose: String,
        /// The name of that namespace, queue or cohort.
        of: String,
        /// `jobs`, `cpu`, `memory` or `gpu`.
        counted: String,
    },
    /// Runs are being ended for it.
    MakingRoom {
        /// These.
        victims: Vec<JobRef>,
        /// When the last of them is killed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, format = DateTime)]
        until: Option<jiff::Timestamp>,
    },
    /// It is about to start.
    Scheduling,
    /// Its tasks are being started.
    Starting {
        /// Where.
        placement: Vec<PlacedTask>,
    },
    /// Its tasks run.
    Running {
        /// Since when.
        #[schema(value_type = String, format = DateTime)]
        since: jiff::Timestamp,
        /// When its time limit ends it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, format = DateTime)]
        until: Option<jiff::Timestamp>,
        /// Where.
        placement: Vec<PlacedTask>,
        /// Whose jobs may have it ended to make room: `queue` (higher priority in its queue), `cohort` (who claim what it borrowed), `otherQueues`
        /// (of higher base priority).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        preemptible_by: Vec<String>,
    },
    /// It is being ended.
    Stopping {
        /// `cancelled`, `timeLimit`, `requeued` or `preempted`.
        cause: String,
        /// Who asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// The job that it makes room for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_job: Option<JobRef>,
        /// When whatever is left of it is killed.
        #[schema(value_type = String, format = DateTime)]
        deadline: jiff::Timestamp,
    },
    /// It is over.
    Finished {
        /// How.
        outcome: Outcome,
        /// When.
        #[schema(value_type = String, format = DateTime)]
        at: jiff::Timestamp,
        /// From its submission to the start of its tasks, or to its end if they never started.
        waited: Duration,
        /// From the start of its latest run's tasks to its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ran: Option<Duration>,
    },
}

impl Reason {
    /// The word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotBefore { .. } => "notBefore",
            Self::Backoff { .. } => "backoff",
            Self::Never { .. } => "never",
            Self::NoNodes => "noNodes",
            Self::NodesClosed { .. } => "nodesClosed",
            Self::GpusAside { .. } => "gpusAside",
            Self::Resources { .. } => "resources",
            Self::Behind { .. } => "behind",
            Self::Reservation { .. } => "reservation",
            Self::Limit { .. } => "limit",
            Self::KeptBack { .. } => "keptBack",
            Self::MakingRoom { .. } => "makingRoom",
            Self::Scheduling => "scheduling",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Finished { .. } => "finished",
        }
    }
}

/// A GPU that is promised to nobody now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AsideGpu {
    /// Its UUID.
    pub uuid: String,
    /// Its node.
    pub node: String,
    /// Why it is not.
    pub reason: String,
}

/// A job by both of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobRef {
    /// Its id.
    pub id: Uuid,
    /// Its number; absent where the job is kept no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// A job that is ahead of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ahead {
    /// Which.
    #[serde(flatten)]
    pub job: JobRef,
    /// Its namespace.
    pub namespace: String,
    /// Its queue.
    pub queue: String,
    /// By what rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// The rule as a person would give it.
    pub message: String,
}

/// By what rule one job is ahead of another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "rule", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Rule {
    /// Its priority, with that of its queue, is higher.
    Priority {
        /// Its own.
        theirs: i64,
        /// That of the job in question.
        own: i64,
    },
    /// It has waited so long that this outweighs its priority.
    Age,
    /// It came first.
    Fifo,
    /// Its namespace has had less of all nodes than its weighted share.
    TenantShare {
        /// The part of its namespace, divided by the weight.
        theirs: f64,
        /// That of the namespace of the job in question.
        own: f64,
    },
    /// Its queue has had less of all nodes than its weighted share.
    QueueShare {
        /// The part of its queue, divided by the weight.
        theirs: f64,
        /// That of the queue of the job in question.
        own: f64,
    },
    /// It stays within what its queue is guaranteed, and the job in question would borrow.
    Guarantee,
}

/// What an estimate rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// The next pass starts it.
    NextPass,
    /// `notBefore` is the time that it waits for; it may wait in its queue after that.
    WaitsForTime,
    /// `latest` follows from the time limits of what runs, and of what starts before it, if nothing that goes before it is submitted.
    TimeLimits,
    /// Nobody knows: `blockedBy` has no time limit.
    NoTimeLimit,
    /// So much happens before that it was not worked out to the end.
    TooFar,
    /// Somebody has to release it.
    Release,
    /// It starts only if nodes or limits change.
    Change,
}

/// When a job starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// What is known.
    pub basis: Basis,
    /// It does not start before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<jiff::Timestamp>,
    /// It starts then or earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub latest: Option<jiff::Timestamp>,
    /// The job without whose end it does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<JobRef>,
    /// As a person would say it.
    pub message: String,
}

/// A change that would let the job start at once, if it was submitted so instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suggestion {
    /// Path of the field to change: `tasks[0].resources.gpu`, `tasks[0].replicas`, `minAvailable`, `timeLimit`, `queue`.
    pub field: String,
    /// What to write there.
    pub value: String,
    /// The option of `flash submit` that says so, where there is one for this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// The nodes that it would start on.
    pub nodes: Vec<String>,
    /// As a person would say it.
    pub message: String,
}

/// A try that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Which, from 1.
    pub attempt: u32,
    /// When its tasks started; absent if they did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<jiff::Timestamp>,
    /// When it was over.
    #[schema(value_type = String, format = DateTime)]
    pub ended_at: jiff::Timestamp,
    /// `succeeded`, `failed`, `cancelled`, `lost`, `requeued` or `preempted`.
    pub end: String,
    /// The job that it made room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_job: Option<JobRef>,
    /// As a person would say it.
    pub message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
pub(crate) const fn is_zero(number: &u64) -> bool {
    *number == 0
}
