//! The pure heart of flash-sched: it decides, and touches nothing.
//!
//! Sans-IO: the shell feeds events and the time, the core returns transitions with effects as data. Nothing here reads a clock,
//! starts a thread, does IO or asks for randomness; the same calls in the same order give the same answers on every machine.

pub mod amounts;
pub mod apply;
pub mod event;
mod hash;
pub mod ids;
mod intern;
pub mod jitter;
pub mod job;
mod prefetch;
pub mod scheduler;
mod slab;
pub mod state;
pub mod time;

pub use scheduler::{
    BadWeight, ChangeError, CohortConfig, Config, ConfigError, Counted, Discipline, FairShare, GpuDevice, GpuUse, JobView,
    Limits, NodeConfig, NodeUse, Preemption, QueueConfig, QueueUse, Refused, Reservation, Resource, RestoreError, Scheduler,
    Shortage, TenantLimits, UsageRecord, Violation, Weight, Whose, Why,
};
