//! What spares a pass time: the end of a pass where nobody fits any more, and reading ahead.
//!
//! What must hold: none of it changes who starts. Nodes only get fuller during a pass, so where even the least that any task asks for is
//! nowhere, nobody starts before something is given back. What is read ahead is read later anyhow, or not.

use crate::scheduler::Scheduler;
use crate::scheduler::config::Resource;
use crate::scheduler::pass::Pass;
use crate::scheduler::place::Room;
use crate::scheduler::tree::Unit;

/// Looking at so many nodes costs no more than looking at a job.
const NODES_A_JOB: usize = 64;

impl Scheduler {
    /// Whether no node has room for even the smallest task that anybody queues for, so that the rest of the pass need not be looked at. Asked
    /// so seldom that looking at all nodes costs no more than the jobs that were looked at meanwhile.
    pub(super) fn is_full(&self, pass: &mut Pass) -> bool {
        pass.since_asked += 1;
        // A pass that is explained, keeps room for several or may end runs has more to say of those that do not fit.
        if pass.since_asked * NODES_A_JOB < self.nodes.rooms().len()
            || self.trace.is_some()
            || pass.agenda.is_some()
            || self.may_preempt()
        {
            return false;
        }
        pass.since_asked = 0;
        let [cpu, memory, gpus] = self.tree.smallest();
        // What is left of a shared GPU may do for a part.
        let gpus = if self.nodes.rooms().shared.is_empty() { gpus } else { 0 };
        let fits = |room: &Room| room.open && room.cpu >= cpu && room.memory >= memory && room.of(Resource::Gpu) >= gpus;
        !self.nodes.rooms().iter().any(fits)
    }

    /// Has brought into the cache what the next turn of a unit reads first, and of those units that had their turns before it what is found
    /// through that: with many jobs queued none of it is there, and units take turns, so there is time.
    pub(super) fn look_ahead(&self, unit: Unit, pass: &mut Pass) {
        let next = self.tree.first(unit);
        if let Some((bucket, job)) = next {
            self.tree.prefetch(bucket);
            self.jobs.prefetch(job);
        }
        let [before, long_before] = pass.ahead;
        if let Some(bucket) = before {
            self.tree.prefetch_line(bucket);
        }
        if let Some(bucket) = long_before {
            self.tree.prefetch_jobs(bucket);
        }
        pass.ahead = [next.map(|(bucket, _)| bucket), before];
    }
}
