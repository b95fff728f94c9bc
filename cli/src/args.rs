//! The command line: every command, and the examples that its help shows.
//!
//! Invariant: every command's help ends with examples that can be typed as they are (a test looks).

use clap::{Parser, Subcommand, builder::Styles};

use crate::commands::{
    act, cancel, cohorts, completion, events, gpus, info, logs, ls, nodes, priorities, queues, run, show, simulate, submit,
    token, top, update, usage, wait, why,
};

/// Runs jobs on the CPUs and GPUs of this machine or cluster, in turn and fairly.
#[derive(Parser, Debug)]
#[command(
    name = "flash",
    version,
    styles = styles(),
    arg_required_else_help = true,
    infer_subcommands = false,
    disable_help_subcommand = true,
    after_help = "Examples:
  flash submit --gpus 1 -- python train.py    queue a job, print its id
  flash run -- make -j4                       queue it and watch it, as if it ran here
  flash ls                                    what is queued and running
  flash logs -f 0199c0de                      follow what it prints
  flash why 0199c0de                          why it does not run yet
  flash wait 0199c0de && echo done            wait; the exit code is the job's own

A job is named by its number (as `flash ls` shows it), or by its id, which may be shortened to its first digits, at least eight.

Exit codes: 0 all went well; 2 bad usage; 3 not found; 4 refused; 5 no answer from the server;
`run` and `wait` give the job's own: its exit code, 128+n for a signal, 124 for the time limit,
127 if it could not be started, 130 if it was cancelled.

Environment: FLASH_SERVER, FLASH_TOKEN, FLASH_TOKEN_FILE, FLASH_DATA (data folder of the daemon), NO_COLOR"
)]
pub(crate) struct Cli {
    /// Server: unix:///path/flashd.sock, http://host:port, https://host:port
    /// [default: the daemon of this user, else that of this machine]
    #[arg(long, global = true, env = "FLASH_SERVER", hide_env_values = true, value_name = "URL", help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// File with the token that says who asks over TCP, ours or the cluster's [default: FLASH_TOKEN, or the file of FLASH_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Server")]
    pub(crate) token_file: Option<std::path::PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is to be done.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Queue a job and print its id
    #[command(after_help = submit::EXAMPLES)]
    Submit(submit::Args),
    /// Queue a job, show what it prints, and exit as it exits
    #[command(after_help = run::EXAMPLES)]
    Run(run::Args),
    /// List jobs
    #[command(after_help = ls::EXAMPLES, visible_alias = "list")]
    Ls(ls::Args),
    /// Show all about jobs
    #[command(after_help = show::EXAMPLES)]
    Show(show::Args),
    /// Print what a job printed
    #[command(after_help = logs::EXAMPLES)]
    Logs(logs::Args),
    /// Wait until jobs are over
    #[command(after_help = wait::EXAMPLES)]
    Wait(wait::Args),
    /// Say why a job does not run yet, when it will and what would help, or what became of it
    #[command(after_help = why::EXAMPLES)]
    Why(why::Args),
    /// End jobs for good
    #[command(after_help = cancel::EXAMPLES)]
    Cancel(cancel::Args),
    /// Keep jobs from starting
    #[command(after_help = act::HOLD_EXAMPLES)]
    Hold(act::Args),
    /// Let held jobs start
    #[command(after_help = act::RELEASE_EXAMPLES)]
    Release(act::Args),
    /// Stop running jobs and queue them again
    #[command(after_help = act::REQUEUE_EXAMPLES)]
    Requeue(act::Args),
    /// Change jobs that wait: priority, queue, limits
    #[command(after_help = update::EXAMPLES)]
    Update(update::Args),
    /// Show what happened to jobs, or follow it
    #[command(after_help = events::EXAMPLES)]
    Events(events::Args),
    /// List queues and what is in them; make, change and delete them
    #[command(after_help = queues::EXAMPLES)]
    Queues(queues::Args),
    /// List cohorts, in which queues lend to each other; make, change and delete them
    #[command(after_help = cohorts::EXAMPLES)]
    Cohorts(cohorts::Args),
    /// List priorities that have names; make, change and delete them
    #[command(after_help = priorities::EXAMPLES)]
    Priorities(priorities::Args),
    /// List machines, what they have and what is free; take them out of service
    #[command(after_help = nodes::EXAMPLES)]
    Nodes(nodes::Args),
    /// Show GPUs: who has them, use, memory, temperature; take them out of service
    #[command(after_help = gpus::EXAMPLES)]
    Gpus(gpus::Args),
    /// Show live what runs where, and what it does with its GPUs
    #[command(after_help = top::EXAMPLES)]
    Top(top::Args),
    /// Say what was used: GPU and CPU time by user, namespace, queue, day or job
    #[command(after_help = usage::EXAMPLES)]
    Usage(usage::Args),
    /// Run a trace through the scheduler in virtual time, without a server
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::Args),
    /// Make, list and remove the tokens that let programs in over TCP
    #[command(after_help = token::EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
    Token {
        /// What to do with them
        #[command(subcommand)]
        command: token::Command,
    },
    /// Say which server answers, and who it takes you for
    #[command(after_help = info::EXAMPLES)]
    Info(info::Args),
    /// Print the completion script of a shell
    #[command(after_help = completion::EXAMPLES)]
    Completion(completion::Args),
}

/// Headings stand out; everything else stays plain.
const fn styles() -> Styles {
    Styles::plain().header(clap::builder::styling::Style::new().bold()).usage(clap::builder::styling::Style::new().bold())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
