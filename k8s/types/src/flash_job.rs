//! FlashJob: pods that start together.
#![expect(
    clippy::duplicated_attributes,
    reason = "columns of one type, and descriptions of what derives make, look like duplicates"
)]

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::QUEUE_ANNOTATION;

/// Longest name of a FlashJob. A pod is called after it, with its number and its attempt, and that has to fit a label.
pub const NAME_LENGTH: usize = 52;
/// Most tasks that one FlashJob has.
pub const TASKS: usize = 10_000;

/// What a FlashJob asks for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "scheduling.flash-sched.io",
    version = "v1alpha1",
    kind = "FlashJob",
    plural = "flashjobs",
    singular = "flashjob",
    shortname = "fj",
    category = "all",
    category = "flash-sched",
    namespaced,
    status = "FlashJobStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Pods that start together: minAvailable of them at once, or none.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Queue", type_ = "string", json_path = ".spec.queueName"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desired"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.active"),
    printcolumn(name = "Succeeded", type_ = "integer", json_path = ".status.succeeded"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.queueName",
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
pub struct FlashJobSpec {
    /// How many tasks have to start together, else none starts. 0, or left out: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_available: Option<i32>,
    /// The pods, one for each entry.
    pub tasks: Vec<PodTemplateSpec>,
    /// Where it waits. Left out: the queue of the annotation scheduling.flash-sched.io/queue-name, or default-batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub queue_name: Option<String>,
    /// Added to the queue's priority; larger runs earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: Option<i32>,
    /// It is not admitted as long as this is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Longest time that its pods may run, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// What happens when infrastructure loses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// It is deleted so long after it has finished, in seconds. Left out: as its queue says, else never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Jobs of its namespace that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub depends_on: Vec<Dependency>,
}

impl FlashJob {
    /// The queue that it names: in its spec, by its annotation, or by that of its first task.
    pub fn queue(&self) -> Option<&str> {
        let first = || self.spec.tasks.first()?.metadata.as_ref()?.annotations.as_ref()?.get(QUEUE_ANNOTATION);
        let own = || self.metadata.annotations.as_ref()?.get(QUEUE_ANNOTATION);
        self.spec.queue_name.as_ref().or_else(own).or_else(first).map(String::as_str)
    }
}

/// What happens when infrastructure loses a job. What its own program failed is not tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Tries in all. Left out: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<i32>,
}

/// A job that has to end before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Name of a FlashJob of the same namespace.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
    /// How it has to end. Left out: Succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<DependsOn>,
}

/// How a job has to end that another waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DependsOn {
    #[default]
    #[expect(missing_docs, reason = "each value would become a schema of its own")]
    Succeeded,
    #[expect(missing_docs, reason = "each value would become a schema of its own")]
    Failed,
    #[expect(missing_docs, reason = "each value would become a schema of its own")]
    Finished,
}

/// Where a FlashJob stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    #[expect(missing_docs, reason = "each value would become a schema of its own")]
    Pending,
    #[expect(missing_docs, reason = "each value would become a schema of its own")]
    Running,
    #[expect(missing_docs, reason = "each value would become a schema of its own")]
    Succeeded,
    #[expect(missing_docs, reason = "each value would become a schema of its own")]
    Failed,
}

/// How a FlashJob stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlashJobStatus {
    /// Pods that run.
    #[serde(default)]
    pub active: i32,
    /// Pods that have succeeded.
    #[serde(default)]
    pub succeeded: i32,
    /// Pods that have failed.
    #[serde(default)]
    pub failed: i32,
    /// Pods that there are to be.
    #[serde(default)]
    pub desired: i32,
    /// In a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Valid, Admitted, Ready, Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When its pods began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the last of them ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Why it stands as it stands, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where its pods are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placements: Vec<TaskPlacement>,
}

/// Where a pod is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskPlacement {
    /// Number of the task, from 0.
    pub task: i32,
    /// Name of the pod.
    pub pod: String,
    /// Name of the node.
    pub node: String,
}
