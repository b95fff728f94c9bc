//! What was found out about GPUs, as the engine takes it: which there are, which are promised to nobody, and whose runs have to leave.
//!
//! What must hold: a GPU is set aside while anything speaks against it: an administrator, or what was observed. What was observed is not
//! written down; it is known again after each rebuild of the core. The end of a run with GPUs is believed when these have been looked at,
//! so that nobody gets one that is not free yet.

use std::collections::{BTreeMap, BTreeSet};

use executors::Report;
use scheduler_core::amounts::GPU_MILLIS;
use scheduler_core::event::Event;
use scheduler_core::ids::{JobId, Name, RunId, Seq};
use scheduler_core::record::Recorded;
use scheduler_core::scheduler::{GpuDevice, GpuUse, NodeConfig};
use scheduler_core::state::{JobState, Lifecycle};
use scheduler_core::time::Timestamp;
use store::{Notice, RunSample};
use tokio::sync::mpsc;

use super::turn::Turn;
use super::{Engine, lock};
use crate::objects::Directory;

/// What speaks against promising a GPU for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Somebody uses it past the scheduler.
    Foreign,
    /// Something of a job that has ended is still on it.
    LeftBehind,
    /// It is too hot.
    Hot,
    /// It does not answer.
    Lost,
    /// Its driver does not.
    Silent,
    /// It is sick, and about to be drained.
    Sick,
    /// In a cluster: others have it, or its device plugin does not offer it.
    Cluster,
}

impl Cause {
    /// For programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::LeftBehind => "leftBehind",
            Self::Hot => "hot",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Sick => "sick",
            Self::Cluster => "cluster",
        }
    }
}

/// Why a GPU is not promised for now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aside {
    /// For programs.
    pub cause: Cause,
    /// For people.
    pub why: Name,
}

impl Aside {
    /// For this reason.
    pub fn new(cause: Cause, why: impl AsRef<str>) -> Self {
        Self { cause, why: why.as_ref().into() }
    }
}

/// What was found out about the GPUs of this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// All there are.
    pub gpus: Vec<GpuDevice>,
    /// Those that are not to be promised, and why.
    pub aside: BTreeMap<Name, Aside>,
    /// Those whose runs have to leave, and why. Said once for each cause.
    pub evict: BTreeMap<Name, Name>,
    /// Whether a look at them has ended at all.
    pub looked: bool,
}

/// The end of a run that had GPUs.
#[derive(Clone, Debug)]
pub struct GatedEnd {
    /// The end.
    pub report: Report,
    /// The job.
    pub job: JobId,
    /// UUIDs of its GPUs.
    pub gpus: Vec<Name>,
}

/// Brings the core in line with what speaks against each GPU.
pub(super) fn set_aside(core: &mut Recorded, directory: &Directory, observed: &Observed) {
    let against = |uuid: &Name| {
        let drained = directory.gpus.get(uuid).map(|mark| {
            let why = mark.reason.as_deref().unwrap_or("no reason given");
            Name::from(format!("drained by {}: {why}", mark.by))
        });
        drained.or_else(|| observed.aside.get(uuid).map(|aside| aside.why.clone()))
    };
    let gpus = core.nodes().flat_map(|node| node.gpus).filter(|gpu| gpu.configured);
    let changes: Vec<(Name, Option<Name>)> = gpus
        .map(|gpu| (gpu, against(gpu.uuid)))
        .filter(|(gpu, why)| gpu.aside != why.as_ref())
        .map(|(gpu, why)| (gpu.uuid.clone(), why))
        .collect();
    for (uuid, why) in changes {
        if let Some(why) = &why {
            tracing::warn!(%uuid, %why, "GPU is set aside");
        } else {
            tracing::info!(%uuid, "GPU may be promised again");
        }
        if let Err(error) = core.set_gpu_aside(&uuid, why) {
            tracing::error!(%uuid, %error, "setting a GPU aside");
        }
    }
}

