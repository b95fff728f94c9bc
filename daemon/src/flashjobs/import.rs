//! The task that keeps FlashJobs and jobs in step: it takes what happens on either side to the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use executors::kubernetes::flashjob::{FlashJobKey, FlashJobNews, FlashJobs, Stand, is_finished, made_for};
use k8s_types::FlashJob;
use scheduler_core::ids::{JobId, Name, Revision, Seq};
use store::StoreError;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::FLASH_JOB_UID;
use super::convert::job_spec;
use super::stand::stand;
use crate::backend::{Action, BackendError, Caller, IdempotencyKey, SubmitRequest, Via};
use crate::clock;
use crate::http::App;
use crate::watch::Watch;

/// Scope of the keys: those of callers have a user's name before a colon.
const SCOPE: &str = "flashjob";
/// Who it is that cancels, holds and releases because of an object of the cluster.
const WHO: &str = "kubernetes";
/// News that wait at most.
const NEWS: usize = 1_024;
/// Events that are read together.
const EVENTS: u32 = 512;
/// How often what did not work is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// Of those times, how often one that is invalid is looked at: a queue or a node may have come.
const LOOK_EVERY: u32 = 5;

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
}

/// See the module.
pub struct Importer {
    board: Arc<FlashJobs>,
    app: Arc<App>,
    caller: Caller,
    /// By uid.
    imported: HashMap<String, Imported>,
    targets: HashMap<JobId, Target>,
    /// Generation of those that are invalid, by uid.
    invalid: HashMap<String, Option<i64>>,
    /// What could not be done yet.
    submits: HashMap<String, Arc<FlashJob>>,
    actions: Vec<(JobId, Action)>,
    /// Jobs of an earlier daemon, by the uid of their FlashJob, until all FlashJobs were told.
    earlier: HashMap<String, JobId>,
}

enum News {
    Board(FlashJobNews),
    Events,
    Tick,
}

