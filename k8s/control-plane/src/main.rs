//! `flash-cluster`: a cluster that stays until it is taken down. People reach it as `cargo xtask cluster`.
//!
//! `up` starts a keeper in a session of its own, which holds the cluster and waits on a socket; `down` speaks to that. Whatever ends the
//! keeper ends the cluster.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use control_plane::{Cluster, NodeSpec, Options, Programs, target_dir};

/// How long a build may take that a person waits for.
const NO_LIMIT: Duration = Duration::from_hours(2);

const USAGE: &str = "usage: flash-cluster build [--limit SECONDS] | up [--nodes N] [--gpu-nodes N] | down | status";

fn folder() -> PathBuf {
    target_dir().join("control-plane/up")
}

/// Beside the folder, which the cluster empties when it starts. Relative, because a socket's path is short.
fn socket() -> PathBuf {
    folder().with_extension("sock")
}

fn connect() -> std::io::Result<UnixStream> {
    UnixStream::connect(socket())
}

/// Numbers behind `--nodes` and `--gpu-nodes`.
fn nodes(args: &[String]) -> Result<Vec<NodeSpec>> {
    let (mut plain, mut gpu) = (2_u32, 2_u32);
    for pair in args.chunks(2) {
        let [name, value] = pair else { bail!("`{}` needs a number\n{USAGE}", pair.concat()) };
        let number = value.parse().with_context(|| format!("`{value}` of `{name}` is not a number"))?;
        match name.as_str() {
            "--nodes" => plain = number,
            "--gpu-nodes" => gpu = number,
            other => bail!("unknown option `{other}`\n{USAGE}"),
        }
    }
    let plain = (0..plain).map(|number| NodeSpec::plain(format!("node-{number}")));
    Ok(plain.chain((0..gpu).map(|number| NodeSpec::with_gpus(format!("gpu-{number}")))).collect())
}

fn build(args: &[String]) -> Result<()> {
    let limit = match args {
        [] => NO_LIMIT,
        [name, value] if name == "--limit" => {
            Duration::from_secs(value.parse().with_context(|| format!("`{value}` is not a number of seconds"))?)
        }
        _ => bail!("{USAGE}"),
    };
    Programs::build(limit)?;
    println!("the control plane is in {}", target_dir().join("control-plane/bin").display());
    Ok(())
}

fn up(args: &[String]) -> Result<()> {
    nodes(args)?;
    if connect().is_ok() {
        bail!("a cluster is up already; `cargo xtask cluster down` takes it down");
    }
    Programs::build(NO_LIMIT)?;
    let mut command = Command::new(std::env::current_exe().context("finding the own program")?);
    command.arg("keep").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("starting the keeper")?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe to the keeper")?);
    let mut line = String::new();
    lines.read_line(&mut line).context("waiting for the cluster")?;
    if line.trim() != "ready" {
        let status = child.wait().context("waiting for the keeper")?;
        bail!("the cluster did not come up: the keeper ended with {status}");
    }
    status()
}

/// Holds the cluster until somebody says that it is to go.
fn keep(args: &[String]) -> Result<()> {
    // The terminal that it was started from may close. Where it leads a group already this fails, and the group does as well.
    let _ = rustix::process::setsid();
    let options = Options { nodes: nodes(args)?, folder: Some(folder()), ..Options::default() };
    let cluster = Cluster::start(options)?;
    // Whoever has the folder has the socket; one that is left is of a keeper that was killed.
    let _ = std::fs::remove_file(socket());
    let listener = UnixListener::bind(socket()).context("listening for `down`")?;
    println!("ready");
    std::io::stdout().flush().context("saying that it is ready")?;
    for stream in listener.incoming() {
        let mut stream = stream.context("taking a connection")?;
        let mut word = String::new();
        // One that says nothing only wanted to know whether we are here.
        if BufReader::new(&stream).read_line(&mut word).is_ok() && word.trim() == "down" {
            drop(cluster);
            std::fs::remove_file(socket()).context("removing the socket")?;
            return stream.write_all(b"down\n").context("answering");
        }
    }
    Ok(())
}

fn down() -> Result<()> {
    let Ok(mut stream) = connect() else {
        println!("no cluster is up");
        return Ok(());
    };
    stream.write_all(b"down\n").context("speaking to the keeper")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("waiting for the keeper")?;
    if answer.trim() != "down" {
        bail!("the keeper ended without an answer");
    }
    println!("down");
    Ok(())
}

fn status() -> Result<()> {
    if connect().is_err() {
        println!("no cluster is up; `cargo xtask cluster up` starts one");
        return Ok(());
    }
    let kubeconfig = folder().join("admin.kubeconfig");
    let kubectl = Programs::find()?.path("kubectl");
    let ask = |args: &[&str]| {
        let status = Command::new(&kubectl).arg("--kubeconfig").arg(&kubeconfig).args(args).status();
        status.context("starting kubectl")
    };
    ask(&["version"])?;
    ask(&["get", "nodes", "--output", "wide"])?;
    println!(
        "\nexport KUBECONFIG={}\nexport PATH={}:$PATH",
        kubeconfig.display(),
        target_dir().join("control-plane/bin").display()
    );
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, rest)) => match command.as_str() {
            "build" => build(rest),
            "up" => up(rest),
            "keep" => keep(rest),
            "down" => down(),
            "status" => status(),
            other => Err(anyhow::anyhow!("unknown command `{other}`\n{USAGE}")),
        },
        None => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flash-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
