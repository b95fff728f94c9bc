//! Which GPUs of a node a task gets: of the lanes that its share has, and of one link group where one has enough.
//!
//! Of the link groups that have enough for all tasks of the share the one with fewest free is taken, else of those that have enough for the
//! task, so that larger groups stay whole for others; where none has, GPUs are taken in their order. Those of which no links are known are no
//! group.

use smallvec::SmallVec;

use crate::ids::Name;
use crate::scheduler::nodes::{DeviceIx, Nodes};
use crate::scheduler::place::{Demand, Mask, Packing, Share};
use crate::state::{Placement, Slot};

type Chosen = SmallVec<[DeviceIx; 8]>;

impl Nodes {
    /// Writes a packing down as slots: replicas numbered in the order of the nodes, GPUs in the order of the configuration.
    pub(crate) fn placement(&self, demand: &Demand, packing: &Packing) -> Placement {
        let tasks = packing.iter().map(|share| share.count as usize).sum();
        let mut slots = Vec::with_capacity(tasks);
        // What has been handed out by this placement.
        let mut given = Chosen::new();
        let mut numbered: SmallVec<[u32; 4]> = smallvec::smallvec![0; demand.groups.len()];
        for share in packing {
            let group = &demand.groups[share.group];
            let node = &self.list[share.node];
            let mut left = *share;
            for _ in 0..share.count {
                let gpus = if group.gpus == 0 { SmallVec::new() } else { self.choose(&mut left, group.gpus, &mut given) };
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

    /// GPUs for the next task of a share.
    fn choose(&self, share: &mut Share, each: u32, given: &mut Chosen) -> SmallVec<[Name; 1]> {
        let mut chosen = Chosen::new();
        let mut left = each;
        let lanes: SmallVec<[usize; 8]> = share.gpus.lanes_for(Mask::MAX, each).collect();
        for lane in lanes {
            let lane = lane as u8;
            let has = share.gpus.of(1 << lane);
            let wanted = left.min(has);
            self.choose_in(share.node, lane, wanted, has, given, &mut chosen);
            for _ in 0..wanted {
                share.gpus.take(lane);
            }
            left -= wanted;
        }
        chosen.into_iter().map(|device| self.devices[device].config.uuid.clone()).collect()
    }

    /// `wanted` free GPUs of a lane, of which the share will have `all`.
    fn choose_in(&self, node: usize, lane: u8, wanted: u32, all: u32, given: &mut Chosen, chosen: &mut Chosen) {
        let free = |index: &DeviceIx| {
            let device = &self.devices[*index];
            device.owner.is_none() && device.configured && device.lane == lane && !given.contains(index)
        };
        let from = chosen.len();
        let devices = &self.list[node].devices;
        let linked = devices.iter().any(|device| self.devices[*device].config.link_group.is_some());
        let link = if linked { self.link(devices.iter().copied().filter(free), wanted, all) } else { None };
        let of_link = |index: &DeviceIx| link.is_none() || self.devices[*index].config.link_group == link;
        chosen.extend(devices.iter().copied().filter(free).filter(of_link).take(wanted as usize));
        given.extend_from_slice(&chosen[from..]);
    }

    /// The link group to take from, if one has enough.
    fn link(&self, free: impl Iterator<Item = DeviceIx>, wanted: u32, all: u32) -> Option<u16> {
        let mut groups: SmallVec<[(u16, u32); 8]> = SmallVec::new();
        for group in free.filter_map(|device| self.devices[device].config.link_group) {
            match groups.iter_mut().find(|(other, _)| *other == group) {
                Some((_, count)) => *count += 1,
                None => groups.push((group, 1)),
            }
        }
        let fullest = |least: u32| groups.iter().filter(|(_, count)| *count >= least).min_by_key(|(_, count)| *count);
        fullest(all).or_else(|| fullest(wanted)).map(|(group, _)| *group)
    }
}
