//! `flash why`: why a job does not run yet, as a person would answer.

use api::Why;
use jiff::Timestamp;

use crate::client::Client;
use crate::commands::job_path;
use crate::error::Error;
use crate::output::{self, Format, Output};
use crate::query::Query;
use crate::table::clean;
use crate::when;

pub(crate) const EXAMPLES: &str = "Examples:
  flash why 0199c0de-aaaa
  flash why 0199c0de-aaaa -o json | jq .shortages";

/// Arguments of `flash why`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ids, or the beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let now = Timestamp::now();
    for (at, id) in args.ids.iter().enumerate() {
        let why = ask(client, job_path(id)?).await?;
        if args.output.is_table() && args.ids.len() > 1 {
            output::print(&format!("{}{}:\n", if at > 0 { "\n" } else { "" }, why.job))?;
        }
        if at > 0 && args.output.format == Format::Yaml {
            output::print("---\n")?;
        }
        args.output.print(&why, |why| vec![why.reason.clone()], |why, _, _| answer(why, now))?;
    }
    Ok(0)
}

/// Asks why.
pub(super) async fn ask(client: &Client, job: Query) -> Result<Why, Error> {
    client.get(&job.segment("why")).await
}

/// The answer, in lines.
fn answer(why: &Why, now: Timestamp) -> String {
    let mut lines = vec![clean(&why.message)];
    if let Some(at) = why.expected_start {
        lines.push(format!("That is {}.", when::moment(at, now)));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_answer_reads_as_one() {
        let why: Why = serde_json::from_value(serde_json::json!({
            "job": "0199c0de-aaaa-7000-8000-000000000000", "state": "queued", "reason": "resources",
            "message": "It needs 2 GPUs, and 1 is free.", "position": 3,
            "shortages": [{"resource": "gpu", "asked": "2", "free": "1", "total": "4"}],
            "expectedStart": "2026-01-01T00:05:00Z",
        }))
        .unwrap();
        let text = answer(&why, "2026-01-01T00:00:00Z".parse().unwrap());
        assert!(text.starts_with("It needs 2 GPUs, and 1 is free.\nThat is "), "{text}");
        assert!(text.ends_with("(in 5m).\n"), "{text}");
    }
}
