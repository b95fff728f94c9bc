//! What the core knows of a job that never changes while it waits: its shape and its policy.
//!
//! Both are interned: a million jobs that ask for the same thing share one [`Shape`] and one [`Policy`]. What only the executor
//! needs (command, environment, image) never enters the core.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amounts::{GpuShare, MemoryBytes, Request};
use crate::ids::{JobId, Name, Seq};
use crate::state::Lifecycle;
use crate::time::{Span, Timestamp};

/// Replicas that ask for the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TaskGroup {
    /// Name within the job; unique there.
    pub name: Name,
    /// How many tasks of it there are, at least 1.
    pub replicas: u32,
    /// What each of them asks for.
    pub request: Request,
    /// What its nodes and GPUs have to be.
    #[serde(default, skip_serializing_if = "Constraints::is_none")]
    pub constraints: Constraints,
}

impl TaskGroup {
    /// Replicas that may go on any node and any whole GPUs.
    pub const fn new(name: Name, replicas: u32, request: Request) -> Self {
        Self { name, replicas, request, constraints: Constraints::NONE }
    }
}

/// What a node and its GPUs have to be for a task, and how much of its GPU it gets. All of it has to hold at the same time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraints {
    /// What is asked of the node's labels; all of these have to hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Selector>,
    /// Product names, one of which each GPU has to have; none: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu_models: Vec<Name>,
    /// Memory that each GPU has at least.
    #[serde(skip_serializing_if = "is_zero")]
    pub gpu_memory: MemoryBytes,
    /// GPUs are MIG instances of this profile (`1g.10gb`); none: whole devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<Name>,
    /// The task gets a part of one GPU, for which [`Request::gpus`] is 1; none: all of each GPU. It stands here and not in the request because few
    /// jobs have one, and those without anything here are compared and hashed as such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_share: Option<GpuShare>,
    /// The part is one that a device plugin gives out ([`GpuKind::Replica`](crate::GpuKind::Replica)): as large as its node makes them, and no smaller
    /// than [`gpu_share`](Self::gpu_share) says, which has to be there. Otherwise it is a part of a whole GPU.
    #[serde(skip_serializing_if = "is_false")]
    pub gpu_replica: bool,
    /// The task gets exactly these GPUs, by UUID, each once and in order: as many as [`Request::gpus`] says, MIG instances as well where no
    /// profile is asked for. None: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu_uuids: Vec<Name>,
}

impl Hash for Constraints {
    /// Most jobs ask for nothing, and every submit hashes them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        if !self.is_none() {
            let gpus = (&self.gpu_models, self.gpu_memory, &self.mig_profile, self.gpu_share, self.gpu_replica, &self.gpu_uuids);
            (&self.nodes, gpus).hash(state);
        }
    }
}

impl Constraints {
    /// Any node, any whole GPU.
    pub const NONE: Self = Self {
        nodes: Vec::new(),
        gpu_models: Vec::new(),
        gpu_memory: MemoryBytes::ZERO,
        mig_profile: None,
        gpu_share: None,
        gpu_replica: false,
        gpu_uuids: Vec::new(),
    };

