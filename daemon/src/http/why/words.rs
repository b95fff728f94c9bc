//! Sentences for people: what `flash why` prints.
//!
//! What must hold: a sentence says only what is known; times in it are RFC 3339 in whole seconds, so that a client can put them into its
//! own zone; jobs are named by their number.

use api::JobSpec;
use api::quantity::{Cpu, Duration, Memory};
use scheduler_core::amounts::MemoryBytes;
use scheduler_core::ids::{Name, Seq};
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Ahead, Counted, Gang, JobRef, NoPart, Refused, Resource, Rule, Shortage, Shortfall, TakenGpu, Whose};

use crate::flashjobs::{FLASH_JOB_NAME, POD_NAME};
use crate::http::text::wire_time;
use crate::http::view;

const SECOND: i64 = 1_000_000;

/// An amount with its noun: `4 GPUs`, `1 CPU`, `16Gi of memory`.
pub(in crate::http) fn amount(resource: Resource, amount: u128) -> String {
    let number = u64::try_from(amount).unwrap_or(u64::MAX);
    let noun = |text: String, one: &str| format!("{text} {one}{}", if text == "1" { "" } else { "s" });
    match resource {
        Resource::Cpu => noun(Cpu(number).to_string(), "CPU"),
        Resource::Memory => format!("{} of memory", Memory(number)),
        Resource::Gpu if number > 0 && number < 1_000 => format!("{} of a GPU", view::amount(resource, amount)),
        Resource::Gpu => noun(view::amount(resource, amount), "GPU"),
    }
}

/// What a job's GPUs are.
#[derive(Clone, Copy)]
pub(super) enum Gpus<'a> {
    /// Whole ones, or parts that are told by themselves; or several kinds of them.
    Plain,
    /// MIG instances of this profile.
    Instances(&'a str),
    /// Parts that a device plugin gives out.
    Parts,
}

/// An amount of what a job asks for.
fn of_job(resource: Resource, number: u128, gpus: Gpus<'_>) -> String {
    let count = view::amount(resource, number);
    let several = if count == "1" { "" } else { "s" };
    match gpus {
        Gpus::Instances(profile) if resource == Resource::Gpu => format!("{count} MIG instance{several} {profile}"),
        Gpus::Parts if resource == Resource::Gpu && count == "1" => "1 part of a GPU".to_owned(),
        Gpus::Parts if resource == Resource::Gpu => format!("{count} parts of GPUs"),
        _ => amount(resource, number),
    }
}

/// What a limit counts, with its noun.
pub(super) fn counted(what: Counted, number: u128) -> String {
    match what {
        Counted::Amount(resource) => amount(resource, number),
        Counted::Jobs if number == 1 => "1 job at once".to_owned(),
        Counted::Jobs => format!("{number} jobs at once"),
    }
}

/// What a limit counts.
pub(super) const fn kind(what: Counted) -> &'static str {
    match what {
        Counted::Jobs => "the number of running jobs",
        Counted::Amount(Resource::Cpu) => "CPUs",
        Counted::Amount(Resource::Memory) => "memory",
        Counted::Amount(Resource::Gpu) => "GPUs",
    }
}

/// `namespace "a" in its queue`, `queue "q"`, `cohort "pool"`.
pub(super) fn owner(whose: Whose, of: &Name) -> String {
    match whose {
        Whose::Tenant => format!("namespace \"{of}\" in its queue"),
        Whose::Queue => format!("queue \"{of}\""),
        Whose::Cohort => format!("cohort \"{of}\""),
    }
}

/// `#12`.
pub(super) fn job(job: JobRef) -> String {
    format!("#{}", job.seq)
}

/// `#1, #2 and #3`.
pub(super) fn jobs(jobs: &[JobRef]) -> String {
    let named: Vec<String> = jobs.iter().take(8).map(|each| job(*each)).collect();
    match (&named[..], jobs.len().saturating_sub(named.len())) {
        ([], _) => String::new(),
        ([one], _) => format!("job {one}"),
        ([first @ .., last], 0) => format!("jobs {} and {last}", first.join(", ")),
        (all, more) => format!("jobs {} and {more} more", all.join(", ")),
    }
}

