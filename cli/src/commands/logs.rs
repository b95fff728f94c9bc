//! `flash logs`: what a job printed, or prints.

use std::sync::Arc;

use api::{Job, ServerInfo, State};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::Client;
use crate::commands::job;
use crate::error::Error;
use crate::logs::{self, Channel, Source};
use crate::output;
use crate::query::Query;
use crate::watch::{Item, Watch};

pub(crate) const EXAMPLES: &str = "Examples:
  flash logs 0199c0de-aaaa
  flash logs -f 0199c0de-aaaa               until the run has ended
  flash logs -n 20 --stderr 0199c0de-aaaa   the last 20 lines of its stderr
  flash logs --task worker-3 0199c0de-aaaa  one task of several
  flash logs --attempt 1 0199c0de-aaaa      what an earlier try printed

The job's stdout goes to stdout, its stderr to stderr.";

/// Tasks that are followed at once at most; each needs two connections.
const MOST_FOLLOWED: usize = 32;

/// Arguments of `flash logs`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Id, or the beginning of an id
    id: String,
    /// Go on until the run has ended; if it has not started, wait for that
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only the last N lines of each stream
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<u64>,
    /// Only its stdout
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only its stderr
    #[arg(long)]
    stderr: bool,
    /// Only this task
    #[arg(long)]
    task: Option<String>,
    /// An earlier try, from 1 [default: the latest]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Do not write the task's name in front of its lines, where there are several tasks
    #[arg(long)]
    no_prefix: bool,
}

pub(crate) async fn run(client: Arc<Client>, args: &Args) -> Result<u8, Error> {
    let mut job = job(&client, &args.id).await?;
    let pending = |job: &Job| matches!(job.state, State::Waiting | State::Queued | State::Starting);
    if args.follow && args.attempt.is_none() && pending(&job) {
        output::note(&format!("flash: the job is {}; waiting for it to start", job.state.as_str()));
        job = started(&client, job.id).await?;
    }
    if job.attempt == 0 {
        output::note(&format!("flash: the job has not run: it is {}", job.state.as_str()));
        return Ok(0);
    }
    let attempt = args.attempt.unwrap_or(job.attempt);
    if let Some(where_it_is) = elsewhere(&job, attempt) {
        output::note(&where_it_is);
        return Ok(0);
    }
    let mut sources = sources(&job, args.task.as_deref(), attempt, args.follow);
    sources.retain(|source| match source.channel {
        Channel::Out => !args.stderr,
        Channel::Err => !args.stdout,
    });
    for source in &mut sources {
        source.tail = args.tail;
        source.prefix &= !args.no_prefix;
    }
    if !args.follow {
        for source in &sources {
            source.copy(&client).await?;
        }
        return Ok(0);
    }
    if sources.len() > 2 * MOST_FOLLOWED {
        return Err(Error::usage(format!("more than {MOST_FOLLOWED} tasks cannot be followed at once: choose one with --task")));
    }
    let mut copies = JoinSet::new();
    for source in sources {
        let client = Arc::clone(&client);
        copies.spawn(async move { source.copy(&client).await });
    }
    while let Some(copied) = copies.join_next().await {
        copied.map_err(Error::system("copying a log"))??;
    }
    Ok(0)
}

/// Where the output of a try is that the server does not have: pods keep their own.
pub(super) fn elsewhere(job: &Job, attempt: u32) -> Option<String> {
    if job.spec.executor.as_deref().is_none_or(|executor| executor == "local") {
        return None;
    }
    let namespace = job.spec.namespace.as_deref().unwrap_or("default");
    let label = |key: &str, value: &str| format!("scheduling.flash-sched.io/{key}={value}");
    let run = format!("{},{}", label("job-id", &job.id.to_string()), label("attempt", &attempt.to_string()));
    Some(format!(
        "flash: its output is in the cluster, as long as its pods are there: `kubectl logs --namespace {namespace} --selector {run} --tail -1`"
    ))
}

/// Both streams of each task (of one, if it is named) in one try.
pub(super) fn sources(job: &Job, task: Option<&str>, attempt: u32, follow: bool) -> Vec<Source> {
    let tasks = logs::tasks(job);
    let several = task.is_none() && tasks.len() > 1;
    let chosen: Vec<Option<String>> = match task {
        Some(task) => vec![Some(task.to_owned())],
        None if several => tasks.into_iter().map(Some).collect(),
        None => vec![None],
    };
    let source = |task: &Option<String>, channel| Source {
        job: job.id,
        attempt: Some(attempt),
        task: task.clone(),
        channel,
        tail: None,
        follow,
        prefix: several,
    };
    chosen.iter().flat_map(|task| [source(task, Channel::Out), source(task, Channel::Err)]).collect()
}

/// Waits until a job has started, or will not any more.
async fn started(client: &Client, id: Uuid) -> Result<Job, Error> {
    let path = || Query::new("/jobs").segment(&id.to_string());
    let begun = |state: State| matches!(state, State::Running | State::Stopping | State::Finished);
    loop {
        // The revision first: what happens between the two answers is in the stream.
        let revision = client.get::<ServerInfo>(&Query::new("/info")).await?.revision;
        let job: Job = client.get(&path()).await?;
        if begun(job.state) {
            return Ok(job);
        }
        let mut watch = Watch::new(client, Some(id), None, revision);
        loop {
            match watch.next().await? {
                Item::Event(event) if begun(event.state) => return client.get(&path()).await,
                Item::Event(_) | Item::Notice(_) => {}
                Item::Compacted => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::ls::tests::job;

    #[test]
    fn what_pods_print_is_asked_of_the_cluster() {
        let id = "0199c0de-aaaa-7000-8000-000000000000";
        let of = |executor: &str| {
            let mut job = job(id, serde_json::json!({}));
            job.spec = api::JobSpec { executor: Some(executor.into()), namespace: Some("team".into()), ..job.spec };
            elsewhere(&job, 2)
        };
        assert_eq!(of("local"), None);
        let labels = format!("scheduling.flash-sched.io/job-id={id},scheduling.flash-sched.io/attempt=2");
        let said = of("flashjob").unwrap_or_default();
        assert!(said.contains(&format!("`kubectl logs --namespace team --selector {labels} --tail -1`")), "{said}");
    }

    #[test]
    fn one_task_needs_no_name_and_several_get_theirs() {
        let id = "0199c0de-aaaa-7000-8000-000000000000";
        let of = |more, task| sources(&job(id, more), task, 1, false);
        let one = of(serde_json::json!({}), None);
        assert_eq!(one.len(), 2);
        assert!(one.iter().all(|source| source.task.is_none() && !source.prefix));
        let placed = serde_json::json!({"placement": [{"task": "w-0", "node": "n"}, {"task": "w-1", "node": "n"}]});
        let names: Vec<_> =
            of(placed.clone(), None).into_iter().map(|source| (source.task.unwrap_or_default(), source.prefix)).collect();
        assert_eq!(
            names,
            [("w-0", true), ("w-0", true), ("w-1", true), ("w-1", true)].map(|(name, prefix)| (name.to_owned(), prefix))
        );
        assert_eq!(of(placed, Some("w-1")).len(), 2);
        let spec = serde_json::json!({"spec": {"tasks": [{"name": "a"}, {"name": "b", "replicas": 2}]}});
        assert_eq!(crate::logs::tasks(&job(id, spec)), ["a", "b-0", "b-1"]);
    }
}
