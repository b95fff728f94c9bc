//! What nodes offer: worked out from the books whenever these change.

use crate::scheduler::nodes::{Node, Nodes};
use crate::scheduler::place::{Lanes, Room};

impl Nodes {
    /// Brings what a node offers up to date.
    pub(super) fn refresh(&mut self, node: usize) {
        let room = self.offer(node);
        self.field.set(node, room);
        if self.sharers > 0 || !self.rooms().shared.is_empty() {
            let gpus = if self.is_usable(node) { self.shared_gpus(node) } else { Vec::new() };
            self.field.set_shared(node, gpus);
        }
    }

    /// Whether a node offers anything.
    pub(super) fn is_usable(&self, node: usize) -> bool {
        self.idle[node].open && !self.list[node].is_over()
    }

    /// What a node offers, from the books.
    pub(super) fn offer(&self, node: usize) -> Room {
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
