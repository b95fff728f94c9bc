//! The reason itself: the core's, with its figures, and its sentence.

use api::quantity::Duration;
use api::{JobSpec, Reason};
use scheduler_core::amounts::MemoryBytes;
use scheduler_core::ids::Name;
use scheduler_core::state::{FailReason, JobState, Outcome, StopReason};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Ahead, Counted, Explanation, Exposure, JobRef, Resource, Shortfall, Whose, Why};
use store::JobRecord;

use super::words::Gpus;
use super::{ahead, reference, words};
use crate::http::text::wire_time;
use crate::http::view;
use crate::objects::Directory;

const fn whose_word(whose: Whose) -> &'static str {
    match whose {
        Whose::Tenant => "tenant",
        Whose::Queue => "queue",
        Whose::Cohort => "cohort",
    }
}

const fn counted_word(counted: Counted) -> &'static str {
    match counted {
        Counted::Jobs => "jobs",
        Counted::Amount(resource) => view::resource_word(resource),
    }
}

fn counted_amount(counted: Counted, number: u128) -> String {
    match counted {
        Counted::Jobs => number.to_string(),
        Counted::Amount(resource) => view::amount(resource, number),
    }
}

fn shortfall(lacks: &Shortfall) -> api::Shortfall {
    let shortage = |short: &scheduler_core::Shortage| {
        let amount = |number: u128| view::amount(short.resource, number);
        api::Shortage {
            resource: view::resource_word(short.resource).to_owned(),
            asked: amount(short.asked),
            free: amount(short.free),
            total: amount(short.total),
            largest_task: amount(short.largest_task.into()),
            largest_free: amount(short.largest_free.into()),
            node: short.node.as_ref().map(ToString::to_string),
        }
    };
    let part = |part: &scheduler_core::NoPart| {
        let gpu = |millis: u32| view::amount(Resource::Gpu, millis.into());
        let memory = |memory: MemoryBytes| view::amount(Resource::Memory, memory.0.into());
        let largest = part.largest.as_ref();
        api::NoGpuPart {
            asked: gpu(part.asked.millis),
            asked_memory: (part.asked.memory.0 > 0).then(|| memory(part.asked.memory)),
            gpus: part.gpus as u64,
            largest_free: largest.map(|(left, _)| gpu(left.millis)),
            largest_free_memory: largest.map(|(left, _)| memory(left.memory)),
            node: largest.map(|(_, node)| node.to_string()),
        }
    };
    let taken = |gpu: &scheduler_core::TakenGpu| api::TakenGpu {
        uuid: gpu.uuid.to_string(),
        node: gpu.node.to_string(),
        jobs: gpu.by.iter().map(|job| reference(*job)).collect(),
        more_jobs: gpu.more as u64,
        set_aside: gpu.aside.as_ref().map(ToString::to_string),
    };
    api::Shortfall {
        taken_gpus: lacks.taken.iter().map(taken).collect(),
        more_taken_gpus: lacks.more_taken as u64,
        gpu_part: lacks.part.as_ref().map(part),
        shortages: lacks.shortages.iter().map(shortage).collect(),
        closest: lacks.closest.as_ref().map(|closest| api::Closest {
            node: closest.node.to_string(),
            resource: view::resource_word(closest.resource).to_owned(),
            asked: view::amount(closest.resource, closest.asked.into()),
            free: view::amount(closest.resource, closest.free.into()),
        }),
        gang: lacks.gang.as_ref().map(|gang| api::Gang {
            task: gang.task.to_string(),
            needed: gang.needed,
            possible: gang.possible,
        }),
        room_at: lacks.room_at.as_ref().map(|(node, at)| api::RoomAt { node: node.to_string(), at: wire_time(*at) }),
    }
}

/// A node that takes no tasks, with what was said when that was ordered, or what its cluster says.
fn closed(node: &Name, directory: &Directory, nodes: &[api::Node]) -> String {
    let mark = directory.nodes.get(node);
    let seen = || nodes.iter().find(|seen| seen.name == node.as_str())?.reason.as_ref();
    match (mark.and_then(|mark| Some((&mark.by, mark.reason.as_ref()?))), seen()) {
        (Some((by, reason)), _) => format!("{node} ({by}: {reason})"),
        (None, Some(reason)) => format!("{node} ({reason})"),
        (None, None) => node.to_string(),
    }
}