impl Importer {
    /// Over the board of the executor and the edge of the daemon, whose rules hold for these jobs too.
    pub fn new(board: Arc<FlashJobs>, app: Arc<App>) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let caller = Caller { user: WHO.into(), uid, gid, home: None, admin: true, via: Via::Socket };
        Self {
            board,
            app,
            caller,
            imported: HashMap::new(),
            targets: HashMap::new(),
            invalid: HashMap::new(),
            submits: HashMap::new(),
            actions: Vec::new(),
            earlier: HashMap::new(),
        }
    }

    /// Until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.read_earlier().await {
                Ok(earlier) => {
                    self.earlier = earlier;
                    break;
                }
                Err(error) => tracing::warn!(%error, "FlashJobs are not imported yet: the job table is not read"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        let (sender, mut inbox) = mpsc::channel(NEWS);
        let mut board = tokio::spawn(self.board.clone().run(sender));
        let mut watch = self.app.backend.watch();
        let mut seen = watch.revision();
        let mut tick = tokio::time::interval(AGAIN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            let news = tokio::select! {
                () = stop.cancelled() => break,
                _ = &mut board => return tracing::error!("FlashJobs are not followed any more"),
                Some(news) = inbox.recv() => News::Board(news),
                going = watch.beyond(seen) => if going { News::Events } else { break },
                _ = tick.tick() => News::Tick,
            };
            match news {
                News::Board(FlashJobNews::Applied(job)) => self.applied(job).await,
                News::Board(FlashJobNews::Gone(job)) => self.gone(&job).await,
                News::Board(FlashJobNews::Listed) => self.find_gone().await,
                News::Events => seen = self.events(&watch, seen).await,
                News::Tick => {
                    ticks = ticks.wrapping_add(1);
                    self.again(ticks.is_multiple_of(LOOK_EVERY)).await;
                }
            }
        }
        board.abort();
    }

    async fn applied(&mut self, job: Arc<FlashJob>) {
        let Some(uid) = job.metadata.uid.clone() else { return };
        if let Some(id) = made_for(&job) {
            if !is_finished(&job) && !self.targets.contains_key(&id) {
                self.follow(id, key_of(&job), None).await;
            }
            return;
        }
        if is_finished(&job) {
            return;
        }
        if job.metadata.deletion_timestamp.is_some() {
            // A finalizer of somebody else keeps the object; it is to go all the same.
            return self.gone(&job).await;
        }
        let hold = job.spec.suspend.unwrap_or(false);
        if let Some(imported) = self.imported.get_mut(&uid) {
            if std::mem::replace(&mut imported.held, hold) != hold {
                let id = imported.job;
                self.act(id, if hold { Action::Hold } else { Action::Release }).await;
            }
            return;
        }
        if self.invalid.get(&uid) == Some(&job.metadata.generation) {
            return;
        }
        self.import(uid, job).await;
    }

    async fn import(&mut self, uid: String, job: Arc<FlashJob>) {
        self.submits.remove(&uid);
        match self.submit(&uid, &job).await {
            Ok(id) => {
                self.invalid.remove(&uid);
                let held = job.spec.suspend.unwrap_or(false);
                self.imported.insert(uid.clone(), Imported { job: id, held });
                self.follow(id, key_of(&job), Some(uid)).await;
            }
            Err(Ok(message)) => {
                self.invalid.insert(uid.clone(), job.metadata.generation);
                self.board.say(&key_of(&job), JobId(uuid::Uuid::nil()), Some(uid), Stand::Invalid(message));
            }
            Err(Err(error)) => {
                tracing::debug!(%error, uid, "a FlashJob is not submitted yet");
                self.submits.insert(uid, job);
            }
        }
    }

    /// Its job; else what is wrong with it, or why it could not be asked now.
    async fn submit(&self, uid: &str, job: &FlashJob) -> Result<JobId, Result<String, BackendError>> {
        if let Some(id) = self.earlier.get(uid) {
            return Ok(*id);
        }
        let known = self.app.backend.store().key(SCOPE, uid).await.map_err(|error| Err(error.into()))?;
        if let Some(id) = known.and_then(|known| known.jobs.first().copied()) {
            return Ok(id);
        }
        let spec = job_spec(job).map_err(Ok)?;
        let wrong = |invalid: crate::http::admission::Invalid| match invalid.path.as_str() {
            "" => invalid.detail,
            path => format!("{path}: {}", invalid.detail),
        };
        let admitted =
            self.app.admission.admit_flash_job(spec, &self.caller, clock::now()).map_err(|invalid| Ok(wrong(invalid)))?;
        // One key is one object: what its spec says later changes nothing of that.
        let key = IdempotencyKey { scope: SCOPE.to_owned(), key: uid.to_owned(), fingerprint: [0; 32] };
        match self.app.backend.submit(SubmitRequest { jobs: vec![admitted], key: Some(key) }).await {
            Ok(ids) => ids.first().copied().ok_or(Err(BackendError::NotFound)),
            Err(BackendError::Refused { refused, .. }) => Err(Ok(refused.to_string())),
            Err(other) => Err(Err(other)),
        }
    }

    /// From now on its FlashJob is told how this job stands.
    async fn follow(&mut self, id: JobId, key: FlashJobKey, uid: Option<String>) {
        match self.app.backend.store().job(id).await {
            Ok(Some(record)) => {
                self.board.say(&key, id, uid.clone(), stand(&record.lifecycle, record.queue.as_str()));
                if !matches!(record.lifecycle.state, scheduler_core::state::JobState::Finished { .. }) {
                    self.targets.insert(id, Target { key, uid, queue: record.queue });
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, job = %id, "how a job stands is not known yet");
                // Its next event tells.
                self.targets.insert(id, Target { key, uid, queue: Name::from("") });
            }
        }
    }

    async fn gone(&mut self, job: &FlashJob) {
        let uid = job.metadata.uid.clone().unwrap_or_default();
        self.submits.remove(&uid);
        self.invalid.remove(&uid);
        let id = self.imported.remove(&uid).map(|imported| imported.job).or_else(|| made_for(job));
        if let Some(id) = id {
            self.targets.remove(&id);
            self.act(id, Action::Cancel).await;
        }
    }

    /// Jobs that were imported earlier and are not finished. Keys are forgotten after a while; these may wait for longer.
    async fn read_earlier(&self) -> Result<HashMap<String, JobId>, StoreError> {
        let (mut earlier, mut after) = (HashMap::new(), Seq(0));
        loop {
            let page = self.app.backend.store().live(after, EVENTS).await?;
            let Some(last) = page.last().map(|job| job.seq) else { return Ok(earlier) };
            let ids: Vec<JobId> = page.iter().map(|job| job.id).collect();
            let records = self.app.backend.store().jobs_by_id(&ids).await?;
            earlier.extend(records.into_iter().filter_map(|record| Some((uid_of(&record.spec)?, record.id))));
            after = last;
        }
    }

    /// Cancels jobs whose FlashJob was deleted while nobody looked. Later deletions are told.
    async fn find_gone(&mut self) {
        let there: HashSet<String> = self.board.all().iter().filter_map(|job| job.metadata.uid.clone()).collect();
        for (uid, job) in std::mem::take(&mut self.earlier) {
            if !there.contains(&uid) {
                self.act(job, Action::Cancel).await;
            }
        }
    }

    async fn act(&mut self, job: JobId, action: Action) {
        match self.app.backend.act(job, action, WHO.into()).await {
            // What is so already, or is over, is as it should be.
            Ok(()) | Err(BackendError::Rejected(_) | BackendError::NotFound) => {}
            Err(error) => {
                tracing::debug!(%error, %job, "to be tried again");
                self.actions.push((job, action));
            }
        }
    }

    async fn events(&mut self, watch: &Watch, seen: Revision) -> Revision {
        match watch.read(seen, EVENTS, self.app.backend.store()).await {
            Ok(events) => {
                for event in events.iter().filter_map(|entry| entry.job()) {
                    let Some(target) = self.targets.get(&event.job) else { continue };
                    let stand = stand(&event.lifecycle, target.queue.as_str());
                    let is_over = matches!(stand, Stand::Succeeded { .. } | Stand::Failed { .. });
                    self.board.say(&target.key, event.job, target.uid.clone(), stand);
                    if is_over {
                        self.targets.remove(&event.job);
                    }
                }
                events.last().map_or(seen, |last| last.revision())
            }
            Err(StoreError::Compacted { .. }) => {
                let now = watch.revision();
                for (id, target) in std::mem::take(&mut self.targets) {
                    self.follow(id, target.key, target.uid).await;
                }
                now
            }
            Err(error) => {
                tracing::warn!(%error, "events of jobs are not read");
                tokio::time::sleep(AGAIN).await;
                seen
            }
        }
    }

    async fn again(&mut self, invalid_too: bool) {
        for (job, action) in std::mem::take(&mut self.actions) {
            self.act(job, action).await;
        }
        for (uid, job) in std::mem::take(&mut self.submits) {
            self.import(uid, job).await;
        }
        if invalid_too && !self.invalid.is_empty() {
            for job in self.board.all() {
                let uid = job.metadata.uid.clone().unwrap_or_default();
                if self.invalid.contains_key(&uid) {
                    self.import(uid, job).await;
                }
            }
        }
    }
}

fn key_of(job: &FlashJob) -> FlashJobKey {
    (job.metadata.namespace.clone().unwrap_or_default(), job.metadata.name.clone().unwrap_or_default())
}

/// The FlashJob that a stored job was made of.
fn uid_of(spec: &[u8]) -> Option<String> {
    let spec: api::JobSpec = serde_json::from_slice(spec).ok()?;
    spec.annotations.get(FLASH_JOB_UID).cloned()
}
