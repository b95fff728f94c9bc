//! The scheduler in virtual time: the real core, fed with a recorded or generated workload instead of users and executors.
//!
//! What must hold: every decision is the core's own, none is made here; the same workload, machines and options give the same
//! report but for [`Report::decisions_per_second`], which is the only figure taken from a real clock; what a trace says that the
//! core cannot express yet is rounded in the core's disfavour and told in [`Workload::notes`].
//!
//! Text that people write (amounts with units, machines on a command line) is parsed by the caller; what is read here are formats that
//! others have fixed, with fixed units.

mod bound;
mod chart;
mod cluster;
mod error;
mod estimate;
mod forecast;
mod kueue;
mod log;
mod measure;
mod random;
mod read;
mod replay;
mod report;
mod run;
mod series;
mod setup;
mod workload;

pub use chart::svg;
pub use cluster::{Cluster, Machine, PHILLY_NODES, SWF_PROCESSORS};
pub use error::{Fault, SimulateError, TraceError};
pub use estimate::{Estimate, EstimateError};
pub use forecast::{ForecastError, Present, forecast};
pub use kueue::{Scale, kueue};
pub use log::DecisionLog;
pub use read::{openb, openb_nodes, philly, swf};
pub use replay::{Difference, End, Part, Replay, ReplayError, replay};
pub use report::{Bound, Refusals, Report, Resources, Spread};
pub use run::{Options, Outcome, simulate, simulate_recorded};
pub use series::{Point, Series};
pub use setup::Policy;
pub use workload::{Builder, Job, Queue, Workload};

/// The words of the core that a caller needs to make a [`Job`] or what is [`Present`], and to describe queues.
pub mod scheduler {
    pub use scheduler_core::amounts::{CpuMillis, GpuShare, MemoryBytes, Request};
    pub use scheduler_core::ids::{Attempt, JobId, Name, Seq};
    pub use scheduler_core::job::{Arrangement, Constraints, LiveJob, Policy, Selector, Shape, StopPolicy, TaskGroup};
    pub use scheduler_core::scheduler::{HEADS_LIMIT, PRIORITY_LIMIT};
    pub use scheduler_core::state::{JobState, Lifecycle, Placement, Slot, StopReason, WaitFor};
    pub use scheduler_core::time::{Span, Timestamp};
    pub use scheduler_core::{
        BadWeight, CohortConfig, Config, FairShare, GpuDevice, GpuKind, Limits, NodeConfig, Preemption, QueueConfig, ShortFirst,
        TenantLimits, Weight,
    };
}
