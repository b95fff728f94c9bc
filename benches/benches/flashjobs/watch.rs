//! An independent watcher of all pods: when each job began, what was in use, and what must not be.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::TryStreamExt as _;
use http::Request;
use kube::Client;
use kube::core::WatchEvent;
use serde::Deserialize;

use crate::load::{Load, NAMESPACE, NUMBER};
use crate::{Options, What};

/// Faults that are kept to be told.
const FAULTS: usize = 5;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    uid: String,
    resource_version: String,
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// None is left: its kubelet has let go of it, and only a finalizer keeps the object.
    deletion_grace_period_seconds: Option<i64>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Status {
    phase: Option<String>,
}

/// What is read of a pod.
#[derive(Clone, Deserialize)]
struct Pod {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

/// What of a job is bound to a queue.
#[derive(Clone, Debug)]
struct Share {
    cores: u64,
    queue: usize,
    cohort: usize,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    begun: Instant,
    shares: Vec<Share>,
    quotas: Option<(Vec<u64>, Vec<u64>)>,
    most: u64,
    /// When a pod of it was bound first, when one succeeded first, after the start.
    pub(crate) bound: Vec<Option<Duration>>,
    pub(crate) succeeded: Vec<Option<Duration>>,
    /// Pods that hold cores: node and job, by uid.
    holds: BTreeMap<String, (String, usize)>,
    over: BTreeSet<String>,
    queues: Vec<u64>,
    cohorts: Vec<u64>,
    used: u64,
    since: Duration,
    /// Core-seconds that pods held, from bound to ended.
    pub(crate) held: f64,
    /// The most cores that were in use.
    pub(crate) peak: u64,
    pub(crate) pods: u64,
    pub(crate) failed: u64,
    faults: Vec<String>,
}

/// See the module.
pub(crate) struct Watcher {
    seen: Rc<RefCell<Seen>>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Seen {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
        }
    }

    fn take(&mut self, pod: &Pod, gone: bool) {
        let Some(number) = pod.metadata.labels.get(NUMBER).and_then(|text| text.parse::<usize>().ok()) else { return };
        let now = self.begun.elapsed();
        let Some(share) = self.shares.get(number).cloned() else { return };
        let uid = &pod.metadata.uid;
        let phase = pod.status.phase.as_deref().unwrap_or_default();
        if phase == "Succeeded" {
            self.succeeded[number].get_or_insert(now);
        }
        let released = pod.metadata.deletion_grace_period_seconds == Some(0);
        let ends = gone || released || matches!(phase, "Succeeded" | "Failed");
        let node = pod.spec.node_name.clone().filter(|node| !node.is_empty());
        match (self.holds.get(uid), node) {
            (Some((before, _)), Some(node)) if *before != node => {
                self.fault(format!("pod {} was bound to {before}, then to {node}", pod.metadata.name));
            }
            (None, Some(node)) if !ends && !self.over.contains(uid) => {
                self.bound[number].get_or_insert(now);
                self.pods += 1;
                self.holds.insert(uid.clone(), (node, number));
                self.change(now, &share, true);
            }
            _ => {}
        }
        if ends {
            if self.holds.remove(uid).is_some() {
                self.change(now, &share, false);
            }
            if self.over.insert(uid.clone()) && phase != "Succeeded" {
                self.failed += 1;
            }
        }
    }

    fn change(&mut self, now: Duration, share: &Share, more: bool) {
        self.held += self.used as f64 * now.saturating_sub(self.since).as_secs_f64();
        self.since = now;
        for amount in [&mut self.used, &mut self.queues[share.queue], &mut self.cohorts[share.cohort]] {
            *amount = if more { *amount + share.cores } else { *amount - share.cores };
        }
        self.peak = self.peak.max(self.used);
        if self.used > self.most {
            self.fault(format!("{} cores are in use of {}", self.used, self.most));
        }
        let Some((queues, cohorts)) = &self.quotas else { return };
        let of_queue = (self.queues[share.queue], queues[share.queue]);
        let of_cohort = (self.cohorts[share.cohort], cohorts[share.cohort]);
        if of_queue.0 > of_queue.1 {
            self.fault(format!("queue {} has {} cores of {}", share.queue, of_queue.0, of_queue.1));
        }
        if of_cohort.0 > of_cohort.1 {
            self.fault(format!("cohort {} has {} cores of {}", share.cohort, of_cohort.0, of_cohort.1));
        }
    }
}

