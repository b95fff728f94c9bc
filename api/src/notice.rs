//! What happened to things that are no jobs: GPUs, nodes, queues.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What sort of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum NoticeKind {
    /// A GPU, by its UUID.
    Gpu,
    /// A node.
    Node,
    /// A queue.
    Queue,
    /// A cohort of queues.
    Cohort,
    /// A priority with a name.
    PriorityClass,
}

impl NoticeKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Gpu, Self::Node, Self::Queue, Self::Cohort, Self::PriorityClass];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Node => "node",
            Self::Queue => "queue",
            Self::Cohort => "cohort",
            Self::PriorityClass => "priorityClass",
        }
    }

    /// The kind of which this is the word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Something that happened to a GPU, a node or a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// Its place in the one sequence of all events, in which those of jobs are too: no gap, never reused.
    pub revision: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// What sort of thing it is.
    pub kind: NoticeKind,
    /// Which one.
    pub name: String,
    /// Of a GPU `found`, `gone`, `heldBack`, `free`, `swept`, `sick`, `drained`, `resumed`; of a node `setAside`, `cordoned`, `draining`, `resumed`,
    /// `lost`, `back`, `gone`; of a queue, a cohort or a class `created`, `changed`, `removed`. Others may be added.
    pub event: String,
    /// The node that the GPU is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why a GPU is not promised, for programs: `foreign`, `leftBehind`, `hot`, `lost`, `silent`, `sick`. Others may be added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Who did it, where somebody did; `flashd` is the daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Notices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NoticeList {
    /// Oldest first.
    pub items: Vec<Notice>,
    /// Latest revision of the table when it was read.
    pub revision: u64,
}
