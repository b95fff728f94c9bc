//! `cargo xtask bench`: builds in release mode, measures in interleaved rounds, prints tables, writes everything as JSON and a chart.
//!
//! What must hold: a measurement and its bound are taken in the same run, one after the other, round by round, and so are ours and
//! the peers', so that a machine that is slow for a while is slow for all. Every measurement has a fresh folder, and none is removed
//! before the last: deleting many files slows the creation of others for seconds. Times are printed, never asserted: the status says
//! only whether everything of our own could be measured. Every measurement has a deadline, and with it end all its processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::bench_chart::{Series, draw};
use crate::bench_kueue;
use crate::bench_plan::{Figure, GROUPS, Line, Section, sections};
use crate::bench_table::{Row, table};
use crate::peers;
use crate::step::{cargo, output_until, pretty, program, root, run, shown, step, target_dir};

/// Rounds: quick, full.
const ROUNDS: (u32, u32) = (3, 5);
/// Longest that one measurement may take; what the load generator gives itself, and what it is given to clean up.
const LIMIT: Duration = Duration::from_mins(15);
const AFTER: Duration = Duration::from_secs(30);

/// What a namespace of its own for each measurement is made with, the strictest first. With a process namespace, nothing can be
/// left behind, whatever happens to the load generator.
const ISOLATION: [&[&str]; 2] =
    [&["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"], &["unshare", "--net", "--"]];

/// The options of the command.
struct Options {
    quick: bool,
    build: bool,
    install: bool,
    rounds: Option<u32>,
    only: Vec<String>,
    peers: Vec<String>,
    /// Of Kueue's workload: a Nth of the jobs.
    scale: String,
}

fn names(text: Option<&String>) -> Vec<String> {
    text.map(|text| text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()).unwrap_or_default()
}

fn options(args: &[String]) -> Result<Options> {
    let all = peers::ALL.map(str::to_owned).to_vec();
    let mut options =
        Options { quick: false, build: true, install: true, rounds: None, only: Vec::new(), peers: all, scale: "1".to_owned() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--no-build" => options.build = false,
            "--no-install" => options.install = false,
            "--rounds" => {
                let text = args.next().map(String::as_str).unwrap_or_default();
                let rounds = text.parse().ok().filter(|rounds| (1..=100).contains(rounds));
                options.rounds = Some(rounds.with_context(|| format!("--rounds is from 1 to 100, not `{text}`"))?);
            }
            "--only" => options.only = names(args.next()).iter().map(|name| name.to_uppercase()).collect(),
            "--scale" => {
                let text = args.next().map(String::as_str).unwrap_or_default();
                let scale = text.parse::<u32>().ok().filter(|scale| (1..=350).contains(scale));
                options.scale = scale.with_context(|| format!("--scale is from 1 to 350, not `{text}`"))?.to_string();
            }
            "--peers" => {
                options.peers = names(args.next());
                options.peers.retain(|name| name != "none");
            }
            other => bail!(
                "bench takes --quick, --rounds N, --only .., --peers .., --no-install, --no-build and, with --only kueue, --scale N, not `{other}`"
            ),
        }
    }
    if options.only == [bench_kueue::NAME] {
        return Ok(options);
    }
    if let Some(wrong) = options.only.iter().find(|name| !GROUPS.contains(&name.as_str())) {
        bail!("there is no measurement `{wrong}`: {}; or {} alone", GROUPS.join(", "), bench_kueue::NAME);
    }
    match options.peers.iter().find(|name| !peers::ALL.contains(&name.as_str())) {
        Some(wrong) => bail!("there is no peer `{wrong}`: {}, or none", peers::ALL.join(", ")),
        None => Ok(options),
    }
}

/// How the load generator is called.
struct Generator {
    program: PathBuf,
    /// A namespace of its own for each call, if that is permitted.
    isolation: &'static [&'static str],
    data: PathBuf,
}

impl Generator {
    fn new(data: PathBuf) -> Result<Self> {
        let program = target_dir().join("release/loadgen");
        if !program.is_file() {
            bail!("{} is not there; without --no-build it is built", program.display());
        }
        let mut generator = Self { program, isolation: &[], data };
        let permitted = ISOLATION.into_iter().find(|isolation| {
            generator.isolation = isolation;
            generator.call(&["spawn".to_owned(), "--count".to_owned(), "1".to_owned()], false).is_ok()
        });
        generator.isolation = permitted.unwrap_or_default();
        match permitted {
            Some(isolation) => println!("    each measurement in namespaces of its own: {}", isolation.join(" ")),
            None => println!("    `unshare --net` is not permitted here: measured on this machine's own loopback"),
        }
        Ok(generator)
    }

