//! The core's nodes in the words of the seam, with what administrators said of them.

use api::quantity::{Cpu, GpuMillis, Memory};
use executors::kubernetes::nodes::ClusterView;
use scheduler_core::Scheduler;
use scheduler_core::amounts::GpuShare;
use scheduler_core::ids::JobId;
use scheduler_core::scheduler::{GpuKind, GpuUse, NodeState, NodeUse};

use super::fleet::reason;
use crate::gpus::judge::is_foreign;
use crate::gpus::{Board, Seen as SeenGpu, SeenProcess};
use crate::http::text::wire_time;
use crate::objects::Directory;

/// Who keeps tasks from nodes of a cluster.
pub(super) const CLUSTER: &str = "kubernetes";

/// What is seen of nodes beside what the core has.
pub(super) struct Seen<'a> {
    pub(super) board: &'a Board,
    pub(super) cluster: Option<&'a ClusterView>,
    /// Why nothing is started anywhere for now, if that is so.
    pub(super) silence: Option<String>,
    /// Whether jobs are kept from GPUs of others.
    pub(super) gpu_access: Option<String>,
}

/// Why the cluster keeps tasks from a node, where it does.
fn kept_by_cluster(node: &NodeUse<'_>, seen: &Seen<'_>) -> Option<String> {
    let cluster = seen.cluster?;
    let standing = cluster.nodes.get(node.name.as_str()).map(|node| &node.standing);
    seen.silence.clone().or_else(|| standing.and_then(reason).map(str::to_owned))
}

/// One node.
pub(super) fn view(core: &Scheduler, node: &NodeUse<'_>, directory: &Directory, seen: &Seen<'_>) -> api::Node {
    let board = seen.board;
    let cluster = kept_by_cluster(node, seen).filter(|_| node.configured);
    let mark = directory.nodes.get(node.name).filter(|mark| node.configured && mark.state.state() == node.state);
    api::Node {
        name: node.name.to_string(),
        state: match state(node) {
            // Nothing is started there, whatever it was said to be before.
            api::NodeState::Ready if cluster.is_some() => api::NodeState::Cordoned,
            state => state,
        },
        by: mark.map(|mark| mark.by.to_string()).or_else(|| cluster.as_ref().map(|_| CLUSTER.to_owned())),
        reason: mark.and_then(|mark| mark.reason.clone()).or(cluster),
        since: mark.map(|mark| wire_time(mark.since)),
        labels: node.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        tasks: node.tasks,
        cpu: Cpu(node.cpu.0),
        cpu_used: Cpu(node.cpu_used.0),
        memory: Memory(node.memory.0),
        memory_used: Memory(node.memory_used.0),
        gpu_note: board.note.clone(),
        gpu_access: seen.gpu_access.clone(),
        gpus: node.gpus.iter().map(|gpu| self::gpu(core, gpu, directory, board)).collect(),
    }
}

fn state(node: &NodeUse<'_>) -> api::NodeState {
    match node.state {
        _ if !node.configured => api::NodeState::Removed,
        NodeState::Ready => api::NodeState::Ready,
        NodeState::Cordoned => api::NodeState::Cordoned,
        NodeState::Draining if node.is_drained() => api::NodeState::Drained,
        NodeState::Draining => api::NodeState::Draining,
        NodeState::Lost => api::NodeState::Lost,
    }
}

fn gpu(core: &Scheduler, gpu: &GpuUse<'_>, directory: &Directory, board: &Board) -> api::Gpu {
    let (kind, mig_profile, part) = match gpu.kind {
        GpuKind::Whole => (api::GpuKind::Whole, None, None),
        GpuKind::Mig { profile } => (api::GpuKind::Mig, Some(profile.to_string()), None),
        GpuKind::Replica { millis } => (api::GpuKind::Part, None, Some(GpuMillis(*millis))),
    };
    let sharer = |(job, share): (JobId, GpuShare)| api::GpuSharer {
        job: job.0,
        job_number: None,
        namespace: None,
        gpu: GpuMillis(share.millis),
        memory: Memory(share.memory.0),
    };
    let sharers: Vec<api::GpuSharer> = core.gpu_sharers(gpu.uuid).map(sharer).collect();
    let holders: Vec<JobId> = gpu.job.into_iter().chain(sharers.iter().map(|sharer| JobId(sharer.job))).collect();
    api::Gpu {
        sharers,
        uuid: gpu.uuid.to_string(),
        model: gpu.model.to_string(),
        memory: Memory(gpu.memory.0),
        kind,
        mig_profile,
        part,
        link_group: gpu.link_group,
        job: gpu.job.map(|JobId(id)| id),
        state: match (directory.gpus.contains_key(gpu.uuid), gpu.aside) {
            _ if !gpu.configured => api::GpuState::Gone,
            (true, _) => api::GpuState::Drained,
            (false, Some(_)) => api::GpuState::Aside,
            (false, None) => api::GpuState::Ready,
        },
        reason: gpu.aside.map(ToString::to_string),
        numa: gpu.numa,
        ..seen(board.gpus.get(gpu.uuid), &holders)
    }
}

/// What was seen of a GPU.
fn seen(seen: Option<&SeenGpu>, holders: &[JobId]) -> api::Gpu {
    let Some(SeenGpu { reading, processes }) = seen else { return api::Gpu::default() };
    let process = |process: &SeenProcess| api::GpuProcess {
        pid: process.pid,
        user: process.user.as_ref().map(ToString::to_string),
        command: process.command.clone(),
        memory: process.memory_bytes.map(Memory),
        busy_percent: process.busy_percent,
        job_number: None,
        job: process.job.map(|JobId(id)| id),
        foreign: is_foreign(process, holders),
    };
    let what = &*reading.gpu;
    api::Gpu {
        index: Some(what.index),
        pci: what.pci.clone(),
        compute: what.compute.clone(),
        pcie_group: what.pcie_group,
        parent: what.mig.as_ref().map(|part| part.parent.clone()).filter(|parent| !parent.is_empty()),
        memory_used: reading.memory_used_bytes.map(Memory),
        busy_percent: reading.busy_percent,
        celsius: reading.celsius,
        watts: reading.milliwatts.map(|milliwatts| milliwatts / 1_000),
        throttled: reading.throttled.map(str::to_owned),
        processes: processes.iter().map(process).collect(),
        ..api::Gpu::default()
    }
}

/// How the free GPUs lie over all nodes.
pub(super) fn fragmentation(core: &Scheduler) -> api::Fragmentation {
    let found = core.fragmentation();
    let hole = |hole: &scheduler_core::scheduler::Hole| api::Hole {
        gpus: hole.gpus,
        fit: hole.usable / u64::from(hole.gpus.max(1)),
        unusable: found.free.saturating_sub(hole.usable),
    };
    api::Fragmentation {
        free: found.free,
        closed: found.closed,
        largest: found.largest.map_or(0, |(gpus, _)| gpus),
        largest_node: found.largest.map(|(_, node)| node.to_string()),
        holes: found.holes.iter().map(hole).collect(),
    }
}
