//! What `cargo xtask bench` measures: sections of rows, each with its bound and its target, and the sizes of it all.
//!
//! A figure is a number in what one call of the load generator says. Figures of the same call share it: it is made once a round.

use std::collections::BTreeMap;

use crate::peers::Found;

/// Sizes of one round: (quick, full).
type Size = (u32, u32);

const SUBMITS: Size = (30_000, 200_000);
const BATCHES: Size = (100, 1_000);
const INSERTS: Size = (50_000, 200_000);
const TRUE_JOBS: Size = (2_000, 10_000);
const STARTS: Size = (100, 300);
const PROGRAMS: Size = (100, 300);
const QUEUED: Size = (100_000, 1_000_000);
const OPEN_SECONDS: Size = (3, 10);
const FSYNCS: Size = (1_000, 3_000);

/// Arrivals a second of the open loop: a quarter of the closed loop's target, so that what is seen is latency and not overload.
const ARRIVALS: u32 = 5_000;

/// Names for `--only`.
pub(crate) const GROUPS: [&str; 8] = ["P2", "P3", "P4", "P5", "P7", "P8", "LAT", "CLI"];

/// A peer, with the jobs of one measurement of submits by command line, by API, and of `true` jobs; none: it cannot do that.
type Sizes = (&'static str, Option<Size>, Option<Size>, Option<Size>);

/// Sized so that each measurement takes seconds.
const PEERS: [Sizes; 6] = [
    ("hq", None, Some((2_000, 20_000)), Some((1_000, 3_000))),
    ("pueue", Some((100, 500)), None, Some((16, 50))),
    ("gflow", Some((60, 200)), Some((300, 2_000)), Some((8, 20))),
    ("tsp", Some((300, 1_000)), None, Some((500, 2_000))),
    ("nq", Some((200, 500)), None, Some((200, 500))),
    ("slurm", Some((200, 1_000)), None, Some((40, 200))),
];

/// A number that one call of the load generator gives.
pub(crate) struct Figure {
    /// What it is, as a bound.
    pub(crate) name: &'static str,
    /// Arguments of the load generator.
    pub(crate) args: Vec<String>,
    /// Where the number is in its result, as a JSON pointer.
    pub(crate) pointer: &'static str,
}

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// At least this share of the bound.
    OfBound(f64),
    /// A peer's: at most this share of ours.
    OfOurs(f64),
}

/// One line of a table.
pub(crate) struct Line {
    /// Which program, and how.
    pub(crate) program: String,
    /// What is measured, or why it cannot be.
    pub(crate) figure: Result<Figure, String>,
    pub(crate) bound: Option<Figure>,
    pub(crate) target: Option<Target>,
    /// Whether a failure is this line's alone. Our own figures and the bounds have to be there.
    pub(crate) is_peer: bool,
    /// What an accepted submit is worth.
    pub(crate) durability: String,
}

/// A table.
pub(crate) struct Section {
    /// Names for `--only`, if any of them chooses it; none: always.
    pub(crate) groups: &'static [&'static str],
    /// What is counted, with its unit.
    pub(crate) title: String,
    /// Column of the chart, if it is drawn.
    pub(crate) chart: Option<&'static str>,
    /// The first line is ours, which the others are compared with.
    pub(crate) lines: Vec<Line>,
}

fn figure(name: &'static str, line: &str, pointer: &'static str) -> Figure {
    Figure { name, args: line.split_whitespace().map(str::to_owned).collect(), pointer }
}

fn ours(program: &str, line: &str, pointer: &'static str, bound: Option<Figure>, target: Option<Target>) -> Line {
    let durability = if pointer == "/per_s" || pointer == "/jobs_per_s" { "synced to disk before the answer" } else { "" };
    Line {
        program: program.to_owned(),
        figure: Ok(figure("", line, pointer)),
        bound,
        target,
        is_peer: false,
        durability: durability.to_owned(),
    }
}

/// Lines of the peers that can do it, for `what`: cli, api or true.
fn peers(found: &BTreeMap<String, Found>, quick: bool, what: &'static str) -> Vec<Line> {
    let able = PEERS.iter().filter_map(|(name, cli, api, jobs)| {
        let size = match what {
            "cli" => cli,
            "api" => api,
            _ => jobs,
        };
        Some((*name, (*size)?, found.get(*name)?))
    });
    able.map(|(name, size, found)| {
        let count = if quick { size.0 } else { size.1 };
        let line = format!("peer {name} {what} --count {count}");
        let (program, figure) = match &found.version {
            Ok(version) => (version.clone(), Ok(figure("", &line, "/per_s"))),
            Err(why) => (name.to_owned(), Err(format!("not installed: {why}"))),
        };
        Line { program, figure, bound: None, target: None, is_peer: true, durability: found.durability.clone() }
    })
    .collect()
}

