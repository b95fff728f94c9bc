//! `hotpaths`: the core's hot paths, driven by one fixed workload. `cargo xtask instructions` counts what each of them costs.
//!
//! What must hold: every run does exactly the same. The workload is seeded, no clock is read, and each path is a function of its own
//! that is not inlined, so that a counter can be switched on where it begins and off where it returns. What the workload needs to
//! make its jobs is outside of them. Prints how often each path was taken, as `PATH COUNT` lines.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::{Attempt, JobId, Seq};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, GpuDevice, NodeConfig, QueueConfig, Scheduler};
use uuid::Uuid;

/// Jobs that are queued before anything may start.
const JOBS: u64 = 5_000;
/// Rounds of ends, decisions and starts after that.
const ROUNDS: u64 = 400;
/// Runs that end in a round, if so many run.
const ENDS: usize = 4;
/// Transitions that a pass may make.
const PASS: usize = 256;
/// Passes that find a machine full of work and a queue full of jobs with a gang at its head.
const BLOCKED: u64 = 100;
const NODES: u64 = 16;
const GIB: u64 = 1 << 30;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Milliseconds after an arbitrary start.
const fn at(millis: u64) -> Timestamp {
    Timestamp(1_700_000_000_000_000 + millis.cast_signed() * 1_000)
}

fn config() -> Config {
    let queue = |name: &str, priority| QueueConfig { priority, ..QueueConfig::named(name.into()) };
    let aging = QueueConfig { age_per_point: Some(Span::from_secs(60)), ..queue("batch", 100) };
    let node = |number: u64| NodeConfig {
        name: format!("node-{number}").into(),
        cpu: CpuMillis(32_000),
        memory: MemoryBytes(256 * GIB),
        gpus: (0..8)
            .map(|gpu| GpuDevice::whole(format!("GPU-{number}-{gpu}").into(), "H200".into(), MemoryBytes(141 * GIB)))
            .collect(),
        labels: std::collections::BTreeMap::new(),
    };
    let queues = vec![aging, queue("jobs", 5_000), queue("interactive", 10_000)];
    Config { queues, nodes: (0..NODES).map(node).collect(), ..Config::default() }
}

/// A job of one of at most 192 kinds.
fn job(number: u64, random: &mut Random, now: Timestamp) -> NewJob {
    let queue = ["batch", "batch", "batch", "jobs", "interactive"][random.below(5) as usize];
    let namespace = format!("team-{}", random.below(4));
    let gpus = [0, 0, 1][random.below(3) as usize];
    let request = Request { cpu: CpuMillis(1_000 * (1 + random.below(2))), memory: MemoryBytes(4 * GIB), gpus };
    let replicas = if random.below(10) == 0 { 4 } else { 1 };
    let tasks = vec![TaskGroup::new("main".into(), replicas, request)];
    let time_limit = (random.below(2) == 0).then(|| Span::from_secs(3_600));
    let policy = Policy { priority: random.below(201) as i32 - 100, time_limit, ..Policy::default() };
    new_job(number, Shape::new(namespace.as_str().into(), queue.into(), tasks), policy, now)
}

fn new_job(number: u64, shape: Shape, policy: Policy, now: Timestamp) -> NewJob {
    // As the daemon makes them: a UUIDv7 whose time grows, with random bits behind it.
    let mut bits = Random(number);
    let id = (u128::from(0x0190_0000_0000 + number) << 80) | (7 << 76) | (2 << 62) | u128::from(bits.below(1 << 62));
    NewJob {
        id: JobId(Uuid::from_u128(id)),
        seq: Seq(number),
        shape: Arc::new(shape),
        policy: Arc::new(policy),
        submitted_at: now,
        start_after: None,
        hold: false,
    }
}

// Functions that do the same would be made one by the compiler, and their counts too: the black boxes keep them apart.
#[inline(never)]
fn measured_submit(core: &mut Scheduler, jobs: Vec<NewJob>, now: Timestamp) -> Result<()> {
    for job in jobs {
        core.submit(job, now)?;
    }
    Ok(())
}

#[inline(never)]
fn measured_decision(core: &mut Scheduler, now: Timestamp) -> Vec<Transition> {
    black_box(1);
    core.plan(now, PASS)
}

#[inline(never)]
fn measured_uniform(core: &mut Scheduler, now: Timestamp) -> Vec<Transition> {
    black_box(2);
    core.plan(now, PASS)
}

#[inline(never)]
fn measured_blocked(core: &mut Scheduler, now: Timestamp) -> Vec<Transition> {
    black_box(3);
    core.plan(now, PASS)
}

#[inline(never)]
fn measured_start(core: &mut Scheduler, job: JobId, attempt: Attempt, now: Timestamp) -> Result<Transition> {
    core.handle(job, Event::Started { attempt, at: now }, now).context("starting a job")
}

