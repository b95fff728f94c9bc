//! From a thousand to a million queued jobs: what a submit, a start, a list, a reason and the daemon's memory cost behind them.
//!
//! One daemon is filled step by step. Its node is held but for a tenth of a processor, so what waits stays in line, and a small job of the highest
//! priority starts at once: from its submit to its first instruction is what a decision takes, with everything around it.

use std::time::Instant;

use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Value, json};

use super::{Curve, Point, timed_calls};
use crate::LoopOptions;
use crate::closed_loop::load;
use crate::connection::Dialect;
use crate::server::{Server, ServerOptions};
use crate::start::{Stamps, one_by_one};

const SIZES: [u64; 7] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
/// Jobs in a request while the queue is filled.
const BATCH: u64 = 250;
/// Requests, one job each, that are measured at each size; fewer at the smallest.
const SINGLES: u64 = 4_000;
const STARTS: u32 = 40;
const CALLS: u32 = 30;

/// Measures up to `most` jobs.
pub(super) fn measure(options: &ServerOptions, most: u64) -> Result<Curve> {
    let mut server = Server::open(options)?;
    server.hold("1900m")?;
    let mut stamps = Stamps::new(&server.data()?)?;
    let mut points = Vec::new();
    let mut queued = 0;
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        let singles = SINGLES.min(size / 4);
        let missing = (size.saturating_sub(queued + singles) / BATCH).max(2);
        let fill = LoopOptions { connections: 4, requests: Some(missing - 1), warmup: Some(1), threads: 1, seed: size };
        let begun = Instant::now();
        let (filled, answers) = load(&server.client, &fill, Dialect::Batch(BATCH as usize))?;
        let seconds = begun.elapsed().as_secs_f64();
        let last: Value = serde_json::from_slice(&answers.last).context("reading the answer to a batch")?;
        let last = last["jobs"][0]["id"].as_str().context("a batch that answers no ids")?.to_owned();
        let single = LoopOptions { connections: 64, requests: Some(singles), warmup: Some(50), threads: 1, seed: size + 1 };
        let (singles, _) = load(&server.client, &single, Dialect::One)?;
        queued = count_queued(&server)?;
        let job =
            json!({"name": "stamp", "queue": "configfile-interactive", "priority": 1_000_000, "resources": {"cpu": "100m"}});
        let (starts, _) = one_by_one(&server, &mut stamps, STARTS, job)?;
        points.push(Point::new(
            queued as f64,
            [
                ("batches_per_s", missing as f64 * BATCH as f64 / seconds),
                ("singles_per_s", singles["jobs_per_s"].as_f64().unwrap_or_default()),
                ("start_p50_ms", starts.summary()["p50"].as_f64().unwrap_or_default()),
                ("list_p50_ms", timed_calls(&server, CALLS, "/api/v1/jobs?limit=100")?),
                ("list_of_team_p50_ms", timed_calls(&server, CALLS, "/api/v1/jobs?limit=100&labelSelector=team%3Dinfra")?),
                ("why_p50_ms", timed_calls(&server, CALLS, &format!("/api/v1/jobs/{last}/why"))?),
                ("rss_mib", server.usage()["rss_mib"].as_f64().unwrap_or_default()),
                ("errors", filled["errors"].as_f64().unwrap_or_default() + singles["errors"].as_f64().unwrap_or_default()),
            ],
        ));
    }
    Ok(Curve { name: "queued", title: "jobs queued", points })
}

fn count_queued(server: &Server) -> Result<u64> {
    let queues = server.client.call(Method::GET, "/api/v1/queues", b"")?;
    let items = queues["items"].as_array().or_else(|| queues.as_array()).context("a list of queues")?;
    let queued = |queue: &Value| queue["queued"].as_u64().or_else(|| queue["status"]["queued"].as_u64());
    items.iter().map(|queue| queued(queue).context("a queue without the number of its jobs")).sum()
}
