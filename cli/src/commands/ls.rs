//! `flash ls`: jobs in a table, and the words for how a job stands that other commands use, too.

use std::time::Duration;

use api::{Job, JobList, Outcome, OutcomeWord, QueueList, State};
use clap::builder::PossibleValuesParser;
use comfy_table::Cell;
use jiff::Timestamp;

use crate::client::Client;
use crate::error::Error;
use crate::ids;
use crate::list::{self, Filter, UNFINISHED};
use crate::output::{self, Output};
use crate::query::Query;
use crate::table::{self, Look, cell, maybe};
use crate::when;

pub(crate) const EXAMPLES: &str = "Examples:
  flash ls                          unfinished jobs, newest first
  flash ls --mine -a                all of yours, finished ones too
  flash ls -s running -o wide       with node, command and full ids
  flash ls -a --outcome failed -l team=vision
  flash ls -w                       again every 2 seconds, until Ctrl-C
  flash ls -s queued -o name | xargs flash hold";

/// Rows of a table unless told otherwise. A table is for people; programs get everything.
const ROWS: usize = 100;

/// Arguments of `flash ls`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Finished jobs, too
    #[arg(short = 'a', long, conflicts_with = "states")]
    all: bool,
    /// Finished so, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(["succeeded", "failed", "cancelled"]))]
    outcome: Vec<String>,
    /// At most so many, 0 for all [default: 100 in tables, else all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show it again and again, every SECONDS
    #[arg(short = 'w', long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    watch: Option<u64>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    loop {
        let limit = args.limit.unwrap_or(if args.output.is_table() { ROWS } else { 0 });
        let states = match args.filter.states.as_slice() {
            [] if args.all || !args.outcome.is_empty() => None,
            [] => Some(UNFINISHED.to_owned()),
            states => Some(states.join(",")),
        };
        let outcome = (!args.outcome.is_empty()).then(|| args.outcome.join(","));
        let list = list::jobs(client, &args.filter, states.as_deref(), outcome.as_deref(), limit).await?;
        let summary = if args.output.is_table() { Some(summary(client, &list).await?) } else { None };
        if args.watch.is_some() && Look::stdout().width.is_some() {
            // Home and clear: what was shown before does not pile up.
            output::print("\x1b[H\x1b[2J")?;
        }
        print(&list, args.output)?;
        if let Some(summary) = summary {
            output::note(&summary);
        }
        let Some(seconds) = args.watch else { return Ok(0) };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Prints a list of jobs.
pub(super) fn print(list: &JobList, output: Output) -> Result<(), Error> {
    let names = |list: &JobList| list.items.iter().map(|job| job.id.to_string()).collect();
    output.print(list, names, |list, look, wide| jobs_table(&list.items, Timestamp::now(), look, wide))
}

/// How many jobs are shown, of how many.
async fn summary(client: &Client, list: &JobList) -> Result<String, Error> {
    let shown = count_states(&list.items);
    if list.next_cursor.is_none() {
        return Ok(shown);
    }
    // A standby reads jobs and knows no queues: the list is worth more than the sum.
    let Ok(queues) = client.get::<QueueList>(&Query::new("/queues")).await else {
        return Ok(format!("{shown}; there are more (--limit 0 shows all)"));
    };
    let sum = |count: fn(&api::Queue) -> u64| queues.items.iter().map(count).sum::<u64>();
    let (active, queued, waiting) = (sum(|queue| queue.active), sum(|queue| queue.queued), sum(|queue| queue.waiting));
    Ok(format!(
        "{shown}; there are more (--limit 0 shows all). In all queues: {active} active, {queued} queued, {waiting} waiting"
    ))
}