impl Watcher {
    /// Watches from now on; times count from now.
    pub(crate) fn start(client: Client, load: &Load, options: &Options) -> Self {
        let cohorts = load.cohorts();
        let place = |name: &str| cohorts.keys().position(|one| *one == name).unwrap_or_default();
        let shares = load.jobs.iter().map(|job| Share {
            cores: job.cores,
            queue: job.queue,
            cohort: place(&load.queues[job.queue].cohort),
        });
        let quotas = (load.queues.iter().map(|queue| queue.most).collect(), cohorts.values().copied().collect());
        let seen = Seen {
            begun: Instant::now(),
            shares: shares.collect(),
            quotas: (options.what == What::Flashjobs).then_some(quotas),
            most: load.cores(),
            bound: vec![None; load.jobs.len()],
            succeeded: vec![None; load.jobs.len()],
            holds: BTreeMap::new(),
            over: BTreeSet::new(),
            queues: vec![0; load.queues.len()],
            cohorts: vec![0; cohorts.len()],
            used: 0,
            since: Duration::ZERO,
            held: 0.0,
            peak: 0,
            pods: 0,
            failed: 0,
            faults: Vec::new(),
        };
        let seen = Rc::new(RefCell::new(seen));
        let task = tokio::task::spawn_local(follow(client, seen.clone()));
        Self { seen, task }
    }

    /// Whether every job has a pod that succeeded.
    ///
    /// # Errors
    /// Something was seen that must not be, or nothing is seen any more.
    pub(crate) fn is_done(&self) -> Result<bool> {
        let seen = self.seen.borrow();
        if let Some(fault) = seen.faults.first() {
            bail!("{fault}");
        }
        if self.task.is_finished() {
            bail!("the watch of pods has ended");
        }
        Ok(seen.succeeded.iter().all(Option::is_some))
    }

    /// Where things stand, in a line.
    pub(crate) fn stand(&self) -> String {
        let seen = self.seen.borrow();
        let count = |all: &[Option<Duration>]| all.iter().filter(|one| one.is_some()).count();
        format!(
            "{} began, {} succeeded, {} failed; {} cores in use",
            count(&seen.bound),
            count(&seen.succeeded),
            seen.failed,
            seen.used
        )
    }

    /// # Errors
    /// Something was seen that must not be.
    pub(crate) async fn finish(self) -> Result<Seen> {
        self.is_done()?;
        self.task.abort();
        // It was ended by us.
        let _ = self.task.await;
        Rc::try_unwrap(self.seen).map(RefCell::into_inner).map_err(|_| anyhow!("the watcher is still at work"))
    }
}

/// A watch may end at any time; the next one goes on where it ended.
async fn follow(client: Client, seen: Rc<RefCell<Seen>>) -> Result<()> {
    let mut version = "0".to_owned();
    loop {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?watch=1&resourceVersion={version}&timeoutSeconds=86400");
        let request = Request::get(path).body(Vec::new()).context("a path")?;
        let mut events = pin!(client.request_events::<Pod>(request).await.context("watching pods")?);
        loop {
            let (pod, gone) = match events.try_next().await {
                Ok(Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod))) => (pod, false),
                Ok(Some(WatchEvent::Deleted(pod))) => (pod, true),
                Ok(Some(WatchEvent::Bookmark(_))) => continue,
                Ok(Some(WatchEvent::Error(status))) => bail!("watching pods: {status:?}"),
                Ok(None) => break,
                Err(error) => {
                    eprintln!("watching pods: {error}; going on from version {version}");
                    break;
                }
            };
            pod.metadata.resource_version.clone_into(&mut version);
            seen.borrow_mut().take(&pod, gone);
        }
    }
}
