//! A soak: mixed load for an hour, with kills, and what grows meanwhile.
//!
//! What must hold: the load is seeded and varied, and its jobs really run; in the first half the daemon is killed with SIGKILL again and again, in
//! the second half one process is left alone, so that what grows shows; finished jobs are removed by retention, as they would be over months;
//! at the end every promise is checked ([`book`]). Growth is printed, not judged: the check of promises alone decides the result.

mod book;
mod load;
mod mix;
mod sample;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use self::book::{Book, Verdict};
use self::load::Load;
use self::sample::{COLUMNS, Sample, slope_per_hour};
use crate::control::runtime;
use crate::plot::{Axis, Line, Panel, svg};
use crate::server::{Server, ServerOptions, poll_until};
use crate::stats::Latencies;

/// Longest that the jobs may take to end when no more come, and that everything else may take to stop.
const SETTLE: Duration = Duration::from_mins(3);
/// Room for many small jobs, and everything old is removed within minutes.
const CONFIG: &str = "[node]\ncpus = 8\n\n[retention]\njobs = \"5m\"\nevents = \"5m\"\n";

/// How long and how hard.
#[derive(Args, Clone)]
pub(crate) struct SoakOptions {
    /// Seconds of load.
    #[arg(long, default_value_t = 3_600)]
    pub(crate) seconds: u64,
    /// Submits a second.
    #[arg(long, default_value_t = 30.0)]
    rate: f64,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between kills, in the first half; 0: none.
    #[arg(long, default_value_t = 240)]
    crash_every: u64,
    /// Watchers of all events.
    #[arg(long, default_value_t = 8)]
    watchers: usize,
    /// Seconds between samples.
    #[arg(long, default_value_t = 10)]
    sample_every: u64,
    /// Folder for `soak.csv`, `soak.svg` and `soak.json`.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerOptions,
}

/// What was seen over time.
#[derive(Default)]
struct Seen {
    samples: Vec<Sample>,
    /// When the daemon was killed, and how long it took until it answered again, in seconds.
    crashes: Vec<(f64, f64)>,
}

/// The latencies since the last sample: p50 and p99 of submits, of reads.
fn window(load: &Load) -> Result<[f64; 4]> {
    let mut book = load.book();
    let submits = std::mem::replace(&mut book.window, Latencies::new()?).summary();
    let reads = std::mem::replace(&mut book.reads, Latencies::new()?).summary();
    Ok([&submits["p50"], &submits["p99"], &reads["p50"], &reads["p99"]].map(|value| value.as_f64().unwrap_or_default()))
}

