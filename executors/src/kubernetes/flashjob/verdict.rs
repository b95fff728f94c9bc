//! What the pods of a run say of it. Pure.

use k8s_openapi::api::core::v1::Pod;
use scheduler_core::event::RunResult;
use scheduler_core::state::FailReason;
use scheduler_core::time::Timestamp;

use super::super::manifest::task_of;
use super::super::phase::{ended_at, last_end, pod_phase, second, started_at, timestamp, why_failed};
use super::gang::size;
use crate::contract::RunPhase;

/// What is known of a run beside its pods.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// When we were told to stop it.
    pub(super) stopped: Option<Timestamp>,
    /// Why it cannot go on.
    pub(super) broken: Option<String>,
}

/// Where a run stands.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Verdict {
    /// As it should.
    Goes(RunPhase),
    /// It is over for some of its pods, so it has to be for all: what is left is to be deleted.
    Breaks,
    /// Nothing of it runs any more: ended, or never begun.
    Over(RunPhase),
}

/// Nothing of it runs: it says so, or it was deleted before it had a node, or its kubelet has let go of it.
pub(super) fn is_over(pod: &Pod) -> bool {
    let deleted = pod.metadata.deletion_timestamp.is_some();
    deleted && (!is_bound(pod) || pod.metadata.deletion_grace_period_seconds == Some(0)) || is_terminal(pod)
}

pub(super) fn is_terminal(pod: &Pod) -> bool {
    matches!(pod_phase(pod), "Succeeded" | "Failed")
}

pub(super) fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()))
}

/// Whether a container of it may have run.
fn has_begun(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let of_container = status.is_some_and(|status| {
        let mut states = status.container_statuses.iter().flatten().filter_map(|container| container.state.as_ref());
        states.any(|state| state.running.is_some() || state.terminated.is_some())
    });
    of_container || !matches!(pod_phase(pod), "Pending" | "Failed")
}

/// It was asked to end before it had ended by itself: what it then says of itself is not believed. The cluster's times are whole seconds, so an
/// end in the second of that is taken to have come by it: a run that is tried once more does less harm than one that was killed and counts as done.
fn was_cut_short(pod: &Pod) -> bool {
    let Some(deleted) = pod.metadata.deletion_timestamp.as_ref().map(timestamp) else { return false };
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0).saturating_mul(1_000_000);
    let asked = Timestamp(deleted.0.saturating_sub(grace));
    ended_at(pod).is_none_or(|ended| second(ended) >= second(asked))
}

/// `complete` says that these are all pods that the run has, and not only those that were told so far.
pub(super) fn verdict(pods: &[&Pod], known: &Known, complete: bool, now: Timestamp) -> Verdict {
    let size = pods.iter().map(|pod| size(pod)).max().unwrap_or(1);
    // Nothing is bound before all are there: where none is bound, those that are missing never were.
    let missing = complete && pods.len() < size && pods.iter().any(|pod| is_bound(pod));
    let all_there = pods.len() >= size;
    let spoilt = |pod: &&&Pod| pod_phase(pod) == "Failed" || (pod.metadata.deletion_timestamp.is_some() && was_cut_short(pod));
    let bad = pods.iter().any(|pod| spoilt(&pod)) || known.broken.is_some() || missing;
    let started_at = started_at(pods);
    if bad {
        if !pods.iter().all(|pod| is_over(pod)) {
            return Verdict::Breaks;
        }
        let at = last_end(pods).or(started_at).unwrap_or(now);
        // An end in the second of our stop came by it.
        let at = known.stopped.filter(|stop| second(at) >= second(*stop)).map_or(at, |stop| at.max(stop));
        return Verdict::Over(match result(pods, known, missing) {
            Ok(result) => RunPhase::Ended { result, started_at, at },
            Err(message) => RunPhase::NotBegun { message, at },
        });
    }
    if all_there && !pods.is_empty() && pods.iter().all(|pod| pod_phase(pod) == "Succeeded") {
        let at = last_end(pods).or(started_at).unwrap_or(now);
        return Verdict::Over(RunPhase::Ended { result: RunResult::Succeeded, started_at, at });
    }
    let begun = all_there && pods.iter().all(|pod| pod_phase(pod) != "Pending");
    Verdict::Goes(match started_at {
        Some(since) if begun => RunPhase::Running { since },
        _ => RunPhase::Starting,
    })
}

