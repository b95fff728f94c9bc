//! Builders for tests: small machines, small jobs, and time in seconds.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(dead_code, reason = "each test program uses its part of these")]

use std::sync::Arc;

use scheduler_core::amounts::{CpuMillis, GpuShare, MemoryBytes, Request};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::{Attempt, JobId, Name, Seq};
use scheduler_core::job::{Arrangement, Constraints, LiveJob, NewJob, Policy, Shape, StopPolicy, TaskGroup};
use scheduler_core::state::{JobState, Lifecycle, StateKind};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, Discipline, GpuDevice, NodeConfig, QueueConfig, Scheduler};
use uuid::Uuid;

pub(crate) const GIB: u64 = 1 << 30;
/// Grace of every job made here, in seconds.
pub(crate) const GRACE_S: u64 = 10;

/// Seconds after an arbitrary start.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp(1_700_000_000_000_000 + seconds * 1_000_000)
}

pub(crate) fn id(number: u64) -> JobId {
    JobId(Uuid::from_u128((0x0190_0000_0000_7000 << 64) | 0x8000_0000_0000_0000 | u128::from(number)))
}

pub(crate) fn queue(name: &str, priority: i32) -> QueueConfig {
    QueueConfig { priority, ..QueueConfig::named(name.into()) }
}

pub(crate) fn aging(name: &str, priority: i32, seconds_per_point: u64) -> QueueConfig {
    QueueConfig { age_per_point: Some(Span::from_secs(seconds_per_point)), ..queue(name, priority) }
}

/// A node with this many cores, as many GiB, and GPUs named `node-gpu0`, ...
pub(crate) fn node(name: &str, cores: u64, gpus: usize) -> NodeConfig {
    let gpu = |index| GpuDevice::whole(format!("{name}-gpu{index}").into(), "H200".into(), MemoryBytes(80 * GIB));
    NodeConfig::new(name.into(), CpuMillis(cores * 1000), MemoryBytes(cores * GIB), (0..gpus).map(gpu).collect())
}

pub(crate) fn config(queues: Vec<QueueConfig>, nodes: Vec<NodeConfig>) -> Config {
    Config { queues, nodes, ..Config::default() }
}

/// A job under construction: one task of one core in queue `q`, without a time limit.
#[derive(Clone)]
pub(crate) struct Build {
    pub(crate) number: u64,
    pub(crate) queue: Name,
    pub(crate) namespace: Name,
    pub(crate) tasks: Vec<TaskGroup>,
    pub(crate) min_available: u32,
    pub(crate) arrangement: Arrangement,
    pub(crate) policy: Policy,
    pub(crate) start_after: Option<Timestamp>,
    pub(crate) hold: bool,
}

pub(crate) fn job(number: u64) -> Build {
    let stop = StopPolicy { signal: 15, grace: Span::from_secs(GRACE_S) };
    let build = Build {
        number,
        queue: "q".into(),
        namespace: "default".into(),
        tasks: Vec::new(),
        min_available: 0,
        arrangement: Arrangement::Pack,
        policy: Policy { stop, ..Policy::default() },
        start_after: None,
        hold: false,
    };
    build.task("main", 1, 1, 0)
}

impl Build {
    /// Instead of the tasks so far: replicas of this many cores and GPUs each.
    pub(crate) fn asks(mut self, replicas: u32, cores: u64, gpus: u32) -> Self {
        self.tasks.clear();
        self.task("main", replicas, cores, gpus)
    }

    /// One more group.
    pub(crate) fn task(mut self, name: &str, replicas: u32, cores: u64, gpus: u32) -> Self {
        let request = Request { cpu: CpuMillis(cores * 1000), memory: MemoryBytes(0), gpus };
        self.tasks.push(TaskGroup::new(name.into(), replicas, request));
        self
    }

    pub(crate) fn queue(mut self, name: &str) -> Self {
        self.queue = name.into();
        self
    }

    pub(crate) fn namespace(mut self, name: &str) -> Self {
        self.namespace = name.into();
        self
    }

    /// So many tasks are enough to start.
    pub(crate) fn least(mut self, tasks: u32) -> Self {
        self.min_available = tasks;
        self
    }

    /// All of its groups ask for this.
    pub(crate) fn wants(mut self, constraints: &Constraints) -> Self {
        self.tasks.iter_mut().for_each(|task| task.constraints = constraints.clone());
        self
    }

    /// All of its groups ask for so much of one GPU; 0 bytes: as large a part of the memory.
    pub(crate) fn part(mut self, millis: u32, memory: u64) -> Self {
        for task in &mut self.tasks {
            task.request.gpus = 1;
            task.constraints.gpu_share = Some(GpuShare { millis, memory: MemoryBytes(memory) });
        }
        self
    }

    /// The same of the parts that device plugins give out.
    pub(crate) fn replica(self, millis: u32, memory: u64) -> Self {
        let mut build = self.part(millis, memory);
        build.tasks.iter_mut().for_each(|task| task.constraints.gpu_replica = true);
        build
    }

    /// All of its groups ask for these GPUs.
    pub(crate) fn named(mut self, uuids: &[&str]) -> Self {
        for task in &mut self.tasks {
            task.request.gpus = uuids.len() as u32;
            task.constraints.gpu_uuids = uuids.iter().map(|&uuid| uuid.into()).collect();
        }
        self
    }

