//! What can be set: every flag, its environment variable and its key in `flashd.toml`, in one place.
//!
//! Invariants: clap fills a [`Settings`] from flags and environment; the file then fills only what is still empty, so flag beats
//! environment beats file; what stays empty gets its default in [`Config`](super::Config). Every field but `config` has a key.

use std::path::PathBuf;

use api::quantity::{Cpu, Memory};
use clap::Args;

use super::file::Slot;
use super::gpus::StaticGpus;
use super::queues::{CohortSetting, Entries, PriorityClassSetting, QueueSetting};
use super::values::{
    After, Count, DeviceCgroup, Discipline, ExecutorKind, Foreign, Interval, Label, Listen, Member, NodeLabels, Orphans, Pause,
    Size, StoreUrl, Text,
};
use crate::telemetry::{LogFormat, LogLevel};

/// Flags of `flashd serve` and `flashd config check`.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Configuration file [default: /etc/flash-sched/flashd.toml for root, else ~/.config/flash-sched/flashd.toml, where there is one]
    #[arg(long, env = "FLASHD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the job table, logs and socket [default: /var/lib/flash-sched for root, else ~/.local/share/flash-sched]
    #[arg(long, env = "FLASHD_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// TCP address, or off [default: 127.0.0.1:7700]
    #[arg(long, env = "FLASHD_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Listen>,
    /// Unix socket [default: DIR/flashd.sock]
    #[arg(long, env = "FLASHD_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// PostgreSQL of the job table, as in postgres://USER@HOST/DATABASE [default: SQLite in the data folder]
    #[arg(long, visible_alias = "store", env = "FLASHD_STORE_URL", value_name = "URL", hide_env_values = true)]
    pub store_url: Option<StoreUrl>,
    /// File with the password for it, instead of one in the URL or in PGPASSWORD
    #[arg(long, env = "FLASHD_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,
    /// How log lines look [default: text]
    #[arg(long, env = "FLASHD_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged, as in `info` or `info,daemon::http=debug` [default: info]
    #[arg(long, env = "FLASHD_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Write every decision of the scheduler to this file, for `flash simulate --replay`
    #[arg(long, env = "FLASHD_DECISION_LOG", value_name = "FILE")]
    pub decision_log: Option<PathBuf>,
    /// Length after which the decision log ends [default: 256Mi]
    #[arg(long, env = "FLASHD_DECISION_LOG_LIMIT", value_name = "BYTES")]
    pub decision_log_limit: Option<Size>,
    /// What runs jobs: local (processes of this machine) or job (Kubernetes Jobs); one of them [default: local]
    #[arg(long, env = "FLASHD_EXECUTORS", value_name = "NAMES", value_delimiter = ',')]
    pub executors: Option<Vec<ExecutorKind>>,
    /// Wait for a data folder that another daemon has, and take over when that one ends [default: true where jobs run in a cluster]
    #[arg(long, env = "FLASHD_STANDBY", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub standby: Option<bool>,
    /// Namespaces that jobs may belong to [default: default]
    #[arg(long, env = "FLASHD_NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    pub namespaces: Option<Vec<Label>>,
    /// Name of this machine [default: its host name]
    #[arg(long, env = "FLASHD_NODE_NAME", value_name = "NAME", help_heading = "Machine")]
    pub node_name: Option<Label>,
    /// Processors that jobs may use [default: all]
    #[arg(long, env = "FLASHD_NODE_CPUS", value_name = "CPUS", help_heading = "Machine")]
    pub node_cpus: Option<Cpu>,
    /// Memory that jobs may use [default: all]
    #[arg(long, env = "FLASHD_NODE_MEMORY", value_name = "BYTES", help_heading = "Machine")]
    pub node_memory: Option<Memory>,
    /// Labels that jobs may select it by (zone=a,disk=ssd) [default: none but its own]
    #[arg(long, env = "FLASHD_NODE_LABELS", value_name = "LABELS", help_heading = "Machine")]
    pub node_labels: Option<NodeLabels>,
    /// Runs that fail in a row by no fault of their own, after which the machine takes no more; 0 = never [default: 5]
    #[arg(long, env = "FLASHD_NODE_FAILURES_IN_A_ROW", value_name = "N", help_heading = "Machine")]
    pub node_failures_in_a_row: Option<Count<0, 1_000>>,
    /// NVML library to load instead of the system's
    #[arg(long, env = "FLASHD_GPU_NVML_LIBRARY", value_name = "FILE", help_heading = "Machine")]
    pub gpu_nvml_library: Option<PathBuf>,
    /// Folder of the MPS daemon's pipes [default: /tmp/nvidia-mps]
    #[arg(long, env = "FLASHD_GPU_MPS_PIPE_DIRECTORY", value_name = "FOLDER", help_heading = "GPUs")]
    pub gpu_mps_pipe_directory: Option<PathBuf>,
    /// What is done with a GPU that somebody uses past the scheduler [default: avoid]
    #[arg(long, env = "FLASHD_GPU_FOREIGN", value_enum, help_heading = "GPUs")]
    pub gpu_foreign: Option<Foreign>,
    /// What is done with a process of a job that is still on a GPU when the job has ended [default: end]
    #[arg(long, env = "FLASHD_GPU_ORPHANS", value_enum, help_heading = "GPUs")]
    pub gpu_orphans: Option<Orphans>,
    /// How long such a process has after SIGTERM [default: 2s]
    #[arg(long, env = "FLASHD_GPU_ORPHAN_GRACE", value_name = "TIME", help_heading = "GPUs")]
    pub gpu_orphan_grace: Option<Interval>,
    /// Whether jobs are kept from device nodes of GPUs that are not their own, by a cgroup [default: auto]
    #[arg(long, env = "FLASHD_GPU_DEVICE_CGROUP", value_enum, help_heading = "GPUs")]
    pub gpu_device_cgroup: Option<DeviceCgroup>,
    /// Folder of the device nodes of GPUs [default: /dev]
    #[arg(long, env = "FLASHD_GPU_DEVICE_DIRECTORY", value_name = "FOLDER", help_heading = "GPUs")]
    pub gpu_device_directory: Option<PathBuf>,
    /// Pause between two looks at the GPUs [default: 2s]
    #[arg(long, env = "FLASHD_GPU_INTERVAL", value_name = "TIME", help_heading = "GPUs")]
    pub gpu_interval: Option<Interval>,
    /// How long the driver may take for one answer before its GPUs are held back [default: 10s]
    #[arg(long, env = "FLASHD_GPU_PATIENCE", value_name = "TIME", help_heading = "GPUs")]
    pub gpu_patience: Option<Interval>,
    /// How long the end of a job waits for its GPUs to be free before they are held back [default: 10s]
    #[arg(long, env = "FLASHD_GPU_RELEASE_TIMEOUT", value_name = "TIME", help_heading = "GPUs")]
    pub gpu_release_timeout: Option<Interval>,
    /// Critical errors that are faults of programs [default: 13,31,43,45,68,109]
    #[arg(long, env = "FLASHD_GPU_IGNORE_XIDS", value_name = "NUMBERS", value_delimiter = ',', help_heading = "GPUs")]
    pub gpu_ignore_xids: Option<Vec<Count<1, 65_535>>>,
    /// Percent of the time below which the GPUs of a job count as idle [default: 5]
    #[arg(long, env = "FLASHD_GPU_IDLE_BELOW", value_name = "PERCENT", help_heading = "GPUs")]
    pub gpu_idle_below: Option<Count<1, 100>>,
    /// How long a job may leave its GPUs idle before its user is warned, or off [default: 30m]
    #[arg(long, env = "FLASHD_GPU_IDLE_WARN_AFTER", value_name = "TIME", help_heading = "GPUs")]
    pub gpu_idle_warn_after: Option<After>,
    /// How long a job may leave its GPUs idle before it is stopped, or off [default: off]
    #[arg(long, env = "FLASHD_GPU_IDLE_STOP_AFTER", value_name = "TIME", help_heading = "GPUs")]
    pub gpu_idle_stop_after: Option<After>,
    /// Queues whose jobs may leave their GPUs idle
    #[arg(long, env = "FLASHD_GPU_IDLE_EXEMPT_QUEUES", value_name = "NAMES", value_delimiter = ',', help_heading = "GPUs")]
    pub gpu_idle_exempt_queues: Option<Vec<Label>>,
    /// GPUs that nobody is asked about; only in the file.
    #[arg(skip)]
    pub gpu_static: StaticGpus,
    /// cgroup v2 folder that is delegated to the daemon [default: found out]
    #[arg(long, env = "FLASHD_LOCAL_CGROUP_ROOT", value_name = "DIR", help_heading = "Machine")]
    pub local_cgroup_root: Option<PathBuf>,
    /// Folder of cgroup v1's devices controller or of cgroup v2 in which jobs are kept from devices [default: found out]
    #[arg(long, env = "FLASHD_LOCAL_DEVICE_CGROUP_ROOT", value_name = "DIR", help_heading = "Machine")]
    pub local_device_cgroup_root: Option<PathBuf>,
    /// Threads that start processes [default: one a processor, at most 8]
    #[arg(long, env = "FLASHD_LOCAL_SPAWN_THREADS", value_name = "N", help_heading = "Machine")]
    pub local_spawn_threads: Option<Count<1, 256>>,
    /// Kubeconfig of the cluster that the executor `job` uses [default: KUBECONFIG, the user's, or that of the pod]
    #[arg(long, env = "FLASHD_KUBERNETES_KUBECONFIG", value_name = "FILE", help_heading = "Kubernetes")]
    pub kubernetes_kubeconfig: Option<PathBuf>,
    /// Name of this installation: those that share a cluster need different ones [default: flash-sched]
    #[arg(long, env = "FLASHD_KUBERNETES_INSTANCE", value_name = "NAME", help_heading = "Kubernetes")]
    pub kubernetes_instance: Option<Label>,
    /// Namespace of the Lease that says which daemon gives orders [default: that of the kubeconfig or of the pod]
    #[arg(long, env = "FLASHD_KUBERNETES_NAMESPACE", value_name = "NAME", help_heading = "Kubernetes")]
    pub kubernetes_namespace: Option<Label>,
    /// How long another daemon waits for the holder of the Lease, in whole seconds and at least 3 s [default: 15s]
    #[arg(long, env = "FLASHD_KUBERNETES_LEASE_DURATION", value_name = "TIME", help_heading = "Kubernetes")]
    pub kubernetes_lease_duration: Option<Pause>,
    /// How long a node of the cluster may be silent until its runs are lost [default: 60s]
    #[arg(long, env = "FLASHD_KUBERNETES_NODE_GRACE", value_name = "TIME", help_heading = "Kubernetes")]
    pub kubernetes_node_grace: Option<Pause>,
    /// Take tokens of the cluster as those of its users [default: true where jobs run in one]
    #[arg(long, env = "FLASHD_AUTH_KUBERNETES", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Kubernetes")]
    pub auth_kubernetes: Option<bool>,
    /// Audiences that a token of the cluster has to be made for, one of them [default: that of the API server]
    #[arg(long, env = "FLASHD_AUTH_AUDIENCES", value_name = "NAMES", value_delimiter = ',', help_heading = "Kubernetes")]
    pub auth_audiences: Option<Vec<Text>>,
    /// Groups of the cluster whose members are administrators here [default: system:masters]
    #[arg(long, env = "FLASHD_AUTH_ADMIN_GROUPS", value_name = "GROUPS", value_delimiter = ',', help_heading = "Kubernetes")]
    pub auth_admin_groups: Option<Vec<Text>>,
    /// Groups of the cluster whose members belong to a namespace (GROUP=NAMESPACE); service accounts belong to their own
    #[arg(long, env = "FLASHD_AUTH_MEMBERS", value_name = "MEMBERS", value_delimiter = ',', help_heading = "Kubernetes")]
    pub auth_members: Option<Vec<Member>>,
    /// How long it is remembered whose a token of the cluster is, up to an hour [default: 1m]
    #[arg(long, env = "FLASHD_AUTH_CACHE", value_name = "TIME", help_heading = "Kubernetes")]
    pub auth_cache: Option<Interval>,
    /// How long events can be watched from [default: 7d]
    #[arg(long, env = "FLASHD_RETENTION_EVENTS", value_name = "TIME", help_heading = "Retention")]
    pub retention_events: Option<Pause>,
    /// How long finished jobs and their logs are kept [default: 30d]
    #[arg(long, env = "FLASHD_RETENTION_JOBS", value_name = "TIME", help_heading = "Retention")]
    pub retention_jobs: Option<Pause>,
    /// How long it is known what was used on a day [default: 800d]
    #[arg(long, env = "FLASHD_RETENTION_USAGE", value_name = "TIME", help_heading = "Retention")]
    pub retention_usage: Option<Pause>,
    /// Serve /metrics on TCP without a token [default: false]
    #[arg(long, env = "FLASHD_METRICS_PUBLIC", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub metrics_public: Option<bool>,
    /// TCP connections at once [default: 1024]
    #[arg(long, env = "FLASHD_LIMITS_TCP_CONNECTIONS", value_name = "N", help_heading = "Limits")]
    pub limits_tcp_connections: Option<Count<1, 1_000_000>>,
    /// Unix socket connections at once [default: 1024]
    #[arg(long, env = "FLASHD_LIMITS_UNIX_CONNECTIONS", value_name = "N", help_heading = "Limits")]
    pub limits_unix_connections: Option<Count<1, 1_000_000>>,
    /// Body of a request, batches apart [default: 1Mi]
    #[arg(long, env = "FLASHD_LIMITS_BODY", value_name = "BYTES", help_heading = "Limits")]
    pub limits_body: Option<Size>,
    /// Body of a batch [default: 64Mi]
    #[arg(long, env = "FLASHD_LIMITS_BATCH_BODY", value_name = "BYTES", help_heading = "Limits")]
    pub limits_batch_body: Option<Size>,
    /// Jobs in a batch [default: 100000]
    #[arg(long, env = "FLASHD_LIMITS_BATCH_JOBS", value_name = "N", help_heading = "Limits")]
    pub limits_batch_jobs: Option<Count<1, 1_000_000>>,
    /// Tasks in a job [default: 10000]
    #[arg(long, env = "FLASHD_LIMITS_TASKS", value_name = "N", help_heading = "Limits")]
    pub limits_tasks: Option<Count<1, 10_000>>,
    /// Time until a request has its answer; streams apart [default: 30s]
    #[arg(long, env = "FLASHD_LIMITS_REQUEST_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    pub limits_request_timeout: Option<Pause>,
    /// Time for the head of a request, and that a connection may idle or not take what it is sent [default: 30s]
    #[arg(long, env = "FLASHD_LIMITS_IDLE_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    pub limits_idle_timeout: Option<Pause>,
    /// Event streams and followed logs at once [default: 256]
    #[arg(long, env = "FLASHD_LIMITS_WATCHERS", value_name = "N", help_heading = "Limits")]
    pub limits_watchers: Option<Count<1, 100_000>>,
    /// Time that open requests have to end at shutdown [default: 10s]
    #[arg(long, env = "FLASHD_LIMITS_DRAIN_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    pub limits_drain_timeout: Option<Pause>,
    /// What happens behind a job that finds no room [default: easy]
    #[arg(long, env = "FLASHD_SCHEDULER_DISCIPLINE", value_enum, help_heading = "Scheduling")]
    pub scheduler_discipline: Option<Discipline>,
    /// With conservative: how many blocked jobs get a reservation [default: 8]
    #[arg(long, env = "FLASHD_SCHEDULER_RESERVATIONS", value_name = "N", help_heading = "Scheduling")]
    pub scheduler_reservations: Option<Count<1, { scheduler_core::scheduler::HEADS_LIMIT as u64 }>>,
    /// End runs of lower priority for a job of the same queue [default: false]
    #[arg(long, env = "FLASHD_SCHEDULER_PREEMPTION_WITHIN_QUEUE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Scheduling")]
    pub scheduler_preemption_within_queue: Option<bool>,
    /// End runs that hold what their queue borrowed, when a guarantee is claimed [default: true]
    #[arg(long, env = "FLASHD_SCHEDULER_PREEMPTION_RECLAIM", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Scheduling")]
    pub scheduler_preemption_reclaim: Option<bool>,
    /// End runs of queues of lower base priority [default: false]
    #[arg(long, env = "FLASHD_SCHEDULER_PREEMPTION_ACROSS_QUEUES", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Scheduling")]
    pub scheduler_preemption_across_queues: Option<bool>,
    /// Queues; only in the file.
    #[arg(skip)]
    pub queues: Entries<QueueSetting>,
    /// Cohorts; only in the file.
    #[arg(skip)]
    pub cohorts: Entries<CohortSetting>,
    /// Priority classes; only in the file.
    #[arg(skip)]
    pub priority_classes: Entries<PriorityClassSetting>,
}

