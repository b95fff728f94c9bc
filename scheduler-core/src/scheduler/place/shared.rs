//! GPUs that are shared: what is left of each of them, and where a task goes that asks for a part of one.
//!
//! A GPU is either whole or shared. One that nobody has is counted in its lane, and stands for any other of the lane; from the first share that
//! is promised of it until the last one is given back it is none of the lane, and is known by itself. A part goes to the GPU that is shared
//! already and has least left after it, of all nodes; only where none has room is another one opened, on the fullest node. So whole ones
//! stay whole, and for one task group the answer is exact: if all of it can be placed, it is.
//!
//! What must hold: two rooms of a node, at different times or with different jobs, speak of the same GPU only by its identity. One that is opened
//! in a packing has none until devices are chosen ([`Nodes::settle_parts`](crate::scheduler::nodes::Nodes::settle_parts)); what is left of it
//! counts for the rest of that packing alone, and is given to nobody in a forecast. One that will be whole again in a forecast is counted in its
//! lane there and keeps its identity besides: with nothing taken of it. Whoever takes a part of it takes one from the lane as well; those
//! who take whole ones of a lane take any, so that this one is left as long as one is left.

use std::collections::BTreeMap;
use std::ops;

use crate::amounts::{GPU_MILLIS, GpuShare, MemoryBytes};
use crate::scheduler::nodes::DeviceIx;
use crate::scheduler::place::field::{Offers, Query};
use crate::scheduler::place::filter::Filters;
use crate::scheduler::place::room::{Lanes, Mask, Room};
use crate::scheduler::place::{Group, Misfit, Packing, Prefer, Share};

/// Which GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gpu {
    /// This one.
    Known(DeviceIx),
    /// One that a packing opens: the so many'th.
    New(u32),
}

/// A shared GPU and what is taken of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SharedGpu {
    pub(crate) gpu: Gpu,
    pub(crate) lane: u8,
    pub(crate) millis: u32,
    pub(crate) memory: u64,
    /// All of its memory.
    pub(crate) total: u64,
}

impl SharedGpu {
    /// One of which nothing is taken.
    pub(crate) const fn new(gpu: Gpu, lane: u8, total: u64) -> Self {
        Self { gpu, lane, millis: 0, memory: 0, total }
    }

    /// Thousandths that are left.
    pub(crate) const fn millis_left(&self) -> u32 {
        GPU_MILLIS.saturating_sub(self.millis)
    }

    /// Memory that is left.
    pub(crate) const fn memory_left(&self) -> u64 {
        self.total.saturating_sub(self.memory)
    }

    /// How many such shares it has room for.
    pub(crate) fn holds(&self, share: GpuShare) -> u32 {
        let by_millis = self.millis_left().checked_div(share.millis).unwrap_or(0);
        let each = share.memory_of(MemoryBytes(self.total)).0;
        let by_memory = self.memory_left().checked_div(each).unwrap_or(u64::MAX);
        u64::from(by_millis).min(by_memory) as u32
    }

    /// Whether one more task may join those who share it.
    fn can_join(&self, share: GpuShare, mask: Mask) -> bool {
        self.millis > 0 && mask >> self.lane & 1 == 1 && self.holds(share) > 0
    }

    /// What is taken with so many more shares.
    fn with(mut self, share: GpuShare, count: u32) -> Self {
        self.millis = self.millis.saturating_add(share.millis.saturating_mul(count));
        let each = share.memory_of(MemoryBytes(self.total)).0;
        self.memory = self.memory.saturating_add(each.saturating_mul(count.into()));
        self
    }
}

/// The shared GPUs of all nodes, in the order of their devices; nothing where there is none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SharedGpus(BTreeMap<usize, Vec<SharedGpu>>);

