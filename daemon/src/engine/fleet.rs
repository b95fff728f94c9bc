//! The machines of a cluster, brought into the core: those that come, change, take no tasks for now, are lost, and go.
//!
//! What must hold:
//! - Nothing is planned while the cluster does not answer: what it had may be gone, and no order would reach it.
//! - What pods ask of a node that are no runs of ours (any more) is not offered. GPUs have no names in a cluster, so as many as they ask for
//!   are set aside, first of those that nobody has; whole ones, MIG instances of each profile and parts of GPUs by themselves.
//! - A node that is lost ends the runs that were nowhere else; those that are elsewhere too are told to leave. They are tried again as
//!   their policies say.
//! - The core is brought in line by comparing, never by replaying news: whatever it was rebuilt from, one pass settles it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use executors::kubernetes::lease::LeaseState;
use executors::kubernetes::nodes::{ClusterNode, ClusterView, GpuCounts, GpuResource, NodeAmounts, Standing};
use scheduler_core::event::Event;
use scheduler_core::ids::{JobId, Name, RunId};
use scheduler_core::record::Recorded;
use scheduler_core::scheduler::{GpuUse, NodeConfig, NodeState, Refused};
use scheduler_core::time::Timestamp;
use tokio::sync::watch;

use super::gpus::{Aside, Cause};
use super::turn::Turn;
use crate::cluster::{ClusterState, counted_as, offer};
use crate::objects::Directory;

/// What the core was told of a node.
struct Given {
    node: Arc<ClusterNode>,
    config: NodeConfig,
    /// `None`: whatever it has, it was not told by us.
    state: Option<NodeState>,
    /// What pods of runs ask that have no place any more.
    strays: NodeAmounts,
}

/// The machines of a cluster, and what the core was told of them.
pub(super) struct Fleet {
    cluster: ClusterState,
    leases: watch::Receiver<LeaseState>,
    given: BTreeMap<Name, Given>,
    stale: bool,
}

/// What settling has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// GPUs that are not to be promised, and why; `None` where that is as it was.
    pub(super) aside: Option<BTreeMap<Name, Aside>>,
    /// Runs that were lost with their nodes.
    pub(super) lost: usize,
}

/// Whether a job is refused for what the nodes have, and not for what it says itself.
pub(super) const fn is_of_nodes(refused: &Refused) -> bool {
    !matches!(
        refused,
        Refused::UnknownQueue { .. }
            | Refused::Duplicate { .. }
            | Refused::NoTasks
            | Refused::NoReplicas { .. }
            | Refused::DuplicateTask { .. }
            | Refused::MinAvailable { .. }
            | Refused::TooManyTasks { .. }
            | Refused::Priority { .. }
            | Refused::NoAttempts
    )
}

impl Fleet {
    pub(super) fn new(cluster: ClusterState) -> Self {
        Self { leases: cluster.leases(), cluster, given: BTreeMap::new(), stale: true }
    }

    /// Waits for news of the cluster.
    pub(super) async fn changed(fleet: &mut Option<Self>) {
        let alive = match fleet {
            Some(fleet) => fleet.cluster.changed(&mut fleet.leases).await,
            None => false,
        };
        if !alive {
            std::future::pending::<()>().await;
        }
        if let Some(fleet) = fleet {
            fleet.stale = true;
        }
    }

    /// Why nothing may be planned, if nothing may.
    pub(super) fn silence(&self) -> Option<String> {
        self.cluster.silence()
    }

    /// Why it is not known what there is for jobs, as long as the core was never told.
    pub(super) fn unknown(&self) -> Option<String> {
        let told = !self.given.is_empty() || (!self.stale && self.cluster.view().listed);
        let being_read = || "the cluster's nodes are being read".to_owned();
        (!told).then(|| self.cluster.unseen().unwrap_or_else(being_read))
    }

    /// Whether the core is in line with what was seen of the cluster.
    pub(super) const fn is_settled(&self) -> bool {
        !self.stale
    }

    /// Why the cluster keeps tasks from a node, where it does.
    pub(super) fn reason_of(&self, name: &Name) -> Option<&str> {
        self.given.get(name).and_then(|given| reason(&given.node.standing))
    }

    /// Somebody else has told the core of this node.
    pub(super) fn forget_state(&mut self, name: &Name) {
        if let Some(given) = self.given.get_mut(name) {
            given.state = None;
        }
        self.stale = true;
    }

    /// The core is a new one, made from [`Self::configs`].
    pub(super) fn forget_all(&mut self) {
        self.given.values_mut().for_each(|given| given.state = None);
        self.stale = true;
    }

    pub(super) fn configs(&self) -> Vec<NodeConfig> {
        self.given.values().map(|given| given.config.clone()).collect()
    }

