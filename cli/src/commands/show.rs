//! `flash show`: all about a job.

use api::{Job, JobList, JobSpec, NodeExpression, Resources, TaskSpec};
use jiff::Timestamp;

use crate::client::Client;
use crate::commands::nodes::bytes;
use crate::commands::{job, ls, usage};
use crate::error::Error;
use crate::output::{Format, Output};
use crate::{table, when};

pub(crate) const EXAMPLES: &str = "Examples:
  flash show 0199c0de-aaaa
  flash show 0199c0de-aaaa -o wide      with its environment
  flash show 0199c0de-aaaa -o yaml
  flash show 0199c0de-aaaa -o json | jq .outcome";

/// Arguments of `flash show`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ids, or the beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let mut jobs = Vec::new();
    for id in &args.ids {
        jobs.push(job(client, id).await?);
    }
    let now = Timestamp::now();
    if let ([job], Format::Json | Format::Yaml) = (jobs.as_slice(), args.output.format) {
        args.output.print(job, |_| Vec::new(), |_, _, _| String::new())?;
        return Ok(0);
    }
    let revision = jobs.iter().map(|job| job.revision).max().unwrap_or(0);
    args.output.print(
        &JobList { items: jobs, next_cursor: None, revision },
        |list| list.items.iter().map(|job| job.id.to_string()).collect(),
        |list, _, wide| list.items.iter().map(|job| page(job, now, wide)).collect::<Vec<_>>().join("\n"),
    )?;
    Ok(0)
}

/// A job as facts, one a line.
fn page(job: &Job, now: Timestamp, wide: bool) -> String {
    let spec = &job.spec;
    let mut facts: Vec<(&str, String)> = vec![("job", job.number.to_string()), ("id", job.id.to_string())];
    let mut add = |name: &'static str, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("name", spec.name.clone());
    add("namespace", spec.namespace.clone());
    add("queue", spec.queue.clone());
    add("owner", Some(job.owner.clone()));
    let class = spec.priority_class.as_ref().map(|class| format!(" ({class})")).unwrap_or_default();
    add("priority", spec.priority.map(|priority| format!("{priority}{class}")));
    add("state", Some(job.outcome.as_ref().map_or_else(|| job.state.as_str().to_owned(), ls::ending)));
    add("task", job.outcome.as_ref().and_then(|outcome| outcome.task.clone()));
    add("waiting for", waiting(job, now));
    // A requeue is a user's wish: it can go beyond what infrastructure may lose.
    let most = spec.retry.as_ref().and_then(|retry| retry.max_attempts).filter(|most| *most >= job.attempt);
    let most = most.map(|most| format!(" of {most}")).unwrap_or_default();
    add("attempt", Some(format!("{}{most}", job.attempt)));
    add("submitted", Some(when::moment(job.submitted_at, now)));
    add("started", job.started_at.map(|at| when::moment(at, now)));
    add("finished", job.finished_at.map(|at| when::moment(at, now)));
    add("runtime", ls::runtime(job, now));
    add("used", job.usage.as_ref().map(usage::of_job));
    add("time limit", spec.time_limit.map(|limit| limit.to_string()));
    add("placed", spec.placement.filter(|placement| *placement == api::Arrangement::Spread).map(|_| "spread".to_owned()));
    add("image", spec.image.clone());
    add("folder", folder(spec));
    let tasks: Vec<String> = spec.tasks.iter().map(|task| task_line(task, spec.resources.as_ref())).collect();
    add("tasks", (!tasks.is_empty()).then(|| tasks.join("\n")));
    let placed = job.placement.iter().map(|placed| {
        let part = placed.gpu_share.as_ref().map(|share| format!("{} and {} of ", share.gpu, bytes(share.memory.0)));
        let part = part.unwrap_or_default();
        let gpus = if placed.gpus.is_empty() { String::new() } else { format!(" with {part}{}", placed.gpus.join(", ")) };
        format!("{} on {}{gpus}", placed.task, placed.node)
    });
    let placed: Vec<String> = placed.collect();
    add("placement", (!placed.is_empty()).then(|| placed.join("\n")));
    add("labels", pairs(&spec.labels));
    add("annotations", pairs(&spec.annotations));
    if wide {
        add("environment", pairs(&spec.env));
    } else if !spec.env.is_empty() {
        add(
            "environment",
            Some(match spec.env.len() {
                1 => "1 variable (-o wide shows it)".to_owned(),
                more => format!("{more} variables (-o wide shows them)"),
            }),
        );
    }
    add("revision", Some(job.revision.to_string()));
    table::facts(&facts)
}

/// The folder that all tasks work in. A completed job has it at each task.
fn folder(spec: &JobSpec) -> Option<String> {
    let first = spec.tasks.first().map_or(&spec.working_dir, |task| &task.working_dir);
    let shared = spec.tasks.iter().all(|task| task.working_dir == *first);
    first.clone().filter(|_| shared).or_else(|| spec.working_dir.clone())
}

