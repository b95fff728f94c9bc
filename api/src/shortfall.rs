//! What a job lacks, with figures. Amounts are texts as in requests (`"500m"`, `"4Gi"`, `"2"`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::why::JobRef;

/// What a job lacks. Nothing stands here of a job that is so far back in a long queue that it was not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shortfall {
    /// The first of the GPUs that it asks for by UUID and cannot have now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_gpus: Vec<TakenGpu>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "crate::why::is_zero")]
    pub more_taken_gpus: u64,
    /// Where a part of a GPU is asked for: what shared GPUs have left, if none has enough and none is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_part: Option<NoGpuPart>,
    /// Resources of which there is too little.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<Shortage>,
    /// Where each amount is free on some node, but all of them on none: the node that comes closest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closest: Option<Closest>,
    /// For how many tasks there is room, where several have to start together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
    /// Where not even one task finds a node: which node has room for one first, and when at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_at: Option<RoomAt>,
}

/// A GPU that is asked for by UUID and cannot be had now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TakenGpu {
    /// Its UUID.
    pub uuid: String,
    /// Its node.
    pub node: String,
    /// The job that has it, or the first of those that have parts of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobRef>,
    /// How many more have parts of it.
    #[serde(default, skip_serializing_if = "crate::why::is_zero")]
    pub more_jobs: u64,
    /// Why it is set aside, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
}

/// No GPU has the part that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NoGpuPart {
    /// What is asked of one GPU.
    pub asked: String,
    /// What is asked of its memory; absent: as large a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_memory: Option<String>,
    /// How many shared GPUs that it may have are not used up.
    pub gpus: u64,
    /// The most that one of them has left; absent if none has anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_free: Option<String>,
    /// What that one has left of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_free_memory: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A resource of which there is too little now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shortage {
    /// `cpu`, `memory`, `gpu`.
    pub resource: String,
    /// What the job asks for in all.
    pub asked: String,
    /// What is free now.
    pub free: String,
    /// What there is in all.
    pub total: String,
    /// The most that one task asks for.
    pub largest_task: String,
    /// The most that is free on one node.
    pub largest_free: String,
    /// That node; absent if nothing is free anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A node that nearly has room for a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Closest {
    /// Which.
    pub node: String,
    /// What it has least of: `cpu`, `memory`, `gpu`.
    pub resource: String,
    /// What one task asks for.
    pub asked: String,
    /// What is free there.
    pub free: String,
}

/// Tasks that have to start together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// The group.
    pub task: String,
    /// How many of its tasks have to start.
    pub needed: u64,
    /// For how many there is room now.
    pub possible: u32,
}

/// A node, and when it has room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomAt {
    /// The node.
    pub node: String,
    /// When, at the latest.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
}
