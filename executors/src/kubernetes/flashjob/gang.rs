//! From an order to a FlashJob and its pods, and from a pod back to its run. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_types::{FlashJob, FlashJobSpec, GROUP, SCHEDULER_NAME, VERSION};
use scheduler_core::ids::{JobId, RunId};

use super::super::manifest::{ATTEMPT, DEADLINE_SLACK_SECS, FLASH_JOB, INSTANCE, JOB, TASK, pod_spec, toleration};
use super::super::nodes::requests::requests;
use super::keep::KEPT;
use crate::contract::{GangOrder, GangPlace, PodOrder, StartOrder, TaskOrder};

/// Label of a pod whose run is not forgotten; its value is the installation's name. What we watch has it.
pub(super) const LIVE: &str = "scheduling.flash-sched.io/live";
/// Finalizer of such a pod: it is readable until its end is on record.
pub(super) const FINALIZER: &str = "scheduling.flash-sched.io/run";
/// Label: number of the task in the FlashJob.
pub(super) const INDEX: &str = "scheduling.flash-sched.io/task-index";
/// Annotation: how many pods the run has.
pub(super) const SIZE: &str = "scheduling.flash-sched.io/gang-size";
/// Annotation: the node that was chosen.
pub(super) const NODE: &str = "scheduling.flash-sched.io/node";
/// Digits of a job's id that the name of its FlashJob ends with.
const ID_DIGITS: usize = 12;

/// Name of the FlashJob that we make for a job: readable, and the same from whoever asks.
pub fn flash_job_name(name: &str, job: JobId) -> String {
    let tail = id_tail(job);
    let fits = k8s_types::NAME_LENGTH - tail.len() - 1;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let head: String = name.chars().map(plain).take(fits).collect();
    let head = head.trim_matches('-');
    // A name begins with a letter wherever it is used as a host name.
    if head.starts_with(|c: char| c.is_ascii_alphabetic()) { format!("{head}-{tail}") } else { format!("job-{tail}") }
}

fn id_tail(job: JobId) -> String {
    let digits = job.0.simple().to_string();
    digits[digits.len() - ID_DIGITS..].to_owned()
}

/// The job that a FlashJob was made for by us; `None` where somebody else made it, also as a copy of one of ours.
pub fn made_for(job: &FlashJob) -> Option<JobId> {
    let id = job.metadata.labels.as_ref()?.get(JOB)?;
    let id = JobId(uuid::Uuid::parse_str(id).ok()?);
    let tail = format!("-{}", id_tail(id));
    job.metadata.name.as_ref()?.ends_with(&tail).then_some(id)
}

/// What selects everything of an installation whose run is not forgotten.
pub(super) fn live_selector(instance: &str) -> String {
    format!("{LIVE}={instance}")
}

/// What selects the pods of one run.
pub(super) fn live_run(instance: &str, run: RunId) -> String {
    format!("{LIVE}={instance},{JOB}={},{ATTEMPT}={}", run.job, run.attempt)
}

pub(super) fn pod_name(flash_job: &str, index: u32, run: RunId) -> String {
    format!("{flash_job}-{index}-{}", run.attempt)
}

