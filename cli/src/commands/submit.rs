//! `flash submit`: one job from the command line, or many from a file.

use std::path::PathBuf;

use api::{JobBatch, JobSpec, ServerInfo, Submitted, SubmittedBatch};
use clap::ValueHint;
use hyper::header::{HeaderName, HeaderValue};

use crate::client::Client;
use crate::error::Error;
use crate::file::{self, Jobs};
use crate::output::{self, Output};
use crate::place::PlaceArgs;
use crate::query::Query;
use crate::spec::{NeedArgs, PolicyArgs, Surroundings};
use crate::{ids, spec};

/// The executor that runs programs of its machine.
const LOCAL: &str = "local";

pub(crate) const EXAMPLES: &str = "Examples:
  flash submit -- python train.py --epochs 10
  flash submit -n train -g 1 -m 16Gi -t 2h -- python train.py
  flash submit -q default-batch -l team=vision --start-after 2h -- ./nightly.sh
  flash submit --replicas 4 -c 2 -- ./worker        four tasks that start together
  flash submit -f job.yaml                          a file: YAML, JSON, one job or many
  flash submit -g 1 --gpu-memory 40Gi --node-selector zone=a -- python train.py
  ./make-jobs | flash submit -f -                   NDJSON from a program, all or none
  id=$(flash submit -- make test) && flash wait $id

A file says what a request says:
  name: train
  command: [python, train.py]
  workingDir: /data/run1
  resources: {cpu: 4, memory: 16Gi, gpu: 1}
  timeLimit: 2h
  env: {SEED: \"1\"}";

/// Arguments of `flash submit`.
#[derive(clap::Args, Debug)]
#[command(override_usage = "flash submit [OPTIONS] -- COMMAND...\n       flash submit [OPTIONS] -f FILE")]
pub(crate) struct Args {
    /// Read jobs from a file (`-` is stdin); options on the command line win over what it says
    #[arg(
        short = 'f',
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["command", "cpus", "mem", "gpus", "gpu_mps_units", "gpu_model", "gpu_memory", "gpu_uuid", "gpu_memory_share", "mig", "node_selector", "replicas", "workdir", "env", "env_all", "env_none"]
    )]
    file: Option<PathBuf>,
    /// Accept it, but do not start it until `flash release`
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    needs: NeedArgs,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    output: Output,
    /// Program and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND", required_unless_present = "file", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<String>,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let around = Surroundings::here()?;
    let mut jobs = match &args.file {
        Some(path) => {
            let Jobs { mut jobs, flash_jobs } = file::read(path)?;
            if !flash_jobs.is_empty() && client.get::<ServerInfo>(&Query::new("/info")).await?.executor == LOCAL {
                // The programs of a FlashJob are run as they are where there are no containers.
                for at in flash_jobs {
                    if let Some(job) = jobs.get_mut(at) {
                        job.image = None;
                    }
                }
            }
            for job in &mut jobs {
                args.policy.apply(job, around.now)?;
            }
            jobs
        }
        None => vec![spec::from_command(&args.command, &args.policy, &args.needs, &args.place, &around)?],
    };
    for job in &mut jobs {
        job.hold |= args.hold;
    }
    let headers = idempotency(args.policy.idempotency_key.as_deref())?;
    if let [job] = jobs.as_slice() {
        let submitted: Submitted = client.post(&Query::new("/jobs"), job, &headers).await?;
        args.output.print(&submitted, |one| vec![one.id.to_string()], |one, _, _| format!("{}\n", one.id))?;
        if args.output.is_table() && output::someone_reads() {
            let id = ids::short(submitted.id);
            output::note(&format!("flash: `flash logs -f {id}` follows it, `flash why {id}` says why it waits"));
        }
    } else {
        let batch: SubmittedBatch = client.post(&Query::new("/jobs:batch"), &JobBatch { jobs }, &headers).await?;
        let lines = |batch: &SubmittedBatch| batch.jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>();
        args.output.print(&batch, lines, |batch, _, _| lines(batch).join("\n") + "\n")?;
        if args.output.is_table() && output::someone_reads() {
            output::note(&format!("flash: {} jobs accepted", batch.jobs.len()));
        }
    }
    Ok(0)
}

/// The header that makes a submit safe to repeat.
pub(super) fn idempotency(key: Option<&str>) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let Some(key) = key else { return Ok(Vec::new()) };
    let value = HeaderValue::from_str(key)
        .map_err(|_| Error::usage("--idempotency-key: only visible ASCII characters and spaces are allowed"))?;
    Ok(vec![(HeaderName::from_static("idempotency-key"), value)])
}

/// Submits one job.
pub(super) async fn one(client: &Client, job: &JobSpec, key: Option<&str>) -> Result<Submitted, Error> {
    client.post(&Query::new("/jobs"), job, &idempotency(key)?).await
}
