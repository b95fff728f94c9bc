//! From a stored job to the order that an executor can carry out: environment, folders, identity.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use api::{JobSpec, TaskSpec};
use executors::kubernetes::flashjob::flash_job_name;
use executors::kubernetes::nodes::GpuResource;
use executors::{GangOrder, GangPlace, Line, PodOrder, PodToleration, PodVolume, StartOrder, TaskOrder, VolumeSource};
use scheduler_core::amounts::GpuShare;
use scheduler_core::ids::RunId;
use scheduler_core::state::{Placement, Slot};
use store::JobRecord;

use crate::cluster::TOLERATED;
use crate::flashjobs::{FLASH_JOB_NAME, FLASH_JOB_UID, POD_NAME, POD_UID};
use crate::gpus::access::Access;

/// By what in its folder an MPS daemon is known.
const MPS_CONTROL: &str = "control";
/// Where programs are looked for when the job does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a FlashJob that we made is kept once it has finished, with the logs of its pods, in seconds: a day.
const KEPT_SECS: u64 = 86_400;

/// What every order is made with.
#[derive(Clone, Debug)]
pub struct OrderContext {
    /// The daemon's own uid: a job of another owner is run as that owner, which takes a daemon that is root.
    pub own_uid: u32,
    /// Runs are pods of a cluster, and not processes of this machine.
    pub pods: bool,
    /// They are pods of FlashJobs, which we bind.
    pub binds: bool,
    /// Where an MPS daemon has its pipes, if one runs: see [`mps_pipes`].
    pub mps_pipes: Option<PathBuf>,
    /// What says which devices a run may not open; nobody where runs are pods.
    pub access: Option<Access>,
}

/// The folder, if an MPS daemon listens in it. Looked at for each order: such a daemon comes and goes.
fn mps_pipes(context: &OrderContext) -> Option<&Path> {
    let folder = context.mps_pipes.as_deref()?;
    let control = std::fs::symlink_metadata(folder.join(MPS_CONTROL)).ok()?.file_type();
    (control.is_socket() || control.is_fifo()).then_some(folder)
}

/// Why a stored job gives no order. Its spec was checked when it was accepted; so this is damage or a fault of ours.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The spec does not parse.
    #[error("stored spec of job {job} is damaged")]
    Spec {
        /// The job.
        job: scheduler_core::ids::JobId,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The placement speaks of a task that the spec does not have.
    #[error("job {job} has no task group {group}")]
    Group {
        /// The job.
        job: scheduler_core::ids::JobId,
        /// Index of the group.
        group: u16,
    },
}

/// Name of one task of a job: its group, with the replica's number where the group has several.
pub fn task_name(group: &TaskSpec, replica: u32) -> String {
    let name = group.name.as_deref().unwrap_or("task");
    if group.replicas.unwrap_or(1) > 1 { format!("{name}-{replica}") } else { name.to_owned() }
}

/// The order for one run.
pub fn start_order(
    record: &JobRecord,
    run: RunId,
    placement: &Placement,
    context: &OrderContext,
) -> Result<StartOrder, OrderError> {
    let spec: JobSpec = serde_json::from_slice(&record.spec).map_err(|source| OrderError::Spec { job: record.id, source })?;
    let shares = placement.slots.iter().any(|slot| slot.share.is_some());
    let mps = if shares { mps_pipes(context) } else { None };
    let tasks = placement
        .slots
        .iter()
        .map(|slot| {
            let group = spec.tasks.get(usize::from(slot.group)).ok_or(OrderError::Group { job: record.id, group: slot.group })?;
            let placed = placement.slots.iter().filter(|other| other.group == slot.group).count();
            Ok(task_order(record, &spec, group, slot, (run, placed), (context.pods, mps)))
        })
        .collect::<Result<_, _>>()?;
    let tasks: Vec<TaskOrder> = tasks;
    // Whoever asks for more than his limits would keep the line for ever. The core sees to it; this is for a table that was changed by hand.
    let line = placement.line.zip(placement.slots.first()).map(|(line, slot)| Line {
        id: scheduler_core::line_of(&slot.node),
        cpu_millis: line.cpu.0.max(tasks.iter().map(|task| task.cpu_millis).sum()),
        memory_bytes: line.memory.0.max(tasks.iter().map(|task| task.memory_bytes).sum()),
    });
    let pod = context.pods.then(|| pod_order(record, &spec, placement));
    let pod = if context.binds { pod.map(|pod| gang_order(record, &spec, placement, pod)) } else { pod };
    Ok(StartOrder {
        run,
        tasks,
        uid: (record.owner.uid != context.own_uid).then_some(record.owner.uid),
        nice: spec.nice.unwrap_or(0),
        rlimits: spec.rlimits,
        line,
        devices: context.access.as_ref().and_then(|access| access.rule(placement)),
        pod,
    })
}

