//! Machines: what they have, what is taken of it, and which job has which GPU.
//!
//! What must hold: the amounts taken on a node are the sum of the requests of the tasks on it; a GPU has at most one owner; what a node
//! offers is what it has less what is taken, and nothing at all where more is taken than it has. That happens only after a restore: a
//! machine came back smaller, or is not configured any more. Such takings are kept on the books until their runs end, and never
//! promised to a second job.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::amounts::{CpuMillis, MemoryBytes};
use crate::hash::Build;
use crate::ids::Name;
use crate::scheduler::config::{NodeConfig, Resource};
use crate::scheduler::place::{Demand, Packing, Room};
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::share::Amounts;
use crate::state::{Placement, Slot};

/// A machine. Those that are only known from restored jobs come after the configured ones and have no capacity.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) cpu: CpuMillis,
    pub(crate) memory: MemoryBytes,
    /// Wider than any amount, so that no sum can overflow.
    pub(crate) cpu_used: u128,
    pub(crate) memory_used: u128,
    /// Indexes of its devices in the order of the configuration.
    pub(crate) devices: Vec<usize>,
}

/// A GPU.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) uuid: Name,
    pub(crate) model: Name,
    pub(crate) memory: MemoryBytes,
    /// The node that lists it.
    pub(crate) node: usize,
    pub(crate) owner: Option<JobIx>,
    /// False for one that is only known from a restored job: it is never offered.
    pub(crate) configured: bool,
}

/// All machines.
#[derive(Clone)]
pub(crate) struct Nodes {
    /// The configured ones in their order, then those that only restored jobs know.
    list: Vec<Node>,
    devices: Vec<Device>,
    by_name: HashMap<Name, usize, Build>,
    by_uuid: HashMap<Name, usize, Build>,
    /// What the configured nodes have when nothing runs.
    whole: Vec<Room>,
    /// What the configured nodes offer now.
    rooms: Vec<Room>,
}

impl Nodes {
    /// The caller has checked that names and UUIDs are unique.
    pub(crate) fn new(configs: &[NodeConfig]) -> Self {
        let mut all = Self {
            list: Vec::new(),
            devices: Vec::new(),
            by_name: HashMap::default(),
            by_uuid: HashMap::default(),
            whole: Vec::new(),
            rooms: Vec::new(),
        };
        for config in configs {
            let node = all.add_node(config.name.clone(), config.cpu, config.memory);
            for gpu in &config.gpus {
                all.add_device(Device {
                    uuid: gpu.uuid.clone(),
                    model: gpu.model.clone(),
                    memory: gpu.memory,
                    node,
                    owner: None,
                    configured: true,
                });
            }
            let gpus = config.gpus.len() as u32;
            let room = Room { cpu: config.cpu.0, memory: config.memory.0, gpus, has_gpus: gpus > 0 };
            all.whole.push(room);
            all.rooms.push(room);
        }
        all
    }

    fn add_node(&mut self, name: Name, cpu: CpuMillis, memory: MemoryBytes) -> usize {
        let node = self.list.len();
        self.by_name.insert(name.clone(), node);
        self.list.push(Node { name, cpu, memory, cpu_used: 0, memory_used: 0, devices: Vec::new() });
        node
    }

    fn add_device(&mut self, device: Device) -> usize {
        let node = device.node;
        let index = self.devices.len();
        self.by_uuid.insert(device.uuid.clone(), index);
        self.devices.push(device);
        self.list[node].devices.push(index);
        index
    }

    /// What the configured nodes have when nothing runs.
    pub(crate) fn whole(&self) -> &[Room] {
        &self.whole
    }

    /// What the configured nodes offer now.
    pub(crate) fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// What all configured nodes have together.
    pub(crate) fn capacity(&self) -> Amounts {
        Resource::ALL.map(|resource| self.whole.iter().map(|room| u128::from(room.of(resource))).sum())
    }

    pub(crate) fn all(&self) -> &[Node] {
        &self.list
    }

    pub(crate) fn is_configured(&self, node: usize) -> bool {
        node < self.whole.len()
    }

    pub(crate) fn device(&self, index: usize) -> &Device {
        &self.devices[index]
    }

    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    pub(crate) fn find_device(&self, uuid: &Name) -> Option<usize> {
        self.by_uuid.get(uuid).copied()
    }

    pub(crate) fn find_node(&self, name: &Name) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The first GPU of a placement that another job has.
    pub(crate) fn conflict(&self, placement: &Placement) -> Option<(Name, JobIx)> {
        placement.slots.iter().flat_map(|slot| &slot.gpus).find_map(|uuid| {
            let owner = self.devices[self.find_device(uuid)?].owner?;
            Some((uuid.clone(), owner))
        })
    }

    /// Writes a packing down as slots: replicas numbered in the order of the nodes, GPUs in the order of the configuration.
    pub(crate) fn placement(&self, demand: &Demand, packing: &Packing) -> Placement {
        let tasks = packing.iter().map(|share| share.count as usize).sum();
        let mut slots = Vec::with_capacity(tasks);
        // How far the devices of a node have been handed out.
        let mut cursors: SmallVec<[(usize, usize); 2]> = SmallVec::new();
        let mut numbered: SmallVec<[u32; 4]> = smallvec::smallvec![0; demand.groups.len()];
        for share in packing {
            let group = &demand.groups[share.group];
            let node = &self.list[share.node];
            for _ in 0..share.count {
                let mut gpus = SmallVec::new();
                if group.gpus > 0 {
                    let at = cursors.iter().position(|&(node, _)| node == share.node).unwrap_or_else(|| {
                        cursors.push((share.node, 0));
                        cursors.len() - 1
                    });
                    let cursor = &mut cursors[at].1;
                    while gpus.len() < group.gpus as usize && *cursor < node.devices.len() {
                        let device = &self.devices[node.devices[*cursor]];
                        *cursor += 1;
                        if device.owner.is_none() && device.configured {
                            gpus.push(device.uuid.clone());
                        }
                    }
                }
                let replica = numbered[share.group];
                numbered[share.group] += 1;
                slots.push(Slot { group: group.index, replica, node: node.name.clone(), gpus });
            }
        }
        if demand.groups.len() > 1 {
            slots.sort_unstable_by_key(|slot| (slot.group, slot.replica));
        }
        Placement { slots }
    }

