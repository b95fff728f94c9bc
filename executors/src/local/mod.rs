//! Local processes: the executor of a machine without a cluster.
//!
//! Two sides that talk over a Unix socket ([`protocol`]):
//! - [`runner`]: a small process in its own session that starts, watches and ends tasks. It outlives the daemon, so an upgrade or a
//!   crash of the daemon ends no job; its journal outlives itself, so its own crash loses no result that it has told.
//! - [`LocalExecutor`]: the daemon's side. It starts a runner where there is none, adopts the one that is there, and turns what it
//!   tells into [`Report`](crate::Report)s.
//!
//! What must hold: nothing but the runner starts or signals a task; the daemon's side keeps no state that a new daemon would miss.

mod client;
mod link;
pub mod protocol;
pub mod runner;
mod socket;

pub use client::{LocalExecutor, LocalOptions};
