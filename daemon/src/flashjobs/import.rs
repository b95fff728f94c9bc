//! FlashJobs and their jobs: what happens on either side is taken to the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use executors::kubernetes::flashjob::{FlashJobKey, FlashJobs, Stand, is_finished, made_for};
use executors::kubernetes::lease::Leadership;
use executors::kubernetes::{News, ObjectKey};
use k8s_types::FlashJob;
use scheduler_core::ids::{Attempt, JobId, Name, RunId};
use scheduler_core::state::{JobState, Lifecycle, WaitFor};
use store::{EventRecord, StoreError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::FLASH_JOB_UID;
use super::compared::Compared;
use super::convert::job_spec;
use super::depends::{Readiness, depend, readiness};
use super::link::{Kind, Link, NotSubmitted, Side, WHO, keep_in_step};
use super::stand::stand;
use crate::backend::Action;
use crate::engine::run_of;
use crate::http::App;

/// What FlashJobs are here.
const KIND: Kind = Kind { scope: "flashjob", uid: FLASH_JOB_UID, deleted: "kubernetes: its FlashJob was deleted" };

/// A FlashJob that has a job.
struct Imported {
    job: JobId,
    held: bool,
}

/// Where the status of a job goes.
struct Target {
    key: FlashJobKey,
    uid: Option<String>,
    queue: Name,
    /// So many of its tasks were placed last, as far as is known.
    tasks: usize,
}

/// See the module.
pub struct Importer {
    board: Arc<FlashJobs>,
    link: Link,
    /// By uid.
    imported: HashMap<String, Imported>,
    targets: HashMap<JobId, Target>,
    /// Whether a FlashJob that says so was made for a job, by uid.
    made: HashMap<String, bool>,
    /// Those that wait for others, by key, and for what.
    depending: BTreeMap<ObjectKey, (Arc<FlashJob>, String)>,
    /// Generation of those that are invalid, by uid.
    invalid: HashMap<String, Option<i64>>,
    /// What could not be done yet.
    submits: HashMap<String, Arc<FlashJob>>,
}

impl Importer {
    /// Over the board of the executor and the edge of the daemon, whose rules hold for these jobs too.
    pub fn new(board: Arc<FlashJobs>, app: Arc<App>, leadership: Leadership, compared: Arc<Compared>) -> Self {
        Self {
            board,
            link: Link::new(app, leadership, &KIND, compared),
            imported: HashMap::new(),
            targets: HashMap::new(),
            made: HashMap::new(),
            depending: BTreeMap::new(),
            invalid: HashMap::new(),
            submits: HashMap::new(),
        }
    }

    /// Until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        keep_in_step(self, stop).await;
    }

    async fn import(&mut self, uid: String, job: Arc<FlashJob>) {
        self.submits.remove(&uid);
        match self.link.submit(&uid, job_spec(&job)).await {
            Ok(id) => {
                self.invalid.remove(&uid);
                self.imported.insert(uid.clone(), Imported { job: id, held: job.spec.suspend.unwrap_or(false) || depend(&job) });
                self.settle(&uid, &job).await;
                self.follow(id, key_of(&job), Some(uid)).await;
            }
            Err(NotSubmitted::Wrong(message)) => {
                self.invalid.insert(uid.clone(), job.metadata.generation);
                let none = RunId { job: JobId(uuid::Uuid::nil()), attempt: Attempt(0) };
                self.board.say(&key_of(&job), none, Some(uid), Stand::Invalid(message));
            }
            Err(NotSubmitted::NotNow(error)) => {
                tracing::debug!(%error, uid, "a FlashJob is not submitted yet");
                self.submits.insert(uid, job);
            }
        }
    }

    /// Whether it is held now is as it should be.
    async fn settle(&mut self, uid: &str, job: &Arc<FlashJob>) {
        let ready = readiness(job, |key| self.board.find(key));
        let key = key_of(job);
        let hold = match ready {
            Readiness::Ready => {
                self.depending.remove(&key);
                job.spec.suspend.unwrap_or(false)
            }
            Readiness::Waits(why) => {
                self.depending.insert(key, (job.clone(), why));
                true
            }
            Readiness::Never(why) => {
                self.depending.remove(&key);
                if let Some(id) = self.imported.get(uid).map(|imported| imported.job) {
                    self.link.act(id, Action::Cancel, &why).await;
                }
                return;
            }
        };
        let Some(imported) = self.imported.get_mut(uid) else { return };
        if std::mem::replace(&mut imported.held, hold) != hold {
            let id = imported.job;
            self.link.act(id, if hold { Action::Hold } else { Action::Release }, WHO).await;
        }
    }

    /// Those that wait for others are looked at again; only those that wait for this one, where it is said.
    async fn settle_all(&mut self, of: Option<&FlashJob>) {
        let waits_for = |job: &FlashJob, of: &FlashJob| {
            let is_it = |name: &str| of.metadata.name.as_deref() == Some(name);
            job.metadata.namespace == of.metadata.namespace && job.spec.depends_on.iter().any(|other| is_it(&other.name))
        };
        let all = self.depending.values().map(|(job, _)| job);
        let depending: Vec<Arc<FlashJob>> = all.filter(|job| of.is_none_or(|of| waits_for(job, of))).cloned().collect();
        for job in depending {
            let uid = job.metadata.uid.clone().unwrap_or_default();
            let before = self.waits_for(&key_of(&job));
            self.settle(&uid, &job).await;
            if let Some(id) =
                self.imported.get(&uid).map(|imported| imported.job).filter(|_| before != self.waits_for(&key_of(&job)))
            {
                self.follow(id, key_of(&job), Some(uid)).await;
            }
        }
    }

    /// Somebody deletes the FlashJob that was made for a job. It stays until the end of that is on record.
    async fn goes(&mut self, id: JobId, job: &FlashJob) {
        match self.link.record(id).await {
            Ok(None) => self.board.let_go(job),
            Ok(Some(_)) | Err(_) => self.link.cancel(id).await,
        }
    }

    /// The job that a FlashJob was made for by us. One that was copied to another namespace says so too, and is somebody else's.
    async fn made(&mut self, job: &FlashJob) -> Result<Option<JobId>, StoreError> {
        let (Some(id), Some(uid)) = (made_for(job), &job.metadata.uid) else { return Ok(None) };
        if let Some(is_made) = self.made.get(uid) {
            return Ok(is_made.then_some(id));
        }
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        // Of one that is not in the table nobody knows better.
        let is_made = self.link.record(id).await?.is_none_or(|record| record.namespace.as_str() == namespace);
        self.made.insert(uid.clone(), is_made);
        Ok(is_made.then_some(id))
    }

    fn waits_for(&self, key: &ObjectKey) -> Option<String> {
        self.depending.get(key).map(|(_, why)| why.clone())
    }

    /// From now on its FlashJob is told how this job stands.
    async fn follow(&mut self, id: JobId, key: FlashJobKey, uid: Option<String>) {
        match self.link.record(id).await {
            Ok(Some(record)) => {
                let placement = record.lifecycle.state.placement().or(record.last_placement.as_ref());
                let tasks = placement.map_or(0, |placement| placement.slots.len());
                let target = Target { key, uid, queue: record.queue, tasks };
                self.say(id, &target, &record.lifecycle);
                if !matches!(record.lifecycle.state, JobState::Finished { .. }) {
                    self.targets.insert(id, target);
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, job = %id, "how a job stands is not known yet");
                // Its next event tells.
                self.targets.insert(id, Target { key, uid, queue: Name::from(""), tasks: 0 });
            }
        }
    }

    /// Tells a FlashJob how its job stands; whether that was the last word.
    fn say(&self, id: JobId, target: &Target, lifecycle: &Lifecycle) -> bool {
        let stand = match (&lifecycle.state, self.waits_for(&target.key)) {
            (JobState::Waiting { on: WaitFor::Hold }, Some(why)) => Stand::Waiting(why),
            _ => stand(lifecycle, target.queue.as_str(), target.tasks),
        };
        let is_over = matches!(stand, Stand::Succeeded { .. } | Stand::Failed { .. });
        self.board.say(&target.key, run_of(id, lifecycle), target.uid.clone(), stand);
        is_over
    }
}

