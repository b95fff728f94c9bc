//! The executor: an order becomes an assembly; what it knows comes from lists and the watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Patch, PatchParams};
use scheduler_core::ids::RunId;
use scheduler_core::job::StopPolicy;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::error::{Meaning, error_of, meaning};
use super::super::manifest::run_of;
use super::super::nodes::{Key, NodeRoom, key};
use super::KIND;
use super::assemble::Assembly;
use super::board::FlashJobs;
use super::follow::follow;
use super::gang::{FINALIZER, LIVE, is_live, live_selector, size};
use super::hub::{AT_ONCE, Cancel, Hub, now};
use super::lone::{LonePods, is_lone};
use super::queues::ClusterQueues;

use super::verdict::{Verdict, is_bound, is_over, verdict};
use crate::contract::{Executor, ExecutorError, Observed, Report, RunPhase, StartOrder};
use crate::kubernetes::lease::Leadership;

/// What a `flashjob` executor is made of.
pub struct FlashJobOptions {
    /// The cluster, and who we are there.
    pub client: Client,
    /// Name of this installation.
    pub instance: String,
    /// Where reports go.
    pub reports: mpsc::Sender<Report>,
    /// What room there is on the nodes, as it is watched.
    pub room: NodeRoom,
    /// Nothing is changed in the cluster but while this says so, if it is there.
    pub leadership: Option<Leadership>,
}

/// Runs as pods of FlashJobs, bound by us.
pub struct FlashJobExecutor {
    hub: Arc<Hub>,
    /// The watch and the assemblies: they end with the executor.
    tasks: Mutex<JoinSet<()>>,
    watches: Mutex<bool>,
}

impl FlashJobExecutor {
    /// Asks nobody yet.
    pub fn new(options: FlashJobOptions) -> Self {
        Self { hub: Arc::new(Hub::new(options)), tasks: Mutex::default(), watches: Mutex::default() }
    }

    /// The FlashJobs of the cluster.
    pub fn flash_jobs(&self) -> Arc<FlashJobs> {
        self.hub.board.clone()
    }

    /// The pods of others that ask for our scheduler and have no FlashJob.
    pub fn lone_pods(&self) -> Arc<LonePods> {
        self.hub.lone.clone()
    }

    /// The queues of the cluster.
    pub fn cluster_queues(&self) -> Arc<ClusterQueues> {
        self.hub.queues.clone()
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks
    }

    /// The books are opened for a run; `None` if they are already, or if its end is known.
    fn open(&self, run: RunId) -> Option<Assembly> {
        let mut runs = self.hub.runs();
        if runs.ended.contains_key(&run) || runs.forgotten.contains(&run) || runs.assembling.contains_key(&run) {
            return None;
        }
        let cancel = Arc::new(Cancel::default());
        runs.assembling.insert(run, cancel.clone());
        Some(Assembly { hub: self.hub.clone(), run, cancel })
    }

    /// What an earlier executor did not finish. Its last requests may be carried out after it has ended, and after we have begun: so this is
    /// looked for whenever somebody looks, and not only when runs are adopted.
    ///
    /// Where all was bound it may not have lived to see who else came there: so what is adopted and has not begun is looked at again. Once all
    /// of it runs its kubelets have taken it, and whatever is on its nodes is not its fault any more.
    fn resume(&self, run: RunId, pods: &[Pod], adopting: bool) -> bool {
        let incomplete = pods.first().is_some_and(|pod| pods.len() < size(pod)) || !pods.iter().all(is_bound);
        let refs: Vec<&Pod> = pods.iter().collect();
        let known = self.hub.runs().known(run);
        let unsure = |phase: &RunPhase| adopting && *phase == RunPhase::Starting && !pods.iter().any(is_lone);
        let goes = match verdict(&refs, &known, true, now()) {
            Verdict::Goes(phase) => incomplete || unsure(&phase),
            Verdict::Breaks | Verdict::Over(_) => false,
        };
        let assembly = if goes { self.open(run) } else { None };
        assembly.map(|assembly| self.tasks().spawn(assembly.resume())).is_some()
    }

