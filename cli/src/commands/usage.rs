//! `flash usage`: what was used, by whom and when.

use api::{JobUsage, UsageItem, UsageList};
use comfy_table::Cell;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::nodes::bytes;
use crate::client::Client;
use crate::error::Error;
use crate::ids;
use crate::output::{self, Output};
use crate::query::Query;
use crate::table::{self, Look, cell, maybe};

pub(crate) const EXAMPLES: &str = "Examples:
  flash usage                                    by user, over the last 30 days
  flash usage --by namespace,day --since 7d      each namespace on each of the last 7 days
  flash usage --by queue --since 2026-11-01 --until 2026-11-30
  flash usage --by job --user ann -o wide        each job of ann's
  flash usage --job 1042                         one job
  flash usage --by day -o json | jq '.items[].gpuSeconds'

Days are those of UTC. GPU, CPU and memory time are what was promised, from the start of a run to its end; use, memory and energy of
GPUs are what was seen of them.";

/// Arguments of `flash usage`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// What rows are told apart by: user, namespace, queue, day (several separated by commas), or job [default: user]
    #[arg(long, value_name = "WORDS")]
    by: Option<String>,
    /// The first day (2026-11-21), or how many days ago (7d) [default: 29 days before the last]
    #[arg(long, value_name = "DAY")]
    since: Option<String>,
    /// The last day, which counts [default: today]
    #[arg(long, value_name = "DAY")]
    until: Option<String>,
    /// Of these users, separated by commas
    #[arg(long, value_name = "NAMES")]
    user: Option<String>,
    /// Of these namespaces
    #[arg(short = 'n', long, value_name = "NAMES")]
    namespace: Option<String>,
    /// Of these queues
    #[arg(short = 'q', long, value_name = "NAMES")]
    queue: Option<String>,
    /// Of this job alone, in all its runs
    #[arg(long, value_name = "ID", conflicts_with_all = ["since", "until", "user", "namespace", "queue"])]
    job: Option<String>,
    /// Rows at most [default: 1000]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    #[command(flatten)]
    output: Output,
}

/// A day as it is sent: what is no number of days is the server's to judge.
fn day(text: &str, today: Date) -> Result<String, Error> {
    let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) else { return Ok(text.to_owned()) };
    let far = || Error::usage(format!("`{text}` is too many days ago"));
    let span = jiff::Span::new().try_days(days).map_err(|_| far())?;
    Ok(today.checked_sub(span).map_err(|_| far())?.to_string())
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |text: &Option<String>| text.as_deref().map(|text| day(text, today)).transpose();
    let job = args.job.as_deref().map(ids::parse).transpose()?;
    let query = Query::new("/usage")
        .maybe("by", args.by.as_deref())
        .maybe("since", day(&args.since)?.as_deref())
        .maybe("until", day(&args.until)?.as_deref())
        .maybe("user", args.user.as_deref())
        .maybe("namespace", args.namespace.as_deref())
        .maybe("queue", args.queue.as_deref())
        .maybe("job", job.as_deref())
        .maybe("limit", args.limit.map(|limit| limit.to_string()).as_deref());
    let list: UsageList = client.get(&query).await?;
    args.output.print(&list, |list| list.items.iter().map(name).collect(), table)?;
    if args.output.is_table() {
        let more = if list.more { "; there are more (--limit shows more)" } else { "" };
        let what = if job.is_some() { "in all its runs".to_owned() } else { format!("{} to {} (UTC)", list.since, list.until) };
        output::note(&format!("{what}{more}"));
    }
    Ok(0)
}

/// What a row is of, in one word.
fn name(item: &UsageItem) -> String {
    if let Some(job) = item.job {
        return job.to_string();
    }
    let day = item.day.map(|day| day.to_string());
    let names = [item.namespace.clone(), item.user.clone(), item.queue.clone()];
    day.into_iter().chain(names.into_iter().flatten()).collect::<Vec<_>>().join("/")
}

/// Seconds as people count what they are given: `12.5s`, `4.2m`, `13.7h`.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1}s"),
        s if s < 7_200.0 => format!("{:.1}m", s / 60.0),
        s => format!("{:.1}h", s / 3_600.0),
    }
}

/// Joules as `940 J`, `1.2 kWh`.
fn energy(joules: f64) -> String {
    match joules {
        j if j < 10_000.0 => format!("{j:.0}J"),
        j if j < 3_600_000.0 => format!("{:.1}Wh", j / 3_600.0),
        j => format!("{:.1}kWh", j / 3_600_000.0),
    }
}

fn percent(percent: f64) -> String {
    format!("{percent:.0}%")
}

/// Most of the costly first, days in their order.
fn sorted(list: &UsageList) -> Vec<&UsageItem> {
    let mut items: Vec<&UsageItem> = list.items.iter().collect();
    let amount = |item: &UsageItem| [item.usage.gpu_seconds, item.usage.cpu_seconds];
    items.sort_by(|one, other| {
        let most = || amount(other).partial_cmp(&amount(one)).unwrap_or(std::cmp::Ordering::Equal);
        one.day.cmp(&other.day).then_with(most)
    });
    items
}