/// The reason of an unfinished job, and its sentence.
pub(super) fn reason(
    explained: &Explanation,
    record: &JobRecord,
    spec: &JobSpec,
    directory: &Directory,
    nodes: &[api::Node],
) -> (Reason, String) {
    let number = record.seq;
    match &explained.why {
        Why::Held => (Reason::Held, words::held(number, spec, &record.namespace)),
        Why::NotBefore(at) => {
            let message = format!("It waits for its time: it joins queue \"{}\" at {}.", record.queue, words::by(*at));
            (Reason::NotBefore { at: wire_time(*at) }, message)
        }
        Why::Backoff { at, lost, max_attempts } => {
            let (run, next) = (explained.attempt, explained.attempt.next());
            let message = format!(
                "Run {run} was lost, which was no fault of the job: run {next} does not start before {} ({lost} of {max_attempts} losses).",
                words::by(*at)
            );
            (Reason::Backoff { at: wire_time(*at), lost: *lost, max_attempts: *max_attempts }, message)
        }
        Why::Never(refused) => {
            let detail = words::refused(refused);
            (Reason::Never { detail: detail.clone() }, format!("It cannot start even if nothing else runs: {detail}."))
        }
        Why::NodesClosed { nodes: shut, more } => {
            let names: Vec<String> = shut.iter().map(ToString::to_string).collect();
            let said: Vec<String> = shut.iter().map(|node| closed(node, directory, nodes)).collect();
            let which = if names.len() == 1 && *more == 0 { "node" } else { "nodes" };
            let others = if *more > 0 { format!(" and {more} more") } else { String::new() };
            let text = format!(
                "It has room only on {which} {}{others}, which {} no tasks now: it starts once {}.",
                said.join(", "),
                if which == "node" { "takes" } else { "take" },
                if which == "node" { "that takes tasks again" } else { "enough of them take tasks again" },
            );
            (Reason::NodesClosed { nodes: names, more: *more as u64 }, text)
        }
        Why::GpusAside { gpus, more } => {
            let named: Vec<String> = gpus.iter().map(|gpu| format!("{} of {} ({})", gpu.uuid, gpu.node, gpu.why)).collect();
            let others = if *more > 0 { format!(" and {more} more") } else { String::new() };
            let text = format!("It has room only with GPUs that are set aside now: {}{others}.", named.join("; "));
            let aside = |gpu: &scheduler_core::AsideGpu| api::AsideGpu {
                uuid: gpu.uuid.to_string(),
                node: gpu.node.to_string(),
                reason: gpu.why.to_string(),
            };
            (Reason::GpusAside { gpus: gpus.iter().map(aside).collect(), more: *more as u64 }, text)
        }
        Why::NoNodes => (Reason::NoNodes, "There are no nodes: nothing starts until there is one.".to_owned()),
        Why::Resources { shortfall: lacks, expected } => {
            let message = format!("It is first in line, and there is no room for it{}.", because(lacks, spec));
            (Reason::Resources { shortfall: shortfall(lacks), expected_start: expected.map(wire_time) }, message)
        }
        Why::Behind { first, shortfall: lacks, expected } => {
            let first_text = capital(&words::ahead(first));
            let message = match because(lacks, spec) {
                unknown if unknown.is_empty() => format!("{first_text} is ahead of it, and waits itself."),
                because => format!("{first_text} waits for room, and this one does not fit beside it{because}."),
            };
            let own = expected.map(|at| format!(" Room is reserved for it as well, from {}.", words::time(at)));
            let message = message + &own.unwrap_or_default();
            let expected_start = expected.map(wire_time);
            (Reason::Behind { first: ahead(first), shortfall: shortfall(lacks), expected_start }, message)
        }
        Why::Reserved { head, more, at, stay } => reservation(head, *more, *at, *stay),
        Why::Limit { whose, of, counted, held, asked, limit } => limited(*whose, of, *counted, [*held, *asked, *limit]),
        Why::KeptBack { first, whose, of, counted } => {
            let what = words::kind(*counted);
            let owner = words::owner(*whose, of);
            let message = format!(
                "{} waits for the limit of {owner} on {what}, and what is left of that is kept for it.",
                capital(&words::ahead(first))
            );
            let (whose, counted) = (whose_word(*whose).to_owned(), counted_word(*counted).to_owned());
            (Reason::KeptBack { first: ahead(first), whose, of: of.to_string(), counted }, message)
        }
        Why::MakingRoom { victims, until } => making_room(victims, *until),
        Why::Scheduling => (Reason::Scheduling, "There is room for it: the next pass starts it.".to_owned()),
        Why::Starting => {
            let placement = placement(record, spec);
            let message = format!("It is placed{}, and its tasks are being started.", where_it_is(&placement));
            (Reason::Starting { placement }, message)
        }
        Why::LinedUp { node, behind, wait } => {
            let after = match behind {
                0 => "first in line there".to_owned(),
                1 => "behind 1 other".to_owned(),
                behind => format!("behind {behind} others"),
            };
            let soon =
                wait.map(|wait| format!(", in about {}", words::span(Span(wait.0.next_multiple_of(1000))))).unwrap_or_default();
            let message = format!("It is lined up on node {node}, {after}, and begins as soon as they leave room{soon}.");
            (Reason::Starting { placement: placement(record, spec) }, message)
        }
        Why::Running { since, until, exposure } => running(*since, *until, *exposure, placement(record, spec)),
        Why::Stopping { reason, for_job, deadline } => stopping(reason, *for_job, *deadline),
    }
}

