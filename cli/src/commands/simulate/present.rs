//! What a server has at present, read over its API and handed to a core as its daemon would: nodes, queues, unfinished jobs.
//!
//! Invariants: nothing is changed on the server; a job that this version cannot express stops the reading with its number, because without
//! it every other start would be wrong.

use api::quantity::{Cpu, Duration, Memory};
use api::{CohortList, Job, Node, NodeExpression, NodeList, NodeState, Operator, Origin, QueueList, QueueSpec, State, TaskSpec};
use jiff::Timestamp;
use simulator::scheduler::{
    Arrangement, Attempt, Config, Constraints, CpuMillis, GpuDevice, GpuKind, GpuShare, JobId, JobState, Lifecycle, LiveJob,
    MemoryBytes, Name, NodeConfig, Placement, Policy as JobPolicy, Request, Selector, Seq, Shape, Slot, Span, StopPolicy,
    StopReason, TaskGroup, WaitFor,
};
use simulator::{Policy, Present};

use super::queues;
use crate::client::Client;
use crate::error::Error;
use crate::list::{self, Filter, UNFINISHED};
use crate::query::Query;

/// Tries of a job that does not say.
const ATTEMPTS: u32 = 3;

/// What was read.
pub(super) struct Read {
    /// Newest first, as lists are.
    pub(super) jobs: Vec<Job>,
    /// Queues as they were set up.
    pub(super) queues: Vec<(String, QueueSpec)>,
    /// The same and all else for the core.
    pub(super) present: Present,
}

/// Reads everything. `now` is this machine's clock: the server's differs by little, and starts are counted from it.
pub(super) async fn read(client: &Client, now: Timestamp) -> Result<Read, Error> {
    let nodes: NodeList = client.get(&Query::new("/nodes")).await?;
    let found: QueueList = client.get(&Query::new("/queues")).await?;
    let cohorts: CohortList = client.get(&Query::new("/cohorts")).await?;
    let list = list::jobs(client, &Filter::default(), Some(UNFINISHED), None, 0).await?;
    let mut jobs: Vec<&Job> = list.items.iter().collect();
    jobs.sort_unstable_by_key(|job| job.number);
    let jobs = jobs.into_iter().map(|job| live(job, now)).collect::<Result<_, _>>()?;
    // One that nobody names any more is there for its jobs alone: the core keeps it by itself.
    let configured = found.items.into_iter().filter(|queue| queue.origin != Origin::Removed);
    let specs: Vec<_> = configured.map(|queue| (queue.name, queue.spec)).collect();
    let config = Config {
        queues: specs.iter().map(|(name, spec)| queues::queue(name, spec)).collect(),
        cohorts: cohorts.items.iter().map(|cohort| queues::cohort(&cohort.name, &cohort.spec)).collect(),
        // One that takes nothing new is left out: what is on it stays on the books.
        nodes: nodes.items.iter().filter(|node| node.state == NodeState::Ready).map(node).collect(),
        preemption: Policy::Flash.preemption(),
        ..Config::default()
    };
    Ok(Read { present: Present { now: time(now), config, jobs }, queues: specs, jobs: list.items })
}

fn node(node: &Node) -> NodeConfig {
    let gpus = node.gpus.iter().map(gpu).collect();
    let bare = NodeConfig::new(name(&node.name), CpuMillis(node.cpu.0), MemoryBytes(node.memory.0), gpus);
    NodeConfig { labels: node.labels.iter().map(|(label, value)| (name(label), name(value))).collect(), ..bare }
}

fn gpu(gpu: &api::Gpu) -> GpuDevice {
    let kind = match (gpu.kind, &gpu.mig_profile) {
        (api::GpuKind::Mig, Some(profile)) => GpuKind::Mig { profile: name(profile) },
        (api::GpuKind::Part, _) => GpuKind::Replica { millis: gpu.part.unwrap_or_default().0 },
        _ => GpuKind::Whole,
    };
    let whole = GpuDevice::whole(name(&gpu.uuid), name(&gpu.model), MemoryBytes(gpu.memory.0));
    GpuDevice { kind, link_group: gpu.link_group, ..whole }
}

fn name(text: &str) -> Name {
    Name::from(text)
}

fn names(texts: &[String]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}

/// Each once, in order, as the daemon has them.
fn sorted(texts: &[String]) -> Vec<Name> {
    let mut names = names(texts);
    names.sort_unstable();
    names.dedup();
    names
}

pub(super) fn time(at: Timestamp) -> simulator::scheduler::Timestamp {
    simulator::scheduler::Timestamp(at.as_microsecond())
}

fn span(duration: Duration) -> Span {
    Span(duration.0)
}