    /// Puts a placement on the books. Nodes and GPUs that are not configured are entered as such.
    pub(crate) fn take(&mut self, owner: JobIx, demand: &Demand, placement: &Placement) {
        for slot in &placement.slots {
            let node = match self.find_node(&slot.node) {
                Some(node) => node,
                None => self.add_node(slot.node.clone(), CpuMillis::ZERO, MemoryBytes::ZERO),
            };
            let group = demand.group(slot.group);
            self.list[node].cpu_used += u128::from(group.cpu);
            self.list[node].memory_used += u128::from(group.memory);
            for uuid in &slot.gpus {
                let device = match self.find_device(uuid) {
                    Some(device) => device,
                    None => self.add_unknown_device(node, uuid),
                };
                self.devices[device].owner = Some(owner);
            }
            self.refresh(node, &slot.gpus);
        }
    }

    fn add_unknown_device(&mut self, node: usize, uuid: &Name) -> usize {
        let device = Device {
            uuid: uuid.clone(),
            model: Name::from("unknown"),
            memory: MemoryBytes::ZERO,
            node,
            owner: None,
            configured: false,
        };
        self.add_device(device)
    }

    /// Takes a placement off the books.
    pub(crate) fn release(&mut self, demand: &Demand, placement: &Placement) {
        for slot in &placement.slots {
            let Some(node) = self.find_node(&slot.node) else { continue };
            let group = demand.group(slot.group);
            self.list[node].cpu_used -= u128::from(group.cpu);
            self.list[node].memory_used -= u128::from(group.memory);
            for uuid in &slot.gpus {
                if let Some(device) = self.find_device(uuid) {
                    self.devices[device].owner = None;
                }
            }
            self.refresh(node, &slot.gpus);
        }
    }

    /// Brings a node's offer up to date, and those of GPUs that a restored job has from another node's list.
    fn refresh(&mut self, node: usize, gpus: &[Name]) {
        self.refresh_node(node);
        for uuid in gpus {
            if let Some(other) = self.find_device(uuid).map(|device| self.devices[device].node).filter(|&other| other != node) {
                self.refresh_node(other);
            }
        }
    }

    fn refresh_node(&mut self, node: usize) {
        if self.is_configured(node) {
            self.rooms[node] = self.offer(node);
        }
    }

    /// What a configured node offers, from the books.
    fn offer(&self, node: usize) -> Room {
        let Node { cpu_used, memory_used, .. } = &self.list[node];
        self.room(node, *cpu_used, *memory_used, self.free_gpus(node))
    }

    fn free_gpus(&self, node: usize) -> u32 {
        let devices = self.list[node].devices.iter().map(|&device| &self.devices[device]);
        devices.filter(|device| device.configured && device.owner.is_none()).count() as u32
    }

    /// What a configured node would offer with this in use: nothing at all where that is more than it has.
    pub(crate) fn room(&self, node: usize, cpu_used: u128, memory_used: u128, gpus: u32) -> Room {
        let whole = self.whole[node];
        match (u128::from(whole.cpu).checked_sub(cpu_used), u128::from(whole.memory).checked_sub(memory_used)) {
            (Some(cpu), Some(memory)) => Room { cpu: cpu as u64, memory: memory as u64, gpus, has_gpus: whole.has_gpus },
            _ => Room { has_gpus: whole.has_gpus, ..Room::default() },
        }
    }

    /// Nodes of a placement on which more is taken than they have.
    pub(crate) fn overcommitted(&self, placement: &Placement) -> SmallVec<[usize; 1]> {
        let nodes = placement.slots.iter().filter_map(|slot| self.find_node(&slot.node));
        let mut over: SmallVec<[usize; 1]> = nodes
            .filter(|&node| {
                let Node { cpu, memory, cpu_used, memory_used, .. } = &self.list[node];
                *cpu_used > u128::from(cpu.0) || *memory_used > u128::from(memory.0)
            })
            .collect();
        over.dedup();
        over
    }

    /// Gives owners their numbers in a copy of the core.
    pub(crate) fn renumber(&mut self, numbers: &HashMap<JobIx, JobIx, Build>) {
        for device in &mut self.devices {
            device.owner = device.owner.and_then(|owner| numbers.get(&owner).copied());
        }
    }

    /// True when every offer is what the books say.
    pub(crate) fn is_current(&self) -> bool {
        self.rooms.iter().enumerate().all(|(node, room)| *room == self.offer(node))
    }

    /// Of each configured node: CPU and memory in use, GPUs free.
    pub(crate) fn books(&self) -> impl Iterator<Item = (u128, u128, u32)> {
        let configured = self.list.iter().take(self.whole.len()).enumerate();
        configured.map(|(node, books)| (books.cpu_used, books.memory_used, self.free_gpus(node)))
    }
}
