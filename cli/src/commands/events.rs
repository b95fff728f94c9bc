//! `flash events`: what happened to jobs, and what happens now.

use api::{EventList, JobEvent, ServerInfo};
use jiff::tz::TimeZone;

use crate::client::Client;
use crate::commands::{job, job_path, ls};
use crate::error::Error;
use crate::ids;
use crate::output::{self, Format, Output};
use crate::query::Query;
use crate::table::{self, cell, clean};
use crate::watch::{Item, Watch};

pub(crate) const EXAMPLES: &str = "Examples:
  flash events --job 0199c0de-aaaa         all that happened to a job
  flash events -f                          what happens from now on
  flash events -f --after 1200 -o json     from a revision on, one JSON object a line";

/// Events that are read at once.
const PAGE: usize = 1_000;

/// Arguments of `flash events`.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["follow", "job"])))]
pub(crate) struct Args {
    /// Go on with what happens from now, until Ctrl-C
    #[arg(short = 'f', long)]
    follow: bool,
    /// Of this job alone
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Of this namespace alone
    #[arg(long, requires = "follow")]
    namespace: Option<String>,
    /// After this revision; a watch that was ended goes on where it stopped
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    if !args.follow {
        // clap has seen to it that there is a job.
        return past(client, args.job.as_deref().unwrap_or_default(), args).await;
    }
    let job = match &args.job {
        Some(id) => Some(job(client, id).await?.id),
        None => None,
    };
    let after = match args.after {
        Some(after) => after,
        None => client.get::<ServerInfo>(&Query::new("/info")).await?.revision,
    };
    let mut watch = Watch::new(client, job, args.namespace.clone(), after);
    loop {
        match watch.next().await? {
            Item::Event(event) => output::print(&line(&event, args.output)?)?,
            Item::Compacted => {
                let revision = client.get::<ServerInfo>(&Query::new("/info")).await?.revision;
                output::note(&format!("flash: some events are too old to be had any more; going on after revision {revision}"));
                watch.skip_to(revision);
            }
        }
    }
}

/// What happened to one job until now.
async fn past(client: &Client, id: &str, args: &Args) -> Result<u8, Error> {
    let mut after = args.after;
    let mut list = EventList { items: Vec::new(), revision: 0 };
    loop {
        let mut query = job_path(id)?.segment("events").with("limit", &PAGE.to_string());
        if let Some(after) = after {
            query = query.with("after", &after.to_string());
        }
        let page: EventList = client.get(&query).await?;
        let full = page.items.len() >= PAGE;
        after = page.items.last().map(|event| event.revision);
        list.items.extend(page.items);
        list.revision = page.revision;
        if !full {
            break;
        }
    }
    args.output.print(
        &list,
        |list| list.items.iter().map(|event| event.revision.to_string()).collect(),
        |list, look, _| {
            let rows = list.items.iter().map(|event| {
                let at = event.at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
                let outcome = event.outcome.as_ref().map(ls::ending);
                let numbers = [event.revision.to_string(), at, event.event.clone()];
                let mut row: Vec<_> = numbers.iter().map(cell).collect();
                row.extend([cell(event.state.as_str()), cell(event.attempt.to_string()), table::maybe(outcome)]);
                row
            });
            table::table(look, &["REVISION", "TIME", "EVENT", "STATE", "ATTEMPT", "OUTCOME"], rows.collect())
        },
    )?;
    Ok(0)
}

/// An event on a line of its own, as it comes.
fn line(event: &JobEvent, output: Output) -> Result<String, Error> {
    Ok(match output.format {
        Format::Json => output::json_line(event)?,
        Format::Yaml => format!("---\n{}", output::yaml(event)?),
        Format::Name => format!("{}\n", event.job),
        Format::Table | Format::Wide => {
            let at = event.at.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
            let id = if output.format == Format::Wide { event.job.to_string() } else { ids::short(event.job) };
            let ending = event.outcome.as_ref().map(|outcome| format!(": {}", ls::ending(outcome))).unwrap_or_default();
            let text = format!(
                "{}  {at}  {id}  {}  {} (attempt {}){ending}",
                event.revision, event.namespace, event.event, event.attempt
            );
            clean(&text) + "\n"
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event: JobEvent = serde_json::from_value(serde_json::json!({
            "revision": 9, "job": "0199c0de-aaaa-7000-8000-000000000000", "namespace": "default", "at": "2026-01-01T00:00:00Z",
            "event": "ended", "state": "finished", "attempt": 1, "outcome": {"result": "failed", "message": "two\nlines"},
        }))
        .unwrap();
        let text = |format| line(&event, Output { format }).unwrap();
        assert!(text(Format::Table).starts_with("9  "));
        assert!(text(Format::Table).ends_with("0199c0de-aaaa  default  ended (attempt 1): failed: two?lines\n"));
        assert_eq!(text(Format::Json).lines().count(), 1);
        assert_eq!(serde_json::from_str::<JobEvent>(&text(Format::Json)).unwrap(), event);
        assert_eq!(text(Format::Name), "0199c0de-aaaa-7000-8000-000000000000\n");
    }
}