/// A job as the core has it.
fn live(job: &Job, now: Timestamp) -> Result<LiveJob, Error> {
    let wrong = |what: &str| Error::lost(format!("job {}: {what}", job.number));
    let spec = &job.spec;
    let by_count = spec.executor.as_deref().is_some_and(|executor| executor != "local");
    let tasks: Vec<TaskGroup> = spec.tasks.iter().map(|task| group(task, by_count)).collect();
    let named = |name: &Option<String>, default: &str| Name::from(name.as_deref().unwrap_or(default));
    let shape = Shape {
        min_available: spec.min_available.unwrap_or(0),
        arrangement: match spec.placement {
            None | Some(api::Arrangement::Pack) => Arrangement::Pack,
            Some(api::Arrangement::Spread) => Arrangement::Spread,
        },
        ..Shape::new(named(&spec.namespace, "default"), named(&spec.queue, "default-batch"), tasks)
    };
    let stop = spec.stop.clone().unwrap_or_default();
    let grace = stop.grace.map_or(StopPolicy::default().grace, span);
    let policy = JobPolicy {
        priority: spec.priority.unwrap_or(0),
        max_attempts: spec.retry.as_ref().and_then(|retry| retry.max_attempts).unwrap_or(ATTEMPTS),
        time_limit: spec.time_limit.map(span),
        stop: StopPolicy { grace, ..StopPolicy::default() },
        checkpointable: spec.checkpointable,
    };
    let placement = || placement(job, &shape).map(std::sync::Arc::new).map_err(|what| wrong(&what));
    let submitted_at = time(job.submitted_at);
    let start_after = spec.start_after.map(time);
    let state = match job.state {
        State::Waiting => match job.not_before {
            Some(at) => JobState::Waiting { on: WaitFor::NotBefore(time(at)) },
            None => JobState::Waiting { on: WaitFor::Hold },
        },
        State::Queued => JobState::Queued { since: start_after.map_or(submitted_at, |at| at.max(submitted_at)) },
        State::Starting => JobState::Starting { placement: placement()? },
        State::Running => JobState::Running { placement: placement()?, since: time(job.started_at.unwrap_or(now)) },
        // Why it is ended is not told; it gives its place back within its grace and that is all that counts here.
        State::Stopping => JobState::Stopping {
            placement: placement()?,
            why: Box::new(StopReason::Cancel { by: "unknown".into() }),
            deadline: time(now) + grace,
        },
        State::Finished => return Err(wrong("is in a list of unfinished jobs and finished")),
    };
    let lifecycle = Lifecycle { state, attempt: Attempt(job.attempt), lost: 0 };
    Ok(LiveJob {
        id: JobId(job.id),
        seq: Seq(job.number),
        shape: shape.into(),
        policy: policy.into(),
        submitted_at,
        start_after,
        lifecycle,
    })
}

/// `by_count`: device plugins give out its GPUs.
fn group(task: &TaskSpec, by_count: bool) -> TaskGroup {
    let asked = task.resources.clone().unwrap_or_default();
    let request = Request {
        cpu: CpuMillis(asked.cpu.unwrap_or(Cpu(1_000)).0),
        memory: MemoryBytes(asked.memory.unwrap_or(Memory(0)).0),
        gpus: asked.gpu.unwrap_or_default().0.div_ceil(1_000),
    };
    let models = asked.gpu_model.as_ref().map(|models| names(&models.0)).unwrap_or_default();
    let constraints = Constraints {
        nodes: selectors(task),
        gpu_models: models,
        gpu_memory: MemoryBytes(asked.gpu_memory.unwrap_or(Memory(0)).0),
        gpu_uuids: sorted(asked.gpu_uuids.as_deref().unwrap_or_default()),
        mig_profile: asked.mig_profile.as_deref().map(name),
        gpu_share: asked
            .gpu
            .filter(|gpu| gpu.gpus().is_none())
            .map(|gpu| GpuShare { millis: gpu.0, memory: MemoryBytes(asked.gpu_memory_share.unwrap_or(Memory(0)).0) }),
        gpu_replica: by_count && asked.gpu.is_some_and(|gpu| gpu.gpus().is_none()),
    };
    let group = TaskGroup::new(name(task.name.as_deref().unwrap_or("task")), task.replicas.unwrap_or(1), request);
    TaskGroup { constraints, ..group }
}

/// What a task asks of its nodes' labels; a completed spec has all of it with the task.
fn selectors(task: &TaskSpec) -> Vec<Selector> {
    let values = task.node_selector.iter().flatten();
    let values = values.map(|(label, any_of)| Selector::In { label: name(label), values: names(&any_of.0) });
    let selector = |asked: &NodeExpression| {
        let (label, values) = (name(&asked.key), names(&asked.values));
        // Whoever took the job has looked whether that is a number.
        let bound = || asked.values.first().and_then(|value| value.parse().ok()).unwrap_or_default();
        match asked.operator {
            Operator::In => Selector::In { label, values },
            Operator::NotIn => Selector::NotIn { label, values },
            Operator::Exists => Selector::Exists { label },
            Operator::DoesNotExist => Selector::Absent { label },
            Operator::Gt => Selector::Above { label, bound: bound() },
            Operator::Lt => Selector::Below { label, bound: bound() },
        }
    };
    let expressions = task.node_expressions.iter().flatten().map(selector);
    let terms = task.node_terms.as_ref().filter(|terms| !terms.is_empty());
    let either = terms.map(|terms| Selector::Any { of: terms.iter().map(|term| term.iter().map(selector).collect()).collect() });
    values.chain(expressions).chain(either).collect()
}

/// Tasks are named `group`, or `group-replica` where a group has several.
fn placement(job: &Job, shape: &Shape) -> Result<Placement, String> {
    let slot = |placed: &api::PlacedTask| {
        let place = shape.tasks.iter().enumerate().find_map(|(index, group)| {
            let rest = placed.task.strip_prefix(group.name.as_str())?;
            let replica = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
            (replica < group.replicas).then_some((index as u16, replica))
        });
        let (group, replica) = place.ok_or_else(|| format!("`{}` is placed and none of its tasks", placed.task))?;
        let gpus = placed.gpus.iter().map(|uuid| uuid.as_str().into()).collect();
        let share = placed.gpu_share.as_ref();
        let share = share.map(|share| GpuShare { millis: share.gpu.0, memory: MemoryBytes(share.memory.0) });
        Ok(Slot { group, replica, node: placed.node.as_str().into(), gpus, share })
    };
    let slots = job.placement.iter().map(slot).collect::<Result<_, String>>()?;
    Ok(Placement::new(slots))
}
