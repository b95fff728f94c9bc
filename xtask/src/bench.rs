//! `cargo xtask bench`: builds in release mode, measures in interleaved rounds, prints a table, writes everything as JSON.
//!
//! What must hold: a measurement and its bound are taken in the same run, one after the other, round by round, so that a machine
//! that is slow for a while is slow for both. Every round has a fresh data folder, and none is removed before the last measurement:
//! deleting many files slows the creation of others for seconds. Times are printed, never asserted: the status says only whether
//! everything could be measured.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::bench_table::{Row, print};
use crate::step::{cargo, output_of, pretty, program, root, run, shown, step, target_dir};

/// Sizes of one round: (quick, full).
type Size = (u32, u32);

const SUBMITS: Size = (30_000, 200_000);
const BATCHES: Size = (100, 1_000);
const TRUE_JOBS: Size = (2_000, 10_000);
const FSYNCS: Size = (1_000, 3_000);
const ROUNDS: Size = (3, 5);

/// Something that is measured once a round, and what bounds it.
struct Measure {
    /// Name for `--only`.
    group: &'static str,
    what: &'static str,
    /// Arguments of the load generator.
    args: Vec<String>,
    /// The number in its result that counts.
    key: &'static str,
    /// The bound: what it is, its arguments, its number.
    bound: Option<(&'static str, Vec<String>, &'static str)>,
    /// The floor that this stage of the project has set itself.
    floor: Option<f64>,
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn measures(quick: bool) -> Vec<Measure> {
    let size = |size: Size| if quick { size.0 } else { size.1 };
    let submit = |transport| format!("submit --connections 32 --requests {} --transport {transport}", size(SUBMITS));
    let batch = format!("batch --connections 4 --batch 1000 --requests {}", size(BATCHES));
    let bare = |line: &str| Some(("bare handler", words(&format!("{line} --bare")), "jobs_per_s"));
    vec![
        Measure {
            group: "P2",
            what: "submits, one a request, TCP",
            args: words(&submit("tcp")),
            key: "jobs_per_s",
            bound: bare(&submit("tcp")),
            floor: Some(10_000.0),
        },
        Measure {
            group: "P2",
            what: "submits, one a request, Unix socket",
            args: words(&submit("unix")),
            key: "jobs_per_s",
            bound: bare(&submit("unix")),
            floor: Some(10_000.0),
        },
        Measure {
            group: "P3",
            what: "submits, 1,000 a request, TCP",
            args: words(&batch),
            key: "jobs_per_s",
            bound: bare(&batch),
            floor: Some(60_000.0),
        },
        Measure {
            group: "P4",
            what: "`true` jobs, 2 slots",
            args: words(&format!("true-jobs --jobs {} --transport unix", size(TRUE_JOBS))),
            key: "per_s",
            bound: Some(("posix_spawn, 2 threads", words(&format!("spawn --threads 2 --count {}", size(TRUE_JOBS))), "per_s")),
            floor: Some(800.0),
        },
        Measure {
            group: "",
            what: "fdatasync of 4 KiB, one thread",
            args: words(&format!("fsync --count {}", size(FSYNCS))),
            key: "per_s",
            bound: None,
            floor: None,
        },
    ]
}

/// The options of the command.
struct Options {
    quick: bool,
    build: bool,
    only: Vec<String>,
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options { quick: false, build: true, only: Vec::new() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--no-build" => options.build = false,
            "--only" => {
                let names = args.next().map(String::as_str).unwrap_or_default();
                options.only = names.split(',').map(str::to_uppercase).collect();
            }
            other => bail!("bench takes `--quick`, `--no-build` and `--only P2,P3,P4`, not `{other}`"),
        }
    }
    match options.only.iter().find(|name| !["P2", "P3", "P4"].contains(&name.as_str())) {
        Some(wrong) => bail!("there is no measurement `{wrong}`: P2, P3, P4"),
        None => Ok(options),
    }
}

/// Runs the load generator once.
fn measure(loadgen: &Path, data: &Path, args: &[String]) -> Result<Value> {
    let mut command = program(loadgen);
    command.args(args);
    match args.first().map(String::as_str) {
        Some("spawn") => {}
        Some("fsync") => {
            command.arg("--dir").arg(data);
        }
        _ => {
            command.arg("--keep").arg("--dir").arg(data);
        }
    }
    let line = shown(&command);
    println!("    $ {line}");
    let text = output_of(command)?;
    let result: Value = serde_json::from_str(&text).with_context(|| format!("output of `{line}`"))?;
    if result["errors"].as_u64().is_some_and(|errors| errors > 0) {
        bail!("{} requests were not answered as they should: {}", result["errors"], result["first_error"]);
    }
    Ok(result)
}

/// What the figures were measured on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    json!({
        "cpu": model.unwrap_or("unknown"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory_mib": memory.map(|kib| kib / 1024),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// The folder for data: on the disk where things are built, unless its path is too long for a Unix socket in it.
fn data_folder() -> PathBuf {
    let beside = target_dir().join("bench").join(format!("data-{}", std::process::id()));
    if beside.as_os_str().len() < 60 { beside } else { std::env::temp_dir().join(format!("flash-bench-{}", std::process::id())) }
}

fn rounds(measures: &[Measure], count: u32, loadgen: &Path, data: &Path) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = measures
        .iter()
        .map(|measure| Row::new(measure.what, measure.bound.as_ref().map(|bound| bound.0), measure.floor))
        .collect();
    for round in 1..=count {
        step(&format!("round {round} of {count}"), || {
            for (measured, row) in measures.iter().zip(&mut rows) {
                if let Some((_, args, key)) = &measured.bound {
                    row.add_bound(measure(loadgen, data, args)?, key)?;
                }
                let result = measure(loadgen, data, &measured.args)?;
                let value = row.add(result, measured.key)?;
                println!("      {}: {value:.0} a second", measured.what);
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

/// `cargo xtask bench [--quick] [--only P2,P3,P4] [--no-build]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let options = options(args)?;
    let begun = Instant::now();
    if options.build {
        step("release build", || run(cargo(["build", "--release", "--locked", "-p", "daemon", "-p", "cli", "-p", "benches"])))?;
    }
    let chosen: Vec<Measure> = measures(options.quick)
        .into_iter()
        .filter(|measure| {
            measure.group.is_empty() || options.only.is_empty() || options.only.iter().any(|name| name == measure.group)
        })
        .collect();
    let count = if options.quick { ROUNDS.0 } else { ROUNDS.1 };
    let data = data_folder();
    std::fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
    let result = rounds(&chosen, count, &target_dir().join("release/loadgen"), &data);
    // After the last measurement, and also when one failed.
    std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
    let rows = result?;

    let machine = machine();
    println!("{}, {} cores, {} MiB, Linux {}", machine["cpu"], machine["cores"], machine["memory_mib"], machine["kernel"]);
    print(&rows);
    let at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let folder = target_dir().join("bench");
    let file = folder.join(format!("{at}.json"));
    let report = json!({"at_unix_s": at, "quick": options.quick, "rounds": count, "machine": machine,
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>()});
    let text = serde_json::to_string_pretty(&report).context("writing the report")?;
    std::fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
    println!("\nraw results: {}\nbench: {}", file.strip_prefix(root()).unwrap_or(&file).display(), pretty(begun.elapsed()));
    Ok(())
}
