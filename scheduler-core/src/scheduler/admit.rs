//! Whether a job could ever run here: what never could is refused when it comes, with what there is.

use hashbrown::HashSet;

use crate::hash::Build;
use crate::ids::Name;
use crate::job::{Policy, Shape};
use crate::scheduler::Scheduler;
use crate::scheduler::config::{PRIORITY_LIMIT, Resource, TASK_LIMIT};
use crate::scheduler::errors::Refused;
use crate::scheduler::place::{Demand, pack};

impl Scheduler {
    /// Whether a job like this would be accepted. Changes nothing.
    ///
    /// # Errors
    /// See [`Refused`]; a request that could never run on the configured nodes is refused with what they have.
    pub fn admit(&self, shape: &Shape, policy: &Policy) -> Result<(), Refused> {
        if !(-PRIORITY_LIMIT..=PRIORITY_LIMIT).contains(&policy.priority) {
            return Err(Refused::Priority { got: policy.priority });
        }
        if policy.max_attempts == 0 {
            return Err(Refused::NoAttempts);
        }
        if self.shapes.is_checked(shape) {
            return Ok(());
        }
        if !self.tree.is_configured(&shape.queue) {
            return Err(Refused::UnknownQueue { queue: shape.queue.clone() });
        }
        self.admit_tasks(shape)
    }

    pub(super) fn admit_tasks(&self, shape: &Shape) -> Result<(), Refused> {
        if shape.tasks.is_empty() {
            return Err(Refused::NoTasks);
        }
        let asked = shape.task_count();
        if asked > TASK_LIMIT || shape.tasks.len() as u64 > TASK_LIMIT {
            return Err(Refused::TooManyTasks { asked: asked.max(shape.tasks.len() as u64) });
        }
        if u64::from(shape.min_available) > asked {
            return Err(Refused::MinAvailable { got: shape.min_available, tasks: asked });
        }
        let mut names = HashSet::<&Name, Build>::default();
        for group in &shape.tasks {
            if group.replicas == 0 {
                return Err(Refused::NoReplicas { task: group.name.clone() });
            }
            if !names.insert(&group.name) {
                return Err(Refused::DuplicateTask { task: group.name.clone() });
            }
        }
        for resource in Resource::ALL {
            let has = self.nodes.whole().iter().map(|room| room.of(resource));
            let largest = has.clone().max().unwrap_or(0);
            let mut sum = 0_u128;
            for group in &shape.tasks {
                let each = group.request.of(resource);
                if each > largest {
                    return Err(Refused::TaskTooLarge { task: group.name.clone(), resource, asked: each, largest });
                }
                sum += u128::from(each) * u128::from(group.replicas);
            }
            let total = has.map(u128::from).sum();
            if sum > total && shape.least_tasks() == asked {
                return Err(Refused::JobTooLarge { resource, asked: sum, total });
            }
        }
        let demand = Demand::of(shape);
        if let Some((resource, limit, whose)) = self.tree.over_limit(&shape.queue, &demand.total) {
            return Err(Refused::OverLimit { resource, asked: demand.total[resource as usize], limit, whose });
        }
        pack(&demand, self.nodes.whole()).map(|_| ()).map_err(|misfit| {
            let group = &shape.tasks[usize::from(misfit.group)];
            Refused::NoFit { task: group.name.clone(), asked: group.replicas, possible: misfit.possible }
        })
    }
}
