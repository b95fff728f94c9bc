//! Whether a job could ever run here: what never could is refused when it comes, with what there is.

use std::collections::BTreeSet;

use hashbrown::HashSet;

use crate::amounts::{GPU_MILLIS, GpuShare, MemoryBytes};
use crate::hash::Build;
use crate::ids::Name;
use crate::intern::Found;
use crate::job::{Policy, Shape, TaskGroup};
use crate::scheduler::Scheduler;
use crate::scheduler::config::{GpuKind, PRIORITY_LIMIT, Resource, TASK_LIMIT};
use crate::scheduler::place::Rooms;
use crate::scheduler::place::filter::{Filter, Lane};
use crate::scheduler::refused::{Refused, SHOWN};
use crate::scheduler::table::ShapeIx;

impl Scheduler {
    /// Whether a job like this would be accepted. Changes nothing.
    ///
    /// # Errors
    /// See [`Refused`]; a request that could never run on the configured nodes is refused with what they have.
    pub fn admit(&self, shape: &Shape, policy: &Policy) -> Result<(), Refused> {
        self.admit_found(shape, policy, self.shapes.find(shape))
    }

    /// The same for a shape that was looked up.
    pub(super) fn admit_found(&self, shape: &Shape, policy: &Policy, found: Found<ShapeIx>) -> Result<(), Refused> {
        if !(-PRIORITY_LIMIT..=PRIORITY_LIMIT).contains(&policy.priority) {
            return Err(Refused::Priority { got: policy.priority });
        }
        if policy.max_attempts == 0 {
            return Err(Refused::NoAttempts);
        }
        if self.shapes.is_checked(found) {
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
            if let Some(detail) = bad_share(group) {
                return Err(Refused::BadShare { task: group.name.clone(), detail });
            }
            self.admit_named(group, &shape.tasks)?;
            if !names.insert(&group.name) {
                return Err(Refused::DuplicateTask { task: group.name.clone() });
            }
        }
        let trial = self.nodes.trial(shape);
        let demand = &trial.demand;
        for (index, group) in shape.tasks.iter().enumerate() {
            self.admit_group(group, trial.filters().get(demand.group(index as u16).filter), trial.whole())?;
        }
        let misfit = trial.pack_whole().err();
        for resource in Resource::ALL {
            let of = instances(shape).filter(|_| resource == Resource::Gpu);
            let asked = demand.total[resource as usize];
            let total = of.map_or_else(|| self.nodes.capacity()[resource as usize], |of| self.of_profile(of, trial.whole()));
            if let Some(misfit) = misfit.filter(|_| asked > total && demand.least == demand.tasks) {
                let (task, possible) = (shape.tasks[usize::from(misfit.group)].name.clone(), misfit.possible);
                let Some(of) = of.cloned() else {
                    return Err(Refused::JobTooLarge { resource, asked, total, task, possible });
                };
                let [asked, total] = [asked, total].map(|millis| millis / u128::from(GPU_MILLIS));
                return Err(Refused::TooFewInstancesInAll { task, of, asked, total, possible });
            }
        }
        if let Some((resource, limit, whose)) = self.tree.over_limit(&shape.queue, &demand.total) {
            return Err(Refused::OverLimit { resource, asked: demand.total[resource as usize], limit, whose });
        }
        misfit.map_or(Ok(()), |misfit| {
            let group = &shape.tasks[usize::from(misfit.group)];
            Err(Refused::NoFit { task: group.name.clone(), asked: group.replicas, possible: misfit.possible })
        })
    }

