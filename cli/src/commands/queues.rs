//! `flash queues`: where jobs wait, who gets how much, and how an administrator changes it.

use std::fmt::Write as _;

use api::quantity::{Duration, Weight};
use api::{Amounts, Queue, QueueList};
use comfy_table::Cell;

use super::apply;
use crate::client::Client;
use crate::error::Error;
use crate::output::{self, Output};
use crate::patch::{self, Members, Or, Patch, or};
use crate::query::Query;
use crate::table::{self, Look, cell};

pub(crate) const EXAMPLES: &str = "Examples:
  flash queues                                     all queues, what they hold and what waits
  flash queues -o wide                             more columns
  flash queues show default-batch                  one queue, and who uses it
  flash queues set train --cohort lab --guaranteed gpu=4 --limit gpu=8
  flash queues set default-batch --fair-share 7d --tenant-weight vision=2,speech=1
  flash queues delete train
  flash queues apply -f queues.yaml

A queue without a cohort shares the machine with all others by priority. Queues of one cohort (`flash cohorts`) lend to each
other: what one is guaranteed and does not use, others borrow, and give back when it is wanted. Everybody may look;
only root and the user that flashd runs as may change queues. A change counts at once and outlives the daemon.";
const SHOW_EXAMPLES: &str = "Examples:
  flash queues show default-batch
  flash queues show default-batch -o json";
const SET_EXAMPLES: &str = "Examples:
  flash queues set train --priority 500 --max-concurrent 20
  flash queues set train --cohort lab --weight 2 --guaranteed cpu=32,gpu=4 --limit gpu=8
  flash queues set train --tenant-limit jobs=10,gpu=2      what each namespace may have
  flash queues set train --fair-share 7d --tenant-weight vision=2,speech=1
  flash queues set train --limit gpu=none                  no limit of GPUs any more, the others stay
  flash queues set train --fair-share none --cohort none

What no flag names stays as it is; a queue that is not there is made. `none` takes back what was said.
With --fair-share namespaces take turns by what they have used, not by the priorities of their jobs.";
const DELETE_EXAMPLES: &str = "Examples:
  flash queues delete train

Only a queue without unfinished jobs can be deleted. One that flashd.toml names, or that is built in, is back after a restart.";

/// Arguments of `flash queues`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// What to do; without one, they are listed
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    output: Output,
}

/// What to do with queues.
#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Show all about a queue
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a queue, or change what is said of it
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<SetArgs>),
    /// Delete queues
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Set queues, cohorts and priority classes as a file says
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::Args),
}

/// Arguments of `flash queues set`.
#[derive(clap::Args, Debug)]
struct SetArgs {
    /// Its name, a DNS label
    name: String,
    /// Base priority of its jobs
    #[arg(short = 'p', long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Whether its running jobs may be ended to make room
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    preemptible: Option<bool>,
    /// Jobs of it that hold resources at the same time, at most; or none
    #[arg(long, value_name = "N", value_parser = or::<u32>)]
    max_concurrent: Option<Or<u32>>,
    /// Time in line that is worth a point of priority; 0s for no ageing
    #[arg(long, value_name = "DURATION")]
    age: Option<Duration>,
    /// Cohort that it lends to and borrows from; or none
    #[arg(long, value_name = "NAME", value_parser = or::<String>)]
    cohort: Option<Or<String>>,
    /// Its part among the queues of a cohort that shares fairly
    #[arg(long, value_name = "N")]
    weight: Option<Weight>,
    /// What it can have back at any time (cpu=32,memory=1Ti,gpu=4); or none
    #[arg(long, value_name = "AMOUNTS", value_parser = patch::amounts)]
    guaranteed: Option<Members>,
    /// What its jobs hold together at most; or none
    #[arg(long, value_name = "AMOUNTS", value_parser = patch::amounts)]
    limit: Option<Members>,
    /// What each namespace may have in it (jobs=10,gpu=2); or none
    #[arg(long, value_name = "LIMITS", value_parser = patch::tenant_limits)]
    tenant_limit: Option<Members>,
    /// Namespaces take turns by what they have used; it counts half after this time; or none
    #[arg(long, value_name = "HALF-LIFE", value_parser = or::<Duration>)]
    fair_share: Option<Or<Duration>>,
    /// Weights of namespaces that take turns so (vision=2,speech=1); or none
    #[arg(long, value_name = "WEIGHTS", value_parser = patch::weights)]
    tenant_weight: Option<Members>,
    #[command(flatten)]
    output: Output,
}

