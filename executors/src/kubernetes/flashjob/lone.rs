//! Pods that somebody else made and gave to our scheduler, without a FlashJob: followed for whoever imports them, claimed for their runs, and told
//! why they wait.
//!
//! What must hold:
//! - A pod belongs to one run at a time. It says so itself, by the labels and the finalizer that pods of FlashJobs have from the start, and has
//!   them before it is bound: whoever begins anew finds it among the pods of its run.
//! - One that cannot be bound is let go as it was: it is not ours to delete. Only whoever ends its job deletes it.
//! - What is said of one goes to that very pod, also where another one has its name by now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_types::{GROUP, SCHEDULER_NAME};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::{Event as Note, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use scheduler_core::ids::RunId;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::error::{Meaning, chain, meaning};
use super::super::manifest::{ATTEMPT, FLASH_JOB, INSTANCE, JOB, TASK, instance_of, run_of};
use super::super::objects::{self, News, ObjectKey, key_of};
use super::gang::{FINALIZER, LIVE, NODE, SIZE};
use super::verdict::{is_bound, is_terminal};

/// Longest note of an event, in bytes, as the API server has it.
const NOTE: usize = 1_000;

/// Whether a pod was made by somebody else for our scheduler, and has no FlashJob.
pub(super) fn is_lone(pod: &Pod) -> bool {
    let of_flash_job = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
        owner.kind == "FlashJob" && owner.api_version.starts_with(GROUP)
    };
    let ours = pod.spec.as_ref().is_some_and(|spec| spec.scheduler_name.as_deref() == Some(SCHEDULER_NAME));
    ours && !pod.labels().contains_key(FLASH_JOB) && !pod.owner_references().iter().any(of_flash_job)
}

/// What makes a pod one of a run that goes on this node.
pub(super) fn claim(pod: &Pod, run: RunId, instance: &str, (task, node): (&str, &str)) -> Value {
    json!({"metadata": {"uid": pod.metadata.uid, "finalizers": [FINALIZER],
        "labels": {LIVE: instance, INSTANCE: instance, JOB: run.job.to_string(), ATTEMPT: run.attempt.to_string()},
        "annotations": {SIZE: "1", NODE: node, TASK: task}}})
}

/// What makes it nobody's again.
pub(super) fn unclaim(pod: &Pod) -> Value {
    let gone = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), Value::Null)).collect::<serde_json::Map<_, _>>();
    json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER],
        "labels": gone(&[LIVE, INSTANCE, JOB, ATTEMPT]), "annotations": gone(&[SIZE, NODE, TASK])}})
}

/// Whether such a pod is over: it has ended, whatever became of it.
pub fn has_ended(pod: &Pod) -> bool {
    is_terminal(pod)
}

/// Whether it is on a node.
pub fn has_node(pod: &Pod) -> bool {
    is_bound(pod)
}

/// Whether something has to happen before it may be scheduled.
pub fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()))
}

/// So that it is a note of an event.
pub(super) fn cut(note: &mut String) {
    note.truncate((0..=NOTE.min(note.len())).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0));
}

/// See the module.
pub struct LonePods {
    client: Client,
    instance: String,
    recorder: Recorder,
    pods: Mutex<BTreeMap<ObjectKey, Arc<Pod>>>,
}

