//! How many `true` runs a second the local executor does on two slots, beside a bare spawn loop in the same run. It prints, it
//! asserts nothing.
//!
//! `cargo run --release -p executors --example true_rate -- [RUNS [ROUNDS [HELD...]]]`
//!
//! - bare: two threads, each `posix_spawn` and wait, nothing written; before and after each of the others;
//! - append and fdatasync: the disk's share;
//! - N held: two slots, and N orders that wait in line for one. 0: a start is ordered when an earlier run has ended.
//!
//! Beside each rate stands the processor time of a run, over all processes that take part: on a machine where others work, too, that
//! says more than the rate.
//!
//! Every run has an end that is journalled and synced, and is forgotten afterwards. As by a daemon, the ends that come together are
//! written to a file and synced before the orders that follow them are given.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

use executors::local::runner::{RunnerOptions, runner_main};
use executors::local::{LocalExecutor, LocalOptions};
use executors::{Executor, Line, Report, StartOrder, TaskOrder};
use scheduler_core::event::RunResult;
use scheduler_core::ids::{Attempt, JobId, RunId};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Runs at a time.
const SLOTS: usize = 2;

type Problem = Box<dyn std::error::Error>;

fn order(number: u128) -> StartOrder {
    let task = TaskOrder {
        name: "main".into(),
        command: vec!["/bin/true".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        working_dir: "/".to_owned(),
        cpu_millis: 1_000,
        memory_bytes: 0,
    };
    let run = RunId { job: JobId(Uuid::from_u128(number)), attempt: Attempt(1) };
    StartOrder { run, tasks: vec![task], uid: None, nice: 0, rlimits: BTreeMap::new(), line: None, devices: None, pod: None }
}

/// A rate, and what it cost.
#[derive(Clone, Copy)]
struct Figure {
    /// Runs a second.
    rate: f64,
    /// Microseconds of processor time a run.
    cpu_us: f64,
}

/// Processor time of a process and of its children that have been waited for, in microseconds.
fn cpu_us(process: &str) -> Result<f64, Problem> {
    const TICK_US: f64 = 10_000.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    // Fields 14 to 17; the first one after the name is the third.
    let ticks: f64 = fields.skip(11).take(4).filter_map(|text| text.parse::<f64>().ok()).sum();
    Ok(ticks * TICK_US)
}

/// Measures from now on.
struct Meter<'a> {
    begin: Instant,
    processes: &'a [&'a str],
    cpu_us: f64,
}

impl<'a> Meter<'a> {
    fn of(processes: &'a [&'a str]) -> Result<Self, Problem> {
        let cpu_us = processes.iter().map(|process| cpu_us(process)).sum::<Result<f64, Problem>>()?;
        Ok(Self { begin: Instant::now(), processes, cpu_us })
    }

    fn read(self, runs: usize) -> Result<Figure, Problem> {
        let rate = runs as f64 / self.begin.elapsed().as_secs_f64();
        let cpu_us = self.processes.iter().map(|process| cpu_us(process)).sum::<Result<f64, Problem>>()? - self.cpu_us;
        Ok(Figure { rate, cpu_us: cpu_us / runs as f64 })
    }
}

