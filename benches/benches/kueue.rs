//! P6: Kueue's published workloads in virtual time. The makespan is what is compared, and is printed; the time that computing it takes is
//! what criterion measures.

use std::time::Duration;

use benches::clock::timed;
use benches::is_test;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use simulator::{Cluster, Options, Policy, Scale, kueue, simulate};

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn workloads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("Kueue's workloads");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    let scales: &[_] =
        if is_test() { &[(Scale::Baseline, "baseline")] } else { &[(Scale::Baseline, "baseline"), (Scale::Large, "large")] };
    for &(scale, name) in scales {
        let workload = kueue(scale, 0);
        let cluster = Cluster::new(scale.machines());
        let mut told = false;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut run = || {
                    let (time, outcome) = timed(|| simulate(&workload, &cluster, Options::new(Policy::Flash)));
                    let report = outcome.unwrap_or_else(|error| panic!("{error}")).report;
                    if !std::mem::replace(&mut told, true) {
                        let (makespan, bound) = (report.makespan_seconds, report.bound.makespan_seconds);
                        println!("{name}: makespan {makespan:.1} s, bound {bound:.1} s, use {:.3}", report.utilisation.cpu);
                    }
                    time
                };
                (0..iterations).map(|_| run()).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(all, workloads);
criterion_main!(all);