impl LonePods {
    pub(super) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: SCHEDULER_NAME.to_owned(), instance: None };
        Self { recorder: Recorder::new(client.clone(), reporter), client, instance, pods: Mutex::default() }
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Arc<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All there are, as the watch told them last.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.pods().values().cloned().collect()
    }

    /// Follows until nobody wants news any more.
    pub async fn run(self: Arc<Self>, news: mpsc::Sender<News<Pod>>) {
        let ours = format!("spec.schedulerName={SCHEDULER_NAME}");
        let config = watcher::Config::default().fields(&ours).labels(&format!("!{FLASH_JOB}"));
        let what = "pods without a FlashJob";
        objects::follow(
            (Api::<Pod>::all(self.client.clone()), config),
            &news,
            what,
            |_| {},
            |news| match news {
                News::Applied(pod) => {
                    let ours = self.is_ours(pod);
                    if ours {
                        self.pods().insert(key_of(&**pod), pod.clone());
                    }
                    ours
                }
                News::Gone(pod) => self.pods().remove(&key_of(&**pod)).is_some(),
                News::Listed => true,
            },
        )
        .await;
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let claimed_by_another = run_of(&pod.metadata).is_some() && instance_of(&pod.metadata) != Some(self.instance.as_str());
        is_lone(pod) && !claimed_by_another
    }

    /// Says at a pod why it waits, where that is not what it says already.
    pub async fn say(&self, pod: &Pod, message: &str) {
        let Some(pod) = self.pods().get(&key_of(pod)).filter(|now| now.uid() == pod.uid()).cloned() else { return };
        if is_bound(&pod) || is_terminal(&pod) {
            return;
        }
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let before = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled");
        if before.is_some_and(|before| before.status == "False" && before.message.as_deref() == Some(message)) {
            return;
        }
        let changed = before.filter(|before| before.status == "False").and_then(|before| before.last_transition_time.clone());
        let since = changed.map_or_else(k8s_openapi::jiff::Timestamp::now, |time| time.0);
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}));
        let (namespace, name) = key_of(&*pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match api.patch_status(&name, &PatchParams::default(), &patch).await {
            Ok(written) => {
                let reference: ObjectReference = pod.object_ref(&());
                if let Some(known) = self.pods().get_mut(&key_of(&written)).filter(|known| known.uid() == written.uid()) {
                    *known = objects::slim(written);
                }
                self.note(&reference, message).await;
            }
            Err(error) if meaning(&error) == Meaning::Missing => {}
            Err(error) => tracing::debug!(namespace, name, error = chain(&error), "why a pod waits is not said yet"),
        }
    }

    async fn note(&self, pod: &ObjectReference, message: &str) {
        let mut note = message.to_owned();
        cut(&mut note);
        let (reason, action) = ("FailedScheduling".to_owned(), "Scheduling".to_owned());
        let note = Note { type_: EventType::Warning, reason, note: Some(note), action, secondary: None };
        if let Err(error) = self.recorder.publish(&note, pod).await {
            tracing::debug!(error = chain(&error), "an event was not written");
        }
    }

    /// Deletes this very pod.
    ///
    /// # Errors
    /// It is still there, and why.
    pub async fn delete(&self, pod: &Pod) -> Result<(), String> {
        let (namespace, name) = key_of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let uid = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
        match api.delete(&name, &params).await {
            Ok(_) => Ok(()),
            // Another pod has its name.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) if meaning(&error) == Meaning::Missing => Ok(()),
            Err(error) => Err(chain(&error)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use scheduler_core::ids::{Attempt, JobId};

    use super::*;

    fn pod(metadata: &Value, scheduler: &str) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "spec": {"schedulerName": scheduler, "containers": []}})).unwrap()
    }

    #[test]
    fn pods_of_flash_jobs_and_of_other_schedulers_are_none() {
        let owner = |kind: &str, group: &str| json!({"ownerReferences": [{"apiVersion": format!("{group}/v1"), "kind": kind, "name": "x", "uid": "u"}]});
        assert!(is_lone(&pod(&json!({}), "flash-scheduler")));
        assert!(is_lone(&pod(&owner("ReplicaSet", "apps"), "flash-scheduler")));
        assert!(!is_lone(&pod(&json!({}), "default-scheduler")));
        assert!(!is_lone(&pod(&owner("FlashJob", GROUP), "flash-scheduler")));
        assert!(!is_lone(&pod(&json!({"labels": {FLASH_JOB: "x"}}), "flash-scheduler")));
    }

    #[test]
    fn what_a_claim_adds_is_what_letting_go_takes_away() {
        let pod = pod(&json!({"uid": "u"}), "flash-scheduler");
        let run = RunId { job: JobId(uuid::Uuid::from_u128(7)), attempt: Attempt(2) };
        let (claim, unclaim) = (claim(&pod, run, "here", ("task", "n")), unclaim(&pod));
        assert_eq!((&claim["metadata"]["uid"], &unclaim["metadata"]["uid"]), (&json!("u"), &json!("u")));
        for part in ["labels", "annotations"] {
            let keys = |value: &Value| value["metadata"][part].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&claim), keys(&unclaim));
            assert!(unclaim["metadata"][part].as_object().unwrap().values().all(Value::is_null));
        }
        let claimed = Pod { metadata: serde_json::from_value(claim["metadata"].clone()).unwrap(), ..Pod::default() };
        assert_eq!(run_of(&claimed.metadata), Some(run));
    }
}
