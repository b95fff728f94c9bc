//! What a job lacks: the one place of `explain` that looks at rooms.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::amounts::{GpuShare, MemoryBytes};
use crate::ids::Name;
use crate::scheduler::Scheduler;
use crate::scheduler::backfill::Forecast;
use crate::scheduler::config::Resource;
use crate::scheduler::explain::order::NAMED;
use crate::scheduler::explain::why::{AsideGpu, Closest, Gang, NoPart, Shortage, Shortfall, Why};
use crate::scheduler::nodes::Device;
use crate::scheduler::place::{Demand, Group, Room, Rooms};
use crate::scheduler::plan::latest_end;
use crate::scheduler::runs::Active;
use crate::scheduler::table::JobIx;
use crate::time::Timestamp;

impl Scheduler {
    /// Whether tasks like these fit on what is free.
    pub(super) fn fits(&self, demand: &Demand) -> bool {
        self.nodes.pack(demand, self.nodes.rooms()).is_ok()
    }

    /// Whether tasks like these would fit if nothing ran, on the nodes that take tasks.
    pub(super) fn fits_empty(&self, demand: &Demand) -> bool {
        self.nodes.pack(demand, self.nodes.idle()).is_ok()
    }

    /// The nodes that take no tasks and would have room for one of its most demanding; where there are none, the GPUs that are set aside on
    /// nodes that would have room with them.
    pub(super) fn closed_for(&self, demand: &Demand) -> Why {
        let would = |node: &usize| {
            let group = demand.groups.first();
            let offer = group.and_then(|group| Some((group, self.nodes.offered(*node, group, self.nodes.whole())?)));
            let fits = offer.is_some_and(|(group, offer)| Resource::ALL.into_iter().all(|of| offer[of as usize] >= group.of(of)));
            fits && self.nodes.whole()[*node].open
        };
        let is_closed = |node: &usize| would(node) && !self.nodes.idle()[*node].open;
        let mut closed = (0..self.nodes.whole().len()).filter(is_closed).map(|node| self.nodes.all()[node].name.clone());
        let nodes: Vec<Name> = closed.by_ref().take(NAMED).collect();
        let more = closed.count();
        let devices = (0..self.nodes.whole().len()).filter(would).flat_map(|node| &self.nodes.all()[node].devices);
        // Of those that are named no others matter.
        let matters = |device: &&Device| {
            let masks = demand.groups.iter().map(|group| (group.named, self.nodes.filters().get(group.filter).fit(device.node)));
            let mut named = masks.filter(|(named, _)| *named).peekable();
            device.configured
                && (named.peek().is_none() || named.any(|(_, mask)| mask.is_some_and(|mask| mask >> device.lane & 1 == 1)))
        };
        let mut aside = devices.map(|&device| self.nodes.device(device)).filter(matters).filter_map(|device| {
            let why = device.aside.clone()?;
            Some(AsideGpu { uuid: device.config.uuid.clone(), node: self.nodes.all()[device.node].name.clone(), why })
        });
        let gpus: Vec<AsideGpu> = aside.by_ref().take(NAMED).collect();
        if nodes.is_empty() && !gpus.is_empty() {
            return Why::GpusAside { gpus, more: aside.count() };
        }
        Why::NodesClosed { nodes, more }
    }

    /// What a queued job lacks at present.
    pub(super) fn shortfall(&self, job: JobIx, now: Timestamp) -> Shortfall {
        let record = &self.jobs[job];
        let demand = &self.tree.bucket(record.bucket).demand;
        let Err(misfit) = self.nodes.pack(demand, self.nodes.rooms()) else { return Shortfall::default() };
        let shape = self.shape_of(record);
        let group = demand.group(misfit.group);
        let needed = if demand.groups.len() == 1 { shape.least_tasks() } else { group.replicas.into() };
        let gang = Gang { task: shape.tasks[usize::from(misfit.group)].name.clone(), needed, possible: misfit.possible };
        let shortages: Vec<_> = Resource::ALL.into_iter().filter_map(|resource| self.shortage(demand, resource)).collect();
        let part = demand.groups.iter().find_map(|group| self.no_part(group));
        let (taken, more_taken) = if demand.is_named { self.taken(shape) } else { (Vec::new(), 0) };
        let alone = misfit.possible == 0 && shortages.is_empty() && part.is_none() && taken.is_empty();
        Shortfall {
            taken,
            more_taken,
            part,
            closest: if alone { self.closest(group) } else { None },
            shortages,
            room_at: if misfit.possible == 0 { self.room_at(demand, now) } else { None },
            gang: (needed > 1 || demand.groups.len() > 1).then_some(gang),
        }
    }

    /// What shared GPUs have left, where a group asks for a part that none of them has, and none is whole.
    fn no_part(&self, group: &Group) -> Option<NoPart> {
        let part = group.part.filter(|_| !group.named)?;
        let rooms = self.nodes.rooms();
        let (mut gpus, mut largest) = (0, None);
        for (node, room) in rooms.iter().enumerate() {
            let Some(mask) = self.nodes.filters().get(group.filter).fit(node) else { continue };
            if room.gpus.of(mask) > 0 {
                return None;
            }
            for gpu in rooms.shared.of(node).iter().filter(|gpu| mask >> gpu.lane & 1 == 1) {
                if gpu.holds(part) > 0 {
                    return None;
                }
                gpus += usize::from(gpu.millis_left() > 0);
                // Of several the first one.
                let left = GpuShare { millis: gpu.millis_left(), memory: MemoryBytes(gpu.memory_left()) };
                let better = largest
                    .as_ref()
                    .is_none_or(|(most, _): &(GpuShare, usize)| (left.millis, left.memory) > (most.millis, most.memory));
                if left.millis > 0 && better {
                    largest = Some((left, node));
                }
            }
        }
        let largest = largest.map(|(left, node)| (left, self.nodes.all()[node].name.clone()));
        Some(NoPart { asked: part, gpus, largest })
    }