impl Engine {
    /// Takes what was found out, without the core.
    pub(super) fn observe(&mut self, mut observed: Observed) {
        observed.evict.clear();
        if let Some(node) = self.parts.seeds.base.nodes.first_mut() {
            node.gpus.clone_from(&observed.gpus);
        }
        self.parts.observed = observed;
    }

    /// Takes what was found out, and has those leave who have to.
    pub(super) fn take_gpus(&mut self, core: &mut Recorded, turn: &mut Turn, observed: Observed, now: Timestamp) {
        let evict = observed.evict.clone();
        self.observe(observed);
        let node: Option<NodeConfig> = self.parts.seeds.base.nodes.first().cloned();
        let listed = |name: &Name| {
            let node = core.nodes().find(|node| node.configured && node.name == name)?;
            let uuids: Vec<Name> = node.gpus.iter().filter(|gpu| gpu.configured).map(|gpu| gpu.uuid.clone()).collect();
            Some(uuids)
        };
        if let Some(node) = node {
            let before = listed(&node.name).unwrap_or_default();
            if self.parts.known_gpus != node.gpus || !before.iter().eq(node.gpus.iter().map(|gpu| &gpu.uuid)) {
                tracing::info!(gpus = node.gpus.len(), before = before.len(), "the GPUs of this machine are others than before");
                self.parts.known_gpus.clone_from(&node.gpus);
                if let Err(error) = core.set_node(node) {
                    tracing::error!(%error, "the GPUs of this machine cannot be used as they are now");
                }
            }
        }
        self.settle_gpus(core);
        let gone: BTreeSet<Name> = evict.keys().cloned().collect();
        let held = |placement: &scheduler_core::state::Placement| {
            placement.slots.iter().flat_map(|slot| &slot.gpus).find(|uuid| gone.contains(*uuid)).cloned()
        };
        let leaving: Vec<(JobId, Name)> =
            core.active().filter_map(|(job, lifecycle)| Some((job, held(lifecycle.state.placement()?)?))).collect();
        for (job, uuid) in leaving {
            let why = evict.get(&uuid).map_or("it is not fit for use", Name::as_str);
            let message = Name::from(format!("GPU {uuid}: {why}"));
            match turn.handle(core, job, Event::Evict { message }, now) {
                Ok(()) => tracing::warn!(%job, %uuid, why, "the run leaves its GPU"),
                Err(rejected) => tracing::debug!(%job, %rejected, "it ends anyhow"),
            }
        }
    }

    /// After what speaks against GPUs has changed.
    pub(super) fn settle_gpus(&mut self, core: &mut Recorded) {
        self.teller.touch();
        set_aside(core, &self.directory, &self.parts.observed);
    }

    /// Hands the end of a run with GPUs to who looks at these; gives back whatever is to be believed at once.
    pub(super) fn gate(&self, core: &Recorded, report: Report) -> Option<Report> {
        let Some(gate) = &self.parts.gate else { return Some(report) };
        let Report::Ended { run, .. } = &report else { return Some(report) };
        let view = core.view(run.job).filter(|view| view.lifecycle.attempt == run.attempt);
        let placement = view.and_then(|view| view.lifecycle.state.placement());
        let gpus: Vec<Name> =
            placement.iter().flat_map(|placed| &placed.slots).flat_map(|slot| slot.gpus.iter().cloned()).collect();
        if gpus.is_empty() {
            return Some(report);
        }
        let end = GatedEnd { job: run.job, report, gpus };
        match gate.try_send(end) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(end) | mpsc::error::TrySendError::Closed(end)) => Some(end.report),
        }
    }
}

/// Who looks at GPUs, as it talks to the engine.
#[derive(Clone, Debug)]
pub struct GpuCommands(pub(super) mpsc::Sender<super::Command>);

impl GpuCommands {
    /// What was found out. False when the engine is gone.
    pub async fn observed(&self, observed: Observed) -> bool {
        self.0.send(super::Command::Gpus(Box::new(observed))).await.is_ok()
    }

    /// An end that can be believed now. False when the engine is gone.
    pub async fn checked(&self, report: Report) -> bool {
        self.0.send(super::Command::Checked(report)).await.is_ok()
    }

