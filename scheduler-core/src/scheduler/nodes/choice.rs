//! Which GPUs of a node a task gets: of the lanes that its share has, and of one link group where one has enough.
//!
//! A share stays in the link group that it began with as long as that has enough for the next task. Else, of the groups that have enough for
//! all tasks to come the one with fewest free is taken, or of those that have enough for this task, so that larger groups stay whole for
//! others; where none has, GPUs are taken in their order. Those of which no links are known are no group.

use smallvec::SmallVec;

use crate::amounts::GpuShare;
use crate::ids::Name;
use crate::scheduler::config::{GpuDevice, Resource};
use crate::scheduler::nodes::{DeviceIx, Nodes};
use crate::scheduler::place::shared::{Gpu, On};
use crate::scheduler::place::{Demand, Mask, Packing, Share};
use crate::scheduler::tree::share::Amounts;
use crate::state::{Placement, Slot};

type Chosen = SmallVec<[DeviceIx; 8]>;

/// What a placement has handed out so far.
#[derive(Default)]
struct Given {
    devices: Chosen,
    /// The link group that the present share takes from.
    link: Option<u16>,
}

impl Nodes {
    /// Writes a packing down as slots: replicas numbered in the order of the nodes, GPUs in the order of the configuration.
    pub(crate) fn placement(&self, demand: &Demand, packing: &Packing) -> Placement {
        let tasks = packing.iter().map(|share| share.count as usize).sum();
        let mut slots = Vec::with_capacity(tasks);
        let mut given = Given::default();
        if demand.has_parts {
            let known = |share: &Share| if let Gpu::Known(device) = share.on?.gpu { Some(device) } else { None };
            given.devices.extend(packing.iter().filter_map(known));
        }
        let mut numbered: SmallVec<[u32; 4]> = smallvec::smallvec![0; demand.groups.len()];
        for share in packing {
            let group = &demand.groups[share.group];
            let node = &self.list[share.node];
            let mut left = *share;
            given.link = None;
            let on =
                share.on.and_then(|on| if let Gpu::Known(device) = on.gpu { Some(&self.devices[device].config) } else { None });
            for _ in 0..share.count {
                let gpus = match on {
                    _ if group.gpus == 0 => SmallVec::new(),
                    Some(gpu) => SmallVec::from_iter([gpu.uuid.clone()]),
                    None => self.choose(&mut left, group.gpus, &mut given),
                };
                let part = group.part.zip(on);
                let part = part.map(|(part, gpu)| GpuShare { memory: part.memory_of(gpu.memory), ..part });
                let part = if group.replica.is_some() { gpus.first().and_then(|uuid| self.replica(uuid)) } else { part };
                let replica = numbered[share.group];
                numbered[share.group] += 1;
                slots.push(Slot { group: group.index, replica, node: node.name.clone(), gpus, share: part });
            }
        }
        if demand.groups.len() > 1 {
            slots.sort_unstable_by_key(|slot| (slot.group, slot.replica));
        }
        Placement::new(slots)
    }

    /// What a part that a device plugin gives out is of its GPU.
    fn replica(&self, uuid: &Name) -> Option<GpuShare> {
        let GpuDevice { kind, memory, .. } = &self.devices[self.find_device(uuid)?].config;
        kind.replica().map(|millis| GpuShare::even(millis, *memory))
    }

    /// What a job would hold with this packing.
    pub(crate) fn held(&self, demand: &Demand, packing: &Packing) -> Amounts {
        let mut held = [0; 3];
        for share in packing {
            let (group, count) = (&demand.groups[share.group], u128::from(share.count));
            let lanes = &self.list[share.node].traits.lanes;
            let millis = |(lane, count): (u8, u16)| {
                lanes.get(usize::from(lane)).map_or(0, |lane| u128::from(lane.kind.millis()) * u128::from(count))
            };
            for resource in Resource::ALL {
                held[resource as usize] += match resource {
                    Resource::Gpu if group.replica.is_some() => share.gpus.lanes().map(millis).sum(),
                    _ => u128::from(group.of(resource)) * count,
                };
            }
        }
        held
    }

