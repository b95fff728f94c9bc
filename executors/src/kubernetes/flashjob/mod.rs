//! The `flashjob` executor: runs are pods of a FlashJob, and we bind them to the nodes that the core chose.
//!
//! What must hold:
//! - Of the pods of a run all are bound, or none is left: a gang of which a part cannot be bound is taken back.
//! - No node is promised more than it has, as far as the API server has told; other schedulers' pods count.
//! - The cluster is the journal: pods of a run stay readable, with how they ended, until its end is on record.
//! - A FlashJob that we made stays, with the time of its deletion, until the end of its job is on record: deleting it is heard of, whoever was dead.
//! - While a run is being assembled nobody else acts on it; afterwards its pods alone say where it stands.
//! - Only pods with our label are touched, and of FlashJobs that others made only the status. A pod that somebody else made for our scheduler is
//!   given the label before it is bound.

mod assemble;
mod board;
mod executor;
mod follow;
mod gang;
mod hub;
mod keep;
mod lone;
mod pace;
mod queues;
mod status;
mod take_on;
mod verdict;

pub use board::{FlashJobKey, FlashJobs};
pub use executor::{FlashJobExecutor, FlashJobOptions};
pub use gang::{flash_job_name, made_for};
pub use lone::{LonePods, has_ended, has_node, is_gated};
pub use queues::{ClusterQueues, QueueStand};
pub use status::{Stand, is_finished};

/// The word for it.
pub(super) const KIND: &str = "flashjob";
