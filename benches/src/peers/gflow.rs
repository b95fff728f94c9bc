//! gflow (`runqd` on PyPI): a daemon with HTTP behind its command line; each job is a session of tmux with a login shell in it.
//!
//! It has no slots for jobs without GPUs; what limits them is the number that one group of jobs may have running. A job ends by its
//! shell calling `gcancel --finish`, so that shell has to have our PATH.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::Value;

use crate::LoopOptions;
use crate::closed_loop;
use crate::connection::Dialect;
use crate::control::{Client, Endpoint};
use crate::peers::Peer;
use crate::peers::place::{Gates, Place, said, until_it_works};
use crate::server::{free_port, poll_until};

/// Longest that all the jobs may take.
const LIMIT: Duration = Duration::from_mins(5);

pub(super) struct Gflow {
    place: Place,
    gates: Gates,
    client: Client,
}

/// Version of the daemon, if all that it needs is there.
pub(super) fn version(place: &Place) -> Result<String> {
    place.need("tmux")?;
    place.need("gbatch")?;
    place.version("gflow", &place.need("gflowd")?, &["--version"])
}

impl Gflow {
    pub(super) fn start(place: Place) -> Result<Self> {
        let port = free_port()?;
        let profile = format!("export PATH='{}'\n", place.path()?.to_string_lossy());
        for name in [".profile", ".bash_profile"] {
            place.write(name, &profile)?;
        }
        let config = place.folder("config/gflow")?.join("gflow.toml");
        let text = format!("timezone = \"UTC\"\n[daemon]\nhost = \"127.0.0.1\"\nport = {port}\n");
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        for name in ["data", "state", "run"] {
            place.folder(name)?;
        }
        let gates = Gates::new(&place.folder, 1)?;
        let client = Client { endpoint: Endpoint::Tcp(format!("127.0.0.1:{port}")), token: None };
        let peer = Self { place, gates, client };
        peer.place.daemon("gflowd", peer.command("gflowd", &[])?)?;
        until_it_works("gflowd's first answer", || peer.command("gqueue", &[]))?;
        Ok(peer)
    }

    fn command(&self, program: &str, args: &[&str]) -> Result<Command> {
        let mut command = self.place.program(program)?;
        command.env("TMUX_TMPDIR", self.place.folder.join("run")).args(args);
        Ok(command)
    }

    /// Submits by HTTP, 32 connections, each job behind the first, which waits.
    pub(super) fn submits_by_api(mut self, count: u32) -> Result<f64> {
        self.hold()?;
        let options = LoopOptions { connections: 32, requests: Some(count.into()), warmup: Some(32), threads: 1, seed: 1 };
        let (result, _) = closed_loop::load(&self.client, &options, Dialect::Gflow)?;
        if result["errors"] != 0 {
            bail!("gflowd refused jobs: {}", result["first_error"]);
        }
        result["seconds"].as_f64().context("a load without its seconds")
    }

    fn jobs(&self) -> Result<Vec<Value>> {
        let answer = self.client.call(Method::GET, "/jobs", b"")?;
        answer.as_array().cloned().with_context(|| format!("gflowd lists no jobs: {answer}"))
    }
}

/// A time of a job, in seconds.
fn seconds(job: &Value, key: &str) -> Result<f64> {
    let (secs, nanos) = (job[key]["secs_since_epoch"].as_f64(), job[key]["nanos_since_epoch"].as_f64());
    match (secs, nanos) {
        (Some(secs), Some(nanos)) => Ok(secs + nanos / 1e9),
        _ => bail!("a job of gflow without `{key}`: {job}"),
    }
}

impl Peer for Gflow {
    fn hold(&mut self) -> Result<()> {
        let gate = self.gates.paths()[0].to_string_lossy().into_owned();
        said(self.command("gbatch", &["cat", &gate])?)?;
        self.gates.hold()
    }

    fn submit(&self, _number: u32) -> Result<Command> {
        self.command("gbatch", &["--depends-on", "1", "true"])
    }

    fn fill(&mut self, count: u32) -> Result<()> {
        let array = format!("1-{count}");
        let args = ["--depends-on", "1", "--max-concurrent", "2", "--auto-close", "--array", &array, "true"];
        said(self.command("gbatch", &args)?).map(drop)
    }

    fn drain(&mut self, count: u32) -> Result<f64> {
        self.gates.release();
        let jobs = poll_until("the end of all jobs", LIMIT, || {
            std::thread::sleep(Duration::from_millis(50));
            let jobs: Vec<Value> = self.jobs()?.into_iter().filter(|job| job["id"] != 1).collect();
            let ended = jobs.iter().filter(|job| !job["finished_at"].is_null()).count();
            Ok((ended == count as usize).then_some(jobs))
        })?;
        let (mut first, mut last) = (f64::INFINITY, 0.0_f64);
        for job in &jobs {
            if job["state"] != "Finished" {
                bail!("job {} of gflow is {}", job["id"], job["state"]);
            }
            first = first.min(seconds(job, "started_at")?);
            last = last.max(seconds(job, "finished_at")?);
        }
        Ok(last - first)
    }
}
