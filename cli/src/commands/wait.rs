//! `flash wait`: until jobs are over; the exit code says how they ended.
//!
//! Invariants: no end is missed between reading a job and following events, since the stream begins at a revision that was read before
//! the jobs were; nothing is polled.

use std::collections::BTreeMap;

use api::{Job, Outcome, OutcomeWord, ServerInfo, State};
use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use crate::client::Client;
use crate::commands::{job_path, ls};
use crate::error::Error;
use crate::query::Query;
use crate::watch::{Item, Watch};
use crate::{exit, ids, output};

pub(crate) const EXAMPLES: &str = "Examples:
  flash wait 0199c0de-aaaa && echo it succeeded
  flash submit -f sweep.yaml | xargs flash wait
  flash wait $(flash ls --mine -o name)

The exit code is the job's own; of many jobs it is 0 if all succeeded, else the largest.
A server that restarts is waited for, up to 5 minutes.";

/// Arguments of `flash wait`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ids, or the beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Say nothing: the exit code is enough
    #[arg(long)]
    quiet: bool,
}

/// What is waited for, and how the others ended.
struct Waiting {
    /// Names of jobs that are not over.
    left: BTreeMap<Uuid, String>,
    code: u8,
    failed: u64,
    quiet: bool,
    bar: ProgressBar,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let paths = args.ids.iter().map(|id| job_path(id)).collect::<Result<Vec<_>, Error>>()?;
    let revision = revision(client).await?;
    let mut waiting =
        Waiting { left: BTreeMap::new(), code: 0, failed: 0, quiet: args.quiet, bar: bar(paths.len() as u64, args.quiet) };
    for path in &paths {
        let job: Job = client.get(path).await?;
        waiting.left.insert(job.id, name(&job));
        waiting.read(&job);
    }
    let only = if waiting.left.len() == 1 { waiting.left.keys().next().copied() } else { None };
    let mut watch = Watch::new(client, only, None, revision);
    while !waiting.left.is_empty() {
        match watch.next().await? {
            Item::Event(event) => {
                if let (State::Finished, Some(outcome)) = (event.state, &event.outcome) {
                    waiting.over(event.job, outcome);
                }
            }
            Item::Notice(_) => {}
            Item::Compacted => {
                let revision = self::revision(client).await?;
                for id in waiting.left.keys().copied().collect::<Vec<_>>() {
                    waiting.read(&client.get(&Query::new("/jobs").segment(&id.to_string())).await?);
                }
                watch.skip_to(revision);
            }
        }
    }
    waiting.bar.finish_and_clear();
    Ok(waiting.code)
}

async fn revision(client: &Client) -> Result<u64, Error> {
    Ok(client.get::<ServerInfo>(&Query::new("/info")).await?.revision)
}

fn name(job: &Job) -> String {
    let id = ids::short(job.id);
    job.spec.name.as_ref().map_or_else(|| id.clone(), |name| format!("{id} ({name})"))
}

/// On a terminal and for many jobs alone.
fn bar(jobs: u64, quiet: bool) -> ProgressBar {
    if jobs < 2 || quiet || !output::someone_reads() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(jobs);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} over{msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

impl Waiting {
    /// A job as it was read.
    fn read(&mut self, job: &Job) {
        if let (State::Finished, Some(outcome)) = (job.state, &job.outcome) {
            self.over(job.id, outcome);
        }
    }

    /// A job has ended. Others' jobs, and ends that are told twice, do not matter.
    fn over(&mut self, job: Uuid, outcome: &Outcome) {
        let Some(name) = self.left.remove(&job) else { return };
        self.code = self.code.max(exit::code(outcome));
        self.bar.inc(1);
        let succeeded = outcome.result == OutcomeWord::Succeeded;
        if !succeeded {
            self.failed += 1;
            self.bar.set_message(format!(", {} without success", self.failed));
        }
        // Many successes are in the bar; one success is told if somebody looks.
        let told = !succeeded || (self.bar.is_hidden() && output::someone_reads());
        if told && !self.quiet {
            let text = format!("flash: job {} {}", crate::table::clean(&name), crate::table::clean(&ls::ending(outcome)));
            self.bar.suspend(|| output::note(&text));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_largest_code_wins_and_each_end_counts_once() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let left = [a, b].map(|id| (id, String::new())).into();
        let mut waiting = Waiting { left, code: 0, failed: 0, quiet: true, bar: ProgressBar::hidden() };
        let outcome = |code: i32| -> Outcome {
            let result = if code == 0 { "succeeded" } else { "failed" };
            serde_json::from_value(serde_json::json!({"result": result, "reason": "exitCode", "exitCode": code})).unwrap()
        };
        waiting.over(c, &outcome(99));
        assert_eq!((waiting.left.len(), waiting.code), (2, 0), "another's job");
        waiting.over(a, &outcome(7));
        waiting.over(a, &outcome(8));
        assert_eq!((waiting.left.len(), waiting.code, waiting.failed), (1, 7, 1));
        waiting.over(b, &outcome(0));
        assert_eq!((waiting.left.len(), waiting.code, waiting.failed), (0, 7, 1));
    }
}
