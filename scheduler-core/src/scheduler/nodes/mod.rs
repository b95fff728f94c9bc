//! Machines: what they have, what is taken of it, and which job has which GPU.
//!
//! What must hold: the amounts taken on a node are the sum of the requests of the tasks on it, those of its line apart, for which as much is
//! taken as they may have in use at a time ([`lines`]); a GPU has at most one owner, or jobs that share it and ask for no more of it than it
//! has; what a node
//! offers is what it has less what is taken, and nothing at all where more is taken than it has, or where it takes no tasks. More
//! is taken than there is only after a restore or a change: a machine came back smaller, or is not configured any more. Such takings are
//! kept on the books until their runs end, and never promised to a second job.
//!
//! Nodes and GPUs keep their places in the lists as long as they are configured or anything holds them; what runs is written down by place
//! ([`Held`]), so that giving back looks up no name. The order of the list is that of the configuration, then of arrival; a node that is
//! gone leaves its place to the next one that comes.

mod audit;
mod change;
mod choice;
pub(crate) mod lines;
mod parts;

use std::borrow::Cow;
use std::collections::BTreeSet;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::amounts::{CpuMillis, GpuShare, MemoryBytes};
use crate::hash::Build;
use crate::ids::Name;
use crate::job::Shape;
use crate::scheduler::config::{GpuDevice, NodeConfig, NodeState};
use crate::scheduler::nodes::lines::{Limits, LineBook};
pub(crate) use crate::scheduler::nodes::parts::Sharer;
use crate::scheduler::place::field::{Field, Search, Walk};
use crate::scheduler::place::filter::{FilterIx, Filters, Traits};
use crate::scheduler::place::{Demand, Group, Lanes, Misfit, Packing, Room, Rooms, pack};
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::share::Amounts;
use crate::slab::{Slab, index};
use crate::state::Placement;

index! {
    /// A GPU.
    DeviceIx
}

/// A machine.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) cpu: CpuMillis,
    pub(crate) memory: MemoryBytes,
    pub(crate) traits: Traits,
    pub(crate) state: NodeState,
    /// False for one that only jobs know: it has no capacity.
    pub(crate) configured: bool,
    /// Wider than any amount, so that no sum can overflow.
    pub(crate) cpu_used: u128,
    pub(crate) memory_used: u128,
    /// Its line, while anybody is in it; what is set aside for it is part of what is used.
    pub(crate) line: Option<Box<LineBook>>,
    /// Tasks on it.
    pub(crate) tasks: u32,
    /// Its configured GPUs that nobody has, but for those that are set aside.
    pub(crate) free: Lanes,
    /// Its devices in the order of the configuration, then those that only jobs know.
    pub(crate) devices: Vec<DeviceIx>,
    /// A restore or a change left it with more taken than it has.
    pub(crate) over: bool,
}

/// A GPU.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) config: GpuDevice,
    /// The node that lists it.
    pub(crate) node: usize,
    pub(crate) lane: u8,
    /// Who has all of it.
    pub(crate) owner: Option<JobIx>,
    /// Or who has parts of it, one entry for each task.
    pub(crate) sharers: Vec<Sharer>,
    /// A restore or a change left it with more memory promised than it has.
    pub(crate) over: bool,
    /// False for one that only jobs know: it is never offered.
    pub(crate) configured: bool,
    /// Why it is not offered for now. Whoever has it keeps it.
    pub(crate) aside: Option<Name>,
}

impl Device {
    /// One that nobody has.
    const fn new(config: GpuDevice, node: usize, lane: u8, configured: bool) -> Self {
        Self { config, node, lane, owner: None, sharers: Vec::new(), over: false, configured, aside: None }
    }

    /// Nobody has anything of it.
    pub(crate) const fn is_free(&self) -> bool {
        self.owner.is_none() && self.sharers.is_empty()
    }

    /// Thousandths and memory that are taken by those who share it.
    pub(crate) fn shared(&self) -> (u32, u64) {
        let millis = self.sharers.iter().fold(0_u32, |sum, sharer| sum.saturating_add(sharer.millis));
        (millis, self.sharers.iter().fold(0_u64, |sum, sharer| sum.saturating_add(sharer.memory)))
    }

