//! The executor: orders become requests to the API server; what it knows comes from lists and the watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client, ResourceExt as _};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use scheduler_core::job::StopPolicy;
use scheduler_core::state::FailReason;
use scheduler_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::{KIND, Meaning, executor_error, meaning};
use super::guarded::guarded;
use super::lease::Leadership;
use super::manifest::{self, job_name, selector};
use super::watch::follow;
use super::world::{NodeViews, World};
use crate::contract::{Executor, ExecutorError, Observed, Report, RunPhase, StartOrder};

/// Requests under way at once.
const AT_ONCE: usize = 8;
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Pause after an order was not taken: doubled each time, up to the second. Without it an order that is given again and again would be a
/// busy loop.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What a `job` executor is made of.
pub struct JobOptions {
    /// The cluster, and who we are there.
    pub client: Client,
    /// Name of this installation: two that share a cluster leave each other's Jobs alone.
    pub instance: String,
    /// Where reports go.
    pub reports: mpsc::Sender<Report>,
}

/// What the executor and its watch both know.
pub(super) struct Shared {
    pub(super) instance: String,
    ends: Mutex<Ends>,
}

#[derive(Default)]
struct Ends {
    /// How runs ended, as it was told first; until they are forgotten.
    known: BTreeMap<RunId, RunPhase>,
    /// Runs whose Job was deleted by us and is still there.
    forgotten: BTreeSet<RunId>,
    /// Runs that never came to be, because their Job was refused.
    refused: BTreeMap<RunId, RunPhase>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a run as it was seen first.
    pub(super) fn settle(&self, run: RunId, phase: RunPhase) -> RunPhase {
        self.lock().known.entry(run).or_insert(phase).clone()
    }

    pub(super) fn is_settled(&self, run: RunId) -> bool {
        self.lock().known.contains_key(&run)
    }

    /// A Job is gone. Whether its end was on record, so that it was for us to delete.
    pub(super) fn is_gone(&self, run: RunId) -> bool {
        let mut ends = self.lock();
        ends.known.remove(&run);
        ends.forgotten.remove(&run)
    }

    fn is_forgotten(&self, run: RunId) -> bool {
        self.lock().forgotten.contains(&run)
    }
}

/// Runs as batch/v1 Jobs.
pub struct JobExecutor {
    client: Client,
    shared: Arc<Shared>,
    reports: mpsc::Sender<Report>,
    watch: Mutex<Option<JoinHandle<()>>>,
    pause: Mutex<Duration>,
    nodes: Option<NodeViews>,
}

impl JobExecutor {
    /// Asks nobody yet.
    pub fn new(options: JobOptions) -> Self {
        let shared = Arc::new(Shared { instance: options.instance, ends: Mutex::default() });
        Self {
            client: options.client,
            shared,
            reports: options.reports,
            watch: Mutex::new(None),
            pause: Mutex::new(PAUSE.0),
            nodes: None,
        }
    }

    /// Where it is known which nodes are lost: nobody is waited for there.
    #[must_use]
    pub fn with_nodes(mut self, nodes: NodeViews) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// Nothing is changed in the cluster but while this says so.
    #[must_use]
    pub fn with_leadership(mut self, leadership: Leadership) -> Self {
        self.client = guarded(self.client.clone(), leadership);
        self
    }

    fn jobs(&self) -> Api<Job> {
        Api::all(self.client.clone())
    }

    /// Everything of ours, page by page.
    async fn list<K>(&self, op: &'static str, api: &Api<K>, selector: &str) -> Result<Vec<K>, ExecutorError>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = api.list(&params).await.map_err(|error| executor_error(op, &error))?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    async fn world(&self, op: &'static str) -> Result<World, ExecutorError> {
        let selector = selector(&self.shared.instance);
        // Jobs first: pods that are newer than their Job's state say how it ended, older ones would look as if they still ran.
        let jobs = self.list(op, &self.jobs(), &selector).await?;
        let pods = self.list(op, &Api::<Pod>::all(self.client.clone()), &selector).await?;
        Ok(World::from_lists(jobs, pods, self.nodes.clone()))
    }

    /// The Job of a run, wherever it is.
    async fn find(&self, op: &'static str, run: RunId) -> Result<Option<Job>, ExecutorError> {
        let found = self.list(op, &self.jobs(), &manifest::run_selector(&self.shared.instance, run)).await?;
        Ok(found.into_iter().next())
    }

