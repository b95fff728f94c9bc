//! Tokens, events: what is neither a job, a queue, a node nor an error.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::job::{Outcome, State};

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobEvent {
    /// Its place in the one sequence of all events: no gap, never reused.
    pub revision: u64,
    /// The job.
    pub job: Uuid,
    /// The job's namespace.
    pub namespace: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// `submitted`, `held`, `released`, `updated`, `due`, `placed`, `started`, `ended`, `cancelled`, `requeued`, `timeLimit`,
    /// `preempted`.
    pub event: String,
    /// What the job was afterwards.
    pub state: State,
    /// Its latest try.
    pub attempt: u32,
    /// How it ended, once finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// Events of one job or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// Oldest first.
    pub items: Vec<JobEvent>,
    /// Latest revision of the table when it was read.
    pub revision: u64,
}

/// Body of `POST /tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// What it is for; shown in lists.
    pub name: String,
    /// How long it is good. Default: 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<crate::quantity::Duration>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its public identity.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Who its bearer is.
    pub user: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
}

/// A new token, with its secret: the only time that it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedToken {
    /// The record.
    #[serde(flatten)]
    pub token: Token,
    /// What goes behind `Authorization: Bearer `, or into `FLASH_TOKEN`.
    pub secret: String,
}

/// All tokens of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// Oldest first.
    pub items: Vec<Token>,
}

/// Who the server takes the caller for, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// Version of the daemon.
    pub version: String,
    /// The caller.
    pub user: String,
    /// Whether the caller may act on other users' jobs.
    pub admin: bool,
    /// Namespaces whose jobs the caller may act on, where the caller is a user of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The caller's groups in the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Latest revision of the table.
    pub revision: u64,
    /// What makes runs real: `local` processes, or a cluster's (`job`, `flashjob`).
    #[serde(default)]
    #[schema(example = "local")]
    pub executor: String,
}