    /// Brings the core in line with the cluster and with what administrators say.
    pub(super) fn settle(&mut self, core: &mut Recorded, directory: &Directory, turn: &mut Turn, now: Timestamp) -> Settled {
        let view = self.cluster.view();
        let strays = self.given.values().any(|given| given.strays != NodeAmounts::default());
        // GPUs that had to be set aside while somebody had them are exchanged for free ones when there are some.
        let crowded = core_is_crowded(&self.given);
        if self.cluster.unseen().is_some() || !(self.stale || strays || crowded) {
            return Settled::default();
        }
        self.stale = false;
        self.configure(core, &view);
        let mut settled = Settled { lost: self.set_states(core, &view, directory, turn, now), aside: None };
        self.remove(core, &view);
        settled.aside = Some(self.aside(core, directory));
        settled
    }

    /// Enters what has come, changes what has changed.
    fn configure(&mut self, core: &mut Recorded, view: &ClusterView) {
        for (name, node) in &view.nodes {
            let name = Name::from(name.as_str());
            let given = self.given.get(&name);
            let is_same = given.is_some_and(|given| Arc::ptr_eq(&given.node, node));
            if is_same && node.ours.is_empty() {
                continue;
            }
            let strays = strays(core, node);
            if is_same && given.is_some_and(|given| given.strays == strays) {
                continue;
            }
            let config = match (given, &node.standing) {
                // Nothing is known of one that was deleted, and what was known is what its runs hold.
                (Some(given), Standing::Lost(_)) => given.config.clone(),
                _ => offer(node, &node.others.clone().plus(&strays)),
            };
            let state = given.and_then(|given| given.state);
            let is_told = given.is_some_and(|given| given.config == config);
            if !is_told && let Err(error) = core.set_node(config.clone()) {
                tracing::error!(node = %name, %error, "the node cannot be used as it is now");
                continue;
            }
            if given.is_none() {
                let (cpu, memory) = (node.allocatable.cpu_millis, node.allocatable.memory_bytes);
                tracing::debug!(node = %name, cpu_millis = cpu, memory_bytes = memory, gpus = config.gpus.len(), "node");
            }
            self.given.insert(name, Given { node: Arc::clone(node), config, state, strays });
        }
    }

    /// Says what may be done with each node. How many runs were lost by it.
    fn set_states(
        &mut self,
        core: &mut Recorded,
        view: &ClusterView,
        directory: &Directory,
        turn: &mut Turn,
        now: Timestamp,
    ) -> usize {
        let mut lost = 0;
        for (name, given) in &mut self.given {
            let standing = view.nodes.get(name.as_str()).map(|node| &node.standing);
            let mark = directory.nodes.get(name).map_or(NodeState::Ready, |mark| mark.state.state());
            let wanted = standing.map_or(NodeState::Lost, state_of).max(mark);
            if given.state == Some(wanted) {
                continue;
            }
            match lose(core, turn, name, wanted, now) {
                Ok(runs) => {
                    lost += runs;
                    if wanted == NodeState::Lost || given.state == Some(NodeState::Lost) {
                        let why = standing.and_then(reason).unwrap_or("it is not there any more, or is back");
                        tracing::warn!(node = %name, state = wanted.as_str(), runs, why, "node");
                    }
                    given.state = Some(wanted);
                }
                Err(error) => tracing::error!(node = %name, %error, "saying what may be done with a node"),
            }
        }
        lost
    }

    /// Takes out what is not there any more; it was lost before.
    fn remove(&mut self, core: &mut Recorded, view: &ClusterView) {
        self.given.retain(|name, _| {
            if view.nodes.contains_key(name.as_str()) {
                return true;
            }
            if let Err(error) = core.remove_node(name) {
                tracing::error!(node = %name, %error, "taking out a node");
            }
            tracing::info!(node = %name, "the node is gone");
            false
        });
    }

    /// As many GPUs as others ask for: first those that are set aside already, then those that nobody has.
    fn aside(&self, core: &Recorded, directory: &Directory) -> BTreeMap<Name, Aside> {
        let mut aside = BTreeMap::new();
        if !self.given.values().any(some_taken) {
            return aside;
        }
        for node in core.nodes() {
            let Some(given) = self.given.get(node.name).filter(|given| some_taken(given)) else { continue };
            for (resource, count) in taken(given).each() {
                let is_one = |gpu: &&GpuUse<'_>| {
                    gpu.configured && counted_as(gpu.kind) == *resource && !directory.gpus.contains_key(gpu.uuid)
                };
                let mut gpus: Vec<_> = node.gpus.iter().filter(is_one).collect();
                // The last first, so that those in front are the ones that are promised.
                gpus.reverse();
                gpus.sort_by_key(|gpu| (gpu.job.is_some() || gpu.sharers > 0, gpu.aside.is_none()));
                let why = Aside::new(Cause::Cluster, why_taken(given, resource));
                aside.extend(gpus.into_iter().take(count as usize).map(|gpu| (gpu.uuid.clone(), why.clone())));
            }
        }
        aside
    }
}

