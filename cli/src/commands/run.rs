//! `flash run`: queues a job, shows what it prints as it comes, and exits as it exits.
//!
//! Invariants: nothing the job printed is lost over a reconnect or a new try; the first Ctrl-C asks to cancel the job and goes on showing
//! it, the second leaves it; a closed stdout leaves it, too, and never cancels. One plain function handles each thing that happens.

use std::sync::Arc;
use std::time::Duration;

use api::{Job, Outcome, OutcomeWord, ServerInfo, State};
use clap::ValueHint;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::Client;
use crate::commands::logs::{elsewhere, sources};
use crate::commands::{ls, submit, why};
use crate::error::Error;
use crate::place::PlaceArgs;
use crate::query::Query;
use crate::spec::{self, NeedArgs, PolicyArgs, Surroundings};
use crate::table::clean;
use crate::watch::{Item, Watch};
use crate::{exit, ids, output};

pub(crate) const EXAMPLES: &str = "Examples:
  flash run -- make -j4
  flash run -g 1 -t 10m -- python evaluate.py
  flash run -c 4 -m 8Gi -e OMP_NUM_THREADS=4 -- ./simulate > result.txt
  flash run --replicas 2 -- hostname        several tasks: lines begin with [task]

The job's stdout goes to stdout, its stderr to stderr; its stdin is empty.
Ctrl-C asks to cancel the job, a second Ctrl-C leaves it.";

/// A job that has not started by then gets an explanation.
const EXPLAIN_AFTER: Duration = Duration::from_secs(1);
/// What the shell gives for Ctrl-C.
const INTERRUPTED: u8 = 130;
/// What the shell gives for a closed pipe.
const PIPE_CLOSED: u8 = 141;

/// Arguments of `flash run`.
#[derive(clap::Args, Debug)]
#[command(override_usage = "flash run [OPTIONS] -- COMMAND...")]
pub(crate) struct Args {
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    needs: NeedArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Program and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND", required = true, value_hint = ValueHint::CommandWithArguments)]
    command: Vec<String>,
}

/// What a task of ours came back with.
enum Done {
    /// A log was copied to its end.
    Copied(Result<(), Error>),
    /// The server answered to the wish to cancel.
    Cancelled(Result<(), Error>),
    /// Why the job does not run.
    Explained(Result<Box<api::Why>, Error>),
}

/// What happened.
enum Step {
    Followed(Item),
    Done(Done),
    Interrupt,
    Late,
}

/// A job that is shown.
struct Follower {
    client: Arc<Client>,
    id: Uuid,
    state: State,
    /// The latest try whose logs are shown.
    shown: u32,
    outcome: Option<Outcome>,
    interrupts: u32,
    explained: bool,
    tasks: JoinSet<Done>,
}

pub(crate) async fn run(client: Arc<Client>, args: &Args) -> Result<u8, Error> {
    let job = spec::from_command(&args.command, &args.policy, &args.needs, &args.place, &Surroundings::here()?)?;
    // Before the job exists: from here on, no event of it can be missed.
    let mut revision = client.get::<ServerInfo>(&Query::new("/info")).await?.revision;
    let id = submit::one(&client, &job, args.policy.idempotency_key.as_deref()).await?.id;
    // From now on Ctrl-C is ours, and none is missed.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(Error::system("listening to Ctrl-C"))?;
    if output::someone_reads() {
        output::note(&format!("flash: job {}", ids::short(id)));
    }
    let mut follower = Follower {
        client: Arc::clone(&client),
        id,
        state: State::Queued,
        shown: 0,
        outcome: None,
        interrupts: 0,
        explained: false,
        tasks: JoinSet::new(),
    };
    if args.policy.idempotency_key.is_some() {
        // The key may stand for a job of earlier: its past is not in the stream.
        revision = follower.read_anew().await?;
    }
    let mut watch = Watch::new(&client, Some(id), None, revision);
    let late = tokio::time::sleep(EXPLAIN_AFTER);
    tokio::pin!(late);
    while follower.outcome.is_none() || !follower.tasks.is_empty() {
        let step = tokio::select! {
            item = watch.next(), if follower.outcome.is_none() => Step::Followed(item?),
            Some(done) = follower.tasks.join_next(), if !follower.tasks.is_empty() => Step::Done(done.map_err(Error::system("copying a log"))?),
            Some(()) = interrupts.recv() => Step::Interrupt,
            () = &mut late, if !follower.explained && follower.outcome.is_none() => Step::Late,
        };
        match step {
            Step::Followed(Item::Event(event)) => follower.moved(event.state, event.attempt, event.outcome).await?,
            Step::Followed(Item::Notice(_)) => {}
            Step::Followed(Item::Compacted) => {
                let revision = follower.read_anew().await?;
                watch.skip_to(revision);
            }
            Step::Done(done) => {
                if let Some(code) = follower.done(done)? {
                    return Ok(code);
                }
            }
            Step::Interrupt => {
                if let Some(code) = follower.interrupted() {
                    return Ok(code);
                }
            }
            Step::Late => follower.late(),
        }
    }
    Ok(follower.code())
}