    /// Whether there is a node on which a task of this group may go, and one that has enough of each resource.
    fn admit_group(&self, group: &TaskGroup, filter: &Filter, whole: &Rooms) -> Result<(), Refused> {
        let mut largest = [0; Resource::ALL.len()];
        let mut any = false;
        for (room, fit) in whole.iter().zip(filter.fits()) {
            let Some(mask) = *fit else { continue };
            any = true;
            for (largest, has) in
                largest.iter_mut().zip([room.cpu, room.memory, u64::from(room.gpus.of(mask)) * u64::from(GPU_MILLIS)])
            {
                *largest = has.max(*largest);
            }
        }
        if !any {
            if let Some(refused) = self.unsatisfiable(group) {
                return Err(refused);
            }
            // Nothing keeps it from the nodes but that none has a GPU: of all else they have what they have.
            for room in whole.iter() {
                largest = [largest[0].max(room.cpu), largest[1].max(room.memory), 0];
            }
        }
        for (resource, largest) in Resource::ALL.into_iter().zip(largest) {
            let part = group.constraints.gpu_share.filter(|_| resource == Resource::Gpu);
            let asked = part.map_or(group.request.of(resource), |part| part.millis.into());
            if asked > largest {
                if let (Resource::Gpu, Some(of)) = (resource, &group.constraints.mig_profile) {
                    let [asked, largest] = [asked, largest].map(|millis| millis / u64::from(GPU_MILLIS));
                    return Err(Refused::TooFewInstances { task: group.name.clone(), of: of.clone(), asked, largest });
                }
                return Err(Refused::TaskTooLarge { task: group.name.clone(), resource, asked, largest });
            }
        }
        Ok(())
    }

    /// MIG instances of a profile on all nodes, in thousandths of GPUs.
    fn of_profile(&self, of: &Name, whole: &Rooms) -> u128 {
        let is_one = |lane: &Lane| matches!(&lane.kind, GpuKind::Mig { profile } if profile == of);
        let have = whole.iter().zip(self.nodes.all()).map(|(room, node)| {
            let lanes = node.traits.lanes.iter().enumerate().filter(|(_, lane)| is_one(lane));
            u128::from(room.gpus.of(lanes.fold(0, |mask, (at, _)| mask | 1 << at)))
        });
        have.sum::<u128>() * u128::from(GPU_MILLIS)
    }

    /// The first constraint of a group that no node satisfies, with what there is. Nothing where there are no nodes at all, or none with
    /// GPUs: that is said in amounts.
    fn unsatisfiable(&self, group: &TaskGroup) -> Option<Refused> {
        let nodes = || self.nodes.all().iter().filter(|node| node.configured).map(|node| &node.traits);
        let (task, asked) = (|| group.name.clone(), &group.constraints);
        for selector in &asked.nodes {
            if !nodes().any(|node| selector.accepts(&node.labels)) {
                let there = some(nodes().filter_map(|node| node.labels.get(selector.label()?)));
                return Some(Refused::NoNode { task: task(), selector: selector.clone(), there });
            }
        }
        if let Some((uuid, device)) = asked.gpu_uuids.first().and_then(|uuid| Some((uuid, self.nodes.configured_device(uuid)?))) {
            let node = &self.nodes.all()[device.node];
            // Each of them is there and as it is asked for: where its node is as well, what it lacks is a lane.
            let is_asked = asked.nodes.iter().all(|selector| selector.accepts(&node.traits.labels));
            let (uuid, node) = (uuid.clone(), node.name.clone());
            return is_asked
                .then(|| Refused::NamedApart { task: task(), uuid, node })
                .or_else(|| Some(Refused::NoNodeForAll { task: task() }));
        }
        let lanes = || nodes().flat_map(|node| &node.lanes);
        let of_model = |lane: &&Lane| asked.gpu_models.is_empty() || asked.gpu_models.contains(&lane.model);
        if group.request.gpus > 0 {
            if !asked.gpu_models.is_empty() && !lanes().any(|lane| of_model(&lane)) {
                let there = some(lanes().map(|lane| &lane.model));
                return Some(Refused::NoGpuModel { task: task(), asked: asked.gpu_models.clone(), there });
            }
            let largest = lanes().filter(of_model).map(|lane| lane.memory).max();
            if let Some(largest) = largest.filter(|largest| *largest < asked.gpu_memory) {
                return Some(Refused::NoGpuMemory { task: task(), asked: asked.gpu_memory, largest });
            }
            if let Some(share) = asked.gpu_share.filter(|_| asked.gpu_replica) {
                let replica = |lane: &Lane| Some(GpuShare::even(lane.kind.replica()?, lane.memory));
                let there = || lanes().filter(of_model).filter(|lane| lane.memory >= asked.gpu_memory).filter_map(replica);
                if !there().any(|one| one.millis >= share.millis && one.memory >= share.memory) {
                    let largest = there().max_by_key(|one| (one.millis, one.memory));
                    return Some(Refused::NoReplica { task: task(), asked: share, largest });
                }
            }
            let share = asked.gpu_share.filter(|_| !asked.gpu_replica).map_or(MemoryBytes::ZERO, |share| share.memory);
            let whole = |lane: &&Lane| lane.kind == GpuKind::Whole;
            let largest = lanes().filter(of_model).filter(whole).map(|lane| lane.memory).max();
            if let Some(largest) = largest.filter(|largest| *largest < share) {
                return Some(Refused::NoShareMemory { task: task(), asked: share, largest });
            }
            let kind = |lane: &Lane| if let GpuKind::Mig { profile } = &lane.kind { Some(profile.clone()) } else { None };
            let is_there = lanes().any(|lane| lane.kind.replica().is_none() && kind(lane) == asked.mig_profile);
            if !is_there && !asked.gpu_replica && (asked.mig_profile.is_some() || lanes().next().is_some()) {
                let profiles: Vec<Name> = lanes().filter_map(kind).collect();
                return Some(Refused::NoGpuKind { task: task(), asked: asked.mig_profile.clone(), there: some(profiles.iter()) });
            }
        }
        let gpus_are_there = group.request.gpus == 0 || lanes().next().is_some();
        (gpus_are_there && !asked.is_none()).then(|| Refused::NoNodeForAll { task: task() })
    }
}

