//! What a job may say where its runs are pods, and what it may not where they are processes.

use api::JobSpec;
use scheduler_core::job::TaskGroup;

use super::{Checked, Invalid};
use crate::flashjobs::OWN_ANNOTATIONS;

/// Longest name of an image.
const IMAGE_CHARS: usize = 1_024;

/// Processes have no image.
pub(super) fn not_for_processes(spec: &JobSpec) -> Checked<()> {
    match &spec.image {
        None => Ok(()),
        Some(_) => Err(Invalid::new("image", "the executor `local` runs programs of this machine, not images: leave it out")),
    }
}

/// One Kubernetes Job runs replicas of one task.
pub(super) fn fits_a_job(spec: &JobSpec) -> Checked<()> {
    if spec.tasks.len() > 1 {
        return Err(Invalid::new(
            "tasks",
            format!("{} groups; the executor `job` takes one, with any number of replicas", spec.tasks.len()),
        ));
    }
    fits_pods(spec, "job")
}

/// A FlashJob has any tasks. Which object of the cluster a job belongs to is not for its user to say.
pub(super) fn fits_a_flash_job(spec: &JobSpec) -> Checked<()> {
    if let Some(own) = OWN_ANNOTATIONS.iter().find(|own| spec.annotations.contains_key(**own)) {
        return Err(Invalid::new(format!("annotations.{own}"), "set by flashd for jobs of FlashJobs: leave it out"));
    }
    fits_pods(spec, "flashjob")
}

/// In an image, as the user that the image says.
fn fits_pods(spec: &JobSpec, executor: &str) -> Checked<()> {
    let image = spec.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        return Err(Invalid::new("image", format!("the executor `{executor}` runs containers: name their image")));
    }
    if image.chars().count() > IMAGE_CHARS || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Invalid::new("image", format!("`{}` is not the name of an image", image.escape_debug())));
    }
    if spec.nice.is_some() {
        return Err(Invalid::new("nice", "a container has no niceness: leave it out"));
    }
    if !spec.rlimits.is_empty() {
        return Err(Invalid::new("rlimits", "the limits of a container are its image's: leave it out"));
    }
    match spec.stop.as_ref().and_then(|stop| stop.signal.as_deref()) {
        None | Some("SIGTERM" | "TERM" | "15") => Ok(()),
        Some(other) => {
            let detail = format!(
                "`{}`: a container gets the signal that its image says, SIGTERM unless it says one",
                other.escape_debug()
            );
            Err(Invalid::new("stop.signal", detail))
        }
    }
}

/// A device plugin gives whole GPUs. Of tasks that are complete: what they take from the job has its say too.
pub(super) fn whole_gpus(groups: &[TaskGroup]) -> Checked<()> {
    let divided = |group: &TaskGroup| group.constraints.gpu_share.is_some() || group.constraints.mig_profile.is_some();
    if let Some(at) = groups.iter().position(|group| !group.constraints.gpu_uuids.is_empty()) {
        let detail = "pods get the GPUs that the device plugin of their node gives them: none can be named";
        return Err(Invalid::new(format!("tasks[{at}].resources.gpuUuids"), detail));
    }
    match groups.iter().position(divided) {
        None => Ok(()),
        Some(at) => {
            let detail = "pods get whole GPUs: neither parts of one nor MIG instances are given to them";
            Err(Invalid::new(format!("tasks[{at}].resources.gpu"), detail))
        }
    }
}
