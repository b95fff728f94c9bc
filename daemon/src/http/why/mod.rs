//! Why a job is where it is: the core's explanation and the job's history, as the wire has them, with sentences for people.
//!
//! What must hold: nothing is decided here, and nothing is said that neither the core nor the table knows; the work is bounded.

mod history;
mod reason;
#[cfg(test)]
mod tests;
pub(crate) mod words;

use api::{Basis, JobSpec, Suggestion};
pub(in crate::http) use history::kept_events;
use scheduler_core::ids::{JobId, Name};
use scheduler_core::{Ahead, Change, Estimate, Explanation, JobRef, Resource, Rule, Unknown, Why};
use store::JobRecord;

use super::problem::{ApiError, ApiResult};
use super::text::wire_time;
use super::view;
use crate::backend::Backend;
use crate::objects::Directory;

/// Why the job of this id is where it is, or what became of it.
pub async fn answer(backend: &dyn Backend, id: JobId) -> ApiResult<api::Why> {
    let explained = backend.why(id).await?;
    let record = backend.store().job(id).await?;
    let record = record.ok_or_else(|| ApiError::new(api::codes::NOT_FOUND, format!("no job {id}")))?;
    let spec = view::spec(&record)?;
    let attempts = history::attempts(backend, &record).await?;
    Ok(match explained {
        Some(explained) => {
            // What keeps a node of a cluster closed is known with the node.
            let snapshot = if matches!(explained.why, Why::NodesClosed { .. }) { backend.snapshot().await.ok() } else { None };
            let nodes = snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.nodes);
            let why = unfinished(&explained, &record, &spec, attempts, &backend.directory(), nodes);
            let mut why = kept_back(backend.silence(), why);
            for warning in backend.warnings(id) {
                why.message = format!("{} {warning}.", why.message);
            }
            why
        }
        None => finished(&record, attempts),
    })
}

/// Whatever else stands in its way, nothing starts while whoever would start it does not answer.
fn kept_back(silence: Option<String>, why: api::Why) -> api::Why {
    match silence.filter(|_| matches!(why.state, api::State::Waiting | api::State::Queued)) {
        Some(silence) => api::Why {
            message: format!("Nothing is started now, because {silence}. {}", why.message),
            estimate: None,
            suggestions: Vec::new(),
            ..why
        },
        None => why,
    }
}

fn unfinished(
    explained: &Explanation,
    record: &JobRecord,
    spec: &JobSpec,
    attempts: Vec<api::Attempt>,
    directory: &Directory,
    nodes: &[api::Node],
) -> api::Why {
    let state = match explained.why {
        Why::Held | Why::NotBefore(_) | Why::Backoff { .. } => api::State::Waiting,
        Why::Starting | Why::LinedUp { .. } => api::State::Starting,
        Why::Running { .. } => api::State::Running,
        Why::Stopping { .. } => api::State::Stopping,
        _ => api::State::Queued,
    };
    let (reason, message) = reason::reason(explained, record, spec, directory, nodes);
    let position = explained.position.as_ref();
    api::Why {
        job: record.id.0,
        number: record.seq.0,
        state,
        reason,
        message: after_the_last(message, &attempts, state),
        queue: record.queue.to_string(),
        position: position.map(|position| position.place),
        queued: position.map(|position| position.queued),
        ahead: position.iter().flat_map(|position| &position.ahead).map(ahead).collect(),
        estimate: explained.estimate.as_ref().map(estimate),
        suggestions: explained.suggestions.iter().map(|found| suggestion(found, spec)).collect(),
        attempts,
    }
}

/// A job that waits again says what ended its run before.
fn after_the_last(message: String, attempts: &[api::Attempt], state: api::State) -> String {
    match attempts.last().filter(|_| matches!(state, api::State::Waiting | api::State::Queued)) {
        Some(last) if last.end != "lost" || state == api::State::Queued => format!("{message} {}", last.message),
        _ => message,
    }
}

fn finished(record: &JobRecord, attempts: Vec<api::Attempt>) -> api::Why {
    let (reason, message) = reason::finished(record, &attempts);
    api::Why {
        job: record.id.0,
        number: record.seq.0,
        state: view::state(record.lifecycle.state.kind()),
        reason,
        message,
        queue: record.queue.to_string(),
        position: None,
        queued: None,
        ahead: Vec::new(),
        estimate: None,
        suggestions: Vec::new(),
        attempts,
    }
}

fn reference(job: JobRef) -> api::JobRef {
    api::JobRef { id: job.id.0, number: Some(job.seq.0) }
}