/// Whether some GPUs may have to be exchanged.
fn core_is_crowded(given: &BTreeMap<Name, Given>) -> bool {
    given.values().filter(|given| some_taken(given)).any(|given| {
        let node = &given.node;
        let held = |resource: &GpuResource| node.ours.values().map(|asks| asks.gpus.of(resource)).fold(0, u32::saturating_add);
        let all = |resource: &GpuResource| node.allocatable.gpus.of(resource).saturating_add(node.sick_gpus.of(resource));
        taken(given).each().any(|(resource, taken)| taken.saturating_add(held(resource)) > all(resource))
    })
}

/// Whether some GPUs of a node are not for our runs. Asked for each node in each turn: most have none.
fn some_taken(given: &Given) -> bool {
    !(given.node.others.gpus.is_empty() && given.strays.gpus.is_empty() && given.node.sick_gpus.is_empty())
}

/// GPUs of a node that are not for our runs.
fn taken(given: &Given) -> GpuCounts {
    given.node.others.gpus.clone().plus(&given.strays.gpus).plus(&given.node.sick_gpus)
}

fn why_taken(given: &Given, resource: &GpuResource) -> String {
    let node = &given.node;
    let mut parts = Vec::new();
    let [others, strays, sick] = [&node.others.gpus, &given.strays.gpus, &node.sick_gpus].map(|counts| counts.of(resource));
    if others > 0 {
        let pods = node.others_with_gpus.get(resource).map(|pods| pods.join(", ")).unwrap_or_default();
        parts.push(format!("{others} in use by pods of others ({pods})"));
    }
    if strays > 0 {
        parts.push(format!("{strays} still held by runs that were given up"));
    }
    if sick > 0 {
        parts.push(format!("{sick} not allocatable: its device plugin says that they are not healthy"));
    }
    let which = if *resource == GpuResource::Whole { String::new() } else { format!("the {resource} of ") };
    format!("of {which}node {}: {}", node.name, parts.join(", "))
}

/// What runs of ours ask of a node that have no place any more.
fn strays(core: &Recorded, node: &ClusterNode) -> NodeAmounts {
    let is_active = |run: &RunId| {
        let view = core.view(run.job).filter(|view| view.lifecycle.attempt == run.attempt);
        view.is_some_and(|view| view.lifecycle.state.placement().is_some())
    };
    let asked = node.ours.iter().filter(|(run, _)| !is_active(run));
    asked.fold(NodeAmounts::default(), |sum, (_, asks)| sum.plus(asks))
}

const fn state_of(standing: &Standing) -> NodeState {
    match standing {
        Standing::Open => NodeState::Ready,
        Standing::Closed(_) => NodeState::Cordoned,
        Standing::Cordoned(_) => NodeState::Draining,
        Standing::Lost(_) => NodeState::Lost,
    }
}

/// Why a node is not open.
pub(super) fn reason(standing: &Standing) -> Option<&str> {
    match standing {
        Standing::Open => None,
        Standing::Closed(why) | Standing::Cordoned(why) | Standing::Lost(why) => Some(why),
    }
}

/// Says what may be done with a node, and takes what becomes of its runs into the turn. How many were lost.
pub(super) fn lose(
    core: &mut Recorded,
    turn: &mut Turn,
    name: &Name,
    state: NodeState,
    now: Timestamp,
) -> Result<usize, scheduler_core::scheduler::ChangeError> {
    // Whoever has failed for good is not known to the core afterwards.
    let mut namespaces: BTreeMap<JobId, Name> = BTreeMap::new();
    if state == NodeState::Lost {
        let here: BTreeSet<JobId> = core
            .active()
            .filter(|(_, lifecycle)| {
                lifecycle.state.placement().is_some_and(|placed| placed.slots.iter().any(|slot| slot.node == *name))
            })
            .map(|(job, _)| job)
            .collect();
        namespaces.extend(here.into_iter().filter_map(|job| Some((job, core.view(job)?.shape.namespace.clone()))));
    }
    let lost = core.set_node_state(name, state, now)?;
    let runs = lost.ended.len() + lost.elsewhere.len();
    for transition in lost.ended {
        let namespace = namespaces.remove(&transition.job).unwrap_or_else(|| Name::from(""));
        turn.change(namespace, transition);
    }
    for run in lost.elsewhere {
        let message = Name::from(format!("node {name} was lost, where a part of it ran"));
        if let Err(rejected) = turn.handle(core, run.job, Event::Evict { message }, now) {
            tracing::debug!(%run, %rejected, "it ends anyhow");
        }
    }
    Ok(runs)
}
