//! The `job` executor: one batch/v1 Job for each run; the cluster's own scheduler binds its pods.
//!
//! What must hold:
//! - The cluster is the journal: nothing of a run is known here that a new daemon could not read there. The Job's name comes from the run,
//!   so that an order that is given twice makes one Job; it stays until its end is on record.
//! - A run that was stopped is suspended, which the Job says for as long as it is there: no pod of it comes back, whoever crashes.
//! - A run has ended when its Job says so and none of its pods is left that is not over.
//! - How a run ended is read from its pods. Where they are gone before anybody looked it is lost, unless the Job says that it succeeded.
//! - Only objects with our instance's label are looked at or touched.

pub mod checkup;
mod connect;
mod error;
mod executor;
pub mod flashjob;
mod guarded;
pub mod lease;
mod manifest;
pub mod nodes;
mod objects;
mod pauses;
mod phase;
mod quantity;
mod review;
mod watch;
mod world;

pub use connect::{ConnectError, Files, connect};
pub use executor::{JobExecutor, JobOptions};
pub use objects::{News, ObjectKey};
pub use quantity::thousandths;
pub use review::{ReviewError, Reviewed, review};
