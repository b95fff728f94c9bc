//! `flash simulate`: runs a trace through the scheduler in virtual time and prints how it went; replays decision logs; and says when jobs
//! that wait on a server would start.
//!
//! Only the last needs a server. The formats of others are read by the simulator; what is written in the words of this client (machines on
//! the command line, our own trace format) is read here.

mod change;
mod jsonl;
mod nodes;
mod present;
mod print;
mod queues;
mod replay;
mod starts;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use api::quantity::Duration;
use clap::ValueEnum;
use simulator::scheduler::Preemption;
use simulator::{Cluster, DecisionLog, Estimate, Machine, Options, Outcome, Policy, Scale, Workload};

use super::apply;
use crate::client::Client;
use crate::error::Error;
use crate::output;
use crate::table::Look;

pub(crate) const EXAMPLES: &str = "Examples:
  flash simulate --trace lublin_256.swf --format swf --policy easy
  flash simulate --trace lublin_256.swf --format swf --policy easy --estimate factor:5 --seed 7
  flash simulate --trace lublin_256.swf --format swf --policy easy --reservations 8
  flash simulate --trace pods.csv --format openb --nodes nodes.csv --policy flash -o json
  flash simulate --trace mine.jsonl --format jsonl --nodes '32*cpu=64,memory=512Gi,gpu=8;4*cpu=128' --chart mine.svg
  flash simulate --format kueue-baseline --policy fifo
  flash simulate --format kueue-large --preemption within-queue,reclaim
  flash simulate --trace mine.jsonl --format jsonl --nodes '8*cpu=64,gpu=8' --queues queues.yaml
  flash simulate --replay /var/log/flash-sched/decisions.jsonl
  flash simulate --from-server
  flash simulate --from-server --add-node 'cpu=64,memory=512Gi,gpu=8' --set-queue default-batch.limit.gpu=4
  flash simulate --from-server --drain node-3 --assume-runtime 2h -o json";

/// Largest trace that is read, in bytes.
const LARGEST: u64 = 4 << 30;

/// How long a run without a time limit is taken to last, unless told otherwise.
const ASSUMED: Duration = Duration(3_600_000_000);

/// Arguments of `flash simulate`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The trace; kueue-baseline and kueue-large are generated and need none
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How the trace is written, or which workload is generated
    #[arg(long, value_enum, value_name = "FORMAT", required_unless_present_any = ["replay", "from_server"])]
    format: Option<Format>,
    /// The machines: `32*cpu=64,memory=512Gi,gpu=8`, several kinds separated by `;`; or a CSV file with the columns
    /// sn,cpu_milli,memory_mib,gpu [default: swf: cpu=256; philly: 96*gpu=8; kueue: the quota of a cohort]
    #[arg(long, value_name = "SPEC|FILE")]
    nodes: Option<String>,
    /// Who runs next: fifo lets nobody pass whoever does not fit; easy backfills; flash also lets short jobs pass long ones and tenants
    /// take turns
    #[arg(long, value_enum, default_value_t = PolicyName::Flash)]
    policy: PolicyName,
    /// So many jobs that cannot start each get a reservation, and nobody who starts beside them may delay any: 1 to 64; not with fifo
    /// [default: one, as in EASY backfill]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=i64::from(simulator::scheduler::HEADS_LIMIT)))]
    reservations: Option<u32>,
    /// Queues and cohorts, as `flash queues apply` takes them and `flash queues -o yaml` prints them: jobs of a queue that is described
    /// wait under its rules, whatever the policy
    #[arg(long, value_name = "FILE")]
    queues: Option<PathBuf>,
    /// Whose runs may be ended to make room, separated by commas: within-queue, reclaim, across-queues, or none
    /// [default: flash: reclaim; others: none]
    #[arg(long, value_name = "WHOSE", value_parser = preemption)]
    preemption: Option<Preemption>,
    /// Time limits of jobs that have none in the trace: exact, factor:K (the run time, times 1 to K), none
    /// [default: exact; kueue: none]
    #[arg(long, value_name = "HOW")]
    estimate: Option<Estimate>,
    /// Seed of all that is drawn: factors of estimates, order of simultaneous arrivals of generated workloads
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How to print the figures
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    output: Shape,
    /// Draw queue length and use over time into this SVG file
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Write every decision to this file, as flashd does with --decision-log
    #[arg(long, value_name = "FILE")]
    decision_log: Option<PathBuf>,
    /// Replay the decision log of a daemon or a simulation instead, and compare every answer: exit code 1 if one differs
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "format", "nodes", "queues", "estimate", "preemption", "reservations", "chart", "decision_log"])]
    replay: Option<PathBuf>,
    /// Instead of a trace, take what runs and waits on the server now, and say when each job would start
    #[arg(long, conflicts_with_all = ["trace", "format", "nodes", "queues", "estimate", "preemption", "reservations", "chart", "decision_log", "replay"])]
    from_server: bool,
    /// With --from-server: how long a run is taken to last that has no time limit [default: 1h]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["format", "replay"])]
    assume_runtime: Option<Duration>,
    #[command(flatten)]
    changes: change::Changes,
}