impl SharedGpus {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn of(&self, node: usize) -> &[SharedGpu] {
        self.0.get(&node).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn set(&mut self, node: usize, gpus: Vec<SharedGpu>) {
        if gpus.is_empty() {
            self.0.remove(&node);
        } else {
            self.0.insert(node, gpus);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[SharedGpu])> {
        self.0.iter().map(|(node, gpus)| (*node, gpus.as_slice()))
    }

    /// A share is given back. True where the GPU is whole again; it stays here as one of which nothing is taken.
    pub(crate) fn give_back(&mut self, node: usize, device: DeviceIx, share: GpuShare) -> bool {
        let Some(gpus) = self.0.get_mut(&node) else { return false };
        let Some(at) = gpus.iter().position(|shared| shared.gpu == Gpu::Known(device)) else { return false };
        let shared = &mut gpus[at];
        shared.millis = shared.millis.saturating_sub(share.millis);
        shared.memory = shared.memory.saturating_sub(share.memory.0);
        shared.millis == 0
    }
}

/// What is left of a node's GPUs that both rooms know: of others nobody can say which they are. One that is whole in one of them alone takes one
/// of its lane there, so only as many of those are given as that lane has more than both have.
pub(crate) fn meet((room, gpus): (Room, &[SharedGpu]), (other, theirs): (Room, &[SharedGpu])) -> Vec<SharedGpu> {
    let least = room.gpus.min(other.gpus);
    let (mut spare, mut their_spare) = (room.gpus.less(least), other.gpus.less(least));
    let both = |shared: &SharedGpu| {
        let same = theirs.iter().find(|same| same.gpu == shared.gpu && matches!(same.gpu, Gpu::Known(_)))?;
        let is_there = match (shared.millis, same.millis) {
            (0, 1..) => spare.take(shared.lane),
            (1.., 0) => their_spare.take(shared.lane),
            _ => true,
        };
        let millis = shared.millis.max(same.millis);
        is_there.then(|| SharedGpu { millis, memory: shared.memory.max(same.memory), ..*shared })
    };
    gpus.iter().filter_map(both).collect()
}

/// What all nodes offer: amounts, and what is left of their shared GPUs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rooms {
    pub(crate) list: Vec<Room>,
    pub(crate) shared: SharedGpus,
}

impl ops::Deref for Rooms {
    type Target = [Room];

    fn deref(&self) -> &[Room] {
        &self.list
    }
}

impl Rooms {
    pub(crate) const fn new(list: Vec<Room>) -> Self {
        Self { list, shared: SharedGpus(BTreeMap::new()) }
    }

    /// Takes what a share takes.
    pub(crate) fn take(&mut self, group: &Group, share: &Share) {
        if group.part.is_none() {
            self.list[share.node] = self.list[share.node].less(group, share.count, share.gpus);
            return;
        }
        let mut gpus = self.shared.of(share.node).to_vec();
        self.list[share.node] = less_part(self.list[share.node], &mut gpus, group, share);
        self.shared.set(share.node, gpus);
    }

    /// What both have, node by node.
    pub(crate) fn lower(&mut self, others: &Self) {
        if !self.shared.is_empty() {
            for node in self.shared.0.keys().copied().collect::<Vec<_>>() {
                let both = meet((self.list[node], self.shared.of(node)), (others.list[node], others.shared.of(node)));
                self.shared.set(node, both);
            }
        }
        for (room, other) in self.list.iter_mut().zip(&others.list) {
            *room = room.min(*other);
        }
    }
}

/// What is left of a node when a share of a group with parts of GPUs was taken from it. A GPU that is not shared there is opened.
pub(crate) fn less_part(room: Room, gpus: &mut Vec<SharedGpu>, group: &Group, share: &Share) -> Room {
    let (Some(part), Some(on)) = (group.part, share.on) else { return room.less(group, share.count, share.gpus) };
    match (gpus.iter_mut().find(|shared| shared.gpu == on.gpu), on.gpu) {
        (Some(shared), _) => {
            let opened = if shared.millis == 0 { Lanes::one(shared.lane) } else { Lanes::default() };
            *shared = shared.with(part, share.count);
            room.less(group, share.count, opened)
        }
        (None, Gpu::Known(_)) => {
            gpus.push(SharedGpu::new(on.gpu, on.lane, on.total).with(part, share.count));
            room.less(group, share.count, Lanes::one(on.lane))
        }
        // Nobody knows which one it will be.
        (None, Gpu::New(_)) => room.less(group, share.count, share.gpus),
    }
}

/// On which GPU a share of a group with parts is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct On {
    pub(crate) gpu: Gpu,
    pub(crate) lane: u8,
    /// All of its memory.
    pub(crate) total: u64,
}