/// A time, in the second that it lies in.
pub(super) fn time(at: Timestamp) -> String {
    wire_time(Timestamp(at.0.div_euclid(SECOND) * SECOND)).to_string()
}

/// A time by which something has happened: no earlier than that.
pub(super) fn by(at: Timestamp) -> String {
    time(Timestamp(at.0.saturating_add(SECOND - 1)))
}

/// A length of time, in seconds where it is not shorter.
pub(super) fn span(span: Span) -> String {
    let micros = if span.0 >= 1_000_000 { span.0 / 1_000_000 * 1_000_000 } else { span.0 };
    Duration(micros).to_string()
}

/// By what rule a job is ahead, for a place in parentheses.
pub(super) fn rule(rule: Rule) -> String {
    let part = |share: u32| format!("{:.2}", f64::from(share) / 10_000.0);
    match rule {
        Rule::Priority { theirs, own } => format!("higher priority: {theirs} against {own}"),
        Rule::Age => "it has waited long enough to outweigh its lower priority".to_owned(),
        Rule::Fifo => "it came first".to_owned(),
        Rule::TenantShare { theirs, own } => {
            format!("its namespace's turn: share {} against {}", part(theirs), part(own))
        }
        Rule::QueueShare { theirs, own } => format!("its queue's turn: share {} against {}", part(theirs), part(own)),
        Rule::Guarantee => "it stays within what its queue is guaranteed, and this one would borrow".to_owned(),
    }
}

/// `job #12 of namespace "b" (higher priority: 50 against 8)`.
pub(super) fn ahead(ahead: &Ahead) -> String {
    format!("job {} of namespace \"{}\" ({})", job(ahead.job), ahead.namespace, rule(ahead.rule))
}

/// Too little of one resource. `several` tasks have to start together.
fn short(short: &Shortage, several: bool, gpus: Gpus<'_>) -> String {
    let whole = |number: u128| of_job(short.resource, number, gpus);
    if short.asked > short.free && (several || short.asked == u128::from(short.largest_task)) {
        let together = if several { " together" } else { "" };
        let [free, total] = [short.free, short.total].map(|number| view::amount(short.resource, number));
        let be = if free == "1" || free == "0" || short.resource == Resource::Memory { "is" } else { "are" };
        let free = if free == "0" { "none".to_owned() } else { free };
        return format!("it needs {}{together}, and {free} of {total} {be} free", whole(short.asked));
    }
    let (task, hole) = (whole(short.largest_task.into()), whole(short.largest_free.into()));
    match &short.node {
        Some(node) => format!("it needs {task} on one node, and the largest hole is {hole}, on node {node}"),
        None => format!("it needs {task} on one node, and none of {} is free", whole(short.total)),
    }
}

fn gang(gang: &Gang) -> String {
    let Gang { task, needed, possible } = gang;
    if *needed == 1 {
        return format!("there is no room for its task \"{task}\" beside the others, which start together with it");
    }
    format!("{needed} tasks \"{task}\" have to start together, and there is room for {possible}")
}

/// No GPU has the part that is asked for.
fn part(lacks: &NoPart) -> String {
    let asked = view::amount(Resource::Gpu, lacks.asked.millis.into());
    let memory = |memory: MemoryBytes| format!("{} of its memory", Memory(memory.0));
    let asked = if lacks.asked.memory.0 > 0 { format!("{asked} and {}", memory(lacks.asked.memory)) } else { asked };
    let Some((left, node)) = &lacks.largest else {
        return format!("it needs {asked} of one GPU, and none has anything left");
    };
    // Where the thousandths would do, it is the memory that is short.
    let short_of_memory = left.millis >= lacks.asked.millis;
    let millis = view::amount(Resource::Gpu, left.millis.into());
    let left = if short_of_memory { format!("{millis} and {}", memory(left.memory)) } else { millis };
    let gpus = if lacks.gpus == 1 {
        "1 GPU that is shared has".to_owned()
    } else {
        format!("of {} GPUs that are shared, none has more than", lacks.gpus)
    };
    format!("it needs {asked} of one GPU: none is whole, and {gpus} {left} left (node {node})")
}