fn submits(size: impl Fn(Size) -> u32, found: &BTreeMap<String, Found>, quick: bool) -> Vec<Section> {
    let submit = |transport| format!("submit --connections 64 --requests {} --transport {transport}", size(SUBMITS));
    let bare = |line: &str| Some(figure("bare axum handler", &format!("{line} --bare"), "/jobs_per_s"));
    let batch = format!("batch --connections 4 --batch 1000 --requests {}", size(BATCHES));
    let insert = format!("insert --chunk 1000 --jobs {}", size(INSERTS));
    let target = Some(Target::AtLeast(20_000.0));
    let mut by_api = vec![
        ours("flash, TCP, 64 connections", &submit("tcp"), "/jobs_per_s", bare(&submit("tcp")), target),
        ours("flash, Unix socket, 64 connections", &submit("unix"), "/jobs_per_s", bare(&submit("unix")), target),
    ];
    by_api.extend(peers(found, quick, "api"));
    let spawn = figure("posix_spawn of `true`, 4 threads", &format!("spawn --threads 4 --count {}", size(TRUE_JOBS)), "/per_s");
    let by_command = format!("peer flash cli --count {}", size((400, 2_000)));
    let mut by_command = vec![ours("flash", &by_command, "/per_s", Some(spawn), None)];
    by_command.extend(peers(found, quick, "cli"));
    let rows = Some(figure("SQLite, the same rows, 1,000 a transaction", &insert, "/jobs_per_s"));
    let batches = vec![
        ours("flash, TCP, 4 connections", &batch, "/jobs_per_s", bare(&batch), Some(Target::AtLeast(100_000.0))),
        ours("the same, beside the database", &batch, "/jobs_per_s", rows, None),
    ];
    vec![
        Section {
            groups: &["P2"],
            title: "submits a second by API, one job a request".into(),
            chart: Some("submits by API"),
            lines: by_api,
        },
        Section {
            groups: &["P2"],
            title: "submits a second by command line, one job a command, 4 commands at once".into(),
            chart: Some("submits by command"),
            lines: by_command,
        },
        Section { groups: &["P3"], title: "submits a second, 1,000 jobs a request".into(), chart: None, lines: batches },
    ]
}

fn runs(size: impl Fn(Size) -> u32, found: &BTreeMap<String, Found>, quick: bool) -> Vec<Section> {
    let jobs = format!("true-jobs --jobs {} --transport unix", size(TRUE_JOBS));
    let spawn = figure("posix_spawn of `true`, 2 threads", &format!("spawn --threads 2 --count {}", size(TRUE_JOBS)), "/per_s");
    let mut lines = vec![ours("flash", &jobs, "/per_s", Some(spawn), Some(Target::OfBound(0.85)))];
    lines.extend(peers(found, quick, "true"));
    for line in &mut lines {
        if line.program.starts_with("HyperQueue") {
            line.target = Some(Target::OfOurs(0.5));
        }
    }
    let start = |transport| format!("start --count {} --transport {transport}", size(STARTS));
    let spawned =
        |pointer| Some(figure("posix_spawn of the same program", &format!("start --spawn --count {}", size(STARTS)), pointer));
    let (p50, p99) = (Some(Target::AtMost(3.0)), Some(Target::AtMost(10.0)));
    let starts = vec![
        ours("flash, Unix socket, p50", &start("unix"), "/latency_ms/p50", spawned("/latency_ms/p50"), p50),
        ours("flash, Unix socket, p99", &start("unix"), "/latency_ms/p99", spawned("/latency_ms/p99"), p99),
        ours("flash, TCP, p50", &start("tcp"), "/latency_ms/p50", spawned("/latency_ms/p50"), p50),
        ours("flash, TCP, p99", &start("tcp"), "/latency_ms/p99", spawned("/latency_ms/p99"), p99),
    ];
    vec![
        Section { groups: &["P4"], title: "`true` jobs a second, 2 slots".into(), chart: Some("true jobs, 2 slots"), lines },
        Section {
            groups: &["P5"],
            title: "ms from a submit to the first instruction of its program, idle".into(),
            chart: None,
            lines: starts,
        },
    ]
}

