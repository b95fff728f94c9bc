//! `cargo xtask cluster`: a real Kubernetes control plane with simulated nodes, for tests and for trying things out.
//!
//! The work is done by `flash-cluster` of the package `control-plane`; it is compiled when it is asked for, so that this program stays small.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::step::{cargo, in_path, pretty, run, step};

/// What the programs take to be compiled, with an empty cache, on two processors that do nothing else.
const COLD_BUILD: Duration = Duration::from_mins(6);

/// What tests wait for them. Go keeps what is compiled, so that the next build goes on from there.
const BUILD_LIMIT_SECS: &str = "480";

const COMMANDS: [&str; 4] = ["build", "up", "down", "status"];

const USAGE: &str = "\
usage: cargo xtask cluster build | up | down | status

  build    compile etcd, kube-apiserver and the others from their Go modules into target/control-plane (some minutes, once; needs Go)
  up       start a cluster that stays, and say how to reach it: [--nodes N] plain nodes and [--gpu-nodes N] with 8 GPUs, 2 each unless said
  down     stop it; what was in it is gone
  status   show it, and how to reach it
";

/// `cargo xtask cluster build | up [--nodes N] [--gpu-nodes N] | down | status`
pub(crate) fn command(args: &[String]) -> Result<()> {
    match args.first() {
        _ if args.iter().any(|arg| arg == "--help" || arg == "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(command) if COMMANDS.contains(&command.as_str()) => flash_cluster(args),
        Some(other) => bail!("unknown command `cluster {other}`\n\n{USAGE}"),
        None => bail!("cluster needs a command\n\n{USAGE}"),
    }
}

fn flash_cluster(args: &[String]) -> Result<()> {
    // Not quiet: the first time it compiles for minutes, and has to say so.
    let mut command = cargo(["run", "--locked", "--package", "control-plane", "--bin", "flash-cluster", "--"]);
    command.args(args);
    run(command)
}

/// Before tests: the programs are built where that is possible. Where not, the tests that need them say that they were skipped, or
/// fail if `FLASH_REQUIRE_CLUSTER=1` says so.
pub(crate) fn prepare() {
    if std::env::var_os("FLASH_TEST_KUBECONFIG").is_some() {
        println!("    the cluster of FLASH_TEST_KUBECONFIG is used");
        return;
    }
    if !in_path("go") {
        println!("    Go is not there: tests on Kubernetes will be SKIPPED (https://go.dev/dl, 1.26 or newer)\n");
        return;
    }
    let name = format!("control plane (about {} when nothing of it is built, else seconds)", pretty(COLD_BUILD));
    let built = step(&name, || flash_cluster(&["build", "--limit", BUILD_LIMIT_SECS].map(str::to_owned)));
    if built.is_err() {
        println!("    the control plane could not be built, see above: tests on Kubernetes will be SKIPPED\n");
    }
}
