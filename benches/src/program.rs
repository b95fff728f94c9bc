//! How long a program takes as a whole process: the start of `flash`, and what it needs for a short list.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use crate::control::Endpoint;
use crate::floors::true_program;
use crate::server::{Server, ServerOptions};
use crate::stats::Latencies;

/// Jobs in the short list.
const JOBS: u32 = 20;

/// Runs the command again and again; each must succeed.
fn time(count: u32, command: impl Fn() -> Command) -> Result<Latencies> {
    let mut took = Latencies::new()?;
    for _ in 0..count {
        let mut command = command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("starting {}", command.get_program().display()))?;
        took.add(begun.elapsed());
        if !status.success() {
            bail!("{} ended with {status}", command.get_program().display());
        }
    }
    Ok(took)
}

/// `flash --version` and `flash ls` with a queue of 20, beside `true`.
pub(crate) fn run(count: u32, flash: Option<PathBuf>, options: &ServerOptions) -> Result<Value> {
    let flash = match flash {
        Some(path) => path,
        None => std::env::current_exe().context("finding this program")?.with_file_name("flash"),
    };
    let mut server = Server::open(options)?;
    server.hold_node()?;
    let jobs: Vec<Value> = (0..JOBS).map(|number| json!({"name": format!("short-{number}"), "command": ["true"]})).collect();
    server.client.call(Method::POST, "/api/v1/jobs:batch", json!({"jobs": jobs}).to_string().as_bytes())?;
    let Endpoint::Unix(socket) = &server.client.endpoint else {
        bail!("flash is measured over the Unix socket: --transport unix")
    };
    let address = format!("unix://{}", socket.display());
    let program = true_program()?;
    let bare = time(count, || Command::new(program))?;
    let version = time(count, || {
        let mut command = Command::new(&flash);
        command.arg("--version");
        command
    })?;
    let list = time(count, || {
        let mut command = Command::new(&flash);
        command.args(["ls", "--server", &address]);
        command
    })?;
    Ok(
        json!({"mode": "program", "count": count, "true_ms": bare.summary(), "version_ms": version.summary(), "ls_ms": list.summary()}),
    )
}
