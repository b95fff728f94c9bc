//! Nodes and jobs from numbers.

use std::sync::Arc;

use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::ids::{JobId, Seq};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{GpuDevice, NodeConfig};
use uuid::Uuid;

/// Bytes of one GiB.
pub const GIB: u64 = 1 << 30;
/// When every bench begins.
pub const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// What a job asks for, and of whom.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The tenant's number.
    pub tenant: u64,
    /// The queue's number.
    pub queue: u64,
    /// Thousandths of a core of each task.
    pub cpu_millis: u64,
    /// Bytes of each task.
    pub memory: u64,
    /// Whole GPUs of each task.
    pub gpus: u32,
    /// Tasks.
    pub replicas: u32,
    /// The job's own priority.
    pub priority: i32,
    /// Its time limit.
    pub limit: Option<Span>,
}

impl Ask {
    /// One task without limit, of tenant 0 in queue 0.
    pub const fn task(cpu_millis: u64, memory: u64, gpus: u32) -> Self {
        Self { tenant: 0, queue: 0, cpu_millis, memory, gpus, replicas: 1, priority: 0, limit: None }
    }
}

/// A cheap scrambled number, the same in every run.
pub const fn scramble(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// The name of a queue.
pub fn queue_name(queue: u64) -> String {
    format!("queue-{queue}")
}

/// A node with so many GPUs.
pub fn node(number: u64, cpu_millis: u64, memory: u64, gpus: u64) -> NodeConfig {
    let gpu = |index: u64| GpuDevice::whole(format!("GPU-{number}-{index}").into(), "H200".into(), MemoryBytes(141 * GIB));
    let gpus = (0..gpus).map(gpu).collect();
    NodeConfig::new(format!("node-{number}").into(), CpuMillis(cpu_millis), MemoryBytes(memory), gpus)
}

/// The job with this number.
pub fn job(number: u64, ask: Ask, now: Timestamp) -> NewJob {
    let request = Request { cpu: CpuMillis(ask.cpu_millis), memory: MemoryBytes(ask.memory), gpus: ask.gpus };
    let tasks = vec![TaskGroup::new("main".into(), ask.replicas, request)];
    let shape = Shape::new(format!("team-{}", ask.tenant).into(), queue_name(ask.queue).into(), tasks);
    let policy = Policy { priority: ask.priority, time_limit: ask.limit, ..Policy::default() };
    NewJob {
        id: JobId(Uuid::from_u128((0x0192_0000_0000_7000 << 64) | (1 << 63) | u128::from(scramble(number) >> 2))),
        seq: Seq(number),
        shape: Arc::new(shape),
        policy: Arc::new(policy),
        submitted_at: now,
        start_after: None,
        hold: false,
    }
}