fn waiting(job: &Job, now: Timestamp) -> Option<String> {
    match (job.waiting_for.as_deref()?, job.not_before) {
        ("hold", _) => Some("its release: `flash release`".to_owned()),
        ("notBefore", Some(at)) => Some(when::moment(at, now)),
        (other, _) => Some(other.to_owned()),
    }
}

/// `worker x 4 (cpu 2, memory 4Gi, gpu 1): ./worker --fast`.
fn task_line(task: &TaskSpec, shared: Option<&Resources>) -> String {
    let asked = task.resources.as_ref().or(shared).map(asked).filter(|text| !text.is_empty());
    let replicas = task.replicas.filter(|replicas| *replicas != 1).map(|replicas| format!(" x {replicas}"));
    let nodes = nodes(task).map(|nodes| format!(" on nodes with {nodes}")).unwrap_or_default();
    format!(
        "{}{}{}{nodes}: {}",
        task.name.as_deref().unwrap_or("task"),
        replicas.unwrap_or_default(),
        asked.map(|text| format!(" ({text})")).unwrap_or_default(),
        ls::words(task.command.as_deref().unwrap_or_default())
    )
}

fn asked(resources: &Resources) -> String {
    let parts = [
        resources.cpu.map(|cpu| format!("cpu {cpu}")),
        resources.memory.filter(|memory| memory.0 > 0).map(|memory| format!("memory {memory}")),
        resources.gpu.filter(|gpu| gpu.0 > 0).map(|gpu| format!("gpu {gpu}")),
        resources.gpu_model.as_ref().map(|models| format!("gpu model {}", models.0.join(" or "))),
        resources.gpu_memory.map(|memory| format!("gpu memory {memory}")),
        resources.gpu_uuids.as_ref().map(|uuids| format!("gpus {}", uuids.join(" and "))),
        resources.gpu_memory_share.map(|memory| format!("gpu memory share {memory}")),
        resources.mig_profile.as_ref().map(|profile| format!("mig {profile}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `zone=a, disk=nvme|ssd, rack NotIn 7`, and alternatives with `or` between them.
fn nodes(task: &TaskSpec) -> Option<String> {
    let labels = task.node_selector.iter().flatten().map(|(label, values)| format!("{label}={}", values.0.join("|")));
    let said = |asked: &NodeExpression| {
        format!("{} {} {}", asked.key, asked.operator.name(), asked.values.join("|")).trim_end().to_owned()
    };
    let expressions = task.node_expressions.iter().flatten().map(said);
    let terms = task.node_terms.as_deref().unwrap_or_default().iter();
    let terms: Vec<String> = terms.map(|term| term.iter().map(said).collect::<Vec<_>>().join(" and ")).collect();
    let either = (!terms.is_empty()).then(|| format!("either {}", terms.join(", or ")));
    let all: Vec<_> = labels.chain(expressions).chain(either).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> Option<String> {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_page_says_what_the_job_asks_and_how_it_stands() {
        let mut job = ls::tests::job(
            "0199c0de-aaaa-7000-8000-000000000000",
            serde_json::json!({"state": "running", "attempt": 2, "startedAt": "2026-01-01T00:00:30Z",
                               "placement": [{"task": "task", "node": "box", "gpus": ["GPU-1"]}]}),
        );
        job.spec.resources = serde_json::from_value(serde_json::json!({"cpu": "2", "gpu": "1", "memory": "0"})).unwrap();
        job.spec.retry = Some(api::Retry { max_attempts: Some(3) });
        job.spec.env.insert("A".into(), "1\n2".into());
        job.spec.image = Some("train:7".into());
        job.spec.tasks[0].working_dir = Some("/data".into());
        job.spec.tasks[0].node_selector = Some([("zone".to_owned(), api::AnyOf(vec!["a".into(), "b".into()]))].into());
        job.spec.tasks[0].node_expressions =
            serde_json::from_value(serde_json::json!([{"key": "old", "operator": "DoesNotExist"}])).unwrap();
        let text = page(&job, "2026-01-01T00:01:00Z".parse().unwrap(), false);
        for said in [
            "id:          0199c0de-aaaa-7000-8000-000000000000\n",
            "state:       running\n",
            "attempt:     2 of 3\n",
            "(30s ago)\n",
            "image:       train:7\n",
            "folder:      /data\n",
            "tasks:       task (cpu 2, gpu 1) on nodes with zone=a|b, old DoesNotExist: python 'a b.py'\n",
            "placement:   task on box with GPU-1\n",
            "environment: 1 variable (-o wide shows it)\n",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
        job.attempt = 4;
        assert!(page(&job, "2026-01-01T00:01:00Z".parse().unwrap(), false).contains("attempt:     4\n"), "requeued");
    }
}
