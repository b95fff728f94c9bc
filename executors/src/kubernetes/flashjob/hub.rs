//! What the executor, its assemblies and its watch share: the books of runs, the room of nodes, and requests that are tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt as _};
use scheduler_core::ids::RunId;
use scheduler_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::super::error::{Meaning, error_of, meaning};
use super::super::nodes::room::Room;
use super::super::nodes::{Key, NodeRoom, key};
use super::KIND;
use super::board::FlashJobs;
use super::executor::FlashJobOptions;
use super::gang::live_run;
use super::lone::LonePods;
use super::queues::ClusterQueues;

use super::verdict::{Known, is_over};
use crate::contract::{ExecutorError, Report, RunPhase};
use crate::kubernetes::guarded::guarded;

/// Writes under way at once, over all runs.
const WRITES: usize = 32;
/// Requests of one run under way at once.
pub(super) const AT_ONCE: usize = 8;
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Tells an assembly that its run is to be stopped.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    pub(super) told: watch::Sender<bool>,
}

impl Cancel {
    pub(super) fn tell(&self) {
        self.told.send_replace(true);
    }

    pub(super) fn is_told(&self) -> bool {
        *self.told.borrow()
    }

    /// Waits so long, or until it is told.
    pub(super) async fn pause(&self, pause: Duration) {
        let mut told = self.told.subscribe();
        // Both ends are ours: the channel does not close.
        let _ = tokio::time::timeout(pause, told.wait_for(|told| *told)).await;
    }
}

/// The books of runs.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Runs whose pods are being made, bound or taken back: nobody else touches those.
    pub(super) assembling: BTreeMap<RunId, Arc<Cancel>>,
    /// How runs ended, as it was told first; until they are forgotten.
    pub(super) ended: BTreeMap<RunId, RunPhase>,
    /// Those of them that were told: each is told once.
    told: BTreeSet<RunId>,
    /// Those of them that have no pods that would say so.
    pub(super) unmade: BTreeSet<RunId>,
    /// Runs whose pods are not ours any more, but that the watch still shows.
    pub(super) forgotten: BTreeSet<RunId>,
    /// What is known of runs beside their pods.
    known: BTreeMap<RunId, Known>,
    /// Pods for which room was set aside, also such as were never made.
    pub(super) aside: BTreeMap<RunId, BTreeSet<Key>>,
}

impl Runs {
    pub(super) fn known(&self, run: RunId) -> Known {
        self.known.get(&run).cloned().unwrap_or_default()
    }
}

/// Pods of runs that are not forgotten, as the watch told them last.
pub(super) type World = BTreeMap<RunId, BTreeMap<Key, Pod>>;

/// See the module.
pub(super) struct Hub {
    pub(super) client: Client,
    pub(super) instance: String,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) board: Arc<FlashJobs>,
    pub(super) lone: Arc<LonePods>,
    pub(super) queues: Arc<ClusterQueues>,
    pub(super) room: Arc<watch::Sender<Room>>,
    pub(super) writes: Semaphore,
    runs: Mutex<Runs>,
    world: Mutex<World>,
    /// Namespaces where admission adds to what pods ask for.
    grown: Mutex<BTreeSet<String>>,
    /// Which right was said to be missing last.
    lacks: Mutex<String>,
    /// The watch is to look at these again.
    pub(super) look: Notify,
    again: Mutex<BTreeSet<RunId>>,
}

