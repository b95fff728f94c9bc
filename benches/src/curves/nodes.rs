//! From one to four thousand nodes in the simulator: decisions a second, submits and ends included. Every node has forty jobs to run, and they
//! come within half an hour and run for up to two, so there is always a queue behind a full cluster. The number of shapes (what jobs ask for, times
//! queues, times tenants) is the same at every size, 400 at most: a pass looks at each of them.

use anyhow::{Context, Result};
use simulator::scheduler::{CpuMillis, MemoryBytes, Request, Span};
use simulator::{Builder, Cluster, Job, Machine, Options, Policy, Workload, simulate};

use super::{Curve, Point};
use crate::body::Random;

const SIZES: [usize; 7] = [1, 4, 16, 64, 256, 1_024, 4_000];
const JOBS_A_NODE: usize = 40;
/// Fewer would be over before a clock can tell.
const JOBS: usize = 4_000;
const TENANTS: u64 = 10;
const SECOND: u64 = 1_000_000;

fn cluster(nodes: usize) -> Cluster {
    let machine = |number| Machine {
        name: format!("node-{number}"),
        cpu_millis: 64_000,
        memory_bytes: 512 << 30,
        gpus: 8,
        gpu_model: "H200".into(),
    };
    Cluster::new((0..nodes).map(machine).collect())
}

fn workload(nodes: usize) -> Result<Workload> {
    let mut random = Random::new(7);
    let mut builder = Builder::new();
    let queues = [builder.queue("interactive"), builder.queue("batch")];
    let tenants: Vec<usize> = (0..TENANTS).map(|number| builder.tenant(&format!("team-{number}"))).collect();
    for _ in 0..JOBS.max(nodes * JOBS_A_NODE) {
        let gpus = [0, 0, 1, 1, 2, 4, 8][random.below(7) as usize];
        let cores = [1, 2, 4, 8][random.below(4) as usize];
        let duration = Span((60 + random.below(7_200)) * SECOND);
        builder.push(Job {
            at: Span(random.below(1_800) * SECOND),
            duration,
            limit: (random.below(2) == 0).then_some(Span(duration.0 * 2)),
            priority: random.below(5) as i32,
            queue: queues[random.below(2) as usize],
            tenant: tenants[random.below(TENANTS) as usize],
            tasks: 1,
            // What memory is asked for follows from the cores, as on machines that are rented: people do not ask for all combinations.
            request: Request { cpu: CpuMillis(1_000 * cores), memory: MemoryBytes((8 * cores) << 30), gpus },
        });
    }
    builder.finish().context("a workload without jobs")
}

/// Measures up to `most` nodes.
pub(super) fn measure(most: u64) -> Result<Curve> {
    let mut points = Vec::new();
    for nodes in SIZES.into_iter().filter(|nodes| *nodes as u64 <= most) {
        let outcome = simulate(&workload(nodes)?, &cluster(nodes), Options::new(Policy::Flash));
        let report = outcome.with_context(|| format!("simulating {nodes} nodes"))?.report;
        points.push(Point::new(
            nodes as f64,
            [
                ("decisions_per_s", report.decisions_per_second),
                ("decisions", report.decisions as f64),
                ("longest_queue", report.longest_queue as f64),
            ],
        ));
    }
    Ok(Curve { name: "nodes", title: "nodes (simulated)", points })
}