/// What is lacking, behind a colon; nothing where that is not known.
fn because(lacks: &Shortfall, spec: &JobSpec) -> String {
    let lacking = words::lacking(lacks, gpus(spec));
    if lacking.is_empty() { lacking } else { format!(": {lacking}") }
}

/// What all its GPUs are: instances of one MIG profile, or parts where those are given out by count.
fn gpus(spec: &JobSpec) -> Gpus<'_> {
    let asked =
        || spec.tasks.iter().filter_map(|task| task.resources.as_ref()).filter(|asked| asked.gpu.is_some_and(|gpu| gpu.0 > 0));
    let by_count = spec.executor.as_deref().is_some_and(|executor| executor != "local");
    if by_count && asked().next().is_some() && asked().all(|asked| asked.gpu.is_some_and(|gpu| gpu.gpus().is_none())) {
        return Gpus::Parts;
    }
    let mut profiles = asked().map(|asked| asked.mig_profile.as_deref());
    let first = profiles.next().flatten();
    first.filter(|first| profiles.all(|other| other == Some(*first))).map_or(Gpus::Plain, Gpus::Instances)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn reservation(head: &Ahead, more: usize, at: Option<Timestamp>, stay: Option<Span>) -> (Reason, String) {
    let from = at.map_or_else(|| "when runs without a time limit end".to_owned(), |at| format!("from {}", words::time(at)));
    let long = match (at, stay) {
        (_, None) => "it has no time limit, and could run on into that".to_owned(),
        (Some(_), Some(stay)) => format!("with its time limit and grace it may take {}, which is too long", words::span(stay)),
        (None, Some(_)) => "nobody knows how soon that is".to_owned(),
    };
    let others = match more {
        0 => String::new(),
        1 => ", or the other job that has a reservation".to_owned(),
        more => format!(", or one of {more} other jobs that have reservations"),
    };
    let head_text = words::ahead(head);
    let message = format!("It would fit now, but could delay {head_text}, for which room is reserved {from}{others}: {long}.");
    (
        Reason::Reservation {
            first: ahead(head),
            more: more as u64,
            at: at.map(wire_time),
            stay: stay.map(|stay| Duration(stay.0)),
        },
        message,
    )
}

