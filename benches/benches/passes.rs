//! P9 and P10: what one pass costs when it starts nobody, or few, of those that wait.

use std::time::Duration;

use benches::blocked::{Blocked, Waiting};
use benches::clock::{processor_time, timed};
use benches::cluster::{Cluster, NODES, Room};
use benches::is_test;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// P9: a pass over 10,000 queued jobs behind a head with a reservation.
fn easy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("EASY pass, 10,000 queued");
    group.sample_size(20);
    let jobs = if is_test() { 1_000 } else { 10_000 };
    let kinds =
        [(Waiting::Shapes, "10,000 shapes"), (Waiting::Few, "400 shapes"), (Waiting::Stays, "1 shape, 10,000 time limits")];
    for (waiting, name) in kinds {
        let mut blocked = None;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|iterations| {
                let made = || Blocked::new(waiting, jobs).unwrap_or_else(|error| panic!("{error}"));
                let blocked = blocked.get_or_insert_with(made);
                let (time, passed) = timed(|| (0..iterations).try_for_each(|_| blocked.pass()));
                passed.unwrap_or_else(|error| panic!("{error}"));
                time
            });
        });
    }
    group.finish();
}

/// P10: a pass over a cluster of 4,000 nodes with 140,000 running pods and 10,000 pending jobs.
fn cluster(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cluster pass, 4,000 nodes");
    group.sample_size(10);
    let nodes = if is_test() { 40 } else { NODES };
    for (room, name) in [(Room::None, "no room"), (Room::Some, "1,000 start")] {
        let mut cluster = None;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|iterations| {
                let made = || Cluster::new(nodes, room).unwrap_or_else(|error| panic!("{error}"));
                let cluster = cluster.get_or_insert_with(made);
                let mut pass = || {
                    let clock = |plan: &mut dyn FnMut()| {
                        let start = processor_time();
                        plan();
                        processor_time().saturating_sub(start)
                    };
                    cluster.pass(clock).unwrap_or_else(|error| panic!("{error}")).0
                };
                (0..iterations).map(|_| pass()).sum::<Duration>()
            });
        });
    }
    group.finish();
}

criterion_group!(all, easy, cluster);
criterion_main!(all);