    /// Chooses the GPUs that a packing opens for parts: of those that nobody has now, in a link group with as few others as can be, so that groups
    /// stay whole for those who need several.
    pub(crate) fn settle_parts(&self, packing: &mut Packing) {
        let mut chosen: SmallVec<[(u32, DeviceIx); 2]> = SmallVec::new();
        for share in packing.iter_mut() {
            let Some(On { gpu: Gpu::New(number), lane, .. }) = share.on else { continue };
            let device = match chosen.iter().find(|(of, _)| *of == number) {
                Some((_, device)) => Some(*device),
                None => self.free_for_parts(share.node, lane, &chosen),
            };
            if let (Some(device), Some(on)) = (device, &mut share.on) {
                chosen.push((number, device));
                on.gpu = Gpu::Known(device);
            }
        }
    }

    /// A GPU of a lane to be shared, one that is not among these.
    fn free_for_parts(&self, node: usize, lane: u8, but: &[(u32, DeviceIx)]) -> Option<DeviceIx> {
        let free = |index: &DeviceIx| {
            let device = &self.devices[*index];
            device.is_free() && device.is_offered() && device.lane == lane && !but.iter().any(|(_, other)| other == index)
        };
        let free = || self.list[node].devices.iter().copied().filter(free);
        let linked = |device: DeviceIx| {
            let link = self.devices[device].config.link_group;
            link.map_or(0, |link| free().filter(|other| self.devices[*other].config.link_group == Some(link)).count())
        };
        free().min_by_key(|device| linked(*device))
    }

    /// GPUs for the next task of a share.
    fn choose(&self, share: &mut Share, each: u32, given: &mut Given) -> SmallVec<[Name; 1]> {
        let mut chosen = Chosen::new();
        let mut left = each;
        let mut from = 0;
        let lanes: SmallVec<[usize; 8]> = share.gpus.lanes_for(Mask::MAX, 0, each).collect();
        for lane in lanes {
            let lane = lane as u8;
            let has = share.gpus.of(1 << lane);
            let wanted = left.min(has);
            self.choose_in(share.node, lane, wanted, has, given, &mut chosen);
            for _ in 0..wanted {
                share.gpus.take(lane);
            }
            left -= wanted;
            from += usize::from(wanted > 0);
        }
        if from > 1 && self.idle[share.node].named > 0 {
            // Who names which GPUs changes nothing in their order: by kind, then by place.
            let devices = &self.list[share.node].devices;
            let kind = |index: DeviceIx| {
                let GpuDevice { model, memory, kind, .. } = &self.devices[index].config;
                (model, memory, kind)
            };
            chosen.sort_by_cached_key(|&chosen| {
                let first = devices.iter().position(|&device| kind(device) == kind(chosen));
                (first, devices.iter().position(|&device| device == chosen))
            });
        }
        chosen.into_iter().map(|device| self.devices[device].config.uuid.clone()).collect()
    }

    /// `wanted` free GPUs of a lane, of which the share will have `all`.
    fn choose_in(&self, node: usize, lane: u8, wanted: u32, all: u32, given: &mut Given, chosen: &mut Chosen) {
        let free = |index: &DeviceIx| {
            let device = &self.devices[*index];
            device.is_free() && device.is_offered() && device.lane == lane && !given.devices.contains(index)
        };
        let from = chosen.len();
        let devices = &self.list[node].devices;
        let linked = devices.iter().any(|device| self.devices[*device].config.link_group.is_some());
        let link = if linked { self.link(devices.iter().copied().filter(free), (wanted, all), given.link) } else { None };
        let of_link = |index: &DeviceIx| link.is_none() || self.devices[*index].config.link_group == link;
        chosen.extend(devices.iter().copied().filter(free).filter(of_link).take(wanted as usize));
        given.devices.extend_from_slice(&chosen[from..]);
        given.link = link;
    }

    /// The link group to take from, if one has enough: for the next task and for all to come.
    fn link(&self, free: impl Iterator<Item = DeviceIx>, (wanted, all): (u32, u32), before: Option<u16>) -> Option<u16> {
        let mut groups: SmallVec<[(u16, u32); 8]> = SmallVec::new();
        for group in free.filter_map(|device| self.devices[device].config.link_group) {
            match groups.iter_mut().find(|(other, _)| *other == group) {
                Some((_, count)) => *count += 1,
                None => groups.push((group, 1)),
            }
        }
        let enough = |least: u32| groups.iter().filter(move |(_, count)| *count >= least);
        let same = enough(wanted).find(|(group, _)| Some(*group) == before);
        let fullest = |least| enough(least).min_by_key(|(_, count)| *count);
        same.or_else(|| fullest(all)).or_else(|| fullest(wanted)).map(|(group, _)| *group)
    }
}