#[inline(never)]
fn measured_end(core: &mut Scheduler, job: JobId, attempt: Attempt, now: Timestamp) -> Result<Transition> {
    core.handle(job, Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now }, now).context("ending a job")
}

/// How often each path was taken.
#[derive(Default)]
struct Counts {
    submits: u64,
    placed: u64,
    starts: u64,
    ends: u64,
}

/// Enters what a pass decided: placed jobs run from now on.
fn enter(core: &mut Scheduler, made: Vec<Transition>, running: &mut VecDeque<(JobId, Attempt)>, now: Timestamp) -> Result<u64> {
    let mut starts = 0;
    for transition in made {
        if matches!(transition.event, Event::Place { .. }) {
            let attempt = transition.to.attempt;
            measured_start(core, transition.job, attempt, now)?;
            running.push_back((transition.job, attempt));
            starts += 1;
        }
    }
    Ok(starts)
}

/// Jobs that all ask for the same: what a decision costs when there is one kind to look at. Returns how many were placed.
fn uniform() -> Result<u64> {
    let mut core = Scheduler::new(config())?;
    let request = Request { cpu: CpuMillis(1_000), memory: MemoryBytes(GIB), gpus: 0 };
    let shape = Shape::new("team-0".into(), "jobs".into(), vec![TaskGroup::new("main".into(), 1, request)]);
    for number in 1..=JOBS {
        core.submit(new_job(number, shape.clone(), Policy::default(), at(number)), at(number))?;
    }
    let mut running = VecDeque::new();
    let mut placed = 0;
    for round in 0..ROUNDS {
        let now = at(JOBS + 10 * round);
        for _ in 0..ENDS.min(running.len()) {
            let (job, attempt) = running.pop_front().context("a run that is not there")?;
            core.handle(job, Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now }, now)?;
        }
        for transition in measured_uniform(&mut core, now) {
            core.handle(transition.job, Event::Started { attempt: transition.to.attempt, at: now }, now)?;
            running.push_back((transition.job, transition.to.attempt));
            placed += 1;
        }
    }
    core.check_invariants()?;
    Ok(placed)
}

fn main() -> Result<()> {
    let mut core = Scheduler::new(config())?;
    let mut random = Random(20_261_121);
    let mut counts = Counts::default();
    let jobs: Vec<NewJob> = (1..=JOBS).map(|number| job(number, &mut random, at(number))).collect();
    measured_submit(&mut core, jobs, at(JOBS))?;
    counts.submits += JOBS;

    let mut running = VecDeque::new();
    for round in 0..ROUNDS {
        let now = at(JOBS + 10 * round);
        for _ in 0..ENDS.min(running.len()) {
            // Not the oldest always: runs end in no order.
            let index = random.below(running.len() as u64) as usize;
            let (job, attempt) = running.swap_remove_back(index).context("a run that is not there")?;
            measured_end(&mut core, job, attempt, now)?;
            counts.ends += 1;
        }
        let made = measured_decision(&mut core, now);
        let starts = enter(&mut core, made, &mut running, now)?;
        counts.placed += starts;
        counts.starts += starts;
    }

    // A gang that needs the whole cluster comes first from now on: every pass works out its reservation, and who fits beside it.
    let now = at(JOBS + 10 * ROUNDS);
    let whole = Request { cpu: CpuMillis(32_000), memory: MemoryBytes(0), gpus: 8 };
    let tasks = vec![TaskGroup::new("main".into(), NODES as u32, whole)];
    let policy = Policy { priority: 1_000_000, ..Policy::default() };
    core.submit(new_job(JOBS + 1, Shape::new("team-0".into(), "interactive".into(), tasks), policy, now), now)?;
    for round in 0..BLOCKED {
        let now = at(JOBS + 10 * (ROUNDS + round));
        let (job, attempt) = running.pop_front().context("nothing runs")?;
        core.handle(job, Event::Ended { attempt, result: RunResult::Succeeded, at: now, retry_at: now }, now)?;
        let made = measured_blocked(&mut core, now);
        // What starts beside the gang goes on by another way than what is counted.
        for transition in made {
            core.handle(transition.job, Event::Started { attempt: transition.to.attempt, at: now }, now)?;
            running.push_back((transition.job, transition.to.attempt));
        }
    }
    core.check_invariants()?;
    if counts.ends < ROUNDS || counts.starts < ROUNDS {
        bail!("the workload did not keep the machines busy: {} starts, {} ends", counts.starts, counts.ends);
    }
    let lines = [
        ("submit", counts.submits),
        ("decision", counts.placed),
        ("start", counts.starts),
        ("end", counts.ends),
        ("blocked", BLOCKED),
        ("uniform", uniform()?),
    ];
    for (path, count) in lines {
        println!("{path} {count}");
    }
    Ok(())
}
