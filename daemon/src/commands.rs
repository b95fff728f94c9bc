//! What the subcommands of `flashd` do, behind the argument parser.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;

use crate::config::{Config, Settings, paths};
use crate::serve::Signals;
use crate::table::Table;
use crate::{http, telemetry};

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
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
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

/// A closed standard output is nobody's fault.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(()),
    }
}
