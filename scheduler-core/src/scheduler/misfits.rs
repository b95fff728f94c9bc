//! What a pass knows to find no room, without looking again.
//!
//! While a pass goes on, nodes only get fuller. So where a job found no room, nobody finds any in the same pass who may go to the same nodes
//! and asks for as much of everything or more. With many kinds of jobs that only differ in queue, tenant or size, most of the kinds
//! behind a blocked head are known not to fit by the few that were looked at.
//!
//! What must hold: what is remembered was asked of the same offers, which have not grown since. Only jobs of one task group are
//! remembered and recognised: for several groups a packing that is missed for one can be found for a larger one.

use smallvec::SmallVec;

use crate::amounts::MemoryBytes;
use crate::scheduler::config::Resource;
use crate::scheduler::place::Demand;
use crate::scheduler::place::filter::FilterIx;

/// So many are remembered: those that ask for least.
const REMEMBERED: usize = 16;

/// What was asked for: so many tasks at least, of so much each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ask {
    filter: FilterIx,
    least: u64,
    cpu: u64,
    memory: u64,
    /// Thousandths.
    gpus: u64,
    /// Memory of one GPU, where a part of it is asked for; some or as large a part as of the GPU.
    part: Option<MemoryBytes>,
}

impl Ask {
    /// A whole GPU is more than a part of one; of two parts the memory can be compared where both say how much, or neither does.
    fn covers_part(&self, other: &Self) -> bool {
        match (self.part, other.part) {
            (None, _) => true,
            (Some(own), Some(theirs)) => own >= theirs && (own.0 == 0) == (theirs.0 == 0),
            (Some(_), None) => false,
        }
    }

    fn of(demand: &Demand) -> Option<Self> {
        let [group] = &demand.groups[..] else { return None };
        let (filter, least) = (group.filter, demand.least);
        (group.replicas > 0).then_some(Self {
            filter,
            least,
            cpu: group.cpu,
            memory: group.memory,
            gpus: group.of(Resource::Gpu),
            part: group.part.map(|part| part.memory),
        })
    }

    /// Whether it asks for as much as another one of everything.
    fn covers(&self, other: &Self) -> bool {
        self.filter == other.filter
            && self.least >= other.least
            && self.cpu >= other.cpu
            && self.memory >= other.memory
            && self.gpus >= other.gpus
            && self.covers_part(other)
    }
}

/// See the module.
pub(super) struct Misfits {
    asks: SmallVec<[Ask; 4]>,
}

impl Misfits {
    pub(super) fn new() -> Self {
        Self { asks: SmallVec::new() }
    }

    /// Whether there is no room for a job, as is known already; else looks for room, and remembers it where there is none.
    pub(super) fn unless_known<T>(&mut self, demand: &Demand, find: impl FnOnce() -> Option<T>) -> Option<T> {
        let ask = Ask::of(demand);
        if ask.is_some_and(|ask| self.asks.iter().any(|known| ask.covers(known))) {
            return None;
        }
        let found = find();
        if let (None, Some(ask)) = (&found, ask) {
            self.asks.retain(|known| !known.covers(&ask));
            if self.asks.len() < REMEMBERED {
                self.asks.push(ask);
            }
        }
        found
    }
}
