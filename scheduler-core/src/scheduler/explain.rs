//! Why a job is where it is, as data: the words are the client's.

use crate::ids::JobId;
use crate::scheduler::Scheduler;
use crate::scheduler::config::Resource;
use crate::scheduler::errors::Whose;
use crate::scheduler::place::{Demand, Room};
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::BucketIx;
use crate::scheduler::tree::ledger::{Barrier, Counted};
use crate::state::{JobState, WaitFor};
use crate::time::Timestamp;

/// Why a job does not run, or that it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Somebody has to release it.
    Held,
    /// It waits for this time.
    NotBefore(Timestamp),
    /// Others are ahead of it in the order, and it cannot pass them.
    Behind {
        /// Its place in its queue, from 1.
        position: u64,
        /// The first job of the order over all queues, which everybody behind it waits for.
        first: JobId,
        /// What it would lack itself at present; empty if it would fit now and only must not delay the first.
        shortages: Vec<Shortage>,
    },
    /// It is the first of the order and does not fit.
    Resources {
        /// Its place in its queue, from 1.
        position: u64,
        /// What it lacks. Empty if each amount is there but not on the same nodes.
        shortages: Vec<Shortage>,
        /// When it starts at the latest, if the time limits of what runs allow to say so. `None` also where it could never fit.
        expected: Option<Timestamp>,
    },
    /// A limit keeps it back, whatever is free.
    Limit {
        /// Its place in its queue, from 1.
        position: u64,
        /// Whose limit it is.
        whose: Whose,
        /// What it counts.
        counted: Counted,
        /// What is held already.
        held: u128,
        /// What the job asks for besides.
        asked: u128,
        /// What may be held.
        limit: u128,
    },
    /// The next pass starts it.
    Scheduling,
    /// It is placed and its start is on the way.
    Starting,
    /// It runs.
    Running,
    /// It is being ended.
    Stopping,
}

/// A resource of which there is too little free for a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// Which.
    pub resource: Resource,
    /// What all tasks of the job ask for together.
    pub asked: u128,
    /// What is free over all nodes.
    pub free: u128,
    /// What all nodes have.
    pub total: u128,
    /// The most that one task asks for.
    pub largest_task: u64,
    /// The most that is free on one node.
    pub largest_free: u64,
}

impl Scheduler {
    /// Why an unfinished job is where it is. Walks the jobs of its queue once if it is queued, and never changes anything.
    pub fn explain(&self, job: JobId, now: Timestamp) -> Option<Why> {
        let index = self.jobs.find(job)?;
        Some(match &self.jobs[index].lifecycle.state {
            JobState::Waiting { on: WaitFor::Hold } => Why::Held,
            JobState::Waiting { on: WaitFor::NotBefore(at) } => Why::NotBefore(*at),
            JobState::Queued { .. } => self.explain_queued(index, now),
            JobState::Starting { .. } => Why::Starting,
            JobState::Running { .. } => Why::Running,
            JobState::Stopping { .. } => Why::Stopping,
            JobState::Finished { .. } => return None,
        })
    }

    fn explain_queued(&self, index: JobIx, now: Timestamp) -> Why {
        let bucket = self.jobs[index].bucket;
        let demand = &self.tree.bucket(bucket).demand;
        let fits = self.nodes.pack(demand, self.nodes.rooms()).is_ok();
        let first = self.first(now).map_or(index, |(_, first)| first);
        let position = self.position(index);
        if let Some(barrier) = self.tree.barriers(bucket, &demand.total).first() {
            let Barrier { held, asked, bound: limit, .. } = *barrier;
            return Why::Limit { position, whose: barrier.whose(), counted: barrier.counted(), held, asked, limit };
        }
        if first != index {
            return Why::Behind { position, first: self.jobs[first].id, shortages: self.shortages(demand) };
        }
        if fits {
            return Why::Scheduling;
        }
        let expected = self.shadow(demand, now).and_then(|shadow| shadow.at);
        Why::Resources { position, shortages: self.shortages(demand), expected }
    }

    /// Place of a queued job in its queue, from 1.
    fn position(&self, index: JobIx) -> u64 {
        self.key_of(index).map_or(1, |key| self.tree.ahead(self.jobs[index].bucket, key) + 1)
    }

    /// The first job of the order over all queues.
    fn first(&self, now: Timestamp) -> Option<(BucketIx, JobIx)> {
        let ranked = self.tree.units().iter().filter_map(|&unit| Some((self.tree.rank(unit, now)?, unit)));
        self.tree.first(ranked.max()?.1)
    }

    fn shortages(&self, demand: &Demand) -> Vec<Shortage> {
        let shortage = |resource| {
            let task = demand.groups.iter().map(|group| (group.of(resource), group.replicas));
            let rooms = |rooms: &[Room]| {
                let amounts: Vec<u64> = rooms.iter().map(|room| room.of(resource)).collect();
                (amounts.iter().copied().map(u128::from).sum(), amounts.into_iter().max().unwrap_or(0))
            };
            let (free, largest_free) = rooms(self.nodes.rooms());
            Shortage {
                resource,
                asked: task.clone().map(|(each, replicas)| u128::from(each) * u128::from(replicas)).sum(),
                free,
                total: rooms(self.nodes.whole()).0,
                largest_task: task.map(|(each, _)| each).max().unwrap_or(0),
                largest_free,
            }
        };
        let lacking = |shortage: &Shortage| shortage.asked > shortage.free || shortage.largest_task > shortage.largest_free;
        Resource::ALL.into_iter().map(shortage).filter(lacking).collect()
    }
}
