//! What the subcommands of `flashd` do, behind the argument parser.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;

use crate::config::{Config, Settings, paths};
use crate::serve::Signals;
use crate::table::Table;
use crate::{gpus, http, telemetry};

/// `flashd serve`.
pub fn serve(settings: Settings) -> anyhow::Result<()> {
    let config = Config::load(settings)?;
    telemetry::init(config.log.format, &config.log.level)?;
    runtime()?.block_on(crate::serve::serve(config))
}

/// How long a thread for blocking work stays without any. Such threads take turns, so a longer time keeps each that a burst ever needed, with the
/// memory that its allocator holds back, for as long as there is any work at all; and to begin one costs less than what it is begun for.
const IDLE: Duration = Duration::from_millis(200);

/// Leaves a processor to the store's writer and to the jobs themselves: on two cores one worker answers more requests than two do.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.saturating_sub(1).clamp(1, 8))
        .thread_keep_alive(IDLE)
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// `flashd config check`.
pub fn config_check(settings: Settings) -> anyhow::Result<()> {
    let config = Config::load(settings)?;
    print(&config.to_toml().context("printing the configuration")?)
}

/// `flashd migrate`.
pub fn migrate(settings: Settings) -> anyhow::Result<()> {
    let mut config = Config::load(settings)?;
    // Nobody waits for a daemon to end in order to look whether its table is up to date.
    config.standby = false;
    paths::create_data(&config.data).with_context(|| format!("data folder {}", config.data.display()))?;
    let runtime = runtime()?;
    let head = runtime.block_on(async {
        let Some(table) = Table::open(&config, &mut Signals::new()?).await? else { return Ok(None) };
        let head = table.store.head();
        table.store.close().await;
        anyhow::Ok(Some(head))
    })?;
    let Some(head) = head else { return Ok(()) };
    let place = config.store.url.as_ref().map_or_else(|| config.data.display().to_string(), ToString::to_string);
    print(&format!("{place} is up to date: term {}, revision {}\n", head.term, head.last_revision))
}

/// `flashd openapi`.
pub fn openapi() -> anyhow::Result<()> {
    print(&http::openapi_json().context("writing the document")?)
}

/// `flashd crds`.
pub fn crds() -> anyhow::Result<()> {
    print(&k8s_types::definitions_yaml().context("writing the definitions")?)
}

/// `flashd doctor`: one line a check; fails if something needed is missing.
pub fn doctor(settings: Settings) -> anyhow::Result<()> {
    let config = Config::load(settings)?;
    let mut missing = 0;
    let mut lines = Vec::new();
    let mut line = |good: Option<bool>, what: &str, detail: String| {
        let word = match good {
            Some(true) => "ok  ",
            Some(false) => "FAIL",
            None => "note",
        };
        missing += u32::from(good == Some(false));
        lines.push(format!("{word}  {what}: {detail}\n"));
    };
    match paths::create_data(&config.data) {
        Ok(()) => {
            let probe = config.data.join(format!(".doctor-{}", std::process::id()));
            let written = std::fs::write(&probe, "x").and_then(|()| std::fs::remove_file(&probe));
            match written {
                Ok(()) => line(Some(true), "data folder", config.data.display().to_string()),
                Err(error) => line(Some(false), "data folder", format!("{}: {error}", config.data.display())),
            }
        }
        Err(error) => line(Some(false), "data folder", format!("{}: {error}", config.data.display())),
    }
    let machine = executors::node::inventory();
    let cpus = machine.cpu_millis as f64 / 1_000.0;
    let gib = (machine.memory_bytes >> 20) as f64 / 1_024.0;
    line(Some(true), "machine", format!("{}: {cpus} CPUs, {gib:.1}Gi of memory", machine.hostname));
    let (good, detail) = look_at_gpus(&config)?;
    line(good, "GPUs", detail);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let enough = files.is_none_or(|files| files >= 4_096);
    let detail = files.map_or_else(|| "no limit".to_owned(), |files| format!("{files} (4096 or more are good)"));
    line(if enough { Some(true) } else { None }, "open files", detail);
    print(&lines.concat())?;
    anyhow::ensure!(missing == 0, "{missing} check(s) failed");
    Ok(())
}

/// What a daemon would find.
fn look_at_gpus(config: &Config) -> anyhow::Result<(Option<bool>, String)> {
    let patience = gpus::duration(config.gpu.patience);
    let watcher = executors::gpu::Watcher::start(gpus::place(config).source(), patience, patience)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("starting")?;
    let view = runtime.block_on(gpus::first_view(&watcher, patience * 2));
    let mut problems = view.survey.problems.clone();
    problems.extend(view.stall.map(|stall| format!("the driver does not answer {}", stall.function)));
    let models: Vec<&str> = view.survey.gpus.iter().map(|reading| reading.gpu.model.as_str()).collect();
    let driver = view.survey.driver.as_ref().map(|driver| format!("driver {}, CUDA {}", driver.version, driver.cuda));
    let good = if problems.is_empty() { Some(true) } else { None };
    let parts: Vec<String> = driver.into_iter().chain((!models.is_empty()).then(|| models.join(", "))).chain(problems).collect();
    let count = models.len().to_string();
    Ok((good, [vec![count], parts].concat().join("; ")))
}

/// A closed standard output is nobody's fault.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(()),
    }
}
