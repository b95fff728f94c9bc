//! Pods that somebody gave to our scheduler without a FlashJob, and their jobs of one: what happens on either side is taken to the other.
//!
//! What must hold:
//! - The end of either ends the other: a pod that is deleted cancels its job, a job that is cancelled deletes its pod.
//! - A pod that is bound and has no job here was bound by somebody else: it takes room, and nothing more.
//! - A pod that waits says why, in the words of `flash why`; the core is asked for a few of them at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use executors::kubernetes::News;
use executors::kubernetes::flashjob::{LonePods, has_ended, has_node, is_gated};
use executors::kubernetes::lease::Leadership;
use k8s_openapi::api::core::v1::Pod;
use scheduler_core::ids::JobId;
use scheduler_core::state::{JobState, Lifecycle, Outcome};
use store::EventRecord;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::POD_UID;
use super::compared::Compared;
use super::convert::pod_job_spec;
use super::link::{Kind, Link, NotSubmitted, Side, WHO, keep_in_step};
use crate::backend::Action;
use crate::http::{App, why};

/// What pods are here.
const KIND: Kind = Kind { scope: "pod", uid: POD_UID, deleted: "kubernetes: its pod was deleted" };
/// Least time between two questions why one pod waits.
const APART: Duration = Duration::from_secs(20);
/// Pods for which that is asked at a time.
const ASKED: usize = 16;

/// A pod that has a job.
struct Imported {
    pod: Arc<Pod>,
    job: JobId,
    held: bool,
    /// When it is to be said why it waits, if it does.
    say_at: Option<Instant>,
}

/// See the module.
pub struct PodImporter {
    pods: Arc<LonePods>,
    link: Link,
    /// By uid.
    imported: BTreeMap<String, Imported>,
    uids: HashMap<JobId, String>,
    /// Whose spec says something that is not possible.
    invalid: HashSet<String>,
    /// What could not be done yet.
    submits: HashMap<String, Arc<Pod>>,
    deletions: Vec<Arc<Pod>>,
}

impl PodImporter {
    /// Over the pods of the executor and the edge of the daemon, whose rules hold for these jobs too.
    pub fn new(pods: Arc<LonePods>, app: Arc<App>, leadership: Leadership, compared: Arc<Compared>) -> Self {
        Self {
            pods,
            link: Link::new(app, leadership, &KIND, compared),
            imported: BTreeMap::new(),
            uids: HashMap::new(),
            invalid: HashSet::new(),
            submits: HashMap::new(),
            deletions: Vec::new(),
        }
    }