    /// Over as many nodes as there are.
    pub(crate) fn spread(mut self) -> Self {
        self.arrangement = Arrangement::Spread;
        self
    }

    pub(crate) fn priority(mut self, priority: i32) -> Self {
        self.policy.priority = priority;
        self
    }

    /// Time limit in seconds; the job is gone [`GRACE_S`] later at the latest.
    pub(crate) fn limit(mut self, seconds: u64) -> Self {
        self.policy.time_limit = Some(Span::from_secs(seconds));
        self
    }

    pub(crate) fn attempts(mut self, max: u32) -> Self {
        self.policy.max_attempts = max;
        self
    }

    pub(crate) fn after(mut self, time: Timestamp) -> Self {
        self.start_after = Some(time);
        self
    }

    pub(crate) fn held(mut self) -> Self {
        self.hold = true;
        self
    }

    pub(crate) fn shape(&self) -> Shape {
        let shape = Shape::new(self.namespace.clone(), self.queue.clone(), self.tasks.clone());
        Shape { min_available: self.min_available, arrangement: self.arrangement, ..shape }
    }

    pub(crate) fn build(&self, now: Timestamp) -> NewJob {
        NewJob {
            id: id(self.number),
            seq: Seq(self.number),
            shape: Arc::new(self.shape()),
            policy: Arc::new(self.policy.clone()),
            submitted_at: now,
            start_after: self.start_after,
            hold: self.hold,
        }
    }

    pub(crate) fn live(&self, lifecycle: Lifecycle) -> LiveJob {
        let NewJob { id, seq, shape, policy, submitted_at, start_after, .. } = self.build(at(0));
        LiveJob { id, seq, shape, policy, submitted_at, start_after, lifecycle }
    }
}

/// A scheduler that is audited after every step.
pub(crate) struct World {
    pub(crate) core: Scheduler,
}

impl World {
    pub(crate) fn new(queues: Vec<QueueConfig>, nodes: Vec<NodeConfig>) -> Self {
        Self { core: Scheduler::new(config(queues, nodes)).unwrap() }
    }

    /// As `new`, with nobody passing whoever does not fit.
    pub(crate) fn strict(queues: Vec<QueueConfig>, nodes: Vec<NodeConfig>) -> Self {
        let config = Config { discipline: Discipline::Strict, ..config(queues, nodes) };
        Self { core: Scheduler::new(config).unwrap() }
    }

    /// One queue `q` of base priority 0 and one node `a`.
    pub(crate) fn small(cores: u64, gpus: usize) -> Self {
        Self::new(vec![queue("q", 0)], vec![node("a", cores, gpus)])
    }

    pub(crate) fn submit(&mut self, job: &Build, now: Timestamp) -> Lifecycle {
        let lifecycle = self.core.submit(job.build(now), now).unwrap();
        self.core.check_invariants().unwrap();
        lifecycle
    }

    pub(crate) fn handle(&mut self, number: u64, event: Event, now: Timestamp) -> Transition {
        let made = self.core.handle(id(number), event, now).unwrap();
        self.core.check_invariants().unwrap();
        made
    }

    /// Numbers of the jobs that a pass starts, in its order.
    pub(crate) fn plan(&mut self, now: Timestamp) -> Vec<u64> {
        let made = self.core.plan(now, usize::MAX);
        self.core.check_invariants().unwrap();
        made.iter().map(|transition| transition.seq.0).collect()
    }

    /// Plans, and reports every start at once.
    pub(crate) fn run(&mut self, now: Timestamp) -> Vec<u64> {
        let started = self.plan(now);
        for &number in &started {
            self.started(number, now);
        }
        started
    }

    pub(crate) fn attempt(&self, number: u64) -> Attempt {
        self.core.view(id(number)).unwrap().lifecycle.attempt
    }

    pub(crate) fn started(&mut self, number: u64, now: Timestamp) -> Transition {
        let attempt = self.attempt(number);
        self.handle(number, Event::Started { attempt, at: now }, now)
    }

    pub(crate) fn ended(&mut self, number: u64, result: RunResult, now: Timestamp) -> Transition {
        let attempt = self.attempt(number);
        self.handle(number, Event::Ended { attempt, result, at: now, retry_at: now }, now)
    }

    pub(crate) fn done(&mut self, number: u64, now: Timestamp) -> Transition {
        self.ended(number, RunResult::Succeeded, now)
    }

    pub(crate) fn state(&self, number: u64) -> Option<StateKind> {
        self.core.view(id(number)).map(|view| view.lifecycle.state.kind())
    }

    /// `group.replica@node[gpus]` for each slot.
    pub(crate) fn places(&self, number: u64) -> Vec<String> {
        let view = self.core.view(id(number)).unwrap();
        let slots = view.lifecycle.state.placement().map_or(&[][..], |placement| &placement.slots);
        let line = |slot: &scheduler_core::state::Slot| {
            let gpus: Vec<&str> = slot.gpus.iter().map(Name::as_str).collect();
            format!("{}.{}@{}[{}]", slot.group, slot.replica, slot.node, gpus.join(","))
        };
        slots.iter().map(line).collect()
    }
}

pub(crate) fn queued(since: Timestamp) -> Lifecycle {
    Lifecycle { state: JobState::Queued { since }, attempt: Attempt(0), lost: 0 }
}
