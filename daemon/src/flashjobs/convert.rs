//! From a FlashJob, or a pod that has none, to the job that is submitted for it, or to what is wrong with it. Pure.
//!
//! The job holds what the core needs to place it. What its pods are to be like is read from the FlashJob when they are made.

use std::collections::BTreeMap;

use api::quantity::{Cpu, Duration, GpuMillis, Memory};
use api::{AnyOf, JobSpec, NodeExpression, Operator, Resources, Retry, TaskSpec};
use executors::kubernetes::flashjob::is_gated;
use executors::kubernetes::nodes::{GpuCounts, GpuResource, TAINTED, asks, has, uncounted};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_types::{FlashJob, PRIORITY_ANNOTATION, QUEUE_ANNOTATION};
use scheduler_core::scheduler::PRIORITY_LIMIT;

use super::affinity::{affinity, of_the_cluster};
use super::depends::depend;
use super::{FLASH_JOB_NAME, FLASH_JOB_UID, POD_NAME, POD_UID, amounts};
use crate::cluster::{ANY_PART, TOLERATED};
use crate::names;

/// A pod with a deadline is ended by its kubelet; by us only if that does not happen within so many seconds.
const SLACK_SECS: u64 = 60;

/// The job, or what to write instead.
pub(super) fn job_spec(job: &FlashJob) -> Result<JobSpec, String> {
    let name = job.metadata.name.clone().unwrap_or_default();
    let spec = &job.spec;
    if name.len() > k8s_types::NAME_LENGTH {
        let most = k8s_types::NAME_LENGTH;
        return Err(format!(
            "metadata.name has {} characters; names of its pods fit if it has {most} at most: shorten it",
            name.len()
        ));
    }
    let count = u32::try_from(spec.tasks.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return Err("spec.tasks is empty: write at least one task, as spec.tasks[0].spec.containers".to_owned());
    }
    if spec.depends_on.iter().any(|other| other.name == name) {
        return Err("spec.dependsOn names the FlashJob itself: leave that out".to_owned());
    }
    let min_available = match spec.min_available.unwrap_or(0) {
        0 => None,
        least => match u32::try_from(least) {
            Ok(least) if least <= count => Some(least),
            _ => {
                return Err(format!(
                    "spec.minAvailable is {least}: write a number from 0 (all of them) to {count}, the number of spec.tasks"
                ));
            }
        },
    };
    let mut tasks: Vec<(&PodSpec, TaskSpec)> = Vec::new();
    for (index, template) in spec.tasks.iter().enumerate() {
        let pod = template.spec.as_ref().ok_or_else(|| format!("spec.tasks[{index}].spec is missing: write its containers"))?;
        match tasks.last_mut() {
            // Those that are alike are replicas: the core is quicker with few groups.
            Some((before, group)) if *before == pod => group.replicas = group.replicas.map(|replicas| replicas + 1),
            _ => {
                let path = format!("spec.tasks[{index}].spec");
                if pod.restart_policy.as_deref() == Some("Always") {
                    return Err(format!("{path}.restartPolicy is Always; a pod of a FlashJob ends: write Never or OnFailure"));
                }
                if pod.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
                    return Err(format!(
                        "{path}.schedulingGates would keep its gang half bound: leave them out, and write spec.suspend: true until it may be queued"
                    ));
                }
                tasks.push((pod, task(&path, index, pod)?));
            }
        }
    }
    let own = [(FLASH_JOB_UID, job.metadata.uid.clone().unwrap_or_default()), (FLASH_JOB_NAME, name.clone())];
    let positive = |number: i32| u32::try_from(number).unwrap_or(1);
    Ok(JobSpec {
        name: Some(names::to_label(&name, "flashjob")),
        namespace: job.metadata.namespace.clone(),
        queue: job.queue().map(str::to_owned),
        priority: spec.priority,
        image: spec.tasks.first().and_then(|task| task.spec.as_ref()?.containers.first()?.image.clone()),
        tasks: tasks.into_iter().map(|(_, task)| task).collect(),
        min_available,
        time_limit: spec.active_deadline_seconds.map(|limit| seconds(u64::try_from(limit).unwrap_or(0))),
        retry: spec.retry.as_ref().and_then(|retry| retry.max_attempts).map(|most| Retry { max_attempts: Some(positive(most)) }),
        hold: spec.suspend.unwrap_or(false) || depend(job),
        labels: labels(&job.metadata),
        annotations: own.map(|(key, value)| (key.to_owned(), value)).into(),
        ..JobSpec::default()
    })
}

