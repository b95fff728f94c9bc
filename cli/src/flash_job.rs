//! FlashJob documents as jobs: the same YAML that `kubectl apply` takes is sent to whatever daemon there is.
//!
//! What must hold: nothing that a document says is left out in silence. What this does not know is refused by its place, and `kubectl apply` takes
//! it on a cluster. Only what says nothing to a machine without containers may stay unused there: the image, and the pods' own metadata.

use std::collections::BTreeMap;
use std::fmt;

use api::quantity::{Cpu, Duration, GpuMillis, Memory};
use api::{AnyOf, JobSpec, Resources, Retry, Stop, TaskSpec};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::Error;
use crate::file::{at, checked};

const GROUP: &str = "scheduling.flash-sched.io/";
const QUEUE_ANNOTATION: &str = "scheduling.flash-sched.io/queue-name";
const SCHEDULER: &str = "flash-scheduler";

/// Whether a document is a FlashJob, of whatever version.
pub(crate) fn is_one(document: &Value) -> bool {
    document["kind"] == "FlashJob" && document["apiVersion"].as_str().is_some_and(|version| version.starts_with(GROUP))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FlashJob {
    api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: Spec,
    /// As `kubectl get` prints it: the cluster's word, not the user's.
    #[serde(default, rename = "status")]
    _status: Value,
}

/// What else stands there is the cluster's.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    min_available: Option<i64>,
    tasks: Vec<Template>,
    queue_name: Option<String>,
    priority: Option<i32>,
    #[serde(default)]
    suspend: bool,
    active_deadline_seconds: Option<u64>,
    retry: Option<RetrySpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetrySpec {
    max_attempts: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Template {
    #[serde(default)]
    metadata: Metadata,
    spec: Pod,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pod {
    containers: Vec<Container>,
    restart_policy: Option<String>,
    scheduler_name: Option<String>,
    termination_grace_period_seconds: Option<u64>,
    #[serde(default)]
    node_selector: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Container {
    #[serde(rename = "name")]
    _name: String,
    image: Option<String>,
    /// When an image is fetched: of no meaning here.
    #[serde(default, rename = "imagePullPolicy")]
    _image_pull_policy: Value,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    working_dir: Option<String>,
    #[serde(default)]
    resources: Amounts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Amounts {
    requests: Asked,
    limits: Asked,
}

#[derive(Default)]
struct Asked {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
    gpu: Option<GpuMillis>,
    /// MIG instances, by profile.
    mig: BTreeMap<String, GpuMillis>,
}

/// What a cluster calls MIG instances; the profile follows.
const MIG: &str = "nvidia.com/mig-";

/// A resource that a job can ask for.
enum Resource {
    Cpu,
    Memory,
    Gpu,
    Mig(String),
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "cpu" => Ok(Self::Cpu),
            "memory" => Ok(Self::Memory),
            "nvidia.com/gpu" => Ok(Self::Gpu),
            other => match other.strip_prefix(MIG).filter(|profile| !profile.ends_with(".shared")) {
                // A name of a resource has no `+`, which profiles have: there it is a dot.
                Some(profile) => Ok(Self::Mig(profile.replacen("gb.", "gb+", 1))),
                None => Err(D::Error::unknown_field(other, &["cpu", "memory", "nvidia.com/gpu", "nvidia.com/mig-PROFILE"])),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByResource;
        impl<'de> Visitor<'de> for ByResource {
            type Value = Asked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("amounts by resource")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
                let mut asked = Asked::default();
                while let Some(resource) = map.next_key()? {
                    match resource {
                        Resource::Cpu => asked.cpu = Some(map.next_value()?),
                        Resource::Memory => asked.memory = Some(map.next_value()?),
                        Resource::Gpu => asked.gpu = Some(map.next_value()?),
                        Resource::Mig(profile) => drop(asked.mig.insert(profile, map.next_value()?)),
                    }
                }
                Ok(asked)
            }
        }
        deserializer.deserialize_map(ByResource)
    }
}

/// The job that a FlashJob describes; `place` is its file and document.
///
/// # Errors
/// Something in it that cannot be sent as a job, by its field.
pub(crate) fn job(place: &str, document: Value) -> Result<JobSpec, Error> {
    let FlashJob { api_version, metadata, spec, .. } = checked(place, "", document).map_err(|error| match error {
        Error::Usage(text) if text.contains("unknown field") => {
            Error::Usage(format!("{text}; whatever else a FlashJob can have `kubectl apply` takes"))
        }
        other => other,
    })?;
    let wrong = |field: &str, detail: &str| Err(at(place, field, detail));
    if api_version != "scheduling.flash-sched.io/v1alpha1" {
        return wrong("apiVersion", "this version knows scheduling.flash-sched.io/v1alpha1");
    }
    let mut tasks: Vec<TaskSpec> = Vec::new();
    let (mut image, mut grace, mut queue) = (None, None, None);
    let count = spec.tasks.len();
    for (index, Template { metadata, spec: pod }) in spec.tasks.into_iter().enumerate() {
        let field = format!("spec.tasks[{index}].spec");
        let Ok([container]) = <[Container; 1]>::try_from(pod.containers) else {
            return wrong(
                &format!("{field}.containers"),
                "write one container: a task is one program; `kubectl apply` takes more",
            );
        };
        if pod.restart_policy.as_deref() == Some("Always") {
            return wrong(&format!("{field}.restartPolicy"), "a task ends: write Never, and spec.retry for tries after losses");
        }
        if pod.scheduler_name.as_deref().is_some_and(|name| name != SCHEDULER) {
            return wrong(&format!("{field}.schedulerName"), "write flash-scheduler, or leave it out");
        }
        if container.command.is_empty() {
            return wrong(
                &format!("{field}.containers[0].command"),
                "write what is run: what an image runs by itself is not known here",
            );
        }
        let own = container.image.clone().unwrap_or_default();
        if *image.get_or_insert_with(|| own.clone()) != own {
            return wrong(
                &format!("{field}.containers[0].image"),
                "the tasks of a job have one image; `kubectl apply` takes several",
            );
        }
        let seconds = pod.termination_grace_period_seconds;
        if *grace.get_or_insert(seconds) != seconds {
            return wrong(&format!("{field}.terminationGracePeriodSeconds"), "the tasks of a job have one");
        }
        let Some(gpus) = gpus(&container.resources) else {
            return wrong(
                &format!("{field}.containers[0].resources.limits"),
                "a task gets GPUs of one kind: write `nvidia.com/gpu`, or `nvidia.com/mig-PROFILE` of one profile",
            );
        };
        queue = queue.or_else(|| metadata.annotations.get(QUEUE_ANNOTATION).cloned());
        let task = task(container, gpus, pod.node_selector);
        match tasks.last_mut() {
            // Those that are alike are replicas.
            Some(before) if TaskSpec { name: None, replicas: None, ..before.clone() } == task => {
                before.replicas = before.replicas.map(|count| count + 1);
            }
            _ => tasks.push(TaskSpec { name: Some(format!("task-{index}")), replicas: Some(1), ..task }),
        }
    }
    if tasks.is_empty() {
        return wrong("spec.tasks", "write at least one task");
    }
    let Some(min_available) = u32::try_from(spec.min_available.unwrap_or(0)).ok().filter(|least| *least as usize <= count) else {
        return wrong("spec.minAvailable", &format!("write a number from 0 (all of them) to {count}, the number of spec.tasks"));
    };
    let micros = |seconds: u64| Duration(seconds.saturating_mul(1_000_000));
    Ok(JobSpec {
        name: metadata.name,
        namespace: metadata.namespace,
        queue: spec.queue_name.or_else(|| metadata.annotations.get(QUEUE_ANNOTATION).cloned()).or(queue),
        priority: spec.priority,
        image: image.filter(|image| !image.is_empty()),
        tasks,
        min_available: Some(min_available).filter(|least| *least > 0),
        time_limit: spec.active_deadline_seconds.map(micros),
        retry: spec.retry.map(|retry| Retry { max_attempts: retry.max_attempts }),
        stop: grace.flatten().map(|seconds| Stop { signal: None, grace: Some(micros(seconds)) }),
        hold: spec.suspend,
        labels: metadata.labels,
        ..JobSpec::default()
    })
}

/// How many, and of which MIG profile; `None` where they are of several kinds.
fn gpus(Amounts { requests, limits }: &Amounts) -> Option<(Option<GpuMillis>, Option<String>)> {
    let mut mig: BTreeMap<&String, GpuMillis> =
        requests.mig.iter().chain(&limits.mig).map(|(profile, count)| (profile, *count)).collect();
    mig.retain(|_, count| count.0 > 0);
    let whole = limits.gpu.or(requests.gpu).filter(|gpu| gpu.0 > 0);
    match (whole, mig.pop_first()) {
        (whole, None) => Some((whole, None)),
        (None, Some((profile, count))) if mig.is_empty() => Some((Some(count), Some(profile.clone()))),
        _ => None,
    }
}

/// Without its name and number.
fn task(
    container: Container,
    (gpu, mig_profile): (Option<GpuMillis>, Option<String>),
    node_selector: BTreeMap<String, String>,
) -> TaskSpec {
    let Container { mut command, args, env, working_dir, resources: Amounts { requests, limits }, .. } = container;
    command.extend(args);
    let selector: BTreeMap<String, AnyOf> = node_selector.into_iter().map(|(key, value)| (key, AnyOf(vec![value]))).collect();
    TaskSpec {
        command: Some(command),
        env: env.into_iter().map(|Variable { name, value }| (name, value)).collect(),
        working_dir,
        resources: Some(Resources {
            cpu: requests.cpu.or(limits.cpu),
            memory: requests.memory.or(limits.memory),
            gpu,
            mig_profile,
            ..Resources::default()
        }),
        node_selector: (!selector.is_empty()).then_some(selector),
        ..TaskSpec::default()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn container(more: Value) -> Value {
        let mut container = json!({"name": "c", "image": "img", "command": ["python"], "args": ["train.py"],
            "env": [{"name": "SEED", "value": "1"}],
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "8"}}});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    }

    fn task(more: Value) -> Value {
        json!({"spec": {"containers": [container(more)]}})
    }

    fn document(spec: Value) -> Value {
        json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob",
            "metadata": {"name": "train", "namespace": "default", "creationTimestamp": null}, "spec": spec})
    }

    #[test]
    fn a_flash_job_is_the_job_that_it_says() {
        let tasks = json!([task(json!({})), task(json!({})), task(json!({"env": []}))]);
        let document = document(json!({"minAvailable": 2, "tasks": tasks, "queueName": "night", "priority": 3, "suspend": true,
            "activeDeadlineSeconds": 90, "retry": {"maxAttempts": 5}}));
        assert!(is_one(&document) && !is_one(&json!({"kind": "FlashJob"})));
        let found = serde_json::to_value(job("f", document).unwrap()).unwrap();
        let asks = json!({"cpu": "500m", "memory": "1Gi", "gpu": "8"});
        assert_eq!(
            found,
            json!({"name": "train", "namespace": "default", "queue": "night", "priority": 3, "image": "img", "minAvailable": 2,
                "timeLimit": "1m30s", "retry": {"maxAttempts": 5}, "hold": true, "tasks": [
                    {"name": "task-0", "replicas": 2, "command": ["python", "train.py"], "env": {"SEED": "1"}, "resources": asks},
                    {"name": "task-2", "replicas": 1, "command": ["python", "train.py"], "resources": asks}]})
        );
    }

    #[test]
    fn mig_instances_are_asked_for_by_profile() {
        let asks = |limits: Value| json!({"resources": {"limits": limits}});
        let mixed = json!([task(asks(json!({"nvidia.com/mig-1g.10gb.me": "2", "nvidia.com/gpu": "0"}))), task(json!({}))]);
        let spec = job("f", document(json!({"tasks": mixed}))).unwrap();
        let asked: Vec<_> = spec.tasks.into_iter().map(|task| task.resources.unwrap()).collect();
        assert_eq!((asked[0].gpu, asked[0].mig_profile.as_deref()), (Some(GpuMillis::whole(2)), Some("1g.10gb+me")));
        assert_eq!((asked[1].gpu, asked[1].mig_profile.as_deref()), (Some(GpuMillis::whole(8)), None));
        for other in ["nvidia.com/gpu", "nvidia.com/mig-3g.40gb"] {
            let both = json!({"tasks": [task(asks(json!({"nvidia.com/mig-1g.10gb": "1", other: "1"})))]});
            let error = job("f", document(both)).unwrap_err().to_string();
            assert!(error.contains("spec.tasks[0].spec.containers[0].resources.limits: a task gets GPUs of one kind"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        for (spec, said) in [
            (json!({}), "spec: missing field `tasks`"),
            (json!({"tasks": []}), "spec.tasks: write at least one task"),
            (json!({"tasks": [{"spec": {"containers": []}}]}), "spec.tasks[0].spec.containers: write one container"),
            (json!({"tasks": [task(json!({"command": []}))]}), "containers[0].command: write what is run"),
            (json!({"tasks": [task(json!({"volumeMounts": []}))]}), "containers[0].volumeMounts: unknown field"),
            (json!({"tasks": [task(json!({"env": [{"name": "A", "valueFrom": {}}]}))]}), "env[0].valueFrom: unknown field"),
            (json!({"tasks": [task(json!({"resources": {"limits": {"nvidia.com/gpu": "x"}}}))]}), "limits.nvidia.com/gpu: `x`"),
            (
                json!({"tasks": [task(json!({"resources": {"limits": {"nvidia.com/gpu.shared": "1"}}}))]}),
                "limits.nvidia.com/gpu.shared: unknown field",
            ),
            (
                json!({"tasks": [task(json!({})), task(json!({"image": "other"}))]}),
                "spec.tasks[1].spec.containers[0].image: the tasks",
            ),
            (
                json!({"tasks": [task(json!({}))], "minAvailable": -1}),
                "spec.minAvailable: write a number from 0 (all of them) to 1, ",
            ),
            (
                json!({"tasks": [task(json!({}))], "minAvailable": 2}),
                "spec.minAvailable: write a number from 0 (all of them) to 1, ",
            ),
            (json!({"tasks": [task(json!({}))], "dependsOn": [{"name": "a"}]}), "spec.dependsOn: unknown field"),
            (json!({"tasks": [task(json!({}))], "dependsOn": []}), "; whatever else a FlashJob can have `kubectl apply` takes"),
        ] {
            let error = job("f: document 2", document(spec)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().starts_with("f: document 2: ") && error.to_string().contains(said), "{error}");
        }
    }
}
