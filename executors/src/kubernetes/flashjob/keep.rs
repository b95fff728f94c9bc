//! FlashJobs that we made stay until the end of their job is on record. Pure.
//!
//! What must hold:
//! - One that was made for a job has the finalizer from the moment in which it exists. So whoever deletes it while no daemon looks leaves it there,
//!   with the time of the deletion, for the next one; and one that is not there was never made. Nobody has to remember which were.
//! - It is let go of when its status says that it has finished, which is written after the end of its job is on record; or when it is being
//!   deleted and there is no job that it was made for.

use k8s_types::FlashJob;
use kube::ResourceExt as _;
use kube::api::Patch;
use serde_json::{Value, json};

use super::super::manifest::INSTANCE;
use super::gang::made_for;
use super::status::is_finished;

/// Finalizer of a FlashJob that was made for a job.
pub(super) const KEPT: &str = "scheduling.flash-sched.io/job";

/// Whether it is to be let go of. `nobodys` says that the table of this installation has no job that it was made for.
pub(super) fn goes(job: &FlashJob, instance: &str, nobodys: bool) -> bool {
    let ours = || job.labels().get(INSTANCE).is_some_and(|own| own == instance);
    // A copy that somebody applied became a job by its uid: that is remembered without it.
    let unknown = || made_for(job).is_none() || (nobodys && ours());
    let deleted = job.metadata.deletion_timestamp.is_some();
    job.finalizers().iter().any(|one| one == KEPT) && (is_finished(job) || (deleted && unknown()))
}

/// What lets it go, as it was read.
pub(super) fn without(job: &FlashJob) -> Patch<Value> {
    let others: Vec<&String> = job.finalizers().iter().filter(|one| *one != KEPT).collect();
    Patch::Merge(json!({"metadata": {"resourceVersion": job.metadata.resource_version, "finalizers": others}}))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn made(name: &str, deleted: bool, finished: bool) -> FlashJob {
        let job = "00000000-0000-0000-0000-000000000abc";
        let complete = if finished { "True" } else { "False" };
        let condition = json!({"type": "Complete", "status": complete, "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob", "metadata": {
            "name": name, "resourceVersion": "7", "finalizers": ["other", KEPT], "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z"),
            "labels": {"scheduling.flash-sched.io/job-id": job, "scheduling.flash-sched.io/instance": "here"}},
            "spec": {"tasks": []}, "status": {"conditions": [condition]}}))
        .unwrap()
    }

    #[test]
    fn one_is_let_go_of_when_it_has_finished_or_is_nobodys() {
        const OURS: &str = "train-000000000abc";
        for (name, deleted, finished, nobodys, instance, expected) in [
            (OURS, false, false, false, "here", false),
            (OURS, true, false, false, "here", false),
            (OURS, false, true, false, "here", true),
            (OURS, true, true, false, "here", true),
            (OURS, true, false, true, "here", true),
            (OURS, true, false, true, "there", false),
            (OURS, false, false, true, "here", false),
            ("a-copy", true, false, false, "here", true),
            ("a-copy", false, false, false, "here", false),
        ] {
            let says = (name, deleted, finished, nobodys, instance);
            assert_eq!(goes(&made(name, deleted, finished), instance, nobodys), expected, "{says:?}");
        }
        let mut free = made(OURS, true, true);
        let Patch::Merge(patch) = without(&free) else { panic!("a merge") };
        assert_eq!(patch["metadata"], json!({"resourceVersion": "7", "finalizers": ["other"]}));
        free.metadata.finalizers = Some(vec!["other".to_owned()]);
        assert!(!goes(&free, "here", false));
    }
}
