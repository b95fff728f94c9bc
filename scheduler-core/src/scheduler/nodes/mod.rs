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
mod held;
pub(crate) mod lines;
mod named;
mod offers;
mod parts;
mod search;

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::amounts::{CpuMillis, MemoryBytes};
use crate::hash::Build;
use crate::ids::Name;
use crate::scheduler::config::{GpuDevice, NodeConfig, NodeState};
pub(crate) use crate::scheduler::nodes::held::{Held, Part};
use crate::scheduler::nodes::lines::LineBook;
pub(crate) use crate::scheduler::nodes::parts::Sharer;
use crate::scheduler::place::field::Field;
use crate::scheduler::place::filter::{Filters, Traits};
use crate::scheduler::place::{Lanes, Rooms};
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::share::Amounts;
use crate::slab::{Slab, index};

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
    /// What its configured GPUs are in amounts, in thousandths.
    pub(crate) gpu_millis: u64,
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

    /// Others may join those who have parts of it. A part that a device plugin gives out is somebody's, or nobody's.
    pub(crate) const fn is_shared(&self) -> bool {
        self.config.kind.replica().is_none() && !self.sharers.is_empty()
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
    /// Tasks that have parts of GPUs of which others may have parts too, on all nodes: while there are none, nobody looks for any.
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

    /// Gives owners their numbers in a copy of the core.
    pub(crate) fn renumber(&mut self, numbers: &HashMap<JobIx, JobIx, Build>) {
        for device in self.devices.iter_mut() {
            device.owner = device.owner.and_then(|owner| numbers.get(&owner).copied());
            for sharer in &mut device.sharers {
                sharer.job = numbers.get(&sharer.job).copied().unwrap_or(sharer.job);
            }
        }
    }
}

/// What constraints look at; nothing where there is no such node.
fn traits(node: &Node) -> Option<&Traits> {
    node.configured.then_some(&node.traits)
}