    /// How much of a resource is missing, if it is.
    fn shortage(&self, demand: &Demand, resource: Resource) -> Option<Shortage> {
        // Parts lie in holes of one GPU each, which are told apart.
        if resource == Resource::Gpu && demand.groups.iter().any(|group| group.part.is_some()) {
            return None;
        }
        // Of those that are named each is told by itself.
        if resource == Resource::Gpu && demand.groups.iter().all(|group| group.named || group.gpus == 0) {
            return None;
        }
        let task = demand.groups.iter().map(|group| (group.counted(resource), group.replicas));
        // Of the nodes that its constraints allow, and of those the GPUs that they allow.
        let offer = |node: usize, rooms: &Rooms| {
            let offers = demand.groups.iter().filter_map(|group| self.nodes.offered(node, group, rooms));
            offers.map(|offer| offer[resource as usize]).max().unwrap_or(0)
        };
        let sum = |rooms: &Rooms| (0..rooms.len()).map(|node| u128::from(offer(node, rooms))).sum();
        let rooms = self.nodes.rooms();
        // Of several the first one.
        let largest = (0..rooms.len()).max_by_key(|&node| (offer(node, rooms), std::cmp::Reverse(node)));
        let (node, largest_free) = largest.map(|node| (node, offer(node, rooms)))?;
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
        let offer = |node: usize, rooms: &Rooms| self.nodes.offered(node, group, rooms).unwrap_or_default();
        let lacking = |node: usize| {
            let offer = offer(node, self.nodes.rooms());
            let short = Resource::ALL.into_iter().filter(move |of| offer[*of as usize] < group.of(*of));
            short.map(move |of| (u128::from(offer[of as usize]) * 1000 / u128::from(group.of(of).max(1)), of))
        };
        let idle = self.nodes.idle();
        let able = (0..idle.len()).filter(|&node| {
            let offer = offer(node, idle);
            idle[node].open && Resource::ALL.into_iter().all(|of| offer[of as usize] >= group.of(of))
        });
        let (_, _, node) = able.map(|node| (lacking(node).count(), std::cmp::Reverse(lacking(node).min()), node)).min()?;
        let (_, resource) = lacking(node).min()?;
        let (asked, free) = (group.counted(resource), offer(node, self.nodes.rooms())[resource as usize]);
        Some(Closest { node: self.nodes.all()[node].name.clone(), resource, asked, free })
    }

    /// The node on which one task of the most demanding group fits first, by the limits of what runs there.
    fn room_at(&self, demand: &Demand, now: Timestamp) -> Option<(Name, Timestamp)> {
        let group = demand.groups.first()?;
        if group.part.is_some() || group.replica.is_some() {
            return self.part_at(group, now);
        }
        let mut rooms: BTreeMap<usize, Room> = BTreeMap::new();
        let end = |active: &Active| latest_end(&self.jobs[active.job], &self.policies);
        for (end, back) in self.active.by_end(now, end) {
            // Whoever has no limit comes last.
            let end = end?;
            let mut touched: SmallVec<[usize; 2]> = SmallVec::new();
            for part in back.parts() {
                let node = part.node as usize;
                let room = rooms.entry(node).or_insert_with(|| self.nodes.rooms()[node]);
                (room.cpu, room.memory) = (room.cpu.saturating_add(part.cpu), room.memory.saturating_add(part.memory));
                touched.push(node);
            }
            // Those that were shared are looked at where a part is asked for; here they count once nobody has any of it.
            for device in back.devices().iter().map(|device| self.nodes.device(*device)).filter(|device| device.is_offered()) {
                rooms.entry(device.node).or_insert_with(|| self.nodes.rooms()[device.node]).gpus.put(device.lane);
            }
            let fits = |node: &usize| {
                let mask = self.nodes.filters().get(group.filter).fit(*node);
                mask.is_some_and(|mask| rooms[node].fits(group, mask))
            };
            if let Some(node) = touched.into_iter().find(fits) {
                return Some((self.nodes.all()[node].name.clone(), end));
            }
        }
        None
    }
}

impl Scheduler {
    /// The same for a task that asks for a part of a GPU.
    fn part_at(&self, group: &Group, now: Timestamp) -> Option<(Name, Timestamp)> {
        let mut forecast = Forecast::new(&self.nodes);
        let end = |active: &Active| latest_end(&self.jobs[active.job], &self.policies);
        for (end, back) in self.active.by_end(now, end) {
            let end = end?;
            let mut found = None;
            forecast.end(&back, |forecast, node| {
                let mask = self.nodes.filters().get(group.filter).fit(node);
                let fits = mask.is_some_and(|mask| forecast.holds(node, group, mask) > 0);
                found = found.or_else(|| fits.then_some(node));
            });
            if let Some(node) = found {
                return Some((self.nodes.all()[node].name.clone(), end));
            }
        }
        None
    }

    /// When a job that holds resources has given them back at the latest, if its limits say so.
    pub(super) fn end_of(&self, job: JobIx, now: Timestamp) -> Option<Timestamp> {
        latest_end(&self.jobs[job], &self.policies).at(now).map(|end| end.max(now))
    }
}
