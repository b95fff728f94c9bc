//! What is there of our runs in the cluster, from a list or from a watch.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use scheduler_core::ids::RunId;
use tokio::sync::watch;

use super::manifest::run_of;
use super::nodes::{ClusterView, Standing};
use super::phase::{is_over, of_job};
use crate::contract::{Observed, RunPhase};

/// What is known of the cluster's nodes.
pub(super) type NodeViews = watch::Receiver<Arc<ClusterView>>;

/// Jobs and pods by run. Pods have unique names within a run.
#[derive(Debug, Default)]
pub(super) struct World {
    jobs: BTreeMap<RunId, Job>,
    pods: BTreeMap<RunId, BTreeMap<String, Pod>>,
    nodes: Option<NodeViews>,
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

impl World {
    pub(super) fn with_nodes(nodes: Option<NodeViews>) -> Self {
        Self { nodes, ..Self::default() }
    }

    pub(super) fn from_lists(jobs: Vec<Job>, pods: Vec<Pod>, nodes: Option<NodeViews>) -> Self {
        let mut world = Self::with_nodes(nodes);
        world.set_jobs(jobs);
        world.set_pods(pods);
        world
    }

    /// All Jobs there are. Gives the runs whose Job is gone.
    pub(super) fn set_jobs(&mut self, jobs: Vec<Job>) -> Vec<RunId> {
        let jobs = jobs.into_iter().filter_map(|job| Some((run_of(&job.metadata)?, job))).collect();
        let before = std::mem::replace(&mut self.jobs, jobs);
        before.into_keys().filter(|run| !self.jobs.contains_key(run)).collect()
    }

    /// All pods there are.
    pub(super) fn set_pods(&mut self, pods: Vec<Pod>) {
        self.pods.clear();
        for pod in pods {
            self.put_pod(pod);
        }
    }

    pub(super) fn put_job(&mut self, job: Job) -> Option<RunId> {
        let run = run_of(&job.metadata)?;
        self.jobs.insert(run, job);
        Some(run)
    }

    pub(super) fn drop_job(&mut self, job: &Job) -> Option<RunId> {
        let run = run_of(&job.metadata)?;
        self.jobs.remove(&run).map(|_| run)
    }

    pub(super) fn put_pod(&mut self, pod: Pod) -> Option<RunId> {
        let run = run_of(&pod.metadata)?;
        self.pods.entry(run).or_default().insert(name(&pod), pod);
        Some(run)
    }

    pub(super) fn drop_pod(&mut self, pod: &Pod) -> Option<RunId> {
        let run = run_of(&pod.metadata)?;
        let pods = self.pods.get_mut(&run)?;
        pods.remove(&name(pod));
        if pods.is_empty() {
            self.pods.remove(&run);
        }
        Some(run)
    }

    pub(super) fn job(&self, run: RunId) -> Option<&Job> {
        self.jobs.get(&run)
    }

    pub(super) fn runs(&self) -> Vec<RunId> {
        let mut runs: Vec<RunId> = self.jobs.keys().chain(self.pods.keys()).copied().collect();
        runs.sort_unstable();
        runs.dedup();
        runs
    }

    /// What a run is doing; `None` where nothing of it is left.
    pub(super) fn phase(&self, run: RunId) -> Option<RunPhase> {
        let pods: Vec<&Pod> = self.pods.get(&run).into_iter().flat_map(BTreeMap::values).collect();
        if let Some(job) = self.jobs.get(&run) {
            return Some(of_job(job, &pods, &|pod| self.is_on_lost_node(pod)));
        }
        // Somebody deleted the Job; its pods end, and then the run is gone.
        let is_left = |pod: &&Pod| !is_over(pod) && !self.is_on_lost_node(pod);
        pods.iter().any(is_left).then_some(RunPhase::Stopping)
    }

    /// Nobody will say how that one ends, and the rest does not wait for it.
    fn is_on_lost_node(&self, pod: &Pod) -> bool {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) else { return false };
        let view = self.nodes.as_ref().map(watch::Receiver::borrow);
        view.is_some_and(|view| view.nodes.get(node).is_some_and(|node| matches!(node.standing, Standing::Lost(_))))
    }

    pub(super) fn observed(&self) -> Vec<Observed> {
        self.runs().into_iter().filter_map(|run| Some(Observed { run, phase: self.phase(run)? })).collect()
    }
}
