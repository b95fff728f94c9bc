//! A job as it is sent and as it comes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::quantity::{Cpu, Duration, GpuMillis, Memory};
use crate::select::{AnyOf, Arrangement, NodeExpression, NodeSelector};
use crate::usage::JobUsage;
use crate::volume::Volume;

/// A job as it is sent. Everything but a command is optional; unknown fields are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobSpec {
    /// DNS-1123 label, at most 63 characters. Default: the program's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "train")]
    pub name: Option<String>,
    /// The project it belongs to. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where it waits. Default: `default-batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Added to the queue's base priority; larger runs earlier. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -1_000_000, maximum = 1_000_000)]
    pub priority: Option<i32>,
    /// Name of a priority class, instead of `priority`: the job gets the number that the class has when it is submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// What runs it: `local` (processes), `job` (a Kubernetes Job) or `flashjob` (pods that are bound together). Default: that of the daemon, which has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<String>,
    /// Program and arguments. Short for one task; not together with `tasks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["python3", "train.py"]))]
    pub command: Option<Vec<String>>,
    /// The container image that its tasks run in, where the executor is `job` or `flashjob`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "registry.example.org/train:1")]
    pub image: Option<String>,
    /// What its containers mount, at most 32, where the executor is `job` or `flashjob`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Environment of every task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absolute path of the folder that tasks start in. Default: the user's home folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What the one task asks for, or what tasks ask for that do not say. Default: 1 CPU.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Which nodes tasks may go on that do not say: labels, each with its value or several of which any will do. All of them have to hold.
    #[serde(default, deserialize_with = "crate::select::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, crate::AnyOf>>, example = json!({"zone": "a", "disk": ["ssd", "nvme"]}))]
    pub node_selector: Option<NodeSelector>,
    /// The same for what a selector cannot say.
    #[serde(default, deserialize_with = "crate::object::some_list", skip_serializing_if = "Option::is_none")]
    pub node_expressions: Option<Vec<NodeExpression>>,
    /// Alternatives: all of one of these lists has to hold, beside the selector and the expressions.
    #[serde(default, deserialize_with = "crate::object::some_lists", skip_serializing_if = "Option::is_none")]
    pub node_terms: Option<Vec<Vec<NodeExpression>>>,
    /// How its tasks are laid over nodes. Default: `pack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Arrangement>,
    /// Groups of tasks that start together.
    #[serde(default, deserialize_with = "crate::object::list", skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskSpec>,
    /// How many tasks, over all groups, have to start together, else none starts. The others start with them where there is room at that
    /// moment, and are left out of the run where there is none. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub min_available: Option<u32>,
    /// Not to be started before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub start_after: Option<jiff::Timestamp>,
    /// Longest time that its tasks may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<Duration>,
    /// What happens when infrastructure loses it.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How it is ended.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// It saves its work when it is asked to end, so that ending it to make room loses little: it is chosen before others that do not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpointable: bool,
    /// Niceness added, 0 to 19. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 19)]
    pub nice: Option<i32>,
    /// Resource limits of each process: name as in setrlimit in lower case, value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"nofile": 65536}))]
    pub rlimits: BTreeMap<String, u64>,
    /// Accepted, but not queued until it is released.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// For selectors. Keys and values as in Kubernetes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For people and tools; not selected by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Replicas of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// DNS-1123 label, unique in the job. Default: `task`, or `task-N` where there are several groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many of it. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000)]
    pub replicas: Option<u32>,
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Added to the job's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absolute path. Default: the job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What each replica asks for. Default: the job's.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Which nodes it may go on: labels, each with its value or several of which any will do. All of them have to hold. Default: the job's.
    #[serde(default, deserialize_with = "crate::select::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, crate::AnyOf>>, example = json!({"zone": "a", "disk": ["ssd", "nvme"]}))]
    pub node_selector: Option<NodeSelector>,
    /// The same for what a selector cannot say. Default: the job's.
    #[serde(default, deserialize_with = "crate::object::some_list", skip_serializing_if = "Option::is_none")]
    pub node_expressions: Option<Vec<NodeExpression>>,
    /// Alternatives: all of one of these lists has to hold, beside the selector and the expressions. Default: the job's.
    #[serde(default, deserialize_with = "crate::object::some_lists", skip_serializing_if = "Option::is_none")]
    pub node_terms: Option<Vec<Vec<NodeExpression>>>,
}

