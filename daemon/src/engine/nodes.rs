//! The core's nodes in the words of the seam, with what administrators said of them.

use api::quantity::{Cpu, Memory};
use scheduler_core::Scheduler;
use scheduler_core::ids::JobId;
use scheduler_core::scheduler::{GpuKind, GpuUse, NodeState, NodeUse};

use crate::http::text::wire_time;
use crate::objects::Directory;

/// One node.
pub(super) fn view(node: &NodeUse<'_>, directory: &Directory, gpu_note: Option<&str>) -> api::Node {
    let mark = directory.nodes.get(node.name).filter(|mark| node.configured && mark.state.state() == node.state);
    api::Node {
        name: node.name.to_string(),
        state: state(node),
        reason: mark.and_then(|mark| mark.reason.clone()),
        by: mark.map(|mark| mark.by.to_string()),
        since: mark.map(|mark| wire_time(mark.since)),
        labels: node.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        tasks: node.tasks,
        cpu: Cpu(node.cpu.0),
        cpu_used: Cpu(node.cpu_used.0),
        memory: Memory(node.memory.0),
        memory_used: Memory(node.memory_used.0),
        gpu_note: node.gpus.is_empty().then(|| gpu_note.map(str::to_owned)).flatten(),
        gpus: node.gpus.iter().map(gpu).collect(),
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

fn gpu(gpu: &GpuUse<'_>) -> api::Gpu {
    let (kind, mig_profile) = match gpu.kind {
        GpuKind::Whole => (api::GpuKind::Whole, None),
        GpuKind::Mig { profile } => (api::GpuKind::Mig, Some(profile.to_string())),
    };
    api::Gpu {
        uuid: gpu.uuid.to_string(),
        model: gpu.model.to_string(),
        memory: Memory(gpu.memory.0),
        kind,
        mig_profile,
        link_group: gpu.link_group,
        job: gpu.job.map(|JobId(id)| id),
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