    fn is_over(&self) -> bool {
        self.shared().1 > self.config.memory.0
    }

    /// Whether it may be promised to somebody as soon as nobody has it.
    pub(crate) const fn is_offered(&self) -> bool {
        self.configured && self.aside.is_none()
    }
}

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

/// All machines.
#[derive(Clone)]
pub(crate) struct Nodes {
    list: Vec<Node>,
    /// Places of nodes that are gone.
    vacant: BTreeSet<usize>,
    devices: Slab<DeviceIx, Device>,
    by_name: HashMap<Name, usize, Build>,
    by_uuid: HashMap<Name, DeviceIx, Build>,
    /// What each node has when nothing runs; closed where it is not configured.
    whole: Rooms,
    /// The same, closed where it takes no tasks.
    idle: Rooms,
    /// What each node offers now.
    field: Field,
    filters: Filters,
    capacity: Amounts,
    /// Tasks that have parts of GPUs, on all nodes: while there are none, nobody looks for any.
    sharers: usize,
}

impl Nodes {
    /// The caller has checked that the configurations are sound, each and together.
    pub(crate) fn new(configs: &[NodeConfig]) -> Self {
        let mut all = Self {
            list: Vec::new(),
            vacant: BTreeSet::new(),
            devices: Slab::new(),
            by_name: HashMap::default(),
            by_uuid: HashMap::default(),
            whole: Rooms::default(),
            idle: Rooms::default(),
            field: Field::new(Rooms::default()),
            filters: Filters::new(),
            capacity: [0; 3],
            sharers: 0,
        };
        for config in configs {
            all.configure(config.clone());
        }
        all
    }

    /// What each node has when nothing runs, by its place in the list.
    pub(crate) const fn whole(&self) -> &Rooms {
        &self.whole
    }

    /// What the nodes that take tasks have when nothing runs.
    pub(crate) const fn idle(&self) -> &Rooms {
        &self.idle
    }

    /// What each node offers now.
    pub(crate) const fn rooms(&self) -> &Rooms {
        self.field.rooms()
    }

    /// What all configured nodes have together.
    pub(crate) fn capacity(&self) -> Amounts {
        self.capacity
    }

    /// All places; of those that nobody has, neither configured nor with tasks, nothing is to be seen.
    pub(crate) fn all(&self) -> &[Node] {
        &self.list
    }

    pub(crate) fn is_vacant(&self, node: usize) -> bool {
        self.vacant.contains(&node)
    }

    pub(crate) fn device(&self, index: DeviceIx) -> &Device {
        &self.devices[index]
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().map(|(_, device)| device)
    }

    pub(crate) fn find_device(&self, uuid: &Name) -> Option<DeviceIx> {
        self.by_uuid.get(uuid).copied()
    }

    pub(crate) fn find_node(&self, name: &Name) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn filters(&self) -> &Filters {
        &self.filters
    }

    /// What jobs of a shape ask for. Its filters have one user more, until [`dismiss`](Self::dismiss).
    pub(crate) fn demand(&mut self, shape: &Shape) -> Demand {
        let Self { filters, list, .. } = self;
        Demand::of(shape, |_, group| filters.acquire(group, list.iter().map(traits)))
    }

    /// What jobs of a shape would ask for, and the filters for that where they are not there already.
    pub(crate) fn trial(&self, shape: &Shape) -> (Demand, Option<Filters>) {
        let known: Option<Vec<FilterIx>> = shape.tasks.iter().map(|group| self.filters.find(group)).collect();
        if let Some(known) = known {
            return (Demand::of(shape, |index, _| known[index]), None);
        }
        let mut filters = Filters::new();
        for (at, node) in self.list.iter().enumerate() {
            filters.update(at, traits(node));
        }
        let demand = Demand::of(shape, |_, group| filters.acquire(group, self.list.iter().map(traits)));
        (demand, Some(filters))
    }

    /// Nobody has this demand any more.
    pub(crate) fn dismiss(&mut self, demand: &Demand) {
        for group in &demand.groups {
            for dropped in self.filters.release(group.filter) {
                self.field.forget(dropped);
            }
        }
    }

