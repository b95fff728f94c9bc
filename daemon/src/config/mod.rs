//! What the daemon is told: flags, environment, `flashd.toml`, defaults, in this order of precedence.
//!
//! Invariants: a [`Config`] is complete and checked; nothing else in the daemon reads flags, environment or the file. `flashd config
//! check` prints it as a file that gives the same again.

mod defaults;
mod file;
mod gpus;
pub mod paths;
mod queues;
mod settings;
mod table;
pub mod values;

use std::path::PathBuf;

use api::quantity::{Cpu, Duration, Memory};
use serde::Serialize;

pub use file::{Fault, FileError};
pub use gpus::StaticGpu;
pub use queues::{CohortSetting, CohortShareSetting, FairShareSetting, PriorityClassSetting, QueueSetting, ShortFirstSetting};
pub use settings::Settings;
pub use table::Store;
use values::{After, DeviceCgroup, Discipline, ExecutorKind, Foreign, Label, Listen, Member, NodeLabels, Orphans};

use crate::telemetry::{LogFormat, LogLevel};

/// The whole configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Config {
    /// Folder of the job table, logs and socket.
    pub data: PathBuf,
    /// Where TCP is served.
    pub listen: Listen,
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Executors that are on.
    pub executors: Vec<ExecutorKind>,
    /// Whether it waits for a data folder that another daemon has.
    pub standby: bool,
    /// Namespaces that jobs may belong to; the first one is the default.
    pub namespaces: Vec<Label>,
    /// Where it is written down what the scheduler is asked and answers; nowhere unless that is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_log: Option<PathBuf>,
    /// Length in bytes after which nothing more is written there.
    #[serde(serialize_with = "bytes")]
    pub decision_log_limit: u64,
    /// Where the job table is, if not in the data folder.
    #[serde(skip_serializing_if = "Store::is_local")]
    pub store: Store,
    /// The daemon's own log.
    pub log: Log,
    /// This machine, where it is not to be as it is found.
    pub node: Node,
    /// Where GPUs are looked for.
    pub gpu: Gpu,
    /// The local executor.
    pub local: Local,
    /// The cluster that the executor `job` uses.
    pub kubernetes: Kubernetes,
    /// Users of a cluster.
    pub auth: Auth,
    /// How long things are kept.
    pub retention: Retention,
    /// Who may read metrics.
    pub metrics: MetricsAccess,
    /// Bounds of what clients may do.
    pub limits: Limits,
    /// How it is decided who starts.
    pub scheduler: SchedulerRules,
    /// All queues, by name.
    pub queues: Vec<QueueSetting>,
    /// All cohorts, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cohorts: Vec<CohortSetting>,
    /// All priority classes, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priority_classes: Vec<PriorityClassSetting>,
}

/// How it is decided who starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SchedulerRules {
    /// What happens behind a job that finds no room.
    pub discipline: Discipline,
    /// How many blocked jobs get a reservation; said where the discipline is conservative, and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<u64>,
    /// Whose runs may be ended to make room.
    pub preemption: PreemptionRules,
}

/// Whose runs may be ended to make room. Only runs of preemptible queues ever are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PreemptionRules {
    /// Those of lower priority in the same queue.
    pub within_queue: bool,
    /// Those of other queues of the cohort that hold what they borrowed, when a guarantee is claimed.
    pub reclaim: bool,
    /// Those of queues of lower base priority.
    pub across_queues: bool,
}

/// The daemon's own log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is written.
    pub level: LogLevel,
}

/// This machine, where it is not to be as it is found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Node {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Label>,
    /// Processors that jobs may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpu>,
    /// Memory that jobs may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// What jobs may select it by, beside what it says by itself.
    #[serde(skip_serializing_if = "NodeLabels::is_empty")]
    pub labels: NodeLabels,
    /// After how many failures in a row it takes no more; 0: never.
    pub failures_in_a_row: u64,
}

/// Where GPUs are looked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Gpu {
    /// Library to load instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvml_library: Option<PathBuf>,
    /// Where an MPS daemon has its pipes, if one runs.
    pub mps_pipe_directory: PathBuf,
    /// What is done with a GPU that somebody uses past the scheduler.
    pub foreign: Foreign,
    /// What is done with a process of a job that is still on a GPU when the job has ended.
    pub orphans: Orphans,
    /// How long such a process has after SIGTERM.
    pub orphan_grace: Duration,
    /// Whether jobs are kept from device nodes of GPUs that are not their own.
    pub device_cgroup: DeviceCgroup,
    /// Folder of those device nodes.
    pub device_directory: PathBuf,
    /// Pause between two looks.
    pub interval: Duration,
    /// How long the driver may take for one answer.
    pub patience: Duration,
    /// How long a job's end waits for its GPUs to be free.
    pub release_timeout: Duration,
    /// Critical errors that are faults of programs, by their numbers (Xid).
    pub ignore_xids: Vec<u64>,
    /// What becomes of jobs that leave their GPUs idle.
    pub idle: GpuIdle,
    /// GPUs that nobody is asked about.
    #[serde(rename = "static", skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<StaticGpu>,
}