/// The job of one for a pod that has no FlashJob.
pub(super) fn pod_job_spec(pod: &Pod) -> Result<JobSpec, String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let spec = pod.spec.as_ref().ok_or("spec is missing: write its containers")?;
    let annotation = |key: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let priority = match annotation(PRIORITY_ANNOTATION) {
        None => spec.priority.map(|value| value.clamp(-PRIORITY_LIMIT, PRIORITY_LIMIT)),
        Some(text) => match text.parse::<i32>() {
            Ok(value) if (-PRIORITY_LIMIT..=PRIORITY_LIMIT).contains(&value) => Some(value),
            _ => {
                let range = format!("a whole number from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}");
                return Err(format!("metadata.annotations.{PRIORITY_ANNOTATION} is `{}`: write {range}", text.escape_debug()));
            }
        },
    };
    let mut task = task("spec", 0, spec)?;
    task.name = None;
    let tolerates = |key: &&str| {
        let fits = |toleration: &Toleration| toleration.key.as_deref().is_none_or(|own| own.is_empty() || own == *key);
        spec.tolerations.iter().flatten().any(fits)
    };
    if !TOLERATED.iter().all(tolerates) {
        let untainted = NodeExpression { key: TAINTED.to_owned(), operator: Operator::DoesNotExist, values: Vec::new() };
        task.node_expressions.get_or_insert_default().push(untainted);
    }
    let own = [(POD_UID, pod.metadata.uid.clone().unwrap_or_default()), (POD_NAME, name.clone())];
    // Its kubelet ends it at the deadline; we would delete it.
    let deadline = spec.active_deadline_seconds.and_then(|deadline| u64::try_from(deadline).ok());
    let limit = deadline.map(|deadline| seconds(deadline.saturating_add(SLACK_SECS)));
    Ok(JobSpec {
        name: Some(names::to_label(&name, "pod")),
        namespace: pod.metadata.namespace.clone(),
        queue: annotation(QUEUE_ANNOTATION).cloned(),
        priority,
        image: spec.containers.first().and_then(|container| container.image.clone()),
        tasks: vec![task],
        time_limit: limit,
        // A pod does not come back; whoever made it makes another one.
        retry: Some(Retry { max_attempts: Some(1) }),
        hold: is_gated(pod),
        labels: labels(&pod.metadata),
        annotations: own.map(|(key, value)| (key.to_owned(), value)).into(),
        ..JobSpec::default()
    })
}

/// What is meant to be for ever is as long as a job can say, else its stored spec could not be read.
fn seconds(seconds: u64) -> Duration {
    Duration(seconds.saturating_mul(1_000_000).min(Duration::LONGEST.0))
}

