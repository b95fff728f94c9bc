//! How the free GPUs lie: in holes that jobs can use, or scattered.

use crate::ids::Name;
use crate::scheduler::Scheduler;
use crate::scheduler::config::{GpuKind, NodeState};

/// Numbers of GPUs on one node for which it is said how many of the free ones such jobs cannot use.
pub const HOLES: [u32; 4] = [1, 2, 4, 8];

/// What jobs that ask for a number of GPUs on one node can use of the free ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// The number of GPUs that such a job asks for.
    pub gpus: u32,
    /// How many of the free GPUs such jobs can have: over all nodes, the free ones rounded down to a multiple of it.
    pub usable: u64,
}

/// How the free GPUs lie. Whole devices of nodes that take tasks; CPU and memory are not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragmentation<'a> {
    /// GPUs that nobody has.
    pub free: u64,
    /// GPUs that nobody has on nodes that take no tasks: not among the free ones.
    pub closed: u64,
    /// The most that are free on one node, and the first such node.
    pub largest: Option<(u32, &'a Name)>,
    /// For each of [`HOLES`].
    pub holes: [Hole; HOLES.len()],
}

impl Fragmentation<'_> {
    /// The part of the free GPUs that jobs with this many GPUs on one node cannot use: `1 - sum(floor(free_n / k) * k) / sum(free_n)` over the
    /// nodes n; 0 where none is free. `None` for a number that is not one of [`HOLES`].
    pub fn unusable(&self, gpus: u32) -> Option<f64> {
        let hole = self.holes.iter().find(|hole| hole.gpus == gpus)?;
        let lost = self.free - hole.usable;
        Some(if self.free == 0 { 0.0 } else { lost as f64 / self.free as f64 })
    }
}

impl Scheduler {
    /// How the free GPUs lie now. Looks at every GPU.
    pub fn fragmentation(&self) -> Fragmentation<'_> {
        let mut found = Fragmentation { free: 0, closed: 0, largest: None, holes: HOLES.map(|gpus| Hole { gpus, usable: 0 }) };
        for node in self.nodes.all().iter().filter(|node| node.configured) {
            let devices = node.devices.iter().map(|&device| self.nodes.device(device));
            let is_free = |device: &crate::scheduler::nodes::Device| {
                device.is_offered() && device.is_free() && device.config.kind == GpuKind::Whole
            };
            let free = devices.filter(|device| is_free(device)).count() as u32;
            if node.state != NodeState::Ready {
                found.closed += u64::from(free);
                continue;
            }
            found.free += u64::from(free);
            for hole in &mut found.holes {
                hole.usable += u64::from(free / hole.gpus * hole.gpus);
            }
            if free > found.largest.map_or(0, |(most, _)| most) {
                found.largest = Some((free, &node.name));
            }
        }
        found
    }
}