    /// What happened to GPUs and leaves no trace in how they stand. False when the engine is gone.
    pub async fn told(&self, notices: Vec<Notice>) -> bool {
        self.0.send(super::Command::Notices(notices)).await.is_ok()
    }

    /// What was seen of runs. False when the engine is gone.
    pub async fn sampled(&self, samples: Vec<RunSample>) -> bool {
        self.0.send(super::Command::Samples(samples)).await.is_ok()
    }

    /// A run leaves its GPUs idle: its user is warned, or it is stopped. False when the engine is gone.
    pub async fn idle(&self, run: RunId, stop: bool, message: Name) -> bool {
        self.0.send(super::Command::Idle { run, stop, message }).await.is_ok()
    }

    /// A GPU is to be drained, and stay so until somebody resumes it.
    pub async fn drain(&self, uuid: Name, order: crate::objects::nodes::Order) -> bool {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let change = crate::objects::edit::Change::Gpu(uuid, order);
        if self.0.send(super::Command::Change { change, reply }).await.is_err() {
            return false;
        }
        match answer.await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "draining a sick GPU");
                false
            }
            Err(_) => false,
        }
    }
}

/// A run that has GPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GpuRun {
    /// The run.
    pub run: RunId,
    /// Its job's place in the order of submission.
    pub seq: Seq,
    /// Where its job waited.
    pub queue: Name,
    /// When its tasks started; `None` where they have not, or while it is being ended.
    pub since: Option<Timestamp>,
    /// When the last of its tasks ended, where that is known already.
    pub until: Option<Timestamp>,
    /// UUIDs of its GPUs, and how much it has of each, in thousandths.
    pub gpus: BTreeMap<Name, u32>,
}

/// All runs that have GPUs.
pub fn runs(core: &super::SharedCore) -> Vec<GpuRun> {
    let core = lock(core);
    let run = |(job, lifecycle): (JobId, &Lifecycle)| {
        let slots = &lifecycle.state.placement()?.slots;
        let mut gpus: BTreeMap<Name, u32> = BTreeMap::new();
        for (slot, uuid) in slots.iter().flat_map(|slot| slot.gpus.iter().map(move |uuid| (slot, uuid))) {
            let has = gpus.entry(uuid.clone()).or_default();
            *has = has.saturating_add(slot.share.map_or(GPU_MILLIS, |share| share.millis)).min(GPU_MILLIS);
        }
        if gpus.is_empty() {
            return None;
        }
        let view = core.view(job)?;
        let since = if let JobState::Running { since, .. } = &lifecycle.state { Some(*since) } else { None };
        let run = super::run_of(job, lifecycle);
        Some(GpuRun { run, seq: view.seq, queue: view.shape.queue.clone(), since, until: None, gpus })
    };
    core.active().filter_map(run).collect()
}

impl Turn {
    /// A run leaves its GPUs idle. One that has ended meanwhile does not any more.
    pub(super) fn idle(&mut self, core: &mut Recorded, run: RunId, stop: bool, message: Name, now: Timestamp) {
        if core.view(run.job).is_none_or(|view| view.lifecycle.attempt != run.attempt) {
            return;
        }
        let why = message.clone();
        let event = if stop { Event::Idle { message } } else { Event::Warn { message } };
        match self.handle(core, run.job, event, now) {
            Ok(()) => tracing::warn!(%run, stop, %why, "a job leaves its GPUs idle"),
            Err(rejected) => tracing::debug!(%run, %rejected, "it ends anyhow"),
        }
    }
}

/// Which jobs have each GPU now: one all of it, or several parts.
pub fn holders(core: &super::SharedCore) -> BTreeMap<Name, Vec<JobId>> {
    let core = lock(core);
    let of = |gpu: &GpuUse<'_>| gpu.job.into_iter().chain(core.gpu_sharers(gpu.uuid).map(|(job, _)| job)).collect::<Vec<_>>();
    let all = core.nodes().flat_map(|node| node.gpus).map(|gpu| (gpu.uuid.clone(), of(&gpu)));
    all.filter(|(_, jobs)| !jobs.is_empty()).collect()
}
