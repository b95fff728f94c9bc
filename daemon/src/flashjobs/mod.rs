//! FlashJobs and the job table are one queue: what somebody applies to the cluster becomes a job, and how a job stands is written to its FlashJob.
//!
//! What must hold:
//! - A FlashJob becomes one job, however often it is seen: its UID is the idempotency key.
//! - A FlashJob that is deleted cancels its job, also where nobody looked when it happened.
//! - What is wrong with one is said in its status, with what to write instead; it is looked at again when it changes, and now and then.

mod convert;
mod import;
mod stand;

pub use import::Importer;

/// Annotation of a job: uid of the FlashJob that it was made of.
pub const FLASH_JOB_UID: &str = "scheduling.flash-sched.io/flashjob-uid";
/// Annotation of a job: name of that FlashJob, in the job's namespace.
pub const FLASH_JOB_NAME: &str = "scheduling.flash-sched.io/flashjob-name";
/// Annotations that only flashd sets.
pub const OWN_ANNOTATIONS: [&str; 2] = [FLASH_JOB_UID, FLASH_JOB_NAME];
