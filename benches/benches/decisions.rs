//! P1: decisions a second in the core, with 1 thousand to 1 million jobs queued.
//!
//! A *decision* is a job taken from the queue, placed, its resources taken, and those of a job that has ended given back, with all books
//! kept. A *cycle* is all of a job's way: submitted, started, `Started`, `Ended`. Submits between decisions are not timed; in a cycle they are.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use benches::clock::timed;
use benches::is_test;
use benches::mixed::{Limits, Mixed};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn sizes() -> &'static [u64] {
    if is_test() { &[1_000] } else { &[1_000, 10_000, 100_000, 1_000_000] }
}

/// Processor time of so many decisions, jobs of the same number submitted between passes.
fn decide(mixed: &mut Mixed, decisions: u64) -> Result<Duration> {
    let (mut done, mut spent) = (0, Duration::ZERO);
    while done < decisions {
        let (time, made) = timed(|| mixed.decide());
        let made = black_box(made?);
        spent += time;
        done += made;
        mixed.submit(made)?;
    }
    // A pass starts more than one; a decision is what is counted.
    Ok(spent.mul_f64(decisions as f64 / done as f64))
}

fn cycle(mixed: &mut Mixed, cycles: u64) -> Result<Duration> {
    let (mut done, mut spent) = (0, Duration::ZERO);
    while done < cycles {
        let (time, made) = timed(|| mixed.cycle());
        spent += time;
        done += black_box(made?);
    }
    Ok(spent.mul_f64(cycles as f64 / done as f64))
}

type Measure = fn(&mut Mixed, u64) -> Result<Duration>;

fn measure(criterion: &mut Criterion, group: &str, limits: Limits, sizes: &[u64], what: Measure) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(1)).sample_size(20).warm_up_time(Duration::from_secs(1));
    for &queued in sizes {
        // Made when it is its turn, and gone after it: a million jobs that nobody asked for would be in the way of the others.
        let mut mixed = None;
        group.bench_function(BenchmarkId::from_parameter(queued), |bencher| {
            bencher.iter_custom(|iterations| {
                let made = || Mixed::queued(limits, queued).unwrap_or_else(|error| panic!("{error}"));
                what(mixed.get_or_insert_with(made), iterations).unwrap_or_else(|error| panic!("{error}"))
            });
        });
    }
    group.finish();
}

fn decisions(criterion: &mut Criterion) {
    measure(criterion, "decisions", Limits::One, sizes(), decide);
    let middle = &sizes()[..sizes().len().min(3)];
    measure(criterion, "decisions, three time limits", Limits::Three, middle, decide);
    measure(criterion, "decisions, each job its own time limit", Limits::Own, middle, decide);
    measure(criterion, "cycles", Limits::One, sizes(), cycle);
}

criterion_group!(all, decisions);
criterion_main!(all);