fn table(list: &UsageList, look: Look, wide: bool) -> String {
    let by_job = list.by.iter().any(|by| by == "job");
    let is = |word: &str| list.by.iter().any(|by| by == word);
    let mut header = Vec::new();
    for (word, title) in [("day", "DAY"), ("namespace", "NAMESPACE"), ("user", "USER"), ("queue", "QUEUE")] {
        if is(word) {
            header.push(title);
        }
    }
    if by_job {
        header.extend(["JOB", "NAME", "USER", "STATE"]);
        if wide {
            header.extend(["ID", "NAMESPACE", "QUEUE"]);
        }
    }
    header.extend(["RUNS", "GPU TIME", "CPU TIME", "GPU USE"]);
    if wide {
        header.extend(["PEAK USE", "GPU MEMORY", "ENERGY", "MEMORY TIME"]);
    }
    let row = |item: &UsageItem| -> Vec<Cell> {
        let usage = &item.usage;
        let mut cells: Vec<Cell> = item.day.filter(|_| is("day")).map(|day| cell(day.to_string())).into_iter().collect();
        for (word, value) in [("namespace", &item.namespace), ("user", &item.user), ("queue", &item.queue)] {
            if is(word) {
                cells.push(maybe(value.as_deref()));
            }
        }
        if by_job {
            cells.push(maybe(item.number.map(|number| number.to_string())));
            cells.push(maybe(item.name.as_deref()));
            cells.push(maybe(item.user.as_deref()));
            cells.push(maybe(item.state.map(api::State::as_str)));
            if wide {
                cells.push(maybe(item.job.map(|job| job.to_string())));
                cells.push(maybe(item.namespace.as_deref()));
                cells.push(maybe(item.queue.as_deref()));
            }
        }
        cells.push(cell(item.runs.to_string()));
        cells.push(maybe((usage.gpu_seconds > 0.0).then(|| time(usage.gpu_seconds))));
        cells.push(cell(time(usage.cpu_seconds)));
        cells.push(maybe(usage.gpu_busy_percent.map(percent)));
        if wide {
            cells.push(maybe(usage.gpu_peak_busy_percent.map(|peak| format!("{peak}%"))));
            cells.push(maybe(usage.gpu_peak_memory.map(|memory| bytes(memory.0))));
            cells.push(maybe(usage.gpu_energy_joules.map(energy)));
            cells.push(cell(format!("{:.1}GiBh", usage.memory_mib_seconds / (1_024.0 * 3_600.0))));
        }
        cells
    };
    table::table(look, &header, sorted(list).into_iter().map(row).collect())
}

/// What a job has used, for `flash show`.
pub(super) fn of_job(usage: &JobUsage) -> String {
    let JobUsage { runs, usage } = usage;
    let over = if *runs > 1 { format!(" in {runs} runs") } else { String::new() };
    let mut lines = vec![format!("{} CPU time{over}", time(usage.cpu_seconds))];
    if usage.gpu_seconds > 0.0 {
        lines.push(format!("{} GPU time", time(usage.gpu_seconds)));
    }
    if let (Some(mean), Some(peak)) = (usage.gpu_busy_percent, usage.gpu_peak_busy_percent) {
        lines.push(format!("GPUs {} busy, {peak}% at most", percent(mean)));
    }
    lines.extend(usage.gpu_peak_memory.map(|memory| format!("{} GPU memory at most", bytes(memory.0))));
    lines.extend(usage.gpu_energy_joules.map(|joules| format!("{} drawn by GPUs", energy(joules))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use api::Usage;
    use api::quantity::Memory;

    use super::*;

    const PLAIN: Look = Look { width: None, colour: false };

    fn item(user: &str, gpu_seconds: f64) -> UsageItem {
        let usage = Usage { cpu_seconds: 60.0, gpu_seconds, ..Usage::default() };
        UsageItem { user: Some(user.to_owned()), runs: 2, usage, ..UsageItem::default() }
    }

    #[test]
    fn whoever_used_most_comes_first_and_what_nobody_saw_is_not_said() {
        let mut seen = item("bob", 50_000.0);
        seen.usage.gpu_busy_percent = Some(41.4);
        let day = jiff::civil::date(2026, 11, 21);
        let list =
            UsageList { since: day, until: day, by: vec!["user".to_owned()], items: vec![item("ann", 0.0), seen], more: false };
        assert_eq!(
            table(&list, PLAIN, false),
            "USER  RUNS  GPU TIME  CPU TIME  GPU USE\nbob   2     13.9h     60.0s     41%\nann   2     -         60.0s     -\n"
        );
        assert_eq!(name(&list.items[0]), "ann");
    }

    #[test]
    fn a_job_says_what_is_known() {
        let usage = Usage {
            cpu_seconds: 600.0,
            gpu_seconds: 1_200.0,
            gpu_busy_percent: Some(80.2),
            gpu_peak_busy_percent: Some(100),
            gpu_peak_memory: Some(Memory(40 << 30)),
            gpu_energy_joules: Some(7_200_000.0),
            ..Usage::default()
        };
        assert_eq!(
            of_job(&JobUsage { runs: 2, usage }),
            "10.0m CPU time in 2 runs\n20.0m GPU time\nGPUs 80% busy, 100% at most\n40Gi GPU memory at most\n2.0kWh drawn by GPUs"
        );
        let plain = Usage { cpu_seconds: 1.25, ..Usage::default() };
        assert_eq!(of_job(&JobUsage { runs: 1, usage: plain }), "1.2s CPU time");
    }

    #[test]
    fn days_ago_are_days() {
        let today = jiff::civil::date(2026, 11, 3);
        assert_eq!(day("7d", today).ok().as_deref(), Some("2026-10-27"));
        assert_eq!(day("2026-11-01", today).ok().as_deref(), Some("2026-11-01"));
        assert_eq!(day("soon", today).ok().as_deref(), Some("soon"), "the server says what is allowed");
        assert!(day("99999999999d", today).is_err());
    }
}
