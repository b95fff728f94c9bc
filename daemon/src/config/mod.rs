//! What the daemon is told: flags, environment, `flashd.toml`, defaults, in this order of precedence.
//!
//! Invariants: a [`Config`] is complete and checked; nothing else in the daemon reads flags, environment or the file. `flashd config
//! check` prints it as a file that gives the same again.

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
use values::{After, DeviceCgroup, Discipline, ExecutorKind, Foreign, Label, Listen, Member, NodeLabels, Orphans, Text};

use crate::cluster::OWN_INSTANCE;
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

/// Where device nodes are.
const DEVICES: &str = "/dev";
/// Where CUDA looks for an MPS daemon by default.
const MPS_PIPES: &str = "/tmp/nvidia-mps";

/// Critical errors that programs make, and not their GPU: wrong addresses and instructions, and what follows when a program is ended.
const PROGRAMS_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

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

/// Queues that exist from the start, when the file does not say otherwise of them.
fn built_in_queues() -> [(&'static str, i32, bool); 3] {
    [("configfile-interactive", 10_000, false), ("configfile-job", 5_000, false), ("default-batch", 100, true)]
}

/// Where jobs wait that name no queue.
pub const DEFAULT_QUEUE: &str = "default-batch";
/// Where jobs belong that name no namespace.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The group that may do everything in a cluster.
const CLUSTER_ADMINS: &str = "system:masters";

/// Failures in a row after which a node takes no more runs, where nothing is said.
const FAILURES_IN_A_ROW: u64 = 5;

/// Blocked jobs that get a reservation under the conservative discipline, where nothing is said.
const RESERVATIONS: u64 = 8;

/// How many blocked jobs get a reservation, where that is to be said.
fn reservations(settings: &Settings) -> Result<Option<u64>, ConfigError> {
    let said = settings.scheduler_reservations.map(|count| count.0);
    match settings.scheduler_discipline.unwrap_or_default() {
        Discipline::Conservative => Ok(Some(said.unwrap_or(RESERVATIONS))),
        Discipline::Easy | Discipline::Fifo if said.is_some() => Err(ConfigError::Contradiction(
            "scheduler.reservations: needs scheduler.discipline = \"conservative\"; `easy` has one reservation, `fifo` none",
        )),
        Discipline::Easy | Discipline::Fifo => Ok(None),
    }
}

/// What becomes of jobs that leave their GPUs idle.
fn idle(settings: &mut Settings) -> Result<GpuIdle, ConfigError> {
    let idle = GpuIdle {
        below: settings.gpu_idle_below.map_or(5, |percent| percent.0),
        warn_after: settings.gpu_idle_warn_after.unwrap_or(After::Time(Duration(1_800_000_000))),
        stop_after: settings.gpu_idle_stop_after.unwrap_or(After::Off),
        exempt_queues: settings.gpu_idle_exempt_queues.take().unwrap_or_default(),
    };
    if let (Some(warn), Some(stop)) = (idle.warn_after.time(), idle.stop_after.time())
        && stop < warn
    {
        return Err(ConfigError::Contradiction(
            "gpu.idle.stop_after: comes before gpu.idle.warn_after; say a longer time, or warn_after = \"off\"",
        ));
    }
    Ok(idle)
}

/// Who is known by tokens of a cluster.
fn auth(settings: &mut Settings, in_cluster: bool) -> Auth {
    let texts = |list: Option<Vec<Text>>| list.map(|list| list.into_iter().map(|text| text.0).collect());
    Auth {
        kubernetes: settings.auth_kubernetes.unwrap_or(in_cluster),
        audiences: texts(settings.auth_audiences.take()).unwrap_or_default(),
        admin_groups: texts(settings.auth_admin_groups.take()).unwrap_or_else(|| vec![CLUSTER_ADMINS.to_owned()]),
        members: settings.auth_members.take().unwrap_or_default(),
        cache: settings.auth_cache.map_or(Duration(60_000_000), |time| time.0),
    }
}

/// `text` is one of this module's own labels.
fn own_label(text: &'static str) -> Result<Label, ConfigError> {
    text.parse().map_err(|_| ConfigError::Missing("usable built-in name"))
}

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

    /// Defaults for what is still empty.
    fn complete(mut settings: Settings) -> Result<Self, ConfigError> {
        let idle = idle(&mut settings)?;
        if let Some(several) = settings.executors.as_ref().filter(|list| list.len() > 1) {
            return Err(ConfigError::Executors(several.len()));
        }
        let reservations = reservations(&settings)?;
        let in_cluster = settings.executors.iter().flatten().any(|executor| executor.is_cluster());
        let auth = auth(&mut settings, in_cluster);
        let data = settings
            .data
            .or_else(paths::default_data)
            .ok_or(ConfigError::Missing("data folder: neither --data nor a home folder is known; say --data DIR"))?;
        let data = std::path::absolute(&data).map_err(|source| ConfigError::Read { path: data, source })?;
        let store = Store::said(settings.store_url, settings.store_password_file)?;
        let mut queues = settings.queues.items;
        for (name, priority, preemptible) in built_in_queues() {
            let name = own_label(name)?;
            if !queues.iter().any(|queue| queue.name == name) {
                queues.push(QueueSetting::named(name, priority, preemptible));
            }
        }
        queues.sort_by(|one, other| one.name.cmp(&other.name));
        let mut cohorts = settings.cohorts.items;
        cohorts.sort_by(|one, other| one.name.cmp(&other.name));
        let mut priority_classes = settings.priority_classes.items;
        priority_classes.sort_by(|one, other| one.name.cmp(&other.name));
        let seconds = |seconds: u64| Duration(seconds * 1_000_000);
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let socket = match settings.socket {
            Some(path) => std::path::absolute(&path).map_err(|source| ConfigError::Read { path, source })?,
            None => data.join("flashd.sock"),
        };
        let decision_log =
            settings.decision_log.map(|path| std::path::absolute(&path).map_err(|source| ConfigError::Read { path, source }));
        let listen_default = Listen::Address((std::net::Ipv4Addr::LOCALHOST, 7700).into());
        Ok(Self {
            listen: settings.listen.unwrap_or(listen_default),
            socket,
            data,
            executors: settings.executors.filter(|list| !list.is_empty()).unwrap_or_else(|| vec![ExecutorKind::Local]),
            standby: settings.standby.unwrap_or(in_cluster),
            namespaces: match settings.namespaces.filter(|list| !list.is_empty()) {
                Some(namespaces) => namespaces,
                None => vec![own_label(DEFAULT_NAMESPACE)?],
            },
            store,
            log: Log { format: settings.log_format.unwrap_or_default(), level: settings.log_level.unwrap_or_default() },
            decision_log: decision_log.transpose()?,
            decision_log_limit: settings.decision_log_limit.map_or(256 << 20, |size| size.0),
            node: Node {
                name: settings.node_name,
                cpus: settings.node_cpus,
                memory: settings.node_memory,
                labels: settings.node_labels.unwrap_or_default(),
                failures_in_a_row: settings.node_failures_in_a_row.map_or(FAILURES_IN_A_ROW, |count| count.0),
            },
            gpu: Gpu {
                nvml_library: settings.gpu_nvml_library,
                mps_pipe_directory: settings.gpu_mps_pipe_directory.unwrap_or_else(|| PathBuf::from(MPS_PIPES)),
                foreign: settings.gpu_foreign.unwrap_or_default(),
                orphans: settings.gpu_orphans.unwrap_or_default(),
                orphan_grace: settings.gpu_orphan_grace.map_or(seconds(2), |time| time.0),
                device_cgroup: settings.gpu_device_cgroup.unwrap_or_default(),
                device_directory: settings.gpu_device_directory.unwrap_or_else(|| PathBuf::from(DEVICES)),
                interval: settings.gpu_interval.map_or(seconds(2), |time| time.0),
                patience: settings.gpu_patience.map_or(seconds(10), |time| time.0),
                release_timeout: settings.gpu_release_timeout.map_or(seconds(10), |time| time.0),
                ignore_xids: match settings.gpu_ignore_xids {
                    Some(xids) => xids.iter().map(|xid| xid.0).collect(),
                    None => PROGRAMS_XIDS.to_vec(),
                },
                idle,
                fixed: settings.gpu_static.items,
            },
            local: Local {
                cgroup_root: settings.local_cgroup_root,
                device_cgroup_root: settings.local_device_cgroup_root,
                spawn_threads: settings.local_spawn_threads.map_or(processors.min(8), |count| count.0),
            },
            kubernetes: Kubernetes {
                kubeconfig: settings.kubernetes_kubeconfig,
                instance: settings.kubernetes_instance.map_or_else(|| own_label(OWN_INSTANCE), Ok)?,
                namespace: settings.kubernetes_namespace,
                lease_duration: settings.kubernetes_lease_duration.map_or(seconds(15), |time| time.0),
                node_grace: settings.kubernetes_node_grace.map_or(seconds(60), |time| time.0),
            },
            auth,
            retention: Retention {
                events: settings.retention_events.map_or(seconds(7 * 86_400), |time| time.0),
                jobs: settings.retention_jobs.map_or(seconds(30 * 86_400), |time| time.0),
                usage: settings.retention_usage.map_or(seconds(800 * 86_400), |time| time.0),
            },
            metrics: MetricsAccess { public: settings.metrics_public.unwrap_or(false) },
            limits: Limits {
                tcp_connections: settings.limits_tcp_connections.map_or(1_024, |count| count.0),
                unix_connections: settings.limits_unix_connections.map_or(1_024, |count| count.0),
                body: settings.limits_body.map_or(1 << 20, |size| size.0),
                batch_body: settings.limits_batch_body.map_or(64 << 20, |size| size.0),
                batch_jobs: settings.limits_batch_jobs.map_or(100_000, |count| count.0),
                tasks: settings.limits_tasks.map_or(10_000, |count| count.0),
                request_timeout: settings.limits_request_timeout.map_or(seconds(30), |time| time.0),
                idle_timeout: settings.limits_idle_timeout.map_or(seconds(30), |time| time.0),
                watchers: settings.limits_watchers.map_or(256, |count| count.0),
                drain_timeout: settings.limits_drain_timeout.map_or(seconds(10), |time| time.0),
            },
            scheduler: SchedulerRules {
                discipline: settings.scheduler_discipline.unwrap_or_default(),
                reservations,
                preemption: PreemptionRules {
                    within_queue: settings.scheduler_preemption_within_queue.unwrap_or(false),
                    // Does nothing where nothing is guaranteed; where something is, it would be no guarantee without it.
                    reclaim: settings.scheduler_preemption_reclaim.unwrap_or(true),
                    across_queues: settings.scheduler_preemption_across_queues.unwrap_or(false),
                },
            },
            queues,
            cohorts,
            priority_classes,
        })
    }

    /// As a file that gives the same again.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

#[cfg(test)]
mod tests;
