//! `flash cancel`: ends jobs, by id or by what they have in common.
//!
//! Invariant: many jobs are cancelled by a filter only after a person said yes, or `-y` did.

use crate::client::Client;
use crate::commands::act;
use crate::error::Error;
use crate::list::{self, Filter, UNFINISHED};
use crate::output::{self, Output};

pub(crate) const EXAMPLES: &str = "Examples:
  flash cancel 0199c0de-aaaa
  flash cancel 0199c0de-aaaa 0199c0de-bbbb
  flash cancel -l sweep=7              all unfinished jobs with that label, after a question
  flash cancel --all-mine -y           all of yours, without a question";

/// Arguments of `flash cancel`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ids, or the beginnings of ids
    #[arg(required_unless_present_any = ["all_mine", "selector"], conflicts_with_all = ["all_mine", "selector"], value_name = "ID")]
    ids: Vec<String>,
    /// All unfinished jobs of yours
    #[arg(long)]
    all_mine: bool,
    /// All unfinished jobs with these labels: `team=vision,stage!=test`
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Of these, those in this queue
    #[arg(short = 'q', long, conflicts_with = "ids")]
    queue: Option<String>,
    /// Of these, those in this namespace
    #[arg(long, conflicts_with = "ids")]
    namespace: Option<String>,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    if !args.ids.is_empty() {
        return act::each(client, "cancel", &args.ids, args.output).await;
    }
    let filter = Filter {
        queue: args.queue.clone(),
        namespace: args.namespace.clone(),
        mine: args.all_mine,
        selector: args.selector.clone(),
        ..Filter::default()
    };
    let found = list::jobs(client, &filter, Some(UNFINISHED), None, 0).await?;
    let ids: Vec<String> = found.items.iter().map(|job| job.id.to_string()).collect();
    if ids.is_empty() {
        output::note("flash: no unfinished job is so");
        return Ok(0);
    }
    if !args.yes {
        let jobs = if ids.len() == 1 { "1 job".to_owned() } else { format!("{} jobs", ids.len()) };
        match output::confirm(&format!("Cancel {jobs}?")) {
            Some(true) => {}
            Some(false) => {
                output::note("flash: nothing was cancelled");
                return Ok(0);
            }
            None => return Err(Error::usage(format!("this cancels {jobs}, and there is no terminal to ask on: say -y"))),
        }
    }
    act::each(client, "cancel", &ids, args.output).await
}
