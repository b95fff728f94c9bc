//! `flash priorities`: priorities with names.

use api::{PriorityClass, PriorityClassList, PriorityClassSpec};

use super::queues::{delete, origin};
use crate::client::Client;
use crate::error::Error;
use crate::output::{self, Output};
use crate::query::Query;
use crate::table::{self, cell};

pub(crate) const EXAMPLES: &str = "Examples:
  flash priorities
  flash priorities set urgent 1000
  flash submit --priority-class urgent -- make deploy
  flash priorities delete urgent

A job that names a priority class gets the number that the class has when it is submitted; a later change of the class does
not touch it. Everybody may use them; only root and the user that flashd runs as may change them.";
const SET_EXAMPLES: &str = "Examples:
  flash priorities set urgent 1000
  flash priorities set low -100";
const DELETE_EXAMPLES: &str = "Examples:
  flash priorities delete urgent";

/// Arguments of `flash priorities`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// What to do; without one, they are listed
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    output: Output,
}

/// What to do with priority classes.
#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Make a priority class, or change its number
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// Its name, a DNS label
        name: String,
        /// The priority of jobs that name it
        #[arg(allow_negative_numbers = true)]
        priority: i32,
    },
    /// Delete priority classes
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    match &args.command {
        None => {
            let classes: PriorityClassList = client.get(&Query::new("/priorityclasses")).await?;
            args.output.print(
                &classes,
                |classes| classes.items.iter().map(|class| class.name.clone()).collect(),
                |classes, look, _| {
                    let row = |class: &PriorityClass| {
                        vec![cell(&class.name), cell(class.spec.priority.to_string()), cell(origin(class.origin))]
                    };
                    table::table(look, &["NAME", "PRIORITY", "ORIGIN"], classes.items.iter().map(row).collect())
                },
            )?;
        }
        Some(Command::Set { name, priority }) => {
            let spec = PriorityClassSpec { priority: *priority };
            let class: PriorityClass = client.put(&Query::new("/priorityclasses").segment(name), &spec).await?;
            output::note(&format!("flash: priority class {} is {}", class.name, class.spec.priority));
        }
        Some(Command::Delete { names }) => delete(client, "/priorityclasses", "priority class", names).await?,
    }
    Ok(0)
}
