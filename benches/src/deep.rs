//! A deep queue: what a daemon weighs with it, whether a submit is slower behind it, and how soon it schedules again after it was killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use api::cluster::JobEvent;

use crate::LoopOptions;
use crate::closed_loop::{check_last, load};
use crate::connection::Dialect;
use crate::server::{Server, ServerOptions};

/// Jobs in a request while the queue is filled.
const BATCH: usize = 1_000;
/// Requests, one job each, that are measured behind the full queue.
const SINGLES: u64 = 20_000;

/// Fills, weighs, submits, kills, starts again, and waits for the first job that runs.
pub(crate) fn run(jobs: u64, connections: usize, options: &ServerOptions) -> Result<Value> {
    let mut server = Server::open(options)?;
    if server.name != "flashd" {
        bail!("a deep queue is measured in a daemon of our own: without --server and --bare");
    }
    server.hold_node()?;
    let fill = LoopOptions { connections: 4, requests: Some((jobs / BATCH as u64).max(2)), warmup: Some(1), threads: 1, seed: 1 };
    let begun = Instant::now();
    let (filled, answers) = load(&server.client, &fill, Dialect::Batch(BATCH))?;
    let fill_s = begun.elapsed().as_secs_f64();
    check_last(&server, &answers)?;
    let full = server.usage();
    let single = LoopOptions { connections, requests: Some(SINGLES), warmup: Some(500), threads: 1, seed: 2 };
    let (singles, answers) = load(&server.client, &single, Dialect::One)?;
    check_last(&server, &answers)?;
    let list = server.client.call(Method::GET, "/api/v1/jobs?limit=1", b"")?;
    let revision = list["revision"].as_u64().context("a list of jobs without a revision")?;

    server.kill()?;
    server.let_blocker_end()?;
    let (begun, at) = (Instant::now(), jiff::Timestamp::now());
    server.restart()?;
    let ready_s = begun.elapsed().as_secs_f64();
    let mut first = None;
    server.client.events(revision, |data| {
        let event: JobEvent = serde_json::from_slice(data).context("reading an event")?;
        first = (event.event == "started").then_some(event.at);
        Ok(first.is_none())
    })?;
    let first_start_s = first.context("no job started")?.duration_since(at).as_secs_f64();
    let restarted = server.usage();
    // A start before the restart would mean that the events are not those of the new daemon.
    if first_start_s <= 0.0 || begun.elapsed() < Duration::from_secs_f64(first_start_s) {
        bail!("a first start {first_start_s} s after the restart cannot be");
    }
    Ok(json!({
        "mode": "deep", "jobs": jobs, "fill_s": fill_s, "fill_jobs_per_s": filled["jobs_per_s"],
        "fill_first_tenth_jobs_per_s": filled["first_tenth_jobs_per_s"], "fill_last_tenth_jobs_per_s": filled["last_tenth_jobs_per_s"],
        "rss_mb": full["rss_mib"].as_f64().map(|mib| (mib * 1.048_576).round()), "usage_full": full, "usage_restarted": restarted,
        "singles_per_s": singles["jobs_per_s"], "singles_latency_ms": singles["latency_ms"],
        "restart_to_ready_s": ready_s, "restart_to_first_start_s": first_start_s,
        "errors": filled["errors"].as_u64().unwrap_or(0) + singles["errors"].as_u64().unwrap_or(0),
        "first_error": if filled["first_error"].is_null() { &singles["first_error"] } else { &filled["first_error"] },
    }))
}
