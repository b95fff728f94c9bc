//! The books of the nodes, worked out again and compared.

use crate::scheduler::config::Resource;
use crate::scheduler::nodes::{Device, DeviceIx, Node, Nodes, traits};
use crate::scheduler::place::Lanes;

impl Nodes {
    /// True when every offer is what the books say, and every order what the offers do.
    pub(crate) fn is_current(&self) -> bool {
        let free = |node: &Node| {
            let mut free = Lanes::default();
            let mine = node.devices.iter().map(|&device| &self.devices[device]);
            mine.filter(|device| device.is_offered() && device.is_free()).for_each(|device| free.put(device.lane));
            free
        };
        let shared = |node: usize| if self.is_usable(node) { self.shared_gpus(node) } else { Vec::new() };
        let gpus = |node: &Node| {
            let mine =
                node.devices.iter().map(|&device| &self.devices[device]).filter(|device| device.configured && node.configured);
            mine.map(|device| u128::from(device.config.kind.millis())).sum::<u128>()
        };
        let sum = |resource: Resource| match resource {
            Resource::Gpu => self.list.iter().map(gpus).sum::<u128>(),
            Resource::Cpu | Resource::Memory => self.whole.iter().map(|room| u128::from(room.of(resource))).sum(),
        };
        self.rooms().iter().enumerate().all(|(node, room)| *room == self.offer(node))
            && self.list.iter().all(|node| node.free == free(node))
            && (0..self.list.len()).all(|node| self.is_divided(node))
            && (0..self.list.len()).all(|node| self.rooms().shared.of(node) == shared(node))
            && self.sharers
                == self.devices().filter(|device| device.is_shared()).map(|device| device.sharers.len()).sum::<usize>()
            && self.list.len() == self.rooms().len()
            && self.list.len() == self.whole.len()
            && self.capacity == Resource::ALL.map(sum)
            && self.field.is_consistent(&self.filters)
            && self.filters.is_current(self.list.iter().map(traits))
            && self.names_are_right()
    }

    /// Names lead to where they should, and nobody is kept whom nobody needs.
    fn names_are_right(&self) -> bool {
        let node = |(at, node): (usize, &Node)| {
            let needed = node.configured || node.tasks > 0 || !node.devices.is_empty();
            self.vacant.contains(&at) != needed && (!needed || self.find_node(&node.name) == Some(at))
        };
        let device = |(index, device): (DeviceIx, &Device)| {
            self.find_device(&device.config.uuid) == Some(index)
                && (device.configured || !device.is_free())
                && self.list[device.node].devices.iter().filter(|&&other| other == index).count() == 1
        };
        self.list.iter().enumerate().all(node)
            && self.devices.iter().all(device)
            && self.by_name.len() + self.vacant.len() == self.list.len()
            && self.by_uuid.len() == self.devices.len()
    }
}