fn bare(runs: usize) -> Result<Figure, Problem> {
    let meter = Meter::of(&["self"])?;
    let threads: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || -> std::io::Result<()> {
                for _ in 0..runs / 2 {
                    let mut command = Command::new("/bin/true");
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
                    command.spawn()?.wait()?;
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    meter.read(runs)
}

/// Small appends to one file, each synced: what bounds the runs when few are in flight, because each waits for the end before it.
fn syncs(folder: &std::path::Path, count: usize) -> Result<f64, Problem> {
    let mut file = std::fs::File::create(folder.join("synced"))?;
    let begin = Instant::now();
    for _ in 0..count {
        file.write_all(&[b'x'; 250])?;
        file.sync_data()?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// `held` orders wait in line for one of the slots, beside those that run.
async fn through_the_runner(
    executor: &LocalExecutor,
    reports: &mut mpsc::Receiver<Report>,
    table: &Arc<File>,
    runner: &str,
    numbers: std::ops::Range<u128>,
    held: usize,
) -> Result<Figure, Problem> {
    let runs = (numbers.end - numbers.start) as usize;
    let line = (held > 0).then_some(Line { id: 1, cpu_millis: SLOTS as u64 * 1_000, memory_bytes: 0 });
    let mut orders = numbers.map(|number| StartOrder { line, ..order(number) });
    let processes = ["self", runner];
    let meter = Meter::of(&processes)?;
    executor.start(orders.by_ref().take(SLOTS + held).collect()).await?;
    let mut ended = 0;
    let mut waiting = Vec::new();
    while ended < runs {
        if reports.recv_many(&mut waiting, 1_024).await == 0 {
            return Err("the executor is gone".into());
        }
        let mut over = Vec::new();
        for report in waiting.drain(..) {
            match report {
                Report::Ended { run, result: RunResult::Succeeded, .. } => over.push(run),
                Report::Started { .. } => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
        ended += over.len();
        if !over.is_empty() {
            commit(table, over.len()).await?;
            executor.start(orders.by_ref().take(over.len()).collect()).await?;
            executor.forget(over).await?;
        }
    }
    meter.read(runs)
}

/// What a daemon does at least with ends that have come together: makes them durable.
async fn commit(table: &Arc<File>, ends: usize) -> Result<(), Problem> {
    let table = Arc::clone(table);
    let written = tokio::task::spawn_blocking(move || {
        (&*table).write_all(&vec![b'x'; 300 * ends])?;
        table.sync_data()
    });
    Ok(written.await??)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn measure(runs: usize, rounds: usize, held: &[usize]) -> Result<(), Problem> {
    let folder = std::env::temp_dir().join(format!("true-rate-{}", std::process::id()));
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs)?;
    let (sender, mut reports) = mpsc::channel(4_096);
    let command = vec![std::env::current_exe()?.into_os_string(), OsString::from("runner")];
    let executor = LocalExecutor::new(LocalOptions::new(folder.join("data"), &logs, command, sender))?;
    executor.adopt().await?;
    let table = Arc::new(File::create(folder.join("table"))?);
    let mut next = 1_u128;
    let runner = std::fs::read_to_string(folder.join("data/runner.lock"))?;
    let runner = runner.trim();
    let mut found: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for round in 1..=rounds {
        println!("round {round}: append and fdatasync, nothing else: {:.0}/s", syncs(&folder, 1_000)?);
        let mut before = bare(runs / 2)?;
        for held in held.iter().copied() {
            let numbers = next..next + runs as u128;
            let figure = through_the_runner(&executor, &mut reports, &table, runner, numbers, held).await?;
            next += runs as u128;
            let after = bare(runs / 2)?;
            let bound =
                Figure { rate: f64::midpoint(before.rate, after.rate), cpu_us: f64::midpoint(before.cpu_us, after.cpu_us) };
            before = after;
            println!(
                "round {round}: {held:>3} held: {:.0}/s of {:.0}/s bare: {:.3}; {:.0} us of {:.0} us bare: {:.3}",
                figure.rate,
                bound.rate,
                figure.rate / bound.rate,
                figure.cpu_us,
                bound.cpu_us,
                bound.cpu_us / figure.cpu_us
            );
            found.entry(held).or_default().push((figure.rate / bound.rate, bound.cpu_us / figure.cpu_us));
        }
    }
    for (held, figures) in found {
        let (rates, costs): (Vec<f64>, Vec<f64>) = figures.into_iter().unzip();
        println!("median: {held:>3} held: ratio of rates {:.3}, of processor time {:.3}", median(rates), median(costs));
    }
    let status = std::fs::read_to_string(format!("/proc/{runner}/status"))?;
    println!("runner: {}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("no figure"));
    // Once this is answered the last runs are forgotten, so that the runner ends by itself.
    executor.observe().await?;
    drop(executor);
    // After the last measurement: removing many files slows down making new ones for a while.
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = if let ["runner", "--dir", dir] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let mut options = RunnerOptions::new(dir);
        options.idle_exit = std::time::Duration::from_secs(1);
        runner_main(options).map_err(Problem::from)
    } else {
        let number = |index: usize, default| args.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
        let mut held: Vec<usize> = args.iter().skip(2).filter_map(|text| text.parse().ok()).collect();
        if held.is_empty() {
            held = vec![0, 8, 32, 128, 256];
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Problem::from).and_then(|runtime| runtime.block_on(measure(number(0, 4_000), number(1, 3), &held)))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
