//! `flash cohorts`: queues that lend to each other, and how much there is to lend.

use api::quantity::Duration;
use api::{Cohort, CohortList};

use super::queues::{amounts, delete, origin, set};
use crate::client::Client;
use crate::error::Error;
use crate::output::{self, Output};
use crate::patch::{self, Members, Or, Patch, or};
use crate::query::Query;
use crate::table::{self, cell};

pub(crate) const EXAMPLES: &str = "Examples:
  flash cohorts                               all of them, what they lend and what is used
  flash cohorts show lab
  flash cohorts set lab --fair-share 7d       its queues take turns by their weights and what they used
  flash queues set train --cohort lab --guaranteed gpu=4
  flash cohorts delete lab

The queues of a cohort hold together at most what they are guaranteed together, or the cohort's limit. What one of them
leaves idle, others borrow; it comes back when it is wanted, where the borrowing queue is preemptible.";
const SHOW_EXAMPLES: &str = "Examples:
  flash cohorts show lab";
const SET_EXAMPLES: &str = "Examples:
  flash cohorts set lab --limit gpu=16
  flash cohorts set lab --fair-share 7d
  flash cohorts set vision --parent lab
  flash cohorts set lab --fair-share none

What no flag names stays as it is; a cohort that is not there is made. `none` takes back what was said.";
const DELETE_EXAMPLES: &str = "Examples:
  flash cohorts delete lab

Only a cohort that no queue and no other cohort names can be deleted.";

/// Arguments of `flash cohorts`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// What to do; without one, they are listed
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    output: Output,
}

/// What to do with cohorts.
#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Show a cohort
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a cohort, or change what is said of it
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Delete cohorts
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Arguments of `flash cohorts set`.
#[derive(clap::Args, Debug)]
struct SetArgs {
    /// Its name, a DNS label
    name: String,
    /// Cohort that it is a part of; or none
    #[arg(long, value_name = "NAME", value_parser = or::<String>)]
    parent: Option<Or<String>>,
    /// What its queues hold together at most (cpu=32,memory=1Ti,gpu=4); or none
    #[arg(long, value_name = "AMOUNTS", value_parser = patch::amounts)]
    limit: Option<Members>,
    /// Its queues take turns by what they have used; it counts half after this time; or none
    #[arg(long, value_name = "HALF-LIFE", value_parser = or::<Duration>)]
    fair_share: Option<Or<Duration>>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    match &args.command {
        None => {
            let cohorts: CohortList = client.get(&Query::new("/cohorts")).await?;
            print(args.output, &cohorts.items, &cohorts)?;
        }
        Some(Command::Show { name, output }) => {
            let cohort: Cohort = client.get(&Query::new("/cohorts").segment(name)).await?;
            print(*output, std::slice::from_ref(&cohort), &cohort)?;
        }
        Some(Command::Set(args)) => {
            let mut patch = Patch::default();
            patch.set_or("parent", args.parent.as_ref()).set_or("limit", args.limit.as_ref());
            patch.fair_share(args.fair_share.as_ref(), None);
            let (cohort, created): (Cohort, bool) = set(client, "/cohorts", &args.name, &patch).await?;
            output::note(&format!("flash: cohort {} is {}", cohort.name, if created { "new" } else { "changed" }));
            print(args.output, std::slice::from_ref(&cohort), &cohort)?;
        }
        Some(Command::Delete { names }) => delete(client, "/cohorts", "cohort", names).await?,
    }
    Ok(0)
}

fn print<T: serde::Serialize>(output: Output, cohorts: &[Cohort], value: &T) -> Result<(), Error> {
    output.print(
        value,
        |_| cohorts.iter().map(|cohort| cohort.name.clone()).collect(),
        |_, look, _| {
            let rows = cohorts.iter().map(|cohort| {
                vec![
                    cell(&cohort.name),
                    table::maybe(cohort.spec.parent.as_ref()),
                    cell(amounts(&cohort.guaranteed, true)),
                    cell(amounts(&cohort.pool, true)),
                    cell(amounts(&cohort.used, false)),
                    table::maybe(cohort.spec.fair_share.map(|fair| fair.half_life.to_string())),
                    cell(origin(cohort.origin)),
                    cell(if cohort.queues.is_empty() { "-".to_owned() } else { cohort.queues.join(",") }),
                ]
            });
            let header = ["NAME", "PARENT", "GUARANTEED", "POOL", "USED", "FAIR SHARE", "ORIGIN", "QUEUES"];
            table::table(look, &header, rows.collect())
        },
    )
}
