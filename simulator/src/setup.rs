//! From a workload, machines and a policy to a core that is ready to go.
//!
//! This is the one place that says what the core is told: queues of the workload become its queues, pools its nodes, a [`Policy`] its
//! configuration. What the core learns about cohorts, quotas and weights is to be given to it here, and then the pools of the
//! workloads that stand for cohorts become one cluster.

use std::collections::HashMap;
use std::sync::Arc;

use scheduler_core::amounts::Request;
use scheduler_core::ids::{JobId, Name, Seq};
use scheduler_core::job::{NewJob, Policy as JobPolicy, Shape, StopPolicy, TaskGroup};
use scheduler_core::scheduler::{Discipline, PRIORITY_LIMIT};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, QueueConfig, Scheduler};
use serde::Serialize;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::error::SimulateError;
use crate::workload::{Job, Workload};

/// How the core is to decide. Priorities of jobs count under all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// Strict order: whoever does not fit stops everybody behind it.
    Fifo,
    /// The same order with EASY backfill, and nothing else.
    Easy,
    /// The core as it comes.
    Flash,
}

impl Policy {
    fn config(self) -> Config {
        match self {
            Self::Fifo => Config { discipline: Discipline::Strict, ..Config::default() },
            Self::Easy => Config { discipline: Discipline::Easy, ..Config::default() },
            Self::Flash => Config::default(),
        }
    }
}

/// One core for each pool: pools share nothing, so neither do their schedulers.
pub(crate) fn cores(workload: &Workload, cluster: &Cluster, policy: Policy) -> Result<Vec<Scheduler>, SimulateError> {
    if let Some(queue) = workload.queues.iter().find(|queue| queue.pool >= cluster.pools) {
        return Err(SimulateError::NoPool { queue: queue.name.to_string() });
    }
    let core = |pool| {
        let queues = workload.queues.iter().filter(|queue| queue.pool == pool);
        let queue = |name: &Name| QueueConfig { preemptible: true, ..QueueConfig::named(name.clone()) };
        let queues = queues.map(|queue_of| queue(&queue_of.name)).collect();
        Ok(Scheduler::new(Config { queues, nodes: cluster.nodes(pool), ..policy.config() })?)
    };
    (0..cluster.pools).map(core).collect()
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
    Shape::new(workload.tenants[job.tenant].clone(), workload.queues[job.queue].name.clone(), tasks)
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