/// Whether its run is not forgotten.
pub(super) fn is_live(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// How many pods its run has; at least the one.
pub(super) fn size(pod: &Pod) -> usize {
    annotation(pod, SIZE).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Where it is to go.
pub(super) fn node(pod: &Pod) -> Option<&str> {
    annotation(pod, NODE)
}

pub(super) fn flash_job(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(FLASH_JOB).map(String::as_str)
}

pub(super) fn index(pod: &Pod) -> Option<i32> {
    pod.metadata.labels.as_ref()?.get(INDEX)?.parse().ok()
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The parts of an order that a gang is made of, or why it cannot be one.
pub(super) fn parts(order: &StartOrder) -> Result<(&PodOrder, &GangOrder), String> {
    let Some(pod) = &order.pod else { return Err("the order was not made for a cluster".to_owned()) };
    let Some(gang) = &pod.gang else { return Err("the order says nothing of nodes: it was not made for FlashJobs".to_owned()) };
    if order.tasks.is_empty() || gang.places.len() != order.tasks.len() {
        return Err(format!("{} tasks with {} places", order.tasks.len(), gang.places.len()));
    }
    Ok((pod, gang))
}

/// The FlashJob of a job that nobody else made one for.
pub(super) fn flash_job_of(order: &StartOrder, instance: &str) -> Result<FlashJob, String> {
    let (pod, gang) = parts(order)?;
    let tasks = order.tasks.iter().zip(&gang.places).map(|(task, place)| {
        let own = PodOrder { gpus: place.gpus, gpu_resource: place.gpu_resource.clone(), nodes: Vec::new(), ..pod.clone() };
        let annotations = BTreeMap::from([(TASK.to_owned(), task.name.to_string())]);
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        PodTemplateSpec { metadata: Some(metadata), spec: Some(pod_spec(task, &own, false)) }
    });
    let spec = FlashJobSpec {
        tasks: tasks.collect(),
        queue_name: Some(gang.queue.clone()).filter(|queue| !queue.is_empty()),
        active_deadline_seconds: pod.time_limit_secs.and_then(|limit| i64::try_from(limit).ok()),
        ttl_seconds_after_finished: gang.ttl_secs.map(|ttl| i32::try_from(ttl).unwrap_or(i32::MAX)),
        ..FlashJobSpec::default()
    };
    let mut made = FlashJob::new(&gang.flash_job, spec);
    made.metadata.namespace = Some(pod.namespace.clone());
    made.metadata.finalizers = Some(vec![KEPT.to_owned()]);
    let labels = [(JOB, order.run.job.to_string()), (INSTANCE, instance.to_owned()), (MANAGED_BY.0, MANAGED_BY.1.to_owned())];
    made.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value)).into());
    Ok(made)
}

const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "flash-sched");

