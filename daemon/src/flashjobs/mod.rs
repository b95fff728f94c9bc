//! FlashJobs, pods without one, and the job table are one queue, and ClusterResourceQueues are queues of it: what somebody applies to the cluster becomes a job, and how a job stands is written
//! to its FlashJob.
//!
//! What must hold:
//! - Only the daemon that leads takes anything over.
//! - A FlashJob becomes one job, however often it is seen: its UID is the idempotency key.
//! - A FlashJob that is deleted cancels its job, also where nobody looked when it happened. One that somebody made is remembered by its UID. One that was
//!   made for a job stays, being deleted, until the end of the job is on record: so one that is not there was not made yet, and is made.
//! - A run whose pods are gone is not taken for lost before all that was deleted meanwhile is known ([`Compared`]).
//! - What is wrong with one is said in its status, with what to write instead; it is looked at again when it changes, and now and then.

mod affinity;
mod amounts;
mod compared;
mod convert;
mod depends;
mod import;
mod link;
mod pods;
mod queues;
mod stand;

pub use compared::Compared;
pub use import::Importer;
pub use pods::PodImporter;
pub use queues::QueueImporter;

/// Annotation of a job: uid of the FlashJob that it was made of.
pub const FLASH_JOB_UID: &str = "scheduling.flash-sched.io/flashjob-uid";
/// Annotation of a job: name of that FlashJob, in the job's namespace.
pub const FLASH_JOB_NAME: &str = "scheduling.flash-sched.io/flashjob-name";
/// Annotation of a job: uid of the pod that it is, which has no FlashJob.
pub const POD_UID: &str = "scheduling.flash-sched.io/pod-uid";
/// Annotation of a job: name of that pod, in the job's namespace.
pub const POD_NAME: &str = "scheduling.flash-sched.io/pod-name";
/// Annotations that only flashd sets.
pub const OWN_ANNOTATIONS: [&str; 4] = [FLASH_JOB_UID, FLASH_JOB_NAME, POD_UID, POD_NAME];
