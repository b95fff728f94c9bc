//! `loadgen`: measures a daemon from outside, and the bounds that the machine itself sets.
//!
//! Every command measures one thing once and prints one JSON object; `cargo xtask bench` runs them in interleaved rounds and
//! compares. Load generator and daemon share the machine's processors, so the generator is built to cost little: one thread, raw
//! sockets, hand-written HTTP.

mod bare;
mod body;
mod closed_loop;
mod connection;
mod control;
mod curves;
mod deep;
mod floors;
mod guard;
mod insert;
mod loopback;
mod open_loop;
mod peers;
mod plot;
mod process;
mod program;
mod server;
mod soak;
mod start;
mod stats;
mod true_jobs;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::connection::Dialect;
use crate::curves::CurveOptions;
use crate::guard::Guard;
use crate::peers::PeerOptions;
use crate::server::ServerOptions;
use crate::soak::SoakOptions;

/// Measures flashd, one thing at a time, and prints the result as one JSON object.
#[derive(Parser)]
#[command(name = "loadgen", version)]
struct Cli {
    /// Bring loopback up first: for a network namespace that was just made.
    #[arg(long, global = true)]
    loopback: bool,
    /// Seconds after which everything is ended.
    #[arg(long, global = true, default_value_t = 900)]
    limit: u64,
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
        /// Open loop: so many arrivals a second, whether or not answers keep up.
        #[arg(long, conflicts_with_all = ["requests", "warmup", "threads"])]
        rate: Option<u32>,
        /// Seconds of the open loop, after one that is not counted.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
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
    /// Bound for batches: the rows of a daemon, inserted into a database of the same schema and nothing else.
    Insert {
        /// How many jobs.
        #[arg(long, default_value_t = 50_000)]
        jobs: u64,
        /// Jobs in a transaction.
        #[arg(long, default_value_t = 1_000)]
        chunk: u64,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// From a submit on an idle daemon to the first instruction of the job's program.
    Start {
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: u32,
        /// The bound instead: posix_spawn of the same program.
        #[arg(long)]
        spawn: bool,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// A deep queue: memory, submits behind it, restart.
    Deep {
        /// Jobs in the queue.
        #[arg(long, default_value_t = 1_000_000)]
        jobs: u64,
        /// Connections of the submits behind it.
        #[arg(long, default_value_t = 64)]
        connections: usize,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// `flash --version` and `flash ls` as whole processes.
    Program {
        /// How many of each.
        #[arg(long, default_value_t = 200)]
        count: u32,
        /// The client's program. Default: `flash` beside this program.
        #[arg(long)]
        flash: Option<PathBuf>,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Figures over sizes: jobs queued and running, watchers, nodes.
    Curves(CurveOptions),
    /// Mixed load for an hour, with kills of the daemon: what grows, and whether every promise is kept.
    Soak(Box<SoakOptions>),
    /// Another scheduler, measured the same way.
    Peer(PeerOptions),
    /// Which other schedulers are there.
    Peers {
        /// Folder that they were installed in.
        #[arg(long)]
        prefix: PathBuf,
    },
    /// What a measured job does: writes the clock into a pipe.
    #[command(hide = true)]
    Stamp {
        /// The pipe.
        fifo: PathBuf,
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

fn measure(command: Command) -> Result<serde_json::Value> {
    match command {
        Command::Submit { load, rate: Some(rate), seconds, server } => open_loop::run(&load, rate, seconds, &server),
        Command::Submit { load, server, .. } => closed_loop::run(&load, Dialect::One, &server),
        Command::Batch { batch, load, server } => closed_loop::run(&load, Dialect::Batch(batch), &server),
        Command::TrueJobs { jobs, server } => true_jobs::run(jobs, &server),
        Command::Spawn { count, threads } => floors::spawn(count, threads),
        Command::Fsync { count, dir } => floors::fsync(count, dir.as_deref()),
        Command::Insert { jobs, chunk, server } => insert::run(jobs, chunk, &server),
        Command::Start { count, spawn: true, server } => start::by_spawn(count, server.dir),
        Command::Start { count, server, .. } => start::through_daemon(count, &server),
        Command::Deep { jobs, connections, server } => deep::run(jobs, connections, &server),
        Command::Program { count, flash, server } => program::run(count, flash, &server),
        Command::Curves(options) => curves::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Peer(options) => peers::run(&options),
        Command::Peers { prefix } => peers::found(&prefix),
        // Both are taken before a guard is there.
        Command::Stamp { fifo } => start::stamp(&fifo).map(|()| serde_json::Value::Null),
        Command::BareServer { socket, listen } => bare::serve(&socket, &listen).map(|()| serde_json::Value::Null),
    }
}

fn run() -> Result<()> {
    // The stamp is taken before anything else is done: what comes before it counts as the daemon's time.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "stamp")
        && let Some(fifo) = args.next()
    {
        return start::stamp(fifo.as_ref());
    }
    let cli = Cli::parse();
    if let Command::BareServer { socket, listen } = &cli.command {
        return bare::serve(socket, listen);
    }
    if cli.loopback {
        loopback::raise()?;
    }
    // A soak says itself how long it takes.
    let soaks = if let Command::Soak(options) = &cli.command { options.seconds } else { 0 };
    let guard = Guard::new(Duration::from_secs(cli.limit + soaks))?;
    let result = measure(cli.command);
    drop(guard);
    println!("{}", result?);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}
