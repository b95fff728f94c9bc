//! How nodes and GPUs come, change and go. What somebody holds stays on the books, wherever its node or GPU has gone meanwhile.

use crate::amounts::{CpuMillis, MemoryBytes};
use crate::ids::Name;
use crate::scheduler::config::{GpuDevice, NodeConfig, NodeState, Resource};
use crate::scheduler::nodes::{Device, DeviceIx, Node, Nodes};
use crate::scheduler::place::divide::{Division, divide};
use crate::scheduler::place::filter::Traits;
use crate::scheduler::place::{Lanes, Room};

impl Nodes {
    /// Enters a node, or changes the one of this name; its state stays. The caller has checked that no other node lists its GPUs.
    pub(crate) fn configure(&mut self, config: NodeConfig) {
        let at = match self.find_node(&config.name) {
            Some(at) => at,
            None => self.add_node(config.name.clone()),
        };
        let NodeConfig { cpu, memory, gpus, labels, .. } = config;
        let listed = self.unlist_devices(at);
        self.list[at].configured = true;
        let Division { lanes, of } = divide(&gpus.iter().collect::<Vec<_>>(), self.filters.named());
        for (gpu, lane) in gpus.into_iter().zip(of) {
            self.list_device(at, gpu, lane);
        }
        self.keep_devices(at, listed);
        let node = &mut self.list[at];
        (node.cpu, node.memory, node.traits) = (cpu, memory, Traits { labels, lanes });
        self.settle(at);
    }

    /// Takes a node out of the configuration. What runs there goes on, and holds what it has.
    pub(crate) fn remove(&mut self, at: usize) {
        let listed = self.unlist_devices(at);
        self.keep_devices(at, listed);
        let node = &mut self.list[at];
        node.configured = false;
        node.state = NodeState::Ready;
        (node.cpu, node.memory, node.traits) = (CpuMillis::ZERO, MemoryBytes::ZERO, Traits::default());
        self.settle(at);
        self.vacate(at);
    }

    /// What may be done with a node.
    pub(crate) fn set_state(&mut self, at: usize, state: NodeState) {
        self.list[at].state = state;
        self.settle(at);
    }

    /// Keeps a configured GPU from being promised, or (`None`) lets it be promised again. False where that is so already.
    pub(crate) fn set_aside(&mut self, index: DeviceIx, why: Option<Name>) -> bool {
        let device = &mut self.devices[index];
        if device.aside == why {
            return false;
        }
        let (before, node, lane) = (device.is_offered(), device.node, device.lane);
        device.aside = why;
        if device.is_free() {
            match (before, device.is_offered()) {
                (true, false) => drop(self.list[node].free.take(lane)),
                (false, true) => self.list[node].free.put(lane),
                _ => {}
            }
        }
        self.settle(node);
        true
    }

    /// A node without anything, in the first free place.
    pub(super) fn add_node(&mut self, name: Name) -> usize {
        let node = Node {
            name: name.clone(),
            cpu: CpuMillis::ZERO,
            memory: MemoryBytes::ZERO,
            traits: Traits::default(),
            state: NodeState::Ready,
            configured: false,
            cpu_used: 0,
            memory_used: 0,
            gpu_millis: 0,
            line: None,
            tasks: 0,
            free: Lanes::default(),
            devices: Vec::new(),
            over: false,
        };
        let at = if let Some(at) = self.vacant.pop_first() {
            self.list[at] = node;
            at
        } else {
            self.list.push(node);
            self.whole.list.push(Room::CLOSED);
            self.idle.list.push(Room::CLOSED);
            self.field.push(Room::CLOSED);
            self.filters.update(self.list.len() - 1, None);
            self.list.len() - 1
        };
        self.by_name.insert(name, at);
        at
    }

    /// Gives the place of a node away that is neither configured nor held by anybody.
    pub(super) fn vacate(&mut self, at: usize) {
        let node = &self.list[at];
        if !node.configured && node.tasks == 0 && node.devices.is_empty() && self.vacant.insert(at) {
            self.by_name.remove(&self.list[at].name);
        }
    }

