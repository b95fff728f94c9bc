//! What a job may say where its runs are pods, and what it may not where they are processes.

use api::{JobSpec, Volume};
use scheduler_core::job::TaskGroup;

use super::{Checked, Invalid, checks};
use crate::flashjobs::OWN_ANNOTATIONS;
use crate::names;

/// Longest name of an image.
const IMAGE_CHARS: usize = 1_024;

/// Volumes of a job, at most.
const VOLUMES: usize = 32;
/// Longest name of a claim: a DNS-1123 subdomain.
const CLAIM_CHARS: usize = 253;

/// Processes have no image, and see the folders of their machine.
pub(super) fn not_for_processes(spec: &JobSpec) -> Checked<()> {
    if spec.image.is_some() {
        return Err(Invalid::new("image", "the executor `local` runs programs of this machine, not images: leave it out"));
    }
    if !spec.volumes.is_empty() {
        return Err(Invalid::new("volumes", "the executor `local` runs programs that see this machine's folders: leave it out"));
    }
    Ok(())
}

fn volumes(volumes: &[Volume]) -> Checked<()> {
    if volumes.len() > VOLUMES {
        return Err(Invalid::new("", format!("{} volumes, at most {VOLUMES} are possible", volumes.len())));
    }
    for (number, one) in volumes.iter().enumerate() {
        volume(one).map_err(|invalid| invalid.under(&format!("[{number}]")))?;
        if let Some(other) = volumes[..number].iter().position(|other| other.mount_path == one.mount_path) {
            let detail = format!("`{}` is where [{other}] is mounted already", one.mount_path.escape_debug());
            return Err(Invalid::new(format!("[{number}].mountPath"), detail));
        }
    }
    Ok(())
}

fn volume(volume: &Volume) -> Checked<()> {
    checks::path(&volume.mount_path).map_err(|invalid| invalid.under("mountPath"))?;
    // The cluster says so too, but only once the job has got its turn.
    if volume.mount_path == "/" || volume.mount_path.contains(':') {
        return Err(Invalid::new("mountPath", "a volume is mounted on a path below `/` without `:`"));
    }
    if let Some(sub_path) = &volume.sub_path
        && (sub_path.is_empty() || sub_path.starts_with('/') || sub_path.split('/').any(|part| part == ".."))
    {
        return Err(Invalid::new("subPath", "a relative path within the volume, without `..`"));
    }
    match (&volume.claim, &volume.empty_dir) {
        (Some(_), Some(_)) | (None, None) => {
            Err(Invalid::new("", "say what is mounted by exactly one of `claim` and `emptyDir`"))
        }
        (Some(claim), None) => {
            let valid = claim.len() <= CLAIM_CHARS && claim.split('.').all(names::is_label);
            let rule = "not a name that a claim can have: DNS labels joined by dots, at most 253 characters";
            if valid { Ok(()) } else { Err(Invalid::new("claim", format!("`{}` is {rule}", claim.escape_debug()))) }
        }
        (None, Some(_)) if volume.read_only => Err(Invalid::new("readOnly", "nobody could ever write to an empty folder")),
        (None, Some(_)) => Ok(()),
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
    volumes(&spec.volumes).map_err(|invalid| invalid.under("volumes"))?;
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

/// A device plugin gives out whole GPUs, MIG instances and parts of GPUs, by count. Of tasks that are complete: what they take from the job has its
/// say too.
pub(super) fn counted_gpus(groups: &mut [TaskGroup]) -> Checked<()> {
    if let Some(at) = groups.iter().position(|group| !group.constraints.gpu_uuids.is_empty()) {
        let detail = "pods get the GPUs that the device plugin of their node gives them: none can be named";
        return Err(Invalid::new(format!("tasks[{at}].resources.gpuUuids"), detail));
    }
    for constraints in groups.iter_mut().map(|group| &mut group.constraints) {
        constraints.gpu_replica = constraints.gpu_share.is_some();
    }
    Ok(())
}
