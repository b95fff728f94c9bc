//! Prints what one pass costs on a large cluster: 4,000 nodes, 140,000 running pods, 10,000 pending jobs of 500 shapes.
//!
//! Run it with `cargo run --release -p scheduler-core --example cluster`; numbers as arguments are other counts of nodes, for each of which
//! pods and jobs are in the same proportion. Three nodes of four have 8 GPUs, the others none. There are 20 queues and 100
//! tenants. Time is processor time of the thread, so that other programs disturb it least.
//!
//! The passes:
//! - *all blocked, no limits*: every pending job asks for whole GPUs, and all are taken by runs without a time limit;
//! - *gang waits for all*: the head needs nearly all nodes at once and has to wait for nearly every run; small jobs would fit beside it,
//!   but none may start, so each kind is looked for in the reservation;
//! - *1,000 start*: as much has ended as 1,000 of the pending jobs need, and behind them the head is blocked;
//!   a pass of a core that has not reserved before has to bring the runs into the order of their ends, later ones follow what changed;
//! - the same where every job selects one rack of 50;
//! - *memory-bound*: cores are free everywhere and memory nowhere, the case in which an order by free cores says least.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::{JobId, Seq};
use scheduler_core::job::{NewJob, Policy, Selector, Shape, TaskGroup};
use scheduler_core::scheduler::TASK_LIMIT;
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, GpuDevice, NodeConfig, QueueConfig, Scheduler};
use uuid::Uuid;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const START: Timestamp = Timestamp(1_700_000_000_000_000);
const GIB: u64 = 1 << 30;
/// Cores and GiB of a node.
const CORES: u64 = 64;
const MEMORY: u64 = 512;
/// Pods of a node.
const PODS: u64 = 35;
/// Of one pod: no more than 35 fit on a node.
const POD_MEMORY: u64 = 14 * GIB + GIB / 2;
const SHAPES: u64 = 500;
/// Values of the label that nodes are selected by.
const RACKS: u64 = 50;

struct Cluster {
    core: Scheduler,
    nodes: u64,
    next: u64,
}

/// What one task asks for, how many there are of it, and how long it may run, in seconds.
#[derive(Clone, Copy)]
struct Ask {
    cpu_millis: u64,
    memory: u64,
    gpus: u32,
    replicas: u32,
    limit: Option<u64>,
    rack: Option<u64>,
}

impl Ask {
    const fn task(cpu_millis: u64, memory: u64, gpus: u32) -> Self {
        Self { cpu_millis, memory, gpus, replicas: 1, limit: None, rack: None }
    }
}

fn node(index: u64) -> NodeConfig {
    let gpu = |number| GpuDevice::whole(format!("GPU-{index}-{number}").into(), "H200".into(), MemoryBytes(141 * GIB));
    let gpus = if index % 4 == 3 { 0 } else { 8 };
    let (cpu, memory) = (CpuMillis(CORES * 1000), MemoryBytes(MEMORY * GIB));
    let labels = [("rack".into(), format!("r{}", index % RACKS).into())].into();
    NodeConfig { labels, ..NodeConfig::new(format!("node-{index}").into(), cpu, memory, (0..gpus).map(gpu).collect()) }
}

impl Cluster {
    fn new(nodes: u64) -> Fallible<Self> {
        let queue = |index: i32| QueueConfig::named(format!("queue-{index}").into());
        let config = Config { queues: (0..20).map(queue).collect(), nodes: (0..nodes).map(node).collect(), ..Config::default() };
        Ok(Self { core: Scheduler::new(config)?, nodes, next: 0 })
    }

