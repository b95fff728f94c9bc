//! HyperQueue through its Python package, which has the whole of it: server and worker in one process, a client over TCP beside them.
//!
//! Its command line is not in the package, so it has no figure for submits by command.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::peers::What;
use crate::peers::place::{Gates, Place, said};

/// What is run in its Python.
const SCRIPT: &str = include_str!("hyperqueue.py");

/// Version of the package.
pub(super) fn version(place: &Place) -> Result<String> {
    let mut python = place.program("python3")?;
    python.args(["-c", "import hyperqueue; print('HyperQueue', hyperqueue.get_version())"]);
    Ok(said(python).context("no Python package `hyperqueue`")?.trim().to_owned())
}

/// Seconds that it took.
pub(super) fn run(place: Place, what: What, count: u32) -> Result<f64> {
    let gates = Gates::new(&place.folder, 2)?;
    let word = match what {
        What::Api => "submit",
        What::True => "true",
        What::Cli => bail!("hq's command line is not in its Python package"),
    };
    let script = place.write("hyperqueue.py", SCRIPT)?;
    let mut python = place.program("python3")?;
    python.arg(script).arg(word).arg(count.to_string()).args(gates.paths());
    let text = said(python)?;
    let line = text.lines().last().unwrap_or_default();
    let result: Value = serde_json::from_str(line).with_context(|| format!("hyperqueue.py said `{line}`"))?;
    result["seconds"].as_f64().with_context(|| format!("hyperqueue.py said `{line}`"))
}
