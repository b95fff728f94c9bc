//! Prints what the core does a second, and how much memory a queued job takes, with 1 thousand to 1 million jobs queued.
//!
//! Run it with `cargo run --release -p scheduler-core --example throughput`, or with numbers of queued jobs as
//! arguments. A *decision* is a job taken from the queue, placed, its resources
//! taken, and those of a job that has ended given back, with all books kept. A *cycle* is submit, start, `Started` and `Ended` of one
//! job. The number of queued jobs stays the same during a measurement: 10 queues, 50 tenants, 8 sizes (one with a GPU), 5 priorities.
//! The last lines are full passes that find room for nobody: many kinds of jobs behind a blocked head.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::event::{Event, RunResult};
use scheduler_core::ids::{JobId, Name, Seq};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, GpuDevice, NodeConfig, QueueConfig, Scheduler};
use uuid::Uuid;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Jobs that run at once.
const SLOTS: usize = 512;

/// A boxed error is all that an example needs.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn scheduler() -> Fallible<Scheduler> {
    let gpus = |node: u64| {
        let gpu = move |index: u64| GpuDevice::whole(format!("GPU-{node}-{index}").into(), "H200".into(), MemoryBytes(80 << 30));
        (0..8).map(gpu).collect()
    };
    let node = |index: u64| {
        let cpu = CpuMillis(1000 * SLOTS as u64 / 4);
        NodeConfig::new(format!("node-{index}").into(), cpu, MemoryBytes(1 << 42), gpus(index))
    };
    let queue = |name: String, priority| QueueConfig {
        priority,
        age_per_point: Some(Span::from_secs(60)),
        ..QueueConfig::named(name.into())
    };
    Ok(Scheduler::new(Config {
        queues: (0..10).map(|index| queue(format!("queue-{index}"), index / 5)).collect(),
        nodes: (0..4).map(node).collect(),
        ..Config::default()
    })?)
}

/// A cheap scrambled number, the same in every run.
fn scramble(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// A job of the mix, with its own copy of shape and policy, as a server makes them.
fn job(number: u64, now: Timestamp) -> NewJob {
    let random = scramble(number);
    let size = random % 8;
    let request = Request { cpu: CpuMillis(100 + 100 * size), memory: MemoryBytes((1 + size) << 28), gpus: u32::from(size == 7) };
    let tasks = vec![TaskGroup::new(Name::from("main"), 1, request)];
    let queue = format!("queue-{}", (random >> 16) % 10);
    let shape = Shape::new(format!("team-{}", (random >> 8) % 50).into(), queue.into(), tasks);
    let policy = Policy { priority: ((random >> 24) % 5) as i32, time_limit: Some(Span::from_secs(3600)), ..Policy::default() };
    NewJob {
        id: JobId(Uuid::from_u128((0x0192_0000_0000_7000 << 64) | (1 << 63) | u128::from(random >> 2))),
        seq: Seq(number),
        shape: Arc::new(shape),
        policy: Arc::new(policy),
        submitted_at: now,
        start_after: None,
        hold: false,
    }
}

/// Processor time of this thread: what other programs do meanwhile disturbs it least.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn since(start: Duration) -> Duration {
    cpu_time().saturating_sub(start)
}

/// Resident bytes of this process.
fn resident() -> Fallible<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).unwrap_or("0").parse()?;
    Ok(pages * 4096)
}

fn measure(queued: u64) -> Fallible<()> {
    let before = resident()?;
    let mut core = scheduler()?;
    let now = |number: u64| Timestamp(1_700_000_000_000_000 + number.cast_signed() * 10);
    let clock = cpu_time();
    for number in 0..queued {
        core.submit(job(number, now(number)), now(number))?;
    }
    let submits = queued as f64 / since(clock).as_secs_f64();
    let bytes = resident()?.saturating_sub(before) / queued;
    let mut number = queued;
    let decisions = decisions(&mut core, &mut number, &now)?;
    let mut cycles = 0_u64;
    let clock = cpu_time();
    while cycles < 200_000 {
        for transition in core.plan(now(number), 256) {
            let (attempt, at) = (transition.to.attempt, now(number));
            core.handle(transition.job, Event::Started { attempt, at }, at)?;
            core.handle(transition.job, Event::Ended { attempt, result: RunResult::Succeeded, at, retry_at: at }, at)?;
            number += 1;
            core.submit(job(number, at), at)?;
            cycles += 1;
        }
    }
    let cycles_s = cycles as f64 / since(clock).as_secs_f64();
    println!(
        "{queued:>9} queued: {decisions:>9.0} decisions/s {cycles_s:>9.0} cycles/s {submits:>9.0} submits/s {bytes:>4} bytes/queued job"
    );
    Ok(())
}

/// Decisions a second: passes and ends are timed, submits in between are not.
fn decisions(core: &mut Scheduler, number: &mut u64, now: &impl Fn(u64) -> Timestamp) -> Fallible<f64> {
    let (mut done, mut spent) = (0_u64, 0.0);
    while done < 1_000_000 {
        let at = now(*number);
        let clock = cpu_time();
        let made = core.plan(at, 256);
        for transition in &made {
            let attempt = transition.to.attempt;
            core.handle(transition.job, Event::Ended { attempt, result: RunResult::Succeeded, at, retry_at: at }, at)?;
        }
        let count = made.len() as u64;
        drop(made);
        spent += since(clock).as_secs_f64();
        done += count;
        for _ in 0..count {
            *number += 1;
            core.submit(job(*number, at), at)?;
        }
    }
    Ok(done as f64 / spent)
}

/// Passes over `kinds` kinds of jobs that do not fit, behind a head with a reservation.
fn measure_blocked(kinds: u64) -> Fallible<()> {
    let mut core = scheduler()?;
    let now = Timestamp(1_700_000_000_000_000);
    let sized = |number: u64, cpu: u64| {
        let mut new = job(number, now);
        let mut shape = (*new.shape).clone();
        shape.tasks[0].request.cpu = CpuMillis(cpu);
        new.shape = Arc::new(shape);
        new
    };
    let whole = 1000 * SLOTS as u64 / 4;
    for number in 0..400 {
        core.submit(sized(number, whole / 100 - 1), now)?;
    }
    let running = core.plan(now, usize::MAX).len();
    for number in 0..kinds {
        core.submit(sized(1000 + number, 2000 + number % (whole - 2000)), now)?;
    }
    core.submit(sized(500, 10), now)?;
    let clock = cpu_time();
    let made = core.plan(now, usize::MAX).len();
    let first = since(clock);
    let clock = cpu_time();
    for _ in 0..10 {
        core.plan(now, usize::MAX);
    }
    println!("{kinds:>9} kinds blocked behind {running} runs: {:?} a pass ({first:?} with {made} backfilled)", since(clock) / 10);
    Ok(())
}

fn main() -> Fallible<()> {
    let asked: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    if !asked.is_empty() {
        return asked.into_iter().try_for_each(measure);
    }
    for queued in [1_000, 10_000, 100_000, 1_000_000] {
        measure(queued)?;
    }
    measure_blocked(1_000)?;
    measure_blocked(10_000)
}