    fn submit(&mut self, ask: Ask, priority: i32, now: Timestamp) -> Fallible<()> {
        let number = self.next;
        self.next += 1;
        let request = Request { cpu: CpuMillis(ask.cpu_millis), memory: MemoryBytes(ask.memory), gpus: ask.gpus };
        let mut tasks = vec![TaskGroup::new("main".into(), ask.replicas, request)];
        if let Some(rack) = ask.rack {
            let values = vec![format!("r{rack}").into()];
            tasks[0].constraints.nodes = vec![Selector::In { label: "rack".into(), values }];
        }
        // Who asks for the same is the same tenant of the same queue, so that there are as many kinds as asked for.
        let tenant = (ask.cpu_millis / 10 + ask.memory) % 100;
        let shape = Shape::new(format!("team-{tenant}").into(), format!("queue-{}", tenant % 20).into(), tasks);
        let policy = Policy { priority, time_limit: ask.limit.map(Span::from_secs), ..Policy::default() };
        let job = NewJob {
            id: JobId(Uuid::from_u128((0x0192_0000_0000_7000 << 64) | (1 << 63) | u128::from(number))),
            seq: Seq(number),
            shape: Arc::new(shape),
            policy: Arc::new(policy),
            submitted_at: now,
            start_after: None,
            hold: false,
        };
        self.core.submit(job, now)?;
        Ok(())
    }

    fn pass(&mut self, now: Timestamp) -> Vec<Transition> {
        self.core.plan(now, usize::MAX)
    }

    fn started(&mut self, made: &[Transition]) -> Fallible<()> {
        for transition in made {
            let (attempt, at) = (transition.to.attempt, transition.at);
            self.core.handle(transition.job, Event::Started { attempt, at }, at)?;
        }
        Ok(())
    }

    /// 35 pods a node: on three of four 8 with a GPU each and 27 without, on the others 35 without. `limits` in hours, of odd lengths.
    fn fill(&mut self, cpu_millis: u64, memory: u64, limits: bool) -> Fallible<Vec<Transition>> {
        let limit = |number: u64| limits.then_some(3600 + number * 7919 % 36_000);
        let with_gpus = self.nodes - self.nodes / 4;
        for number in 0..with_gpus * 8 {
            self.submit(Ask { limit: limit(number), ..Ask::task(cpu_millis, memory, 1) }, 10, START)?;
        }
        for number in 0..self.nodes * PODS - with_gpus * 8 {
            self.submit(Ask { limit: limit(number), ..Ask::task(cpu_millis, memory, 0) }, 10, START)?;
        }
        let made = self.pass(START);
        self.started(&made)?;
        Ok(made)
    }

