//! Packing: which tasks go on which nodes. All of a job, or as many as fit where the job says that fewer will do, or nothing.
//!
//! For one task group the answer is exact: if the group can be placed at all, it is. Several groups are placed largest first, which
//! can miss a packing that exists; a second try spreads instead of packing. Choices depend on amounts and on the order of the nodes, so
//! the same state gives the same placement everywhere; whether the nodes are walked or searched ([`field`]) makes no difference.

pub(crate) mod divide;
pub(crate) mod field;
pub(crate) mod filter;
mod order;
mod room;
pub(crate) mod shared;

use smallvec::SmallVec;

use crate::amounts::{GPU_MILLIS, GpuShare};
use crate::job::{Arrangement, Shape, TaskGroup};
use crate::scheduler::config::Resource;
use crate::scheduler::place::field::{Found, Offers, Query};
use crate::scheduler::place::filter::FilterIx;
pub(crate) use crate::scheduler::place::room::{LANES, Lanes, Mask, Room};
pub(crate) use crate::scheduler::place::shared::Rooms;
use crate::scheduler::place::shared::{On, SharedGpu, less_part, pack_parts};
use crate::scheduler::tree::share::Amounts;
use crate::state::{Placement, Slot};

/// Equal tasks of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// Index into the shape's tasks.
    pub(crate) index: u16,
    pub(crate) replicas: u32,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) gpus: u32,
    /// Each asks for a part of its one GPU.
    pub(crate) part: Option<GpuShare>,
    /// Each asks for one of the parts that device plugins give out, of so many thousandths at least. They are taken as whole GPUs are: how many there
    /// are on a node is all that counts.
    pub(crate) replica: Option<u32>,
    /// Each asks for certain GPUs.
    pub(crate) named: bool,
    /// Where its tasks may go.
    pub(crate) filter: FilterIx,
}

impl Group {
    /// What each task asks for of one resource.
    pub(crate) fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
            Resource::Gpu => match (self.part, self.replica) {
                (Some(GpuShare { millis, .. }), _) | (None, Some(millis)) => millis.into(),
                (None, None) => u64::from(self.gpus) * u64::from(GPU_MILLIS),
            },
        }
    }

    /// The same as nodes offer it: parts that device plugins give out count as one each there.
    pub(crate) fn counted(&self, resource: Resource) -> u64 {
        match self.replica.filter(|_| resource == Resource::Gpu) {
            Some(_) => u64::from(self.gpus) * u64::from(GPU_MILLIS),
            None => self.of(resource),
        }
    }

    /// What a slot of it holds of one resource.
    fn held(&self, resource: Resource, slot: &Slot) -> u64 {
        match slot.share.filter(|_| self.replica.is_some() && resource == Resource::Gpu) {
            Some(share) => share.millis.into(),
            None => self.of(resource),
        }
    }
}

/// What a job asks for, its most demanding group first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Demand {
    pub(crate) groups: SmallVec<[Group; 1]>,
    /// Over all tasks. Of parts that device plugins give out what is asked for at least: what is had is known where it is placed.
    pub(crate) total: Amounts,
    pub(crate) tasks: u64,
    /// How many tasks have to start together.
    pub(crate) least: u64,
    /// Some of its groups ask for parts of GPUs.
    pub(crate) has_parts: bool,
    /// Some of its groups ask for parts that device plugins give out.
    pub(crate) has_replicas: bool,
    /// Some of its groups ask for certain GPUs.
    pub(crate) is_named: bool,
    arrangement: Arrangement,
}

