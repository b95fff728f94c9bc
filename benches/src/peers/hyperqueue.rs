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
    python.args(["-c", "import hyperqueue; print(hyperqueue.get_version())"]);
    // A traceback would say no more.
    let version = said(python).map_err(|_| anyhow::anyhow!("no Python package `hyperqueue`"))?;
    Ok(format!("HyperQueue {}", version.trim().trim_start_matches('v')))
}

/// Seconds that it took.
pub(super) fn run(place: Place, what: What, count: u32) -> Result<f64> {
    let gates = Gates::new(&place.folder, 2)?;
    let word = match what {
        What::Api => "submit",
        What::True => "true",
        What::Cli => bail!("hq's command line is not in its Python package"),
    };
    // Not by the name of the package, which Python would then find here.
    let script = place.write("measure.py", SCRIPT)?;
    let mut python = place.program("python3")?;
    python.arg(script).arg(word).arg(count.to_string()).args(gates.paths());
    let text = said(python)?;
    let line = text.lines().last().unwrap_or_default();
    let result: Value = serde_json::from_str(line).with_context(|| format!("its script said `{line}`"))?;
    result["seconds"].as_f64().with_context(|| format!("its script said `{line}`"))
}
