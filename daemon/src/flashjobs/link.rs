//! What keeps objects of one kind and their jobs in step, whatever kind it is: how jobs are submitted, ended and read through the edge of the
//! daemon, and the loop that takes what happens on either side to the other.
//!
//! What must hold:
//! - Only the daemon that holds the Lease imports: another one has a job table of its own, and would run everything twice.
//! - An object becomes one job, however often it is seen: its UID is the idempotency key.
//! - What is asked of the daemon and does not work now is asked again.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::JobSpec;
use executors::kubernetes::News;
use executors::kubernetes::lease::{Leadership, LeaseState};
use scheduler_core::ids::{JobId, Name, Revision, Seq};
use store::{EventRecord, JobRecord, StoreError};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::compared::Compared;
use crate::backend::{Action, BackendError, Caller, IdempotencyKey, SubmitRequest, Via};
use crate::clock;
use crate::http::App;
use crate::http::why::words;
use crate::watch::Watch;

/// Who it is that holds and releases because of an object of the cluster; who cancels says why, too.
pub(super) const WHO: &str = "kubernetes";
/// News that wait at most.
pub(super) const NEWS: usize = 1_024;
/// Events, or jobs, that are read together.
const PAGE: u32 = 512;
/// How often what did not work is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);
/// Of those times, how often what is invalid is looked at: a queue or a node may have come.
const LOOK_EVERY: u32 = 5;

/// Why there is no job.
pub(super) enum NotSubmitted {
    /// What is wrong with the object.
    Wrong(String),
    /// It could not be asked now.
    NotNow(BackendError),
}

/// What objects of one kind are here.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// Scope of the keys: those of callers have a user's name before a colon.
    pub(super) scope: &'static str,
    /// Annotation of a job with the uid of its object.
    pub(super) uid: &'static str,
    /// Who cancels a job whose object was deleted, and why.
    pub(super) deleted: &'static str,
}

/// To the rest of the daemon.
pub(super) struct Link {
    pub(super) app: Arc<App>,
    leadership: Leadership,
    caller: Caller,
    /// Scope of the keys: those of callers have a user's name before a colon.
    scope: &'static str,
    /// Annotation of a job with the uid of its object.
    uid: &'static str,
    /// Who cancels a job whose object was deleted, and why.
    deleted: &'static str,
    /// Is told once all that there are were compared with the jobs.
    compared: Option<Arc<Compared>>,
    /// Jobs of an earlier daemon, by the uid of their object, until all objects were told.
    earlier: HashMap<String, JobId>,
    /// What could not be done yet.
    actions: Vec<(JobId, Action, Name)>,
}

