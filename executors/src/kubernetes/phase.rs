//! What a Job and its pods say of their run. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use scheduler_core::event::RunResult;
use scheduler_core::state::FailReason;
use scheduler_core::time::Timestamp;

use super::manifest::{stopped_at, task_of};
use crate::contract::RunPhase;

/// Why a pod ended that its program is not to blame for.
const INFRASTRUCTURE: [&str; 7] =
    ["Evicted", "NodeLost", "NodeShutdown", "Terminated", "Preempting", "UnexpectedAdmissionError", "NodeAffinity"];

/// A time to the second, which is how a cluster tells it.
pub(super) const fn second(at: Timestamp) -> i64 {
    at.0.div_euclid(1_000_000)
}

pub(super) fn timestamp(time: &Time) -> Timestamp {
    Timestamp(time.0.as_microsecond())
}

/// The phase of a run whose Job is there. Pods that `is_lost` are not waited for.
pub(super) fn of_job(job: &Job, pods: &[&Pod], is_lost: &dyn Fn(&Pod) -> bool) -> RunPhase {
    let all_over = pods.iter().all(|pod| is_over(pod) || is_lost(pod));
    let status = job.status.clone().unwrap_or_default();
    let condition = |kind: &str| {
        let mut all = status.conditions.iter().flatten();
        all.find(|condition| condition.type_ == kind && condition.status == "True")
    };
    let when = |condition: &k8s_openapi::api::batch::v1::JobCondition| condition.last_transition_time.as_ref().map(timestamp);
    let started_at = started_at(pods).or_else(|| status.start_time.as_ref().map(timestamp));
    let created = job.metadata.creation_timestamp.as_ref().map_or(Timestamp(0), timestamp);
    let ended = |result: RunResult, at: Option<Timestamp>| {
        let at = at.or_else(|| last_end(pods)).or(started_at).unwrap_or(created);
        RunPhase::Ended { result, started_at, at }
    };
    // An end in the second of our stop came by it. A success is one, whenever it came.
    let by_stop = |at: Option<Timestamp>| match (at, stopped_at(&job.metadata)) {
        (Some(at), Some(stop)) if second(at) >= second(stop) => Some(at.max(stop)),
        (at, _) => at,
    };
    if let Some(complete) = condition("Complete") {
        return ended(RunResult::Succeeded, when(complete));
    }
    if let Some(failed) = condition("Failed") {
        if !all_over {
            return RunPhase::Stopping;
        }
        let result = if failed.reason.as_deref() == Some("DeadlineExceeded") {
            RunResult::Failed { reason: FailReason::TimeLimit }
        } else {
            why_failed(pods, failed.message.as_deref().unwrap_or("the Job failed"))
        };
        return ended(result, by_stop(when(failed)));
    }
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
    if suspended {
        // Its controller has seen that it is suspended, so no pod of it will come any more.
        let Some(seen) = condition("Suspended") else { return RunPhase::Stopping };
        let lost = pods.iter().filter(|pod| !is_over(pod) && is_lost(pod)).count();
        let left = status.active.unwrap_or(0) + status.terminating.unwrap_or(0);
        if usize::try_from(left).is_ok_and(|left| left > lost) || !all_over {
            return RunPhase::Stopping;
        }
        let task = pods.first().map_or_else(|| task_of(&job.metadata), |pod| task_of(&pod.metadata));
        return ended(RunResult::Failed { reason: FailReason::Signal { task: task.into(), signal: 15 } }, by_stop(when(seen)));
    }
    let wanted = job.spec.as_ref().and_then(|spec| spec.parallelism).unwrap_or(1);
    let begun = pods.iter().filter(|pod| pod_phase(pod) != "Pending").count();
    match started_at {
        Some(since) if i32::try_from(begun).is_ok_and(|begun| begun >= wanted) => RunPhase::Running { since },
        _ => RunPhase::Starting,
    }
}

pub(super) fn pod_phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Nothing of it runs. One that was deleted before it had a node is never run.
pub(super) fn is_over(pod: &Pod) -> bool {
    let phase = pod_phase(pod);
    let without_node = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
    matches!(phase, "Succeeded" | "Failed") || (pod.metadata.deletion_timestamp.is_some() && without_node)
}

/// When the last of its tasks began.
pub(super) fn started_at(pods: &[&Pod]) -> Option<Timestamp> {
    pods.iter()
        .filter(|pod| pod_phase(pod) != "Pending")
        .filter_map(|pod| pod.status.as_ref()?.start_time.as_ref().map(timestamp))
        .max()
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|status| status.state.as_ref()?.terminated.as_ref())
}

pub(super) fn ended_at(pod: &Pod) -> Option<Timestamp> {
    terminated(pod)?.finished_at.as_ref().map(timestamp)
}

pub(super) fn last_end(pods: &[&Pod]) -> Option<Timestamp> {
    pods.iter().filter_map(|pod| ended_at(pod)).max()
}

/// The pod that failed first by itself decides; those that were ended because of it do not.
pub(super) fn why_failed(pods: &[&Pod], message: &str) -> RunResult {
    let mut failed: Vec<&Pod> = pods.iter().copied().filter(|pod| pod_phase(pod) == "Failed").collect();
    failed.sort_by_key(|pod| (pod.metadata.deletion_timestamp.is_some(), ended_at(pod), pod.metadata.name.clone()));
    let Some(first) = failed.first() else {
        return RunResult::Lost { message: format!("its pods are gone, and nobody saw how they ended: {message}").into() };
    };
    if let Some(what) = infrastructure(first) {
        return RunResult::Lost { message: what.into() };
    }
    let task = task_of(&first.metadata);
    match terminated(first).map(|state| state.exit_code) {
        Some(code @ 1..=128) => RunResult::Failed { reason: FailReason::ExitCode { task: task.into(), code } },
        // As shells do it: 128 and the number of the signal.
        Some(code @ 129..=192) => RunResult::Failed { reason: FailReason::Signal { task: task.into(), signal: code - 128 } },
        Some(code) if code != 0 => RunResult::Failed { reason: FailReason::ExitCode { task: task.into(), code } },
        _ => RunResult::Lost { message: format!("pod of task {task} failed without an exit code: {message}").into() },
    }
}

/// What happened to a pod that its program is not to blame for.
fn infrastructure(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let disrupted =
        status.conditions.iter().flatten().find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    if let Some(condition) = disrupted {
        let why = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
        return Some(format!("pod {name} was disrupted: {why}"));
    }
    // The kubelet refuses what it has no room for as `OutOf` and the resource.
    let refused = |reason: &&str| INFRASTRUCTURE.contains(reason) || reason.starts_with("OutOf");
    if let Some(reason) = status.reason.as_deref().filter(refused) {
        return Some(format!("pod {name}: {reason}: {}", status.message.as_deref().unwrap_or_default()));
    }
    pod.metadata.deletion_timestamp.is_some().then(|| format!("pod {name} was deleted while it ran"))
}