/// A GPU that is asked for by UUID and cannot be had now.
fn taken(gpu: &TakenGpu) -> String {
    let named = format!("GPU {} of node {}", gpu.uuid, gpu.node);
    let aside = gpu.aside.as_ref().map(|why| format!("is set aside ({why})"));
    let more = if gpu.more > 0 { format!(" and {} more", gpu.more) } else { String::new() };
    let by = jobs(&gpu.by);
    let had = match gpu.by.len() + gpu.more {
        0 => None,
        1 => Some(format!("{by} has")),
        _ => Some(format!("{by}{more} share")),
    };
    let which: Vec<String> = had.into_iter().chain(aside).map(|text| format!("which {text}")).collect();
    format!("it needs {named}, {}", which.join(" and "))
}

/// What a job lacks, as the end of a sentence; empty if that is not known. Its GPUs may be instances of a MIG profile, or parts.
pub(super) fn lacking(lacks: &Shortfall, gpus: Gpus<'_>) -> String {
    let mut parts: Vec<String> = lacks.gang.iter().map(gang).collect();
    parts.extend(lacks.taken.iter().map(taken));
    if lacks.more_taken > 0 {
        parts.push(format!("and {} more GPUs that are not free", lacks.more_taken));
    }
    parts.extend(lacks.part.iter().map(part));
    parts.extend(lacks.shortages.iter().map(|shortage| short(shortage, lacks.gang.is_some(), gpus)));
    parts.extend(lacks.closest.iter().map(|closest| {
        let [asked, free] = [closest.asked, closest.free].map(|number| of_job(closest.resource, number.into(), gpus));
        format!("no node has all of it free at once: node {} comes closest, with {free} of the {asked}", closest.node)
    }));
    // Where there is too little over all nodes, a hole is not what it waits for.
    let hole = lacks.shortages.iter().all(|short| short.asked <= short.free);
    parts.extend(
        lacks.room_at.iter().filter(|_| hole).map(|(node, at)| {
            format!("by the time limits of what runs there, node {node} has room from {} at the latest", by(*at))
        }),
    );
    parts.join("; ")
}

/// Who releases a held job. That of an object of the cluster goes by what the object says.
pub(super) fn held(number: Seq, spec: &JobSpec, namespace: &Name) -> String {
    let of = |annotation: &str| spec.annotations.get(annotation);
    match (of(FLASH_JOB_NAME), of(POD_NAME)) {
        (Some(name), _) => format!(
            "It is held: its FlashJob is suspended or waits for others (`kubectl get flashjob {name} --namespace {namespace} --output wide` \
             says for what), or somebody holds it. `flash release {number}` lets it go all the same."
        ),
        (None, Some(name)) => {
            format!("It is held: its pod {name} has scheduling gates, or somebody holds it (`flash release {number}`).")
        }
        (None, None) => format!("It is held: it waits until somebody releases it (`flash release {number}`)."),
    }
}

/// Why it could never start as things are.
pub(crate) fn refused(refused: &Refused) -> String {
    match refused {
        Refused::TaskTooLarge { task, resource, asked, largest } => {
            let [asked, largest] = [*asked, *largest].map(|number| amount(*resource, number.into()));
            format!("task \"{task}\" asks for {asked}, and the largest node has {largest}")
        }
        Refused::JobTooLarge { resource, asked, total, task, possible } => {
            let [asked, total] = [*asked, *total].map(|number| amount(*resource, number));
            format!(
                "its tasks ask for {asked} together, and all nodes have {total}: at most {possible} of \"{task}\" can run at once"
            )
        }
        Refused::OverLimit { resource, asked, limit, whose } => {
            let [asked, limit] = [*asked, *limit].map(|number| amount(*resource, number));
            format!("its tasks ask for {asked} together, and the limit of {} is {limit}", whose.as_str())
        }
        other => other.to_string(),
    }
}

