//! What the core is told about queues and nodes, and how it says no.

use hashbrown::HashSet;

use crate::amounts::{CpuMillis, MemoryBytes, Request};
use crate::hash::Build;
use crate::ids::{JobId, Name};
use crate::time::Span;

/// Job priorities lie within plus and minus this.
pub const PRIORITY_LIMIT: i32 = 1_000_000;
/// Base priorities of queues lie within plus and minus this.
pub const QUEUE_PRIORITY_LIMIT: i32 = 10_000_000;
/// Longest time that may count as one priority point: keeps all order keys within 64 bits.
pub const AGE_PER_POINT_LIMIT: Span = Span::from_secs(7 * 24 * 3600);
/// A job has at most this many tasks over all its groups.
pub const TASK_LIMIT: u64 = 10_000;

/// A queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueConfig {
    /// Its name; unique.
    pub name: Name,
    /// Added to the priority of its jobs. Within ±10,000,000.
    pub priority: i32,
    /// Whether its running jobs may be ended to make room.
    pub preemptible: bool,
    /// Waiting this long is worth one priority point, at most 7 days. `None`: waiting counts only between equal priorities.
    pub age_per_point: Option<Span>,
}

/// A GPU of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GpuDevice {
    /// Its identity; unique over all nodes.
    pub uuid: Name,
    /// Product name.
    pub model: Name,
    /// Its memory.
    pub memory: MemoryBytes,
}

/// A machine and what may be used of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// Its name; unique.
    pub name: Name,
    /// Processor time.
    pub cpu: CpuMillis,
    /// Memory.
    pub memory: MemoryBytes,
    /// Whole GPUs; promised in this order.
    pub gpus: Vec<GpuDevice>,
}

/// What a pass may do behind a job that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Discipline {
    /// Nothing: the first job that does not fit stops everybody behind it. The yardstick that others are measured against.
    Strict,
    /// That job gets a reservation, and others start beside it where that cannot delay it (EASY backfill).
    #[default]
    Easy,
}

/// All that the core is told at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The queues.
    pub queues: Vec<QueueConfig>,
    /// The machines.
    pub nodes: Vec<NodeConfig>,
    /// Pause before the second try of what infrastructure lost; doubles with each further try.
    pub retry_backoff: Span,
    /// Longest such pause, before jitter.
    pub retry_backoff_max: Span,
    /// How many kinds of jobs (shape and time limit) that find no room one pass looks at before it gives up; at least 1.
    pub scan_limit: usize,
    /// What happens behind a job that does not fit.
    pub discipline: Discipline,
}

impl Default for Config {
    /// No queues and no nodes; 1 second to 5 minutes between tries; 10,000 kinds a pass; EASY backfill.
    fn default() -> Self {
        Self {
            queues: Vec::new(),
            nodes: Vec::new(),
            retry_backoff: Span::from_secs(1),
            retry_backoff_max: Span::from_secs(300),
            scan_limit: 10_000,
            discipline: Discipline::Easy,
        }
    }
}

impl Config {
    /// Whether names and GPUs are unique and values within their ranges.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut queues = HashSet::<&Name, Build>::default();
        for queue in &self.queues {
            if !queues.insert(&queue.name) {
                return Err(ConfigError::DuplicateQueue { name: queue.name.clone() });
            }
            if !(-QUEUE_PRIORITY_LIMIT..=QUEUE_PRIORITY_LIMIT).contains(&queue.priority) {
                return Err(ConfigError::QueuePriority { queue: queue.name.clone(), got: queue.priority });
            }
            if let Some(got) = queue.age_per_point.filter(|age| age.0 == 0 || *age > AGE_PER_POINT_LIMIT) {
                return Err(ConfigError::AgePerPoint { queue: queue.name.clone(), got });
            }
        }
        let mut nodes = HashSet::<&Name, Build>::default();
        let mut gpus = HashSet::<&Name, Build>::default();
        for node in &self.nodes {
            if !nodes.insert(&node.name) {
                return Err(ConfigError::DuplicateNode { name: node.name.clone() });
            }
            if let Some(gpu) = node.gpus.iter().find(|gpu| !gpus.insert(&gpu.uuid)) {
                return Err(ConfigError::DuplicateGpu { uuid: gpu.uuid.clone(), node: node.name.clone() });
            }
        }
        if self.scan_limit == 0 { Err(ConfigError::ScanLimit) } else { Ok(()) }
    }
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
    /// Nothing could ever be looked at.
    #[error("scan_limit is 0, must be at least 1")]
    ScanLimit,
}

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

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Gpu];

    /// The word and unit for people: `cpu (millicores)`, `memory (bytes)`, `GPUs`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu (millicores)",
            Self::Memory => "memory (bytes)",
            Self::Gpu => "GPUs",
        }
    }
}

impl Request {
    /// The amount of one resource.
    pub fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu.0,
            Resource::Memory => self.memory.0,
            Resource::Gpu => u64::from(self.gpus),
        }
    }
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
    #[error("{asked} tasks asked, at most {TASK_LIMIT} are possible")]
    TooManyTasks {
        /// Over all groups.
        asked: u64,
    },
    /// Priority out of range.
    #[error("priority {got} is not within ±{PRIORITY_LIMIT}")]
    Priority {
        /// What was given.
        got: i32,
    },
    /// It would never be tried.
    #[error("max_attempts is 0, must be at least 1")]
    NoAttempts,
    /// One task asks for more than the largest node has.
    #[error("task \"{task}\" asks for {asked} {}, the largest node has {largest}", resource.as_str())]
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
    #[error("the job's tasks ask for {asked} {} together, all nodes have {total}", resource.as_str())]
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
