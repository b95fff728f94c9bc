//! `flash why`: why a job is where it is, as a person would answer.
//!
//! Invariant: the sentences are the server's; here they are put in order, and their times into the zone of who reads them.

use api::{Basis, Why};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::client::Client;
use crate::commands::job_path;
use crate::error::Error;
use crate::output::{self, Format, Output};
use crate::query::Query;
use crate::table::clean;
use crate::when;

pub(crate) const EXAMPLES: &str = "Examples:
  flash why 42
  flash why 42 -o json | jq .suggestions";

/// Arguments of `flash why`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Numbers, ids, or the beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let now = Timestamp::now();
    for (at, id) in args.ids.iter().enumerate() {
        let why = ask(client, job_path(id)?).await?;
        if args.output.is_table() && at > 0 {
            output::print("\n")?;
        }
        if at > 0 && args.output.format == Format::Yaml {
            output::print("---\n")?;
        }
        let zone = TimeZone::system();
        args.output.print(&why, |why| vec![why.reason.as_str().to_owned()], |why, _, _| answer(why, now, &zone))?;
    }
    Ok(0)
}

/// Asks why.
pub(super) async fn ask(client: &Client, job: Query) -> Result<Why, Error> {
    client.get(&job.segment("why")).await
}

/// The answer, in lines.
fn answer(why: &Why, now: Timestamp, zone: &TimeZone) -> String {
    let mut lines = vec![format!("Job {} is {}. {}", why.number, why.state.as_str(), why.message)];
    lines.extend(place(why));
    // Otherwise the reason says it already.
    let tells = |basis| matches!(basis, Basis::TimeLimits | Basis::NoTimeLimit | Basis::TooFar | Basis::Change);
    lines.extend(why.estimate.iter().filter(|estimate| tells(estimate.basis)).map(|estimate| estimate.message.clone()));
    lines.extend(why.suggestions.iter().map(|suggestion| suggestion.message.clone()));
    if why.attempts.len() > 1 {
        lines.extend(why.attempts.iter().map(|attempt| attempt.message.clone()));
    }
    lines.iter().map(|line| local(&clean(line), now, zone) + "\n").collect()
}

/// Where it stands in its queue, and who is ahead.
fn place(why: &Why) -> Option<String> {
    let (position, queued) = why.position.zip(why.queued)?;
    let others = why.ahead.iter().map(|ahead| {
        let name = ahead.job.number.map_or_else(|| ahead.job.id.to_string(), |number| format!("#{number}"));
        format!("{name} of \"{}\" ({})", ahead.namespace, ahead.message)
    });
    let named: Vec<String> = others.collect();
    let more = (position - 1).saturating_sub(named.len() as u64);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    let queue = &why.queue;
    Some(match (position, queued) {
        (1, 1) => format!("In queue \"{queue}\" it is the only one."),
        (1, _) => format!("In queue \"{queue}\" it is the first of {queued}."),
        _ => format!("In queue \"{queue}\" it is number {position} of {queued}, behind {}{rest}.", named.join(", ")),
    })
}

/// The text with its times in this zone: the time alone if it is today, and how far away it is.
fn local(text: &str, now: Timestamp, zone: &TimeZone) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
        let Ok(at) = bare.parse::<Timestamp>() else { return word.to_owned() };
        let (local, today) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()).date());
        let format = if local.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        let far = if at > now { format!("in {}", when::between(now, at)) } else { format!("{} ago", when::between(at, now)) };
        format!("{} ({far}){}", local.strftime(format), &word[bare.len()..])
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The sentence of an answer, with times in the zone of who reads it.
pub(super) fn sentence(why: &Why) -> String {
    local(&clean(&why.message), Timestamp::now(), &TimeZone::system())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_answer_reads_as_one() {
        let why: Why = serde_json::from_value(serde_json::json!({
            "job": "0199c0de-aaaa-7000-8000-000000000000", "number": 42, "state": "queued", "queue": "q",
            "reason": "resources",
            "shortfall": {"shortages": [{"resource": "gpu", "asked": "2", "free": "1", "total": "4", "largestTask": "2", "largestFree": "1"}]},
            "message": "It is the next: node a has room from 2026-01-01T00:05:00Z; it needs 2 GPUs.",
            "position": 9, "queued": 11,
            "ahead": [{"id": "0199c0de-bbbb-7000-8000-000000000000", "number": 12, "namespace": "b", "queue": "q",
                       "rule": "priority", "theirs": 5, "own": 1, "message": "higher priority: 5 against 1"}],
            "estimate": {"basis": "timeLimits", "latest": "2026-01-02T00:05:00Z", "message": "It starts at 2026-01-02T00:05:00Z at the latest."},
            "suggestions": [{"field": "tasks[0].resources.gpu", "value": "1", "option": "--gpus 1", "nodes": ["a"],
                             "message": "With `--gpus 1` it would start at once on node a."}],
        }))
        .unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let text = answer(&why, "2026-01-01T00:00:00Z".parse().unwrap(), &zone);
        let lines = [
            "Job 42 is queued. It is the next: node a has room from 02:05:00 (in 5m); it needs 2 GPUs.",
            "In queue \"q\" it is number 9 of 11, behind #12 of \"b\" (higher priority: 5 against 1), and 7 more.",
            "It starts at 2026-01-02 02:05:00 (in 1d) at the latest.",
            "With `--gpus 1` it would start at once on node a.",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn text_from_elsewhere_does_not_control_the_terminal() {
        let why: Why = serde_json::from_value(serde_json::json!({
            "job": "0199c0de-aaaa-7000-8000-000000000000", "number": 1, "state": "finished", "queue": "q", "reason": "scheduling",
            "message": "It says \u{1b}[31mred\nand more",
        }))
        .unwrap();
        let text = answer(&why, "2026-01-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC);
        assert_eq!(text, "Job 1 is finished. It says ?[31mred?and more\n");
    }
}