impl Settings {
    /// Every key of the file and where its value goes.
    pub(super) fn slots(&mut self) -> Vec<(&'static str, &mut dyn Slot)> {
        vec![
            ("data", &mut self.data),
            ("listen", &mut self.listen),
            ("socket", &mut self.socket),
            ("store.url", &mut self.store_url),
            ("store.password_file", &mut self.store_password_file),
            ("log.format", &mut self.log_format),
            ("log.level", &mut self.log_level),
            ("decision_log", &mut self.decision_log),
            ("decision_log_limit", &mut self.decision_log_limit),
            ("executors", &mut self.executors),
            ("standby", &mut self.standby),
            ("namespaces", &mut self.namespaces),
            ("node.name", &mut self.node_name),
            ("node.cpus", &mut self.node_cpus),
            ("node.memory", &mut self.node_memory),
            ("node.labels", &mut self.node_labels),
            ("node.failures_in_a_row", &mut self.node_failures_in_a_row),
            ("gpu.nvml_library", &mut self.gpu_nvml_library),
            ("gpu.mps_pipe_directory", &mut self.gpu_mps_pipe_directory),
            ("gpu.foreign", &mut self.gpu_foreign),
            ("gpu.orphans", &mut self.gpu_orphans),
            ("gpu.orphan_grace", &mut self.gpu_orphan_grace),
            ("gpu.device_cgroup", &mut self.gpu_device_cgroup),
            ("gpu.device_directory", &mut self.gpu_device_directory),
            ("gpu.interval", &mut self.gpu_interval),
            ("gpu.patience", &mut self.gpu_patience),
            ("gpu.release_timeout", &mut self.gpu_release_timeout),
            ("gpu.ignore_xids", &mut self.gpu_ignore_xids),
            ("gpu.idle.below", &mut self.gpu_idle_below),
            ("gpu.idle.warn_after", &mut self.gpu_idle_warn_after),
            ("gpu.idle.stop_after", &mut self.gpu_idle_stop_after),
            ("gpu.idle.exempt_queues", &mut self.gpu_idle_exempt_queues),
            ("gpu.static", &mut self.gpu_static),
            ("local.cgroup_root", &mut self.local_cgroup_root),
            ("local.device_cgroup_root", &mut self.local_device_cgroup_root),
            ("local.spawn_threads", &mut self.local_spawn_threads),
            ("kubernetes.kubeconfig", &mut self.kubernetes_kubeconfig),
            ("kubernetes.instance", &mut self.kubernetes_instance),
            ("kubernetes.namespace", &mut self.kubernetes_namespace),
            ("kubernetes.lease_duration", &mut self.kubernetes_lease_duration),
            ("kubernetes.node_grace", &mut self.kubernetes_node_grace),
            ("auth.kubernetes", &mut self.auth_kubernetes),
            ("auth.audiences", &mut self.auth_audiences),
            ("auth.admin_groups", &mut self.auth_admin_groups),
            ("auth.members", &mut self.auth_members),
            ("auth.cache", &mut self.auth_cache),
            ("retention.events", &mut self.retention_events),
            ("retention.jobs", &mut self.retention_jobs),
            ("retention.usage", &mut self.retention_usage),
            ("metrics.public", &mut self.metrics_public),
            ("limits.tcp_connections", &mut self.limits_tcp_connections),
            ("limits.unix_connections", &mut self.limits_unix_connections),
            ("limits.body", &mut self.limits_body),
            ("limits.batch_body", &mut self.limits_batch_body),
            ("limits.batch_jobs", &mut self.limits_batch_jobs),
            ("limits.tasks", &mut self.limits_tasks),
            ("limits.request_timeout", &mut self.limits_request_timeout),
            ("limits.idle_timeout", &mut self.limits_idle_timeout),
            ("limits.watchers", &mut self.limits_watchers),
            ("limits.drain_timeout", &mut self.limits_drain_timeout),
            ("scheduler.discipline", &mut self.scheduler_discipline),
            ("scheduler.reservations", &mut self.scheduler_reservations),
            ("scheduler.preemption.within_queue", &mut self.scheduler_preemption_within_queue),
            ("scheduler.preemption.reclaim", &mut self.scheduler_preemption_reclaim),
            ("scheduler.preemption.across_queues", &mut self.scheduler_preemption_across_queues),
            ("queues", &mut self.queues),
            ("cohorts", &mut self.cohorts),
            ("priority_classes", &mut self.priority_classes),
        ]
    }
}