impl Follower {
    fn path(&self) -> Query {
        Query::new("/jobs").segment(&self.id.to_string())
    }

    /// Reads how the job stands and gives the revision from which to follow.
    async fn read_anew(&mut self) -> Result<u64, Error> {
        let revision = self.client.get::<ServerInfo>(&Query::new("/info")).await?.revision;
        let job: Job = self.client.get(&self.path()).await?;
        self.moved(job.state, job.attempt, job.outcome).await?;
        Ok(revision)
    }

    /// The job is in another state: a try that has begun is shown.
    async fn moved(&mut self, state: State, attempt: u32, outcome: Option<Outcome>) -> Result<(), Error> {
        self.state = state;
        let begun = matches!(state, State::Running | State::Stopping | State::Finished);
        if begun && attempt > self.shown {
            if self.shown > 0 {
                output::note(&format!("flash: it runs again: this is try {attempt}"));
            } else if self.explained && output::someone_reads() {
                output::note("flash: started");
            }
            self.shown = attempt;
            let job: Job = self.client.get(&self.path()).await?;
            if let Some(where_it_is) = elsewhere(&job, attempt) {
                output::note(&where_it_is);
            }
            for source in sources(&job, None, attempt, true) {
                let client = Arc::clone(&self.client);
                self.tasks.spawn(async move { Done::Copied(source.copy(&client).await) });
            }
        }
        if state == State::Finished {
            self.outcome = outcome;
            if self.outcome.is_none() {
                return Err(Error::lost("the server says that the job is over, but not how it ended"));
            }
        }
        Ok(())
    }

    /// An answer is there. A code means that there is nothing more to do.
    fn done(&mut self, done: Done) -> Result<Option<u8>, Error> {
        match done {
            Done::Copied(Err(error)) if error.is_closed_stdout() => {
                output::note(&format!(
                    "flash: stdout was closed; the job goes on: flash logs -f {0}, flash cancel {0}",
                    ids::short(self.id)
                ));
                return Ok(Some(PIPE_CLOSED));
            }
            // A run that never started has no log.
            Done::Copied(Err(error)) if error.status() == Some(404) => {}
            Done::Copied(Err(error)) => return Err(error),
            Done::Cancelled(Err(error)) => output::note(&format!("flash: it cannot be cancelled: {error}")),
            Done::Explained(Ok(why)) if matches!(self.state, State::Waiting | State::Queued) => {
                output::note(&format!("flash: not started yet: {}", why::sentence(&why)));
            }
            // Without an explanation the job runs as well.
            Done::Copied(Ok(())) | Done::Cancelled(Ok(())) | Done::Explained(_) => {}
        }
        Ok(None)
    }

    /// Ctrl-C. A code means that we leave.
    fn interrupted(&mut self) -> Option<u8> {
        self.interrupts += 1;
        if self.outcome.is_some() {
            return Some(self.code());
        }
        let id = ids::short(self.id);
        if self.interrupts > 1 {
            output::note(&format!("flash: leaving job {id}: flash show {id}"));
            return Some(INTERRUPTED);
        }
        output::note(&format!("flash: cancelling job {id}; Ctrl-C again leaves it"));
        let (client, path) = (Arc::clone(&self.client), self.path().segment("cancel"));
        self.tasks.spawn(async move { Done::Cancelled(client.post_empty::<Job>(&path).await.map(drop)) });
        None
    }

    /// The job should have started by now.
    fn late(&mut self) {
        self.explained = true;
        if matches!(self.state, State::Waiting | State::Queued) {
            let (client, path) = (Arc::clone(&self.client), self.path());
            self.tasks.spawn(async move { Done::Explained(why::ask(&client, path).await.map(Box::new)) });
        }
    }

    /// The job's own exit code; what is not success is told.
    fn code(&self) -> u8 {
        let Some(outcome) = &self.outcome else { return 1 };
        if outcome.result != OutcomeWord::Succeeded {
            output::note(&format!("flash: job {} {}", ids::short(self.id), clean(&ls::ending(outcome))));
        }
        exit::code(outcome)
    }
}