fn ahead(ahead: &Ahead) -> api::Ahead {
    let part = |share: u32| f64::from(share) / 10_000.0;
    api::Ahead {
        job: reference(ahead.job),
        namespace: ahead.namespace.to_string(),
        queue: ahead.queue.to_string(),
        rule: match ahead.rule {
            Rule::Priority { theirs, own } => api::Rule::Priority { theirs, own },
            Rule::Age => api::Rule::Age,
            Rule::Fifo => api::Rule::Fifo,
            Rule::TenantShare { theirs, own } => api::Rule::TenantShare { theirs: part(theirs), own: part(own) },
            Rule::QueueShare { theirs, own } => api::Rule::QueueShare { theirs: part(theirs), own: part(own) },
            Rule::Guarantee => api::Rule::Guarantee,
        },
        message: words::rule(ahead.rule),
    }
}

fn estimate(estimate: &Estimate) -> api::Estimate {
    let says = |basis, message: String| api::Estimate { basis, not_before: None, latest: None, blocked_by: None, message };
    match estimate {
        Estimate::Now => says(Basis::NextPass, "It starts at once.".to_owned()),
        Estimate::NotBefore(at) => api::Estimate {
            not_before: Some(wire_time(*at)),
            ..says(Basis::WaitsForTime, format!("It does not start before {}.", words::by(*at)))
        },
        Estimate::Latest(at) => {
            let message = format!("It starts at {} at the latest, if nothing that goes before it is submitted.", words::by(*at));
            api::Estimate { latest: Some(wire_time(*at)), ..says(Basis::TimeLimits, message) }
        }
        Estimate::Unknown(Unknown::NoTimeLimit(job)) => {
            let message = format!("Nobody knows when it starts: it waits for job {}, which has no time limit.", words::job(*job));
            api::Estimate { blocked_by: Some(reference(*job)), ..says(Basis::NoTimeLimit, message) }
        }
        Estimate::Unknown(Unknown::TooFar { .. }) => {
            says(Basis::TooFar, "Its start is too far away to tell: too much happens before.".to_owned())
        }
        Estimate::Unknown(Unknown::Held) => says(Basis::Release, "It starts no earlier than somebody releases it.".to_owned()),
        Estimate::Unknown(Unknown::Change) => {
            says(Basis::Change, "It starts only if nodes or limits change, or if it asks for less.".to_owned())
        }
    }
}

/// The path and value of a change, and the option of `flash submit` that says so.
fn change(change: &Change, spec: &JobSpec) -> (String, String, Option<&'static str>) {
    let of_task = |task: &Name, resource: Resource, amount: u128, option| {
        let at = spec.tasks.iter().position(|other| other.name.as_deref() == Some(task.as_str())).unwrap_or(0);
        (format!("tasks[{at}].{}", view::resource_field(resource)), view::amount(resource, amount), option)
    };
    match change {
        Change::Gpus { task, gpus } => of_task(task, Resource::Gpu, u128::from(*gpus) * 1_000, Some("--gpus")),
        Change::Cpu { task, cpu } => of_task(task, Resource::Cpu, u128::from(cpu.0), Some("--cpus")),
        Change::Memory { task, memory } => of_task(task, Resource::Memory, u128::from(memory.0), Some("--mem")),
        Change::Replicas(replicas) => ("tasks[0].replicas".to_owned(), replicas.to_string(), Some("--replicas")),
        Change::MinAvailable(least) => ("minAvailable".to_owned(), least.to_string(), None),
        Change::TimeLimit(limit) => ("timeLimit".to_owned(), words::span(*limit), Some("--time-limit")),
        Change::Queue(queue) => ("queue".to_owned(), queue.to_string(), Some("--queue")),
    }
}

fn suggestion(found: &scheduler_core::Suggestion, spec: &JobSpec) -> Suggestion {
    let (field, value, option) = change(&found.change, spec);
    // The options of the command line describe one group of tasks.
    let whole = matches!(found.change, Change::TimeLimit(_) | Change::Queue(_));
    let option = option.filter(|_| whole || spec.tasks.len() == 1).map(|option| format!("{option} {value}"));
    let what = option.clone().unwrap_or_else(|| format!("{field}: {value}"));
    let nodes: Vec<String> = found.nodes.iter().map(ToString::to_string).collect();
    let on = match &nodes[..] {
        [] => String::new(),
        [node] => format!(" on node {node}"),
        [first, second] => format!(" on nodes {first} and {second}"),
        [first, ..] => format!(" on {} nodes, among them {first}", nodes.len()),
    };
    let upto = if matches!(found.change, Change::TimeLimit(_)) { " or less" } else { "" };
    Suggestion { field, value, option, message: format!("With `{what}`{upto} it would start at once{on}."), nodes }
}
