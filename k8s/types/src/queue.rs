//! ClusterResourceQueue: where FlashJobs wait.
#![expect(
    clippy::duplicated_attributes,
    reason = "columns of one type, and descriptions of what derives make, look like duplicates"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a queue is like.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "scheduling.flash-sched.io",
    version = "v1alpha1",
    kind = "ClusterResourceQueue",
    plural = "clusterresourcequeues",
    singular = "clusterresourcequeue",
    shortname = "crq",
    category = "flash-sched",
    status = "ClusterResourceQueueStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Where jobs wait: a base priority, limits, and a share of a cohort.",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Preemptible", type_ = "boolean", json_path = ".spec.isPreemptible"),
    printcolumn(name = "MaxConcurrent", type_ = "integer", json_path = ".spec.maxConcurrent"),
    printcolumn(name = "Cohort", type_ = "string", json_path = ".spec.cohort"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type==\"Valid\")].status", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterResourceQueueSpec {
    /// Added to the priority of its jobs; larger runs earlier.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i64,
    /// Its jobs may be ended to make room for others.
    #[serde(default)]
    pub is_preemptible: bool,
    /// How many of its jobs run at once; 0 for no limit.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_concurrent: i64,
    /// Its jobs are deleted so long after they have finished, in seconds; 0 for never.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ttl_seconds: i64,
    /// Queues of one cohort lend each other what they do not use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub cohort: Option<String>,
    /// Its share beside other queues. Left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: Option<i64>,
    /// What it is sure to get, and the most that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QueueQuota>,
    /// Namespaces whose jobs may wait here. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
}

/// Amounts by resource: cpu, memory, nvidia.com/gpu.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueQuota {
    /// What it is sure to get.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guaranteed: BTreeMap<String, Quantity>,
    /// The most that it may have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limit: BTreeMap<String, Quantity>,
}

/// How a queue stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterResourceQueueStatus {
    /// Jobs that wait.
    #[serde(default)]
    pub pending: i64,
    /// Jobs that hold resources.
    #[serde(default)]
    pub running: i64,
    /// What they hold: cpu, memory, nvidia.com/gpu.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, Quantity>,
    /// Valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