    /// Brings everything that follows from a node's configuration up to date.
    pub(super) fn settle(&mut self, at: usize) {
        let node = &mut self.list[at];
        node.over = node.is_over();
        let mut all = Lanes::default();
        let mine = node.devices.iter().map(|&device| &self.devices[device]).filter(|device| device.configured);
        mine.for_each(|device| all.put(device.lane));
        let has_gpus = all != Lanes::default();
        let named = node.traits.named();
        let whole = Room { cpu: node.cpu.0, memory: node.memory.0, gpus: all, named, has_gpus, open: true };
        let whole = if node.configured { whole } else { Room::CLOSED };
        for resource in [Resource::Cpu, Resource::Memory] {
            let sum = &mut self.capacity[resource as usize];
            *sum = *sum - u128::from(self.whole[at].of(resource)) + u128::from(whole.of(resource));
        }
        let mine = node.devices.iter().map(|&device| &self.devices[device]).filter(|device| device.configured);
        let millis = if node.configured { mine.map(|device| u64::from(device.config.kind.millis())).sum() } else { 0 };
        let sum = &mut self.capacity[Resource::Gpu as usize];
        *sum = *sum - u128::from(std::mem::replace(&mut node.gpu_millis, millis)) + u128::from(millis);
        self.whole.list[at] = whole;
        let mut offered = Lanes::default();
        let mine = node.devices.iter().map(|&device| &self.devices[device]).filter(|device| device.is_offered());
        mine.for_each(|device| offered.put(device.lane));
        let idle = Room { gpus: offered, ..whole };
        self.idle.list[at] = if node.configured && node.state == NodeState::Ready { idle } else { Room::CLOSED };
        if self.filters.update(at, node.configured.then_some(&node.traits)) {
            self.field.note(at);
        }
        self.refresh(at);
    }

    /// No GPU of a node is configured or listed any more, until it is again. Gives those that were.
    fn unlist_devices(&mut self, at: usize) -> Vec<DeviceIx> {
        let listed = std::mem::take(&mut self.list[at].devices);
        for &device in &listed {
            self.devices[device].configured = false;
        }
        self.list[at].free = Lanes::default();
        listed
    }

    fn list_device(&mut self, at: usize, config: GpuDevice, lane: u8) {
        let index = if let Some(index) = self.find_device(&config.uuid) {
            let device = &mut self.devices[index];
            let from = device.node;
            let shared = device.is_shared();
            (device.config, device.node, device.lane, device.configured) = (config, at, lane, true);
            device.over = device.is_over();
            // One that only jobs knew was none that a device plugin gives out.
            let (count, is_shared) = (device.sharers.len(), device.is_shared());
            self.sharers = self.sharers + usize::from(is_shared) * count - usize::from(shared) * count;
            self.list[at].devices.push(index);
            if from != at {
                self.list[from].devices.retain(|other| *other != index);
                self.vacate(from);
            }
            index
        } else {
            self.add_device(Device::new(config, at, lane, true))
        };
        if self.devices[index].is_free() && self.devices[index].aside.is_none() {
            self.list[at].free.put(lane);
        }
    }

    /// Keeps those GPUs of a node that are held though they are not listed any more, and forgets the others that are not.
    fn keep_devices(&mut self, at: usize, listed: Vec<DeviceIx>) {
        for index in listed {
            let device = &self.devices[index];
            match (device.configured, device.is_free()) {
                (true, _) => {}
                (false, false) => {
                    self.devices[index].aside = None;
                    self.list[at].devices.push(index);
                }
                (false, true) => self.forget_device(index),
            }
        }
    }

    fn add_device(&mut self, device: Device) -> DeviceIx {
        let (uuid, node) = (device.config.uuid.clone(), device.node);
        let index = self.devices.insert(device);
        self.by_uuid.insert(uuid, index);
        self.list[node].devices.push(index);
        index
    }

    pub(super) fn add_unknown_device(&mut self, node: usize, uuid: &Name) -> DeviceIx {
        let config = GpuDevice::whole(uuid.clone(), Name::from("unknown"), MemoryBytes::ZERO);
        self.add_device(Device::new(config, node, 0, false))
    }

    pub(super) fn forget_device(&mut self, index: DeviceIx) {
        if let Some(device) = self.devices.remove(index) {
            self.by_uuid.remove(&device.config.uuid);
            self.list[device.node].devices.retain(|other| *other != index);
        }
    }
}
