//! What was used: by users, namespaces, queues, days, and single jobs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::job::State;
use crate::quantity::Memory;

/// What was used. Processor, memory and GPU time are what was promised, from the start of a run's tasks to the end of the last of them; what
/// was seen of GPUs is told where a driver tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Processors times seconds.
    pub cpu_seconds: f64,
    /// MiB times seconds.
    pub memory_mib_seconds: f64,
    /// GPUs times seconds.
    pub gpu_seconds: f64,
    /// Of these, those over which it was seen what the GPUs did.
    #[serde(default)]
    pub gpu_seen_seconds: f64,
    /// Part of that time in which something ran on them, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_busy_percent: Option<f64>,
    /// The most that one of them was busy at a look, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_peak_busy_percent: Option<u32>,
    /// The most memory of one of them that its runs held at a look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_peak_memory: Option<Memory>,
    /// What they drew, in joules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_energy_joules: Option<f64>,
}

/// What a job has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobUsage {
    /// Runs whose tasks started.
    pub runs: u64,
    /// In all of them.
    #[serde(flatten)]
    pub usage: Usage,
}

/// A sum, or a job. What rows are not told apart by is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageItem {
    /// The day, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub day: Option<jiff::civil::Date>,
    /// The namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
    /// Its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Runs that ended on these days; of a job, all whose tasks started.
    pub runs: u64,
    /// What was used.
    #[serde(flatten)]
    pub usage: Usage,
}

/// What was used on some days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageList {
    /// The first day, in UTC.
    #[schema(value_type = String, format = Date)]
    pub since: jiff::civil::Date,
    /// The last day, which counts.
    #[schema(value_type = String, format = Date)]
    pub until: jiff::civil::Date,
    /// What rows are told apart by.
    pub by: Vec<String>,
    /// Sums in the order of their names; jobs that run, then those that ended last.
    pub items: Vec<UsageItem>,
    /// There are more than `limit`.
    #[serde(default)]
    pub more: bool,
}