impl Refused {
    /// The group of tasks for what it asks for, where it is one group's. Of a job that is too large as a whole, the first for which there is
    /// too little.
    pub const fn task(&self) -> Option<&Name> {
        match self {
            Self::NoNode { task, .. }
            | Self::NoGpuModel { task, .. }
            | Self::NoGpuMemory { task, .. }
            | Self::NoGpuKind { task, .. }
            | Self::NoReplica { task, .. }
            | Self::TooFewInstances { task, .. }
            | Self::TooFewInstancesInAll { task, .. }
            | Self::BadGpus { task, .. }
            | Self::NoSuchGpu { task, .. }
            | Self::OtherGpu { task, .. }
            | Self::GpusApart { task, .. }
            | Self::NamedApart { task, .. }
            | Self::BadShare { task, .. }
            | Self::NoShareMemory { task, .. }
            | Self::NoNodeForAll { task }
            | Self::TaskTooLarge { task, .. }
            | Self::JobTooLarge { task, .. } => Some(task),
            Self::UnknownQueue { .. }
            | Self::Duplicate { .. }
            | Self::NoTasks
            | Self::NoReplicas { .. }
            | Self::DuplicateTask { .. }
            | Self::MinAvailable { .. }
            | Self::TooManyTasks { .. }
            | Self::Priority { .. }
            | Self::NoAttempts
            | Self::OverLimit { .. }
            | Self::NoFit { .. } => None,
        }
    }
}

/// The profile of which a job asks for MIG instances, where it asks for no other GPUs.
fn instances(shape: &Shape) -> Option<&Name> {
    let mut profiles =
        shape.tasks.iter().filter(|group| group.request.gpus > 0).map(|group| group.constraints.mig_profile.as_ref());
    let first = profiles.next()?;
    first.filter(|_| profiles.all(|other| other == first))
}

/// What is wrong with the share that tasks ask for.
fn bad_share(group: &TaskGroup) -> Option<&'static str> {
    let Some(share) = group.constraints.gpu_share else {
        return group.constraints.gpu_replica.then_some("a part that device plugins give out has a size");
    };
    if group.request.gpus != 1 {
        return Some("a share is of one GPU");
    }
    if group.constraints.mig_profile.is_some() {
        return Some("MIG instances are not shared");
    }
    (!(1..GPU_MILLIS).contains(&share.millis)).then_some("a share is 1 to 999 thousandths of a GPU")
}

/// Each once and in order, not too many.
fn some<'a>(names: impl Iterator<Item = &'a Name>) -> Vec<Name> {
    let names: BTreeSet<&Name> = names.collect();
    names.into_iter().take(SHOWN).cloned().collect()
}
