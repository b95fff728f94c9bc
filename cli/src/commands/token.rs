//! `flash token`: the tokens that let programs in over TCP.

use api::{CreatedToken, NewToken, TokenList};
use jiff::Timestamp;

use crate::client::Client;
use crate::error::Error;
use crate::output::{self, Output};
use crate::query::Query;
use crate::table::{self, cell};
use crate::when;

pub(crate) const EXAMPLES: &str = "Examples:
  flash token create laptop --ttl 30d
  export FLASH_TOKEN=$(flash token create ci) FLASH_SERVER=http://gpubox:7700
  flash token ls
  flash token rm 3f2a9c";

const CREATE_EXAMPLES: &str = "Examples:
  flash token create laptop
  export FLASH_TOKEN=$(flash token create ci --ttl 7d)";
const LS_EXAMPLES: &str = "Examples:
  flash token ls
  flash token ls -o json";
const RM_EXAMPLES: &str = "Examples:
  flash token rm 3f2a9c
  flash token ls -o name | xargs flash token rm";

/// What to do with tokens.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make one and print its secret, which is shown only now
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// What it is for
        name: String,
        /// How long it is good [default: 90d]
        #[arg(long, value_name = "DURATION")]
        ttl: Option<api::quantity::Duration>,
        #[command(flatten)]
        output: Output,
    },
    /// List yours
    #[command(after_help = LS_EXAMPLES, visible_alias = "list")]
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Remove some: whoever has them is let in no more
    #[command(after_help = RM_EXAMPLES)]
    Rm {
        /// Their ids, as `flash token ls` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

pub(crate) async fn run(client: &Client, command: &Command) -> Result<u8, Error> {
    match command {
        Command::Create { name, ttl, output } => {
            let wanted = NewToken { name: name.clone(), ttl: *ttl };
            let made: CreatedToken = client.post(&Query::new("/tokens"), &wanted, &[]).await?;
            output.print(&made, |made| vec![made.token.id.clone()], |made, _, _| format!("{}\n", made.secret))?;
            if output.is_table() {
                let until = made.token.expires_at.map(|at| format!(", good until {}", when::moment(at, Timestamp::now())));
                output::note(&format!(
                    "flash: token {} for {}{}; put it into FLASH_TOKEN. It is not shown again.",
                    made.token.id,
                    made.token.user,
                    until.unwrap_or_default()
                ));
            }
        }
        Command::Ls { output } => {
            let tokens: TokenList = client.get(&Query::new("/tokens")).await?;
            let now = Timestamp::now();
            output.print(
                &tokens,
                |tokens| tokens.items.iter().map(|token| token.id.clone()).collect(),
                |tokens, look, _| {
                    let rows = tokens.items.iter().map(|token| {
                        let expires = token.expires_at.map_or_else(|| "never".to_owned(), |at| expiry(at, now));
                        let age = when::between(token.created_at, now);
                        vec![cell(&token.id), cell(&token.name), cell(&token.user), cell(age), cell(expires)]
                    });
                    table::table(look, &["ID", "NAME", "USER", "AGE", "EXPIRES"], rows.collect())
                },
            )?;
        }
        Command::Rm { ids } => {
            for id in ids {
                client.delete(&Query::new("/tokens").segment(id)).await?;
                output::note(&format!("flash: token {} is removed", table::clean(id)));
            }
        }
    }
    Ok(0)
}

fn expiry(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", when::between(now, at)) } else { "ended".to_owned() }
}