fn latencies(size: impl Fn(Size) -> u32) -> Section {
    let mut lines = Vec::new();
    for (transport, name) in [("tcp", "TCP"), ("unix", "Unix socket")] {
        let line = format!("submit --connections 64 --rate {ARRIVALS} --seconds {} --transport {transport}", size(OPEN_SECONDS));
        for (quantile, pointer) in [("p50", "/latency_ms/p50"), ("p99", "/latency_ms/p99"), ("p99.9", "/latency_ms/p99_9")] {
            let bound = figure("bare axum handler", &format!("{line} --bare"), pointer);
            lines.push(ours(&format!("flash, {name}, {quantile}"), &line, pointer, Some(bound), None));
        }
    }
    Section {
        groups: &["LAT"],
        title: format!("ms that a submit takes when {ARRIVALS} arrive a second (open loop)"),
        chart: None,
        lines,
    }
}

fn deep(size: impl Fn(Size) -> u32) -> Vec<Section> {
    let jobs = size(QUEUED);
    let line = format!("deep --jobs {jobs} --transport unix");
    let queued = format!("{} queued", crate::bench_table::thousands(jobs.into()));
    let restart = Some(Target::AtMost(3.0));
    let one = |title: String, groups, lines| Section { groups, title, chart: None, lines };
    vec![
        one(
            format!("submits a second, one job a request, with {queued}"),
            &["P7", "P2"],
            vec![ours("flash, Unix socket, 64 connections", &line, "/singles_per_s", None, Some(Target::AtLeast(20_000.0)))],
        ),
        one(
            format!("MB resident with {queued}"),
            &["P7"],
            vec![ours("flashd", &line, "/rss_mb", None, Some(Target::AtMost(400.0)))],
        ),
        one(
            format!("s from the start after a SIGKILL, with {queued}"),
            &["P8"],
            vec![
                ours("flashd, until the first job has started", &line, "/restart_to_first_start_s", None, restart),
                ours("flashd, until it says that it is ready", &line, "/restart_to_ready_s", None, None),
            ],
        ),
    ]
}

/// Everything, in the order in which it is measured.
pub(crate) fn sections(quick: bool, only: &[String], found: &BTreeMap<String, Found>) -> Vec<Section> {
    let size = |size: Size| if quick { size.0 } else { size.1 };
    let program = format!("program --transport unix --count {}", size(PROGRAMS));
    let process = || Some(figure("`true`", &program, "/true_ms/p50"));
    let ten = Some(Target::AtMost(10.0));
    let whole = vec![
        ours("flash --version, p50", &program, "/version_ms/p50", process(), ten),
        ours("flash ls, 20 jobs, p50", &program, "/ls_ms/p50", process(), ten),
    ];
    let mut sync = ours("fdatasync of 4 KiB, one thread", &format!("fsync --count {}", size(FSYNCS)), "/per_s", None, None);
    sync.durability.clear();
    let mut all = submits(size, found, quick);
    all.extend(runs(size, found, quick));
    all.push(latencies(size));
    all.push(Section { groups: &["CLI"], title: "ms that a command takes as a whole process".into(), chart: None, lines: whole });
    all.extend(deep(size));
    all.push(Section { groups: &[], title: "a second, what a commit costs at least".into(), chart: None, lines: vec![sync] });
    all.retain(|section| {
        only.is_empty() || section.groups.is_empty() || section.groups.iter().any(|group| only.iter().any(|name| name == group))
    });
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{GROUPS, sections};
    use crate::peers::Found;

    #[test]
    fn every_group_chooses_something_and_absent_peers_keep_their_line() {
        let absent = Found { version: Err("no program `nq`".into()), durability: String::new() };
        let found = BTreeMap::from([("nq".to_owned(), absent)]);
        for group in GROUPS {
            let chosen = sections(true, &[group.to_owned()], &found);
            assert!(chosen.iter().any(|section| section.groups.contains(&group)), "{group}");
        }
        let jobs = sections(true, &["P4".to_owned()], &found);
        let line = jobs[0].lines.last().map(|line| (line.program.as_str(), line.figure.as_ref().err()));
        assert_eq!(line, Some(("nq", Some(&"not installed: no program `nq`".to_owned()))));
    }
}