    async fn list(&self, op: &'static str) -> Result<BTreeMap<RunId, Vec<Pod>>, ExecutorError> {
        let mut world: BTreeMap<RunId, Vec<Pod>> = BTreeMap::new();
        for pod in self.hub.list(op, &live_selector(&self.hub.instance)).await? {
            if let Some(run) = run_of(&pod.metadata).filter(|_| is_live(&pod)) {
                world.entry(run).or_default().push(pod);
            }
        }
        Ok(world)
    }

    fn assembling(&self) -> BTreeSet<RunId> {
        self.hub.runs().assembling.keys().copied().collect()
    }

    /// Where a run stands that was assembled while a list was made. None if that was long enough ago that it is over and forgotten.
    fn since_assembled(&self, run: RunId) -> Option<RunPhase> {
        let is_there = self.hub.world().contains_key(&run);
        let runs = self.hub.runs();
        let going = (is_there && !runs.forgotten.contains(&run)).then_some(RunPhase::Starting);
        runs.ended.get(&run).cloned().or(going)
    }

    /// Where a run stands whose pods these are, all of them.
    fn phase(&self, run: RunId, pods: &[Pod]) -> RunPhase {
        let refs: Vec<&Pod> = pods.iter().collect();
        let known = self.hub.runs().known(run);
        match verdict(&refs, &known, true, now()) {
            Verdict::Goes(phase) => phase,
            Verdict::Over(phase) => self.hub.settle(run, phase),
            Verdict::Breaks => {
                if pods.first().is_some_and(|pod| pods.len() < size(pod)) {
                    self.hub.broken(run, "some of its pods were removed");
                }
                self.hub.look_at(run);
                RunPhase::Stopping
            }
        }
    }

    /// What there is, and what has to be gone on with.
    async fn look(&self, adopting: bool) -> Result<Vec<Observed>, ExecutorError> {
        // Both around the list: a run that was being assembled at either time may be half there in between.
        let before = self.assembling();
        let world = self.list(if adopting { "adopt" } else { "observe" }).await?;
        let assembling = self.assembling();
        let mut found: BTreeMap<RunId, RunPhase> = assembling.iter().map(|run| (*run, RunPhase::Starting)).collect();
        for run in before.difference(&assembling) {
            found.extend(self.since_assembled(*run).map(|phase| (*run, phase)));
        }
        for (run, pods) in &world {
            if !before.contains(run) && !assembling.contains(run) && !self.hub.runs().forgotten.contains(run) {
                let phase = if self.resume(*run, pods, adopting) { RunPhase::Starting } else { self.phase(*run, pods) };
                found.insert(*run, phase);
            }
        }
        let runs = self.hub.runs();
        let unmade = runs.unmade.iter().filter_map(|run| Some((*run, runs.ended.get(run)?.clone())));
        found.extend(unmade);
        Ok(found.into_iter().map(|(run, phase)| Observed { run, phase }).collect())
    }

