//! From one to ten thousand running jobs: what they cost while nothing happens, and how soon more of them run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Value, json};

use super::{Curve, Point, timed_calls};
use crate::process::Process;
use crate::server::{Server, ServerOptions, poll_until};

const SIZES: [u64; 6] = [1, 10, 100, 1_000, 3_000, 10_000];
const BATCH: u64 = 1_000;
const CALLS: u32 = 30;
/// How long the idle machine is watched: processor time is counted in hundredths of a second.
const IDLE: Duration = Duration::from_secs(5);
/// Until all of a step run.
const PATIENCE: Duration = Duration::from_mins(2);
/// The smallest that a job may ask for; so ten thousand of them fit.
const CONFIG: &str = "[node]\ncpus = 16\n";

fn is_any(server: &Server, state: &str) -> Result<bool> {
    let list = server.client.call(Method::GET, &format!("/api/v1/jobs?limit=1&state={state}"), b"")?;
    Ok(!list["items"].as_array().context("a list of jobs")?.is_empty())
}

/// Measures up to `most` jobs.
pub(super) fn measure(options: &ServerOptions, most: u64) -> Result<Curve> {
    let mut options = options.clone();
    CONFIG.clone_into(&mut options.config);
    let server = Server::open(&options)?;
    let mut points = Vec::new();
    let mut running = 0;
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        let (begun, added) = (Instant::now(), size - running);
        while running < size {
            let count = BATCH.min(size - running);
            let job =
                |number| json!({"name": format!("sleeper-{number}"), "command": ["sleep", "36000"], "resources": {"cpu": "1m"}});
            let batch: Vec<Value> = (running..running + count).map(job).collect();
            server.client.call(Method::POST, "/api/v1/jobs:batch", json!({"jobs": batch}).to_string().as_bytes())?;
            running += count;
        }
        poll_until("all sleepers, to run", PATIENCE, || {
            Ok((!is_any(&server, "queued")? && !is_any(&server, "starting")?).then_some(()))
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let weigh = || (Process::of(server.pid()), Process::of(server.runner()));
        // What the starts left to do.
        std::thread::sleep(Duration::from_secs(1));
        let (daemon, runner) = weigh();
        std::thread::sleep(IDLE);
        let (later, runner_later) = weigh();
        let share = |used: f64| 100.0 * used / IDLE.as_secs_f64();
        points.push(Point::new(
            size as f64,
            [
                ("starts_per_s", added as f64 / seconds),
                ("daemon_rss_mib", later.rss_mib),
                ("runner_rss_mib", runner_later.rss_mib),
                ("daemon_idle_cpu_percent", share(later.cpu_s - daemon.cpu_s)),
                ("runner_idle_cpu_percent", share(runner_later.cpu_s - runner.cpu_s)),
                ("runner_fds", runner_later.fds),
                ("list_p50_ms", timed_calls(&server, CALLS, "/api/v1/jobs?limit=100&state=running")?),
                ("nodes_p50_ms", timed_calls(&server, CALLS, "/api/v1/nodes")?),
            ],
        ));
    }
    Ok(Curve { name: "running", title: "jobs running (sleep)", points })
}
