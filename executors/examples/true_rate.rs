//! How many `true` runs a second the local executor does, beside a bare spawn loop in the same run. It prints, it asserts nothing.
//!
//! `cargo run --release -p executors --example true_rate -- [RUNS]`
//!
//! - bare: two threads, each `posix_spawn` and wait, nothing written;
//! - append and fdatasync: the disk's share;
//! - N in flight: a start is ordered when an earlier run has ended, so that N are always on their way.
//!
//! Every run has two log files, a journalled and synced end, and is forgotten afterwards, as by a daemon.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use executors::local::runner::{RunnerOptions, runner_main};
use executors::local::{LocalExecutor, LocalOptions};
use executors::{Executor, Report, StartOrder, TaskOrder};
use scheduler_core::event::RunResult;
use scheduler_core::ids::{Attempt, JobId, RunId};
use tokio::sync::mpsc;
use uuid::Uuid;

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
    StartOrder { run, tasks: vec![task], uid: None, nice: 0, rlimits: BTreeMap::new() }
}

fn bare(runs: usize) -> Result<f64, Problem> {
    let begin = Instant::now();
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
    Ok(runs as f64 / begin.elapsed().as_secs_f64())
}

/// Small appends to one file, each synced: what bounds the runs when few are in flight, because each waits for the end before it.
fn syncs(folder: &std::path::Path, count: usize) -> Result<f64, Problem> {
    use std::io::Write;
    let mut file = std::fs::File::create(folder.join("synced"))?;
    let begin = Instant::now();
    for _ in 0..count {
        file.write_all(&[b'x'; 250])?;
        file.sync_data()?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

async fn through_the_runner(
    executor: &LocalExecutor,
    reports: &mut mpsc::Receiver<Report>,
    numbers: std::ops::Range<u128>,
    in_flight: usize,
) -> Result<f64, Problem> {
    let runs = (numbers.end - numbers.start) as usize;
    let mut orders = numbers.map(order);
    let begin = Instant::now();
    executor.start(orders.by_ref().take(in_flight).collect()).await?;
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
            executor.start(orders.by_ref().take(over.len()).collect()).await?;
            executor.forget(over).await?;
        }
    }
    Ok(runs as f64 / begin.elapsed().as_secs_f64())
}

async fn measure(runs: usize) -> Result<(), Problem> {
    let folder = std::env::temp_dir().join(format!("true-rate-{}", std::process::id()));
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs)?;
    let (sender, mut reports) = mpsc::channel(4_096);
    let command = vec![std::env::current_exe()?.into_os_string(), OsString::from("runner")];
    let executor = LocalExecutor::new(LocalOptions::new(folder.join("data"), &logs, command, sender))?;
    executor.adopt().await?;
    let mut next = 1_u128;
    for round in 1..=3 {
        println!("round {round}: bare, 2 threads: {:.0}/s", bare(runs)?);
        println!("round {round}: append and fdatasync, nothing else: {:.0}/s", syncs(&folder, 1_000)?);
        for in_flight in [2, 8, 32, 256] {
            let rate = through_the_runner(&executor, &mut reports, next..next + runs as u128, in_flight).await?;
            next += runs as u128;
            println!("round {round}: runner, {in_flight} in flight: {rate:.0}/s");
        }
    }
    let pid = std::fs::read_to_string(folder.join("data/runner.lock"))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
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
        let runs = args.first().and_then(|runs| runs.parse().ok()).unwrap_or(4_000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Problem::from).and_then(|runtime| runtime.block_on(measure(runs)))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
