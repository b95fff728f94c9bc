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
pub mod record;
pub mod scheduler;
mod slab;
pub mod state;
pub mod time;

pub use scheduler::{
    BadWeight, ChangeError, CohortConfig, CohortStanding, Config, ConfigError, Counted, Discipline, FairShare, Fragmentation,
    GpuDevice, GpuKind, GpuUse, Hole, JobView, Limits, LostRuns, NodeConfig, NodeState, NodeUse, Preemption, QueueConfig,
    QueueStanding, QueueUse, Refused, Resource, RestoreError, Scheduler, ShortFirst, Shortage, Standing, TenantLimits,
    TenantStanding, UsageRecord, Violation, Weight, Whose, Why,
};
