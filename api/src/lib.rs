//! The wire: types of REST v1, shared by daemon and client. Nothing else lives here; the core's types never reach the wire as they are.

pub mod cluster;
pub mod job;
mod object;
pub mod problem;
pub mod quantity;
pub mod queue;

pub use cluster::*;
pub use job::*;
pub use problem::{Problem, codes};
pub use queue::*;
