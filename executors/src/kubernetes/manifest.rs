//! From an order to a Job, and from a Job back to its run.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, ResourceRequirements,
    Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use scheduler_core::ids::{Attempt, JobId, RunId};
use scheduler_core::time::Timestamp;

use crate::contract::{PodOrder, PodVolume, StartOrder, TaskOrder, VolumeSource};

/// Label of all that belongs to one installation; its value is the installation's name.
pub(super) const INSTANCE: &str = "scheduling.flash-sched.io/instance";
/// Label with the job's id.
pub(super) const JOB: &str = "scheduling.flash-sched.io/job-id";
/// Label with the attempt.
pub(super) const ATTEMPT: &str = "scheduling.flash-sched.io/attempt";
/// Label of a pod that belongs to a FlashJob; its value is the name of that.
pub(super) const FLASH_JOB: &str = "scheduling.flash-sched.io/flashjob";
/// Annotation: name of the one task, or of the group.
pub(super) const TASK: &str = "scheduling.flash-sched.io/task";
/// Annotation: when we suspended it, in microseconds since 1970. The cluster's own times are whole seconds.
pub(super) const STOPPED_AT: &str = "scheduling.flash-sched.io/stopped-at";
/// Where the kubelet finds the number of a pod among those of its Job.
const INDEX_FIELD: &str = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
/// The same, as the key of the annotation.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Environment that differs from replica to replica.
const REPLICA_ENV: &str = "FLASH_REPLICA";
const TASK_ENV: &str = "FLASH_TASK";
/// A run that its time limit does not end, because nobody is there to stop it, is ended by the cluster so much later.
pub(super) const DEADLINE_SLACK_SECS: u64 = 60;

/// Name of a run's Job: the same from whoever asks.
pub(super) fn job_name(run: RunId) -> String {
    format!("flash-{}-{}", run.job, run.attempt)
}

/// What selects everything of an installation but pods of FlashJobs.
pub(super) fn selector(instance: &str) -> String {
    format!("{INSTANCE}={instance},!{FLASH_JOB}")
}

/// What selects everything of one run.
pub(super) fn run_selector(instance: &str, run: RunId) -> String {
    format!("{INSTANCE}={instance},{JOB}={},{ATTEMPT}={}", run.job, run.attempt)
}

/// The installation that an object says it is of.
pub(super) fn instance_of(metadata: &ObjectMeta) -> Option<&str> {
    metadata.labels.as_ref()?.get(INSTANCE).map(String::as_str)
}

/// The run that a Job or a pod belongs to; `None` where its labels are not ours.
pub(super) fn run_of(metadata: &ObjectMeta) -> Option<RunId> {
    let labels = metadata.labels.as_ref()?;
    let job = uuid::Uuid::parse_str(labels.get(JOB)?).ok()?;
    Some(RunId { job: JobId(job), attempt: Attempt(labels.get(ATTEMPT)?.parse().ok()?) })
}

/// When we ordered its stop.
pub(super) fn stopped_at(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata.annotations.as_ref()?.get(STOPPED_AT)?.parse().ok().map(Timestamp)
}

/// Name of the task that a pod is.
pub(super) fn task_of(metadata: &ObjectMeta) -> String {
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let group = annotation(TASK).unwrap_or("task");
    // A group of one has no number.
    match (annotation(INDEX), group.strip_suffix("-*")) {
        (Some(index), Some(group)) => format!("{group}-{index}"),
        _ => group.to_owned(),
    }
}

