//! GPUs that jobs name by UUID: they get lanes of their own while such jobs are there, and who has them can be told.

use std::collections::BTreeSet;

use crate::ids::Name;
use crate::scheduler::nodes::{Device, DeviceIx, Nodes};
use crate::scheduler::place::Lanes;
use crate::scheduler::place::divide::{Division, divide};

impl Nodes {
    /// A configured GPU.
    pub(crate) fn configured_device(&self, uuid: &Name) -> Option<&Device> {
        self.find_device(uuid).map(|index| &self.devices[index]).filter(|device| device.configured)
    }

    /// Who names these GPUs has changed. True where lanes have because of that.
    pub(super) fn divide_again<'a>(&mut self, uuids: impl IntoIterator<Item = &'a Name>) -> bool {
        let nodes: BTreeSet<usize> =
            uuids.into_iter().filter_map(|uuid| self.configured_device(uuid)).map(|device| device.node).collect();
        let mut changed = false;
        for node in nodes {
            changed |= self.divide_node(node);
        }
        changed
    }

    fn divide_node(&mut self, at: usize) -> bool {
        let (mine, Division { lanes, of }) = self.division(at);
        if lanes == self.list[at].traits.lanes {
            return false;
        }
        let mut free = Lanes::default();
        for (index, lane) in mine.into_iter().zip(of) {
            let device = &mut self.devices[index];
            device.lane = lane;
            if device.is_free() && device.is_offered() {
                free.put(lane);
            }
        }
        let node = &mut self.list[at];
        (node.free, node.traits.lanes) = (free, lanes);
        self.settle(at);
        true
    }

    /// The configured GPUs of a node, and how they are to be divided.
    fn division(&self, at: usize) -> (Vec<DeviceIx>, Division) {
        let mine = self.list[at].devices.iter().copied().filter(|&index| self.devices[index].configured);
        let mine: Vec<DeviceIx> = mine.collect();
        let configs: Vec<_> = mine.iter().map(|&index| &self.devices[index].config).collect();
        let division = divide(&configs, self.filters.named());
        (mine, division)
    }

    /// True when the lanes of a node are what they should be.
    pub(super) fn is_divided(&self, at: usize) -> bool {
        let (mine, Division { lanes, of }) = self.division(at);
        lanes == self.list[at].traits.lanes && mine.iter().zip(of).all(|(&index, lane)| self.devices[index].lane == lane)
    }
}
