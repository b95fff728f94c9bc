//! The trait and its words.

use std::collections::BTreeMap;

use async_trait::async_trait;
use scheduler_core::event::RunResult;
use scheduler_core::ids::{Name, RunId};
use scheduler_core::job::StopPolicy;
use scheduler_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One task of a run, ready to be executed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskOrder {
    /// `group`, or `group-replica` where the group has more than one replica: unique in the job, and part of file names.
    pub name: Name,
    /// Program and arguments; never empty, no NUL.
    pub command: Vec<String>,
    /// The whole environment of the task, `FLASH_*` and `CUDA_VISIBLE_DEVICES` included.
    pub env: BTreeMap<String, String>,
    /// Absolute path of the folder it starts in.
    pub working_dir: String,
    /// Processor limit in thousandths of a core, where cgroups can enforce it.
    pub cpu_millis: u64,
    /// Memory limit in bytes, where cgroups can enforce it; 0 for none.
    pub memory_bytes: u64,
}

/// A place in a line: the run does not begin at once, but when those before it have left room for it.
///
/// Runs of one line begin in the order in which they were given. The first one begins as soon as what it asks for (the sum over its
/// tasks of `cpu_millis`, and of `memory_bytes`), together with what the runs of the line that have begun and not ended ask for, is
/// within the limits that stand here. So what a line has in use is never more than the largest limits that stand in an order of it
/// that has not ended, and never more than its orders ask for together: whoever gives orders sets that much aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Which line of this executor.
    pub id: u64,
    /// Most processor time that the line may have in use once this run has begun, in thousandths of a core.
    pub cpu_millis: u64,
    /// Most memory that the line may have in use once this run has begun, in bytes.
    pub memory_bytes: u64,
}

/// The order to start a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StartOrder {
    /// The run: the key of idempotency.
    pub run: RunId,
    /// All start together; if one cannot be started the others are ended and the run fails.
    pub tasks: Vec<TaskOrder>,
    /// The uid to run as, if it is to differ from the executor's own.
    pub uid: Option<u32>,
    /// Niceness added, 0 to 19.
    pub nice: i32,
    /// Resource limits: name as in `setrlimit` in lower case (`nofile`, `core`, ...), value.
    pub rlimits: BTreeMap<String, u64>,
    /// The line that it waits in; without one it begins at once. Only where [`Executor::holds_orders`] says yes, and never for a run
    /// with GPUs: those are promised by name, and a line counts amounts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Line>,
    /// Device nodes that its tasks may not open. Only an executor of processes looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceRule>,
    /// What its pods are to be like, where it runs as pods. An executor of processes does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOrder>,
}

/// A character device, by its numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DeviceNode {
    /// The driver's.
    pub major: u32,
    /// The device's.
    pub minor: u32,
}

/// What a run may not open. All else stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeviceRule {
    /// These, in ascending order.
    pub denied: Vec<DeviceNode>,
    /// Nodes that would be denied, and cannot be found.
    pub missing: Vec<String>,
    /// Where it cannot be enforced the run does not begin, and is lost; else it begins without.
    pub required: bool,
}

/// Whether an executor can keep runs from devices.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// It can.
    pub enforced: bool,
    /// By what, or why not.
    pub detail: String,
}

/// What the pods of a run are to be like, beside what their tasks say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodOrder {
    /// Namespace of the cluster.
    pub namespace: String,
    /// The container's image.
    pub image: String,
    /// What the container mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<PodVolume>,
    /// GPUs or instances of each pod.
    pub gpus: u32,
    /// The resource under which the cluster has these: whole GPUs, or MIG instances of one profile.
    pub gpu_resource: String,
    /// Names of the nodes that its pods may go on; any, where there are none.
    pub nodes: Vec<String>,
    /// Labels that a pod's node has to have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that its pods do not mind.
    pub tolerations: Vec<PodToleration>,
    /// Seconds between SIGTERM and SIGKILL when it is stopped.
    pub grace_secs: u64,
    /// Seconds after which it is to be stopped. The cluster ends it a while later if nobody has.
    pub time_limit_secs: Option<u64>,
    /// Which node each task goes on, where we bind pods ourselves. An executor that leaves that to the cluster does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<GangOrder>,
}

/// A folder that a container mounts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodVolume {
    /// Absolute path in the container.
    pub mount_path: String,
    /// What is there.
    pub source: VolumeSource,
    /// Only this folder of it.
    pub sub_path: Option<String>,
    /// Nothing is written to it.
    pub read_only: bool,
}

/// What a container mounts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A PersistentVolumeClaim of the pod's namespace, by name.
    Claim(String),
    /// A folder of the pod's own.
    Empty {
        /// In memory, not on the node's disk.
        in_memory: bool,
        /// Most bytes that it may hold.
        limit_bytes: Option<u64>,
    },
}

/// The FlashJob that a run belongs to, and where its pods go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GangOrder {
    /// Name of the FlashJob, in the namespace of the order; of the pod, where that is all.
    pub flash_job: String,
    /// There is no FlashJob: the run is a pod that somebody else made, and the uid is its.
    #[serde(default)]
    pub lone: bool,
    /// Its uid, where somebody else made it: then its pods are like the templates that it has. Without one it is made by us, and its
    /// pods are like what the tasks of the order say.
    pub uid: Option<String>,
    /// The queue that one made by us is said to be of.
    pub queue: String,
    /// Seconds after which one made by us may be deleted once it has finished; never, where left out.
    pub ttl_secs: Option<u64>,
    /// For each task of the order, in the same order.
    pub places: Vec<GangPlace>,
}