/// The Job of an order, or why there can be none.
pub(super) fn job(order: &StartOrder, instance: &str) -> Result<(String, Job), String> {
    let Some(pod) = &order.pod else {
        return Err("the order says nothing of an image: it was not made for a cluster".to_owned());
    };
    let Some(first) = order.tasks.first() else { return Err("a run without tasks".to_owned()) };
    if let Some(other) = order.tasks.iter().find(|task| !same(first, task)) {
        let (first, other) = (&first.name, &other.name);
        return Err(format!(
            "tasks `{first}` and `{other}` differ; the executor `job` runs replicas of one task, so that one Job can hold them"
        ));
    }
    let count = i32::try_from(order.tasks.len()).map_err(|_| "too many tasks".to_owned())?;
    let group = if count == 1 { first.name.to_string() } else { format!("{}-*", group_name(first)) };
    let labels: BTreeMap<String, String> = [
        (INSTANCE, instance.to_owned()),
        (JOB, order.run.job.to_string()),
        (ATTEMPT, order.run.attempt.to_string()),
        ("app.kubernetes.io/managed-by", "flash-sched".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let annotations = BTreeMap::from([(TASK.to_owned(), group)]);
    let metadata = ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() };
    let deadline = pod.time_limit_secs.map(|limit| limit.saturating_add(pod.grace_secs).saturating_add(DEADLINE_SLACK_SECS));
    let spec = JobSpec {
        completions: Some(count),
        parallelism: Some(count),
        completion_mode: Some("Indexed".to_owned()),
        // Trying again is decided elsewhere, for all tasks together.
        backoff_limit: Some(0),
        active_deadline_seconds: deadline.map(|deadline| i64::try_from(deadline).unwrap_or(i64::MAX)),
        template: PodTemplateSpec { metadata: Some(metadata.clone()), spec: Some(pod_spec(first, pod, count > 1)) },
        ..JobSpec::default()
    };
    let metadata = ObjectMeta { name: Some(job_name(order.run)), ..metadata };
    Ok((pod.namespace.clone(), Job { metadata, spec: Some(spec), status: None }))
}

/// Whether two tasks are replicas of one.
fn same(one: &TaskOrder, other: &TaskOrder) -> bool {
    let env = |task: &TaskOrder| {
        let common = task.env.iter().filter(|(key, _)| *key != REPLICA_ENV && *key != TASK_ENV);
        common.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    one.command == other.command
        && one.working_dir == other.working_dir
        && one.cpu_millis == other.cpu_millis
        && one.memory_bytes == other.memory_bytes
        && group_name(one) == group_name(other)
        && env(one) == env(other)
}

/// `worker` of `worker-3`.
fn group_name(task: &TaskOrder) -> &str {
    let name = task.name.as_str();
    match name.rsplit_once('-') {
        Some((group, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => group,
        _ => name,
    }
}

pub(super) fn pod_spec(task: &TaskOrder, pod: &PodOrder, several: bool) -> PodSpec {
    let mut env = Vec::with_capacity(task.env.len() + 1);
    if several {
        // First, because the name of the task speaks of it.
        let field = ObjectFieldSelector { field_path: INDEX_FIELD.to_owned(), ..ObjectFieldSelector::default() };
        let from = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
        env.push(EnvVar { name: REPLICA_ENV.to_owned(), value_from: Some(from), ..EnvVar::default() });
        env.push(plain(TASK_ENV, format!("{}-$({REPLICA_ENV})", group_name(task))));
    }
    let own = |key: &&String| !(several && (*key == REPLICA_ENV || *key == TASK_ENV));
    // `$(NAME)` is the cluster's way to speak of another variable; `$$` is a dollar.
    env.extend(task.env.iter().filter(|(key, _)| own(key)).map(|(key, value)| plain(key, value.replace("$(", "$$("))));
    let mut amounts = BTreeMap::from([("cpu".to_owned(), Quantity(format!("{}m", task.cpu_millis)))]);
    if task.memory_bytes > 0 {
        amounts.insert("memory".to_owned(), Quantity(task.memory_bytes.to_string()));
    }
    let mut limits = amounts.clone();
    if pod.gpus > 0 {
        limits.insert(pod.gpu_resource.clone(), Quantity(pod.gpus.to_string()));
    }
    let container = Container {
        name: "task".to_owned(),
        image: Some(pod.image.clone()),
        command: Some(task.command.iter().map(|word| word.replace("$(", "$$(")).collect()),
        working_dir: (!task.working_dir.is_empty()).then(|| task.working_dir.clone()),
        env: Some(env),
        volume_mounts: (!pod.volumes.is_empty()).then(|| mounts(&pod.volumes)),
        resources: Some(ResourceRequirements {
            limits: Some(limits),
            requests: Some(amounts),
            ..ResourceRequirements::default()
        }),
        ..Container::default()
    };
    PodSpec {
        containers: vec![container],
        volumes: (!pod.volumes.is_empty()).then(|| pod.volumes.iter().enumerate().map(volume).collect()),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(i64::try_from(pod.grace_secs).unwrap_or(i64::MAX)),
        affinity: (!pod.nodes.is_empty()).then(|| one_of(&pod.nodes)),
        node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
        tolerations: (!pod.tolerations.is_empty()).then(|| pod.tolerations.iter().map(toleration).collect()),
        // A job speaks to the API server only if somebody gave it an account for that.
        automount_service_account_token: Some(false),
        ..PodSpec::default()
    }
}

/// What a volume is called within its pod.
fn volume_name(number: usize) -> String {
    format!("volume-{number}")
}

fn volume((number, volume): (usize, &PodVolume)) -> Volume {
    let mut made = Volume { name: volume_name(number), ..Volume::default() };
    match &volume.source {
        VolumeSource::Claim(claim) => {
            let source = PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: None };
            made.persistent_volume_claim = Some(source);
        }
        VolumeSource::Empty { in_memory, limit_bytes } => {
            made.empty_dir = Some(EmptyDirVolumeSource {
                medium: in_memory.then(|| "Memory".to_owned()),
                size_limit: limit_bytes.map(|bytes| Quantity(bytes.to_string())),
            });
        }
    }
    made
}

fn mounts(volumes: &[PodVolume]) -> Vec<VolumeMount> {
    let mount = |(number, volume): (usize, &PodVolume)| VolumeMount {
        name: volume_name(number),
        mount_path: volume.mount_path.clone(),
        sub_path: volume.sub_path.clone(),
        read_only: volume.read_only.then_some(true),
        ..VolumeMount::default()
    };
    volumes.iter().enumerate().map(mount).collect()
}

pub(super) fn toleration(toleration: &crate::contract::PodToleration) -> Toleration {
    Toleration {
        key: toleration.key.clone(),
        operator: Some(if toleration.value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value: toleration.value.clone(),
        effect: toleration.effect.clone(),
        ..Toleration::default()
    }
}

/// On one of these nodes, and nowhere else. By name: a label may be missing, or another node's.
fn one_of(nodes: &[String]) -> Affinity {
    let term = |node: &String| NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.clone()]),
        }]),
        match_expressions: None,
    };
    let selector = NodeSelector { node_selector_terms: nodes.iter().map(term).collect() };
    let nodes = NodeAffinity { required_during_scheduling_ignored_during_execution: Some(selector), ..NodeAffinity::default() };
    Affinity { node_affinity: Some(nodes), ..Affinity::default() }
}

