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
pub mod record;
pub mod scheduler;
mod slab;
pub mod state;
pub mod time;

pub use scheduler::{
    Ahead, AsideGpu, BadWeight, Change, ChangeError, Closest, CohortConfig, CohortStanding, Config, ConfigError, Counted,
    Discipline, Estimate, Explanation, Exposure, FairShare, Fragmentation, Gang, GpuDevice, GpuKind, GpuUse, Hole, Inquiry,
    JobRef, JobView, Limits, LostRuns, NoPart, NodeConfig, NodeState, NodeUse, Position, Preemption, QueueConfig, QueueStanding,
    QueueUse, Refused, Reservation, Resource, RestoreError, Rule, Scheduler, ShortFirst, Shortage, Shortfall, Standing,
    Suggestion, TakenGpu, TenantLimits, TenantStanding, Unknown, UsageRecord, Violation, Weight, Whose, Why, line_of,
};