/// Those that a job can have; a cluster takes nothing else.
fn labels(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    let taken = |key: &str, value: &str| names::is_label_key(key) && names::is_label_value(value);
    let all = metadata.labels.iter().flatten().filter(|(key, value)| taken(key, value));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn task(path: &str, index: usize, pod: &PodSpec) -> Result<TaskSpec, String> {
    let Some(first) = pod.containers.first() else {
        return Err(format!("{path}.containers is empty: write one with a name and an image"));
    };
    if let Some(wish) = unheeded(pod) {
        let known = "taints, nodeSelector and required nodeAffinity are kept to";
        return Err(format!(
            "{path}.{wish}, which flash-scheduler does not look at: leave it out, or write what is preferred ({known})"
        ));
    }
    if let Some(wrong) = amounts::wrong(path, pod) {
        return Err(wrong);
    }
    let asked = asks(pod);
    let (gpu, mig_profile) = gpus(path, &asked.gpus)?;
    let words = first.command.iter().flatten().chain(first.args.iter().flatten()).cloned();
    let mut command: Vec<String> = words.collect();
    if command.first().is_none_or(String::is_empty) {
        // Its image says what it runs.
        command.insert(0, first.image.clone().filter(|image| !image.is_empty()).unwrap_or_else(|| first.name.clone()));
    }
    let selector: BTreeMap<String, AnyOf> =
        pod.node_selector.iter().flatten().map(|(key, value)| (key.clone(), AnyOf(vec![value.clone()]))).collect();
    for label in selector.keys() {
        of_the_cluster(label).map_err(|wrong| format!("{path}.nodeSelector: {wrong}"))?;
    }
    let asked_of_nodes = affinity(path, pod)?;
    let mut expressions = asked_of_nodes.expressions;
    // How many of these are free is looked at when the pod is bound; nodes that have none at all are not chosen.
    let there = |key: String| NodeExpression { key, operator: Operator::Exists, values: Vec::new() };
    expressions.extend(uncounted(pod).filter_map(|resource| has(&resource)).map(there));
    Ok(TaskSpec {
        name: Some(format!("task-{index}")),
        replicas: Some(1),
        command: Some(command),
        resources: Some(Resources {
            cpu: Some(Cpu(asked.cpu_millis.max(1))),
            memory: (asked.memory_bytes > 0).then_some(Memory(asked.memory_bytes)),
            gpu,
            mig_profile,
            ..Resources::default()
        }),
        node_selector: (!selector.is_empty()).then_some(selector),
        node_expressions: (!expressions.is_empty()).then_some(expressions),
        node_terms: (!asked_of_nodes.terms.is_empty()).then_some(asked_of_nodes.terms),
        ..TaskSpec::default()
    })
}

/// How many GPUs or what part of one, and of which MIG profile if they are instances.
fn gpus(path: &str, asked: &GpuCounts) -> Result<(Option<GpuMillis>, Option<String>), String> {
    let mut all = asked.each();
    let Some((resource, count)) = all.next() else { return Ok((None, None)) };
    if let Some((other, _)) = all.next() {
        let (one, other) = (resource.name(), other.name());
        return Err(format!(
            "{path}.containers ask for {one} and {other}: a pod gets GPUs of one kind here; write one of the two"
        ));
    }
    match resource {
        GpuResource::Whole => Ok((Some(GpuMillis::whole(count)), None)),
        GpuResource::Mig(profile) => Ok((Some(GpuMillis::whole(count)), Some(profile.clone()))),
        // How large it is the node says; any will do.
        GpuResource::Shared if count == 1 => Ok((Some(GpuMillis(ANY_PART)), None)),
        GpuResource::Shared => {
            let (name, whole) = (resource.name(), GpuResource::Whole.name());
            let why = "nobody says whether two are of one GPU, or of one that has the other already";
            Err(format!("{path}.containers ask for {count} of {name}: {why}; write \"1\", or ask for {whole}"))
        }
    }
}

/// What a pod requires and nobody here looks at: to be bound against it would be worse than to be told.
fn unheeded(pod: &PodSpec) -> Option<String> {
    let affinity = pod.affinity.as_ref();
    let near = affinity
        .and_then(|affinity| affinity.pod_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    let apart = affinity
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    let mut spread = pod.topology_spread_constraints.iter().flatten();
    if near.is_some_and(|terms| !terms.is_empty()) {
        Some("affinity.podAffinity requires other pods nearby".to_owned())
    } else if apart.is_some_and(|terms| !terms.is_empty()) {
        Some("affinity.podAntiAffinity requires other pods elsewhere".to_owned())
    } else if let Some(at) = spread.position(|one| one.when_unsatisfiable == "DoNotSchedule") {
        Some(format!("topologySpreadConstraints[{at}] requires that pods are spread (DoNotSchedule)"))
    } else if pod.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        Some("resourceClaims asks for devices by claims".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(gpus: u32, more: Value) -> Value {
        let mut spec = json!({"containers": [{"name": "c", "image": "img", "args": ["x"], "resources": {
            "requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": gpus.to_string()}}}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec})
    }

    fn read(spec: Value) -> Result<JobSpec, String> {
        let job = json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob", "metadata": {"name": "train.v1",
            "namespace": "team", "uid": "u-1", "annotations": {"scheduling.flash-sched.io/queue-name": "noted"}}, "spec": spec});
        job_spec(&serde_json::from_value(job).unwrap())
    }

    #[test]
    fn tasks_that_are_alike_are_replicas_and_keep_their_numbers() {
        let tasks =
            json!([task(8, json!({})), task(8, json!({})), task(0, json!({"nodeSelector": {"zone": "a"}})), task(8, json!({}))]);
        let spec = read(json!({"tasks": tasks, "minAvailable": 3, "suspend": true, "activeDeadlineSeconds": 60})).unwrap();
        let groups: Vec<_> = spec.tasks.iter().map(|group| (group.name.clone().unwrap(), group.replicas.unwrap())).collect();
        assert_eq!(groups, [("task-0".to_owned(), 2), ("task-2".to_owned(), 1), ("task-3".to_owned(), 1)]);
        let asked = spec.tasks[0].resources.clone().unwrap();
        assert_eq!((asked.cpu, asked.memory, asked.gpu), (Some(Cpu(500)), Some(Memory(1 << 30)), Some(GpuMillis::whole(8))));
        assert_eq!(spec.tasks[0].command.clone().unwrap(), ["x"]);
        assert_eq!(spec.tasks[1].node_selector.clone().unwrap()["zone"].0, ["a"]);
        assert_eq!((spec.queue.as_deref(), spec.min_available, spec.hold), (Some("noted"), Some(3), true));
        assert_eq!((spec.annotations[FLASH_JOB_UID].as_str(), spec.annotations[FLASH_JOB_NAME].as_str()), ("u-1", "train.v1"));
        assert_eq!(read(json!({"tasks": [task(0, json!({}))], "queueName": "said"})).unwrap().queue.as_deref(), Some("said"));
        let ever = read(json!({"tasks": [task(0, json!({}))], "activeDeadlineSeconds": i64::MAX})).unwrap();
        let limit = ever.time_limit.unwrap();
        assert_eq!(limit.to_string().parse::<Duration>().unwrap(), limit, "what is stored can be read");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        let one = || json!([task(0, json!({}))]);
        let amount = |kind: &str, resource: &str, amount: &str| {
            let resources = json!({kind: {resource: amount}});
            task(0, json!({"containers": [{"name": "c", "image": "img", "resources": resources}]}))
        };
        for (spec, words) in [
            (json!({"tasks": []}), "spec.tasks is empty: write at least one"),
            (json!({"tasks": [{}]}), "spec.tasks[0].spec is missing"),
            (json!({"tasks": [task(0, json!({"containers": []}))]}), "spec.tasks[0].spec.containers is empty: write one"),
            (json!({"tasks": [task(0, json!({"restartPolicy": "Always"}))]}), "write Never or OnFailure"),
            (json!({"tasks": [task(0, json!({"schedulingGates": [{"name": "g"}]}))]}), "write spec.suspend: true until"),
            (
                json!({"tasks": [amount("requests", "cpu", "-1")]}),
                "spec.tasks[0].spec.containers[0].resources.requests.cpu is `-1`",
            ),
            (json!({"tasks": [amount("limits", "memory", "1e1.5")]}), "resources.limits.memory is `1e1.5`: write an amount"),
            (json!({"tasks": one(), "minAvailable": -1}), "write a number from 0 (all of them) to 1"),
            (json!({"tasks": one(), "minAvailable": 2}), "spec.minAvailable is 2"),
            (json!({"tasks": one(), "dependsOn": [{"name": "train.v1"}]}), "names the FlashJob itself"),
        ] {
            let error = read(spec).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn mig_instances_are_asked_for_by_profile() {
        let asks = |limits: Value| {
            let containers = json!({"containers": [{"name": "c", "image": "img", "resources": {"limits": limits}}]});
            read(json!({"tasks": [task(0, containers)]})).map(|spec| spec.tasks[0].resources.clone().unwrap())
        };
        let asked = asks(json!({"nvidia.com/mig-1g.10gb.me": "2"})).unwrap();
        assert_eq!((asked.gpu, asked.mig_profile.as_deref()), (Some(GpuMillis::whole(2)), Some("1g.10gb+me")));
        for other in ["nvidia.com/gpu", "nvidia.com/mig-3g.40gb"] {
            let error = asks(json!({"nvidia.com/mig-1g.10gb": "1", other: "1"})).unwrap_err();
            assert!(error.starts_with("spec.tasks[0].spec.containers ask for nvidia.com/"), "{error}");
            assert!(error.contains(other) && error.contains("write one of the two"), "{error}");
        }
    }

    #[test]
    fn one_replica_is_any_part_of_a_gpu_and_several_are_refused() {
        let asks = |counts: &[&str]| {
            let container = |count: &&str| json!({"name": format!("c{count}"), "image": "img", "resources": {"limits": {"nvidia.com/gpu.shared": count}}});
            let containers: Vec<Value> = counts.iter().map(container).collect();
            read(json!({"tasks": [task(0, json!({"containers": containers}))]})).map(|spec| spec.tasks[0].clone())
        };
        let one = asks(&["1", "0"]).unwrap();
        let asked = one.resources.unwrap();
        assert_eq!((asked.gpu, asked.mig_profile, one.node_expressions), (Some(GpuMillis(1)), None, None));
        for several in [&["2"][..], &["1", "1"]] {
            let error = asks(several).unwrap_err();
            let words = "spec.tasks[0].spec.containers ask for 2 of nvidia.com/gpu.shared";
            assert!(error.starts_with(words) && error.contains("write \"1\""), "{error}");
        }
    }

    #[test]
    fn what_is_not_counted_is_asked_of_the_node() {
        let containers = json!({"containers": [{"name": "c", "image": "img", "resources": {"limits": {"nvidia.com/mig-1g.10gb.shared": "1"}}}]});
        let spec = read(json!({"tasks": [task(0, containers), task(1, json!({}))]})).unwrap();
        let asked = spec.tasks[0].node_expressions.clone().unwrap();
        assert_eq!(
            (asked.len(), asked[0].key.as_str(), asked[0].operator),
            (1, "has.flash-sched.io/nvidia.com_mig-1g.10gb.shared", Operator::Exists)
        );
        assert_eq!((&spec.tasks[0].resources.as_ref().unwrap().gpu, &spec.tasks[1].node_expressions), (&None, &None));
    }

    #[test]
    fn what_nobody_looks_at_is_refused_where_it_is_required() {
        let others = |when: &str| json!([{"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "zone", "whenUnsatisfiable": when, "maxSkew": 1}]);
        let required = |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": others("")}}});
        for (more, words) in [
            (required("podAffinity"), "spec.tasks[0].spec.affinity.podAffinity requires"),
            (required("podAntiAffinity"), "spec.tasks[0].spec.affinity.podAntiAffinity requires"),
            (
                json!({"topologySpreadConstraints": others("DoNotSchedule")}),
                "spec.tasks[0].spec.topologySpreadConstraints[0] requires",
            ),
            (json!({"resourceClaims": [{"name": "gpu"}]}), "spec.tasks[0].spec.resourceClaims asks"),
        ] {
            let error = read(json!({"tasks": [task(0, more)]})).unwrap_err();
            assert!(error.contains(words) && error.contains("leave it out"), "{error}");
        }
        let weight = json!([{"weight": 1, "podAffinityTerm": others("")[0].clone()}]);
        let preferred = json!({"topologySpreadConstraints": others("ScheduleAnyway"),
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": weight}}});
        assert_eq!(read(json!({"tasks": [task(0, preferred)]})).unwrap().tasks.len(), 1);
    }

    #[test]
    fn a_pod_is_a_job_of_one() {
        let read = |annotations: Value, more: Value| {
            let mut pod = json!({"metadata": {"name": "web.0", "namespace": "team", "uid": "u-2", "annotations": annotations}});
            pod["spec"] = task(1, more)["spec"].clone();
            pod_job_spec(&serde_json::from_value(pod).unwrap())
        };
        let gpu = json!([{"key": "nvidia.com/gpu", "operator": "Exists"}]);
        let spec = read(
            json!({"scheduling.flash-sched.io/queue-name": "noted"}),
            json!({"priority": 2_000_000_000, "restartPolicy": "Always", "tolerations": gpu, "activeDeadlineSeconds": 40}),
        )
        .unwrap();
        assert_eq!((spec.name.as_deref(), spec.queue.as_deref(), spec.priority), (Some("web-0"), Some("noted"), Some(1_000_000)));
        assert_eq!((spec.annotations[POD_UID].as_str(), spec.annotations[POD_NAME].as_str()), ("u-2", "web.0"));
        assert_eq!((spec.tasks[0].node_expressions.as_ref(), spec.time_limit), (None, Some(Duration(100_000_000))));
        assert_eq!((spec.hold, spec.retry.unwrap().max_attempts), (false, Some(1)));
        let gated = read(
            json!({"scheduling.flash-sched.io/priority": "-7"}),
            json!({"priority": 5, "schedulingGates": [{"name": "wait"}]}),
        )
        .unwrap();
        assert_eq!((gated.priority, gated.hold), (Some(-7), true));
        assert_eq!(gated.tasks[0].node_expressions.as_ref().unwrap()[0].key, TAINTED);
        let error = read(json!({"scheduling.flash-sched.io/priority": "high"}), json!({})).unwrap_err();
        assert!(error.contains("write a whole number from"), "{error}");
    }
}
