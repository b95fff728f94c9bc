//! `flash events`: what happened to jobs, GPUs, nodes and queues, and what happens now.

use api::{EventList, JobEvent, Notice, NoticeList, ServerInfo};
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
  flash events --kind gpu                  what happened to GPUs
  flash events --name GPU-7f3a             to this GPU, node or queue
  flash events -f                          what happens from now on
  flash events -f --kind gpu,node          to GPUs and nodes alone
  flash events -f --after 1200 -o json     from a revision on, one JSON object a line";

/// Events that are read at once.
const PAGE: usize = 1_000;

/// Arguments of `flash events`.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["follow", "job", "kind", "name"])))]
pub(crate) struct Args {
    /// Go on with what happens from now, until Ctrl-C
    #[arg(short = 'f', long)]
    follow: bool,
    /// Of this job alone
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Of things of this kind alone: job, gpu, node, queue, cohort, priorityClass; several with commas where they are followed
    #[arg(long, value_name = "KIND", conflicts_with_all = ["job", "namespace"])]
    kind: Option<String>,
    /// Of this GPU, node or queue alone
    #[arg(long, conflicts_with_all = ["job", "namespace"])]
    name: Option<String>,
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
        return match &args.job {
            Some(job) => past(client, job, args).await,
            None => told(client, args).await,
        };
    }
    let job = match &args.job {
        Some(id) => Some(job(client, id).await?.id),
        None => None,
    };
    let after = match args.after {
        Some(after) => after,
        None => client.get::<ServerInfo>(&Query::new("/info")).await?.revision,
    };
    let mut watch = Watch::new(client, job, args.namespace.clone(), after).with_notices(args.kind.clone());
    loop {
        match watch.next().await? {
            Item::Event(_) if args.name.is_some() => {}
            Item::Event(event) => output::print(&line(&event, args.output)?)?,
            Item::Notice(notice) if args.name.as_ref().is_some_and(|name| *name != notice.name) => {}
            Item::Notice(notice) => output::print(&notice_line(&notice, args.output)?)?,
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
    let page = async |after: Option<String>| {
        let query = job_path(id)?.segment("events").with("limit", &PAGE.to_string()).maybe("after", after.as_deref());
        let page: EventList = client.get(&query).await?;
        Ok((page.items, page.revision))
    };
    let (items, revision) = pages(args.after, page, |event| event.revision).await?;
    let list = EventList { items, revision };
    args.output.print(
        &list,
        |list| list.items.iter().map(|event| event.revision.to_string()).collect(),
        |list, look, _| {
            let rows = list.items.iter().map(|event| {
                let at = exactly(event.at);
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

/// A time as events have it: to the millisecond, in the zone of who reads it.
fn exactly(at: jiff::Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// Everything after a revision, page by page, and the revision of the log at the last of them.
async fn pages<T>(
    after: Option<u64>,
    page: impl AsyncFn(Option<String>) -> Result<(Vec<T>, u64), Error>,
    revision: impl Fn(&T) -> u64,
) -> Result<(Vec<T>, u64), Error> {
    let (mut all, mut after) = (Vec::new(), after);
    loop {
        let (items, head) = page(after.map(|after| after.to_string())).await?;
        let full = items.len() >= PAGE;
        after = items.last().map(&revision);
        all.extend(items);
        if !full {
            return Ok((all, head));
        }
    }
}

/// What happened to GPUs, nodes and queues until now.
async fn told(client: &Client, args: &Args) -> Result<u8, Error> {
    let page = async |after: Option<String>| {
        let query = Query::new("/notices").with("limit", &PAGE.to_string()).maybe("after", after.as_deref());
        let query = query.maybe("kind", args.kind.as_deref()).maybe("name", args.name.as_deref());
        let page: NoticeList = client.get(&query).await?;
        Ok((page.items, page.revision))
    };
    let (items, revision) = pages(args.after, page, |notice| notice.revision).await?;
    let list = NoticeList { items, revision };
    args.output.print(
        &list,
        |list| list.items.iter().map(|notice| notice.revision.to_string()).collect(),
        |list, look, _| {
            let rows = list.items.iter().map(|notice| {
                let at = exactly(notice.at);
                let mut row: Vec<_> = [notice.revision.to_string(), at].iter().map(cell).collect();
                row.extend([cell(notice.kind.as_str()), cell(&notice.name), cell(&notice.event)]);
                row.extend([table::maybe(notice.by.clone()), table::maybe(notice.reason.clone())]);
                row
            });
            table::table(look, &["REVISION", "TIME", "KIND", "NAME", "EVENT", "BY", "REASON"], rows.collect())
        },
    )?;
    Ok(0)
}

/// The same for what is no job.
fn notice_line(notice: &Notice, output: Output) -> Result<String, Error> {
    Ok(match output.format {
        Format::Json => output::json_line(notice)?,
        Format::Yaml => format!("---\n{}", output::yaml(notice)?),
        Format::Name => format!("{}\n", notice.name),
        Format::Table | Format::Wide => {
            let at = notice.at.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
            let node = notice.node.as_ref().map(|node| format!(" of {node}")).unwrap_or_default();
            let by = notice.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let reason = notice.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let Notice { revision, kind, name, event, .. } = notice;
            clean(&format!("{revision}  {at}  {} {name}{node}  {event}{by}{reason}", kind.as_str())) + "\n"
        }
    })
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

    #[test]
    fn a_notice_is_one_line() {
        let notice: Notice = serde_json::from_value(serde_json::json!({
            "revision": 9, "at": "2026-01-01T00:00:00Z", "kind": "gpu", "name": "GPU-1", "event": "heldBack", "node": "box",
            "cause": "foreign", "reason": "used by\nsomebody",
        }))
        .unwrap();
        let text = |format| notice_line(&notice, Output { format }).unwrap();
        assert!(text(Format::Table).starts_with("9  "));
        assert!(text(Format::Table).ends_with("gpu GPU-1 of box  heldBack: used by?somebody\n"));
        assert_eq!(text(Format::Json).lines().count(), 1);
        assert_eq!(serde_json::from_str::<Notice>(&text(Format::Json)).unwrap(), notice);
        assert_eq!(text(Format::Name), "GPU-1\n");
    }
}
