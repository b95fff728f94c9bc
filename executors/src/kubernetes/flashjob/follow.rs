//! Follows our pods, and tells what becomes of runs.
//!
//! A run that breaks (a pod failed, was deleted, was evicted) is ended here: the pods that are left are deleted. Missing pods are judged by
//! lists alone; a watch may not have told them yet.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_types::TaskPlacement;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;

use super::super::error::chain;
use super::super::manifest::run_of;
use super::super::nodes::key;
use super::super::pauses::Pauses;
use super::super::phase::{pod_phase, started_at};
use super::gang::{flash_job, index, is_live, live_selector};
use super::hub::{Hub, World, now};
use super::lone::is_lone;

use super::status::Counts;
use super::verdict::{Verdict, is_over, verdict};
use crate::contract::{Report, RunPhase};

/// Pause before the rest of a broken gang is deleted again, where it is still there.
const AGAIN: Duration = Duration::from_secs(1);

struct Follower {
    hub: Arc<Hub>,
    /// Objects of a list that is not complete yet.
    new: Vec<Pod>,
    started: BTreeSet<RunId>,
    ended: BTreeSet<RunId>,
    /// Runs whose rest is being deleted.
    breaking: BTreeSet<RunId>,
    away: bool,
    listed: bool,
}

/// Follows until nobody wants reports any more.
pub(super) async fn follow(hub: Arc<Hub>) {
    let client = hub.client.clone();
    let config = watcher::Config::default().page_size(500).labels(&live_selector(&hub.instance));
    let mut events = pin!(watcher(Api::<Pod>::all(client), config).backoff(Pauses::default()));
    let mut follower = Follower {
        hub: hub.clone(),
        new: Vec::new(),
        started: BTreeSet::new(),
        ended: BTreeSet::new(),
        breaking: BTreeSet::new(),
        away: false,
        listed: false,
    };
    loop {
        let going = tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => follower.take(event).await,
                Some(Err(error)) => follower.disturbed(chain(&error)).await,
                None => return,
            },
            () = hub.look.notified() => follower.look().await,
            () = hub.reports.closed() => return,
        };
        if going.is_none() {
            return;
        }
    }
}

impl Follower {
    /// `None` once nobody wants reports.
    async fn take(&mut self, event: Event<Pod>) -> Option<()> {
        match event {
            Event::Init => self.new.clear(),
            Event::InitApply(pod) => self.new.push(slim(pod)),
            Event::InitDone => {
                let mut world = World::new();
                for pod in std::mem::take(&mut self.new) {
                    put(&mut world, pod);
                }
                let before = std::mem::replace(&mut *self.hub.world(), world);
                self.away = false;
                self.listed = true;
                for pod in before.values().flat_map(|pods| pods.values()) {
                    let is_there =
                        |world: &World| run_of(&pod.metadata).and_then(|run| world.get(&run)?.get(&key(pod))).is_some();
                    if !is_there(&self.hub.world()) {
                        self.gone(pod);
                    }
                }
                let mut runs: BTreeSet<RunId> = self.hub.world().keys().copied().collect();
                runs.extend(before.into_keys());
                for run in runs {
                    self.tell(run).await?;
                }
            }
            Event::Apply(pod) => {
                let run = put(&mut self.hub.world(), slim(pod));
                if let Some(run) = run {
                    return self.tell(run).await;
                }
            }
            Event::Delete(pod) => {
                let Some(run) = run_of(&pod.metadata) else { return Some(()) };
                {
                    let mut world = self.hub.world();
                    if let Some(pods) = world.get_mut(&run) {
                        pods.remove(&key(&pod));
                        if pods.is_empty() {
                            world.remove(&run);
                        }
                    }
                }
                self.gone(&pod);
                return self.tell(run).await;
            }
        }
        Some(())
    }