/// The pods of a run, in the order of its tasks. Where the FlashJob is ours they are made of the order, else of its templates.
pub(super) fn pods(order: &StartOrder, flash_job: &FlashJob, instance: &str) -> Result<Vec<Pod>, String> {
    let (pod, gang) = parts(order)?;
    let own = if gang.uid.is_none() { Some(flash_job_of(order, instance)?.spec.tasks) } else { None };
    let mut made = Vec::with_capacity(order.tasks.len());
    for (at, (task, place)) in order.tasks.iter().zip(&gang.places).enumerate() {
        let number = usize::try_from(place.index).unwrap_or(usize::MAX);
        let template = own.as_ref().map_or_else(|| flash_job.spec.tasks.get(number), |own| own.get(at));
        let Some(template) = template else {
            let count = flash_job.spec.tasks.len();
            return Err(format!(
                "task {number} is not there any more: the FlashJob has {count}, and had more when it was admitted"
            ));
        };
        if own.is_none() {
            admitted(number, template, task, place)?;
        }
        let given = template.metadata.clone().unwrap_or_default();
        let mut labels = given.labels.unwrap_or_default();
        labels.extend(
            [
                (LIVE, instance.to_owned()),
                (INSTANCE, instance.to_owned()),
                (JOB, order.run.job.to_string()),
                (ATTEMPT, order.run.attempt.to_string()),
                (FLASH_JOB, gang.flash_job.clone()),
                (INDEX, place.index.to_string()),
                (MANAGED_BY.0, MANAGED_BY.1.to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let mut annotations = given.annotations.unwrap_or_default();
        let facts = [(TASK, task.name.to_string()), (SIZE, order.tasks.len().to_string()), (NODE, place.node.clone())];
        annotations.extend(facts.map(|(key, value)| (key.to_owned(), value)));
        let mut spec = template.spec.clone().unwrap_or_default();
        spec.scheduler_name = Some(SCHEDULER_NAME.to_owned());
        // One that names its node would not be bound by anybody.
        spec.node_name = None;
        // Who goes on a node that keeps others away was decided with it.
        let tolerations = spec.tolerations.get_or_insert_default();
        let more: Vec<_> = pod.tolerations.iter().map(toleration).filter(|one| !tolerations.contains(one)).collect();
        tolerations.extend(more);
        spec.restart_policy.get_or_insert_with(|| "Never".to_owned());
        let limit = pod.time_limit_secs.map(|limit| limit.saturating_add(pod.grace_secs).saturating_add(DEADLINE_SLACK_SECS));
        spec.active_deadline_seconds =
            spec.active_deadline_seconds.or_else(|| limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)));
        let owner = OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "FlashJob".to_owned(),
            name: gang.flash_job.clone(),
            uid: flash_job.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let metadata = ObjectMeta {
            name: Some(pod_name(&gang.flash_job, place.index, order.run)),
            namespace: Some(pod.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        made.push(Pod { metadata, spec: Some(spec), status: None });
    }
    Ok(made)
}

/// Whether what a template asks for by now is what its job was placed with, or less. More was never counted in a queue, and would be had beside
/// its limits.
fn admitted(number: usize, template: &PodTemplateSpec, task: &TaskOrder, place: &GangPlace) -> Result<(), String> {
    let asked = template.spec.as_ref().map(requests).unwrap_or_default();
    let other = asked.gpus.each().find(|(resource, count)| resource.name() != place.gpu_resource || *count > place.gpus);
    let more = match other {
        Some((resource, count)) => format!("{count} {}", resource.name()),
        // The core knows no task without any.
        None if asked.cpu_millis > task.cpu_millis.max(1) => format!("{}m cpu", asked.cpu_millis),
        None if asked.memory_bytes > task.memory_bytes => format!("{} memory", asked.memory_bytes),
        None => return Ok(()),
    };
    Err(format!(
        "task {number} asks for {more} by now, which is more than when the FlashJob was admitted: delete it, and apply it anew"
    ))
}

/// What binds this very pod to a node.
pub(super) fn binding(pod: &Pod, node: &str) -> Binding {
    let metadata = ObjectMeta {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectMeta::default()
    };
    let target = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        ..ObjectReference::default()
    };
    Binding { metadata, target }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use scheduler_core::ids::Attempt;

    use super::super::super::manifest::run_of;
    use super::*;

    fn order(uid: Option<&str>) -> StartOrder {
        let task = |name: &str| TaskOrder {
            name: name.into(),
            command: vec!["train".to_owned()],
            env: BTreeMap::new(),
            working_dir: String::new(),
            cpu_millis: 100,
            memory_bytes: 0,
        };
        let places = [(0, "a", 2), (2, "b", 0)].map(|(index, node, gpus)| GangPlace {
            index,
            node: node.to_owned(),
            gpus,
            gpu_resource: "nvidia.com/gpu".to_owned(),
        });
        let gang = GangOrder {
            flash_job: "train-1".to_owned(),
            lone: false,
            uid: uid.map(str::to_owned),
            queue: "batch".to_owned(),
            ttl_secs: Some(60),
            places: places.into(),
        };
        let pod = PodOrder { image: "img".to_owned(), gang: Some(gang), time_limit_secs: Some(10), ..PodOrder::new("team") };
        let run = RunId { job: JobId(uuid::Uuid::from_u128(0xabc)), attempt: Attempt(3) };
        let tasks = vec![task("head"), task("worker-1")];
        StartOrder { run, tasks, uid: None, nice: 0, rlimits: BTreeMap::new(), line: None, devices: None, pod: Some(pod) }
    }

    #[test]
    fn names_are_readable_fit_and_tell_their_job() {
        let job = JobId(uuid::Uuid::from_u128(0xabc));
        assert_eq!(flash_job_name("Train_7", job), "train-7-000000000abc");
        assert_eq!(flash_job_name("", job), "job-000000000abc");
        assert_eq!(flash_job_name("-9 lives", job), "job-000000000abc");
        assert!(flash_job_name(&"x".repeat(200), job).len() <= k8s_types::NAME_LENGTH);
        let mut made = flash_job_of(&order(None), "here").unwrap();
        assert_eq!(made.metadata.finalizers, Some(vec![KEPT.to_owned()]), "deleting it is heard of");
        made.metadata.name = Some(flash_job_name("train", job));
        assert_eq!(made_for(&made), Some(job));
        made.metadata.name = Some("a-copy".to_owned());
        assert_eq!(made_for(&made), None);
    }

    #[test]
    fn a_pod_says_whose_it_is_where_it_goes_and_how_many_there_are() {
        let order = order(None);
        let mut flash_job = flash_job_of(&order, "here").unwrap();
        flash_job.metadata.uid = Some("u".to_owned());
        let made = pods(&order, &flash_job, "here").unwrap();
        let [head, worker] = made.as_slice() else { panic!("two pods") };
        assert_eq!(worker.metadata.name.as_deref(), Some("train-1-2-3"));
        assert_eq!((run_of(&worker.metadata), size(worker), node(worker)), (Some(order.run), 2, Some("b")));
        assert_eq!((flash_job_name_of(worker), index(worker)), (Some("train-1"), Some(2)));
        assert!(is_live(head));
        let spec = head.spec.as_ref().unwrap();
        assert_eq!((spec.scheduler_name.as_deref(), spec.node_name.as_deref()), (Some("flash-scheduler"), None));
        assert_eq!(spec.active_deadline_seconds, Some(100));
        let limits = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].resources.clone().unwrap().limits.unwrap();
        assert_eq!(limits(head)["nvidia.com/gpu"].0, "2");
        assert!(!limits(worker).contains_key("nvidia.com/gpu"));
        assert_eq!(head.metadata.owner_references.as_ref().unwrap()[0].uid, "u");
    }

    #[test]
    fn a_template_asks_for_no_more_than_was_admitted() {
        let mut theirs = order(Some("u"));
        theirs.tasks.truncate(1);
        theirs.pod.as_mut().unwrap().gang.as_mut().unwrap().places.truncate(1);
        let made = |limits: serde_json::Value| {
            let container = serde_json::json!({"name": "c", "image": "img", "resources": {"limits": limits}});
            let spec = serde_json::json!({"tasks": [{"spec": {"containers": [container]}}]});
            pods(&theirs, &FlashJob::new("train-1", serde_json::from_value(spec).unwrap()), "here")
        };
        assert_eq!(made(serde_json::json!({"cpu": "100m", "nvidia.com/gpu": "2"})).unwrap().len(), 1);
        assert_eq!(made(serde_json::json!({"nvidia.com/gpu": "1"})).unwrap().len(), 1, "less is less");
        for (limits, words) in [
            (serde_json::json!({"nvidia.com/gpu": "3"}), "task 0 asks for 3 nvidia.com/gpu by now"),
            (serde_json::json!({"nvidia.com/mig-1g.10gb": "1"}), "asks for 1 nvidia.com/mig-1g.10gb by now"),
            (serde_json::json!({"cpu": "1"}), "asks for 1000m cpu by now"),
            (serde_json::json!({"memory": "1"}), "asks for 1 memory by now"),
        ] {
            let error = made(limits).unwrap_err();
            assert!(error.contains(words) && error.contains("apply it anew"), "{error}");
        }
    }

    #[test]
    fn each_task_asks_for_what_its_place_has() {
        let mut order = order(None);
        let places = &mut order.pod.as_mut().unwrap().gang.as_mut().unwrap().places;
        (places[1].gpus, places[1].gpu_resource) = (3, "nvidia.com/mig-1g.10gb".to_owned());
        let made = pods(&order, &flash_job_of(&order, "here").unwrap(), "here").unwrap();
        let limits = |pod: &Pod| {
            let limits = pod.spec.as_ref().unwrap().containers[0].resources.clone().unwrap().limits.unwrap();
            limits
                .into_iter()
                .filter(|(name, _)| name.starts_with("nvidia"))
                .map(|(name, count)| (name, count.0))
                .collect::<Vec<_>>()
        };
        let some = |name: &str, count: &str| vec![(name.to_owned(), count.to_owned())];
        assert_eq!(limits(&made[0]), some("nvidia.com/gpu", "2"));
        assert_eq!(limits(&made[1]), some("nvidia.com/mig-1g.10gb", "3"));
    }

    fn flash_job_name_of(pod: &Pod) -> Option<&str> {
        super::flash_job(pod)
    }

    #[test]
    fn pods_of_anothers_flash_job_are_like_its_templates() {
        let order = order(Some("u"));
        let template = |image: &str| {
            let spec = serde_json::json!({"metadata": {"labels": {"app": "x"}}, "spec": {"nodeName": "mine", "restartPolicy": "OnFailure",
                "containers": [{"name": "c", "image": image}]}});
            serde_json::from_value::<PodTemplateSpec>(spec).unwrap()
        };
        let spec = FlashJobSpec { tasks: vec![template("0"), template("1"), template("2")], ..FlashJobSpec::default() };
        let made = pods(&order, &FlashJob::new("train-1", spec.clone()), "here").unwrap();
        let second = made[1].spec.as_ref().unwrap();
        assert_eq!(second.containers[0].image.as_deref(), Some("2"));
        assert_eq!((second.node_name.as_deref(), second.restart_policy.as_deref()), (None, Some("OnFailure")));
        assert_eq!(made[1].metadata.labels.as_ref().unwrap()["app"], "x");
        let fewer = FlashJobSpec { tasks: spec.tasks[..1].to_vec(), ..FlashJobSpec::default() };
        assert!(pods(&order, &FlashJob::new("train-1", fewer), "here").unwrap_err().contains("not there any more"));
    }
}