impl Demand {
    /// What jobs of a shape ask for; `filter` says which nodes a group may go on, that of the shape's tasks with this index.
    pub(crate) fn of(shape: &Shape, mut filter: impl FnMut(usize, &TaskGroup) -> FilterIx) -> Self {
        let mut groups: SmallVec<[Group; 1]> = shape
            .tasks
            .iter()
            .enumerate()
            .map(|(index, group)| Group {
                index: index as u16,
                replicas: group.replicas,
                cpu: group.request.cpu.0,
                memory: group.request.memory.0,
                gpus: group.request.gpus,
                part: group.constraints.gpu_share.filter(|_| !group.constraints.gpu_replica),
                replica: group.constraints.gpu_share.filter(|_| group.constraints.gpu_replica).map(|share| share.millis),
                named: !group.constraints.gpu_uuids.is_empty(),
                filter: filter(index, group),
            })
            .collect();
        groups.sort_by_key(|group| {
            // Those that ask for certain GPUs first, so that none of their own job takes these.
            let amounts = (group.of(Resource::Gpu), group.cpu, group.memory);
            std::cmp::Reverse((group.named, amounts, std::cmp::Reverse(group.index)))
        });
        let total = Resource::ALL
            .map(|resource| groups.iter().map(|group| u128::from(group.of(resource)) * u128::from(group.replicas)).sum());
        let (tasks, least) = (shape.task_count(), shape.least_tasks());
        let has_parts = groups.iter().any(|group| group.part.is_some());
        let has_replicas = groups.iter().any(|group| group.replica.is_some());
        let is_named = groups.iter().any(|group| group.named);
        Self { groups, total, tasks, least, has_parts, has_replicas, is_named, arrangement: shape.arrangement }
    }

    /// What a placement holds.
    pub(crate) fn held(&self, placement: &Placement) -> Amounts {
        if placement.slots.len() as u64 == self.tasks && !self.has_replicas {
            return self.total;
        }
        let of = |resource| placement.slots.iter().map(move |slot| u128::from(self.group(slot.group).held(resource, slot)));
        Resource::ALL.map(|resource| of(resource).sum())
    }

    /// The group with this index in the shape; that of a slot is always there.
    pub(crate) fn group(&self, index: u16) -> &Group {
        let found = self.groups.iter().find(|group| group.index == index);
        found.unwrap_or(&self.groups[0])
    }
}

/// Tasks of a group on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    /// Index into the demand's groups.
    pub(crate) group: usize,
    /// Index of the node.
    pub(crate) node: usize,
    pub(crate) count: u32,
    /// From which lanes their GPUs come.
    pub(crate) gpus: Lanes,
    /// The one GPU that they share, where they ask for parts; it comes from a lane where nobody has it yet.
    pub(crate) on: Option<On>,
}

/// A place for every task that starts.
pub(crate) type Packing = SmallVec<[Share; 2]>;

/// A group that found no place, and for how many of its tasks there was one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Misfit {
    pub(crate) group: u16,
    pub(crate) possible: u32,
}

/// Which node of those that fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prefer {
    /// The node with least left: keeps whole nodes free for large jobs.
    Fullest,
    /// The node with most left: the way out when packing tightly left no room for a later group.
    Emptiest,
}

/// Places all tasks, or as many as will do, or says which group did not fit. Takes nothing.
pub(crate) fn pack(demand: &Demand, offers: &mut impl Offers) -> Result<Packing, Misfit> {
    let together = Query::Together(Prefer::Fullest);
    let query = if demand.arrangement == Arrangement::Spread { Query::Apart } else { together };
    if let [group] = &demand.groups[..] {
        let mut packing = Packing::new();
        return pack_group(0, group, offers, query, demand.least as u32, &mut packing).map(|()| packing);
    }
    let other = if query == together { Query::Together(Prefer::Emptiest) } else { together };
    let whole =
        pack_groups(demand, offers, query, false).or_else(|misfit| pack_groups(demand, offers, other, false).map_err(|_| misfit));
    if demand.least == demand.tasks { whole } else { whole.or_else(|misfit| pack_some(demand, offers, query).ok_or(misfit)) }
}