    /// Until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        keep_in_step(self, stop).await;
    }

    async fn import(&mut self, uid: String, pod: Arc<Pod>) {
        self.submits.remove(&uid);
        let submitted = if has_node(&pod) {
            // Somebody has bound it already: if that was us there is a job.
            match self.link.known(&uid).await {
                Ok(Some(id)) => Ok(id),
                Ok(None) => return,
                Err(error) => Err(NotSubmitted::NotNow(error)),
            }
        } else {
            self.link.submit(&uid, pod_job_spec(&pod)).await
        };
        match submitted {
            Ok(job) => {
                self.invalid.remove(&uid);
                self.uids.insert(job, uid.clone());
                self.imported.insert(uid, Imported { held: is_gated(&pod), pod, job, say_at: None });
                self.look(job).await;
            }
            Err(NotSubmitted::Wrong(message)) => {
                self.invalid.insert(uid);
                self.pods.say(&pod, &message).await;
            }
            Err(NotSubmitted::NotNow(error)) => {
                tracing::debug!(%error, uid, "a pod is not submitted yet");
                self.submits.insert(uid, pod);
            }
        }
    }

    /// How its job stands now.
    async fn look(&mut self, job: JobId) {
        match self.link.record(job).await {
            Ok(Some(record)) => self.stands(job, &record.lifecycle).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, %job, "how a job stands is not known yet"),
        }
    }

    async fn stands(&mut self, job: JobId, lifecycle: &Lifecycle) {
        let Some(imported) = self.uids.get(&job).and_then(|uid| self.imported.get_mut(uid)) else { return };
        // The first answer comes with the next tick: most are placed by then.
        imported.say_at = matches!(lifecycle.state, JobState::Queued { .. }).then(Instant::now);
        let JobState::Finished { outcome, .. } = &lifecycle.state else { return };
        let pod = imported.pod.clone();
        match &**outcome {
            Outcome::Cancelled { .. } => self.delete(pod).await,
            Outcome::Failed { .. } => {
                // One that never ran would wait for ever without a word.
                let message = crate::http::view::outcome(outcome).message.unwrap_or_default();
                self.pods.say(&pod, &format!("its job has failed: {message}")).await;
            }
            Outcome::Succeeded => {}
        }
    }

    async fn delete(&mut self, pod: Arc<Pod>) {
        if has_ended(&pod) || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        if let Err(error) = self.pods.delete(&pod).await {
            tracing::debug!(error, "to be tried again");
            self.deletions.push(pod);
        }
    }

    /// Says of a few that wait why they do.
    async fn say_why(&mut self) {
        let now = Instant::now();
        let due = self.imported.values_mut().filter(|imported| imported.say_at.is_some_and(|at| at <= now)).take(ASKED);
        let mut asked = Vec::new();
        for imported in due {
            imported.say_at = Some(now + APART);
            asked.push((imported.job, imported.pod.clone()));
        }
        for (job, pod) in asked {
            match why::answer(&*self.link.app.backend, job).await {
                Ok(why) if why.state == api::State::Queued => self.pods.say(&pod, &why.message).await,
                Ok(_) => {}
                Err(error) => tracing::debug!(?error, %job, "why a pod waits is not known"),
            }
        }
    }
}

impl Side for PodImporter {
    type Object = Pod;

    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn source(&self, news: mpsc::Sender<News<Pod>>) -> impl Future<Output = ()> + Send + 'static {
        self.pods.clone().run(news)
    }

    async fn applied(&mut self, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if pod.metadata.deletion_timestamp.is_some() {
            return self.gone(&pod).await;
        }
        if has_ended(&pod) {
            // Its run tells how. Without one there was none.
            if let Some(imported) = self.imported.get_mut(&uid) {
                imported.pod = pod;
            }
            return;
        }
        let Some(imported) = self.imported.get_mut(&uid) else {
            if !self.invalid.contains(&uid) {
                self.import(uid, pod).await;
            }
            return;
        };
        let held = is_gated(&pod);
        imported.pod = pod;
        if std::mem::replace(&mut imported.held, held) != held {
            let job = imported.job;
            self.link.act(job, if held { Action::Hold } else { Action::Release }, WHO).await;
        }
    }

    async fn gone(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.submits.remove(&uid);
        self.invalid.remove(&uid);
        let imported = self.imported.remove(&uid).map(|imported| imported.job);
        // What ended by itself before is told by its run, with the time of that: the job ends so, whichever comes first.
        if let Some(job) = self.link.of_gone(&uid, imported).await {
            self.uids.remove(&job);
            self.link.cancel(job).await;
        }
    }

    async fn listed(&mut self) {
        let there: HashSet<String> = self.pods.all().iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        self.link.cancel_gone(&there).await;
    }

    async fn event(&mut self, event: &EventRecord) {
        self.stands(event.job, &event.lifecycle).await;
    }

    async fn read_anew(&mut self) {
        let jobs: Vec<JobId> = self.uids.keys().copied().collect();
        for job in jobs {
            self.look(job).await;
        }
    }

    async fn again(&mut self, wrong_too: bool) {
        for (uid, pod) in std::mem::take(&mut self.submits) {
            self.import(uid, pod).await;
        }
        for pod in std::mem::take(&mut self.deletions) {
            self.delete(pod).await;
        }
        self.say_why().await;
        if !wrong_too || self.invalid.is_empty() {
            return;
        }
        for pod in self.pods.all() {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if self.invalid.contains(&uid) {
                self.import(uid, pod).await;
            }
        }
    }
}