fn limited(whose: Whose, of: &Name, counted: Counted, figures: [u128; 3]) -> (Reason, String) {
    let owner = words::owner(whose, of);
    let [held, asked, limit] = figures;
    let full = |number| words::counted(counted, number);
    let [held, asked, limit] = [held, asked, limit].map(|number| counted_amount(counted, number));
    let are = if held == "1" { "is" } else { "are" };
    let more =
        if counted == Counted::Jobs { format!("{held} run") } else { format!("{held} {are} held, and it asks for {asked}") };
    let message = format!("The limit of {owner} is {}: {more}.", full(figures[2]));
    let (whose, counted) = (whose_word(whose).to_owned(), counted_word(counted).to_owned());
    (Reason::Limit { whose, of: of.to_string(), counted, held, asked, limit }, message)
}

fn making_room(victims: &[JobRef], until: Option<Timestamp>) -> (Reason, String) {
    let named = words::jobs(victims);
    let message = match until {
        Some(until) if victims.len() == 1 => {
            format!("Room is being made for it: {named} was asked to end, and is killed at {} at the latest.", words::by(until))
        }
        Some(until) => {
            format!("Room is being made for it: {named} were asked to end, and are killed at {} at the latest.", words::by(until))
        }
        None => format!("Room is about to be made for it: the next pass asks {named} to end."),
    };
    let victims = victims.iter().map(|victim| reference(*victim)).collect();
    (Reason::MakingRoom { victims, until: until.map(wire_time) }, message)
}

fn placement(record: &JobRecord, spec: &JobSpec) -> Vec<api::PlacedTask> {
    let placed = record.lifecycle.state.placement().or(record.last_placement.as_ref());
    placed.map(|placed| view::placement(spec, placed)).unwrap_or_default()
}

