//! One module for each command; this one chooses it and gives it a runtime and a client.
//!
//! Invariant: a command that needs no server makes neither.

pub(crate) mod act;
pub(crate) mod apply;
pub(crate) mod cancel;
pub(crate) mod cohorts;
pub(crate) mod completion;
pub(crate) mod events;
pub(crate) mod gpus;
pub(crate) mod info;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod nodes;
pub(crate) mod priorities;
pub(crate) mod queues;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod simulate;
pub(crate) mod submit;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod usage;
pub(crate) mod wait;
pub(crate) mod why;

use std::sync::Arc;

use api::Job;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::error::Error;
use crate::ids;
use crate::query::Query;

/// Does what the command line says and gives the exit code.
pub(crate) fn dispatch(cli: Cli) -> Result<u8, Error> {
    if let Command::Completion(args) = &cli.command {
        return completion::run(args);
    }
    if let Command::Simulate(args) = &cli.command
        && !args.needs_server()
    {
        return simulate::run(args);
    }
    let client = Arc::new(Client::new(cli.server.as_deref().filter(|server| !server.is_empty()), cli.token_file.as_deref())?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::system("starting"))?;
    let code = runtime.block_on(command(client, cli.command));
    // A name lookup that nobody waits for any more must not hold us back.
    runtime.shutdown_background();
    code
}

async fn command(client: Arc<Client>, command: Command) -> Result<u8, Error> {
    match command {
        Command::Submit(args) => submit::run(&client, &args).await,
        Command::Run(args) => run::run(client, &args).await,
        Command::Ls(args) => ls::run(&client, &args).await,
        Command::Show(args) => show::run(&client, &args).await,
        Command::Logs(args) => logs::run(client, &args).await,
        Command::Wait(args) => wait::run(&client, &args).await,
        Command::Why(args) => why::run(&client, &args).await,
        Command::Cancel(args) => cancel::run(&client, &args).await,
        Command::Hold(args) => act::run(&client, "hold", &args).await,
        Command::Release(args) => act::run(&client, "release", &args).await,
        Command::Requeue(args) => act::run(&client, "requeue", &args).await,
        Command::Update(args) => update::run(&client, &args).await,
        Command::Events(args) => events::run(&client, &args).await,
        Command::Queues(args) => queues::run(&client, &args).await,
        Command::Cohorts(args) => cohorts::run(&client, &args).await,
        Command::Priorities(args) => priorities::run(&client, &args).await,
        Command::Nodes(args) => nodes::run(&client, &args).await,
        Command::Gpus(args) => gpus::run(&client, &args).await,
        Command::Top(args) => top::run(&client, &args).await,
        Command::Usage(args) => usage::run(&client, &args).await,
        Command::Simulate(args) => simulate::ask(&client, &args).await,
        Command::Token { command } => token::run(&client, &command).await,
        Command::Info(args) => info::run(&client, &args).await,
        Command::Completion(args) => completion::run(&args),
    }
}

/// A job, by its id or the beginning of it.
async fn job(client: &Client, id: &str) -> Result<Job, Error> {
    client.get(&job_path(id)?).await
}

/// `/jobs/{id}`.
fn job_path(id: &str) -> Result<Query, Error> {
    Ok(Query::new("/jobs").segment(&ids::parse(id)?))
}