/// How many tasks of a group a node has room for, at most all of them.
#[inline]
pub(crate) fn holds(room: &Room, gpus: &[SharedGpu], filters: &Filters, node: usize, group: &Group, mask: Mask) -> u32 {
    match group.part {
        None => room.holds(group, mask),
        Some(part) => holds_parts(room, gpus, |lane| filters.lane_memory(node, lane), group, (mask, part)),
    }
}

fn holds_parts(
    room: &Room,
    gpus: &[SharedGpu],
    memory: impl Fn(u8) -> u64,
    group: &Group,
    (mask, part): (Mask, GpuShare),
) -> u32 {
    let without = Group { gpus: 0, part: None, ..*group };
    let most = u64::from(room.holds(&without, mask));
    let allowed = |lane: u8| mask >> lane & 1 == 1;
    // Those of which nothing is taken are counted in their lanes.
    let shared = gpus.iter().filter(|gpu| gpu.millis > 0 && allowed(gpu.lane));
    let shared: u64 = shared.map(|gpu| u64::from(gpu.holds(part))).sum();
    let whole: u64 = room
        .gpus
        .lanes()
        .filter(|(lane, _)| allowed(*lane))
        .map(|(lane, count)| u64::from(count) * u64::from(SharedGpu::new(Gpu::New(0), lane, memory(lane)).holds(part)))
        .sum();
    most.min(shared.saturating_add(whole)) as u32
}

/// Places at least `least` tasks of a group of which each asks for a part of a GPU, and all of it where there is room.
pub(crate) fn pack_parts(
    (position, group, part): (usize, &Group, GpuShare),
    offers: &mut impl Offers,
    query: Query,
    least: u32,
    packing: &mut Packing,
) -> Result<(), Misfit> {
    if group.replicas == 1 {
        let found = pack_one((position, group, part), offers, query, packing);
        return if found || least == 0 { Ok(()) } else { Err(Misfit { group: group.index, possible: 0 }) };
    }
    let mut found = candidates(group, offers, query);
    let possible: u64 = found.iter().map(|&(_, count)| u64::from(count)).sum();
    if possible < u64::from(least) {
        return Err(Misfit { group: group.index, possible: possible as u32 });
    }
    if query == Query::Apart {
        super::deal(&mut found, group.replicas);
    } else {
        let mut left = group.replicas;
        for (_, count) in &mut found {
            *count = left.min(*count);
            left -= *count;
        }
    }
    for (node, count) in found {
        fill((position, group, part), offers, (node, count), packing);
    }
    Ok(())
}

/// The most common case, and the one that looks at few nodes: those with shared GPUs, and where none has room the one that a whole GPU would be
/// taken from.
fn pack_one(
    (position, group, part): (usize, &Group, GpuShare),
    offers: &mut impl Offers,
    query: Query,
    packing: &mut Packing,
) -> bool {
    let without = Group { gpus: 0, part: None, ..*group };
    let mut best = None;
    for (node, gpus) in offers.shared_gpus().iter() {
        let room = offers.room(node);
        let Some(mask) = offers.filter(group.filter).fit(node).filter(|mask| room.fits(&without, *mask)) else { continue };
        for (at, gpu) in gpus.iter().enumerate().filter(|(_, gpu)| gpu.can_join(part, mask)) {
            let then = gpu.with(part, 1);
            let key = (then.millis_left(), then.memory_left(), room.gpus.of(mask), room.cpu, room.memory, node, at);
            best = best.into_iter().chain([key]).min();
        }
    }
    let node = best.map(|(.., node, _)| node).or_else(|| {
        let whole = Group { gpus: 1, part: None, ..*group };
        offers.find(&whole, query).first().map(|(node, _)| *node)
    });
    let Some(node) = node else { return false };
    fill((position, group, part), offers, (node, 1), packing);
    true
}