impl SetArgs {
    fn patch(&self) -> Patch {
        let mut patch = Patch::default();
        patch
            .set("priority", self.priority.as_ref())
            .set("preemptible", self.preemptible.as_ref())
            .set_or("maxConcurrent", self.max_concurrent.as_ref())
            .set("agePerPoint", self.age.as_ref())
            .set_or("cohort", self.cohort.as_ref())
            .set("weight", self.weight.as_ref())
            .set_or("guaranteed", self.guaranteed.as_ref())
            .set_or("limit", self.limit.as_ref())
            .set_or("tenantLimits", self.tenant_limit.as_ref())
            .fair_share(self.fair_share.as_ref(), self.tenant_weight.as_ref());
        patch
    }
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    match &args.command {
        None => {
            let queues: QueueList = client.get(&Query::new("/queues")).await?;
            args.output.print(&queues, |queues| queues.items.iter().map(|queue| queue.name.clone()).collect(), list)?;
        }
        Some(Command::Show { name, output }) => {
            let queue: Queue = client.get(&Query::new("/queues").segment(name)).await?;
            output.print(&queue, |queue| vec![queue.name.clone()], |queue, look, _| facts(queue, look))?;
        }
        Some(Command::Set(args)) => {
            let (queue, created): (Queue, bool) = set(client, "/queues", &args.name, &args.patch()).await?;
            output::note(&format!("flash: queue {} is {}", queue.name, if created { "new" } else { "changed" }));
            args.output.print(&queue, |queue| vec![queue.name.clone()], |queue, look, _| facts(queue, look))?;
        }
        Some(Command::Delete { names }) => delete(client, "/queues", "queue", names).await?,
        Some(Command::Apply(args)) => return apply::run(client, args).await,
    }
    Ok(0)
}

/// Changes a thing, or makes it where there is none; the thing, and whether it is new.
pub(super) async fn set<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    name: &str,
    patch: &Patch,
) -> Result<(T, bool), Error> {
    let query = Query::new(path).segment(name);
    match client.patch(&query, &patch.body()).await {
        Err(error) if error.status() == Some(404) => Ok((client.put(&query, &patch.fresh()).await?, true)),
        changed => Ok((changed?, false)),
    }
}

/// Deletes things, one after the other.
pub(super) async fn delete(client: &Client, path: &str, kind: &str, names: &[String]) -> Result<(), Error> {
    for name in names {
        client.delete(&Query::new(path).segment(name)).await?;
        output::note(&format!("flash: {kind} {} is deleted", table::clean(name)));
    }
    Ok(())
}

