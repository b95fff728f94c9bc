//! What holds where nothing is said.
//!
//! Invariants: what is said is kept as it is; a configuration that is completed has nothing left to be found out but what the daemon looks for
//! on its machine; settings that do not go together are refused here, wherever each was said.

use std::path::PathBuf;

use api::quantity::Duration;

use super::values::{After, Discipline, ExecutorKind, Label, Listen, Text};
use super::{
    Auth, Config, ConfigError, DEFAULT_NAMESPACE, Gpu, GpuIdle, Kubernetes, Limits, Local, Log, MetricsAccess, Node,
    PreemptionRules, QueueSetting, Retention, SchedulerRules, Settings, Store, paths,
};
use crate::cluster::OWN_INSTANCE;

/// Where device nodes are.
const DEVICES: &str = "/dev";
/// Where CUDA looks for an MPS daemon by default.
const MPS_PIPES: &str = "/tmp/nvidia-mps";

/// Critical errors that programs make, and not their GPU: wrong addresses and instructions, and what follows when a program is ended.
const PROGRAMS_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// Queues that exist from the start, when the file does not say otherwise of them.
pub(super) fn built_in_queues() -> [(&'static str, i32, bool); 3] {
    [("configfile-interactive", 10_000, false), ("configfile-job", 5_000, false), ("default-batch", 100, true)]
}

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
    /// Defaults for what is still empty.
    pub(super) fn complete(mut settings: Settings) -> Result<Self, ConfigError> {
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
}
