//! Follows Jobs and pods, and tells what becomes of runs.
//!
//! The watcher resumes with bookmarks and lists anew when its version is too old (410). What vanished while nobody watched is found by that
//! list, and said as a disturbance: the reconciler then compares the table with the world.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use tokio::sync::mpsc;

use super::error::chain;
use super::executor::Shared;
use super::manifest::selector;
use super::pauses::Pauses;
use super::world::{NodeViews, World};
use crate::contract::{Report, RunPhase};

/// One of the two streams.
#[expect(clippy::large_enum_variant, reason = "the large ones are the common ones, and each is moved once")]
enum News {
    Job(Event<Job>),
    Pod(Event<Pod>),
    Away(String),
}

/// What is told from here on.
pub(super) struct Follower {
    shared: Arc<Shared>,
    reports: mpsc::Sender<Report>,
    world: World,
    /// Objects of a list that is not complete yet.
    new_jobs: Vec<Job>,
    new_pods: Vec<Pod>,
    started: BTreeSet<RunId>,
    ended: BTreeSet<RunId>,
    away: bool,
    /// Of each kind, a list is complete: before that a Job would look as if its pods were lost.
    listed: (bool, bool),
}

/// Follows until nobody wants reports any more.
pub(super) async fn follow(client: Client, shared: Arc<Shared>, nodes: Option<NodeViews>, reports: mpsc::Sender<Report>) {
    let config = watcher::Config::default().labels(&selector(&shared.instance)).page_size(500);
    let jobs = watcher(Api::<Job>::all(client.clone()), config.clone()).backoff(Pauses::default());
    let pods = watcher(Api::<Pod>::all(client), config).backoff(Pauses::default());
    let news = futures::stream::select(
        jobs.map(|event| event.map_or_else(|error| News::Away(chain(&error)), News::Job)),
        pods.map(|event| event.map_or_else(|error| News::Away(chain(&error)), News::Pod)),
    );
    let mut news = pin!(news);
    let mut follower = Follower {
        shared,
        reports: reports.clone(),
        world: World::with_nodes(nodes),
        new_jobs: Vec::new(),
        new_pods: Vec::new(),
        started: BTreeSet::new(),
        ended: BTreeSet::new(),
        away: false,
        listed: (false, false),
    };
    loop {
        let event = tokio::select! {
            event = news.next() => event,
            () = reports.closed() => return,
        };
        let Some(event) = event else { return };
        if follower.take(event).await.is_none() {
            return;
        }
    }
}

impl Follower {
    /// `None` once nobody wants reports.
    async fn take(&mut self, news: News) -> Option<()> {
        let run = match news {
            News::Away(message) => return self.disturbed(message).await,
            News::Job(Event::Init) => {
                self.new_jobs.clear();
                None
            }
            News::Job(Event::InitApply(job)) => {
                self.new_jobs.push(job);
                None
            }
            News::Job(Event::InitDone) => return self.listed_jobs().await,
            News::Job(Event::Apply(job)) => self.world.put_job(job),
            News::Job(Event::Delete(job)) => {
                let gone = self.world.drop_job(&job);
                return match gone {
                    Some(run) => self.gone(&[run]).await,
                    None => Some(()),
                };
            }
            News::Pod(Event::Init) => {
                self.new_pods.clear();
                None
            }
            News::Pod(Event::InitApply(pod)) => {
                self.new_pods.push(pod);
                None
            }
            News::Pod(Event::InitDone) => {
                self.world.set_pods(std::mem::take(&mut self.new_pods));
                self.away = false;
                self.listed.1 = true;
                return self.tell_all().await;
            }
            News::Pod(Event::Apply(pod)) => self.world.put_pod(pod),
            News::Pod(Event::Delete(pod)) => self.world.drop_pod(&pod),
        };
        match run {
            Some(run) => self.tell(run).await,
            None => Some(()),
        }
    }

    async fn disturbed(&mut self, message: String) -> Option<()> {
        // Once for each time that it goes away: it is tried again and again.
        if std::mem::replace(&mut self.away, true) {
            return Some(());
        }
        self.send(Report::Disturbed { message: format!("watching the cluster: {message}") }).await
    }

    async fn listed_jobs(&mut self) -> Option<()> {
        let gone = self.world.set_jobs(std::mem::take(&mut self.new_jobs));
        self.away = false;
        self.listed.0 = true;
        self.gone(&gone).await?;
        self.tell_all().await
    }

    /// Jobs that somebody deleted. Those whose end was told are deleted by us.
    async fn gone(&mut self, runs: &[RunId]) -> Option<()> {
        for run in runs {
            self.started.remove(run);
            self.ended.remove(run);
            if !self.shared.is_gone(*run) {
                self.send(Report::Disturbed { message: format!("the Job of run {run} was deleted") }).await?;
            }
        }
        Some(())
    }

    async fn tell_all(&mut self) -> Option<()> {
        for run in self.world.runs() {
            self.tell(run).await?;
        }
        Some(())
    }

    async fn tell(&mut self, run: RunId) -> Option<()> {
        if self.world.job(run).is_none() || self.ended.contains(&run) || self.listed != (true, true) {
            return Some(());
        }
        match self.world.phase(run) {
            Some(RunPhase::Running { since }) if self.started.insert(run) => self.send(Report::Started { run, at: since }).await,
            // The two streams are not in step: what looks like lost pods may be pods that have not been told yet. A list knows.
            Some(RunPhase::Ended { result: RunResult::Lost { message }, .. }) if !self.shared.is_settled(run) => {
                self.send(Report::Disturbed { message: format!("run {run}: {message}") }).await
            }
            Some(phase @ RunPhase::Ended { .. }) => {
                // Whoever looked first has decided how it went: pods may be gone by the time of the next look.
                let RunPhase::Ended { result, started_at, at } = self.shared.settle(run, phase) else { return Some(()) };
                self.ended.insert(run);
                if let Some(at) = started_at
                    && self.started.insert(run)
                {
                    self.send(Report::Started { run, at }).await?;
                }
                self.send(Report::Ended { run, result, started_at, at }).await
            }
            _ => Some(()),
        }
    }

    async fn send(&self, report: Report) -> Option<()> {
        self.reports.send(report).await.ok()
    }
}
