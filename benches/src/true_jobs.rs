//! Real `true` jobs: how many a second the whole road carries, from queue to recorded end.
//!
//! All jobs are in line before the first may start, so that the rate is that of running and not of submitting. The times are those
//! of the job table's events, read after the last job has ended: nothing watches while it is measured but a look at one job.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use api::cluster::JobEvent;
use api::job::{OutcomeWord, State};

use crate::floors::true_program;
use crate::server::{Server, ServerOptions, look_until};
use crate::stats::per_second;

/// Jobs in a submit.
const BATCH: u32 = 1_000;
/// Longest that all the jobs may take.
const LIMIT: Duration = Duration::from_mins(10);
/// Pause between two looks whether the last job has ended. What is measured are the times in the events, which a look late does not
/// change; a look each 5 ms took 25 us of processor time a job, beside the 600 of `true` itself.
const LOOK: Duration = Duration::from_millis(100);

/// What the events of the jobs say.
#[derive(Default)]
struct Tally {
    first_start: Option<jiff::Timestamp>,
    last_end: Option<jiff::Timestamp>,
    succeeded: u32,
    other: u32,
}

impl Tally {
    fn take(&mut self, event: &JobEvent) {
        if event.event == "started" {
            self.first_start = Some(self.first_start.map_or(event.at, |first| first.min(event.at)));
        }
        if event.state == State::Finished {
            self.last_end = Some(self.last_end.map_or(event.at, |last| last.max(event.at)));
            match &event.outcome {
                Some(outcome) if outcome.result == OutcomeWord::Succeeded => self.succeeded += 1,
                _ => self.other += 1,
            }
        }
    }
}

fn submit(server: &Server, jobs: u32, program: &str) -> Result<String> {
    let mut last = None;
    let mut sent = 0;
    while sent < jobs {
        let count = BATCH.min(jobs - sent);
        let batch: Vec<Value> = (sent..sent + count)
            .map(|number| json!({"name": format!("true-{number}"), "command": [program], "resources": {"cpu": "1"}}))
            .collect();
        let answer = server.client.call(Method::POST, "/api/v1/jobs:batch", json!({"jobs": batch}).to_string().as_bytes())?;
        last = answer["jobs"].as_array().and_then(|jobs| jobs.last()?["id"].as_str().map(str::to_owned));
        sent += count;
    }
    last.context("a batch that answers no ids")
}

/// Runs `jobs` of them.
pub(crate) fn run(jobs: u32, options: &ServerOptions) -> Result<Value> {
    let (program, jobs) = (true_program()?, jobs.max(1));
    let mut server = Server::open(options)?;
    if server.name != "flashd" {
        bail!("true jobs are run by a daemon of our own: without --server and --bare");
    }
    server.hold_node()?;
    let list = server.client.call(Method::GET, "/api/v1/jobs?limit=1", b"")?;
    let revision = list["revision"].as_u64().context("a list of jobs without a revision")?;
    let last = submit(&server, jobs, program)?;
    server.release_node()?;

    let path = format!("/api/v1/jobs/{last}");
    look_until("the end of the last job", LIMIT, LOOK, || {
        let job = server.client.call(Method::GET, &path, b"")?;
        Ok((job["state"] == "finished").then_some(()))
    })?;
    let mut tally = Tally::default();
    // The job that held the node finishes too: cancelled, and not counted.
    server.client.events(revision, |data| {
        let event: JobEvent = serde_json::from_slice(data).context("reading an event")?;
        let held = event.outcome.as_ref().is_some_and(|outcome| outcome.result == OutcomeWord::Cancelled);
        if !held {
            tally.take(&event);
        }
        Ok(tally.succeeded + tally.other < jobs)
    })?;
    if tally.other > 0 {
        bail!("{} of {jobs} jobs did not succeed", tally.other);
    }
    let (first, end) = (tally.first_start.context("no job started")?, tally.last_end.context("no job ended")?);
    let seconds = end.duration_since(first).as_secs_f64();
    Ok(json!({"mode": "true-jobs", "server": server.name, "jobs": jobs, "seconds": seconds,
        "per_s": per_second(u64::from(jobs), seconds), "server_usage": server.usage()}))
}