/// As many tasks of each group as fit after those of the groups before, if that is enough.
fn pack_some(demand: &Demand, offers: &mut impl Offers, query: Query) -> Option<Packing> {
    let packing = pack_groups(demand, offers, query, true).ok()?;
    let placed: u64 = packing.iter().map(|share| u64::from(share.count)).sum();
    (placed >= demand.least).then_some(packing)
}

fn pack_groups(demand: &Demand, offers: &mut impl Offers, query: Query, some: bool) -> Result<Packing, Misfit> {
    let mut packing = Packing::new();
    let mut before: SmallVec<[(usize, Room); 8]> = SmallVec::new();
    let mut shared_before: Vec<(usize, Vec<SharedGpu>)> = Vec::new();
    let placed = demand.groups.iter().enumerate().try_for_each(|(position, group)| {
        let from = packing.len();
        let least = if some { 0 } else { group.replicas };
        pack_group(position, group, offers, query, least, &mut packing)?;
        for share in &packing[from..] {
            let room = offers.room(share.node);
            before.push((share.node, room));
            let Some(on) = share.on else {
                offers.put(share.node, room.less(group, share.count, share.gpus));
                continue;
            };
            let mut gpus = offers.shared_gpus().of(share.node).to_vec();
            shared_before.push((share.node, gpus.clone()));
            if !gpus.iter().any(|gpu| gpu.gpu == on.gpu) {
                gpus.push(SharedGpu::new(on.gpu, on.lane, on.total));
            }
            let left = less_part(room, &mut gpus, group, share);
            offers.put(share.node, left);
            offers.put_shared(share.node, gpus);
        }
        Ok(())
    });
    for (node, room) in before.into_iter().rev() {
        offers.put(node, room);
    }
    for (node, gpus) in shared_before.into_iter().rev() {
        offers.put_shared(node, gpus);
    }
    placed.map(|()| packing)
}

/// Places at least `least` tasks of a group, and all of it where there is room.
fn pack_group(
    position: usize,
    group: &Group,
    offers: &mut impl Offers,
    query: Query,
    least: u32,
    packing: &mut Packing,
) -> Result<(), Misfit> {
    if let Some(part) = group.part {
        return pack_parts((position, group, part), offers, query, least, packing);
    }
    // Only a damaged table has such a group.
    let mut found = if group.replicas == 0 { Found::new() } else { offers.find(group, query) };
    let possible: u64 = found.iter().map(|&(_, count)| u64::from(count)).sum();
    if possible < u64::from(least) {
        return Err(Misfit { group: group.index, possible: possible as u32 });
    }
    if query == Query::Apart {
        deal(&mut found, group.replicas);
    } else {
        let mut left = group.replicas;
        for (_, count) in &mut found {
            *count = left.min(*count);
            left -= *count;
        }
    }
    for (node, count) in found {
        let mask = offers.filter(group.filter).fit(node).unwrap_or(0);
        let room = offers.room(node);
        let gpus = if group.gpus == 0 { Lanes::default() } else { room.gpus.draw(mask, room.named, group.gpus, count) };
        packing.push(Share { group: position, node, count, gpus, on: None });
    }
    Ok(())
}

/// Gives each node one task after the other, as long as there are tasks and it has room.
fn deal(found: &mut Found, tasks: u32) {
    let mut left = tasks;
    let mut given: SmallVec<[u32; 8]> = smallvec::smallvec![0; found.len()];
    let mut open: Vec<usize> = (0..found.len()).collect();
    while left > 0 && !open.is_empty() {
        open.retain(|&at| {
            let gets = left > 0 && given[at] < found[at].1;
            given[at] += u32::from(gets);
            left -= u32::from(gets);
            gets
        });
    }
    for ((_, count), given) in found.iter_mut().zip(given) {
        *count = given;
    }
}

/// Takes what a packing takes.
pub(crate) fn take(rooms: &mut Rooms, demand: &Demand, packing: &Packing) {
    for share in packing {
        rooms.take(&demand.groups[share.group], share);
    }
}
