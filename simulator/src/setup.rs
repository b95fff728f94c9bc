//! From a workload, machines and a policy to a core that is ready to go.
//!
//! This is the one place that says what the core is told: queues and cohorts of the workload become its own, machines its nodes, a
//! [`Policy`] the rest of its configuration.

use std::collections::HashMap;
use std::sync::Arc;

use scheduler_core::amounts::Request;
use scheduler_core::ids::{JobId, Seq};
use scheduler_core::job::{NewJob, Policy as JobPolicy, Shape, StopPolicy, TaskGroup};
use scheduler_core::record::{Recorded, Tap};
use scheduler_core::scheduler::PRIORITY_LIMIT;
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, Discipline, FairShare, Preemption, QueueConfig, ShortFirst};
use serde::Serialize;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::error::SimulateError;
use crate::run::Options;
use crate::workload::{Job, Workload};

/// How the core is to decide. Priorities of jobs, and what was described of queues and cohorts, count under all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// Strict order: whoever does not fit stops everybody behind it.
    Fifo,
    /// The same order with EASY backfill, and nothing else.
    Easy,
    /// EASY backfill, and in queues that were not described: short jobs first, and turns between tenants. What a queue is guaranteed it
    /// takes back from those who borrowed it.
    Flash,
}

impl Policy {
    /// Whose runs it ends to make room.
    pub const fn preemption(self) -> Preemption {
        Preemption { within_queue: false, reclaim: matches!(self, Self::Flash), across_queues: false }
    }

    const fn discipline(self, reservations: Option<u32>) -> Discipline {
        match (self, reservations) {
            (Self::Fifo, _) => Discipline::Strict,
            (Self::Easy | Self::Flash, None) => Discipline::Easy,
            (Self::Easy | Self::Flash, Some(heads)) => Discipline::Conservative { heads },
        }
    }

    fn config(self, workload: &Workload, cluster: &Cluster, options: Options) -> Config {
        let discipline = self.discipline(options.reservations);
        let preemption = options.preemption.unwrap_or(self.preemption());
        let queues = workload.queues.iter().map(|queue| match self {
            Self::Flash if !queue.described => flash(queue.config.clone()),
            _ => queue.config.clone(),
        });
        let (queues, cohorts) = (queues.collect(), workload.cohorts.clone());
        Config { queues, cohorts, nodes: cluster.nodes(), discipline, preemption, ..Config::default() }
    }
}

/// A queue where short jobs pass long ones and tenants take turns by what they have used within about a week.
fn flash(queue: QueueConfig) -> QueueConfig {
    let fair_share = Some(FairShare::equal(Span::from_secs(7 * 24 * 3600)));
    QueueConfig { fair_share, short_first: Some(ShortFirst::USUAL), ..queue }
}

/// A core that is ready to go.
pub(crate) fn core(
    workload: &Workload,
    cluster: &Cluster,
    options: Options,
    tap: Option<Box<dyn Tap>>,
) -> Result<Recorded, SimulateError> {
    Ok(Recorded::new(options.policy.config(workload, cluster, options), tap)?)
}

/// What makes jobs equal for the core, but for their time limit and priority.
type Kind = (usize, usize, u32, Request);

/// Turns jobs of a workload into jobs of the core; equal ones share what they can.
pub(crate) struct Entrance<'a> {
    workload: &'a Workload,
    seed: u64,
    shapes: HashMap<Kind, Arc<Shape>>,
    policies: HashMap<(i32, Option<Span>), Arc<JobPolicy>>,
}

impl<'a> Entrance<'a> {
    pub(crate) fn new(workload: &'a Workload, seed: u64) -> Self {
        Self { workload, seed, shapes: HashMap::new(), policies: HashMap::new() }
    }

    /// The identity of the job at this position.
    pub(crate) fn id(&self, index: usize) -> JobId {
        JobId(Uuid::from_u128((u128::from(self.seed) << 64) | (index as u128 + 1)))
    }

    /// The job at this position, as it is submitted. Its sequence number is its position.
    pub(crate) fn job(&mut self, index: usize, now: Timestamp) -> NewJob {
        let id = self.id(index);
        let Self { workload, shapes, policies, .. } = self;
        let job = &workload.jobs[index];
        let shape =
            shapes.entry((job.queue, job.tenant, job.tasks, job.request)).or_insert_with(|| Arc::new(shape(workload, job)));
        let policy = policies.entry((job.priority, job.limit)).or_insert_with(|| Arc::new(policy(job)));
        NewJob {
            id,
            seq: Seq(index as u64),
            shape: Arc::clone(shape),
            policy: Arc::clone(policy),
            submitted_at: now,
            start_after: None,
            hold: false,
        }
    }
}

fn shape(workload: &Workload, job: &Job) -> Shape {
    let tasks = vec![TaskGroup::new("main".into(), job.tasks, job.request)];
    Shape::new(workload.tenants[job.tenant].clone(), workload.queues[job.queue].config.name.clone(), tasks)
}

/// Tasks of a trace end at the signal, so that a limit is over when it is over: no grace.
fn policy(job: &Job) -> JobPolicy {
    JobPolicy {
        priority: job.priority.clamp(-PRIORITY_LIMIT, PRIORITY_LIMIT),
        time_limit: job.limit,
        stop: StopPolicy { grace: Span(0), ..StopPolicy::default() },
        ..JobPolicy::default()
    }
}
