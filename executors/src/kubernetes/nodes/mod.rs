//! The machines of a cluster as it tells them: what they can give, what pods ask of them, and whether they take any. Followed by one watch of
//! nodes and one of bound pods, which make one set of books: the views that the core places by, and the room that pods are bound by.
//!
//! What must hold:
//! - A view is whole: it is made from complete lists of nodes and of pods and all that was told since. Whatever vanished while nobody
//!   watched is not in the next one.
//! - While the cluster does not answer, the last view stands and says so; no node is taken for lost then, because nobody could have told.
//! - Of a pod no more is kept than what it asks for. Pods that are over are not kept.

mod books;
mod follow;
mod gpus;
mod read;
pub(super) mod requests;
pub(super) mod room;
mod traits;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use scheduler_core::ids::RunId;

pub use follow::{NodeWatch, WatchOptions};
pub use gpus::{GpuCounts, GpuResource};
pub use read::{TAINTED, has, is_of_books};
pub use requests::{requests as asks, uncounted};
pub use room::NodeRoom;

/// Namespace and name of a pod.
pub(super) type Key = (String, String);

pub(super) fn key(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// What a node has, or what pods ask of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeAmounts {
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// GPUs, MIG instances, and parts of GPUs.
    pub gpus: GpuCounts,
}

impl NodeAmounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            gpus: self.gpus.plus(&other.gpus),
        }
    }

    /// What is left without the other; nothing where that is more.
    #[must_use]
    pub fn minus(self, other: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            gpus: self.gpus.minus(&other.gpus),
        }
    }
}

/// Whether a node takes pods, and why not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// It does.
    #[default]
    Open,
    /// Somebody cordoned it in the cluster; what runs goes on.
    Cordoned(String),
    /// A taint keeps pods away, or it is not ready for now; what runs goes on.
    Closed(String),
    /// It has been silent for longer than the grace, or was deleted: nobody hears of what ran there.
    Lost(String),
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// What pods may ask of it together.
    pub allocatable: NodeAmounts,
    /// GPUs, instances and parts that it has and that are not allocatable: its device plugin says that they are sick.
    pub sick_gpus: GpuCounts,
    /// The product that its labels name; empty if they name none.
    pub gpu_model: String,
    /// Memory of each of its GPUs in bytes, as its labels say; 0 if they do not.
    pub gpu_memory_bytes: u64,
    /// Of how many parts each of its GPUs is given out, as its labels say; 0 if they do not.
    pub gpu_replicas: u32,
    /// Memory of its MIG instances in bytes, by profile, as its labels say.
    pub mig_memory_bytes: BTreeMap<String, u64>,
    /// Its labels; its zone is among them.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes pods.
    pub standing: Standing,
    /// What pods that are no runs of ours ask of it.
    pub others: NodeAmounts,
    /// The first of those that ask for GPUs, as namespace and name, by what they ask for.
    pub others_with_gpus: BTreeMap<GpuResource, Vec<String>>,
    /// What our own pods ask of it, by run.
    pub ours: BTreeMap<RunId, NodeAmounts>,
}

/// All nodes, as they were told last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterView {
    /// False until the first lists are complete.
    pub listed: bool,
    /// Why nothing newer is known, while the cluster does not answer.
    pub away: Option<String>,
    /// By name. One that was deleted is among them, as lost, while pods of ours are on it.
    pub nodes: BTreeMap<String, Arc<ClusterNode>>,
}