impl Args {
    /// Whether a server is asked.
    pub(crate) const fn needs_server(&self) -> bool {
        self.from_server
    }
}

/// `within-queue,reclaim`.
fn preemption(text: &str) -> Result<Preemption, String> {
    let mut whose = Preemption::default();
    for word in text.split(',').filter(|word| text != "none" || *word != "none") {
        match word {
            "within-queue" => whose.within_queue = true,
            "reclaim" => whose.reclaim = true,
            "across-queues" => whose.across_queues = true,
            other => return Err(format!("`{other}` is none of within-queue, reclaim, across-queues, none")),
        }
    }
    Ok(whose)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Standard Workload Format
    Swf,
    /// Microsoft's Philly clusters: timestamp,duration,num_gpus,gpu_time,cluster
    Philly,
    /// Alibaba's list of GPU pods, 2023
    Openb,
    /// Kueue's baseline workload: 15,000 jobs in 30 queues
    KueueBaseline,
    /// Kueue's large-scale workload: 50,000 jobs in 1,000 queues
    KueueLarge,
    /// One JSON object a line: at, duration, timeLimit, priority, queue, namespace, replicas, resources
    Jsonl,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyName {
    Fifo,
    Easy,
    Flash,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

impl Format {
    fn generated(self) -> Option<Scale> {
        match self {
            Self::KueueBaseline => Some(Scale::Baseline),
            Self::KueueLarge => Some(Scale::Large),
            _ => None,
        }
    }

    /// The word on the command line.
    fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl From<PolicyName> for Policy {
    fn from(name: PolicyName) -> Self {
        match name {
            PolicyName::Fifo => Self::Fifo,
            PolicyName::Easy => Self::Easy,
            PolicyName::Flash => Self::Flash,
        }
    }
}

/// Simulates, or replays.
pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    if let Some(path) = &args.replay {
        return replay::run(path, args.output);
    }
    let Some(format) = args.format else { return Err(Error::usage("--format: the format of the trace is needed")) };
    if let (PolicyName::Fifo, Some(_)) = (args.policy, args.reservations) {
        return Err(Error::usage("--reservations: the policy fifo has none; use easy or flash"));
    }
    let mut workload = workload(args, format)?;
    if let Some(path) = &args.queues {
        let described = apply::read(path)?;
        let queues = described.queues.iter().map(|(name, spec)| queues::queue(name, spec)).collect();
        let cohorts = described.cohorts.iter().map(|(name, spec)| queues::cohort(name, spec)).collect();
        workload.describe(queues, cohorts);
    }
    let cluster = Cluster::new(machines(args, format)?);
    let estimate = args.estimate.unwrap_or(if format.generated().is_some() { Estimate::None } else { Estimate::Exact });
    estimate.apply(&mut workload, args.seed);
    let options = Options {
        preemption: args.preemption,
        reservations: args.reservations,
        seed: args.seed,
        series: args.chart.is_some(),
        ..Options::new(args.policy.into())
    };
    let outcome = simulate(args.decision_log.as_deref(), &workload, &cluster, options)?;
    let run =
        print::Run { trace: name(args, format), format: format.word(), estimate, cluster: &cluster, report: &outcome.report };
    if let (Some(path), Some(series)) = (&args.chart, &outcome.series) {
        let chart = simulator::svg(series, &cluster, &run.title());
        std::fs::write(path, chart).map_err(|error| Error::usage(format!("--chart {}: {error}", path.display())))?;
    }
    let text = match args.output {
        Shape::Json => output::json(&run.json()?)?,
        Shape::Table => run.table(Look::stdout()),
    };
    output::print(&text)?;
    Ok(0)
}

/// Says when jobs of a server would start.
pub(crate) async fn ask(client: &Client, args: &Args) -> Result<u8, Error> {
    starts::run(client, &args.changes, args.assume_runtime.unwrap_or(ASSUMED), args.output).await
}

fn simulate(log: Option<&Path>, workload: &Workload, cluster: &Cluster, options: Options) -> Result<Outcome, Error> {
    let wrong = |error: simulator::SimulateError| Error::usage(error.to_string());
    let Some(path) = log else { return simulator::simulate(workload, cluster, options).map_err(wrong) };
    let unwritten = |error: std::io::Error| Error::usage(format!("--decision-log {}: {error}", path.display()));
    let log = DecisionLog::new(std::io::BufWriter::new(std::fs::File::create(path).map_err(unwritten)?));
    let outcome = simulator::simulate_recorded(workload, cluster, options, Some(log.tap())).map_err(wrong)?;
    log.finish().map_err(unwritten)?;
    Ok(outcome)
}

/// What the trace is called in messages.
fn name(args: &Args, format: Format) -> String {
    args.trace.as_ref().map_or_else(|| format.word(), |path| path.display().to_string())
}

fn workload(args: &Args, format: Format) -> Result<Workload, Error> {
    if let Some(scale) = format.generated() {
        if args.trace.is_some() {
            return Err(Error::usage(format!("--trace: {} is generated and reads no trace", format.word())));
        }
        return Ok(simulator::kueue(scale, args.seed));
    }
    let Some(path) = &args.trace else {
        return Err(Error::usage(format!("--trace: a trace is needed for --format {}", format.word())));
    };
    let (name, text) = (name(args, format), load("--trace", path)?);
    let read = match format {
        Format::Swf => simulator::swf(&name, &text),
        Format::Philly => simulator::philly(&name, &text),
        Format::Openb => simulator::openb(&name, &text),
        Format::Jsonl | Format::KueueBaseline | Format::KueueLarge => return jsonl::read(&name, &text),
    };
    read.map_err(|error| Error::usage(error.to_string()))
}

fn machines(args: &Args, format: Format) -> Result<Vec<Machine>, Error> {
    if let Some(spec) = &args.nodes {
        // A specification says `=` for every amount; what does not, or is there, is a file.
        if spec.contains('=') && !Path::new(spec).is_file() {
            return nodes::parse("--nodes", spec);
        }
        let text = load("--nodes", Path::new(spec))?;
        return simulator::openb_nodes(spec, &text).map_err(|error| Error::usage(error.to_string()));
    }
    match (format, format.generated()) {
        (_, Some(scale)) => Ok(scale.machines()),
        (Format::Swf, _) => nodes::parse("--nodes", &format!("cpu={}", simulator::SWF_PROCESSORS)),
        (Format::Philly, _) => nodes::parse("--nodes", &format!("{}*gpu=8", simulator::PHILLY_NODES)),
        (format, _) => Err(Error::usage(format!(
            "--nodes: the machines are needed for --format {}, as '32*cpu=64,memory=512Gi,gpu=8' or as a CSV file",
            format.word()
        ))),
    }
}

fn load(flag: &str, path: &Path) -> Result<String, Error> {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().map_err(|error| Error::usage(format!("{flag} {}: {error}", path.display())))?;
    if text.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{flag} {}: larger than {} GiB", path.display(), LARGEST >> 30)));
    }
    Ok(text)
}
