//! The core's and the store's types as the wire has them.
//!
//! Invariants: nothing is decided here; values of environment variables are shown to who may act on the job and to nobody else, for they
//! hold secrets.

use api::quantity::{Cpu, Memory};
use api::{Job, JobEvent, JobSpec, OutcomeWord, PlacedTask, State};
use scheduler_core::state::{FailReason, JobState, Outcome, Placement, StateKind, WaitFor};
use store::{EventRecord, JobRecord};

use super::problem::{ApiError, ApiResult};
use super::text::wire_time;
use crate::backend::{Caller, Counted, Resource, Shortage, Why};

/// What stands in place of a value that the caller may not see.
pub const REDACTED: &str = "(hidden)";

/// A state in a word.
pub const fn state(kind: StateKind) -> State {
    match kind {
        StateKind::Waiting => State::Waiting,
        StateKind::Queued => State::Queued,
        StateKind::Starting => State::Starting,
        StateKind::Running => State::Running,
        StateKind::Stopping => State::Stopping,
        StateKind::Finished => State::Finished,
    }
}

/// How a job ended.
pub fn outcome(outcome: &Outcome) -> api::Outcome {
    let nothing = api::Outcome {
        result: OutcomeWord::Failed,
        reason: None,
        message: None,
        task: None,
        exit_code: None,
        signal: None,
        by: None,
    };
    let failed = |reason: &str, message: String| api::Outcome {
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..nothing.clone()
    };
    match outcome {
        Outcome::Succeeded => api::Outcome { result: OutcomeWord::Succeeded, exit_code: Some(0), ..nothing },
        Outcome::Cancelled { by } => api::Outcome {
            result: OutcomeWord::Cancelled,
            message: Some(format!("cancelled by {by}")),
            by: Some(by.to_string()),
            ..nothing
        },
        Outcome::Failed { reason } => match reason {
            FailReason::ExitCode { task, code } => api::Outcome {
                task: Some(task.to_string()),
                exit_code: Some(*code),
                ..failed("exitCode", format!("task `{task}` ended with exit code {code}"))
            },
            FailReason::Signal { task, signal } => api::Outcome {
                task: Some(task.to_string()),
                signal: Some(*signal),
                ..failed("signal", format!("task `{task}` was ended by signal {signal}"))
            },
            FailReason::TimeLimit => failed("timeLimit", "it ran longer than its timeLimit".to_owned()),
            FailReason::Start { message } => failed("start", message.to_string()),
            FailReason::Infrastructure { message } => failed("infrastructure", message.to_string()),
        },
    }
}

/// Name of a task: `group`, or `group-replica` where the group has several.
pub fn task_name(spec: &JobSpec, group: usize, replica: u32) -> String {
    let task = spec.tasks.get(group);
    let name = task.and_then(|task| task.name.as_deref()).unwrap_or("task");
    match task.and_then(|task| task.replicas) {
        Some(replicas) if replicas > 1 => format!("{name}-{replica}"),
        _ => name.to_owned(),
    }
}

fn placement(spec: &JobSpec, placement: &Placement) -> Vec<PlacedTask> {
    let placed = |slot: &scheduler_core::state::Slot| PlacedTask {
        task: task_name(spec, usize::from(slot.group), slot.replica),
        node: slot.node.to_string(),
        gpus: slot.gpus.iter().map(ToString::to_string).collect(),
    };
    placement.slots.iter().map(placed).collect()
}

/// The spec as it lies in the store.
pub fn spec(record: &JobRecord) -> ApiResult<JobSpec> {
    serde_json::from_slice(&record.spec)
        .map_err(|error| ApiError::internal(&format_args!("the spec of job {} cannot be read: {error}", record.id)))
}