/// What one task asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Processor time. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory. Default: none is reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Whole GPUs, which are the task's alone, or a part of one that it shares with others. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuMillis>,
    /// The same in tenths of a GPU, the units of MPS: 3 is `300m`, 10 are one whole GPU. What comes back has it in `gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10)]
    pub gpu_mps_units: Option<i64>,
    /// Models that its GPUs may be of, as `flash nodes` names them. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "NVIDIA H100 80GB HBM3")]
    pub gpu_model: Option<AnyOf>,
    /// Memory that each of its GPUs has at least. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<Memory>,
    /// Its GPUs, by UUID, as `flash gpus` names them: it gets exactly these, and waits while somebody has one of them. They are all on one node.
    /// Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["GPU-6d1a3c0e-8f0b-4c1a-9b1e-2a5b8f0c7d11"]))]
    pub gpu_uuids: Option<Vec<String>>,
    /// How much of the memory of its GPU it may use, where it has a part of one. Default: as large a part of it as of the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_share: Option<Memory>,
    /// Its GPUs are MIG instances of this profile, as `flash nodes` names it. Default: no instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1g.10gb")]
    pub mig_profile: Option<String>,
}

/// What happens when infrastructure loses a run. What the user's program failed is not tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Tries in all. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<u32>,
}

/// How a run is ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stop {
    /// The signal that asks it to end. Default: `SIGTERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "SIGTERM")]
    pub signal: Option<String>,
    /// Time until SIGKILL. Default: 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Held, or its time has not come.
    Waiting,
    /// In its queue.
    Queued,
    /// Placed, being started.
    Starting,
    /// Its tasks run.
    Running,
    /// Being ended.
    Stopping,
    /// For good.
    Finished,
}

impl State {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

/// How a job ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeWord {
    /// Every task ended with exit code 0.
    Succeeded,
    /// See the reason.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// In a word.
    pub result: OutcomeWord,
    /// Stable word for why it failed: `exitCode`, `signal`, `timeLimit`, `idle`, `start`, `infrastructure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The task that decided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Its exit code; 0 where the job succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Number of the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Who cancelled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// One task on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacedTask {
    /// `group`, or `group-replica`.
    pub task: String,
    /// The node.
    pub node: String,
    /// UUIDs of its GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// How much of its one GPU it has, where that is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_share: Option<GpuShare>,
}

/// A part of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuShare {
    /// Of the GPU.
    pub gpu: GpuMillis,
    /// Of its memory.
    pub memory: Memory,
}

/// A job as it comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// UUIDv7.
    pub id: Uuid,
    /// Its number in the order of submission: short to type, and taken wherever the id is. Numbers are never used twice; some are left out.
    pub number: u64,
    /// Who submitted it.
    pub owner: String,
    /// As sent, completed with defaults: `tasks` is filled, the short forms are gone.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: State,
    /// What a waiting job waits for: `hold`, or `notBefore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Until when, for `notBefore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<jiff::Timestamp>,
    /// How it ended, once finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The latest try, from 1; 0 before the first.
    pub attempt: u32,
    /// Where its latest run was placed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement: Vec<PlacedTask>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: jiff::Timestamp,
    /// When its latest run's tasks started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<jiff::Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<jiff::Timestamp>,
    /// What it has used, once a run of it has begun. Only where one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<JobUsage>,
    /// What its user should know of its run. Only where one job is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Revision of its latest change.
    pub revision: u64,
}

/// Answer to a submit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Submitted {
    /// The job's id.
    pub id: Uuid,
}

/// What can be changed of a job that waits. What is left out stays; `null` gives the default.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobPatch {
    /// Added to the queue's base priority; takes the place of a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Priority by its name; takes the place of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// Where it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Longest time that it may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<Duration>,
    /// How often it is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

/// Body of `POST /jobs:batch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobBatch {
    /// All are accepted, or none.
    #[serde(deserialize_with = "crate::object::list")]
    pub jobs: Vec<JobSpec>,
}

/// Answer to `POST /jobs:batch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmittedBatch {
    /// In the order sent.
    pub jobs: Vec<Submitted>,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobList {
    /// The page.
    pub items: Vec<Job>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Revision of the table when it was read: watch `/events` from here.
    pub revision: u64,
}
