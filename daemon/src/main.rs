//! `flashd`: one binary for the daemon, its runner, and the tools around them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use daemon::config::Settings;
use executors::local::runner::{RunnerOptions, detect_cgroup_root, runner_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Queues, schedules and runs jobs on the CPUs and GPUs of this machine.
///
/// Start it with `flashd serve`, then use `flash submit`, `flash ls`, `flash why`.
#[derive(Parser)]
#[command(name = "flashd", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    #[command(after_help = "Examples:\n  flashd serve\n  flashd serve --data /srv/flash --listen off\n  \
        FLASHD_NODE_CPUS=8 flashd serve\n\nThe first SIGTERM or Ctrl-C drains and leaves jobs running; the second ends at once.")]
    Serve(Box<Settings>),
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Bring the job table to this version's schema, without serving
    Migrate(Box<Settings>),
    /// Look whether there is what the daemon needs: on this machine, in the database, in the cluster
    #[command(
        after_help = "Examples:\n  flashd doctor\n  flashd doctor --executors flashjob --kubernetes-namespace flash-system\n  \
        kubectl --namespace flash-system exec deploy/flashd -- flashd doctor\n\nIt starts nothing. Each line is `ok`, `note` (it works \
        without) or `FAIL`, with what mends it; the exit status is 0 if nothing has failed."
    )]
    Doctor(Box<Settings>),
    /// Print the OpenAPI document of the REST API
    Openapi,
    /// Print the definitions of FlashJob and ClusterResourceQueue for a Kubernetes cluster
    #[command(after_help = "Example:\n  flashd crds | kubectl apply --server-side -f -")]
    Crds,
    /// Start and watch local processes (started by the daemon itself)
    #[command(hide = true)]
    Runner(RunnerArgs),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the whole configuration as it would be used, or what is wrong with it
    #[command(after_help = "Example:\n  flashd config check --config /etc/flash-sched/flashd.toml")]
    Check(Box<Settings>),
}

/// How the daemon starts its runner. An older daemon's arguments stay valid: its runner may be started by a newer binary.
#[derive(clap::Args)]
struct RunnerArgs {
    /// Folder of its lock, socket and journal
    #[arg(long)]
    dir: PathBuf,
    /// Threads that start processes
    #[arg(long)]
    spawn_threads: Option<usize>,
    /// Delegated cgroup v2 folder
    #[arg(long)]
    cgroup_root: Option<PathBuf>,
    /// Folder in which tasks are kept from devices
    #[arg(long)]
    device_root: Option<PathBuf>,
}

impl RunnerArgs {
    fn options(self) -> RunnerOptions {
        let mut options = RunnerOptions::new(self.dir);
        options.spawn_threads = self.spawn_threads.unwrap_or(options.spawn_threads);
        options.cgroup_root = self.cgroup_root.or_else(detect_cgroup_root);
        options.device_root = self.device_root;
        options
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // Before anything starts a thread: the runner is small and has its own threads.
        Command::Runner(args) => runner_main(args.options()).map_err(anyhow::Error::from),
        Command::Serve(settings) => daemon::commands::serve(*settings),
        Command::Config { command: ConfigCommand::Check(settings) } => daemon::commands::config_check(*settings),
        Command::Migrate(settings) => daemon::commands::migrate(*settings),
        Command::Doctor(settings) => daemon::doctor::doctor(*settings),
        Command::Openapi => daemon::commands::openapi(),
        Command::Crds => daemon::commands::crds(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flashd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
