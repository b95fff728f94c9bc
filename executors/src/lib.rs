//! What makes a placed run real, and tells what became of it.
//!
//! What must hold for every executor (the conformance suite checks it):
//! - All operations are idempotent by run: a start, stop or forget that is sent again changes nothing.
//! - A run whose start was accepted ends in exactly one final [`Report::Ended`] or [`Report::NotBegun`], which is repeated until it is
//!   forgotten.
//! - What runs of one line have in use together is never more than the limits of that line ([`Line`]).
//! - `Ended` is reported only when nothing of the run is left: no process, also none that left its group.
//! - What is not known to have succeeded is never reported as success.

pub mod contract;
pub mod gpu;
pub mod kubernetes;
pub mod local;
pub mod node;

pub use contract::{
    DeviceAccess, DeviceNode, DeviceRule, Executor, ExecutorError, GangOrder, GangPlace, Line, Observed, PodOrder, PodToleration,
    PodVolume, Report, RunPhase, StartOrder, TaskOrder, VolumeSource, log_file_name,
};
