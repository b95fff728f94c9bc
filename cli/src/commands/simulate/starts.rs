//! `flash simulate --from-server`: when each job that waits on a server would start, as things are and as they might be.
//!
//! Invariant: nothing is changed on the server, and what was assumed stands beside the answer.

use std::collections::BTreeMap;

use api::quantity::Duration;
use api::{Job, State};
use jiff::Timestamp;
use serde::Serialize;
use simulator::Present;
use simulator::scheduler::{JobId, Span};

use super::change::Changes;
use super::{Shape, present};
use crate::client::Client;
use crate::error::Error;
use crate::output;
use crate::table::{self, Look, cell};
use crate::when;

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// When it was asked.
    at: Timestamp,
    /// How long a run without a time limit is taken to last, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    assumed_runtime: Option<Duration>,
    /// Jobs without a limit that run or wait.
    without_limit: usize,
    /// What was changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<String>,
    /// Jobs that wait, in the order in which they start as things are.
    jobs: Vec<Row>,
}

/// When one job starts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    number: u64,
    id: uuid::Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    queue: String,
    state: State,
    /// As things are; `null`: never.
    start: Option<Timestamp>,
    /// With the changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<Changed>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    /// `null`: never.
    start: Option<Timestamp>,
    /// Seconds sooner (negative) or later than as things are.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// Asks, works it out and prints it.
pub(super) async fn run(client: &Client, changes: &Changes, assume: Duration, shape: Shape) -> Result<u8, Error> {
    let now = Timestamp::now();
    let present::Read { jobs, queues, present } = present::read(client, now).await?;
    let starts = forecast(&present, assume)?;
    let changed = if changes.is_empty() {
        None
    } else {
        let config = changes.apply(present.config.clone(), &queues)?;
        Some(forecast(&Present { config, ..present.clone() }, assume)?)
    };
    let without_limit = present.jobs.iter().filter(|job| job.policy.time_limit.is_none()).count();
    let waits = |job: &&Job| matches!(job.state, State::Waiting | State::Queued);
    let mut rows: Vec<Row> = jobs.iter().filter(waits).map(|job| row(job, &starts, changed.as_ref())).collect();
    rows.sort_by_key(|row| (row.start.is_none(), row.start, row.number));
    let assumed_runtime = (without_limit > 0).then_some(assume);
    let answer = Answer { at: now, assumed_runtime, without_limit, changes: changes.words(), jobs: rows };
    let text = match shape {
        Shape::Json => output::json(&answer)?,
        Shape::Table => text(&answer, Look::stdout()),
    };
    output::print(&text)?;
    Ok(0)
}

type Starts = BTreeMap<JobId, Timestamp>;

fn forecast(present: &Present, assume: Duration) -> Result<Starts, Error> {
    let found = simulator::forecast(present, Span(assume.0)).map_err(|error| Error::usage(error.to_string()))?;
    let wire = |at: simulator::scheduler::Timestamp| Timestamp::from_microsecond(at.0).ok();
    Ok(found.into_iter().filter_map(|(job, at)| Some((job, wire(at)?))).collect())
}

fn row(job: &Job, starts: &Starts, changed: Option<&Starts>) -> Row {
    let start = starts.get(&JobId(job.id)).copied();
    let changed = changed.map(|changed| {
        let other = changed.get(&JobId(job.id)).copied();
        let seconds = start.zip(other).map(|(one, other)| (other.as_microsecond() - one.as_microsecond()) as f64 / 1e6);
        Changed { start: other, seconds }
    });
    Row {
        number: job.number,
        id: job.id,
        name: job.spec.name.clone(),
        queue: job.spec.queue.clone().unwrap_or_default(),
        state: job.state,
        start,
        changed,
    }
}

fn text(answer: &Answer, look: Look) -> String {
    let mut facts = vec![("changes", answer.changes.join(", "))];
    if answer.changes.is_empty() {
        facts.clear();
    }
    if let Some(assumed) = answer.assumed_runtime {
        let jobs = if answer.without_limit == 1 { "1 job has".to_owned() } else { format!("{} jobs have", answer.without_limit) };
        facts.push(("assumed", format!("{jobs} no time limit and is taken to run for {assumed} more (--assume-runtime)")));
    }
    facts.push(("assumed", "all others run as long as their limits let them, and nobody new comes".to_owned()));
    let when = |start: Option<Timestamp>| start.map_or_else(|| "never".to_owned(), |at| from_now(at, answer.at));
    let mut header = vec!["NUMBER", "NAME", "QUEUE", "STATE", "STARTS"];
    if !answer.changes.is_empty() {
        header.extend(["CHANGED", "DIFFERENCE"]);
    }
    let rows = answer.jobs.iter().map(|job| {
        let mut row = vec![cell(job.number.to_string()), table::maybe(job.name.as_deref()), cell(&job.queue)];
        row.extend([cell(job.state.as_str()), cell(when(job.start))]);
        if let Some(changed) = &job.changed {
            row.extend([cell(when(changed.start)), cell(difference(job.start, changed))]);
        }
        row
    });
    format!("{}\n{}", table::facts(&facts), table::table(look, &header, rows.collect()))
}

fn from_now(at: Timestamp, now: Timestamp) -> String {
    let seconds = (at.as_microsecond() - now.as_microsecond()) / 1_000_000;
    if seconds <= 0 { "now".to_owned() } else { format!("in {}", when::span(seconds)) }
}

fn difference(start: Option<Timestamp>, changed: &Changed) -> String {
    match (start, changed.start, changed.seconds) {
        (None, Some(_), _) => "starts at all".to_owned(),
        (Some(_), None, _) => "does not start".to_owned(),
        (_, _, Some(seconds)) if seconds <= -1.0 => format!("{} sooner", when::span(-seconds as i64)),
        (_, _, Some(seconds)) if seconds >= 1.0 => format!("{} later", when::span(seconds as i64)),
        _ => "-".to_owned(),
    }
}
