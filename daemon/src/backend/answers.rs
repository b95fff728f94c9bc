//! The core's answers as the edge needs them.

use scheduler_core::ids::{JobId, Name};
use scheduler_core::time::Timestamp;

/// What a node has a finite amount of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Resource {
    /// Processor time in thousandths of a core.
    Cpu,
    /// Memory in bytes.
    Memory,
    /// Whole GPUs.
    Gpu,
}

/// A resource of which there is too little free for a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// Which.
    pub resource: Resource,
    /// What all tasks of the job ask for together.
    pub asked: u128,
    /// What is free over all nodes.
    pub free: u128,
    /// What all nodes have.
    pub total: u128,
    /// The most that one task asks for.
    pub largest_task: u64,
    /// The most that is free on one node.
    pub largest_free: u64,
}

/// Why a job does not run, or that it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Somebody has to release it.
    Held,
    /// It waits for this time.
    NotBefore(Timestamp),
    /// Others are ahead of it.
    Behind {
        /// Its place in its queue, from 1.
        position: u64,
        /// The first job of the order over all queues.
        first: JobId,
        /// What it would lack itself at present.
        shortages: Vec<Shortage>,
    },
    /// It is the first of the order and does not fit.
    Resources {
        /// Its place in its queue, from 1.
        position: u64,
        /// What it lacks.
        shortages: Vec<Shortage>,
        /// When it starts at the latest, where that can be said.
        expected: Option<Timestamp>,
    },
    /// The next pass starts it.
    Scheduling,
    /// It is placed and its start is on the way.
    Starting,
    /// It runs.
    Running,
    /// It is being ended.
    Stopping,
}

/// Why a job is not accepted. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// No such queue.
    #[error("queue \"{queue}\" does not exist")]
    UnknownQueue {
        /// What was asked for.
        queue: Name,
    },
    /// The job is here already.
    #[error("job {job} exists already")]
    Duplicate {
        /// The job.
        job: JobId,
    },
    /// No task group at all.
    #[error("a job needs at least one task")]
    NoTasks,
    /// A group of no tasks.
    #[error("task \"{task}\": replicas is 0, must be at least 1")]
    NoReplicas {
        /// The group.
        task: Name,
    },
    /// Two groups of one name.
    #[error("task \"{task}\" is there twice")]
    DuplicateTask {
        /// The name.
        task: Name,
    },
    /// More tasks than a job may have.
    #[error("{asked} tasks asked, at most 10000 are possible")]
    TooManyTasks {
        /// Over all groups.
        asked: u64,
    },
    /// Priority out of range.
    #[error("priority {got} is not within ±1000000")]
    Priority {
        /// What was given.
        got: i32,
    },
    /// It would never be tried.
    #[error("max_attempts is 0, must be at least 1")]
    NoAttempts,
    /// One task asks for more than the largest node has.
    #[error("task \"{task}\" asks for {asked} {resource:?}, the largest node has {largest}")]
    TaskTooLarge {
        /// The group.
        task: Name,
        /// Of what.
        resource: Resource,
        /// What each of its tasks asks for.
        asked: u64,
        /// What the node with most of it has.
        largest: u64,
    },
    /// All tasks together ask for more than all nodes have.
    #[error("the job's tasks ask for {asked} {resource:?} together, all nodes have {total}")]
    JobTooLarge {
        /// Of what.
        resource: Resource,
        /// Over all tasks.
        asked: u128,
        /// Over all nodes.
        total: u128,
    },
    /// No resource alone is short, but the tasks do not fit on the nodes at the same time.
    #[error(
        "task \"{task}\": only {possible} of its {asked} tasks fit on the nodes together with the others, even when nothing else runs"
    )]
    NoFit {
        /// The group.
        task: Name,
        /// Its tasks.
        asked: u32,
        /// How many of them find a place.
        possible: u32,
    },
}
