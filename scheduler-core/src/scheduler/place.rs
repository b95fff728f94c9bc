//! Packing: which tasks go on which nodes. All of a job, or as many as fit where the job says that fewer will do, or nothing.
//!
//! For one task group the answer is exact: if the group can be placed at all, it is. Several groups are placed largest first, which
//! can miss a packing that exists; a second try spreads instead of packing. Choices depend on amounts and on the order of the nodes in
//! the configuration, so the same state gives the same placement everywhere.

use smallvec::SmallVec;

use crate::job::Shape;
use crate::scheduler::config::Resource;
use crate::scheduler::tree::share::Amounts;
use crate::state::Placement;

/// What can be taken from a node now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Room {
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) gpus: u32,
    /// The node has GPUs at all: tasks without GPUs go elsewhere first.
    pub(crate) has_gpus: bool,
}

impl Room {
    /// What both have.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.min(other.memory),
            gpus: self.gpus.min(other.gpus),
            has_gpus: self.has_gpus,
        }
    }

    /// What is left when `count` tasks of a group were taken from it; never below nothing.
    pub(crate) fn less(self, group: &Group, count: u32) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(group.cpu.saturating_mul(u64::from(count))),
            memory: self.memory.saturating_sub(group.memory.saturating_mul(u64::from(count))),
            gpus: self.gpus.saturating_sub(group.gpus.saturating_mul(count)),
            has_gpus: self.has_gpus,
        }
    }

    /// The amount of one resource.
    pub(crate) fn of(self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
            Resource::Gpu => u64::from(self.gpus),
        }
    }

    /// How many tasks of a group it has room for.
    fn holds(self, group: &Group) -> u32 {
        let mut count = u64::from(group.replicas);
        for (has, asked) in [(self.cpu, group.cpu), (self.memory, group.memory), (u64::from(self.gpus), u64::from(group.gpus))] {
            if let Some(fits) = has.checked_div(asked) {
                count = count.min(fits);
            }
        }
        count as u32
    }
}

/// Equal tasks of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// Index into the shape's tasks.
    pub(crate) index: u16,
    pub(crate) replicas: u32,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) gpus: u32,
}

impl Group {
    /// What each task asks for of one resource.
    pub(crate) fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
            Resource::Gpu => u64::from(self.gpus),
        }
    }
}

/// What a job asks for, its most demanding group first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Demand {
    pub(crate) groups: SmallVec<[Group; 1]>,
    /// Over all tasks.
    pub(crate) total: Amounts,
    tasks: u64,
    /// How many tasks have to start together.
    least: u64,
}

impl Demand {
    pub(crate) fn of(shape: &Shape) -> Self {
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
            })
            .collect();
        groups.sort_by_key(|group| std::cmp::Reverse((group.gpus, group.cpu, group.memory, std::cmp::Reverse(group.index))));
        let total = Resource::ALL
            .map(|resource| groups.iter().map(|group| u128::from(group.of(resource)) * u128::from(group.replicas)).sum());
        Self { groups, total, tasks: shape.task_count(), least: shape.least_tasks() }
    }

    /// What a placement holds.
    pub(crate) fn held(&self, placement: &Placement) -> Amounts {
        if placement.slots.len() as u64 == self.tasks {
            return self.total;
        }
        Resource::ALL.map(|resource| placement.slots.iter().map(|slot| u128::from(self.group(slot.group).of(resource))).sum())
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
}

/// A place for every task that starts.
pub(crate) type Packing = SmallVec<[Share; 2]>;

/// A group that found no place, and for how many of its tasks there was one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Misfit {
    pub(crate) group: u16,
    pub(crate) possible: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefer {
    /// The node with least left: keeps whole nodes free for large jobs.
    Fullest,
    /// The node with most left: the way out when packing tightly left no room for a later group.
    Emptiest,
}

/// Places all tasks, or as many as will do, or says which group did not fit.
pub(crate) fn pack(demand: &Demand, rooms: &[Room]) -> Result<Packing, Misfit> {
    if let [group] = &demand.groups[..] {
        let mut packing = Packing::new();
        return pack_group(0, group, rooms, Prefer::Fullest, demand.least as u32, &mut packing).map(|()| packing);
    }
    let all = |prefer| pack_groups(demand, rooms, prefer, false);
    let whole = all(Prefer::Fullest).or_else(|misfit| all(Prefer::Emptiest).map_err(|_| misfit));
    if demand.least == demand.tasks { whole } else { whole.or_else(|misfit| pack_some(demand, rooms).ok_or(misfit)) }
}

/// As many tasks of each group as fit after those of the groups before, if that is enough.
fn pack_some(demand: &Demand, rooms: &[Room]) -> Option<Packing> {
    let packing = pack_groups(demand, rooms, Prefer::Fullest, true).ok()?;
    let placed: u64 = packing.iter().map(|share| u64::from(share.count)).sum();
    (placed >= demand.least).then_some(packing)
}

fn pack_groups(demand: &Demand, rooms: &[Room], prefer: Prefer, some: bool) -> Result<Packing, Misfit> {
    let mut packing = Packing::new();
    let mut rooms = rooms.to_vec();
    for (position, group) in demand.groups.iter().enumerate() {
        let from = packing.len();
        let least = if some { 0 } else { group.replicas };
        pack_group(position, group, &rooms, prefer, least, &mut packing)?;
        for share in &packing[from..] {
            rooms[share.node] = rooms[share.node].less(group, share.count);
        }
    }
    Ok(packing)
}

/// One node for the whole group if there is one; else node after node in the order of preference, at least `least` tasks.
fn pack_group(
    position: usize,
    group: &Group,
    rooms: &[Room],
    prefer: Prefer,
    least: u32,
    packing: &mut Packing,
) -> Result<(), Misfit> {
    let rank = |room: &Room| {
        let tight = (room.gpus, room.cpu, room.memory);
        let order = if prefer == Prefer::Fullest { tight } else { (!tight.0, !tight.1, !tight.2) };
        (group.gpus == 0 && room.has_gpus, order)
    };
    let mut whole = None;
    let mut partial: SmallVec<[_; 8]> = SmallVec::new();
    for (node, room) in rooms.iter().enumerate() {
        let count = room.holds(group);
        if count == 0 {
            continue;
        }
        let candidate = (rank(room), node, count);
        if count == group.replicas {
            whole = Some(whole.map_or(candidate, |best: ((bool, _), usize, u32)| best.min(candidate)));
        } else if whole.is_none() {
            partial.push(candidate);
        }
    }
    if let Some((_, node, count)) = whole {
        packing.push(Share { group: position, node, count });
        return Ok(());
    }
    let possible: u64 = partial.iter().map(|&(_, _, count)| u64::from(count)).sum();
    if possible < u64::from(least) {
        return Err(Misfit { group: group.index, possible: possible as u32 });
    }
    partial.sort_unstable();
    let mut left = group.replicas;
    for (_, node, count) in partial {
        let count = count.min(left);
        packing.push(Share { group: position, node, count });
        left -= count;
        if left == 0 {
            break;
        }
    }
    Ok(())
}
