//! Stored jobs are taken over: what the table says they have is put on the books, and what cannot be is refused.

use hashbrown::HashMap;

use crate::amounts::GPU_MILLIS;
use crate::hash::Build;
use crate::ids::Name;
use crate::job::{Constraints, LiveJob, NewJob, Shape};
use crate::scheduler::Scheduler;
use crate::scheduler::errors::RestoreError;
use crate::state::{Placement, Slot, StateKind};
use crate::time::Timestamp;

impl Scheduler {
    /// Takes over a stored job, in any order. Timers that are due meanwhile are served by the next [`tick`](Self::tick).
    ///
    /// What a job holds is put on the books even where the node is smaller now or not configured any more, and a queue that is not
    /// configured any more is kept for its jobs, at base priority 0.
    ///
    /// # Errors
    /// The table is damaged: a job twice, a GPU twice, a placement that does not match the job's tasks.
    pub fn restore(&mut self, job: LiveJob, now: Timestamp) -> Result<(), RestoreError> {
        let id = job.id;
        if self.jobs.find(id).is_some() {
            return Err(RestoreError::Duplicate { job: id });
        }
        if job.lifecycle.state.kind() == StateKind::Finished {
            return Err(RestoreError::Finished { job: id });
        }
        if job.shape.tasks.is_empty() {
            return Err(RestoreError::Malformed { job: id, detail: "it has no tasks" });
        }
        if let Some(placement) = job.lifecycle.state.placement() {
            if !matches(placement, &job.shape) {
                return Err(RestoreError::Malformed {
                    job: id,
                    detail: "its placement is not one slot for every task that has to start",
                });
            }
            if let Some(uuid) = twice(placement) {
                return Err(RestoreError::GpuTaken { job: id, uuid, owner: id });
            }
            if let Some((uuid, owner)) = self.nodes.conflict(placement) {
                return Err(RestoreError::GpuTaken { job: id, uuid, owner: self.jobs[owner].id });
            }
        }
        let LiveJob { seq, shape, policy, submitted_at, start_after, lifecycle, .. } = job;
        self.restored = self.restored.max(now);
        let found = self.shapes.find(&shape);
        let new = NewJob { id, seq, shape, policy, submitted_at, start_after, hold: false };
        let index = self.insert(new, found, lifecycle, now);
        if let Some(active) = self.active.get(self.jobs[index].order) {
            self.nodes.tolerate(&active.held);
        }
        Ok(())
    }
}

/// Enough slots, the first replicas of each group in order, each with as many GPUs as it asked for.
fn matches(placement: &Placement, shape: &Shape) -> bool {
    let mut slots = placement.slots.iter().peekable();
    for (index, group) in shape.tasks.iter().enumerate() {
        let own = (0..group.replicas).take_while(|&replica| {
            let right = |slot: &&Slot| {
                let (has, asked) = [slot.share, group.constraints.gpu_share].map(|share| share.map(|share| share.millis)).into();
                let is_part = if group.constraints.gpu_replica { has.is_some() && has >= asked } else { has == asked };
                (usize::from(slot.group), slot.replica) == (index, replica)
                    && slot.gpus.len() == group.request.gpus as usize
                    && is_part
                    && are_named(&slot.gpus, &group.constraints)
            };
            slots.next_if(right).is_some()
        });
        own.count();
    }
    placement.slots.len() as u64 >= shape.least_tasks() && slots.next().is_none()
}

/// Whether GPUs are those that were asked for, where certain ones were.
fn are_named(gpus: &[Name], asked: &Constraints) -> bool {
    asked.gpu_uuids.is_empty() || gpus.iter().all(|uuid| asked.gpu_uuids.contains(uuid))
}

/// The first GPU of which a placement has more than there is.
fn twice(placement: &Placement) -> Option<Name> {
    let mut seen = HashMap::<&Name, u32, Build>::default();
    let gpus = placement.slots.iter().flat_map(|slot| slot.gpus.iter().map(move |uuid| (slot.share, uuid)));
    gpus.map(|(share, uuid)| (share.map_or(GPU_MILLIS, |share| share.millis), uuid))
        .find(|(millis, uuid)| {
            let sum = seen.entry(*uuid).or_default();
            *sum = sum.saturating_add(*millis);
            *sum > GPU_MILLIS
        })
        .map(|(_, uuid)| uuid.clone())
}