    /// Lets the pods of a run go: they stay for whoever reads their logs, unless they were deleted.
    async fn let_go(&self, run: RunId, pods: &[Pod]) -> Result<(), ExecutorError> {
        // One that came by a request that had been given up is not left to run. What somebody else made, and nobody bound, is his.
        let ours: Vec<Pod> = pods.iter().filter(|pod| is_bound(pod) || !is_lone(pod)).cloned().collect();
        self.hub.delete("forget", &ours, None).await?;
        let labels = BTreeMap::from([(LIVE, None::<String>)]);
        let patch = Patch::Strategic(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER], "labels": labels}}));
        let patch = &patch;
        let keys: Vec<Key> = pods.iter().map(key).collect();
        let one = |(namespace, name): Key| async move {
            let _permit = self.hub.writes.acquire().await;
            let api = self.hub.pods_in(&namespace);
            match api.patch(&name, &PatchParams::default(), patch).await.map_err(|error| (meaning(&error), error)) {
                Ok(_) | Err((Meaning::Missing, _)) => Ok(()),
                Err((_, error)) => Err(error_of(KIND, "forget", &error)),
            }
        };
        let requests: Vec<_> = keys.iter().cloned().map(one).collect();
        let outcomes: Vec<_> = futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect().await;
        match outcomes.into_iter().collect::<Result<(), _>>() {
            Ok(()) => {
                self.hub.drop_run(run, &keys);
                Ok(())
            }
            Err(error) => {
                self.hub.runs().forgotten.remove(&run);
                Err(error)
            }
        }
    }

    async fn forget_one(&self, run: RunId) -> Result<(), ExecutorError> {
        if self.hub.runs().assembling.contains_key(&run) {
            return Ok(());
        }
        // They are let go of already, and may be another run's by now.
        if self.hub.runs().forgotten.contains(&run) {
            self.hub.drop_run(run, &[]);
            return Ok(());
        }
        let mut pods: Vec<Pod> = self.hub.world().get(&run).into_iter().flat_map(|pods| pods.values().cloned()).collect();
        let is_known = self.hub.runs().ended.contains_key(&run);
        // The watch may be behind whoever told the end.
        if pods.is_empty() || !is_known || !pods.iter().all(is_over) {
            pods = self.hub.pods_of("forget", run).await?;
        }
        if pods.is_empty() {
            self.hub.drop_run(run, &[]);
            return Ok(());
        }
        // What runs is not forgotten. An end that we have not told was told by an earlier daemon, or is no end.
        if !is_known && !matches!(self.phase(run, &pods), RunPhase::Ended { .. } | RunPhase::NotBegun { .. }) {
            return Ok(());
        }
        if self.hub.world().contains_key(&run) {
            self.hub.runs().forgotten.insert(run);
        }
        self.let_go(run, &pods).await
    }
}

#[async_trait]
impl Executor for FlashJobExecutor {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn adopt(&self) -> Result<Vec<Observed>, ExecutorError> {
        // Before anybody is told that it does not go: what is assembled waits for the watch.
        let found = self.look(true).await?;
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *watches, true) {
            self.tasks().spawn(follow(self.hub.clone()));
        }
        Ok(found)
    }

    fn holds_orders(&self) -> bool {
        false
    }

    async fn start(&self, orders: Vec<StartOrder>) -> Result<(), ExecutorError> {
        for order in orders {
            if let Some(assembly) = self.open(order.run) {
                self.tasks().spawn(assembly.begin(order));
            }
        }
        Ok(())
    }

    async fn stop(&self, run: RunId, policy: StopPolicy) -> Result<(), ExecutorError> {
        if let Some(cancel) = self.hub.runs().assembling.get(&run) {
            cancel.tell();
            return Ok(());
        }
        let pods = self.hub.pods_of("stop", run).await?;
        if pods.is_empty() || self.hub.runs().ended.contains_key(&run) {
            return Ok(());
        }
        self.hub.stopped(run);
        // Those that were deleted by somebody else may be over already, and wait for this word.
        self.hub.look_at(run);
        let grace_secs = u32::try_from(policy.grace.0.div_ceil(1_000_000)).unwrap_or(u32::MAX);
        self.hub.delete("stop", &pods, Some(grace_secs)).await
    }

    async fn withdraw(&self, _runs: Vec<RunId>) -> Result<(), ExecutorError> {
        // Nothing ever waits in a line here.
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        self.look(false).await
    }

    async fn forget(&self, runs: Vec<RunId>) -> Result<(), ExecutorError> {
        let requests: Vec<_> = runs.into_iter().map(|run| self.forget_one(run)).collect();
        let outcomes: Vec<_> = futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().collect()
    }
}