    fn call(&self, args: &[String], say: bool) -> Result<Value> {
        let mut command = match self.isolation.split_first() {
            Some((unshare, rest)) => {
                let mut command = program(unshare);
                command.args(rest).arg(&self.program).arg("--loopback");
                command
            }
            None => program(&self.program),
        };
        command.arg("--limit").arg(LIMIT.as_secs().to_string()).args(args);
        if say {
            println!("    $ loadgen {}", args.join(" "));
        }
        match args.first().map(String::as_str) {
            Some("spawn") => {}
            Some("fsync") => drop(command.arg("--dir").arg(&self.data)),
            Some("peer") => drop(command.args(["--keep", "--dir"]).arg(&self.data).arg("--prefix").arg(peers::prefix())),
            _ => drop(command.args(["--keep", "--dir"]).arg(&self.data)),
        }
        let line = shown(&command);
        let text = output_until(command, LIMIT + AFTER)?;
        let result: Value = serde_json::from_str(&text).with_context(|| format!("output of `{line}`"))?;
        if result["errors"].as_u64().is_some_and(|errors| errors > 0) {
            bail!("{} requests were not answered as they should: {}", result["errors"], result["first_error"]);
        }
        Ok(result)
    }
}

/// Results of this round by the arguments that made them: figures of one call share it.
type Made = BTreeMap<Vec<String>, Result<Value, String>>;

fn result_of(generator: &Generator, made: &mut Made, figure: &Figure) -> Result<Value> {
    if !made.contains_key(&figure.args) {
        let result = generator.call(&figure.args, true).map_err(|error| format!("{error:#}"));
        made.insert(figure.args.clone(), result);
    }
    match made.get(&figure.args) {
        Some(Ok(value)) => Ok(value.clone()),
        Some(Err(error)) => bail!("{error}"),
        None => bail!("nothing was measured"),
    }
}