    /// A pod is no more. Those of runs that are forgotten were let go by us.
    fn gone(&mut self, pod: &Pod) {
        let Some(run) = run_of(&pod.metadata) else { return };
        let is_last = !self.hub.world().contains_key(&run);
        let ours = {
            let mut runs = self.hub.runs();
            if is_last { runs.forgotten.remove(&run) } else { runs.forgotten.contains(&run) }
        };
        if is_last {
            if let Some(name) = flash_job(pod) {
                self.hub.board.uncount(&(key(pod).0, name.to_owned()));
            }
            self.started.remove(&run);
            self.ended.remove(&run);
            self.breaking.remove(&run);
        }
        if !ours && !self.hub.runs().assembling.contains_key(&run) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            self.hub.broken(run, &format!("pod {name} was removed, with its finalizer"));
        }
    }

    async fn disturbed(&mut self, message: String) -> Option<()> {
        // Once for each time that it goes away: it is tried again and again.
        if std::mem::replace(&mut self.away, true) {
            return Some(());
        }
        self.send(Report::Disturbed { message: format!("watching the cluster: {message}") }).await
    }

    async fn look(&mut self) -> Option<()> {
        for run in self.hub.to_look_at() {
            self.breaking.remove(&run);
            self.tell(run).await?;
        }
        Some(())
    }

    async fn tell(&mut self, run: RunId) -> Option<()> {
        if !self.listed || self.ended.contains(&run) {
            return Some(());
        }
        let known = {
            let runs = self.hub.runs();
            if runs.assembling.contains_key(&run) || runs.forgotten.contains(&run) {
                return Some(());
            }
            runs.known(run)
        };
        let pods: Vec<Pod> = self.hub.world().get(&run).into_iter().flat_map(|pods| pods.values().cloned()).collect();
        if pods.is_empty() {
            return self.nothing_left(run).await;
        }
        let refs: Vec<&Pod> = pods.iter().collect();
        self.count(run, &refs);
        match verdict(&refs, &known, false, now()) {
            Verdict::Goes(RunPhase::Running { since }) if self.started.insert(run) => {
                self.send(Report::Started { run, at: since }).await
            }
            Verdict::Goes(_) => Some(()),
            Verdict::Breaks => {
                self.end_the_rest(run, pods);
                Some(())
            }
            // Who deletes such a pod cancels its job. That comes as a stop, and until then nobody knows whether it is one; should it not come, the
            // reconciler finds the end.
            Verdict::Over(RunPhase::Ended { result: RunResult::Lost { .. }, .. })
                if known.stopped.is_none()
                    && pods.iter().any(|pod| is_lone(pod) && pod.metadata.deletion_timestamp.is_some()) =>
            {
                Some(())
            }
            Verdict::Over(phase) => {
                self.ended.insert(run);
                if let RunPhase::Ended { started_at: Some(at), .. } = phase
                    && self.started.insert(run)
                {
                    self.send(Report::Started { run, at }).await?;
                }
                self.hub.tell_end(run, phase).await;
                Some(())
            }
        }
    }

    /// For the status of its FlashJob.
    fn count(&self, run: RunId, pods: &[&Pod]) {
        let Some((first, name)) = pods.first().and_then(|pod| Some((pod, flash_job(pod)?))) else { return };
        let of_phase = |phase: &str| i32::try_from(pods.iter().filter(|pod| pod_phase(pod) == phase).count()).unwrap_or(i32::MAX);
        let place = |pod: &&Pod| {
            let node = pod.spec.as_ref()?.node_name.clone()?;
            Some(TaskPlacement { task: index(pod)?, pod: pod.metadata.name.clone()?, node })
        };
        let mut placements: Vec<TaskPlacement> = pods.iter().filter_map(place).collect();
        placements.sort_by_key(|placement| placement.task);
        let counts = Counts {
            active: of_phase("Running"),
            succeeded: of_phase("Succeeded"),
            failed: of_phase("Failed"),
            placements,
            started_at: started_at(pods),
        };
        self.hub.board.count(&(key(first).0, name.to_owned()), run, counts);
    }

    /// Its last pod was taken away behind our back: the reconciler says what becomes of it.
    async fn nothing_left(&self, run: RunId) -> Option<()> {
        let settled = self.hub.runs().ended.contains_key(&run);
        if settled || self.hub.runs().known(run).broken.is_none() {
            return Some(());
        }
        self.send(Report::Disturbed { message: format!("all pods of run {run} were removed") }).await
    }

    fn end_the_rest(&mut self, run: RunId, mut pods: Vec<Pod>) {
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && !is_over(pod));
        if pods.is_empty() || !self.breaking.insert(run) {
            return;
        }
        let hub = self.hub.clone();
        tokio::spawn(async move {
            if let Err(error) = hub.delete("end the rest of a gang", &pods, None).await {
                tracing::warn!(%run, %error, "a gang is not ended yet; trying again");
            }
            // Also where it went well: until the watch shows that, they look as they did, and would be deleted again and again.
            tokio::time::sleep(AGAIN).await;
            hub.look_at(run);
        });
    }

    async fn send(&self, report: Report) -> Option<()> {
        self.hub.reports.send(report).await.ok()
    }
}

/// What nobody reads is half of it.
fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod
}

fn put(world: &mut World, pod: Pod) -> Option<RunId> {
    let run = run_of(&pod.metadata)?;
    if is_live(&pod) {
        world.entry(run).or_default().insert(key(&pod), pod);
    }
    Some(run)
}