/// What becomes of jobs that leave their GPUs idle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GpuIdle {
    /// Percent of the time below which a GPU counts as idle.
    pub below: u64,
    /// When their users are warned.
    pub warn_after: After,
    /// When they are stopped.
    pub stop_after: After,
    /// Queues whose jobs may do so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exempt_queues: Vec<Label>,
}

/// The local executor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Local {
    /// Delegated cgroup v2 folder, where it is not to be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_root: Option<PathBuf>,
    /// Folder in which jobs are kept from devices, where it is not to be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_cgroup_root: Option<PathBuf>,
    /// Threads that start processes.
    pub spawn_threads: u64,
}

/// The cluster that the executor `job` uses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Kubernetes {
    /// How it is reached, where that is not to be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this installation in it.
    pub instance: Label,
    /// Where the Lease is, where that is not to be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Label>,
    /// How long another daemon waits for the holder of the Lease.
    pub lease_duration: Duration,
    /// How long a node may be silent until its runs are lost.
    pub node_grace: Duration,
}

/// Users of a cluster: who is known by its tokens, and what they may do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Auth {
    /// Whether there are any.
    pub kubernetes: bool,
    /// What their tokens have to be made for; the API server's own where nothing is said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Groups whose members are administrators.
    pub admin_groups: Vec<String>,
    /// Groups whose members belong to a namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// How long it is remembered whose a token is.
    pub cache: Duration,
}

/// How long things are kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Retention {
    /// How long events can be watched from, and idempotency keys are remembered.
    pub events: Duration,
    /// How long finished jobs and their logs are kept.
    pub jobs: Duration,
    /// How long it is known what was used on a day.
    pub usage: Duration,
}

/// Who may read metrics.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MetricsAccess {
    /// On TCP without a token; the Unix socket always may.
    pub public: bool,
}

/// Bounds of what clients may do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Limits {
    /// TCP connections at once; more wait in the kernel.
    pub tcp_connections: u64,
    /// Unix socket connections at once; more wait in the kernel.
    pub unix_connections: u64,
    /// Body of a request in bytes, batches apart.
    #[serde(serialize_with = "bytes")]
    pub body: u64,
    /// Body of a batch in bytes.
    #[serde(serialize_with = "bytes")]
    pub batch_body: u64,
    /// Jobs in a batch.
    pub batch_jobs: u64,
    /// Tasks in a job, replicas counted.
    pub tasks: u64,
    /// Time until a request has its answer; streams apart.
    pub request_timeout: Duration,
    /// Time for the head of a request, and that a connection may idle or not take what it is sent.
    pub idle_timeout: Duration,
    /// Event streams and followed logs at once.
    pub watchers: u64,
    /// Time that open requests have to end at shutdown.
    pub drain_timeout: Duration,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn bytes<S: serde::Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Memory(*bytes))
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there, or was asked for, and cannot be read.
    #[error("reading {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not the address of a database.
    #[error("store.url: {0}")]
    Store(#[from] store::AddressError),
    /// More than one executor.
    #[error("`executors` names {0} of them; this version runs jobs with one: `local` or `job`")]
    Executors(usize),
    /// A path that is needed is not known.
    #[error("no {0}")]
    Missing(&'static str),
    /// Two settings, wherever each was said, do not go together.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// Where jobs wait that name no queue.
pub const DEFAULT_QUEUE: &str = "default-batch";
/// Where jobs belong that name no namespace.
pub const DEFAULT_NAMESPACE: &str = "default";

impl Config {
    /// Flags and environment, filled up from the file and with defaults.
    pub fn load(mut settings: Settings) -> Result<Self, ConfigError> {
        let asked = settings.config.clone();
        if let Some(path) = asked.clone().or_else(paths::default_file) {
            match std::fs::read_to_string(&path) {
                Ok(text) => file::read(&path, &text, &mut settings)?,
                Err(error) if asked.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(ConfigError::Read { path, source }),
            }
        }
        Self::complete(settings)
    }

    /// As a file that gives the same again.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

#[cfg(test)]
mod tests;
