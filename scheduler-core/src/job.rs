//! What the core knows of a job that never changes while it waits: its shape and its policy.
//!
//! Both are interned: a million jobs that ask for the same thing share one [`Shape`] and one [`Policy`]. What only the executor
//! needs (command, environment, image) never enters the core.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amounts::Request;
use crate::ids::{JobId, Name, Seq};
use crate::state::Lifecycle;
use crate::time::{Span, Timestamp};

/// Replicas that ask for the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TaskGroup {
    /// Name within the job; unique there.
    pub name: Name,
    /// How many tasks of it there are, at least 1.
    pub replicas: u32,
    /// What each of them asks for.
    pub request: Request,
}

/// What a job asks for and where it waits. Jobs of one shape fit or do not fit together.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// The tenant.
    pub namespace: Name,
    /// Where it waits.
    pub queue: Name,
    /// At least one.
    pub tasks: Vec<TaskGroup>,
    /// How many tasks, over all groups, have to start together; 0: all of them. Those that find no room beside these when the job starts are
    /// left out for the whole run: a run does not grow.
    #[serde(default)]
    pub min_available: u32,
}

impl Shape {
    /// A job whose tasks all start together.
    pub const fn new(namespace: Name, queue: Name, tasks: Vec<TaskGroup>) -> Self {
        Self { namespace, queue, tasks, min_available: 0 }
    }

    /// How many tasks have to start together.
    pub fn least_tasks(&self) -> u64 {
        if self.min_available == 0 { self.task_count() } else { self.min_available.into() }
    }

    /// Number of tasks over all groups.
    pub fn task_count(&self) -> u64 {
        self.tasks.iter().map(|group| u64::from(group.replicas)).sum()
    }
}

/// How a run is ended: `signal` first, after `grace` SIGKILL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct StopPolicy {
    /// Number of the signal that asks tasks to end (15 is SIGTERM).
    pub signal: i32,
    /// Time between the signal and SIGKILL.
    pub grace: Span,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self { signal: 15, grace: Span::from_secs(30) }
    }
}

/// How a job is treated, apart from what it asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Added to the queue's base priority; larger runs earlier. Within ±1,000,000.
    pub priority: i32,
    /// How often infrastructure may lose the job before it counts as failed; at least 1 (the first loss is final).
    pub max_attempts: u32,
    /// Longest time in `Running`, from the start of its tasks.
    pub time_limit: Option<Span>,
    /// How a run is ended.
    pub stop: StopPolicy,
    /// It saves its work when it is asked to end, and goes on from there: preempted before others are.
    #[serde(default)]
    pub checkpointable: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { priority: 0, max_attempts: 3, time_limit: None, stop: StopPolicy::default(), checkpointable: false }
    }
}

/// A job as it enters the core.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewJob {
    /// Its identity.
    pub id: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// What it asks for.
    pub shape: Arc<Shape>,
    /// How it is treated.
    pub policy: Arc<Policy>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Not to be queued before this time.
    pub start_after: Option<Timestamp>,
    /// Held until somebody releases it.
    pub hold: bool,
}

/// An unfinished job as the store hands it back at start and at takeover.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveJob {
    /// Its identity.
    pub id: JobId,
    /// Its place in the order of submission.
    pub seq: Seq,
    /// What it asks for.
    pub shape: Arc<Shape>,
    /// How it is treated.
    pub policy: Arc<Policy>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// `startAfter` as it was sent: a job that is held and released still waits for it.
    pub start_after: Option<Timestamp>,
    /// Where it stands.
    pub lifecycle: Lifecycle,
}