fn plain(name: impl Into<String>, value: String) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value), value_from: None }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn task(name: &str, env: &[(&str, &str)]) -> TaskOrder {
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let command = vec!["echo".to_owned(), "$(HOME) $x".to_owned()];
        TaskOrder { name: name.into(), command, env, working_dir: String::new(), cpu_millis: 1_500, memory_bytes: 1 << 20 }
    }

    fn order(tasks: Vec<TaskOrder>) -> StartOrder {
        let run = RunId { job: JobId(uuid::Uuid::from_u128(7)), attempt: Attempt(2) };
        let pod =
            PodOrder { image: "img:1".to_owned(), gpus: 2, grace_secs: 5, time_limit_secs: Some(100), ..PodOrder::new("team") };
        StartOrder { run, tasks, uid: None, nice: 0, rlimits: BTreeMap::new(), line: None, devices: None, pod: Some(pod) }
    }

    #[test]
    fn a_job_says_which_run_it_is_and_all_that_was_asked_for() {
        let order = order(vec![task("main", &[("A", "$(B)")])]);
        let (namespace, made) = job(&order, "here").unwrap();
        assert_eq!(namespace, "team");
        assert_eq!(made.metadata.name.as_deref(), Some("flash-00000000-0000-0000-0000-000000000007-2"));
        assert_eq!(run_of(&made.metadata), Some(order.run));
        let spec = made.spec.unwrap();
        assert_eq!((spec.backoff_limit, spec.completions, spec.active_deadline_seconds), (Some(0), Some(1), Some(165)));
        let pod = spec.template.spec.unwrap();
        assert_eq!(run_of(spec.template.metadata.as_ref().unwrap()), Some(order.run));
        assert_eq!(pod.termination_grace_period_seconds, Some(5));
        let container = &pod.containers[0];
        assert_eq!(container.command.as_ref().unwrap()[1], "$$(HOME) $x", "the cluster is not to fill that in");
        assert_eq!(container.env.as_ref().unwrap()[0].value.as_deref(), Some("$$(B)"));
        let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
        assert_eq!(
            (limits["cpu"].0.as_str(), limits["memory"].0.as_str(), limits["nvidia.com/gpu"].0.as_str()),
            ("1500m", "1048576", "2")
        );
    }

    #[test]
    fn what_a_job_mounts_is_in_its_pods() {
        let mut order = order(vec![task("main", &[])]);
        let volume = |mount_path: &str, source| PodVolume {
            mount_path: mount_path.to_owned(),
            source,
            sub_path: None,
            read_only: mount_path == "/data",
        };
        let shm = VolumeSource::Empty { in_memory: true, limit_bytes: Some(1 << 30) };
        order.pod.as_mut().unwrap().volumes =
            vec![volume("/data", VolumeSource::Claim("datasets".to_owned())), volume("/dev/shm", shm)];
        let pod = job(&order, "here").unwrap().1.spec.unwrap().template.spec.unwrap();
        let made = serde_json::to_value(&pod).unwrap();
        let expected = serde_json::json!([{"name": "volume-0", "persistentVolumeClaim": {"claimName": "datasets"}},
            {"name": "volume-1", "emptyDir": {"medium": "Memory", "sizeLimit": "1073741824"}}]);
        assert_eq!(made["volumes"], expected);
        let expected = serde_json::json!([{"name": "volume-0", "mountPath": "/data", "readOnly": true},
            {"name": "volume-1", "mountPath": "/dev/shm"}]);
        assert_eq!(made["containers"][0]["volumeMounts"], expected);
    }

    #[test]
    fn replicas_of_one_task_share_a_job_and_know_their_numbers() {
        let replica = |number: u32| {
            let (name, number) = (format!("worker-{number}"), number.to_string());
            task(&name, &[("FLASH_REPLICA", &number), ("FLASH_TASK", &name), ("SEED", "1")])
        };
        let (_, made) = job(&order(vec![replica(0), replica(1)]), "here").unwrap();
        let spec = made.spec.unwrap();
        assert_eq!((spec.completions, spec.parallelism, spec.completion_mode.as_deref()), (Some(2), Some(2), Some("Indexed")));
        let env = spec.template.spec.unwrap().containers[0].env.clone().unwrap();
        let names: Vec<_> = env.iter().map(|var| var.name.as_str()).collect();
        assert_eq!(names, ["FLASH_REPLICA", "FLASH_TASK", "SEED"]);
        assert_eq!(env[1].value.as_deref(), Some("worker-$(FLASH_REPLICA)"));
        let mut metadata = spec.template.metadata.unwrap();
        metadata.annotations.as_mut().unwrap().insert(INDEX.to_owned(), "1".to_owned());
        assert_eq!(task_of(&metadata), "worker-1");
    }

    #[test]
    fn what_one_job_cannot_hold_is_refused() {
        let error = job(&order(vec![task("head", &[]), task("worker", &[])]), "here").unwrap_err();
        assert!(error.contains("`head` and `worker` differ"), "{error}");
        let without = StartOrder { pod: None, ..order(vec![task("main", &[])]) };
        assert!(job(&without, "here").unwrap_err().contains("image"));
    }
}
