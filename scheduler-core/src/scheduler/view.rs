//! What can be read from the core.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::amounts::{CpuMillis, GpuShare, MemoryBytes};
use crate::ids::{JobId, Name, Seq};
use crate::job::{Policy, Shape};
use crate::scheduler::Scheduler;
use crate::scheduler::config::{GpuKind, NodeState};
use crate::scheduler::nodes::DeviceIx;
use crate::scheduler::tree::standing::{CohortStanding, QueueStanding, TenantStanding};
use crate::state::Lifecycle;
use crate::time::Timestamp;

/// An unfinished job.
#[derive(Clone, Copy, Debug)]
pub struct JobView<'a> {
    /// Its identity.
    pub id: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// Where it stands.
    pub lifecycle: &'a Lifecycle,
    /// What it asks for. Shared with every job that asks for the same.
    pub shape: &'a Arc<Shape>,
    /// How it is treated. Shared likewise.
    pub policy: &'a Arc<Policy>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// `startAfter` as it was sent.
    pub start_after: Option<Timestamp>,
}

/// A GPU and who has it.
#[derive(Clone, Copy, Debug)]
pub struct GpuUse<'a> {
    /// Its identity.
    pub uuid: &'a Name,
    /// Product name; `unknown` where it is not configured.
    pub model: &'a Name,
    /// Its memory; 0 where it is not configured.
    pub memory: MemoryBytes,
    /// The job that has all of it.
    pub job: Option<JobId>,
    /// Tasks that have parts of it: see [`Scheduler::gpu_sharers`].
    pub sharers: usize,
    /// What they have together, in thousandths.
    pub millis_shared: u32,
    /// Memory that is promised to them.
    pub memory_shared: MemoryBytes,
    /// False where only jobs know it: it is not offered.
    pub configured: bool,
    /// The whole device or a part of it.
    pub kind: &'a GpuKind,
    /// Which of the node's GPUs it reaches by NVLink.
    pub link_group: Option<u16>,
    /// The NUMA node that it is attached to.
    pub numa: Option<u16>,
    /// Why it is not promised to anybody now.
    pub aside: Option<&'a Name>,
}

/// A machine and what is taken of it.
#[derive(Clone, Debug)]
pub struct NodeUse<'a> {
    /// Its name.
    pub name: &'a Name,
    /// False where only jobs know it: it has no capacity and is offered nothing.
    pub configured: bool,
    /// What may be done with it.
    pub state: NodeState,
    /// What jobs may select it by.
    pub labels: &'a BTreeMap<Name, Name>,
    /// Tasks on it.
    pub tasks: u32,
    /// Processor time that may be used.
    pub cpu: CpuMillis,
    /// Processor time taken; more than there is only where the machine has become smaller.
    pub cpu_used: CpuMillis,
    /// Memory that may be used.
    pub memory: MemoryBytes,
    /// Memory taken; as with `cpu_used`.
    pub memory_used: MemoryBytes,
    /// Its GPUs in the order of the configuration.
    pub gpus: Vec<GpuUse<'a>>,
}

impl NodeUse<'_> {
    /// It takes no new tasks and has none any more: it can be switched off.
    pub fn is_drained(&self) -> bool {
        self.state != NodeState::Ready && self.tasks == 0
    }
}

/// A queue and how many unfinished jobs it has.
#[derive(Clone, Copy, Debug)]
pub struct QueueUse<'a> {
    /// Its name.
    pub name: &'a Name,
    /// False where only restored jobs know it: it accepts nothing.
    pub configured: bool,
    /// Base priority.
    pub priority: i32,
    /// Whether its running jobs may be ended to make room.
    pub preemptible: bool,
    /// Jobs in `Waiting`.
    pub waiting: u64,
    /// Jobs in `Queued`.
    pub queued: u64,
    /// Jobs in `Starting`, `Running` and `Stopping`.
    pub active: u64,
    /// Processor time that they hold.
    pub cpu_used: CpuMillis,
    /// Memory that they hold.
    pub memory_used: MemoryBytes,
    /// GPUs that they hold, in thousandths.
    pub gpu_millis_used: u64,
}

