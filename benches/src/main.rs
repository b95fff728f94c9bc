//! `loadgen`: measures a daemon from outside, and the bounds that the machine itself sets.
//!
//! Every command measures one thing once and prints one JSON object; `cargo xtask bench` runs them in interleaved rounds and
//! compares. Load generator and daemon share the machine's processors, so the generator is built to cost little: one thread, raw
//! sockets, hand-written HTTP.

mod bare;
mod body;
mod closed_loop;
mod control;
mod floors;
mod server;
mod stats;
mod true_jobs;
mod wire;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::server::ServerOptions;

/// Measures flashd, one thing at a time, and prints the result as one JSON object.
#[derive(Parser)]
#[command(name = "loadgen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Size of a closed loop.
#[derive(Args, Clone)]
struct LoopOptions {
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests that are measured.
    #[arg(long)]
    requests: Option<u64>,
    /// Requests before the clock starts.
    #[arg(long)]
    warmup: Option<u64>,
    /// Threads of the load generator; connections are spread over them.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seed of the bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Durable submits, one job a request.
    Submit {
        #[command(flatten)]
        load: LoopOptions,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Durable submits, many jobs a request.
    Batch {
        /// Jobs in a request.
        #[arg(long, default_value_t = 1_000)]
        batch: usize,
        #[command(flatten)]
        load: LoopOptions,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Real `true` jobs of 1 CPU each on a node of 2, from the first start to the last end.
    TrueJobs {
        /// How many.
        #[arg(long, default_value_t = 5_000)]
        jobs: u32,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Bound for true jobs: threads that spawn `true` and wait for it, and nothing else.
    Spawn {
        /// How many.
        #[arg(long, default_value_t = 5_000)]
        count: u32,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: u32,
    },
    /// Bound for commits: append 4 KiB and fdatasync, in a loop.
    Fsync {
        /// How many.
        #[arg(long, default_value_t = 3_000)]
        count: u32,
        /// Folder of the file. Default: the system's folder for temporary files.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Bound for submits: an HTTP server that reads the body and answers at once. Runs until it is ended.
    #[command(hide = true)]
    BareServer {
        /// Path of its Unix socket.
        #[arg(long)]
        socket: PathBuf,
        /// Address of its TCP socket.
        #[arg(long)]
        listen: String,
    },
}

fn main() -> Result<()> {
    let result = match Cli::parse().command {
        Command::Submit { load, server } => closed_loop::run(&load, 1, &server)?,
        Command::Batch { batch, load, server } => closed_loop::run(&load, batch, &server)?,
        Command::TrueJobs { jobs, server } => true_jobs::run(jobs, &server)?,
        Command::Spawn { count, threads } => floors::spawn(count, threads)?,
        Command::Fsync { count, dir } => floors::fsync(count, dir.as_deref())?,
        Command::BareServer { socket, listen } => return bare::serve(&socket, &listen),
    };
    println!("{result}");
    Ok(())
}
