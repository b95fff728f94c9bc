//! GPUs of which tasks have parts: who has how much of which, and what is left to others.
//!
//! What must hold: a GPU with an owner has no sharers; sharers ask together for no more of a GPU than it has, but for its memory where it came
//! back with less. One that is shared is in no lane. A part that a device plugin gives out is a GPU of its own with one sharer at most, which nobody
//! joins.

use hashbrown::HashMap;

use crate::amounts::{GPU_MILLIS, GpuShare, MemoryBytes};
use crate::hash::Build;
use crate::ids::Name;
use crate::scheduler::nodes::{Device, DeviceIx, Nodes};
use crate::scheduler::place::shared::{Gpu, SharedGpu};
use crate::scheduler::place::{Group, Rooms};
use crate::scheduler::table::JobIx;
use crate::state::Placement;

/// A task that has a part of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Sharer {
    pub(crate) job: JobIx,
    pub(crate) millis: u32,
    pub(crate) memory: u64,
}

impl Nodes {
    /// What a node offers tasks of a group now, of each resource; `None` where its constraints keep them away.
    /// Where a part of a GPU is asked for, the largest that one GPU has is what counts.
    pub(crate) fn offered(&self, node: usize, group: &Group, rooms: &Rooms) -> Option<[u64; 3]> {
        let mask = self.filters.get(group.filter).fit(node)?;
        let room = &rooms[node];
        let whole = u64::from(room.gpus.of(mask)) * u64::from(GPU_MILLIS);
        let Some(part) = group.part else { return Some([room.cpu, room.memory, whole]) };
        let shared = rooms.shared.of(node).iter().filter(|gpu| mask >> gpu.lane & 1 == 1);
        let enough = |gpu: &&SharedGpu| gpu.memory_left() >= part.memory_of(MemoryBytes(gpu.total)).0;
        let hole = shared.filter(enough).map(SharedGpu::millis_left).max().unwrap_or(0);
        Some([room.cpu, room.memory, whole.min(GPU_MILLIS.into()).max(hole.into())])
    }

    /// The first GPU of a placement that another job has; or that others share, where it asks for all of it or for more than they leave.
    pub(crate) fn conflict(&self, placement: &Placement) -> Option<(Name, JobIx)> {
        let mut own: HashMap<&Name, u32, Build> = HashMap::default();
        placement.slots.iter().flat_map(|slot| slot.gpus.iter().map(move |uuid| (slot, uuid))).find_map(|(slot, uuid)| {
            let device = &self.devices[self.find_device(uuid)?];
            let sharer = device.sharers.first().map(|sharer| sharer.job);
            let beside = |share: GpuShare| {
                let own = own.entry(uuid).or_default();
                *own = own.saturating_add(share.millis);
                own.saturating_add(device.shared().0) > GPU_MILLIS
            };
            let taken = device.config.kind.replica().is_some() || slot.share.is_none_or(beside);
            Some((uuid.clone(), device.owner.or_else(|| sharer.filter(|_| taken))?))
        })
    }

    /// Enters a task that has a part of a GPU.
    pub(super) fn join(&mut self, index: DeviceIx, sharer: Sharer) {
        let device = &mut self.devices[index];
        let (node, lane, was_free) = (device.node, device.lane, device.is_free());
        device.sharers.push(sharer);
        let is_shared = device.is_shared();
        if was_free && device.is_offered() {
            self.list[node].free.take(lane);
        }
        self.sharers += usize::from(is_shared);
    }

    /// A task has its part of a GPU no more.
    pub(super) fn part(&mut self, index: DeviceIx, job: JobIx, share: GpuShare) {
        let device = &mut self.devices[index];
        let gone = Sharer { job, millis: share.millis, memory: share.memory.0 };
        let Some(at) = device.sharers.iter().position(|sharer| *sharer == gone) else { return };
        let was_shared = device.is_shared();
        device.sharers.remove(at);
        device.over &= device.is_over();
        let (node, lane) = (device.node, device.lane);
        if device.is_free() && device.is_offered() {
            self.list[node].free.put(lane);
        }
        self.sharers -= usize::from(was_shared);
    }

    /// What is taken of the GPUs of a node that are shared and may be shared with more, from the books.
    pub(crate) fn shared_gpus(&self, node: usize) -> Vec<SharedGpu> {
        let devices = self.list[node].devices.iter().map(|&index| (index, &self.devices[index]));
        let offered = devices.filter(|(_, device)| device.is_offered() && device.is_shared());
        let entry = |(index, device): (DeviceIx, &Device)| {
            let (millis, memory) = device.shared();
            SharedGpu { millis, memory, ..SharedGpu::new(Gpu::Known(index), device.lane, device.config.memory.0) }
        };
        offered.map(entry).collect()
    }

    /// Whether anybody shares a GPU.
    pub(crate) const fn has_sharers(&self) -> bool {
        self.sharers > 0
    }
}
