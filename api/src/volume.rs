//! What containers mount: claims and empty folders. Nothing of the node and no secrets: those would be another's.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::quantity::Memory;

/// A folder that every container of a job mounts: of a claim, or empty at first. Exactly one of `claim` and `emptyDir`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Absolute path in the container; no two volumes have the same.
    #[schema(example = "/data")]
    pub mount_path: String,
    /// Name of a PersistentVolumeClaim in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "datasets")]
    pub claim: Option<String>,
    /// A folder of each pod, gone with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// Only this folder of it, as a relative path. Default: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// Nothing is written to it. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A folder that is empty when a pod begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyDir {
    /// `Memory`: in memory, which counts as the pod's own; what `/dev/shm` needs. Default: on the node's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
    /// Most that it may hold. Default: what its medium has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Memory>,
}

/// What an empty folder is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Medium {
    /// Memory.
    Memory,
}
