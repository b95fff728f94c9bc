//! What jobs hold: entered when they are placed, taken off the books when their runs are over.
//!
//! What must hold: what is given back is what was taken, by places in the lists; a node or a GPU that nobody configured is forgotten with the
//! last of those who have something of it.

use smallvec::SmallVec;

use crate::amounts::GpuShare;
use crate::scheduler::nodes::lines::Limits;
use crate::scheduler::nodes::{DeviceIx, Node, Nodes, Sharer};
use crate::scheduler::place::{Demand, Packing};
use crate::scheduler::table::JobIx;
use crate::state::Placement;

/// What a job has on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) node: u32,
    pub(crate) tasks: u32,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
}

/// What a job has, by places in the lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held {
    pub(crate) parts: SmallVec<[Part; 1]>,
    /// GPUs that are its own.
    pub(crate) devices: SmallVec<[DeviceIx; 2]>,
    /// GPUs of which it has parts, one entry for each task that has one.
    pub(crate) shares: Option<Box<[(DeviceIx, GpuShare)]>>,
    /// Its limits, where it is in the line of its node: then it has one part.
    pub(crate) line: Option<Limits>,
}

impl Held {
    /// Parts of GPUs.
    pub(crate) fn shares(&self) -> &[(DeviceIx, GpuShare)] {
        self.shares.as_deref().unwrap_or_default()
    }

    /// One task more on a node.
    fn add(&mut self, node: usize, cpu: u64, memory: u64) {
        if let Some(last) = self.parts.last_mut().filter(|last| last.node as usize == node)
            && let (Some(cpu), Some(memory)) = (last.cpu.checked_add(cpu), last.memory.checked_add(memory))
        {
            *last = Part { tasks: last.tasks + 1, cpu, memory, ..*last };
            return;
        }
        self.parts.push(Part { node: node as u32, tasks: 1, cpu, memory });
    }
}

impl Nodes {
    /// Puts a placement on the books. Nodes and GPUs that are not configured are entered as such. Where it was made from a packing just
    /// now, that says which nodes they are.
    pub(crate) fn take(&mut self, owner: JobIx, demand: &Demand, placement: &Placement, packing: &Packing) -> Held {
        let mut held = Held::default();
        let mut shares = Vec::new();
        let known = if demand.groups.len() == 1 { &packing[..] } else { &[] };
        let mut known = known.iter().flat_map(|share| std::iter::repeat_n(share.node, share.count as usize));
        for slot in &placement.slots {
            let node = match known.next().or_else(|| self.find_node(&slot.node)) {
                Some(node) => node,
                None => self.add_node(slot.node.clone()),
            };
            debug_assert_eq!(self.list[node].name, slot.node, "the packing is another placement's");
            let group = demand.group(slot.group);
            held.add(node, group.cpu, group.memory);
            for uuid in &slot.gpus {
                let device = match self.find_device(uuid) {
                    Some(device) => device,
                    None => self.add_unknown_device(node, uuid),
                };
                match slot.share {
                    None => held.devices.push(device),
                    Some(share) => shares.push((device, share)),
                }
            }
        }
        if !shares.is_empty() {
            for &(device, share) in &shares {
                self.join(device, Sharer { job: owner, millis: share.millis, memory: share.memory.0 });
            }
            held.shares = Some(shares.into_boxed_slice());
        }
        for &device in &held.devices {
            self.own(device, Some(owner));
        }
        if held.parts.len() == 1 && held.devices.is_empty() && held.shares.is_none() {
            held.line = placement.line.map(|line| [line.cpu.0, line.memory.0]);
        }
        for part in &held.parts {
            let node = &mut self.list[part.node as usize];
            if let Some(limits) = held.line {
                node.line_up(part, limits);
            } else {
                node.cpu_used += u128::from(part.cpu);
                node.memory_used += u128::from(part.memory);
            }
            node.tasks += part.tasks;
        }
        self.refresh_held(&held);
        held
    }

    /// Brings the offers of all nodes up to date that a job has something of. A GPU can be another node's than its task.
    fn refresh_held(&mut self, held: &Held) {
        for part in &held.parts {
            self.refresh(part.node as usize);
        }
        let mut last = held.parts.last().map(|part| part.node as usize);
        for &device in &held.devices {
            let node = self.devices[device].node;
            if last != Some(node) {
                self.refresh(node);
                last = Some(node);
            }
        }
        for (device, _) in held.shares() {
            self.refresh(self.devices[*device].node);
        }
    }

    /// Takes what a job had off the books.
    pub(crate) fn release(&mut self, owner: JobIx, held: &Held) {
        for &device in &held.devices {
            self.own(device, None);
        }
        for &(device, share) in held.shares() {
            self.part(device, owner, share);
        }
        for part in &held.parts {
            let node = &mut self.list[part.node as usize];
            if let Some(limits) = held.line {
                node.leave_line(part, limits);
            } else {
                node.cpu_used -= u128::from(part.cpu);
                node.memory_used -= u128::from(part.memory);
            }
            node.tasks -= part.tasks;
            node.over &= node.is_over();
        }
        self.refresh_held(held);
        for &device in &held.devices {
            self.forget_unlisted(device);
        }
        for (device, _) in held.shares() {
            self.forget_unlisted(*device);
        }
        for part in &held.parts {
            self.vacate(part.node as usize);
        }
    }

    /// Forgets a GPU that nobody has and nobody configured.
    fn forget_unlisted(&mut self, index: DeviceIx) {
        // A job may have had several parts of it.
        let Some(device) = self.devices.get(index) else { return };
        let (node, gone) = (device.node, !device.configured && device.is_free());
        if gone {
            self.forget_device(index);
            self.vacate(node);
        }
    }

    /// Enters who has a GPU.
    fn own(&mut self, index: DeviceIx, owner: Option<JobIx>) {
        let device = &mut self.devices[index];
        let (node, lane) = (device.node, device.lane);
        let was_free = device.owner.is_none();
        device.owner = owner;
        if device.is_offered() {
            match (was_free, owner.is_none()) {
                (true, false) => drop(self.list[node].free.take(lane)),
                (false, true) => self.list[node].free.put(lane),
                _ => {}
            }
        }
    }

    /// More may be taken here than there is: it was so before.
    pub(crate) fn tolerate(&mut self, held: &Held) {
        for part in &held.parts {
            let node = &mut self.list[part.node as usize];
            node.over = node.is_over();
        }
        for (device, _) in held.shares() {
            let device = &mut self.devices[*device];
            device.over = device.is_over();
        }
    }
}

impl Node {
    pub(super) fn is_over(&self) -> bool {
        self.cpu_used > self.cpu.0.into() || self.memory_used > self.memory.0.into()
    }
}