/// ` on node a with GPU-1`, with as much as fits into a sentence.
fn where_it_is(placement: &[api::PlacedTask]) -> String {
    let mut nodes: Vec<&str> = placement.iter().map(|task| task.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let gpus: Vec<&str> = placement.iter().flat_map(|task| &task.gpus).map(String::as_str).collect();
    let on = match &nodes[..] {
        [] => return String::new(),
        [node] => format!(" on node {node}"),
        [first, second] => format!(" on nodes {first} and {second}"),
        [first, ..] => format!(" on {} nodes, among them {first}", nodes.len()),
    };
    match &gpus[..] {
        [] => on,
        gpus if gpus.len() <= 8 => format!("{on} with {}", gpus.join(", ")),
        gpus => format!("{on} with {} GPUs", gpus.len()),
    }
}

fn running(since: Timestamp, until: Option<Timestamp>, by: Exposure, placement: Vec<api::PlacedTask>) -> (Reason, String) {
    let ends =
        until.map_or_else(|| "It has no time limit".to_owned(), |at| format!("Its time limit ends it at {}", words::by(at)));
    let exposed = [
        (by.within_queue, "queue", "jobs of higher priority in its queue"),
        (by.reclaim, "cohort", "jobs of its cohort, because it borrowed"),
        (by.across_queues, "otherQueues", "jobs of queues of higher priority"),
    ];
    let exposed: Vec<_> = exposed.into_iter().filter(|(is, ..)| *is).collect();
    let who: Vec<&str> = exposed.iter().map(|(.., text)| *text).collect();
    let preempted =
        if who.is_empty() { String::new() } else { format!("; it may be ended before to make room for {}", who.join(", or ")) };
    let message = format!("It has been running since {}{}. {ends}{preempted}.", words::time(since), where_it_is(&placement));
    let preemptible_by = exposed.iter().map(|(_, word, _)| (*word).to_owned()).collect();
    (Reason::Running { since: wire_time(since), until: until.map(wire_time), placement, preemptible_by }, message)
}

fn stopping(reason: &StopReason, for_job: Option<JobRef>, deadline: Timestamp) -> (Reason, String) {
    let (cause, by, text) = match reason {
        StopReason::Cancel { by } => ("cancelled", Some(by.to_string()), format!("{by} cancelled it")),
        StopReason::TimeLimit => ("timeLimit", None, "its time limit is over".to_owned()),
        StopReason::Requeue { by } => ("requeued", Some(by.to_string()), format!("{by} wants it to start over")),
        StopReason::Idle { message } => ("idle", None, message.to_string()),
        StopReason::Evicted { message } => ("evicted", None, format!("it has to leave what it runs on: {message}")),
        StopReason::Preempted { by, .. } => {
            let job = for_job.map_or_else(|| by.to_string(), words::job);
            ("preempted", None, format!("it makes room for job {job}; then it is queued again"))
        }
    };
    let by_id = if let StopReason::Preempted { by, .. } = reason { Some(api::JobRef { id: by.0, number: None }) } else { None };
    let message = format!("It is being ended: {text}. What is left of it at {} is killed.", words::by(deadline));
    let for_job = for_job.map(reference).or(by_id);
    (Reason::Stopping { cause: cause.to_owned(), by, for_job, deadline: wire_time(deadline) }, message)
}

/// What became of a job that the core does not have any more, and its sentence.
pub(super) fn finished(record: &JobRecord, attempts: &[api::Attempt]) -> (Reason, String) {
    let JobState::Finished { outcome, at } = &record.lifecycle.state else {
        // A commit is under way, which puts it elsewhere.
        return (Reason::Scheduling, "It is about to change.".to_owned());
    };
    let begun = record.started_at;
    let first = attempts.iter().find_map(|attempt| attempt.started_at);
    let first = first.map_or(begun, |first| Some(Timestamp(first.as_microsecond())));
    let waited = first.unwrap_or(*at).since(record.submitted_at);
    let ran = begun.map(|begun| at.since(begun));
    let took = ran.map_or_else(
        || format!("It waited {} and never ran.", words::span(waited)),
        |ran| format!("It waited {} and ran {}.", words::span(waited), words::span(ran)),
    );
    let tries =
        if record.lifecycle.attempt.0 > 1 { format!(" It took {} runs.", record.lifecycle.attempt) } else { String::new() };
    let message = format!("{} {took}{tries}", ending(outcome));
    let reason = Reason::Finished {
        outcome: view::outcome(outcome),
        at: wire_time(*at),
        waited: Duration(waited.0),
        ran: ran.map(|ran| Duration(ran.0)),
    };
    (reason, message)
}

/// How it ended, as far as that is known.
fn ending(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "It succeeded: every task ended with exit code 0.".to_owned(),
        Outcome::Cancelled { by } => format!("{by} cancelled it."),
        Outcome::Failed { reason } => match reason {
            FailReason::ExitCode { task, code } => {
                format!("It failed: task \"{task}\" ended with exit code {code}{}.", exit_code(*code))
            }
            FailReason::Signal { task, signal } => {
                let sender = if *signal == 9 { OUT_OF_MEMORY } else { "" };
                format!(
                    "It failed: task \"{task}\" was ended by {}, which the scheduler did not send{sender}.",
                    words::signal(*signal)
                )
            }
            FailReason::TimeLimit => "It failed: it ran longer than its time limit, and was ended.".to_owned(),
            FailReason::Idle { message } => format!("It was ended: {message}."),
            FailReason::Start { message } => format!("It could not be started: {message}."),
            FailReason::Infrastructure { message } => {
                format!("It was lost as often as it may be, which was no fault of the job; the last time: {message}.")
            }
        },
    }
}

const OUT_OF_MEMORY: &str = "; if nobody else did, it was probably the kernel, because memory ran out";

/// What an exit code says by convention.
fn exit_code(code: i32) -> String {
    match code {
        126 => ", by which shells say that a file cannot be executed".to_owned(),
        127 => ", by which shells say that there is no such program".to_owned(),
        137 => format!(", by which shells say that a program was ended by {}{OUT_OF_MEMORY}", words::signal(9)),
        129..=165 => format!(", by which shells say that a program was ended by {}", words::signal(code - 128)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_with_what_is_known() {
        let failed = |reason| ending(&Outcome::Failed { reason });
        let killed = failed(FailReason::ExitCode { task: "main".into(), code: 137 });
        assert!(
            killed.contains("exit code 137") && killed.contains("SIGKILL (signal 9)") && killed.contains("memory"),
            "{killed}"
        );
        assert_eq!(
            failed(FailReason::ExitCode { task: "main".into(), code: 3 }),
            "It failed: task \"main\" ended with exit code 3."
        );
        let signal = failed(FailReason::Signal { task: "main".into(), signal: 11 });
        assert!(signal.contains("SIGSEGV (signal 11)") && !signal.contains("memory"), "{signal}");
    }
}
