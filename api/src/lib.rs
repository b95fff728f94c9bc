//! The wire: types of REST v1, shared by daemon and client. Nothing else lives here; the core's types never reach the wire as they are.

pub mod cluster;
pub mod job;
pub mod node;
pub mod notice;
mod object;
pub mod problem;
pub mod quantity;
pub mod queue;
pub mod select;
pub mod shortfall;
pub mod usage;
pub mod volume;
pub mod why;

pub use cluster::*;
pub use job::*;
pub use node::*;
pub use notice::{Notice, NoticeKind, NoticeList};
pub use problem::{Problem, codes};
pub use queue::*;
pub use select::{AnyOf, Arrangement, NodeExpression, NodeSelector, Operator};
pub use shortfall::*;
pub use usage::*;
pub use volume::*;
pub use why::*;