/// A job, as this caller may see it.
pub fn job(record: &JobRecord, caller: &Caller) -> ApiResult<Job> {
    let mut spec = spec(record)?;
    let now_placed = record.lifecycle.state.placement().or(record.last_placement.as_ref());
    let placement = now_placed.map(|found| placement(&spec, found)).unwrap_or_default();
    if !caller.may_act_for(record.owner.uid) {
        let tasks = spec.tasks.iter_mut().flat_map(|task| task.env.values_mut());
        for value in spec.env.values_mut().chain(tasks) {
            REDACTED.clone_into(value);
        }
    }
    let (waiting_for, not_before) = match &record.lifecycle.state {
        JobState::Waiting { on: WaitFor::Hold } => (Some("hold".to_owned()), None),
        JobState::Waiting { on: WaitFor::NotBefore(at) } => (Some("notBefore".to_owned()), Some(wire_time(*at))),
        _ => (None, None),
    };
    let (ended, finished_at) = match &record.lifecycle.state {
        JobState::Finished { outcome: how, at } => (Some(outcome(how)), Some(wire_time(*at))),
        _ => (None, None),
    };
    Ok(Job {
        id: record.id.0,
        number: record.seq.0,
        owner: record.owner.user.to_string(),
        spec,
        state: state(record.lifecycle.state.kind()),
        waiting_for,
        not_before,
        outcome: ended,
        attempt: record.lifecycle.attempt.0,
        placement,
        submitted_at: wire_time(record.submitted_at),
        started_at: record.started_at.map(wire_time),
        finished_at,
        revision: record.revision.0,
    })
}

/// An entry of the log of transitions.
pub fn event(record: &EventRecord) -> JobEvent {
    let ended = match &record.lifecycle.state {
        JobState::Finished { outcome: how, .. } => Some(outcome(how)),
        _ => None,
    };
    JobEvent {
        revision: record.revision.0,
        job: record.job.0,
        namespace: record.namespace.to_string(),
        at: wire_time(record.at),
        event: record.what.to_string(),
        state: state(record.lifecycle.state.kind()),
        attempt: record.lifecycle.attempt.0,
        outcome: ended,
    }
}

const fn resource_word(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "cpu",
        Resource::Memory => "memory",
        Resource::Gpu => "gpu",
    }
}

/// An amount as people write it.
pub fn amount(resource: Resource, amount: u128) -> String {
    let number = u64::try_from(amount).unwrap_or(u64::MAX);
    match resource {
        Resource::Cpu => Cpu(number).to_string(),
        Resource::Memory => Memory(number).to_string(),
        Resource::Gpu => number.to_string(),
    }
}

/// The path of what asks for a resource.
pub fn resource_field(resource: Resource) -> String {
    format!("resources.{}", resource_word(resource))
}

fn shortage(short: &Shortage) -> api::Shortage {
    api::Shortage {
        resource: resource_word(short.resource).to_owned(),
        asked: amount(short.resource, short.asked),
        free: amount(short.resource, short.free),
        total: amount(short.resource, short.total),
    }
}

