//! All FlashJobs of the cluster: followed for whoever imports them, and their statuses written.
//!
//! What must hold:
//! - A status is written from what was read: the patch carries the version, and whoever was overtaken reads again.
//! - What changes while a write waits is written once. A FlashJob is written at most once in a while, but for its end.
//! - Ends are written as they come. What is told in between, and events, has a rate over all FlashJobs and gives way to ends: where thousands wait and
//!   run for a moment each, an API server is to be left what it needs for their pods.
//! - One that we made is let go of ([`keep`](super::keep)) after its last status, and tried again until that is done.
//! - What is said of a job, and counted of the pods of a run, reaches only its own FlashJob, also where another one has its name by now; and what was
//!   counted of one run says nothing of the next.

mod books;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_types::{DEFAULT_QUEUE, FlashJob, FlashJobStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::{Event as Note, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use scheduler_core::ids::RunId;
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use self::books::{Books, Due, Round};
use super::super::error::{Meaning, chain, meaning, said};
use super::super::objects::{self, News, ObjectKey, key_of, slim};
use super::hub::{AT_ONCE, now};
use super::keep::without;
use super::lone::cut;
use super::status::{Counts, Stand, is_finished};
use crate::kubernetes::lease::Leadership;

/// Namespace and name of a FlashJob.
pub type FlashJobKey = ObjectKey;

/// Changes that come within this time are written together.
const GATHER: Duration = Duration::from_millis(100);
/// Least time between two writes of one FlashJob, its end apart.
const APART: Duration = Duration::from_secs(1);
/// Pause after a write was not taken.
const AGAIN: Duration = Duration::from_secs(2);
/// How often those are looked for whose time is over.
const SWEEP: Duration = Duration::from_secs(5);

/// See the module.
pub struct FlashJobs {
    client: Client,
    leadership: Option<Leadership>,
    books: Mutex<Books>,
    /// Who is told why FlashJobs cannot be seen now.
    unseen: OnceLock<watch::Sender<Option<String>>>,
    wake: Notify,
    recorder: Recorder,
    /// Seconds for which finished ones are kept that do not say so themselves, by queue.
    kept: Mutex<BTreeMap<String, i64>>,
}

impl FlashJobs {
    pub(super) fn new(client: Client, instance: String, leadership: Option<Leadership>) -> Self {
        let reporter = Reporter { controller: "flash-sched".to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            recorder,
            client,
            leadership,
            books: Mutex::new(Books::new(instance, Instant::now())),
            unseen: OnceLock::new(),
            wake: Notify::new(),
            kept: Mutex::default(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says there why FlashJobs cannot be seen, whenever they cannot. Only the first call counts.
    pub fn tell_unseen(&self, told: watch::Sender<Option<String>>) {
        // Whoever was there first goes on being told.
        let _ = self.unseen.set(told);
    }

    fn seen(&self, why: Option<&str>) {
        if let Some(told) = self.unseen.get() {
            told.send_if_modified(|present| {
                let is_news = present.as_deref() != why;
                *present = why.map(ToOwned::to_owned);
                is_news
            });
        }
    }

    /// All there are, as the watch told them last.
    pub fn all(&self) -> Vec<Arc<FlashJob>> {
        self.books().jobs.values().cloned().collect()
    }

    /// The one of this key.
    pub fn find(&self, key: &FlashJobKey) -> Option<Arc<FlashJob>> {
        self.books().jobs.get(key).cloned()
    }

    /// For how many seconds finished ones of a queue are kept that do not say so themselves; for ever, where it is not named.
    pub fn keep_for(&self, queues: BTreeMap<String, i64>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    fn lifetime(&self, job: &FlashJob) -> Option<i64> {
        let own = job.spec.ttl_seconds_after_finished.map(i64::from);
        let queue = job.queue().unwrap_or(DEFAULT_QUEUE);
        own.or_else(|| self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(queue).copied())
    }

    /// The one that is called so and has this uid, if the watch has told it and nobody deletes it.
    pub(super) fn get(&self, key: &FlashJobKey, uid: &str) -> Option<Arc<FlashJob>> {
        let job = self.books().jobs.get(key).cloned()?;
        (job.metadata.uid.as_deref() == Some(uid) && job.metadata.deletion_timestamp.is_none()).then_some(job)
    }

    /// How the job of a FlashJob stands, in which run. `uid` is that of the FlashJob where it was there before the job.
    pub fn say(&self, key: &FlashJobKey, run: RunId, uid: Option<String>, stand: Stand) {
        if self.books().say(key, run, uid, stand) {
            self.wake.notify_one();
        }
    }

    /// What the pods of a run say.
    pub(super) fn count(&self, key: &FlashJobKey, run: RunId, counts: Counts) {
        if self.books().count(key, run, counts) {
            self.wake.notify_one();
        }
    }

    /// The last pod of a run is gone: nothing is remembered of a FlashJob that went before it.
    pub(super) fn uncount(&self, key: &FlashJobKey) {
        self.books().uncount(key);
    }

    /// The table has no job that this one, which is being deleted, was made for.
    pub fn let_go(&self, job: &FlashJob) {
        let mut books = self.books();
        books.nobodys.insert(key_of(job));
        books.dirty.insert(key_of(job));
        self.wake.notify_one();
    }

    /// Follows and writes until nobody wants news any more.
    pub async fn run(self: Arc<Self>, news: mpsc::Sender<News<FlashJob>>) {
        tokio::select! {
            () = self.follow(&news) => {}
            () = self.write() => {}
            () = self.sweep() => {}
            () = news.closed() => {}
        }
    }

    async fn follow(&self, news: &mpsc::Sender<News<FlashJob>>) {
        let api = Api::<FlashJob>::all(self.client.clone());
        objects::follow(
            (api, watcher::Config::default()),
            news,
            "FlashJobs",
            |why| self.seen(why),
            |news| {
                let mut books = self.books();
                match news {
                    News::Applied(job) => {
                        let key = key_of(&**job);
                        // What we wrote ourselves is known before the watch tells what was there before it.
                        if books.jobs.get(&key).is_some_and(|known| known.uid() == job.uid() && version(known) > version(job)) {
                            return false;
                        }
                        books.jobs.insert(key.clone(), job.clone());
                        books.dirty.insert(key);
                        self.wake.notify_one();
                    }
                    News::Gone(job) => {
                        books.gone(&key_of(&**job));
                    }
                    News::Listed => {}
                }
                true
            },
        )
        .await;
    }

    async fn write(&self) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(GATHER).await;
            // A standby keeps what there is to say until it leads.
            while self.leadership.as_ref().is_some_and(|leadership| leadership.check().is_err()) {
                tokio::time::sleep(AGAIN).await;
            }
            let Round { statuses, going, wait } = self.books().round(Instant::now());
            let requests: Vec<_> = statuses.into_iter().map(|due| self.write_one(due)).collect();
            futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
            let requests: Vec<_> = going.into_iter().map(|(key, job)| self.let_one_go(key, job)).collect();
            futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
            if wait {
                self.wake.notify_one();
            }
        }
    }

    async fn write_one(&self, Due { key, job, status, .. }: Due) {
        let api: Api<FlashJob> = Api::namespaced(self.client.clone(), &key.0);
        let version = json!({"resourceVersion": job.metadata.resource_version});
        let patch = match whole(&status) {
            Ok(status) => Patch::Merge(json!({"metadata": version, "status": status})),
            Err(error) => return tracing::error!(%error, "a status that is no JSON"),
        };
        let pause = match api.patch_status(&key.1, &PatchParams::default(), &patch).await {
            Ok(written) => {
                self.note(&job, &written).await;
                let mut books = self.books();
                books.refused = false;
                if books.jobs.get(&key).is_some_and(|now| now.uid() == written.uid()) {
                    books.jobs.insert(key.clone(), slim(written));
                }
                APART
            }
            Err(error) => match self.not_taken(&api, &key, &error, "its status is not written").await {
                Some(pause) => pause,
                None => return,
            },
        };
        let mut books = self.books();
        if let Some(entry) = books.entries.get_mut(&key) {
            let is_final = entry.said.as_ref().is_some_and(|(_, _, stand)| stand.is_final());
            entry.not_before = (!is_final || pause == AGAIN).then(|| Instant::now() + pause);
        }
        books.dirty.insert(key);
        self.wake.notify_one();
    }

    async fn let_one_go(&self, key: FlashJobKey, job: Arc<FlashJob>) {
        let api: Api<FlashJob> = Api::namespaced(self.client.clone(), &key.0);
        let pause = match api.patch(&key.1, &PatchParams::default(), &without(&job)).await {
            Ok(written) => {
                let mut books = self.books();
                // One that is deleted may be gone: the watch tells.
                let stays = written.metadata.deletion_timestamp.is_none();
                if stays && books.jobs.get(&key).is_some_and(|now| now.uid() == written.uid()) {
                    books.jobs.insert(key, slim(written));
                }
                return;
            }
            Err(error) => self.not_taken(&api, &key, &error, "it is not let go of").await,
        };
        let Some(pause) = pause else { return };
        let mut books = self.books();
        books.entries.entry(key.clone()).or_default().not_before = Some(Instant::now() + pause);
        books.dirty.insert(key);
        self.wake.notify_one();
    }

    /// The pause after which a write is tried again; none where there is nothing left to write.
    async fn not_taken(&self, api: &Api<FlashJob>, key: &FlashJobKey, error: &kube::Error, what: &str) -> Option<Duration> {
        match meaning(error) {
            Meaning::Missing => None,
            // Somebody has written since it was read, and what is there now comes by the watch; or it is asked for.
            Meaning::Later(_) if matches!(error, kube::Error::Api(status) if status.code == 409) => {
                if let Ok(Some(fresh)) = api.get_opt(&key.1).await {
                    let mut books = self.books();
                    // The watch may have told its end meanwhile, which it does once.
                    if books.jobs.get(key).is_some_and(|now| now.uid() == fresh.uid()) {
                        books.jobs.insert(key.clone(), slim(fresh));
                    }
                }
                Some(GATHER)
            }
            _ => {
                // Thousands may be refused for one reason.
                if std::mem::replace(&mut self.books().refused, true) {
                    tracing::debug!(namespace = key.0, name = key.1, why = said(error), "a FlashJob: {what}; trying again");
                } else {
                    tracing::warn!(
                        namespace = key.0,
                        name = key.1,
                        why = said(error),
                        "a FlashJob: {what}; trying again, and so with others"
                    );
                }
                Some(AGAIN)
            }
        }
    }

    /// The few things that `kubectl describe` is to show beside the conditions.
    async fn note(&self, before: &FlashJob, after: &FlashJob) {
        let find = |job: &FlashJob, kind: &str| {
            let conditions = job.status.iter().flat_map(|status| &status.conditions);
            conditions
                .filter(|condition| condition.type_ == kind)
                .map(|one| (one.status.clone(), one.reason.clone(), one.message.clone()))
                .next()
        };
        let new = |kind: &str, status: &str| {
            let (was, is) = (find(before, kind), find(after, kind));
            is.filter(|(now, _, _)| now == status && was.is_none_or(|(then, _, _)| then != *now))
        };
        let (type_, reason, note) = if let Some((_, _, message)) = new("Valid", "False") {
            (EventType::Warning, "Invalid".to_owned(), message)
        } else if let Some((_, reason, message)) = new("Complete", "True") {
            let kind = if reason == "Succeeded" { EventType::Normal } else { EventType::Warning };
            (kind, reason, if message.is_empty() { "all of its pods succeeded".to_owned() } else { message })
        } else if new("Ready", "True").is_some() {
            let placements = after.status.as_ref().map(|status| status.placements.clone()).unwrap_or_default();
            let nodes: BTreeSet<&str> = placements.iter().map(|placement| placement.node.as_str()).collect();
            (EventType::Normal, "Started".to_owned(), format!("all run; pods: {}, nodes: {}", placements.len(), nodes.len()))
        } else {
            return;
        };
        self.publish(after, type_, reason, note).await;
    }

    async fn publish(&self, job: &FlashJob, type_: EventType, reason: String, mut note: String) {
        if !self.books().events.take(Instant::now()) {
            return;
        }
        cut(&mut note);
        let note = Note { type_, reason, note: Some(note), action: "Schedule".to_owned(), secondary: None };
        let reference: ObjectReference = job.object_ref(&());
        if let Err(error) = self.recorder.publish(&note, &reference).await {
            tracing::debug!(error = chain(&error), "an event was not written");
        }
    }

    /// Its pods could not be made or bound for now, and why: it is tried again and again, and nobody else says for what it waits.
    pub(super) async fn taken_back(&self, key: &FlashJobKey, why: &str) {
        let Some(job) = self.find(key) else { return };
        self.publish(&job, EventType::Warning, "TakenBack".to_owned(), format!("not begun, and queued again: {why}")).await;
    }

    /// Deletes those that are finished and were to be kept for a time only.
    async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let jobs: Vec<Arc<FlashJob>> = self.books().jobs.values().cloned().collect();
            for job in jobs.into_iter().filter(|job| is_finished(job) && job.metadata.deletion_timestamp.is_none()) {
                let ended = job.status.as_ref().and_then(|status| status.completion_time.as_ref()).map(|time| time.0.as_second());
                let Some((ttl, ended)) = self.lifetime(&job).zip(ended) else { continue };
                if ended.saturating_add(ttl) > now().0.div_euclid(1_000_000) {
                    continue;
                }
                let params = this_one(&job);
                let api: Api<FlashJob> = Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
                if let Err(error) = api.delete(&job.name_any(), &params).await {
                    tracing::debug!(error = chain(&error), "a FlashJob whose time is over is still there");
                }
            }
        }
    }
}

/// Deletes this very FlashJob: another one may have its name by now, which the watch has not told yet.
fn this_one(job: &FlashJob) -> DeleteParams {
    DeleteParams { preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }), ..DeleteParams::background() }
}

/// A merge leaves what is not named as it is: what is to go is named.
fn whole(status: &FlashJobStatus) -> Result<serde_json::Value, serde_json::Error> {
    let mut value = serde_json::to_value(status)?;
    if let Some(fields) = value.as_object_mut() {
        for optional in ["phase", "conditions", "observedGeneration", "startTime", "completionTime", "message", "placements"] {
            fields.entry(optional).or_insert(serde_json::Value::Null);
        }
    }
    Ok(value)
}

/// Versions of one kind are numbers that grow; `None` comes before all.
fn version(job: &FlashJob) -> Option<u64> {
    job.metadata.resource_version.as_ref()?.parse().ok()
}
