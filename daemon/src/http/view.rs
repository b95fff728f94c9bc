//! The core's and the store's types as the wire has them.
//!
//! Invariants: nothing is decided here; values of environment variables are shown to who may act on the job and to nobody else, for they
//! hold secrets.

use api::quantity::{Cpu, GpuMillis, Memory};
use api::{Job, JobEvent, JobSpec, OutcomeWord, PlacedTask, State};
use scheduler_core::amounts::GpuShare;
use scheduler_core::state::{FailReason, JobState, Outcome, Placement, StateKind, WaitFor};
use store::usage::Used;
use store::{EventRecord, JobRecord, NoticeRecord};

use super::problem::{ApiError, ApiResult};
use super::text::wire_time;
use crate::backend::{Caller, Resource};

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
            FailReason::Idle { message } => failed("idle", message.to_string()),
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

/// A part of a GPU.
pub const fn share(share: GpuShare) -> api::GpuShare {
    api::GpuShare { gpu: GpuMillis(share.millis), memory: Memory(share.memory.0) }
}

/// Where the tasks of a run are.
pub fn placement(spec: &JobSpec, placement: &Placement) -> Vec<PlacedTask> {
    let placed = |slot: &scheduler_core::state::Slot| PlacedTask {
        task: task_name(spec, usize::from(slot.group), slot.replica),
        node: slot.node.to_string(),
        gpus: slot.gpus.iter().map(ToString::to_string).collect(),
        gpu_share: slot.share.map(share),
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
    if !caller.may_act_on(&record.namespace, &record.owner) {
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
        usage: None,
        warnings: Vec::new(),
        revision: record.revision.0,
    })
}

/// What was used. What nobody has seen is not told.
pub fn usage(used: &Used) -> api::Usage {
    let (promised, seen) = (&used.promised, &used.sampled);
    let seconds = |micros: u64| micros as f64 / 1e6;
    let is_seen = seen.known_micros > 0;
    api::Usage {
        cpu_seconds: seconds(promised.cpu_micros),
        memory_mib_seconds: promised.memory_mib_millis as f64 / 1e3,
        gpu_seconds: seconds(promised.gpu_micros),
        gpu_seen_seconds: seconds(seen.known_micros),
        gpu_busy_percent: is_seen.then(|| (seen.busy_micros as f64 / seen.known_micros as f64 * 1e4).round() / 100.0),
        gpu_peak_busy_percent: is_seen.then_some(seen.peak_busy_percent),
        gpu_peak_memory: (seen.peak_memory_bytes > 0).then_some(Memory(seen.peak_memory_bytes)),
        gpu_energy_joules: (seen.energy_millijoules > 0).then_some(seen.energy_millijoules as f64 / 1e3),
    }
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

/// The kind of a notice.
pub const fn notice_kind(kind: store::NoticeKind) -> api::NoticeKind {
    match kind {
        store::NoticeKind::Gpu => api::NoticeKind::Gpu,
        store::NoticeKind::Node => api::NoticeKind::Node,
        store::NoticeKind::Queue => api::NoticeKind::Queue,
        store::NoticeKind::Cohort => api::NoticeKind::Cohort,
        store::NoticeKind::PriorityClass => api::NoticeKind::PriorityClass,
    }
}

/// What happened to a thing.
pub fn notice(record: &NoticeRecord) -> api::Notice {
    let NoticeRecord { revision, notice } = record;
    let text = |name: &Option<scheduler_core::ids::Name>| name.as_ref().map(ToString::to_string);
    api::Notice {
        revision: revision.0,
        at: wire_time(notice.at),
        kind: notice_kind(notice.kind),
        name: notice.name.to_string(),
        event: notice.what.to_string(),
        node: text(&notice.node),
        cause: text(&notice.cause),
        by: text(&notice.by),
        reason: notice.reason.clone(),
    }
}

/// The word of a resource.
pub const fn resource_word(resource: Resource) -> &'static str {
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
        Resource::Gpu => GpuMillis(u32::try_from(number).unwrap_or(u32::MAX)).to_string(),
    }
}

/// The path of what asks for a resource.
pub fn resource_field(resource: Resource) -> String {
    format!("resources.{}", resource_word(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

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