/// What is short, in words.
fn lacking(shortages: &[Shortage]) -> String {
    let one = |short: &Shortage| {
        let word = resource_word(short.resource);
        if short.asked > short.free {
            let (asked, free, total) = (short.asked, short.free, short.total);
            let [asked, free, total] = [asked, free, total].map(|number| amount(short.resource, number));
            format!("{word}: {asked} asked, {free} of {total} free")
        } else {
            let largest = amount(short.resource, short.largest_task.into());
            let free = amount(short.resource, short.largest_free.into());
            format!("{word}: one task asks for {largest}, no node has more than {free} free")
        }
    };
    shortages.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Why an unfinished job stands where it does.
pub fn why(job: uuid::Uuid, why: &Why) -> api::Why {
    let answer = |state, reason: &str, message: String| api::Why {
        job,
        state,
        reason: reason.to_owned(),
        message,
        position: None,
        shortages: Vec::new(),
        expected_start: None,
    };
    match why {
        Why::Held => answer(State::Waiting, "held", "It is held until somebody releases it (`flash release`).".to_owned()),
        Why::NotBefore(at) => {
            let at = wire_time(*at);
            let message = format!("It waits for its time: it is not queued before {at}.");
            api::Why { expected_start: Some(at), ..answer(State::Waiting, "notBefore", message) }
        }
        Why::Behind { position, first, shortages } => {
            let ahead = match position - 1 {
                0 => "It is the first of its queue, but not of all queues".to_owned(),
                1 => "One job of its queue is ahead of it".to_owned(),
                ahead => format!("{ahead} jobs of its queue are ahead of it"),
            };
            let now = if shortages.is_empty() {
                "It would fit now, and would delay that job: a time limit that ends early enough would let it start at once"
                    .to_owned()
            } else {
                format!("It would not fit now either: {}", lacking(shortages))
            };
            let message = format!("{ahead}. The first of all is job {}, which waits for room. {now}.", first.0);
            let answer = answer(State::Queued, "behind", message);
            api::Why { position: Some(*position), shortages: shortages.iter().map(shortage).collect(), ..answer }
        }
        Why::Resources { position, shortages, expected } => {
            let mut message = if shortages.is_empty() {
                "It is the next to start. What it asks for is free, but not on the same nodes.".to_owned()
            } else {
                format!("It is the next to start, and too little is free: {}.", lacking(shortages))
            };
            if let Some(at) = expected {
                let at = wire_time(*at);
                message = format!("{message} By the time limits of what runs it starts at {at} at the latest.");
            }
            let answer = answer(State::Queued, "resources", message);
            let shortages = shortages.iter().map(shortage).collect();
            api::Why { position: Some(*position), shortages, expected_start: expected.map(wire_time), ..answer }
        }
        Why::Limit { position, whose, counted, held, asked, limit } => {
            let what = match counted {
                Counted::Jobs => "jobs that run",
                Counted::Amount(resource) => resource.as_str(),
            };
            let message =
                format!("The limit of {} is {limit} {what}: {held} are held, and it asks for {asked} more.", whose.as_str());
            api::Why { position: Some(*position), ..answer(State::Queued, "limit", message) }
        }
        Why::Scheduling => answer(State::Queued, "scheduling", "It fits; the next pass starts it.".to_owned()),
        Why::Starting => answer(State::Starting, "starting", "It is placed, and its tasks are being started.".to_owned()),
        Why::Running => answer(State::Running, "running", "Its tasks run.".to_owned()),
        Why::Stopping => answer(State::Stopping, "stopping", "It is being ended.".to_owned()),
    }
}

/// The same of a job that the core does not have any more.
pub fn why_finished(record: &JobRecord) -> api::Why {
    let message = match &record.lifecycle.state {
        JobState::Finished { outcome: how, .. } => {
            let how = outcome(how);
            match how.message {
                Some(message) => format!("It is finished: {message}."),
                None => "It is finished: every task ended with exit code 0.".to_owned(),
            }
        }
        // It is not in the core yet: a commit is under way.
        _ => "It is about to change.".to_owned(),
    };
    let kind = record.lifecycle.state.kind();
    api::Why {
        job: record.id.0,
        state: state(kind),
        reason: kind.as_str().to_owned(),
        message,
        position: None,
        shortages: Vec::new(),
        expected_start: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_reads_like_an_answer() {
        let short = |asked, largest_task| Shortage {
            resource: Resource::Memory,
            asked,
            free: 1 << 30,
            total: 4 << 30,
            largest_task,
            largest_free: 1 << 29,
        };
        let lines = lacking(&[short(2 << 30, 1), short(1 << 30, 1 << 30)]);
        assert_eq!(lines, "memory: 2Gi asked, 1Gi of 4Gi free; memory: one task asks for 1Gi, no node has more than 512Mi free");
    }

    #[test]
    fn an_outcome_has_what_belongs_to_it() {
        let reason = FailReason::ExitCode { task: "worker-1".into(), code: 3 };
        let ended = outcome(&Outcome::Failed { reason });
        assert_eq!(
            (ended.reason.as_deref(), ended.exit_code, ended.task.as_deref()),
            (Some("exitCode"), Some(3), Some("worker-1"))
        );
        assert_eq!(outcome(&Outcome::Succeeded).exit_code, Some(0));
        assert_eq!(outcome(&Outcome::Cancelled { by: "ada".into() }).by.as_deref(), Some("ada"));
    }
}
