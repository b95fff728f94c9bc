//! How the core says no: to a configuration, to a stored job, to a change of queues. To a new job: [`refused`](crate::scheduler::refused).

use crate::ids::{JobId, Name};
use crate::scheduler::config::{GPU_KIND_LIMIT, GPU_LIMIT, HEADS_LIMIT, QUEUE_PRIORITY_LIMIT, Resource};
use crate::time::Span;

/// Whose limit stands in the way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Whose {
    /// The namespace's within its queue.
    Tenant,
    /// The queue's.
    Queue,
    /// The cohort's pool.
    Cohort,
}

impl Whose {
    /// For people: `the namespace in this queue`, `the queue`, `the cohort`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "the namespace in this queue",
            Self::Queue => "the queue",
            Self::Cohort => "the cohort",
        }
    }
}

/// Why a queue, cohort or node cannot be changed so. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// It would not be a usable configuration.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// There is no such thing.
    #[error("\"{name}\" does not exist")]
    Unknown {
        /// What was asked for.
        name: Name,
    },
    /// A queue that still has jobs.
    #[error("queue \"{name}\" has {jobs} unfinished jobs, must have none")]
    HasJobs {
        /// The queue.
        name: Name,
        /// How many.
        jobs: u64,
    },
}

/// A configuration that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// Two queues of one name.
    #[error("queue \"{name}\" is configured twice")]
    DuplicateQueue {
        /// The name.
        name: Name,
    },
    /// Two nodes of one name.
    #[error("node \"{name}\" is configured twice")]
    DuplicateNode {
        /// The name.
        name: Name,
    },
    /// One GPU listed twice.
    #[error("GPU {uuid} is listed twice, last on node \"{node}\"")]
    DuplicateGpu {
        /// The GPU.
        uuid: Name,
        /// Where it was listed the second time.
        node: Name,
    },
    /// GPUs of more kinds than can be told apart on one node.
    #[error(
        "node \"{node}\": its GPUs are of {got} kinds (model, memory, MIG profile, size), at most {GPU_KIND_LIMIT} are possible"
    )]
    GpuKinds {
        /// The node.
        node: Name,
        /// How many there are.
        got: usize,
    },
    /// More GPUs than a node can have.
    #[error("node \"{node}\" has {got} GPUs, at most {GPU_LIMIT} are possible")]
    GpuCount {
        /// The node.
        node: Name,
        /// How many there are.
        got: usize,
    },
    /// A part of a GPU that is none.
    #[error("{uuid} is {got} thousandths of a GPU, 1 to 999 are possible")]
    GpuReplica {
        /// The part.
        uuid: Name,
        /// Its size.
        got: u32,
    },
    /// Two cohorts of one name.
    #[error("cohort \"{name}\" is configured twice")]
    DuplicateCohort {
        /// The name.
        name: Name,
    },
    /// A queue or a cohort is in a cohort that is not there.
    #[error("\"{of}\": cohort \"{cohort}\" does not exist")]
    UnknownCohort {
        /// The queue or cohort that names it.
        of: Name,
        /// What it names.
        cohort: Name,
    },
    /// A cohort is a part of itself.
    #[error("cohort \"{name}\": its parents lead back to it, must end at a cohort without a parent")]
    CohortLoop {
        /// The cohort.
        name: Name,
    },
    /// A cohort with a parent shares fairly by itself.
    #[error("cohort \"{name}\": it has a parent, only a cohort without one says how its queues take turns")]
    ShareBelowRoot {
        /// The cohort.
        name: Name,
    },
    /// A half-life out of range.
    #[error("\"{of}\": half-life of {} s is not between 1 second and 366 days", got.to_std().as_secs_f64())]
    HalfLife {
        /// The queue or cohort.
        of: Name,
        /// What was given.
        got: Span,
    },
    /// More is guaranteed than may be used.
    #[error("\"{of}\": {} {} guaranteed, its limit is {}", resource.in_words(*.guaranteed), resource.as_str(), resource.in_words(u128::from(*.limit)))]
    GuaranteeOverLimit {
        /// The queue; or the cohort whose queues have these guarantees together.
        of: Name,
        /// Of what.
        resource: Resource,
        /// The guarantee.
        guaranteed: u128,
        /// The limit.
        limit: u64,
    },
    /// A queue's base priority out of range.
    #[error("queue \"{queue}\": priority {got} is not within ±{QUEUE_PRIORITY_LIMIT}")]
    QueuePriority {
        /// The queue.
        queue: Name,
        /// What was given.
        got: i32,
    },
    /// A queue's ageing out of range.
    #[error("queue \"{queue}\": {} s per priority point is not between 1 microsecond and 7 days", got.to_std().as_secs_f64())]
    AgePerPoint {
        /// The queue.
        queue: Name,
        /// What was given.
        got: Span,
    },
    /// A rule for short jobs out of range.
    #[error(
        "queue \"{queue}\": short jobs first by {per_stay} times the stay and at most {} s, must be at least once and at most 366 days",
        most.to_std().as_secs_f64()
    )]
    ShortFirst {
        /// The queue.
        queue: Name,
        /// Times the stay.
        per_stay: u32,
        /// At most so much.
        most: Span,
    },
    /// Nothing could ever be looked at.
    #[error("scan_limit is 0, must be at least 1")]
    ScanLimit,
    /// No reservations, or more than a pass can work out in its time.
    #[error("conservative backfill with {got} reservations, must be 1 to {HEADS_LIMIT}")]
    Heads {
        /// What was configured.
        got: u32,
    },
}

/// Why a stored job cannot be taken over. The table is damaged, or was written by something else.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// It is there already.
    #[error("restore job {job}: it is in the core already")]
    Duplicate {
        /// The job.
        job: JobId,
    },
    /// It is finished: the core has nothing to do for it.
    #[error("restore job {job}: it is finished")]
    Finished {
        /// The job.
        job: JobId,
    },
    /// No tasks, or a placement that is not one slot for every task.
    #[error("restore job {job}: {detail}")]
    Malformed {
        /// The job.
        job: JobId,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// Two jobs with one GPU.
    #[error("restore job {job}: GPU {uuid} is taken by job {owner}")]
    GpuTaken {
        /// The job.
        job: JobId,
        /// The GPU.
        uuid: Name,
        /// Who has it.
        owner: JobId,
    },
}