/// Nodes with room, in the order of preference: one for all of a group first, where the query wants them together.
fn candidates(group: &Group, offers: &impl Offers, query: Query) -> super::field::Found {
    let fullest = query == Query::Together(Prefer::Fullest);
    let mut found = Vec::new();
    for node in 0..offers.len() {
        let Some(mask) = offers.filter(group.filter).fit(node) else { continue };
        let room = offers.room(node);
        let count = holds(&room, offers.shared_gpus().of(node), offers.filters(), node, group, mask);
        if count > 0 {
            let tight = (room.gpus.of(mask), room.cpu, room.memory);
            let order = if fullest { tight } else { (!tight.0, !tight.1, !tight.2) };
            found.push((order, node, count));
        }
    }
    found.sort_unstable();
    let all = found.iter().find(|(_, _, count)| query != Query::Apart && *count == group.replicas);
    if let Some(&(_, node, count)) = all {
        return super::field::Found::from_slice(&[(node, count)]);
    }
    let mut left = u64::from(group.replicas);
    let wanted = found.into_iter().take_while(|(_, _, count)| {
        let goes_on = left > 0;
        left = left.saturating_sub(if query == Query::Apart { 1 } else { u64::from(*count) });
        goes_on
    });
    wanted.map(|(_, node, count)| (node, count)).collect()
}

/// Lays so many tasks on the GPUs of a node: on the shared one that has least left after it, else on one that is opened, of the lane with
/// fewest.
fn fill(
    (position, group, part): (usize, &Group, GpuShare),
    offers: &impl Offers,
    (node, count): (usize, u32),
    packing: &mut Packing,
) {
    let mask = offers.filter(group.filter).fit(node).unwrap_or(0);
    let mut room = offers.room(node);
    let mut gpus = offers.shared_gpus().of(node).to_vec();
    let mut opened = packing.iter().filter(|share| !share.gpus.is_none()).count() as u32;
    let mut left = count;
    while left > 0 {
        let best = gpus
            .iter()
            .filter(|gpu| gpu.can_join(part, mask))
            .min_by_key(|gpu| (gpu.with(part, 1).millis_left(), gpu.with(part, 1).memory_left()));
        let (gpu, taken) = if let Some(gpu) = best {
            (*gpu, Lanes::default())
        } else {
            let Some(lane) = room.gpus.lanes_for(mask, room.named, 1).next() else { return };
            let lane = lane as u8;
            let known = gpus.iter().find(|gpu| gpu.lane == lane && gpu.millis == 0).copied();
            let gpu = known.unwrap_or_else(|| {
                let new = SharedGpu::new(Gpu::New(opened), lane, offers.filters().lane_memory(node, lane));
                opened += 1;
                gpus.push(new);
                new
            });
            (gpu, Lanes::one(lane))
        };
        let here = gpu.holds(part).min(left);
        if here == 0 {
            return;
        }
        let on = On { gpu: gpu.gpu, lane: gpu.lane, total: gpu.total };
        packing.push(Share { group: position, node, count: here, gpus: taken, on: Some(on) });
        room.gpus = room.gpus.less(taken);
        for own in gpus.iter_mut().filter(|own| own.gpu == gpu.gpu) {
            *own = own.with(part, here);
        }
        left -= here;
    }
}