    /// Where a job fits now.
    pub(crate) fn find(&mut self, demand: &Demand) -> Result<Packing, Misfit> {
        let mut packing = pack(demand, &mut Search { field: &mut self.field, filters: &self.filters })?;
        if demand.has_parts {
            self.settle_parts(&mut packing);
        }
        Ok(packing)
    }

    /// Where a job would fit, if this were free. Looks at every node.
    pub(crate) fn pack(&self, demand: &Demand, rooms: &Rooms) -> Result<Packing, Misfit> {
        pack(demand, &mut Walk { rooms: Cow::Borrowed(rooms), filters: &self.filters })
    }

    /// Where a job would fit if nothing else ran and all nodes took tasks; by the filters of its [`trial`](Self::trial).
    pub(crate) fn pack_whole(&self, demand: &Demand, filters: &Filters) -> Result<Packing, Misfit> {
        pack(demand, &mut Walk { rooms: Cow::Borrowed(&self.whole), filters })
    }

    /// Whether jobs of a shape that nobody has yet would fit now.
    pub(crate) fn would_fit(&self, shape: &Shape) -> bool {
        let (demand, filters) = self.trial(shape);
        let filters = filters.as_ref().unwrap_or(&self.filters);
        pack(&demand, &mut Walk { rooms: Cow::Borrowed(self.rooms()), filters }).is_ok()
    }

    /// Gives owners their numbers in a copy of the core.
    pub(crate) fn renumber(&mut self, numbers: &HashMap<JobIx, JobIx, Build>) {
        for device in self.devices.iter_mut() {
            device.owner = device.owner.and_then(|owner| numbers.get(&owner).copied());
            for sharer in &mut device.sharers {
                sharer.job = numbers.get(&sharer.job).copied().unwrap_or(sharer.job);
            }
        }
    }

    /// Whether any of this is on a node that could take a task of a job if nothing else ran there.
    pub(crate) fn is_in_the_way(&self, demand: &Demand, held: &Held) -> bool {
        let mut nodes = held.parts.iter().map(|part| part.node as usize);
        let takes = |node: usize, group: &Group| {
            self.filters.get(group.filter).fit(node).is_some_and(|mask| self.idle[node].fits(group, mask))
        };
        nodes.any(|node| demand.groups.iter().any(|group| takes(node, group)))
    }

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

    fn refresh(&mut self, node: usize) {
        let room = self.offer(node);
        self.field.set(node, room);
        if self.sharers > 0 || !self.rooms().shared.is_empty() {
            let gpus = if self.is_usable(node) { self.shared_gpus(node) } else { Vec::new() };
            self.field.set_shared(node, gpus);
        }
    }

    /// Whether a node offers anything.
    fn is_usable(&self, node: usize) -> bool {
        self.idle[node].open && !self.list[node].is_over()
    }

    /// What a node offers, from the books.
    fn offer(&self, node: usize) -> Room {
        let Node { cpu, memory, cpu_used, memory_used, free, .. } = &self.list[node];
        let left = |has: u64, used: u128| i128::from(has) - i128::try_from(used).unwrap_or(i128::MAX);
        self.room(node, left(cpu.0, *cpu_used), left(memory.0, *memory_used), *free)
    }

    /// What a node would offer with this left: nothing at all where that is less than nothing.
    pub(crate) fn room(&self, node: usize, cpu: i128, memory: i128, gpus: Lanes) -> Room {
        let idle = self.idle[node];
        match (u64::try_from(cpu), u64::try_from(memory)) {
            _ if !idle.open => Room::CLOSED,
            (Ok(cpu), Ok(memory)) => Room { cpu, memory, gpus, ..idle },
            _ => Room { cpu: 0, memory: 0, gpus: Lanes::default(), ..idle },
        }
    }
}

impl Node {
    fn is_over(&self) -> bool {
        self.cpu_used > self.cpu.0.into() || self.memory_used > self.memory.0.into()
    }
}

/// What constraints look at; nothing where there is no such node.
fn traits(node: &Node) -> Option<&Traits> {
    node.configured.then_some(&node.traits)
}