/// What the pods of a run are to be like. They go on the nodes that were chosen, where there is room for them by our books.
fn pod_order(record: &JobRecord, spec: &JobSpec, placement: &Placement) -> PodOrder {
    let resources = spec.tasks.first().and_then(|task| task.resources.clone()).unwrap_or_default();
    let mut nodes: Vec<String> = placement.slots.iter().map(|slot| slot.node.to_string()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let grace = spec.stop.as_ref().and_then(|stop| stop.grace).map_or(30, |grace| grace.0.div_ceil(1_000_000));
    PodOrder {
        image: spec.image.clone().unwrap_or_default(),
        volumes: spec.volumes.iter().map(pod_volume).collect(),
        // A part is one of those that the device plugin gives out.
        gpus: resources.gpu.map_or(0, |gpu| gpu.gpus().unwrap_or(1)),
        gpu_resource: gpu_resource(spec.tasks.first()),
        nodes,
        grace_secs: grace,
        tolerations: TOLERATED.iter().map(tolerated).collect(),
        time_limit_secs: spec.time_limit.map(|limit| limit.0.div_ceil(1_000_000)),
        ..PodOrder::new(record.namespace.as_str())
    }
}

/// As what the cluster has the GPUs that a task asks for.
fn gpu_resource(task: Option<&TaskSpec>) -> String {
    let resources = task.and_then(|task| task.resources.as_ref());
    let is_part = resources.and_then(|resources| resources.gpu).is_some_and(|gpu| gpu.gpus().is_none());
    let profile = resources.and_then(|resources| resources.mig_profile.clone());
    match profile {
        Some(profile) => GpuResource::Mig(profile),
        None if is_part => GpuResource::Shared,
        None => GpuResource::Whole,
    }
    .name()
}

/// It was checked when it was submitted: without a claim it is an empty folder.
fn pod_volume(volume: &api::Volume) -> PodVolume {
    let empty = volume.empty_dir.clone().unwrap_or_default();
    let source = match &volume.claim {
        Some(claim) => VolumeSource::Claim(claim.clone()),
        None => VolumeSource::Empty {
            in_memory: empty.medium == Some(api::Medium::Memory),
            limit_bytes: empty.size_limit.map(|limit| limit.0),
        },
    };
    let (mount_path, sub_path) = (volume.mount_path.clone(), volume.sub_path.clone());
    PodVolume { mount_path, source, sub_path, read_only: volume.read_only }
}

/// Each task on its own node, as pods of the job's FlashJob.
fn gang_order(record: &JobRecord, spec: &JobSpec, placement: &Placement, pod: PodOrder) -> PodOrder {
    let annotation = |key: &str| spec.annotations.get(key).cloned();
    let place = |slot: &Slot| {
        let before = spec.tasks.iter().take(usize::from(slot.group)).map(|group| group.replicas.unwrap_or(1));
        let gpus = u32::try_from(slot.gpus.len()).unwrap_or(u32::MAX);
        GangPlace {
            index: before.sum::<u32>().saturating_add(slot.replica),
            node: slot.node.to_string(),
            gpus,
            gpu_resource: gpu_resource(spec.tasks.get(usize::from(slot.group))),
        }
    };
    let lone = annotation(POD_UID).is_some();
    let (uid, name) = if lone { (POD_UID, POD_NAME) } else { (FLASH_JOB_UID, FLASH_JOB_NAME) };
    let uid = annotation(uid);
    let imported = uid.is_some().then(|| annotation(name)).flatten();
    let gang = GangOrder {
        flash_job: imported.unwrap_or_else(|| flash_job_name(record.name.as_str(), record.id)),
        lone,
        uid,
        queue: record.queue.to_string(),
        ttl_secs: Some(KEPT_SECS),
        places: placement.slots.iter().map(place).collect(),
    };
    PodOrder { nodes: Vec::new(), gang: Some(gang), ..pod }
}

/// Variables by which MPS keeps a task to its part.
const MPS_LIMITS: [&str; 2] = ["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"];

/// What a task with a part of a GPU is told about it; the GPU is the only one that it sees, so it is its number 0.
fn share_env(share: GpuShare, mps: Option<&Path>) -> Vec<(String, String)> {
    let mut env = vec![
        ("FLASH_GPU_MILLIS".to_owned(), share.millis.to_string()),
        ("FLASH_GPU_MEMORY_BYTES".to_owned(), share.memory.to_string()),
    ];
    if let Some(folder) = mps {
        let [memory, threads] = MPS_LIMITS;
        env.extend([
            ("CUDA_MPS_PIPE_DIRECTORY".to_owned(), folder.display().to_string()),
            // Whole MiB and percents, which every version reads; none of either would be no limit.
            (memory.to_owned(), format!("0={}M", (share.memory.0 >> 20).max(1))),
            (threads.to_owned(), (share.millis / 10).max(1).to_string()),
        ]);
    }
    env
}

fn tolerated(key: &&str) -> PodToleration {
    PodToleration { key: Some((*key).to_owned()), value: None, effect: None }
}

/// `placed` is how many replicas of the group this run has: with `minAvailable` it may be fewer than were asked for.
fn task_order(
    record: &JobRecord,
    spec: &JobSpec,
    group: &TaskSpec,
    slot: &Slot,
    (run, placed): (RunId, usize),
    (pods, mps): (bool, Option<&Path>),
) -> TaskOrder {
    let name = task_name(group, slot.replica);
    let working_dir = group.working_dir.as_ref().or(spec.working_dir.as_ref()).cloned();
    // An image knows where its programs start.
    let working_dir = working_dir.unwrap_or_else(|| if pods { String::new() } else { "/".to_owned() });
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    if !pods {
        env.insert("PATH".to_owned(), DEFAULT_PATH.to_owned());
        env.insert("USER".to_owned(), record.owner.user.to_string());
    }
    env.extend(spec.env.iter().chain(&group.env).map(|(key, value)| (key.clone(), value.clone())));
    // Set last: a job cannot lie to itself about who it is or which devices are its own.
    let gpus: Vec<&str> = slot.gpus.iter().map(scheduler_core::ids::Name::as_str).collect();
    for (key, value) in [
        ("FLASH_JOB_ID", run.job.to_string()),
        ("FLASH_ATTEMPT", run.attempt.to_string()),
        ("FLASH_TASK", name.clone()),
        ("FLASH_NAMESPACE", record.namespace.to_string()),
        ("FLASH_QUEUE", record.queue.to_string()),
        ("FLASH_REPLICA", slot.replica.to_string()),
        ("FLASH_REPLICAS", placed.to_string()),
    ] {
        env.insert(key.to_owned(), value);
    }
    // The devices of a pod are the cluster's to give.
    let devices = [
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned()),
        ("CUDA_VISIBLE_DEVICES", gpus.join(",")),
        ("NVIDIA_VISIBLE_DEVICES", if gpus.is_empty() { "void".to_owned() } else { gpus.join(",") }),
    ];
    if !pods {
        env.extend(devices.map(|(key, value)| (key.to_owned(), value)));
    }
    // What is not so is not said by the job either.
    for key in ["FLASH_GPU_MILLIS", "FLASH_GPU_MEMORY_BYTES"].into_iter().chain(MPS_LIMITS) {
        env.remove(key);
    }
    // Pods are told by their device plugin; and a Job's pods may go to any of its nodes, where parts can be of other sizes.
    env.extend(slot.share.iter().filter(|_| !pods).flat_map(|share| share_env(*share, mps)));
    let resources = group.resources.clone().unwrap_or_default();
    TaskOrder {
        name: name.into(),
        command: group.command.clone().unwrap_or_default(),
        env,
        working_dir,
        cpu_millis: resources.cpu.unwrap_or_default().0,
        memory_bytes: resources.memory.unwrap_or_default().0,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use scheduler_core::amounts::MemoryBytes;
    use scheduler_core::ids::{Attempt, JobId, Revision, Seq};
    use scheduler_core::state::{JobState, Lifecycle};
    use scheduler_core::time::Timestamp;
    use store::Owner;

    use super::*;

    fn record(spec: &str) -> (JobRecord, Placement) {
        let placement = Placement::new(vec![
            Slot {
                group: 0,
                replica: 0,
                node: "n".into(),
                gpus: ["GPU-b".into(), "GPU-a".into()].into_iter().collect(),
                share: None,
            },
            Slot { group: 0, replica: 1, node: "n".into(), gpus: smallvec::SmallVec::new(), share: None },
            Slot { group: 1, replica: 0, node: "n".into(), gpus: smallvec::SmallVec::new(), share: None },
        ]);
        let record = JobRecord {
            id: JobId(uuid::Uuid::from_u128(5)),
            seq: Seq(1),
            namespace: "vision".into(),
            queue: "default-batch".into(),
            owner: Owner { user: "ann".into(), uid: 1_000 },
            name: "train".into(),
            lifecycle: Lifecycle {
                state: JobState::Starting { placement: std::sync::Arc::new(placement.clone()) },
                attempt: Attempt(2),
                lost: 1,
            },
            revision: Revision(3),
            submitted_at: Timestamp(0),
            start_after: None,
            started_at: None,
            last_placement: None,
            spec: spec.to_owned().into(),
        };
        (record, placement)
    }

    const SPEC: &str = r#"{"env":{"SEED":"1","CUDA_VISIBLE_DEVICES":"0"},"workingDir":"/data","tasks":[
        {"name":"worker","replicas":2,"command":["w"],"resources":{"cpu":"2","memory":"1Gi","gpu":"2"}},
        {"name":"head","replicas":1,"command":["h","x"],"env":{"SEED":"2"},"workingDir":"/head","resources":{"cpu":"500m"}}]}"#;

    #[test]
    fn a_task_knows_who_it_is_and_sees_only_its_devices() {
        let (record, placement) = record(SPEC);
        let run = RunId { job: record.id, attempt: Attempt(2) };
        let order = start_order(
            &record,
            run,
            &placement,
            &OrderContext { own_uid: 0, pods: false, binds: false, mps_pipes: None, access: None },
        )
        .unwrap();
        let names: Vec<&str> = order.tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["worker-0", "worker-1", "head"]);
        assert_eq!(order.uid, Some(1_000));
        let [worker, other, head] = order.tasks.as_slice() else { panic!("three tasks") };
        assert_eq!(worker.env["CUDA_VISIBLE_DEVICES"], "GPU-b,GPU-a");
        assert_eq!(other.env["CUDA_VISIBLE_DEVICES"], "", "the job's own value is not believed");
        assert_eq!((worker.env["SEED"].as_str(), head.env["SEED"].as_str()), ("1", "2"));
        assert_eq!((worker.working_dir.as_str(), head.working_dir.as_str()), ("/data", "/head"));
        assert_eq!((worker.cpu_millis, worker.memory_bytes, head.cpu_millis), (2_000, 1 << 30, 500));
        for (key, value) in [("FLASH_ATTEMPT", "2"), ("FLASH_TASK", "head"), ("FLASH_NAMESPACE", "vision"), ("USER", "ann")] {
            assert_eq!(head.env[key], value);
        }
        assert_eq!((worker.env["FLASH_REPLICAS"].as_str(), head.env["FLASH_REPLICAS"].as_str()), ("2", "1"));
        assert_eq!(head.env["FLASH_JOB_ID"], record.id.to_string());
    }

    #[test]
    fn a_task_with_a_part_of_a_gpu_knows_its_part_and_mps_keeps_it_there() {
        let (record, mut placement) = record(&SPEC.replace(r#""SEED":"1""#, r#""SEED":"1","FLASH_GPU_MILLIS":"999""#));
        placement.slots[1].gpus = ["GPU-c".into()].into_iter().collect();
        placement.slots[1].share = Some(GpuShare { millis: 255, memory: MemoryBytes((20 << 30) + 7) });
        let run = RunId { job: record.id, attempt: Attempt(2) };
        let folder = tempfile::tempdir().unwrap();
        let context =
            OrderContext { own_uid: 0, pods: false, binds: false, mps_pipes: Some(folder.path().to_owned()), access: None };
        let env = || start_order(&record, run, &placement, &context).unwrap().tasks.into_iter().map(|task| task.env);
        let said = env().nth(1).unwrap();
        assert_eq!((said["CUDA_VISIBLE_DEVICES"].as_str(), said["FLASH_GPU_MILLIS"].as_str()), ("GPU-c", "255"));
        assert_eq!(said["FLASH_GPU_MEMORY_BYTES"], ((20_u64 << 30) + 7).to_string());
        assert!(!said.keys().any(|key| key.starts_with("CUDA_MPS")), "nobody listens");
        assert!(!env().next().unwrap().contains_key("FLASH_GPU_MILLIS"), "it has whole ones, whatever the job says");
        let _daemon = std::os::unix::net::UnixListener::bind(folder.path().join(MPS_CONTROL)).unwrap();
        let said = env().nth(1).unwrap();
        assert_eq!(said["CUDA_MPS_PIPE_DIRECTORY"], folder.path().to_str().unwrap());
        assert_eq!((said[MPS_LIMITS[0]].as_str(), said[MPS_LIMITS[1]].as_str()), ("0=20480M", "25"));
        assert!(!env().next().unwrap().keys().any(|key| key.starts_with("CUDA_MPS")));
    }

    #[test]
    fn the_daemons_own_user_needs_no_change_of_identity() {
        let (record, placement) = record(SPEC);
        let run = RunId { job: record.id, attempt: Attempt(2) };
        let order = start_order(
            &record,
            run,
            &placement,
            &OrderContext { own_uid: 1_000, pods: false, binds: false, mps_pipes: None, access: None },
        )
        .unwrap();
        assert_eq!(order.uid, None);
    }

    #[test]
    fn damage_is_named() {
        let (mut record, placement) = record("{");
        let run = RunId { job: record.id, attempt: Attempt(2) };
        let context = OrderContext { own_uid: 0, pods: false, binds: false, mps_pipes: None, access: None };
        assert!(matches!(start_order(&record, run, &placement, &context), Err(OrderError::Spec { .. })));
        record.spec = r#"{"tasks":[{"command":["w"]}]}"#.into();
        assert!(matches!(start_order(&record, run, &placement, &context), Err(OrderError::Group { group: 1, .. })));
    }
}
