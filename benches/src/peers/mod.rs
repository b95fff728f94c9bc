//! Other schedulers, driven the way their users drive them, on the same two processors.
//!
//! What must hold: each is started in a fresh folder with an environment of its own, nothing of the person's who measures; what is
//! submitted to measure submits does not run meanwhile; a submit counts when the peer's client says that it was accepted, whatever
//! that is worth there (the `durability` of each says what); `true` jobs are all in line before the first may start. A peer that
//! cannot do one of these is not bent into it: it has no figure there.

mod gflow;
mod hyperqueue;
mod nq;
mod ours;
mod place;
mod pueue;
mod slurm;
mod task_spooler;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::peers::place::Place;
use crate::server::fresh_folder;
use crate::stats::per_second;

/// Which scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Our own, through its command line.
    Flash,
    /// HyperQueue, through its Python package.
    Hq,
    Pueue,
    Gflow,
    /// task-spooler.
    Tsp,
    Nq,
    Slurm,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Submits by its command line, one job a command, a few commands at once.
    Cli,
    /// Submits by its API, one job a request.
    Api,
    /// `true` jobs on two slots.
    True,
}

/// One measurement of one of them.
#[derive(Args, Clone)]
pub(crate) struct PeerOptions {
    /// Which.
    name: Name,
    /// What.
    what: What,
    /// Jobs.
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// Commands at once.
    #[arg(long, default_value_t = 4)]
    parallel: u32,
    /// Folder that they were installed in; what is not there is looked for in PATH.
    #[arg(long)]
    prefix: Option<PathBuf>,
    /// Folder in which a fresh one is made for its files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave that there.
    #[arg(long)]
    keep: bool,
}

/// A scheduler that runs, idle, with two slots.
trait Peer: Sync {
    /// Keeps what is submitted from running.
    fn hold(&mut self) -> Result<()>;
    /// The command that submits one `true` job.
    fn submit(&self, number: u32) -> Result<Command>;
    /// Puts `count` jobs in line the quickest way that it has.
    fn fill(&mut self, count: u32) -> Result<()>;
    /// Lets them run, and returns the seconds from the first start to the last end.
    fn drain(&mut self, count: u32) -> Result<f64>;
}

impl Name {
    const ALL: [Self; 7] = [Self::Flash, Self::Hq, Self::Pueue, Self::Gflow, Self::Tsp, Self::Nq, Self::Slurm];

    fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What is on disk when a submit was accepted.
    const fn durability(self) -> &'static str {
        match self {
            Self::Flash => "synced to disk (fsync) before the answer",
            Self::Hq => "memory; a journal is an option of its server that its Python package does not have",
            Self::Pueue => "state file rewritten at each submit, not synced",
            Self::Gflow => "state file rewritten a moment later, not synced",
            Self::Tsp => "memory",
            Self::Nq => "a file a job, not synced; the waiting process is the queue",
            Self::Slurm => "state files written within seconds after the answer",
        }
    }

    /// The version, or what is missing.
    fn version(self, place: &Place) -> Result<String> {
        match self {
            Self::Flash => ours::version(),
            Self::Hq => hyperqueue::version(place),
            Self::Pueue => {
                place.need("pueued")?;
                place.version("pueue", &place.need("pueue")?, &["--version"])
            }
            Self::Gflow => gflow::version(place),
            Self::Tsp => place.version("task-spooler", &place.need("tsp")?, &["-V"]),
            // It does not say which version it is.
            Self::Nq => place.need("nq").map(|_| "nq".to_owned()),
            Self::Slurm => slurm::version(place),
        }
    }

    fn open(self, place: Place) -> Result<Box<dyn Peer>> {
        Ok(match self {
            Self::Flash => Box::new(ours::Ours::start(&place)?),
            Self::Hq => bail!("hq is driven by its Python package alone"),
            Self::Pueue => Box::new(pueue::Pueue::start(place)?),
            Self::Gflow => Box::new(gflow::Gflow::start(place)?),
            Self::Tsp => Box::new(task_spooler::TaskSpooler::start(place)?),
            Self::Nq => Box::new(nq::Nq::start(place)?),
            Self::Slurm => Box::new(slurm::Slurm::start(place)?),
        })
    }
}

/// Submits by the command line; seconds from the first command to the end of the last.
fn by_command(peer: &dyn Peer, options: &PeerOptions) -> Result<f64> {
    place::in_parallel(options.count, options.parallel, |number| peer.submit(number))
}

fn seconds(options: &PeerOptions, place: Place) -> Result<f64> {
    match (options.name, options.what) {
        (Name::Hq, what) => hyperqueue::run(place, what, options.count),
        (Name::Gflow, What::Api) => gflow::Gflow::start(place)?.submits_by_api(options.count),
        (name, What::Api) => bail!("{} has no API to be driven here, or is measured by `submit`", name.word()),
        (name, What::Cli) => {
            let mut peer = name.open(place)?;
            peer.hold()?;
            by_command(peer.as_ref(), options)
        }
        (name, What::True) => {
            let mut peer = name.open(place)?;
            peer.hold()?;
            peer.fill(options.count)?;
            peer.drain(options.count)
        }
    }
}

/// Measures one thing.
pub(crate) fn run(options: &PeerOptions) -> Result<Value> {
    let folder = fresh_folder(&options.dir.clone().unwrap_or_else(std::env::temp_dir))?;
    let place = Place::new(options.prefix.as_deref(), &folder)?;
    let version = options.name.version(&place)?;
    let seconds =
        seconds(options, place).with_context(|| format!("driving {} (its files: {})", options.name.word(), folder.display()))?;
    if !options.keep {
        // What it still runs may write on; it is ended with this process, and its folder is then the caller's to remove.
        std::fs::remove_dir_all(&folder).ok();
    }
    Ok(
        json!({"mode": "peer", "peer": options.name.word(), "what": format!("{:?}", options.what).to_lowercase(), "version": version,
        "count": options.count, "parallel": options.parallel, "seconds": seconds,
        "per_s": per_second(u64::from(options.count), seconds), "durability": options.name.durability()}),
    )
}

/// Which of them are there: the version of each, or what is missing.
pub(crate) fn found(prefix: &Path) -> Result<Value> {
    let folder = fresh_folder(&std::env::temp_dir())?;
    let place = Place::new(Some(prefix), &folder)?;
    let all = Name::ALL.map(|name| {
        let about = match name.version(&place) {
            Ok(version) => json!({"version": version, "durability": name.durability()}),
            Err(error) => json!({"missing": format!("{error:#}"), "durability": name.durability()}),
        };
        (name.word(), about)
    });
    std::fs::remove_dir_all(&folder).ok();
    Ok(Value::Object(all.into_iter().collect()))
}