    /// Pending jobs of 500 shapes, 20 of each on 4,000 nodes.
    fn pend(&mut self, ask: impl Fn(u64) -> Ask) -> Fallible<()> {
        for number in 0..self.nodes * 10_000 / 4000 {
            self.submit(ask(number % SHAPES), 0, START)?;
        }
        Ok(())
    }
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// One pass, timed.
fn timed(cluster: &mut Cluster, now: Timestamp) -> (Duration, Vec<Transition>) {
    let clock = cpu_time();
    let made = cluster.pass(now);
    (cpu_time().saturating_sub(clock), made)
}

/// Passes that start nobody: median and longest of `count`.
fn blocked(cluster: &mut Cluster, what: &str, count: u64) -> Fallible<()> {
    let mut times = Vec::new();
    for pass in 0..count {
        let now = START + Span::from_secs(1 + pass);
        // Another kind, so that the pass is not left out; it fits nowhere.
        cluster.submit(Ask::task(CORES * 1000 - pass, MEMORY * GIB - pass, 0), -1, now)?;
        let (spent, made) = timed(cluster, now);
        if !made.is_empty() {
            return Err(format!("{what}: {} started", made.len()).into());
        }
        times.push(spent);
    }
    times.sort_unstable();
    println!("{:>6} nodes, {what}: {:?} a pass, longest {:?}", cluster.nodes, times[times.len() / 2], times[times.len() - 1]);
    Ok(())
}

fn measure(nodes: u64) -> Fallible<()> {
    let pods = |made: &[Transition]| made.len();
    // 35 x 1.8 cores and 14.5 GiB: 1 core and 4.5 GiB are left on each node.
    let mut cluster = Cluster::new(nodes)?;
    let clock = cpu_time();
    let made = cluster.fill(1800, POD_MEMORY, false)?;
    println!("{nodes:>6} nodes, {} pods started in {:?}", pods(&made), cpu_time().saturating_sub(clock));
    cluster.pend(|shape| Ask::task(500 + shape * 10, GIB, 1 + (shape % 8) as u32))?;
    blocked(&mut cluster, "all blocked, no limits", 9)?;

    let mut cluster = Cluster::new(nodes)?;
    cluster.fill(1800, POD_MEMORY, true)?;
    let gang = Ask { replicas: (nodes - nodes / 50).min(TASK_LIMIT) as u32, ..Ask::task(CORES * 1000, GIB, 0) };
    cluster.submit(gang, 5, START)?;
    cluster.pend(|shape| Ask { limit: Some(86_400), ..Ask::task(500 + shape, GIB, 0) })?;
    blocked_but_few(&mut cluster, 9)?;

    for rack in [None, Some(RACKS)] {
        starts(nodes, rack)?;
    }

    let mut cluster = Cluster::new(nodes)?;
    cluster.fill(200, POD_MEMORY, false)?;
    cluster.pend(|shape| Ask::task(1000 + shape * 10, 5 * GIB + shape, 0))?;
    blocked(&mut cluster, "memory-bound", 9)
}

/// Passes in which about 1,000 start; with `racks`, each kind in one of so many racks.
fn starts(nodes: u64, racks: Option<u64>) -> Fallible<()> {
    let what = if racks.is_some() { ", each on 1 of 50 racks" } else { "" };
    let mut cluster = Cluster::new(nodes)?;
    let made = cluster.fill(1800, POD_MEMORY, true)?;
    cluster.pend(|shape| Ask {
        limit: Some(3600 + shape),
        rack: racks.map(|racks| shape % racks),
        ..Ask::task(2000 + shape, 8 * GIB, u32::from(shape % 5 == 0))
    })?;
    let now = START + Span::from_secs(60);
    end_some(&mut cluster, &made, 0, now)?;
    let (spent, first) = timed(&mut cluster, now);
    println!("{nodes:>6} nodes, {} start of {}{what}, the first to reserve: {spent:?}", first.len(), nodes * 10_000 / 4000);
    // As many more have ended, and whoever started has told so.
    let now = now + Span::from_secs(1);
    cluster.started(&first)?;
    end_some(&mut cluster, &made, 1, now)?;
    let (spent, second) = timed(&mut cluster, now);
    println!("{nodes:>6} nodes, {} start of {}{what}: {spent:?}", second.len(), nodes * 10_000 / 4000 - first.len() as u64);
    Ok(())
}

/// One of 140 runs ends.
fn end_some(cluster: &mut Cluster, made: &[Transition], from: usize, at: Timestamp) -> Fallible<()> {
    for transition in made.iter().skip(from).step_by(140) {
        let attempt = transition.to.attempt;
        let ended = Event::Ended { attempt, result: RunResult::Succeeded, at, retry_at: at };
        cluster.core.handle(transition.job, ended, at)?;
    }
    Ok(())
}

/// As [`blocked`], where those that fit beside the head start in the first pass.
fn blocked_but_few(cluster: &mut Cluster, count: u64) -> Fallible<()> {
    let (spent, made) = timed(cluster, START + Span::from_secs(1));
    println!("{:>6} nodes, gang waits for all, {} start beside it: {spent:?}", cluster.nodes, made.len());
    let mut times = Vec::new();
    for pass in 0..count {
        let (spent, made) = timed(cluster, START + Span::from_secs(2 + pass));
        if !made.is_empty() {
            return Err(format!("{} more start", made.len()).into());
        }
        times.push(spent);
    }
    times.sort_unstable();
    println!(
        "{:>6} nodes, gang waits for all, nobody starts: {:?} a pass, longest {:?}",
        cluster.nodes,
        times[times.len() / 2],
        times[times.len() - 1]
    );
    Ok(())
}

fn main() -> Fallible<()> {
    let asked: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    if asked.is_empty() { measure(4000) } else { asked.into_iter().try_for_each(measure) }
}