/// How a run ended that did not go well, or why it never began.
fn result(pods: &[&Pod], known: &Known, missing: bool) -> Result<RunResult, String> {
    let why = match &known.broken {
        Some(message) => message.clone(),
        None if missing => "some of its pods were removed".to_owned(),
        None => "its pods were deleted".to_owned(),
    };
    if !pods.iter().any(|pod| has_begun(pod)) && !pods.iter().any(|pod| pod_phase(pod) == "Failed") && !missing {
        return Err(why);
    }
    if known.stopped.is_some() {
        let task = pods.first().map_or_else(|| "task".to_owned(), |pod| task_of(&pod.metadata));
        return Ok(RunResult::Failed { reason: FailReason::Signal { task: task.into(), signal: 15 } });
    }
    if known.broken.is_some() {
        return Ok(RunResult::Lost { message: why.into() });
    }
    let too_long = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.reason.as_deref() == Some("DeadlineExceeded"));
    if pods.iter().any(too_long) {
        return Ok(RunResult::Failed { reason: FailReason::TimeLimit });
    }
    Ok(why_failed(pods, &why))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp(9);
    const AT: &str = "2026-01-01T00:00:10Z";

    fn pod(name: &str, node: Option<&str>, more: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": name, "annotations": {
            "scheduling.flash-sched.io/gang-size": "2", "scheduling.flash-sched.io/task": name}},
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": "Pending"}});
        for part in ["metadata", "status"] {
            if let Some(fields) = more[part].as_object() {
                pod[part].as_object_mut().unwrap().extend(fields.clone());
            }
        }
        serde_json::from_value(pod).unwrap()
    }

    fn running() -> Value {
        json!({"status": {"phase": "Running", "startTime": AT}})
    }

    fn ended(phase: &str, code: i32) -> Value {
        json!({"status": {"phase": phase, "startTime": AT, "containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": AT}}}]}})
    }

    fn deleted(mut more: Value, at: &str, grace: i64) -> Value {
        more["metadata"] = json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": grace});
        more
    }

    fn judge(a: &Pod, b: &Pod) -> Verdict {
        verdict(&[a, b], &Known::default(), true, NOW)
    }

    #[test]
    fn a_gang_runs_when_all_run_and_succeeds_when_all_did() {
        let (waits, runs) = (pod("a", Some("n"), json!({})), pod("b", Some("n"), running()));
        assert_eq!(judge(&waits, &runs), Verdict::Goes(RunPhase::Starting));
        assert!(matches!(judge(&runs, &runs), Verdict::Goes(RunPhase::Running { .. })));
        let good = pod("a", Some("n"), ended("Succeeded", 0));
        assert!(matches!(judge(&good, &runs), Verdict::Goes(RunPhase::Running { .. })), "one may be done earlier");
        assert!(matches!(judge(&good, &good), Verdict::Over(RunPhase::Ended { result: RunResult::Succeeded, .. })));
        assert_eq!(verdict(&[&good], &Known::default(), false, NOW), Verdict::Goes(RunPhase::Starting), "not all told yet");
    }

    #[test]
    fn who_failed_first_decides_once_the_others_have_ended() {
        let (bad, runs) = (pod("a", Some("n"), ended("Failed", 3)), pod("b", Some("n"), running()));
        assert_eq!(judge(&bad, &runs), Verdict::Breaks);
        let followed = pod("b", Some("n"), deleted(ended("Failed", 143), AT, 30));
        let reason = FailReason::ExitCode { task: "a".into(), code: 3 };
        assert!(
            matches!(judge(&bad, &followed), Verdict::Over(RunPhase::Ended { result: RunResult::Failed { reason: told }, .. }) if told == reason)
        );
    }

    #[test]
    fn what_was_deleted_is_lost_and_what_never_had_a_node_never_began() {
        let (gone, runs) = (pod("a", Some("n"), deleted(ended("Failed", 143), AT, 0)), pod("b", Some("n"), running()));
        assert_eq!(judge(&gone, &runs), Verdict::Breaks);
        assert!(matches!(judge(&gone, &gone), Verdict::Over(RunPhase::Ended { result: RunResult::Lost { .. }, .. })));
        let unbound = pod("a", None, deleted(json!({}), AT, 0));
        assert!(matches!(judge(&unbound, &unbound), Verdict::Over(RunPhase::NotBegun { .. })));
        let held = pod("a", Some("n"), deleted(json!({}), AT, 30));
        assert_eq!(judge(&held, &unbound), Verdict::Breaks, "its kubelet may still begin it");
        let known = Known { stopped: Some(NOW), broken: None };
        let stopped = verdict(&[&gone, &gone], &known, true, NOW);
        assert!(matches!(stopped, Verdict::Over(RunPhase::Ended { result: RunResult::Failed { .. }, .. })));
        assert_eq!(verdict(&[&runs], &Known::default(), true, NOW), Verdict::Breaks, "one was removed");
    }

    #[test]
    fn a_success_that_was_cut_short_is_none() {
        let good = pod("a", Some("n"), ended("Succeeded", 0));
        let cut = pod("b", Some("n"), deleted(ended("Succeeded", 0), "2026-01-01T00:00:30Z", 25));
        assert!(matches!(judge(&good, &cut), Verdict::Over(RunPhase::Ended { result: RunResult::Lost { .. }, .. })));
        let at_once = pod("b", Some("n"), deleted(ended("Succeeded", 0), "2026-01-01T00:00:40Z", 30));
        assert!(
            matches!(judge(&good, &at_once), Verdict::Over(RunPhase::Ended { result: RunResult::Lost { .. }, .. })),
            "in its second"
        );
        let tidied = pod("b", Some("n"), deleted(ended("Succeeded", 0), "2026-01-01T00:00:30Z", 0));
        assert!(matches!(judge(&good, &tidied), Verdict::Over(RunPhase::Ended { result: RunResult::Succeeded, .. })));
    }
}