impl Side for Importer {
    type Object = FlashJob;

    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn source(&self, news: mpsc::Sender<News<FlashJob>>) -> impl Future<Output = ()> + Send + 'static {
        self.board.clone().run(news)
    }

    async fn applied(&mut self, job: Arc<FlashJob>) {
        let Some(uid) = job.metadata.uid.clone() else { return };
        if is_finished(&job) && !self.depending.is_empty() {
            self.settle_all(Some(&job)).await;
        }
        let made = match self.made(&job).await {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(%error, uid, "whose a FlashJob is, is not known yet");
                self.submits.insert(uid, job);
                return;
            }
        };
        if let Some(id) = made {
            if !is_finished(&job) && !self.targets.contains_key(&id) {
                self.follow(id, key_of(&job), None).await;
            }
            if !is_finished(&job) && job.metadata.deletion_timestamp.is_some() {
                self.goes(id, &job).await;
            }
            return;
        }
        if is_finished(&job) {
            return;
        }
        if job.metadata.deletion_timestamp.is_some() {
            if made_for(&job).is_some() {
                // A copy of one of ours has our finalizer, too, and no job that it was made for.
                self.board.let_go(&job);
            }
            // A finalizer of somebody else keeps the object; it is to go all the same.
            return self.gone(&job).await;
        }
        if self.imported.contains_key(&uid) {
            return self.settle(&uid, &job).await;
        }
        if self.invalid.get(&uid) == Some(&job.metadata.generation) {
            return;
        }
        self.import(uid, job).await;
    }

    async fn gone(&mut self, job: &FlashJob) {
        let uid = job.metadata.uid.clone().unwrap_or_default();
        self.submits.remove(&uid);
        self.invalid.remove(&uid);
        self.depending.remove(&key_of(job));
        let made = self.made(job).await.ok().flatten();
        self.made.remove(&uid);
        let imported = self.imported.remove(&uid).map(|imported| imported.job).or(made);
        if let Some(id) = self.link.of_gone(&uid, imported).await {
            self.targets.remove(&id);
            self.link.cancel(id).await;
        }
    }

    async fn listed(&mut self) {
        let there: HashSet<String> = self.board.all().iter().filter_map(|job| job.metadata.uid.clone()).collect();
        self.link.cancel_gone(&there).await;
        self.settle_all(None).await;
    }

    async fn event(&mut self, event: &EventRecord) {
        let Some(target) = self.targets.get_mut(&event.job) else { return };
        if let Some(placement) = event.lifecycle.state.placement() {
            target.tasks = placement.slots.len();
        }
        if self.targets.get(&event.job).is_some_and(|target| self.say(event.job, target, &event.lifecycle)) {
            self.targets.remove(&event.job);
        }
    }

    async fn read_anew(&mut self) {
        for (id, target) in std::mem::take(&mut self.targets) {
            self.follow(id, target.key, target.uid).await;
        }
    }

    async fn again(&mut self, wrong_too: bool) {
        for (_, job) in std::mem::take(&mut self.submits) {
            self.applied(job).await;
        }
        if !wrong_too {
            return;
        }
        self.settle_all(None).await;
        if self.invalid.is_empty() {
            return;
        }
        for job in self.board.all() {
            let uid = job.metadata.uid.clone().unwrap_or_default();
            if self.invalid.contains_key(&uid) {
                self.import(uid, job).await;
            }
        }
    }
}

fn key_of(job: &FlashJob) -> FlashJobKey {
    (job.metadata.namespace.clone().unwrap_or_default(), job.metadata.name.clone().unwrap_or_default())
}