/// Samples and kills by the clock until the time is over, or the load has ended by itself.
fn conduct(options: &SoakOptions, server: &mut Server, load: &Load) -> Result<Seen> {
    let (begun, data) = (Instant::now(), server.data()?);
    let (step, total) = (Duration::from_secs(options.sample_every.max(1)), Duration::from_secs(options.seconds));
    let mut seen = Seen::default();
    let (mut next_sample, mut next_crash) = (step, Duration::from_secs(options.crash_every));
    while begun.elapsed() < total {
        if load.over.load(Ordering::Relaxed) {
            bail!("the load ended before its time");
        }
        let now = begun.elapsed();
        if now >= next_sample {
            let counts = load.book().counts;
            let pids = (server.pid(), server.runner());
            let crashes = seen.crashes.len() as u32;
            seen.samples.push(Sample::take(now.as_secs_f64(), crashes, pids, &data, counts, window(load)?));
            next_sample += step;
        }
        if options.crash_every > 0 && now >= next_crash && now < total / 2 {
            let killed = Instant::now();
            server.kill()?;
            server.restart()?;
            seen.crashes.push((now.as_secs_f64(), killed.elapsed().as_secs_f64()));
            next_crash = begun.elapsed() + Duration::from_secs(options.crash_every);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(seen)
}

/// Runs the load on a thread of its own beside the conductor, and stops both.
fn soak(options: &SoakOptions, server: &mut Server, load: &Arc<Load>) -> Result<Seen> {
    let list = server.client.call(Method::GET, "/api/v1/jobs?limit=1", b"")?;
    let revision = list["revision"].as_u64().context("a list of jobs without a revision")?;
    let (theirs, watchers) = (Arc::clone(load), options.watchers);
    let thread = std::thread::spawn(move || {
        let done = runtime()?.block_on(load::run(Arc::clone(&theirs), watchers, revision));
        theirs.over.store(true, Ordering::Relaxed);
        done
    });
    let seen = conduct(options, server, load);
    load.closing.store(true, Ordering::Relaxed);
    let settled = poll_until("the end of all jobs", SETTLE, || {
        let done = load.open.load(Ordering::Relaxed) == 0 && load.book().is_settled();
        Ok((done || load.over.load(Ordering::Relaxed)).then_some(()))
    });
    load.over.store(true, Ordering::Relaxed);
    let loaded = thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
    loaded?;
    if let Err(error) = settled {
        load.book().fault(format!("{error:#}"));
    }
    seen
}

/// Growth an hour of what should not grow, over the last 40 % of the time: one process, with retention at work.
fn growth(samples: &[Sample]) -> Value {
    let calm = &samples[samples.len() * 6 / 10..];
    let mean = |column: &str| calm.iter().map(|sample| sample.get(column)).sum::<f64>() / calm.len().max(1) as f64;
    let columns = COLUMNS.iter().filter(|name| !matches!(**name, "seconds" | "crashes" | "acknowledged" | "finished"));
    columns
        .map(|name| {
            let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
            ((*name).to_owned(), json!({"mean": round(mean(name)), "per_hour": round(slope_per_hour(calm, name))}))
        })
        .collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn csv(samples: &[Sample]) -> String {
    let mut text = COLUMNS.join(",") + "\n";
    for sample in samples {
        for (index, value) in sample.values().iter().enumerate() {
            // Writing into a string cannot fail.
            let _ = write!(text, "{}{}", if index == 0 { "" } else { "," }, (value * 1_000.0).round() / 1_000.0);
        }
        text.push('\n');
    }
    text
}

fn chart(options: &SoakOptions, seen: &Seen) -> String {
    let line = |name: &str, value: &dyn Fn(&Sample) -> f64| Line {
        name: name.to_owned(),
        points: seen.samples.iter().map(|sample| (sample.get("seconds") / 60.0, value(sample))).collect(),
    };
    let of = |column: &'static str| move |sample: &Sample| sample.get(column);
    let panel = |title: &str, lines: Vec<Line>| Panel { title: title.to_owned(), lines, log_y: false };
    let panels = [
        panel(
            "resident memory, MiB",
            vec![
                line("daemon", &of("daemon_rss_mib")),
                line("daemon, anonymous", &of("daemon_anon_mib")),
                line("runner", &of("runner_rss_mib")),
            ],
        ),
        panel("open descriptors", vec![line("daemon", &of("daemon_fds")), line("runner", &of("runner_fds"))]),
        panel("threads", vec![line("daemon", &of("daemon_threads")), line("runner", &of("runner_threads"))]),
        panel(
            "files on disk, MiB",
            vec![
                line("database", &of("database_mib")),
                line("its log (WAL)", &of("wal_mib")),
                line("output of jobs", &of("log_mib")),
                line("runner's journal", &of("runner_dir_mib")),
            ],
        ),
        panel("files with output", vec![line("files", &of("log_files"))]),
        panel("submits, ms", vec![line("p50", &of("submit_p50_ms")), line("p99", &of("submit_p99_ms"))]),
        panel("reads, ms", vec![line("p50", &of("read_p50_ms")), line("p99", &of("read_p99_ms"))]),
        panel(
            "jobs under way",
            vec![line("acknowledged, not ended", &|sample| sample.get("acknowledged") - sample.get("finished"))],
        ),
    ];
    let marks: Vec<f64> = seen.crashes.iter().map(|(at, _)| at / 60.0).collect();
    let title =
        format!("soak: {} submits a second for {} s; red: kill -9 of the daemon and restart", options.rate, options.seconds);
    svg(&title, &Axis { title: "minutes", log: false, marks: &marks }, &panels)
}

/// Soaks and reports.
pub(crate) fn run(options: &SoakOptions) -> Result<Value> {
    if !(0.1..=2_000.0).contains(&options.rate) {
        bail!("--rate is from 0.1 to 2000, not {}", options.rate);
    }
    let mut server_options = options.server.clone();
    CONFIG.clone_into(&mut server_options.config);
    let mut server = Server::open(&server_options)?;
    if server.name != "flashd" {
        bail!("a soak kills its daemon: without --server and --bare");
    }
    let load = Arc::new(Load {
        client: server.client.clone(),
        rate: options.rate,
        seed: options.seed,
        stamps: server.folder()?.join("stamps"),
        book: Mutex::new(Book::new()?),
        closing: AtomicBool::new(false),
        over: AtomicBool::new(false),
        open: AtomicU64::new(0),
    });
    let seen = soak(options, &mut server, &load)?;
    server.stop();
    let stamps = load.stamps.clone();
    let book = std::mem::replace(&mut *load.book.lock().unwrap_or_else(PoisonError::into_inner), Book::new()?);
    let (counts, submits) = (book.counts, book.submits.summary());
    let Verdict { faults, fault_count, runs, started_over, lost } = book.check(&stamps)?;
    let result = json!({
        "mode": "soak", "seconds": options.seconds, "rate": options.rate, "seed": options.seed, "watchers": options.watchers,
        "acknowledged": counts.acknowledged, "finished": counts.finished, "runs": runs, "started_over": started_over,
        "attempts_lost": lost, "repeated_submits": counts.repeated, "actions": counts.acted, "reads": counts.read,
        "events_watched": counts.events, "watchers_resumed": counts.resumed,
        "crashes": seen.crashes.len(), "restart_s": seen.crashes.iter().map(|(_, took)| (took * 1_000.0).round() / 1_000.0).collect::<Vec<_>>(),
        "submit_ms": submits, "growth": growth(&seen.samples), "errors": fault_count, "first_error": faults,
    });
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
        write(&out.join("soak.csv"), &csv(&seen.samples))?;
        write(&out.join("soak.svg"), &chart(options, &seen))?;
        write(&out.join("soak.json"), &serde_json::to_string_pretty(&result).context("writing the result")?)?;
    }
    if fault_count > 0 {
        bail!("{fault_count} promises were broken: {result}");
    }
    Ok(result)
}