impl Scheduler {
    /// An unfinished job; finished ones are in the store.
    pub fn view(&self, job: JobId) -> Option<JobView<'_>> {
        let job = &self.jobs[self.jobs.find(job)?];
        Some(JobView {
            id: job.id,
            seq: job.seq,
            lifecycle: &job.lifecycle,
            shape: self.shape_of(job),
            policy: self.policies.get(job.policy),
            submitted_at: job.submitted_at,
            start_after: job.start_after(),
        })
    }

    /// Jobs that hold resources, in the order in which they got them.
    pub fn active(&self) -> impl Iterator<Item = (JobId, &Lifecycle)> {
        self.active.values().map(|active| &self.jobs[active.job]).map(|job| (job.id, &job.lifecycle))
    }

    /// The nodes, configured ones first and in the order of the configuration, then such that only jobs know.
    pub fn nodes(&self) -> impl Iterator<Item = NodeUse<'_>> {
        let all = || self.nodes.all().iter().enumerate().filter(|(at, _)| !self.nodes.is_vacant(*at)).map(|(_, node)| node);
        let shown = all().filter(|node| node.configured).chain(all().filter(|node| !node.configured));
        shown.map(|node| NodeUse {
            name: &node.name,
            configured: node.configured,
            state: node.state,
            labels: &node.traits.labels,
            tasks: node.tasks,
            cpu: node.cpu,
            cpu_used: CpuMillis(u64::try_from(node.cpu_used).unwrap_or(u64::MAX)),
            memory: node.memory,
            memory_used: MemoryBytes(u64::try_from(node.memory_used).unwrap_or(u64::MAX)),
            gpus: node.devices.iter().map(|&device| self.gpu(device)).collect(),
        })
    }

    fn gpu(&self, index: DeviceIx) -> GpuUse<'_> {
        let device = self.nodes.device(index);
        let (millis_shared, memory_shared) = device.shared();
        GpuUse {
            sharers: device.sharers.len(),
            millis_shared,
            memory_shared: MemoryBytes(memory_shared),
            uuid: &device.config.uuid,
            model: &device.config.model,
            memory: device.config.memory,
            job: device.owner.map(|owner| self.jobs[owner].id),
            configured: device.configured,
            kind: &device.config.kind,
            link_group: device.config.link_group,
            numa: device.config.numa,
            aside: device.aside.as_ref(),
        }
    }

    /// The tasks that have parts of a GPU, by their jobs, in the order in which they got them.
    pub fn gpu_sharers(&self, uuid: &Name) -> impl Iterator<Item = (JobId, GpuShare)> {
        let device = self.nodes.find_device(uuid).map(|device| self.nodes.device(device));
        let sharers = device.into_iter().flat_map(|device| &device.sharers);
        sharers.map(|sharer| (self.jobs[sharer.job].id, GpuShare { millis: sharer.millis, memory: MemoryBytes(sharer.memory) }))
    }

    /// The queues in the order in which they came. One that is not configured any more is there while it has jobs.
    pub fn queues(&self) -> impl Iterator<Item = QueueUse<'_>> {
        let shown = self.tree.queues().iter().filter(|queue| queue.configured || queue.counts != [0; 5]);
        shown.map(|queue| {
            let [waiting, queued, starting, running, stopping] = queue.counts;
            let [cpu, memory, gpus] = queue.held.map(|held| u64::try_from(held).unwrap_or(u64::MAX));
            QueueUse {
                name: &queue.config.name,
                configured: queue.configured,
                priority: queue.config.priority,
                preemptible: queue.config.preemptible,
                waiting,
                queued,
                active: starting + running + stopping,
                cpu_used: CpuMillis(cpu),
                memory_used: MemoryBytes(memory),
                gpu_millis_used: gpus,
            }
        })
    }

    /// How a configured queue stands among those that it shares with.
    pub fn queue_standing(&self, queue: &Name, now: Timestamp) -> Option<QueueStanding> {
        Some(self.tree.queue_standing(self.tree.find_queue(queue)?, now))
    }

    /// How the tenants of a queue stand, in no particular order: those that have jobs, or use that counts.
    pub fn tenant_standings(&self, queue: &Name, now: Timestamp) -> impl Iterator<Item = TenantStanding<'_>> {
        let queue = self.tree.find_queue(queue);
        queue.into_iter().flat_map(move |queue| self.tree.tenant_standings(queue, now))
    }

    /// How the cohorts stand, in the order in which they came.
    pub fn cohort_standings(&self) -> impl Iterator<Item = CohortStanding<'_>> {
        self.tree.cohort_standings()
    }

    /// Number of jobs in each state, by [`StateKind`](crate::state::StateKind). Finished ones are those that finished since this core was made.
    pub const fn counts(&self) -> [u64; 6] {
        self.counts
    }
}