/// Where one task goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GangPlace {
    /// Its number among the tasks of the FlashJob, from 0.
    pub index: u32,
    /// Name of the node, or its host name.
    pub node: String,
    /// GPUs or instances of it, instead of those of the whole order. Where the FlashJob is another's, its template says.
    pub gpus: u32,
    /// The resource under which the cluster has these.
    pub gpu_resource: String,
}

impl PodOrder {
    /// In this namespace; no image yet, no GPUs, any node.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            image: String::new(),
            volumes: Vec::new(),
            gpus: 0,
            gpu_resource: "nvidia.com/gpu".to_owned(),
            nodes: Vec::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            grace_secs: 30,
            time_limit_secs: None,
            gang: None,
        }
    }
}

/// A taint that pods do not mind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodToleration {
    /// Its key; any, where left out.
    pub key: Option<String>,
    /// Its value; any, where left out.
    pub value: Option<String>,
    /// Its effect; any, where left out.
    pub effect: Option<String>,
}

/// What an executor tells, unasked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// All tasks of the run were started. Left out where the end, which says when that was, follows closely.
    Started {
        /// The run.
        run: RunId,
        /// When.
        at: Timestamp,
    },
    /// Nothing of the run is left. Repeated at adoption until the run is forgotten.
    Ended {
        /// The run.
        run: RunId,
        /// How.
        result: RunResult,
        /// When its tasks were started, if they were.
        started_at: Option<Timestamp>,
        /// When the last of it ended.
        at: Timestamp,
    },
    /// The run waited in a line and never began: it was stopped or withdrawn there, or its runner was killed. No process of it was ever
    /// made. Final like an end, and repeated like one until the run is forgotten.
    NotBegun {
        /// The run.
        run: RunId,
        /// What happened.
        message: String,
        /// When.
        at: Timestamp,
    },
    /// The executor lost touch with what it manages (its runner died, its API server is away) or found it again: a nudge for the
    /// reconciler, which then calls [`Executor::observe`].
    Disturbed {
        /// What happened.
        message: String,
    },
}

/// What a run is doing, as far as the executor knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunPhase {
    /// Accepted; it waits in a line, and begins without further orders.
    Held,
    /// Accepted; its tasks do not all run yet.
    Starting,
    /// Its tasks run.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It was told to end.
    Stopping,
    /// Nothing of it is left; the record is kept until it is forgotten.
    Ended {
        /// How.
        result: RunResult,
        /// When its tasks were started, if they were.
        started_at: Option<Timestamp>,
        /// When.
        at: Timestamp,
    },
    /// It never began and never will; the record is kept until it is forgotten. See [`Report::NotBegun`].
    NotBegun {
        /// What happened.
        message: String,
        /// When.
        at: Timestamp,
    },
}

/// One run that an executor knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Observed {
    /// The run.
    pub run: RunId,
    /// What it is doing.
    pub phase: RunPhase,
}

/// Why an order could not be given. Whether it took effect is then unknown: it is sent again, or settled by the reconciler.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// Nobody is there to take orders at the moment.
    #[error("{op}: {executor} is not reachable: {detail}")]
    Unreachable {
        /// What was being done.
        op: &'static str,
        /// Which executor.
        executor: &'static str,
        /// Why.
        detail: String,
    },
    /// The other side speaks a protocol that this side does not.
    #[error("{executor} speaks protocol {theirs}, this daemon {ours}")]
    Protocol {
        /// Which executor.
        executor: &'static str,
        /// Version of the other side.
        theirs: u32,
        /// Version of this side.
        ours: u32,
    },
    /// Anything else.
    #[error("{op} on {executor}: {detail}")]
    Other {
        /// What was being done.
        op: &'static str,
        /// Which executor.
        executor: &'static str,
        /// What the system said.
        detail: String,
    },
}

/// Where runs become real. Reports come out of the channel that the implementation was built with.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// The word for it in specs, logs and metrics: `local`, `job`, `flashjob`.
    fn kind(&self) -> &'static str;

    /// Takes over from an earlier daemon, or begins: connects, and starts what is needed. Returns all runs that are there.
    async fn adopt(&self) -> Result<Vec<Observed>, ExecutorError>;

    /// Whether orders may be given that wait in a line. It can change whenever the executor is disturbed.
    fn holds_orders(&self) -> bool;

    /// Starts runs. A run that is known already is left as it is. What goes wrong with one run is reported as its end, not here.
    async fn start(&self, orders: Vec<StartOrder>) -> Result<(), ExecutorError>;

    /// Ends a run: the policy's signal, after its grace SIGKILL. An unknown run is nothing to end. A second stop may shorten the
    /// grace, never lengthen it. A run that waits in a line is dropped for good, and reported as [`Report::NotBegun`].
    async fn stop(&self, run: RunId, policy: StopPolicy) -> Result<(), ExecutorError>;

    /// Takes back orders that wait in a line: those are dropped for good, and reported as [`Report::NotBegun`]. Whatever has begun goes
    /// on, and what is not known is nothing to take back.
    async fn withdraw(&self, runs: Vec<RunId>) -> Result<(), ExecutorError>;

    /// All runs that are there now: the reconciler's view.
    async fn observe(&self) -> Result<Vec<Observed>, ExecutorError>;

    /// The ends of these runs are on record; their records here may go.
    async fn forget(&self, runs: Vec<RunId>) -> Result<(), ExecutorError>;
}

/// Name of a task's log file, without folder: the same for who writes it and who reads it.
///
/// `stream` is `out` or `err`. Flat names: a folder a job costs more than the job's own files.
pub fn log_file_name(run: RunId, task: &str, stream: &str) -> String {
    format!("{}.{}.{task}.{stream}", run.job, run.attempt)
}