    async fn start_one(&self, order: StartOrder) -> Result<(), ExecutorError> {
        let run = order.run;
        let (namespace, job) = match manifest::job(&order, &self.shared.instance) {
            Ok(made) => made,
            Err(message) => return self.refuse(run, message).await,
        };
        let api: Api<Job> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &job).await {
            Ok(_) => Ok(()),
            Err(error) => match meaning(&error) {
                Meaning::Exists => Ok(()),
                Meaning::Missing => {
                    let mend = format!("`kubectl create namespace {namespace}` makes it");
                    self.refuse(run, format!("the cluster has no namespace `{namespace}`; {mend}")).await
                }
                Meaning::Refused(message) => self.refuse(run, format!("the cluster refused the Job: {message}")).await,
                Meaning::Forbidden(_) | Meaning::Later(_) => Err(executor_error("start", &error)),
            },
        }
    }

    /// The run is over before it began: kept until it is forgotten.
    async fn refuse(&self, run: RunId, message: String) -> Result<(), ExecutorError> {
        let at = now();
        let result = RunResult::Failed { reason: FailReason::Start { message: message.into() } };
        let phase = RunPhase::Ended { result, started_at: None, at };
        let phase = self.shared.lock().refused.entry(run).or_insert(phase).clone();
        if let RunPhase::Ended { result, started_at, at } = phase {
            // Nobody there to hear it is nobody there to whom it matters.
            let _ = self.reports.send(Report::Ended { run, result, started_at, at }).await;
        }
        Ok(())
    }

    /// Waits after a failure, longer each time.
    async fn slow_down(&self, failed: bool) {
        let pause = {
            let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
            let now = *pause;
            *pause = if failed { (now * 2).min(PAUSE.1) } else { PAUSE.0 };
            now
        };
        if failed {
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends pods sooner than they were told when they were made.
    async fn shorten(&self, job: &Job, run: RunId, grace_secs: u32) -> Result<(), ExecutorError> {
        let namespace = job.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let found = self.list("stop", &pods, &manifest::run_selector(&self.shared.instance, run)).await?;
        // No grace at all would take the pod off the books while it still runs.
        let params = DeleteParams::default().grace_period(grace_secs.max(1));
        for pod in found.iter().filter(|pod| !super::phase::is_over(pod)) {
            match pods.delete(&pod.name_any(), &params).await.map_err(|error| (meaning(&error), error)) {
                Ok(_) | Err((Meaning::Missing, _)) => {}
                Err((_, error)) => return Err(executor_error("stop", &error)),
            }
        }
        Ok(())
    }
}

/// The only clock here: for runs that the cluster never saw, and for when we stop one.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[async_trait]
impl Executor for JobExecutor {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn adopt(&self) -> Result<Vec<Observed>, ExecutorError> {
        let found = self.observe().await?;
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.as_ref().is_none_or(JoinHandle::is_finished) {
            *watch =
                Some(tokio::spawn(follow(self.client.clone(), self.shared.clone(), self.nodes.clone(), self.reports.clone())));
        }
        Ok(found)
    }

    fn holds_orders(&self) -> bool {
        false
    }

    async fn start(&self, orders: Vec<StartOrder>) -> Result<(), ExecutorError> {
        let requests = orders.into_iter().map(|order| self.start_one(order));
        let outcomes: Vec<_> = futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect().await;
        let outcome = outcomes.into_iter().collect();
        self.slow_down(Result::is_err(&outcome)).await;
        outcome
    }

    async fn stop(&self, run: RunId, policy: StopPolicy) -> Result<(), ExecutorError> {
        let Some(job) = self.find("stop", run).await? else { return Ok(()) };
        let api: Api<Job> = Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
        let stopped_at = manifest::stopped_at(&job.metadata).unwrap_or_else(now).0.to_string();
        let metadata = serde_json::json!({"annotations": {manifest::STOPPED_AT: stopped_at}});
        let patch = Patch::Merge(serde_json::json!({"metadata": metadata, "spec": {"suspend": true}}));
        match api.patch(&job_name(run), &PatchParams::default(), &patch).await.map_err(|error| (meaning(&error), error)) {
            Ok(_) | Err((Meaning::Missing, _)) => {}
            Err((_, error)) => return Err(executor_error("stop", &error)),
        }
        let told = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.termination_grace_period_seconds).unwrap_or(30);
        let grace_secs = u32::try_from(policy.grace.0.div_ceil(1_000_000)).unwrap_or(u32::MAX);
        if i64::from(grace_secs) < told { self.shorten(&job, run, grace_secs).await } else { Ok(()) }
    }

    async fn withdraw(&self, _runs: Vec<RunId>) -> Result<(), ExecutorError> {
        // Nothing ever waits in a line here.
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        let world = self.world("observe").await?;
        let mut found = world.observed();
        let refused = self.shared.lock().refused.clone();
        for observed in &mut found {
            if matches!(observed.phase, RunPhase::Ended { .. }) {
                observed.phase = self.shared.settle(observed.run, observed.phase.clone());
            }
        }
        found.retain(|observed| !self.shared.is_forgotten(observed.run));
        found.extend(refused.into_iter().map(|(run, phase)| Observed { run, phase }));
        Ok(found)
    }

    async fn forget(&self, runs: Vec<RunId>) -> Result<(), ExecutorError> {
        let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        for run in runs {
            self.shared.lock().refused.remove(&run);
            let Some(job) = self.find("forget", run).await? else {
                self.shared.lock().known.remove(&run);
                continue;
            };
            // What runs is not forgotten. An end that we have not told was told by an earlier daemon, or is no end.
            if !self.shared.lock().known.contains_key(&run) {
                let ended = self.world("forget").await?.phase(run);
                if !matches!(ended, Some(RunPhase::Ended { .. })) {
                    continue;
                }
            }
            self.shared.lock().forgotten.insert(run);
            let api: Api<Job> = Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
            match api.delete(&job_name(run), &params).await.map_err(|error| (meaning(&error), error)) {
                Ok(_) | Err((Meaning::Missing, _)) => {
                    self.shared.lock().known.remove(&run);
                }
                Err((_, error)) => {
                    self.shared.lock().forgotten.remove(&run);
                    return Err(executor_error("forget", &error));
                }
            }
        }
        Ok(())
    }
}

impl Drop for JobExecutor {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take() {
            watch.abort();
        }
    }
}