/// `3 jobs: 2 queued, 1 running`.
fn count_states(jobs: &[Job]) -> String {
    let counts = [State::Waiting, State::Queued, State::Starting, State::Running, State::Stopping, State::Finished]
        .map(|state| (state, jobs.iter().filter(|job| job.state == state).count()));
    let parts: Vec<String> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    match jobs.len() {
        0 => "no jobs".to_owned(),
        1 => format!("1 job: {}", parts.join(", ")),
        many => format!("{many} jobs: {}", parts.join(", ")),
    }
}

/// Jobs, a row each.
pub(super) fn jobs_table(jobs: &[Job], now: Timestamp, look: Look, wide: bool) -> String {
    let short = ids::short_all(&jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    let rows = jobs.iter().zip(short).map(|(job, short)| {
        let id = if wide { job.id.to_string() } else { short };
        let mut row: Vec<Cell> = vec![cell(job.number.to_string()), cell(id), maybe(job.spec.name.as_deref())];
        if wide {
            row.push(maybe(job.spec.namespace.as_deref()));
        }
        row.push(maybe(job.spec.queue.as_deref()));
        row.push(cell(&job.owner));
        row.push(table::state(job));
        row.push(cell(job.attempt.to_string()));
        row.push(cell(when::between(job.submitted_at, now)));
        row.push(maybe(runtime(job, now)));
        if wide {
            row.push(maybe(nodes(job)));
            row.push(maybe(command(job)));
        }
        row.push(maybe(reason(job, now)));
        row
    });
    let mut header = vec!["JOB", "ID", "NAME"];
    if wide {
        header.push("NAMESPACE");
    }
    header.extend(["QUEUE", "OWNER", "STATE", "ATTEMPT", "AGE", "RUNTIME"]);
    if wide {
        header.extend(["NODE", "COMMAND"]);
    }
    header.push("REASON");
    table::table(look, &header, rows.collect())
}

/// How long its latest run took, or takes already.
pub(super) fn runtime(job: &Job, now: Timestamp) -> Option<String> {
    let runs = matches!(job.state, State::Running | State::Stopping | State::Finished);
    let started = job.started_at.filter(|_| runs)?;
    Some(when::between(started, job.finished_at.unwrap_or(now)))
}

fn nodes(job: &Job) -> Option<String> {
    let mut names: Vec<&str> = job.placement.iter().map(|placed| placed.node.as_str()).collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join(","))
}

/// The command of its first task.
fn command(job: &Job) -> Option<String> {
    let command = job.spec.command.as_ref().or_else(|| job.spec.tasks.first()?.command.as_ref())?;
    Some(words(command))
}

