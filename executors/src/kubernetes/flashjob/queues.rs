//! ClusterResourceQueues: followed for whoever imports them, kept while their jobs are there, and told how they stand.
//!
//! What must hold: one is kept by our finalizer from before its queue is made until that is gone, so that no queue outlives its object unseen; a
//! status is written only where it differs, from the version that was read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_types::{ClusterResourceQueue, ClusterResourceQueueStatus};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::error::{Meaning, meaning, said};
use super::super::objects::{self, News, slim};

/// Finalizer of one whose queue is there.
const FINALIZER: &str = "scheduling.flash-sched.io/queue";

/// How a queue stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueStand {
    /// Why it cannot be as its object says; `None` if it is.
    pub wrong: Option<String>,
    /// Why it is still there, where its object is deleted.
    pub stays: Option<String>,
    /// Jobs that wait.
    pub pending: u64,
    /// Jobs that hold resources.
    pub running: u64,
    /// What they hold, by resource, as a cluster writes it.
    pub used: BTreeMap<String, String>,
}

/// See the module.
pub struct ClusterQueues {
    api: Api<ClusterResourceQueue>,
    known: Mutex<BTreeMap<String, Arc<ClusterResourceQueue>>>,
}

impl ClusterQueues {
    pub(super) fn new(client: Client) -> Self {
        Self { api: Api::all(client), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<ClusterResourceQueue>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All there are, as they were told or written last.
    pub fn all(&self) -> Vec<Arc<ClusterResourceQueue>> {
        self.known().values().cloned().collect()
    }

    /// Follows until nobody wants news any more.
    pub async fn run(self: Arc<Self>, news: mpsc::Sender<News<ClusterResourceQueue>>) {
        objects::follow(
            (self.api.clone(), watcher::Config::default()),
            &news,
            "ClusterResourceQueues",
            |_| {},
            |news| {
                match news {
                    News::Applied(queue) => drop(self.known().insert(queue.name_any(), queue.clone())),
                    News::Gone(queue) => drop(self.known().remove(&queue.name_any())),
                    News::Listed => {}
                }
                true
            },
        )
        .await;
    }

    /// Keeps an object until its queue is gone, or lets it go.
    ///
    /// # Errors
    /// It is as it was, and why.
    pub async fn keep(&self, queue: &ClusterResourceQueue, keep: bool) -> Result<(), String> {
        let mut finalizers = queue.finalizers().to_vec();
        if finalizers.iter().any(|one| one == FINALIZER) == keep {
            return Ok(());
        }
        finalizers.retain(|one| one != FINALIZER);
        finalizers.extend(keep.then(|| FINALIZER.to_owned()));
        let metadata = json!({"resourceVersion": queue.metadata.resource_version, "finalizers": finalizers});
        self.written(self.api.patch(&queue.name_any(), &PatchParams::default(), &merge(metadata, None)).await)
    }

    /// Says how its queue stands; false where it says so already.
    ///
    /// # Errors
    /// It was not written, and why.
    pub async fn say(&self, queue: &ClusterResourceQueue, stand: &QueueStand) -> Result<bool, String> {
        let now = k8s_openapi::jiff::Timestamp::now();
        let Some(status) = status_of(queue, stand, now) else { return Ok(false) };
        let metadata = json!({"resourceVersion": queue.metadata.resource_version});
        let patch = merge(metadata, Some(&status));
        self.written(self.api.patch_status(&queue.name_any(), &PatchParams::default(), &patch).await).map(|()| true)
    }

    fn written(&self, outcome: Result<ClusterResourceQueue, kube::Error>) -> Result<(), String> {
        match outcome {
            Ok(queue) => {
                let (name, gone) = (queue.name_any(), queue.metadata.deletion_timestamp.is_some());
                // One that goes may be gone: the watch tells.
                if let Some(known) = self.known().get_mut(&name).filter(|known| known.uid() == queue.uid() && !gone) {
                    *known = slim(queue);
                }
                Ok(())
            }
            Err(error) if meaning(&error) == Meaning::Missing => Ok(()),
            Err(error) => Err(said(&error)),
        }
    }
}

fn merge(metadata: Value, status: Option<&ClusterResourceQueueStatus>) -> Patch<Value> {
    let mut patch = json!({"metadata": metadata});
    if let Some(status) = status {
        patch["status"] = json!({"pending": status.pending, "running": status.running, "conditions": status.conditions,
            "observedGeneration": status.observed_generation, "used": status.used});
        // A merge leaves what is not named as it is: what is to go is named.
        for resource in ["cpu", "memory", "nvidia.com/gpu"] {
            if !status.used.contains_key(resource) {
                patch["status"]["used"][resource] = Value::Null;
            }
        }
    }
    Patch::Merge(patch)
}

/// The status that there is to be; `None` where it is so already.
fn status_of(
    queue: &ClusterResourceQueue,
    stand: &QueueStand,
    now: k8s_openapi::jiff::Timestamp,
) -> Option<ClusterResourceQueueStatus> {
    let old = queue.status.clone().unwrap_or_default();
    let (is_valid, reason, message) = match (&stand.stays, &stand.wrong) {
        (Some(why), _) => ("True", "HasJobs", why.clone()),
        (None, Some(why)) => ("False", "Invalid", why.clone()),
        (None, None) => ("True", "Accepted", String::new()),
    };
    let before = old.conditions.iter().find(|condition| condition.type_ == "Valid");
    let since = before.filter(|before| before.status == is_valid).map(|before| before.last_transition_time.clone());
    let whole = || Time(k8s_openapi::jiff::Timestamp::from_second(now.as_second()).unwrap_or(now));
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let made = ClusterResourceQueueStatus {
        pending: count(stand.pending),
        running: count(stand.running),
        used: stand.used.iter().map(|(resource, amount)| (resource.clone(), Quantity(amount.clone()))).collect(),
        conditions: vec![Condition {
            type_: "Valid".to_owned(),
            status: is_valid.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: queue.metadata.generation,
            last_transition_time: since.unwrap_or_else(whole),
        }],
        observed_generation: queue.metadata.generation,
    };
    (made != old).then_some(made)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use k8s_types::ClusterResourceQueueSpec;

    use super::*;

    #[test]
    fn a_status_is_written_where_it_differs_and_forgets_what_is_no_more() {
        let mut queue = ClusterResourceQueue::new("q", ClusterResourceQueueSpec::default());
        queue.metadata.generation = Some(4);
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let used = BTreeMap::from([("cpu".to_owned(), "4".to_owned())]);
        let stand = QueueStand { running: 1, used, ..QueueStand::default() };
        let status = status_of(&queue, &stand, at(1)).unwrap();
        assert_eq!((status.running, status.observed_generation, status.conditions[0].status.as_str()), (1, Some(4), "True"));
        queue.status = Some(status);
        assert_eq!(status_of(&queue, &stand, at(2)), None);
        let wrong = QueueStand { wrong: Some("say less".to_owned()), ..QueueStand::default() };
        let status = status_of(&queue, &wrong, at(3)).unwrap();
        let told = &status.conditions[0];
        assert_eq!((told.status.as_str(), told.message.as_str(), told.last_transition_time.0), ("False", "say less", at(3)));
        let Patch::Merge(patch) = merge(Value::Null, Some(&status)) else { panic!("a merge") };
        assert_eq!(patch["status"]["used"]["cpu"], Value::Null);
        queue.status = Some(status);
        let again = status_of(&queue, &QueueStand { pending: 1, ..wrong }, at(9)).unwrap();
        assert_eq!(again.conditions[0].last_transition_time.0, at(3), "nothing has changed about that");
    }
}
