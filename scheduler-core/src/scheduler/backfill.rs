//! The reservation of the blocked head, and who may start beside it (EASY backfill).
//!
//! The rule. Runs end, for this purpose, when their time limit and grace allow at the latest; runs without a limit come after all others,
//! in the order in which they started, at a time that nobody knows. Let T be the first such end after which the head fits. The head is
//! placed on what is free then; what is left besides is the *extra*. Another job may start now if it fits now and either
//! - it ends by T by its own limit and grace, T being known; or
//! - it fits into the extra as well. What it takes is taken from the extra.
//!
//! Why the head cannot starve. A start by the first way is over by T. A start by the second leaves room for the head at T. So in both
//! cases the head still fits once the runs that T was worked out from have ended: T never moves away, and there are only finitely many
//! such runs. Where T is unknown the set of runs without a limit that the head waits for can only shrink, because later runs come later
//! in the order and must fit the extra; when it is empty T is known. (T does shift by the time between placing a run and its
//! tasks' start, and jobs of several groups inherit the roughness of their packing.)

use smallvec::SmallVec;

use crate::scheduler::nodes::Nodes;
use crate::scheduler::place::{Demand, Packing, Room, pack};
use crate::state::Placement;
use crate::time::{Span, Timestamp};

/// When the head can start, and what is left beside it.
pub(super) struct Shadow {
    /// `None`: when runs without a time limit end.
    pub(super) at: Option<Timestamp>,
    /// Per node, what is left at that time beside the head.
    extra: Vec<Room>,
    /// Per node, what is free now and stays free beside the head.
    lasting: Vec<Room>,
}

/// A run as the reservation sees it: its latest end, what it asked for and where it is.
pub(super) type Run<'a> = (Option<Timestamp>, &'a Demand, &'a Placement);

/// What a run gives back to a node.
pub(super) struct Release {
    node: usize,
    cpu: u64,
    memory: u64,
    gpus: u32,
}

/// Amounts in use, wide enough for nodes that are overcommitted after a restore.
#[derive(Clone, Copy)]
pub(super) struct Books {
    cpu: u128,
    memory: u128,
    /// Configured GPUs without an owner.
    free_gpus: u32,
}

impl Books {
    /// Those of all configured nodes.
    pub(super) fn of(nodes: &Nodes) -> Vec<Self> {
        nodes.books().map(|(cpu, memory, free_gpus)| Self { cpu, memory, free_gpus }).collect()
    }
}

impl Shadow {
    /// Works out T from runs in the order of their ends. `None` if the job would not fit even after all of them.
    pub(super) fn new<'a>(demand: &Demand, nodes: &Nodes, runs: impl Iterator<Item = Run<'a>>) -> Option<Self> {
        let mut releases = Vec::new();
        let mut ends = Vec::new();
        for (end, demand, placement) in runs {
            record(nodes, demand, placement, &mut releases);
            ends.push((end, releases.len()));
        }
        let books = Books::of(nodes);
        let after = |count: usize| {
            let upto = count.checked_sub(1).map_or(0, |last| ends[last].1);
            rooms_after(nodes, &books, &releases[..upto])
        };
        let mut packing = pack(demand, &after(ends.len())).ok()?;
        // Halving instead of walking: what fits after some runs fits after more of them.
        let (mut fails, mut fits) = (0, ends.len());
        while fits - fails > 1 {
            let middle = fails.midpoint(fits);
            match pack(demand, &after(middle)) {
                Ok(found) => (packing, fits) = (found, middle),
                Err(_) => fails = middle,
            }
        }
        // Whoever ends at the same instant leaves room beside the head as well.
        while fits > 0 && fits < ends.len() && ends[fits].0.is_some() && ends[fits].0 == ends[fits - 1].0 {
            fits += 1;
        }
        let mut extra = after(fits);
        take(&mut extra, demand, &packing);
        let lasting = extra.iter().zip(nodes.rooms()).map(|(extra, room)| extra.min(*room)).collect();
        let at = fits.checked_sub(1).and_then(|last| ends[last].0);
        Some(Self { at, extra, lasting })
    }

    /// Per node, what is left beside the head when it can start.
    pub(super) fn extra(&self) -> &[Room] {
        &self.extra
    }

    /// Where a job that fits into `packing` may start without delaying the head, if it may; what it takes is then taken.
    pub(super) fn admit(
        &mut self,
        demand: &Demand,
        stay: Option<Span>,
        packing: Packing,
        rooms: &[Room],
        now: Timestamp,
    ) -> Option<Packing> {
        let over_in_time = self.at.zip(stay).is_some_and(|(at, stay)| now + stay <= at);
        let packing = if over_in_time {
            packing
        } else {
            let packing = pack(demand, &self.lasting).ok()?;
            take(&mut self.extra, demand, &packing);
            packing
        };
        let mut rooms_left: SmallVec<[(usize, Room); 2]> = SmallVec::new();
        for share in &packing {
            let at = rooms_left.iter().position(|(node, _)| *node == share.node).unwrap_or_else(|| {
                rooms_left.push((share.node, rooms[share.node]));
                rooms_left.len() - 1
            });
            let left = &mut rooms_left[at].1;
            *left = left.less(&demand.groups[share.group], share.count);
        }
        for (node, left) in rooms_left {
            self.lasting[node] = self.extra[node].min(left);
        }
        Some(packing)
    }
}

pub(super) fn take(rooms: &mut [Room], demand: &Demand, packing: &Packing) {
    for share in packing {
        rooms[share.node] = rooms[share.node].less(&demand.groups[share.group], share.count);
    }
}

/// What each slot of a run gives back, GPUs to the node that lists them now.
pub(super) fn record(nodes: &Nodes, demand: &Demand, placement: &Placement, releases: &mut Vec<Release>) {
    for slot in &placement.slots {
        let group = demand.group(slot.group);
        if let Some(node) = nodes.find_node(&slot.node).filter(|&node| nodes.is_configured(node)) {
            releases.push(Release { node, cpu: group.cpu, memory: group.memory, gpus: 0 });
        }
        for uuid in &slot.gpus {
            let device = nodes.find_device(uuid).map(|device| nodes.device(device)).filter(|device| device.configured);
            if let Some(device) = device {
                releases.push(Release { node: device.node, cpu: 0, memory: 0, gpus: 1 });
            }
        }
    }
}

/// What is free once this has been given back.
pub(super) fn rooms_after(nodes: &Nodes, books: &[Books], releases: &[Release]) -> Vec<Room> {
    let mut books = books.to_vec();
    for release in releases {
        let node = &mut books[release.node];
        node.cpu -= u128::from(release.cpu);
        node.memory -= u128::from(release.memory);
        node.free_gpus += release.gpus;
    }
    books.iter().enumerate().map(|(node, books)| nodes.room(node, books.cpu, books.memory, books.free_gpus)).collect()
}