/// Measures one line once.
fn measure(generator: &Generator, made: &mut Made, line: &Line, row: &mut Row) -> Result<()> {
    let Ok(figure) = &line.figure else { return Ok(()) };
    if row.is_absent() {
        return Ok(());
    }
    if let Some(bound) = &line.bound {
        let result = result_of(generator, made, bound)?;
        row.add_bound(&result, bound.pointer)?;
    }
    let measured = result_of(generator, made, figure).and_then(|result| row.add(&result, figure.pointer));
    match measured {
        Ok(value) => println!("      {}: {value:.1}", row.program()),
        Err(error) if line.is_peer => {
            println!("      {}: could not be measured: {error:#}", row.program());
            row.fail(format!("could not be measured: {error:#}"));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn rounds(plan: &[Section], count: u32, generator: &Generator) -> Result<Vec<Vec<Row>>> {
    let mut tables: Vec<Vec<Row>> = plan.iter().map(|section| section.lines.iter().map(Row::new).collect()).collect();
    for round in 1..=count {
        step(&format!("round {round} of {count}"), || {
            let mut made = Made::new();
            for (section, rows) in plan.iter().zip(&mut tables) {
                println!("    {}", section.title);
                for (line, row) in section.lines.iter().zip(rows) {
                    measure(generator, &mut made, line, row)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(tables)
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
        "load": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    })
}

/// The folder for data: on the disk where things are built, unless its path is too long for a Unix socket in it.
fn data_folder() -> PathBuf {
    let beside = target_dir().join("bench").join(format!("data-{}", std::process::id()));
    if beside.as_os_str().len() < 40 { beside } else { std::env::temp_dir().join(format!("flash-bench-{}", std::process::id())) }
}

/// The chart, if there is something to draw.
fn chart(plan: &[Section], tables: &[Vec<Row>], machine: &Value) -> Option<String> {
    let series: Vec<Series<'_>> = plan
        .iter()
        .zip(tables)
        .filter_map(|(section, rows)| {
            let first = rows.first()?.program();
            // Our own lines by one name, whatever socket they came by; the first of them is drawn.
            let ours = first.split(',').next().unwrap_or(first);
            let mut bars: Vec<(&str, f64)> = Vec::new();
            for row in rows {
                let name = if row.program().starts_with(ours) { ours } else { row.program() };
                if let Some(median) = row.median()
                    && !bars.iter().any(|(other, _)| *other == name)
                {
                    bars.push((name, median));
                }
            }
            Some(Series { name: section.chart?, bars }).filter(|series| !series.bars.is_empty())
        })
        .collect();
    let title = format!("a second, medians; {} cores, {}", machine["cores"], machine["cpu"].as_str().unwrap_or_default());
    (!series.is_empty()).then(|| draw(&title, &series))
}

/// Prints the tables, and writes them with everything else.
fn report(options: &Options, count: u32, plan: &[Section], tables: &[Vec<Row>]) -> Result<()> {
    let machine = machine();
    let word = |key: &str| machine[key].as_str().unwrap_or_default();
    println!("{}, {} cores, {} MiB, Linux {}\n", word("cpu"), machine["cores"], machine["memory_mib"], word("kernel"));
    for (section, rows) in plan.iter().zip(tables) {
        println!("**{}**\n\n{}", section.title, table(rows));
    }
    let at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let write = |end: &str, text: &str| -> Result<()> {
        let file = target_dir().join("bench").join(format!("{at}.{end}"));
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.strip_prefix(root()).unwrap_or(&file).display());
        Ok(())
    };
    let sections: Vec<Value> = plan
        .iter()
        .zip(tables)
        .map(|(section, rows)| json!({"what": section.title, "rows": rows.iter().map(Row::json).collect::<Vec<_>>()}))
        .collect();
    let report = json!({"at_unix_s": at, "quick": options.quick, "rounds": count, "machine": machine, "sections": sections});
    write("json", &serde_json::to_string_pretty(&report).context("writing the report")?)?;
    match chart(plan, tables, &report["machine"]) {
        Some(svg) => write("svg", &svg),
        None => Ok(()),
    }
}

/// Builds, unless told not to.
fn build(options: &Options) -> Result<()> {
    if !options.build {
        return Ok(());
    }
    step("release build", || run(cargo(["build", "--release", "--locked", "-p", "daemon", "-p", "cli", "-p", "benches"])))
}

/// `cargo xtask bench [--quick] [--rounds N] [--only P2,..] [--peers hq,..|none] [--no-install] [--no-build]`, or `--only kueue [--scale N]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let options = options(args)?;
    let begun = Instant::now();
    if options.only == [bench_kueue::NAME] {
        bench_kueue::measure(options.build, &options.scale)?;
        println!("bench: {}", pretty(begun.elapsed()));
        return Ok(());
    }
    build(&options)?;
    let data = data_folder();
    std::fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
    std::fs::create_dir_all(target_dir().join("bench")).context("creating target/bench")?;
    let result = measure_all(&options, &data);
    // After the last measurement, and also when one failed.
    std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
    let (count, plan, tables) = result?;
    report(&options, count, &plan, &tables)?;
    println!("bench: {}", pretty(begun.elapsed()));
    Ok(())
}

type Measured = (u32, Vec<Section>, Vec<Vec<Row>>);

fn measure_all(options: &Options, data: &Path) -> Result<Measured> {
    let generator = step("how to measure", || Generator::new(data.to_owned()))?;
    // Only some measurements have peers.
    let compares = options.only.is_empty() || options.only.iter().any(|name| name == "P2" || name == "P4");
    let wanted = if compares { options.peers.clone() } else { Vec::new() };
    let found = step("peers", || peers::gather(&generator.program, &wanted, options.install))?;
    let plan = sections(options.quick, &options.only, &found);
    let count = options.rounds.unwrap_or(if options.quick { ROUNDS.0 } else { ROUNDS.1 });
    let tables = rounds(&plan, count, &generator)?;
    Ok((count, plan, tables))
}

#[cfg(test)]
mod tests {
    use super::options;

    #[test]
    fn options_are_checked_by_name() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let parsed = options(&words("--only p4,lat --peers hq,nq --no-install --rounds 2")).ok();
        let parsed = parsed.map(|options| (options.only, options.peers, options.install, options.rounds));
        assert_eq!(parsed, Some((vec!["P4".into(), "LAT".into()], vec!["hq".into(), "nq".into()], false, Some(2))));
        assert!(options(&words("--peers none")).is_ok_and(|options| options.peers.is_empty()));
        assert!(options(&words("--only kueue --scale 10")).is_ok_and(|options| options.scale == "10"));
        for wrong in ["--only kueue,P2", "--scale 0", "--only P9", "--peers slurmx", "--rounds 0", "--fast"] {
            assert!(options(&words(wrong)).is_err(), "{wrong}");
        }
    }
}