    /// True where nothing is asked.
    pub const fn is_none(&self) -> bool {
        self.nodes.is_empty()
            && self.gpu_models.is_empty()
            && self.gpu_memory.0 == 0
            && self.mig_profile.is_none()
            && self.gpu_share.is_none()
            && !self.gpu_replica
            && self.gpu_uuids.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(memory: &MemoryBytes) -> bool {
    *memory == MemoryBytes::ZERO
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What is asked of the labels of a node; mostly of one.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selector {
    /// The node has the label, with one of these values.
    In {
        /// The label.
        label: Name,
        /// The values.
        values: Vec<Name>,
    },
    /// The node does not have the label, or with another value than these.
    NotIn {
        /// The label.
        label: Name,
        /// The values.
        values: Vec<Name>,
    },
    /// The node has the label, whatever its value.
    Exists {
        /// The label.
        label: Name,
    },
    /// The node does not have the label.
    Absent {
        /// The label.
        label: Name,
    },
    /// The label's value is a whole number, larger than this one.
    Above {
        /// The label.
        label: Name,
        /// What is less.
        bound: i64,
    },
    /// The label's value is a whole number, less than this one.
    Below {
        /// The label.
        label: Name,
        /// What is larger.
        bound: i64,
    },
    /// All of one of these holds; of a list without any, too.
    Any {
        /// The alternatives.
        of: Vec<Vec<Selector>>,
    },
}

impl Selector {
    /// The label that it speaks of; none where it may be one or another.
    pub const fn label(&self) -> Option<&Name> {
        match self {
            Self::In { label, .. }
            | Self::NotIn { label, .. }
            | Self::Exists { label }
            | Self::Absent { label }
            | Self::Above { label, .. }
            | Self::Below { label, .. } => Some(label),
            Self::Any { .. } => None,
        }
    }

    /// Whether a node with these labels is one that is asked for.
    pub fn accepts(&self, labels: &BTreeMap<Name, Name>) -> bool {
        let value = self.label().and_then(|label| labels.get(label));
        let number = || value.and_then(|value| value.as_str().parse::<i64>().ok());
        match self {
            Self::In { values, .. } => value.is_some_and(|value| values.contains(value)),
            Self::NotIn { values, .. } => value.is_none_or(|value| !values.contains(value)),
            Self::Exists { .. } => value.is_some(),
            Self::Absent { .. } => value.is_none(),
            Self::Above { bound, .. } => number().is_some_and(|number| number > *bound),
            Self::Below { bound, .. } => number().is_some_and(|number| number < *bound),
            Self::Any { of } => of.iter().any(|all| all.iter().all(|selector| selector.accepts(labels))),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[Name]| values.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::In { label, values } => write!(f, "{label} in ({})", list(values)),
            Self::NotIn { label, values } => write!(f, "{label} not in ({})", list(values)),
            Self::Exists { label } => write!(f, "{label} exists"),
            Self::Absent { label } => write!(f, "{label} does not exist"),
            Self::Above { label, bound } => write!(f, "{label} above {bound}"),
            Self::Below { label, bound } => write!(f, "{label} below {bound}"),
            Self::Any { of } => {
                let all = |all: &Vec<Self>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
                write!(f, "either {}", of.iter().map(all).collect::<Vec<_>>().join(", or "))
            }
        }
    }
}

/// How the tasks of a job are laid over nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Arrangement {
    /// On the fullest node that has room for all of a group, else on the fullest nodes: keeps large holes open for others.
    #[default]
    Pack,
    /// Over as many nodes as there are, the emptiest first: one node's loss or noise touches few of the tasks.
    Spread,
}

impl Arrangement {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    const fn is_pack(&self) -> bool {
        matches!(self, Self::Pack)
    }
}

/// What a job asks for and where it waits. Jobs of one shape fit or do not fit together.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// The tenant.
    pub namespace: Name,
    /// Where it waits.
    pub queue: Name,
    /// At least one.
    pub tasks: Vec<TaskGroup>,
    /// How many tasks, over all groups, have to start together; 0: all of them. Those that find no room beside these when the job starts are
    /// left out for the whole run: a run does not grow.
    #[serde(default)]
    pub min_available: u32,
    /// How its tasks are laid over nodes.
    #[serde(default, skip_serializing_if = "Arrangement::is_pack")]
    pub arrangement: Arrangement,
}

impl Shape {
    /// A job whose tasks all start together, packed.
    pub const fn new(namespace: Name, queue: Name, tasks: Vec<TaskGroup>) -> Self {
        Self { namespace, queue, tasks, min_available: 0, arrangement: Arrangement::Pack }
    }

    /// How many tasks have to start together.
    pub fn least_tasks(&self) -> u64 {
        if self.min_available == 0 { self.task_count() } else { self.min_available.into() }
    }

    /// Number of tasks over all groups.
    pub fn task_count(&self) -> u64 {
        self.tasks.iter().map(|group| u64::from(group.replicas)).sum()
    }
}

/// How a run is ended: `signal` first, after `grace` SIGKILL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct StopPolicy {
    /// Number of the signal that asks tasks to end (15 is SIGTERM).
    pub signal: i32,
    /// Time between the signal and SIGKILL.
    pub grace: Span,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self { signal: 15, grace: Span::from_secs(30) }
    }
}

/// How a job is treated, apart from what it asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Added to the queue's base priority; larger runs earlier. Within ±1,000,000.
    pub priority: i32,
    /// How often infrastructure may lose the job before it counts as failed; at least 1 (the first loss is final).
    pub max_attempts: u32,
    /// Longest time in `Running`, from the start of its tasks.
    pub time_limit: Option<Span>,
    /// How a run is ended.
    pub stop: StopPolicy,
    /// It saves its work when it is asked to end, and goes on from there: preempted before others are.
    #[serde(default)]
    pub checkpointable: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { priority: 0, max_attempts: 3, time_limit: None, stop: StopPolicy::default(), checkpointable: false }
    }
}

/// A job as it enters the core.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewJob {
    /// Its identity.
    pub id: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// What it asks for.
    pub shape: Arc<Shape>,
    /// How it is treated.
    pub policy: Arc<Policy>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Not to be queued before this time.
    pub start_after: Option<Timestamp>,
    /// Held until somebody releases it.
    pub hold: bool,
}

/// An unfinished job as the store hands it back at start and at takeover.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveJob {
    /// Its identity.
    pub id: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// What it asks for.
    pub shape: Arc<Shape>,
    /// How it is treated.
    pub policy: Arc<Policy>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// `startAfter` as it was sent: a job that is held and released still waits for it.
    pub start_after: Option<Timestamp>,
    /// Where it stands.
    pub lifecycle: Lifecycle,
}
