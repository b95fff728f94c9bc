//! `cargo xtask`: the project's own commands, in plain Rust, so that a person and the continuous integration run the same thing.
//!
//! What must hold: every command does its own set-up, says what it is doing and how long each step took, waits for nothing in
//! silence, and ends with a non-zero status if any step failed. Only what comes with Rust and small dependencies is needed to
//! build it, so that it starts quickly in a clean clone.

mod bench;
mod bench_chart;
mod bench_kueue;
mod bench_plan;
mod bench_table;
mod cluster;
mod generated;
mod instructions;
mod layers;
mod length;
mod lint;
mod peers;
mod scale;
mod setup;
mod step;
mod tests_run;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <command> [options]

  setup                      say what this machine lacks for building and testing
        [--install]          and install what cargo can install
  test                       build the workspace once, run every test, print a summary
        [--quick]            with few points in the long crash suites
        [-- FILTER]          only tests whose name contains FILTER
  lint                       format, clippy, cargo-deny, layers, generated files, file length
        [--fix]              rewrite format and generated files instead of complaining
        [--only NAME,..]     fmt, clippy, deny, layers, generated, length
  bench                      build in release mode, measure beside bounds and other schedulers, print tables,
                             write JSON and a chart to target/bench/
        [--quick]            fewer rounds and smaller sizes
        [--rounds N]         so many rounds instead of 3 (quick) or 5
        [--only NAME,..]     P2 (submits), P3 (batches), P4 (true jobs), P5 (submit to start), P7 (memory),
                             P8 (restart), LAT (latency at a constant rate), CLI (start of `flash`); or kueue alone:
                             its baseline workload on a control plane, with [--scale N] a Nth of the jobs
        [--peers NAME,..]    hq, pueue, gflow, tsp, nq, slurm, or none; all of them unless said
        [--no-install]       only the peers that are there; otherwise absent ones go into target/peers/
        [--no-build]         measure the programs that are in target/release as they are
  cluster                    a real Kubernetes control plane, with nodes that are simulated
        build                compile it from its Go modules into target/control-plane (some minutes, once; needs Go)
        up                   start one that stays: [--nodes N] plain nodes and [--gpu-nodes N] with 8 GPUs, 2 each unless said
        down | status        stop it; show it, and how to reach it
  curves                     figures over sizes: jobs queued and running, watchers, nodes; charts in target/bench/
        [--quick]            a tenth of the sizes
        [--only NAME,..]     queued, running, watchers, nodes
        [--no-build]         as above
  soak                       mixed load with kills of the daemon; checks every promise, and charts what grows
        [--for TIME]         90s, 10m, 1h; an hour unless said
        [--rate N]           submits a second instead of 30
        [--seed N]           of everything that is drawn
        [--no-build]         as above
  instructions               count what the core's hot paths cost, compare with benches/instructions.json
        [--update]           keep these counts
";

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match command.as_str() {
        "setup" => setup::command(&rest),
        "test" => tests_run::command(&rest),
        "lint" => lint::command(&rest),
        "bench" => bench::command(&rest),
        "cluster" => cluster::command(&rest),
        "curves" => scale::curves(&rest),
        "soak" => scale::soak(&rest),
        "instructions" => instructions::command(&rest),
        "" | "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown command `{other}`\n\n{USAGE}"),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
