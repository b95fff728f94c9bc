//! `dependsOn`: whether a FlashJob may be queued, as far as the others say. Pure.
//!
//! What a FlashJob has become is its phase, which is not written again once it is finished; so nothing has to be remembered.

use std::sync::Arc;

use executors::kubernetes::ObjectKey;
use executors::kubernetes::flashjob::is_finished;
use k8s_types::{Dependency, DependsOn, FlashJob, Phase};

/// Whether it may be queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Readiness {
    /// It may.
    Ready,
    /// Not yet: for what it waits.
    Waits(String),
    /// It never may: who ends it, and why.
    Never(String),
}

/// Whether it waits for others at all.
pub(super) fn depend(job: &FlashJob) -> bool {
    !job.spec.depends_on.is_empty()
}

/// The first of its dependencies that is not met decides; one that cannot be met any more decides before all others.
pub(super) fn readiness(job: &FlashJob, find: impl Fn(&ObjectKey) -> Option<Arc<FlashJob>>) -> Readiness {
    let namespace = job.metadata.namespace.clone().unwrap_or_default();
    let mut waits = None;
    for dependency in &job.spec.depends_on {
        let other = find(&(namespace.clone(), dependency.name.clone()));
        match one(dependency, other.as_deref()) {
            Readiness::Ready => {}
            Readiness::Waits(why) => waits = waits.or(Some(why)),
            never @ Readiness::Never(_) => return never,
        }
    }
    waits.map_or(Readiness::Ready, Readiness::Waits)
}

fn one(dependency: &Dependency, other: Option<&FlashJob>) -> Readiness {
    let Dependency { name, on } = dependency;
    let on = on.unwrap_or_default();
    let word = match on {
        DependsOn::Succeeded => "to succeed",
        DependsOn::Failed => "to fail",
        DependsOn::Finished => "to finish",
    };
    let Some(other) = other else {
        return Readiness::Waits(format!("waits for FlashJob {name} {word}; there is none of that name yet"));
    };
    if !is_finished(other) {
        return Readiness::Waits(format!("waits for FlashJob {name} {word}"));
    }
    let succeeded = other.status.as_ref().and_then(|status| status.phase) == Some(Phase::Succeeded);
    match (on, succeeded) {
        (DependsOn::Succeeded, true) | (DependsOn::Failed, false) | (DependsOn::Finished, _) => Readiness::Ready,
        (DependsOn::Succeeded, false) => Readiness::Never(format!("dependsOn: FlashJob {name} failed")),
        (DependsOn::Failed, true) => Readiness::Never(format!("dependsOn: FlashJob {name} succeeded")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(name: &str, depends_on: serde_json::Value, phase: Option<&str>) -> FlashJob {
        let complete = phase.map(|_| {
            json!([{"type": "Complete", "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        });
        serde_json::from_value(json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob",
            "metadata": {"name": name, "namespace": "team"}, "spec": {"tasks": [], "dependsOn": depends_on},
            "status": {"phase": phase, "conditions": complete.unwrap_or_else(|| json!([]))}}))
        .unwrap()
    }

    #[test]
    fn what_it_depends_on_decides() {
        let all =
            [job("good", json!([]), Some("Succeeded")), job("bad", json!([]), Some("Failed")), job("runs", json!([]), None)];
        let ask = |depends_on: serde_json::Value| {
            let find = |key: &ObjectKey| {
                assert_eq!(key.0, "team");
                all.iter().find(|job| job.metadata.name.as_deref() == Some(&key.1)).cloned().map(Arc::new)
            };
            readiness(&job("asks", depends_on, None), find)
        };
        assert_eq!(ask(json!([])), Readiness::Ready);
        assert_eq!(
            ask(json!([{"name": "good"}, {"name": "bad", "on": "Failed"}, {"name": "bad", "on": "Finished"}])),
            Readiness::Ready
        );
        assert_eq!(
            ask(json!([{"name": "good"}, {"name": "runs"}])),
            Readiness::Waits("waits for FlashJob runs to succeed".to_owned())
        );
        assert!(matches!(ask(json!([{"name": "absent"}])), Readiness::Waits(why) if why.contains("none of that name")));
        let never = Readiness::Never("dependsOn: FlashJob bad failed".to_owned());
        assert_eq!(ask(json!([{"name": "runs"}, {"name": "bad"}])), never);
        assert!(matches!(ask(json!([{"name": "good", "on": "Failed"}])), Readiness::Never(_)));
    }
}
