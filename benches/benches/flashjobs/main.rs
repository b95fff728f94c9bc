//! Kueue's published baseline workload against a real control plane: as FlashJobs under our daemon, or as Jobs under the default scheduler.
//!
//! What must hold: whatever is created is created at its time, whether or not anybody keeps up (open loop); a wait counts from that time; what
//! is said of quotas and of ends is what an independent watcher saw, and a run in which a quota was exceeded, a pod was bound twice or a
//! job did not succeed is a failure. Times are printed, never asserted.

mod load;
mod meters;
mod report;
mod site;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::Value;

use crate::load::Load;
use crate::meters::{Requests, Seconds};
use crate::site::Site;
use crate::watch::Watcher;

/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_millis(250);

/// Who schedules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum What {
    /// FlashJobs in 30 queues, under our daemon.
    Flashjobs,
    /// batch/v1 Jobs under the default scheduler: no quotas, so the machines are as large as all quotas together.
    Jobs,
}

/// Kueue's baseline workload on a control plane of its own; prints a table, and one JSON object as the last line.
#[derive(Parser)]
pub(crate) struct Options {
    /// As what it is created.
    #[arg(long, value_enum, default_value_t = What::Flashjobs)]
    what: What,
    /// A Nth of the jobs of each class in each queue.
    #[arg(long, default_value_t = 1)]
    scale: u64,
    /// Which of the jobs of one instant come first.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The daemon's program. Default: `flashd` of the same build.
    #[arg(long)]
    flashd: Option<PathBuf>,
    /// Controllers and the default scheduler keep to the rates of requests that they have by themselves.
    #[arg(long)]
    default_rates: bool,
    /// Where the result and the daemon's log are left.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seconds after which it has failed.
    #[arg(long, default_value_t = 3_600)]
    limit: u64,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

async fn measure(options: &Options) -> Result<Value> {
    let load = Load::new(options);
    let site = Site::start(options, &load)?;
    let client = site.client().await?;
    site.known(&client).await?;
    let watcher = Watcher::start(client.clone(), &load, options);
    let processes = site.processes();
    let before = (Requests::read(&client).await?, Seconds::read(&processes));
    let begun = Instant::now();
    let creating = tokio::task::spawn_local(load::create(client.clone(), load.bodies(), begun));
    let end = begun + Duration::from_secs(options.limit);
    let mut said = Instant::now();
    while !watcher.is_done()? {
        site.check()?;
        if Instant::now() > end {
            bail!("not over within {} s: {}; {}", options.limit, watcher.stand(), site.said());
        }
        if said.elapsed() > Duration::from_secs(15) {
            said = Instant::now();
            eprintln!("{:>6.1} s: {}", begun.elapsed().as_secs_f64(), watcher.stand());
        }
        tokio::time::sleep(LOOK).await;
    }
    let created = creating.await.context("creating")??;
    // All pods are over; the last objects say so in a moment.
    while load.left(&client).await? {
        if Instant::now() > end {
            bail!("pods are over, and objects do not say so within {} s; {}", options.limit, site.said());
        }
        tokio::time::sleep(LOOK).await;
    }
    let makespan = begun.elapsed();
    let seconds = Seconds::read(&processes).since(&before.1);
    load.check(&client).await?;
    // What is told late, as the letting go of the last pods, belongs to the count.
    let requests = site.settled(&client).await?.since(&before.0);
    let seen = watcher.finish().await?;
    let result = report::result(options, &load, makespan, &created, &seen, &requests, &seconds);
    if let Some(out) = &options.out {
        let name = format!("kueue-{}.json", result["what"].as_str().unwrap_or_default().to_lowercase());
        std::fs::write(out.join(&name), format!("{result:#}\n")).with_context(|| format!("writing {name}"))?;
    }
    Ok(result)
}

fn run(options: &Options) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        tokio::select! {
            result = measure(options) => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    }))
}

fn main() -> ExitCode {
    if benches::is_test() {
        println!("flashjobs: a measurement on a cluster; `cargo bench -p benches --bench flashjobs -- --scale 50` tries it");
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    match run(&options) {
        Ok(result) => {
            report::print(&result);
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flashjobs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
