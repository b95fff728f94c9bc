//! GPUs that jobs ask for by UUID: whether such a job could ever have them, and who has them now.

use crate::amounts::GPU_MILLIS;
use crate::ids::Name;
use crate::job::{Shape, TaskGroup};
use crate::scheduler::Scheduler;
use crate::scheduler::config::GpuKind;
use crate::scheduler::explain::{NAMED, TakenGpu};
use crate::scheduler::nodes::Device;
use crate::scheduler::refused::{Refused, SHOWN};
use crate::scheduler::table::JobIx;

impl Scheduler {
    /// Whether the GPUs that tasks of a group name are there, on one node, and what else is asked of them; `all` are the groups of the job.
    pub(super) fn admit_named(&self, group: &TaskGroup, all: &[TaskGroup]) -> Result<(), Refused> {
        let uuids = &group.constraints.gpu_uuids;
        if uuids.is_empty() {
            return Ok(());
        }
        if let Some(detail) = bad_names(group, all) {
            return Err(Refused::BadGpus { task: group.name.clone(), detail });
        }
        let mut first: Option<(&Name, usize)> = None;
        for uuid in uuids {
            let device = self.nodes.configured_device(uuid).ok_or_else(|| self.no_such_gpu(group, uuid))?;
            if let Some(detail) = unlike(device, group) {
                return Err(Refused::OtherGpu { task: group.name.clone(), uuid: uuid.clone(), detail });
            }
            let (other, node) = *first.get_or_insert((uuid, device.node));
            if node != device.node {
                let name = |node: usize| self.nodes.all()[node].name.clone();
                let gpus = [(other.clone(), name(node)), (uuid.clone(), name(device.node))];
                return Err(Refused::GpusApart { task: group.name.clone(), gpus: gpus.into() });
            }
        }
        Ok(())
    }

    /// Of the GPUs that jobs of a shape name those that cannot be had now, [`NAMED`] at most, and how many more.
    pub(super) fn taken(&self, shape: &Shape) -> (Vec<TakenGpu>, usize) {
        let named = shape.tasks.iter().flat_map(|group| group.constraints.gpu_uuids.iter().map(move |uuid| (group, uuid)));
        let mut taken = named.filter_map(|(group, uuid)| {
            let device = self.nodes.configured_device(uuid)?;
            let (millis, memory) = device.shared();
            let has_room = group.constraints.gpu_share.is_some_and(|share| {
                let (total, used) = (device.config.memory, memory);
                device.owner.is_none()
                    && millis + share.millis <= GPU_MILLIS
                    && used.saturating_add(share.memory_of(total).0) <= total.0
            });
            if device.is_offered() && (device.is_free() || has_room) {
                return None;
            }
            let mut jobs: Vec<JobIx> = device.owner.into_iter().chain(device.sharers.iter().map(|sharer| sharer.job)).collect();
            jobs.dedup();
            let more = jobs.len().saturating_sub(NAMED);
            Some(TakenGpu {
                uuid: uuid.clone(),
                node: self.nodes.all()[device.node].name.clone(),
                by: jobs.into_iter().take(NAMED).map(|job| self.job_ref(job)).collect(),
                more,
                aside: device.aside.clone(),
            })
        });
        let first: Vec<TakenGpu> = taken.by_ref().take(NAMED).collect();
        (first, taken.count())
    }

    /// There is no GPU of this name: says which there are.
    fn no_such_gpu(&self, group: &TaskGroup, uuid: &Name) -> Refused {
        let mut there: Vec<&Name> =
            self.nodes.devices().filter(|device| device.configured).map(|device| &device.config.uuid).collect();
        there.sort_unstable();
        let more = there.len().saturating_sub(SHOWN);
        let there = there.into_iter().take(SHOWN).cloned().collect();
        Refused::NoSuchGpu { task: group.name.clone(), uuid: uuid.clone(), there, more }
    }
}

/// What is wrong with the names themselves.
fn bad_names(group: &TaskGroup, all: &[TaskGroup]) -> Option<String> {
    let (uuids, count) = (&group.constraints.gpu_uuids, group.request.gpus);
    let part = |group: &TaskGroup| group.constraints.gpu_share.map_or(GPU_MILLIS, |share| share.millis);
    if count as usize != uuids.len() {
        return Some(format!("it names {} GPUs and asks for {count}", uuids.len()));
    }
    if let Some(uuid) = uuids.iter().enumerate().find_map(|(at, uuid)| uuids[..at].contains(uuid).then_some(uuid)) {
        return Some(format!("it names GPU {uuid} twice"));
    }
    uuids.iter().find_map(|uuid| {
        let asked = all.iter().filter(|other| other.constraints.gpu_uuids.contains(uuid));
        let sum: u64 = asked.map(|other| u64::from(part(other)) * u64::from(other.replicas)).sum();
        let whole = u64::from(GPU_MILLIS);
        (sum > whole).then(|| {
            let asked = if sum.is_multiple_of(whole) { (sum / whole).to_string() } else { format!("{sum}m") };
            format!("the tasks of the job that name GPU {uuid} ask for {asked} of it together, there is one")
        })
    })
}

/// In what a GPU differs from what else is asked of it.
fn unlike(device: &Device, group: &TaskGroup) -> Option<String> {
    let (asked, gpu) = (&group.constraints, &device.config);
    let profile = if let GpuKind::Mig { profile } = &gpu.kind { Some(profile) } else { None };
    if !asked.gpu_models.is_empty() && !asked.gpu_models.contains(&gpu.model) {
        let models: Vec<&str> = asked.gpu_models.iter().map(Name::as_str).collect();
        return Some(format!("it is of the model {}, not of ({})", gpu.model, models.join(", ")));
    }
    let least = asked.gpu_share.map_or(asked.gpu_memory, |share| asked.gpu_memory.max(share.memory));
    if gpu.memory < least {
        return Some(format!("it has {} bytes of memory, {least} are asked for", gpu.memory));
    }
    match (profile, &asked.mig_profile) {
        (Some(profile), _) if asked.gpu_share.is_some() => {
            Some(format!("it is a MIG instance (profile {profile}): those are not shared"))
        }
        (Some(profile), Some(asked)) if profile != asked => Some(format!("it is of the MIG profile {profile}, not {asked}")),
        (None, Some(asked)) => Some(format!("it is a whole GPU, not a MIG instance of the profile {asked}")),
        _ => None,
    }
}