/// `cpu=4,gpu=2`, or `-`. Zeros are left out where they say nothing.
pub(super) fn amounts(amounts: &Amounts, zeros: bool) -> String {
    let Amounts { cpu, memory, gpu } = amounts;
    let parts = [
        cpu.filter(|cpu| zeros || cpu.0 > 0).map(|cpu| format!("cpu={cpu}")),
        memory.filter(|memory| zeros || memory.0 > 0).map(|memory| format!("memory={memory}")),
        gpu.filter(|gpu| zeros || gpu.0 > 0).map(|gpu| format!("gpu={gpu}")),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(",");
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Millionths as `12.5%`.
fn percent(millionths: u64) -> String {
    format!("{:.1}%", millionths as f64 / 10_000.0)
}

fn list(queues: &QueueList, look: Look, wide: bool) -> String {
    let rows = queues.items.iter().map(|queue| -> Vec<Cell> {
        let spec = &queue.spec;
        let mut row = vec![
            cell(&queue.name),
            cell(spec.priority.to_string()),
            table::maybe(spec.cohort.as_ref()),
            cell(spec.weight.to_string()),
            cell(amounts(&spec.guaranteed, true)),
            cell(amounts(&spec.limit, true)),
            cell(amounts(&queue.used, false)),
            cell(queue.queued.to_string()),
            cell(queue.active.to_string()),
            cell(percent(queue.share.held)),
        ];
        if wide {
            row.push(table::maybe(queue.share.used.map(percent)));
            row.push(cell(amounts(&queue.borrowed, false)));
            row.push(cell(queue.waiting.to_string()));
            row.push(cell(if spec.preemptible { "yes" } else { "no" }));
            row.push(cell(queue.tenant_count.to_string()));
            row.push(cell(origin(queue.origin)));
        }
        row
    });
    let mut header = vec!["NAME", "PRIORITY", "COHORT", "WEIGHT", "GUARANTEED", "LIMIT", "USED", "QUEUED", "RUNNING", "SHARE"];
    if wide {
        header.extend(["RECENT", "BORROWED", "WAITING", "PREEMPTIBLE", "NAMESPACES", "ORIGIN"]);
    }
    table::table(look, &header, rows.collect())
}

/// Who said so, for people.
pub(super) const fn origin(origin: api::Origin) -> &'static str {
    match origin {
        api::Origin::BuiltIn => "built in",
        api::Origin::File => "flashd.toml",
        api::Origin::Api => "set",
        api::Origin::Cluster => "cluster",
        api::Origin::Removed => "removed",
    }
}

fn facts(queue: &Queue, look: Look) -> String {
    let spec = &queue.spec;
    let limits = &spec.tenant_limits;
    let held = Amounts { cpu: limits.cpu, memory: limits.memory, gpu: limits.gpu };
    let each = match (limits.jobs, amounts(&held, true).as_str()) {
        (None, held) => held.to_owned(),
        (Some(jobs), "-") => format!("jobs={jobs}"),
        (Some(jobs), held) => format!("jobs={jobs},{held}"),
    };
    let fair = spec.fair_share.as_ref().map(|fair| {
        let weights: Vec<_> = fair.weights.iter().map(|(name, weight)| format!("{name}={weight}")).collect();
        let weights = if weights.is_empty() { String::new() } else { format!(", weights {}", weights.join(",")) };
        format!("half-life {}{weights}", fair.half_life)
    });
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let ageing = if spec.age_per_point.0 == 0 { "none".to_owned() } else { format!("a point each {}", spec.age_per_point) };
    let mut text = table::facts(&[
        ("Name", queue.name.clone()),
        ("Origin", origin(queue.origin).to_owned()),
        ("Priority", spec.priority.to_string()),
        ("Ageing", ageing),
        ("Preemptible", if spec.preemptible { "yes" } else { "no" }.to_owned()),
        ("Cohort", or_dash(spec.cohort.clone())),
        ("Weight", spec.weight.to_string()),
        ("Guaranteed", amounts(&spec.guaranteed, true)),
        ("Limit", amounts(&spec.limit, true)),
        ("Max concurrent", or_dash(spec.max_concurrent.map(|count| count.to_string()))),
        ("Each namespace", each),
        ("Fair share", or_dash(fair)),
        ("Jobs", format!("{} running, {} queued, {} waiting", queue.active, queue.queued, queue.waiting)),
        ("Used", amounts(&queue.used, false)),
        ("Borrowed", amounts(&queue.borrowed, false)),
        ("Share", percent(queue.share.held)),
    ]);
    if !queue.tenants.is_empty() {
        let rows = queue.tenants.iter().map(|tenant| {
            vec![
                cell(&tenant.namespace),
                cell(tenant.share.weight.to_string()),
                cell(tenant.active.to_string()),
                cell(amounts(&tenant.used, false)),
                cell(percent(tenant.share.held)),
                table::maybe(tenant.share.used.map(percent)),
            ]
        });
        text.push('\n');
        text.push_str(&table::table(look, &["NAMESPACE", "WEIGHT", "RUNNING", "USED", "SHARE", "RECENT"], rows.collect()));
        let more = queue.tenant_count.saturating_sub(queue.tenants.len() as u64);
        if more > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "and {more} more");
        }
    }
    text
}
