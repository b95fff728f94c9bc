//! How the core says no to a job, and the words for what there is instead.

use crate::amounts::{GpuShare, MemoryBytes};
use crate::ids::{JobId, Name};
use crate::job::Selector;
use crate::scheduler::config::{GPU_KIND_LIMIT, PRIORITY_LIMIT, Resource, TASK_LIMIT};
use crate::scheduler::errors::Whose;

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
    /// More tasks have to start together than there are.
    #[error("minAvailable is {got}, the job has {tasks} tasks")]
    MinAvailable {
        /// What was given.
        got: u32,
        /// Over all groups.
        tasks: u64,
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
    /// No node has a label as it is asked for.
    #[error("task \"{task}\" asks for nodes where {selector}, there is none{}", values(.selector, .there))]
    NoNode {
        /// The group.
        task: Name,
        /// What is asked.
        selector: Selector,
        /// The values that this label has, in their order, [`SHOWN`] at most.
        there: Vec<Name>,
    },
    /// No GPU is of a model that is asked for.
    #[error("task \"{task}\" asks for GPUs of the models ({}), {}", list(.asked), those(.there, "there are", "there are no GPUs"))]
    NoGpuModel {
        /// The group.
        task: Name,
        /// One of which is asked.
        asked: Vec<Name>,
        /// The models that there are, in their order, [`SHOWN`] at most.
        there: Vec<Name>,
    },
    /// No GPU has as much memory as is asked for.
    #[error("task \"{task}\" asks for GPUs of at least {asked} bytes, the largest of those that it may have has {largest}")]
    NoGpuMemory {
        /// The group.
        task: Name,
        /// What each GPU has to have.
        asked: MemoryBytes,
        /// What the largest has, of a model that is asked for.
        largest: MemoryBytes,
    },
    /// No GPU is divided as is asked for; or all are, and whole ones are asked for.
    #[error("task \"{task}\" asks for {}, {}", profile(.asked.as_ref()), those(.there, "there are MIG instances of the profiles", "there are none"))]
    NoGpuKind {
        /// The group.
        task: Name,
        /// The MIG profile; none where whole GPUs are asked for.
        asked: Option<Name>,
        /// The profiles that there are, in their order, [`SHOWN`] at most.
        there: Vec<Name>,
    },
    /// No device plugin gives out a part of a GPU that is as large as is asked for.
    #[error("task \"{task}\" asks for {}, {}", part(*.asked), parts(*.largest))]
    NoReplica {
        /// The group.
        task: Name,
        /// What is asked for at least.
        asked: GpuShare,
        /// The largest that is given out, of a model and memory that are asked for; none where there are none.
        largest: Option<GpuShare>,
    },
    /// No node has as many MIG instances of a profile as one task asks for.
    #[error("task \"{task}\" asks for {asked} {}, the largest node has {largest}", profile(Some(.of)))]
    TooFewInstances {
        /// The group.
        task: Name,
        /// The profile.
        of: Name,
        /// What one task asks for.
        asked: u64,
        /// What the node with most of them has.
        largest: u64,
    },
    /// All tasks together ask for more MIG instances of a profile than all nodes have, and for no other GPUs.
    #[error(
        "the job's tasks ask for {asked} {} together, all nodes have {total}: at most {possible} of the tasks \"{task}\" can run at once",
        profile(Some(.of))
    )]
    TooFewInstancesInAll {
        /// The first group for which there is too little.
        task: Name,
        /// The profile.
        of: Name,
        /// Over all tasks.
        asked: u128,
        /// Over all nodes.
        total: u128,
        /// How many of its tasks fit, beside those of larger groups, when nothing else runs.
        possible: u32,
    },
    /// GPUs are named in a way that cannot be.
    #[error("task \"{task}\": {detail}")]
    BadGpus {
        /// The group.
        task: Name,
        /// What is wrong with it.
        detail: String,
    },
    /// No GPU has this UUID.
    #[error("task \"{task}\" asks for GPU {uuid}, there is none of that UUID; {}{}", those(.there, "there are", "there are no GPUs"), others(*.more))]
    NoSuchGpu {
        /// The group.
        task: Name,
        /// What is asked.
        uuid: Name,
        /// The GPUs that there are, in their order, [`SHOWN`] at most.
        there: Vec<Name>,
        /// How many more there are.
        more: usize,
    },
    /// A GPU that is named is not what else is asked of it.
    #[error("task \"{task}\" asks for GPU {uuid}: {detail}")]
    OtherGpu {
        /// The group.
        task: Name,
        /// The GPU.
        uuid: Name,
        /// In what it differs.
        detail: String,
    },
    /// GPUs that one task names are on two nodes.
    #[error("task \"{task}\" asks for GPU {} of node \"{}\" and GPU {} of node \"{}\": a task is on one node", .gpus[0].0, .gpus[0].1, .gpus[1].0, .gpus[1].1)]
    GpusApart {
        /// The group.
        task: Name,
        /// Two of its GPUs and their nodes.
        gpus: Box<[(Name, Name); 2]>,
    },
    /// Too many sets of GPUs of a node are named at a time.
    #[error(
        "task \"{task}\" asks for GPU {uuid}: unfinished jobs name so many sets of GPUs of node \"{node}\" already that another one cannot be told \
         apart; {GPU_KIND_LIMIT} can, among them each kind of which some are not named"
    )]
    NamedApart {
        /// The group.
        task: Name,
        /// The first of its GPUs.
        uuid: Name,
        /// Its node.
        node: Name,
    },
    /// A share of a GPU that cannot be.
    #[error("task \"{task}\": {detail}")]
    BadShare {
        /// The group.
        task: Name,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// No GPU has as much memory as a share asks for.
    #[error(
        "task \"{task}\" asks for {asked} bytes of the memory of one GPU, the largest of those that it may have has {largest}"
    )]
    NoShareMemory {
        /// The group.
        task: Name,
        /// What is asked of one GPU.
        asked: MemoryBytes,
        /// What the largest has, of a model that is asked for.
        largest: MemoryBytes,
    },
    /// Each of its constraints holds for some node, but all together for none.
    #[error("task \"{task}\": each of its constraints holds on some node, all of them together on none")]
    NoNodeForAll {
        /// The group.
        task: Name,
    },
    /// One task asks for more than the largest node has, of those that it may go on.
    #[error("task \"{task}\" asks for {} {}, the largest node has {}", resource.in_words(u128::from(*.asked)), resource.as_str(), resource.in_words(u128::from(*.largest)))]
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
    #[error(
        "the job's tasks ask for {} {} together, all nodes have {}: at most {possible} of the tasks \"{task}\" can run at once",
        resource.in_words(*.asked),
        resource.as_str(),
        resource.in_words(*.total)
    )]
    JobTooLarge {
        /// Of what.
        resource: Resource,
        /// Over all tasks.
        asked: u128,
        /// Over all nodes.
        total: u128,
        /// The first group for which there is too little.
        task: Name,
        /// How many of its tasks fit, beside those of larger groups, when nothing else runs.
        possible: u32,
    },
    /// All tasks together ask for more than the queue, its tenant or its cohort may ever hold.
    #[error("the job's tasks ask for {} {} together, the limit of {} is {}", resource.in_words(*.asked), resource.as_str(), whose.as_str(), resource.in_words(*.limit))]
    OverLimit {
        /// Of what.
        resource: Resource,
        /// Over all tasks.
        asked: u128,
        /// What may be held.
        limit: u128,
        /// Whose limit it is.
        whose: Whose,
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

/// Values that are named at most where something is refused.
pub const SHOWN: usize = 16;

fn list(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// Which values the label has that is asked for; nothing where it may be one or another.
fn values(selector: &Selector, there: &[Name]) -> String {
    let values = || format!("; {}", those(there, "values of this label are", "no node has this label"));
    selector.label().map_or_else(String::new, |_| values())
}

fn those(names: &[Name], some: &str, none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { format!("{some} ({})", list(names)) }
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} more") }
}

fn profile(asked: Option<&Name>) -> String {
    asked.map_or_else(|| "whole GPUs".to_owned(), |profile| format!("MIG instances of the profile \"{profile}\""))
}

/// The smallest part that can be asked for is any.
fn part(asked: GpuShare) -> String {
    let size = match asked.millis {
        0 | 1 => "a part of a GPU".to_owned(),
        millis => format!("{} of a GPU", Resource::Gpu.in_words(millis.into())),
    };
    if asked.memory.0 > 0 { format!("{size} with {} bytes of its memory", asked.memory) } else { size }
}

fn parts(largest: Option<GpuShare>) -> String {
    let Some(GpuShare { millis, memory }) = largest else { return "no node gives out parts of GPUs".to_owned() };
    let size = Resource::Gpu.in_words(millis.into());
    format!("the largest part that a node gives out is {size} with {memory} bytes of its memory")
}
