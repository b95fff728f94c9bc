//! The resources of `scheduling.flash-sched.io/v1alpha1`: [`FlashJob`] and [`ClusterResourceQueue`], and the definitions that teach a
//! cluster about them.
//!
//! What must hold:
//! - Clients of this group existed before its scheduler: the fields that they write keep their names, types and meanings. What was added
//!   is optional.
//! - What can be seen to be wrong in an object alone is refused by the API server, with a message that says what to write.
//! - The definitions are made from these types; `k8s/crds` holds them, and the lint compares.

mod definitions;
mod flash_job;
mod queue;
mod rights;

pub use definitions::{QUANTITY_RULE, Unwritable, definitions, definitions_yaml};
pub use flash_job::{
    Dependency, DependsOn, FlashJob, FlashJobSpec, FlashJobStatus, NAME_LENGTH, Phase, Retry, TASKS, TaskPlacement,
};
pub use queue::{ClusterResourceQueue, ClusterResourceQueueSpec, ClusterResourceQueueStatus, QueueQuota};
pub use rights::{Right, rights};

/// The API group.
pub const GROUP: &str = "scheduling.flash-sched.io";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// Annotation of a FlashJob or a pod: the queue that it waits in. The field of the spec goes first.
pub const QUEUE_ANNOTATION: &str = "scheduling.flash-sched.io/queue-name";
/// Annotation of a FlashJob or a pod: `true` if it may be ended to make room.
pub const PREEMPTABLE_ANNOTATION: &str = "scheduling.flash-sched.io/preemptable";
/// Annotation of a pod without a FlashJob: its priority, instead of that of its priority class.
pub const PRIORITY_ANNOTATION: &str = "scheduling.flash-sched.io/priority";
/// The queue of a FlashJob that names none.
pub const DEFAULT_QUEUE: &str = "default-batch";
/// The name under which pods ask for us.
pub const SCHEDULER_NAME: &str = "flash-scheduler";