/// A command as it would be typed, roughly: words with spaces in quotes.
pub(super) fn words(command: &[String]) -> String {
    let quoted = |word: &String| {
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "'\"$\\;&|<>()*?`".contains(c)) {
            format!("'{}'", word.replace('\'', "'\\''"))
        } else {
            word.clone()
        }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// What there is to say beside the state, in a few words.
fn reason(job: &Job, now: Timestamp) -> Option<String> {
    match &job.outcome {
        Some(outcome) => why_it_ended(outcome),
        None => match (job.waiting_for.as_deref(), job.not_before) {
            (Some("hold"), _) => Some("held".to_owned()),
            (Some("notBefore"), Some(at)) => Some(format!("starts in {} at the earliest", when::between(now, at))),
            (waiting_for, _) => waiting_for.map(str::to_owned),
        },
    }
}

/// Why a job did not succeed; `None` if it did.
pub(super) fn why_it_ended(outcome: &Outcome) -> Option<String> {
    let said = match outcome.result {
        OutcomeWord::Succeeded => return None,
        OutcomeWord::Cancelled => outcome.by.as_ref().map(|by| format!("by {by}")),
        OutcomeWord::Failed => None,
    };
    let figures = || match (outcome.signal, outcome.exit_code) {
        (Some(signal), _) => Some(format!("signal {signal}")),
        (None, Some(code)) => Some(format!("exit code {code}")),
        (None, None) => outcome.reason.clone(),
    };
    said.or_else(|| outcome.message.clone()).or_else(figures)
}

/// How a job ended, in one line: `failed: exit code 3`.
pub(super) fn ending(outcome: &Outcome) -> String {
    let word = match outcome.result {
        OutcomeWord::Succeeded => "succeeded",
        OutcomeWord::Failed => "failed",
        OutcomeWord::Cancelled => "cancelled",
    };
    match why_it_ended(outcome) {
        Some(why) if outcome.result == OutcomeWord::Cancelled => format!("{word} {why}"),
        Some(why) => format!("{word}: {why}"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A job as the server would send it; `more` is merged into it.
    pub(in crate::commands) fn job(id: &str, more: serde_json::Value) -> Job {
        let mut value = serde_json::json!({
            "id": id, "number": 7, "owner": "ada", "state": "queued", "attempt": 0, "submittedAt": "2026-01-01T00:00:00Z", "revision": 1,
            "spec": {"name": "train", "namespace": "default", "queue": "fast",
                     "tasks": [{"name": "task", "replicas": 1, "command": ["python", "a b.py"]}]},
        });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn some() -> Vec<Job> {
        vec![
            job("0199c0de-aaaa-7000-8000-000000000000", serde_json::json!({"state": "waiting", "waitingFor": "hold"})),
            job(
                "0199c0de-bbbb-7000-8000-000000000000",
                serde_json::json!({"state": "running", "attempt": 2, "startedAt": "2026-01-01T00:01:00Z",
                                   "placement": [{"task": "task", "node": "box"}]}),
            ),
            job(
                "0199c0de-cccc-7000-8000-000000000000",
                serde_json::json!({"state": "finished", "attempt": 1, "startedAt": "2026-01-01T00:01:00Z",
                                   "finishedAt": "2026-01-01T00:01:05Z",
                                   "outcome": {"result": "failed", "reason": "exitCode", "exitCode": 3}}),
            ),
        ]
    }

    #[test]
    fn the_table_shows_how_jobs_stand() {
        let now = "2026-01-01T01:01:00Z".parse().unwrap();
        let text = jobs_table(&some(), now, Look { width: None, colour: false }, false);
        let expected = "\
JOB  ID             NAME   QUEUE  OWNER  STATE    ATTEMPT  AGE   RUNTIME  REASON
7    0199c0de-aaaa  train  fast   ada    waiting  0        1h1m  -        held
7    0199c0de-bbbb  train  fast   ada    running  2        1h1m  1h       -
7    0199c0de-cccc  train  fast   ada    failed   1        1h1m  5s       exit code 3
";
        assert_eq!(text, expected);
        let wide = jobs_table(&some(), now, Look { width: None, colour: false }, true);
        assert!(wide.contains("0199c0de-bbbb-7000-8000-000000000000") && wide.contains("box   python 'a b.py'"), "{wide}");
        assert_eq!(count_states(&some()), "3 jobs: 1 waiting, 1 running, 1 finished");
        assert_eq!(count_states(&[]), "no jobs");
    }

    #[test]
    fn endings_are_told_in_a_line() {
        let tell = |value: serde_json::Value| ending(&serde_json::from_value(value).unwrap());
        assert_eq!(tell(serde_json::json!({"result": "succeeded", "exitCode": 0})), "succeeded");
        assert_eq!(tell(serde_json::json!({"result": "failed", "reason": "signal", "signal": 9})), "failed: signal 9");
        assert_eq!(
            tell(serde_json::json!({"result": "failed", "reason": "start", "message": "no such program"})),
            "failed: no such program"
        );
        assert_eq!(tell(serde_json::json!({"result": "failed", "reason": "infrastructure"})), "failed: infrastructure");
        assert_eq!(tell(serde_json::json!({"result": "cancelled", "by": "ada", "signal": 15})), "cancelled by ada");
        assert_eq!(tell(serde_json::json!({"result": "cancelled"})), "cancelled");
    }
}
