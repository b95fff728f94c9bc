//! Prints how long it takes to say why a job waits, with 1 thousand to 1 million jobs queued and up to 4,000 runs.
//!
//! Run it with `cargo run --release -p scheduler-core --example explain`. *Asking* is what the core's lock is held for, *answering* the
//! rest, which needs the core no more. Asked are the first job, some in the middle, and the last; the median and the worst are told.
//! 10 queues, 50 tenants; 1, 4 or 80 kinds of jobs to each pair of these.

use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::event::Event;
use scheduler_core::ids::{JobId, Seq};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, Inquiry, NodeConfig, QueueConfig, Scheduler};
use uuid::Uuid;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn id(number: u64) -> JobId {
    JobId(Uuid::from_u128((0x0192_0000_0000_7000 << 64) | (1 << 63) | u128::from(number)))
}

/// A cheap scrambled number, the same in every run.
fn scramble(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn job(number: u64, kinds: u64, now: Timestamp) -> NewJob {
    let random = scramble(number);
    let request = Request { cpu: CpuMillis(1000 + 100 * (random % kinds)), memory: MemoryBytes(1 << 28), gpus: 0 };
    let tasks =
        vec![TaskGroup { name: "main".into(), replicas: 1, request, constraints: scheduler_core::job::Constraints::default() }];
    let (queue, tenant) = (format!("queue-{}", (random >> 16) % 10), format!("team-{}", (random >> 8) % 50));
    let limit = Span::from_secs(600 + (random >> 24) % 5 * 600);
    let policy = Policy { priority: ((random >> 32) % 5) as i32, time_limit: Some(limit), ..Policy::default() };
    NewJob {
        id: id(number),
        seq: Seq(number),
        shape: Arc::new(Shape::new(tenant.as_str().into(), queue.as_str().into(), tasks)),
        policy: Arc::new(policy),
        submitted_at: now,
        start_after: None,
        hold: false,
    }
}

fn micros() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

fn measure(queued: u64, nodes: u64, kinds: u64) -> Fallible<()> {
    let node = |index: u64| NodeConfig {
        name: format!("node-{index}").into(),
        cpu: CpuMillis(16_000),
        memory: MemoryBytes(1 << 40),
        gpus: Vec::new(),
        labels: std::collections::BTreeMap::new(),
    };
    let queues = (0..10).map(|index| QueueConfig {
        priority: index / 5,
        age_per_point: Some(Span::from_secs(60)),
        ..QueueConfig::named(format!("queue-{index}").as_str().into())
    });
    let config = Config { queues: queues.collect(), nodes: (0..nodes).map(node).collect(), ..Config::default() };
    let mut core = Scheduler::new(config)?;
    let runs = nodes * 16;
    for number in 0..queued + runs {
        let now = Timestamp(number.cast_signed());
        core.submit(job(number, kinds, now), now)?;
    }
    let now = Timestamp(10_000_000);
    for made in core.plan(now, usize::MAX) {
        core.handle(made.job, Event::Started { attempt: made.to.attempt, at: now }, now)?;
    }
    let active = core.active().count();
    let waits = |number: &u64| core.view(id(*number)).is_some_and(|view| view.lifecycle.state.placement().is_none());
    let all: Vec<u64> = (0..queued + runs).filter(waits).collect();
    let mut asked = [Vec::new(), Vec::new()];
    for step in 0..21 {
        let number = all[(all.len() - 1) * step / 20];
        let before = micros();
        let inquiry = core.inquire(id(number), now);
        let between = micros();
        let answer = inquiry.map(Inquiry::answer);
        asked[0].push(between - before);
        asked[1].push(micros() - between);
        drop(answer);
    }
    let [asking, answering] = asked.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2] / 1e3, times[times.len() - 1] / 1e3)
    });
    println!(
        "{queued:>9} {active:>6} {:>6} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
        kinds * 500 * 5,
        asking.0,
        asking.1,
        answering.0,
        answering.1
    );
    Ok(())
}

fn main() -> Fallible<()> {
    println!("   queued   runs  kinds    asking, ms        answering, ms");
    println!("                         median     worst    median     worst");
    for (queued, nodes, kinds) in
        [(1_000, 4, 1), (10_000, 32, 1), (100_000, 32, 1), (100_000, 250, 4), (1_000_000, 32, 1), (1_000_000, 32, 80)]
    {
        measure(queued, nodes, kinds)?;
    }
    Ok(())
}