impl Link {
    pub(super) fn new(app: Arc<App>, leadership: Leadership, kind: &Kind, compared: Arc<Compared>) -> Self {
        let caller = Caller {
            user: WHO.into(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            home: None,
            admin: true,
            via: Via::Socket,
        };
        let (Kind { scope, uid, deleted }, compared) = (*kind, Some(compared));
        Self { app, leadership, caller, scope, uid, deleted, compared, earlier: HashMap::new(), actions: Vec::new() }
    }

    /// Waits for the Lease, and reads what was imported earlier. False if there is nothing to be done any more.
    async fn begin(&mut self, stop: &CancellationToken) -> bool {
        if !leads(&self.leadership, stop).await {
            return false;
        }
        while !stop.is_cancelled() {
            match self.read_earlier().await {
                Ok(earlier) => {
                    self.earlier = earlier;
                    return true;
                }
                Err(error) => tracing::warn!(%error, self.scope, "nothing is imported yet: the job table is not read"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        false
    }

    /// Jobs that were imported earlier and are not finished. Keys are forgotten after a while; these may wait for longer.
    async fn read_earlier(&self) -> Result<HashMap<String, JobId>, StoreError> {
        let (mut earlier, mut after) = (HashMap::new(), Seq(0));
        loop {
            let page = self.app.backend.store().live(after, PAGE).await?;
            let Some(last) = page.last().map(|job| job.seq) else { return Ok(earlier) };
            let ids: Vec<JobId> = page.iter().map(|job| job.id).collect();
            let records = self.app.backend.store().jobs_by_id(&ids).await?;
            earlier.extend(records.into_iter().filter_map(|record| Some((self.uid_of(&record.spec)?, record.id))));
            after = last;
        }
    }

    /// The object that a stored job was made of.
    fn uid_of(&self, spec: &[u8]) -> Option<String> {
        let spec: JobSpec = serde_json::from_slice(spec).ok()?;
        spec.annotations.get(self.uid).cloned()
    }

    /// The job that an object has already.
    pub(super) async fn known(&self, uid: &str) -> Result<Option<JobId>, BackendError> {
        if let Some(id) = self.earlier.get(uid) {
            return Ok(Some(*id));
        }
        Ok(self.app.backend.store().key(self.scope, uid).await?.and_then(|known| known.jobs.first().copied()))
    }

    /// The job of an object that goes. One that was being deleted when the daemon began was not imported by it.
    pub(super) async fn of_gone(&self, uid: &str, imported: Option<JobId>) -> Option<JobId> {
        match imported {
            Some(job) => Some(job),
            None => self.known(uid).await.ok().flatten(),
        }
    }

    /// The job of an object: the one that it has, else a new one.
    pub(super) async fn submit(&self, uid: &str, spec: Result<JobSpec, String>) -> Result<JobId, NotSubmitted> {
        if let Err(why) = self.leadership.check() {
            return Err(NotSubmitted::NotNow(BackendError::Unavailable(why)));
        }
        if let Some(id) = self.known(uid).await.map_err(NotSubmitted::NotNow)? {
            return Ok(id);
        }
        let wrong = |invalid: crate::http::admission::Invalid| match invalid.path.as_str() {
            "" => invalid.detail,
            path => format!("{path}: {}", invalid.detail),
        };
        let admission = &self.app.admission;
        let spec = spec.map_err(NotSubmitted::Wrong)?;
        let admitted =
            admission.admit_flash_job(spec, &self.caller, clock::now()).map_err(|invalid| NotSubmitted::Wrong(wrong(invalid)))?;
        // One key is one object: what its spec says later changes nothing of that.
        let key = IdempotencyKey { scope: self.scope.to_owned(), key: uid.to_owned(), fingerprint: [0; 32] };
        match self.app.backend.submit(SubmitRequest { jobs: vec![admitted], key: Some(key) }).await {
            Ok(ids) => ids.first().copied().ok_or(NotSubmitted::NotNow(BackendError::NotFound)),
            Err(BackendError::Refused { refused, .. }) => Err(NotSubmitted::Wrong(words::refused(&refused))),
            Err(other) => Err(NotSubmitted::NotNow(other)),
        }
    }

    pub(super) async fn record(&self, job: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.app.backend.store().job(job).await
    }

    pub(super) async fn act(&mut self, job: JobId, action: Action, by: &str) {
        match self.app.backend.act(job, action, by.into()).await {
            // What is so already, or is over, is as it should be.
            Ok(()) | Err(BackendError::Rejected(_) | BackendError::NotFound) => {}
            Err(error) => {
                tracing::debug!(%error, %job, "to be tried again");
                self.actions.push((job, action, by.into()));
            }
        }
    }

    /// Its object was deleted.
    pub(super) async fn cancel(&mut self, job: JobId) {
        self.act(job, Action::Cancel, self.deleted).await;
    }

    /// Cancels jobs whose objects were deleted while nobody looked. Later deletions are told.
    pub(super) async fn cancel_gone(&mut self, there: &HashSet<String>) {
        for (uid, job) in std::mem::take(&mut self.earlier) {
            if !there.contains(&uid) {
                self.cancel(job).await;
            }
        }
        if let Some(compared) = self.compared.take() {
            compared.one();
        }
    }
}

/// Waits until this daemon leads. False if it never will.
pub(super) async fn leads(leadership: &Leadership, stop: &CancellationToken) -> bool {
    let mut states = leadership.states();
    tokio::select! {
        () = stop.cancelled() => false,
        held = states.wait_for(|state| matches!(state, LeaseState::Held { .. })) => held.is_ok(),
    }
}

/// Objects of one kind that become jobs.
pub(super) trait Side: Send {
    /// The kind.
    type Object: Send + Sync + 'static;

    fn link(&mut self) -> &mut Link;
    /// Where news come from. It ends when nobody wants them.
    fn source(&self, news: mpsc::Sender<News<Self::Object>>) -> impl Future<Output = ()> + Send + 'static;
    /// An object is there, or is so now.
    fn applied(&mut self, object: Arc<Self::Object>) -> impl Future<Output = ()> + Send;
    /// It is no more.
    fn gone(&mut self, object: &Self::Object) -> impl Future<Output = ()> + Send;
    /// All that there are were told.
    fn listed(&mut self) -> impl Future<Output = ()> + Send;
    /// Something happened to a job.
    fn event(&mut self, event: &EventRecord) -> impl Future<Output = ()> + Send;
    /// More happened than is known: jobs are to be read anew.
    fn read_anew(&mut self) -> impl Future<Output = ()> + Send;
    /// What did not work is to be tried again; now and then also what was wrong.
    fn again(&mut self, wrong_too: bool) -> impl Future<Output = ()> + Send;
}

/// Keeps them in step until it is stopped.
pub(super) async fn keep_in_step<S: Side>(mut side: S, stop: CancellationToken) {
    if !side.link().begin(&stop).await {
        return;
    }
    let (sender, mut inbox) = mpsc::channel(NEWS);
    let mut source = tokio::spawn(side.source(sender));
    let mut watch = side.link().app.backend.watch();
    let mut seen = watch.revision();
    let mut tick = tokio::time::interval(AGAIN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = &mut source => return tracing::error!("objects of the cluster are not followed any more"),
            Some(news) = inbox.recv() => match news {
                News::Applied(object) => side.applied(object).await,
                News::Gone(object) => side.gone(&object).await,
                News::Listed => side.listed().await,
            },
            going = watch.beyond(seen) => if going { seen = events(&mut side, &watch, seen).await } else { break },
            _ = tick.tick() => {
                ticks = ticks.wrapping_add(1);
                for (job, action, by) in std::mem::take(&mut side.link().actions) {
                    side.link().act(job, action, by.as_str()).await;
                }
                side.again(ticks.is_multiple_of(LOOK_EVERY)).await;
            }
        }
    }
    source.abort();
}

async fn events<S: Side>(side: &mut S, watch: &Watch, seen: Revision) -> Revision {
    let app = side.link().app.clone();
    match watch.read(seen, PAGE, app.backend.store()).await {
        Ok(events) => {
            for event in events.iter().filter_map(|entry| entry.job()) {
                side.event(event).await;
            }
            events.last().map_or(seen, |last| last.revision())
        }
        Err(StoreError::Compacted { .. }) => {
            let now = watch.revision();
            side.read_anew().await;
            now
        }
        Err(error) => {
            tracing::warn!(%error, "events of jobs are not read");
            tokio::time::sleep(AGAIN).await;
            seen
        }
    }
}