/// What a signal is called.
pub(super) fn signal(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        other => return format!("signal {other}"),
    };
    format!("{name} (signal {number})")
}

#[cfg(test)]
mod tests {
    use scheduler_core::amounts::GpuShare;

    use super::*;

    fn gpus(asked: u128, free: u128, largest_task: u64, largest_free: u64, node: Option<&str>) -> Shortfall {
        let node = node.map(Name::from);
        // In thousandths, as the core counts them.
        let short = Shortage {
            resource: Resource::Gpu,
            asked: asked * 1_000,
            free: free * 1_000,
            total: 8_000,
            largest_task: largest_task * 1_000,
            largest_free: largest_free * 1_000,
            node,
        };
        Shortfall { shortages: vec![short], ..Shortfall::default() }
    }

    #[test]
    fn what_is_lacking_reads_like_an_answer() {
        assert_eq!(
            lacking(&gpus(4, 5, 4, 3, Some("a")), Gpus::Plain),
            "it needs 4 GPUs on one node, and the largest hole is 3 GPUs, on node a"
        );
        assert_eq!(lacking(&gpus(1, 0, 1, 0, None), Gpus::Plain), "it needs 1 GPU, and none of 8 is free");
        let mig = Gpus::Instances("1g.10gb");
        assert_eq!(lacking(&gpus(1, 0, 1, 0, None), mig), "it needs 1 MIG instance 1g.10gb, and none of 8 is free");
        assert_eq!(
            lacking(&gpus(4, 5, 4, 3, Some("a")), mig),
            "it needs 4 MIG instances 1g.10gb on one node, and the largest hole is 3 MIG instances 1g.10gb, on node a"
        );
        assert_eq!(lacking(&gpus(1, 0, 1, 0, None), Gpus::Parts), "it needs 1 part of a GPU, and none of 8 is free");
        assert_eq!(lacking(&gpus(4, 3, 4, 3, None), Gpus::Parts), "it needs 4 parts of GPUs, and 3 of 8 are free");
        let gang = Gang { task: "main".into(), needed: 8, possible: 6 };
        let lacks = Shortfall { gang: Some(gang), ..gpus(8, 6, 1, 3, Some("a")) };
        assert_eq!(
            lacking(&lacks, Gpus::Plain),
            "8 tasks \"main\" have to start together, and there is room for 6; it needs 8 GPUs together, and 6 of 8 are free"
        );
    }

    #[test]
    fn what_parts_are_left_is_told() {
        let left = |millis: u32, gib: u64| GpuShare { millis, memory: MemoryBytes(gib << 30) };
        let lacks = |asked, gpus, largest: Option<GpuShare>| Shortfall {
            part: Some(NoPart { asked, gpus, largest: largest.map(|left| (left, "a".into())) }),
            ..Shortfall::default()
        };
        assert_eq!(
            lacking(&lacks(left(500, 0), 4, Some(left(300, 24))), Gpus::Plain),
            "it needs 500m of one GPU: none is whole, and of 4 GPUs that are shared, none has more than 300m left (node a)"
        );
        assert_eq!(
            lacking(&lacks(left(100, 30), 1, Some(left(300, 24))), Gpus::Plain),
            "it needs 100m and 30Gi of its memory of one GPU: none is whole, and 1 GPU that is shared has 300m and 24Gi of its memory left (node a)"
        );
        assert_eq!(lacking(&lacks(left(100, 0), 0, None), Gpus::Plain), "it needs 100m of one GPU, and none has anything left");
        assert_eq!(amount(Resource::Gpu, 500), "500m of a GPU");
    }
}