/// The only clock here: for what the cluster gives no time for.
pub(super) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Hub {
    pub(super) fn new(options: FlashJobOptions) -> Self {
        let FlashJobOptions { client, instance, reports, room: NodeRoom(room), leadership } = options;
        let client = leadership.iter().fold(client, |client, leadership| guarded(client, leadership.clone()));
        Self {
            board: Arc::new(FlashJobs::new(client.clone(), instance.clone(), leadership)),
            queues: Arc::new(ClusterQueues::new(client.clone())),
            lone: Arc::new(LonePods::new(client.clone(), instance.clone())),
            client,
            instance,
            reports,
            room,
            writes: Semaphore::new(WRITES),
            runs: Mutex::default(),
            world: Mutex::default(),
            grown: Mutex::default(),
            lacks: Mutex::default(),
            look: Notify::new(),
            again: Mutex::default(),
        }
    }

    pub(super) fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pods_in(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Admission has added to what a pod of this namespace asks for: a LimitRange, a webhook, a runtime class.
    pub(super) fn grows(&self, namespace: &str) {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned());
    }

    pub(super) fn has_grown(&self, namespace: &str) -> bool {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }

    /// Says once which right is missing: it may be missing in one namespace alone, so the rest goes on.
    pub(super) fn warn(&self, why: &str) {
        let mut last = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != why {
            tracing::warn!(why, "a run cannot be begun; trying again");
            why.clone_into(&mut last);
        }
    }

    /// The watch will look at a run again.
    pub(super) fn look_at(&self, run: RunId) {
        self.again.lock().unwrap_or_else(PoisonError::into_inner).insert(run);
        self.look.notify_one();
    }

    pub(super) fn to_look_at(&self) -> BTreeSet<RunId> {
        std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn stopped(&self, run: RunId) {
        self.runs().known.entry(run).or_default().stopped.get_or_insert_with(now);
    }

    /// It cannot go on; what was said first stays.
    pub(super) fn broken(&self, run: RunId, why: &str) {
        self.runs().known.entry(run).or_default().broken.get_or_insert_with(|| why.to_owned());
    }

    /// The end of a run as it was seen first.
    pub(super) fn settle(&self, run: RunId, phase: RunPhase) -> RunPhase {
        self.runs().ended.entry(run).or_insert(phase).clone()
    }

    /// Settles it and tells, once.
    pub(super) async fn tell_end(&self, run: RunId, phase: RunPhase) {
        let phase = self.settle(run, phase);
        if !self.runs().told.insert(run) {
            return;
        }
        let report = match phase {
            RunPhase::Ended { result, started_at, at } => Report::Ended { run, result, started_at, at },
            RunPhase::NotBegun { message, at } => Report::NotBegun { run, message, at },
            RunPhase::Held | RunPhase::Starting | RunPhase::Running { .. } | RunPhase::Stopping => return,
        };
        // Nobody there to hear it is nobody there to whom it matters.
        let _ = self.reports.send(report).await;
    }

    /// Its end is on record.
    pub(super) fn drop_run(&self, run: RunId, pods: &[Key]) {
        {
            let mut runs = self.runs();
            runs.ended.remove(&run);
            runs.told.remove(&run);
            runs.unmade.remove(&run);
            runs.known.remove(&run);
        }
        self.give_up_all(run);
        self.give_up(pods);
    }

    /// Nothing of it can run any more: what was set aside for it is free.
    pub(super) fn give_up_all(&self, run: RunId) {
        let pods: Vec<Key> = self.runs().aside.remove(&run).into_iter().flatten().collect();
        self.give_up(&pods);
    }

    pub(super) fn give_up(&self, pods: &[Key]) {
        // Waiters are not woken for less: they wait for the watch.
        self.room.send_if_modified(|room| {
            room.give_up(pods);
            false
        });
    }

    /// All pods that a selector selects, page by page.
    pub(super) async fn list(&self, op: &'static str, selector: &str) -> Result<Vec<Pod>, ExecutorError> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = api.list(&params).await.map_err(|error| error_of(KIND, op, &error))?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// The pods of a run that are not forgotten.
    pub(super) async fn pods_of(&self, op: &'static str, run: RunId) -> Result<Vec<Pod>, ExecutorError> {
        self.list(op, &live_run(&self.instance, run)).await
    }

    /// Deletes those that are not over; `grace` only shortens. The first error is told, the others were tried as well.
    pub(super) async fn delete(&self, op: &'static str, pods: &[Pod], grace: Option<u32>) -> Result<(), ExecutorError> {
        let one = |pod: Pod| async move {
            let (namespace, name) = key(&pod);
            let told = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
            let told = u32::try_from(told).unwrap_or(u32::MAX);
            // No grace at all would take the pod off the books while it still runs.
            let grace = grace.map_or(told, |grace| grace.min(told)).max(1);
            let mut params = DeleteParams::default().grace_period(grace);
            params.preconditions = pod.uid().map(|uid| kube::api::Preconditions { uid: Some(uid), resource_version: None });
            let _permit = self.writes.acquire().await;
            match self.pods_in(&namespace).delete(&name, &params).await.map_err(|error| (meaning(&error), error)) {
                Ok(_) | Err((Meaning::Missing, _)) => Ok(()),
                Err((_, error)) => Err(error_of(KIND, op, &error)),
            }
        };
        let requests: Vec<_> = pods.iter().filter(|pod| !is_over(pod)).cloned().map(one).collect();
        let outcomes: Vec<_> = futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().collect()
    }
}
