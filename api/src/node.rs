//! Nodes: what they are, what is taken of them, and what may be done with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::quantity::{Cpu, GpuMillis, Memory};

/// What of a GPU is given to one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum GpuKind {
    /// All of it.
    #[default]
    Whole,
    /// A MIG instance.
    Mig,
    /// One of the equal parts that a device plugin gives out.
    Part,
}

/// Whether a GPU is promised to jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum GpuState {
    /// It is, as soon as nobody has it.
    #[default]
    Ready,
    /// Not for now: somebody uses it past the scheduler, it is too hot, it does not answer.
    Aside,
    /// Not until somebody resumes it: it was drained, or found to be sick.
    Drained,
    /// It is not there any more: it is shown as long as a job has it.
    Gone,
}

impl GpuState {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Aside => "aside",
            Self::Drained => "drained",
            Self::Gone => "gone",
        }
    }
}

/// A process on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuProcess {
    /// Its number.
    pub pid: u32,
    /// Whose it is, where that can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of its program.
    #[serde(default)]
    pub command: String,
    /// What it holds of the GPU's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Part of the time in which it ran something there lately, in percent, where the driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_percent: Option<u32>,
    /// The job that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
    /// That job's number, while it is unfinished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_number: Option<u64>,
    /// It computes there, and is not of the job that has the GPU.
    #[serde(default)]
    pub foreign: bool,
}

/// A task that has a part of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuSharer {
    /// Its job.
    pub job: Uuid,
    /// That job's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_number: Option<u64>,
    /// That job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its part of the GPU.
    pub gpu: GpuMillis,
    /// What it may use of the memory.
    pub memory: Memory,
}

impl Gpu {
    /// How much of a GPU it is: all of it, unless it is a part that a device plugin gives out. An instance counts as one.
    pub fn size(&self) -> GpuMillis {
        self.part.unwrap_or(GpuMillis::whole(1))
    }

    /// How much of it jobs have.
    pub fn promised(&self) -> GpuMillis {
        let parts = self.sharers.iter().fold(0_u32, |sum, sharer| sum.saturating_add(sharer.gpu.0));
        if self.job.is_some() { GpuMillis::whole(1) } else { GpuMillis(parts) }
    }
}

/// A GPU of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Its UUID.
    pub uuid: String,
    /// Its model: what `gpuModel` of a job names.
    pub model: String,
    /// Its memory.
    pub memory: Memory,
    /// The whole device or a part of it.
    #[serde(default)]
    pub kind: GpuKind,
    /// The profile of a MIG instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
    /// How much of its GPU it is, where it is a part that a device plugin gives out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<GpuMillis>,
    /// GPUs of the node with the same number reach each other by NVLink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_group: Option<u16>,
    /// The job that has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
    /// That job's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_number: Option<u64>,
    /// Tasks that have parts of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sharers: Vec<GpuSharer>,
    /// The namespace of that job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether it is promised to jobs.
    #[serde(default)]
    pub state: GpuState,
    /// Why it is not, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its place in the driver's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Its PCI address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    /// Its compute capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<String>,
    /// The NUMA node that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u16>,
    /// GPUs of the node with the same number are below the same PCI switches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_group: Option<u16>,
    /// The GPU that it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of its memory, in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<Memory>,
    /// Part of the time in which something ran on it lately, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_percent: Option<u32>,
    /// Its temperature in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<u32>,
    /// What it draws, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<u32>,
    /// Why it runs slower than it could, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<String>,
    /// What uses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<GpuProcess>,
}

/// What may be done with a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    /// It takes tasks.
    #[default]
    Ready,
    /// It takes no new tasks; what runs goes on.
    Cordoned,
    /// As cordoned, and somebody waits for the last run to end.
    Draining,
    /// It was draining, and nothing is left on it.
    Drained,
    /// Nobody hears of it: what ran there is taken for lost.
    Lost,
    /// It is not configured any more: it is shown as long as jobs hold something on it.
    Removed,
}

impl NodeState {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Lost => "lost",
            Self::Removed => "removed",
        }
    }
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What may be done with it.
    #[serde(default)]
    pub state: NodeState,
    /// Why it is not ready, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who cordoned or drained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Since when it is cordoned or draining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<jiff::Timestamp>,
    /// What jobs may select it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Tasks on it.
    #[serde(default)]
    pub tasks: u32,
    /// Processors that jobs may use.
    pub cpu: Cpu,
    /// Of these, promised.
    pub cpu_used: Cpu,
    /// Memory that jobs may use.
    pub memory: Memory,
    /// Of this, promised.
    pub memory_used: Memory,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    /// Why there are no GPUs, or why some are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_note: Option<String>,
    /// Whether jobs are kept from GPUs that are not their own: `enforced (HOW)` or `by environment only: WHY`; absent without GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_access: Option<String>,
}

/// A GPU and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacedGpu {
    /// Name of its node.
    pub node: String,
    /// The GPU.
    #[serde(flatten)]
    pub gpu: Gpu,
}

/// All GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuList {
    /// In the order of the nodes.
    pub items: Vec<PlacedGpu>,
    /// Version of the driver, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The newest CUDA that it can run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
    /// Why there are none, or why some are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How the free GPUs lie: in holes that jobs can use, or scattered. Whole GPUs of nodes that take tasks; CPU and memory are not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fragmentation {
    /// GPUs that nobody has.
    pub free: u64,
    /// GPUs that nobody has on nodes that take no tasks; not among the free ones.
    pub closed: u64,
    /// The most that are free on one node.
    pub largest: u32,
    /// The first node that has them; absent where none is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_node: Option<String>,
    /// What jobs of 1, 2, 4 and 8 GPUs on one node find.
    pub holes: Vec<Hole>,
}

/// What jobs that ask for a number of GPUs on one node find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hole {
    /// The number of GPUs that such a job asks for.
    pub gpus: u32,
    /// How many such jobs fit at the same time.
    pub fit: u64,
    /// Free GPUs that such jobs cannot use.
    pub unusable: u64,
}

/// All nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// Configured ones first.
    pub items: Vec<Node>,
    /// How the free GPUs lie over all of them.
    #[serde(default)]
    pub fragmentation: Fragmentation,
    /// Why nothing is started on any of them now, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Body of `POST /nodes/{name}/cordon`, `drain` and `resume`; may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeOrder {
    /// Why, for those who ask: one line of at most 256 characters. Nothing is kept of it when a node is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "new memory", max_length = 256)]
    pub reason: Option<String>,
}
