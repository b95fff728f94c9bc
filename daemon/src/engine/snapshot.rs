//! The core as HTTP shows it: queues and nodes, in the words of the seam.

use scheduler_core::ids::{JobId, Revision};
use scheduler_core::scheduler as core;
use uuid::Uuid;

use super::{SharedCore, lock};
use crate::backend::Snapshot;

/// Queues and nodes as they are now.
pub(super) fn take(shared: &SharedCore, revision: Revision, gpu_note: Option<&str>) -> Snapshot {
    let core = lock(shared);
    let queues = core.queues().map(|queue| api::Queue {
        name: queue.name.to_string(),
        priority: queue.priority,
        preemptible: queue.preemptible,
        waiting: queue.waiting,
        queued: queue.queued,
        active: queue.active,
    });
    let nodes = core.nodes().map(|node| api::Node {
        name: node.name.to_string(),
        cpu: api::quantity::Cpu(node.cpu.0),
        cpu_used: api::quantity::Cpu(node.cpu_used.0),
        memory: api::quantity::Memory(node.memory.0),
        memory_used: api::quantity::Memory(node.memory_used.0),
        gpu_note: node.gpus.is_empty().then(|| gpu_note.map(str::to_owned)).flatten(),
        gpus: node.gpus.iter().map(gpu).collect(),
    });
    Snapshot { queues: queues.collect(), nodes: nodes.collect(), revision }
}

fn gpu(gpu: &core::GpuUse<'_>) -> api::Gpu {
    let job: Option<Uuid> = gpu.job.map(|JobId(id)| id);
    api::Gpu { uuid: gpu.uuid.to_string(), model: gpu.model.to_string(), memory: api::quantity::Memory(gpu.memory.0), job }
}
