//! `flash update`: changes jobs that wait.
//!
//! Invariant: what is not named on the command line is not sent, and so stays.

use api::quantity::Duration;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::commands::{act, job_path};
use crate::error::Error;
use crate::output::Output;

pub(crate) const EXAMPLES: &str = "Examples:
  flash update 12 --priority 50                 ahead of others in its queue
  flash update 12 --time-limit 30m              short enough to go ahead of a job that room is kept for
  flash update 12 --queue night --time-limit none
  flash ls --mine -s queued -o name | xargs flash update -q night

Jobs that wait can be changed, as long as they have not been placed; they keep their age.";

/// Arguments of `flash update`.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Args {
    /// Numbers, ids, or the beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Added to the queue's base priority; larger runs earlier
    #[arg(short = 'p', long, value_name = "N", allow_negative_numbers = true, group = "what")]
    priority: Option<i32>,
    /// Priority by its name, as `flash priorities` shows them
    #[arg(long, value_name = "NAME", conflicts_with = "priority", group = "what")]
    priority_class: Option<String>,
    /// Queue it waits in
    #[arg(short = 'q', long, group = "what")]
    queue: Option<String>,
    /// Longest time that it may run (90s, 2h, 1h30m), or none
    #[arg(short = 't', long, value_name = "DURATION|none", value_parser = limit, group = "what")]
    time_limit: Option<Limit>,
    /// Tries in all when infrastructure loses it
    #[arg(long, value_name = "N", group = "what")]
    max_attempts: Option<u32>,
    /// Signal that asks it to end
    #[arg(long, value_name = "SIGNAL", group = "what")]
    stop_signal: Option<String>,
    /// Time between that signal and SIGKILL
    #[arg(long, value_name = "DURATION", group = "what")]
    grace: Option<Duration>,
    #[command(flatten)]
    output: Output,
}

/// `None`: it may run for ever.
type Limit = Option<Duration>;

fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: api::quantity::QuantityError| format!("{error}; or none"))
}

impl Args {
    fn patch(&self) -> Value {
        let mut patch = Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                patch.insert(key.to_owned(), value);
            }
        };
        set("priority", self.priority.map(|priority| json!(priority)));
        set("priorityClass", self.priority_class.as_ref().map(|class| json!(class)));
        set("queue", self.queue.as_ref().map(|queue| json!(queue)));
        set("timeLimit", self.time_limit.map(|limit| json!(limit)));
        set("retry", self.max_attempts.map(|tries| json!({"maxAttempts": tries})));
        let mut stop = Map::new();
        stop.extend(self.stop_signal.as_ref().map(|signal| ("signal".to_owned(), json!(signal))));
        stop.extend(self.grace.map(|grace| ("grace".to_owned(), json!(grace))));
        set("stop", (!stop.is_empty()).then_some(Value::Object(stop)));
        Value::Object(patch)
    }
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let paths = args.ids.iter().map(|id| job_path(id)).collect::<Result<Vec<_>, Error>>()?;
    let patch = args.patch();
    act::to_all(&args.ids, args.output, async |at| client.patch(&paths[at], &patch).await).await
}
