//! What a job lacks: the one place of `explain` that looks at rooms.

use std::collections::BTreeMap;

use crate::ids::Name;
use crate::scheduler::Scheduler;
use crate::scheduler::config::Resource;
use crate::scheduler::explain::why::{Closest, Gang, Shortage, Shortfall};
use crate::scheduler::place::{Demand, Group, Room, pack};
use crate::scheduler::table::JobIx;
use crate::time::Timestamp;

impl Scheduler {
    /// Whether tasks like these fit on what is free.
    pub(super) fn fits(&self, demand: &Demand) -> bool {
        pack(demand, self.nodes.rooms()).is_ok()
    }

    /// Whether tasks like these would fit if nothing ran.
    pub(super) fn fits_empty(&self, demand: &Demand) -> bool {
        pack(demand, self.nodes.whole()).is_ok()
    }

    /// What a queued job lacks at present.
    pub(super) fn shortfall(&self, job: JobIx, now: Timestamp) -> Shortfall {
        let record = &self.jobs[job];
        let demand = &self.tree.bucket(record.bucket).demand;
        let Err(misfit) = pack(demand, self.nodes.rooms()) else { return Shortfall::default() };
        let shape = self.shape_of(record);
        let group = demand.group(misfit.group);
        let needed = if demand.groups.len() == 1 { shape.least_tasks() } else { group.replicas.into() };
        let gang = Gang { task: shape.tasks[usize::from(misfit.group)].name.clone(), needed, possible: misfit.possible };
        let shortages: Vec<_> = Resource::ALL.into_iter().filter_map(|resource| self.shortage(demand, resource)).collect();
        let alone = misfit.possible == 0 && shortages.is_empty();
        Shortfall {
            closest: if alone { self.closest(group) } else { None },
            shortages,
            room_at: if misfit.possible == 0 { self.room_at(demand, now) } else { None },
            gang: (needed > 1 || demand.groups.len() > 1).then_some(gang),
        }
    }

    /// How much of a resource is missing, if it is.
    fn shortage(&self, demand: &Demand, resource: Resource) -> Option<Shortage> {
        let task = demand.groups.iter().map(|group| (group.of(resource), group.replicas));
        let sum = |rooms: &[Room]| rooms.iter().map(|room| u128::from(room.of(resource))).sum();
        let rooms = self.nodes.rooms();
        // Of several the first one.
        let largest = rooms.iter().enumerate().max_by_key(|(node, room)| (room.of(resource), std::cmp::Reverse(*node)));
        let (node, largest_free) = largest.map(|(node, room)| (node, room.of(resource)))?;
        let shortage = Shortage {
            resource,
            asked: task.clone().map(|(each, replicas)| u128::from(each) * u128::from(replicas)).sum(),
            free: sum(rooms),
            total: sum(self.nodes.whole()),
            largest_task: task.map(|(each, _)| each).max().unwrap_or(0),
            largest_free,
            node: (largest_free > 0).then(|| self.nodes.all()[node].name.clone()),
        };
        (shortage.asked > shortage.free || shortage.largest_task > largest_free).then_some(shortage)
    }

    /// The node that lacks least for a task, and what it lacks most of; only nodes that would have room for one if nothing ran.
    fn closest(&self, group: &Group) -> Option<Closest> {
        let lacking = |node: usize| {
            let room = self.nodes.rooms()[node];
            let short = Resource::ALL.into_iter().filter(move |of| room.of(*of) < group.of(*of));
            short.map(move |of| (u128::from(room.of(of)) * 1000 / u128::from(group.of(of).max(1)), of))
        };
        let whole = self.nodes.whole().iter().enumerate();
        let able = whole.filter(|(_, whole)| Resource::ALL.into_iter().all(|of| whole.of(of) >= group.of(of)));
        let (_, _, node) = able.map(|(node, _)| (lacking(node).count(), std::cmp::Reverse(lacking(node).min()), node)).min()?;
        let (_, resource) = lacking(node).min()?;
        let (asked, free) = (group.of(resource), self.nodes.rooms()[node].of(resource));
        Some(Closest { node: self.nodes.all()[node].name.clone(), resource, asked, free })
    }

    /// The node on which one task of the most demanding group fits first, by the limits of what runs there.
    fn room_at(&self, demand: &Demand, now: Timestamp) -> Option<(Name, Timestamp)> {
        let group = demand.groups.first()?;
        let mut ends: Vec<(Timestamp, u64, JobIx)> = Vec::new();
        for (&order, active) in &self.active {
            ends.extend(self.latest_end(&self.jobs[active.job], now).map(|end| (end, order, active.job)));
        }
        ends.sort_unstable();
        let mut rooms: BTreeMap<usize, [u64; 3]> = BTreeMap::new();
        for (end, _, job) in ends {
            let run = &self.jobs[job];
            let held = &self.tree.bucket(run.bucket).demand;
            for slot in run.lifecycle.state.placement().iter().flat_map(|placement| &placement.slots) {
                let Some(node) = self.nodes.find_node(&slot.node).filter(|node| self.nodes.is_configured(*node)) else {
                    continue;
                };
                let room = rooms.entry(node).or_insert_with(|| Resource::ALL.map(|of| self.nodes.rooms()[node].of(of)));
                for resource in Resource::ALL {
                    room[resource as usize] += held.group(slot.group).of(resource);
                }
                if Resource::ALL.into_iter().all(|resource| room[resource as usize] >= group.of(resource)) {
                    return Some((slot.node.clone(), end));
                }
            }
        }
        None
    }
}
