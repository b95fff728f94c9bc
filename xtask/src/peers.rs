//! Other schedulers for `cargo xtask bench`: what of them is there, and what the registries give.
//!
//! What must hold: everything lands in one folder below `target/`; the system itself is not changed, so Debian's packages are unpacked
//! there and not installed. A peer that cannot be had is said to be absent with the reason, and is never an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step::{Ended, cargo, in_path, output_of, program, run_until, target_dir};

/// Those that are known.
pub(crate) const ALL: [&str; 6] = ["hq", "pueue", "gflow", "tsp", "nq", "slurm"];

/// The versions that the drivers in `benches/` were written for.
const HYPERQUEUE: &str = "hyperqueue==0.27.0";
const GFLOW: &str = "runqd==0.4.18";
const PUEUE: &str = "4.0.4";

/// A download; compiling.
const DOWNLOAD: Duration = Duration::from_mins(5);
const COMPILE: Duration = Duration::from_mins(40);

/// A peer, as the load generator finds it.
pub(crate) struct Found {
    /// Its version, or why it is not there.
    pub(crate) version: Result<String, String>,
    /// What an accepted submit is worth.
    pub(crate) durability: String,
}

/// The folder that they are installed in.
pub(crate) fn prefix() -> PathBuf {
    target_dir().join("peers")
}

/// Asks the load generator which of `wanted` are there.
pub(crate) fn find(loadgen: &Path, wanted: &[String]) -> Result<BTreeMap<String, Found>> {
    let mut command = program(loadgen);
    command.arg("peers").arg("--prefix").arg(prefix());
    let found: BTreeMap<String, Value> = serde_json::from_str(&output_of(command)?).context("what `loadgen peers` says")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |about: &Value| Found {
        version: about["version"].as_str().map(str::to_owned).ok_or_else(|| text(&about["missing"])),
        durability: text(&about["durability"]),
    };
    Ok(found.iter().filter(|(name, _)| wanted.contains(name)).map(|(name, about)| (name.clone(), one(about))).collect())
}

/// Runs a step of an installation; its last words when it fails.
fn attempt(command: std::process::Command, limit: Duration) -> Result<String> {
    match run_until(command, limit)? {
        Ended::InTime { success: true, text } => Ok(text),
        Ended::InTime { text, .. } => {
            bail!("{}", text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed in silence"))
        }
        Ended::TooLate => bail!("not done within {} min", limit.as_secs() / 60),
    }
}

/// A package into the Python environment, which is made first if it is not there.
fn python(package: &str) -> Result<()> {
    let venv = prefix().join("venv");
    if !venv.join("bin/pip").is_file() {
        if !in_path("python3") {
            bail!("no program `python3`");
        }
        let mut make = program("python3");
        make.args(["-m", "venv"]).arg(&venv);
        attempt(make, DOWNLOAD).context("making a Python environment")?;
    }
    let mut pip = program(venv.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:", package]);
    attempt(pip, DOWNLOAD).with_context(|| format!("pip install {package}")).map(drop)
}

fn pueue() -> Result<()> {
    let mut install = cargo(["install", "pueue", "--locked", "--version", PUEUE, "--root"]);
    install.arg(prefix());
    // A build folder of its own: ours would be rebuilt for its options afterwards.
    install.arg("--target-dir").arg(prefix().join("build"));
    attempt(install, COMPILE).context("cargo install pueue").map(drop)
}

/// The archives that apt would install for these packages, the system's own left out.
fn archives(packages: &[&str]) -> Result<Vec<String>> {
    let mut ask = program("apt-get");
    ask.args(["install", "--simulate", "--no-install-recommends", "-q"]).args(packages);
    let text = attempt(ask, DOWNLOAD)?;
    Ok(text.lines().filter_map(|line| Some(line.strip_prefix("Inst ")?.split(' ').next()?.to_owned())).collect())
}

/// Packages of Debian, unpacked below the prefix.
fn debian(packages: &[&str]) -> Result<()> {
    if !in_path("apt-get") || !in_path("dpkg") {
        bail!("no program `apt-get`, and nothing of it in PATH");
    }
    let needed = match archives(packages) {
        Ok(needed) => needed,
        // Without its lists apt knows no package.
        Err(first) => {
            let mut update = program("apt-get");
            update.args(["update", "-q"]);
            attempt(update, DOWNLOAD).with_context(|| format!("{first:#}; apt-get update"))?;
            archives(packages)?
        }
    };
    let folder = prefix().join("archives");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    if needed.is_empty() {
        return Ok(());
    }
    let mut download = program("apt-get");
    download.args(["download", "-q"]).args(&needed).current_dir(&folder);
    attempt(download, DOWNLOAD).context("apt-get download")?;
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    for archive in
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|end| end == "deb"))
    {
        let mut unpack = program("dpkg");
        unpack.arg("--extract").arg(&archive).arg(prefix().join("debian"));
        attempt(unpack, DOWNLOAD).with_context(|| format!("unpacking {}", archive.display()))?;
    }
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

fn install_one(name: &str) -> Result<()> {
    match name {
        "hq" => python(HYPERQUEUE),
        "gflow" => {
            if !in_path("tmux") {
                debian(&["tmux"])?;
            }
            python(GFLOW)
        }
        "pueue" => pueue(),
        "tsp" => debian(&["task-spooler"]),
        "nq" => debian(&["nq"]),
        "slurm" => debian(&["slurm-wlm", "munge"]),
        other => bail!("there is no way to install `{other}`"),
    }
}

/// Which of `wanted` are there; with `install`, after those that are not were asked for at their registries.
pub(crate) fn gather(loadgen: &Path, wanted: &[String], install: bool) -> Result<BTreeMap<String, Found>> {
    let mut found = find(loadgen, wanted)?;
    let missing: Vec<String> = found.iter().filter(|(_, about)| about.version.is_err()).map(|(name, _)| name.clone()).collect();
    if install && !missing.is_empty() {
        let folder = prefix();
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let failures: BTreeMap<String, String> = missing
            .into_iter()
            .filter_map(|name| {
                println!("    installing {name}");
                let error = install_one(&name).err()?;
                Some((name, format!("{error:#}")))
            })
            .collect();
        found = find(loadgen, wanted)?;
        for (name, failure) in failures {
            if let Some(Found { version: Err(why), .. }) = found.get_mut(&name) {
                *why = format!("{why} ({failure})");
            }
        }
    }
    for (name, about) in &found {
        match &about.version {
            Ok(version) => println!("    {name:<6} {version}"),
            Err(why) => println!("    {name:<6} not installed: {why}"),
        }
    }
    Ok(found)
}
