//! `flash`, the client: reads the command line, does one thing, and says by its exit code how it went.
//!
//! Invariants: what is meant for programs goes to stdout, what is meant for people to stderr; no runtime, connection or certificate
//! store is made before a command needs it, so that `flash` starts in a few milliseconds; a closed stdout ends it quietly.

mod args;
mod client;
mod commands;
mod connect;
mod credential;
mod error;
mod exit;
mod file;
mod flash_job;
mod ids;
mod list;
mod logs;
mod output;
mod patch;
mod place;
mod query;
mod spec;
mod sse;
mod table;
mod tls;
mod watch;
mod when;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Cli::parse();
    match commands::dispatch(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}
